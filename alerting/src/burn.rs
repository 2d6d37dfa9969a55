//! How fast an error budget burns, over several windows at once, in bounded memory.
//!
//! Google's SRE workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts": a pair fires when the share of failures
//! over its long *and* over its short window is above `factor × (1 − objective)`. The long window says that it
//! matters, the short one that it goes on.
//!
//! Each window is a ring of twelve buckets and the one that is being filled, so it covers between one and thirteen
//! twelfths of its length: 136 bytes a window whatever the rate of observations.

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::plan::Pace;
use serde::{Deserialize, Serialize};

const BUCKETS: i64 = 12;
const RING: usize = BUCKETS as usize + 1;

/// Long and short window, and how many times faster than sustainable the budget burns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The long window, in minutes.
    pub long: i64,
    /// The short window, in minutes.
    pub short: i64,
    /// Above this many times the sustainable rate.
    pub factor: f64,
}

/// The pairs of a pace, the faster first.
#[must_use]
pub fn pairs(pace: Pace) -> [Pair; 2] {
    match pace {
        Pace::Page => [Pair { long: 60, short: 5, factor: 14.4 }, Pair { long: 360, short: 30, factor: 6.0 }],
        Pace::Ticket => [Pair { long: 1440, short: 120, factor: 3.0 }, Pair { long: 4320, short: 360, factor: 1.0 }],
    }
}

/// Successes and failures over one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    /// A bucket's length in seconds.
    step: i64,
    /// Number of the newest bucket, since the epoch.
    newest: i64,
    /// Observations and failures, by bucket number modulo the ring.
    counts: [(u32, u32); RING],
    /// The sum of `counts`.
    total: (u64, u64),
}

impl Window {
    fn new(minutes: i64) -> Self {
        Self { step: minutes * 60 / BUCKETS, newest: i64::MIN, counts: [(0, 0); RING], total: (0, 0) }
    }

    fn slot(number: i64) -> usize {
        number.rem_euclid(RING as i64) as usize
    }

    fn observe(&mut self, at: DateTime<Utc>, failed: bool) {
        let number = at.timestamp().div_euclid(self.step);
        if number > self.newest {
            let stale = number.saturating_sub(self.newest).min(RING as i64);
            for back in 0..stale {
                let (seen, bad) = std::mem::take(&mut self.counts[Self::slot(number - back)]);
                self.total = (self.total.0 - u64::from(seen), self.total.1 - u64::from(bad));
            }
            self.newest = number;
        }
        if self.newest - number <= BUCKETS {
            let (seen, bad) = &mut self.counts[Self::slot(number)];
            *seen = seen.saturating_add(1);
            *bad = bad.saturating_add(u32::from(failed));
            self.total = (self.total.0 + 1, self.total.1 + u64::from(failed));
        }
    }

    /// Share of failures; `None` without an observation.
    fn share(&self) -> Option<f64> {
        let (seen, bad) = self.total;
        (seen > 0).then(|| bad as f64 / seen as f64)
    }
}

/// The four windows of a pace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burn {
    pairs: [Pair; 2],
    /// Long and short of each pair.
    windows: [[Window; 2]; 2],
}

/// A pair of windows over which the budget burns too fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burning {
    /// Which.
    pub pair: Pair,
    /// Times the sustainable rate, over the long window.
    pub rate: f64,
}

impl Burn {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        let pairs = pairs(pace);
        Self { pairs, windows: pairs.map(|pair| [Window::new(pair.long), Window::new(pair.short)]) }
    }

    /// Counts one success or failure. One that is older than a window is not in it.
    pub fn observe(&mut self, at: DateTime<Utc>, failed: bool) {
        self.windows.iter_mut().flatten().for_each(|window| window.observe(at, failed));
    }

    /// The first pair that burns, as of the newest observation; one with fewer observations than `at_least` in its long
    /// window never does.
    #[must_use]
    pub fn burning(&self, objective: f64, at_least: u32) -> Option<Burning> {
        let budget = 1.0 - objective;
        self.pairs.iter().zip(&self.windows).find_map(|(pair, [long, short])| {
            if long.total.0 < u64::from(at_least) {
                return None;
            }
            let rate = |window: &Window| window.share().map(|share| share / budget);
            let (long, short) = (rate(long)?, rate(short)?);
            (long > pair.factor && short > pair.factor).then_some(Burning { pair: *pair, rate: long })
        })
    }

    /// The longest window of a pace: how far back observations matter.
    #[must_use]
    pub fn longest(pace: Pace) -> TimeDelta {
        TimeDelta::minutes(pairs(pace).iter().map(|pair| pair.long).max().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// On a boundary of every bucket.
    const START: i64 = 1_800_000_000 / 259_200 * 259_200;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(START + second, 0).unwrap()
    }

    /// One observation each ten seconds, failed where `bad` says so.
    fn after(pace: Pace, n: i64, bad: impl Fn(i64) -> bool) -> Burn {
        let mut burn = Burn::new(pace);
        (0..n).for_each(|i| burn.observe(at(i * 10), bad(i)));
        burn
    }

    /// By hand, objective 99.9 %, one probe each ten seconds: an hour is 360 probes, six hours are 2,160, a day is
    /// 8,640, three days are 25,920; the rate is a thousand times the share of failures.
    #[test]
    fn burn_rates_are_those_computed_by_hand() {
        let check = |pace, n: i64, bad: &dyn Fn(i64) -> bool, expected: Option<(f64, f64)>| {
            let burning = after(pace, n, bad).burning(0.999, 1);
            let found = burning.map(|b| (b.pair.factor, (b.rate * 100.0).round() / 100.0));
            assert_eq!(found, expected, "{pace:?} after {n}");
        };
        // The last few of the first hour: 6 ÷ 360 burns 16.67 times too fast, 5 ÷ 360 13.89 times.
        check(Pace::Page, 360, &|i| i >= 354, Some((14.4, 16.67)));
        check(Pace::Page, 360, &|i| i >= 355, Some((6.0, 13.89)));
        check(Pace::Page, 360, &|i| i >= 358, None);
        // One in so many, all along: 21 of 2,160, 10 of them, 43 of 8,640, 64 of 25,920 (23 of the 9,360 of 26 hours
        // are 2.46 times), 25 of 25,920.
        check(Pace::Page, 2_160, &|i| i % 100 == 99, Some((6.0, 9.72)));
        check(Pace::Page, 2_160, &|i| i % 200 == 199, None);
        check(Pace::Ticket, 8_640, &|i| i % 200 == 199, Some((3.0, 4.98)));
        check(Pace::Ticket, 25_920, &|i| i % 400 == 399, Some((1.0, 2.47)));
        check(Pace::Ticket, 25_920, &|i| i % 1_001 == 1_000, None);
    }

    #[test]
    fn a_burst_that_is_over_no_longer_burns_over_the_short_window() {
        let mut burn = after(Pace::Page, 360, |i| i >= 340);
        assert!(burn.burning(0.999, 1).is_some());
        // Five minutes and a twelfth later the short window is clean; over half an hour 20 failures still show, and
        // over six hours they are 9.5 times too many.
        (360..395).for_each(|i| burn.observe(at(i * 10), false));
        assert_eq!(burn.burning(0.999, 1).map(|b| b.pair.factor), Some(6.0));
        (395..560).for_each(|i| burn.observe(at(i * 10), false));
        assert_eq!(burn.burning(0.999, 1), None);
    }

    #[test]
    fn nothing_burns_on_fewer_observations_than_are_asked_for() {
        for (n, burns) in [(29, false), (30, true), (31, true)] {
            let burn = after(Pace::Page, n, |_| true);
            assert_eq!(burn.burning(0.999, 30).is_some(), burns, "{n} failures of {n}");
        }
        // What has left the window counts no more: after a silence of a day a single failure says nothing.
        let mut burn = after(Pace::Page, 360, |_| false);
        burn.observe(at(30 * 3600), true);
        assert_eq!(burn.burning(0.999, 30), None);
    }

    #[test]
    fn it_is_small() {
        assert!(std::mem::size_of::<Burn>() < 700, "{}", std::mem::size_of::<Burn>());
    }

    proptest! {
        #![proptest_config(crate::cases::cheap())]

        /// The ring agrees with a list of everything that lies in the newest thirteen buckets.
        #[test]
        fn a_window_counts_what_lies_in_it(gaps in prop::collection::vec((-200..400_i64, any::<bool>()), 1..60)) {
            let mut window = Window::new(60);
            let mut all: VecDeque<(i64, bool)> = VecDeque::new();
            let mut now = 100_000;
            for (gap, failed) in gaps {
                now += gap;
                window.observe(at(now), failed);
                all.push_back(((START + now) / 300, failed));
                let newest = all.iter().map(|(bucket, _)| *bucket).max().unwrap();
                // What came too late was not counted then, and isn't now.
                if newest - (START + now) / 300 > BUCKETS {
                    all.pop_back();
                }
                all.retain(|(bucket, _)| newest - bucket <= BUCKETS);
                let bad = all.iter().filter(|(_, failed)| *failed).count();
                prop_assert_eq!(window.share(), Some(bad as f64 / all.len() as f64));
            }
        }
    }
}
