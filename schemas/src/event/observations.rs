//! Payloads of the observations topic: what was seen by probes, measurements, backups and deployments.

use chrono::{DateTime, Utc};

use super::parts::{CheckResult, payloads};
use super::words::{BackupKind, DeploymentOutcome, ErrorClass, Outcome};
use crate::ids::{ProbeId, SiteId};

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
}
