//! Decisions: thresholds, suppression, recoveries, and the effects that follow from them.
//!
//! Reading order: [`threshold`] and [`flapping`] judge a probe's observations, [`condition`], [`burn`] and [`hold`]
//! what else a policy looks at; [`matcher`], [`suppress`] and [`budget`] hold back, [`pause`] is what a person stopped,
//! [`demotion`] which procedure lost its right to run by itself; [`engine`] folds events and decides, [`notify`] says
//! who is to be told. Of a recovery, [`queue`] says whose turn it is, [`procedure`] what its next step is,
//! [`verification`] whether it worked, [`desk`] what people may say about it; of a move, [`sites`] whether a site may be
//! left, [`moves`] how. [`explain`] says afterwards why.
//!
//! All of these are pure: no clock, no I/O, no runtime. [`channel`], [`action`] and [`runner`] are the effects:
//! notifications sent, steps done.

pub mod action;
pub mod budget;
pub mod burn;
#[cfg(test)]
mod cases;
pub mod channel;
pub mod condition;
pub mod demotion;
pub mod desk;
pub mod engine;
pub mod explain;
pub mod flapping;
pub(crate) mod hindrance;
pub mod hold;
pub mod matcher;
pub mod moves;
pub mod notify;
pub(crate) mod order;
pub mod pause;
pub mod procedure;
pub mod queue;
pub mod runner;
pub mod sites;
pub mod suppress;
#[cfg(test)]
mod testing;
pub mod threshold;
pub mod verification;

use std::time::Duration;

use chrono::TimeDelta;

/// The `source` of everything that the alerting rules decide.
pub const SOURCE: &str = "rebound/alert";

/// A duration of the plan's; one too long for a calendar is forever.
pub(crate) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
