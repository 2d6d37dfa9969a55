//! Conditions of a policy: what besides a probe's failure is judged, and what follows from it.
//!
//! A condition either *warns* (an alert that opens no incident, triggers nothing and enters no figure) or *fails*
//! the service like a probe would. What time alone brings about (an old backup, an expiring certificate, silence)
//! and burn rates only warn: they are risks, and a risk has no outage whose recovery could be timed.

use std::time::Duration;

use super::model::{Policy, ServiceLevel};
use super::read::{Reading, set};
use super::reader::{percent, words};
use super::section::{Bounds, Section};
use crate::event::Severity;
use crate::ids::{PolicyId, SiteId};

/// Something measured, its bound, and what follows when the bound is passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Its name within the policy.
    pub id: String,
    /// What is judged.
    pub measure: Measure,
    /// What follows.
    pub effect: Effect,
    /// Measurements beyond the bound (in a row, or among the last `of`) that make it hold.
    pub failures: u32,
    /// M-of-N: `failures` among the last `of` measurements.
    pub of: Option<u32>,
    /// Measurements within the bound, in a row, that end it.
    pub recoveries: u32,
    /// It must hold for this long before it fires (Prometheus' `for`).
    pub hold: Duration,
    /// It fires for this long after it last held (Prometheus' `keep_firing_for`).
    pub keep_firing: Duration,
    /// A burn rate fires only on so many observations in its long window, or more.
    pub at_least: u32,
    /// How loudly it warns; for one that fails, the incident's, if it leads.
    pub severity: Option<Severity>,
}

/// What follows from a condition that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// An alert; no incident, no trigger.
    Warn,
    /// The service fails, as by a probe.
    Fail,
}

/// What degraded observations of a probe mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DegradedAs {
    /// Recorded, counted neither way.
    #[default]
    Ignore,
    /// A warning, by the policy's thresholds.
    Warn,
    /// A failure.
    Count,
}

/// How long something may be, where a service or a schedule may say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// This long.
    Fixed(Duration),
    /// The service's recovery point objective.
    Rpo,
    /// The backup schedule's interval and a tenth of it, for the run itself.
    Schedule,
}

/// How fast an error budget may burn: two pairs of windows each (Google's SRE workbook, chapter 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// 14.4× over 1 h and 5 m, or 6× over 6 h and 30 m: somebody must act now.
    Page,
    /// 3× over 1 d and 2 h, or 1× over 3 d and 6 h: somebody should look today.
    Ticket,
}

/// What is judged, by which bound.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// `service_level.measured`: share of failed requests.
    ErrorRateAbove(f64),
    /// `service_level.measured`: requests a second.
    ThroughputBelow(f64),
    /// `service_level.measured`: response time.
    ResponseTimeAbove(Duration),
    /// `service_level.measured`: share of good time.
    AvailabilityBelow(f64),
    /// `service_level.measured`: any threshold of this `[[service_level]]`, for the services it holds for.
    ServiceLevel(String),
    /// `resource.measured`: share in use, of one resource or of any.
    UtilizationAbove(f64, Option<String>),
    /// `replication.measured`: lag, of the copy at one site or at any.
    ReplicationLagAbove(Limit, Option<SiteId>),
    /// Age of the newest good backup (`backup.finished`, or `backup.verified` if `verified`).
    BackupAge {
        /// At most.
        above: Limit,
        /// Of this schedule; without it of any (by `schedule`: of each).
        backup: Option<String>,
        /// Only a backup that was verified counts.
        verified: bool,
    },
    /// `certificate.observed`, or what a probe saw: days that are left.
    CertificateExpiresWithin(Duration),
    /// A probe's latency, whatever it found.
    LatencyAbove(Duration),
    /// Degraded observations of a probe.
    Degraded,
    /// Nothing was observed for `silent_after`.
    Unobserved,
    /// A probe's failures against an objective.
    BurnRate(f64, Pace),
}

/// The keys that say what is judged.
const KINDS: [&str; 12] = [
    "error_rate_above",
    "throughput_below",
    "response_time_above",
    "availability_below",
    "service_level",
    "utilization_above",
    "replication_lag_above",
    "backup_age_above",
    "certificate_expires_within",
    "latency_above",
    "unobserved",
    "burn_rate",
];

/// Observations that a burn rate needs in its long window, unless written: fewer say too little of a rate.
const AT_LEAST: u32 = 30;

/// A share of a whole, neither all nor nothing.
const PART: Bounds = Bounds { least: 0.0, open: true, most: 0.999_999_999, example: 0.05 };

impl Measure {
    /// Whether time alone may bring it about, or it has a rule of its own: then there is nothing to count.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        matches!(
            self,
            Self::BackupAge { .. } | Self::CertificateExpiresWithin(_) | Self::Unobserved | Self::BurnRate(..)
        )
    }

    fn explain(&self) -> String {
        let limit = |limit: &Limit| match limit {
            Limit::Fixed(duration) => words(*duration),
            Limit::Rpo => "the service's RPO".to_owned(),
            Limit::Schedule => "its schedule's interval and a tenth".to_owned(),
        };
        match self {
            Self::ErrorRateAbove(rate) => format!("an error rate above {}", percent(*rate)),
            Self::ThroughputBelow(rate) => format!("a throughput below {rate} a second"),
            Self::ResponseTimeAbove(time) => format!("a response time above {}", words(*time)),
            Self::AvailabilityBelow(rate) => format!("an availability below {}", percent(*rate)),
            Self::ServiceLevel(level) => format!("service level {level} missed"),
            Self::UtilizationAbove(rate, None) => format!("any resource used above {}", percent(*rate)),
            Self::UtilizationAbove(rate, Some(resource)) => format!("{resource} used above {}", percent(*rate)),
            Self::ReplicationLagAbove(lag, None) => format!("a replication lag above {}", limit(lag)),
            Self::ReplicationLagAbove(lag, Some(site)) => format!("a replication lag to {site} above {}", limit(lag)),
            Self::BackupAge { above, backup, verified } => {
                let good = if *verified { "verified" } else { "good" };
                let of = backup.as_ref().map(|backup| format!(" of {backup}")).unwrap_or_default();
                format!("the newest {good} backup{of} being older than {}", limit(above))
            }
            Self::CertificateExpiresWithin(time) => format!("a certificate that expires within {}", words(*time)),
            Self::LatencyAbove(time) => format!("a probe that takes longer than {}", words(*time)),
            Self::Degraded => "a degraded probe".to_owned(),
            Self::Unobserved => "no observation at all".to_owned(),
            Self::BurnRate(objective, Pace::Page) => format!(
                "the error budget of {} burning 14.4 times too fast over 1h and 5m, or 6 times over 6h and 30m",
                percent(*objective)
            ),
            Self::BurnRate(objective, Pace::Ticket) => format!(
                "the error budget of {} burning 3 times too fast over 1d and 2h, or at all over 3d and 6h",
                percent(*objective)
            ),
        }
    }
}

impl Condition {
    /// The warning that `degraded = "warn"` is short for.
    fn degraded(policy: &Policy) -> Self {
        Self {
            id: "degraded".to_owned(),
            measure: Measure::Degraded,
            effect: Effect::Warn,
            failures: policy.failures,
            of: policy.of,
            recoveries: policy.recoveries,
            hold: Duration::ZERO,
            keep_firing: Duration::ZERO,
            at_least: AT_LEAST,
            severity: None,
        }
    }

    /// How far back a burn rate looks; nothing for other conditions.
    #[must_use]
    pub fn burn_window(&self) -> Duration {
        match self.measure {
            Measure::BurnRate(_, Pace::Page) => Duration::from_secs(6 * 3600),
            Measure::BurnRate(_, Pace::Ticket) => Duration::from_secs(3 * 24 * 3600),
            _ => Duration::ZERO,
        }
    }

    /// How loudly it warns.
    #[must_use]
    pub fn warning_severity(&self) -> Severity {
        self.severity.unwrap_or(match self.measure {
            Measure::BurnRate(_, Pace::Page) => Severity::Critical,
            _ => Severity::Warning,
        })
    }

    /// The condition as a sentence.
    #[must_use]
    pub fn explain(&self) -> String {
        let counted = match (self.failures, self.of) {
            _ if self.measure.is_timed() => String::new(),
            (1, _) => String::new(),
            (n, None) => format!(", {n} times in a row"),
            (n, Some(of)) => format!(", {n} times among the last {of}"),
        };
        let held = if self.hold.is_zero() { String::new() } else { format!(", for {}", words(self.hold)) };
        let kept = match self.keep_firing.is_zero() {
            true => String::new(),
            false => format!(", until it has been over for {}", words(self.keep_firing)),
        };
        let effect = match (self.effect, self.severity) {
            (Effect::Warn, _) => format!("told as {}", self.warning_severity()),
            (Effect::Fail, None) => "fails the service".to_owned(),
            (Effect::Fail, Some(severity)) => format!("fails the service, as {severity}"),
        };
        let enough = match self.measure {
            Measure::BurnRate(..) => format!(", by {} observations or more", self.at_least),
            _ => String::new(),
        };
        format!("{}{counted}{enough}{held}: {effect}{kept}", self.measure.explain())
    }
}

/// A service level's thresholds that a measurement misses, in words; empty when it keeps them.
#[must_use]
pub fn missed(level: &ServiceLevel, measured: &crate::event::ServiceLevelMeasured) -> Vec<String> {
    let mut missed = Vec::new();
    if let (Some(most), Some(ms)) = (level.response_time, measured.response_time_ms)
        && ms > most.as_secs_f64() * 1000.0
    {
        missed.push(format!("response time {ms} ms, at most {}", words(most)));
    }
    if let (Some(least), Some(rate)) = (level.throughput_per_second, measured.throughput_per_second)
        && rate < least
    {
        missed.push(format!("throughput {rate} a second, at least {least}"));
    }
    if let (Some(most), Some(rate)) = (level.error_rate, measured.error_rate)
        && rate > most
    {
        missed.push(format!("error rate {rate}, at most {most}"));
    }
    if let (Some(least), Some(share)) = (level.availability, measured.availability)
        && share < least
    {
        missed.push(format!("availability {share}, at least {least}"));
    }
    missed
}

impl<'a> Reading<'a> {
    /// Durations, what degraded means and the conditions of a policy whose thresholds are read.
    pub(super) fn judgements(&self, section: &Section<'a>, policy: &mut Policy) {
        policy.hold = section.duration_or_zero("hold").unwrap_or_default();
        policy.keep_firing = section.duration_or_zero("keep_firing").unwrap_or_default();
        let degraded = [("ignore", DegradedAs::Ignore), ("warn", DegradedAs::Warn), ("count", DegradedAs::Count)];
        policy.degraded = section.word("degraded", &degraded).unwrap_or_default();
        for part in section.sections("condition") {
            let Some(condition) = self.condition(&part, policy) else { continue };
            if policy.conditions.iter().any(|known| known.id == condition.id) {
                let message = format!("{:?} is the id of another condition of this policy", condition.id);
                part.reader.fault_at(part.at, &part.path, message, "give each condition its own id = \"…\"");
            } else {
                policy.conditions.push(condition);
            }
        }
        if policy.degraded == DegradedAs::Warn {
            if policy.conditions.iter().any(|condition| condition.id == "degraded") {
                let remedy = "degraded = \"warn\" makes a condition of that name: give yours another id";
                section.fault("degraded", "there is a condition of this name already", remedy);
            }
            policy.conditions.push(Condition::degraded(policy));
        }
    }

    fn condition(&self, section: &Section<'a>, policy: &Policy) -> Option<Condition> {
        let written: Vec<&str> = KINDS.into_iter().filter(|kind| section.has(kind)).collect();
        match written.as_slice() {
            [] => {
                let remedy = format!("write one of {}", KINDS.join(", "));
                section.reader.fault_at(section.at, &section.path, "does not say what is judged", remedy);
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!("is judged beside {first}: a condition judges one thing");
                section.fault_here(second, message, "write a [[policy.condition]] for each");
            }
        }
        let id: Option<PolicyId> = section.has("id").then(|| section.id("condition")).flatten();
        let measure = written.first().and_then(|kind| self.measure(section, kind));
        let timed = measure.as_ref().is_some_and(Measure::is_timed);
        let effect = section.word("then", &[("warn", Effect::Warn), ("fail", Effect::Fail)]).unwrap_or(Effect::Warn);
        if timed && effect == Effect::Fail {
            let message = "this is a risk, not an outage: it has no recovery that could be timed";
            section.fault("then", message, "write then = \"warn\" or leave it out");
        }
        let failures = section.count("failures", 1, 1000);
        let of = section.count("of", 1, 1000);
        let recoveries = section.count("recoveries", 1, 1000);
        for key in ["failures", "of", "recoveries"].into_iter().filter(|key| timed && section.has(key)) {
            section.fault(key, "there is nothing to count here", "write hold = \"5m\" if it should last first");
        }
        let own = failures.is_some() || of.is_some();
        let failures = failures.unwrap_or(policy.failures);
        let of = if own { of } else { policy.of };
        if let Some(of) = of.filter(|of| failures > *of) {
            let message = format!("{failures} among the last {of} measurements can't happen");
            section.fault("of", message, format!("write of = {failures} or more"));
        }
        let condition = Condition {
            id: id.map_or_else(|| written.first().copied().unwrap_or_default().to_owned(), |id| id.to_string()),
            measure: Measure::Unobserved,
            effect,
            failures,
            of,
            recoveries: recoveries.unwrap_or(policy.recoveries),
            hold: section.duration_or_zero("hold").unwrap_or_default(),
            keep_firing: section.duration_or_zero("keep_firing").unwrap_or_default(),
            at_least: match measure {
                Some(Measure::BurnRate(..)) => section.count("at_least", 1, 1_000_000).unwrap_or(AT_LEAST),
                _ => AT_LEAST,
            },
            severity: section.word("severity", set!(Severity)),
        };
        for key in
            ["hold", "keep_firing"].into_iter().filter(|key| effect == Effect::Fail && !timed && section.has(key))
        {
            let message = "a condition that fails the service has no time of its own: the service's is the policy's";
            section.fault(key, message, format!("write {key} in the policy, or then = \"warn\" here"));
        }
        section.finish("a condition");
        Some(Condition { measure: measure?, ..condition })
    }

    fn measure(&self, section: &Section<'a>, kind: &str) -> Option<Measure> {
        Some(match kind {
            "error_rate_above" => {
                Measure::ErrorRateAbove(section.number(kind, Bounds { open: false, example: 0.01, ..PART })?)
            }
            "throughput_below" => {
                let bounds = Bounds { least: 0.0, open: true, most: 1e12, example: 1000.0 };
                Measure::ThroughputBelow(section.number(kind, bounds)?)
            }
            "response_time_above" => Measure::ResponseTimeAbove(section.duration(kind)?),
            "availability_below" => {
                Measure::AvailabilityBelow(section.number(kind, Bounds { most: 1.0, example: 0.999, ..PART })?)
            }
            "service_level" => {
                let level: PolicyId = section.reference(kind, &self.levels)?;
                Measure::ServiceLevel(level.to_string())
            }
            "utilization_above" => {
                let resource = section.words("resource");
                Measure::UtilizationAbove(section.number(kind, Bounds { example: 0.9, ..PART })?, resource)
            }
            "replication_lag_above" => {
                let site = section.reference("site", &self.sites);
                Measure::ReplicationLagAbove(limit(section, kind, false)?, site)
            }
            "backup_age_above" => {
                let backup: Option<PolicyId> = section.reference("backup", &self.backups);
                let verified = section.flag("verified").unwrap_or(false);
                let above = limit(section, kind, true)?;
                Measure::BackupAge { above, backup: backup.map(|id| id.to_string()), verified }
            }
            "certificate_expires_within" => Measure::CertificateExpiresWithin(section.duration(kind)?),
            "latency_above" => Measure::LatencyAbove(section.duration(kind)?),
            "unobserved" => {
                if !section.flag(kind)? {
                    section.fault(kind, "false judges nothing", "write unobserved = true or leave the condition out");
                }
                Measure::Unobserved
            }
            _ => {
                section.required("objective", "objective = 0.999, the share of probes that should succeed");
                let objective = section.number("objective", Bounds { example: 0.999, ..PART });
                let pace = section.word(kind, &[("page", Pace::Page), ("ticket", Pace::Ticket)])?;
                Measure::BurnRate(objective?, pace)
            }
        })
    }
}

/// A duration, or a word for one that is written elsewhere.
fn limit(section: &Section<'_>, key: &str, scheduled: bool) -> Option<Limit> {
    let words: &[(&str, Limit)] = match scheduled {
        true => &[("rpo", Limit::Rpo), ("schedule", Limit::Schedule)],
        false => &[("rpo", Limit::Rpo)],
    };
    match section.raw_text(key) {
        // A word is a word, and neither begins with a digit.
        Some(text) if !text.starts_with(|first: char| first.is_ascii_digit()) => section.word(key, words),
        _ => section.duration(key).map(Limit::Fixed),
    }
}
