//! After the steps: the service's own probes, then the validations of the plan, each a check of `recovery.verified`.

use std::time::Duration;

use rebound_schemas::Event;
use rebound_schemas::event::{CheckResult, RecoveryVerified, StepOutcome};
use rebound_schemas::plan::{Validation, ValidationCheck};
use tokio_util::sync::CancellationToken;

use super::execute::simple;
use super::run::Run;
use super::{RunnerError, now};
use crate::action::{Limits, humantime};
use crate::procedure::shorten;
use crate::verification::{LevelCheck, Verification};

/// Between two attempts at a validation.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest detail of a check, in bytes.
const DETAIL_BYTES: usize = 500;

impl Run<'_> {
    /// Waits until the service's probes agree that it is back, or time is up, and then looks at everything else that
    /// the plan asks for; `None` if Rebound was stopped, or a person called the recovery off. What the probes deny is
    /// not looked at any closer.
    pub(super) async fn verify(&mut self) -> Result<Option<Event>, RunnerError> {
        let task = self.task;
        let began = now();
        let mut verification = Verification::new(began, task.probes.clone(), task.successes);
        let mut levels: Vec<LevelCheck> = task
            .validations
            .iter()
            .filter_map(|validation| match &validation.check {
                ValidationCheck::ServiceLevel(level) => Some(LevelCheck::new(began, &task.service, level)),
                ValidationCheck::Act(_) => None,
            })
            .collect();
        let deadline = tokio::time::sleep(task.verify_within);
        tokio::pin!(deadline);
        while !verification.passed() {
            tokio::select! {
                biased;
                () = self.stop.fenced.cancelled() => return Err(self.fenced()),
                () = self.stop.shutdown.cancelled() => return Ok(None),
                () = &mut deadline => break,
                event = self.observations.next(), if self.open => match event {
                    Some(event) if self.note_cancel(&event) => return Ok(None),
                    Some(event) => {
                        verification.evolve(&event);
                        levels.iter_mut().for_each(|level| level.evolve(&event));
                    }
                    None => self.open = false,
                },
            }
        }
        let mut checks = verification.checks();
        let mut levels = levels.into_iter();
        for validation in task.validations.iter().filter(|_| verification.passed()) {
            let check = match &validation.check {
                ValidationCheck::Act(_) => self.look(validation).await?,
                ValidationCheck::ServiceLevel(_) => match levels.next() {
                    Some(level) => self.measured(validation, level).await?,
                    None => None,
                },
            };
            let Some(check) = check else { return Ok(None) };
            checks.push(check);
        }
        let data = RecoveryVerified {
            recovery: task.trigger.recovery.clone(),
            incident: task.trigger.incident.clone(),
            passed: checks.iter().all(|check| check.passed),
            checks,
            evidence: verification.evidence(),
        };
        Ok(Some(task.event("verified", now(), data.into())))
    }

    /// Runs a validation's command or request; `None` if Rebound was stopped, or the recovery called off.
    async fn look(&mut self, validation: &Validation) -> Result<Option<CheckResult>, RunnerError> {
        let action = match self.task.validation_action(validation) {
            Ok(action) => action,
            Err(error) => return Ok(Some(result(validation, Err(error)))),
        };
        let (stop, cancel) = (self.stop, CancellationToken::new());
        let mut left = validation.retries;
        loop {
            let limits = Limits { timeout: validation.timeout, grace: self.settings.kill_grace, cancel: &cancel };
            let mut looking = Box::pin(simple(self.task, &action, limits));
            let found = loop {
                tokio::select! {
                    biased;
                    () = stop.fenced.cancelled() => return Err(self.fenced()),
                    () = stop.shutdown.cancelled() => return Ok(None),
                    found = &mut looking => break found,
                    event = self.observations.next(), if self.open => match event {
                        Some(event) if self.note_cancel(&event) => return Ok(None),
                        Some(_) => {}
                        None => self.open = false,
                    },
                }
            };
            let output = found.output.unwrap_or_default();
            let output = output.trim_end();
            if found.outcome == StepOutcome::Succeeded {
                return Ok(Some(result(validation, Ok(output.to_owned()))));
            }
            if left == 0 {
                let error = found.error.unwrap_or_default();
                let detail = if output.is_empty() { error } else { format!("{error}: {output}") };
                return Ok(Some(result(validation, Err(detail))));
            }
            left -= 1;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Waits for a measurement; `None` if Rebound was stopped, or the recovery called off.
    async fn measured(
        &mut self,
        validation: &Validation,
        mut level: LevelCheck,
    ) -> Result<Option<CheckResult>, RunnerError> {
        let deadline = tokio::time::sleep(validation.timeout);
        tokio::pin!(deadline);
        loop {
            if let Some(found) = level.result() {
                return Ok(Some(result(validation, found)));
            }
            tokio::select! {
                biased;
                () = self.stop.fenced.cancelled() => return Err(self.fenced()),
                () = self.stop.shutdown.cancelled() => return Ok(None),
                () = &mut deadline => {
                    let within = humantime(validation.timeout);
                    let missing = level.unmeasured().join(", ");
                    let error = format!("not measured within {within} of the recovery: {missing}");
                    return Ok(Some(result(validation, Err(error))));
                }
                event = self.observations.next(), if self.open => match event {
                    Some(event) if self.note_cancel(&event) => return Ok(None),
                    Some(event) => level.evolve(&event),
                    None => self.open = false,
                },
            }
        }
    }
}

fn result(validation: &Validation, found: Result<String, String>) -> CheckResult {
    let passed = found.is_ok();
    let (Ok(detail) | Err(detail)) = found;
    CheckResult {
        name: validation.id.clone(),
        passed,
        detail: (!detail.is_empty()).then(|| shorten(&detail, DETAIL_BYTES)),
        category: Some(validation.category),
    }
}
