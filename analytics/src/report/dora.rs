//! The bands of DORA's *Accelerate State of DevOps Report 2023* (its table of performance levels), the newest whose
//! levels are in order. Lead time for changes is not in the log.
//!
//! | | elite | high | medium | low |
//! |---|---|---|---|---|
//! | time to restore service (median) | < 1 hour | < 1 day | ≤ 1 week | longer |
//! | change failure rate | ≤ 5 % | ≤ 10 % | ≤ 15 % | higher |
//! | deployments | several a day | at least one a week | at least one a month | fewer |

use serde::Serialize;

use crate::stats::{Proportion, Summary};

/// A level of performance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// The best.
    Elite,
    /// Good.
    High,
    /// So-so.
    Medium,
    /// The rest.
    Low,
}

impl Band {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Elite => "elite",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    fn first(of: [bool; 3]) -> Self {
        match of {
            [true, ..] => Self::Elite,
            [_, true, _] => Self::High,
            [.., true] => Self::Medium,
            _ => Self::Low,
        }
    }
}

/// The bands of a set of incidents and deployments.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Dora {
    /// By the median time to recover.
    pub time_to_restore: Option<Band>,
    /// By the share of deployments that failed.
    pub change_failure: Option<Band>,
    /// By how often is deployed.
    pub deployments: Option<Band>,
    /// How often, a day.
    pub deployments_per_day: Option<f64>,
}

impl Dora {
    /// The bands; what is not known has none.
    #[must_use]
    pub fn of(recover: Option<&Summary>, change_failure: Option<Proportion>, deployments_per_day: Option<f64>) -> Self {
        const HOUR: f64 = 3_600.0;
        let restore = |median: f64| Band::first([median < HOUR, median < 24.0 * HOUR, median <= 168.0 * HOUR]);
        let failure = |share: f64| Band::first([share <= 0.05, share <= 0.1, share <= 0.15]);
        // A month is the twelfth part of 365 days.
        let often = |a_day: f64| Band::first([a_day > 1.0, a_day * 7.0 >= 1.0, a_day * 365.0 / 12.0 >= 1.0]);
        Self {
            time_to_restore: recover.map(|summary| restore(summary.median)),
            change_failure: change_failure.and_then(|of| of.share).map(failure),
            deployments: deployments_per_day.map(often),
            deployments_per_day,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_begin_where_the_report_says() {
        let bands = |seconds: f64, failed: usize, a_day: f64| {
            let found = Dora::of(Summary::of(&[seconds], 1).as_ref(), Some(Proportion::of(failed, 100)), Some(a_day));
            [found.time_to_restore, found.change_failure, found.deployments].map(|band| band.unwrap().as_str())
        };
        assert_eq!(bands(3_599.0, 5, 1.5), ["elite", "elite", "elite"]);
        assert_eq!(bands(3_600.0, 6, 1.0), ["high", "high", "high"]);
        assert_eq!(bands(86_400.0, 11, 0.1), ["medium", "medium", "medium"]);
        assert_eq!(bands(604_801.0, 16, 0.01), ["low", "low", "low"]);
        assert_eq!(bands(604_800.0, 15, 1.0 / 7.0), ["medium", "medium", "high"]);
        assert_eq!(Dora::of(None, Some(Proportion::default()), None), Dora::default());
    }
}
