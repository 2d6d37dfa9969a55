//! Executes one claimed attempt at a step: a program, a request, or waiting for a probe, a person or an answer.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rebound_schemas::event::StepOutcome;
use rebound_schemas::plan::Action;
use rebound_schemas::{Event, EventData, StepId};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::run::CalledOff;
use super::{Observations, Settings, Stop, Task, now};
use crate::action::{self, ActionResult, Limits, OUTPUT_BYTES, humantime};
use crate::procedure::shorten;
use crate::verification::Verification;

/// What was claimed.
pub(super) struct Claim {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    pub(super) timeout: Duration,
    /// When it was claimed: an approval from before is none of this attempt.
    pub(super) at: DateTime<Utc>,
    /// A person's word that the recovery shall stop.
    pub(super) called_off: CalledOff,
}

/// Executes an action, ended early when Rebound stops (after the drain), or when a person calls the recovery off: at
/// once where it only waits, else when they say so. Whether a stop of Rebound cut it short is told beside its result. A
/// fence drops the future.
pub(super) async fn execute(
    task: &Task,
    settings: &Settings,
    stop: &Stop,
    action: &Action,
    claim: &Claim,
    events: broadcast::Receiver<Arc<Event>>,
) -> (ActionResult, bool) {
    let (cancel, cut_short) = (CancellationToken::new(), CancellationToken::new());
    let only_waits = matches!(action, Action::Approve { .. } | Action::WaitForProbe { .. });
    let CalledOff { soft, kill, .. } = &claim.called_off;
    let watch = async {
        let drained = async {
            stop.shutdown.cancelled().await;
            tokio::time::sleep(settings.drain).await;
        };
        let stopped = tokio::select! {
            () = drained => true,
            () = stop.overdue.cancelled() => true,
            () = kill.cancelled() => false,
            () = soft.cancelled(), if only_waits => false,
        };
        if stopped {
            cut_short.cancel();
        }
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    let limits = Limits { timeout: claim.timeout, grace: settings.kill_grace, cancel: &cancel };
    tokio::select! {
        biased;
        result = Box::pin(act(task, action, claim, events, limits)) => {
            let cut = cut_short.is_cancelled() && result.outcome != StepOutcome::Succeeded;
            (result, cut)
        }
        () = watch => unreachable!("it waits for ever"),
    }
}

async fn act(
    task: &Task,
    action: &Action,
    claim: &Claim,
    mut events: broadcast::Receiver<Arc<Event>>,
    limits: Limits<'_>,
) -> ActionResult {
    match action {
        Action::Command { .. } | Action::Http { .. } => simple(task, action, limits).await,
        Action::WaitForProbe { probe } => {
            let probes = probe.as_ref().map_or_else(|| task.probes.clone(), |probe| vec![probe.clone()]);
            wait_for(&mut events, Verification::new(now(), probes, 1), limits).await
        }
        Action::Approve { question } => {
            let asked = format!("nobody approved within {}: {question}", humantime(limits.timeout));
            awaited(&mut events, limits, asked, |event| match &event.data {
                EventData::RecoveryApproved(data)
                    if data.recovery == task.trigger.recovery
                        && data.step.as_ref() == Some(&claim.step)
                        && event.occurred_at >= claim.at =>
                {
                    let output = Some(format!("approved by {}", data.by));
                    Some(ActionResult { output, ..ActionResult::succeeded() })
                }
                _ => None,
            })
            .await
        }
        Action::Ask { worker, .. } => {
            let asked = format!("{worker} did not answer within {}", humantime(limits.timeout));
            awaited(&mut events, limits, asked, |event| match &event.data {
                EventData::StepAnswered(data)
                    if data.recovery == task.trigger.recovery
                        && data.step == claim.step
                        && data.attempt == claim.attempt =>
                {
                    let outcome = if data.succeeded { StepOutcome::Succeeded } else { StepOutcome::Failed };
                    let error = || data.error.clone().unwrap_or_else(|| format!("{} said that it failed", data.by));
                    let error = (!data.succeeded).then(error);
                    let output = data.output.as_ref().map(|output| shorten(output, OUTPUT_BYTES));
                    Some(ActionResult { outcome, code: None, output, error })
                }
                _ => None,
            })
            .await
        }
        // The pure part never gives these out; should it ever, nobody must believe that somebody did it.
        Action::Manual { instruction } => ActionResult::failed(format!("for people: {instruction}")),
        Action::Procedure { procedure } => ActionResult::failed(format!("procedure {procedure} was not put in place")),
    }
}

/// A program or a request: also what validations are made of.
pub(super) async fn simple(task: &Task, action: &Action, limits: Limits<'_>) -> ActionResult {
    match action {
        Action::Command { argv, env } => action::run_command(argv, env, &task.allow, limits).await,
        Action::Http { method, url, headers, body, allow_private } => {
            let body = body.as_deref();
            let request = action::Request { method, url, headers, body, allow_private: *allow_private };
            action::run_http(request, limits).await
        }
        other => {
            ActionResult::failed(format!("{} is neither a command nor a request", crate::procedure::describe(other)))
        }
    }
}

/// Waits for the event that `answer` makes a result of.
async fn awaited(
    events: &mut broadcast::Receiver<Arc<Event>>,
    limits: Limits<'_>,
    late: String,
    answer: impl Fn(&Event) -> Option<ActionResult>,
) -> ActionResult {
    let deadline = tokio::time::sleep(limits.timeout);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = &mut deadline => return ActionResult::timed_out(late),
            () = limits.cancel.cancelled() => return ActionResult::failed("waiting was called off"),
            event = next_or_never(events) => if let Some(result) = answer(&event) {
                return result;
            },
        }
    }
}

/// The next event; never ready once there will be no more, as silence is no answer.
async fn next_or_never(events: &mut broadcast::Receiver<Arc<Event>>) -> Arc<Event> {
    match events.next().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

async fn wait_for(
    events: &mut broadcast::Receiver<Arc<Event>>,
    mut wanted: Verification,
    limits: Limits<'_>,
) -> ActionResult {
    let deadline = tokio::time::sleep(limits.timeout);
    tokio::pin!(deadline);
    while !wanted.passed() {
        tokio::select! {
            () = &mut deadline => {
                let missing = wanted.checks().into_iter().filter(|c| !c.passed).map(|c| c.name).collect::<Vec<_>>();
                let (missing, time) = (missing.join(", "), humantime(limits.timeout));
                return ActionResult::timed_out(format!("not healthy within {time}: {missing}"));
            }
            () = limits.cancel.cancelled() => return ActionResult::failed("waiting was called off"),
            event = next_or_never(events) => wanted.evolve(&event),
        }
    }
    ActionResult::succeeded()
}
