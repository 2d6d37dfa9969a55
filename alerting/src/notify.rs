//! Who is to be told what, as a pure fold: alert events in, due [`Notice`]s out.
//!
//! [`Notifier`] folds `alert.*`, `incident.acknowledged`, `recovery.escalated` and its own `notification.sent` and
//! `notification.failed`, so that after a restart nothing is told twice and nothing is forgotten. Delivery
//! (attempts, back-off, time-outs) is the channels' affair; so is remembering what is under way.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{NotificationFailed, NotificationSent, Severity, Transition};
use rebound_schemas::plan::Plan;
use rebound_schemas::{
    AlertId, ChannelId, Event, EventData, EventId, IncidentId, PlanVersion, PolicyId, ServiceId, Source,
};
use sha2::{Digest, Sha256};

use crate::SOURCE;

/// Settled alerts that are remembered, so that a redelivered `alert.raised` of one isn't told again.
const REMEMBERED: usize = 100_000;

/// One message to one channel about one transition of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The same for every attempt at this message, on every instance, for ever: receivers drop repeats by it.
    pub dedup_key: String,
    /// The alert.
    pub alert: AlertId,
    /// The incident that it belongs to.
    pub incident: IncidentId,
    /// Where it goes.
    pub channel: ChannelId,
    /// What it tells of.
    pub transition: Transition,
    /// Which repeat, from 1; 0 for anything but [`Transition::Repeated`].
    pub repeat: u32,
    /// The service.
    pub service: ServiceId,
    /// The policy that fired.
    pub policy: PolicyId,
    /// How loudly.
    pub severity: Severity,
    /// One line: what happened to which service.
    pub title: String,
    /// What was seen or why it was escalated, in words.
    pub reason: String,
    /// t0: the first failed probe.
    pub first_failure_at: DateTime<Utc>,
    /// When the transition happened; a repeat's own due time.
    pub at: DateTime<Utc>,
    /// The plan that the alert was decided under.
    pub plan: Option<PlanVersion>,
}

impl Notice {
    /// The event that says the channel took it, at attempt number `attempt` (from 1).
    #[must_use]
    pub fn sent(&self, attempt: u32, now: DateTime<Utc>) -> Event {
        let data = NotificationSent {
            dedup_key: self.dedup_key.clone(),
            alert: self.alert.clone(),
            incident: self.incident.clone(),
            channel: self.channel.clone(),
            transition: self.transition,
            attempt,
        };
        self.event("sent", data.into(), now)
    }

    /// The event that says it could not be delivered in `attempts` attempts; `error` must hold no secrets.
    #[must_use]
    pub fn failed(&self, attempts: u32, error: String, now: DateTime<Utc>) -> Event {
        let data = NotificationFailed {
            dedup_key: self.dedup_key.clone(),
            alert: self.alert.clone(),
            incident: self.incident.clone(),
            channel: self.channel.clone(),
            transition: self.transition,
            attempts,
            error,
        };
        self.event("failed", data.into(), now)
    }

    fn event(&self, what: &str, data: EventData, now: DateTime<Utc>) -> Event {
        Event {
            id: EventId::derive(&self.dedup_key, what),
            source: Source::new(SOURCE).expect("the source's name follows the rule for sources"),
            subject: self.service.clone(),
            occurred_at: now,
            plan: self.plan.clone(),
            data,
        }
    }
}

/// The key of one message: a digest of alert, transition, repeat number and channel.
#[must_use]
pub fn dedup_key(alert: &AlertId, transition: Transition, repeat: u32, channel: &ChannelId) -> String {
    let mut hash = Sha256::new();
    for part in [alert.as_str(), transition.as_str(), &repeat.to_string(), channel.as_str()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("ntf-{}", data_encoding::BASE32_NOPAD.encode(&hash.finalize()[..10]).to_lowercase())
}

/// What one alert's channels have been told.
#[derive(Debug)]
struct Alert {
    incident: IncidentId,
    service: ServiceId,
    policy: PolicyId,
    severity: Severity,
    reason: String,
    first_failure_at: DateTime<Utc>,
    raised_at: DateTime<Utc>,
    plan: Option<PlanVersion>,
    resolved_at: Option<DateTime<Utc>>,
    told: BTreeMap<ChannelId, Told>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Told {
    raised: bool,
    resolved: bool,
    escalated: bool,
    /// When the newest repeat was settled: every repeat due by then is.
    repeated_at: Option<DateTime<Utc>>,
}

/// Folds what was decided and what was told; answers what is due.
///
/// | alert | raise settled on the channel | due there |
/// |---|---|---|
/// | suppressed only | – | nothing |
/// | raised, open or resolved | no | raised |
/// | raised, open | yes | escalated, once it was; the newest repeat, unless acknowledged or quiet |
/// | raised, resolved | yes | resolved |
///
/// *Settled* is sent or given up. A raise comes before its resolve, also when the channel was slow; a resolve is
/// told even if telling the raise failed, since a receiver may have taken what it did not acknowledge.
#[derive(Debug)]
pub struct Notifier {
    plan: Arc<Plan>,
    alerts: HashMap<AlertId, Alert>,
    /// By incident and not in `alerts`, because escalations come by another topic: either may be folded first.
    escalated: Recent<IncidentId, (DateTime<Utc>, String)>,
    acknowledged: Recent<IncidentId, ()>,
    settled: Recent<AlertId, ()>,
}

impl Notifier {
    /// Nothing folded yet. Channels and repeats come from the policies of `plan`.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            alerts: HashMap::new(),
            escalated: Recent::default(),
            acknowledged: Recent::default(),
            settled: Recent::default(),
        }
    }

    /// Forgets alerts of services that this instance no longer tells of.
    pub fn retain(&mut self, mine: impl Fn(&ServiceId) -> bool) {
        self.alerts.retain(|_, alert| mine(&alert.service));
    }

    /// Folds one event, of history or live; folding it again changes nothing. Kinds that don't matter are ignored.
    pub fn fold(&mut self, event: &Event) {
        match &event.data {
            EventData::AlertRaised(data) => {
                if self.settled.contains(&data.alert) || self.alerts.contains_key(&data.alert) {
                    return;
                }
                let alert = Alert {
                    incident: data.incident.clone(),
                    service: event.subject.clone(),
                    policy: data.policy.clone(),
                    severity: data.severity,
                    reason: data.reason.clone(),
                    first_failure_at: data.first_failure_at,
                    raised_at: event.occurred_at,
                    plan: event.plan.clone(),
                    resolved_at: None,
                    told: BTreeMap::new(),
                };
                self.alerts.insert(data.alert.clone(), alert);
                self.settle(&data.alert);
            }
            EventData::AlertResolved(data) => {
                if let Some(alert) = self.alerts.get_mut(&data.alert) {
                    alert.resolved_at = Some(alert.resolved_at.unwrap_or(event.occurred_at));
                    self.settle(&data.alert);
                }
            }
            EventData::IncidentAcknowledged(data) => self.acknowledged.insert(data.incident.clone(), ()),
            EventData::RecoveryEscalated(data) if !self.escalated.contains(&data.incident) => {
                self.escalated.insert(data.incident.clone(), (event.occurred_at, data.reason.clone()));
            }
            EventData::NotificationSent(data) => {
                self.told(&data.alert, &data.channel, data.transition, event.occurred_at);
            }
            EventData::NotificationFailed(data) => {
                self.told(&data.alert, &data.channel, data.transition, event.occurred_at);
            }
            _ => {}
        }
    }

    fn told(&mut self, id: &AlertId, channel: &ChannelId, transition: Transition, at: DateTime<Utc>) {
        let Some(alert) = self.alerts.get_mut(id) else { return };
        let told = alert.told.entry(channel.clone()).or_default();
        match transition {
            Transition::Raised => told.raised = true,
            Transition::Resolved => told.resolved = true,
            Transition::Escalated => told.escalated = true,
            Transition::Repeated => told.repeated_at = told.repeated_at.max(Some(at)),
        }
        self.settle(id);
    }

    /// Lets go of an alert whose resolve every channel has been told.
    fn settle(&mut self, id: &AlertId) {
        let Some(alert) = self.alerts.get(id) else { return };
        let done = |channel: &ChannelId| alert.told.get(channel).is_some_and(|told| told.raised && told.resolved);
        if alert.resolved_at.is_some() && self.channels(&alert.policy).iter().all(done) {
            self.alerts.remove(id);
            self.settled.insert(id.clone(), ());
        }
    }

    /// Every message that is due at `now` and not yet settled, in a fixed order. `quiet` says of which services
    /// nothing is repeated now, because something suppresses them.
    ///
    /// Answers the same message again until its `notification.sent` or `.failed` is folded: the caller remembers,
    /// by key, what it has under way.
    #[must_use]
    pub fn due(&self, now: DateTime<Utc>, quiet: &dyn Fn(&ServiceId) -> bool) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (id, alert) in &self.alerts {
            for channel in self.channels(&alert.policy) {
                let told = alert.told.get(channel).copied().unwrap_or_default();
                let mut push = |transition, repeat, at, reason: &str| {
                    notices.push(alert.notice(id, channel, transition, repeat, at, reason));
                };
                if !told.raised {
                    push(Transition::Raised, 0, alert.raised_at, &alert.reason);
                } else if let Some(at) = alert.resolved_at {
                    if !told.resolved {
                        push(Transition::Resolved, 0, at, &alert.reason);
                    }
                } else {
                    if let Some((at, reason)) = self.escalated.get(&alert.incident).filter(|_| !told.escalated) {
                        push(Transition::Escalated, 0, *at, reason);
                    }
                    if let Some((number, at)) = self.repeat_at(alert, now)
                        && told
                            .repeated_at
                            .and_then(|at| self.repeat_at(alert, at))
                            .is_none_or(|(last, _)| last < number)
                        && !quiet(&alert.service)
                    {
                        push(Transition::Repeated, number, at, &alert.reason);
                    }
                }
            }
        }
        notices.sort_by(|a, b| (a.at, &a.dedup_key).cmp(&(b.at, &b.dedup_key)));
        notices
    }

    /// When the next repeat falls due; anything else is due as soon as it is folded. For one who has just asked
    /// [`Notifier::due`] at `now`.
    #[must_use]
    pub fn next_deadline(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = |alert: &Alert| {
            let every = self.repeat_every(alert)?;
            let passed = self.repeat_at(alert, now).map_or(0, |(number, _)| number);
            alert.raised_at.checked_add_signed(every * i32::try_from(passed + 1).ok()?)
        };
        self.alerts.values().filter_map(next).min()
    }

    /// The newest repeat at or before `now`: number and time, on a grid that starts when the alert was raised.
    /// Repeats that were missed are not made up for.
    fn repeat_at(&self, alert: &Alert, now: DateTime<Utc>) -> Option<(u32, DateTime<Utc>)> {
        let every = self.repeat_every(alert)?;
        let number = (now - alert.raised_at).num_milliseconds() / every.num_milliseconds();
        let number = i32::try_from(number).ok().filter(|n| *n > 0)?;
        Some((number.unsigned_abs(), alert.raised_at.checked_add_signed(every * number)?))
    }

    /// How often an alert is repeated now; `None` if it isn't.
    fn repeat_every(&self, alert: &Alert) -> Option<TimeDelta> {
        if alert.resolved_at.is_some() || self.acknowledged.contains(&alert.incident) {
            return None;
        }
        let repeat: Duration = self.plan.policies().get(&alert.policy)?.repeat?;
        TimeDelta::from_std(repeat).ok().filter(|every| every.num_milliseconds() > 0)
    }

    fn channels(&self, policy: &PolicyId) -> &[ChannelId] {
        self.plan.policies().get(policy).map_or(&[], |policy| &policy.notify)
    }
}

impl Alert {
    fn notice(
        &self,
        id: &AlertId,
        channel: &ChannelId,
        transition: Transition,
        repeat: u32,
        at: DateTime<Utc>,
        reason: &str,
    ) -> Notice {
        let service = &self.service;
        let title = match transition {
            Transition::Raised => format!("{service} has failed"),
            Transition::Repeated => format!("{service} is still failing"),
            Transition::Resolved => format!("{service} has recovered"),
            Transition::Escalated => format!("{service} needs somebody: its recovery gave up"),
        };
        Notice {
            dedup_key: dedup_key(id, transition, repeat, channel),
            alert: id.clone(),
            incident: self.incident.clone(),
            channel: channel.clone(),
            transition,
            repeat,
            service: service.clone(),
            policy: self.policy.clone(),
            severity: self.severity,
            title,
            reason: reason.to_owned(),
            first_failure_at: self.first_failure_at,
            at,
            plan: self.plan.clone(),
        }
    }
}

/// A map that forgets its oldest entries beyond [`REMEMBERED`].
#[derive(Debug)]
struct Recent<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Recent<K, V> {
    fn contains(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
    }
}
