//! Executes one recovery, at most once: journals before it acts, runs the steps, verifies, and says how it ended.
//!
//! What follows is decided by [`crate::procedure`] and [`crate::verification`]; this shell has the clock, the actions
//! and the journal. `recovery.started` and every `step.started` are durable before anything is executed, so whoever
//! finds a recovery started and not finished knows that it may have acted, and never repeats it. Ids of events follow
//! from the recovery's, so that an event journalled twice is one event.

mod dry;
mod execute;
mod run;
mod task;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound, Utc};
use rebound_schemas::event::RecoveryOutcome;
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, RecoveryId};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use run::Run;
pub(crate) use task::recovery_event;
pub use task::{Move, Task};

/// The `source` of everything that recoveries say about themselves.
pub const SOURCE: &str = "rebound/recover";

/// Why an event was not journalled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another instance owns the service's partition now: stop at once.
    #[error("another instance owns the partition now")]
    Fenced,
    /// Not now: the same events may be journalled again later.
    #[error("the journal is unavailable: {0}")]
    Unavailable(String),
}

/// Where a recovery's events go: durable when `record` answers, and refused to all but the owner.
#[async_trait]
pub trait Journal: Send {
    /// Appends events, in order, together or not at all.
    async fn record(&mut self, events: Vec<Event>) -> Result<(), JournalError>;
}

/// A live stream of what a recovery waits for. It must give at least what the probes of [`Task::watched`] see, service
/// levels of the recovered service, and every `recovery.approved`, `recovery.cancelled` and `step.answered` that names
/// the recovery; anything else is passed over. Losing an observation only delays a verification; losing one of the
/// others lets a step time out, or a recovery go on that was to stop.
#[async_trait]
pub trait Observations: Send {
    /// The next observation; `None` when there will be no more. Cancel-safe.
    async fn next(&mut self) -> Option<Arc<Event>>;
}

#[async_trait]
impl Observations for broadcast::Receiver<Arc<Event>> {
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            match self.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Ends a recovery from outside.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Rebound shuts down: no further step begins, a running one gets [`Settings::drain`] to end and is then killed,
    /// and the recovery is journalled as interrupted.
    pub shutdown: CancellationToken,
    /// There is no time for that, since the partition goes to another instance: with `shutdown`, which is cancelled
    /// too, what runs is killed at once, and the recovery is journalled as interrupted.
    pub overdue: CancellationToken,
    /// The partition was lost: what runs is killed at once, and nothing more is journalled.
    pub fenced: CancellationToken,
}

/// The runner's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Between asking a late program to end and killing it.
    pub kill_grace: Duration,
    /// How long a running step may go on when Rebound shuts down.
    pub drain: Duration,
    /// How long an unavailable journal is tried before the recovery is given up.
    pub journal_patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kill_grace: Duration::from_secs(2),
            drain: Duration::from_secs(10),
            journal_patience: Duration::from_secs(60),
        }
    }
}

/// Why a recovery stopped without a journalled end. Whoever owns the partition next finds it started and not
/// finished, and journals it as interrupted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunnerError {
    /// Another instance owns the partition now.
    #[error("recovery {0} was stopped: another instance owns its partition now")]
    Fenced(RecoveryId),
    /// The journal did not take an event for too long.
    #[error("recovery {recovery} was stopped: its events could not be journalled: {reason}")]
    Journal {
        /// The recovery.
        recovery: RecoveryId,
        /// What the journal said last.
        reason: String,
    },
    /// The event that was to be acted on is of another kind.
    #[error("a recovery begins with recovery.triggered, not with {0}")]
    NotATrigger(&'static str),
}

/// Executes the recovery that `triggered` asks for, and tells how it ended once that is journalled.
///
/// The caller has made sure that the recovery was never started ([`crate::queue`]), and calls this once. Dropping
/// the future kills what runs; the recovery is then found unfinished by the next owner.
pub async fn run_recovery(
    plan: &Plan,
    triggered: &Event,
    runner: &str,
    journal: &mut dyn Journal,
    observations: &mut dyn Observations,
    settings: &Settings,
    stop: &Stop,
) -> Result<RecoveryOutcome, RunnerError> {
    run_task(&Task::new(plan, triggered)?, runner, journal, observations, settings, stop).await
}

/// [`run_recovery`] for a task that was put together before.
pub async fn run_task(
    task: &Task,
    runner: &str,
    journal: &mut dyn Journal,
    observations: &mut dyn Observations,
    settings: &Settings,
    stop: &Stop,
) -> Result<RecoveryOutcome, RunnerError> {
    Box::pin(Run::new(task, journal, observations, settings, stop).recover(runner)).await
}

/// The time, to the microsecond that events carry.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_erlmcp;
#[cfg(test)]
mod tests_people;
#[cfg(test)]
mod tests_stop;
