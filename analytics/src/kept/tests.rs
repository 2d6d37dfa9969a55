//! Kept projections: what was kept up as the log grew is what a fold from nothing gives, on histories in which events
//! come twice, late and in any order.

use std::path::{Path, PathBuf};

use arrow::util::display::array_value_to_string;
use datafusion::prelude::SessionContext;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rebound_schemas::event::*;
use rebound_schemas::ids::*;
use rebound_schemas::{Event, incident};

use super::fold::TABLES;
use super::*;
use crate::fixture::{Log, acknowledged, at, event, excluded, opened, recovery, resolved, service};
use crate::projections;

const PLAN: &str = "[[service]]\nid = \"api\"\nrto = \"2m\"\n[[service.probe]]\nhttp = \"http://127.0.0.1:8080/\"\n\
    [[service]]\nid = \"db\"\nrto = \"10m\"\n[[service.probe]]\ntcp = \"127.0.0.1:5432\"\n";

fn plan() -> Arc<Plan> {
    Arc::new(Plan::parse(PLAN, "plan.toml").unwrap())
}

fn incident_id(n: u32) -> IncidentId {
    IncidentId::new(&format!("inc-{n}")).unwrap()
}

fn alert_id(n: u32) -> AlertId {
    AlertId::new(&format!("alr-{n}")).unwrap()
}

fn raised(n: u32, name: &str, seconds: i64) -> Event {
    let data = AlertRaised {
        alert: alert_id(n),
        incident: incident_id(n),
        policy: PolicyId::new("default").unwrap(),
        condition: None,
        severity: Severity::Critical,
        failures: 3,
        first_failure_at: at(seconds - 10),
        reason: "refused".into(),
        evidence: vec![],
    };
    event("rebound/alerting", &format!("alr-{n}:raised"), name, seconds, data)
}

/// One message about several incidents.
fn notified(members: &[u32], seconds: i64) -> Event {
    let told =
        |n: &u32| Told { alert: alert_id(*n), incident: incident_id(*n), transition: Transition::Raised, repeat: 0 };
    let key = format!("group-{}", members[0]);
    let data = NotificationSent {
        dedup_key: key.clone(),
        alert: alert_id(members[0]),
        incident: incident_id(members[0]),
        channel: ChannelId::new("chat").unwrap(),
        transition: Transition::Raised,
        attempt: 1,
        members: members.iter().map(told).collect(),
    };
    event("rebound/notify", &key, "api", seconds, data)
}

/// Names no incident.
fn approved(n: u32, name: &str, seconds: i64) -> Event {
    let data = RecoveryApproved {
        recovery: RecoveryId::new(&format!("rec-{n}")).unwrap(),
        by: "kim".into(),
        step: None,
        comment: None,
    };
    event("console", &format!("rec-{n}:approved"), name, seconds, data)
}

fn maintenance(name: &str, of: &str, from: i64, until: i64) -> Event {
    let data = MaintenanceScheduled {
        maintenance: name.into(),
        from: at(from),
        until: at(until),
        services: vec![service(of)],
        reason: "racks are moved".into(),
        by: "kim".into(),
    };
    event("console", &format!("{name}:scheduled"), of, from, data)
}

/// Outages of two services with all that may be said of them, told twice now and then, in any order.
fn history(seed: u64) -> Vec<Event> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut events = Vec::new();
    for n in 0..60u32 {
        let (name, t0) = (if n % 3 == 0 { "api" } else { "db" }, i64::from(n) * 500);
        events.extend([opened(n, name, t0, t0 + 20), raised(n, name, t0 + 20)]);
        if n % 12 == 4 {
            // Recorded twice.
            let (again, t3) = (100 + n, t0 + 90);
            events.extend([opened(again, name, t0, t0 + 30), resolved(again, name, t3, t3), resolved(n, name, t3, t3)]);
            continue;
        }
        if rng.random_bool(0.8) {
            let t3 = t0 + rng.random_range(0..1_500);
            events.push(resolved(n, name, t3, t3 + 10));
        }
        if rng.random_bool(0.5) {
            events.push(acknowledged(n, name, t0 + rng.random_range(0..300), rng.random_bool(0.5)));
        }
        if rng.random_bool(0.2) {
            events.push(excluded(n, name, 40_000 + i64::from(n)));
        }
        if rng.random_bool(0.5) {
            events.extend(recovery(n, name, t0 + 22));
            events.push(approved(n, name, t0 + 21));
        } else if n % 10 == 9 {
            events.push(approved(n, name, t0 + 21));
        }
        if n % 6 == 5 {
            events.push(notified(&[n, n - 1, n - 4], t0 + 25));
        }
    }
    events.extend([maintenance("m1", "api", 4_000, 9_000), maintenance("m2", "db", 20_000, 21_000)]);
    for _ in 0..40 {
        let again = events[rng.random_range(0..events.len())].clone();
        events.push(again);
    }
    events.shuffle(&mut rng);
    events
}

async fn table_of(log: &Log) -> (DeltaTable, Root) {
    let url = deltalake::table::builder::parse_table_uri(log.location()).unwrap();
    (deltalake::open_table(url).await.unwrap(), Root::Local(PathBuf::from(log.location())))
}

/// A plan's text columns and all others as text, sorted.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap()).collect();
            lines.push(cells.join("|"));
        }
    }
    lines.sort();
    lines
}

async fn tables(kept: &Kept) -> Vec<Vec<String>> {
    let context = SessionContext::new();
    let mut all = Vec::new();
    for table in TABLES {
        let provider = kept.table(table, at(50_000)).unwrap();
        all.push(lines(&context.read_table(provider).unwrap().collect().await.unwrap()));
    }
    all
}

/// The tables by the fold of all events at once.
fn expected(events: &[Event], plan: Option<&Plan>) -> Vec<Vec<String>> {
    let record = incident::fold(events);
    let batches = [
        projections::incidents(&record, plan, at(50_000)),
        projections::alerts(&record),
        projections::recoveries(&record),
        projections::recovery_steps(&record),
    ];
    batches.into_iter().map(|batch| lines(&[batch])).collect()
}

fn sized(home: Option<&Path>, small: usize, budget: usize) -> Kept {
    Kept { sizes: Sizes { budget, small }, ..Kept::new(home.map(Path::to_owned)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_up_is_what_a_rebuild_gives() {
    let (plan, quietly) = (plan(), quietly());
    for (seed, small, budget) in [(1, 10_000, 1 << 30), (2, 40, 1 << 30), (3, 0, 100_000)] {
        let home = tempfile::tempdir().unwrap();
        let events = history(seed);
        let portion = events.len() / 4;
        let mut log = Log::with(&events[..portion]).await;
        let mut kept = sized(Some(home.path()), small, budget);
        let mut told = portion;
        for step in 0.. {
            let (table, root) = table_of(&log).await;
            kept.refresh(&table, &root, Some(&plan), &quietly).await.unwrap();
            let wanted = expected(&events[..told], Some(&plan));
            assert_eq!(tables(&kept).await, wanted, "seed {seed}, step {step}");
            let mut anew = sized(None, small, budget);
            anew.rebuild(&table, &root, Some(&plan), &quietly).await.unwrap();
            assert_eq!(tables(&anew).await, wanted, "seed {seed}, step {step}, anew");
            assert_eq!(kept.quality().unwrap(), anew.quality().unwrap(), "seed {seed}, step {step}");
            assert_eq!(*kept.record().unwrap(), incident::fold(&events[..told]), "seed {seed}, step {step}");
            if told == events.len() {
                break;
            }
            // Every other time by another process, which goes on from what is kept.
            if step % 2 == 0 {
                kept.save(true);
                kept = sized(Some(home.path()), small, budget);
            }
            let until = (told + portion).min(events.len());
            log.append(&events[told..until]).await;
            told = until;
            if step % 3 == 2 {
                log.compact().await;
            }
        }
        // Another plan: the objectives change, the log is not read again.
        let (table, root) = table_of(&log).await;
        kept.refresh(&table, &root, None, &quietly).await.unwrap();
        assert_eq!(tables(&kept).await, expected(&events, None), "seed {seed}, without a plan");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_odd_is_counted() {
    let mut events = vec![opened(1, "api", 0, 10), resolved(1, "api", 0, 10), resolved(1, "api", 0, 10)];
    events.extend([resolved(2, "api", 500, 510), opened(2, "api", 100, 110), opened(3, "api", 200, 210)]);
    events.extend([opened(4, "db", 300, 310), resolved(4, "db", 200, 320), excluded(4, "db", 330)]);
    let log = Log::with(&events).await;
    let (table, root) = table_of(&log).await;
    let mut kept = Kept::new(None);
    kept.refresh(&table, &root, None, &quietly()).await.unwrap();
    let expected = Quality {
        incidents: 4,
        open: 1,
        events: 8,
        events_told_again: 1,
        late: 0,
        out_of_order: 1,
        corrected: 1,
        excluded: 1,
        zero_length: 1,
        impossible: 1,
        overlapping: 1,
    };
    assert_eq!(kept.quality().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_kill_leaves_behind_is_made_good() {
    let quietly = quietly();
    let events = history(11);
    let mut log = Log::with(&events[..200]).await;
    let home = tempfile::tempdir().unwrap();
    let (table, root) = table_of(&log).await;
    let mut kept = sized(Some(home.path()), 40, 1 << 30);
    kept.refresh(&table, &root, None, &quietly).await.unwrap();
    log.append(&events[200..]).await;
    let (table, root) = table_of(&log).await;
    kept.refresh(&table, &root, None, &quietly).await.unwrap();
    kept.save(true);
    let wanted = expected(&events, None);
    let manifest = home.path().join("projections.json");
    let whole = std::fs::read(&manifest).unwrap();
    let named: Vec<PathBuf> = home.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    let facts = named.iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("facts-")).unwrap();
    let content = std::fs::read(facts).unwrap();
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: [Damage<'_>; 6] = [
        (
            "a file that nothing names",
            Box::new(|| std::fs::write(home.path().join("incidents-x.parquet"), "x").unwrap()),
        ),
        ("a staged manifest", Box::new(|| std::fs::write(home.path().join("projections.json.new"), "{").unwrap())),
        ("a torn manifest", Box::new(|| std::fs::write(&manifest, &whole[..whole.len() / 2]).unwrap())),
        ("another format", Box::new(|| std::fs::write(&manifest, "{\"format\":0}").unwrap())),
        ("a torn file", Box::new(|| std::fs::write(facts, &content[..content.len() / 2]).unwrap())),
        ("a damaged file", Box::new(|| std::fs::write(facts, vec![7; content.len()]).unwrap())),
    ];
    for (what, damage) in damages {
        damage();
        let mut kept = sized(Some(home.path()), 40, 1 << 30);
        kept.refresh(&table, &root, None, &quietly).await.unwrap();
        assert_eq!(tables(&kept).await, wanted, "{what}");
        std::fs::write(&manifest, &whole).unwrap();
        std::fs::write(facts, &content).unwrap();
    }
    // Another process writes: this one reads, and keeps what it folds to itself.
    let lock = Lock::take(home.path()).unwrap();
    let mut beside = sized(Some(home.path()), 40, 1 << 30);
    beside.rebuild(&table, &root, None, &quietly).await.unwrap();
    assert_eq!(tables(&beside).await, wanted);
    assert_eq!(std::fs::read(&manifest).unwrap(), whole, "nothing was written");
    drop(lock);
    // A log that was made anew has nothing to do with what is kept.
    let other = Log::with(&events[..50]).await;
    let (table, root) = table_of(&other).await;
    let mut kept = sized(Some(home.path()), 40, 1 << 30);
    kept.refresh(&table, &root, None, &quietly).await.unwrap();
    assert_eq!(tables(&kept).await, expected(&events[..50], None));
}
