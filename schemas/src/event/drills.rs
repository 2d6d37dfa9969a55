//! Payloads of the recoveries topic about whole sites and about getting better: failovers, drills, improvements.

use chrono::{DateTime, Utc};

use super::parts::{CheckResult, payloads};
use crate::ids::{DrillId, IncidentId, RecoveryId, SiteId};

payloads! {
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
