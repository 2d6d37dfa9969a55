//! The intake: events that others post, checked one by one and answered only when the bus holds them durably.
//!
//! What is posted is turned into events by pure functions ([`parse`] for CloudEvents in all its forms,
//! [`alertmanager`] for its webhook, `cdevents` for CDEvents within CloudEvents); [`router`] is the HTTP around them.
//! Every event gets a verdict of its own, in the order given: the good ones of a batch are taken though others are
//! refused. Posting the same `(source, id)` again is harmless, so whoever is unsure posts again.

pub mod alertmanager;
mod cdevents;
pub mod parse;
pub mod server;
mod token;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::codec::DecodeError;
use rebound_schemas::{Event, Kind};
use serde::Serialize;

pub use parse::{RequestError, parse_events};
pub use server::{Intake, IntakeMetrics, IntakeSettings, router};
pub use token::Token;

/// An event that may go on the bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The event.
    pub event: Event,
    /// It as structured-mode JSON: as received, where it came like that.
    pub json: Bytes,
}

/// An event that may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// JSON pointer (RFC 6901) to the fault, within the event (for Alertmanager, within the posted body).
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What should stand there.
    pub expected: String,
}

impl Rejection {
    fn new(pointer: impl Into<String>, message: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into(), expected: expected.into() }
    }
}

impl From<DecodeError> for Rejection {
    fn from(error: DecodeError) -> Self {
        let expected = match &error {
            DecodeError::Json(_) => "a JSON object: a CloudEvent in structured mode".to_owned(),
            DecodeError::TooLarge(_) => "a smaller event".to_owned(),
            DecodeError::Missing("data") => "a payload of the event's type".to_owned(),
            DecodeError::Missing(name) => format!("the CloudEvents attribute {name:?}"),
            DecodeError::Attribute { expected, .. } => expected.clone(),
            DecodeError::UnknownType { .. } => "a type dev.rebound.<kind>.v<version>, or a CDEvents type".to_owned(),
            DecodeError::NewerVersion { kind, .. } => format!("at most version {}", kind.version()),
            DecodeError::Data { kind, .. } => format!("a payload as in the JSON Schema of {}", kind.type_name()),
        };
        Self { pointer: error.pointer(), message: error.to_string(), expected }
    }
}

/// What may be posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Also take the kinds that only Rebound itself decides: for imports of its own log, never for strangers.
    pub allow_decisions: bool,
    /// Refuse what people say of recoveries: where tokens have names, they say it where the token says who.
    pub named_words: bool,
}

/// An event's time may lie this far ahead of the intake's clock, in hours.
const MAX_AHEAD_HOURS: i64 = 24;

impl Rules {
    /// Whether an event may be posted, `now` being the intake's clock. Observations, reports about incidents,
    /// approvals, windows, drills and improvements come from outside; alerts, notifications and the steps of a
    /// recovery are what Rebound says of its own doing, and a forged one would steer its automation.
    pub fn check(self, event: &Event, now: DateTime<Utc>) -> Result<(), Rejection> {
        let kind = event.kind();
        if !self.allow_decisions && is_own_decision(kind) {
            return Err(Rejection::new(
                "/type",
                format!("{kind} is what only Rebound itself says"),
                "an observation, an incident, a maintenance window, a silence, an approval, a failover, a drill or an improvement",
            ));
        }
        if self.named_words && is_word(kind) {
            return Err(Rejection::new(
                "/type",
                format!("{kind} is said under one's own name here"),
                "a request to /api/v1/recoveries, /api/v1/pause, /api/v1/resume or /api/v1/promote, as `rebound recovery` makes it",
            ));
        }
        let oldest = DateTime::from_timestamp(946_684_800, 0).unwrap_or_default();
        if event.occurred_at < oldest || event.occurred_at > now + TimeDelta::hours(MAX_AHEAD_HOURS) {
            let time = rebound_schemas::codec::format_time(event.occurred_at);
            return Err(Rejection::new(
                "/time",
                format!("{time} is not when this can have happened"),
                format!("a time from 2000-01-01 to {MAX_AHEAD_HOURS} h from now"),
            ));
        }
        Ok(())
    }
}

/// Whether it is what a person says of recoveries.
fn is_word(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::RecoveryApproved
            | Kind::RecoveryRejected
            | Kind::RecoveryCancelled
            | Kind::RecoveryPaused
            | Kind::RecoveryResumed
            | Kind::ProcedurePromoted
    )
}

fn is_own_decision(kind: Kind) -> bool {
    match kind {
        Kind::AlertRaised
        | Kind::AlertSuppressed
        | Kind::AlertResolved
        | Kind::NotificationPlanned
        | Kind::NotificationSent
        | Kind::NotificationFailed
        | Kind::RecoveryRequested
        | Kind::RecoveryDeclined
        | Kind::RecoveryExpired
        | Kind::RecoveryWithheld
        | Kind::RecoveryTriggered
        | Kind::RecoveryStarted
        | Kind::StepStarted
        | Kind::StepFinished
        | Kind::StepRequested
        | Kind::RecoveryVerified
        | Kind::RecoveryFinished
        | Kind::RecoveryEscalated
        | Kind::ProcedureDemoted
        | Kind::PlanAdopted => true,
        Kind::ProbeCompleted
        | Kind::ServiceLevelMeasured
        | Kind::ResourceMeasured
        | Kind::ReplicationMeasured
        | Kind::BackupFinished
        | Kind::BackupVerified
        | Kind::CertificateObserved
        | Kind::DeploymentFinished
        | Kind::IncidentOpened
        | Kind::IncidentAcknowledged
        | Kind::IncidentResolved
        | Kind::IncidentCorrected
        | Kind::MaintenanceScheduled
        | Kind::MaintenanceCancelled
        | Kind::SilenceCreated
        | Kind::SilenceExpired
        | Kind::NotificationRetried
        | Kind::RecoveryApproved
        | Kind::RecoveryRejected
        | Kind::RecoveryCancelled
        | Kind::RecoveryPaused
        | Kind::RecoveryResumed
        | Kind::ProcedurePromoted
        | Kind::StepAnswered
        | Kind::FailoverStarted
        | Kind::FailoverFinished
        | Kind::FailbackFinished
        | Kind::DrillStarted
        | Kind::FaultInjected
        | Kind::DrillFinished
        | Kind::ImprovementOpened
        | Kind::ImprovementClosed => false,
    }
}

/// One name as a part of a JSON pointer.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
