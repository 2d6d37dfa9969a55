//! What a policy judges besides its probes' failures, from observation to alert.

use rebound_schemas::event::{
    AlertRaised, BackupFinished, BackupKind, BackupVerified, CertificateObserved, ReplicationMeasured,
    ResourceMeasured, ServiceLevelMeasured,
};

use proptest::prelude::*;
use rebound_schemas::SiteId;

use super::*;

/// A service of one probe under a policy with these conditions.
pub(super) fn world(conditions: &str) -> World {
    World::under(&format!(
        "allow = [\"/bin/true\"]\n[[site]]\nid = \"a\"\n[[site]]\nid = \"b\"\n\
         [[service_level]]\nid = \"gold\"\nresponse_time = \"100ms\"\nthroughput_per_second = 1000\n\
         error_rate = 0.01\navailability = 0.999\n\
         [[service]]\nid = \"db\"\nrpo = \"30m\"\nprocedure = \"restart\"\n\
         [[service.probe]]\nid = \"db\"\nhttp = \"http://127.0.0.1:1/\"\n\
         [[backup]]\nid = \"full\"\nservice = \"db\"\nkind = \"full\"\nevery = \"1h\"\nretention = \"9d\"\n\
         [[backup]]\nid = \"part\"\nservice = \"db\"\nkind = \"incremental\"\nevery = \"10m\"\nretention = \"9d\"\n\
         [[procedure]]\nid = \"restart\"\n[[procedure.step]]\nid = \"s\"\ncommand = [\"/bin/true\"]\n\
         [[policy]]\nid = \"default\"\nfailures = 3\nrecoveries = 2\nsilent_after = \"60s\"\n{conditions}"
    ))
}

fn condition(body: &str) -> World {
    world(&format!("[[policy.condition]]\nid = \"c\"\n{body}\n"))
}

fn level() -> ServiceLevelMeasured {
    ServiceLevelMeasured {
        window_seconds: 10.0,
        response_time_ms: None,
        throughput_per_second: None,
        error_rate: None,
        availability: None,
    }
}

fn used(resource: &str, utilization: f64) -> ResourceMeasured {
    ResourceMeasured { resource: resource.into(), utilization, site: None }
}

fn lag(site: &str, lag_seconds: f64) -> ReplicationMeasured {
    ReplicationMeasured { target_site: SiteId::new(site).unwrap(), lag_seconds, pending_bytes: None }
}

fn raised(world: &World) -> AlertRaised {
    world.last(|data| match data {
        EventData::AlertRaised(data) => Some(data.clone()),
        _ => None,
    })
}

/// At the bound is within it; beyond it, it warns at the third measurement and ends at the second within.
fn check(body: &str, within: impl Into<EventData>, beyond: impl Into<EventData>, reason: &str) {
    let (within, beyond) = (within.into(), beyond.into());
    let mut world = condition(body);
    for _ in 0..4 {
        assert!(world.seen("db", within.clone()).is_empty(), "{body}: within");
    }
    assert!(world.seen("db", beyond.clone()).is_empty() && world.seen("db", beyond.clone()).is_empty(), "{body}");
    assert_eq!(world.seen("db", beyond.clone()), ["c raised"], "{body}");
    let data = raised(&world);
    assert_eq!((data.reason.as_str(), data.severity, data.failures), (reason, Severity::Warning, 3), "{body}");
    assert_eq!((data.evidence.len(), data.first_failure_at), (3, at(70)), "{body}");
    assert_eq!(world.status("db").incident, None, "{body}: a warning opens no incident");
    assert!(world.seen("db", beyond).is_empty() && world.seen("db", within.clone()).is_empty(), "{body}");
    assert_eq!(world.restarted().tick(at(world.second)), vec![], "{body}: replay decides nothing");
    assert_eq!(world.seen("db", within.clone()), ["c resolved"], "{body}");
    assert!(world.seen("db", within).is_empty(), "{body}");
    assert_eq!(world.restarted().tick(at(world.second)), vec![], "{body}: replay decides nothing");
}

#[test]
fn measurements_warn_beyond_their_bound() {
    let rate = |error_rate| ServiceLevelMeasured { error_rate: Some(error_rate), ..level() };
    check("error_rate_above = 0.05", rate(0.05), rate(0.06), "error rate 6 %, above 5 %");
    let rate = |rate| ServiceLevelMeasured { throughput_per_second: Some(rate), ..level() };
    check("throughput_below = 100", rate(100.0), rate(99.0), "throughput 99/s, below 100/s");
    let time = |ms| ServiceLevelMeasured { response_time_ms: Some(ms), ..level() };
    check("response_time_above = \"250ms\"", time(250.0), time(251.0), "response time 251 ms, above 250 ms");
    let share = |share| ServiceLevelMeasured { availability: Some(share), ..level() };
    check("availability_below = 0.99", share(0.99), share(0.98), "availability 98 %, below 99 %");
    let both = |ms, rate| ServiceLevelMeasured { response_time_ms: Some(ms), error_rate: Some(rate), ..level() };
    let reason = "response time 150 ms, at most 100ms; error rate 0.02, at most 0.01";
    check("service_level = \"gold\"", both(100.0, 0.01), both(150.0, 0.02), reason);
    check("utilization_above = 0.9", used("disk", 0.9), used("disk", 0.95), "disk used to 95 %, above 90 %");
    check(
        "replication_lag_above = \"30s\"",
        lag("b", 30.0),
        lag("b", 31.0),
        "the copy at b lags 31 s behind, above 30 s",
    );
    check(
        "replication_lag_above = \"rpo\"",
        lag("b", 1800.0),
        lag("b", 1801.0),
        "the copy at b lags 1801 s behind, above 1800 s",
    );
}

#[test]
fn what_a_condition_does_not_look_at_changes_nothing() {
    let mut world = condition("utilization_above = 0.9\nresource = \"disk\"\nfailures = 1");
    assert!(world.seen("db", used("cpu", 1.0)).is_empty());
    assert!(world.seen("db", lag("b", 1e9)).is_empty());
    assert_eq!(world.seen("db", used("disk", 1.0)), ["c raised"]);
    let mut world = condition("replication_lag_above = \"1s\"\nsite = \"a\"\nfailures = 1");
    assert!(world.seen("db", lag("b", 9.0)).is_empty());
    assert_eq!(world.seen("db", lag("a", 9.0)), ["c raised"]);
    let mut world = condition("error_rate_above = 0.05\nfailures = 1");
    assert!(world.seen("db", level()).is_empty(), "nothing was said of errors");
}

#[test]
fn each_stream_is_judged_on_its_own() {
    let mut world = condition("utilization_above = 0.9\nfailures = 2\nrecoveries = 1");
    assert!(world.seen("db", used("disk", 1.0)).is_empty());
    assert!(world.seen("db", used("cpu", 1.0)).is_empty(), "one of each");
    assert_eq!(world.seen("db", used("cpu", 1.0)), ["c raised"]);
    assert!(world.seen("db", used("disk", 1.0)).is_empty(), "told already");
    assert!(world.seen("db", used("cpu", 0.1)).is_empty(), "the disk is full still");
    assert_eq!(world.seen("db", used("disk", 0.1)), ["c resolved"]);
}

#[test]
fn a_condition_that_fails_the_service_opens_an_incident_like_a_probe() {
    let rate = |error_rate| ServiceLevelMeasured { error_rate: Some(error_rate), ..level() };
    let mut world = condition("error_rate_above = 0.05\nthen = \"fail\"\nseverity = \"warning\"");
    world.probes("db", "SS");
    world.seen("db", rate(0.5));
    world.seen("db", rate(0.5));
    assert_eq!(world.seen("db", rate(0.5)), HARD);
    let opened = world.last(|data| match data {
        EventData::IncidentOpened(data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!((opened.first_failure_at, opened.severity), (at(30), Severity::Warning));
    assert_eq!(opened.reason, "error rate 50 %, above 5 %");
    assert!(world.probes("db", "SSS").is_empty(), "its probes never failed");
    assert!(world.seen("db", rate(0.0)).is_empty());
    assert_eq!(world.seen("db", rate(0.0)), RESOLVED);
}

#[test]
fn latency_warns_unless_the_probe_failed() {
    let mut world = condition("latency_above = \"500ms\"\nfailures = 2\nrecoveries = 1");
    let mut look = |outcome, ms: u64| {
        world.second += 10;
        let mut event = probe_from("db", "db", None, world.second, outcome);
        if let EventData::ProbeCompleted(data) = &mut event.data {
            data.latency_us = ms * 1000;
        }
        world.handle(event)
    };
    assert!(look(Outcome::Healthy, 501).is_empty());
    assert!(look(Outcome::Failed, 9000).is_empty(), "a failure has an alert of its own");
    assert_eq!(look(Outcome::Degraded, 501), ["c raised"]);
    assert_eq!(look(Outcome::Healthy, 500), ["c resolved"]);
    assert_eq!(raised(&world).reason, "db took 501.0ms, above 500ms");
}

#[test]
fn degraded_is_ignored_warned_of_or_counted() {
    assert!(world("").probes("db", "DDDDDD").is_empty());
    let mut warns = world("degraded = \"warn\"\n");
    assert_eq!(warns.probes("db", "DDD"), ["degraded raised"]);
    assert_eq!((warns.status("db").incident, raised(&warns).severity), (None, Severity::Warning));
    assert_eq!(warns.probes("db", "SS"), ["degraded resolved"]);
    let mut counts = world("degraded = \"count\"\n");
    assert_eq!(counts.probes("db", "FDD"), HARD);
    assert_eq!(counts.probes("db", "SDSS"), RESOLVED);
}

#[test]
fn an_old_backup_warns_when_its_time_has_come_and_not_before() {
    let backup = |id: &str, succeeded, data_until: Option<i64>| BackupFinished {
        backup: id.into(),
        kind: BackupKind::Full,
        succeeded,
        data_until: data_until.map(at),
        size_bytes: None,
        duration_ms: None,
        detail: None,
    };
    // By the RPO of 30 m any backup counts; without one, from when the engine began to look.
    let mut world = condition("backup_age_above = \"rpo\"");
    assert!(world.tick(1799).is_empty());
    assert_eq!(world.tick(1800), ["c raised"]);
    assert_eq!(raised(&world).reason, "no good backup was seen");
    assert!(world.seen("db", backup("part", false, None)).is_empty(), "it failed");
    assert_eq!(world.seen("db", backup("part", true, Some(1700))), ["c resolved"]);
    assert_eq!(world.restarted().tick(at(world.second)), vec![]);
    assert!(world.tick(3499).is_empty());
    assert_eq!(world.tick(3500), ["c raised"], "30 m after the newest data in it");
    assert_eq!(raised(&world).reason, "the newest good backup is 30m old");
    // By its schedule each backup is judged on its own, with a tenth for the run.
    let mut world = condition("backup_age_above = \"schedule\"");
    world.seen("db", backup("full", true, None)); // at 10: due at 10 + 3960
    world.seen("db", backup("part", true, None)); // at 20: due at 20 + 660
    assert!(world.tick(679).is_empty());
    assert_eq!(world.tick(680), ["c raised"]);
    assert_eq!(raised(&world).reason, "the newest good backup of part is 11m old");
    // Only a verified one counts, of one schedule.
    let mut world = condition("backup_age_above = \"1h\"\nbackup = \"full\"\nverified = true");
    world.seen("db", backup("full", true, None));
    world.seen("db", BackupVerified { backup: "part".into(), passed: true, checks: vec![] });
    world.seen("db", BackupVerified { backup: "full".into(), passed: false, checks: vec![] });
    assert_eq!(world.tick(3600), ["c raised"]);
    let verified = BackupVerified { backup: "full".into(), passed: true, checks: vec![] };
    assert_eq!(world.seen("db", verified), ["c resolved"]);
}

#[test]
fn a_certificate_warns_while_there_is_time() {
    let day = 24 * 3600;
    let mut world = condition("certificate_expires_within = \"7d\"");
    let seen = |until| CertificateObserved { subject_name: "CN=db".into(), not_after: at(until), issuer: None };
    assert!(world.seen("db", seen(10 * day)).is_empty());
    assert!(world.tick(3 * day - 1).is_empty());
    assert_eq!(world.tick(3 * day), ["c raised"]);
    assert_eq!(world.seen("db", seen(100 * day)), ["c resolved"]);
    // What a probe saw counts too.
    world.second += 10;
    let mut event = probe_from("db", "db", None, world.second, Outcome::Healthy);
    if let EventData::ProbeCompleted(data) = &mut event.data {
        data.certificate_expires_at = Some(at(4 * day));
    }
    assert_eq!(world.handle(event), ["c raised"]);
}

#[test]
fn silence_of_a_service_is_told_and_is_no_outage() {
    let mut world = condition("unobserved = true\nhold = \"30s\"");
    world.probes("db", "S"); // at 10
    assert!(world.tick(99).is_empty());
    assert_eq!(world.tick(100), ["c raised"], "60 s of silence, 30 s of hold");
    assert_eq!(raised(&world).reason, "nothing was observed for 90s");
    let status = world.status("db");
    assert_eq!((status.health, status.incident), (Health::Unobserved, None));
    assert_eq!(world.probes("db", "S"), ["c resolved"]);
    // Never heard of at all.
    let mut world = condition("unobserved = true");
    assert_eq!(world.tick(60), ["c raised"]);
}

#[test]
fn a_budget_that_burns_pages_before_it_is_gone() {
    let mut world = condition("burn_rate = \"page\"\nobjective = 0.999");
    let mut all = Vec::new();
    for n in 0..360 {
        let outcome = if n % 60 == 59 { "F" } else { "S" }; // never two in a row: no incident
        all.extend(world.probes("db", outcome));
    }
    assert_eq!(all, ["c raised"]);
    assert_eq!(raised(&world).severity, Severity::Critical);
    assert_eq!(raised(&world).reason, "the error budget of 99.9 % burns 16.7 times too fast over 1h");
    assert_eq!(world.status("db").incident, None);
    let healed: Vec<_> = (0..2200).flat_map(|_| world.probes("db", "S")).collect();
    assert_eq!(healed, ["c resolved"]);
}

#[test]
fn a_warning_is_silenced_like_an_alert_and_its_resolve_is_never_swallowed() {
    let mut world = condition("utilization_above = 0.9\nfailures = 1\nrecoveries = 1");
    world.silence("db", 0, 100);
    assert_eq!(world.seen("db", used("disk", 1.0)), ["c suppressed-silence"]);
    assert!(world.seen("db", used("disk", 1.0)).is_empty(), "said once");
    assert_eq!(world.restarted().tick(at(20)), vec![]);
    assert_eq!(world.tick(100), ["c raised"], "the silence is over and it still holds");
    world.second = 100;
    world.silence("db", 100, 1000);
    assert_eq!(world.seen("db", used("disk", 0.1)), ["c resolved"]);
    assert_eq!(world.seen("db", used("disk", 1.0)), ["c suppressed-silence"]);
    assert_eq!(world.seen("db", used("disk", 0.1)), ["c resolved"], "suppressed ones resolve too");
}

#[test]
fn redelivery_of_everything_changes_no_warning() {
    let mut world = condition("utilization_above = 0.9\nfailures = 1\nrecoveries = 1");
    for used_to in [1.0, 0.1, 1.0, 0.1, 1.0] {
        world.seen("db", used("disk", used_to));
    }
    for event in world.log.clone() {
        assert_eq!(words(&world.engine.handle(&event, at(world.second))), Vec::<String>::new());
    }
}

/// Conditions of every kind at once, with durations.
pub(super) const ALL: &str = "degraded = \"warn\"\nhold = \"15s\"\nkeep_firing = \"25s\"\n\
    [[policy.condition]]\nid = \"disk\"\nutilization_above = 0.9\nfailures = 2\nrecoveries = 1\nhold = \"20s\"\nkeep_firing = \"20s\"\n\
    [[policy.condition]]\nid = \"errors\"\nerror_rate_above = 0.1\nfailures = 2\nrecoveries = 1\nthen = \"fail\"\n\
    [[policy.condition]]\nid = \"backup\"\nbackup_age_above = \"5m\"\n\
    [[policy.condition]]\nid = \"silent\"\nunobserved = true\n\
    [[policy.condition]]\nid = \"burn\"\nburn_rate = \"page\"\nobjective = 0.9\n";

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Probe(char),
    Disk(bool),
    Errors(bool),
    Backup,
    Wait(i64),
    Silence(i64),
    Again(usize),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::sample::select(vec!['F', 'S', 'S', 'D']).prop_map(Op::Probe),
        3 => any::<bool>().prop_map(Op::Disk),
        3 => any::<bool>().prop_map(Op::Errors),
        1 => Just(Op::Backup),
        2 => prop_oneof![Just(7), Just(30), Just(70), Just(400)].prop_map(Op::Wait),
        1 => (1..200_i64).prop_map(Op::Silence),
        2 => (0..100_usize).prop_map(Op::Again),
    ]
}

fn backup() -> BackupFinished {
    BackupFinished {
        backup: "full".into(),
        kind: BackupKind::Full,
        succeeded: true,
        data_until: None,
        size_bytes: None,
        duration_ms: None,
        detail: None,
    }
}

pub(super) fn apply(world: &mut World, op: Op) {
    let now = world.second;
    match op {
        Op::Probe(outcome) => drop(world.probes("db", &outcome.to_string())),
        Op::Disk(full) => drop(world.seen("db", used("disk", if full { 1.0 } else { 0.1 }))),
        Op::Errors(many) => {
            let error_rate = Some(if many { 0.5 } else { 0.0 });
            world.seen("db", ServiceLevelMeasured { error_rate, ..level() });
        }
        Op::Backup => drop(world.seen("db", backup())),
        Op::Wait(seconds) => drop(world.tick(now + seconds)),
        Op::Silence(length) => {
            world.second += 1;
            world.silence("db", now + 1, now + 1 + length);
        }
        Op::Again(back) => {
            if let Some(event) = world.log.len().checked_sub(back + 1).map(|n| world.log[n].clone()) {
                world.handle(event);
            }
        }
    }
    world.tick(world.second);
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// Whatever was raised or suppressed resolves once, after it, when all is well again; replay decides nothing; no
    /// warning opens an incident or triggers anything.
    #[test]
    fn every_warning_resolves_once_and_replay_decides_nothing(ops in prop::collection::vec(op(), 1..25)) {
        let mut world = world(ALL);
        for op in ops {
            apply(&mut world, op);
            prop_assert_eq!(words(&world.restarted().tick(at(world.second))), Vec::<String>::new(), "after {:?}", op);
        }
        apply(&mut world, Op::Backup);
        apply(&mut world, Op::Disk(false));
        apply(&mut world, Op::Errors(false));
        // Longer than the windows of the burn rate, in steps that are shorter than a bucket of its long one.
        for _ in 0..16 {
            world.second += 1500;
            apply(&mut world, Op::Probe('S'));
        }
        for n in 0..12 {
            apply(&mut world, if n == 0 { Op::Backup } else { Op::Probe('S') });
        }
        let mut ids = std::collections::BTreeSet::new();
        let (mut open, mut outages) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        let mut seen = std::collections::BTreeSet::new();
        for event in world.log.iter().filter(|event| event.source.as_str() == crate::SOURCE) {
            if !seen.insert(event.id.clone()) {
                continue; // delivered again
            }
            prop_assert!(ids.insert(event.id.clone()));
            match &event.data {
                EventData::AlertRaised(data) => drop(open.insert(data.alert.clone())),
                EventData::AlertSuppressed(data) => drop(open.insert(data.alert.clone())),
                EventData::AlertResolved(data) => prop_assert!(open.remove(&data.alert), "resolved what was not open"),
                EventData::IncidentOpened(data) => drop(outages.insert(data.incident.clone())),
                EventData::RecoveryTriggered(data) => prop_assert!(outages.contains(&data.incident)),
                _ => {}
            }
        }
        prop_assert_eq!(open, std::collections::BTreeSet::new());
    }
}
