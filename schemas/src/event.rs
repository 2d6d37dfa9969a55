//! What can happen: the closed set of event kinds with their payloads, which stand by topic in modules of their own.
//!
//! An [`Event`] is a fact about one service at one time. Names are past tense; a payload field is never reused
//! for another meaning: a change of shape is a new version of the kind, and [`crate::codec`] upcasts old ones.

mod alerts;
mod drills;
mod observations;
mod parts;
mod plans;
mod recoveries;
mod words;

use chrono::{DateTime, Utc};

pub use alerts::*;
pub use drills::*;
pub use observations::*;
pub use parts::*;
pub use plans::*;
pub use recoveries::*;
pub use words::*;

use crate::ids::{EventId, PlanVersion, RecoveryId, ServiceId, Source};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique within `source`; `(source, id)` identifies the event, and one delivered twice counts once.
    pub id: EventId,
    /// Who says so.
    pub source: Source,
    /// The service it is about (for a drill or a plan-wide event, the drill or plan's own name).
    pub subject: ServiceId,
    /// When it happened, by the clock of `source`. Never mixed up with the time the pipeline took it in.
    pub occurred_at: DateTime<Utc>,
    /// The plan a decision was made under; `None` for observations.
    pub plan: Option<PlanVersion>,
    /// What happened.
    pub data: EventData,
}

impl Event {
    /// The kind of event.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.data.kind()
    }
}

/// The streams of the bus. A service's events of one topic are in one partition, in order; the partition number
/// of a service is the same in all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// What was seen: probes, measurements, backups, deployments.
    Observations,
    /// What was decided about it: alerts, notifications, incidents.
    Alerts,
    /// What was done: recoveries, steps, failovers, drills.
    Recoveries,
}

impl Topic {
    /// All three, in the order of the data.
    pub const ALL: [Self; 3] = [Self::Observations, Self::Alerts, Self::Recoveries];

    /// The short name, that a configured prefix goes before (`rebound.observations`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observations => "observations",
            Self::Alerts => "alerts",
            Self::Recoveries => "recoveries",
        }
    }
}

macro_rules! kinds {
    ($($name:ident, $text:literal, v $version:literal, $topic:ident;)*) => {
        /// The name of what happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $(#[doc = concat!("`", $text, "`, see [`struct@", stringify!($name), "`].")] $name,)*
        }

        impl Kind {
            /// Every kind, in the order of DESIGN's vocabulary.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The kind's name, as in `probe.completed`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The newest version of the kind's payload, which Rebound writes.
            #[must_use]
            pub fn version(self) -> u16 {
                match self { $(Self::$name => $version,)* }
            }

            /// The topic that events of this kind go to.
            #[must_use]
            pub fn topic(self) -> Topic {
                match self { $(Self::$name => Topic::$topic,)* }
            }

            /// The CloudEvents `type` of the newest version, as in `dev.rebound.probe.completed.v1`.
            #[must_use]
            pub fn type_name(self) -> &'static str {
                match self { $(Self::$name => concat!("dev.rebound.", $text, ".v", $version),)* }
            }

            /// The kind with this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }
        }

        /// The payload of an event: one variant a kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum EventData {
            $(#[doc = concat!("`", $text, "`")] $name($name),)*
        }

        impl EventData {
            /// The payload's kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Self::$name(_) => Kind::$name,)* }
            }

            /// The payload as JSON text.
            pub(crate) fn to_json(&self) -> Result<String, serde_json::Error> {
                match self { $(Self::$name(data) => serde_json::to_string(data),)* }
            }

            /// The payload of `kind` from JSON text of the newest version.
            pub(crate) fn from_json(kind: Kind, json: &str) -> Result<Self, sonic_rs::Error> {
                match kind { $(Kind::$name => sonic_rs::from_str(json).map(Self::$name),)* }
            }

            /// The JSON Schema of a kind's payload.
            pub(crate) fn schema(kind: Kind, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                match kind { $(Kind::$name => generator.subschema_for::<$name>(),)* }
            }
        }

        $(impl From<$name> for EventData {
            fn from(data: $name) -> Self { Self::$name(data) }
        })*
    };
}

kinds! {
    ProbeCompleted, "probe.completed", v 1, Observations;
    ServiceLevelMeasured, "service_level.measured", v 1, Observations;
    ResourceMeasured, "resource.measured", v 1, Observations;
    ReplicationMeasured, "replication.measured", v 1, Observations;
    BackupFinished, "backup.finished", v 1, Observations;
    BackupVerified, "backup.verified", v 1, Observations;
    CertificateObserved, "certificate.observed", v 1, Observations;
    DeploymentFinished, "deployment.finished", v 2, Observations;
    AlertRaised, "alert.raised", v 1, Alerts;
    AlertSuppressed, "alert.suppressed", v 1, Alerts;
    AlertResolved, "alert.resolved", v 1, Alerts;
    NotificationPlanned, "notification.planned", v 1, Alerts;
    NotificationSent, "notification.sent", v 1, Alerts;
    NotificationFailed, "notification.failed", v 1, Alerts;
    NotificationRetried, "notification.retried", v 1, Alerts;
    IncidentOpened, "incident.opened", v 1, Alerts;
    IncidentAcknowledged, "incident.acknowledged", v 1, Alerts;
    IncidentResolved, "incident.resolved", v 1, Alerts;
    IncidentCorrected, "incident.corrected", v 1, Alerts;
    MaintenanceScheduled, "maintenance.scheduled", v 1, Alerts;
    MaintenanceCancelled, "maintenance.cancelled", v 1, Alerts;
    SilenceCreated, "silence.created", v 1, Alerts;
    SilenceExpired, "silence.expired", v 1, Alerts;
    RecoveryRequested, "recovery.requested", v 1, Recoveries;
    RecoveryDeclined, "recovery.declined", v 1, Recoveries;
    RecoveryWithheld, "recovery.withheld", v 1, Recoveries;
    RecoveryTriggered, "recovery.triggered", v 1, Recoveries;
    RecoveryApproved, "recovery.approved", v 1, Recoveries;
    RecoveryRejected, "recovery.rejected", v 1, Recoveries;
    RecoveryExpired, "recovery.expired", v 1, Recoveries;
    RecoveryCancelled, "recovery.cancelled", v 1, Recoveries;
    RecoveryPaused, "recovery.paused", v 1, Recoveries;
    RecoveryResumed, "recovery.resumed", v 1, Recoveries;
    RecoveryStarted, "recovery.started", v 1, Recoveries;
    StepStarted, "step.started", v 1, Recoveries;
    StepFinished, "step.finished", v 1, Recoveries;
    StepRequested, "step.requested", v 1, Recoveries;
    StepAnswered, "step.answered", v 1, Recoveries;
    RecoveryVerified, "recovery.verified", v 1, Recoveries;
    RecoveryFinished, "recovery.finished", v 1, Recoveries;
    RecoveryEscalated, "recovery.escalated", v 1, Recoveries;
    ProcedureDemoted, "procedure.demoted", v 1, Recoveries;
    ProcedurePromoted, "procedure.promoted", v 1, Recoveries;
    FailoverStarted, "failover.started", v 1, Recoveries;
    FailoverFinished, "failover.finished", v 1, Recoveries;
    FailbackFinished, "failback.finished", v 1, Recoveries;
    DrillStarted, "drill.started", v 1, Recoveries;
    FaultInjected, "fault.injected", v 1, Recoveries;
    DrillFinished, "drill.finished", v 1, Recoveries;
    ImprovementOpened, "improvement.opened", v 1, Recoveries;
    ImprovementClosed, "improvement.closed", v 1, Recoveries;
    PlanAdopted, "plan.adopted", v 1, Recoveries;
}

impl EventData {
    /// The recovery that it is about, where it is about one.
    #[must_use]
    pub fn recovery(&self) -> Option<&RecoveryId> {
        match self {
            Self::RecoveryWithheld(data) => Some(&data.recovery),
            Self::RecoveryTriggered(data) => Some(&data.recovery),
            Self::RecoveryApproved(data) => Some(&data.recovery),
            Self::RecoveryRejected(data) => Some(&data.recovery),
            Self::RecoveryExpired(data) => Some(&data.recovery),
            Self::RecoveryCancelled(data) => Some(&data.recovery),
            Self::RecoveryStarted(data) => Some(&data.recovery),
            Self::StepStarted(data) => Some(&data.recovery),
            Self::StepFinished(data) => Some(&data.recovery),
            Self::StepRequested(data) => Some(&data.recovery),
            Self::StepAnswered(data) => Some(&data.recovery),
            Self::RecoveryVerified(data) => Some(&data.recovery),
            Self::RecoveryFinished(data) => Some(&data.recovery),
            Self::RecoveryEscalated(data) => data.recovery.as_ref(),
            Self::FailoverStarted(data) => data.recovery.as_ref(),
            Self::IncidentResolved(data) => data.recovery.as_ref(),
            _ => None,
        }
    }
}
