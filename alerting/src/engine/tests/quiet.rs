//! Redundancy groups, silences with matchers and early ends, maintenance windows of the plan.

use rebound_schemas::event::{MaintenanceCancelled, MatchOn, Matcher, SilenceExpired};

use super::*;

/// `api` needs the group of three caches, of which two must be healthy; 2026-03-29 has a spring gap in Berlin.
const PLAN: &str = r#"
[[tier]]
id = "one"
severity = "critical"
[[tier]]
id = "two"
severity = "warning"
[[policy]]
id = "default"
failures = 1
recoveries = 1
silent_after = "1d"
trigger = "off"
[[service]]
id = "c1"
tier = "one"
[[service.probe]]
http = "http://127.0.0.1:1/"
[[service]]
id = "c2"
tier = "one"
[[service.probe]]
http = "http://127.0.0.1:2/"
[[service]]
id = "c3"
tier = "one"
[[service.probe]]
http = "http://127.0.0.1:3/"
[[service]]
id = "api"
tier = "one"
depends_on = ["caches"]
[[service.probe]]
http = "http://127.0.0.1:4/"
[[service]]
id = "batch"
tier = "two"
[[service.probe]]
http = "http://127.0.0.1:5/"
[[group]]
id = "caches"
services = ["c1", "c2", "c3"]
healthy_at_least = 2
[[maintenance]]
id = "nightly"
services = ["batch"]
cron = "0 8 * * *"
duration = "1h"
reason = "compaction"
"#;

const TOLD: [&str; 2] = ["incident.opened", "alert.raised"];

fn severity(world: &World) -> Severity {
    world.last(|data| match data {
        EventData::IncidentOpened(data) => Some(data.severity),
        _ => None,
    })
}

#[test]
fn a_member_is_a_warning_while_its_group_stands_and_dependants_are_told() {
    let mut world = World::under(PLAN);
    assert_eq!(world.probes("c1", "F"), TOLD);
    assert_eq!(severity(&world), Severity::Warning, "two of three are left");
    assert_eq!(world.probes("api", "F"), TOLD, "the group stands: its failure is its own");
    world.probes("api", "S");
    assert_eq!(world.probes("c2", "F"), TOLD);
    assert_eq!(severity(&world), Severity::Critical, "one of three is left");
    assert_eq!(world.probes("api", "F"), ["incident.opened", "alert.suppressed-dependency"]);
    assert_eq!(world.status("api").suppression.map(|s| s.by).as_deref(), Some("caches"));
    // One member is back and the group stands again; the dependant is told of once it is seen failing after that.
    assert_eq!(world.probes("c2", "S"), RESOLVED);
    assert_eq!(world.probes("api", "F"), ["alert.raised"]);
}

fn silence(world: &mut World, matchers: Vec<Matcher>) -> Vec<String> {
    let data = rebound_schemas::event::SilenceCreated {
        silence: "m".into(),
        services: vec![],
        matchers,
        from: at(0),
        until: at(100_000),
        by: "ann".into(),
        reason: "quiet".into(),
    };
    world.seen("api", data)
}

#[test]
fn a_silence_covers_what_its_matchers_choose_until_it_is_ended() {
    let mut world = World::under(PLAN);
    silence(&mut world, vec![Matcher { on: MatchOn::Service, value: "c[12]|api".into(), regex: true }]);
    assert_eq!(world.probes("c1", "F"), ["incident.opened", "alert.suppressed-silence"]);
    assert_eq!(world.probes("c3", "F"), TOLD);
    let ended = SilenceExpired { silence: "m".into(), by: "bob".into(), reason: None };
    assert_eq!(world.seen("api", ended), ["alert.raised"], "what it held back is told");
    // The silence delivered again stays ended.
    let created = world.log.iter().find(|event| event.kind() == Kind::SilenceCreated).cloned().unwrap();
    world.handle(created);
    world.probes("c1", "S");
    assert_eq!(world.probes("c1", "F"), TOLD);
}

#[test]
fn a_silence_of_warnings_lets_outages_through() {
    let mut world = World::under(PLAN);
    world.second = 4000; // after the maintenance window
    silence(&mut world, vec![Matcher { on: MatchOn::Severity, value: "warning".into(), regex: false }]);
    assert_eq!(world.probes("batch", "F"), ["incident.opened", "alert.suppressed-silence"]);
    assert_eq!(world.probes("api", "F"), TOLD);
    assert_eq!(world.probes("batch", "S"), RESOLVED, "its resolve is not swallowed");
}

#[test]
fn a_planned_window_suppresses_is_announced_and_ends_by_itself() {
    // at(0) is 2027-01-15T08:00:00Z: the window begins there and lasts an hour.
    let mut world = World::under(PLAN);
    assert_eq!(at(0).to_rfc3339(), "2027-01-15T08:00:00+00:00");
    let expected = ["incident.opened", "maintenance.scheduled", "alert.suppressed-maintenance"];
    assert_eq!(world.probes("batch", "F"), expected);
    let window = world.last(|data| match data {
        EventData::MaintenanceScheduled(data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!((window.from, window.until, window.reason.as_str()), (at(0), at(3600), "compaction"));
    assert_eq!(window.maintenance, "nightly@2027-01-15T08:00:00Z/batch");
    assert!(world.probes("batch", "F").is_empty());
    assert_eq!(world.restarted().tick(at(world.second)), vec![]);
    assert!(world.tick(3599).is_empty());
    assert_eq!(world.tick(3600), ["alert.raised"]);
    world.second = 3600;
    assert_eq!(world.probes("batch", "S"), RESOLVED);
    world.second = 24 * 3600 - 20;
    assert_eq!(world.probes("batch", "F"), TOLD, "not yet, at a quarter of a minute before eight");
    world.probes("batch", "S");
    assert_eq!(world.probes("batch", "F")[2], "alert.suppressed-maintenance");
    assert_eq!(world.probes("api", "F"), TOLD, "it covers its own services only");
}

#[test]
fn a_window_that_only_keeps_a_warning_quiet_is_announced_too() {
    let condition = "trigger = \"off\"\n[[policy.condition]]\nid = \"disk\"\nutilization_above = 0.9\nfailures = 1\n";
    let mut world = World::under(&PLAN.replace("trigger = \"off\"\n", condition));
    let full = rebound_schemas::event::ResourceMeasured { resource: "disk".into(), utilization: 1.0, site: None };
    assert_eq!(world.seen("batch", full.clone()), ["maintenance.scheduled", "disk suppressed-maintenance"]);
    assert!(world.seen("batch", full).is_empty(), "said once");
    assert_eq!(world.restarted().tick(at(world.second)), vec![]);
}

#[test]
fn a_planned_window_can_be_called_off() {
    let mut world = World::under(PLAN);
    let data =
        MaintenanceCancelled { maintenance: "nightly@2027-01-15T08:00:00Z".into(), by: "ann".into(), reason: None };
    world.seen("batch", data);
    assert_eq!(world.probes("batch", "F"), TOLD);
    let mut engine = world.restarted();
    assert_eq!(engine.tick(at(world.second)), vec![]);
    assert_eq!(engine.status(&service("batch"), at(world.second)).unwrap().suppression, None);
}
