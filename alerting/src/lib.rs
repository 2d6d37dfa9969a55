//! Decisions: thresholds, suppression, recoveries, and the effects that follow from them.
//!
//! Reading order: [`threshold`] and [`flapping`] judge a probe's observations, [`suppress`] and [`budget`] hold
//! back, [`engine`] folds events and decides, [`notify`] says who is to be told. All of these are pure: no clock,
//! no I/O, no runtime. [`channel`] and [`action`] are the effects: notifications sent, steps of a [`procedure`] done.

pub mod action;
pub mod budget;
pub mod channel;
pub mod engine;
pub mod flapping;
pub mod notify;
pub mod procedure;
pub mod suppress;
pub mod threshold;

/// The `source` of everything that the alerting rules decide.
pub const SOURCE: &str = "rebound/alert";
