//! The rules as one pure fold: events in, decisions out. No clock, no I/O; `now` is an argument.
//!
//! [`Engine::fold`] takes history and decides nothing; [`Engine::handle`] and [`Engine::tick`] decide, and have
//! folded what they answer, so that it changes nothing when it comes back over the bus.
//!
//! What is decided follows from comparing two things that are folded apart: what the probes say (from
//! observations alone) and what was decided before (from `alert.*`, `incident.*` and `recovery.*` alone). So the
//! topics, which have no common order, may be folded one after the other; and a decision is made at the event
//! that calls for it, or at the next one if it was lost.
//!
//! # How a shell starts
//! 1. [`Engine::new`], then [`Engine::own_where`] with the services of its partitions.
//! 2. [`Engine::fold`] all of the alerts and recoveries topics, of *every* partition: dependencies and windows
//!    may be anyone's. Older history of services without an open incident may be left out, except for silences
//!    and maintenance windows that are not over, recoveries younger than `intensity_period + backoff_reset`, the
//!    newest word about each pause, however old it is, and what a procedure's standing rests on: its last
//!    `demote_over` ends, and when it was last demoted and promoted.
//! 3. Fold the observations of the own partitions from [`lookback`] before the group's committed position up to it.
//! 4. From there on [`Engine::handle`] every event of the three topics (events of others' services are folded and
//!    may decide for their dependants), and call [`Engine::tick`] whenever [`Engine::next_deadline`] has come.
//!
//! A shell that kept a [`snapshot`] takes it up between 2 and 3, and folds observations from where that was begun.
//!
//! Decisions and the input's position are to be made durable together. If that fails, the engine has folded what
//! never happened: throw it away and start again.

mod decide;
mod quiet;
mod request;
mod service;
pub mod snapshot;
mod standing;
mod status;
#[cfg(test)]
mod tests;
mod warn;
mod withheld;
mod zones;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use rebound_schemas::event::{RecoveryEscalated, Severity, TriggerMode};
use rebound_schemas::plan::{Plan, Policy};
use rebound_schemas::{Event, EventData, IncidentId, Kind, PolicyId, ProcedureId, ServiceId, Source};

use self::quiet::Redundancy;
use self::service::ServiceState;
pub use self::status::{RecoveryState, RecoveryStatus, ServiceStatus};
use self::zones::Zone;
use crate::budget::Limits;
use crate::condition::{Judge, Objectives, Watch};
use crate::demotion::Standing;
use crate::flapping::STATES;
use crate::hold::Hold;
use crate::matcher;
use crate::pause::{Pauses, Scope, Target};
use crate::suppress::Windows;
use crate::threshold::{Rule, Verdict};
use crate::{SOURCE, delta};

/// Folds events to the state of every service of a plan, and decides.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    source: Source,
    index: HashMap<ServiceId, u32>,
    watched: Vec<Watched>,
    states: Vec<ServiceState>,
    policies: Vec<Rules>,
    windows: Windows,
    pauses: Pauses,
    groups: Vec<Redundancy>,
    zones: Vec<Zone>,
    /// Of procedures of which there is something to know.
    standings: BTreeMap<ProcedureId, Standing>,
    /// Those of which something changed since they were judged.
    unjudged: BTreeSet<ProcedureId>,
    /// What is to be decided anew, since something that held it back is over.
    again: BTreeSet<u32>,
    /// When the plan's own windows are looked at next; `None` if it has none (left).
    planned_due: Option<DateTime<Utc>>,
    /// From when on all observations were seen, see [`Engine::seen_since`].
    since: Option<DateTime<Utc>>,
    /// Incidents' services, for events whose subject may be another (acknowledgements from outside).
    incidents: HashMap<IncidentId, u32>,
    deadlines: BinaryHeap<Reverse<(DateTime<Utc>, u32)>>,
}

/// What the plan says of a service, by number.
#[derive(Debug)]
struct Watched {
    id: ServiceId,
    policy: u32,
    severity: Severity,
    procedure: Option<ProcedureId>,
    dependencies: Box<[u32]>,
    dependants: Box<[u32]>,
    /// Redundancy groups that it needs, and that it is in.
    needs_groups: Box<[u32]>,
    member_of: Box<[u32]>,
    /// Zones that it is in.
    zones: Box<[u32]>,
    probed: bool,
    objectives: Objectives,
}

/// What a policy says.
#[derive(Debug)]
struct Rules {
    id: PolicyId,
    rule: Rule,
    limits: Limits,
    trigger: TriggerMode,
    approve_within: TimeDelta,
    hold: Hold,
    judges: Vec<Judge>,
}

impl Engine {
    /// An engine for the services of a plan; it owns none yet and has folded nothing.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        let policies: Vec<Rules> = plan
            .policies()
            .values()
            .map(|policy| Rules {
                id: policy.id.clone(),
                rule: Rule::from(policy),
                limits: Limits::from(policy),
                trigger: policy.trigger,
                approve_within: delta(policy.approve_within),
                hold: Hold::new(policy.hold, policy.keep_firing),
                judges: Judge::of(&plan, policy),
            })
            .collect();
        let number: HashMap<&PolicyId, u32> = plan.policies().keys().zip(0..).collect();
        let index: HashMap<ServiceId, u32> = plan.services().keys().cloned().zip(0..).collect();
        let mut dependants: Vec<Vec<u32>> = vec![Vec::new(); index.len()];
        let groups = quiet::groups(&plan, &index);
        let zones = zones::zones(&plan, &index);
        let mut watched: Vec<Watched> = Vec::with_capacity(index.len());
        for (service, at) in plan.services().values().zip(0_u32..) {
            let dependencies: Box<[u32]> =
                service.depends_on.iter().filter_map(|dependency| index.get(dependency).copied()).collect();
            for dependency in &dependencies {
                dependants[*dependency as usize].push(at);
            }
            let needs_groups: Box<[u32]> = (0..groups.len() as u32)
                .filter(|n| service.depends_on_groups.iter().any(|id| **id == *groups[*n as usize].id))
                .collect();
            for member in needs_groups.iter().flat_map(|group| &groups[*group as usize].members) {
                if *member != at && !dependants[*member as usize].contains(&at) {
                    dependants[*member as usize].push(at);
                }
            }
            let member_of = (0..groups.len() as u32).filter(|n| groups[*n as usize].members.contains(&at)).collect();
            let tier = plan.tiers().get(&service.tier).map(|tier| tier.severity);
            watched.push(Watched {
                id: service.id.clone(),
                policy: *number.get(&service.policy).expect("a plan's services name policies that it has"),
                severity: plan.policies()[&service.policy].severity.or(tier).unwrap_or(Severity::Critical),
                procedure: service.procedure.clone(),
                dependencies,
                dependants: Box::default(),
                needs_groups,
                member_of,
                zones: (0..zones.len() as u32).filter(|n| zones[*n as usize].contains(at)).collect(),
                probed: plan.probes_of(&service.id).next().is_some(),
                objectives: match plan.policies()[&service.policy].conditions.is_empty() {
                    true => Objectives::default(),
                    false => Objectives::new(&plan, service),
                },
            });
        }
        for (service, dependants) in watched.iter_mut().zip(dependants) {
            service.dependants = dependants.into();
        }
        Self {
            source: Source::new(SOURCE).expect("the source's name follows the rule for sources"),
            states: watched
                .iter()
                .map(|watched| ServiceState {
                    watches: policies[watched.policy as usize].judges.iter().map(Watch::new).collect(),
                    ..ServiceState::default()
                })
                .collect(),
            index,
            watched,
            policies,
            windows: Windows::default(),
            pauses: Pauses::default(),
            groups,
            zones,
            standings: BTreeMap::new(),
            unjudged: BTreeSet::new(),
            again: BTreeSet::new(),
            planned_due: (!plan.maintenance().is_empty()).then_some(DateTime::<Utc>::MIN_UTC),
            since: None,
            incidents: HashMap::new(),
            deadlines: BinaryHeap::new(),
            plan,
        }
    }

    /// The plan that is decided by.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Says from when on every observation of the owned services was, or will be, folded: what time brings about
    /// (silence, an old backup) counts from then where nothing older is known. Without it, from the first sign.
    pub fn seen_since(&mut self, since: DateTime<Utc>) {
        self.since = Some(since);
        for at in 0..self.watched.len() {
            self.wake(at as u32);
        }
    }

    /// Sets which services this instance decides for; all others are folded only as dependencies.
    ///
    /// What was observed of a service is forgotten when it is gained or lost: fold its observations anew before
    /// handling live ones. What was decided about it is kept.
    pub fn own_where(&mut self, owned: impl Fn(&ServiceId) -> bool) {
        for at in 0..self.watched.len() {
            let own = owned(&self.watched[at].id);
            self.own_number(at as u32, own);
        }
    }

    /// The same for one service; one that isn't in the plan is never owned.
    pub fn own(&mut self, service: &ServiceId, owned: bool) {
        if let Some(at) = self.index.get(service) {
            self.own_number(*at, owned);
        }
    }

    fn own_number(&mut self, at: u32, owned: bool) {
        let state = &mut self.states[at as usize];
        if state.owned != owned {
            state.owned = owned;
            state.forget_observations();
            self.wake(at);
        }
    }

    /// Folds history: decides nothing.
    pub fn fold(&mut self, event: &Event) {
        for at in self.fold_numbers(event) {
            self.wake(at);
            if event.kind() != Kind::ProbeCompleted {
                for n in 0..self.watched[at as usize].dependants.len() {
                    self.wake(self.watched[at as usize].dependants[n]);
                }
            }
        }
        for at in std::mem::take(&mut self.again) {
            self.wake(at);
        }
    }

    /// Folds one live event and decides; answers the events to append, in order, already folded.
    pub fn handle(&mut self, event: &Event, now: DateTime<Utc>) -> Vec<Event> {
        let now = now.trunc_subsecs(6);
        self.roll(now);
        let mut decided = Vec::new();
        let before: Option<(u32, bool)> = self.index.get(&event.subject).map(|at| (*at, self.has_failed(*at, now)));
        let touched = self.fold_numbers(event);
        self.demote(now, &mut decided);
        for at in &touched {
            if event.kind() == Kind::ProbeCompleted {
                self.states[*at as usize].heard_at = Some(now);
            }
            self.decide(*at, now, &mut decided);
        }
        // Another's decision about a dependency: its dependants may be told of now.
        if let Some((at, failed)) = before
            && failed != self.has_failed(at, now)
        {
            self.decide_dependants(at, now, &mut decided);
        }
        self.settle(now, &mut decided);
        decided
    }

    /// Decides what the passing of time calls for: the end of a silence, of a back-off, of a dependency's data.
    pub fn tick(&mut self, now: DateTime<Utc>) -> Vec<Event> {
        let now = now.trunc_subsecs(6);
        self.roll(now);
        let mut decided = Vec::new();
        self.demote(now, &mut decided);
        while let Some(Reverse((due, at))) = self.deadlines.peek().copied() {
            if due > now {
                break;
            }
            self.deadlines.pop();
            let state = &mut self.states[at as usize];
            if state.scheduled == Some(due) {
                state.scheduled = None;
                self.decide(at, now, &mut decided);
                self.decide_dependants(at, now, &mut decided);
            }
        }
        self.settle(now, &mut decided);
        self.windows.prune(now);
        decided
    }

    /// Decides anew about what something held back that is over.
    fn settle(&mut self, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        while let Some(at) = self.again.pop_first() {
            self.decide(at, now, decided);
        }
    }

    /// Lets a time pass in which nothing could be heard: this instance stood still, or its clock was set by so much
    /// (forward, or back where `by` is negative). So neither makes services unobserved that are not.
    pub fn stood_still(&mut self, by: TimeDelta) {
        for state in &mut self.states {
            state.heard_at = state.heard_at.map(|at| at.checked_add_signed(by).unwrap_or(at));
        }
    }

    /// When [`Engine::tick`] next has something to look at; it may turn out to be nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<DateTime<Utc>> {
        self.deadlines.peek().map(|Reverse((due, _))| *due)
    }

    /// Folds an event; answers the services that it is about.
    fn fold_numbers(&mut self, event: &Event) -> Vec<u32> {
        // What is imported is history: nothing is decided about it, however young it is.
        if event.source.is_import() {
            return Vec::new();
        }
        if matches!(
            event.data,
            EventData::SilenceCreated(_)
                | EventData::SilenceExpired(_)
                | EventData::MaintenanceScheduled(_)
                | EventData::MaintenanceCancelled(_)
        ) {
            let chosen = match &event.data {
                EventData::SilenceCreated(data) if !data.matchers.is_empty() => {
                    Some(matcher::choose(&self.plan, &data.services, &data.matchers))
                }
                _ => None,
            };
            let changed = self.windows.fold(event, chosen);
            let mut numbers: Vec<u32> = changed.iter().filter_map(|id| self.index.get(id).copied()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            return numbers;
        }
        if let Some(scope) = Scope::of(&event.data) {
            let changed = self.pauses.evolve(event);
            let down = |at: &u32| self.states[*at as usize].outage.is_some() && scope.covers(self.target(*at));
            return if changed { (0..self.watched.len() as u32).filter(down).collect() } else { Vec::new() };
        }
        if let EventData::RecoveryEscalated(RecoveryEscalated { stopped: Some(stopped), incident, .. }) = &event.data {
            self.told_of_stop(event, incident, stopped);
            return Vec::new();
        }
        self.stand(event);
        let at = match &event.data {
            EventData::IncidentAcknowledged(data) => self.incidents.get(&data.incident).copied(),
            EventData::IncidentResolved(data) => self.incidents.get(&data.incident).copied(),
            _ => None,
        };
        let Some(at) = at.or_else(|| self.index.get(&event.subject).copied()) else { return Vec::new() };
        let was_down = self.is_down(at);
        let policy = &self.policies[self.watched[at as usize].policy as usize];
        let state = &mut self.states[at as usize];
        let open_before = state.open_incidents().count();
        if !state.fold(policy, &self.watched[at as usize], event) {
            return Vec::new();
        }
        if let EventData::IncidentOpened(data) = &event.data {
            self.incidents.insert(data.incident.clone(), at);
        } else if state.open_incidents().count() < open_before
            && let EventData::IncidentResolved(data) = &event.data
        {
            self.incidents.remove(&data.incident);
        }
        self.count(at, was_down);
        vec![at]
    }

    /// What a pause may cover of a service.
    fn target(&self, at: u32) -> Target<'_> {
        let watched = &self.watched[at as usize];
        Target::of(&self.plan, &watched.id, watched.procedure.as_ref())
    }

    /// Has a folded service with an open incident looked at, as soon as time is told.
    fn wake(&mut self, at: u32) {
        let state = &self.states[at as usize];
        let turned = matches!(state.turned, Some((Verdict::Failed, _)));
        let asked = state.requests.as_ref().is_some_and(|requests| requests.is_pending());
        if state.owned && (state.outage.is_some() || turned || asked || !state.watches.is_empty()) {
            self.schedule(at, DateTime::UNIX_EPOCH);
        }
    }

    fn schedule(&mut self, at: u32, due: DateTime<Utc>) {
        let state = &mut self.states[at as usize];
        // A later deadline than the one that stands is found when that one comes: the heap stays small.
        if state.scheduled.is_none_or(|scheduled| due < scheduled) {
            state.scheduled = Some(due);
            self.deadlines.push(Reverse((due, at)));
        }
    }

    fn decide_dependants(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        for n in 0..self.watched[at as usize].dependants.len() {
            let dependant = self.watched[at as usize].dependants[n];
            if self.states[dependant as usize].outage.is_some() {
                self.decide(dependant, now, decided);
            }
        }
    }
}

/// How much of a service's observations must be folded after a restart for its streaks to be right: as many
/// intervals of its slowest probe as the threshold, the recoveries and flap detection look back.
///
/// Not covered: a streak that degraded observations stretch beyond that begins anew, so its alert comes later; and
/// a probe silent for longer no longer holds open an incident whose other probes have recovered.
#[must_use]
pub fn lookback_of(policy: &Policy, slowest: Duration) -> Duration {
    let conditions = policy.conditions.iter().map(|condition| Judge::lookback(condition, slowest)).max();
    let observations = policy.failures.max(policy.of.unwrap_or(0)).max(policy.recoveries).max(STATES) + 1;
    let held = policy.hold.max(policy.keep_firing);
    (slowest * observations + held).max(policy.silent_after).max(conditions.unwrap_or_default())
}

/// The longest [`lookback_of`] of a plan's services. One probe a day makes it weeks: a shell that can read a
/// service's own history should ask service by service.
#[must_use]
pub fn lookback(plan: &Plan) -> Duration {
    let probes = plan.probes().values().filter_map(|probe| Some((plan.policy_of(&probe.service)?, probe.every)));
    let unprobed = plan.policies().values().map(|policy| (policy, Duration::ZERO));
    probes.chain(unprobed).map(|(policy, every)| lookback_of(policy, every)).max().unwrap_or_default()
}
