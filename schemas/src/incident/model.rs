//! What the fold knows of an incident, an alert, a recovery and a step, with the times of DESIGN §5.
//!
//! t0 = first failed probe · t1 = decision · t2 = first acknowledgement or automated action · t3 = first success of
//! the streak that recovered · t4 = closed. Every duration between two of them is defined here and nowhere else;
//! a duration that would be negative (clocks that disagree, a wrong import) is no figure and answers `None`.

use chrono::{DateTime, TimeDelta, Utc};

use crate::event::{
    ErrorClass, EventRef, RecoveryMethod, RecoveryOutcome, Severity, StepOutcome, SuppressionCause, TriggerMode,
};
use crate::ids::{AlertId, IncidentId, PlanVersion, PolicyId, ProcedureId, RecoveryId, ServiceId, StepId};

/// One outage of one service, as it stands after every correction.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// The service that failed.
    pub service: ServiceId,
    /// The plan it was decided under.
    pub plan: Option<PlanVersion>,
    /// How bad.
    pub severity: Severity,
    /// The policy that decided; none when it was reported or imported.
    pub policy: Option<PolicyId>,
    /// Why, coarsely; restated where a correction says so.
    pub error_class: ErrorClass,
    /// Why, as whoever reported it puts it; restated where a correction says so.
    pub cause: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// The last success before t0: the true onset lies in (this, t0].
    pub last_success_at: Option<DateTime<Utc>>,
    /// t0, restated where a correction says so.
    pub first_failure_at: DateTime<Utc>,
    /// t1.
    pub detected_at: DateTime<Utc>,
    /// t2: the first acknowledgement or automated action.
    pub acknowledged: Option<Acknowledgement>,
    /// The first that a person made.
    pub acknowledged_by_human: Option<Acknowledgement>,
    /// The first that automation made.
    pub acknowledged_by_automation: Option<Acknowledgement>,
    /// t3, restated where a correction says so; `None` while it lasts.
    pub recovered_at: Option<DateTime<Utc>>,
    /// t4; `None` while it is open.
    pub resolved_at: Option<DateTime<Utc>>,
    /// The recovery that brought it back, where one did.
    pub recovered_by: Option<RecoveryId>,
    /// When automation gave up and asked for people.
    pub escalated_at: Option<DateTime<Utc>>,
    /// Its recoveries, by attempt.
    pub recoveries: Vec<RecoveryId>,
    /// Its alerts, in id order.
    pub alerts: Vec<AlertId>,
    /// What was restated, and what it said before; `None` if nobody corrected it.
    pub correction: Option<Correction>,
    /// The maintenance window that it began in, once it is over.
    pub maintenance: Option<Maintained>,
    /// The event that opened it.
    pub opened_by: EventRef,
    /// The event that resolved it.
    pub resolved_by: Option<EventRef>,
}

/// Somebody, or something, took an incident on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// When.
    pub at: DateTime<Utc>,
    /// Who: a person's name, or the automaton's.
    pub by: String,
    /// Whether by automation.
    pub automated: bool,
}

/// A restatement. The original figures are kept beside the restated ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// When the newest correction was made.
    pub at: DateTime<Utc>,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether the newest correction takes the incident out of every figure.
    pub excluded: bool,
    /// t0 as first recorded.
    pub original_first_failure_at: DateTime<Utc>,
    /// t3 as first recorded.
    pub original_recovered_at: Option<DateTime<Utc>>,
    /// The cause as first recorded.
    pub original_error_class: ErrorClass,
}

/// What a maintenance window, planned before or told of afterwards, makes of an incident that began in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Maintained {
    /// The window's name.
    pub maintenance: String,
    /// Whether it was over before the window was: then it is in no figure.
    pub excluded: bool,
    /// t0 as first recorded; where it outlasted the window, it is restated as the window's end.
    pub original_first_failure_at: DateTime<Utc>,
}

fn span(from: DateTime<Utc>, to: Option<DateTime<Utc>>) -> Option<TimeDelta> {
    to.map(|to| to - from).filter(|span| *span >= TimeDelta::zero())
}

impl Incident {
    /// Whether it is still open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.resolved_at.is_none()
    }

    /// Whether a correction or a maintenance window took it out of every figure.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.correction.as_ref().is_some_and(|correction| correction.excluded)
            || self.maintenance.as_ref().is_some_and(|maintained| maintained.excluded)
    }

    /// Whether t3 lies before t0, so that it has no recovery time.
    #[must_use]
    pub fn is_impossible(&self) -> bool {
        self.recovered_at.is_some_and(|recovered| recovered < self.first_failure_at)
    }

    /// Time to detect: t1 − t0.
    #[must_use]
    pub fn time_to_detect(&self) -> Option<TimeDelta> {
        span(self.first_failure_at, Some(self.detected_at))
    }

    /// Time to acknowledge, by whomever: t2 − t1.
    #[must_use]
    pub fn time_to_acknowledge(&self) -> Option<TimeDelta> {
        span(self.detected_at, self.acknowledged.as_ref().map(|a| a.at))
    }

    /// Time to a person's acknowledgement, from t1.
    #[must_use]
    pub fn time_to_acknowledge_human(&self) -> Option<TimeDelta> {
        span(self.detected_at, self.acknowledged_by_human.as_ref().map(|a| a.at))
    }

    /// Time to the first automated action, from t1.
    #[must_use]
    pub fn time_to_acknowledge_automated(&self) -> Option<TimeDelta> {
        span(self.detected_at, self.acknowledged_by_automation.as_ref().map(|a| a.at))
    }

    /// Time to recover, **the** recovery time: t3 − t0.
    #[must_use]
    pub fn time_to_recover(&self) -> Option<TimeDelta> {
        span(self.first_failure_at, self.recovered_at)
    }

    /// From decision to recovery: t3 − t1. `None` too for a service that recovered before the decision.
    #[must_use]
    pub fn time_to_recover_from_detection(&self) -> Option<TimeDelta> {
        span(self.detected_at, self.recovered_at)
    }

    /// From decision to closing: t4 − t1.
    #[must_use]
    pub fn time_to_close(&self) -> Option<TimeDelta> {
        span(self.detected_at, self.resolved_at)
    }

    /// How long it lasted until recovery or, if it has not recovered, has lasted by `now` (a censored recovery
    /// time); `None` if that is negative.
    #[must_use]
    pub fn lasted(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        span(self.first_failure_at, Some(self.recovered_at.unwrap_or(now)))
    }
}

/// One policy firing over one incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Its id.
    pub id: AlertId,
    /// The incident that it belongs to.
    pub incident: IncidentId,
    /// The service that failed.
    pub service: ServiceId,
    /// The policy that fired.
    pub policy: PolicyId,
    /// The policy's condition that warned; `None` for an outage. A warning's `incident` is no incident.
    pub condition: Option<String>,
    /// How loudly.
    pub severity: Severity,
    /// Failures counted when it fired.
    pub failures: u32,
    /// t0.
    pub first_failure_at: DateTime<Utc>,
    /// When it fired.
    pub raised_at: DateTime<Utc>,
    /// What was seen.
    pub reason: String,
    /// The first reason why it told nobody, and what suppressed it.
    pub suppressed: Option<(SuppressionCause, String)>,
    /// t3.
    pub recovered_at: Option<DateTime<Utc>>,
    /// When it resolved.
    pub resolved_at: Option<DateTime<Utc>>,
    /// When somebody was first told.
    pub notified_at: Option<DateTime<Utc>>,
    /// Notifications taken by their channel.
    pub notifications_sent: u32,
    /// Notifications given up.
    pub notifications_failed: u32,
    /// The event that raised it.
    pub raised_by: EventRef,
}

/// One attempt at one incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// Its id.
    pub id: RecoveryId,
    /// The incident that it is for.
    pub incident: IncidentId,
    /// The service that is brought back.
    pub service: ServiceId,
    /// The plan it was decided under.
    pub plan: Option<PlanVersion>,
    /// Which attempt at the incident, from 1; `None` until the trigger or the end is known.
    pub attempt: Option<u32>,
    /// What is run.
    pub procedure: Option<ProcedureId>,
    /// How the service is brought back.
    pub method: Option<RecoveryMethod>,
    /// Whether it ran at once or waited for approval.
    pub mode: Option<TriggerMode>,
    /// t0 of the incident, as the trigger knew it.
    pub first_failure_at: Option<DateTime<Utc>>,
    /// When it was decided on.
    pub triggered_at: Option<DateTime<Utc>>,
    /// The person who asked for it, where one did.
    pub triggered_by: Option<String>,
    /// When it was approved.
    pub approved_at: Option<DateTime<Utc>>,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// That a person refused it or called it off, or nobody approved it in time; the first of these.
    pub refused: Option<Refusal>,
    /// When a runner began.
    pub started_at: Option<DateTime<Utc>>,
    /// Which runner.
    pub runner: Option<String>,
    /// When the verification ended.
    pub verified_at: Option<DateTime<Utc>>,
    /// Whether it passed; `None` if there was none (yet).
    pub verified: Option<bool>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended; a late resolve of the incident does not rewrite it.
    pub outcome: Option<RecoveryOutcome>,
    /// Why it did not succeed, coarsely.
    pub error_class: Option<ErrorClass>,
    /// Why it did not succeed, in words.
    pub reason: Option<String>,
    /// When it was escalated.
    pub escalated_at: Option<DateTime<Utc>>,
    /// Its steps, by place in the order of execution, then attempt.
    pub steps: Vec<StepRun>,
}

/// How a recovery was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It waited for approval, and a person rejected it.
    Rejected,
    /// A person called it off.
    Cancelled,
    /// Nobody approved it in time.
    Expired,
}

/// That a recovery shall not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: DateTime<Utc>,
    /// How.
    pub how: Refused,
    /// Who; nobody, where it expired.
    pub by: Option<String>,
    /// Why, where a person said so.
    pub reason: Option<String>,
}

impl Recovery {
    /// From the runner's start to the end.
    #[must_use]
    pub fn duration(&self) -> Option<TimeDelta> {
        span(self.started_at?, self.finished_at)
    }
}

/// One attempt at one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRun {
    /// The step.
    pub step: StepId,
    /// Its place in the order of execution, from 0.
    pub index: u32,
    /// Which attempt at the step, from 1.
    pub attempt: u32,
    /// What it does.
    pub action: Option<String>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub outcome: Option<StepOutcome>,
    /// How long it took by the runner's own watch, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Exit code or HTTP status.
    pub code: Option<i32>,
    /// Why it failed.
    pub error: Option<String>,
}
