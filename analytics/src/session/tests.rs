//! SQL over real tables on disk: what it answers, that it equals the Rust definitions, and what it refuses.

use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rebound_schemas::event::{Outcome, RecoveryExpired, RecoveryRejected};
use rebound_schemas::{Event, IncidentId, RecoveryId};

use super::*;
use crate::fixture::{Log, acknowledged, at, event, excluded, opened, probe, recovery, resolved};
use crate::mttr::mttr;
use crate::stats;
use crate::tables::TABLES;

const SMALL: SqlLimits = SqlLimits { timeout: Duration::from_secs(30), memory: 64 << 20, max_rows: 1_000 };

const PLAN: &str = "[[service]]\nid = \"api\"\nrto = \"2m\"\n[[service.probe]]\nhttp = \"http://127.0.0.1:8080/\"\n\
    [[service]]\nid = \"db\"\nrto = \"10m\"\n[[service.probe]]\ntcp = \"127.0.0.1:5432\"\n";

fn plan() -> Arc<Plan> {
    Arc::new(Plan::parse(PLAN, "plan.toml").unwrap())
}

async fn open(log: &Log) -> Session {
    Session::open(log.location(), Some(plan()), SMALL).await.unwrap()
}

/// The rows of an answer, each as its cells joined by `|`.
async fn ask(session: &Session, sql: &str) -> Vec<String> {
    let answer = session.query(sql, at(1_000)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut rows = Vec::new();
    for batch in &answer.batches {
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap()).collect();
            rows.push(cells.join("|"));
        }
    }
    rows
}

/// The first row of a batch of doubles.
pub(super) fn doubles(batch: &RecordBatch) -> Vec<Option<f64>> {
    batch.columns().iter().map(|column| column.as_primitive::<Float64Type>().iter().next().flatten()).collect()
}

async fn refuse(session: &Session, sql: &str) -> String {
    match session.query(sql, at(1_000)).await {
        Ok(answer) => panic!("{:.80} was answered with {} rows", sql, answer.rows()),
        Err(error) => error.to_string(),
    }
}

const PROBER: &str = "rebound/probe/primary";

/// Two outages of api (one still open), one of db.
fn history() -> Vec<Event> {
    let mut events: Vec<_> = [Outcome::Healthy, Outcome::Failed, Outcome::Degraded]
        .into_iter()
        .enumerate()
        .map(|(n, outcome)| probe(PROBER, &n.to_string(), "api", n as i64 * 10, outcome))
        .collect();
    events.extend([opened(1, "api", 0, 20), resolved(1, "api", 100, 120), acknowledged(1, "api", 50, false)]);
    events.extend(recovery(1, "api", 22));
    events.extend([opened(2, "db", 200, 210), resolved(2, "db", 500, 510), opened(3, "api", 600, 620)]);
    events
}

/// Tables that this history says something of; the questions of the review ask the others.
const FILLED: [&str; 11] = [
    "events",
    "probes",
    "incidents",
    "recoveries",
    "recovery_steps",
    "services",
    "objectives",
    "attainment",
    "outages",
    "availability_daily",
    "data_quality",
];

#[tokio::test]
async fn every_table_has_the_columns_that_are_listed() {
    let log = Log::with(&history()).await;
    let session = open(&log).await;
    for table in TABLES {
        let answer = session.query(&format!("SELECT * FROM {}", table.name), at(1_000)).await.unwrap();
        let found: Vec<_> = answer.schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
        let listed: Vec<_> = table.columns.iter().map(|c| (c.name, c.kind.as_arrow())).collect();
        let plain = |kind: &arrow::datatypes::DataType| match kind {
            arrow::datatypes::DataType::Utf8View => arrow::datatypes::DataType::Utf8,
            other => other.clone(),
        };
        let found: Vec<_> = found.into_iter().map(|(name, kind)| (name, plain(&kind))).collect();
        assert_eq!(found, listed, "{}", table.name);
        assert_eq!(answer.rows() > 0, FILLED.contains(&table.name), "{} has {} rows", table.name, answer.rows());
        let text = format!("SELECT count(*) FROM information_schema.columns WHERE table_name = '{}'", table.name);
        assert_eq!(ask(&session, &text).await, [table.columns.len().to_string()], "{}", table.name);
    }
}

#[tokio::test]
async fn figures_are_those_of_the_definitions() {
    let log = Log::with(&history()).await;
    let session = open(&log).await;
    let sql = "SELECT incident, open, mttd_seconds, mtta_seconds, mtta_human_seconds, mttr_seconds, \
        detected_to_recovered_seconds, detected_to_resolved_seconds, lasted_seconds, rto_seconds, rto_met, recoveries \
        FROM incidents ORDER BY incident";
    let expected = [
        // Automation began at 23, a person at 50; both count from t1 = 20.
        "inc-1|false|20.0|3.0|30.0|100.0|80.0|100.0|100.0|120.0|true|1",
        "inc-2|false|10.0|||300.0|290.0|300.0|300.0|600.0|true|0",
        "inc-3|true|20.0||||||400.0|120.0|false|0",
    ];
    assert_eq!(ask(&session, sql).await, expected);
    let sql = "SELECT r.recovery, r.outcome, verified, r.duration_seconds, step, s.duration_seconds \
        FROM recoveries r JOIN recovery_steps s ON s.recovery = r.recovery";
    assert_eq!(ask(&session, sql).await, ["rec-1|succeeded|true|9.0|start|2.5"]);
    let sql = "SELECT service, last_outcome, open_incident FROM services ORDER BY service";
    assert_eq!(ask(&session, sql).await, ["api|degraded|inc-3", "db||"]);
    assert_eq!(ask(&session, "SELECT rto_seconds FROM objectives WHERE service = 'api'").await, ["120.0"]);
    let sql = "SELECT outcome, latency_seconds FROM probes ORDER BY occurred_at LIMIT 1";
    assert_eq!(ask(&session, sql).await, ["healthy|0.0015"]);
    assert_eq!(ask(&session, "SELECT extract(epoch FROM now())::BIGINT").await, [at(1_000).timestamp().to_string()]);

    let report = mttr(&session.record().await.unwrap(), session.plan(), at(1_000));
    assert_eq!((report.overall.open, report.services["api"].rto.share()), (1, Some(0.5)));
    assert_eq!(report.overall.recover.unwrap().median, 200.0);
    assert_eq!(report.overall.survival_median, Some(300.0));
    assert_eq!(report.overall.acknowledge_automated.unwrap().median, 3.0);
    assert_eq!(report.overall.acknowledge_human, None, "automation was first");
}

#[tokio::test]
async fn who_refused_a_recovery_and_when_stands_beside_who_approved_one() {
    let mut events: Vec<Event> = (1..4).map(|n| recovery(n, "api", 100 * i64::from(n)).swap_remove(0)).collect();
    let of = |n: u32| (RecoveryId::new(&format!("rec-{n}")).unwrap(), IncidentId::new(&format!("inc-{n}")).unwrap());
    let rejected = RecoveryRejected { recovery: of(1).0, by: "lee".into(), reason: "by hand".into() };
    let expired = RecoveryExpired { recovery: of(2).0, incident: of(2).1, approve_until: at(240) };
    events.push(event("console", "rejected", "api", 130, rejected));
    events.push(event("rebound/alert", "expired", "api", 240, expired));
    let log = Log::with(&events).await;
    let sql = "SELECT recovery, refused_by, refused_at FROM recoveries ORDER BY 1";
    let expected = ["rec-1|lee|2026-01-01T00:02:10Z", "rec-2||2026-01-01T00:04:00Z", "rec-3||"];
    assert_eq!(ask(&open(&log).await, sql).await, expected);
}

#[tokio::test]
async fn an_event_counts_once_and_new_ones_are_seen() {
    let sent = |id: &str, seconds| probe("uptime-robot", id, "db", seconds, Outcome::Failed);
    let mut log = Log::with(&[sent("a", 1), sent("b", 2), sent("a", 1), opened(1, "db", 1, 3)]).await;
    let session = open(&log).await;
    let kept = "SELECT count(*), min(\"offset\"), max(\"offset\") FROM events WHERE kind = 'probe.completed'";
    assert_eq!(ask(&session, kept).await, ["2|0|1"]);
    assert_eq!(ask(&session, "SELECT count(*) FROM probes").await, ["2"]);
    assert_eq!(ask(&session, "SELECT count(*) FROM incidents WHERE open").await, ["1"]);

    log.append(&[sent("b", 2), sent("c", 9), resolved(1, "db", 9, 10), resolved(1, "db", 9, 10)]).await;
    assert_eq!(session.refresh().await.unwrap(), log.version());
    assert_eq!(ask(&session, "SELECT count(*) FROM events").await, ["5"]);
    assert_eq!(ask(&session, "SELECT open, mttr_seconds FROM incidents").await, ["false|8.0"]);
    assert_eq!(
        ask(&session, "SELECT last_observed_at FROM services WHERE service = 'db'").await,
        ["2026-01-01T00:00:09Z"]
    );

    // Compaction moves rows to other files; they are the same events.
    log.compact().await;
    assert_eq!(ask(&session, "SELECT count(*), count(DISTINCT id) FROM events").await, ["5|5"]);
    assert_eq!(ask(&session, "SELECT count(*) FROM incidents").await, ["1"]);
    let fresh = open(&log).await;
    assert_eq!(ask(&fresh, "SELECT count(*), count(DISTINCT id) FROM events").await, ["5|5"]);
    let offsets = "SELECT string_agg(\"offset\"::TEXT, ',' ORDER BY \"offset\") FROM events";
    assert_eq!(ask(&fresh, offsets).await, ask(&session, offsets).await, "the same ones are dropped");
    assert_eq!(session.unreadable().await, 0);
}

/// A prober that is not answered appends the same results again: they are in the log twice, and count once.
#[tokio::test]
async fn results_of_own_probes_that_were_appended_again_count_once() {
    let results = |numbers: std::ops::Range<i64>| -> Vec<Event> {
        numbers.map(|n| probe(PROBER, &n.to_string(), "api", n, Outcome::Healthy)).collect()
    };
    let mut log = Log::with(&results(1..40)).await;
    let session = open(&log).await;
    let counted = "SELECT count(*), count(DISTINCT id), max(\"offset\") FROM events";
    assert_eq!(ask(&session, counted).await, ["39|39|38"]);
    log.append(&results(30..60)).await;
    assert_eq!(ask(&session, counted).await, ["59|59|68"]);
    assert_eq!(ask(&session, "SELECT count(*) FROM probes").await, ["59"]);
    assert_eq!(ask(&session, "SELECT count(*) FROM probes WHERE source = 'another'").await, ["0"]);
    // Within one commit, thrice, and the same number of another prober.
    let again = [results(60..70), results(60..65), results(60..61)].concat();
    log.append(&again).await;
    log.append(&[probe("rebound/probe/secondary", "60", "api", 60, Outcome::Healthy)]).await;
    assert_eq!(ask(&session, "SELECT count(*) FROM probes").await, ["70"]);
    let kept = "SELECT string_agg(\"offset\"::TEXT, ',' ORDER BY \"offset\") FROM events";
    let before = ask(&session, kept).await;
    log.compact().await;
    assert_eq!(ask(&session, kept).await, before, "compaction moves rows and repeats none");
    assert_eq!(ask(&open(&log).await, kept).await, before, "whoever looks later keeps the same ones");
}

/// (t0, time to recover) of incidents, some of them open or excluded.
fn histories() -> impl Strategy<Value = Vec<(i64, Option<i64>, bool)>> {
    prop::collection::vec(
        (0..3_000_000i64, prop::option::weighted(0.9, 0..20_000i64), prop::bool::weighted(0.1)),
        1..60,
    )
}

#[tokio::test]
async fn sql_equals_the_rust_definitions_on_generated_histories() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..6 {
        let history = histories().new_tree(&mut runner).unwrap().current();
        let mut events = Vec::new();
        for (n, (t0, lasted, out)) in (0..).zip(&history) {
            let service = if n % 3 == 0 { "api" } else { "db" };
            events.push(opened(n, service, *t0, t0 + 30));
            events.extend(lasted.map(|lasted| resolved(n, service, t0 + lasted, t0 + lasted + 60)));
            events.extend(out.then(|| excluded(n, service, 3_000_000)));
        }
        let log = Log::with(&events).await;
        let session = open(&log).await;
        let now = at(4_000_000);
        let report = mttr(&session.record().await.unwrap(), session.plan(), now);
        let sql = "SELECT count(mttr_seconds)::DOUBLE, median(mttr_seconds), \
            percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr_seconds), \
            percentile_cont(0.95) WITHIN GROUP (ORDER BY mttr_seconds), \
            avg(mttr_seconds), exp(avg(ln(nullif(mttr_seconds, 0)))), median(mttd_seconds), \
            count(*) FILTER (WHERE NOT excluded AND recovered_at IS NULL)::DOUBLE, \
            count(*) FILTER (WHERE rto_met)::DOUBLE, count(*) FILTER (WHERE rto_met IS NOT NULL)::DOUBLE \
            FROM incidents";
        for (service, figures) in [(None, &report.overall), (Some("api"), &report.services["api"])] {
            let sql = service.map_or(sql.to_owned(), |service| format!("{sql} WHERE service = '{service}'"));
            let answer = session.query(&sql, now).await.unwrap();
            let found = doubles(&answer.batches[0]);
            let recover = figures.recover;
            let measured = |get: fn(&stats::Summary) -> f64| recover.as_ref().map(get);
            let rto = figures.rto;
            let expected = [
                Some(recover.map_or(0.0, |s| s.n as f64)),
                measured(|s| s.median),
                measured(|s| s.p90),
                measured(|s| s.p95),
                measured(|s| s.mean),
                // A zero makes the geometric mean zero, which SQL's logarithm can't say.
                measured(|s| s.geometric_mean).filter(|mean| *mean > 0.0).or(found[5]),
                figures.detect.map(|s| s.median),
                Some(figures.open as f64),
                Some(rto.met as f64),
                Some((rto.recovered + rto.open_past) as f64),
            ];
            for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
                match (found, expected) {
                    // percentile_cont rounds its weight to 10⁻⁶ of the gap between two values.
                    (Some(found), Some(expected)) => {
                        assert!((found - expected).abs() <= 2e-2, "{n}: {found} {expected}")
                    }
                    (found, expected) => assert_eq!(*found, expected, "column {n} of {sql}"),
                }
            }
            assert_eq!(found[1], expected[1], "median is exact");
        }
    }
}

#[tokio::test]
async fn what_does_not_read_is_refused() {
    let log = Log::with(&history()).await;
    let session = open(&log).await;
    let target = log.location().to_owned() + "/stolen.csv";
    let copy = format!("COPY incidents TO '{target}'");
    let explained = format!("EXPLAIN ANALYZE COPY incidents TO '{target}'");
    for (sql, says) in [
        (copy.as_str(), "COPY is not allowed: SQL here only reads"),
        (explained.as_str(), "COPY is not allowed"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "CREATE is not allowed"),
        ("CREATE TABLE t AS SELECT 1", "CREATE is not allowed"),
        ("CREATE VIEW v AS SELECT 1", "CREATE is not allowed"),
        ("INSERT INTO incidents SELECT * FROM incidents", "INSERT is not allowed"),
        ("DELETE FROM incidents", "DELETE is not allowed"),
        ("UPDATE incidents SET incident = 'x'", "UPDATE is not allowed"),
        ("DROP TABLE incidents", "DROP is not allowed"),
        ("SET datafusion.execution.batch_size = 1", "SET is not allowed"),
        ("RESET datafusion.execution.batch_size", "RESET is not allowed"),
        ("PREPARE p AS SELECT 1", "PREPARE is not allowed"),
        ("SELECT 1 INTO t", "not allowed"),
        ("SELECT 1; SELECT 2", "exactly one statement"),
        ("SELECT 1; DROP TABLE incidents", "exactly one statement"),
        ("", "exactly one statement"),
        ("SELEC 1", "found: SELEC"),
        ("SELECT * FROM '/etc/passwd'", "there are events, probes"),
        ("SELECT * FROM \"/etc/passwd\"", "there are events, probes"),
        ("SELECT * FROM 'file:///etc/passwd'", "there are events, probes"),
        ("SELECT * FROM 's3://bucket/x.parquet'", "there are events, probes"),
        ("SELECT * FROM incident", "there is no table incident: did you mean incidents? there are events"),
        ("SELECT * FROM read_parquet('/etc/passwd')", "there is no table function read_parquet: "),
        ("SELECT * FROM read_csv('/etc/passwd')", "there is no table function read_csv: "),
        ("SELECT mttr FROM incidents", "mttr_seconds"),
        ("SELECT mttr_second FROM incidents", "there is no column mttr_second: did you mean mttr_seconds? there are"),
        ("SELECT km_medien(1.0, true)", "there is no function km_medien: did you mean km_median?"),
        ("SELECT repeat('x', 1000000000000)", "repeat"),
        ("SELECT array_repeat(1, 1000000000000)", "array_repeat"),
    ] {
        let message = refuse(&session, sql).await;
        assert!(message.contains(says), "{sql}: {message}");
    }
    assert!(!std::path::Path::new(&target).exists());
    assert_eq!(ask(&session, "SELECT count(*) FROM incidents").await, ["3"]);
}

#[tokio::test]
async fn what_would_never_end_or_fit_is_stopped() {
    let log = Log::with(&history()).await;
    let limits = SqlLimits { timeout: Duration::from_secs(5), memory: 16 << 20, max_rows: 100 };
    let session = Session::open(log.location(), None, limits).await.unwrap();
    let endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) SELECT count(*) FROM t";
    let series = "generate_series(1, 10000000000)";
    let begun = Instant::now();
    for (sql, says) in [
        (endless.to_owned(), "stopped after 5 s"),
        (format!("SELECT count(*) FROM {series} a(x) CROSS JOIN {series} b(y)"), "needs more than the 16777216 bytes"),
        (format!("SELECT array_agg(x) FROM {series} a(x)"), "needs more than the 16777216 bytes"),
        (format!("SELECT count(*) FROM {series} a(x) WHERE x % 7 = 8"), "stopped after 5 s"),
    ] {
        let message = refuse(&session, &sql).await;
        assert!(message.contains(says) || message.contains("stopped after"), "{sql}: {message}");
    }
    assert!(begun.elapsed() < Duration::from_secs(120), "the timeout does not hold");
    let answer = session.query(&format!("SELECT * FROM {series}"), at(0)).await.unwrap();
    assert_eq!((answer.rows(), answer.truncated), (100, true));
    let answer = session.query("SELECT * FROM incidents", at(0)).await.unwrap();
    assert_eq!((answer.rows(), answer.truncated), (3, false));
}

#[tokio::test]
async fn depth_is_bounded_and_does_not_overflow_the_stack() {
    let log = Log::with(&[]).await;
    let session = open(&log).await;
    let nested = |n: usize| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
    let selects = |n: usize| format!("{}SELECT 1{}", "SELECT * FROM (".repeat(n), ") t".repeat(n));
    let chain = |n: usize, sign: &str| format!("SELECT 1{}", format!("{sign} 1").repeat(n));
    let words = |n: usize, word: &str| format!("SELECT {} true", word.repeat(n));
    let unions = |n: usize| format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(n));
    for sql in [nested(2_000), selects(1_000), words(2_000, "NOT "), words(2_000, "- "), chain(30_000, "+")] {
        // The parser gives up at its depth, saying so or saying that it expected the statement to end.
        let message = refuse(&session, &sql).await.to_lowercase();
        assert!(["recursion", "at most", "expected"].iter().any(|says| message.contains(says)), "{message}");
    }
    let ors = |n: usize| format!("SELECT false{}", " OR 1 = 1".repeat(n));
    let casts = |n: usize| format!("SELECT 1{}", "::BIGINT".repeat(n));
    let joins = |n: usize| {
        let tables: Vec<_> = (0..n).map(|t| format!("incidents t{t}")).collect();
        format!("SELECT count(*) FROM {}", tables.join(", "))
    };
    for sql in [joins(51), unions(251), casts(251), ors(126)] {
        assert!(refuse(&session, &sql).await.contains("a statement has at most"), "{sql}");
    }
    // The longest that gets through the limits is planned and run without overflowing a thread's stack.
    for sql in [chain(249, "+"), chain(249, "*"), ors(125), unions(249), casts(249), joins(50)] {
        let answer = session.query(&sql, at(0)).await;
        assert!(answer.is_ok(), "{sql:.40}: {:.200}", answer.unwrap_err().to_string());
    }
    let many: Vec<_> = (0..4_000).map(|n| n.to_string()).collect();
    assert_eq!(ask(&session, &format!("SELECT 3999 IN ({})", many.join(", "))).await, ["true"], "lists are flat");
    assert_eq!(ask(&session, "SELECT 1 + 1").await, ["2"]);
}

#[tokio::test]
async fn a_log_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |path: &std::path::Path| Session::open(path.to_str().unwrap(), None, SMALL).await.unwrap_err();
    for path in [folder.path().to_owned(), folder.path().join("none")] {
        let error = open(&path).await.to_string();
        assert!(error.starts_with(&format!("there is no event log at {} yet: ", path.display())), "{error}");
    }
    // A session that need not find one answers what needs none.
    let lazy = Session::lazy(folder.path().to_str().unwrap(), None, SMALL, None).unwrap();
    assert_eq!(ask(&lazy, "SELECT 1").await, ["1"]);
    assert!(refuse(&lazy, "SELECT * FROM incidents").await.starts_with("there is no event log at"));
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&file).await.to_string();
    let expected = format!("the event log at {} can't be opened: Not a directory", file.display());
    assert!(error.starts_with(&expected) && !error.contains("Os {"), "{error}");
    let error = Session::open("ftp://host/log", None, SMALL).await.unwrap_err().to_string();
    assert!(error.contains("ftp://host/log can't be opened") && error.contains("s3://bucket/prefix"), "{error}");
    // Nor is one whose first commit is no commit.
    let log = folder.path().join("log");
    std::fs::create_dir_all(log.join("_delta_log")).unwrap();
    std::fs::write(log.join("_delta_log/00000000000000000000.json"), "garbage").unwrap();
    let error = open(&log).await.to_string();
    assert!(
        error.contains("can't be opened") && error.ends_with("`rebound log verify` tells which file is damaged"),
        "{error}"
    );
}

#[tokio::test]
async fn an_empty_log_answers() {
    let mut log = Log::with(&[]).await;
    let session = open(&log).await;
    for table in TABLES.iter().filter(|table| !["services", "objectives", "data_quality"].contains(&table.name)) {
        assert_eq!(ask(&session, &format!("SELECT count(*) FROM {}", table.name)).await, ["0"], "{}", table.name);
    }
    assert_eq!(ask(&session, "SELECT median(mttr_seconds) FROM incidents").await, [""]);
    assert_eq!(ask(&session, "SELECT service, last_outcome FROM services").await, ["api|", "db|"]);
    assert_eq!(mttr(&session.record().await.unwrap(), None, at(0)), crate::mttr::MttrReport::default());
    log.append(&history()).await;
    assert_eq!(ask(&session, "SELECT count(*) FROM incidents").await, ["3"]);
}

/// What a listing taken while commits are made can look like: the later one is there, the earlier not yet.
#[tokio::test]
async fn a_commit_that_shows_late_is_waited_for() {
    let mut log = Log::with(&[]).await;
    let session = open(&log).await;
    log.append(&history()).await;
    log.append(&[]).await;
    let commit = log.version() - 1;
    let shown = std::path::Path::new(log.location()).join(format!("_delta_log/{commit:020}.json"));
    let hidden = shown.with_extension("hidden");
    std::fs::rename(&shown, &hidden).unwrap();
    let (from, to) = (hidden.clone(), shown.clone());
    let showing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        std::fs::rename(from, to).unwrap();
    });
    assert_eq!(ask(&session, "SELECT count(*) FROM incidents").await, ["3"]);
    showing.await.unwrap();

    log.append(&[]).await;
    log.append(&[]).await;
    let lost = shown.with_file_name(format!("{:020}.json", log.version() - 1));
    std::fs::remove_file(lost).unwrap();
    assert!(session.refresh().await.is_err(), "a hole that stays is told of");
}
