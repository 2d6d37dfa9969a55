//! Demotion: a procedure that fails too often waits for a person, on every instance, until a person promotes it.

use rebound_schemas::event::{ProcedureDemoted, ProcedurePromoted, TriggerMode};

use super::*;

/// Two services by one procedure, which is demoted at its second failure of four.
fn world() -> World {
    let service = |id: &str| {
        format!(
            "[[service]]\nid = \"{id}\"\nprocedure = \"restart\"\n\
             [[service.probe]]\nid = \"{id}\"\nhttp = \"http://127.0.0.1:1/\"\n"
        )
    };
    World::under(&format!(
        "allow = [\"/bin/true\"]\n{}{}[[procedure]]\nid = \"restart\"\ndemote_below = 0.7\ndemote_over = 4\n\
         [[procedure.step]]\nid = \"s\"\ncommand = [\"/bin/true\"]\n\
         [[policy]]\nid = \"default\"\nfailures = 1\nrecoveries = 1\nsilent_after = \"1h\"\nintensity = 100\n",
        service("a"),
        service("b")
    ))
}

fn mode(world: &World) -> TriggerMode {
    world.last(|data| match data {
        EventData::RecoveryTriggered(data) => Some(data.mode),
        _ => None,
    })
}

fn demoted(world: &World) -> Vec<ProcedureDemoted> {
    let of = |event: &Event| match &event.data {
        EventData::ProcedureDemoted(data) => Some(data.clone()),
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

fn promote(world: &mut World) -> Vec<String> {
    let data = ProcedurePromoted { procedure: "restart".parse().unwrap(), by: "ann".into(), comment: "mended".into() };
    world.second += 1;
    world.handle(outside("automation", world.second, &format!("promoted-{}", world.second), data))
}

#[test]
fn a_procedure_that_fails_too_often_waits_for_a_person_until_one_promotes_it() {
    let mut world = world();
    world.probes("a", "F");
    assert_eq!(mode(&world), TriggerMode::Auto);
    assert!(world.finish(RecoveryOutcome::Failed).is_empty());
    assert_eq!(world.probes("a", "F"), ["recovery.triggered#2"]);
    assert_eq!(mode(&world), TriggerMode::Auto, "one failure of four is not below 70 %");
    assert_eq!(world.finish(RecoveryOutcome::Failed), ["procedure.demoted"]);
    let [data] = demoted(&world).try_into().unwrap();
    assert_eq!((data.succeeded, data.attempts, data.below, data.over, data.failed.len()), (0, 2, 0.7, 4, 2));
    assert_eq!(world.probes("a", "FF"), ["recovery.triggered#3"]);
    assert_eq!(mode(&world), TriggerMode::Approve);
    world.probes("b", "F");
    assert_eq!(mode(&world), TriggerMode::Approve, "whatever it is that it brings back");
    assert!(world.engine.needs_approval(&"restart".parse().unwrap()));
    // A success after approval doesn't promote it, and it is not demoted twice.
    assert!(world.finish(RecoveryOutcome::Succeeded).is_empty());
    assert_eq!(demoted(&world).len(), 1);
    assert!(world.restarted().tick(at(world.second)).is_empty());
    assert!(promote(&mut world).is_empty());
    world.probes("b", "S");
    world.probes("b", "F");
    assert_eq!(mode(&world), TriggerMode::Auto);
    assert!(world.finish(RecoveryOutcome::Failed).is_empty(), "what came before counts no more");
    world.probes("b", "FFFF");
    assert_eq!(world.finish(RecoveryOutcome::Failed), ["procedure.demoted"]);
    let ids: std::collections::BTreeSet<_> =
        world.log.iter().filter(|e| e.kind() == Kind::ProcedureDemoted).map(|e| &e.id).collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn of_two_instances_the_one_that_decides_for_the_newest_attempt_says_so_and_both_act_on_it() {
    let mut world = world();
    let mut other = Engine::new(world.engine.plan().clone());
    other.own_where(|id| id.as_str() == "b");
    world.engine.own(&service("b"), false);
    world.probes("a", "F");
    world.finish(RecoveryOutcome::Failed);
    world.probes("a", "F");
    assert_eq!(world.finish(RecoveryOutcome::Failed), ["procedure.demoted"]);
    // The other has seen the recoveries, and not yet what the first says of them.
    for event in world.log.iter().filter(|event| event.kind() != Kind::ProcedureDemoted) {
        assert!(words(&other.handle(event, at(world.second))).is_empty());
    }
    let decided = other.handle(&probe_from("b", "b", None, 100, Outcome::Failed), at(100));
    let mode = decided.iter().find_map(|event| match &event.data {
        EventData::RecoveryTriggered(data) => Some(data.mode),
        _ => None,
    });
    assert_eq!(mode, Some(TriggerMode::Approve));
}

#[test]
fn a_demotion_that_was_lost_is_said_by_whoever_starts_next() {
    let mut world = world();
    world.probes("a", "F");
    world.finish(RecoveryOutcome::Failed);
    world.probes("a", "F");
    world.finish(RecoveryOutcome::Failed);
    let before = demoted(&world);
    let lost = world.log.iter().find(|event| event.kind() == Kind::ProcedureDemoted).unwrap().id.clone();
    world.log.retain(|event| event.kind() != Kind::ProcedureDemoted);
    let decided = world.restarted().tick(at(world.second));
    assert_eq!(words(&decided), ["procedure.demoted"]);
    assert_eq!((&decided[0].id, EventData::from(before[0].clone())), (&lost, decided[0].data.clone()));
}
