//! The incident fold: events of the alerts and recoveries topics to incidents, alerts, recoveries and their steps.
//!
//! The fold does not depend on the order in which events come: what was late, out of order, or delivered twice
//! gives the same [`Record`]. Each fact is kept with its event's stamp (time, source, id), and of two events that
//! state the same fact the first (for corrections: the last) by stamp counts, whichever was folded first. What is
//! read ([`Incident`], [`Recovery`], [`Alert`]) is put together from the facts when it is asked for, in `read`.

mod maintenance;
mod model;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::event::{
    AlertRaised, AlertResolved, AlertSuppressed, Event, EventData, EventRef, IncidentAcknowledged, IncidentCorrected,
    IncidentOpened, IncidentResolved, Kind, RecoveryCancelled, RecoveryFinished, RecoveryRejected, RecoveryStarted,
    RecoveryTriggered, RecoveryVerified, StepFinished, StepStarted, Told,
};
use crate::ids::{AlertId, EventId, IncidentId, PlanVersion, RecoveryId, ServiceId, Source, StepId};

use maintenance::Windows;
pub use model::{Acknowledgement, Alert, Correction, Incident, Maintained, Recovery, Refusal, Refused, StepRun};
use read::{read_alert, read_recovery};

/// When and by which event something was said: the order in which facts are weighed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    at: DateTime<Utc>,
    source: Source,
    id: EventId,
}

impl Stamp {
    fn of(event: &Event) -> Self {
        Self { at: event.occurred_at, source: event.source.clone(), id: event.id.clone() }
    }

    fn event(&self) -> EventRef {
        EventRef { source: self.source.clone(), id: self.id.clone() }
    }
}

/// A fact, said first by the event of this stamp.
#[derive(Debug, Clone, PartialEq)]
struct First<T>(Option<(Stamp, T)>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> First<T> {
    fn offer(&mut self, stamp: &Stamp, value: impl FnOnce() -> T) {
        if self.0.as_ref().is_none_or(|(held, _)| stamp < held) {
            self.0 = Some((stamp.clone(), value()));
        }
    }

    fn at(&self) -> Option<DateTime<Utc>> {
        self.0.as_ref().map(|(stamp, _)| stamp.at)
    }

    fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, value)| value)
    }
}

/// An event's service and plan beside its payload, for the facts that name neither.
#[derive(Debug, Clone, PartialEq)]
struct About<T> {
    service: ServiceId,
    plan: Option<PlanVersion>,
    data: T,
}

impl<T: Clone> About<T> {
    fn new(event: &Event, data: &T) -> Self {
        Self { service: event.subject.clone(), plan: event.plan.clone(), data: data.clone() }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
struct IncidentFacts {
    opened: First<About<IncidentOpened>>,
    acknowledged_by_human: First<String>,
    acknowledged_by_automation: First<String>,
    resolved: First<IncidentResolved>,
    corrections: BTreeMap<Stamp, IncidentCorrected>,
    escalated: First<()>,
    recoveries: BTreeSet<RecoveryId>,
    alerts: BTreeSet<AlertId>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct AlertFacts {
    raised: First<About<AlertRaised>>,
    suppressed: First<AlertSuppressed>,
    resolved: First<AlertResolved>,
    notified: First<()>,
    notifications_sent: u32,
    notifications_failed: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct RecoveryFacts {
    /// Incident and service, as the first event that names them says.
    about: First<About<IncidentId>>,
    triggered: First<RecoveryTriggered>,
    approved: First<String>,
    /// Somebody let one step of it go on.
    step_approved: First<String>,
    refused: First<Refusal>,
    started: First<RecoveryStarted>,
    verified: First<RecoveryVerified>,
    finished: First<RecoveryFinished>,
    escalated: First<()>,
    steps: BTreeMap<(u32, StepId, u32), StepFacts>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct StepFacts {
    started: First<StepStarted>,
    finished: First<StepFinished>,
}

/// Everything folded so far. Grows with incidents, alerts and recoveries, not with observations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Digests of the `(source, id)` folded: 16 bytes an event.
    seen: HashSet<[u8; 16]>,
    incidents: BTreeMap<IncidentId, IncidentFacts>,
    alerts: BTreeMap<AlertId, AlertFacts>,
    recoveries: BTreeMap<RecoveryId, RecoveryFacts>,
    windows: Windows,
}

/// Folds events, in whatever order they come.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Record {
    let mut record = Record::default();
    for event in events {
        record.evolve(event);
    }
    record
}

fn digest(event: &Event) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((event.source.as_str().len() as u64).to_le_bytes());
    hash.update(event.source.as_str());
    hash.update(event.id.as_str());
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

/// The alerts that a message told of, each once.
fn told<'a>(alert: &'a AlertId, members: &'a [Told]) -> BTreeSet<&'a AlertId> {
    if members.is_empty() { BTreeSet::from([alert]) } else { members.iter().map(|told| &told.alert).collect() }
}

impl Record {
    /// The kinds that the fold looks at: a reader of the log need fetch no others.
    pub const KINDS: &[Kind] = &[
        Kind::AlertRaised,
        Kind::AlertSuppressed,
        Kind::AlertResolved,
        Kind::NotificationSent,
        Kind::NotificationFailed,
        Kind::IncidentOpened,
        Kind::IncidentAcknowledged,
        Kind::IncidentResolved,
        Kind::IncidentCorrected,
        Kind::MaintenanceScheduled,
        Kind::MaintenanceCancelled,
        Kind::RecoveryTriggered,
        Kind::RecoveryApproved,
        Kind::RecoveryRejected,
        Kind::RecoveryCancelled,
        Kind::RecoveryExpired,
        Kind::RecoveryStarted,
        Kind::StepStarted,
        Kind::StepFinished,
        Kind::RecoveryVerified,
        Kind::RecoveryFinished,
        Kind::RecoveryEscalated,
    ];

    /// Takes one event in. One that was taken before (same source and id) changes nothing, whatever it says; nor
    /// does one of a dry run, in which nothing was done.
    pub fn evolve(&mut self, event: &Event) {
        let dry = event.data.recovery().is_some_and(RecoveryId::is_dry_run);
        if !Self::KINDS.contains(&event.kind()) || dry || !self.seen.insert(digest(event)) {
            return;
        }
        let stamp = Stamp::of(event);
        match &event.data {
            EventData::AlertRaised(data) => {
                // A warning has no incident.
                if data.condition.is_none() {
                    self.incident(&data.incident).alerts.insert(data.alert.clone());
                }
                self.alert(&data.alert).raised.offer(&stamp, || About::new(event, data));
            }
            EventData::AlertSuppressed(data) => self.alert(&data.alert).suppressed.offer(&stamp, || data.clone()),
            EventData::AlertResolved(data) => self.alert(&data.alert).resolved.offer(&stamp, || data.clone()),
            EventData::NotificationSent(data) => {
                for id in told(&data.alert, &data.members) {
                    let alert = self.alert(id);
                    alert.notified.offer(&stamp, || ());
                    alert.notifications_sent += 1;
                }
            }
            EventData::NotificationFailed(data) => {
                for id in told(&data.alert, &data.members) {
                    self.alert(id).notifications_failed += 1;
                }
            }
            EventData::IncidentOpened(data) => {
                self.incident(&data.incident).opened.offer(&stamp, || About::new(event, data));
            }
            EventData::IncidentAcknowledged(data) => self.acknowledge(&stamp, data),
            EventData::IncidentResolved(data) => {
                self.incident(&data.incident).resolved.offer(&stamp, || data.clone());
            }
            EventData::IncidentCorrected(data) => {
                self.incident(&data.incident).corrections.insert(stamp, data.clone());
            }
            EventData::MaintenanceScheduled(data) => self.windows.scheduled(event, stamp, data),
            EventData::MaintenanceCancelled(data) => self.windows.cancelled(&data.maintenance, stamp),
            _ => self.evolve_recovery(event, &stamp),
        }
    }

    fn evolve_recovery(&mut self, event: &Event, stamp: &Stamp) {
        match &event.data {
            EventData::RecoveryTriggered(data) => {
                let recovery = self.recovery(event, stamp, &data.recovery, &data.incident);
                recovery.triggered.offer(stamp, || data.clone());
            }
            // What people say of a recovery names no incident: who it is about is said by the others.
            EventData::RecoveryApproved(data) => {
                let recovery = self.recoveries.entry(data.recovery.clone()).or_default();
                let approved = if data.step.is_some() { &mut recovery.step_approved } else { &mut recovery.approved };
                approved.offer(stamp, || data.by.clone());
            }
            EventData::RecoveryRejected(RecoveryRejected { recovery, by, reason }) => {
                self.refuse(stamp, recovery, Refused::Rejected, Some((by, reason)));
            }
            EventData::RecoveryCancelled(RecoveryCancelled { recovery, by, reason, .. }) => {
                self.refuse(stamp, recovery, Refused::Cancelled, Some((by, reason)));
            }
            EventData::RecoveryExpired(data) => {
                self.recovery(event, stamp, &data.recovery, &data.incident);
                self.refuse(stamp, &data.recovery, Refused::Expired, None);
            }
            EventData::RecoveryStarted(data) => {
                let recovery = self.recovery(event, stamp, &data.recovery, &data.incident);
                recovery.started.offer(stamp, || data.clone());
            }
            EventData::StepStarted(data) => {
                let recovery = self.recovery(event, stamp, &data.recovery, &data.incident);
                let step = recovery.steps.entry((data.index, data.step.clone(), data.attempt)).or_default();
                step.started.offer(stamp, || data.clone());
            }
            EventData::StepFinished(data) => {
                let recovery = self.recovery(event, stamp, &data.recovery, &data.incident);
                let step = recovery.steps.entry((data.index, data.step.clone(), data.attempt)).or_default();
                step.finished.offer(stamp, || data.clone());
            }
            EventData::RecoveryVerified(data) => {
                let recovery = self.recovery(event, stamp, &data.recovery, &data.incident);
                recovery.verified.offer(stamp, || data.clone());
            }
            EventData::RecoveryFinished(data) => {
                let recovery = self.recovery(event, stamp, &data.recovery, &data.incident);
                recovery.finished.offer(stamp, || data.clone());
            }
            EventData::RecoveryEscalated(data) => {
                self.incident(&data.incident).escalated.offer(stamp, || ());
                if let Some(recovery) = &data.recovery {
                    self.recovery(event, stamp, recovery, &data.incident).escalated.offer(stamp, || ());
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, stamp: &Stamp, recovery: &RecoveryId, how: Refused, said: Option<(&String, &String)>) {
        let (by, reason) = said.map(|(by, reason)| (by.clone(), reason.clone())).unzip();
        let recovery = self.recoveries.entry(recovery.clone()).or_default();
        recovery.refused.offer(stamp, || Refusal { at: stamp.at, how, by, reason });
    }

    fn acknowledge(&mut self, stamp: &Stamp, data: &IncidentAcknowledged) {
        let incident = self.incident(&data.incident);
        let side = match data.automated {
            true => &mut incident.acknowledged_by_automation,
            false => &mut incident.acknowledged_by_human,
        };
        side.offer(stamp, || data.by.clone());
    }

    fn incident(&mut self, id: &IncidentId) -> &mut IncidentFacts {
        self.incidents.entry(id.clone()).or_default()
    }

    fn alert(&mut self, id: &AlertId) -> &mut AlertFacts {
        self.alerts.entry(id.clone()).or_default()
    }

    fn recovery(&mut self, event: &Event, stamp: &Stamp, id: &RecoveryId, incident: &IncidentId) -> &mut RecoveryFacts {
        if !incident.is_of_request() {
            self.incident(incident).recoveries.insert(id.clone());
        }
        let recovery = self.recoveries.entry(id.clone()).or_default();
        recovery.about.offer(stamp, || About::new(event, incident));
        recovery
    }

    /// Incidents whose opening is known, in id order.
    pub fn incidents(&self) -> impl Iterator<Item = Incident> + '_ {
        self.incidents.iter().filter_map(|(id, facts)| self.read_incident(id, facts))
    }

    /// The incident of this id, once its opening is known.
    #[must_use]
    pub fn incident_of(&self, id: &IncidentId) -> Option<Incident> {
        self.read_incident(id, self.incidents.get(id)?)
    }

    /// Alerts whose raising is known, in id order.
    pub fn alerts(&self) -> impl Iterator<Item = Alert> + '_ {
        self.alerts.iter().filter_map(|(id, facts)| read_alert(id, facts))
    }

    /// Recoveries whose incident is known, in id order.
    pub fn recoveries(&self) -> impl Iterator<Item = Recovery> + '_ {
        self.recoveries.iter().filter_map(|(id, facts)| read_recovery(id, facts))
    }

    /// The maintenance windows told of that cover a service, as start and end, in no order.
    pub fn maintenance_of(&self, service: &ServiceId) -> impl Iterator<Item = (DateTime<Utc>, DateTime<Utc>)> {
        self.windows.of(service).map(|(_, from, until)| (from, until))
    }

    /// Incidents that something was said of, but whose opening never came.
    #[must_use]
    pub fn orphans(&self) -> usize {
        self.incidents.values().filter(|facts| facts.opened.get().is_none()).count()
    }

    /// Distinct events that the fold took in.
    #[must_use]
    pub fn events(&self) -> usize {
        self.seen.len()
    }
}
