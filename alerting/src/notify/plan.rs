//! Which messages to plan now, and when to look again. Pure: `now` is an argument.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{NotificationPlanned, Severity, Told, Transition};
use rebound_schemas::plan::ChannelKind;
use rebound_schemas::{AlertId, ChannelId, Event, EventId, IncidentId, ServiceId, Source};

use super::{Alert, Notifier, Progress, Way, digest_key};
use crate::{SOURCE, delta};

/// Changes that one message tells at most: what would not fit into an event is told in several.
const MOST_MEMBERS: usize = 500;

/// A page of the highest severity waits for its channel's rate no longer than this.
const PATIENCE: TimeDelta = TimeDelta::seconds(30);

/// What [`Notifier::plan`] answers.
#[derive(Debug, Default)]
pub struct Planned {
    /// `notification.planned` events: to be made durable, then folded, and then sent.
    pub events: Vec<Event>,
    /// When something may fall due without another event.
    pub next: Option<DateTime<Utc>>,
}

impl Planned {
    fn look_at(&mut self, at: DateTime<Utc>) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

/// Changes that wait for their group's time on one channel.
#[derive(Debug, Default)]
struct Waiting<'a> {
    changes: Vec<(DateTime<Utc>, &'a AlertId, Told)>,
    route: Option<&'a str>,
    wait: TimeDelta,
    interval: TimeDelta,
}

/// A message whose time has come.
#[derive(Debug)]
struct Candidate<'a> {
    channel: &'a ChannelId,
    group: Option<&'a str>,
    route: Option<&'a str>,
    /// Its first change.
    since: DateTime<Utc>,
    members: Vec<Told>,
}

impl Notifier {
    /// Every message whose time has come. `quiet` says of which services nothing is repeated and nobody further is
    /// called, because something suppresses them; `mine` of which services this instance tells.
    ///
    /// A group speaks `wait` after the first change of a quiet group, and no sooner than `interval` after it last
    /// spoke; then it tells every change there is.
    #[must_use]
    pub fn plan(
        &self,
        now: DateTime<Utc>,
        quiet: &dyn Fn(&ServiceId) -> bool,
        mine: &dyn Fn(&ServiceId) -> bool,
    ) -> Planned {
        let mut planned = Planned::default();
        let untold = Progress::default();
        let mut groups: BTreeMap<(&str, &ChannelId), Waiting<'_>> = BTreeMap::new();
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for (id, alert) in self.alerts.iter().filter(|(_, alert)| mine(&alert.service)) {
            let quiet = quiet(&alert.service);
            for (channel, way) in alert.audience() {
                let progress = alert.told.get(channel).unwrap_or(&untold);
                let repeat = self.repeat(alert, way, now, &mut planned);
                if !progress.under_way.is_empty() {
                    continue;
                }
                let mut changes = self.changes(id, alert, way, channel, progress);
                if let Some((at, number)) = repeat.filter(|(_, number)| {
                    !quiet && alert.resolved_at.is_none() && progress.raised && progress.repeat < *number
                }) {
                    changes.push((at, alert.told(id, Transition::Repeated, number)));
                }
                match way.and_then(|way| way.group.as_ref()) {
                    Some((group, grouping)) => {
                        let waiting = groups.entry((group, channel)).or_default();
                        (waiting.wait, waiting.interval) = (delta(grouping.wait), delta(grouping.interval));
                        waiting.route = way.and_then(|way| way.route.as_deref());
                        waiting.changes.extend(changes.into_iter().map(|(at, told)| (at, id, told)));
                    }
                    None => {
                        let route = way.and_then(|way| way.route.as_deref());
                        let Some((since, _)) = changes.first() else { continue };
                        let since = *since;
                        // One after the other, each by itself; what waits for a token is told in one.
                        let most = if self.rate(channel).is_some() { changes.len() } else { 1 };
                        let members = changes.into_iter().take(most).map(|(_, told)| told).collect();
                        candidates.push(Candidate { channel, group: None, route, since, members });
                    }
                }
            }
            if !quiet {
                candidates.extend(self.steps(id, alert, now, &mut planned));
            }
        }
        for ((group, channel), mut waiting) in groups {
            let Some(first) = waiting.changes.iter().map(|(at, ..)| *at).min() else { continue };
            let last = self.spoke.get(&(group.to_owned(), channel.clone())).copied();
            let again = last.and_then(|last| last.checked_add_signed(waiting.interval)).filter(|again| first < *again);
            let at = again.or_else(|| first.checked_add_signed(waiting.wait)).unwrap_or(first);
            if at > now {
                planned.look_at(at);
                continue;
            }
            waiting.changes.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
            let members: Vec<Told> = waiting.changes.into_iter().map(|(.., told)| told).collect();
            let (group, route) = (Some(group), waiting.route);
            let parts = members.chunks(MOST_MEMBERS);
            candidates.extend(parts.map(|part| Candidate {
                channel,
                group,
                route,
                since: first,
                members: part.to_vec(),
            }));
        }
        let mut keys = BTreeSet::new();
        for candidate in self.limited(candidates, now, &mut planned) {
            let event = self.message(candidate, now);
            planned.events.extend(event.filter(|(key, _)| keys.insert(key.clone())).map(|(_, event)| event));
        }
        planned.events.sort_by(|a, b| a.id.cmp(&b.id));
        planned
    }

    /// What a channel's rate lets go out now.
    ///
    /// | messages whose time has come | tokens | go out |
    /// |---|---|---|
    /// | no more than tokens | | each by itself |
    /// | more | some | the oldest by themselves, the rest in one message with the last token |
    /// | some | none | nothing; with a critical page among them that has waited for [`PATIENCE`], all in one |
    ///
    /// So nothing is dropped, and a page of the highest severity is put off by half a minute at most.
    fn limited<'a>(
        &self,
        candidates: Vec<Candidate<'a>>,
        now: DateTime<Utc>,
        planned: &mut Planned,
    ) -> Vec<Candidate<'a>> {
        let mut out = Vec::new();
        let mut limited: BTreeMap<&ChannelId, Vec<Candidate<'a>>> = BTreeMap::new();
        for candidate in candidates {
            match self.rate(candidate.channel) {
                Some(_) => limited.entry(candidate.channel).or_default().push(candidate),
                None => out.push(candidate),
            }
        }
        for (channel, mut waiting) in limited {
            let Some(rate) = self.rate(channel) else { continue };
            let bucket = self.buckets.get(channel).cloned().unwrap_or_default();
            let tokens = bucket.tokens(now, rate);
            if waiting.len() <= tokens {
                out.extend(waiting);
                continue;
            }
            if tokens == 0 {
                let pages = waiting.iter().filter(|candidate| self.is_urgent(candidate));
                let patience = pages.filter_map(|page| page.since.checked_add_signed(PATIENCE)).min();
                let at = patience.into_iter().chain([bucket.next(now, rate)]).min().unwrap_or(now);
                if at > now {
                    planned.look_at(at);
                    continue;
                }
            }
            waiting.sort_by(|a, b| (a.since, &a.members).cmp(&(b.since, &b.members)));
            let rest = waiting.split_off(tokens.saturating_sub(1));
            out.extend(waiting);
            out.extend(together(channel, rest));
        }
        out
    }

    /// Somebody is to be woken by it.
    fn is_urgent(&self, candidate: &Candidate<'_>) -> bool {
        candidate.members.iter().any(|told| {
            let wakes = matches!(
                told.transition,
                Transition::Raised | Transition::Escalated | Transition::Demoted | Transition::Unacknowledged
            );
            wakes && self.alerts.get(&told.alert).is_some_and(|alert| alert.severity == Severity::Critical)
        })
    }

    /// The `notification.planned` of a message, with its key.
    fn message(&self, candidate: Candidate<'_>, now: DateTime<Utc>) -> Option<(String, Event)> {
        let Candidate { channel, group, route, members, .. } = candidate;
        let dedup_key = digest_key(&members, channel);
        let alert = members.first().and_then(|told| self.alerts.get(&told.alert))?;
        let incidents: BTreeSet<&IncidentId> = members.iter().map(|told| &told.incident).collect();
        let recoveries = incidents.into_iter().filter_map(|incident| self.standings.of(incident)).cloned().collect();
        let data = NotificationPlanned {
            dedup_key: dedup_key.clone(),
            channel: channel.clone(),
            group: group.map(str::to_owned),
            route: route.map(str::to_owned),
            recoveries,
            members,
        };
        let event = Event {
            id: EventId::derive(&dedup_key, "planned"),
            source: Source::new(SOURCE).expect("the source's name follows the rule for sources"),
            subject: alert.service.clone(),
            occurred_at: now,
            plan: alert.plan.clone(),
            data: data.into(),
        };
        Some((dedup_key, event))
    }

    /// What has changed since the channel was last told, oldest first.
    fn changes(
        &self,
        id: &AlertId,
        alert: &Alert,
        way: Option<&Way>,
        channel: &ChannelId,
        told: &Progress,
    ) -> Vec<(DateTime<Utc>, Told)> {
        let mut changes = Vec::new();
        let mut push = |at, transition| changes.push((at, alert.told(id, transition, 0)));
        let raise = way.is_some() && !told.raised;
        if raise {
            push(alert.raised_at, Transition::Raised);
        }
        if !raise && !told.opened {
            return changes;
        }
        if let Some(at) = alert.resolved_at {
            if !told.resolved {
                push(at, Transition::Resolved);
            }
            return changes;
        }
        if raise {
            return changes;
        }
        if let Some((at, _)) = self.escalated.get(&alert.incident).filter(|_| !told.escalated) {
            push(*at, Transition::Escalated);
        }
        if let Some((at, _)) = self.demoted.get(&alert.incident).filter(|_| !told.demoted) {
            push(*at, Transition::Demoted);
        }
        let follows = self.plan.channels().get(channel).is_some_and(|channel| follows_acknowledgements(&channel.kind));
        if let Some((at, _)) = self.acknowledged.get(&alert.incident).filter(|_| follows && !told.acknowledged) {
            push(*at, Transition::Acknowledged);
        }
        changes
    }

    /// The newest repeat at or before `now`: time and number, on a grid that starts when the alert was raised.
    /// Repeats that were missed are not made up for.
    fn repeat(
        &self,
        alert: &Alert,
        way: Option<&Way>,
        now: DateTime<Utc>,
        planned: &mut Planned,
    ) -> Option<(DateTime<Utc>, u32)> {
        if alert.resolved_at.is_some() || self.acknowledged.contains(&alert.incident) {
            return None;
        }
        let every = delta(way?.repeat?);
        let number = (now - alert.raised_at).num_milliseconds().checked_div(every.num_milliseconds())?;
        let number = i32::try_from(number.max(0)).ok()?;
        let at = |number: i32| alert.raised_at.checked_add_signed(every.checked_mul(number)?);
        if let Some(next) = number.checked_add(1).and_then(at) {
            planned.look_at(next);
        }
        (number > 0).then(|| Some((at(number)?, number.unsigned_abs())))?
    }

    /// Steps of the escalation whose time has come. Each is a message of its own; steps are numbered over all ways.
    fn steps<'a>(
        &self,
        id: &AlertId,
        alert: &'a Alert,
        now: DateTime<Utc>,
        planned: &mut Planned,
    ) -> Vec<Candidate<'a>> {
        let mut due: Vec<Candidate<'a>> = Vec::new();
        if alert.resolved_at.is_some() || self.acknowledged.contains(&alert.incident) {
            return due;
        }
        let steps = alert.ways.iter().flat_map(|way| way.escalation.iter().map(move |step| (way, step)));
        for (number, (way, step)) in (1..).zip(steps) {
            let Some(at) = alert.raised_at.checked_add_signed(delta(step.after)) else { continue };
            if at > now {
                planned.look_at(at);
                continue;
            }
            for channel in &step.channels {
                let told = alert.told.get(channel);
                let waits = told.is_some_and(|told| !told.under_way.is_empty() || told.steps.contains(&number));
                // A channel that is about to hear of the raise hears of that first.
                let raise = alert.ways.iter().any(|way| way.channels.contains(channel))
                    && !told.is_some_and(|told| told.raised);
                if !waits && !raise && !due.iter().any(|other| other.channel == channel) {
                    let members = vec![alert.told(id, Transition::Unacknowledged, number)];
                    due.push(Candidate { channel, group: None, route: way.route.as_deref(), since: at, members });
                }
            }
        }
        due
    }
}

/// Several messages in one.
fn together<'a>(channel: &'a ChannelId, candidates: Vec<Candidate<'a>>) -> Vec<Candidate<'a>> {
    let Some(first) = candidates.first() else { return Vec::new() };
    let (group, route, since) = (first.group, first.route, first.since);
    let group = group.filter(|group| candidates.iter().all(|other| other.group == Some(group)));
    let route = route.filter(|route| candidates.iter().all(|other| other.route == Some(route)));
    let members: Vec<Told> = candidates.into_iter().flat_map(|candidate| candidate.members).collect();
    let parts = members.chunks(MOST_MEMBERS);
    parts.map(|part| Candidate { channel, group, route, since, members: part.to_vec() }).collect()
}

impl Alert {
    /// Channels that are told by some way, and those that only an escalation brought in.
    fn audience(&self) -> impl Iterator<Item = (&ChannelId, Option<&Way>)> {
        let ways = self.ways.iter().flat_map(|way| way.channels.iter().map(move |channel| (channel, Some(way))));
        let named = |channel: &ChannelId| self.ways.iter().any(|way| way.channels.contains(channel));
        ways.chain(self.told.keys().filter(move |channel| !named(channel)).map(|channel| (channel, None)))
    }

    fn told(&self, id: &AlertId, transition: Transition, repeat: u32) -> Told {
        Told { alert: id.clone(), incident: self.incident.clone(), transition, repeat }
    }
}

/// Receivers that keep an incident of their own, which an acknowledgement changes.
fn follows_acknowledgements(kind: &ChannelKind) -> bool {
    matches!(kind, ChannelKind::PagerDuty { .. } | ChannelKind::Opsgenie { .. })
}
