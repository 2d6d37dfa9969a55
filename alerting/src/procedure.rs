//! What a recovery does next: a procedure unfolded into steps, and a fold over what became of them. Pure.
//!
//! [`unfold`] puts steps in order and fills in their placeholders; [`RunState`] folds the recovery's own events and
//! [`RunState::next`] says what follows. Executing, journalling and waiting are [`crate::runner`]'s.

use std::collections::BTreeMap;

use rebound_schemas::event::{ErrorClass, RecoveryOutcome, StepOutcome};
use rebound_schemas::plan::{Action, OnFailure, Procedure, Step};
use rebound_schemas::{EventData, IncidentId, ProcedureId, RecoveryId, ServiceId, SiteId, StepId};

/// Longest description of an action that an event carries, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 300;

/// Why a procedure can't be run as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcedureError {
    /// A placeholder that there is no value for.
    #[error(
        "procedure {procedure}, step {step}: {{{name}}} is not a placeholder; there are {{service}}, {{site}}, {{incident}}, {{recovery}} and {{attempt}} (write {{{{{name}}}}} for the text itself)"
    )]
    UnknownPlaceholder {
        /// The procedure.
        procedure: ProcedureId,
        /// The step.
        step: StepId,
        /// What stood between the braces.
        name: String,
    },
    /// A step needs one that the procedure does not have.
    #[error("procedure {procedure}, step {step}: it needs {needed}, which is not a step of the procedure")]
    UnknownNeed {
        /// The procedure.
        procedure: ProcedureId,
        /// The step.
        step: StepId,
        /// What it needs.
        needed: StepId,
    },
    /// Steps that need one another.
    #[error("procedure {procedure}: steps need one another: {}", .steps.iter().map(StepId::as_str).collect::<Vec<_>>().join(", "))]
    Cycle {
        /// The procedure.
        procedure: ProcedureId,
        /// The steps that can't be put in an order.
        steps: Vec<StepId>,
    },
}

/// The values of the placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholders {
    /// `{service}`: the service that is recovered.
    pub service: ServiceId,
    /// `{site}`: where it runs.
    pub site: SiteId,
    /// `{incident}`: what it is recovered from.
    pub incident: IncidentId,
    /// `{recovery}`: this recovery.
    pub recovery: RecoveryId,
    /// `{attempt}`: which attempt at the incident, from 1.
    pub attempt: u32,
}

impl Placeholders {
    fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "service" => self.service.to_string(),
            "site" => self.site.to_string(),
            "incident" => self.incident.to_string(),
            "recovery" => self.recovery.to_string(),
            "attempt" => self.attempt.to_string(),
            _ => return None,
        })
    }

    /// Fills in a text; an unknown name is given back as the error.
    ///
    /// | written | becomes |
    /// |---|---|
    /// | `{service}` | the service |
    /// | `{servise}` | an error: a lower-case name in braces must be a placeholder |
    /// | `{{service}}` | the text `{service}` |
    /// | `{"a": {}}`, `${HOME}` | itself: braces around anything else are plain text, so that JSON can be written |
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            filled.push_str(&rest[..open]);
            rest = &rest[open..];
            if let Some(name) = rest.strip_prefix('{').and_then(quoted_name) {
                filled.push_str(name);
                rest = &rest[name.len() + 2..];
            } else if let Some(name) = plain_name(rest) {
                filled.push_str(&self.value(name).ok_or_else(|| name.to_owned())?);
                rest = &rest[name.len() + 2..];
            } else {
                filled.push('{');
                rest = &rest[1..];
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// `{name}…` gives `name`.
fn plain_name(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(name)
}

/// `{name}}…`, which is what follows the first brace of a doubled one, gives `{name}`.
fn quoted_name(text: &str) -> Option<&str> {
    let name = plain_name(text)?;
    text[name.len() + 2..].starts_with('}').then(|| &text[..name.len() + 2])
}

/// A step that is ready to be executed: its texts are filled in and what it needs comes before it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyStep {
    /// The step as the plan has it, with placeholders filled in.
    pub step: Step,
    /// Places, in the order of execution, of the steps that must have succeeded.
    pub needs: Vec<usize>,
}

/// A procedure's steps in the order of execution (what a step needs comes first; otherwise as written), with their
/// placeholders filled in. A wrong step fails the whole procedure, so that nothing is found out half-way.
pub fn unfold(procedure: &Procedure, placeholders: &Placeholders) -> Result<Vec<ReadyStep>, ProcedureError> {
    let mut places: BTreeMap<&StepId, usize> = BTreeMap::new();
    let mut ready: Vec<ReadyStep> = Vec::with_capacity(procedure.steps.len());
    for step in &procedure.steps {
        if let Some(needed) = step.needs.iter().find(|n| !procedure.steps.iter().any(|s| s.id == **n)) {
            let (step, needed) = (step.id.clone(), needed.clone());
            return Err(ProcedureError::UnknownNeed { procedure: procedure.id.clone(), step, needed });
        }
    }
    while ready.len() < procedure.steps.len() {
        let next = procedure
            .steps
            .iter()
            .find(|s| !places.contains_key(&s.id) && s.needs.iter().all(|needed| places.contains_key(needed)));
        let Some(step) = next else {
            let steps = procedure.steps.iter().map(|s| s.id.clone()).filter(|id| !places.contains_key(id)).collect();
            return Err(ProcedureError::Cycle { procedure: procedure.id.clone(), steps });
        };
        let action = fill_action(&step.action, placeholders).map_err(|name| ProcedureError::UnknownPlaceholder {
            procedure: procedure.id.clone(),
            step: step.id.clone(),
            name,
        })?;
        places.insert(&step.id, ready.len());
        let needs = step.needs.iter().map(|needed| places[needed]).collect();
        ready.push(ReadyStep { step: Step { action, ..step.clone() }, needs });
    }
    Ok(ready)
}

fn fill_action(action: &Action, placeholders: &Placeholders) -> Result<Action, String> {
    let fill = |text: &String| placeholders.fill(text);
    let fill_values = |map: &BTreeMap<String, String>| -> Result<BTreeMap<String, String>, String> {
        map.iter().map(|(key, value)| Ok((key.clone(), fill(value)?))).collect()
    };
    Ok(match action {
        Action::Command { argv, env } => {
            Action::Command { argv: argv.iter().map(fill).collect::<Result<_, _>>()?, env: fill_values(env)? }
        }
        Action::Http { method, url, headers, body, allow_private } => Action::Http {
            method: method.clone(),
            url: fill(url)?,
            headers: fill_values(headers)?,
            body: body.as_ref().map(fill).transpose()?,
            allow_private: *allow_private,
        },
        Action::WaitForProbe { probe } => Action::WaitForProbe { probe: probe.clone() },
        Action::Manual { instruction } => Action::Manual { instruction: fill(instruction)? },
    })
}

/// An action in words, for `step.started`. Left out, since they may be secret: a command's environment, and a
/// request's headers, body, user, password, query and fragment. A command's arguments are shown: every user of the
/// machine can read those anyway.
#[must_use]
pub fn describe(action: &Action) -> String {
    let text = match action {
        Action::Command { argv, .. } => format!("run {}", argv.join(" ")),
        Action::Http { method, url, .. } => match url::Url::parse(url) {
            Ok(mut url) => {
                url.set_query(None);
                url.set_fragment(None);
                // An address that can't have a user has none to hide.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                format!("{method} {url}")
            }
            Err(_) => format!("{method} an address that is not one"),
        },
        Action::WaitForProbe { probe: Some(probe) } => format!("wait until probe {probe} is healthy"),
        Action::WaitForProbe { probe: None } => "wait until the service's probes are healthy".into(),
        Action::Manual { instruction } => format!("for people: {instruction}"),
    };
    shorten(&text, MAX_DESCRIPTION_BYTES)
}

/// The text, cut at a character's border with `…` if it has more than `limit` bytes.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Execute a step.
    Run {
        /// Its place in the order of execution.
        index: usize,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Record that a step is not executed.
    Skip {
        /// Its place in the order of execution.
        index: usize,
        /// Why, in words.
        reason: String,
    },
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
    },
    /// It has ended already.
    Done,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Progress {
    attempts: u32,
    last: Option<StepOutcome>,
    code: Option<i32>,
    error: Option<String>,
}

/// How far a recovery is: a fold over its own events. Events of other recoveries must not be given to it.
///
/// What the end of a step means:
///
/// | step ended | attempts left | `on_failure` | then |
/// |---|---|---|---|
/// | succeeded | | | the next step |
/// | failed, timed out | yes | | the same step again |
/// | failed, timed out | no | stop | later steps are skipped, the recovery failed |
/// | failed, timed out | no | continue | steps that need it are skipped, the others go on, verification decides |
/// | manual | | stop | never executed: skipped as *for people*; later steps are skipped, the recovery failed (and is escalated) |
/// | manual | | continue | skipped as *for people*; steps that need it are skipped, the others go on |
/// | skipped for a step that it needs | | either | as the needed step said |
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    steps: Vec<ReadyStep>,
    progress: Vec<Progress>,
    verified: Option<Result<(), String>>,
    finished: bool,
}

impl RunState {
    /// Nothing was done yet.
    #[must_use]
    pub fn new(steps: Vec<ReadyStep>) -> Self {
        let progress = vec![Progress::default(); steps.len()];
        Self { steps, progress, verified: None, finished: false }
    }

    /// The steps in the order of execution.
    #[must_use]
    pub fn steps(&self) -> &[ReadyStep] {
        &self.steps
    }

    /// Takes note of an event of this recovery. Taking it twice changes nothing.
    pub fn evolve(&mut self, event: &EventData) {
        match event {
            EventData::StepStarted(data) => {
                if let Some(progress) = self.progress.get_mut(data.index as usize) {
                    progress.attempts = progress.attempts.max(data.attempt);
                }
            }
            EventData::StepFinished(data) => {
                if let Some(progress) = self.progress.get_mut(data.index as usize)
                    && data.attempt >= progress.attempts
                {
                    let (attempts, last) = (data.attempt, Some(data.outcome));
                    *progress = Progress { attempts, last, code: data.code, error: data.error.clone() };
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
        let stopped = (0..self.steps.len()).find(|index| self.stops(*index));
        if let Some(index) = (0..self.steps.len()).find(|index| !self.settled(*index)) {
            return self.next_of_step(index, stopped);
        }
        if let Some(index) = stopped {
            let (error_class, reason) = self.failure_of(index);
            return Next::Finish {
                outcome: RecoveryOutcome::Failed,
                error_class: Some(error_class),
                reason: Some(reason),
            };
        }
        match &self.verified {
            None => Next::Verify,
            Some(Ok(())) => Next::Finish { outcome: RecoveryOutcome::Succeeded, error_class: None, reason: None },
            Some(Err(checks)) => Next::Finish {
                outcome: RecoveryOutcome::Failed,
                error_class: Some(ErrorClass::Unknown),
                reason: Some(shorten(&format!("the steps ran, but verification did not pass in time: {checks}"), 1000)),
            },
        }
    }

    fn next_of_step(&self, index: usize, stopped: Option<usize>) -> Next {
        let ready = &self.steps[index];
        if let Some(by) = stopped {
            return Next::Skip { index, reason: format!("step {} failed before it", self.steps[by].step.id) };
        }
        if let Some(needed) = self.missing_need(index) {
            return Next::Skip {
                index,
                reason: format!("it needs step {}, which did not succeed", self.steps[needed].step.id),
            };
        }
        if let Action::Manual { instruction } = &ready.step.action {
            return Next::Skip { index, reason: format!("for people: {instruction}") };
        }
        Next::Run { index, attempt: self.progress[index].attempts + 1 }
    }

    /// No attempt at the step is left to make. One that was started and did not end is not settled.
    fn settled(&self, index: usize) -> bool {
        let progress = &self.progress[index];
        match progress.last {
            None => false,
            Some(StepOutcome::Succeeded | StepOutcome::Skipped) => true,
            Some(StepOutcome::Failed | StepOutcome::TimedOut) => progress.attempts > self.steps[index].step.retries,
        }
    }

    fn missing_need(&self, index: usize) -> Option<usize> {
        let succeeded = |needed: &usize| self.progress[*needed].last == Some(StepOutcome::Succeeded);
        self.steps[index].needs.iter().copied().find(|needed| self.settled(*needed) && !succeeded(needed))
    }

    /// Whether the step's own failure ends the recovery.
    fn stops(&self, index: usize) -> bool {
        let step = &self.steps[index].step;
        let manual = matches!(step.action, Action::Manual { .. });
        step.on_failure == OnFailure::Stop
            && self.settled(index)
            && match self.progress[index].last {
                Some(StepOutcome::Failed | StepOutcome::TimedOut) => true,
                Some(StepOutcome::Skipped) => manual && self.missing_need(index).is_none(),
                Some(StepOutcome::Succeeded) | None => false,
            }
    }

    fn failure_of(&self, index: usize) -> (ErrorClass, String) {
        let (step, progress) = (&self.steps[index].step, &self.progress[index]);
        let class = match (progress.last, &step.action, progress.code) {
            (Some(StepOutcome::TimedOut), _, _) => ErrorClass::Timeout,
            // Neither an exit code nor a status: it could not be run, or reached nobody.
            (Some(StepOutcome::Failed), Action::Command { .. }, None) => ErrorClass::Configuration,
            (Some(StepOutcome::Failed), Action::Http { .. }, None) => ErrorClass::Network,
            (Some(StepOutcome::Failed), Action::Http { .. }, Some(_)) => ErrorClass::Dependency,
            _ => ErrorClass::Unknown,
        };
        let how = progress.error.as_deref().unwrap_or("it failed without saying why");
        (class, shorten(&format!("step {}: {how}", step.id), 1000))
    }
}

#[cfg(test)]
mod tests;
