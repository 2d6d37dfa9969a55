//! Decisions: thresholds, suppression, recoveries, and the effects that follow from them.

pub mod action;
pub mod channel;
pub mod procedure;
