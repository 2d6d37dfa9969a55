//! How often a service may be recovered: intensity as OTP's supervisors have it, and a doubling back-off.
//!
//! Folded from `recovery.triggered` and the incidents between, so that a restart neither forgives nor forgets.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::plan::Policy;

use crate::delta;

/// Recoveries that are remembered at least; beyond the largest back-off, more make no difference.
const REMEMBERED: usize = 32;

/// The part of a policy that says how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Recoveries at most within `period`.
    pub intensity: u32,
    /// See `intensity`.
    pub period: TimeDelta,
    /// Wait before the second recovery.
    pub backoff: TimeDelta,
    /// The wait doubles up to this.
    pub backoff_max: TimeDelta,
    /// Healthy this long, and the wait starts anew.
    pub reset: TimeDelta,
}

impl From<&Policy> for Limits {
    fn from(policy: &Policy) -> Self {
        Self {
            intensity: policy.intensity,
            period: delta(policy.intensity_period),
            backoff: delta(policy.backoff),
            backoff_max: delta(policy.backoff_max),
            reset: delta(policy.backoff_reset),
        }
    }
}

/// Recoveries of one service so far. Folding in any order, or twice, gives the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Budget {
    /// When they were triggered, newest last.
    triggers: BTreeSet<DateTime<Utc>>,
    /// Those before this lie beyond a long healthy time.
    calm_at: Option<DateTime<Utc>>,
}

impl Budget {
    /// Folds a triggered recovery.
    pub fn triggered(&mut self, limits: &Limits, at: DateTime<Utc>) {
        self.triggers.insert(at);
        if self.triggers.len() > REMEMBERED.max(limits.intensity as usize) {
            self.triggers.pop_first();
        }
    }

    /// Folds the healthy time between two incidents: t3 of the one, t0 of the next.
    pub fn healthy(&mut self, limits: &Limits, from: DateTime<Utc>, until: DateTime<Utc>) {
        if until - from >= limits.reset {
            // In between, since those who trigger and those who probe may not agree on the time.
            self.calm_at = self.calm_at.max(Some(from + (until - from) / 2));
        }
    }

    /// Whether one more at `at` stays within the intensity: at most `intensity` within `(at − period, at]`.
    #[must_use]
    pub fn allows(&self, limits: &Limits, at: DateTime<Utc>) -> bool {
        let recent = self.triggers.iter().rev().take_while(|t| at - **t < limits.period).count();
        recent < limits.intensity as usize
    }

    /// Recoveries since the last healthy time that was long enough.
    #[must_use]
    pub fn recent(&self) -> usize {
        self.triggers.iter().rev().take_while(|t| self.calm_at.is_none_or(|calm| **t >= calm)).count()
    }

    /// How long to wait after the end of the last recovery: nothing before the first, then `backoff`, then twice
    /// that, and so on up to `backoff_max`.
    #[must_use]
    pub fn wait(&self, limits: &Limits) -> TimeDelta {
        let Some(doublings) = self.recent().checked_sub(1) else { return TimeDelta::zero() };
        let factor = 1_i32.checked_shl(doublings as u32).filter(|f| *f > 0).unwrap_or(i32::MAX);
        limits.backoff.checked_mul(factor).map_or(limits.backoff_max, |wait| wait.min(limits.backoff_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    const LIMITS: Limits = Limits {
        intensity: 3,
        period: TimeDelta::seconds(600),
        backoff: TimeDelta::seconds(10),
        backoff_max: TimeDelta::seconds(300),
        reset: TimeDelta::seconds(600),
    };

    #[test]
    fn intensity_is_met_and_not_passed() {
        let mut budget = Budget::default();
        for (second, before) in [(0, true), (10, true), (20, true)] {
            assert_eq!(budget.allows(&LIMITS, at(second)), before, "the one at {second}");
            budget.triggered(&LIMITS, at(second));
            budget.triggered(&LIMITS, at(second));
        }
        for (second, allowed) in [(21, false), (599, false), (600, true), (609, true)] {
            assert_eq!(budget.allows(&LIMITS, at(second)), allowed, "a fourth at {second}");
        }
        budget.triggered(&LIMITS, at(600));
        assert!(!budget.allows(&LIMITS, at(609)) && budget.allows(&LIMITS, at(610)));
        assert!(!Budget::default().allows(&Limits { intensity: 0, ..LIMITS }, at(0)), "none are allowed");
    }

    #[test]
    fn the_wait_doubles_up_to_its_largest() {
        let mut budget = Budget::default();
        let mut waits = vec![budget.wait(&LIMITS).num_seconds()];
        for n in 0..100 {
            budget.triggered(&LIMITS, at(n));
            waits.push(budget.wait(&LIMITS).num_seconds());
        }
        assert_eq!(waits[..8], [0, 10, 20, 40, 80, 160, 300, 300]);
        assert!(waits[6..].iter().all(|w| *w == 300));
        assert_eq!(budget.triggers.len(), REMEMBERED);
    }

    #[test]
    fn ten_healthy_minutes_and_it_starts_anew() {
        let mut budget = Budget::default();
        budget.triggered(&LIMITS, at(0));
        budget.triggered(&LIMITS, at(30));
        budget.healthy(&LIMITS, at(40), at(639));
        assert_eq!(budget.wait(&LIMITS).num_seconds(), 20, "599 s are not enough");
        budget.healthy(&LIMITS, at(40), at(640));
        assert_eq!(budget.wait(&LIMITS).num_seconds(), 0);
        budget.triggered(&LIMITS, at(650));
        assert_eq!(budget.wait(&LIMITS).num_seconds(), 10);
    }

    proptest::proptest! {
        #![proptest_config(crate::cases::cheap())]

        /// By the definition over the whole list, whatever the order and however often each is told.
        #[test]
        fn what_is_allowed_and_how_long_to_wait_follow_from_the_triggers(
            triggers in proptest::collection::btree_set(0..4_000_i64, 0..20),
            healthy in proptest::option::of((0..4_000_i64, 0..2_000_i64)),
            now in 0..5_000_i64,
            turn in proptest::prelude::any::<proptest::sample::Index>(),
        ) {
            let told: Vec<i64> = triggers.iter().copied().collect();
            let start = if told.is_empty() { 0 } else { turn.index(told.len()) };
            let (mut once, mut turned) = (Budget::default(), Budget::default());
            told.iter().for_each(|second| once.triggered(&LIMITS, at(*second)));
            for second in told[start..].iter().chain(&told) {
                turned.triggered(&LIMITS, at(*second));
            }
            for budget in [&mut once, &mut turned] {
                if let Some((from, length)) = healthy {
                    budget.healthy(&LIMITS, at(from), at(from + length));
                }
            }
            proptest::prop_assert_eq!(&once, &turned);
            // `allows` asks of a time that is not before the newest trigger.
            let now = now.max(told.last().copied().unwrap_or_default());
            let recent = told.iter().filter(|second| now - **second < 600).count();
            proptest::prop_assert_eq!(once.allows(&LIMITS, at(now)), recent < 3);
            let calm = healthy.filter(|(_, length)| *length >= 600).map(|(from, length)| at(from) + TimeDelta::seconds(length) / 2);
            let level = told.iter().filter(|second| calm.is_none_or(|calm| at(**second) >= calm)).count();
            let wait = match level { 0 => 0, n => (10_i64 << (n - 1)).min(300) };
            proptest::prop_assert_eq!(once.wait(&LIMITS), TimeDelta::seconds(wait));
        }
    }
}
