//! Payload of the recoveries topic about the plan: what was protected and promised, from when on. Figures are judged
//! by what was promised then, so the record needs the plan's history and not only its present text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::payloads;
use super::words::{BackupKind, RecoveryMethod, Severity};
use crate::ids::{DrillId, PolicyId, ProcedureId, ServiceId, SiteId, StepId, TierId};

payloads! {
    /// Decisions are made under this plan from now on: the event's `planversion`. Said whenever a process that decides
    /// starts, so a plan that did not change is adopted again and again. A large one comes in parts, all with the
    /// same time.
    PlanAdopted {
        /// What the plan is called.
        name: String,
        /// Which part, from 1.
        part: u32,
        /// Of so many.
        parts: u32,
        /// Places where services run.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sites: Vec<PlannedSite>,
        /// Tiers of recovery priority.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tiers: Vec<PlannedTier>,
        /// Protected services.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<PlannedService>,
        /// Recovery procedures.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        procedures: Vec<PlannedProcedure>,
        /// Backup schedules.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        backups: Vec<PlannedBackup>,
        /// Service-level thresholds.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        service_levels: Vec<PlannedLevel>,
        /// Drills.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        drills: Vec<PlannedDrill>,
    }
}

/// What a plan says of one thing. Durations are seconds.
macro_rules! planned {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }
    )*};
}

planned! {
    /// A place where services run.
    PlannedSite {
        /// Its id.
        site: SiteId,
        /// What it is for.
        purpose: String,
        /// How long until it can take over.
        recovery_time_seconds: f64,
        /// Share of the normal load that it can carry: 1 is all of it.
        capacity: f64,
    }
    /// A tier of recovery priority.
    PlannedTier {
        /// Its id.
        tier: TierId,
        /// What it is called.
        name: String,
        /// How loudly its services' alerts ask for somebody.
        severity: Severity,
    }
    /// A protected service and what is promised of it.
    PlannedService {
        /// Its id.
        service: ServiceId,
        /// What it is called.
        name: String,
        /// Its tier.
        tier: TierId,
        /// Where it runs.
        site: SiteId,
        /// What it needs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        depends_on: Vec<ServiceId>,
        /// Redundancy groups that it needs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        depends_on_groups: Vec<String>,
        /// Recovery time objective.
        rto_seconds: f64,
        /// Recovery point objective.
        rpo_seconds: f64,
        /// How it is brought back.
        method: RecoveryMethod,
        /// Its policy.
        policy: PolicyId,
        /// What brings it back; none: people do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        procedure: Option<ProcedureId>,
    }
    /// A recovery procedure.
    PlannedProcedure {
        /// Its id.
        procedure: ProcedureId,
        /// What it is called.
        name: String,
        /// Its steps, in order.
        steps: Vec<PlannedStep>,
    }
    /// A step of a procedure.
    PlannedStep {
        /// Its id.
        step: StepId,
        /// What it is for.
        name: String,
    }
    /// A backup schedule.
    PlannedBackup {
        /// Its name.
        backup: String,
        /// The service whose data it holds.
        service: ServiceId,
        /// What kind.
        kind: BackupKind,
        /// From one run to the next.
        every_seconds: f64,
        /// How long a backup is kept.
        retention_seconds: f64,
        /// From one verification to the next.
        verify_every_seconds: f64,
    }
    /// Service-level thresholds.
    PlannedLevel {
        /// Their name.
        service_level: String,
        /// The services that they hold for; empty: all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<ServiceId>,
        /// Response time at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        response_time_seconds: Option<f64>,
        /// Requests a second at least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        throughput_per_second: Option<f64>,
        /// Share of failed requests at most, 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_rate: Option<f64>,
        /// Share of good time at least, 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        availability: Option<f64>,
    }
    /// A drill and its objectives.
    PlannedDrill {
        /// Its id.
        drill: DrillId,
        /// What it is called.
        name: String,
        /// What is broken.
        scenario: String,
        /// The services that are broken; empty: all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<ServiceId>,
        /// Detected within this.
        detect_within_seconds: f64,
        /// Recovered within this.
        recover_within_seconds: f64,
    }
}
