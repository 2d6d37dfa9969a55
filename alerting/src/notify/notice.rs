//! One message to one channel, and the key that every attempt at it carries.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{NotificationFailed, NotificationPlanned, NotificationSent, Severity, Told, Transition};
use rebound_schemas::{
    AlertId, ChannelId, Event, EventData, EventId, IncidentId, PlanVersion, PolicyId, ServiceId, Source,
};
use sha2::{Digest, Sha256};

use super::{Alert, Notifier};
use crate::SOURCE;

/// Members named in a group's title; the others are counted.
const NAMED: usize = 3;

/// One message to one channel about one or more transitions. What stands directly in it is its first member's,
/// except for title, reason and severity, which speak of all.
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
    /// Which repeat or step of the escalation, from 1; 0 for what happens once.
    pub repeat: u32,
    /// The service.
    pub service: ServiceId,
    /// The policy that fired.
    pub policy: PolicyId,
    /// How loudly: the loudest member's.
    pub severity: Severity,
    /// One line: what happened to which service.
    pub title: String,
    /// What was seen or why it was escalated, in words.
    pub reason: String,
    /// t0: the first failed probe.
    pub first_failure_at: DateTime<Utc>,
    /// When the transition happened; for a repeat or a step, when it was planned.
    pub at: DateTime<Utc>,
    /// The plan that the alert was decided under.
    pub plan: Option<PlanVersion>,
    /// How often it was retried by hand.
    pub round: u32,
    /// Alerts that had resolved before this retry: a receiver that keeps alerts must not open them again.
    pub over: BTreeSet<AlertId>,
    /// Everything that it tells, in order, when that is more than one transition.
    pub members: Vec<Member>,
}

/// One transition that a group's message tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its alert and what became of it.
    pub told: Told,
    /// The service.
    pub service: ServiceId,
    /// The policy that fired.
    pub policy: PolicyId,
    /// How loudly.
    pub severity: Severity,
    /// One line: what happened.
    pub title: String,
    /// What was seen.
    pub reason: String,
    /// t0.
    pub first_failure_at: DateTime<Utc>,
    /// When the transition happened.
    pub at: DateTime<Utc>,
}

impl Notice {
    /// The transitions that it tells.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        match self.members.as_slice() {
            [] => {
                let (alert, incident) = (self.alert.clone(), self.incident.clone());
                vec![Told { alert, incident, transition: self.transition, repeat: self.repeat }]
            }
            members => members.iter().map(|member| member.told.clone()).collect(),
        }
    }

    /// What a receiver that keeps an alert of its own is told: [`Self::singly`], without what would open an alert
    /// again that is over. All of a late retry may be that; then the receiver's alerts are as they should be.
    #[must_use]
    pub fn current(&self) -> Vec<Self> {
        let mut all = self.singly();
        all.retain(|one| one.transition == Transition::Resolved || !self.over.contains(&one.alert));
        all
    }

    /// A notice a transition. They share this one's key.
    #[must_use]
    pub fn singly(&self) -> Vec<Self> {
        if self.members.is_empty() {
            return vec![self.clone()];
        }
        let single = |member: &Member| Self {
            alert: member.told.alert.clone(),
            incident: member.told.incident.clone(),
            transition: member.told.transition,
            repeat: member.told.repeat,
            service: member.service.clone(),
            policy: member.policy.clone(),
            severity: member.severity,
            title: member.title.clone(),
            reason: member.reason.clone(),
            first_failure_at: member.first_failure_at,
            at: member.at,
            members: Vec::new(),
            ..self.clone()
        };
        self.members.iter().map(single).collect()
    }

    /// A notice that is clearly a test: `id` tells it from other tests, `transition` is raised, or resolved to end it.
    #[must_use]
    pub fn test(channel: &ChannelId, id: &str, transition: Transition, now: DateTime<Utc>) -> Self {
        let name = format!("rebound-test-{id}");
        let alert = AlertId::new(&name).unwrap_or_else(|_| AlertId::new("rebound-test").expect("a literal id"));
        let incident =
            IncidentId::new(&name).unwrap_or_else(|_| IncidentId::new("rebound-test").expect("a literal id"));
        let what = if transition == Transition::Resolved { "the test is over" } else { "nothing has failed" };
        Self {
            dedup_key: dedup_key(&alert, transition, 0, channel),
            alert,
            incident,
            channel: channel.clone(),
            transition,
            repeat: 0,
            service: ServiceId::new("rebound-test").expect("a literal id"),
            policy: PolicyId::new("rebound-test").expect("a literal id"),
            severity: Severity::Info,
            title: format!("TEST from Rebound: {what}"),
            reason: format!(
                "Somebody tried the channel {channel} with `rebound channels test`. There is nothing to do."
            ),
            first_failure_at: now,
            at: now,
            plan: None,
            round: 0,
            over: BTreeSet::new(),
            members: Vec::new(),
        }
    }

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
            members: self.members.iter().map(|member| member.told.clone()).collect(),
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
            round: self.round,
            members: self.members.iter().map(|member| member.told.clone()).collect(),
        };
        match self.round {
            0 => self.event("failed", data.into(), now),
            round => self.event(&format!("failed:{round}"), data.into(), now),
        }
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

impl Notifier {
    /// The notice of a planned message. An alert that is not known any more (the plan's alerts were folded only in
    /// part) is told by what its event says.
    pub(super) fn notice(&self, event: &Event, data: &NotificationPlanned) -> Notice {
        let members: Vec<Member> = data.members.iter().map(|told| self.member(event, told)).collect();
        let Some(first) = members.first().cloned() else {
            // No such event is ever written; one from elsewhere tells nothing and is settled by that.
            let told = Told {
                alert: AlertId::new("none").expect("a literal id"),
                incident: IncidentId::new("none").expect("a literal id"),
                transition: Transition::Raised,
                repeat: 0,
            };
            return self.single(event, data, self.member(event, &told));
        };
        if members.len() == 1 {
            return self.single(event, data, first);
        }
        let named: Vec<&str> = members.iter().take(NAMED).map(|member| member.title.as_str()).collect();
        let more = match members.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let title = format!("{} changes: {}{more}", members.len(), named.join(", "));
        let reasons: Vec<String> =
            members.iter().map(|member| format!("{}: {}", member.title, member.reason)).collect();
        // `Severity` is declared from loud to quiet.
        let severity = members.iter().map(|member| member.severity).min().unwrap_or(first.severity);
        Notice { title, reason: reasons.join("\n"), severity, members, ..self.single(event, data, first) }
    }

    fn single(&self, event: &Event, data: &NotificationPlanned, member: Member) -> Notice {
        Notice {
            dedup_key: data.dedup_key.clone(),
            alert: member.told.alert,
            incident: member.told.incident,
            channel: data.channel.clone(),
            transition: member.told.transition,
            repeat: member.told.repeat,
            service: event.subject.clone(),
            policy: member.policy,
            severity: member.severity,
            title: member.title,
            reason: member.reason,
            first_failure_at: member.first_failure_at,
            at: member.at,
            plan: event.plan.clone(),
            round: 0,
            over: BTreeSet::new(),
            members: Vec::new(),
        }
    }

    fn member(&self, event: &Event, told: &Told) -> Member {
        let alert = self.alerts.get(&told.alert);
        let service = alert.map_or(&event.subject, |alert| &alert.service).clone();
        let at = match told.transition {
            Transition::Raised => alert.map(|alert| alert.raised_at),
            Transition::Resolved => alert.and_then(|alert| alert.resolved_at),
            Transition::Escalated => self.escalated.get(&told.incident).map(|(at, _)| *at),
            Transition::Acknowledged => self.acknowledged.get(&told.incident).map(|(at, _)| *at),
            Transition::Repeated | Transition::Unacknowledged => None,
        };
        let own = || alert.map(|alert| alert.reason.clone()).unwrap_or_default();
        let reason = match told.transition {
            Transition::Escalated => self.escalated.get(&told.incident).map_or_else(own, |(_, reason)| reason.clone()),
            Transition::Acknowledged => {
                self.acknowledged.get(&told.incident).map_or_else(own, |(_, by)| format!("{by} acknowledged it"))
            }
            _ => own(),
        };
        Member {
            title: title(&service, told),
            reason,
            told: told.clone(),
            policy: alert.map_or_else(|| PolicyId::new("default").expect("a literal id"), |alert| alert.policy.clone()),
            severity: alert.map_or(Severity::Critical, |alert| alert.severity),
            first_failure_at: alert.map_or(event.occurred_at, |alert: &Alert| alert.first_failure_at),
            at: at.unwrap_or(event.occurred_at),
            service,
        }
    }
}

fn title(service: &ServiceId, told: &Told) -> String {
    match told.transition {
        Transition::Raised => format!("{service} has failed"),
        Transition::Repeated => format!("{service} is still failing"),
        Transition::Resolved => format!("{service} has recovered"),
        Transition::Escalated => format!("{service} needs somebody: its recovery gave up"),
        Transition::Acknowledged => format!("{service} is being looked at"),
        Transition::Unacknowledged => format!("{service} has failed, and nobody has taken it yet"),
    }
}

/// The key of a message about one transition: a digest of alert, transition, repeat number and channel.
#[must_use]
pub fn dedup_key(alert: &AlertId, transition: Transition, repeat: u32, channel: &ChannelId) -> String {
    digest([alert.as_str(), transition.as_str(), &repeat.to_string(), channel.as_str()])
}

/// The key of a message: for several transitions, a digest of their own keys in sorted order.
#[must_use]
pub fn digest_key(members: &[Told], channel: &ChannelId) -> String {
    let mut keys: Vec<String> =
        members.iter().map(|told| dedup_key(&told.alert, told.transition, told.repeat, channel)).collect();
    match keys.as_slice() {
        [only] => only.clone(),
        _ => {
            keys.sort();
            digest(keys.iter().map(String::as_str))
        }
    }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("ntf-{}", data_encoding::BASE32_NOPAD.encode(&hash.finalize()[..10]).to_lowercase())
}
