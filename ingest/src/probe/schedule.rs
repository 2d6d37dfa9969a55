//! When each probe runs next: pure, `now` is an argument, measured from any fixed point by a monotonic clock.
//!
//! Every probe has a fixed grid, `offset + k · every`, and never leaves it: a late or long run does not move the
//! ones after it. A probe has at most one run under way, and grid points that pass meanwhile are *missed*: counted,
//! and the newest of them made up for at once, so that a slow target is still looked at as often as it allows.
//! After a stand-still ([`Schedule::skip`]) nothing is made up for, so that there is no burst.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rebound_schemas::ProbeId;

/// A run to start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Which probe, by its place in the list given to [`Schedule::new`].
    pub index: usize,
    /// The grid point that it is for.
    pub due: Duration,
    /// Grid points before it that were missed waiting for this.
    pub missed: u64,
}

#[derive(Debug)]
struct Slot {
    every: Duration,
    due: Duration,
    running: bool,
}

/// What runs next.
#[derive(Debug)]
pub(super) struct Schedule {
    slots: Vec<Slot>,
    /// Slots that don't run, by their next grid point: one entry each.
    waiting: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Grid points up to here are not made up for.
    skipped_to: Duration,
}

impl Schedule {
    /// Probes by their id and period, the first runs spread over the period after `now`.
    pub(super) fn new<'a>(now: Duration, probes: impl IntoIterator<Item = (&'a ProbeId, Duration)>) -> Self {
        let slot = |(id, every): (&ProbeId, Duration)| {
            let every = every.max(Duration::from_millis(1));
            Slot { every, due: now + offset(id, every), running: false }
        };
        let slots: Vec<_> = probes.into_iter().map(slot).collect();
        let waiting = slots.iter().enumerate().map(|(index, slot)| Reverse((slot.due, index))).collect();
        Self { slots, waiting, skipped_to: Duration::ZERO }
    }

    /// When the next run is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse((due, _))| *due)
    }

    /// The run that has been due longest, if any is due. It runs until [`Schedule::finish`] is told.
    pub(super) fn start(&mut self, now: Duration) -> Option<Start> {
        let index = self.waiting.peek().filter(|Reverse((due, _))| *due <= now).map(|Reverse((_, index))| *index)?;
        self.waiting.pop();
        let slot = &mut self.slots[index];
        let missed = passed(slot, now);
        slot.due += slot.every * u32::try_from(missed).unwrap_or(u32::MAX);
        slot.running = true;
        Some(Start { index, due: slot.due, missed })
    }

    /// A run ended. Answers how many grid points were missed by it for good.
    pub(super) fn finish(&mut self, index: usize, now: Duration) -> u64 {
        let slot = &mut self.slots[index];
        debug_assert!(slot.running, "a run ends once");
        slot.running = false;
        let passed = passed(slot, now);
        // The newest that passed is made up for at once, unless it lies in a stand-still.
        let mut steps = passed.max(1);
        if slot.due + times(slot.every, steps) <= self.skipped_to {
            steps = steps_beyond(slot, self.skipped_to);
        }
        slot.due += times(slot.every, steps);
        self.waiting.push(Reverse((slot.due, index)));
        steps - 1
    }

    /// Forgets every grid point up to `now`: after a stand-still, probes go on where their grids are. Answers how
    /// many were missed.
    pub(super) fn skip(&mut self, now: Duration) -> u64 {
        self.skipped_to = self.skipped_to.max(now);
        let mut missed = 0;
        while let Some(Reverse((due, index))) = self.waiting.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.waiting.pop();
            let slot = &mut self.slots[index];
            let steps = steps_beyond(slot, now);
            slot.due = due + times(slot.every, steps);
            self.waiting.push(Reverse((slot.due, index)));
            missed += steps;
        }
        missed
    }
}

/// Grid points after the slot's own up to `now`.
fn passed(slot: &Slot, now: Duration) -> u64 {
    let late = now.saturating_sub(slot.due).as_nanos() / slot.every.as_nanos();
    u64::try_from(late).unwrap_or(u64::MAX)
}

/// Steps from the slot's own grid point to the first after `time`.
fn steps_beyond(slot: &Slot, time: Duration) -> u64 {
    if slot.due > time { 0 } else { passed(slot, time) + 1 }
}

fn times(every: Duration, n: u64) -> Duration {
    every.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Where in its period a probe begins: spread evenly, and the same at every start, so that a restart does not
/// change the load's shape.
fn offset(id: &ProbeId, every: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    id.as_str().hash(&mut hasher);
    every.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    /// One probe, due first at `0`.
    fn one(every: Duration) -> Schedule {
        let slots = vec![Slot { every, due: Duration::ZERO, running: false }];
        Schedule { slots, waiting: [Reverse((Duration::ZERO, 0))].into(), skipped_to: Duration::ZERO }
    }

    fn start(due: Duration, missed: u64) -> Option<Start> {
        Some(Start { index: 0, due, missed })
    }

    #[test]
    fn runs_keep_to_the_grid() {
        let mut schedule = one(10 * S);
        assert_eq!(schedule.start(S / 10), start(Duration::ZERO, 0));
        assert_eq!(schedule.start(20 * S), None, "one run at a time");
        assert_eq!(schedule.finish(0, S), 0);
        assert_eq!(schedule.next_due(), Some(10 * S), "the late start moved nothing");
        assert_eq!(schedule.start(10 * S - S / 1000), None);
        assert_eq!(schedule.start(13 * S), start(10 * S, 0));
        assert_eq!(schedule.finish(0, 14 * S), 0);
        assert_eq!(schedule.next_due(), Some(20 * S));
    }

    #[test]
    fn a_long_run_misses_points_and_makes_up_for_the_newest() {
        // ends at | next due | missed
        for (end, due, missed) in [(9, 10, 0), (10, 10, 0), (11, 10, 0), (20, 20, 1), (39, 30, 2)] {
            let mut schedule = one(10 * S);
            schedule.start(Duration::ZERO).unwrap();
            assert_eq!(schedule.finish(0, end * S), missed, "ends at {end}");
            assert_eq!(schedule.next_due(), Some(due * S), "ends at {end}");
        }
    }

    #[test]
    fn waiting_for_a_place_misses_points_too() {
        let mut schedule = one(10 * S);
        assert_eq!(schedule.start(35 * S), start(30 * S, 3));
        assert_eq!(schedule.finish(0, 36 * S), 0);
        assert_eq!(schedule.next_due(), Some(40 * S));
    }

    #[test]
    fn after_a_stand_still_nothing_is_made_up_for() {
        let mut schedule = one(10 * S);
        assert_eq!(schedule.skip(35 * S), 4, "0, 10, 20 and 30");
        assert_eq!(schedule.next_due(), Some(40 * S));
        // A run that was under way meanwhile is not repeated at once either.
        let mut schedule = one(10 * S);
        schedule.start(Duration::ZERO).unwrap();
        assert_eq!(schedule.skip(35 * S), 0);
        assert_eq!(schedule.finish(0, 36 * S), 3);
        assert_eq!(schedule.next_due(), Some(40 * S));
    }

    #[test]
    fn first_runs_are_spread_and_repeatable() {
        let ids: Vec<_> = (0..10_000).map(|n| ProbeId::new(&format!("service-{n}/http")).unwrap()).collect();
        let mut tenths = [0; 10];
        for id in &ids {
            let at = offset(id, 10 * S);
            assert_eq!(at, offset(id, 10 * S));
            tenths[at.as_secs() as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (850..1150).contains(n)), "{tenths:?}");
    }

    proptest! {
        /// Whatever happens when: runs start on the grid, in order, never twice for one point, never early; and
        /// every point up to the last start is run or counted as missed.
        #[test]
        fn every_point_is_run_or_missed(
            every in 1u64..20, moves in proptest::collection::vec((0u64..50, any::<bool>(), 0u8..8), 1..60)
        ) {
            let every = Duration::from_secs(every);
            let mut schedule = one(every);
            let (mut now, mut running, mut last) = (Duration::ZERO, false, None::<Duration>);
            let (mut runs, mut missed) = (0_u64, 0);
            for (step, _, what) in moves {
                now += Duration::from_secs(step);
                if what == 0 {
                    missed += schedule.skip(now);
                } else if running {
                    missed += schedule.finish(0, now);
                    running = false;
                } else if let Some(start) = schedule.start(now) {
                    prop_assert!(start.due <= now);
                    prop_assert_eq!(start.due.as_nanos() % every.as_nanos(), 0);
                    prop_assert!(last.is_none_or(|last| start.due > last));
                    missed += start.missed;
                    runs += 1;
                    last = Some(start.due);
                    running = true;
                    prop_assert_eq!(u128::from(runs + missed), start.due.as_nanos() / every.as_nanos() + 1);
                }
            }
        }
    }
}
