//! Which observation of a probe is later than another, though clocks are set back and messages come late or twice.
//!
//! Time alone won't do: when a prober's clock is set back by an hour, everything that it sees for an hour would be
//! older than what it saw last, and count for nothing. A prober numbers its results, and its instance runs once at a
//! time, so that order is asked for first and time where nothing else is known.

use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, Utc};
use rebound_schemas::Event;
use serde::{Deserialize, Serialize};

/// The place of one observation in its prober's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbered {
    /// Hash of the prober's instance.
    instance: u32,
    /// Hash of its run: new at every start.
    run: u32,
    /// Counted from 1 in each run.
    number: u64,
}

impl Numbered {
    /// `None` for a source that is no prober of Rebound's: what its ids mean is not known.
    fn of(event: &Event) -> Option<Self> {
        let (instance, run) = event.source.probe_run()?;
        let number = event.id.as_str().parse().ok()?;
        Some(Self { instance: hash(instance) as u32, run: hash(run) as u32, number })
    }
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The newest observation of a probe that was counted.
///
/// | the next comes from | it counts if |
/// |---|---|
/// | the same run of the same instance | its number is greater: the clock may say what it likes |
/// | a run of the same instance that counted before | it is later in time |
/// | another run of the same instance | it is later in time, or the second in succession of that run, by number |
/// | anyone else | it is later in time (at the same time, by hash of source and id) |
///
/// So a redelivered one never counts again, and one that comes after a newer one never counts. A single straggler of
/// a run that is not known is passed over; two in a row without a word from the run that counts are taken for what
/// they are when a prober was started anew after its clock was set back. What is delivered again of an earlier run,
/// however much at once, is not that: the last few runs are known. Not covered: a clock that is set back while
/// *another* instance takes the probe over; its results count when time has caught up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Newest {
    #[serde(with = "chrono::serde::ts_microseconds")]
    at: DateTime<Utc>,
    tie: u64,
    numbered: Option<Numbered>,
    /// Nothing while only one run was seen, which is the rule.
    others: Option<Box<Others>>,
}

/// Earlier runs that are known.
const PAST: usize = 6;

/// Other runs than the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Others {
    /// The last one passed over of a run that is not known, if nothing counted since.
    rival: Option<Numbered>,
    /// Runs, as hashes of instance and run, that counted before; the newest first, 0 for none.
    past: [(u32, u32); PAST],
}

impl Newest {
    /// When it was observed, by the clock of who did.
    pub(crate) fn at(&self) -> DateTime<Utc> {
        self.at
    }

    /// Takes `event` for the newest if it is; `false` if it is late or was seen before.
    pub(crate) fn advance(newest: &mut Option<Self>, event: &Event) -> bool {
        let tie = hash((event.source.as_str(), event.id.as_str()));
        let numbered = Numbered::of(event);
        let later = newest.as_mut().is_none_or(|newest| newest.precedes(event.occurred_at, tie, numbered));
        if later {
            let others = newest.take().and_then(|before| before.others_after(numbered));
            *newest = Some(Self { at: event.occurred_at, tie, numbered, others });
        }
        later
    }

    /// What is remembered of other runs once `next` counts.
    fn others_after(self, next: Option<Numbered>) -> Option<Box<Others>> {
        let mut others = self.others;
        if let Some(others) = &mut others {
            others.rival = None;
        }
        let key = |numbered: Numbered| (numbered.instance, numbered.run);
        if let Some((known, next)) = self.numbered.map(key).zip(next.map(key)).filter(|(known, next)| known != next) {
            let past = &mut others.get_or_insert_default().past;
            // The one that counts now is none of the past; the one that did is the newest of them.
            let freed = past.iter().position(|run| *run == next).unwrap_or(PAST - 1);
            past.copy_within(..freed, 1);
            past[0] = known;
        }
        others
    }

    fn precedes(&mut self, at: DateTime<Utc>, tie: u64, numbered: Option<Numbered>) -> bool {
        let later_in_time = (at, tie) > (self.at, self.tie);
        let (Some(known), Some(next)) = (self.numbered, numbered) else { return later_in_time };
        if known.instance != next.instance {
            return later_in_time;
        }
        if known.run == next.run {
            return next.number > known.number;
        }
        if later_in_time || self.others.as_ref().is_some_and(|others| others.past.contains(&(next.instance, next.run)))
        {
            return later_in_time;
        }
        let rival = &mut self.others.get_or_insert_default().rival;
        let second = rival.is_some_and(|rival| rival.run == next.run && next.number > rival.number);
        if !second {
            *rival = Some(next);
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use rebound_schemas::event::Outcome;

    fn event(source: &str, id: &str, second: i64) -> Event {
        let data = testing::seen("p", Outcome::Healthy);
        testing::event(source, id, "s", DateTime::from_timestamp(second, 0).unwrap(), data)
    }

    /// `run:number@second` of one instance, `other/run:number@second`, or `=id@second` from elsewhere; those that
    /// must count are followed by `+`.
    fn check(what: &str, steps: &str) {
        let mut newest = None;
        for step in steps.split_whitespace() {
            let (step, counts) = step.strip_suffix('+').map_or((step, false), |step| (step, true));
            let (name, second) = step.split_once('@').unwrap();
            let second = second.parse().unwrap();
            let event = match (name.strip_prefix('='), name.split_once(':')) {
                (Some(id), _) => event("elsewhere", id, second),
                (None, Some((run, number))) if run.contains('/') => {
                    event(&format!("rebound/probe/{run}"), number, second)
                }
                (None, Some((run, number))) => event(&format!("rebound/probe/host/{run}"), number, second),
                _ => panic!("{step}"),
            };
            assert_eq!(Newest::advance(&mut newest, &event), counts, "{what}: {step} in {steps}");
        }
    }

    #[test]
    fn later_by_the_table() {
        check("in order", "a:1@10+ a:4@20+ a:9@30+");
        check("twice", "a:1@10+ a:1@10 a:4@20+ a:1@10 a:4@20");
        check("late", "a:4@20+ a:1@10 a:5@30+");
        check("set back: the same run goes on", "a:1@3600+ a:2@10+ a:3@20+ a:2@10 a:1@3600 a:4@30+");
        check("set forward, and back", "a:1@10+ a:2@9000+ a:3@30+ a:4@40+");
        check("started anew", "a:900@10+ b:1@20+ b:2@30+");
        check("started anew with the clock set back", "a:900@3600+ b:1@10 b:5@20+ b:9@30+");
        check("a straggler of the run before", "a:900@10+ b:1@20+ a:901@15 b:2@30+ a:902@16 b:3@40+");
        check("the same straggler twice", "a:900@10+ b:1@20+ a:901@15 a:901@15 b:2@30+");
        check(
            "a stretch of the run before, again",
            "a:8@8+ a:9@9+ a:10@10+ b:1@20+ a:8@8 a:9@9 a:10@10 a:11@11 b:2@30+",
        );
        check("of runs before that", "a:9@9+ b:1@20+ c:1@30+ a:8@8 a:9@9 b:1@20 b:2@21 a:10@10 a:11@11 c:2@40+");
        check("of a run that another instance came after", "x/a:9@9+ x/b:1@20+ y/a:1@30+ x/c:1@40+ x/a:8@8 x/a:9@9");
        check("a run goes on that was taken for gone", "a:9@9+ b:1@20+ a:10@30+ b:2@21 b:3@22 a:11@31+");
        check("two instances side by side: time", "x/a:1@10+ y/a:1@11+ x/a:2@9 x/a:2@9 x/a:3@20+ y/a:2@19 y/a:3@21+");
        check("a backlog of another instance counts for nothing", "x/a:9@100+ y/a:1@10 y/a:2@20 y/a:3@30 x/a:10@110+");
        check("elsewhere: time, whatever the ids", "=7@10+ =3@20+ =9@15 =3@20 =1@30+");
        check("elsewhere beside a prober: time", "a:1@10+ =x@9 =y@11+ a:2@10 a:3@12+");
        check("not a number", "a:one@10+ a:two@9 a:three@11+");
    }
}
