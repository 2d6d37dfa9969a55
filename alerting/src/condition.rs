//! What a policy judges besides its probes' failures: a [`Judge`] is what the plan says of one condition, a
//! [`Watch`] what was seen of it at one service.
//!
//! Everything measured goes through the same machine as a probe ([`ProbeState`]), one a stream (a probe, a resource,
//! a copy's site). What time brings about is a time that is known beforehand; a burn rate has its windows.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{ErrorClass, EventRef, Outcome, ProbeCompleted, SuppressionCause};
use rebound_schemas::plan::{Backup, Condition, Effect, Limit, Measure, Plan, Policy, Service, ServiceLevel, missed};
use rebound_schemas::{AlertId, Event, EventData, IncidentId, ServiceId};

use crate::burn::Burn;
use crate::hold::{Hold, Signal};
use crate::threshold::{ProbeState, Rule, Seen};

/// Streams that one condition tells apart at one service; what comes beyond is not judged.
const MAX_STREAMS: usize = 64;

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

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
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

fn percent(share: f64) -> f64 {
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
            Measure::BurnRate(_, pace) => Burn::longest(*pace).to_std().unwrap_or_default(),
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

/// No condition asks for more of the past at a start than this: an old backup then counts as made no later than
/// where the past begins, and a longer burn window fills anew.
pub const MOST_LOOKBACK: Duration = Duration::from_secs(24 * 3600);

/// What a condition warns of, from when it first fires to its resolve.
#[derive(Debug)]
pub struct Warning {
    /// Its alert.
    pub alert: AlertId,
    /// The name under which it is tracked, where an outage has its incident.
    pub matter: IncidentId,
    /// `alert.raised` was decided: somebody is told.
    pub told: bool,
    /// A bit a cause that `alert.suppressed` was decided for.
    pub suppressed: u8,
}

/// What was seen of a condition at one service, and what was decided about it.
#[derive(Debug)]
pub struct Watch {
    /// Whether it fails the service.
    fails: bool,
    streams: Vec<(Box<str>, ProbeState)>,
    /// Of each stream the time that it states, and when it was said.
    times: Vec<(Box<str>, DateTime<Utc>, DateTime<Utc>)>,
    burn: Option<Box<Burn>>,
    signal: Option<Signal>,
    /// The observation that last turned the signal on.
    turned_by: Option<EventRef>,
    /// The open warning.
    pub warning: Option<Box<Warning>>,
    /// The last one that was, and when it ended.
    pub closed: Option<Box<(AlertId, DateTime<Utc>)>>,
}

/// What a watch is judged by besides what it saw.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The service's.
    pub objectives: &'a Objectives,
    /// When the service was last heard of.
    pub heard_at: Option<DateTime<Utc>>,
    /// From when on everything was seen.
    pub since: Option<DateTime<Utc>>,
    /// The service's `silent_after`.
    pub silent_after: TimeDelta,
}

impl Watch {
    /// Nothing seen.
    #[must_use]
    pub fn new(judge: &Judge) -> Self {
        Self {
            fails: judge.condition.effect == Effect::Fail,
            streams: Vec::new(),
            times: Vec::new(),
            burn: None,
            signal: None,
            turned_by: None,
            warning: None,
            closed: None,
        }
    }

    /// Forgets what was seen; what was decided stays.
    pub fn forget(&mut self) {
        (self.streams, self.times, self.burn) = (Vec::new(), Vec::new(), None);
        (self.signal, self.turned_by) = (None, None);
    }

    /// Takes one observation of its service; `false` if it changed nothing. What comes of a probe must have been
    /// counted by it, so that nothing delivered twice counts twice.
    pub fn observe(&mut self, judge: &Judge, of: &Objectives, event: &Event, inherited: bool) -> bool {
        if let Some((stream, time)) = judge.time(event) {
            return self.note(stream, time, event.occurred_at);
        }
        if let (Measure::BurnRate(objective, pace), EventData::ProbeCompleted(data)) =
            (&judge.condition.measure, &event.data)
        {
            return self.burn(*objective, *pace, event, data);
        }
        let Some((stream, seen)) = judge.see(of, &event.subject, &event.data) else { return false };
        let at = match self.streams.iter().position(|(known, _)| **known == *stream) {
            Some(at) => at,
            None if self.streams.len() == MAX_STREAMS => return false,
            None => {
                let fresh = if self.fails && inherited { ProbeState::inherited() } else { ProbeState::default() };
                self.streams.push((stream.into(), fresh));
                self.streams.len() - 1
            }
        };
        if !self.streams[at].1.take(&judge.rule, event, &seen) {
            return false;
        }
        let holds = self.streams.iter().any(|(_, state)| state.is_hard());
        self.turn(event, holds);
        true
    }

    fn turn(&mut self, event: &Event, holds: bool) {
        if holds && self.signal.is_none_or(|signal| !signal.holds) {
            self.turned_by = Some(EventRef::from(event));
        }
        Signal::turn(&mut self.signal, event.occurred_at, holds);
    }

    fn note(&mut self, stream: &str, time: DateTime<Utc>, said_at: DateTime<Utc>) -> bool {
        let full = self.times.len() == MAX_STREAMS;
        match self.times.iter_mut().find(|(known, ..)| **known == *stream) {
            Some((_, held, at)) if *at < said_at => (*held, *at) = (time, said_at),
            Some(_) => return false,
            None if full => return false,
            None => self.times.push((stream.into(), time, said_at)),
        }
        true
    }

    fn burn(
        &mut self,
        objective: f64,
        pace: rebound_schemas::plan::Pace,
        event: &Event,
        data: &ProbeCompleted,
    ) -> bool {
        if data.outcome == Outcome::Degraded {
            return false;
        }
        let burn = self.burn.get_or_insert_with(|| Box::new(Burn::new(pace)));
        burn.observe(event.occurred_at, data.outcome == Outcome::Failed);
        let holds = burn.burning(objective).is_some();
        self.turn(event, holds);
        true
    }

    /// When time brings the condition about; `None` if it doesn't.
    fn due(&self, judge: &Judge, context: Context<'_>) -> Option<DateTime<Utc>> {
        let of = context.objectives;
        let after = |at: Option<DateTime<Utc>>, limit| at?.checked_add_signed(limit);
        match &judge.condition.measure {
            Measure::Unobserved => after(context.heard_at.max(context.since), context.silent_after),
            Measure::CertificateExpiresWithin(within) => {
                self.times.iter().filter_map(|(_, until, _)| until.checked_sub_signed(delta(*within))).min()
            }
            Measure::BackupAge { above, backup, .. } => {
                let newest = |id: Option<&str>| {
                    let of = self.times.iter().filter(|(known, ..)| id.is_none_or(|id| **known == *id));
                    of.map(|(_, at, _)| *at).max()
                };
                let due = |id: Option<&str>| after(newest(id).or(context.since), of.limit(*above, id));
                match backup {
                    Some(id) if of.backups.iter().any(|(known, _)| **known == **id) => due(Some(id)),
                    Some(_) => None,
                    None if *above == Limit::Schedule => of.backups.iter().filter_map(|(id, _)| due(Some(id))).min(),
                    None if of.backups.is_empty() => None,
                    None => due(None),
                }
            }
            _ => None,
        }
    }

    /// Whether the condition holds at `now`, and since when; `None` while nothing is known.
    #[must_use]
    pub fn signal(&self, judge: &Judge, context: Context<'_>, now: DateTime<Utc>) -> Option<Signal> {
        if !judge.condition.measure.is_timed() || self.burn.is_some() {
            return self.signal;
        }
        let due = self.due(judge, context);
        match due {
            Some(due) if due <= now => Some(Signal { holds: true, since: due }),
            _ => {
                let said = self.times.iter().map(|(.., at)| *at).max();
                let since = if judge.condition.measure == Measure::Unobserved { context.heard_at } else { said };
                Some(Signal { holds: false, since: since? })
            }
        }
    }

    /// Whether it fires at `now`, given what was decided, and when time alone changes that.
    #[must_use]
    pub fn fires(
        &self,
        judge: &Judge,
        context: Context<'_>,
        now: DateTime<Utc>,
    ) -> (Option<Signal>, bool, Option<DateTime<Utc>>) {
        let fired = self.warning.is_some();
        let signal = self.signal(judge, context, now);
        let fires = signal.map_or(fired, |signal| judge.hold.fires(fired, signal, now));
        let begins = self.due(judge, context).filter(|due| *due > now);
        let held = signal.and_then(|signal| judge.hold.due(fired, signal)).filter(|due| *due > now);
        (signal, fires, [begins, held].into_iter().flatten().min())
    }

    /// States that fail the service.
    pub fn judges(&self) -> impl Iterator<Item = &ProbeState> {
        self.streams.iter().filter(|_| self.fails).map(|(_, state)| state)
    }

    /// Takes every stream for what it was seen to be.
    pub fn trust(&mut self) {
        self.streams.iter_mut().for_each(|(_, state)| state.trust());
    }

    /// What makes it hold, in words, with the observations that say so (at most 20) and their number.
    #[must_use]
    pub fn evidence(&self, judge: &Judge, context: Context<'_>, now: DateTime<Utc>) -> (String, Vec<EventRef>, u32) {
        let hard = self.streams.iter().map(|(_, state)| state).find(|state| state.is_hard());
        if let Some(streak) = hard.and_then(ProbeState::streak) {
            return (streak.reason.to_string(), streak.events(), streak.failures);
        }
        let by: Vec<EventRef> = self.turned_by.iter().cloned().collect();
        let since = |at: Option<DateTime<Utc>>| at.map_or_else(|| "ever".to_owned(), |at| minutes(now - at));
        match &judge.condition.measure {
            Measure::Unobserved => (format!("nothing was observed for {}", since(context.heard_at)), by, 0),
            Measure::CertificateExpiresWithin(_) => {
                let first = self.times.iter().min_by_key(|(_, until, _)| *until);
                let words = first.map(|(name, until, _)| format!("the certificate of {name} expires at {until}"));
                (words.unwrap_or_else(|| "a certificate expires".to_owned()), by, 0)
            }
            Measure::BackupAge { backup, .. } => {
                let overdue = self.overdue(judge, context, now);
                let of = backup.as_deref().or(overdue).map(|id| format!(" of {id}")).unwrap_or_default();
                let of_this = |(known, ..): &&(Box<str>, DateTime<Utc>, DateTime<Utc>)| {
                    backup.as_deref().or(overdue).is_none_or(|id| **known == *id)
                };
                let newest = self.times.iter().filter(of_this).map(|(_, at, _)| *at).max();
                let words = match newest {
                    Some(at) => format!("the newest good backup{of} is {} old", minutes(now - at)),
                    None => format!("no good backup{of} was seen"),
                };
                (words, by, 0)
            }
            Measure::BurnRate(objective, _) => {
                let burning = self.burn.as_ref().and_then(|burn| burn.burning(*objective));
                let words = burning.map(|burning| {
                    let (rate, hours) = ((burning.rate * 10.0).round() / 10.0, burning.pair.long / 60);
                    format!("the error budget of {} % burns {rate} times too fast over {hours}h", percent(*objective))
                });
                (words.unwrap_or_else(|| "the error budget burns too fast".to_owned()), by, 0)
            }
            _ => (format!("{} holds", judge.condition.id), by, 0),
        }
    }

    /// The first schedule that is overdue, where each is judged on its own.
    fn overdue<'a>(&self, judge: &Judge, context: Context<'a>, now: DateTime<Utc>) -> Option<&'a str> {
        let Measure::BackupAge { above: Limit::Schedule, .. } = judge.condition.measure else { return None };
        let due = |id: &str| {
            let newest = self.times.iter().filter(|(known, ..)| **known == *id).map(|(_, at, _)| *at).max();
            newest.or(context.since)?.checked_add_signed(context.objectives.limit(Limit::Schedule, Some(id)))
        };
        let ids = context.objectives.backups.iter().map(|(id, _)| &**id);
        ids.filter(|id| due(id).is_some_and(|due| due <= now)).min_by_key(|id| due(id))
    }

    /// Folds `alert.raised` or `alert.suppressed` about this condition; `false` if it is old or known.
    pub fn fold_open(
        &mut self,
        alert: &AlertId,
        matter: &IncidentId,
        at: DateTime<Utc>,
        cause: Option<SuppressionCause>,
        bit: impl Fn(SuppressionCause) -> u8,
    ) -> bool {
        if self.closed.as_ref().is_some_and(|closed| closed.0 == *alert || at <= closed.1) {
            return false;
        }
        if self.warning.as_ref().is_some_and(|known| known.alert != *alert) {
            return false;
        }
        let warning = self.warning.get_or_insert_with(|| {
            Box::new(Warning { alert: alert.clone(), matter: matter.clone(), told: false, suppressed: 0 })
        });
        let before = (warning.told, warning.suppressed);
        match cause {
            None => warning.told = true,
            Some(cause) => warning.suppressed |= bit(cause),
        }
        before != (warning.told, warning.suppressed)
    }

    /// Folds `alert.resolved` about this condition; `false` if it is old or known.
    pub fn fold_resolved(&mut self, alert: &AlertId, at: DateTime<Utc>) -> bool {
        let known = self.warning.take_if(|warning| warning.alert == *alert).is_some();
        if known {
            self.closed = Some(Box::new((alert.clone(), at)));
        }
        known
    }
}

/// `3d`, `17m`: whole units, coarsely.
fn minutes(age: TimeDelta) -> String {
    match age.num_minutes() {
        m if m >= 2 * 1440 => format!("{}d", m / 1440),
        m if m >= 120 => format!("{}h", m / 60),
        m if m >= 2 => format!("{m}m"),
        _ => format!("{}s", age.num_seconds()),
    }
}
