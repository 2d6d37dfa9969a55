//! The questions of the review over a history told by events, with answers that were worked out by hand from this
//! table (days since 2026-01-01, UTC; now is day 150):
//!
//! | incident | service | t0 | lasted | |
//! |---|---|---|---|---|
//! | 1 | api | day 10, 10:00 | 8 min | a procedure brought it back; automation took it on after 11 s |
//! | 2 | api | day 10, 20:00 | 12 min | a relapse of 1; a person took it on after 60 s |
//! | 3 | db | day 40 | 60 min | disk full; a person took it on after 300 s; newest backup 2 h old |
//! | 4 | web | day 50, 12:00 | 30 min | a drill; its alert was suppressed |
//! | 5 | db | day 60 | 20 min | disk full; newest backup 26 h old, since the last one failed |
//! | 6 | api | day 100 | 15 min | |
//! | 7 | web | day 110 | 90 min | half an hour after a deployment that was rolled back later |
//! | 8 | api | day 120 | 6 min, corrected to 9 | a procedure brought it back |
//! | 9 | web | day 130 | 10 min | taken out as a false alarm |
//! | 10 | db | day 140 | open | newest backup 2 h old |
//! | 11 | api | day 100, 00:05 | 5 min | while 6 lasted |
//! | 13 | web | day 20 | −5 min | impossible |
//!
//! t1 is always 30 s after t0. The plan promised 20 minutes for api until day 90, and 10 since.

use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use rebound_schemas::Event;
use rebound_schemas::event::*;
use rebound_schemas::ids::*;
use rebound_schemas::plan::Plan;

use super::REVIEW;
use crate::fixture::{Log, acknowledged, at, event, excluded, probe, recovery};
use crate::functions::FUNCTIONS;
use crate::session::{QueryResult, Session, SqlLimits};

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;

fn plan(rto_of_api: &str) -> Plan {
    let service = |id: &str, tier: &str, rto: &str, rpo: &str, method: &str| {
        format!(
            "[[service]]\nid = \"{id}\"\ntier = \"{tier}\"\nrto = \"{rto}\"\nrpo = \"{rpo}\"\nmethod = \"{method}\"\n\
             [[service.probe]]\ntcp = \"127.0.0.1:1\"\n"
        )
    };
    let text = [
        "name = \"shop\"\n[[tier]]\nid = \"tier-1\"\n[[tier]]\nid = \"tier-2\"\n".to_owned(),
        "[[policy]]\nid = \"default\"\nsilent_after = \"5m\"\n".to_owned(),
        service("api", "tier-1", rto_of_api, "1h", "cold-standby"),
        service("db", "tier-1", "30m", "4h", "database-restore"),
        service("web", "tier-2", "1h", "1h", "cold-standby"),
        "[[drill]]\nid = \"kill-web\"\nscenario = \"web dies\"\nservices = [\"web\"]\ndetect_within = \"1m\"\n\
         recover_within = \"5m\"\n"
            .to_owned(),
    ];
    Plan::parse(&text.concat(), "plan.toml").unwrap()
}

fn inc(n: u32) -> IncidentId {
    IncidentId::new(&format!("inc-{n}")).unwrap()
}

/// The opening and, unless it is open, the end of an incident.
fn incident(n: u32, service: &str, t0: i64, lasted: Option<i64>, cause: Option<&str>) -> Vec<Event> {
    let opened = IncidentOpened {
        incident: inc(n),
        severity: Severity::Critical,
        first_failure_at: at(t0),
        last_success_at: None,
        detected_at: at(t0 + 30),
        policy: None,
        error_class: ErrorClass::Network,
        cause: cause.map(str::to_owned),
        reason: "refused".into(),
    };
    let mut events = vec![event("rebound/alerting", &format!("inc-{n}:opened"), service, t0 + 30, opened)];
    events.extend(lasted.map(|lasted| {
        let resolved = IncidentResolved { incident: inc(n), recovered_at: at(t0 + lasted), recovery: None };
        event("rebound/alerting", &format!("inc-{n}:resolved"), service, t0 + lasted.max(60) + 60, resolved)
    }));
    events
}

fn alert(n: u32, of: u32, service: &str, t0: i64, suppressed: bool) -> Vec<Event> {
    let alert = AlertId::new(&format!("alr-{n}")).unwrap();
    let (policy, condition) = (PolicyId::new("default").unwrap(), None);
    let raised = AlertRaised {
        alert: alert.clone(),
        incident: inc(of),
        policy: policy.clone(),
        condition: None,
        severity: Severity::Critical,
        failures: 3,
        first_failure_at: at(t0),
        reason: "refused".into(),
        evidence: Vec::new(),
    };
    let (cause, by) = (SuppressionCause::Maintenance, "drill".to_owned());
    let quiet = AlertSuppressed { alert, incident: inc(of), policy, condition, cause, by };
    let say =
        |what: &str, data: EventData| event("rebound/alerting", &format!("alr-{n}:{what}"), service, t0 + 30, data);
    let mut events = vec![say("raised", raised.into())];
    events.extend(suppressed.then(|| say("suppressed", quiet.into())));
    events
}

/// A message of an alert, sent so many seconds after it was planned or given up.
fn message(key: &str, alert: u32, of: u32, seconds: i64, sent_after: Option<i64>) -> Vec<Event> {
    let (id, channel) = (AlertId::new(&format!("alr-{alert}")).unwrap(), ChannelId::new("pager").unwrap());
    let told = Told { alert: id.clone(), incident: inc(of), transition: Transition::Raised, repeat: 0 };
    let planned = NotificationPlanned {
        dedup_key: key.into(),
        channel: channel.clone(),
        group: None,
        route: None,
        recoveries: Vec::new(),
        members: vec![told],
    };
    let end: EventData = match sent_after {
        Some(_) => NotificationSent {
            dedup_key: key.into(),
            alert: id,
            incident: inc(of),
            channel,
            transition: Transition::Raised,
            attempt: 1,
            members: Vec::new(),
        }
        .into(),
        None => NotificationFailed {
            dedup_key: key.into(),
            alert: id,
            incident: inc(of),
            channel,
            transition: Transition::Raised,
            attempts: 5,
            error: "refused".into(),
            round: 0,
            members: Vec::new(),
        }
        .into(),
    };
    let say = |what: &str, seconds, data| event("rebound/alerting", &format!("{key}:{what}"), "api", seconds, data);
    vec![say("planned", seconds, planned.into()), say("ended", seconds + sent_after.unwrap_or(60), end)]
}

fn backup(seconds: i64, succeeded: bool) -> Event {
    let data = BackupFinished {
        backup: "nightly".into(),
        kind: BackupKind::Full,
        succeeded,
        data_until: succeeded.then(|| at(seconds)),
        size_bytes: None,
        duration_ms: None,
        detail: None,
    };
    event("cron", &format!("backup-{seconds}"), "db", seconds, data)
}

fn verified(seconds: i64, passed: bool) -> Event {
    let data = BackupVerified { backup: "nightly".into(), passed, checks: Vec::new() };
    event("cron", &format!("verified-{seconds}"), "db", seconds, data)
}

fn deployed(name: &str, service: &str, seconds: i64, outcome: DeploymentOutcome) -> Event {
    let data = DeploymentFinished { deployment: name.into(), outcome, version: None };
    event("ci", &format!("{name}-{seconds}"), service, seconds, data)
}

fn drill(t0: i64) -> Vec<Event> {
    let drill = DrillId::new("kill-web").unwrap();
    let started = DrillStarted { drill: drill.clone(), run: "r1".into(), by: "kim".into() };
    let fault = FaultInjected { drill: Some(drill.clone()), fault: "kill".into(), target: "web".into() };
    let check = |name: &str, passed| CheckResult { name: name.into(), passed, detail: None, category: None };
    let finished = DrillFinished {
        drill,
        run: "r1".into(),
        passed: false,
        detected_after_ms: Some(20_000),
        recovered_after_ms: Some(1_830_000),
        checks: vec![check("detected within 1m", true), check("recovered within 5m", false)],
    };
    vec![
        event("drills", "started", "kill-web", t0 - 60, started),
        event("drills", "fault", "web", t0 - 30, fault),
        event("drills", "finished", "kill-web", t0 + 2_400, finished),
    ]
}

/// The history, in the order in which it was told: by time, but for one event that came late and one that came twice.
fn history() -> Vec<Event> {
    let noon = 50 * DAY + 12 * HOUR;
    let morning = 10 * DAY + 10 * HOUR;
    let corrected = IncidentCorrected {
        incident: inc(8),
        by: "kim".into(),
        reason: "the log was wrong".into(),
        first_failure_at: None,
        recovered_at: Some(at(120 * DAY + 540)),
        error_class: None,
        cause: None,
        exclude: false,
    };
    let opened = ImprovementOpened {
        improvement: "bigger-disks".into(),
        title: "bigger disks".into(),
        owner: None,
        incident: Some(inc(3)),
        due_at: Some(at(45 * DAY)),
    };
    let done = ImprovementClosed { improvement: "bigger-disks".into(), done: true, comment: None };
    let mut events = [
        plan("20m").adopted(at(0)),
        plan("10m").adopted(at(90 * DAY)),
        incident(1, "api", morning, Some(480), None),
        recovery(1, "api", morning + 40),
        incident(2, "api", 10 * DAY + 20 * HOUR, Some(720), None),
        vec![acknowledged(2, "api", 10 * DAY + 20 * HOUR + 90, false)],
        incident(3, "db", 40 * DAY, Some(3_600), Some("disk full")),
        vec![acknowledged(3, "db", 40 * DAY + 330, false)],
        incident(4, "web", noon, Some(1_800), None),
        drill(noon),
        incident(5, "db", 60 * DAY, Some(1_200), Some("disk full")),
        incident(6, "api", 100 * DAY, Some(900), None),
        incident(7, "web", 110 * DAY, Some(5_400), None),
        incident(8, "api", 120 * DAY, Some(360), None),
        recovery(8, "api", 120 * DAY + 60),
        incident(9, "web", 130 * DAY, Some(600), None),
        incident(10, "db", 140 * DAY, None, None),
        incident(11, "api", 100 * DAY + 300, Some(300), None),
        incident(13, "web", 20 * DAY, Some(-300), None),
        alert(1, 1, "api", morning, false),
        alert(2, 7, "web", 110 * DAY, false),
        alert(3, 4, "web", noon, true),
        message("m1", 1, 1, morning + 30, Some(5)),
        message("m2", 1, 1, morning + 90, None),
        message("m3", 2, 7, 110 * DAY + 30, Some(2)),
        vec![
            event("console", "inc-8:corrected", "api", 121 * DAY, corrected),
            excluded(9, "web", 131 * DAY),
            backup(40 * DAY - 2 * HOUR, true),
            verified(40 * DAY + 12 * HOUR, true),
            backup(59 * DAY - 2 * HOUR, true),
            verified(59 * DAY - HOUR, false),
            backup(60 * DAY - 2 * HOUR, false),
            backup(140 * DAY - 2 * HOUR, true),
            deployed("d1", "web", 30 * DAY, DeploymentOutcome::Succeeded),
            deployed("d2", "web", 110 * DAY - 1_800, DeploymentOutcome::Succeeded),
            deployed("d2", "web", 110 * DAY + 2 * HOUR, DeploymentOutcome::RolledBack),
            deployed("d3", "api", 5 * DAY, DeploymentOutcome::Succeeded),
            event("wiki", "opened", "db", 41 * DAY, opened),
            event("wiki", "closed", "db", 50 * DAY, done),
        ],
        (-2..=8).map(|n| probe("uptime", &format!("web-{n}"), "web", noon + n * 300, Outcome::Healthy)).collect(),
    ]
    .concat();
    events.sort_by_key(|event| event.occurred_at);
    // The end of 3 is told last, and that of 2 again.
    let late = events.iter().position(|event| event.id.as_str() == "inc-3:resolved").unwrap();
    let late = events.remove(late);
    let again = events.iter().find(|event| event.id.as_str() == "inc-2:resolved").unwrap().clone();
    events.extend([late, again]);
    events
}

fn rows(answer: &QueryResult) -> Vec<Vec<String>> {
    let cells = |batch: &arrow::array::RecordBatch, row| {
        batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap()).collect()
    };
    answer.batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| cells(batch, row))).collect()
}

/// The same text, or numbers that differ by less than can be seen.
fn alike(found: &str, expected: &str) -> bool {
    match (found.parse::<f64>(), expected.parse::<f64>()) {
        // percentile_cont rounds its weight to 10⁻⁶ of the gap between two values.
        (Ok(found), Ok(expected)) => (found - expected).abs() <= 1e-3_f64.min(expected.abs() * 1e-6 + 1e-9),
        _ => found == expected,
    }
}

/// By the titles of questions: their answers, cells joined by `|`.
const ANSWERS: &[(&str, &[&str])] = &[
    (
        "Recovery time by quarter and tier, against the objective",
        &[
            "2026-01-01|tier-1|4|960|2880|0.5",
            "2026-01-01|tier-2|1|1800|1800|1",
            "2026-04-01|tier-1|3|540|828|0.5",
            "2026-04-01|tier-2|1|5400|5400|0",
        ],
    ),
    ("Recovery time objectives met, by service", &["api|600|5|5|3|900", "db|1800|3|3|1|864000", "web|3600|2|2|1|5400"]),
    ("Recovery point objectives met, and of how many that is known", &["api|5|0|0|", "db|2|2|1|26", "web|2|0|0|"]),
    ("Objectives as promised then, and as promised now", &["inc-2|api|720|1200|true|600|false"]),
    (
        "Objectives that changed",
        &["api|1200|3600|2026-01-01T00:00:00Z|2026-04-01T00:00:00Z", "api|600|3600|2026-04-01T00:00:00Z|"],
    ),
    ("Top causes", &["network|7|872340|0.994527669471236", "disk full|2|4800|0.005472330528763937"]),
    ("Repeat offenders and relapses", &["api|5|1|5", "db|3|0|2", "web|2|0|2"]),
    (
        "Automated against manual recovery",
        &["automated|2|510|509.11688245431424", "manual|6|1050|1286.5567900291355", "open|1||"],
    ),
    ("Success of recoveries by procedure", &["restart|2|2|9"]),
    ("Drills against what really happened", &["drill|1|1800|1800", "real|9|810|5400"]),
    ("Drills and their objectives", &["kill-web|r1|false|20|60|1830|300|1|recovered within 5m"]),
    (
        "Availability by service and month, unobserved time apart",
        &[
            "web|2026-02-01|0.45454545454545453|1800|203.25|0.004489795918367347",
            "web|2026-03-01||0|744|0",
            "web|2026-04-01||0|720|0",
            "web|2026-05-01||0|720|0",
        ],
    ),
    (
        "The longest outages",
        &[
            "db|2026-05-21T00:00:00Z||864000|1",
            "web|2026-04-21T00:00:00Z|2026-04-21T01:30:00Z|5400|1",
            "db|2026-02-10T00:00:00Z|2026-02-10T01:00:00Z|3600|1",
            "web|2026-02-20T12:00:00Z|2026-02-20T12:30:00Z|1800|1",
            "db|2026-03-02T00:00:00Z|2026-03-02T00:20:00Z|1200|1",
        ],
    ),
    (
        "Exposure by the age of backups",
        &["inc-10|db|2026-05-20T22:00:00Z|2", "inc-3|db|2026-02-09T22:00:00Z|2", "inc-5|db|2026-02-28T22:00:00Z|26"],
    ),
    ("Backups: failed, and never verified", &["db|nightly|4|1|1|1"]),
    ("Change-failure rate", &["api|1|0|0", "web|2|1|0.5"]),
    ("Incidents within an hour of a deployment", &["d2|web|rolled_back|inc-7|1800"]),
    ("Open incidents and their age", &["inc-10|db|tier-1|2026-05-21T00:00:00Z|10|false|"]),
    ("The slowest steps", &["restart|start|2|2.5|2.5|0"]),
    (
        "Corrections, and what they did to the figures",
        &["inc-8|kim|the log was wrong|false|360|540", "inc-9|kim|a false alarm|true|600|"],
    ),
    ("Before and after an improvement", &["bigger-disks|1 before|1|3600", "bigger-disks|2 after|2|1200"]),
    ("From alert to recovery", &["3|1|2|1|1|3"]),
    ("Detection and acknowledgement", &["tier-1|30|180|21", "tier-2|30||"]),
    ("Recovery time with what is still open", &["api|540|0", "db|3600|0.3333333333333333", "web|1800|0.5"]),
    // Medians of 600, 2700, 1200, 900 and 540 s at days 0, 31, 59, 90 and 120: S = −4, Z = −3 ÷ √(50 ÷ 3).
    ("Is recovery getting better", &["5|-10.248545742993127|0.46243272645047634"]),
    ("What people were told, and what did not reach them", &["pager|3|2|1|5"]),
];

const LIMITS: SqlLimits = SqlLimits { timeout: std::time::Duration::from_secs(60), memory: 256 << 20, max_rows: 1_000 };

async fn session(log: &Log) -> Session {
    Session::open(log.location(), Some(Arc::new(plan("10m"))), LIMITS).await.unwrap()
}

#[tokio::test]
async fn every_question_has_the_answer_that_was_worked_out_by_hand() {
    assert!(REVIEW.len() >= 20);
    let log = Log::with(&history()).await;
    let session = session(&log).await;
    let mut wrong = Vec::new();
    for query in REVIEW.iter().filter(|query| query.title != "What the log is worth") {
        let (_, expected) = ANSWERS.iter().find(|(title, _)| *title == query.title).expect(query.title);
        let answer = session.query(query.sql, at(150 * DAY)).await;
        let found = rows(&answer.unwrap_or_else(|error| panic!("{}: {error}", query.title)));
        let cells: Vec<Vec<&str>> = expected.iter().map(|row| row.split('|').collect()).collect();
        let same = found.len() == cells.len()
            && found.iter().zip(&cells).all(|(found, expected)| {
                found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| alike(a, b))
            });
        if !same {
            wrong.push(format!("{}: {found:#?} is not {expected:#?}", query.title));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_is_odd_about_the_log_is_counted() {
    let events = history();
    let log = Log::with(&events).await;
    let session = session(&log).await;
    let query = REVIEW.iter().find(|query| query.title == "What the log is worth").unwrap();
    let found = rows(&session.query(query.sql, at(150 * DAY)).await.unwrap());
    let found: Vec<_> = found.iter().map(|row| (row[0].as_str(), row[1].as_str(), row[3].as_str())).collect();
    // The test's log takes one event in a second, from day 0 on.
    let ahead = (0..).zip(&events).filter(|(second, event)| event.occurred_at > at(second + 300)).count();
    // The one that came again is one event, and it was first taken in when it was told first.
    let ahead = (ahead - 1).to_string();
    let expected = [
        ("corrected_incidents", "2", "inc-8"),
        ("events_ahead_of_time", ahead.as_str(), ""),
        ("excluded_incidents", "1", "inc-9"),
        ("impossible_incidents", "1", "inc-13"),
        ("out_of_order_events", "1", ""),
        ("overlapping_incidents", "1", "inc-11"),
        ("repeated_events", "1", ""),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn tables_answer_as_was_known_at_a_time() {
    let events = history();
    let log = Log::with(&events).await;
    let session = session(&log).await;
    let known = |id: &str| (0..).zip(&events).find(|(_, event)| event.id.as_str() == id).unwrap().0;
    let count = async |what: &str, second: i64| {
        let answer = session.query_as_of(&format!("SELECT count(*) FROM {what}"), at(second)).await.unwrap();
        rows(&answer)[0][0].clone()
    };
    let corrected = known("inc-8:corrected");
    assert_eq!(count("corrections", corrected - 1).await, "0");
    assert_eq!(count("corrections", corrected).await, "1");
    assert_eq!(count("plan_versions", 0).await, "1");
    assert_eq!(count("plan_versions", corrected).await, "2");
    let second_plan = "plan_objectives WHERE service = 'api' AND valid_to_at IS NOT NULL";
    assert_eq!((count(second_plan, 0).await.as_str(), count(second_plan, corrected).await.as_str()), ("0", "1"));
    let done = known("closed");
    assert_eq!(count("improvements WHERE done", done - 1).await, "0");
    assert_eq!(count("improvements WHERE done", done).await, "1");
    let taken_out = known("inc-9:corrected");
    assert_eq!(count("incidents WHERE excluded", taken_out - 1).await, "0");
    assert_eq!(count("incidents WHERE excluded", taken_out).await, "1");
    let ended = known("inc-3:resolved");
    assert_eq!(count("outages WHERE incident = 'inc-3' AND NOT ongoing", ended).await, "1");
    assert_eq!(count("outages WHERE incident = 'inc-3' AND NOT ongoing", ended - 1).await, "0", "it was told late");
}

#[tokio::test]
async fn every_functions_example_is_answered() {
    let log = Log::with(&history()).await;
    let session = session(&log).await;
    for function in FUNCTIONS {
        let answer = session.query(function.example, at(150 * DAY)).await;
        assert!(answer.is_ok(), "{}: {}", function.call, answer.unwrap_err());
        let name = function.call.split('(').next().unwrap();
        assert!(function.example.contains(&format!("{name}(")), "{}", function.example);
    }
}
