//! Decisions: thresholds, suppression, recoveries, and the effects that follow from them.

pub mod notify;

/// The `source` of everything that the alerting rules decide.
pub const SOURCE: &str = "rebound/alert";
