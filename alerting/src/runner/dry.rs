//! A dry run: every step is told as it would be run, its texts filled in, and nothing is executed.
//!
//! What a step would have printed is not known, so later steps get a stand-in that says whose output it is; a
//! condition over such an output is judged by the stand-in, and the event of the step says how it was judged.

use std::time::Duration;

use rebound_schemas::event::{RecoveryOutcome, StepFinished, StepOutcome};
use rebound_schemas::plan::Action;

use super::run::Run;
use super::{RunnerError, now};
use crate::action::ActionResult;
use crate::procedure::{self, Next, RunState};

/// What stands where a step's output would.
const NOT_EXECUTED: &str = "dry run: not executed";

impl Run<'_> {
    /// Journals a whole recovery of which nothing is executed.
    pub(super) async fn dry(&mut self, runner: &str) -> Result<RecoveryOutcome, RunnerError> {
        let script = match &self.task.steps {
            Ok(script) => script.clone(),
            Err(reason) => return self.end_dry(format!("it would have failed: {reason}")).await,
        };
        self.record(vec![self.started(runner)]).await?;
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
                    self.settled(&mut state, index, attempt, outcome, reason).await?;
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
        let at = now();
        let started = self.step_started(state, index, attempt, action, at);
        let passed_over = ActionResult {
            outcome: StepOutcome::Skipped,
            output: Some(NOT_EXECUTED.to_owned()),
            ..ActionResult::succeeded()
        };
        let told = self.step_finished(state, index, attempt, passed_over, Duration::ZERO);
        let output = Some(format!("<output of {}>", told.step));
        let believed = StepFinished { outcome: StepOutcome::Succeeded, code: Some(0), output, ..told.clone() };
        state.evolve(&started.data);
        state.evolve(&believed.into());
        let finished = self.task.event(&format!("step-{index}-{attempt}-finished"), at, told.into());
        self.record(vec![started, finished]).await
    }

    async fn end_dry(&mut self, reason: String) -> Result<RecoveryOutcome, RunnerError> {
        self.finish(RecoveryOutcome::DryRun, None, Some(procedure::shorten(&reason, 1000)), false).await
    }
}
