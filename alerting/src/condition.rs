//! What a policy judges besides its probes' failures: a [`Judge`] is what the plan says of one condition, a
//! [`Watch`] what was seen of it at one service.
//!
//! Everything measured goes through the same machine as a probe ([`ProbeState`]), one a stream (a probe, a resource,
//! a copy's site). What time brings about is a time that is known beforehand; a burn rate has its windows.

mod watch;

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{ErrorClass, Outcome};
use rebound_schemas::plan::{Backup, Condition, Limit, Measure, Plan, Policy, Service, ServiceLevel, missed};
use rebound_schemas::{Event, EventData, ServiceId};

pub use self::watch::{Context, Warning, Watch};
use crate::burn::Burn;
use crate::delta;
use crate::hold::Hold;
use crate::threshold::{Rule, Seen};

/// No condition but a burn rate asks for more of the past at a start than this: an old backup then counts as made no
/// later than where the past begins.
pub const MOST_LOOKBACK: Duration = Duration::from_secs(24 * 3600);

/// What the plan says of one condition.
#[derive(Debug)]
pub struct Judge {
    /// As written.
    pub condition: Condition,
    rule: Rule,
    hold: Hold,
    level: Option<ServiceLevel>,
}

/// What the plan says of a service that conditions refer to.
#[derive(Debug, Clone, Default)]
pub struct Objectives {
    rpo: TimeDelta,
    /// Its backup schedules and their intervals.
    backups: Box<[(Box<str>, TimeDelta)]>,
}

impl Objectives {
    /// Of one service.
    #[must_use]
    pub fn new(plan: &Plan, service: &Service) -> Self {
        let of = |backup: &&Backup| backup.service == service.id;
        let schedule = |backup: &Backup| (backup.id.as_str().into(), delta(backup.every));
        Self { rpo: delta(service.rpo), backups: plan.backups().values().filter(of).map(schedule).collect() }
    }

    fn limit(&self, limit: Limit, backup: Option<&str>) -> TimeDelta {
        match limit {
            Limit::Fixed(duration) => delta(duration),
            Limit::Rpo => self.rpo,
            Limit::Schedule => {
                let every = self.backups.iter().find(|(id, _)| Some(&**id) == backup).map(|(_, every)| *every);
                every.map_or(TimeDelta::MAX, |every| every + every / 10)
            }
        }
    }
}

/// Beyond the bound or within it, with words for the former.
fn bound<'a>(beyond: bool, class: ErrorClass, words: impl FnOnce() -> String) -> Seen<'a> {
    Seen {
        outcome: if beyond { Outcome::Failed } else { Outcome::Healthy },
        site: None,
        error_class: beyond.then_some(class),
        reason: beyond.then(|| Cow::Owned(words())),
    }
}

/// A share as a percentage, to two places.
pub(crate) fn percent(share: f64) -> f64 {
    (share * 10_000.0).round() / 100.0
}

impl Judge {
    /// The conditions of a policy.
    #[must_use]
    pub fn of(plan: &Plan, policy: &Policy) -> Vec<Self> {
        let judge = |condition: &Condition| Self {
            rule: Rule {
                failures: condition.failures.max(1),
                of: condition.of.map(|of| of.max(condition.failures)),
                recoveries: condition.recoveries.max(1),
                sites: 1,
                degraded_fails: false,
                ..Rule::from(policy)
            },
            hold: Hold::new(condition.hold, condition.keep_firing),
            level: match &condition.measure {
                Measure::ServiceLevel(level) => plan.service_levels().get(level).cloned(),
                _ => None,
            },
            condition: condition.clone(),
        };
        policy.conditions.iter().map(judge).collect()
    }

    /// What an observation says, and of which stream; `None` if this condition doesn't look at it.
    fn see<'a>(&self, of: &Objectives, service: &ServiceId, data: &'a EventData) -> Option<(Cow<'a, str>, Seen<'a>)> {
        use ErrorClass::{DataIntegrity, ResourceConstraint, Unknown};
        let one = Cow::Borrowed("");
        match (&self.condition.measure, data) {
            (Measure::ErrorRateAbove(most), EventData::ServiceLevelMeasured(data)) => {
                let rate = data.error_rate?;
                let words = || format!("error rate {} %, above {} %", percent(rate), percent(*most));
                Some((one, bound(rate > *most, Unknown, words)))
            }
            (Measure::ThroughputBelow(least), EventData::ServiceLevelMeasured(data)) => {
                let rate = data.throughput_per_second?;
                Some((
                    one,
                    bound(rate < *least, ResourceConstraint, || format!("throughput {rate}/s, below {least}/s")),
                ))
            }
            (Measure::ResponseTimeAbove(most), EventData::ServiceLevelMeasured(data)) => {
                let (ms, most) = (data.response_time_ms?, most.as_secs_f64() * 1000.0);
                let words = || format!("response time {ms} ms, above {most} ms");
                Some((one, bound(ms > most, ResourceConstraint, words)))
            }
            (Measure::AvailabilityBelow(least), EventData::ServiceLevelMeasured(data)) => {
                let share = data.availability?;
                let words = || format!("availability {} %, below {} %", percent(share), percent(*least));
                Some((one, bound(share < *least, Unknown, words)))
            }
            (Measure::ServiceLevel(_), EventData::ServiceLevelMeasured(data)) => {
                let level = self.level.as_ref()?;
                if !level.services.is_empty() && !level.services.contains(service) {
                    return None;
                }
                let missed = missed(level, data);
                Some((one, bound(!missed.is_empty(), ResourceConstraint, || missed.join("; "))))
            }
            (Measure::UtilizationAbove(most, resource), EventData::ResourceMeasured(data)) => {
                if resource.as_ref().is_some_and(|resource| *resource != data.resource) {
                    return None;
                }
                let stream = match &data.site {
                    Some(site) => Cow::Owned(format!("{}@{site}", data.resource)),
                    None => Cow::Borrowed(data.resource.as_str()),
                };
                let used = data.utilization;
                let words = || format!("{} used to {} %, above {} %", data.resource, percent(used), percent(*most));
                let seen = bound(used > *most, ResourceConstraint, words);
                Some((stream, Seen { site: data.site.as_ref(), ..seen }))
            }
            (Measure::ReplicationLagAbove(most, site), EventData::ReplicationMeasured(data)) => {
                if site.as_ref().is_some_and(|site| *site != data.target_site) {
                    return None;
                }
                let most = of.limit(*most, None).as_seconds_f64();
                let (lag, target) = (data.lag_seconds, &data.target_site);
                let words = || format!("the copy at {target} lags {lag} s behind, above {most} s");
                Some((Cow::Borrowed(target.as_str()), bound(lag > most, DataIntegrity, words)))
            }
            // A probe that failed says nothing about how fast the service is, or how well it works.
            (Measure::LatencyAbove(most), EventData::ProbeCompleted(data)) if data.outcome != Outcome::Failed => {
                let (took, most) = (Duration::from_micros(data.latency_us), *most);
                let words = || format!("{} took {took:.1?}, above {most:?}", data.probe);
                let seen = bound(took > most, ResourceConstraint, words);
                Some((Cow::Borrowed(data.probe.as_str()), Seen { site: data.site.as_ref(), ..seen }))
            }
            (Measure::Degraded, EventData::ProbeCompleted(data)) if data.outcome != Outcome::Failed => {
                let words = || data.reason.clone().unwrap_or_else(|| format!("{} is degraded", data.probe));
                let class = data.error_class.unwrap_or(Unknown);
                let seen = bound(data.outcome == Outcome::Degraded, class, words);
                Some((Cow::Borrowed(data.probe.as_str()), Seen { site: data.site.as_ref(), ..seen }))
            }
            _ => None,
        }
    }

    /// A time that an observation states: since when a backup is good, until when a certificate is.
    fn time<'a>(&self, event: &'a Event) -> Option<(&'a str, DateTime<Utc>)> {
        match (&self.condition.measure, &event.data) {
            (Measure::BackupAge { verified: false, .. }, EventData::BackupFinished(data)) if data.succeeded => {
                Some((&data.backup, data.data_until.unwrap_or(event.occurred_at)))
            }
            (Measure::BackupAge { verified: true, .. }, EventData::BackupVerified(data)) if data.passed => {
                Some((&data.backup, event.occurred_at))
            }
            (Measure::CertificateExpiresWithin(_), EventData::CertificateObserved(data)) => {
                Some((&data.subject_name, data.not_after))
            }
            (Measure::CertificateExpiresWithin(_), EventData::ProbeCompleted(data)) => {
                Some((data.probe.as_str(), data.certificate_expires_at?))
            }
            _ => None,
        }
    }

    /// How far back observations matter to it: `every` is between two of the slowest probe.
    #[must_use]
    pub fn lookback(condition: &Condition, every: Duration) -> Duration {
        // What is measured by others comes once a minute, or so it is taken.
        let every = every.max(Duration::from_secs(60));
        match &condition.measure {
            // All of its longest window, three days of a ticket's: counted in buckets as it is read, and never kept.
            Measure::BurnRate(_, pace) => return Burn::longest(*pace).to_std().unwrap_or_default(),
            Measure::BackupAge { .. } | Measure::CertificateExpiresWithin(_) => MOST_LOOKBACK,
            Measure::Unobserved => Duration::ZERO,
            _ => {
                let n = condition.failures.max(condition.of.unwrap_or(0)).max(condition.recoveries) + 1;
                every * n + condition.hold.max(condition.keep_firing)
            }
        }
        .min(MOST_LOOKBACK)
    }
}
