//! What a time of the day or the week lets expect, learnt from the days and weeks before.

use std::collections::VecDeque;

/// Seconds of a bin of the day's mean, and how many of them make a day.
const SLOT: i64 = 300;
const SLOTS: i64 = 288;

/// The last values of each part of a period.
#[derive(Debug, Clone)]
pub(super) struct Season {
    period: i64,
    width: i64,
    fewest: usize,
    keep: usize,
    bins: Vec<VecDeque<f64>>,
    /// The part that is being seen: which one of all time, sum and count of its values.
    open: Option<(i64, f64, f64)>,
}

/// What is expected: times are rarely kept to the minute, so the neighbouring parts have their say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expected {
    low: f64,
    /// At this very time.
    pub(super) middle: f64,
    high: f64,
}

impl Expected {
    /// The expected value that is nearest to what came.
    pub(super) fn nearest(&self, value: f64) -> f64 {
        value.clamp(self.low, self.high)
    }
}

impl Season {
    /// Of a period in parts of a width, both in seconds. Of each part the last `keep` values are remembered, and
    /// nothing is expected before there are `fewest`.
    pub(super) fn new(period: i64, width: i64, fewest: usize, keep: usize) -> Self {
        let parts = usize::try_from(period / width).unwrap_or(1);
        Self { period, width, fewest, keep, bins: vec![VecDeque::new(); parts], open: None }
    }

    fn bin(&self, part: i64) -> usize {
        usize::try_from(part.rem_euclid(self.period / self.width)).unwrap_or(0)
    }

    /// What to expect at a time, by the medians of its part of the period and of those beside it.
    pub(super) fn expects(&self, at: i64) -> Option<Expected> {
        let part = at.div_euclid(self.width);
        let [before, own, after] = [-1, 0, 1].map(|beside| self.median(self.bin(part + beside)));
        let said = || [before, own, after].into_iter().flatten();
        let low = said().reduce(f64::min)?;
        let high = said().reduce(f64::max)?;
        Some(Expected { low, middle: own.unwrap_or(f64::midpoint(low, high)), high })
    }

    fn median(&self, bin: usize) -> Option<f64> {
        let values = &self.bins[bin];
        if values.len() < self.fewest {
            return None;
        }
        let mut sorted = [0.0; 8];
        let sorted = &mut sorted[..values.len().min(8)];
        for (place, value) in sorted.iter_mut().zip(values) {
            *place = *value;
        }
        sorted.sort_unstable_by(f64::total_cmp);
        let half = sorted.len() / 2;
        Some(if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[half - 1], sorted[half]) } else { sorted[half] })
    }

    /// Takes a value in; it counts when its part of the period is over.
    pub(super) fn learn(&mut self, at: i64, value: f64) {
        let part = at.div_euclid(self.width);
        match &mut self.open {
            Some((open, sum, count)) if *open == part => {
                *sum += value;
                *count += 1.0;
            }
            open => {
                if let Some((over, sum, count)) = open.replace((part, value, 1.0)) {
                    let bin = self.bin(over);
                    let values = &mut self.bins[bin];
                    values.push_back(sum / count);
                    if values.len() > self.keep {
                        values.pop_front();
                    }
                }
            }
        }
    }
}

/// The mean of the last 24 hours, by sums of five minutes.
#[derive(Debug, Clone, Default)]
pub(super) struct DayMean {
    slots: VecDeque<(i64, f64, f64)>,
    sum: f64,
    count: f64,
}

impl DayMean {
    /// The mean of what came in the 24 hours before.
    pub(super) fn before(&mut self, at: i64) -> Option<f64> {
        let oldest = at.div_euclid(SLOT) - SLOTS;
        let len = self.slots.len();
        while self.slots.len() > 1 && self.slots.front().is_some_and(|(slot, _, _)| *slot <= oldest) {
            self.slots.pop_front();
        }
        if self.slots.len() < len {
            // Summed anew: taking off what left would leave its rounding behind.
            self.sum = self.slots.iter().map(|(_, sum, _)| sum).sum();
            self.count = self.slots.iter().map(|(_, _, count)| count).sum();
        }
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    pub(super) fn learn(&mut self, at: i64, value: f64) {
        let slot = at.div_euclid(SLOT);
        match self.slots.back_mut() {
            // A time that steps back belongs to the newest slot, so that slots stay in order and few.
            Some((newest, sum, count)) if slot <= *newest => {
                *sum += value;
                *count += 1.0;
            }
            _ => self.slots.push_back((slot, value, 1.0)),
        }
        self.sum += value;
        self.count += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_expected_after_two_days() {
        let mut season = Season::new(86_400, 3_600, 2, 3);
        for hour in 0..49 {
            assert_eq!(season.expects(hour * 3_600).is_some(), hour >= 47, "{hour}");
            season.learn(hour * 3_600, (hour % 24) as f64);
        }
        let noon = season.expects(49 * 3_600 + 12 * 3_600).expect("known");
        assert_eq!(noon, Expected { low: 12.0, middle: 13.0, high: 14.0 });
        assert_eq!((noon.nearest(1.0), noon.nearest(13.5), noon.nearest(99.0)), (12.0, 13.5, 14.0));
    }

    #[test]
    fn the_days_mean_forgets_what_is_older() {
        let mut mean = DayMean::default();
        assert_eq!(mean.before(0), None);
        mean.learn(0, 10.0);
        mean.learn(600, 20.0);
        assert_eq!(mean.before(900), Some(15.0));
        assert_eq!(mean.before(86_400), Some(20.0));
        mean.learn(86_400, 40.0);
        mean.learn(300, 60.0);
        assert_eq!(mean.before(86_401), Some(40.0));
        assert_eq!(mean.before(10 * 86_400), Some(50.0), "the last known, when a whole day is missing");
    }
}
