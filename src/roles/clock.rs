//! Notices when the wall clock was set, and when this process stood still: both look like silence, and are none.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// A wall clock that differs from the steady one by less than this since the last look was not set, but slewed.
const SLEWED: TimeDelta = TimeDelta::seconds(1);

/// Both clocks at the last look.
#[derive(Debug)]
pub(crate) struct Clock {
    wall: DateTime<Utc>,
    steady: Instant,
    /// Looking later than this after the last time, the process stood still.
    patience: Duration,
}

impl Clock {
    /// For a loop that comes round within `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { wall: Utc::now(), steady: Instant::now(), patience }
    }

    /// How much of the wall clock's time since the last look was none in which anything could be heard; negative
    /// where the clock was set back.
    pub(crate) fn unheard(&mut self) -> TimeDelta {
        let (wall, steady) = (Utc::now(), Instant::now());
        let unheard = unheard(wall - self.wall, steady - self.steady, self.patience);
        (self.wall, self.steady) = (wall, steady);
        unheard
    }
}

/// | wall clock against steady | since the last look | unheard |
/// |---|---|---|
/// | the same, or slewed | within patience | nothing |
/// | the same, or slewed | longer | all of it: the process stood still |
/// | set | within patience | what it was set by |
/// | set | longer | all of it by the wall clock |
fn unheard(wall: TimeDelta, steady: Duration, patience: Duration) -> TimeDelta {
    let set = wall - TimeDelta::from_std(steady).unwrap_or(TimeDelta::MAX);
    match () {
        () if steady > patience => wall,
        () if set.abs() < SLEWED => TimeDelta::zero(),
        () => set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unheard_by_the_table() {
        // wall ms | steady ms | unheard ms, with a patience of 10 s
        for (wall, steady, expected) in [
            (5_000, 5_000, 0),
            (5_400, 5_000, 0),
            (4_100, 5_000, 0),
            (60_000, 60_000, 60_000),
            (3_605_000, 5_000, 3_600_000),
            (-3_595_000, 5_000, -3_600_000),
            (3_660_000, 60_000, 3_660_000),
        ] {
            let patience = Duration::from_secs(10);
            let told = unheard(TimeDelta::milliseconds(wall), Duration::from_millis(steady), patience);
            assert_eq!(told, TimeDelta::milliseconds(expected), "{wall} {steady}");
        }
    }

    #[test]
    fn a_clock_that_goes_on_evenly_has_nothing_to_tell() {
        assert_eq!(Clock::new(Duration::from_secs(3600)).unheard(), TimeDelta::zero());
    }
}
