//! Generated histories, as one engine lives them.

use proptest::prelude::*;
use rebound_schemas::Topic;
use rebound_schemas::event::{IncidentAcknowledged, ProcedurePromoted, RecoveryPaused, RecoveryResumed};

use super::world::all_words;
use super::*;

const SERVICES: [&str; 3] = ["db", "api", "window"];

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A run of equal outcomes of one service, so many seconds apart.
    Probe(usize, Outcome, u8, i64),
    /// An event from before comes again, counted back from the newest.
    Again(usize),
    /// The newest recovery of a service ends.
    Finish(usize, RecoveryOutcome),
    Silence(usize, i64),
    Acknowledge(usize),
    /// Recoveries of a service, or all, are paused: for so long, or until resumed; or they are resumed.
    Pause(Option<usize>, Option<i64>),
    Resume(Option<usize>),
    /// A person promotes the procedure.
    Promote,
    Wait(i64),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![4 => Just(Outcome::Failed), 3 => Just(Outcome::Healthy), 1 => Just(Outcome::Degraded)];
    let service = 0..SERVICES.len();
    prop_oneof![
        8 => (service.clone(), outcome, 1..5_u8, prop_oneof![4 => 1..15_i64, 1 => 50..80_i64])
            .prop_map(|(s, o, n, gap)| Op::Probe(s, o, n, gap)),
        2 => (0..200_usize).prop_map(Op::Again),
        2 => (service.clone(), prop::sample::select(RecoveryOutcome::ALL.to_vec()))
            .prop_map(|(s, o)| Op::Finish(s, o)),
        1 => (service.clone(), 1..200_i64).prop_map(|(s, length)| Op::Silence(s, length)),
        1 => service.clone().prop_map(Op::Acknowledge),
        1 => (prop::option::of(service.clone()), prop::option::of(1..200_i64)).prop_map(|(s, length)| Op::Pause(s, length)),
        1 => prop::option::of(service).prop_map(Op::Resume),
        1 => Just(Op::Promote),
        1 => prop_oneof![Just(11), Just(61), Just(700)].prop_map(Op::Wait),
    ]
}

/// One moment: time is told, then perhaps an event comes; and what was decided.
pub(super) struct Step {
    pub(super) now: DateTime<Utc>,
    pub(super) input: Option<Event>,
    pub(super) decided: Vec<Event>,
}

/// A history as it was lived by one engine.
pub(super) struct Lived {
    pub(super) engine: Engine,
    pub(super) steps: Vec<Step>,
    pub(super) log: Vec<Event>,
    pub(super) second: i64,
}

impl Lived {
    fn new(plan: Arc<Plan>) -> Self {
        let World { engine, .. } = World::of(plan);
        Self { engine, steps: Vec::new(), log: Vec::new(), second: 0 }
    }

    pub(super) fn live(ops: &[Op]) -> Self {
        Self::live_by(plan(), ops)
    }

    pub(super) fn live_by(plan: Arc<Plan>, ops: &[Op]) -> Self {
        let mut lived = Self::new(plan);
        ops.iter().for_each(|op| lived.apply(op));
        lived
    }

    pub(super) fn step(&mut self, input: Option<Event>) {
        let now = at(self.second);
        let decided = step(&mut self.engine, now, input.as_ref());
        self.log.extend(input.iter().cloned());
        self.log.extend(decided.iter().cloned());
        self.steps.push(Step { now, input, decided });
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Probe(s, outcome, times, gap) => {
                for _ in 0..*times {
                    self.second += gap;
                    self.step(Some(probe_from(SERVICES[*s], SERVICES[*s], None, self.second, *outcome)));
                }
            }
            Op::Again(back) => {
                let event = self.log.len().checked_sub(back + 1).map(|n| self.log[n].clone());
                self.step(event);
            }
            Op::Finish(s, outcome) => {
                self.second += 1;
                let of = |event: &&Event| event.subject.as_str() == SERVICES[*s];
                let Some(EventData::RecoveryTriggered(data)) = self
                    .log
                    .iter()
                    .rev()
                    .filter(of)
                    .find(|event| event.kind() == Kind::RecoveryTriggered)
                    .map(|event| event.data.clone())
                else {
                    return;
                };
                let (recovery, incident, procedure) = (data.recovery, data.incident, data.procedure);
                let ended = EventId::derive(recovery.as_str(), "finished");
                if self.log.iter().any(|event| event.id == ended) {
                    return;
                }
                let started = RecoveryStarted {
                    recovery: recovery.clone(),
                    incident: incident.clone(),
                    procedure: procedure.clone(),
                    runner: "r".into(),
                };
                let id = EventId::derive(recovery.as_str(), "started");
                self.step(Some(outside(SERVICES[*s], self.second, id.as_str(), started)));
                let finished = RecoveryFinished {
                    recovery,
                    incident,
                    attempt: data.attempt,
                    procedure,
                    method: None,
                    outcome: *outcome,
                    duration_ms: 1,
                    error_class: None,
                    reason: None,
                };
                self.second += 1;
                self.step(Some(outside(SERVICES[*s], self.second, ended.as_str(), finished)));
            }
            Op::Silence(s, length) => {
                self.second += 1;
                let data = SilenceCreated {
                    silence: SERVICES[*s].into(),
                    services: vec![service(SERVICES[*s])],
                    matchers: vec![],
                    from: at(self.second),
                    until: at(self.second + length),
                    by: "ann".into(),
                    reason: "quiet".into(),
                };
                self.step(Some(outside(SERVICES[*s], self.second, &format!("silence-{}", self.second), data)));
            }
            Op::Acknowledge(s) => {
                self.second += 1;
                let status = self.engine.status(&service(SERVICES[*s]), at(self.second)).unwrap();
                if let Some(incident) = status.incident {
                    let data = IncidentAcknowledged { incident, by: "ann".into(), automated: false, comment: None };
                    self.step(Some(outside(SERVICES[*s], self.second, &format!("ack-{}", self.second), data)));
                }
            }
            Op::Pause(s, length) => {
                self.second += 1;
                let (service, until) = (s.map(|s| service(SERVICES[s])), length.map(|length| at(self.second + length)));
                let (by, reason) = ("ann".into(), "network".into());
                let data = RecoveryPaused { site: None, service, tier: None, procedure: None, until, by, reason };
                self.step(Some(outside("automation", self.second, &format!("pause-{}", self.second), data)));
            }
            Op::Resume(s) => {
                self.second += 1;
                let (service, by, reason) = (s.map(|s| service(SERVICES[s])), "ann".into(), "done".into());
                let data = RecoveryResumed { site: None, service, tier: None, procedure: None, by, reason };
                self.step(Some(outside("automation", self.second, &format!("resume-{}", self.second), data)));
            }
            Op::Promote => {
                self.second += 1;
                let (procedure, by, comment) = ("restart".parse().unwrap(), "ann".into(), "mended".into());
                let data = ProcedurePromoted { procedure, by, comment };
                self.step(Some(outside("automation", self.second, &format!("promote-{}", self.second), data)));
            }
            Op::Wait(seconds) => {
                self.second += seconds;
                self.step(None);
            }
        }
    }

    /// Every service answers for long enough to forget that it flapped.
    pub(super) fn heal(&mut self) {
        for _ in 0..25 {
            for (s, id) in SERVICES.iter().enumerate() {
                let status = self.engine.status(&service(id), at(self.second)).unwrap();
                if status.incident.is_some() || status.flapping || status.health != Health::Ok {
                    self.apply(&Op::Probe(s, Outcome::Healthy, 1, 3));
                }
            }
        }
    }

    pub(super) fn decided(&self) -> impl Iterator<Item = &Event> {
        self.steps.iter().flat_map(|step| &step.decided)
    }
}

pub(super) fn step(engine: &mut Engine, now: DateTime<Utc>, input: Option<&Event>) -> Vec<Event> {
    let mut decided = engine.tick(now);
    if let Some(event) = input {
        decided.extend(engine.handle(event, now));
    }
    decided
}

/// A fresh engine that has folded these events; `by_topic` as a shell does it, else in the order they were lived.
pub(super) fn restarted<'a>(plan: &Arc<Plan>, log: impl Iterator<Item = &'a Event> + Clone, by_topic: bool) -> Engine {
    let World { mut engine, .. } = World::of(plan.clone());
    if by_topic {
        for topic in [Topic::Alerts, Topic::Recoveries, Topic::Observations] {
            log.clone().filter(|event| event.kind().topic() == topic).for_each(|event| engine.fold(event));
        }
    } else {
        log.for_each(|event| engine.fold(event));
    }
    engine
}

/// Each decision with its service, in an order of no meaning.
pub(super) fn sorted(decided: &[Event]) -> Vec<(String, String)> {
    let services = decided.iter().map(|event| event.subject.to_string());
    let mut sorted: Vec<_> = services.zip(all_words(decided)).collect();
    sorted.sort();
    sorted
}
