//! Which recoveries begin now: a fold over what was triggered, approved or refused, paused, started and finished. Pure.
//!
//! One [`Queue`] an instance folds every recovery and `incident.resolved` event that it can see, also of services
//! that it does not own: those still count for dependencies and limits. [`Queue::decide`] gives commands for owned
//! services only. A recovery found started that nobody here runs was begun by an owner that is gone: nobody knows how
//! far it came, so it is finished as interrupted and never run again.
//!
//! Promise: for one recovery, at most one [`Command::Start`] is acted on, provided that the caller (1) has folded the
//! recoveries topic up to its end after taking a partition over and before it decides for it, and (2) journals
//! `recovery.started` as the partition's owner, and acts only when that was not refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rebound_schemas::event::{
    ErrorClass, RecoveryEscalated, RecoveryExpired, RecoveryFinished, RecoveryOutcome, RecoveryStarted,
    RecoveryTriggered, TriggerMode,
};
use rebound_schemas::{Event, EventData, IncidentId, ProcedureId, RecoveryId, ServiceId};

use self::load::Load;
pub use self::topology::Topology;
use self::topology::needs_any;
use self::withheld::{Ahead, Said};
use crate::hindrance::Hindrance;
use crate::pause::{Pauses, Target};
use crate::runner::recovery_event;

mod load;
mod topology;
mod withheld;

/// How much runs at the same time, and how long a trigger is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLimits {
    /// Recoveries at the same time, at most.
    pub total: usize,
    /// Recoveries of services at one site at the same time, at most.
    pub per_site: usize,
    /// A recovery that has not begun so long after its trigger, or after the last pause that held it back, is called
    /// off. What ended is remembered twice as long: should its trigger be delivered again even later, it is called off
    /// for its age and not run.
    pub stale_after: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { total: 16, per_site: 4, stale_after: Duration::from_secs(24 * 3600) }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Tell the queue with [`Queue::begin`], then run it ([`crate::runner::run_recovery`]) with this trigger.
    Start {
        /// The `recovery.triggered`.
        triggered: Box<Event>,
    },
    /// Journal this `recovery.finished` (as the partition's owner), then fold it.
    Finish {
        /// The event, with the id that any other end of the recovery would have too.
        finished: Box<Event>,
    },
    /// Journal these together (as the partition's owner), then fold them: nobody approved in time, people are asked,
    /// and the recovery ended.
    Expire {
        /// `recovery.expired`, `recovery.escalated`, `recovery.finished`.
        events: Vec<Event>,
    },
}

/// An approval that was given in time has this long to arrive before the recovery expires.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(2);
/// Approvals kept of a recovery whose trigger was not seen yet.
const EARLY_APPROVALS: usize = 8;

/// Why a recovery that has not begun never will.
enum CalledOff {
    /// For this reason, in words.
    Cancelled(String),
    /// It had to be approved by then.
    Expired(DateTime<Utc>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Started,
    Finished,
}

#[derive(Debug, Clone)]
struct Entry {
    service: ServiceId,
    incident: IncidentId,
    procedure: ProcedureId,
    /// Empty where only later events of the recovery were seen: the bus no longer had its trigger.
    trigger: Option<(RecoveryTriggered, Box<Event>)>,
    approved: bool,
    phase: Phase,
    /// Of the first event seen.
    since: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    /// What was said last to keep it waiting.
    said: Option<Said>,
}

impl Entry {
    fn target<'a, T: Topology + ?Sized>(&'a self, plan: &'a T) -> Target<'a> {
        let (site, tier) = (plan.site(&self.service), plan.tier(&self.service));
        Target { service: &self.service, site, tier, procedure: Some(&self.procedure) }
    }

    /// An approval counts while it is waited for, by its own time: not before the trigger, and not after the end.
    fn approve(&mut self, at: DateTime<Utc>) {
        if let Some((data, event)) = &self.trigger
            && at >= event.occurred_at
            && data.approve_until.is_none_or(|until| at < until)
        {
            self.approved = true;
        }
    }

    fn is_dry_run(&self) -> bool {
        self.trigger.as_ref().is_some_and(|(data, _)| data.mode == TriggerMode::DryRun)
    }
}

/// Pending, running and finished recoveries.
///
/// | recovery | event | becomes |
/// |---|---|---|
/// | unknown | triggered | pending |
/// | unknown, pending | started | started |
/// | any | finished | finished |
/// | started, finished | triggered, approved, started | unchanged |
/// | pending, waits for approval | approved, from its trigger until `approve_until` by the approval's own time | pending, approved |
/// | pending | approved at any other time | unchanged |
/// | pending | rejected, cancelled | pending, called off |
/// | started, finished | rejected, cancelled | unchanged: a cancelled one is stopped by whoever runs it |
#[derive(Debug, Clone)]
pub struct Queue {
    limits: QueueLimits,
    entries: BTreeMap<RecoveryId, Entry>,
    resolved: BTreeMap<IncidentId, DateTime<Utc>>,
    /// Open incidents that policies opened, and their services.
    down: BTreeMap<IncidentId, ServiceId>,
    /// When approvals were given that were seen before their trigger.
    approvals: BTreeMap<RecoveryId, BTreeSet<DateTime<Utc>>>,
    /// What people refused or called off, and their words; also before the trigger was seen.
    refused: BTreeMap<RecoveryId, (DateTime<Utc>, String)>,
    pauses: Pauses,
    running: BTreeSet<RecoveryId>,
}

impl Queue {
    /// Knows of nothing yet.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        let (entries, resolved, down, approvals, refused, pauses, running) = Default::default();
        Self { limits, entries, resolved, down, approvals, refused, pauses, running }
    }

    /// Takes note of an event. One delivered again, or in another order, changes nothing that matters.
    pub fn evolve(&mut self, event: &Event) {
        let at = event.occurred_at;
        match &event.data {
            EventData::RecoveryTriggered(data) => {
                let approvals = self.approvals.remove(&data.recovery).unwrap_or_default();
                let entry = self.entry(&data.recovery, event, &data.incident, &data.procedure, Phase::Pending);
                entry.trigger.get_or_insert_with(|| (data.clone(), Box::new(event.clone())));
                approvals.into_iter().for_each(|at| entry.approve(at));
            }
            // The approval of one step is the runner's.
            EventData::RecoveryApproved(data) if data.step.is_some() => {}
            EventData::RecoveryApproved(data) => match self.entries.get_mut(&data.recovery) {
                Some(entry) => entry.approve(at),
                None => {
                    let early = self.approvals.entry(data.recovery.clone()).or_default();
                    early.insert(at);
                    if early.len() > EARLY_APPROVALS {
                        early.pop_first();
                    }
                }
            },
            EventData::RecoveryRejected(data) => {
                self.refuse(&data.recovery, at, format!("{} rejected it: {}", data.by, data.reason));
            }
            EventData::RecoveryCancelled(data) => {
                self.refuse(&data.recovery, at, format!("{} called it off: {}", data.by, data.reason));
            }
            EventData::RecoveryPaused(_) | EventData::RecoveryResumed(_) => {
                self.pauses.evolve(event);
            }
            EventData::RecoveryWithheld(data) => self.said(event, data),
            EventData::RecoveryStarted(data) => {
                let RecoveryStarted { recovery, incident, procedure, .. } = data;
                let entry = self.entry(recovery, event, incident, procedure, Phase::Started);
                entry.started_at.get_or_insert(at);
                if entry.phase == Phase::Pending {
                    entry.phase = Phase::Started;
                }
            }
            EventData::RecoveryFinished(data) => {
                self.entry(&data.recovery, event, &data.incident, &data.procedure, Phase::Finished).phase =
                    Phase::Finished;
            }
            EventData::IncidentOpened(d) if d.policy.is_some() && !self.resolved.contains_key(&d.incident) => {
                self.down.insert(d.incident.clone(), event.subject.clone());
            }
            EventData::IncidentResolved(data) => {
                self.down.remove(&data.incident);
                self.resolved.insert(data.incident.clone(), at);
            }
            _ => {}
        }
    }

    /// Of two refusals the first by time is told of.
    fn refuse(&mut self, recovery: &RecoveryId, at: DateTime<Utc>, words: String) {
        let word = (at, words);
        let held = self.refused.entry(recovery.clone()).or_insert_with(|| word.clone());
        if word < *held {
            *held = word;
        }
    }

    fn entry(
        &mut self,
        recovery: &RecoveryId,
        event: &Event,
        incident: &IncidentId,
        procedure: &ProcedureId,
        phase: Phase,
    ) -> &mut Entry {
        self.entries.entry(recovery.clone()).or_insert_with(|| Entry {
            service: event.subject.clone(),
            incident: incident.clone(),
            procedure: procedure.clone(),
            trigger: None,
            approved: false,
            phase,
            since: event.occurred_at,
            started_at: None,
            said: None,
        })
    }

    /// This instance is about to run the recovery.
    pub fn begin(&mut self, recovery: &RecoveryId) {
        self.running.insert(recovery.clone());
    }

    /// This instance no longer runs the recovery: `ended` tells whether its end was journalled. If not, it was either
    /// never started, and is pending still, or it is found started, and is finished as interrupted.
    ///
    /// Call it with `false` only when everything that the runner may have journalled has been folded: for a recovery
    /// that was perhaps started, its partition must first be read to the end (as after a take-over).
    pub fn end(&mut self, recovery: &RecoveryId, ended: bool) {
        self.running.remove(recovery);
        if let Some(entry) = self.entries.get_mut(recovery).filter(|_| ended) {
            entry.phase = Phase::Finished;
        }
    }

    /// Recoveries that this instance runs.
    pub fn running(&self) -> impl Iterator<Item = &RecoveryId> {
        self.running.iter()
    }

    /// How many recoveries wait, for whatever reason.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.entries.iter().filter(|(id, entry)| entry.phase == Phase::Pending && !self.running.contains(*id)).count()
    }

    /// Forgets what ended long ago (see [`QueueLimits::stale_after`]).
    pub fn prune(&mut self, now: DateTime<Utc>) {
        let Some(limit) = now.checked_sub_signed(self.stale_after() * 2) else { return };
        self.entries.retain(|_, entry| entry.phase != Phase::Finished || entry.since >= limit);
        self.resolved.retain(|_, at| *at >= limit);
        self.approvals.retain(|_, given| given.last().is_some_and(|at| *at >= limit));
        let entries = &self.entries;
        self.refused.retain(|id, (at, _)| *at >= limit || entries.contains_key(id));
    }

    fn stale_after(&self) -> TimeDelta {
        TimeDelta::from_std(self.limits.stale_after).unwrap_or(TimeDelta::days(365))
    }

    /// What is to be done now, for services that `owned` says are this instance's; oldest triggers first.
    ///
    /// | recovery | then |
    /// |---|---|
    /// | started, not running here | finished as interrupted |
    /// | pending, rejected or called off by a person | finished as cancelled |
    /// | pending, its incident is resolved | finished as cancelled |
    /// | pending for longer than [`QueueLimits::stale_after`], since the last pause of it ended | finished as cancelled |
    /// | pending, not approved by `approve_until` | expired: escalated, and finished as cancelled |
    /// | pending, mode approve or off, not approved | waits |
    /// | pending, a dry run | starts: nothing is done, so nothing holds it back, and it holds up nothing |
    /// | pending, before its `not_before` | waits |
    /// | pending, while it is paused: its service, site, tier, procedure or everything | waits |
    /// | pending, while a recovery of the same service runs, or an older one of it waits | waits |
    /// | pending, while a recovery of a direct or indirect dependency waits or runs | waits |
    /// | pending and automatic, while more of its site or of everything is down than [`Reach::stop_above`] | waits |
    /// | pending, and the procedure, the site or the total is at its limit | waits |
    /// | pending otherwise | starts |
    ///
    /// What a person asked for with `overrides` passes over a pause, dependencies and limits as they say; never over
    /// another recovery of the same service.
    #[must_use]
    pub fn decide<T: Topology + ?Sized>(
        &self,
        plan: &T,
        now: DateTime<Utc>,
        owned: impl Fn(&ServiceId) -> bool,
    ) -> Vec<Command> {
        self.walk(plan, now, owned).0
    }

    /// What is to be done, and what keeps the owned ones of the others waiting.
    fn walk<T: Topology + ?Sized>(
        &self,
        plan: &T,
        now: DateTime<Utc>,
        owned: impl Fn(&ServiceId) -> bool,
    ) -> (Vec<Command>, Vec<(RecoveryId, Hindrance)>) {
        let mut open: Vec<(&RecoveryId, &Entry, Option<CalledOff>)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.phase != Phase::Finished)
            .map(|(id, entry)| (id, entry, self.called_off(id, entry, plan, now)))
            .collect();
        open.sort_by_key(|(id, entry, _)| (entry.since, *id));
        let mut load = Load::default();
        load.down(self.down.values().collect(), plan);
        for (id, entry, _) in open.iter().filter(|(id, entry, _)| self.active(id, entry) && !entry.is_dry_run()) {
            load.add(id, entry, plan);
        }
        // Services that are being recovered or will be: their dependants wait.
        let busy: BTreeSet<&ServiceId> = open
            .iter()
            .filter(|(_, entry, called_off)| called_off.is_none() && !entry.is_dry_run())
            .map(|(_, entry, _)| &entry.service)
            .collect();
        let (mut commands, mut waits) = (Vec::new(), Vec::new());
        // Services with an older recovery that waits: a younger one does not overtake it.
        let mut waiting: BTreeMap<&ServiceId, &RecoveryId> = BTreeMap::new();
        for (id, entry, called_off) in open {
            if self.running.contains(id) {
                continue;
            }
            let mine = owned(&entry.service);
            if entry.phase == Phase::Started {
                if mine {
                    let reason = "it was started by an instance that is gone; how far it came is not known";
                    let finished = self.finished(id, entry, RecoveryOutcome::Interrupted, reason, plan, now);
                    commands.push(Command::Finish { finished: Box::new(finished) });
                }
                continue;
            }
            let Some((trigger, triggered)) = &entry.trigger else { continue };
            if let Some(why) = called_off {
                if mine {
                    commands.push(match why {
                        CalledOff::Cancelled(reason) => {
                            let finished = self.finished(id, entry, RecoveryOutcome::Cancelled, &reason, plan, now);
                            Command::Finish { finished: Box::new(finished) }
                        }
                        CalledOff::Expired(until) => self.expire(id, entry, until, plan, now),
                    });
                }
                continue;
            }
            if entry.is_dry_run() {
                if mine {
                    commands.push(Command::Start { triggered: triggered.clone() });
                }
                continue;
            }
            let older = waiting.get(&entry.service).copied().or_else(|| load.services.get(&entry.service).copied());
            waiting.entry(&entry.service).or_insert(id);
            let ahead = Ahead { older, dependency: needs_any(plan, &entry.service, &busy) };
            match self.in_the_way(plan, (entry, trigger), ahead, &load, now) {
                Some(hindrance) if mine => waits.push((id.clone(), hindrance)),
                None if mine => {
                    load.add(id, entry, plan);
                    commands.push(Command::Start { triggered: triggered.clone() });
                }
                _ => {}
            }
        }
        (commands, waits)
    }

    fn active(&self, id: &RecoveryId, entry: &Entry) -> bool {
        entry.phase == Phase::Started || self.running.contains(id)
    }

    /// Why a recovery will not begin; one that has begun is not called off here.
    fn called_off<T: Topology + ?Sized>(
        &self,
        id: &RecoveryId,
        entry: &Entry,
        plan: &T,
        now: DateTime<Utc>,
    ) -> Option<CalledOff> {
        if self.active(id, entry) {
            return None;
        }
        if let Some((_, words)) = self.refused.get(id) {
            return Some(CalledOff::Cancelled(words.clone()));
        }
        if self.resolved.contains_key(&entry.incident) {
            return Some(CalledOff::Cancelled("its incident was resolved before it began".into()));
        }
        // A pause makes nothing old: what it held back is as good as new when it ends.
        let target = entry.target(plan);
        if self.pauses.active(target, now).is_none() {
            let since = self.pauses.last_end(target, now).map_or(entry.since, |end| end.max(entry.since));
            let age = now.signed_duration_since(since);
            if age > self.stale_after() {
                return Some(CalledOff::Cancelled(format!("it had not begun {} h after its trigger", age.num_hours())));
            }
        }
        let until = entry.trigger.as_ref().filter(|_| !entry.approved).and_then(|(data, _)| data.approve_until);
        until.filter(|until| now.signed_duration_since(*until) >= ON_ITS_WAY).map(CalledOff::Expired)
    }

    fn expire<T: Topology + ?Sized>(
        &self,
        recovery: &RecoveryId,
        entry: &Entry,
        approve_until: DateTime<Utc>,
        plan: &T,
        now: DateTime<Utc>,
    ) -> Command {
        let incident = entry.incident.clone();
        let attempts = entry.trigger.as_ref().map_or(1, |(data, _)| data.attempt);
        let reason = format!("nobody approved it by {}", approve_until.to_rfc3339_opts(SecondsFormat::Secs, true));
        let expired = RecoveryExpired { recovery: recovery.clone(), incident: incident.clone(), approve_until };
        let escalated = RecoveryEscalated {
            incident,
            recovery: Some(recovery.clone()),
            attempts,
            reason: reason.clone(),
            stopped: None,
        };
        let event = |what: &str, data| recovery_event(recovery, &entry.service, plan.version(), what, now, data);
        let finished = self.finished(recovery, entry, RecoveryOutcome::Cancelled, &reason, plan, now);
        Command::Expire {
            events: vec![event("expired", expired.into()), event("escalated", escalated.into()), finished],
        }
    }

    fn finished<T: Topology + ?Sized>(
        &self,
        recovery: &RecoveryId,
        entry: &Entry,
        outcome: RecoveryOutcome,
        reason: &str,
        plan: &T,
        now: DateTime<Utc>,
    ) -> Event {
        let trigger = entry.trigger.as_ref().map(|(data, _)| data);
        let ran = entry.started_at.map_or(0, |started| now.signed_duration_since(started).num_milliseconds());
        let data = RecoveryFinished {
            recovery: recovery.clone(),
            incident: entry.incident.clone(),
            attempt: trigger.map_or(1, |t| t.attempt),
            procedure: entry.procedure.clone(),
            method: trigger.and_then(|t| t.method),
            outcome,
            duration_ms: u64::try_from(ran).unwrap_or_default(),
            error_class: (outcome == RecoveryOutcome::Interrupted).then_some(ErrorClass::Unknown),
            reason: Some(reason.to_owned()),
        };
        recovery_event(recovery, &entry.service, plan.version(), "finished", now, data.into())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_people;
#[cfg(test)]
mod tests_world;
