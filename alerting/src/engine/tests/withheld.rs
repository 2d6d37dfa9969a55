//! Why nothing was triggered: each reason, said once, with what it rests on.

use rebound_schemas::event::{MaintenanceScheduled, RecoveryWithheld, WithheldReason as Why};

use super::*;
use crate::hindrance::MAX_CHANGES;

/// Everything that was said to be withheld, oldest first.
fn withheld(world: &World) -> Vec<RecoveryWithheld> {
    let of = |event: &Event| match &event.data {
        EventData::RecoveryWithheld(data) => Some(data.clone()),
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

/// `#2 silence by s until 100`: what was said, in order, and that each piece of evidence was there before.
fn said(world: &World) -> Vec<String> {
    for (place, event) in world.log.iter().enumerate() {
        let EventData::RecoveryWithheld(data) = &event.data else { continue };
        assert_eq!(data.recovery, rebound_schemas::RecoveryId::derive(&event.subject, &data.incident, data.attempt));
        assert_eq!(event.id.as_str(), format!("{}:withheld-{}", data.recovery, data.change));
        for known in &data.evidence {
            assert!(world.log[..place].iter().any(|e| e.id == known.id && e.source == known.source), "{known:?}");
        }
    }
    let word = |data: &RecoveryWithheld| {
        let by = data.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let until = data.until.map(|until| format!(" until {}", (until - at(0)).num_seconds())).unwrap_or_default();
        format!("#{} {}{by}{until}", data.attempt, data.reason)
    };
    withheld(world).iter().map(word).collect()
}

/// What was said last, with figures.
fn detail(world: &World) -> String {
    withheld(world).last().and_then(|data| data.detail.clone()).unwrap_or_default()
}

fn under(policy: &str, service: &str) -> World {
    World::under(&format!(
        "allow = [\"/bin/true\"]\n[[service]]\nid = \"db\"\n{service}\n\
         [[service.probe]]\nid = \"db\"\nhttp = \"http://127.0.0.1:1/\"\n\
         [[procedure]]\nid = \"restart\"\n[[procedure.step]]\nid = \"s\"\ncommand = [\"/bin/true\"]\n\
         [[policy]]\nid = \"default\"\nfailures = 3\nrecoveries = 2\nsilent_after = \"60s\"\n{policy}\n"
    ))
}

#[test]
fn a_plan_that_recovers_nothing_is_said_once_an_incident() {
    let mut world = under("trigger = \"off\"", "procedure = \"restart\"");
    world.probes("db", "FFFFFSFF");
    assert_eq!(said(&world), ["#1 policy"]);
    assert_eq!(detail(&world), "the policy default triggers no recovery");
    world.probes("db", "SSFFF");
    assert_eq!(said(&world), ["#1 policy", "#1 policy"]);
    let mut world = under("", "");
    world.probes("db", "FFFF");
    assert_eq!(said(&world), ["#1 no_procedure"]);
    assert_eq!(detail(&world), "the plan gives the service no procedure");
}

#[test]
fn what_must_hold_first_is_said_before_there_is_an_incident() {
    let mut world = under("hold = \"60s\"", "procedure = \"restart\"");
    world.probes("db", "FFFF"); // failed since 30
    assert_eq!(said(&world), ["#1 hold until 90"]);
    let data = &withheld(&world)[0];
    assert_eq!(
        (detail(&world).as_str(), data.evidence.len()),
        ("it fails since 2027-01-15T08:00:30.000Z and must for 1m", 3)
    );
    world.probes("db", "SS");
    assert!(world.status("db").incident.is_none());
    // It lasts: the same incident opens, and its recovery is the one that was withheld.
    world.probes("db", "FFFFFFFFF");
    assert_eq!(said(&world), ["#1 hold until 90", "#1 hold until 150"]);
    assert_eq!(world.status("db").incident.as_ref(), Some(&withheld(&world)[1].incident));
    assert_eq!(world.status("db").recovery.map(|r| r.id), Some(withheld(&world)[1].recovery.clone()));
}

#[test]
fn what_suppresses_is_said_with_its_name_its_end_and_its_event() {
    let mut world = World::new();
    world.silence("api", 0, 100);
    world.probes("api", "FFFF");
    assert_eq!(said(&world), ["#1 silence by s until 100"]);
    assert_eq!(withheld(&world)[0].evidence[0].id.as_str(), "silence-0-100");
    let data = MaintenanceScheduled {
        maintenance: "m".into(),
        services: vec![service("api")],
        from: at(0),
        until: at(80),
        by: "ann".into(),
        reason: "work".into(),
    };
    world.handle(outside("api", world.second, "work", data));
    world.probes("db", "FFF");
    world.probes("api", "FF"); // 80, 90: the window is over, the silence is not
    world.tick(100);
    assert_eq!(said(&world)[1..], ["#1 maintenance by m until 80", "#1 silence by s until 100", "#1 dependency by db"]);
    assert_eq!(withheld(&world)[3].evidence[0].id.as_str(), format!("{}:opened", world.status("db").incident.unwrap()));
}

#[test]
fn a_failed_group_is_said_with_what_is_left_of_it() {
    let member = |id: &str| {
        format!("[[service]]\nid = \"{id}\"\n[[service.probe]]\nid = \"{id}\"\nhttp = \"http://127.0.0.1:1/\"\n")
    };
    let mut world = under(
        "",
        &format!(
            "procedure = \"restart\"\ndepends_on = [\"pair\"]\n{}{}[[group]]\nid = \"pair\"\nservices = [\"a1\", \"a2\"]\nhealthy_at_least = 1\n[[service]]\nid = \"front\"",
            member("a1"),
            member("a2")
        ),
    );
    for _ in 0..3 {
        ["a1", "a2", "db"].into_iter().for_each(|id| drop(world.probes(id, "F")));
    }
    let last = withheld(&world).pop().unwrap();
    assert_eq!((last.reason, last.by.as_deref(), last.evidence.len()), (Why::Dependency, Some("pair"), 2));
    assert_eq!(detail(&world), "0 of the group's 2 services stand, and 1 must");
}

#[test]
fn back_off_budget_and_what_ends_automation() {
    let mut world = World::new();
    world.probes("db", "FFF");
    world.finish(RecoveryOutcome::Failed);
    assert_eq!(said(&world), ["#2 back_off until 40"]);
    assert_eq!(detail(&world), "10s after the last of 1 recoveries: 10s doubled each time, at most 5m");
    world.tick(40);
    world.finish(RecoveryOutcome::Failed);
    world.tick(60);
    world.finish(RecoveryOutcome::Failed);
    world.probes("db", "FFF");
    assert_eq!(said(&world), ["#2 back_off until 40", "#3 back_off until 60", "#4 budget"]);
    assert_eq!(detail(&world), "3 recoveries within 1h are the most that the policy default allows");
    for (outcome, reason) in [(RecoveryOutcome::Interrupted, "interrupted"), (RecoveryOutcome::Cancelled, "cancelled")]
    {
        let mut world = World::new();
        world.probes("db", "FFF");
        world.finish(outcome);
        world.probes("db", "FFFF");
        assert_eq!(said(&world), [format!("#2 {reason}")]);
    }
    // Somebody else, a procedure say, handed it to people.
    let mut world = World::new();
    world.probes("db", "FFF");
    let incident = world.status("db").incident.unwrap();
    let data = rebound_schemas::event::RecoveryEscalated {
        incident,
        recovery: None,
        attempts: 1,
        reason: "x".into(),
        stopped: None,
    };
    world.handle(outside("db", 31, "gave-up", data));
    world.finish(RecoveryOutcome::Failed);
    world.probes("db", "FF");
    assert_eq!(said(&world), ["#2 escalated"]);
}

#[test]
fn a_service_that_answers_or_is_not_seen_is_left_alone_and_that_is_said() {
    let mut world = World::new();
    world.probes("db", "FFF");
    world.finish(RecoveryOutcome::Failed);
    world.probes("db", "S");
    assert_eq!(said(&world), ["#2 back_off until 40", "#2 answering"]);
    assert_eq!(detail(&world), "1 of the 2 successes in a row that resolve it");
    assert_eq!(world.tick(99), Vec::<String>::new());
    world.tick(100);
    assert_eq!(said(&world)[2..], ["#2 unobserved"]);
    assert_eq!(detail(&world), "it was last seen at 2027-01-15T08:00:40.000Z, and nothing older than 1m is acted upon");
}

#[test]
fn a_recovery_of_an_earlier_incident_goes_before() {
    let mut world = World::new();
    world.probes("db", "FFF");
    let EventData::RecoveryTriggered(first) = world.last(|data| match data {
        EventData::RecoveryTriggered(_) => Some(data.clone()),
        _ => None,
    }) else {
        unreachable!()
    };
    let started = RecoveryStarted {
        recovery: first.recovery.clone(),
        incident: first.incident,
        procedure: first.procedure,
        runner: "r".into(),
    };
    world.handle(outside("db", 30, "started", started));
    world.probes("db", "SSFFF");
    assert_eq!(said(&world), [format!("#1 other_recovery by {}", first.recovery)]);
    assert_eq!(withheld(&world)[0].evidence[0].id.as_str(), "started");
}

#[test]
fn a_flapping_service_is_said_with_its_score() {
    let mut world = World::new();
    (0..6).for_each(|_| drop(world.probes("db", "FFFSS")));
    let flapping = withheld(&world).into_iter().find(|data| data.reason == Why::Flapping).unwrap();
    assert_eq!(flapping.by, None);
    let detail = flapping.detail.unwrap();
    assert!(detail.ends_with("% of its last states changed: flapping from 30 % on until 20 %"), "{detail}");
}

#[test]
fn what_swings_to_and_fro_fills_no_log() {
    let mut world = World::new();
    world.probes("db", "FFF");
    world.probes("api", "FFF");
    for second in (62..162).step_by(2) {
        // Its dependency stays down, and a silence of a second is told of every other second.
        world.second = second;
        world.handle(probe_from("db", "db", None, second, Outcome::Failed));
        world.silence("api", second, second + 1);
        world.tick(second + 1);
    }
    let of_api: Vec<_> = withheld(&world).into_iter().filter(|data| data.reason != Why::BackOff).collect();
    assert!(of_api.iter().map(|data| data.change).eq(1..=MAX_CHANGES), "{of_api:?}");
    assert_eq!(said(&world)[..3], ["#1 dependency by db", "#1 silence by s until 63", "#1 dependency by db"]);
}
