//! Properties over generated histories: failures, successes, silences, dependencies, recoveries that end in every
//! way, redeliveries, restarts anywhere. A thousand cases each; `PROPTEST_CASES` asks for others.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use proptest::prelude::*;
use rebound_schemas::Topic;
use rebound_schemas::event::{IncidentAcknowledged, ProcedurePromoted, RecoveryPaused, RecoveryResumed, Transition};

use super::world::{all_words, guarded_plan};
use super::*;
use crate::notify::Notifier;
use crate::threshold::{ProbeState, Rule};

const SERVICES: [&str; 3] = ["db", "api", "window"];

#[derive(Debug, Clone)]
enum Op {
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

fn op() -> impl Strategy<Value = Op> {
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
struct Step {
    now: DateTime<Utc>,
    input: Option<Event>,
    decided: Vec<Event>,
}

/// A history as it was lived by one engine.
struct Lived {
    engine: Engine,
    steps: Vec<Step>,
    log: Vec<Event>,
    second: i64,
}

impl Lived {
    fn new(plan: Arc<Plan>) -> Self {
        let World { engine, .. } = World::of(plan);
        Self { engine, steps: Vec::new(), log: Vec::new(), second: 0 }
    }

    fn live(ops: &[Op]) -> Self {
        Self::live_by(plan(), ops)
    }

    fn live_by(plan: Arc<Plan>, ops: &[Op]) -> Self {
        let mut lived = Self::new(plan);
        ops.iter().for_each(|op| lived.apply(op));
        lived
    }

    fn step(&mut self, input: Option<Event>) {
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
    fn heal(&mut self) {
        for _ in 0..25 {
            (0..SERVICES.len()).for_each(|s| self.apply(&Op::Probe(s, Outcome::Healthy, 1, 3)));
        }
    }

    fn decided(&self) -> impl Iterator<Item = &Event> {
        self.steps.iter().flat_map(|step| &step.decided)
    }
}

fn step(engine: &mut Engine, now: DateTime<Utc>, input: Option<&Event>) -> Vec<Event> {
    let mut decided = engine.tick(now);
    if let Some(event) = input {
        decided.extend(engine.handle(event, now));
    }
    decided
}

/// A fresh engine that has folded these events; `by_topic` as a shell does it, else in the order they were lived.
fn restarted<'a>(plan: &Arc<Plan>, log: impl Iterator<Item = &'a Event> + Clone, by_topic: bool) -> Engine {
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
fn sorted(decided: &[Event]) -> Vec<(String, String)> {
    let services = decided.iter().map(|event| event.subject.to_string());
    let mut sorted: Vec<_> = services.zip(all_words(decided)).collect();
    sorted.sort();
    sorted
}

fn plan_messages(notifier: &Notifier, now: DateTime<Utc>) -> Vec<Event> {
    notifier.plan(now, &|_| false, &|_| true).events
}

proptest! {
    #![proptest_config(crate::cases::histories())]

    /// Killed anywhere, an engine that folded the history decides the same as one that lived on; and folding
    /// decides nothing, neither at once nor when time is told.
    #[test]
    fn a_restart_changes_no_decision(
        ops in prop::collection::vec(op(), 1..60),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        by_topic in any::<bool>(),
        guarded in any::<bool>(),
    ) {
        let plan = if guarded { guarded_plan() } else { plan() };
        let mut lived = Lived::live_by(plan.clone(), &ops);
        lived.heal();
        for cut in cuts {
            let cut = cut.index(lived.steps.len());
            let past = lived.steps[..cut].iter().flat_map(|step| step.input.iter().chain(&step.decided));
            let mut engine = restarted(&plan, past, by_topic);
            if let Some(last) = cut.checked_sub(1) {
                prop_assert_eq!(engine.tick(lived.steps[last].now), vec![], "replay decided");
            }
            for Step { now, input, decided } in &lived.steps[cut..] {
                // Of several services whose time has come at once, either may be first.
                prop_assert_eq!(sorted(&step(&mut engine, *now, input.as_ref())), sorted(decided), "at {}", now);
            }
        }
    }

    /// Ids are unique, one trigger an attempt, attempts count up, and everything that opened closes once.
    #[test]
    fn every_transition_happens_once_and_every_alert_resolves(
        ops in prop::collection::vec(op(), 1..80),
        guarded in any::<bool>(),
    ) {
        let mut lived = Lived::live_by(if guarded { guarded_plan() } else { plan() }, &ops);
        lived.heal();
        let mut ids = BTreeSet::new();
        let mut attempts: BTreeMap<IncidentId, u32> = BTreeMap::new();
        let (mut opened, mut resolved) = (BTreeSet::new(), BTreeSet::new());
        let (mut alerts, mut quiet) = (BTreeSet::new(), BTreeSet::new());
        for event in lived.decided() {
            prop_assert!(ids.insert(event.id.clone()), "{} was decided twice", event.id);
            prop_assert_eq!(event.source.as_str(), crate::SOURCE);
            prop_assert_eq!(event.plan.as_ref(), Some(lived.engine.plan().version()));
            match &event.data {
                EventData::RecoveryTriggered(data) => {
                    let last = attempts.entry(data.incident.clone()).or_default();
                    prop_assert_eq!(data.attempt, *last + 1);
                    *last += 1;
                }
                EventData::RecoveryWithheld(data) => {
                    let before = lived.log.iter().take_while(|known| known.id != event.id);
                    let known: BTreeSet<_> = before.map(|known| (&known.source, &known.id)).collect();
                    prop_assert!(data.evidence.iter().all(|of| known.contains(&(&of.source, &of.id))), "{:?}", data);
                }
                EventData::IncidentOpened(data) => prop_assert!(opened.insert(data.incident.clone())),
                EventData::AlertRaised(data) => prop_assert!(alerts.insert(data.alert.clone())),
                EventData::AlertSuppressed(data) => {
                    prop_assert!(!alerts.contains(&data.alert), "suppressed after it was told");
                    quiet.insert(data.alert.clone());
                }
                EventData::AlertResolved(data) => {
                    let raised = alerts.remove(&data.alert);
                    prop_assert!(quiet.remove(&data.alert) || raised, "resolved what was neither raised nor suppressed");
                }
                EventData::IncidentResolved(data) => {
                    prop_assert!(opened.contains(&data.incident));
                    prop_assert!(resolved.insert(data.incident.clone()));
                }
                _ => {}
            }
        }
        prop_assert!(alerts.is_empty() && quiet.is_empty(), "never resolved: {alerts:?} {quiet:?}");
        prop_assert_eq!(opened, resolved);
    }

    /// Everything delivered once more, in order, while live: nothing is decided and nothing changes.
    #[test]
    fn redelivery_changes_nothing(
        ops in prop::collection::vec(op(), 1..60),
        from in any::<prop::sample::Index>(),
        guarded in any::<bool>(),
    ) {
        let mut lived = Lived::live_by(if guarded { guarded_plan() } else { plan() }, &ops);
        lived.step(None);
        let now = at(lived.second);
        let before: Vec<_> = lived.engine.statuses(now).collect();
        let from = from.index(lived.log.len().max(1));
        for event in lived.log.get(from..).unwrap_or_default() {
            prop_assert_eq!(lived.engine.handle(event, now), vec![]);
        }
        prop_assert_eq!(lived.engine.statuses(now).collect::<Vec<_>>(), before);
        prop_assert_eq!(lived.engine.tick(now), vec![]);
    }

    /// Whatever is told or triggered has no silence and no failed, observed dependency at that time.
    #[test]
    fn nothing_is_told_or_triggered_while_suppressed(ops in prop::collection::vec(op(), 1..80)) {
        let lived = Lived::live(&ops);
        let mut db_open = false;
        let mut silenced: BTreeMap<String, (DateTime<Utc>, DateTime<Utc>)> = BTreeMap::new();
        for event in &lived.log {
            let told = matches!(event.kind(), Kind::AlertRaised | Kind::RecoveryTriggered);
            if event.source.as_str() == crate::SOURCE && told && lived_first(&lived.log, event) {
                // Time is told before the event of the same moment: what it called for comes first.
                let until = silenced.get(event.subject.as_str());
                prop_assert!(until.is_none_or(|(from, until)| *until <= event.occurred_at || event.occurred_at <= *from), "{event:?} in a silence");
                // The dependency suppresses while observed; its incident outlives that by as long as it is silent.
                if event.subject.as_str() == "api" && db_open {
                    let heard = lived.log.iter().filter(|e| e.kind() == Kind::ProbeCompleted);
                    let heard = heard.filter(|e| e.subject.as_str() == "db" && e.occurred_at < event.occurred_at);
                    let heard = heard.map(|e| e.occurred_at).max().unwrap();
                    prop_assert!(event.occurred_at - heard >= TimeDelta::seconds(60), "{event:?} before db");
                }
            }
            match &event.data {
                EventData::SilenceCreated(data) => {
                    let until = silenced.entry(event.subject.to_string()).or_insert((data.from, data.until));
                    if lived_first(&lived.log, event) {
                        *until = (data.from, data.until);
                    }
                }
                EventData::IncidentOpened(_) if event.subject.as_str() == "db" && lived_first(&lived.log, event) => {
                    db_open = true;
                }
                EventData::IncidentResolved(_) if event.subject.as_str() == "db" && lived_first(&lived.log, event) => {
                    db_open = false;
                }
                _ => {}
            }
        }
    }

    /// Nothing is triggered while a pause covers it, and every pause is over at the time that it says.
    #[test]
    fn nothing_is_triggered_while_paused(ops in prop::collection::vec(op(), 1..80)) {
        let lived = Lived::live(&ops);
        let mut pauses = crate::pause::Pauses::default();
        for Step { now, input, decided } in &lived.steps {
            // Time is told before the event of the same moment, and what is said is in force when it decides.
            let before = pauses.clone();
            if let Some(event) = input {
                pauses.evolve(event);
            }
            for event in decided.iter().filter(|event| event.kind() == Kind::RecoveryTriggered) {
                let held = |pauses: &crate::pause::Pauses| {
                    let (service, site, tier, procedure) = (&event.subject, None, None, None);
                    pauses.active(crate::pause::Target { service, site, tier, procedure }, *now).is_some()
                };
                prop_assert!(!held(&before) || !held(&pauses), "{event:?}");
            }
        }
    }

    /// With more than one service down nothing is triggered by itself, and nothing is by a demoted procedure; a stop is
    /// told at most once an incident, and only while there is one.
    #[test]
    fn nothing_runs_by_itself_beyond_the_limits(ops in prop::collection::vec(op(), 1..80)) {
        let lived = Lived::live_by(guarded_plan(), &ops);
        let mut down: BTreeMap<String, IncidentId> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let (mut failures, mut demoted, mut told) = (Vec::new(), false, BTreeSet::new());
        for event in lived.log.iter().filter(|event| seen.insert((event.source.clone(), event.id.clone()))) {
            match &event.data {
                EventData::IncidentOpened(data) => drop(down.insert(event.subject.to_string(), data.incident.clone())),
                EventData::IncidentResolved(data) => down.retain(|_, incident| *incident != data.incident),
                EventData::RecoveryFinished(data) => failures.push(match data.outcome {
                    RecoveryOutcome::Failed | RecoveryOutcome::Interrupted => true,
                    RecoveryOutcome::Succeeded => false,
                    _ => continue,
                }),
                EventData::ProcedureDemoted(data) => {
                    let newest = failures.iter().rev().take(3).filter(|failed| **failed).count();
                    prop_assert!(newest > 0 && !demoted, "{data:?}");
                    demoted = true;
                }
                EventData::ProcedurePromoted(_) => {
                    demoted = false;
                    failures.clear();
                }
                EventData::RecoveryTriggered(data) if data.mode == TriggerMode::Auto => {
                    prop_assert!(down.len() <= 1, "{data:?} with {down:?} down");
                    prop_assert!(!demoted, "{data:?}");
                }
                EventData::RecoveryEscalated(data) => if let Some(stopped) = &data.stopped {
                    prop_assert!(down.len() > 1 && stopped.down as usize == down.len(), "{data:?}");
                    prop_assert!(told.insert(data.incident.clone()), "twice: {data:?}");
                },
                _ => {}
            }
        }
    }

    /// Each channel learns of each told alert once, and of its resolve once, after it; restarts between.
    #[test]
    fn every_told_transition_is_told_once(
        ops in prop::collection::vec(op(), 1..60),
        lose in prop::collection::vec(any::<bool>(), 16),
    ) {
        let mut lived = Lived::live(&ops);
        lived.heal();
        let mut notifier = Notifier::new(plan());
        let mut history: Vec<Event> = Vec::new();
        let mut told: BTreeMap<(String, String), Vec<Transition>> = BTreeMap::new();
        for (n, step) in lived.steps.iter().enumerate() {
            for event in step.input.iter().chain(&step.decided) {
                notifier.fold(event);
                history.push(event.clone());
            }
            // A resolve is due once its raise is settled, so a second look may find more; a third never does.
            for _ in 0..2 {
                for event in plan_messages(&notifier, step.now) {
                    notifier.fold(&event);
                    history.push(event);
                }
                for notice in notifier.due() {
                    let transitions = told.entry((notice.first().told.alert.to_string(), notice.channel.to_string())).or_default();
                    transitions.push(notice.first().told.transition);
                    let event = match n % 5 {
                        0 => notice.failed(3, "gone".into(), step.now),
                        _ => notice.sent(1, step.now),
                    };
                    notifier.fold(&event);
                    history.push(event);
                }
            }
            prop_assert!(plan_messages(&notifier, step.now).is_empty(), "due again");
            if lose[n % lose.len()] {
                notifier = Notifier::new(plan());
                history.iter().for_each(|event| notifier.fold(event));
                prop_assert!(plan_messages(&notifier, step.now).is_empty(), "due again after a restart");
            }
        }
        let raised: BTreeSet<_> = lived.decided().filter_map(|event| match &event.data {
            EventData::AlertRaised(data) => Some(data.alert.to_string()),
            _ => None,
        }).collect();
        prop_assert_eq!(told.len(), raised.len() * 2, "two channels an alert");
        for ((alert, _), transitions) in told {
            prop_assert!(raised.contains(&alert));
            prop_assert_eq!(transitions.first(), Some(&Transition::Raised));
            prop_assert_eq!(transitions.last(), Some(&Transition::Resolved));
            let count = |wanted| transitions.iter().filter(|transition| **transition == wanted).count();
            prop_assert_eq!((count(Transition::Raised), count(Transition::Resolved)), (1, 1));
            prop_assert!(count(Transition::Escalated) <= 1);
        }
    }
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// The machine of one probe agrees with the definition written down over whole lists.
    #[test]
    fn a_probe_is_hard_when_the_definition_says_so(
        failures in 1..6_u32,
        more in prop::option::of(0..6_u32),
        recoveries in 1..4_u32,
        outcomes in prop::collection::vec(prop::sample::select("FFFSSD".chars().collect::<Vec<_>>()), 0..80),
    ) {
        let of = more.map(|more| failures + more);
        let rule = Rule { failures, of, recoveries, sites: 1, silent_after: TimeDelta::seconds(60), degraded_fails: false };
        let mut probe = ProbeState::default();
        let (mut hard, mut counted) = (false, Vec::new());
        for (second, letter) in outcomes.iter().enumerate() {
            let event = probe_from("db", "db", None, second as i64, outcome_of(*letter));
            let EventData::ProbeCompleted(data) = &event.data else { unreachable!() };
            prop_assert!(probe.observe(&rule, &event, data));
            prop_assert!(!probe.observe(&rule, &event, data), "a second time");
            if *letter != 'D' {
                counted.push(*letter);
            }
            let newest = |n: u32| counted.iter().rev().take(n as usize);
            if hard {
                if counted.len() >= recoveries as usize && newest(recoveries).all(|l| *l == 'S') {
                    hard = false;
                    counted.clear();
                }
            } else {
                let window = of.unwrap_or(failures);
                hard = newest(window).filter(|l| **l == 'F').count() >= failures as usize;
            }
            prop_assert_eq!(probe.is_hard(), hard, "after {:?}", &outcomes[..=second]);
        }
    }
}

/// Whether this is the first of its deliveries.
fn lived_first(log: &[Event], event: &Event) -> bool {
    log.iter()
        .find(|known| known.source == event.source && known.id == event.id)
        .is_some_and(|k| std::ptr::eq(k, event))
}
