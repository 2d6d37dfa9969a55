//! What surrounds incidents: deployments, drills, faults put in on purpose, moves between sites, backups, copies,
//! improvements, and what was measured while something was down.
//!
//! A fold beside the incident fold, made when a report asks for it: it knows the incidents beforehand, and keeps of
//! every measurement only what it says of one of them, so that it grows with incidents and not with measurements.
//! Like the incident fold it does not depend on the order of events.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{DeploymentOutcome, Event, EventData, Kind, RecoveryMethod};
use rebound_schemas::incident::{Incident, Recovery};
use rebound_schemas::plan::Plan;
use rebound_schemas::{IncidentId, RecoveryId, ServiceId};
use serde::Serialize;

/// Most resources told apart in one incident; the rest are counted together.
const MOST_RESOURCES: usize = 32;
/// An incident whose last success is not known began within this before t0.
const ONSET: TimeDelta = TimeDelta::minutes(5);

/// A deployment, however often it was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// When it first ended.
    pub at: DateTime<Utc>,
    /// Whether it failed or was taken back, at once or later.
    pub failed: bool,
}

/// An improvement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Improvement {
    /// Its subject: the service that it is about, or a name of its own.
    pub subject: ServiceId,
    /// What it is about; empty if only its end is known.
    pub title: String,
    /// When it was decided on.
    pub opened_at: Option<DateTime<Utc>>,
    /// When it was done; `None` if it is under way or was dropped.
    pub done_at: Option<DateTime<Utc>>,
}

/// Use of a resource while something was down; shares of 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Usage {
    /// How many measurements.
    pub n: usize,
    /// Their sum.
    #[serde(skip)]
    sum: f64,
    /// The largest.
    pub max: f64,
}

impl Usage {
    /// Mean of the measurements.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }

    fn add(&mut self, value: f64) {
        self.n += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    /// Takes in another's measurements.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }
}

/// Service levels while something was down.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Levels {
    /// Windows with an error rate.
    pub windows: usize,
    /// Their length, in seconds.
    pub seconds: f64,
    /// Error rate × length.
    weighted: f64,
    /// The worst error rate.
    pub worst: f64,
    /// Windows with a throughput too.
    pub counted: usize,
    /// Requests in those.
    pub requests: f64,
    /// Of which failed.
    pub failed: f64,
}

impl Levels {
    /// Mean error rate, by time; 0 to 1.
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.weighted / self.seconds)
    }

    /// Takes in another's windows.
    pub fn merge(&mut self, other: &Self) {
        self.windows += other.windows;
        self.seconds += other.seconds;
        self.weighted += other.weighted;
        self.worst = self.worst.max(other.worst);
        self.counted += other.counted;
        self.requests += other.requests;
        self.failed += other.failed;
    }
}

/// What was measured of one incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    /// The latest end of this and all before it: how far back one must look for those that still last.
    reach: DateTime<Utc>,
    /// Newest data of a backup that ended between the t0 before and this.
    backup: Option<DateTime<Utc>>,
    /// Newest data of a copy, likewise.
    copy: Option<DateTime<Utc>>,
    /// Use of resources, by name.
    pub resources: BTreeMap<String, Usage>,
    /// Service levels.
    pub levels: Levels,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Move {
    recovery: Option<RecoveryId>,
    data_until: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Run {
    started: Option<DateTime<Utc>>,
    finished: Option<DateTime<Utc>>,
}

/// Everything known around a set of incidents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Surroundings {
    deployments: BTreeMap<(ServiceId, String), Deployment>,
    faults: BTreeMap<ServiceId, BTreeSet<DateTime<Utc>>>,
    drills: BTreeMap<(String, String), Run>,
    moves: BTreeMap<String, Move>,
    improvements: BTreeMap<String, Improvement>,
    marks: BTreeMap<ServiceId, Vec<(IncidentId, Mark)>>,
}

impl Surroundings {
    /// The kinds that the fold looks at.
    pub const KINDS: &[Kind] = &[
        Kind::DeploymentFinished,
        Kind::FaultInjected,
        Kind::DrillStarted,
        Kind::DrillFinished,
        Kind::FailoverStarted,
        Kind::FailoverFinished,
        Kind::BackupFinished,
        Kind::ReplicationMeasured,
        Kind::ResourceMeasured,
        Kind::ServiceLevelMeasured,
        Kind::ImprovementOpened,
        Kind::ImprovementClosed,
    ];

    /// Nothing yet, around these incidents.
    #[must_use]
    pub fn around(incidents: &[Incident]) -> Self {
        let mut marks: BTreeMap<ServiceId, Vec<(IncidentId, Mark)>> = BTreeMap::new();
        for incident in incidents {
            let (from, until) = (incident.first_failure_at, incident.recovered_at.unwrap_or(DateTime::<Utc>::MAX_UTC));
            let (resources, levels) = (BTreeMap::new(), Levels::default());
            let mark = Mark { from, until, reach: until, backup: None, copy: None, resources, levels };
            marks.entry(incident.service.clone()).or_default().push((incident.id.clone(), mark));
        }
        for marks in marks.values_mut() {
            marks.sort_by(|(one, a), (two, b)| (a.from, one).cmp(&(b.from, two)));
            let mut reach = DateTime::<Utc>::MIN_UTC;
            for (_, mark) in marks {
                reach = reach.max(mark.until);
                mark.reach = reach;
            }
        }
        Self { marks, ..Self::default() }
    }

    /// Takes one event in; each must come once.
    pub fn evolve(&mut self, event: &Event) {
        let (service, at) = (&event.subject, event.occurred_at);
        match &event.data {
            EventData::DeploymentFinished(data) => {
                let failed = data.outcome != DeploymentOutcome::Succeeded;
                let key = (service.clone(), data.deployment.clone());
                let known = self.deployments.entry(key).or_insert(Deployment { at, failed });
                *known = Deployment { at: known.at.min(at), failed: known.failed || failed };
            }
            EventData::FaultInjected(_) => {
                self.faults.entry(service.clone()).or_default().insert(at);
            }
            EventData::DrillStarted(data) => {
                self.run(data.drill.as_str(), &data.run).started = Some(at);
            }
            EventData::DrillFinished(data) => {
                self.run(data.drill.as_str(), &data.run).finished = Some(at);
            }
            EventData::FailoverStarted(data) => {
                self.moves.entry(data.failover.clone()).or_default().recovery.clone_from(&data.recovery);
            }
            EventData::FailoverFinished(data) if data.succeeded => {
                self.moves.entry(data.failover.clone()).or_default().data_until = data.data_until;
            }
            EventData::BackupFinished(data) if data.succeeded => {
                if let (Some(mark), Some(until)) = (self.next(service, at), data.data_until) {
                    mark.backup = mark.backup.max(Some(until));
                }
            }
            EventData::ReplicationMeasured(data) => {
                let lag = TimeDelta::microseconds((data.lag_seconds.clamp(0.0, 1e9) * 1e6) as i64);
                if let Some(mark) = self.next(service, at) {
                    mark.copy = mark.copy.max(Some(at - lag));
                }
            }
            EventData::ResourceMeasured(data) if data.utilization.is_finite() => {
                self.during(service, at, |mark| {
                    let known = mark.resources.contains_key(&data.resource) || mark.resources.len() < MOST_RESOURCES;
                    let name = if known { data.resource.as_str() } else { "(others)" };
                    mark.resources.entry(name.to_owned()).or_default().add(data.utilization);
                });
            }
            EventData::ServiceLevelMeasured(data) => {
                let seconds = data.window_seconds;
                if let Some(rate) = data.error_rate.filter(|rate| rate.is_finite() && seconds > 0.0 && seconds < 1e9) {
                    // A window counts where its middle is.
                    let middle = at - TimeDelta::microseconds((seconds * 5e5) as i64);
                    self.during(service, middle, |mark| {
                        let levels = &mut mark.levels;
                        levels.windows += 1;
                        levels.seconds += seconds;
                        levels.weighted += rate * seconds;
                        levels.worst = levels.worst.max(rate);
                        if let Some(throughput) = data.throughput_per_second.filter(|t| t.is_finite()) {
                            levels.counted += 1;
                            levels.requests += throughput * seconds;
                            levels.failed += throughput * seconds * rate;
                        }
                    });
                }
            }
            EventData::ImprovementOpened(data) => {
                let known = self.improvement(&data.improvement, service);
                known.title.clone_from(&data.title);
                known.opened_at = Some(at);
                known.subject = service.clone();
            }
            EventData::ImprovementClosed(data) => {
                let known = self.improvement(&data.improvement, service);
                if data.done {
                    known.done_at = Some(known.done_at.map_or(at, |first| first.min(at)));
                }
            }
            _ => {}
        }
    }

    fn run(&mut self, drill: &str, run: &str) -> &mut Run {
        self.drills.entry((drill.to_owned(), run.to_owned())).or_default()
    }

    fn improvement(&mut self, name: &str, subject: &ServiceId) -> &mut Improvement {
        let unknown = || Improvement { subject: subject.clone(), title: String::new(), opened_at: None, done_at: None };
        self.improvements.entry(name.to_owned()).or_insert_with(unknown)
    }

    /// The first incident from a time on.
    fn next(&mut self, service: &ServiceId, at: DateTime<Utc>) -> Option<&mut Mark> {
        let marks = self.marks.get_mut(service)?;
        let next = marks.partition_point(|(_, mark)| mark.from < at);
        marks.get_mut(next).map(|(_, mark)| mark)
    }

    /// The incidents that last at a time.
    fn during(&mut self, service: &ServiceId, at: DateTime<Utc>, mut each: impl FnMut(&mut Mark)) {
        let Some(marks) = self.marks.get_mut(service) else { return };
        let begun = marks.partition_point(|(_, mark)| mark.from <= at);
        for (_, mark) in marks[..begun].iter_mut().rev().take_while(|(_, mark)| at < mark.reach) {
            if at < mark.until {
                each(mark);
            }
        }
    }

    /// What was measured of an incident.
    #[must_use]
    pub fn mark(&self, incident: &Incident) -> Option<&Mark> {
        let marks = self.marks.get(&incident.service)?;
        let wanted = (incident.first_failure_at, &incident.id);
        let found = marks.binary_search_by(|(id, mark)| (mark.from, id).cmp(&wanted)).ok()?;
        Some(&marks[found].1)
    }

    /// Deployments with their services.
    pub fn deployments(&self) -> impl Iterator<Item = (&ServiceId, Deployment)> {
        self.deployments.iter().map(|((service, _), deployment)| (service, *deployment))
    }

    /// An improvement of this name.
    #[must_use]
    pub fn improvement_of(&self, name: &str) -> Option<&Improvement> {
        self.improvements.get(name)
    }

    /// Names of improvements.
    pub fn improvements(&self) -> impl Iterator<Item = &str> {
        self.improvements.keys().map(String::as_str)
    }

    /// Whether an incident was made on purpose: a fault was put into its service while the onset can have been, or t0
    /// lies in the run of a drill that the plan has for the service (for all, if it names none).
    #[must_use]
    pub fn is_drill(&self, incident: &Incident, plan: Option<&Plan>) -> bool {
        let t0 = incident.first_failure_at;
        let onset = incident.last_success_at.unwrap_or(t0 - ONSET).min(t0);
        let faults = self.faults.get(&incident.service);
        if faults.is_some_and(|faults| faults.range(onset..=t0).next().is_some()) {
            return true;
        }
        self.drills.iter().any(|((drill, _), run)| {
            let covers =
                run.started.is_some_and(|started| started <= t0) && run.finished.is_none_or(|finished| t0 <= finished);
            let planned = plan.and_then(|plan| plan.drills().iter().find(|(id, _)| id.as_str() == drill));
            covers
                && planned
                    .is_some_and(|(_, drill)| drill.services.is_empty() || drill.services.contains(&incident.service))
        })
    }

    /// The newest data that a recovery brought back, where that is known.
    ///
    /// | how it was recovered | newest recovered data |
    /// |---|---|
    /// | moved to a site, which said up to when its data goes | that |
    /// | database restore, manual restore | of the newest backup that ended before t0 |
    /// | active-passive, synchronous replication, warm standby | of the copy, when last measured before t0 |
    /// | otherwise | not known |
    #[must_use]
    pub fn data_until(
        &self,
        incident: &Incident,
        recovery: Option<&Recovery>,
        method: Option<RecoveryMethod>,
    ) -> Option<DateTime<Utc>> {
        let moved = recovery.and_then(|recovery| {
            let moves = self.moves.values().filter(|it| it.recovery.as_ref() == Some(&recovery.id));
            moves.filter_map(|it| it.data_until).max()
        });
        if moved.is_some() {
            return moved;
        }
        let before = self.marks.get(&incident.service)?.iter().map(|(_, mark)| mark);
        let before = before.take_while(|mark| mark.from <= incident.first_failure_at);
        match method? {
            RecoveryMethod::DatabaseRestore | RecoveryMethod::ManualRestore => {
                before.filter_map(|mark| mark.backup).max()
            }
            RecoveryMethod::ActivePassive | RecoveryMethod::SynchronousReplication | RecoveryMethod::WarmStandby => {
                before.filter_map(|mark| mark.copy).max()
            }
            _ => None,
        }
    }
}
