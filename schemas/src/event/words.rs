//! Closed sets of words: what a payload or the plan says of which there is a fixed choice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
        /// The procedure that would bring it back was demoted: people approve its recoveries from then on.
        Demoted = "demoted",
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
        /// It is told step by step what would be run, and nothing is.
        DryRun = "dry_run",
    }
    /// What holds a recovery back that a person asked for, and may be told not to.
    Restraint {
        /// How many recoveries the policy allows within a period.
        Intensity = "intensity",
        /// The wait after the last recovery.
        Backoff = "backoff",
        /// Recoveries at the same time: in all, a site, a procedure. One at a time of a service stays.
        Concurrency = "concurrency",
        /// A pause that covers it.
        Pause = "pause",
        /// Recoveries of what it depends on come first.
        Dependencies = "dependencies",
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
        /// Called off before it ran, or stopped by a person while it did.
        Cancelled = "cancelled",
        /// It was a dry run: everything was told and nothing was done.
        DryRun = "dry_run",
    }
    /// How far a recovery is.
    RecoveryStage {
        /// It waits for a person's approval.
        Waiting = "waiting",
        /// It was decided on, or approved, and begins when it is its turn.
        Triggered = "triggered",
        /// Its steps are run, or verified.
        Running = "running",
        /// It was verified.
        Succeeded = "succeeded",
        /// A step or the verification failed.
        Failed = "failed",
        /// The runner died; what it did is not known.
        Interrupted = "interrupted",
        /// It was called off or rejected before it ran.
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
        /// Too much of the site, or of everything, is down or under recovery.
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
