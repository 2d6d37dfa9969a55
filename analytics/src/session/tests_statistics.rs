//! Statistics over real tables on disk: SQL functions against the Rust definitions and published figures, the log as
//! it was known at a time, and what is gathered for reports.

use std::time::Duration;

use rebound_schemas::Event;
use rebound_schemas::event::{DeploymentFinished, DeploymentOutcome, Outcome};

use super::tests::doubles;
use super::*;
use crate::fixture::{Log, at, event, excluded, opened, probe, resolved, service};
use crate::mttr::mttr;
use crate::observed::{Scope, Uptime};

const LIMITS: SqlLimits = SqlLimits { timeout: Duration::from_secs(60), memory: 64 << 20, max_rows: 10_000 };

async fn open(log: &Log) -> Session {
    Session::open(log.location(), None, LIMITS).await.unwrap()
}

/// The one row of an answer in doubles.
async fn row(session: &Session, sql: &str) -> Vec<Option<f64>> {
    let answer = session.query(sql, at(4_000_000)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    doubles(answer.batches.iter().find(|batch| batch.num_rows() > 0).unwrap())
}

fn near(found: &[Option<f64>], expected: &[Option<f64>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        match (found, expected) {
            (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-6, "{found} is not {expected}"),
            (found, expected) => assert_eq!(found, expected),
        }
    }
}

/// The arm of Freireich et al. (1963) as a table of values, and lifelines' figures of it.
#[tokio::test]
async fn sql_functions_give_the_published_figures() {
    let log = Log::with(&[]).await;
    let session = open(&log).await;
    let treated = "(VALUES (6,true),(6,true),(6,true),(6,false),(7,true),(9,false),(10,true),(10,false),(11,false),\
        (13,true),(16,true),(17,false),(19,false),(20,false),(22,true),(23,true),(25,false),(32,false),(32,false),\
        (34,false),(35,false)) t(weeks, relapsed)";
    let sql = format!(
        "SELECT km_median(weeks, relapsed), km_median_low(weeks, relapsed), km_median_high(weeks, relapsed), \
         km_survival(weeks, relapsed, 10), km_survival(weeks, relapsed, 23), geo_mean(weeks) FROM {treated}"
    );
    // The geometric mean by scipy.stats.gmean.
    let expected = [Some(23.0), Some(13.0), None, Some(0.752_941_176), Some(0.448_179_272), Some(14.311_787_607)];
    near(&row(&session, &sql).await, &expected);

    // Months without a value in between; the order of rows says nothing. pymannkendall, scipy.stats.theilslopes.
    let months = "(VALUES (120,12),(310,0),(250,1),(265,3),(190,4),(205,7),(180,8),(240,9)) t(seconds, month)";
    let sql = format!(
        "SELECT mann_kendall_z(seconds, month), mann_kendall_p(seconds, month), theil_sen_slope(seconds, month), \
         theil_sen_low(seconds, month), theil_sen_high(seconds, month) FROM {months}"
    );
    near(
        &row(&session, &sql).await,
        &[Some(-2.103_204_552), Some(0.035_447_893), Some(-15.0), Some(-20.0), Some(-1.25)],
    );
    // Where `at` is a time, a slope is by day: a twelfth of a day an hour.
    let hours = "(VALUES (1, '2026-01-01T00:00:00Z'::timestamptz), (2, '2026-01-01T01:00:00Z'::timestamptz)) t(v, at)";
    near(&row(&session, &format!("SELECT theil_sen_slope(v, at) FROM {hours}")).await, &[Some(24.0)]);
    let days = "(VALUES (1, DATE '2026-01-01'), (2, DATE '2026-01-03')) t(v, at)";
    near(&row(&session, &format!("SELECT theil_sen_slope(v, at) FROM {days}")).await, &[Some(0.5)]);

    let met = "SELECT (rto_met(59, true, 60) AND NOT rto_met(61, true, 60) AND NOT rto_met(61, false, 60) \
        AND rto_met(59, false, 60) IS NULL AND rto_met(59, true, NULL) IS NULL)::INT::DOUBLE";
    near(&row(&session, met).await, &[Some(1.0)]);
}

#[tokio::test]
async fn nothing_is_null_and_too_much_is_told() {
    let log = Log::with(&[]).await;
    let session = open(&log).await;
    let sql = "SELECT geo_mean(mttr_seconds), km_median(lasted_seconds, recovered_at IS NOT NULL), \
        km_median_high(lasted_seconds, true), km_survival(lasted_seconds, true, 60), \
        mann_kendall_p(mttr_seconds, first_failure_at), theil_sen_slope(mttr_seconds, first_failure_at) FROM incidents";
    near(&row(&session, sql).await, &[None; 6]);
    near(
        &row(&session, "SELECT geo_mean(v), mann_kendall_z(v, v) FROM (VALUES (5.0),(NULL)) t(v)").await,
        &[Some(5.0), None],
    );
    near(&row(&session, "SELECT geo_mean(v) FROM (VALUES (5.0),(-1.0)) t(v)").await, &[None]);
    let many = "SELECT theil_sen_slope(x, x) FROM generate_series(1, 3001) t(x)";
    let error = session.query(many, at(0)).await.unwrap_err().to_string();
    assert!(error.contains("takes at most 3000, this group has 3001: aggregate first"), "{error}");
    let endless = "SELECT geo_mean(x) FROM generate_series(1, 100000000) t(x)";
    let error = session.query(endless, at(0)).await.unwrap_err();
    assert!(matches!(error, SqlError::Memory { .. } | SqlError::Timeout(_)), "{error}");
}

/// Several partitions and groups: partial states are merged.
#[tokio::test]
async fn sql_functions_equal_the_report_by_group() {
    let mut events = Vec::new();
    for n in 0..60_u32 {
        let (service, t0) = (if n % 3 == 0 { "api" } else { "db" }, i64::from(n) * 50_000);
        events.push(opened(n, service, t0, t0 + 30));
        if n % 7 != 0 {
            let lasted = 40 + i64::from(n * n % 97) * 11;
            events.push(resolved(n, service, t0 + lasted, t0 + lasted + 60));
        }
    }
    events.push(excluded(5, "db", 3_900_000));
    let log = Log::with(&events).await;
    let session = open(&log).await;
    let report = mttr(&session.record().await.unwrap(), None, at(4_000_000));
    for (service, figures) in &report.services {
        let sql = format!(
            "SELECT geo_mean(mttr_seconds), km_median(lasted_seconds, recovered_at IS NOT NULL), \
             km_median_low(lasted_seconds, recovered_at IS NOT NULL), \
             km_median_high(lasted_seconds, recovered_at IS NOT NULL) \
             FROM incidents GROUP BY service HAVING service = '{service}'"
        );
        let recover = figures.recover.unwrap();
        let expected =
            [Some(recover.geometric_mean), figures.survival_median, figures.survival_low, figures.survival_high];
        assert!(figures.survival_median.is_some() && figures.open > 0);
        near(&row(&session, &sql).await, &expected);
    }
}

/// The fixture takes events in a second after the other, from 0 on.
#[tokio::test]
async fn the_record_is_as_it_was_known() {
    let events = [
        opened(1, "db", -500, -490),
        resolved(1, "db", -400, -390),
        opened(2, "db", -300, -290),
        // Told of later, of earlier things.
        resolved(2, "db", -250, -240),
        excluded(1, "db", -100),
    ];
    let log = Log::with(&events).await;
    let session = open(&log).await;
    for (known_at, incidents, open, excluded) in [(-1, 0, 0, 0), (0, 1, 1, 0), (2, 2, 1, 0), (3, 2, 0, 0), (4, 2, 0, 1)]
    {
        let record = session.record_as_of(at(known_at)).await.unwrap();
        assert_eq!(record.incidents().count(), incidents, "{known_at}");
        let figures = mttr(&record, None, at(known_at)).overall;
        assert_eq!((figures.open, figures.excluded), (open, excluded), "{known_at}");
    }
    assert_eq!(session.record_as_of(at(99)).await.unwrap(), *session.record().await.unwrap());
}

#[tokio::test]
async fn what_a_report_needs_is_gathered_each_event_once() {
    let seen = |id: &str, service, seconds| probe("rebound/probe/primary", id, service, seconds, Outcome::Healthy);
    let deployed = |id: &str, outcome| {
        event("ci", id, "api", 50, DeploymentFinished { deployment: id.into(), outcome, version: None })
    };
    let mut events: Vec<Event> = (0..40).map(|n| seen(&format!("a{n}"), "api", n * 100)).collect();
    // Without a plan, 300 s are a silence: 3,900 → 4,200 is none, 4,200 → 4,501 is one. Not in order, too.
    events.extend([seen("late", "api", 4_501), seen("b", "db", 10), seen("before", "api", 4_200)]);
    events.extend([deployed("1", DeploymentOutcome::Failed), deployed("2", DeploymentOutcome::Succeeded)]);
    events.push(deployed("1", DeploymentOutcome::Failed));
    let log = Log::with(&events).await;
    let session = open(&log).await;
    let observed = session.observed(None, None).await.unwrap();
    let stretches = |observed: &Observed, name: &str| -> Vec<(i64, i64)> {
        let spans = observed.stretches(&service(name));
        let seconds = |micros: i64| micros / 1_000_000 - at(0).timestamp();
        spans.into_iter().flat_map(|it| it.stretches()).map(|(from, until)| (seconds(*from), seconds(*until))).collect()
    };
    assert_eq!(stretches(&observed, "api"), [(0, 4_500), (4_501, 4_801)]);
    assert_eq!(stretches(&observed, "db"), [(10, 310)]);
    // As known when the first three probes had been taken in.
    let observed = session.observed(Some(at(2)), None).await.unwrap();
    assert_eq!((stretches(&observed, "api"), stretches(&observed, "db")), (vec![(0, 500)], vec![]));

    // From 4,450 on: only what can still speak of it is read, and db, of which nothing is, was there before.
    let observed = session.observed(None, Some(at(4_450))).await.unwrap();
    assert_eq!(
        (stretches(&observed, "api"), stretches(&observed, "db")),
        (vec![(4_200, 4_500), (4_501, 4_801)], vec![])
    );
    let record = Record::default();
    let scope = |since| Scope { record: &record, plan: None, observed: &observed, from: since, until: at(5_450) };
    let uptime = Uptime::of([&service("api"), &service("db")], &[], scope(Some(at(4_450)))).unwrap();
    assert_eq!((uptime.calendar_seconds, uptime.observed_seconds, uptime.services), (2_000.0, 350.0, 2));

    let surroundings = session.surroundings(&[], None).await.unwrap();
    let failed: Vec<_> = surroundings.deployments().map(|(service, it)| (service.as_str(), it.failed)).collect();
    assert_eq!(failed, [("api", true), ("api", false)]);
    assert_eq!(session.surroundings(&[], Some(at(2))).await.unwrap().deployments().count(), 0);
}

/// Every projection can be asked as it was known at a time.
#[tokio::test]
async fn sql_answers_as_known_at_a_time() {
    let events = [
        opened(1, "db", -500, -490),
        probe("rebound/probe/primary", "1", "db", -450, Outcome::Failed),
        resolved(1, "db", -400, -390),
        probe("rebound/probe/primary", "2", "db", -390, Outcome::Healthy),
        excluded(1, "db", -100),
    ];
    let log = Log::with(&events).await;
    let session = open(&log).await;
    let sql = "SELECT (SELECT count(*) FROM events)::DOUBLE AS c1, (SELECT count(*) FROM probes)::DOUBLE AS c2, \
        (SELECT count(*) FROM services WHERE last_outcome = 'healthy')::DOUBLE AS c3, \
        (SELECT count(*) FROM services WHERE open_incident IS NOT NULL)::DOUBLE AS c4, \
        (SELECT count(*) FROM incidents WHERE excluded)::DOUBLE AS c5, (SELECT max(lasted_seconds) FROM incidents)";
    for (known_at, expected) in [
        (-1, [Some(0.0), Some(0.0), Some(0.0), Some(0.0), Some(0.0), None]),
        // Open, and lasting until then.
        (1, [Some(2.0), Some(1.0), Some(0.0), Some(1.0), Some(0.0), Some(501.0)]),
        (3, [Some(4.0), Some(2.0), Some(1.0), Some(0.0), Some(0.0), Some(100.0)]),
        (4, [Some(5.0), Some(2.0), Some(1.0), Some(0.0), Some(1.0), None]),
    ] {
        let answer = session.query_as_of(sql, at(known_at)).await.unwrap();
        near(&doubles(&answer.batches[0]), &expected);
    }
    let error = session.query_as_of("DROP TABLE incidents", at(1)).await.unwrap_err();
    assert!(error.to_string().contains("DROP is not allowed"), "{error}");
}
