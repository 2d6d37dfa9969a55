//! How long something must hold before it fires, and how long it fires after it held: Prometheus' `for` and
//! `keep_firing_for`, to the minute (a test compares with `promtool`).
//!
//! Pure and without state of its own: a [`Signal`] comes from observations, whether it fired from what was decided.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::delta;

/// Whether something holds, and since when it has said the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Whether it holds.
    pub holds: bool,
    /// Since when it has not changed.
    pub since: DateTime<Utc>,
}

impl Signal {
    /// Takes the next word; only a change moves `since`.
    pub fn turn(held: &mut Option<Self>, at: DateTime<Utc>, holds: bool) {
        if held.is_none_or(|known| known.holds != holds) {
            *held = Some(Self { holds, since: at });
        }
    }
}

/// Both durations; zero means at once.
///
/// | fired before | holds | fires |
/// |---|---|---|
/// | no | no | no |
/// | no | yes | once it has held for `hold` |
/// | yes | yes | yes |
/// | yes | no | until it has not held for `keep_firing` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Before it fires.
    pub hold: TimeDelta,
    /// After it held.
    pub keep_firing: TimeDelta,
}

impl Hold {
    /// Of the plan's durations.
    #[must_use]
    pub fn new(hold: std::time::Duration, keep_firing: std::time::Duration) -> Self {
        Self { hold: delta(hold), keep_firing: delta(keep_firing) }
    }

    /// Whether neither does anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.hold.is_zero() && self.keep_firing.is_zero()
    }

    /// By the table.
    #[must_use]
    pub fn fires(&self, fired: bool, signal: Signal, now: DateTime<Utc>) -> bool {
        let lasted = now - signal.since;
        match (fired, signal.holds) {
            (false, true) => lasted >= self.hold,
            (true, false) => lasted < self.keep_firing,
            (fired, _) => fired,
        }
    }

    /// When time alone changes whether it fires; `None` if it takes an observation.
    #[must_use]
    pub fn due(&self, fired: bool, signal: Signal) -> Option<DateTime<Utc>> {
        match (fired, signal.holds) {
            (false, true) => signal.since.checked_add_signed(self.hold),
            (true, false) => signal.since.checked_add_signed(self.keep_firing),
            _ => None,
        }
    }
}
