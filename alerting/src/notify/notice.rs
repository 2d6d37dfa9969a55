//! One message to one channel, and the key that every attempt at it carries.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{NotificationFailed, NotificationPlanned, NotificationSent, Severity, Told, Transition};
use rebound_schemas::plan::{Change, Variables};
use rebound_schemas::{
    AlertId, ChannelId, Event, EventData, EventId, IncidentId, PlanVersion, PolicyId, ServiceId, Source,
};
use sha2::{Digest, Sha256};

use super::wording::moment;
use super::{Alert, Notifier};
use crate::SOURCE;

/// One message to one channel about one or more transitions. Its words are [`super::wording`]'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The same for every attempt at this message, on every instance, for ever: receivers drop repeats by it.
    pub dedup_key: String,
    /// Where it goes.
    pub channel: ChannelId,
    /// The route that leads there, by its place in the plan; none: the policy.
    pub route: Option<String>,
    /// The plan that the first alert was decided under.
    pub plan: Option<PlanVersion>,
    /// How often it was retried by hand.
    pub round: u32,
    /// Alerts that had resolved before this retry: a receiver that keeps alerts must not open them again.
    pub over: BTreeSet<AlertId>,
    /// Everything that it tells, in order; never empty.
    pub members: Vec<Member>,
}

/// One transition that a message tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its alert and what became of it.
    pub told: Told,
    /// The service.
    pub service: ServiceId,
    /// What it is called.
    pub name: String,
    /// Its tier; empty when the plan does not know the service.
    pub tier: String,
    /// Its site; empty when the plan does not know the service.
    pub site: String,
    /// The policy that fired.
    pub policy: PolicyId,
    /// The policy's condition that warns; none for an outage.
    pub condition: Option<String>,
    /// How loudly.
    pub severity: Severity,
    /// One line: what happened.
    pub title: String,
    /// What was seen, or why it was escalated or demoted.
    pub reason: String,
    /// Who took it, of what was taken.
    pub by: Option<String>,
    /// What Rebound does about it.
    pub doing: String,
    /// What a person is to do; empty when there is nothing.
    pub ask: String,
    /// t0: the first failed probe.
    pub first_failure_at: DateTime<Utc>,
    /// t3: the first success, of what is over.
    pub recovered_at: Option<DateTime<Utc>>,
    /// When the transition happened; for a repeat or a step, when it was planned.
    pub at: DateTime<Utc>,
}

impl Member {
    /// The key of this transition alone, which it has on this channel whatever message tells it. Group messages of
    /// two instances that change places may both tell a transition; a receiver that drops repeats by this key sees
    /// it once all the same.
    #[must_use]
    pub fn key(&self, channel: &ChannelId) -> String {
        dedup_key(&self.told.alert, self.told.transition, self.told.repeat, channel)
    }
}

impl Notice {
    /// Its first change: of most messages the only one.
    ///
    /// # Panics
    /// Never: a notice has a member.
    #[must_use]
    pub fn first(&self) -> &Member {
        self.members.first().expect("a notice tells something")
    }

    /// Whether it is good news only.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.members.iter().all(|member| member.told.transition == Transition::Resolved)
    }

    /// The transitions that it tells.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.members.iter().map(|member| member.told.clone()).collect()
    }

    /// What a receiver that keeps an alert of its own is told: a notice a transition, all under this one's key, without
    /// what would open an alert again that is over. All of a late retry may be that; then the receiver's alerts are as
    /// they should be.
    #[must_use]
    pub fn current(&self) -> Vec<Self> {
        // Without the members, of which a group may have hundreds.
        let Self { dedup_key, channel, route, plan, round, over, members } = self;
        let single = |member: &Member| Self {
            dedup_key: dedup_key.clone(),
            channel: channel.clone(),
            route: route.clone(),
            plan: plan.clone(),
            round: *round,
            over: over.clone(),
            members: vec![member.clone()],
        };
        let tells =
            |member: &&Member| member.told.transition == Transition::Resolved || !over.contains(&member.told.alert);
        members.iter().filter(tells).map(single).collect()
    }

    /// What a template sees of it.
    #[must_use]
    pub fn variables(&self) -> Variables {
        let change = |member: &Member| Change {
            title: member.title.clone(),
            transition: member.told.transition,
            severity: member.severity,
            service: member.service.to_string(),
            name: member.name.clone(),
            tier: member.tier.clone(),
            site: member.site.clone(),
            policy: member.policy.to_string(),
            condition: member.condition.clone().unwrap_or_default(),
            reason: member.reason.clone(),
            since: moment(member.first_failure_at),
            at: moment(member.at),
            lasted: member.lasted(),
            doing: member.doing.clone(),
            ask: member.ask.clone(),
            incident: member.told.incident.to_string(),
            alert: member.told.alert.to_string(),
            dedup_key: member.key(&self.channel),
        };
        Variables {
            title: self.title(),
            body: self.body(),
            severity: self.severity(),
            channel: self.channel.to_string(),
            dedup_key: self.dedup_key.clone(),
            changes: self.members.iter().map(change).collect(),
        }
    }

    /// A notice that is clearly a test: `id` tells it from other tests, `transition` is raised, or resolved to end it.
    #[must_use]
    pub fn test(channel: &ChannelId, id: &str, transition: Transition, now: DateTime<Utc>) -> Self {
        let name = format!("rebound-test-{id}");
        let alert = AlertId::new(&name).unwrap_or_else(|_| AlertId::new("rebound-test").expect("a literal id"));
        let incident =
            IncidentId::new(&name).unwrap_or_else(|_| IncidentId::new("rebound-test").expect("a literal id"));
        let what = if transition == Transition::Resolved { "the test is over" } else { "nothing has failed" };
        let name = "rebound-test";
        let member = Member {
            told: Told { alert, incident, transition, repeat: 0 },
            service: ServiceId::new(name).expect("a literal id"),
            name: name.to_owned(),
            tier: String::new(),
            site: String::new(),
            policy: PolicyId::new(name).expect("a literal id"),
            condition: None,
            severity: Severity::Info,
            title: format!("TEST from Rebound: {what}"),
            reason: format!("somebody tried the channel {channel} with `rebound channels test`"),
            by: None,
            doing: "Nothing: this is a test.".to_owned(),
            ask: "Nothing: this is a test.".to_owned(),
            first_failure_at: now,
            recovered_at: (transition == Transition::Resolved).then_some(now),
            at: now,
        };
        Self {
            dedup_key: member.key(channel),
            channel: channel.clone(),
            route: None,
            plan: None,
            round: 0,
            over: BTreeSet::new(),
            members: vec![member],
        }
    }

    /// The event that says the channel took it, at attempt number `attempt` (from 1).
    #[must_use]
    pub fn sent(&self, attempt: u32, now: DateTime<Utc>) -> Event {
        let first = self.first().told.clone();
        let data = NotificationSent {
            dedup_key: self.dedup_key.clone(),
            alert: first.alert,
            incident: first.incident,
            channel: self.channel.clone(),
            transition: first.transition,
            attempt,
            members: self.several(),
        };
        self.event("sent", data.into(), now)
    }

    /// The event that says it could not be delivered in `attempts` attempts; `error` must hold no secrets.
    #[must_use]
    pub fn failed(&self, attempts: u32, error: String, now: DateTime<Utc>) -> Event {
        let first = self.first().told.clone();
        let data = NotificationFailed {
            dedup_key: self.dedup_key.clone(),
            alert: first.alert,
            incident: first.incident,
            channel: self.channel.clone(),
            transition: first.transition,
            attempts,
            error,
            round: self.round,
            members: self.several(),
        };
        match self.round {
            0 => self.event("failed", data.into(), now),
            round => self.event(&format!("failed:{round}"), data.into(), now),
        }
    }

    /// What it tells, when that is more than one transition.
    fn several(&self) -> Vec<Told> {
        if self.members.len() > 1 { self.told() } else { Vec::new() }
    }

    fn event(&self, what: &str, data: EventData, now: DateTime<Utc>) -> Event {
        Event {
            id: EventId::derive(&self.dedup_key, what),
            source: Source::new(SOURCE).expect("the source's name follows the rule for sources"),
            subject: self.first().service.clone(),
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
        let mut members: Vec<Member> = data.members.iter().map(|told| self.member(event, data, told)).collect();
        if members.is_empty() {
            // No such event is ever written; one from elsewhere tells nothing and is settled by that.
            let told = Told {
                alert: AlertId::new("none").expect("a literal id"),
                incident: IncidentId::new("none").expect("a literal id"),
                transition: Transition::Raised,
                repeat: 0,
            };
            members.push(self.member(event, data, &told));
        }
        Notice {
            dedup_key: data.dedup_key.clone(),
            channel: data.channel.clone(),
            route: data.route.clone(),
            plan: event.plan.clone(),
            round: 0,
            over: BTreeSet::new(),
            members,
        }
    }

    fn member(&self, event: &Event, data: &NotificationPlanned, told: &Told) -> Member {
        let alert = self.alerts.get(&told.alert);
        let service = alert.map_or(&event.subject, |alert| &alert.service).clone();
        let (escalated, acknowledged) = (self.escalated.get(&told.incident), self.acknowledged.get(&told.incident));
        let demoted = self.demoted.get(&told.incident);
        let at = match told.transition {
            Transition::Raised => alert.map(|alert| alert.raised_at),
            Transition::Resolved => alert.and_then(|alert| alert.resolved_at),
            Transition::Escalated => escalated.map(|(at, _)| *at),
            Transition::Demoted => demoted.map(|(at, _)| *at),
            Transition::Acknowledged => acknowledged.map(|(at, _)| *at),
            Transition::Repeated | Transition::Unacknowledged => None,
        };
        let seen = alert.map(|alert| alert.reason.clone()).unwrap_or_default();
        let why = match told.transition {
            Transition::Escalated => escalated,
            Transition::Demoted => demoted,
            _ => None,
        };
        let reason = match why {
            Some((_, reason)) if seen.is_empty() => reason.clone(),
            Some((_, reason)) => format!("{reason}; it had failed by: {seen}"),
            None => seen,
        };
        let about = self.plan.services().get(&service);
        let mut member = Member {
            name: about.map_or_else(|| service.to_string(), |about| about.name.clone()),
            tier: about.map(|about| about.tier.to_string()).unwrap_or_default(),
            site: about.map(|about| about.site.to_string()).unwrap_or_default(),
            title: String::new(),
            reason,
            by: acknowledged.filter(|_| told.transition == Transition::Acknowledged).map(|(_, by)| by.clone()),
            doing: String::new(),
            ask: String::new(),
            told: told.clone(),
            policy: alert.map_or_else(|| PolicyId::new("default").expect("a literal id"), |alert| alert.policy.clone()),
            condition: alert.and_then(|alert| alert.condition.clone()),
            severity: alert.map_or(Severity::Critical, |alert| alert.severity),
            first_failure_at: alert.map_or(event.occurred_at, |alert: &Alert| alert.first_failure_at),
            recovered_at: alert
                .and_then(|alert| alert.recovered_at)
                .filter(|_| told.transition == Transition::Resolved),
            at: at.unwrap_or(event.occurred_at),
            service,
        };
        let standing = data.recoveries.iter().find(|standing| standing.incident == told.incident);
        member.title = member.headline();
        member.doing = member.standing(&self.plan, standing);
        member.ask = member.request(&self.plan, standing);
        member
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
