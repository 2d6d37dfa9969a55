//! The engine's rules by tables; properties over generated histories are in `properties`.

mod clocks;
mod conditions;
mod lived;
mod pauses;
mod promtool;
mod properties;
mod quiet;
mod requests;
mod snapshots;
mod standing;
mod withheld;
mod world;
mod zones;

use rebound_schemas::event::{
    IncidentOpened, IncidentResolved, Outcome, RecoveryFinished, RecoveryOutcome, RecoveryStarted, Severity,
    SilenceCreated, SuppressionCause,
};
use rebound_schemas::{Event, EventData, EventId, IncidentId, Kind, ProbeId, Source};

use self::world::{World, at, outcome_of, outside, plan, probe_from, service, words};
use super::*;
use crate::threshold::Health;

const HARD: [&str; 3] = ["incident.opened", "alert.raised", "recovery.triggered#1"];
const RESOLVED: [&str; 2] = ["alert.resolved", "incident.resolved"];

#[test]
fn an_incident_opens_at_the_nth_failure_and_neither_before_nor_after() {
    let table: [(&str, bool); 9] = [
        ("FF", false),
        ("FFF", true),
        ("FFSF", false),
        ("FFSFF", false),
        ("FFSFFF", true),
        ("FFDF", true),
        ("DFDFD", false),
        ("SFFDDDF", true),
        ("DDDDDD", false),
    ];
    for (outcomes, opens) in table {
        let last = World::new().probes("db", outcomes);
        assert_eq!(last, if opens { HARD.to_vec() } else { vec![] }, "{outcomes}");
    }
    assert!(World::new().probes("db", "FFFF").is_empty(), "one alert, not one a probe");
}

#[test]
fn m_of_n_counts_within_its_window() {
    let table: [(&str, bool); 7] = [
        ("FSF", false),
        ("FSFSF", true),
        ("FSFSSF", false),
        ("FSFSDDF", true),
        ("FFSSSF", false),
        ("FFSSF", true),
        ("FFF", true),
    ];
    for (outcomes, opens) in table {
        let last = World::new().probes("window", outcomes);
        assert_eq!(last.first().map(String::as_str), opens.then_some("incident.opened"), "{outcomes}");
    }
    // A window is not remembered past its resolve: one failure more is one failure.
    let mut world = World::new();
    assert!(world.probes("window", "FFFS").is_empty());
    assert_eq!(world.probes("window", "S"), RESOLVED);
    assert!(world.probes("window", "FF").is_empty());
    assert_eq!(world.probes("window", "F")[0], "incident.opened");
}

#[test]
fn t0_to_t3_are_those_of_the_streaks() {
    let mut world = World::new();
    world.probes("db", "SFSFFDF"); // 10 … 70: the streak begins at 40, after the success at 30
    let opened = world.last(|data| match data {
        EventData::IncidentOpened(data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!((opened.first_failure_at, opened.last_success_at), (at(40), Some(at(30))));
    assert_eq!((opened.detected_at, opened.severity), (at(70), Severity::Critical));
    assert_eq!(opened.reason, "connection refused");
    assert_eq!(
        opened.incident,
        IncidentId::derive(&service("db"), &Source::new("outside").unwrap(), &"db@40".parse().unwrap())
    );
    let raised = world.last(|data| match data {
        EventData::AlertRaised(data) => Some(data.clone()),
        _ => None,
    });
    let evidence: Vec<_> = raised.evidence.iter().map(|event| event.id.as_str()).collect();
    assert_eq!((raised.failures, evidence), (3, vec!["db@40", "db@50", "db@70"]));
    assert_eq!(world.probes("db", "SFSDS"), RESOLVED); // 80 S, 90 F, 100 S, 110 D, 120 S
    let resolved = world.last(|data| match data {
        EventData::IncidentResolved(data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!((resolved.recovered_at, resolved.recovery), (at(100), None));
}

#[test]
fn late_and_repeated_observations_count_for_nothing() {
    let mut world = World::new();
    world.probes("db", "FF");
    for second in [20, 10, 15] {
        assert!(world.handle(probe_from("db", "db", None, second, Outcome::Failed)).is_empty(), "at {second}");
    }
    assert!(world.handle(probe_from("db", "db", None, 5, Outcome::Healthy)).is_empty());
    assert_eq!(world.status("db").failures, 2);
    assert_eq!(world.probes("db", "F"), HARD);
}

#[test]
fn a_quorum_of_sites_opens_and_all_must_be_well_to_resolve() {
    let mut world = World::new();
    let mut see = |probe: &str, site: Option<&str>, outcomes: &str| {
        let mut last = Vec::new();
        for outcome in outcomes.chars() {
            world.second += 1;
            last = world.handle(probe_from("lone", probe, site, world.second, outcome_of(outcome)));
        }
        last
    };
    assert!(see("pa", Some("a"), "FFFF").is_empty(), "one site");
    assert!(see("pa2", Some("a"), "FF").is_empty(), "another probe of the same site");
    assert!(see("pb", Some("b"), "F").is_empty());
    assert_eq!(see("pb", Some("b"), "F"), ["incident.opened", "alert.raised"], "no procedure: nothing is triggered");
    assert!(see("pb", Some("b"), "S").is_empty());
    assert!(see("pa", Some("a"), "S").is_empty(), "pa2 is HARD still");
    assert_eq!(see("pa2", Some("a"), "S"), RESOLVED);
}

#[test]
fn silence_suppresses_what_is_told_and_done_and_ends_by_itself() {
    let mut world = World::new();
    world.silence("api", 0, 100);
    assert_eq!(world.probes("api", "FFF"), ["incident.opened", "alert.suppressed-silence"]);
    assert_eq!(world.status("api").suppression.map(|s| s.cause), Some(SuppressionCause::Silence));
    assert!(world.probes("api", "FF").is_empty(), "said once");
    assert_eq!(world.engine.next_deadline(), Some(at(100)));
    world.probes("api", "FFFF");
    assert!(world.tick(99).is_empty());
    assert_eq!(world.tick(100), ["alert.raised", "recovery.triggered#1"]);
    assert!(world.tick(101).is_empty());
    world.second = 100;
    assert_eq!(world.probes("api", "SS"), RESOLVED);
    // One that ends while suppressed resolves quietly: the resolve is there, and nobody was told of the raise.
    world.silence("api", 100, 1000);
    assert_eq!(world.probes("api", "FFF"), ["incident.opened", "alert.suppressed-silence"]);
    assert_eq!(world.probes("api", "SS"), RESOLVED);
    // A silence that starts after the alert was told keeps its resolve from nobody.
    let mut world = World::new();
    world.probes("api", "FFF");
    world.silence("api", 0, 1000);
    assert!(world.engine.is_quiet(&service("api"), at(40)));
    assert_eq!(world.probes("api", "SS"), RESOLVED);
}

#[test]
fn a_failed_dependency_is_told_and_recovered_first() {
    let mut world = World::new();
    assert_eq!(world.probes("db", "FFF"), HARD);
    assert_eq!(world.probes("api", "FFF"), ["incident.opened", "alert.suppressed-dependency"]);
    let by = world.status("api").suppression.map(|s| s.by);
    assert_eq!(by.as_deref(), Some("db"));
    // The dependency is back, and nobody knows yet whether the dependant is.
    assert_eq!(world.probes("db", "SS"), RESOLVED);
    assert_eq!(world.status("api").suppression.map(|s| s.by).as_deref(), Some("db"));
    assert_eq!(world.probes("api", "F"), ["alert.raised", "recovery.triggered#1"]);
    // Recovered together with its dependency: nothing is told, the incident is there.
    let mut world = World::new();
    world.probes("db", "FFF");
    world.probes("api", "FFF");
    world.probes("db", "SS");
    assert_eq!(world.probes("api", "SS"), RESOLVED);
    // A dependency that is merely SOFT or unobserved suppresses nothing.
    let mut world = World::new();
    world.probes("db", "FF");
    assert_eq!(world.probes("api", "FFF"), HARD);
    let mut world = World::new();
    world.probes("db", "FFF");
    world.second += 60;
    assert_eq!(world.probes("api", "FFF"), HARD);
}

#[test]
fn a_dependency_that_falls_silent_no_longer_suppresses() {
    let mut world = World::new();
    world.probes("db", "FFF"); // last seen at 30
    world.probes("api", "FFF"); // suppressed, last seen at 60
    assert!(world.tick(89).is_empty());
    assert_eq!(world.tick(90), ["alert.raised", "recovery.triggered#1"]);
    assert_eq!(world.status("db").health, Health::Unobserved);
}

#[test]
fn a_failed_recovery_is_tried_again_after_a_doubling_wait_and_then_escalates() {
    let mut world = World::new();
    assert_eq!(world.probes("db", "FFF"), HARD);
    assert!(world.finish(RecoveryOutcome::Failed).is_empty()); // at 30: not before 40
    assert_eq!(world.engine.next_deadline(), Some(at(40)));
    assert!(world.tick(39).is_empty());
    assert_eq!(world.tick(40), ["recovery.triggered#2"]);
    let not_before = world.last(|data| match data {
        EventData::RecoveryTriggered(data) => Some(data.not_before),
        _ => None,
    });
    assert_eq!(not_before, Some(at(40)));
    assert!(world.finish(RecoveryOutcome::Failed).is_empty()); // not before 60
    assert!(world.tick(59).is_empty());
    assert_eq!(world.tick(60), ["recovery.triggered#3"]);
    assert_eq!(world.finish(RecoveryOutcome::Failed), ["recovery.escalated"], "three an hour are allowed");
    assert!(world.probes("db", "FFFF").is_empty(), "once an incident");
    assert!(world.status("db").escalated);
    // The next incident finds the budget spent.
    assert_eq!(world.probes("db", "SS"), RESOLVED);
    assert_eq!(world.probes("db", "FFF"), ["incident.opened", "alert.raised", "recovery.escalated"]);
}

#[test]
fn what_follows_the_end_of_a_recovery() {
    let ended = |outcome| {
        let mut world = World::new();
        world.probes("db", "FFF");
        let at_once = world.finish(outcome);
        (at_once, world.tick(45), world)
    };
    let (at_once, later, _) = ended(RecoveryOutcome::Interrupted);
    assert_eq!((at_once, later), (vec!["recovery.escalated".to_owned()], vec![]));
    let (at_once, later, _) = ended(RecoveryOutcome::Cancelled);
    assert_eq!((at_once, later), (vec![], vec![]));
    let (at_once, later, mut world) = ended(RecoveryOutcome::Succeeded);
    assert_eq!((at_once, later), (vec![], vec![]));
    // It comes back at once: the incident was never resolved, and a full streak of failures calls for another try.
    assert!(world.probes("db", "SFF").is_empty());
    assert_eq!(world.probes("db", "F"), ["recovery.triggered#2"]);
    let mut world = World::new();
    world.probes("db", "FFF");
    world.finish(RecoveryOutcome::Succeeded);
    assert_eq!(world.probes("db", "SS"), RESOLVED);
    let recovery = world.last(|data| match data {
        EventData::IncidentResolved(data) => Some(data.recovery.clone()),
        _ => None,
    });
    assert!(recovery.is_some(), "the recovery that brought it back is named");
}

#[test]
fn nothing_is_triggered_on_a_service_that_comes_up() {
    let mut world = World::new();
    world.probes("db", "FFF");
    world.finish(RecoveryOutcome::Failed);
    assert!(world.probes("db", "S").is_empty(), "40: the wait is over, and it answers");
    assert!(world.tick(41).is_empty());
    assert_eq!(world.probes("db", "F"), ["recovery.triggered#2"]);
}

#[test]
fn a_flapping_service_is_tracked_and_nothing_is_told() {
    let mut world = World::new();
    let mut all = Vec::new();
    for _ in 0..6 {
        all.extend(world.probes("db", "FFF"));
        world.probes("db", "S");
        all.extend(world.probes("db", "S"));
    }
    assert!(world.status("db").flapping);
    assert!(all.contains(&"alert.suppressed-flapping".to_owned()), "{all:?}");
    let count = |kind| world.log.iter().filter(|event| event.kind() == kind).count();
    assert_eq!(count(Kind::IncidentOpened), count(Kind::IncidentResolved));
    assert_eq!(count(Kind::AlertResolved), 6);
    // It stays down: flapping stops, and then it is told.
    let told: Vec<_> = (0..21).flat_map(|_| world.probes("db", "F")).collect();
    let at = told.iter().position(|word| word == "alert.raised").unwrap();
    assert!(told[..at].contains(&"alert.suppressed-flapping".to_owned()), "{told:?}");
}

#[test]
fn incidents_from_outside_are_tracked_and_closed_by_whoever_reports() {
    let mut world = World::new();
    let incident = IncidentId::new("INC-7").unwrap();
    let opened = |id: &str| {
        let data = IncidentOpened {
            incident: incident.clone(),
            severity: Severity::Warning,
            first_failure_at: at(0),
            last_success_at: None,
            detected_at: at(0),
            policy: None,
            error_class: rebound_schemas::event::ErrorClass::Unknown,
            cause: None,
            reason: "a customer called".into(),
        };
        outside("db", 1, id, data)
    };
    assert!(world.handle(opened("1")).is_empty());
    assert_eq!(world.status("db").external, std::slice::from_ref(&incident));
    assert_eq!(world.probes("db", "FFFSS"), RESOLVED, "the rules go on beside it");
    let resolved = IncidentResolved { incident: incident.clone(), recovered_at: at(50), recovery: None };
    world.handle(outside("db", 60, "2", resolved));
    assert!(world.status("db").external.is_empty());
    world.handle(opened("1"));
    assert!(world.status("db").external.is_empty(), "posted again, it stays closed");
}

#[test]
fn closed_by_hand_its_alert_resolves_and_the_same_streak_opens_no_other() {
    let mut world = World::new();
    world.probes("db", "FFF");
    let incident = world.status("db").incident.unwrap();
    let resolved = IncidentResolved { incident, recovered_at: at(31), recovery: None };
    assert_eq!(world.handle(outside("db", 31, "by-hand", resolved)), ["alert.resolved"]);
    assert!(world.probes("db", "FFF").is_empty());
    assert!(world.probes("db", "SS").is_empty());
    assert_eq!(world.probes("db", "FFF")[0], "incident.opened");
}

#[test]
fn health_by_the_table() {
    let table = [
        ("", Health::Unobserved),
        ("S", Health::Ok),
        ("D", Health::Degraded),
        ("F", Health::Soft),
        ("FD", Health::Soft),
        ("FS", Health::Ok),
        ("FFF", Health::Hard),
        ("FFFS", Health::Hard),
        ("FFFSS", Health::Ok),
    ];
    for (outcomes, health) in table {
        let mut world = World::new();
        world.probes("db", outcomes);
        assert_eq!(world.status("db").health, health, "{outcomes:?}");
        world.second += 60;
        assert_eq!(world.status("db").health, Health::Unobserved, "{outcomes:?}, a minute later");
    }
}

#[test]
fn what_is_not_owned_is_folded_as_a_dependency_only() {
    let mut world = World::new();
    world.probes("db", "FFF");
    let mut engine = Engine::new(plan());
    engine.own_where(|id| id.as_str() == "api");
    for event in &world.log {
        assert!(engine.handle(event, at(30)).is_empty());
    }
    let mut decided = Vec::new();
    for second in [40, 50, 60] {
        let event = probe_from("api", "api", None, second, Outcome::Failed);
        decided = engine.handle(&event, at(second));
    }
    assert_eq!(words(&decided), ["incident.opened", "alert.suppressed-dependency"]);
    let before = world.log.len();
    world.second = 60;
    world.probes("db", "SS");
    let decided: Vec<_> = world.log[before..].iter().flat_map(|event| engine.handle(event, at(80))).collect();
    assert!(decided.is_empty());
    let decided = engine.handle(&probe_from("api", "api", None, 90, Outcome::Failed), at(90));
    assert_eq!(words(&decided), ["alert.raised", "recovery.triggered#1"]);
}

#[test]
fn an_open_incident_survives_a_restart_that_reads_little_or_nothing_of_its_probes() {
    let mut world = World::new();
    world.probes("db", "FFF");
    let decisions: Vec<_> = world.log.iter().filter(|e| e.kind() != Kind::ProbeCompleted).cloned().collect();
    let mut engine = Engine::new(plan());
    engine.own_where(|_| true);
    decisions.iter().for_each(|event| engine.fold(event));
    assert!(engine.tick(at(1000)).is_empty());
    let mut next = |second, outcome| words(&engine.handle(&probe_from("db", "db", None, second, outcome), at(second)));
    assert!(next(1000, Outcome::Degraded).is_empty());
    assert!(next(1010, Outcome::Healthy).is_empty());
    assert_eq!(next(1020, Outcome::Healthy), RESOLVED);
}

#[test]
fn a_hundred_thousand_services_stay_small() {
    let bytes = std::mem::size_of::<ServiceState>()
        + std::mem::size_of::<Watched>()
        + 2 * std::mem::size_of::<(ProbeId, crate::threshold::ProbeState)>();
    assert!(bytes < 1024, "{bytes} bytes a service of two probes, before what it points to");
    // Five conditions, two of them burn rates: 100,000 such services stay below 500 MiB.
    let (watch, burn) = (std::mem::size_of::<crate::condition::Watch>(), std::mem::size_of::<crate::burn::Burn>());
    assert!(bytes + 5 * watch + 2 * burn < 4096, "{bytes} + 5 × {watch} + 2 × {burn} bytes");
}

#[test]
fn lookback_covers_flapping_and_thresholds() {
    let plan = plan();
    assert_eq!(lookback(&plan), Duration::from_secs(22 * 10));
    let policy = &plan.policies()["default"];
    assert_eq!(lookback_of(policy, Duration::from_secs(1)), Duration::from_secs(60), "at least silent_after");
}
