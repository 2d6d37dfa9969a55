//! A channel's token bucket, folded from the times at which messages to it were planned.

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::plan::Rate;

/// Times that may still be joined by earlier ones: instances' events are folded partition by partition.
const UNSETTLED: usize = 256;

/// How full the bucket is, said as the time when it will be full again. In whatever order the newest times are
/// taken in, the state is that of their sorted sequence.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    settled: Option<DateTime<Utc>>,
    /// Sorted.
    recent: Vec<DateTime<Utc>>,
}

fn interval(rate: Rate) -> TimeDelta {
    TimeDelta::from_std(rate.interval()).unwrap_or(TimeDelta::days(1)).max(TimeDelta::microseconds(1))
}

/// One token taken at `at` from a bucket that is full again at `full`. An empty bucket owes nothing: what had to go
/// out without a token delays the next one no further.
fn taken(full: Option<DateTime<Utc>>, at: DateTime<Utc>, rate: Rate) -> DateTime<Utc> {
    let step = interval(rate);
    let (most, full) = (at + step * i32::try_from(rate.burst).unwrap_or(i32::MAX), full.unwrap_or(at).max(at));
    (full + step).min(most)
}

impl Bucket {
    /// A message was planned at `at`.
    pub(super) fn take(&mut self, at: DateTime<Utc>, rate: Rate) {
        let place = self.recent.partition_point(|other| *other <= at);
        self.recent.insert(place, at);
        if self.recent.len() > 2 * UNSETTLED {
            let old = self.recent.drain(..UNSETTLED);
            self.settled = old.fold(self.settled, |full, at| Some(taken(full, at, rate)));
        }
    }

    fn full_at(&self, rate: Rate) -> Option<DateTime<Utc>> {
        self.recent.iter().fold(self.settled, |full, at| Some(taken(full, *at, rate)))
    }

    /// Tokens there are now.
    pub(super) fn tokens(&self, now: DateTime<Utc>, rate: Rate) -> usize {
        let burst = i64::from(rate.burst);
        let missing = self.full_at(rate).map_or(TimeDelta::zero(), |full| (full - now).max(TimeDelta::zero()));
        let step = interval(rate).num_microseconds().unwrap_or(i64::MAX).max(1);
        let missing = missing.num_microseconds().unwrap_or(i64::MAX);
        let taken = missing / step + i64::from(missing % step > 0);
        usize::try_from(burst - taken).unwrap_or(0)
    }

    /// When there is a token, if there is none now.
    pub(super) fn next(&self, now: DateTime<Utc>, rate: Rate) -> DateTime<Utc> {
        let others = interval(rate) * i32::try_from(rate.burst.saturating_sub(1)).unwrap_or(i32::MAX);
        self.full_at(rate).map_or(now, |full| (full - others).max(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { count: 6, per: Duration::from_secs(60), burst: 3 };

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + second, 0).unwrap()
    }

    #[test]
    fn tokens_are_taken_and_come_back() {
        let mut bucket = Bucket::default();
        assert_eq!((bucket.tokens(at(0), RATE), bucket.next(at(0), RATE)), (3, at(0)));
        for (second, left, next) in [(0, 2, 0), (0, 1, 0), (0, 0, 10), (5, 0, 15)] {
            // The last had no token: the bucket owes nothing for it, and is empty from then on.
            bucket.take(at(second), RATE);
            assert_eq!((bucket.tokens(at(second), RATE), bucket.next(at(second), RATE)), (left, at(next)), "{second}");
        }
        for (second, tokens) in [(14, 0), (15, 1), (24, 1), (25, 2), (35, 3), (1000, 3)] {
            assert_eq!(bucket.tokens(at(second), RATE), tokens, "{second}");
        }
    }

    proptest! {
        #![proptest_config(crate::cases::cheap())]

        /// In any order of folding within what is unsettled; and no more than the rate allows ever finds a token.
        #[test]
        fn the_order_of_folding_does_not_matter(mut times in prop::collection::vec(0..2000_i64, 0..60), seed in any::<u64>()) {
            let fold = |times: &[i64]| {
                let mut bucket = Bucket::default();
                times.iter().for_each(|second| bucket.take(at(*second), RATE));
                bucket.full_at(RATE)
            };
            let shuffled = fold(&times);
            times.sort_unstable();
            prop_assert_eq!(shuffled, fold(&times), "{}", seed);
            let (mut bucket, mut passed) = (Bucket::default(), Vec::new());
            for second in &times {
                if bucket.tokens(at(*second), RATE) > 0 {
                    bucket.take(at(*second), RATE);
                    passed.push(*second);
                }
            }
            for (n, first) in passed.iter().enumerate() {
                let within = passed[n..].iter().filter(|second| **second < first + 60).count();
                prop_assert!(within <= 3 + 6, "{within} within a minute");
            }
        }
    }
}
