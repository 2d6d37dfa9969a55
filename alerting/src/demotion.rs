//! Whether a procedure may still run by itself: how many of its last attempts were verified successes. A pure fold
//! over `recovery.finished`, `procedure.demoted` and `procedure.promoted`.
//!
//! An attempt that is yet to be made counts as a success, so a procedure is demoted as soon as its last
//! [`Demotion::over`] attempts can't reach the bound any more, and one that has hardly run is judged no more harshly
//! than one that has. Attempts that ended before it was promoted last count for nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{RecoveryFinished, RecoveryOutcome};
use rebound_schemas::plan::Demotion;
use rebound_schemas::{Event, RecoveryId, ServiceId};

/// Recoveries that a judgement names at most.
const MOST_NAMED: usize = 20;

/// One attempt that was really made.
#[derive(Debug, Clone, PartialEq)]
struct Attempt {
    service: ServiceId,
    verified: bool,
}

/// What is known of one procedure. Folding in any order, or twice, gives the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// The newest attempts, by the time of their end.
    attempts: BTreeMap<(DateTime<Utc>, RecoveryId), Attempt>,
    demoted_at: Option<DateTime<Utc>>,
    promoted_at: Option<DateTime<Utc>>,
}

/// A procedure that is to be demoted, and what shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Verified successes among the attempts.
    pub succeeded: u32,
    /// Attempts made since it was promoted last, of the last [`Demotion::over`].
    pub attempts: u32,
    /// Those that were no success, oldest first (the newest 20).
    pub failed: Vec<RecoveryId>,
    /// The newest attempt: the same attempts give the same demotion.
    pub newest: RecoveryId,
    /// Its service: whoever decides for it says that the procedure is demoted.
    pub service: ServiceId,
}

impl Standing {
    /// Takes the end of a recovery; `false` if it changed nothing.
    ///
    /// | outcome | is |
    /// |---|---|
    /// | succeeded | a verified success |
    /// | failed | none |
    /// | interrupted | none: what it did is not known |
    /// | cancelled, a dry run | no attempt |
    pub fn finished(&mut self, rule: &Demotion, event: &Event, data: &RecoveryFinished) -> bool {
        let verified = match data.outcome {
            RecoveryOutcome::Succeeded => true,
            RecoveryOutcome::Failed | RecoveryOutcome::Interrupted => false,
            _ => return false,
        };
        let known = self.attempts.keys().find(|(_, recovery)| *recovery == data.recovery).cloned();
        match known {
            Some((at, _)) if at <= event.occurred_at => return false,
            // Of two ends of one recovery the first by time counts.
            Some(later) => drop(self.attempts.remove(&later)),
            None => {}
        }
        let attempt = Attempt { service: event.subject.clone(), verified };
        self.attempts.insert((event.occurred_at, data.recovery.clone()), attempt);
        while self.attempts.len() > rule.over as usize {
            self.attempts.pop_first();
        }
        true
    }

    /// Takes that it was demoted; `false` if it changed nothing.
    pub fn demoted(&mut self, at: DateTime<Utc>) -> bool {
        advance(&mut self.demoted_at, at)
    }

    /// Takes that a person promoted it; `false` if it changed nothing.
    pub fn promoted(&mut self, at: DateTime<Utc>) -> bool {
        advance(&mut self.promoted_at, at)
    }

    /// Whether it was said to be demoted, and no person promoted it since.
    #[must_use]
    pub fn is_demoted(&self) -> bool {
        self.demoted_at.is_some_and(|demoted| self.promoted_at.is_none_or(|promoted| promoted < demoted))
    }

    /// Whether its recoveries wait for a person: it was demoted, or is about to be.
    #[must_use]
    pub fn needs_approval(&self, rule: Option<&Demotion>) -> bool {
        self.is_demoted() || rule.is_some_and(|rule| self.judge(rule).is_some())
    }

    /// Whether its attempts since it was promoted last have fallen below the bound.
    #[must_use]
    pub fn judge(&self, rule: &Demotion) -> Option<Judgement> {
        let since = |at: &DateTime<Utc>| self.promoted_at.is_none_or(|promoted| *at > promoted);
        let attempts = || self.attempts.iter().filter(|((at, _), _)| since(at));
        let failed: Vec<&RecoveryId> = attempts().filter(|(_, a)| !a.verified).map(|((_, id), _)| id).collect();
        let reachable = f64::from(rule.over) - failed.len() as f64;
        if reachable / f64::from(rule.over) >= rule.below {
            return None;
        }
        let ((_, newest), Attempt { service, .. }) = attempts().next_back()?;
        let made = u32::try_from(attempts().count()).unwrap_or(u32::MAX);
        Some(Judgement {
            succeeded: made - u32::try_from(failed.len()).unwrap_or(made),
            attempts: made,
            failed: failed[failed.len().saturating_sub(MOST_NAMED)..].iter().map(|id| (*id).clone()).collect(),
            newest: newest.clone(),
            service: service.clone(),
        })
    }
}

/// Takes the later time; `false` if that is the known one.
fn advance(known: &mut Option<DateTime<Utc>>, at: DateTime<Utc>) -> bool {
    let newer = *known < Some(at);
    if newer {
        *known = Some(at);
    }
    newer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn end(n: i64, second: i64, outcome: RecoveryOutcome) -> (Event, RecoveryFinished) {
        let data = RecoveryFinished {
            recovery: RecoveryId::new(&format!("rec-{n}")).unwrap(),
            incident: "inc".parse().unwrap(),
            attempt: 1,
            procedure: "restart".parse().unwrap(),
            method: None,
            outcome,
            duration_ms: 1,
            error_class: None,
            reason: None,
        };
        let event = testing::event("test", &format!("{n}"), &format!("s{n}"), at(second), data.clone());
        (event, data)
    }

    const RULE: Demotion = Demotion { below: 0.8, over: 5 };

    /// `SFIC`: succeeded, failed, interrupted, cancelled; one a second. `P` is a promotion, `D` a demotion.
    fn after(words: &str) -> Standing {
        let mut standing = Standing::default();
        for (second, letter) in (0..).zip(words.chars()) {
            let outcome = match letter {
                'S' => RecoveryOutcome::Succeeded,
                'F' => RecoveryOutcome::Failed,
                'I' => RecoveryOutcome::Interrupted,
                'C' => RecoveryOutcome::Cancelled,
                'P' => {
                    standing.promoted(at(second));
                    continue;
                }
                _ => {
                    standing.demoted(at(second));
                    continue;
                }
            };
            let (event, data) = end(second, second, outcome);
            standing.finished(&RULE, &event, &data);
        }
        standing
    }

    #[test]
    fn it_falls_below_the_bound_at_n_and_not_at_n_minus_one() {
        // Below 0.8 of five is two failures.
        for (words, needs) in [
            ("", false),
            ("F", false),
            ("FF", true),
            ("FI", true),
            ("FC", false),
            ("FCCCCCF", true),
            ("FSSSF", true),
            ("FSSSSF", false),
            ("FFSSSSS", false),
            ("FFSSSS", false),
            ("FFSSS", true),
            ("FFP", false),
            ("FFPF", false),
            ("FFPFF", true),
            ("DSSSSS", true),
            ("DP", false),
            ("PD", true),
        ] {
            assert_eq!(after(words).needs_approval(Some(&RULE)), needs, "{words}");
        }
        assert!(after("D").needs_approval(None), "until a person promotes it, whatever the plan says now");
    }

    #[test]
    fn a_judgement_names_figures_and_what_they_stand_on() {
        let judged = after("SFSF").judge(&RULE).unwrap();
        assert_eq!((judged.succeeded, judged.attempts), (2, 4));
        assert_eq!(judged.failed.iter().map(RecoveryId::as_str).collect::<Vec<_>>(), ["rec-1", "rec-3"]);
        assert_eq!((judged.newest.as_str(), judged.service.as_str()), ("rec-3", "s3"));
    }

    proptest! {
        #![proptest_config(crate::cases::cheap())]

        /// The machine agrees with the definition over the whole list; order and redelivery change nothing.
        #[test]
        fn a_standing_is_that_of_its_newest_attempts_in_any_order(
            ends in prop::collection::vec((0..40_i64, 0..4_usize), 0..30),
            promoted in prop::option::of(0..40_i64),
            over in 1..8_u32,
            below in 1..=10_u32,
            turn in any::<prop::sample::Index>(),
        ) {
            let rule = Demotion { below: f64::from(below) / 10.0, over };
            let outcomes = [RecoveryOutcome::Succeeded, RecoveryOutcome::Failed, RecoveryOutcome::Interrupted, RecoveryOutcome::Cancelled];
            let ends: Vec<_> = (0..).zip(ends).map(|(n, (second, o))| end(n, second, outcomes[o])).collect();
            let mut lived = Standing::default();
            for (event, data) in &ends {
                lived.finished(&rule, event, data);
            }
            promoted.map(|second| lived.promoted(at(second)));
            let mut turned = Standing::default();
            promoted.map(|second| turned.promoted(at(second)));
            let start = if ends.is_empty() { 0 } else { turn.index(ends.len()) };
            for (event, data) in ends[start..].iter().chain(&ends[..start]).chain(&ends[start..]) {
                turned.finished(&rule, event, data);
            }
            prop_assert_eq!(&lived, &turned);
            let mut made: Vec<_> = ends.iter().filter(|(_, data)| data.outcome != RecoveryOutcome::Cancelled).collect();
            made.sort_by_key(|(event, data)| (event.occurred_at, data.recovery.clone()));
            let newest = &made[made.len().saturating_sub(over as usize)..];
            let counted = newest.iter().filter(|(event, _)| promoted.is_none_or(|second| event.occurred_at > at(second)));
            let failures = counted.filter(|(_, data)| data.outcome != RecoveryOutcome::Succeeded).count() as u32;
            // (over − failures) ÷ over < below ÷ 10, in whole numbers.
            prop_assert_eq!(lived.judge(&rule).is_some(), (over - failures) * 10 < below * over);
        }
    }
}
