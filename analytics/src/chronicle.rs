//! What happened beside incidents and recoveries, one entry a thing: messages, backups, deployments, drills, moves
//! between sites, improvements, corrections, and the plan as it was at any time.
//!
//! Like the incident fold it does not depend on the order in which events come: of what is said once the earliest
//! counts, of what may be said anew the latest, by the time and the name of the event. Each event must come once.
//! It grows with these things, not with observations; what is measured again and again is read from the log instead.

mod plans;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use rebound_schemas::event::{
    BackupFinished, DeploymentFinished, DeploymentOutcome, DrillFinished, Event, EventData, FailbackFinished,
    FailoverFinished, ImprovementOpened, IncidentCorrected, Kind, NotificationFailed, NotificationPlanned, Told,
};
use rebound_schemas::{EventId, IncidentId, RecoveryId, ServiceId, SiteId, Source};

pub(crate) use plans::at;
pub use plans::{Plans, Promise, Valid, Version};

/// When and by which event something was said: the order in which facts are weighed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Who said so.
    pub source: Source,
    /// The event's id within it.
    pub id: EventId,
}

impl Stamp {
    fn of(event: &Event) -> Self {
        Self { at: event.occurred_at, source: event.source.clone(), id: event.id.clone() }
    }
}

/// A fact with the event that counts for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stated<T>(Option<(Stamp, T)>);

impl<T> Default for Stated<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Stated<T> {
    /// Counts if it was said before all others.
    fn first(&mut self, stamp: &Stamp, value: &T) {
        if self.0.as_ref().is_none_or(|(held, _)| stamp < held) {
            self.0 = Some((stamp.clone(), value.clone()));
        }
    }

    /// Counts if it was said after all others.
    fn last(&mut self, stamp: &Stamp, value: &T) {
        if self.0.as_ref().is_none_or(|(held, _)| stamp > held) {
            self.0 = Some((stamp.clone(), value.clone()));
        }
    }

    /// When; `None` if nobody said so.
    #[must_use]
    pub fn at(&self) -> Option<DateTime<Utc>> {
        self.0.as_ref().map(|(stamp, _)| stamp.at)
    }

    /// What.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, value)| value)
    }
}

/// What of a message is the same in everything said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Addressed {
    /// The service of the event.
    pub service: ServiceId,
    /// Where it goes.
    pub channel: String,
    /// The first transition that it tells.
    pub first: Told,
    /// How many transitions it tells.
    pub changes: usize,
}

/// A message to people, however often it was tried.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// What it is.
    pub about: Stated<Addressed>,
    /// What was planned.
    pub planned: Stated<NotificationPlanned>,
    /// The attempt at which its channel took it.
    pub sent: Stated<u32>,
    /// How it was given up last.
    pub failed: Stated<NotificationFailed>,
    /// How often people had it tried again.
    pub retried: usize,
}

/// The runs of one backup schedule of one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Backups {
    /// Every run, in order.
    pub runs: BTreeMap<Stamp, BackupFinished>,
    verified: BTreeMap<Stamp, bool>,
}

impl Backups {
    /// What the first verification after a run, and before the next, found, and when.
    #[must_use]
    pub fn verification(&self, run: &Stamp) -> Option<(DateTime<Utc>, bool)> {
        let next = self.runs.keys().find(|other| *other > run).map(|next| next.at);
        let after = self.verified.iter().find(|(stamp, _)| stamp.at >= run.at);
        after.filter(|(stamp, _)| next.is_none_or(|next| stamp.at < next)).map(|(stamp, passed)| (stamp.at, *passed))
    }
}

/// A deployment, however often it was reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deployment {
    /// What was said first.
    pub first: Stated<DeploymentFinished>,
    /// What was said last.
    pub last: Stated<DeploymentFinished>,
    /// Whether it failed or was taken back, at once or later.
    pub failed: bool,
    /// How often it was reported.
    pub reports: usize,
}

/// A run of a drill.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Who started it.
    pub started: Stated<String>,
    /// How it ended.
    pub finished: Stated<DrillFinished>,
}

/// A move between sites.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Move {
    /// The service or site that it is about.
    pub subject: Stated<ServiceId>,
    /// From where and to where.
    pub sites: Stated<(SiteId, SiteId)>,
    /// The recovery that it is part of.
    pub started: Stated<Option<RecoveryId>>,
    /// How it ended.
    pub finished: Stated<FailoverFinished>,
    /// How the load was moved back.
    pub back: Stated<FailbackFinished>,
}

/// An improvement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Improvement {
    /// What it is about.
    pub subject: Stated<ServiceId>,
    /// What was decided.
    pub opened: Stated<ImprovementOpened>,
    /// Whether it was done, and what came of it.
    pub closed: Stated<(bool, Option<String>)>,
}

/// Everything that was folded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chronicle {
    /// By their keys.
    pub messages: BTreeMap<String, Message>,
    /// By service and schedule.
    pub backups: BTreeMap<(ServiceId, String), Backups>,
    /// By service and name.
    pub deployments: BTreeMap<(ServiceId, String), Deployment>,
    /// By drill and run.
    pub drills: BTreeMap<(String, String), Run>,
    /// Faults put in on purpose, by the drill that they are part of; those of none under "".
    pub faults: BTreeMap<String, BTreeSet<DateTime<Utc>>>,
    /// By name.
    pub moves: BTreeMap<String, Move>,
    /// By name.
    pub improvements: BTreeMap<String, Improvement>,
    /// In order, with the service.
    pub corrections: BTreeMap<Stamp, (ServiceId, IncidentCorrected)>,
    /// The plan, at any time.
    pub plans: Plans,
}

impl Chronicle {
    /// The kinds that the fold looks at.
    pub const KINDS: &[Kind] = &[
        Kind::NotificationPlanned,
        Kind::NotificationSent,
        Kind::NotificationFailed,
        Kind::NotificationRetried,
        Kind::BackupFinished,
        Kind::BackupVerified,
        Kind::DeploymentFinished,
        Kind::DrillStarted,
        Kind::DrillFinished,
        Kind::FaultInjected,
        Kind::FailoverStarted,
        Kind::FailoverFinished,
        Kind::FailbackFinished,
        Kind::ImprovementOpened,
        Kind::ImprovementClosed,
        Kind::IncidentCorrected,
        Kind::PlanAdopted,
    ];

    /// Takes one event in.
    pub fn evolve(&mut self, event: &Event) {
        let stamp = Stamp::of(event);
        let service = &event.subject;
        match &event.data {
            EventData::BackupFinished(data) => {
                let backups = self.backups.entry((service.clone(), data.backup.clone())).or_default();
                backups.runs.insert(stamp, data.clone());
            }
            EventData::BackupVerified(data) => {
                let backups = self.backups.entry((service.clone(), data.backup.clone())).or_default();
                backups.verified.insert(stamp, data.passed);
            }
            EventData::DeploymentFinished(data) => {
                let known = self.deployments.entry((service.clone(), data.deployment.clone())).or_default();
                known.first.first(&stamp, data);
                known.last.last(&stamp, data);
                known.failed |= data.outcome != DeploymentOutcome::Succeeded;
                known.reports += 1;
            }
            EventData::IncidentCorrected(data) => {
                self.corrections.insert(stamp, (service.clone(), data.clone()));
            }
            EventData::ImprovementOpened(data) => {
                let known = self.improvements.entry(data.improvement.clone()).or_default();
                known.subject.first(&stamp, service);
                known.opened.first(&stamp, data);
            }
            EventData::ImprovementClosed(data) => {
                let known = self.improvements.entry(data.improvement.clone()).or_default();
                known.subject.first(&stamp, service);
                known.closed.first(&stamp, &(data.done, data.comment.clone()));
            }
            EventData::PlanAdopted(data) => {
                if let Some(version) = &event.plan {
                    self.plans.adopt(event.occurred_at, version, data);
                }
            }
            _ => {
                self.evolve_message(event, &stamp);
                self.evolve_exercise(event, &stamp);
            }
        }
    }

    fn evolve_message(&mut self, event: &Event, stamp: &Stamp) {
        let service = event.subject.clone();
        let mut address = |key: &str, channel: &str, first: Told, changes: usize| {
            let about = Addressed { service: service.clone(), channel: channel.to_owned(), first, changes };
            let message = self.messages.entry(key.to_owned()).or_default();
            message.about.first(stamp, &about);
        };
        match &event.data {
            EventData::NotificationPlanned(data) => {
                if let Some(first) = data.members.first() {
                    address(&data.dedup_key, data.channel.as_str(), first.clone(), data.members.len());
                }
                self.messages.entry(data.dedup_key.clone()).or_default().planned.first(stamp, data);
            }
            EventData::NotificationSent(data) => {
                let (alert, incident) = (data.alert.clone(), data.incident.clone());
                let first = Told { alert, incident, transition: data.transition, repeat: 0 };
                address(&data.dedup_key, data.channel.as_str(), first, data.members.len().max(1));
                self.messages.entry(data.dedup_key.clone()).or_default().sent.first(stamp, &data.attempt);
            }
            EventData::NotificationFailed(data) => {
                let (alert, incident) = (data.alert.clone(), data.incident.clone());
                let first = Told { alert, incident, transition: data.transition, repeat: 0 };
                address(&data.dedup_key, data.channel.as_str(), first, data.members.len().max(1));
                self.messages.entry(data.dedup_key.clone()).or_default().failed.last(stamp, data);
            }
            EventData::NotificationRetried(data) => {
                self.messages.entry(data.dedup_key.clone()).or_default().retried += 1;
            }
            _ => {}
        }
    }

    /// Drills and moves between sites.
    fn evolve_exercise(&mut self, event: &Event, stamp: &Stamp) {
        match &event.data {
            EventData::DrillStarted(data) => {
                let run = self.drills.entry((data.drill.to_string(), data.run.clone())).or_default();
                run.started.first(stamp, &data.by);
            }
            EventData::DrillFinished(data) => {
                let run = self.drills.entry((data.drill.to_string(), data.run.clone())).or_default();
                run.finished.first(stamp, data);
            }
            EventData::FaultInjected(data) => {
                let drill = data.drill.as_ref().map(ToString::to_string).unwrap_or_default();
                self.faults.entry(drill).or_default().insert(event.occurred_at);
            }
            EventData::FailoverStarted(data) => {
                let known = self.moved(&data.failover, event, stamp, &data.from_site, &data.to_site);
                known.started.first(stamp, &data.recovery);
            }
            EventData::FailoverFinished(data) => {
                let known = self.moved(&data.failover, event, stamp, &data.from_site, &data.to_site);
                known.finished.first(stamp, data);
            }
            EventData::FailbackFinished(data) => {
                // What comes back was there: the sites are those of the way out.
                let known = self.moved(&data.failover, event, stamp, &data.to_site, &data.from_site);
                known.back.first(stamp, data);
            }
            _ => {}
        }
    }

    fn moved(&mut self, name: &str, event: &Event, stamp: &Stamp, from: &SiteId, to: &SiteId) -> &mut Move {
        let known = self.moves.entry(name.to_owned()).or_default();
        known.subject.first(stamp, &event.subject);
        known.sites.first(stamp, &(from.clone(), to.clone()));
        known
    }

    /// How many faults were put in by a drill between two times.
    #[must_use]
    pub fn faults_of(&self, drill: &str, from: DateTime<Utc>, until: Option<DateTime<Utc>>) -> usize {
        let faults = self.faults.get(drill).into_iter().flatten();
        faults.filter(|at| from <= **at && until.is_none_or(|until| **at <= until)).count()
    }

    /// How often each incident was corrected.
    #[must_use]
    pub fn corrected(&self) -> BTreeMap<&IncidentId, usize> {
        let mut times = BTreeMap::new();
        for (_, correction) in self.corrections.values() {
            *times.entry(&correction.incident).or_default() += 1;
        }
        times
    }
}
