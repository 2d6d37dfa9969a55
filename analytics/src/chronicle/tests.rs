//! The chronicle: what counts of what was said, in whatever order, and the plan as of any time.

use proptest::prelude::*;
use rebound_schemas::event::*;
use rebound_schemas::ids::*;
use rebound_schemas::plan::Plan;

use super::*;
use crate::fixture::{at, event};

fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Chronicle {
    let mut chronicle = Chronicle::default();
    for event in events {
        chronicle.evolve(event);
    }
    chronicle
}

fn told(n: u32, transition: Transition) -> Told {
    let (alert, incident) = (AlertId::new(&format!("alr-{n}")).unwrap(), IncidentId::new(&format!("inc-{n}")).unwrap());
    Told { alert, incident, transition, repeat: 0 }
}

fn planned(key: &str, seconds: i64, members: Vec<Told>) -> Event {
    let channel = ChannelId::new("pager").unwrap();
    let (group, route, recoveries) = (None, Some("0".to_owned()), Vec::new());
    let data = NotificationPlanned { dedup_key: key.into(), channel, group, route, recoveries, members };
    event("rebound/alerting", &format!("{key}:planned"), "api", seconds, data)
}

fn failed(key: &str, seconds: i64, error: &str) -> Event {
    let Told { alert, incident, transition, .. } = told(1, Transition::Raised);
    let data = NotificationFailed {
        dedup_key: key.into(),
        alert,
        incident,
        channel: ChannelId::new("pager").unwrap(),
        transition,
        attempts: 5,
        error: error.into(),
        round: 0,
        members: Vec::new(),
    };
    event("rebound/alerting", &format!("{key}:failed-{seconds}"), "api", seconds, data)
}

fn sent(key: &str, seconds: i64) -> Event {
    let Told { alert, incident, transition, .. } = told(1, Transition::Raised);
    let (channel, attempt, members) = (ChannelId::new("pager").unwrap(), 2, Vec::new());
    let data = NotificationSent { dedup_key: key.into(), alert, incident, channel, transition, attempt, members };
    event("rebound/alerting", &format!("{key}:sent"), "api", seconds, data)
}

fn backup(seconds: i64, until: i64, succeeded: bool) -> Event {
    let data = BackupFinished {
        backup: "nightly".into(),
        kind: BackupKind::Full,
        succeeded,
        data_until: Some(at(until)),
        size_bytes: Some(10),
        duration_ms: Some(1_500),
        detail: None,
    };
    event("cron", &format!("backup-{seconds}"), "db", seconds, data)
}

fn verified(seconds: i64, passed: bool) -> Event {
    let data = BackupVerified { backup: "nightly".into(), passed, checks: Vec::new() };
    event("cron", &format!("verified-{seconds}"), "db", seconds, data)
}

fn deployed(name: &str, seconds: i64, outcome: DeploymentOutcome) -> Event {
    let data = DeploymentFinished { deployment: name.into(), outcome, version: Some(format!("v{seconds}")) };
    event("ci", &format!("{name}-{seconds}"), "api", seconds, data)
}

fn plan(text: &str) -> Plan {
    Plan::parse(text, "plan.toml").unwrap()
}

const SMALL: &str = "[[service]]\nid = \"api\"\nrto = \"4m\"\n[[service.probe]]\ntcp = \"127.0.0.1:1\"\n";
const TIGHTER: &str = "[[service]]\nid = \"api\"\nrto = \"2m\"\n[[service.probe]]\ntcp = \"127.0.0.1:1\"\n";
const RENAMED: &str =
    "name = \"x\"\n[[service]]\nid = \"api\"\nname = \"API\"\nrto = \"2m\"\n[[service.probe]]\ntcp = \"127.0.0.1:1\"\n";

/// Everything, with what comes twice, late, and after its end.
fn history() -> Vec<Event> {
    let mut events = vec![
        planned("m1", 10, vec![told(1, Transition::Raised), told(2, Transition::Raised)]),
        failed("m1", 20, "first"),
        failed("m1", 40, "last"),
        sent("m1", 50),
        sent("m2", 60),
        backup(100, 90, true),
        verified(150, true),
        verified(160, false),
        backup(200, 190, false),
        backup(300, 290, true),
        verified(310, false),
        deployed("d1", 5, DeploymentOutcome::Succeeded),
        deployed("d1", 500, DeploymentOutcome::RolledBack),
        deployed("d2", 6, DeploymentOutcome::Succeeded),
    ];
    for (seconds, text) in [(0, SMALL), (50, SMALL), (100, TIGHTER), (200, RENAMED), (300, SMALL)] {
        events.extend(plan(text).adopted(at(seconds)));
    }
    events
}

#[test]
fn of_what_is_said_again_one_counts() {
    let chronicle = fold(&history());
    let message = &chronicle.messages["m1"];
    assert_eq!(message.about.get().unwrap().changes, 2, "as planned");
    assert_eq!(message.failed.get().unwrap().error, "last");
    assert_eq!((message.sent.at(), message.sent.get()), (Some(at(50)), Some(&2)));
    assert!(chronicle.messages["m2"].planned.get().is_none());
    let backups = chronicle.backups.values().next().unwrap();
    let found: Vec<_> = backups.runs.keys().map(|run| backups.verification(run)).collect();
    assert_eq!(found, [Some((at(150), true)), None, Some((at(310), false))], "the first, before the next run");
    let of = |name: &str| &chronicle.deployments[&(ServiceId::new("api").unwrap(), name.to_owned())];
    assert_eq!((of("d1").failed, of("d1").reports, of("d1").first.at()), (true, 2, Some(at(5))));
    assert_eq!(of("d1").last.get().unwrap().outcome, DeploymentOutcome::RolledBack);
    assert!(!of("d2").failed);
}

#[test]
fn the_plan_is_known_as_of_any_time() {
    let chronicle = fold(&history());
    let versions: Vec<_> = chronicle.plans.versions().iter().map(|it| (it.from, it.until)).collect();
    assert_eq!(
        versions,
        [(at(0), Some(at(100))), (at(100), Some(at(200))), (at(200), Some(at(300))), (at(300), None)],
        "adopted again it is the same, and an old one may come back"
    );
    let promises = chronicle.plans.promises();
    let promises = &promises[&ServiceId::new("api").unwrap()];
    let spans: Vec<_> = promises.iter().map(|it| (it.what.rto_seconds, it.from, it.until)).collect();
    // Renaming promised nothing new.
    assert_eq!(spans, [(240.0, at(0), Some(at(100))), (120.0, at(100), Some(at(300))), (240.0, at(300), None)]);
    for (seconds, rto) in [(-1, None), (0, Some(240.0)), (99, Some(240.0)), (100, Some(120.0)), (9_999, Some(240.0))] {
        assert_eq!(super::at(promises, at(seconds)).map(|it: Promise| it.rto_seconds), rto, "{seconds}");
    }
    // What a plan no longer has is over.
    let without = plan("[[service]]\nid = \"db\"\n[[service.probe]]\ntcp = \"127.0.0.1:1\"\n").adopted(at(400));
    let chronicle = fold(history().iter().chain(&without));
    let promises = chronicle.plans.promises();
    assert_eq!(promises[&ServiceId::new("api").unwrap()].last().unwrap().until, Some(at(400)));
}

#[test]
fn half_a_plan_promises_nothing() {
    let text: String = (0..600)
        .map(|n| format!("[[service]]\nid = \"s{n}\"\n[[service.probe]]\nid = \"p{n}\"\ntcp = \"127.0.0.1:1\"\n"))
        .collect();
    let events = plan(&text).adopted(at(0));
    assert!(events.len() > 1);
    assert!(fold(&events[1..]).plans.versions().is_empty());
    assert_eq!(fold(events.iter().rev()).plans.promises().len(), 600);
}

proptest! {
    #[test]
    fn the_order_of_events_changes_nothing(events in Just(history()).prop_shuffle()) {
        prop_assert_eq!(fold(&events), fold(&history()));
    }
}
