//! What people ask for: every row of the answers, and that each request is answered once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rebound_schemas::event::{RecoveryDeclined, RecoveryRequested, RecoveryTriggered, Restraint, TriggerMode};
use rebound_schemas::{IncidentId, ProcedureId, RecoveryId};

use super::world::{World, at, outside, service};
use super::*;

fn request() -> RecoveryRequested {
    RecoveryRequested {
        by: "ann".into(),
        comment: "after the disk was replaced".into(),
        procedure: None,
        inputs: BTreeMap::new(),
        dry_run: false,
        overrides: vec![],
    }
}

fn ask(world: &mut World, id: &str, data: RecoveryRequested) -> Vec<String> {
    world.handle(outside("db", world.second, id, data))
}

fn triggered(world: &World) -> RecoveryTriggered {
    world.last(|data| match data {
        EventData::RecoveryTriggered(data) => Some(data.clone()),
        _ => None,
    })
}

fn declined(world: &World) -> RecoveryDeclined {
    world.last(|data| match data {
        EventData::RecoveryDeclined(data) => Some(data.clone()),
        _ => None,
    })
}

const TRIGGERED: [&str; 1] = ["recovery.triggered#1"];
const DECLINED: [&str; 1] = ["recovery.declined"];

#[test]
fn with_nothing_wrong_a_request_is_a_recovery_without_an_incident() {
    let mut world = World::new();
    world.probes("db", "SS");
    assert_eq!(ask(&mut world, "r-1", request()), TRIGGERED);
    let data = triggered(&world);
    assert!(data.incident.is_of_request(), "{data:?}");
    assert_eq!((data.by.as_deref(), data.mode, data.attempt), (Some("ann"), TriggerMode::Auto, 1));
    assert_eq!(data.asked.unwrap().comment, "after the disk was replaced");
    assert_eq!(data.recovery, RecoveryId::derive(&service("db"), &data.incident, 1));
}

#[test]
fn during_an_incident_a_request_is_its_next_attempt() {
    let mut world = World::new();
    world.probes("db", "FFF");
    let first = triggered(&world);
    // While automation is at it, nobody is.
    assert_eq!(ask(&mut world, "r-1", request()), DECLINED);
    assert_eq!(declined(&world).reason, format!("{} waits already: let it end, or cancel it", first.recovery));
    world.finish(RecoveryOutcome::Failed);
    assert_eq!(ask(&mut world, "r-2", request()), ["recovery.triggered#2"]);
    let second = triggered(&world);
    assert_eq!(
        (&second.incident, second.recovery.clone()),
        (&first.incident, RecoveryId::derive(&service("db"), &first.incident, 2))
    );
    // It begins when the back-off is over, and automation makes no attempt beside it.
    assert_eq!(second.not_before, Some(at(world.second + 10)));
    assert!(world.tick(world.second + 60).is_empty());
}

#[test]
fn the_budget_holds_unless_it_is_overridden() {
    let mut world = World::new();
    world.probes("db", "SS");
    for n in 0..3 {
        world.second += 400;
        assert_eq!(ask(&mut world, &format!("r-{n}"), request()), TRIGGERED, "the one numbered {n}");
        world.finish(RecoveryOutcome::Succeeded);
    }
    world.second += 400;
    assert_eq!(ask(&mut world, "r-3", request()), DECLINED);
    let said = declined(&world);
    assert_eq!(said.reason, "3 recoveries within 1h are the most that the policy default allows");
    assert_eq!((said.restraint, said.by.as_str()), (Some(Restraint::Intensity), "ann"));
    let other = RecoveryRequested { overrides: vec![Restraint::Backoff], ..request() };
    assert_eq!(ask(&mut world, "r-4", other), DECLINED);
    let forced = RecoveryRequested { overrides: vec![Restraint::Intensity], ..request() };
    assert_eq!(ask(&mut world, "r-5", forced), TRIGGERED);
    assert_eq!(triggered(&world).asked.unwrap().overrides, [Restraint::Intensity]);
}

#[test]
fn the_back_off_is_waited_for_unless_it_is_overridden() {
    for (overrides, waits) in [(vec![], true), (vec![Restraint::Backoff], false), (vec![Restraint::Pause], true)] {
        let mut world = World::new();
        world.probes("db", "FFF");
        world.finish(RecoveryOutcome::Failed);
        ask(&mut world, "r", RecoveryRequested { overrides: overrides.clone(), ..request() });
        assert_eq!(triggered(&world).not_before.is_some(), waits, "{overrides:?}");
    }
}

#[test]
fn what_the_plan_does_not_have_is_declined() {
    let inputs = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
    let cases = [
        (
            RecoveryRequested { procedure: ProcedureId::new("gone").ok(), ..request() },
            "procedure gone is not in the plan",
        ),
        (RecoveryRequested { inputs: inputs("target"), ..request() }, "target is not an input of procedure restart"),
    ];
    for (data, reason) in cases {
        let mut world = World::new();
        assert_eq!(ask(&mut world, "r", data), DECLINED);
        assert_eq!(declined(&world).reason, reason);
    }
    let mut world = World::new();
    let none = outside("lone", 0, "r", request());
    assert_eq!(world.handle(none), DECLINED);
    assert_eq!(declined(&world).reason, "lone has no procedure: name one");
    assert!(world.handle(outside("stranger", 0, "r", request())).is_empty(), "not this plan's");
}

#[test]
fn a_dry_run_disturbs_nothing() {
    let dry = || RecoveryRequested { dry_run: true, ..request() };
    let mut world = World::new();
    world.probes("db", "FFF");
    let status = world.status("db");
    for n in 0..5 {
        assert_eq!(ask(&mut world, &format!("d-{n}"), dry()).len(), 1);
        let data = triggered(&world);
        assert!(data.recovery.is_dry_run() && data.mode == TriggerMode::DryRun, "{data:?}");
    }
    assert_eq!(world.status("db"), status, "what automation knows is what it was");
}

#[test]
fn a_policy_in_dry_run_tells_once_an_incident_what_it_would_do() {
    let mut world = World::under(
        "allow = [\"/bin/true\"]\n[[policy]]\nid = \"default\"\ntrigger = \"dry_run\"\n\
         [[service]]\nid = \"db\"\nprocedure = \"p\"\n[[service.probe]]\nid = \"db\"\ntcp = \"127.0.0.1:1\"\n\
         [[procedure]]\nid = \"p\"\n[[procedure.step]]\nid = \"s\"\ncommand = [\"/bin/true\"]\n",
    );
    assert_eq!(world.probes("db", "FFF"), HARD);
    let data = triggered(&world);
    assert_eq!(data.recovery, RecoveryId::dry_run(&service("db"), &data.incident, 1));
    assert!(world.finish(RecoveryOutcome::DryRun).is_empty());
    assert!(world.probes("db", "FFFFF").is_empty(), "told once");
    assert_eq!(world.probes("db", "SS"), RESOLVED);
    let resolved = world.last(|data| match data {
        EventData::IncidentResolved(data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!(resolved.recovery, None, "nothing was done, so nothing brought it back");
}

#[test]
fn a_request_that_nobody_decided_is_answered_after_a_restart_or_declined_for_its_age() {
    for (later, want) in [(599, "recovery.triggered"), (601, "recovery.declined")] {
        let mut engine = Engine::new(plan());
        engine.own_where(|_| true);
        engine.fold(&outside("db", 0, "r", request()));
        let decided = engine.tick(at(later));
        assert_eq!(decided.iter().map(|event| event.kind().as_str()).collect::<Vec<_>>(), [want]);
        assert!(engine.tick(at(later + 1)).is_empty());
        let mut next = Engine::new(plan());
        next.own_where(|_| true);
        next.fold(&outside("db", 0, "r", request()));
        decided.iter().for_each(|event| next.fold(event));
        assert!(next.tick(at(later + 2)).is_empty(), "it was answered");
    }
}

#[test]
fn a_waiting_policys_trigger_says_until_when() {
    let mut world = World::under(
        "allow = [\"/bin/true\"]\n[[policy]]\nid = \"default\"\ntrigger = \"approve\"\napprove_within = \"5m\"\n\
         [[service]]\nid = \"db\"\nprocedure = \"p\"\n[[service.probe]]\nid = \"db\"\ntcp = \"127.0.0.1:1\"\n\
         [[procedure]]\nid = \"p\"\n[[procedure.step]]\nid = \"s\"\ncommand = [\"/bin/true\"]\n",
    );
    world.probes("db", "FFF");
    assert_eq!(triggered(&world).approve_until, Some(at(world.second + 300)));
    assert!(!triggered(&world).incident.is_of_request());
    assert_eq!(triggered(&world).asked, None);
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// However often and in whatever order requests, ends and redeliveries come: no attempt at an incident is
    /// triggered twice, every request is answered exactly once, and a rebuilt engine owes no answer.
    #[test]
    fn each_request_is_answered_once(ops in prop::collection::vec((0..6_u8, 0..8_usize, 0..5_u8), 1..60)) {
        let mut world = World::new();
        let mut asked = std::collections::BTreeSet::new();
        for (op, which, how) in ops {
            world.second += 7;
            match op {
                0 | 1 => {
                    let overrides = if how == 0 { vec![Restraint::Intensity] } else { vec![] };
                    let data = RecoveryRequested { dry_run: how == 1, overrides, ..request() };
                    asked.insert(which);
                    ask(&mut world, &format!("r-{which}"), data);
                }
                2 => drop(world.probes("db", "FFF")),
                3 => drop(world.probes("db", "SS")),
                4 if world.log.iter().any(|event| event.kind() == Kind::RecoveryTriggered) => {
                    let outcomes = [RecoveryOutcome::Failed, RecoveryOutcome::Succeeded, RecoveryOutcome::Cancelled];
                    world.finish(outcomes[which % 3]);
                }
                _ => {
                    let event = world.log.get(which * 3).cloned();
                    if let Some(event) = event.filter(|event| event.kind() != Kind::ProbeCompleted) {
                        world.handle(event);
                    }
                }
            }
        }
        let mut attempts = std::collections::BTreeSet::new();
        let mut answers = BTreeMap::<EventId, usize>::new();
        let mut seen = std::collections::BTreeSet::new();
        for event in world.log.iter().filter(|event| seen.insert(event.id.clone())) {
            match &event.data {
                EventData::RecoveryTriggered(data) => {
                    let attempt: (IncidentId, u32) = (data.incident.clone(), data.attempt);
                    prop_assert!(data.recovery.is_dry_run() || attempts.insert(attempt), "{:?} twice", data);
                    if let Some(asked) = &data.asked {
                        *answers.entry(asked.request.clone()).or_default() += 1;
                    }
                }
                EventData::RecoveryDeclined(data) => *answers.entry(data.request.clone()).or_default() += 1,
                _ => {}
            }
        }
        prop_assert_eq!(answers.len(), asked.len());
        prop_assert!(answers.values().all(|n| *n == 1), "{:?}", answers);
        let mut rebuilt = world.restarted();
        let owed = rebuilt.tick(at(world.second + 1));
        prop_assert!(owed.iter().all(|event| event.kind() != Kind::RecoveryDeclined), "{:?}", owed);
    }
}
