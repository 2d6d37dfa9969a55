//! Tables beside those of incidents: what their rows say of events, and that each event is one row.

use arrow::util::display::array_value_to_string;
use rebound_schemas::Event;
use rebound_schemas::event::*;
use rebound_schemas::ids::*;
use rebound_schemas::plan::Plan;

use super::*;
use crate::fixture::{Log, at, event, probe};

const LIMITS: SqlLimits = SqlLimits { timeout: Duration::from_secs(60), memory: 128 << 20, max_rows: 1_000 };

async fn open(log: &Log) -> Session {
    Session::open(log.location(), None, LIMITS).await.unwrap()
}

/// The rows of an answer, each as its cells joined by `|`.
async fn ask(session: &Session, sql: &str) -> Vec<String> {
    let answer = session.query(sql, at(1_000)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let row = |batch: &RecordBatch, row| {
        let cells: Vec<_> = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap()).collect();
        cells.join("|")
    };
    answer.batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |at| row(batch, at))).collect()
}

#[tokio::test]
async fn measurements_are_rows_of_the_log_each_once() {
    let levels = ServiceLevelMeasured {
        window_seconds: 60.0,
        response_time_ms: Some(250.0),
        throughput_per_second: None,
        error_rate: Some(0.25),
        availability: None,
    };
    let lag = ReplicationMeasured {
        target_site: SiteId::new("secondary").unwrap(),
        lag_seconds: 1.5,
        pending_bytes: Some(9_000_000_000),
    };
    let cpu = ResourceMeasured { resource: "cpu".into(), utilization: 0.75, site: None };
    let events = [
        event("m", "1", "api", 60, levels),
        event("m", "2", "db", 61, lag.clone()),
        event("m", "2", "db", 61, lag),
        event("m", "3", "api", 62, cpu),
    ];
    let log = Log::with(&events).await;
    let session = open(&log).await;
    let sql = "SELECT service, measured_at, window_seconds, response_seconds, throughput_per_second, error_rate, \
        availability, id FROM service_levels";
    assert_eq!(ask(&session, sql).await, ["api|2026-01-01T00:01:00Z|60.0|0.25||0.25||1"]);
    let sql = "SELECT service, target_site, lag_seconds, pending_bytes FROM replication";
    assert_eq!(ask(&session, sql).await, ["db|secondary|1.5|9000000000"]);
    assert_eq!(ask(&session, "SELECT resource, utilization, site FROM resources").await, ["cpu|0.75|"]);
    assert_eq!(ask(&session, "SELECT avg(lag_seconds), count(*) FROM replication").await, ["1.5|1"]);
}

#[tokio::test]
async fn a_move_is_one_row_with_its_way_back() {
    let (here, there) = (SiteId::new("primary").unwrap(), SiteId::new("cloud").unwrap());
    let started = |failover: &str| FailoverStarted {
        failover: failover.into(),
        from_site: here.clone(),
        to_site: there.clone(),
        recovery: None,
    };
    let finished = FailoverFinished {
        failover: "one".into(),
        from_site: here.clone(),
        to_site: there.clone(),
        succeeded: true,
        duration_ms: 90_500,
        data_until: Some(at(95)),
        reason: None,
    };
    let back = FailbackFinished {
        failover: "one".into(),
        from_site: there.clone(),
        to_site: here.clone(),
        succeeded: true,
        duration_ms: 30_000,
    };
    // The way back is told before the end of the way there.
    let events = [
        event("o", "back", "primary", 900, back),
        event("o", "two", "primary", 950, started("two")),
        event("o", "started", "primary", 100, started("one")),
        event("o", "finished", "primary", 190, finished),
    ];
    let log = Log::with(&events).await;
    let session = open(&log).await;
    let sql = "SELECT failover, service, from_site, to_site, started_at, finished_at, succeeded, duration_seconds, \
        data_until_at, failback_at, failback_succeeded, failback_seconds FROM failovers ORDER BY failover";
    let expected = [
        "one|primary|primary|cloud|2026-01-01T00:01:40Z|2026-01-01T00:03:10Z|true|90.5|2026-01-01T00:01:35Z|\
         2026-01-01T00:15:00Z|true|30.0",
        "two|primary|primary|cloud|2026-01-01T00:15:50Z|||||||",
    ];
    assert_eq!(ask(&session, sql).await, expected);
}

#[tokio::test]
async fn the_plans_tables_say_what_the_plan_says() {
    let text = "name = \"shop\"\nallow = [\"/bin/true\"]\n\
        [[site]]\nid = \"primary\"\npurpose = \"normal\"\nrecovery_time = \"0s\"\ncapacity = 1.0\n\
        [[tier]]\nid = \"tier-1\"\nname = \"critical\"\nseverity = \"critical\"\n\
        [[service]]\nid = \"db\"\nrto = \"10m\"\nrpo = \"1h\"\nprocedure = \"restart\"\nmethod = \"warm-standby\"\n\
        [[service.probe]]\ntcp = \"127.0.0.1:1\"\n\
        [[service]]\nid = \"api\"\ndepends_on = [\"db\"]\n[[service.probe]]\ntcp = \"127.0.0.1:2\"\n\
        [[procedure]]\nid = \"restart\"\nname = \"Restart it\"\n[[procedure.step]]\nid = \"stop\"\nname = \"Stop it\"\n\
        command = [\"/bin/true\"]\n[[procedure.step]]\nid = \"start\"\ncommand = [\"/bin/true\"]\n\
        [[backup]]\nid = \"nightly\"\nservice = \"db\"\nkind = \"full\"\nevery = \"1d\"\nretention = \"30d\"\n\
        verify_every = \"7d\"\n[[service_level]]\nid = \"fast\"\nservices = [\"api\"]\nresponse_time = \"100ms\"\n\
        [[drill]]\nid = \"kill\"\nscenario = \"db dies\"\nservices = [\"db\"]\ndetect_within = \"1m\"\n\
        recover_within = \"5m\"\n";
    let plan = Plan::parse(text, "plan.toml").unwrap_or_else(|faults| panic!("{faults}"));
    let without_drill = text.split("[[drill]]").next().unwrap();
    let later = Plan::parse(without_drill, "plan.toml").unwrap_or_else(|faults| panic!("{faults}"));
    let events = [plan.adopted(at(0)), later.adopted(at(100))].concat();
    let log = Log::with(&events).await;
    let session = open(&log).await;
    let (first, second) = (plan.version(), later.version());
    let (from, until) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:40Z");
    let whole = |cells: &str| vec![format!("{cells}|{first}|{from}|")];
    for (table, expected) in [
        ("plan_versions", vec![format!("{first}|shop|2|{from}|{until}"), format!("{second}|shop|2|{until}|")]),
        ("plan_sites", whole("primary|normal|0.0|1.0")),
        ("plan_tiers", whole("tier-1|critical|critical")),
        ("plan_services WHERE service = 'db'", whole("db|db|tier-1|primary|warm-standby|default|restart")),
        ("plan_objectives WHERE service = 'db'", whole("db|600.0|3600.0")),
        ("plan_dependencies", whole("api|db|service")),
        (
            "plan_procedures ORDER BY step_index",
            [whole("restart|Restart it|0|stop|Stop it"), whole("restart|Restart it|1|start|start")].concat(),
        ),
        ("plan_backups", whole("nightly|db|full|86400.0|2592000.0|604800.0")),
        ("plan_service_levels", whole("fast|api|0.1|||")),
        ("plan_drills", vec![format!("kill|kill|db dies|db|60.0|300.0|{first}|{from}|{until}")]),
    ] {
        assert_eq!(ask(&session, &format!("SELECT * FROM {table}")).await, expected, "{table}");
    }
}

/// More than a filter names one by one.
#[tokio::test]
async fn thousands_of_repeats_count_once() {
    let results = || -> Vec<Event> {
        (1..=1_500).map(|n| probe("rebound/probe/a/1", &n.to_string(), "api", n, Outcome::Healthy)).collect()
    };
    let named = |n: i64| probe("uptime-robot", &format!("check-{n}"), "api", n, Outcome::Healthy);
    let mut log = Log::with(&results()).await;
    log.append(&results()).await;
    log.append(&(0..1_200).map(named).collect::<Vec<_>>()).await;
    let session = open(&log).await;
    assert_eq!(
        ask(&session, "SELECT count(*), max(\"offset\") FROM events WHERE source LIKE 'rebound%'").await,
        ["1500|1499"]
    );
    log.append(&(0..1_200).map(named).collect::<Vec<_>>()).await;
    assert_eq!(ask(&session, "SELECT count(*), count(DISTINCT id) FROM probes").await, ["2700|2700"]);
    let sql = "SELECT n FROM data_quality WHERE finding = 'repeated_events'";
    assert_eq!(ask(&session, sql).await, ["2700"]);
}
