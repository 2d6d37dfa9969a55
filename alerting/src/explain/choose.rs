//! Which events belong to the subject's story.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use rebound_schemas::event::{EventRef, SuppressionCause, WithheldReason};
use rebound_schemas::{AlertId, Event, EventData, IncidentId, PlanVersion, RecoveryId, ServiceId, Topic};
use serde_json::Value;

use super::Subject;

/// What an event says that it is about. Of a notification it is the first that it tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The incident.
    pub incident: Option<IncidentId>,
    /// The alert.
    pub alert: Option<AlertId>,
    /// The recovery.
    pub recovery: Option<RecoveryId>,
}

/// What an event names: by the members of its payload, so that a new kind needs no line here.
#[must_use]
pub fn named(event: &Event) -> Named {
    if event.kind().topic() == Topic::Observations {
        return Named::default();
    }
    let data = payload(event);
    let first = data.get("members").and_then(|members| members.get(0)).unwrap_or(&Value::Null);
    let text = |name: &str| data.get(name).or_else(|| first.get(name)).and_then(Value::as_str).map(str::to_owned);
    Named {
        incident: text("incident").and_then(|id| IncidentId::new(&id).ok()),
        alert: text("alert").and_then(|id| AlertId::new(&id).ok()),
        recovery: text("recovery").and_then(|id| RecoveryId::new(&id).ok()),
    }
}

/// The payload as JSON.
pub(super) fn payload(event: &Event) -> Value {
    let whole: Value = serde_json::from_slice(&rebound_schemas::encode(event)).unwrap_or_default();
    whole.get("data").cloned().unwrap_or_default()
}

/// The events that one names as its evidence.
pub(super) fn evidence(data: &EventData) -> &[EventRef] {
    match data {
        EventData::AlertRaised(data) => &data.evidence,
        EventData::RecoveryWithheld(data) => &data.evidence,
        EventData::RecoveryVerified(data) => &data.evidence,
        _ => &[],
    }
}

/// Everything that belongs together, each event once, in no order yet.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) service: ServiceId,
    /// What was decided and done, in order.
    pub(super) decided: Vec<&'a Event>,
    /// What was seen of the service, in order.
    pub(super) observed: Vec<&'a Event>,
    /// The same with what is no part of the story and only lies before it: counts go on from there.
    pub(super) watched: Vec<&'a Event>,
    /// What stands in some evidence, and is the story of another: a dependency's incident, a silence, a pause.
    pub(super) others: Vec<&'a Event>,
    /// The plan of the newest decision.
    pub(super) decided_under: Option<PlanVersion>,
    /// Pieces of evidence that are not at hand.
    pub(super) missing: usize,
    /// It is a service's story, and not that of one incident.
    pub(super) of_service: bool,
    at_hand: BTreeSet<Pointer<'a>>,
}

/// An event's source and id, to be looked up.
type Pointer<'a> = (&'a str, &'a str);

fn name(event: &Event) -> Pointer<'_> {
    (event.source.as_str(), event.id.as_str())
}

impl Story<'_> {
    /// The pieces of evidence that are at hand.
    pub(super) fn evidence(&self, data: &EventData) -> Vec<EventRef> {
        let there = |of: &&EventRef| self.at_hand.contains(&(of.source.as_str(), of.id.as_str()));
        evidence(data).iter().filter(there).cloned().collect()
    }
}

/// In the order of cause and effect, where times are equal.
pub(super) fn rank(event: &Event) -> u8 {
    match &event.data {
        EventData::IncidentOpened(_) => 1,
        EventData::MaintenanceScheduled(_) | EventData::SilenceCreated(_) => 2,
        EventData::AlertRaised(_) | EventData::AlertSuppressed(_) => 3,
        EventData::RecoveryTriggered(_) => 4,
        EventData::RecoveryStarted(_) => 6,
        EventData::StepStarted(_) => 7,
        EventData::StepFinished(_) => 8,
        EventData::RecoveryVerified(_) => 9,
        EventData::RecoveryFinished(_) => 10,
        EventData::RecoveryEscalated(_) => 11,
        EventData::RecoveryWithheld(_) => 12,
        EventData::AlertResolved(_) => 13,
        EventData::IncidentResolved(_) => 14,
        EventData::IncidentCorrected(_) => 16,
        _ if event.kind().topic() == Topic::Observations => 0,
        _ if event.kind().topic() == Topic::Alerts => 15,
        _ => 5,
    }
}

/// Chooses; `None` if nothing decided is about the subject (for a service: if nothing at all is, and it is not one of
/// the plan's, of which that is to be told).
pub(super) fn story<'a>(subject: &Subject, events: &'a [Event], in_plan: bool) -> Option<Story<'a>> {
    // Of one that is there twice, the first in any order: what says the same counts once.
    let mut once: BTreeMap<Pointer<'a>, &'a Event> = BTreeMap::new();
    for event in events {
        let known = once.entry(name(event)).or_insert(event);
        if (event.occurred_at, event.kind()) < (known.occurred_at, known.kind()) {
            *known = event;
        }
    }
    let mut all: Vec<&Event> = once.values().copied().collect();
    all.sort_by(|a, b| (a.occurred_at, rank(a), name(a)).cmp(&(b.occurred_at, rank(b), name(b))));
    let names: Vec<Named> = all.iter().map(|event| named(event)).collect();

    let mut incident = None;
    let mut recoveries: BTreeSet<&RecoveryId> = BTreeSet::new();
    for (event, name) in all.iter().zip(&names) {
        let hit = match subject {
            Subject::Incident(id) => name.incident.as_ref() == Some(id),
            Subject::Alert(id) => name.alert.as_ref() == Some(id),
            Subject::Recovery(id) => name.recovery.as_ref() == Some(id),
            Subject::Service { .. } => false,
        };
        if hit {
            incident = incident.or(name.incident.as_ref());
        }
        if hit && matches!(subject, Subject::Incident(_)) && event.kind().topic() == Topic::Recoveries {
            recoveries.extend(&name.recovery);
        }
    }
    let open = match subject {
        Subject::Service { service, at, .. } => open_at(&all, service, *at),
        _ => BTreeSet::new(),
    };
    let belongs = |event: &Event, name: &Named| match subject {
        Subject::Incident(id) => {
            name.incident.as_ref() == Some(id)
                || name.recovery.as_ref().is_some_and(|recovery| recoveries.contains(recovery))
                || tells(&event.data, id)
        }
        Subject::Alert(id) => {
            let same = name.incident.is_some() && name.incident.as_ref() == incident;
            name.alert.as_ref() == Some(id)
                || (same && event.kind().topic() == Topic::Alerts)
                || incident.is_some_and(|incident| tells(&event.data, incident))
        }
        Subject::Recovery(id) => {
            let same = name.incident.is_some() && name.incident.as_ref() == incident;
            let before = matches!(
                event.data,
                EventData::IncidentOpened(_)
                    | EventData::AlertRaised(_)
                    | EventData::AlertSuppressed(_)
                    | EventData::RecoveryFinished(_)
                    | EventData::RecoveryEscalated(_)
                    | EventData::IncidentResolved(_)
                    | EventData::IncidentCorrected(_)
            );
            name.recovery.as_ref() == Some(id) || (same && before)
        }
        Subject::Service { service, at, within } => {
            let observed = event.kind().topic() == Topic::Observations;
            event.subject == *service
                && !observed
                && event.occurred_at <= *at
                && (event.occurred_at >= *at - *within || name.incident.as_ref().is_some_and(|of| open.contains(of)))
        }
    };
    // A plan to tell is told by its end.
    let ended: BTreeSet<&str> = all
        .iter()
        .filter_map(|event| match &event.data {
            EventData::NotificationSent(data) => Some(data.dedup_key.as_str()),
            EventData::NotificationFailed(data) => Some(data.dedup_key.as_str()),
            _ => None,
        })
        .collect();
    let planned = |event: &Event| matches!(&event.data, EventData::NotificationPlanned(data) if ended.contains(data.dedup_key.as_str()));
    let mine = all.iter().zip(&names).filter(|(event, name)| belongs(event, name) && !planned(event));
    let decided: Vec<&Event> = mine.map(|(event, _)| *event).collect();
    let service = match subject {
        Subject::Service { service, .. } => service.clone(),
        _ => decided.iter().find(|event| named(event) != Named::default())?.subject.clone(),
    };
    // What else they point at: their evidence, and the windows that they name.
    let mut pointed: BTreeSet<Pointer<'_>> = BTreeSet::new();
    let mut windows: BTreeSet<&str> = BTreeSet::new();
    for event in &decided {
        pointed.extend(evidence(&event.data).iter().map(|of| (of.source.as_str(), of.id.as_str())));
        match &event.data {
            EventData::AlertSuppressed(data)
                if matches!(data.cause, SuppressionCause::Silence | SuppressionCause::Maintenance) =>
            {
                windows.insert(&data.by);
            }
            EventData::RecoveryWithheld(data)
                if matches!(data.reason, WithheldReason::Silence | WithheldReason::Maintenance) =>
            {
                windows.extend(data.by.as_deref());
            }
            _ => {}
        }
    }
    let now_in_force = |event: &Event| match subject {
        Subject::Service { service, at, .. } => event.occurred_at <= *at && in_force(event, service, *at),
        _ => false,
    };
    let last = decided.last().map(|event| event.occurred_at);
    let chosen: BTreeSet<Pointer<'_>> = decided.iter().map(|event| name(event)).collect();
    let other = |event: &&&Event| {
        let window = match &event.data {
            EventData::SilenceCreated(data) => Some(&data.silence),
            EventData::SilenceExpired(data) => Some(&data.silence),
            EventData::MaintenanceScheduled(data) => Some(&data.maintenance),
            EventData::MaintenanceCancelled(data) => Some(&data.maintenance),
            _ => None,
        };
        // The plan's own windows are told of under a name for each service.
        let plain =
            |window: &str| window.strip_suffix(service.as_str()).and_then(|s| s.strip_suffix('/')).map(str::to_owned);
        let covers = window.is_some_and(|window| {
            windows.contains(window.as_str()) || plain(window).is_some_and(|plain| windows.contains(plain.as_str()))
        });
        let in_time = last.is_none_or(|last| event.occurred_at <= last);
        !chosen.contains(&name(event))
            && event.kind().topic() != Topic::Observations
            && (pointed.contains(&name(event)) || (covers && in_time) || now_in_force(event))
    };
    let others: Vec<&Event> = all.iter().filter(other).copied().collect();
    let over = decided.iter().any(|e| matches!(e.data, EventData::IncidentResolved(_) | EventData::AlertResolved(_)));
    let seen = |event: &&&Event| match subject {
        Subject::Service { at, within, .. } => event.occurred_at <= *at && event.occurred_at >= *at - *within,
        Subject::Recovery(_) => pointed.contains(&name(event)),
        _ => !over || last.is_none_or(|last| event.occurred_at <= last),
    };
    let mine = |event: &&&Event| event.kind().topic() == Topic::Observations && event.subject == service;
    let watched: Vec<&Event> = all.iter().filter(mine).copied().collect();
    let observed: Vec<&Event> = watched.iter().filter(seen).copied().collect();
    let of_service = matches!(subject, Subject::Service { .. });
    if decided.is_empty() && !in_plan && (observed.is_empty() || !of_service) {
        return None;
    }
    let at_hand: BTreeSet<Pointer<'_>> =
        decided.iter().chain(&observed).chain(&others).map(|event| name(event)).collect();
    let missing = pointed.iter().filter(|of| !once.contains_key(*of)).count();
    let decided_under = decided.iter().rev().find_map(|event| event.plan.clone());
    Some(Story { of_service, service, decided, observed, watched, others, decided_under, missing, at_hand })
}

/// Whether a message tells of an incident.
fn tells(data: &EventData, incident: &IncidentId) -> bool {
    let members = match data {
        EventData::NotificationPlanned(data) => &data.members,
        EventData::NotificationSent(data) => &data.members,
        EventData::NotificationFailed(data) => &data.members,
        _ => return false,
    };
    members.iter().any(|told| told.incident == *incident)
}

/// A service's incidents that were open at a time.
fn open_at<'a>(all: &[&'a Event], service: &ServiceId, at: DateTime<Utc>) -> BTreeSet<&'a IncidentId> {
    let mut open = BTreeSet::new();
    // In order of time, and what opens before what resolves.
    for event in all.iter().filter(|event| event.subject == *service && event.occurred_at <= at) {
        match &event.data {
            EventData::IncidentOpened(data) => drop(open.insert(&data.incident)),
            EventData::IncidentResolved(data) => drop(open.remove(&data.incident)),
            _ => {}
        }
    }
    open
}

/// Whether a silence, a maintenance window or a pause may have covered a service at a time.
fn in_force(event: &Event, service: &ServiceId, at: DateTime<Utc>) -> bool {
    let listed = |services: &[ServiceId], any: bool| {
        services.contains(service) || (services.is_empty() && (any || event.subject == *service))
    };
    match &event.data {
        EventData::SilenceCreated(data) => {
            data.from <= at && at < data.until && listed(&data.services, !data.matchers.is_empty())
        }
        EventData::MaintenanceScheduled(data) => data.from <= at && at < data.until && listed(&data.services, false),
        EventData::RecoveryPaused(data) => {
            let covers = data.service.as_ref().is_none_or(|of| of == service);
            event.occurred_at <= at && data.until.is_none_or(|until| at < until) && covers
        }
        _ => false,
    }
}
