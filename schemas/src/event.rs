//! What can happen: the closed set of event kinds with their payloads.
//!
//! An [`Event`] is a fact about one service at one time. Names are past tense; a payload field is never reused
//! for another meaning: a change of shape is a new version of the kind, and [`crate::codec`] upcasts old ones.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{
    AlertId, ChannelId, DrillId, EventId, IncidentId, PlanVersion, PolicyId, ProbeId, ProcedureId, RecoveryId,
    ServiceId, SiteId, Source, StepId,
};

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
    RecoveryWithheld, "recovery.withheld", v 1, Recoveries;
    RecoveryTriggered, "recovery.triggered", v 1, Recoveries;
    RecoveryApproved, "recovery.approved", v 1, Recoveries;
    RecoveryRejected, "recovery.rejected", v 1, Recoveries;
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
    FailoverStarted, "failover.started", v 1, Recoveries;
    FailoverFinished, "failover.finished", v 1, Recoveries;
    FailbackFinished, "failback.finished", v 1, Recoveries;
    DrillStarted, "drill.started", v 1, Recoveries;
    FaultInjected, "fault.injected", v 1, Recoveries;
    DrillFinished, "drill.finished", v 1, Recoveries;
    ImprovementOpened, "improvement.opened", v 1, Recoveries;
    ImprovementClosed, "improvement.closed", v 1, Recoveries;
}

/// A closed set of words, written in JSON and TOML as given, with `as_str`, `parse` and `ALL`.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every word of the set.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word as written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The word that this text writes.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

words! {
    /// What a probe found.
    Outcome {
        /// All assertions held.
        Healthy = "healthy",
        /// It answered, worse than it should: recorded, counts neither way.
        Degraded = "degraded",
        /// It did not do what it is for.
        Failed = "failed",
    }
    /// Why something failed, coarsely enough to count by.
    ErrorClass {
        /// A wrong setting.
        Configuration = "configuration",
        /// Data that is missing, wrong or inconsistent.
        DataIntegrity = "data_integrity",
        /// Memory, disk, descriptors, capacity.
        ResourceConstraint = "resource_constraint",
        /// Something that it needs failed.
        Dependency = "dependency",
        /// Refused, reset, unreachable, unresolvable.
        Network = "network",
        /// Certificates, authentication, authorisation.
        Security = "security",
        /// No answer in time.
        Timeout = "timeout",
        /// None of the others.
        Unknown = "unknown",
    }
    /// How loudly an alert asks for somebody.
    Severity {
        /// Somebody must act now.
        Critical = "critical",
        /// Somebody should look today.
        Warning = "warning",
        /// For the record.
        Info = "info",
    }
    /// How a service is brought back.
    RecoveryMethod {
        /// A passive copy takes over.
        ActivePassive = "active-passive",
        /// A synchronously replicated copy takes over.
        SynchronousReplication = "synchronous-replication",
        /// The load balancer sends traffic elsewhere.
        LoadBalancerFailover = "load-balancer-failover",
        /// A running, smaller copy is grown.
        WarmStandby = "warm-standby",
        /// A copy is started from nothing.
        ColdStandby = "cold-standby",
        /// Everything is prepared and only switched on.
        PreConfigured = "pre-configured",
        /// The database is restored from a backup.
        DatabaseRestore = "database-restore",
        /// People restore it by hand.
        ManualRestore = "manual-restore",
    }
    /// Which change of an alert a notification tells of.
    Transition {
        /// The alert was raised.
        Raised = "raised",
        /// It is still firing.
        Repeated = "repeated",
        /// It resolved.
        Resolved = "resolved",
        /// A recovery gave up and asks for people.
        Escalated = "escalated",
        /// Somebody took its incident.
        Acknowledged = "acknowledged",
        /// Nobody took its incident in time: a step of the route's escalation.
        Unacknowledged = "unacknowledged",
    }
    /// Who decides that a recovery runs.
    TriggerMode {
        /// It runs at once.
        Auto = "auto",
        /// It waits for a person's approval.
        Approve = "approve",
        /// It never runs by itself.
        Off = "off",
    }
    /// How a step of a procedure ended.
    StepOutcome {
        /// It did what it should.
        Succeeded = "succeeded",
        /// It ran and failed.
        Failed = "failed",
        /// It did not end in time and was killed.
        TimedOut = "timed_out",
        /// It was not run, since something before it failed.
        Skipped = "skipped",
    }
    /// How a recovery ended.
    RecoveryOutcome {
        /// Every step succeeded and the service's own probes passed in time.
        Succeeded = "succeeded",
        /// A step failed, or verification did not pass in time.
        Failed = "failed",
        /// The runner died between start and end; what it did is not known, so it is not repeated.
        Interrupted = "interrupted",
        /// Called off before it ran.
        Cancelled = "cancelled",
    }
    /// How a deployment ended.
    DeploymentOutcome {
        /// It went live.
        Succeeded = "succeeded",
        /// It did not.
        Failed = "failed",
        /// It went live and was taken back.
        RolledBack = "rolled_back",
    }
    /// Why an alert told nobody and triggered nothing.
    SuppressionCause {
        /// A service that it depends on has failed.
        Dependency = "dependency",
        /// A silence covers it.
        Silence = "silence",
        /// A maintenance window covers it.
        Maintenance = "maintenance",
        /// The service is flapping.
        Flapping = "flapping",
    }
    /// What stands in the way of a recovery: why a failed service's was not triggered, or why a triggered one has
    /// not begun.
    WithheldReason {
        /// The policy triggers none.
        Policy = "policy",
        /// The service has no procedure.
        NoProcedure = "no_procedure",
        /// What was seen has not held for as long as the policy asks.
        Hold = "hold",
        /// A maintenance window covers the service.
        Maintenance = "maintenance",
        /// A silence covers it.
        Silence = "silence",
        /// A service that it depends on has failed, and is recovered first.
        Dependency = "dependency",
        /// It changes too often to be believed.
        Flapping = "flapping",
        /// Nothing was seen of it lately.
        Unobserved = "unobserved",
        /// It was last seen answering.
        Answering = "answering",
        /// A recovery of it runs, or an older one waits.
        OtherRecovery = "other_recovery",
        /// The wait after the last recovery is not over.
        BackOff = "back_off",
        /// As many recoveries as the policy allows were triggered within its period.
        Budget = "budget",
        /// The last recovery was interrupted: what it did is not known, so it is not repeated.
        Interrupted = "interrupted",
        /// Automation had given up on the incident before.
        Escalated = "escalated",
        /// A person refused the last recovery or called it off.
        Cancelled = "cancelled",
        /// A person has yet to approve it.
        Approval = "approval",
        /// A person paused automation.
        Paused = "paused",
        /// A recovery of something that the service depends on waits or runs.
        DependencyRecovery = "dependency_recovery",
        /// As many recoveries run at the same time as may.
        Concurrency = "concurrency",
        /// Too much of the site would be under recovery.
        BlastRadius = "blast_radius",
    }
    /// What a check after a recovery is about.
    CheckCategory {
        /// The service's own probes.
        Health = "health",
        /// Its data is whole and consistent.
        Data = "data",
        /// It keeps its service levels.
        ServiceLevel = "service_level",
        /// It is as protected as before.
        Security = "security",
        /// What rules and contracts ask for.
        Compliance = "compliance",
    }
    /// What a silence's matcher looks at.
    MatchOn {
        /// The service's id.
        Service = "service",
        /// The service's tier.
        Tier = "tier",
        /// The site where the service runs.
        Site = "site",
        /// How loudly the alert asks for somebody.
        Severity = "severity",
    }
    /// What kind of backup.
    BackupKind {
        /// Everything.
        Full = "full",
        /// What changed since the last one.
        Incremental = "incremental",
        /// A point-in-time picture.
        Snapshot = "snapshot",
    }
}

/// Points at another event, as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRef {
    /// The event's source.
    pub source: Source,
    /// The event's id within it.
    pub id: EventId,
}

impl From<&Event> for EventRef {
    fn from(event: &Event) -> Self {
        Self { source: event.source.clone(), id: event.id.clone() }
    }
}

/// One result of a check made while verifying a recovery or validating a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// Which check.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it is about; none in events from before there were categories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<CheckCategory>,
}

/// One thing that must hold of an alert for a silence to cover it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// What is looked at.
    pub on: MatchOn,
    /// What it must be.
    pub value: String,
    /// `value` is a regular expression over the whole of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regex: bool,
}

/// One transition of an alert that a message tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// The alert.
    pub alert: AlertId,
    /// The incident that it belongs to.
    pub incident: IncidentId,
    /// Which transition.
    pub transition: Transition,
    /// Which repeat or which step of the escalation, from 1; 0 for what happens once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeat: u32,
}

/// For serde: members that are left out when they say nothing.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Payloads: every struct is an object that refuses unknown members, so that a typing error is seen at once.
macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }
    )*};
}

payloads! {
    /// A probe ran to its end.
    ProbeCompleted {
        /// Which probe.
        probe: ProbeId,
        /// What it found.
        outcome: Outcome,
        /// From start to verdict, in microseconds.
        latency_us: u64,
        /// The site it looked from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<SiteId>,
        /// Why it was not healthy, coarsely.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_class: Option<ErrorClass>,
        /// Why it was not healthy, in words (at most 300 bytes).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The HTTP status of the final answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http_status: Option<u16>,
        /// Earliest expiry in the certificate chain that the target showed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate_expires_at: Option<DateTime<Utc>>,
    }
    /// Service levels over a window.
    ServiceLevelMeasured {
        /// Length of the window that ends at the event's time, in seconds.
        window_seconds: f64,
        /// Response time, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        response_time_ms: Option<f64>,
        /// Requests a second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        throughput_per_second: Option<f64>,
        /// Share of failed requests, 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_rate: Option<f64>,
        /// Share of good time, 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        availability: Option<f64>,
    }
    /// Use of a resource.
    ResourceMeasured {
        /// Which one: `cpu`, `memory`, `disk`, `connections`…
        resource: String,
        /// Share in use, 0 to 1.
        utilization: f64,
        /// The site it was measured at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<SiteId>,
    }
    /// How far a copy lags behind.
    ReplicationMeasured {
        /// Where the copy is.
        target_site: SiteId,
        /// Lag in seconds.
        lag_seconds: f64,
        /// Bytes not yet copied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pending_bytes: Option<u64>,
    }
    /// A backup run ended.
    BackupFinished {
        /// The schedule it belongs to, as the plan names it.
        backup: String,
        /// What kind.
        kind: BackupKind,
        /// Whether it succeeded.
        succeeded: bool,
        /// The newest data in it: what a restore would bring back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_until: Option<DateTime<Utc>>,
        /// Size in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
        /// Duration in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
        /// Where it is, or why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    }
    /// A backup was checked by reading or restoring it.
    BackupVerified {
        /// The schedule it belongs to.
        backup: String,
        /// Whether it can be restored.
        passed: bool,
        /// What was checked.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        checks: Vec<CheckResult>,
    }
    /// A certificate was seen.
    CertificateObserved {
        /// Its subject.
        subject_name: String,
        /// When it stops being valid.
        not_after: DateTime<Utc>,
        /// Who issued it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
    }
    /// A deployment ended. Version 1 had `succeeded: true|false` instead of `outcome`.
    DeploymentFinished {
        /// The deployment, in the deploying system's own words.
        deployment: String,
        /// How it ended.
        outcome: DeploymentOutcome,
        /// The version that was deployed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    }
    /// A policy's threshold was met.
    AlertRaised {
        /// The alert.
        alert: AlertId,
        /// The incident that it belongs to.
        incident: IncidentId,
        /// The policy that fired.
        policy: PolicyId,
        /// The policy's condition that warns; none for an outage. A warning has no incident: `incident` is then only
        /// the name under which it is tracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
        /// How loudly.
        severity: Severity,
        /// Failures counted when it fired.
        failures: u32,
        /// t0: the first failed probe of the streak.
        first_failure_at: DateTime<Utc>,
        /// What was seen, in words.
        reason: String,
        /// The failed probes that it rests on, oldest first (at most 20).
        evidence: Vec<EventRef>,
    }
    /// An alert told nobody and triggered nothing; its state is tracked all the same.
    AlertSuppressed {
        /// The alert.
        alert: AlertId,
        /// The incident that it belongs to.
        incident: IncidentId,
        /// The policy.
        policy: PolicyId,
        /// The policy's condition that warns; none for an outage. A warning has no incident: `incident` is then only
        /// the name under which it is tracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
        /// Why.
        cause: SuppressionCause,
        /// The dependency, silence or window that suppressed it.
        by: String,
    }
    /// An alert's service passed its recovery threshold.
    AlertResolved {
        /// The alert.
        alert: AlertId,
        /// The incident that it belongs to.
        incident: IncidentId,
        /// The policy.
        policy: PolicyId,
        /// The policy's condition that warns; none for an outage. A warning has no incident: `incident` is then only
        /// the name under which it is tracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
        /// t3: the first success of the streak that met the recovery threshold.
        recovered_at: DateTime<Utc>,
        /// Length of that streak when it resolved.
        successes: u32,
    }
    /// What a message tells is fixed, before it is sent: after a crash the same is sent again, under the same key.
    NotificationPlanned {
        /// The same for every attempt at this message, so that a receiver can drop repeats.
        dedup_key: String,
        /// Where it goes.
        channel: ChannelId,
        /// The route's group that it speaks of, when the route groups.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// Every transition that it tells, in order.
        members: Vec<Told>,
    }
    /// A notification was taken by its channel.
    NotificationSent {
        /// The same for every attempt at the same transition, so that a receiver can drop repeats.
        dedup_key: String,
        /// The alert.
        alert: AlertId,
        /// The incident.
        incident: IncidentId,
        /// Where it went.
        channel: ChannelId,
        /// What it told.
        transition: Transition,
        /// Which attempt succeeded, from 1.
        attempt: u32,
        /// Every transition that the message told, when it told more than one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<Told>,
    }
    /// A notification could not be delivered, and no further attempt will be made.
    NotificationFailed {
        /// The same for every attempt at the same transition.
        dedup_key: String,
        /// The alert.
        alert: AlertId,
        /// The incident.
        incident: IncidentId,
        /// Where it should have gone.
        channel: ChannelId,
        /// What it should have told.
        transition: Transition,
        /// How many attempts were made.
        attempts: u32,
        /// What the channel said, secrets removed.
        error: String,
        /// How often it was retried by hand before this.
        #[serde(default, skip_serializing_if = "is_zero")]
        round: u32,
        /// Every transition that the message told, when it told more than one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<Told>,
    }
    /// An undeliverable message is to be tried again, under its old key.
    NotificationRetried {
        /// The message's key.
        dedup_key: String,
        /// The `round` of the `notification.failed` that is to be made good.
        #[serde(default, skip_serializing_if = "is_zero")]
        round: u32,
        /// Who asked.
        by: String,
    }
    /// A service's outage became certain.
    IncidentOpened {
        /// The incident.
        incident: IncidentId,
        /// How bad, by the policy and the service's tier.
        severity: Severity,
        /// t0: first failed probe of the streak; the true onset lies in (`last_success_at`, t0].
        first_failure_at: DateTime<Utc>,
        /// The last success before it, where one was seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_success_at: Option<DateTime<Utc>>,
        /// t1: when it was decided.
        detected_at: DateTime<Utc>,
        /// The policy that decided; none for incidents reported by people or imported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyId>,
        /// Why, coarsely.
        error_class: ErrorClass,
        /// Why, as whoever reported it puts it; none where only the class is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
        /// Why, in words.
        reason: String,
    }
    /// A person or an automaton took it on.
    IncidentAcknowledged {
        /// The incident.
        incident: IncidentId,
        /// Who.
        by: String,
        /// Whether by automation; human and automated acknowledgements are counted apart.
        #[serde(default)]
        automated: bool,
        /// What they said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    }
    /// The outage is over. The event's own time is t4.
    IncidentResolved {
        /// The incident.
        incident: IncidentId,
        /// t3: the first success of the streak that met the recovery threshold.
        recovered_at: DateTime<Utc>,
        /// The recovery that brought it back, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery: Option<RecoveryId>,
    }
    /// A person restated an incident; the original figures are kept.
    IncidentCorrected {
        /// The incident.
        incident: IncidentId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Restated t0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_failure_at: Option<DateTime<Utc>>,
        /// Restated t3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovered_at: Option<DateTime<Utc>>,
        /// Restated class of cause.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_class: Option<ErrorClass>,
        /// Restated cause, as whoever reported it puts it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
        /// Leave it out of every figure (a false alarm).
        #[serde(default)]
        exclude: bool,
    }
    /// Planned work: failures in the window notify nobody and trigger nothing.
    MaintenanceScheduled {
        /// The window's name.
        maintenance: String,
        /// The services it covers.
        services: Vec<ServiceId>,
        /// Start.
        from: DateTime<Utc>,
        /// End.
        until: DateTime<Utc>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// Somebody asked for quiet about services.
    SilenceCreated {
        /// The silence's name.
        silence: String,
        /// The services it covers; with neither services nor matchers it covers its subject.
        #[serde(default)]
        services: Vec<ServiceId>,
        /// What must all hold of an alert besides.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        matchers: Vec<Matcher>,
        /// Start.
        from: DateTime<Utc>,
        /// End.
        until: DateTime<Utc>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A silence was ended before its time.
    SilenceExpired {
        /// The silence.
        silence: String,
        /// Who.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// Planned work was called off, or ended before its time.
    MaintenanceCancelled {
        /// The window.
        maintenance: String,
        /// Who.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// A recovery that an outage calls for was not triggered, or has not begun though it was: said anew whenever
    /// what stands in the way changes, and at most sixteen times an attempt.
    RecoveryWithheld {
        /// The recovery: its id is known before it is decided on.
        recovery: RecoveryId,
        /// The incident; under `hold` the one that it will be if it lasts.
        incident: IncidentId,
        /// Which attempt at the incident, from 1.
        attempt: u32,
        /// Which change of what stands in the way of this attempt, from 1.
        change: u32,
        /// What stands in the way.
        reason: WithheldReason,
        /// Which silence, window, service, recovery, site or person that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// When it ends, where time alone ends it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
        /// The figures behind it, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// The events that it rests on (at most 20).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        evidence: Vec<EventRef>,
    }
    /// A recovery was decided on.
    RecoveryTriggered {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident it is for.
        incident: IncidentId,
        /// Which attempt at the incident, from 1.
        attempt: u32,
        /// The procedure to run.
        procedure: ProcedureId,
        /// How the service is brought back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<RecoveryMethod>,
        /// Whether it runs at once or waits for approval.
        mode: TriggerMode,
        /// t0 of the incident.
        first_failure_at: DateTime<Utc>,
        /// Not before this time (back-off).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<DateTime<Utc>>,
        /// Who asked, where a person did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// What was seen, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What was seen, coarsely.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_class: Option<ErrorClass>,
    }
    /// A person approved a recovery, or one step of it that waits for approval.
    RecoveryApproved {
        /// The recovery.
        recovery: RecoveryId,
        /// Who.
        by: String,
        /// The step that may go on; none: the recovery may begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
    }
    /// A person refused a recovery that waited for approval; it never runs.
    RecoveryRejected {
        /// The recovery.
        recovery: RecoveryId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A person called off a recovery that had not begun; it never runs. One that has begun goes on.
    RecoveryCancelled {
        /// The recovery.
        recovery: RecoveryId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A person stopped automation: no recovery begins within the scope until it is resumed. Running ones go on.
    RecoveryPaused {
        /// Only services of this site; without site and service, everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<SiteId>,
        /// Only this service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceId>,
        /// It ends by itself at this time; none: when somebody resumes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A person let automation go on: ends the pause of exactly this scope.
    RecoveryResumed {
        /// The paused site.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<SiteId>,
        /// The paused service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceId>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A runner claimed a recovery and is about to act. Nothing is executed before this event is durable.
    RecoveryStarted {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The procedure.
        procedure: ProcedureId,
        /// The runner instance that claimed it.
        runner: String,
    }
    /// A step is about to be executed.
    StepStarted {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// Its place in the order of execution, from 0.
        index: u32,
        /// Which attempt at the step, from 1.
        attempt: u32,
        /// What it does, in words (never with secrets).
        action: String,
    }
    /// A step ended.
    StepFinished {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// Its place in the order of execution, from 0.
        index: u32,
        /// Which attempt at the step, from 1.
        attempt: u32,
        /// How it ended.
        outcome: StepOutcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// The command's exit code or the HTTP status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// What it printed (capped).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// Another automation is asked to do a step's work. Whoever listens for `worker` does it, once for each
    /// recovery, step and attempt, and says how it ended with `step.answered`.
    StepRequested {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// Which attempt at the step, from 1.
        attempt: u32,
        /// Who is asked: a name that the other side looks for.
        worker: String,
        /// What it is told.
        args: std::collections::BTreeMap<String, String>,
        /// An answer after this time is too late.
        answer_until: DateTime<Utc>,
    }
    /// Another automation did a step's work, or failed to.
    StepAnswered {
        /// The recovery that asked.
        recovery: RecoveryId,
        /// The step that asked.
        step: StepId,
        /// The attempt that asked.
        attempt: u32,
        /// Whether it did what was asked.
        succeeded: bool,
        /// Who answers.
        by: String,
        /// What came of it (capped).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// The verification after the steps ended.
    RecoveryVerified {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// Whether every check passed within the window.
        passed: bool,
        /// Each check.
        checks: Vec<CheckResult>,
        /// The observations that it rests on (at most 20).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        evidence: Vec<EventRef>,
    }
    /// A recovery ended.
    RecoveryFinished {
        /// The recovery.
        recovery: RecoveryId,
        /// The incident.
        incident: IncidentId,
        /// Which attempt at the incident, from 1.
        attempt: u32,
        /// The procedure.
        procedure: ProcedureId,
        /// How the service was brought back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<RecoveryMethod>,
        /// How it ended.
        outcome: RecoveryOutcome,
        /// From `recovery.started` to now, in milliseconds.
        duration_ms: u64,
        /// Why it did not succeed, coarsely.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_class: Option<ErrorClass>,
        /// Why it did not succeed, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// Automation gave up and asks for people.
    RecoveryEscalated {
        /// The incident.
        incident: IncidentId,
        /// The recovery that failed, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery: Option<RecoveryId>,
        /// Recoveries attempted so far.
        attempts: u32,
        /// Why.
        reason: String,
    }
    /// Traffic is being moved between sites.
    FailoverStarted {
        /// The failover, in the operator's own words.
        failover: String,
        /// From here.
        from_site: SiteId,
        /// To here.
        to_site: SiteId,
        /// The recovery it is part of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery: Option<RecoveryId>,
    }
    /// The move ended.
    FailoverFinished {
        /// The failover.
        failover: String,
        /// From here.
        from_site: SiteId,
        /// To here.
        to_site: SiteId,
        /// Whether it succeeded.
        succeeded: bool,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// The newest data at the target: what was not lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_until: Option<DateTime<Utc>>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// Traffic moved back.
    FailbackFinished {
        /// The failover that it undoes.
        failover: String,
        /// From here.
        from_site: SiteId,
        /// To here.
        to_site: SiteId,
        /// Whether it succeeded.
        succeeded: bool,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    }
    /// A drill began.
    DrillStarted {
        /// The drill, as the plan names it.
        drill: DrillId,
        /// This run of it.
        run: String,
        /// Who started it.
        by: String,
    }
    /// A drill, or the demo, broke something on purpose.
    FaultInjected {
        /// The drill it is part of, where it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drill: Option<DrillId>,
        /// What was done: `kill`, `stop`, `corrupt`, `disconnect`…
        fault: String,
        /// To what.
        target: String,
    }
    /// A drill ended.
    DrillFinished {
        /// The drill.
        drill: DrillId,
        /// This run of it.
        run: String,
        /// Whether every objective was met.
        passed: bool,
        /// Time to detection, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detected_after_ms: Option<u64>,
        /// Time to recovery, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovered_after_ms: Option<u64>,
        /// Each objective.
        checks: Vec<CheckResult>,
    }
    /// Somebody decided to make something better.
    ImprovementOpened {
        /// The improvement's name.
        improvement: String,
        /// What it is about.
        title: String,
        /// Who does it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// The incident that it grew out of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incident: Option<IncidentId>,
        /// By when.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due_at: Option<DateTime<Utc>>,
    }
    /// It was done, or dropped.
    ImprovementClosed {
        /// The improvement.
        improvement: String,
        /// Whether it was done.
        done: bool,
        /// What came of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    }
}
