//! What one recovery is to do, put together from the plan and its trigger. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{ErrorClass, RecoveryMethod, RecoveryTriggered};
use rebound_schemas::plan::{Action, Plan, Validation, ValidationCheck};
use rebound_schemas::{Event, EventData, EventId, PlanVersion, ProbeId, RecoveryId, ServiceId, SiteId, Source};

use super::{RunnerError, SOURCE};
use crate::procedure::{self, Placeholders, Script};

/// What a recovery is to do, taken from the plan and the trigger: nothing of the plan is looked up afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The trigger.
    pub trigger: RecoveryTriggered,
    /// The service.
    pub service: ServiceId,
    /// The plan it runs under.
    pub plan: PlanVersion,
    /// How the service is brought back.
    pub method: Option<RecoveryMethod>,
    /// The procedure's steps, or why there are none to run.
    pub steps: Result<Script, String>,
    /// The service's own probes.
    pub probes: Vec<ProbeId>,
    /// Successes in a row that each of them must show.
    pub successes: u32,
    /// Time for that, from the end of the last step.
    pub verify_within: Duration,
    /// Checks that follow, besides the probes.
    pub validations: Vec<Validation>,
    /// The move between sites that the procedure makes.
    pub moves: Option<Move>,
    /// Programs that may be run.
    pub allow: Vec<String>,
}

/// A move of the load between sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// From here.
    pub from: SiteId,
    /// To here.
    pub to: SiteId,
    /// It moves back what an earlier one moved away.
    pub back: bool,
    /// So many sites, `from` not counted, must be healthy.
    pub healthy_sites_at_least: u32,
}

impl Task {
    /// Puts together what a `recovery.triggered` asks for. A service or procedure that the plan no longer has does
    /// not fail here: the recovery then runs nothing and is journalled as failed, so that people are asked.
    pub fn new(plan: &Plan, triggered: &Event) -> Result<Self, RunnerError> {
        let EventData::RecoveryTriggered(trigger) = &triggered.data else {
            return Err(RunnerError::NotATrigger(triggered.kind().as_str()));
        };
        let service = plan.services().get(&triggered.subject);
        let policy = plan.policy_of(&triggered.subject);
        let steps = match (service, policy, plan.procedures().get(&trigger.procedure)) {
            (None, ..) | (_, None, _) => Err(format!("service {} is no longer in the plan", triggered.subject)),
            (.., None) => Err(format!("procedure {} is no longer in the plan", trigger.procedure)),
            (Some(service), _, Some(procedure)) => {
                let placeholders = Placeholders {
                    service: service.id.clone(),
                    site: service.site.clone(),
                    incident: trigger.incident.clone(),
                    recovery: trigger.recovery.clone(),
                    attempt: trigger.attempt,
                    reason: trigger.reason.clone().unwrap_or_default(),
                    error_class: trigger.error_class.unwrap_or(ErrorClass::Unknown),
                    first_failure_at: trigger.first_failure_at,
                    inputs: trigger.asked.as_ref().map(|asked| asked.inputs.clone()).unwrap_or_default(),
                };
                procedure::unfold(procedure, plan, &placeholders).map_err(|e| e.to_string())
            }
        };
        Ok(Self {
            trigger: trigger.clone(),
            service: triggered.subject.clone(),
            plan: plan.version().clone(),
            method: trigger.method.or(service.map(|s| s.method)),
            steps,
            probes: plan.probes_of(&triggered.subject).map(|p| p.id.clone()).collect(),
            successes: policy.map_or(1, |p| p.recoveries),
            verify_within: policy.map_or(Duration::ZERO, |p| p.verify_within),
            validations: service.map_or_else(Vec::new, |service| {
                let all = plan.validations().values();
                all.filter(|validation| validation.applies_to(service, &trigger.procedure)).cloned().collect()
            }),
            moves: service.and_then(|service| {
                let failover = plan.procedures().get(&trigger.procedure)?.failover.as_ref()?;
                Some(Move {
                    from: failover.from.clone().unwrap_or_else(|| service.site.clone()),
                    to: failover.to.clone(),
                    back: failover.back,
                    healthy_sites_at_least: failover.healthy_sites_at_least,
                })
            }),
            allow: plan.allow().to_vec(),
        })
    }

    /// The same task, which runs nothing and fails for this reason.
    #[must_use]
    pub fn refused(self, reason: String) -> Self {
        Self { steps: Err(reason), ..self }
    }

    /// What a validation does, its texts filled in.
    pub(super) fn validation_action(&self, validation: &Validation) -> Result<Action, String> {
        let ValidationCheck::Act(action) = &validation.check else {
            return Err("it is not something to do".to_owned());
        };
        let inputs = self.steps.as_ref().map(|script| &script.inputs).map_err(Clone::clone)?;
        let value = |name: &str| inputs.value(name).ok_or_else(|| format!("{{{name}}} has no value"));
        procedure::fill_action(action, &value)
    }

    /// Probes whose observations the recovery needs: the service's own, and those that a step waits for.
    #[must_use]
    pub fn watched(&self) -> Vec<ProbeId> {
        let waited = self.steps.iter().flat_map(|script| &script.steps).filter_map(|ready| match &ready.step.action {
            Action::WaitForProbe { probe } => probe.clone(),
            _ => None,
        });
        let mut all: Vec<ProbeId> = self.probes.iter().cloned().chain(waited).collect();
        all.sort();
        all.dedup();
        all
    }

    /// An event of this recovery: `what` makes its id.
    pub(super) fn event(&self, what: &str, now: DateTime<Utc>, data: EventData) -> Event {
        recovery_event(&self.trigger.recovery, &self.service, &self.plan, what, now, data)
    }
}

/// An event of a recovery, with the id that follows from the recovery's own and `what`.
pub(crate) fn recovery_event(
    recovery: &RecoveryId,
    service: &ServiceId,
    plan: &PlanVersion,
    what: &str,
    now: DateTime<Utc>,
    data: EventData,
) -> Event {
    Event {
        id: EventId::derive(recovery.as_str(), what),
        source: Source::new(SOURCE).expect("the source's name follows the rule for sources"),
        subject: service.clone(),
        occurred_at: now,
        plan: Some(plan.clone()),
        data,
    }
}
