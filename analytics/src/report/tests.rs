//! Figures of small histories worked out by hand, and the odd ones: nothing, one, open only, impossible, overlapping.

use rebound_schemas::event::*;
use rebound_schemas::incident::fold;
use rebound_schemas::{DrillId, Event, RecoveryId, SiteId};

use super::*;
use crate::fixture::{acknowledged, at, event, excluded, opened, outage, recovery, resolved, service};
use crate::observed::Breaks;

const PLAN: &str = "[[tier]]\nid = \"one\"\n[[tier]]\nid = \"two\"\n[[service]]\nid = \"api\"\ntier = \"one\"\nrto = \"2m\"\nrpo = \"1m\"\n\
    method = \"synchronous-replication\"\n[[service.probe]]\nhttp = \"http://127.0.0.1:8080/\"\n\
    [[service]]\nid = \"db\"\ntier = \"two\"\nrto = \"10m\"\nrpo = \"1h\"\nmethod = \"database-restore\"\n\
    [[service.probe]]\ntcp = \"127.0.0.1:5432\"\n\
    [[drill]]\nid = \"partial\"\nscenario = \"kill the database\"\nservices = [\"db\"]\ndetect_within = \"1m\"\nrecover_within = \"1h\"\n";

const DAY: i64 = 86_400;

fn plan() -> Plan {
    Plan::parse(PLAN, "plan.toml").unwrap_or_else(|faults| panic!("{faults}"))
}

fn around(record: &Record, events: &[Event]) -> Surroundings {
    let incidents: Vec<_> = record.incidents().collect();
    let mut surroundings = Surroundings::around(&incidents);
    events.iter().for_each(|event| surroundings.evolve(event));
    // In whatever order: the same.
    let mut backwards = Surroundings::around(&incidents);
    events.iter().rev().for_each(|event| backwards.evolve(event));
    assert_eq!(surroundings, backwards);
    surroundings
}

/// The report of events, as of a time, with everything observed from 0 to then.
fn of(events: &[Event], plan: Option<&Plan>, now: i64, by: Option<Dimension>, only: &[(Dimension, String)]) -> Report {
    let record = fold(events);
    let surroundings = around(&record, events);
    let mut breaks = Breaks::default();
    for name in ["api", "db"] {
        breaks.add(service(name), None, Some(at(0).timestamp_micros()));
        breaks.add(service(name), Some(at(now).timestamp_micros()), None);
    }
    let observed = Observed::of(breaks, BTreeMap::new(), plan);
    let inputs = Inputs {
        record: &record,
        plan,
        surroundings: &surroundings,
        observed: &observed,
        now: at(now),
        since: None,
        until: None,
        only,
        seed: 1,
    };
    report(&inputs, by)
}

fn ratio(of: Proportion) -> (usize, usize) {
    (of.part, of.whole)
}

#[test]
fn nothing_is_not_enough_data_and_never_a_number() {
    let found = of(&[], None, 100, Some(Dimension::Cause), &[]);
    let all = &found.all;
    assert!(found.groups.is_empty() && all.still_down.is_empty());
    assert_eq!((all.incidents, all.times.recover, all.times.survival_median), (0, None, None));
    for share in [all.success, all.relapse, all.rto_met, all.rpo_met, all.change_failure.unwrap()] {
        assert_eq!(share, Proportion::default());
    }
    assert_eq!((all.error_rate, all.impact, all.dora), (None, Impact::default(), Dora::default()));
    let uptime = all.uptime.unwrap();
    assert_eq!((uptime.availability, uptime.mtbf_seconds), (Some(1.0), None));
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn one_incident_is_its_own_figures() {
    let found = of(&outage(1, "db", 100, 160), Some(&plan()), 1_000, None, &[]).all;
    let recover = found.times.recover.unwrap();
    assert_eq!(
        (recover.n, recover.median, recover.median_low, recover.median_high, recover.p95),
        (1, 60.0, 60.0, 60.0, 60.0)
    );
    assert!((recover.geometric_mean - 60.0).abs() < 1e-9);
    assert_eq!(found.times.survival_median, Some(60.0));
    assert_eq!((ratio(found.rto_met), ratio(found.success), ratio(found.relapse)), ((1, 1), (0, 0), (0, 0)));
    assert_eq!(found.impact, Impact { services: 1, down_seconds: 60.0, requests: None, failed_requests: None });
    assert_eq!(found.dora.time_to_restore, Some(Band::Elite));
}

#[test]
fn open_ones_alone_have_no_recovery_time_but_are_still_down() {
    let found = of(&[opened(1, "db", 100, 110), opened(2, "api", 940, 950)], Some(&plan()), 1_000, None, &[]).all;
    assert_eq!((found.times.open, found.times.recover, found.times.survival_median), (2, None, None));
    assert!(found.still_down.iter().all(|it| it.share == 1.0));
    // db is 900 s down with an objective of 600; api's 60 s are within its 120.
    assert_eq!(ratio(found.rto_met), (0, 1));
    assert_eq!(found.impact.down_seconds, 960.0);
}

#[test]
fn odd_incidents_are_counted_and_told_apart() {
    let events = [
        outage(1, "db", 100, 400),
        // Begins while the first lasts, and ends later.
        outage(2, "db", 200, 500),
        // Of another service: no overlap.
        outage(3, "api", 200, 200),
        // Recovered before it began; taken out; begins after now.
        vec![opened(4, "db", 300, 310), resolved(4, "db", 250, 320)],
        vec![opened(5, "db", 300, 310), excluded(5, "db", 330)],
        vec![opened(6, "api", 5_000, 5_010)],
    ]
    .concat();
    let found = of(&events, None, 1_000, None, &[]).all;
    assert_eq!((found.incidents, found.times.recover.unwrap().n), (6, 3));
    assert_eq!((found.overlapping, found.zero_length), (1, 1));
    assert_eq!((found.times.excluded, found.times.impossible, found.times.open), (1, 2, 0));
    // 100 to 500, once.
    assert_eq!(found.impact.down_seconds, 400.0);
    assert_eq!(found.times.recover.unwrap().geometric_mean, 0.0, "a time of nothing makes it nothing");
}

#[test]
fn a_relapse_is_within_a_day_of_the_recovery() {
    let incident = |n, from, until| outage(n, "db", from, until);
    let events: Vec<_> = [
        incident(1, 0, 100),
        // A day and a second after the first recovered: none.
        incident(2, 100 + DAY + 1, 100 + DAY + 60),
        // Exactly a day after the second: a relapse.
        incident(3, 100 + DAY + 60 + DAY, 100 + 2 * DAY + 120),
        // Of another service, at once: none.
        outage(4, "api", 101, 150),
        // Recovered less than a day ago: not known yet.
        incident(5, 9 * DAY, 9 * DAY + 50),
    ]
    .concat();
    assert_eq!(ratio(of(&events, None, 9 * DAY + 3_600, None, &[]).all.relapse), (1, 4));
}

/// Copies and backups before t0 say what was lost: by the table of `Surroundings::data_until`.
#[test]
fn recovery_points_are_judged_where_they_are_known() {
    let lag = |id, seconds, lag_seconds| {
        let target_site = SiteId::new("secondary").unwrap();
        event("replication", id, "api", seconds, ReplicationMeasured { target_site, lag_seconds, pending_bytes: None })
    };
    let backup = |id, seconds, until: i64, succeeded| {
        let data = BackupFinished {
            backup: "nightly".into(),
            kind: BackupKind::Full,
            succeeded,
            data_until: Some(at(until)),
            size_bytes: None,
            duration_ms: None,
            detail: None,
        };
        event("backup", id, "db", seconds, data)
    };
    let incident = |n, service, from| outage(n, service, from, from + 60);
    let events = [
        vec![lag("1", 90, 5.0), lag("2", 80, 500.0)],
        // Newest copy: 85, so 15 s were lost of 60 allowed.
        incident(1, "api", 100),
        // Nothing measured since: 85 still, and 915 s were lost.
        incident(2, "api", 1_000),
        vec![backup("1", 2_000, 1_900, true), backup("2", 3_000, 2_900, false), backup("3", 9_000, 8_900, true)],
        // Before any backup: not known. Then 1,900 is the newest: 2,100 of 3,600 s, and 5,100.
        incident(3, "db", 1_500),
        incident(4, "db", 4_000),
        incident(5, "db", 7_000),
    ]
    .concat();
    let found = of(&events, Some(&plan()), 20_000, Some(Dimension::Service), &[]);
    assert_eq!(ratio(found.groups["api"].rpo_met), (1, 2));
    assert_eq!(ratio(found.groups["db"].rpo_met), (1, 2));
    assert_eq!(ratio(found.all.rpo_met), (2, 4));

    // A move that says up to when its data goes is believed before anything else.
    let sites = || (SiteId::new("primary").unwrap(), SiteId::new("secondary").unwrap());
    let recovery_id = Some(RecoveryId::new("rec-7").unwrap());
    let started =
        FailoverStarted { failover: "f".into(), from_site: sites().0, to_site: sites().1, recovery: recovery_id };
    let finished = FailoverFinished {
        failover: "f".into(),
        from_site: sites().0,
        to_site: sites().1,
        succeeded: true,
        duration_ms: 1,
        data_until: Some(at(30_000 - 3_601)),
        reason: None,
    };
    let mut moved = recovery(7, "db", 30_010);
    moved.extend([opened(7, "db", 30_000, 30_009), resolved(7, "db", 30_019, 30_030)]);
    moved.extend([event("ops", "1", "db", 30_011, started), event("ops", "2", "db", 30_012, finished)]);
    assert_eq!(ratio(of(&moved, Some(&plan()), 40_000, None, &[]).all.rpo_met), (0, 1));
}

#[test]
fn deployments_count_once_each_and_for_what_a_service_is() {
    let deployed = |id: &str, service, seconds, name: &str, outcome| {
        event("ci", id, service, seconds, DeploymentFinished { deployment: name.into(), outcome, version: None })
    };
    let events = [
        deployed("1", "api", 0, "api-1", DeploymentOutcome::Succeeded),
        // Taken back a day later: the same deployment, and it failed.
        deployed("2", "api", DAY, "api-1", DeploymentOutcome::RolledBack),
        deployed("3", "api", 2 * DAY, "api-2", DeploymentOutcome::Succeeded),
        deployed("4", "db", 3 * DAY, "api-1", DeploymentOutcome::Succeeded),
        opened(1, "db", 4 * DAY, 4 * DAY + 9),
    ];
    let found = of(&events, Some(&plan()), 10 * DAY, Some(Dimension::Service), &[]);
    assert_eq!(ratio(found.all.change_failure.unwrap()), (1, 3));
    assert_eq!(ratio(found.groups["api"].change_failure.unwrap()), (1, 2));
    assert_eq!(ratio(found.groups["db"].change_failure.unwrap()), (0, 1));
    assert_eq!((found.all.dora.change_failure, found.all.dora.deployments), (Some(Band::Low), Some(Band::High)));
    assert_eq!(found.all.dora.deployments_per_day, Some(0.3));
    let by_cause = of(&events, Some(&plan()), 10 * DAY, Some(Dimension::Cause), &[]);
    assert_eq!((by_cause.groups["network"].change_failure, by_cause.groups["network"].uptime), (None, None));
    // Within less than a week nothing is said of how often.
    assert_eq!(of(&events, None, 5 * DAY, None, &[]).all.dora.deployments, None);
}

#[test]
fn a_cause_in_words_goes_before_its_class() {
    let mut events = [outage(1, "db", 0, 100), outage(2, "db", 1_000, 1_100), outage(3, "api", 0, 50)].concat();
    for event in &mut events {
        if let EventData::IncidentOpened(data) = &mut event.data {
            data.cause = (event.subject.as_str() == "db").then(|| "disk full".to_owned());
        }
    }
    let found = of(&events, None, 10_000, Some(Dimension::Cause), &[]);
    let names: Vec<_> = found.groups.iter().map(|(name, figures)| (name.as_str(), figures.incidents)).collect();
    assert_eq!(names, [("disk full", 2), ("network", 1)]);
    let only = of(&events, None, 10_000, None, &[(Dimension::Cause, "disk full".into())]);
    assert_eq!(only.all.incidents, 2);
}

#[test]
fn groups_are_what_an_incident_is() {
    let mut events = vec![
        // Brought back by a procedure.
        opened(1, "api", 1_000, 1_010),
        resolved(1, "api", 1_030, 1_040),
        // By people; a fault had been put in within the onset.
        opened(2, "db", 2_000, 2_010),
        acknowledged(2, "db", 2_020, false),
        resolved(2, "db", 2_100, 2_110),
        event("demo", "f", "db", 1_900, FaultInjected { drill: None, fault: "kill".into(), target: "db".into() }),
        // In the run of a drill that is about it, and of one that is not about api.
        opened(3, "db", 5_000, 5_010),
        opened(4, "api", 5_000, 5_010),
        resolved(4, "api", 5_500, 5_510),
    ];
    events.extend(recovery(1, "api", 1_010));
    let drill = DrillId::new("partial").unwrap();
    let started = DrillStarted { drill: drill.clone(), run: "r".into(), by: "ann".into() };
    events.push(event("console", "d", "partial", 4_900, started));
    let plan = plan();
    let names = |by| -> Vec<(String, usize)> {
        let found = of(&events, Some(&plan), 10_000, Some(by), &[]);
        found.groups.into_iter().map(|(name, figures)| (name, figures.incidents)).collect()
    };
    let expected =
        |groups: &[(&str, usize)]| groups.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(names(Dimension::Automation), expected(&[("automated", 1), ("manual", 2), ("open", 1)]));
    assert_eq!(names(Dimension::Drill), expected(&[("drill", 2), ("real", 2)]));
    assert_eq!(
        names(Dimension::Method),
        expected(&[("database-restore", 2), ("synchronous-replication", 1), ("warm-standby", 1)])
    );
    assert_eq!(names(Dimension::Service), expected(&[("api", 2), ("db", 2)]));
    assert_eq!(names(Dimension::Cause), expected(&[("network", 4)]));
    assert_eq!(names(Dimension::Severity), expected(&[("critical", 4)]));
    assert_eq!(names(Dimension::Tier), expected(&[("one", 2), ("two", 2)]));

    for dimension in Dimension::ALL.into_iter().filter(|dimension| !dimension.words().is_empty()) {
        assert!(names(dimension).iter().all(|(name, _)| dimension.words().contains(&name.as_str())), "{dimension:?}");
    }
    let automated = of(&events, Some(&plan), 10_000, None, &[(Dimension::Automation, "automated".into())]);
    assert_eq!((automated.all.incidents, ratio(automated.all.success)), (1, (1, 1)));
    assert_eq!(
        (automated.all.uptime, automated.all.change_failure),
        (None, None),
        "uptime is of services, not of causes"
    );
    let of_api = of(&events, Some(&plan), 10_000, None, &[(Dimension::Service, "api".into())]);
    assert_eq!(of_api.all.uptime.map(|it| (it.services, it.failures)), Some((1, 2)));
}

#[test]
fn what_was_measured_while_down_is_told_beside() {
    let used = |id: &str, seconds, utilization| {
        event("node", id, "api", seconds, ResourceMeasured { resource: "cpu".into(), utilization, site: None })
    };
    let level = |id: &str, seconds, error_rate, throughput| {
        let data = ServiceLevelMeasured {
            window_seconds: 10.0,
            response_time_ms: None,
            throughput_per_second: throughput,
            error_rate: Some(error_rate),
            availability: None,
        };
        event("gateway", id, "api", seconds, data)
    };
    let events = [
        opened(1, "api", 100, 110),
        resolved(1, "api", 200, 210),
        // Lasts on, so that what comes later is looked for far back.
        opened(2, "api", 150, 160),
        used("1", 99, 0.1),
        used("2", 100, 0.5),
        used("3", 160, 0.7),
        used("4", 300, 0.9),
        // Middles at 100, 195 and 99; one without a throughput.
        level("1", 105, 0.5, Some(20.0)),
        level("2", 200, 0.1, None),
        level("3", 104, 1.0, Some(20.0)),
    ];
    let found = of(&events, None, 400, None, &[]).all;
    // cpu: incident 1 has 0.5 and 0.7, incident 2 has 0.7 and 0.9.
    let cpu = found.resource_use["cpu"];
    assert_eq!((cpu.n, cpu.max), (4, 0.9));
    assert!((cpu.mean - 0.7).abs() < 1e-12);
    // Windows: 1 in incident 1; 2 in both; 3 (middle at 99) in neither.
    let errors = found.error_rate.unwrap();
    assert_eq!((errors.windows, errors.seconds, errors.worst), (3, 30.0, 0.5));
    assert!((errors.mean - 0.7 / 3.0).abs() < 1e-12);
    assert_eq!((found.impact.requests, found.impact.failed_requests), (Some(200.0), Some(100.0)));
    assert_eq!(found.impact.down_seconds, 300.0);
}
