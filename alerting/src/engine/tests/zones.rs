//! Blast radius: when failures are the site's own, nothing more is triggered there, and people are told once.

use rebound_schemas::event::RecoveryEscalated;

use super::*;

/// Four services at site `one`, of which two may be down at once; one at site `two`, with no limit of its own.
fn world(limits: &str, policy: &str) -> World {
    let service = |id: &str, site: &str| {
        format!(
            "[[service]]\nid = \"{id}\"\nsite = \"{site}\"\nprocedure = \"restart\"\n\
             [[service.probe]]\nid = \"{id}\"\nhttp = \"http://127.0.0.1:1/\"\n"
        )
    };
    let services: String = ["a", "b", "c", "d"].map(|id| service(id, "one")).concat() + &service("e", "two");
    World::under(&format!(
        "allow = [\"/bin/true\"]\n{limits}\n[[site]]\nid = \"one\"\n[[site]]\nid = \"two\"\n{services}\
         [[procedure]]\nid = \"restart\"\n[[procedure.step]]\nid = \"s\"\ncommand = [\"/bin/true\"]\n\
         [[policy]]\nid = \"default\"\nfailures = 1\nrecoveries = 1\nsilent_after = \"1h\"\n{policy}\n"
    ))
}

const SITE: &str = "[limits.site]\nstop_above = \"50%\"";
const DOWN: [&str; 3] = ["incident.opened", "alert.raised", "recovery.triggered#1"];
const STOPPED: [&str; 3] = ["incident.opened", "alert.raised", "recovery.escalated"];
const TOLD: [&str; 2] = ["incident.opened", "alert.raised"];

fn escalated(world: &World) -> RecoveryEscalated {
    world.last(|data| match data {
        EventData::RecoveryEscalated(data) => Some(data.clone()),
        _ => None,
    })
}

#[test]
fn above_the_limit_nothing_is_triggered_and_people_are_told_once() {
    let mut world = world(SITE, "");
    assert_eq!(world.probes("a", "F"), DOWN);
    assert_eq!(world.probes("b", "F"), DOWN, "two of four may be down");
    assert_eq!(world.probes("c", "F"), STOPPED);
    let data = escalated(&world);
    assert_eq!(
        data.reason,
        "3 of the 4 services at site one are down at once, and stop_above = 50 % allows 2: this is the site's failure, \
         and automatic recovery stops"
    );
    let stopped = data.stopped.unwrap();
    assert_eq!((stopped.down, stopped.of, stopped.most, stopped.incidents.len()), (3, 4, 2, 3));
    assert_eq!(stopped.site.as_ref().map(|site| site.as_str()), Some("one"));
    assert_eq!(world.probes("d", "F"), TOLD, "told already");
    assert_eq!(world.probes("e", "F"), DOWN, "another site goes on");
    assert!(world.probes("c", "FF").is_empty());
    assert!(!world.status("c").escalated, "automation has not given up on it");
    assert!(world.restarted().tick(at(world.second)).is_empty());
}

#[test]
fn when_less_is_down_what_is_still_down_is_triggered() {
    let mut world = world(SITE, "");
    ["a", "b", "c", "d"].into_iter().for_each(|id| drop(world.probes(id, "F")));
    assert_eq!(world.probes("a", "S"), RESOLVED, "three are down");
    let freed = ["alert.resolved", "incident.resolved", "recovery.triggered#1", "recovery.triggered#1"];
    assert_eq!(world.probes("b", "S"), freed, "c and d, at once");
    assert!(world.restarted().tick(at(world.second)).is_empty());
    // It fails as a whole again: the incident that people were told of is open still, so they know.
    assert_eq!(world.probes("a", "F"), TOLD);
    world.probes("a", "S");
    // With that one over, they are told by another.
    world.probes("c", "S");
    assert_eq!(world.probes("a", "F"), DOWN);
    assert_eq!(world.probes("b", "F"), STOPPED);
}

#[test]
fn people_are_told_anew_when_the_incident_they_were_told_by_is_over() {
    let mut world = world("[limits.site]\nstop_above = 1", "");
    ["a", "b", "c", "d"].into_iter().for_each(|id| drop(world.probes(id, "F")));
    let first = escalated(&world).incident;
    assert_eq!(first, world.status("b").incident.unwrap());
    let told = ["alert.resolved", "incident.resolved", "recovery.escalated"];
    assert_eq!(world.probes("b", "S"), told, "three are down still");
    assert_eq!(escalated(&world).incident, world.status("c").incident.unwrap());
    assert_eq!(world.restarted().tick(at(world.second)), vec![]);
}

#[test]
fn everything_together_has_a_limit_of_its_own() {
    let mut world = world("[limits]\nstop_above = 2", "");
    world.probes("a", "F");
    world.probes("e", "F");
    assert_eq!(world.probes("b", "F"), STOPPED);
    let data = escalated(&world);
    assert_eq!(data.stopped.unwrap().site, None);
    assert!(data.reason.starts_with("3 of the 5 services of the plan are down at once, and stop_above = 2 allows 2: "));
}

#[test]
fn a_person_may_still_be_asked_for_approval() {
    let mut world = world(SITE, "trigger = \"approve\"");
    ["a", "b", "c"].into_iter().for_each(|id| drop(world.probes(id, "F")));
    assert_eq!(world.probes("d", "F"), DOWN, "it waits for a person, who sees what is down");
}

#[test]
fn a_stop_is_said_to_stand_in_the_way_and_survives_a_restart() {
    let mut world = world(SITE, "backoff = \"10s\"");
    world.probes("a", "F");
    world.finish(RecoveryOutcome::Failed);
    ["b", "c"].into_iter().for_each(|id| drop(world.probes(id, "F")));
    let withheld = world.last(|data| match data {
        EventData::RecoveryWithheld(data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!((withheld.reason.as_str(), withheld.by.as_deref()), ("blast_radius", Some("site one")));
    assert_eq!(withheld.evidence.len(), 3, "the incidents that show it");
    world.engine = world.restarted();
    assert!(world.probes("a", "F").is_empty(), "its back-off is over, and the site is down");
    assert!(world.tick(world.second + 600).is_empty());
    assert_eq!(world.probes("c", "S"), ["alert.resolved", "incident.resolved", "recovery.triggered#2"]);
}
