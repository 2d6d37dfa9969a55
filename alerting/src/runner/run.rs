//! The course of one recovery: claims what follows, lets steps run side by side, and journals how each ended.
//!
//! One loop owns the state, the journal and the stream of events; steps run as futures beside it and hand back how
//! they ended. Dropping the loop drops them, which kills what they run.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use rebound_schemas::event::{
    ErrorClass, FailbackFinished, FailoverFinished, FailoverStarted, RecoveryEscalated, RecoveryFinished,
    RecoveryOutcome, RecoveryStarted, RecoveryTriggered, StepFinished, StepOutcome, StepRequested, StepStarted,
    TriggerMode,
};
use rebound_schemas::plan::Action;
use rebound_schemas::{Event, EventData, StepId};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::execute::{Claim, execute};
use super::{Journal, JournalError, Observations, RunnerError, Settings, Stop, Task, now};
use crate::action::ActionResult;
use crate::procedure::{self, Next, RunState};

/// Events on their way to the steps that wait for them. A step that lags behind loses the oldest, which are
/// observations at worst: approvals are kept besides, and answers are rare.
const WAITED_FOR: usize = 1024;

pub(super) struct Run<'a> {
    pub(super) task: &'a Task,
    journal: &'a mut dyn Journal,
    pub(super) observations: &'a mut dyn Observations,
    /// Whether the stream may still give something.
    pub(super) open: bool,
    pub(super) settings: &'a Settings,
    pub(super) stop: &'a Stop,
    began: Instant,
    events: broadcast::Sender<Arc<Event>>,
    /// Whether a person called it off.
    pub(super) called_off: CalledOff,
    /// A move between sites has begun.
    moved: bool,
    /// A step that was ended for want of time: whether it would have failed is not known.
    cut: Option<StepId>,
}

/// A person's word that it shall stop.
#[derive(Debug, Clone, Default)]
pub(super) struct CalledOff {
    /// Who and why, in words.
    words: Option<String>,
    /// No further step begins, and what only waits is waited for no more.
    pub(super) soft: CancellationToken,
    /// What runs is killed.
    pub(super) kill: CancellationToken,
}

/// What a step's future hands back.
enum Turn {
    /// Its back-off is over.
    Due { index: usize, attempt: u32, action: Box<Action> },
    /// It ended.
    Ended { index: usize, attempt: u32, result: ActionResult, cut: bool, took: Duration },
}

impl<'a> Run<'a> {
    pub(super) fn new(
        task: &'a Task,
        journal: &'a mut dyn Journal,
        observations: &'a mut dyn Observations,
        settings: &'a Settings,
        stop: &'a Stop,
    ) -> Self {
        let (events, _) = broadcast::channel(WAITED_FOR);
        Self {
            task,
            journal,
            observations,
            open: true,
            settings,
            stop,
            began: Instant::now(),
            events,
            called_off: CalledOff::default(),
            moved: false,
            cut: None,
        }
    }

    /// Everything, from the claim to the journalled end.
    pub(super) async fn recover(&mut self, runner: &str) -> Result<RecoveryOutcome, RunnerError> {
        let task = self.task;
        if task.trigger.mode == TriggerMode::DryRun {
            return self.dry(runner).await;
        }
        let script = match &task.steps {
            Ok(script) => script.clone(),
            Err(reason) => {
                let class = Some(ErrorClass::Configuration);
                return self.finish(RecoveryOutcome::Failed, class, Some(reason.clone()), false).await;
            }
        };
        let mut events = vec![self.started(runner)];
        if let Some(moved) = task.moves.as_ref().filter(|moved| !moved.back) {
            let recovery = task.trigger.recovery.clone();
            let (failover, recovery) = (recovery.to_string(), Some(recovery));
            let (from_site, to_site) = (moved.from.clone(), moved.to.clone());
            let data = FailoverStarted { failover, from_site, to_site, recovery };
            events.push(task.event("failover-started", now(), data.into()));
        }
        self.moved = task.moves.is_some();
        self.record(events).await?;
        self.steps(RunState::new(script)).await
    }

    /// The `recovery.started`.
    pub(super) fn started(&self, runner: &str) -> Event {
        let RecoveryTriggered { recovery, incident, procedure, .. } = self.task.trigger.clone();
        let data = RecoveryStarted { recovery, incident, procedure, runner: runner.to_owned() };
        self.task.event("started", now(), data.into())
    }

    async fn steps(&mut self, mut state: RunState) -> Result<RecoveryOutcome, RunnerError> {
        let mut running: FuturesUnordered<BoxFuture<'a, Turn>> = FuturesUnordered::new();
        loop {
            self.hear();
            if let Some(words) = &self.called_off.words {
                state.call_off(words);
            }
            let idle = running.is_empty();
            match state.next() {
                _ if self.cut.is_some() && !idle => self.turn(&mut state, &mut running).await?,
                _ if let Some(step) = &self.cut => {
                    let when = format!("during step {step}");
                    return self.interrupted(&when).await;
                }
                Next::Run { index, .. } if self.stop.shutdown.is_cancelled() => {
                    if idle {
                        let step = state.steps()[index].step.id.clone();
                        return self.interrupted(&format!("before step {step}")).await;
                    }
                    self.turn(&mut state, &mut running).await?;
                }
                Next::Run { index, attempt, action, wait } if wait.is_zero() => {
                    state.hold(index, attempt);
                    let claimed = self.claim(&mut state, index, attempt, *action).await?;
                    running.push(claimed);
                }
                Next::Run { index, attempt, action, wait } => {
                    state.hold(index, attempt);
                    let (stop, called_off) = (self.stop.clone(), self.called_off.soft.clone());
                    running.push(Box::pin(async move {
                        tokio::select! {
                            () = tokio::time::sleep(wait) => {}
                            () = stop.shutdown.cancelled() => {}
                            () = called_off.cancelled() => {}
                        }
                        Turn::Due { index, attempt, action }
                    }));
                }
                Next::Settle { index, attempt, outcome, reason } => {
                    self.settled(&mut state, index, attempt, outcome, reason).await?;
                }
                // What waited for its next attempt when Rebound was stopped is held and will not begin.
                Next::Wait if idle => {
                    return self.interrupted("before a further attempt at a step").await;
                }
                Next::Wait => self.turn(&mut state, &mut running).await?,
                Next::Verify => {
                    let verified = self.verify().await?;
                    if verified.is_none() && self.called_off.words.is_some() {
                        continue;
                    }
                    let Some(verified) = verified else {
                        return self.interrupted("during the verification").await;
                    };
                    state.evolve(&verified.data);
                    self.record(vec![verified]).await?;
                }
                Next::Finish { outcome, error_class, reason, escalate } => {
                    return self.finish(outcome, error_class, reason, escalate).await;
                }
                Next::Done => unreachable!("the end is not given to the state"),
            }
        }
    }

    /// Waits until something happens to one of the running steps, and takes note of it.
    async fn turn(
        &mut self,
        state: &mut RunState,
        running: &mut FuturesUnordered<BoxFuture<'a, Turn>>,
    ) -> Result<(), RunnerError> {
        let turn = loop {
            tokio::select! {
                biased;
                () = self.stop.fenced.cancelled() => return Err(self.fenced()),
                Some(turn) = running.next() => break turn,
                event = self.observations.next(), if self.open => match event {
                    Some(event) => self.note(event),
                    None => self.open = false,
                },
            }
        };
        match turn {
            // Held, and not claimed: the loop above says that it was stopped.
            Turn::Due { .. } if self.stop.shutdown.is_cancelled() => Ok(()),
            Turn::Due { index, attempt, .. } if self.called_off.words.is_some() && !undoes(state, index) => {
                let error = self.called_off.words.clone();
                let result = ActionResult { outcome: StepOutcome::Skipped, error, ..ActionResult::succeeded() };
                self.ended(state, index, attempt, result, Duration::ZERO).await
            }
            Turn::Due { index, attempt, action } => {
                let claimed = self.claim(state, index, attempt, *action).await?;
                running.push(claimed);
                Ok(())
            }
            Turn::Ended { index, attempt, result, cut, took } => {
                if cut {
                    self.cut.get_or_insert_with(|| state.steps()[index].step.id.clone());
                }
                self.ended(state, index, attempt, result, took).await
            }
        }
    }

    /// Takes what has come already, so that nothing begins after somebody has said no.
    fn hear(&mut self) {
        for _ in 0..WAITED_FOR {
            match self.observations.next().now_or_never() {
                Some(Some(event)) => self.note(event),
                Some(None) => return self.open = false,
                None => return,
            }
        }
    }

    /// Hands an event on to the steps that wait.
    fn note(&mut self, event: Arc<Event>) {
        self.note_cancel(&event);
        // Nobody waiting is no fault.
        let _ = self.events.send(event);
    }

    /// Takes note of a person's word that the recovery shall stop; answers whether one was said, now or before.
    pub(super) fn note_cancel(&mut self, event: &Event) -> bool {
        if let EventData::RecoveryCancelled(data) = &event.data
            && data.recovery == self.task.trigger.recovery
        {
            let words = || format!("{} called it off: {}", data.by, data.reason);
            self.called_off.words.get_or_insert_with(words);
            self.called_off.soft.cancel();
            if data.now {
                self.called_off.kill.cancel();
            }
        }
        self.called_off.words.is_some()
    }

    /// Makes the attempt durable as this recovery's, and only then gives what executes it.
    async fn claim(
        &mut self,
        state: &mut RunState,
        index: usize,
        attempt: u32,
        action: Action,
    ) -> Result<BoxFuture<'a, Turn>, RunnerError> {
        let ready = &state.steps()[index];
        let (step, timeout) = (ready.step.id.clone(), ready.step.timeout);
        let at = now();
        let started = self.step_started(state, index, attempt, &action, at);
        state.evolve(&started.data);
        let mut events = vec![started];
        if let Action::Ask { worker, args } = &action {
            let RecoveryTriggered { recovery, incident, .. } = self.task.trigger.clone();
            let (worker, args, answer_until) = (worker.clone(), args.clone(), at + timeout);
            let data = StepRequested { recovery, incident, step: step.clone(), attempt, worker, args, answer_until };
            events.push(self.task.event(&format!("step-{index}-{attempt}-requested"), at, data.into()));
        }
        // Before the claim is durable, so that nothing that answers it is missed.
        let waited_for = self.events.subscribe();
        self.record(events).await?;
        // What undoes is not stopped by what it is for.
        let called_off = if undoes(state, index) { CalledOff::default() } else { self.called_off.clone() };
        let claim = Claim { step, attempt, timeout, at, called_off };
        let (task, settings, stop) = (self.task, self.settings, self.stop);
        Ok(Box::pin(async move {
            let began = Instant::now();
            let (result, cut) = execute(task, settings, stop, &action, &claim, waited_for).await;
            Turn::Ended { index, attempt, result, cut, took: began.elapsed() }
        }))
    }

    /// The `step.started` of an attempt.
    pub(super) fn step_started(
        &self,
        state: &RunState,
        index: usize,
        attempt: u32,
        action: &Action,
        at: DateTime<Utc>,
    ) -> Event {
        let RecoveryTriggered { recovery, incident, .. } = self.task.trigger.clone();
        let (step, action) = (state.steps()[index].step.id.clone(), procedure::describe(action));
        let data = StepStarted { recovery, incident, step, index: place(index), attempt, action };
        self.task.event(&format!("step-{index}-{attempt}-started"), at, data.into())
    }

    /// The `step.finished` of an attempt.
    pub(super) fn step_finished(
        &self,
        state: &RunState,
        index: usize,
        attempt: u32,
        result: ActionResult,
        took: Duration,
    ) -> StepFinished {
        let RecoveryTriggered { recovery, incident, .. } = self.task.trigger.clone();
        let ActionResult { outcome, code, output, error } = result;
        let (step, index, duration_ms) = (state.steps()[index].step.id.clone(), place(index), millis(took));
        StepFinished { recovery, incident, step, index, attempt, outcome, duration_ms, code, output, error }
    }

    async fn ended(
        &mut self,
        state: &mut RunState,
        index: usize,
        attempt: u32,
        result: ActionResult,
        took: Duration,
    ) -> Result<(), RunnerError> {
        let data = self.step_finished(state, index, attempt, result, took);
        let event = self.task.event(&format!("step-{index}-{attempt}-finished"), now(), data.into());
        state.evolve(&event.data);
        self.record(vec![event]).await
    }

    /// Records how a step ended that is not executed.
    pub(super) async fn settled(
        &mut self,
        state: &mut RunState,
        index: usize,
        attempt: u32,
        outcome: StepOutcome,
        reason: Result<String, String>,
    ) -> Result<(), RunnerError> {
        let mut result = ActionResult { outcome, ..ActionResult::succeeded() };
        match reason {
            Ok(passed_over) => result.output = Some(passed_over),
            Err(error) => result.error = Some(error),
        }
        self.ended(state, index, attempt, result, Duration::ZERO).await
    }

    async fn interrupted(&mut self, when: &str) -> Result<RecoveryOutcome, RunnerError> {
        let why = match self.stop.overdue.is_cancelled() {
            true => "its partition went to another instance",
            false => "Rebound was stopped",
        };
        let reason = Some(format!("{why} {when}"));
        self.finish(RecoveryOutcome::Interrupted, Some(ErrorClass::Unknown), reason, false).await
    }

    /// Journals the end: of the move between sites if there was one, the call for people if there is one, and the
    /// recovery's own, together.
    pub(super) async fn finish(
        &mut self,
        outcome: RecoveryOutcome,
        error_class: Option<ErrorClass>,
        reason: Option<String>,
        escalate: bool,
    ) -> Result<RecoveryOutcome, RunnerError> {
        let trigger = &self.task.trigger;
        let (at, duration_ms) = (now(), millis(self.began.elapsed()));
        let mut events = Vec::new();
        if let Some(moved) = self.task.moves.as_ref().filter(|_| self.moved) {
            let (from_site, to_site) = (moved.from.clone(), moved.to.clone());
            let (failover, succeeded) = (trigger.recovery.to_string(), outcome == RecoveryOutcome::Succeeded);
            let data: EventData = if moved.back {
                FailbackFinished { failover, from_site, to_site, succeeded, duration_ms }.into()
            } else {
                let (data_until, reason) = (None, reason.clone());
                FailoverFinished { failover, from_site, to_site, succeeded, duration_ms, data_until, reason }.into()
            };
            events.push(self.task.event("moved", at, data));
        }
        if escalate {
            let (incident, recovery) = (trigger.incident.clone(), Some(trigger.recovery.clone()));
            let reason = reason.clone().unwrap_or_default();
            let data = RecoveryEscalated { incident, recovery, attempts: trigger.attempt, reason, stopped: None };
            events.push(self.task.event("escalated", at, data.into()));
        }
        let data = RecoveryFinished {
            recovery: trigger.recovery.clone(),
            incident: trigger.incident.clone(),
            attempt: trigger.attempt,
            procedure: trigger.procedure.clone(),
            method: self.task.method,
            outcome,
            duration_ms,
            error_class,
            reason,
        };
        events.push(self.task.event("finished", at, data.into()));
        self.record(events).await?;
        Ok(outcome)
    }

    /// Journals events, again and again while the journal is unavailable and patience lasts.
    pub(super) async fn record(&mut self, events: Vec<Event>) -> Result<(), RunnerError> {
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

    pub(super) fn fenced(&self) -> RunnerError {
        RunnerError::Fenced(self.task.trigger.recovery.clone())
    }
}

fn undoes(state: &RunState, index: usize) -> bool {
    state.steps()[index].undoes.is_some()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
