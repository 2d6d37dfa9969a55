//! Whether a service is back: a fold over what its own probes saw after a given time. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{CheckCategory, CheckResult, EventRef, Outcome};
use rebound_schemas::plan::ServiceLevel;
use rebound_schemas::{Event, EventData, ProbeId, ServiceId};

/// Observations that a verification names as its evidence, at most.
const EVIDENCE: usize = 20;

/// Every probe must be healthy so many times in a row, by observations made after a given time.
///
/// | observation of a wanted probe | its row |
/// |---|---|
/// | not later than the start, or than the probe's newest one (a redelivery) | unchanged |
/// | healthy | one more |
/// | degraded | unchanged: it counts neither way |
/// | failed | begins anew |
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    after: DateTime<Utc>,
    successes: u32,
    probes: BTreeMap<ProbeId, Row>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Row {
    successes: u32,
    newest: Option<(DateTime<Utc>, Outcome, Option<String>)>,
    /// The observations of the row, oldest first, the newest [`EVIDENCE`] of them.
    evidence: Vec<EventRef>,
}

impl Verification {
    /// Nothing was seen yet. Without any probe it never passes: nobody can tell.
    #[must_use]
    pub fn new(after: DateTime<Utc>, probes: Vec<ProbeId>, successes: u32) -> Self {
        let probes = probes.into_iter().map(|probe| (probe, Row::default())).collect();
        Self { after, successes: successes.max(1), probes }
    }

    /// Takes note of an observation; anything else changes nothing.
    pub fn evolve(&mut self, event: &Event) {
        let EventData::ProbeCompleted(data) = &event.data else { return };
        let Some(row) = self.probes.get_mut(&data.probe) else { return };
        let newest = row.newest.as_ref().map_or(self.after, |(at, ..)| *at);
        if event.occurred_at <= newest {
            return;
        }
        row.newest = Some((event.occurred_at, data.outcome, data.reason.clone()));
        match data.outcome {
            Outcome::Healthy => {
                // A failure is evidence of what is wrong now, and of nothing once the probe is healthy again.
                if row.successes == 0 {
                    row.evidence.clear();
                }
                row.successes = row.successes.saturating_add(1);
                if row.evidence.len() == EVIDENCE {
                    row.evidence.remove(0);
                }
                row.evidence.push(event.into());
            }
            Outcome::Degraded => {}
            Outcome::Failed => {
                row.successes = 0;
                row.evidence = vec![event.into()];
            }
        }
    }

    /// Whether every probe's row is long enough now.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.probes.is_empty() && self.probes.values().all(|row| row.successes >= self.successes)
    }

    /// One check a probe, in id order.
    #[must_use]
    pub fn checks(&self) -> Vec<CheckResult> {
        if self.probes.is_empty() {
            let detail = "the service has no probe, so nobody can tell whether it is back".to_owned();
            let category = Some(CheckCategory::Health);
            return vec![CheckResult { name: "probes".into(), passed: false, detail: Some(detail), category }];
        }
        let check = |(probe, row): (&ProbeId, &Row)| {
            let detail = match &row.newest {
                None => "nothing was seen after the last step".to_owned(),
                Some((_, Outcome::Failed, Some(reason))) => format!("failed: {reason}"),
                Some((_, outcome, _)) => {
                    format!("{outcome}, {} of {} successes in a row", row.successes.min(self.successes), self.successes)
                }
            };
            let passed = row.successes >= self.successes;
            let category = Some(CheckCategory::Health);
            CheckResult { name: format!("probe {probe}"), passed, detail: Some(detail), category }
        };
        self.probes.iter().map(check).collect()
    }

    /// The newest observations that the verdict rests on, shared out among the probes, at most 20.
    #[must_use]
    pub fn evidence(&self) -> Vec<EventRef> {
        let rows: Vec<_> = self.probes.values().map(|row| row.evidence.as_slice()).collect();
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or_default();
        let by_age =
            (1..=longest).flat_map(|age| rows.iter().filter_map(move |row| row.get(row.len().checked_sub(age)?)));
        by_age.take(EVIDENCE).cloned().collect()
    }
}

/// Whether a service keeps its service level: each threshold judged by the first measurement of it whose whole window
/// lies after a given time, so that the outage itself is not counted.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelCheck {
    after: DateTime<Utc>,
    service: ServiceId,
    /// What is asked for: a name, a bound, whether it is the least, and what was found.
    rows: Vec<LevelRow>,
}

#[derive(Debug, Clone, PartialEq)]
struct LevelRow {
    name: &'static str,
    bound: f64,
    at_least: bool,
    found: Option<f64>,
}

impl LevelCheck {
    /// Nothing was measured yet.
    #[must_use]
    pub fn new(after: DateTime<Utc>, service: &ServiceId, level: &ServiceLevel) -> Self {
        let row =
            |name, bound: Option<f64>, at_least| bound.map(|bound| LevelRow { name, bound, at_least, found: None });
        let rows = [
            row("response_time_ms", level.response_time.map(|time| time.as_secs_f64() * 1000.0), false),
            row("throughput_per_second", level.throughput_per_second, true),
            row("error_rate", level.error_rate, false),
            row("availability", level.availability, true),
        ];
        Self { after, service: service.clone(), rows: rows.into_iter().flatten().collect() }
    }

    /// Takes note of a measurement; anything else changes nothing.
    pub fn evolve(&mut self, event: &Event) {
        let EventData::ServiceLevelMeasured(data) = &event.data else { return };
        let length = event.occurred_at.signed_duration_since(self.after).as_seconds_f64();
        if event.subject != self.service || length <= 0.0 || data.window_seconds > length {
            return;
        }
        for row in &mut self.rows {
            let value = match row.name {
                "response_time_ms" => data.response_time_ms,
                "throughput_per_second" => data.throughput_per_second,
                "error_rate" => data.error_rate,
                _ => data.availability,
            };
            row.found = row.found.or(value);
        }
    }

    /// What was found, once every threshold was measured: those that were missed are the error.
    #[must_use]
    pub fn result(&self) -> Option<Result<String, String>> {
        let mut missed = Vec::new();
        let mut kept = Vec::new();
        for row in &self.rows {
            let found = row.found?;
            let (good, sign) = if row.at_least { (found >= row.bound, '<') } else { (found <= row.bound, '>') };
            if good {
                kept.push(format!("{} {found}", row.name));
            } else {
                missed.push(format!("{} {found} {sign} {}", row.name, row.bound));
            }
        }
        Some(if missed.is_empty() { Ok(kept.join(", ")) } else { Err(missed.join(", ")) })
    }

    /// The thresholds that nothing was measured of.
    #[must_use]
    pub fn unmeasured(&self) -> Vec<&'static str> {
        self.rows.iter().filter(|row| row.found.is_none()).map(|row| row.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rebound_schemas::event::ProbeCompleted;

    use super::*;
    use crate::testing;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_772_000_000 + second, 0).unwrap()
    }

    fn seen(probe: &str, second: i64, outcome: Outcome) -> Event {
        let reason = (outcome == Outcome::Failed).then(|| "refused".into());
        let data = ProbeCompleted { reason, ..testing::seen(probe, outcome) };
        testing::event("rebound/probe", &format!("{probe}-{second}"), "api", at(second), data)
    }

    fn verification(probes: &[&str], successes: u32) -> Verification {
        Verification::new(at(0), probes.iter().map(|p| ProbeId::new(p).unwrap()).collect(), successes)
    }

    #[test]
    fn rows_are_counted_after_the_start_only() {
        use Outcome::{Degraded, Failed, Healthy};
        let cases: &[(&[(i64, Outcome)], bool)] = &[
            (&[], false),
            (&[(1, Healthy)], false),
            (&[(1, Healthy), (2, Healthy)], true),
            (&[(-1, Healthy), (0, Healthy), (1, Healthy)], false),
            (&[(1, Healthy), (1, Healthy)], false),
            (&[(2, Healthy), (1, Healthy)], false),
            (&[(1, Healthy), (2, Degraded), (3, Healthy)], true),
            (&[(1, Degraded), (2, Degraded)], false),
            (&[(1, Healthy), (2, Failed), (3, Healthy)], false),
            (&[(1, Failed), (2, Healthy), (3, Healthy)], true),
            (&[(1, Healthy), (2, Healthy), (3, Failed)], false),
        ];
        for (observations, want) in cases {
            let mut verification = verification(&["a"], 2);
            observations.iter().for_each(|(second, outcome)| verification.evolve(&seen("a", *second, *outcome)));
            assert_eq!(verification.passed(), *want, "{observations:?}");
            assert_eq!(verification.checks()[0].passed, *want);
        }
    }

    #[test]
    fn every_probe_must_agree_and_the_checks_say_which_does_not() {
        let mut both = verification(&["a", "b"], 1);
        both.evolve(&seen("a", 1, Outcome::Healthy));
        both.evolve(&seen("other", 1, Outcome::Healthy));
        assert!(!both.passed());
        assert_eq!(both.checks()[1].detail.as_deref(), Some("nothing was seen after the last step"));
        both.evolve(&seen("b", 2, Outcome::Failed));
        assert_eq!(both.checks()[1].detail.as_deref(), Some("failed: refused"));
        let evidence = |v: &Verification| v.evidence().iter().map(|e| e.id.to_string()).collect::<Vec<_>>();
        assert_eq!(evidence(&both), ["a-1", "b-2"]);
        both.evolve(&seen("b", 3, Outcome::Healthy));
        assert!(both.passed());
        assert_eq!(evidence(&both), ["a-1", "b-3"]);
        assert!(!verification(&[], 1).passed(), "nobody looked");
    }

    proptest! {
        #![proptest_config(crate::cases::cheap())]

        #[test]
        fn redelivery_changes_nothing(
            rows in proptest::collection::vec((0..2u8, -3..40i64, 0..3usize), 0..60), again in 0..60usize,
        ) {
            let observation = |(probe, second, outcome): &(u8, i64, usize)| {
                seen(if *probe == 0 { "a" } else { "b" }, *second, Outcome::ALL[*outcome])
            };
            let (mut once, mut twice) = (verification(&["a", "b"], 3), verification(&["a", "b"], 3));
            for (index, row) in rows.iter().enumerate() {
                once.evolve(&observation(row));
                twice.evolve(&observation(row));
                // A stretch is delivered again.
                rows[index.saturating_sub(again)..=index].iter().for_each(|row| twice.evolve(&observation(row)));
            }
            prop_assert_eq!(&once, &twice);
            prop_assert!(once.evidence().len() <= EVIDENCE);
        }
    }
}
