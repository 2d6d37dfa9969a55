//! Who is to be told what, as a pure fold: alert events in, planned messages and due [`Notice`]s out.
//!
//! A message is first *planned*: [`Notifier::plan`] answers `notification.planned` events, which fix what it tells
//! and under which key. Only when that is durable is it sent, and [`Notifier::due`] answers it until its
//! `notification.sent` or `.failed` is folded. So whatever happens in between (a crash, a lost acknowledgement, a
//! rebalance), the same message goes out again under the same key, and a receiver that drops repeats by the key sees
//! each transition once: no transition is ever planned twice for a channel, and no two messages have the same key.
//! Delivery (attempts, back-off, time-outs) is the channels' affair. How many messages a channel takes is folded from
//! what was planned: what is too much for it waits, and is told in one message.

mod notice;
mod plan;
mod rate;
mod recent;
mod standing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_histories;
#[cfg(test)]
mod tests_rates;
#[cfg(test)]
mod tests_wording;
pub(crate) mod wording;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{NotificationFailed, NotificationPlanned, Severity, Told, Transition};
use rebound_schemas::plan::{EscalationStep, GroupBy, Grouping, Plan, Rate};
use rebound_schemas::{AlertId, ChannelId, Event, EventData, IncidentId, PlanVersion, PolicyId, ServiceId};

pub use notice::{Member, Notice, dedup_key, digest_key};
pub use plan::Planned;
use rate::Bucket;
use recent::Recent;
use standing::Standings;

/// Alerts that are over and told, and remembered.
const SETTLED: usize = 20_000;
/// Undeliverable messages that are kept for a retry by hand.
const FAILED: usize = 10_000;

/// An alert that somebody is or was told of.
#[derive(Debug)]
struct Alert {
    incident: IncidentId,
    service: ServiceId,
    policy: PolicyId,
    condition: Option<String>,
    severity: Severity,
    reason: String,
    first_failure_at: DateTime<Utc>,
    raised_at: DateTime<Utc>,
    plan: Option<PlanVersion>,
    resolved_at: Option<DateTime<Utc>>,
    recovered_at: Option<DateTime<Utc>>,
    ways: Vec<Way>,
    told: BTreeMap<ChannelId, Progress>,
}

/// How an alert gets to some channels: a route, or its policy.
#[derive(Debug)]
struct Way {
    /// The route's place in the plan.
    route: Option<String>,
    channels: Vec<ChannelId>,
    /// The group's name, and its times.
    group: Option<(String, Grouping)>,
    repeat: Option<Duration>,
    escalation: Vec<EscalationStep>,
}

/// What one channel has been told of one alert: what was planned, whether or not it has arrived.
#[derive(Debug, Default, Clone)]
struct Progress {
    /// Raised, or a step of the escalation: from then on it is told how it goes on.
    opened: bool,
    raised: bool,
    resolved: bool,
    escalated: bool,
    demoted: bool,
    acknowledged: bool,
    steps: BTreeSet<u32>,
    /// The newest repeat.
    repeat: u32,
    /// Messages that are planned and not yet settled.
    under_way: BTreeSet<String>,
}

/// A message that is planned and not settled.
#[derive(Debug)]
struct Message {
    planned: Event,
    data: NotificationPlanned,
    /// A retry's, kept since its alerts may be gone.
    retried: Option<Notice>,
}

/// Folds what was decided and what was told; plans messages, and answers what is due.
///
/// | alert | its raise on the channel | planned there |
/// |---|---|---|
/// | suppressed only | – | nothing |
/// | raised, open or resolved | no | raised |
/// | raised, open | settled | escalated, demoted and acknowledged, once they were; the newest repeat, unless acknowledged or quiet |
/// | raised, open, not acknowledged, not quiet | – | unacknowledged, on a step's channels at its time |
/// | raised, resolved | settled | resolved |
///
/// *Settled* is sent or given up. Messages about one alert to one channel go one after the other, so a raise comes
/// before its resolve also when the channel is slow; a resolve is told even if telling the raise failed, since a
/// receiver may have taken what it did not acknowledge. A group tells a raise and its resolve in one message when
/// both happened before it spoke.
#[derive(Debug)]
pub struct Notifier {
    plan: Arc<Plan>,
    alerts: HashMap<AlertId, Alert>,
    messages: BTreeMap<String, Message>,
    /// Given up, and how often each was retried by hand.
    failed: Recent<String, (u32, Notice)>,
    /// When each group last spoke on a channel.
    spoke: Recent<(String, ChannelId), DateTime<Utc>>,
    /// Of the channels that take so many messages and no more.
    buckets: BTreeMap<ChannelId, Bucket>,
    /// By incident and not in `alerts`, because escalations come by another topic: either may be folded first.
    escalated: Recent<IncidentId, (DateTime<Utc>, String)>,
    /// By the incident of the attempt at which the procedure was demoted.
    demoted: Recent<IncidentId, (DateTime<Utc>, String)>,
    acknowledged: Recent<IncidentId, (DateTime<Utc>, String)>,
    standings: Standings,
    /// Transitions that were planned, of alerts not folded yet: a group's alerts come by several partitions.
    early: Recent<AlertId, Vec<(ChannelId, String, Told)>>,
    /// Alerts that are over and told: brought back if a message of another partition turns out to have told a channel
    /// that does not know the end of it yet.
    settled: Recent<AlertId, Alert>,
    settled_messages: Recent<String, ()>,
}

impl Notifier {
    /// Nothing folded yet. Channels, groups and repeats come from the routes and policies of `plan`.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            alerts: HashMap::new(),
            messages: BTreeMap::new(),
            failed: Recent::of(FAILED),
            spoke: Recent::default(),
            buckets: BTreeMap::new(),
            escalated: Recent::default(),
            demoted: Recent::default(),
            acknowledged: Recent::default(),
            standings: Standings::default(),
            early: Recent::default(),
            settled: Recent::of(SETTLED),
            settled_messages: Recent::default(),
        }
    }

    /// Folds one event, of history or live; folding it again changes nothing. Kinds that don't matter are ignored.
    pub fn fold(&mut self, event: &Event) {
        self.standings.fold(event);
        match &event.data {
            EventData::AlertRaised(data) => {
                if self.settled.contains(&data.alert) || self.alerts.contains_key(&data.alert) {
                    return;
                }
                let alert = Alert {
                    incident: data.incident.clone(),
                    service: event.subject.clone(),
                    policy: data.policy.clone(),
                    condition: data.condition.clone(),
                    severity: data.severity,
                    reason: data.reason.clone(),
                    first_failure_at: data.first_failure_at,
                    raised_at: event.occurred_at,
                    plan: event.plan.clone(),
                    resolved_at: None,
                    recovered_at: None,
                    ways: ways(&self.plan, &event.subject, &data.policy, data.severity),
                    told: BTreeMap::new(),
                };
                self.alerts.insert(data.alert.clone(), alert);
                for (channel, key, told) in self.early.remove(&data.alert).unwrap_or_default() {
                    self.mark(&channel, &key, &told);
                }
            }
            EventData::AlertResolved(data) => {
                if let Some(alert) = self.alerts.get_mut(&data.alert) {
                    alert.resolved_at = Some(alert.resolved_at.unwrap_or(event.occurred_at));
                    alert.recovered_at = Some(alert.recovered_at.unwrap_or(data.recovered_at));
                    self.settle(&data.alert);
                }
            }
            EventData::IncidentAcknowledged(data) if !self.acknowledged.contains(&data.incident) => {
                self.acknowledged.insert(data.incident.clone(), (event.occurred_at, data.by.clone()));
            }
            EventData::RecoveryEscalated(data) if !self.escalated.contains(&data.incident) => {
                self.escalated.insert(data.incident.clone(), (event.occurred_at, data.reason.clone()));
            }
            EventData::ProcedureDemoted(data) => {
                // One that a person asked for while nothing was wrong has no incident of which anybody was told.
                let incident = self.standings.incident_of(&data.newest);
                if let Some(incident) = incident.filter(|incident| !self.demoted.contains(incident)).cloned() {
                    self.demoted.insert(incident, (event.occurred_at, wording::demotion(data)));
                }
            }
            EventData::NotificationPlanned(data) => self.planned(event, data),
            EventData::NotificationSent(data) => {
                self.failed.remove(&data.dedup_key);
                self.close(&data.dedup_key);
            }
            EventData::NotificationFailed(data) => self.gave_up(data),
            EventData::NotificationRetried(data) => {
                let asked = self.failed.get(&data.dedup_key).filter(|(round, _)| *round == data.round);
                if let Some((round, notice)) = asked.cloned() {
                    self.failed.remove(&data.dedup_key);
                    let open =
                        |alert: &AlertId| self.alerts.get(alert).is_some_and(|alert| alert.resolved_at.is_none());
                    let over = notice.told().into_iter().map(|told| told.alert).filter(|alert| !open(alert)).collect();
                    let notice = Notice { round: round + 1, over, ..notice };
                    let (dedup_key, channel) = (data.dedup_key.clone(), notice.channel.clone());
                    let route = notice.route.clone();
                    let (group, recoveries, members) = (None, Vec::new(), notice.told());
                    let planned = NotificationPlanned { dedup_key, channel, group, route, recoveries, members };
                    // It is not counted as under way: what came after it need not wait for it a second time.
                    let message = Message { planned: event.clone(), data: planned, retried: Some(notice) };
                    self.messages.insert(data.dedup_key.clone(), message);
                }
            }
            _ => {}
        }
    }

    fn planned(&mut self, event: &Event, data: &NotificationPlanned) {
        if self.settled_messages.contains(&data.dedup_key) || self.messages.contains_key(&data.dedup_key) {
            return;
        }
        if let Some(group) = &data.group {
            let key = (group.clone(), data.channel.clone());
            let at = self.spoke.get(&key).copied().max(Some(event.occurred_at)).unwrap_or(event.occurred_at);
            self.spoke.insert(key, at);
        }
        if let Some(rate) = self.rate(&data.channel) {
            self.buckets.entry(data.channel.clone()).or_default().take(event.occurred_at, rate);
        }
        let message = Message { planned: event.clone(), data: data.clone(), retried: None };
        self.messages.insert(data.dedup_key.clone(), message);
        for told in &data.members {
            self.mark(&data.channel, &data.dedup_key, told);
        }
    }

    /// A transition is planned: it is never planned again.
    fn mark(&mut self, channel: &ChannelId, key: &str, told: &Told) {
        if let Some(alert) = self.settled.remove(&told.alert) {
            self.alerts.insert(told.alert.clone(), alert);
        }
        if let Some(alert) = self.alerts.get_mut(&told.alert) {
            let progress = alert.told.entry(channel.clone()).or_default();
            progress.mark(told);
            if self.messages.contains_key(key) {
                progress.under_way.insert(key.to_owned());
            }
        } else {
            let mut early = self.early.get(&told.alert).cloned().unwrap_or_default();
            early.push((channel.clone(), key.to_owned(), told.clone()));
            self.early.insert(told.alert.clone(), early);
        }
    }

    fn gave_up(&mut self, data: &NotificationFailed) {
        let known = self.failed.get(&data.dedup_key).is_some_and(|(round, _)| *round >= data.round);
        let Some(message) = self.messages.get(&data.dedup_key) else { return };
        // A redelivered failure of an earlier round says nothing about the retry under way.
        let notice = self.notice_of(message);
        if known || notice.round != data.round {
            return;
        }
        let entry = (data.round, notice);
        self.failed.insert(data.dedup_key.clone(), entry);
        self.close(&data.dedup_key);
    }

    /// A message is settled.
    fn close(&mut self, key: &str) {
        let Some(message) = self.messages.remove(key) else { return };
        for id in message.data.members.iter().map(|told| &told.alert) {
            let progress = self.alerts.get_mut(id).and_then(|alert| alert.told.get_mut(&message.data.channel));
            if progress.is_some_and(|progress| progress.under_way.remove(key)) {
                self.settle(id);
            }
        }
        self.settled_messages.insert(key.to_owned(), ());
    }

    /// Lets go of an alert whose resolve every channel has been told.
    fn settle(&mut self, id: &AlertId) {
        let Some(alert) = self.alerts.get(id) else { return };
        let done = |channel: &ChannelId| alert.told.get(channel).is_some_and(|told| told.raised && told.resolved);
        let opened = alert.told.values().all(|told| (!told.opened || told.resolved) && told.under_way.is_empty());
        if alert.resolved_at.is_some()
            && opened
            && alert.ways.iter().flat_map(|way| &way.channels).all(done)
            && let Some(alert) = self.alerts.remove(id)
        {
            self.settled.insert(id.clone(), alert);
        }
    }

    /// Every planned message that is not yet settled, in a fixed order. Answers the same message again until its
    /// `notification.sent` or `.failed` is folded: the caller remembers, by key, what it has under way.
    #[must_use]
    pub fn due(&self) -> Vec<Notice> {
        let mut notices: Vec<Notice> = self.messages.values().map(|message| self.notice_of(message)).collect();
        notices.sort_by(|a, b| (a.first().at, &a.dedup_key).cmp(&(b.first().at, &b.dedup_key)));
        notices
    }

    fn rate(&self, channel: &ChannelId) -> Option<Rate> {
        self.plan.channels().get(channel)?.rate
    }

    fn notice_of(&self, message: &Message) -> Notice {
        message.retried.clone().unwrap_or_else(|| self.notice(&message.planned, &message.data))
    }
}

impl Progress {
    fn mark(&mut self, told: &Told) {
        match told.transition {
            Transition::Raised => self.raised = true,
            Transition::Resolved => self.resolved = true,
            Transition::Escalated => self.escalated = true,
            Transition::Demoted => self.demoted = true,
            Transition::Acknowledged => self.acknowledged = true,
            Transition::Unacknowledged => drop(self.steps.insert(told.repeat)),
            Transition::Repeated => self.repeat = self.repeat.max(told.repeat),
        }
        self.opened |= matches!(told.transition, Transition::Raised | Transition::Unacknowledged);
    }
}

/// The ways of an alert: its routes, else its policy. Each channel belongs to the first way that names it.
fn ways(plan: &Plan, service: &ServiceId, policy: &PolicyId, severity: Severity) -> Vec<Way> {
    let own = plan.policies().get(policy);
    let repeat = own.and_then(|policy| policy.repeat);
    let routes = plan.routes_of(service, policy, severity);
    if routes.is_empty() {
        let channels = own.map(|policy| policy.notify.clone()).unwrap_or_default();
        return vec![Way { route: None, channels, group: None, repeat, escalation: Vec::new() }];
    }
    let mut seen = BTreeSet::new();
    let way = |route: &rebound_schemas::plan::Route| {
        let about = plan.services().get(service);
        let label = |by: &GroupBy| match by {
            GroupBy::Severity => severity.to_string(),
            GroupBy::Tier => about.map(|service| service.tier.to_string()).unwrap_or_default(),
            GroupBy::Service => service.to_string(),
            GroupBy::Site => about.map(|service| service.site.to_string()).unwrap_or_default(),
            GroupBy::Policy => policy.to_string(),
        };
        let group = route.grouping.as_ref().map(|grouping| {
            let labels: Vec<String> = grouping.by.iter().map(label).collect();
            (format!("{}/{}", route.path, labels.join("/")), grouping.clone())
        });
        let channels = route.channels.iter().filter(|channel| seen.insert((*channel).clone())).cloned().collect();
        let (path, repeat) = (Some(route.path.clone()), route.repeat.or(repeat));
        Way { route: path, channels, group, repeat, escalation: route.escalation.clone() }
    };
    routes.into_iter().map(way).collect()
}
