//! The whole way of the data with the real program: from a failing probe to a verified recovery and its figures,
//! on the embedded bus and on Kafka, through kill -9, SIGSTOP and duplicates.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Random, Running, alone, fails, free_port, kafka, script, seed, succeeds, wait_for};

/// The answer of `rebound sql` as JSON rows.
pub(crate) fn sql(folder: &Path, query: &str) -> Vec<Value> {
    let text = succeeds(&["sql", query, "-o", "json", "--data", "data"], folder);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{query}: {e}: {text}"))
}

/// One number from SQL.
fn number(folder: &Path, query: &str) -> f64 {
    let rows = sql(folder, query);
    let row = rows.first().and_then(Value::as_object).unwrap_or_else(|| panic!("{query}: no row"));
    row.values().next().and_then(Value::as_f64).unwrap_or_else(|| panic!("{query}: {row:?}"))
}

#[test]
fn the_demo_injects_detects_recovers_and_verifies() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let said = succeeds(&["demo", "--for", "60s", "--seed", "7", "-o", "json", "--data", "data"], folder.path());
    let summary: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    let count = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("no {name}: {said}"));
    assert!(count("injected") >= 3, "{said}");
    for stage in ["detected", "recovered", "verified"] {
        assert_eq!(count(stage), count("injected"), "{stage}: {said}");
    }
    // The figures are what SQL says over the log that it left.
    let close = |name: &str, query: &str| {
        let (told, asked) = (summary["mttr_s"][name].as_f64().expect("a figure"), number(folder.path(), query));
        assert!((told - asked).abs() < 1e-4, "{name}: told {told}, SQL says {asked}");
    };
    close("n", "SELECT count(mttr_seconds) FROM incidents");
    close("median", "SELECT median(mttr_seconds) FROM incidents");
    close("p90", "SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr_seconds) FROM incidents");
    let stages = "SELECT count(*) FROM recoveries WHERE outcome = 'succeeded'";
    assert!(number(folder.path(), stages) >= count("injected") as f64);
    succeeds(&["log", "verify", "--data", "data"], folder.path());
    the_demo_is_explained(folder.path());
}

/// An incident of the demo, its recovery, and one whose recovery was withheld: with ids that are in the log.
fn the_demo_is_explained(folder: &Path) {
    let row =
        &sql(folder, "SELECT incident, recovery FROM recoveries WHERE outcome = 'succeeded' ORDER BY 1 LIMIT 1")[0];
    let (incident, recovery) = (row["incident"].as_str().expect("an id"), row["recovery"].as_str().expect("an id"));
    let told = succeeds(&["explain", incident, "--data", "data"], folder);
    for words in [
        "why it fired",
        "policy default asks for 2 failures in a row",
        "· failure 2 of 2: HARD",
        "recovery 1 triggered",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(told.contains(&format!("brought back by {recovery}")), "{told}");
    let told = succeeds(&["explain", &recovery[..recovery.len() - 2], "-o", "json", "--data", "data"], folder);
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
    assert_eq!((told["subject"].as_str(), told["id"].as_str()), (Some("recovery"), Some(recovery)));
    let facts = told["facts"].as_array().expect("facts");
    assert!(facts.len() >= 8, "{told}");
    let quoted = |fact: &Value| {
        let [id, source] =
            ["id", "source"].map(|part| fact["event"][part].as_str().expect("a text").replace('\'', "''"));
        format!("(id = '{id}' AND source = '{source}')")
    };
    let any = facts.iter().map(quoted).collect::<Vec<_>>().join(" OR ");
    let found = number(folder, &format!("SELECT count(*) FROM events WHERE {any}"));
    assert_eq!(found, facts.len() as f64, "every event that is named is in the log: {told}");
    // A cache that fails takes its dependants along: they are told to wait for it.
    let withheld =
        "SELECT recovery FROM events WHERE kind = 'recovery.withheld' AND reason = 'dependency' ORDER BY 1 LIMIT 1";
    for row in sql(folder, withheld) {
        let told = succeeds(&["explain", row["recovery"].as_str().expect("an id"), "--data", "data"], folder);
        assert!(told.contains("which it depends on, has failed and comes first"), "{told}");
    }
    let unknown = fails(&["explain", &format!("{}00", &incident[..incident.len() - 2]), "--data", "data"], folder, 1);
    assert!(unknown.contains(&format!("perhaps {incident}")), "{unknown}");
    let vague = fails(&["explain", "inc-", "--data", "data"], folder, 1);
    assert!(vague.contains("ids begin with \"inc-\"") && vague.contains("write one of them"), "{vague}");
}

/// A plan whose one service fails at will, and whose recovery writes a line to `executed`.
///
/// The service is up while the file `up` is there. Recovery waits `pause` seconds and makes it.
fn write_plan(folder: &Path, pause: &str) {
    let root = folder.display();
    let recover = format!("#!/bin/sh\necho \"$1\" >> {root}/executed\nsleep {pause}\ntouch {root}/up\n");
    script(&folder.join("recover.sh"), &recover);
    script(&folder.join("check.sh"), &format!("#!/bin/sh\ntest -e {root}/up\n"));
    let plan = format!(
        r#"
name = "pipeline"
allow = ["{root}/recover.sh", "{root}/check.sh"]

[[policy]]
id = "default"
failures = 2
recoveries = 2
silent_after = "30s"
trigger = "auto"
intensity = 1000
intensity_period = "1h"
backoff = "1s"
verify_within = "20s"

[[procedure]]
id = "restore"
[[procedure.step]]
id = "restore"
command = ["{root}/recover.sh", "{{recovery}}"]
timeout = "30s"

[[service]]
id = "api"
rto = "5m"
rpo = "1h"
procedure = "restore"
[[service.probe]]
id = "api-check"
command = ["{root}/check.sh"]
exit_codes = {{ 0 = "healthy", 1 = "failed" }}
every = "500ms"
timeout = "400ms"
"#
    );
    std::fs::write(folder.join("plan.toml"), plan).expect("written");
    std::fs::write(folder.join("up"), "").expect("written");
}

pub(crate) fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A resource measurement with this id: an event that only takes its way to the log.
pub(crate) fn measurement(id: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"load","type":"dev.rebound.resource.measured.v1","subject":"s{}","time":"{}","data":{{"resource":"cpu","utilization":0.5}}}}"#,
        id.len() % 7,
        chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    )
}

#[test]
fn a_failure_is_recovered_once_and_every_face_shows_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    write_plan(folder.path(), "0.1");
    let rebound = Running::start(folder.path(), "a", &["up", "--plan", "plan.toml", "--data", "data"], &[]).ready();
    wait_for("a healthy service", || {
        let (_, body) = rebound.get("/api/v1/services")?;
        body.contains(r#""state":"healthy""#).then_some(())
    });
    std::fs::remove_file(folder.path().join("up")).expect("removed");
    wait_for("the recovery", || (lines(&folder.path().join("executed")).len() == 1).then_some(()));
    wait_for("the incident in SQL", || {
        let rows =
            sql(folder.path(), "SELECT i.mttr_seconds, r.outcome FROM incidents i JOIN recoveries r USING (incident)");
        (rows.len() == 1 && rows[0]["outcome"] == "succeeded" && rows[0]["mttr_seconds"].as_f64()? > 0.0).then_some(())
    });
    // Events by HTTP: a good one, a bad one, and the same good one again.
    let event = measurement("m-1");
    let (status, body) = rebound.post("/v1/events", "application/cloudevents+json", &event).expect("an answer");
    assert_eq!(status, 202, "{body}");
    let (status, body) =
        rebound.post("/v1/events", "application/cloudevents+json", &event.replace("0.5", "\"x\"")).expect("an answer");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("/data/utilization"), "{body}");
    rebound.post("/v1/events", "application/cloudevents+json", &event).expect("an answer");
    wait_for("the measurement in SQL, once", || {
        (number(folder.path(), "SELECT count(*) FROM events WHERE source = 'load'") == 1.0).then_some(())
    });
    for family in [
        "rebound_probe_results_total",
        "rebound_recoveries_total{",
        "rebound_mttr_median_seconds{",
        "rebound_service_healthy{",
        "rebound_log_stored_total",
        "rebound_build_info",
    ] {
        wait_for(family, || rebound.get("/metrics")?.1.contains(family).then_some(()));
    }
    assert_eq!(rebound.stop(), Some(0), "SIGTERM drains");
    succeeds(&["log", "verify", "--data", "data"], folder.path());
    assert_eq!(lines(&folder.path().join("executed")).len(), 1);
}

/// kill -9 under load, again and again: every acknowledged event is there, and no recovery ran twice.
fn survives_kills(environment: &[(&str, &str)], rounds: usize) {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    write_plan(folder.path(), "0.3");
    let (seed, rounds) = (seed(), crate::support::rounds(rounds));
    eprintln!("seed {seed}, {rounds} rounds: repeat with REBOUND_TEST_SEED={seed} REBOUND_TEST_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut acknowledged = BTreeSet::new();
    let arguments = ["up", "--plan", "plan.toml", "--data", "data"];
    for round in 0..rounds {
        let rebound = Running::start(folder.path(), "a", &arguments, environment).ready();
        // Every round breaks the service, so that recoveries are under way when the kill comes.
        let _ = std::fs::remove_file(folder.path().join("up"));
        let until = std::time::Instant::now() + Duration::from_millis(500 + random.next() % 2500);
        let mut batch = 0;
        while std::time::Instant::now() < until {
            let ids: Vec<_> = (0..50).map(|i| format!("{round}-{batch}-{i}")).collect();
            let body: Vec<_> = ids.iter().map(|id| measurement(id)).collect();
            if let Some((202, _)) = rebound.post("/v1/events", "application/x-ndjson", &body.join("\n")) {
                acknowledged.extend(ids);
            }
            batch += 1;
        }
        rebound.kill();
    }
    let rebound = Running::start(folder.path(), "a", &arguments, environment).ready();
    // On Kafka the rounds may be over before a dead member's session is: here a recovery has the time.
    let _ = std::fs::remove_file(folder.path().join("up"));
    wait_for("a recovery", || (!lines(&folder.path().join("executed")).is_empty()).then_some(()));
    let stored = wait_for("every acknowledged event in SQL", || {
        let rows = sql(folder.path(), "SELECT id FROM events WHERE source = 'load'");
        let ids: Vec<String> = rows.iter().map(|r| r["id"].as_str().expect("an id").to_owned()).collect();
        let distinct: BTreeSet<_> = ids.iter().cloned().collect();
        acknowledged.is_subset(&distinct).then_some((ids.len(), distinct.len()))
    });
    assert_eq!(stored.0, stored.1, "an event is there twice");
    assert!(!acknowledged.is_empty());
    assert_eq!(rebound.stop(), Some(0));
    succeeds(&["log", "verify", "--data", "data"], folder.path());
    let executed = lines(&folder.path().join("executed"));
    let distinct: BTreeSet<_> = executed.iter().collect();
    assert_eq!(executed.len(), distinct.len(), "a recovery ran twice: {executed:?}");
    assert!(!executed.is_empty(), "no recovery ran at all");
    let started = sql(folder.path(), "SELECT recovery FROM recoveries WHERE started_at IS NOT NULL");
    assert!(started.len() >= distinct.len(), "a recovery ran that the log doesn't know");
}

#[test]
fn kill_9_loses_nothing_and_repeats_nothing_embedded() {
    survives_kills(&[], 5);
}

#[test]
fn kill_9_loses_nothing_and_repeats_nothing_on_kafka() {
    let Some(brokers) = kafka("kill -9 on Kafka") else { return };
    let prefix = format!("kill{}", free_port());
    let properties = kafka_environment(&brokers, &prefix);
    survives_kills(&borrowed(&properties), 3);
}

pub(crate) fn kafka_environment(brokers: &str, prefix: &str) -> Vec<(&'static str, String)> {
    vec![
        ("REBOUND_BUS__KIND", "kafka".into()),
        ("REBOUND_BUS__PARTITIONS", "2".into()),
        ("REBOUND_KAFKA__BROKERS", brokers.into()),
        ("REBOUND_KAFKA__PREFIX", prefix.into()),
        ("REBOUND_KAFKA__SESSION_TIMEOUT", "6s".into()),
    ]
}

pub(crate) fn borrowed(environment: &[(&'static str, String)]) -> Vec<(&'static str, &'static str)> {
    environment.iter().map(|(k, v)| (*k, &*Box::leak(v.clone().into_boxed_str()))).collect()
}

/// Two instances decide and recover over one Kafka; one is taken away in the middle of its work.
fn one_of_two_is_taken_away(name: &str, take: impl Fn(Running) -> Option<Running>) {
    let Some(brokers) = kafka(name) else { return };
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    write_plan(folder.path(), "2");
    let environment = kafka_environment(&brokers, &format!("two{}", free_port()));
    let environment = borrowed(&environment);
    let run = |name: &str, roles: &[&str]| {
        let mut arguments = vec!["run"];
        arguments.extend(roles);
        let data = format!("data-{name}");
        arguments.extend(["--plan", "plan.toml", "--data", &data]);
        Running::start(folder.path(), name, &arguments, &environment).ready()
    };
    let log = Running::start(
        folder.path(),
        "l",
        &["run", "probe", "log", "--plan", "plan.toml", "--data", "data"],
        &environment,
    )
    .ready();
    let (a, b) = (run("a", &["alert", "recover", "serve"]), run("b", &["alert", "recover", "serve"]));
    // Two partitions, two members: each has one when the sharing out is over. A recovery that began before would
    // rightly be interrupted by it.
    wait_for("both to own a partition", || {
        let owns = |log: &str, group| log.contains(&format!("deciding for partitions group=\"{group}\""));
        let settled = |log: String| owns(&log, "alert") && owns(&log, "recover");
        (settled(a.log()) && settled(b.log())).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    std::fs::remove_file(folder.path().join("up")).expect("removed");
    wait_for("the recovery to begin", || (!lines(&folder.path().join("executed")).is_empty()).then_some(()));
    // The owner of the one service's partition is the instance that claimed the recovery.
    let runner = wait_for("recovery.started in SQL", || {
        let rows = sql(folder.path(), "SELECT runner FROM recoveries WHERE started_at IS NOT NULL");
        Some(rows.first()?["runner"].as_str()?.to_owned())
    });
    let (owner, other) = if runner.starts_with('a') { (a, b) } else { (b, a) };
    let back = take(owner);
    std::fs::write(folder.path().join("up"), "").expect("written");
    wait_for("the end of the recovery", || {
        let rows = sql(folder.path(), "SELECT outcome FROM recoveries WHERE outcome IS NOT NULL");
        (!rows.is_empty()).then_some(())
    });
    wait_for("the end of the incident", || {
        (number(folder.path(), "SELECT count(*) FROM incidents WHERE recovered_at IS NOT NULL") >= 1.0).then_some(())
    });
    if let Some(back) = back {
        // The paused one finds out that it was replaced, and goes on as a member.
        wait_for("the paused instance to be ready again", || {
            matches!(back.get("/readyz"), Some((200, _))).then_some(())
        });
        assert_eq!(back.stop(), Some(0));
    }
    assert_eq!(other.stop(), Some(0));
    assert_eq!(log.stop(), Some(0));
    succeeds(&["log", "verify", "--data", "data"], folder.path());
    let executed = lines(&folder.path().join("executed"));
    let distinct: BTreeSet<_> = executed.iter().collect();
    assert_eq!(executed.len(), distinct.len(), "a recovery ran twice: {executed:?}");
    let first = number(folder.path(), "SELECT count(*) FROM events WHERE kind = 'recovery.triggered' AND attempt = 1");
    let incidents = number(folder.path(), "SELECT count(*) FROM incidents");
    assert!(first <= incidents, "{first} first triggers for {incidents} incidents");
    assert_eq!(
        number(folder.path(), "SELECT count(*) - count(DISTINCT recovery) FROM events WHERE kind = 'recovery.started'"),
        0.0
    );
}

#[test]
fn a_killed_instance_is_replaced_without_a_second_execution() {
    one_of_two_is_taken_away("one of two instances killed", |owner| {
        owner.kill();
        None
    });
}

#[test]
fn a_paused_instance_is_fenced_and_executes_nothing_again() {
    one_of_two_is_taken_away("one of two instances paused", |owner| {
        owner.signal(Signal::SIGSTOP);
        // Longer than the session time-out: the other takes its partitions over.
        std::thread::sleep(Duration::from_secs(12));
        owner.signal(Signal::SIGCONT);
        Some(owner)
    });
}
