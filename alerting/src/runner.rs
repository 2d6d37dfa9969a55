//! Executes one recovery, at most once: journals before it acts, runs the steps, verifies, and says how it ended.
//!
//! What follows is decided by [`crate::procedure`] and [`crate::verification`]; this shell has the clock, the actions
//! and the journal. `recovery.started` and every `step.started` are durable before anything is executed, so whoever
//! finds a recovery started and not finished knows that it may have acted, and never repeats it. Ids of events follow
//! from the recovery's, so that an event journalled twice is one event.

mod task;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use rebound_schemas::event::{
    ErrorClass, RecoveryFinished, RecoveryOutcome, RecoveryStarted, RecoveryTriggered, RecoveryVerified, StepFinished,
    StepOutcome, StepStarted,
};
use rebound_schemas::plan::{Action, Plan};
use rebound_schemas::{Event, RecoveryId};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::action::{self, ActionResult, humantime};
use crate::procedure::{self, Next, ReadyStep, RunState};
use crate::verification::Verification;

pub use task::Task;
pub(crate) use task::recovery_event;

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

/// A live stream of observations. It must give at least what the probes of [`Task::watched`] see; anything else is
/// passed over. Losing some only delays a verification.
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
    /// The partition was lost: what runs is killed at once, and nothing more is journalled.
    pub fenced: CancellationToken,
}

/// The runner's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Between two attempts at a step.
    pub retry_wait: Duration,
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
            retry_wait: Duration::from_secs(1),
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
    let began = Instant::now();
    let mut run = Run { task, journal, observations, settings, stop, began };
    let steps = match &task.steps {
        Ok(steps) => steps.clone(),
        Err(reason) => {
            let class = Some(ErrorClass::Configuration);
            return run.finish(RecoveryOutcome::Failed, class, Some(reason.clone())).await;
        }
    };
    let RecoveryTriggered { recovery, incident, procedure, .. } = task.trigger.clone();
    let started = RecoveryStarted { recovery, incident, procedure, runner: runner.to_owned() };
    run.record(vec![task.event("started", now(), started.into())]).await?;
    run.steps(RunState::new(steps)).await
}

struct Run<'a> {
    task: &'a Task,
    journal: &'a mut dyn Journal,
    observations: &'a mut dyn Observations,
    settings: &'a Settings,
    stop: &'a Stop,
    began: Instant,
}

impl Run<'_> {
    async fn steps(&mut self, mut state: RunState) -> Result<RecoveryOutcome, RunnerError> {
        loop {
            match state.next() {
                Next::Run { index, attempt } => {
                    let wait = if attempt > 1 { self.settings.retry_wait } else { Duration::ZERO };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.stop.shutdown.cancelled() => {}
                        () = self.stop.fenced.cancelled() => {}
                    }
                    if self.stop.shutdown.is_cancelled() {
                        let step = &state.steps()[index].step.id;
                        return self.interrupted(&format!("Rebound was stopped before step {step}")).await;
                    }
                    self.step(&mut state, index, attempt).await?;
                }
                Next::Skip { index, reason } => {
                    let result = ActionResult { outcome: StepOutcome::Skipped, ..ActionResult::failed(reason) };
                    let event = self.step_finished(&state, index, 1, result, Duration::ZERO);
                    state.evolve(&event.data);
                    self.record(vec![event]).await?;
                }
                Next::Verify => {
                    let Some(verified) = self.verify().await? else {
                        return self.interrupted("Rebound was stopped during the verification").await;
                    };
                    state.evolve(&verified.data);
                    self.record(vec![verified]).await?;
                }
                Next::Finish { outcome, error_class, reason } => {
                    return self.finish(outcome, error_class, reason).await;
                }
                Next::Done => unreachable!("the end is not given to the state"),
            }
        }
    }

    async fn step(&mut self, state: &mut RunState, index: usize, attempt: u32) -> Result<(), RunnerError> {
        let ready = state.steps()[index].clone();
        let started = StepStarted {
            recovery: self.task.trigger.recovery.clone(),
            incident: self.task.trigger.incident.clone(),
            step: ready.step.id.clone(),
            index: place(index),
            attempt,
            action: procedure::describe(&ready.step.action),
        };
        let event = self.task.event(&format!("step-{index}-{attempt}-started"), now(), started.into());
        state.evolve(&event.data);
        self.record(vec![event]).await?;
        let began = Instant::now();
        let result = self.execute(&ready).await?;
        let event = self.step_finished(state, index, attempt, result, began.elapsed());
        state.evolve(&event.data);
        self.record(vec![event]).await
    }

    /// Executes a step's action, ended early by a shutdown (after the drain) and by a fence (at once, as an error).
    async fn execute(&mut self, ready: &ReadyStep) -> Result<ActionResult, RunnerError> {
        let cancel = CancellationToken::new();
        let stop = self.stop.clone();
        let drain = self.settings.drain;
        let watch = async {
            stop.shutdown.cancelled().await;
            tokio::time::sleep(drain).await;
            cancel.cancel();
            std::future::pending::<()>().await;
        };
        let limits = action::Limits { timeout: ready.step.timeout, grace: self.settings.kill_grace, cancel: &cancel };
        let act = async {
            match &ready.step.action {
                Action::Command { argv, env } => action::run_command(argv, env, &self.task.allow, limits).await,
                Action::Http { method, url, headers, body, allow_private } => {
                    let body = body.as_deref();
                    let request = action::Request { method, url, headers, body, allow_private: *allow_private };
                    action::run_http(request, limits).await
                }
                Action::WaitForProbe { probe } => {
                    let probes = probe.as_ref().map_or_else(|| self.task.probes.clone(), |probe| vec![probe.clone()]);
                    wait_for(self.observations, Verification::new(now(), probes, 1), limits).await
                }
                // The pure part skips these; should it ever not, nobody must believe that somebody did it.
                Action::Manual { instruction } => ActionResult::failed(format!("for people: {instruction}")),
            }
        };
        tokio::select! {
            biased;
            () = stop.fenced.cancelled() => Err(self.fenced()),
            result = Box::pin(act) => Ok(result),
            () = watch => unreachable!("it waits for ever"),
        }
    }

    /// Waits until the service's probes agree that it is back, or time is up; `None` if Rebound was stopped.
    async fn verify(&mut self) -> Result<Option<Event>, RunnerError> {
        let mut verification = Verification::new(now(), self.task.probes.clone(), self.task.successes);
        let deadline = tokio::time::sleep(self.task.verify_within);
        tokio::pin!(deadline);
        let mut open = true;
        while !verification.passed() {
            tokio::select! {
                biased;
                () = self.stop.fenced.cancelled() => return Err(self.fenced()),
                () = self.stop.shutdown.cancelled() => return Ok(None),
                () = &mut deadline => break,
                event = self.observations.next(), if open => match event {
                    Some(event) => verification.evolve(&event),
                    None => open = false,
                },
            }
        }
        let data = RecoveryVerified {
            recovery: self.task.trigger.recovery.clone(),
            incident: self.task.trigger.incident.clone(),
            passed: verification.passed(),
            checks: verification.checks(),
            evidence: verification.evidence(),
        };
        Ok(Some(self.task.event("verified", now(), data.into())))
    }

    fn step_finished(
        &self,
        state: &RunState,
        index: usize,
        attempt: u32,
        result: ActionResult,
        took: Duration,
    ) -> Event {
        let ActionResult { outcome, code, output, error } = result;
        let data = StepFinished {
            recovery: self.task.trigger.recovery.clone(),
            incident: self.task.trigger.incident.clone(),
            step: state.steps()[index].step.id.clone(),
            index: place(index),
            attempt,
            outcome,
            duration_ms: millis(took),
            code,
            output,
            error,
        };
        self.task.event(&format!("step-{index}-{attempt}-finished"), now(), data.into())
    }

    async fn interrupted(&mut self, reason: &str) -> Result<RecoveryOutcome, RunnerError> {
        self.finish(RecoveryOutcome::Interrupted, Some(ErrorClass::Unknown), Some(reason.to_owned())).await
    }

    async fn finish(
        &mut self,
        outcome: RecoveryOutcome,
        error_class: Option<ErrorClass>,
        reason: Option<String>,
    ) -> Result<RecoveryOutcome, RunnerError> {
        let data = RecoveryFinished {
            recovery: self.task.trigger.recovery.clone(),
            incident: self.task.trigger.incident.clone(),
            attempt: self.task.trigger.attempt,
            procedure: self.task.trigger.procedure.clone(),
            method: self.task.method,
            outcome,
            duration_ms: millis(self.began.elapsed()),
            error_class,
            reason,
        };
        self.record(vec![self.task.event("finished", now(), data.into())]).await?;
        Ok(outcome)
    }

    /// Journals events, again and again while the journal is unavailable and patience lasts.
    async fn record(&mut self, events: Vec<Event>) -> Result<(), RunnerError> {
        if self.stop.fenced.is_cancelled() {
            return Err(self.fenced());
        }
        let recovery = self.task.trigger.recovery.clone();
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_total_delay(Some(self.settings.journal_patience))
            .build();
        loop {
            let reason = match self.journal.record(events.clone()).await {
                Ok(()) => return Ok(()),
                Err(JournalError::Fenced) => return Err(RunnerError::Fenced(recovery)),
                Err(JournalError::Unavailable(reason)) => reason,
            };
            let Some(wait) = waits.next() else { return Err(RunnerError::Journal { recovery, reason }) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.fenced.cancelled() => return Err(RunnerError::Fenced(recovery)),
            }
        }
    }

    fn fenced(&self) -> RunnerError {
        RunnerError::Fenced(self.task.trigger.recovery.clone())
    }
}

async fn wait_for(
    observations: &mut dyn Observations,
    mut wanted: Verification,
    limits: action::Limits<'_>,
) -> ActionResult {
    let deadline = tokio::time::sleep(limits.timeout);
    tokio::pin!(deadline);
    let mut open = true;
    while !wanted.passed() {
        tokio::select! {
            () = &mut deadline => {
                let missing = wanted.checks().into_iter().filter(|c| !c.passed).map(|c| c.name).collect::<Vec<_>>();
                let (missing, time) = (missing.join(", "), humantime(limits.timeout));
                return ActionResult::timed_out(format!("not healthy within {time}: {missing}"));
            }
            () = limits.cancel.cancelled() => return ActionResult::failed("waiting was called off"),
            event = observations.next(), if open => match event {
                Some(event) => wanted.evolve(&event),
                None => open = false,
            },
        }
    }
    ActionResult::succeeded()
}

/// The time, to the microsecond that events carry.
fn now() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
