//! How far a recovery is, and what follows: a fold over the recovery's own events. Pure.

use std::time::Duration;

use rebound_schemas::EventData;
use rebound_schemas::event::{ErrorClass, RecoveryOutcome, StepOutcome};
use rebound_schemas::plan::{Action, OnCancel, OnFailure, name_in_conditions};
use serde_json::{Map, Value, json};

use super::unfold::{Script, fill_action};
use super::{ReadyStep, shorten};

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Execute a step, after a while if it is a further attempt.
    Run {
        /// Its place in the order of execution.
        index: usize,
        /// Which attempt, from 1.
        attempt: u32,
        /// What it does, with its texts filled in.
        action: Box<Action>,
        /// Back-off before it.
        wait: Duration,
    },
    /// Record how a step ended that is not executed.
    Settle {
        /// Its place in the order of execution.
        index: usize,
        /// The attempt that is not made, from 1.
        attempt: u32,
        /// Skipped, or failed if its texts or its condition could not be made out.
        outcome: StepOutcome,
        /// Why: an error, unless its own condition passed it over.
        reason: Result<String, String>,
    },
    /// Wait until one of the running steps ends.
    Wait,
    /// Every step that could be executed was: verify.
    Verify,
    /// The recovery ends.
    Finish {
        /// How.
        outcome: RecoveryOutcome,
        /// Why it did not succeed, coarsely.
        error_class: Option<ErrorClass>,
        /// Why it did not succeed, in words.
        reason: Option<String>,
        /// People are asked at once, without further attempts by automation.
        escalate: bool,
    },
    /// It has ended already.
    Done,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Progress {
    /// The newest attempt that began.
    attempts: u32,
    /// The newest attempt that ended.
    ended: u32,
    last: Option<StepOutcome>,
    code: Option<i32>,
    output: Option<String>,
    error: Option<String>,
    /// Which success of the recovery it was, from 1.
    succeeded: Option<usize>,
}

/// How far a recovery is: a fold over its own events. Events of other recoveries must not be given to it.
///
/// What the end of a step means:
///
/// | step ended | attempts left | `on_failure` | then |
/// |---|---|---|---|
/// | succeeded, or passed over by its condition | | | the steps that need it |
/// | failed, timed out | yes | | the same step again, after its back-off |
/// | failed, timed out | no | stop | what runs goes on, what did not begin is skipped, the recovery failed |
/// | failed, timed out | no | rollback | as stop; then the steps that succeeded are undone, the last first |
/// | failed, timed out | no | escalate | as stop; and people are asked |
/// | failed, timed out | no | continue | steps that need it are skipped, the others go on, verification decides |
/// | manual | | stop, rollback, escalate | never executed: skipped as *for people*, then as above |
/// | manual | | continue | skipped as *for people*; steps that need it are skipped, the others go on |
/// | skipped for a step that it needs | | any | as the needed step said |
/// | undoing: failed, no attempt left | | stop | the rollback ends there |
/// | undoing: failed, no attempt left | | continue | the rollback goes on |
///
/// Called off by a person: what runs goes on (or is killed), what did not begin is skipped, then the steps that
/// succeeded are undone if the procedure's `on_cancel` or a failed step's `on_failure` says so, and the recovery was
/// cancelled. One whose verification has passed already succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    script: Script,
    progress: Vec<Progress>,
    successes: usize,
    verified: Option<Result<(), String>>,
    /// Who called it off and why, in words.
    called_off: Option<String>,
    finished: bool,
}

impl RunState {
    /// Nothing was done yet.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let progress = vec![Progress::default(); script.steps.len()];
        Self { script, progress, successes: 0, verified: None, called_off: None, finished: false }
    }

    /// The steps in the order of execution, then those that undo.
    #[must_use]
    pub fn steps(&self) -> &[ReadyStep] {
        &self.script.steps
    }

    /// An attempt was taken on: it is not given out again. `step.started` says the same.
    pub fn hold(&mut self, index: usize, attempt: u32) {
        if let Some(progress) = self.progress.get_mut(index) {
            progress.attempts = progress.attempts.max(attempt);
        }
    }

    /// A person called it off: no further step begins. Of two the first is told of.
    pub fn call_off(&mut self, words: &str) {
        self.called_off.get_or_insert_with(|| words.to_owned());
    }

    /// Takes note of an event of this recovery. Taking it twice changes nothing.
    pub fn evolve(&mut self, event: &EventData) {
        match event {
            EventData::StepStarted(data) => self.hold(data.index as usize, data.attempt),
            EventData::StepFinished(data) => {
                if let Some(progress) = self.progress.get_mut(data.index as usize)
                    && data.attempt > progress.ended
                {
                    if data.outcome == StepOutcome::Succeeded {
                        self.successes += 1;
                        progress.succeeded = Some(self.successes);
                    }
                    progress.attempts = progress.attempts.max(data.attempt);
                    progress.ended = data.attempt;
                    progress.last = Some(data.outcome);
                    progress.code = data.code;
                    progress.output.clone_from(&data.output);
                    progress.error.clone_from(&data.error);
                }
            }
            EventData::RecoveryVerified(data) => {
                let failed = data.checks.iter().filter(|check| !check.passed).map(|check| match &check.detail {
                    Some(detail) => format!("{} ({detail})", check.name),
                    None => check.name.clone(),
                });
                self.verified = Some(if data.passed { Ok(()) } else { Err(failed.collect::<Vec<_>>().join(", ")) });
            }
            EventData::RecoveryFinished(_) => self.finished = true,
            _ => {}
        }
    }

    /// What follows from what was noted.
    #[must_use]
    pub fn next(&self) -> Next {
        if self.finished {
            return Next::Done;
        }
        let forward = || (0..self.script.steps.len()).filter(|index| self.script.steps[*index].undoes.is_none());
        let halted: Vec<usize> = forward().filter(|index| self.halts(*index)).collect();
        let running = (0..self.progress.len()).filter(|index| self.running(*index)).count();
        for index in forward().filter(|index| !self.settled(*index) && !self.running(*index)) {
            if let Some(words) = &self.called_off {
                let (attempt, outcome) = (self.progress[index].attempts + 1, StepOutcome::Skipped);
                return Next::Settle { index, attempt, outcome, reason: Err(words.clone()) };
            }
            if let Some(next) = self.next_of_step(index, halted.first().copied(), running) {
                return next;
            }
        }
        if running > 0 {
            return Next::Wait;
        }
        if let Some(words) = self.called_off.as_ref().filter(|_| !matches!(self.verified, Some(Ok(())))) {
            return self.end_of_called_off(words);
        }
        if let Some(first) = halted.first() {
            let says = |what| halted.iter().any(|index| self.script.steps[*index].step.on_failure == what);
            if says(OnFailure::RollBack)
                && let Some(next) = self.next_undo()
            {
                return next;
            }
            let (error_class, reason) = self.failure_of(*first);
            let reason = if says(OnFailure::RollBack) { format!("{reason}; {}", self.undone()) } else { reason };
            return failed(error_class, reason, says(OnFailure::Escalate));
        }
        match &self.verified {
            None => Next::Verify,
            Some(Ok(())) => {
                let (error_class, reason, escalate) = (None, None, false);
                Next::Finish { outcome: RecoveryOutcome::Succeeded, error_class, reason, escalate }
            }
            Some(Err(checks)) => {
                let reason = format!("the steps ran, but verification did not pass in time: {checks}");
                failed(ErrorClass::Unknown, reason, false)
            }
        }
    }

    fn end_of_called_off(&self, words: &str) -> Next {
        let of_step =
            |index: &usize| self.failed(*index) && self.script.steps[*index].step.on_failure == OnFailure::RollBack;
        let rolls_back =
            self.script.on_cancel == OnCancel::RollBack || (0..self.script.steps.len()).any(|index| of_step(&index));
        if rolls_back && let Some(next) = self.next_undo() {
            return next;
        }
        let reason = if rolls_back { format!("{words}; {}", self.undone()) } else { words.to_owned() };
        Next::Finish {
            outcome: RecoveryOutcome::Cancelled,
            error_class: None,
            reason: Some(shorten(&reason, 1000)),
            escalate: false,
        }
    }

    /// `None` when it has to wait.
    fn next_of_step(&self, index: usize, halted: Option<usize>, running: usize) -> Option<Next> {
        let ready = &self.script.steps[index];
        let attempt = self.progress[index].attempts + 1;
        let skip =
            |reason: String| Some(Next::Settle { index, attempt, outcome: StepOutcome::Skipped, reason: Err(reason) });
        if let Some(by) = halted {
            return skip(format!("step {} failed before it", self.script.steps[by].step.id));
        }
        if let Some(needed) = ready.needs.iter().find(|needed| self.settled(**needed) && !self.passed(**needed)) {
            return skip(format!("it needs step {}, which did not succeed", self.script.steps[*needed].step.id));
        }
        if !ready.needs.iter().chain(&ready.after).all(|earlier| self.settled(*earlier)) {
            return None;
        }
        // What needs no room waits for it all the same: one after the other means in the order of execution.
        if running >= self.script.parallel {
            return None;
        }
        if attempt == 1 {
            match self.condition(ready) {
                Ok(None) => {}
                Ok(Some(unmet)) => {
                    let reason = Ok(format!("passed over, since this does not hold: {unmet}"));
                    return Some(Next::Settle { index, attempt, outcome: StepOutcome::Skipped, reason });
                }
                Err(error) => return Some(self.refuse(index, error)),
            }
        }
        if let Action::Manual { .. } = &ready.step.action {
            return match fill_action(&ready.step.action, &|name| self.value(ready, name)) {
                Ok(Action::Manual { instruction }) => skip(format!("for people: {instruction}")),
                Ok(_) => None,
                Err(error) => Some(self.refuse(index, error)),
            };
        }
        Some(self.run(index))
    }

    fn run(&self, index: usize) -> Next {
        let ready = &self.script.steps[index];
        let attempt = self.progress[index].attempts + 1;
        let action = match fill_action(&ready.step.action, &|name| self.value(ready, name)) {
            Ok(action) => Box::new(action),
            Err(error) => return self.refuse(index, error),
        };
        let wait = match attempt.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
                ready.step.backoff.saturating_mul(factor).min(ready.step.backoff_max)
            }
        };
        Next::Run { index, attempt, action, wait }
    }

    /// A step whose texts or condition can't be made out failed for good: another attempt would find the same.
    fn refuse(&self, index: usize, error: String) -> Next {
        let attempt = self.progress[index].attempts.max(self.script.steps[index].step.retries) + 1;
        Next::Settle { index, attempt, outcome: StepOutcome::Failed, reason: Err(error) }
    }

    /// The next step of the rollback: of the succeeded steps that can be undone and were not, the last one.
    fn next_undo(&self) -> Option<Next> {
        let undoing = || (0..self.progress.len()).filter(|index| self.script.steps[*index].undoes.is_some());
        let ended_it =
            |index: &usize| self.failed(*index) && self.script.steps[*index].step.on_failure == OnFailure::Stop;
        if undoing().any(|index| ended_it(&index)) {
            return None;
        }
        let order = |index: &usize| self.script.steps[*index].undoes.and_then(|of| self.progress[of].succeeded);
        let next = undoing().filter(|index| !self.settled(*index) && order(index).is_some()).max_by_key(order);
        next.map(|index| self.run(index))
    }

    /// What the rollback came to, in words.
    fn undone(&self) -> String {
        let undoing = || (0..self.progress.len()).filter_map(|index| Some((index, self.script.steps[index].undoes?)));
        let names = |wanted: &dyn Fn(usize, usize) -> bool| {
            let found = undoing().filter(|(index, of)| wanted(*index, *of));
            found.map(|(_, of)| self.script.steps[of].step.id.as_str()).collect::<Vec<_>>().join(", ")
        };
        let done = names(&|index, _| self.passed(index));
        let left = names(&|index, of| self.progress[of].succeeded.is_some() && !self.passed(index));
        match (done.is_empty(), left.is_empty()) {
            (true, true) => "there was nothing to roll back".to_owned(),
            (false, true) => format!("rolled back: {done}"),
            (true, false) => format!("the rollback failed, not undone: {left}"),
            (false, false) => format!("the rollback failed, undone: {done}, not undone: {left}"),
        }
    }

    fn running(&self, index: usize) -> bool {
        self.progress[index].attempts > self.progress[index].ended
    }

    /// No attempt at the step is left to make.
    fn settled(&self, index: usize) -> bool {
        let progress = &self.progress[index];
        !self.running(index)
            && match progress.last {
                None => false,
                Some(StepOutcome::Succeeded | StepOutcome::Skipped) => true,
                Some(StepOutcome::Failed | StepOutcome::TimedOut) => {
                    progress.ended > self.script.steps[index].step.retries
                }
            }
    }

    fn failed(&self, index: usize) -> bool {
        let bad = matches!(self.progress[index].last, Some(StepOutcome::Failed | StepOutcome::TimedOut));
        bad && self.settled(index)
    }

    /// It succeeded, or its own condition passed it over: then there is no error.
    fn passed(&self, index: usize) -> bool {
        let progress = &self.progress[index];
        match progress.last {
            Some(StepOutcome::Succeeded) => true,
            Some(StepOutcome::Skipped) => progress.error.is_none(),
            _ => false,
        }
    }

    /// Whether the step's own end halts the recovery.
    fn halts(&self, index: usize) -> bool {
        let ready = &self.script.steps[index];
        let manual = matches!(ready.step.action, Action::Manual { .. });
        let skipped = self.progress[index].last == Some(StepOutcome::Skipped);
        let for_people =
            manual && skipped && !self.passed(index) && ready.needs.iter().all(|needed| self.passed(*needed));
        ready.step.on_failure != OnFailure::Continue && (self.failed(index) || for_people)
    }

    /// The first condition that does not hold.
    fn condition(&self, ready: &ReadyStep) -> Result<Option<String>, String> {
        for (scope, when) in &ready.when {
            match when.holds(&self.values(scope)) {
                Ok(true) => {}
                Ok(false) => return Ok(Some(when.to_string())),
                Err(error) => return Err(format!("its condition {when} can't be judged: {error}")),
            }
        }
        Ok(None)
    }

    /// What conditions within a path can name.
    fn values(&self, scope: &str) -> Value {
        let inputs = &self.script.inputs;
        let mut steps = Map::new();
        let single = self.script.steps.iter().enumerate().map(|(index, ready)| (ready.step.id.as_str(), vec![index]));
        let several = self.script.groups.iter().map(|(path, places)| (path.as_str(), places.clone()));
        for (path, places) in single.chain(several) {
            let Some(name) = path.strip_prefix(scope).filter(|name| !name.contains('/')) else { continue };
            let Some((outcome, last)) = self.together(&places) else { continue };
            let output = last.output.as_deref().unwrap_or_default().trim_end();
            let value = json!({"outcome": outcome.as_str(), "output": output, "code": last.code});
            steps.insert(name_in_conditions(name), value);
        }
        json!({
            "service": inputs.service.as_str(), "site": inputs.site.as_str(), "incident": inputs.incident.as_str(),
            "recovery": inputs.recovery.as_str(), "attempt": inputs.attempt, "reason": inputs.reason,
            "error_class": inputs.error_class.as_str(), "first_failure_at": inputs.value("first_failure_at"),
            "steps": steps, "input": inputs.inputs,
        })
    }

    /// How a step ended that may have become several: as the first of them that did not succeed, else as the last.
    fn together(&self, places: &[usize]) -> Option<(StepOutcome, &Progress)> {
        if !places.iter().all(|index| self.settled(*index)) {
            return None;
        }
        let bad = places.iter().find(|index| !self.passed(**index));
        let progress = &self.progress[*bad.or(places.last())?];
        Some((progress.last?, progress))
    }

    /// The value of a placeholder in a step's texts.
    fn value(&self, ready: &ReadyStep, name: &str) -> Result<String, String> {
        let none = || format!("{{{name}}} has no value");
        let Some((step, field)) = name.strip_prefix("steps.").and_then(|rest| rest.rsplit_once('.')) else {
            return match (name, &ready.each) {
                ("each", Some(service)) => Ok(service.to_string()),
                _ => self.script.inputs.value(name).ok_or_else(none),
            };
        };
        let path = format!("{}{step}", ready.scope);
        let place = self.script.steps.iter().position(|other| other.step.id.as_str() == path);
        let places = place.map(|index| vec![index]).or_else(|| self.script.groups.get(&path).cloned());
        let (outcome, progress) = places.and_then(|places| self.together(&places)).ok_or_else(none)?;
        match field {
            "outcome" => Ok(outcome.to_string()),
            "code" => progress.code.map(|code| code.to_string()).ok_or_else(none),
            "output" if outcome == StepOutcome::Skipped => Err(format!("{none}: it was not run", none = none())),
            "output" => Ok(progress.output.as_deref().unwrap_or_default().trim_end().to_owned()),
            _ => Err(none()),
        }
    }

    fn failure_of(&self, index: usize) -> (ErrorClass, String) {
        let (step, progress) = (&self.script.steps[index].step, &self.progress[index]);
        let class = match (progress.last, &step.action, progress.code) {
            (Some(StepOutcome::TimedOut), _, _) => ErrorClass::Timeout,
            // Neither an exit code nor a status: it could not be run, or reached nobody.
            (Some(StepOutcome::Failed), Action::Command { .. }, None) => ErrorClass::Configuration,
            (Some(StepOutcome::Failed), Action::Http { .. }, None) => ErrorClass::Network,
            (Some(StepOutcome::Failed), Action::Http { .. } | Action::Ask { .. }, _) => ErrorClass::Dependency,
            _ => ErrorClass::Unknown,
        };
        let how = progress.error.as_deref().unwrap_or("it failed without saying why");
        (class, format!("step {}: {how}", step.id))
    }
}

fn failed(error_class: ErrorClass, reason: String, escalate: bool) -> Next {
    let (error_class, reason) = (Some(error_class), Some(shorten(&reason, 1000)));
    Next::Finish { outcome: RecoveryOutcome::Failed, error_class, reason, escalate }
}
