//! Decisions: thresholds, suppression, recoveries, and the effects that follow from them.

pub mod action;
pub mod channel;
pub mod notify;
pub mod procedure;
pub mod queue;
pub mod runner;
pub mod verification;

/// The `source` of everything that the alerting rules decide.
pub const SOURCE: &str = "rebound/alert";
