//! A dry run: every step is told as it would be run, its texts filled in, and nothing is executed.
//!
//! What a step would have printed is not known, so later steps get a stand-in that says whose output it is; a
//! condition over such an output is judged by the stand-in, and the event of the step says how it was judged.

use rebound_schemas::event::{
    RecoveryOutcome, RecoveryStarted, RecoveryTriggered, StepFinished, StepOutcome, StepStarted,
};
use rebound_schemas::plan::Action;

use super::run::{Run, place};
use super::{RunnerError, now};
use crate::procedure::{self, Next, RunState};

/// What stands where a step's output would.
const NOT_EXECUTED: &str = "dry run: not executed";

impl Run<'_> {
    /// Journals a whole recovery of which nothing is executed.
    pub(super) async fn dry(&mut self, runner: &str) -> Result<RecoveryOutcome, RunnerError> {
        let task = self.task;
        let RecoveryTriggered { recovery, incident, procedure, .. } = task.trigger.clone();
        let script = match &task.steps {
            Ok(script) => script.clone(),
            Err(reason) => return self.end_dry(format!("it would have failed: {reason}")).await,
        };
        let started = RecoveryStarted { recovery, incident, procedure, runner: runner.to_owned() };
        self.record(vec![task.event("started", now(), started.into())]).await?;
        let mut state = RunState::new(script);
        let mut told = 0;
        loop {
            match state.next() {
                Next::Run { index, attempt, action, .. } => {
                    told += 1;
                    self.tell(&mut state, index, attempt, &action).await?;
                }
                // A person would have done it, so what needs it would have gone on.
                Next::Settle { index, attempt, outcome: StepOutcome::Skipped, .. }
                    if matches!(state.steps()[index].step.action, Action::Manual { .. }) =>
                {
                    told += 1;
                    let action = state.steps()[index].step.action.clone();
                    self.tell(&mut state, index, attempt, &action).await?;
                }
                Next::Settle { index, attempt, outcome, reason } => {
                    let (output, error) = match reason {
                        Ok(passed_over) => (Some(passed_over), None),
                        Err(error) => (None, Some(error)),
                    };
                    let finished = self.finished(&state, index, attempt, outcome, output, error);
                    state.evolve(&finished.clone().into());
                    let id = format!("step-{index}-{attempt}-finished");
                    self.record(vec![task.event(&id, now(), finished.into())]).await?;
                }
                Next::Verify => return self.end_dry(format!("{told} steps were told, none was executed")).await,
                Next::Finish { reason, .. } => {
                    let why = reason.unwrap_or_default();
                    return self.end_dry(format!("it would have failed: {why}")).await;
                }
                Next::Wait | Next::Done => unreachable!("nothing runs, and the end is not given to the state"),
            }
        }
    }

    /// Journals what a step would do, and lets the state believe that it succeeded.
    async fn tell(
        &mut self,
        state: &mut RunState,
        index: usize,
        attempt: u32,
        action: &Action,
    ) -> Result<(), RunnerError> {
        let task = self.task;
        let step = state.steps()[index].step.id.clone();
        let RecoveryTriggered { recovery, incident, .. } = task.trigger.clone();
        let action = procedure::describe(action);
        let started = StepStarted { recovery, incident, step: step.clone(), index: place(index), attempt, action };
        let told = self.finished(state, index, attempt, StepOutcome::Skipped, Some(NOT_EXECUTED.to_owned()), None);
        let output = Some(format!("<output of {step}>"));
        let believed = StepFinished { outcome: StepOutcome::Succeeded, code: Some(0), output, ..told.clone() };
        let at = now();
        let id = |what: &str| format!("step-{index}-{attempt}-{what}");
        state.evolve(&started.clone().into());
        state.evolve(&believed.into());
        let events = vec![task.event(&id("started"), at, started.into()), task.event(&id("finished"), at, told.into())];
        self.record(events).await
    }

    fn finished(
        &self,
        state: &RunState,
        index: usize,
        attempt: u32,
        outcome: StepOutcome,
        output: Option<String>,
        error: Option<String>,
    ) -> StepFinished {
        StepFinished {
            recovery: self.task.trigger.recovery.clone(),
            incident: self.task.trigger.incident.clone(),
            step: state.steps()[index].step.id.clone(),
            index: place(index),
            attempt,
            outcome,
            duration_ms: 0,
            code: None,
            output,
            error,
        }
    }

    async fn end_dry(&mut self, reason: String) -> Result<RecoveryOutcome, RunnerError> {
        self.finish(RecoveryOutcome::DryRun, None, Some(procedure::shorten(&reason, 1000)), false).await
    }
}
