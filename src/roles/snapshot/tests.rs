//! What fits is taken up; whatever does not is passed over, and the one before it is looked at.

use rebound_ingest::bus::embedded::{EmbeddedBus, EmbeddedSettings};
use rebound_ingest::bus::{Record, Stream};
use rebound_schemas::event::{Outcome, ProbeCompleted};
use rebound_schemas::{Event, EventId, ProbeId, ServiceId, Source};

use super::*;
use crate::roles::tenure::record;

const PLAN: &str = "[[service]]\nid = \"db\"\n[[service.probe]]\nid = \"db\"\ntcp = \"127.0.0.1:1\"\n";

fn plan(text: &str) -> Arc<Plan> {
    Arc::new(Plan::parse(text, "plan.toml").unwrap_or_else(|faults| panic!("{faults}")))
}

fn failed(number: u32) -> Event {
    let data = ProbeCompleted {
        probe: ProbeId::new("db").unwrap(),
        outcome: Outcome::Failed,
        latency_us: 1,
        site: None,
        error_class: None,
        reason: None,
        http_status: None,
        certificate_expires_at: None,
    };
    Event {
        id: EventId::new(&number.to_string()).unwrap(),
        source: Source::of_probe_run("host", "run").unwrap(),
        subject: ServiceId::new("db").unwrap(),
        occurred_at: chrono::DateTime::from_timestamp(1_800_000_000 + i64::from(number), 0).unwrap(),
        plan: None,
        data: data.into(),
    }
}

/// A bus of one partition with so many failures on it, and where its snapshots are.
struct World {
    folder: tempfile::TempDir,
    config: Config,
    bus: Arc<dyn EventBus>,
    engine: Engine,
}

impl World {
    async fn new(failures: std::ops::Range<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let bus = open(&folder.path().join("bus")).await;
        let mut engine = Engine::new(plan(PLAN));
        engine.own_where(|_| true);
        append(&bus, failures.clone()).await;
        failures.map(failed).for_each(|event| engine.fold(&event));
        Self { folder, config, bus, engine }
    }

    fn snapshots(&self) -> Arc<Snapshots> {
        Arc::new(Snapshots::new(&self.config, &plan(PLAN)))
    }

    /// Writes all of it down, as it stands at `from`.
    async fn write(&self, from: Offset, through: Offset) {
        let mut draft = Draft { number: 0, from, lines: Vec::new() };
        self.engine.write_observed(0..1, |_, line| draft.lines.extend_from_slice(line));
        self.snapshots().write(self.bus.clone(), draft, through).await;
    }

    /// Where a reader that stands at `through` may go on, and what it then counts of the service.
    async fn read(&self, snapshots: &Arc<Snapshots>, from: Offset, through: Offset) -> Option<(Offset, u32)> {
        let stretches = [(0, Bounds { from, through })].into();
        let found = snapshots.read(&self.bus, &stretches).await;
        let mut engine = Engine::new(plan(PLAN));
        engine.own_where(|_| true);
        let known = take_up(&mut engine, found);
        let db = ServiceId::new("db").unwrap();
        Some((*known.get(&0)?, engine.status(&db, failed(9).occurred_at).unwrap().failures))
    }

    fn file(&self, from: Offset) -> PathBuf {
        self.folder.path().join(format!("snapshots/observations-0.{from}"))
    }
}

async fn open(path: &Path) -> Arc<dyn EventBus> {
    Arc::new(EmbeddedBus::open(EmbeddedSettings { partitions: 1, ..EmbeddedSettings::new(path) }).await.unwrap())
}

async fn append(bus: &Arc<dyn EventBus>, failures: std::ops::Range<u32>) {
    let records: Vec<Record> = failures.map(|number| record(&failed(number))).collect();
    bus.append(Stream::Events(Topic::Observations), records).await.unwrap();
}

#[tokio::test]
async fn what_fits_is_taken_up_and_what_does_not_is_passed_over() {
    let world = World::new(1..6).await;
    let snapshots = world.snapshots();
    assert_eq!(world.read(&snapshots, 0, 5).await, None, "nothing was written");
    world.write(4, 5).await;
    // From where it is worth reading, where the group stands, and whether it is taken up.
    for (from, through, fits) in [(0, 5, true), (4, 9, true), (5, 5, false), (0, 4, false)] {
        let found = world.read(&snapshots, from, through).await;
        assert_eq!(found, fits.then_some((4, 5)), "{from}..{through}");
    }
    let other = Arc::new(Snapshots::new(&world.config, &plan(&PLAN.replace("db", "cache"))));
    assert_eq!(world.read(&other, 0, 5).await, None, "another plan");
    let mut config = world.config.clone();
    config.bus.kind = BusKind::Kafka;
    let other = Arc::new(Snapshots::new(&config, &plan(PLAN)));
    assert_eq!(world.read(&other, 0, 5).await, None, "another bus");
    let written = std::fs::read_to_string(world.file(4)).unwrap();
    for (from, to) in [
        ("\"format\":1", "\"format\":0"),
        ("\"program\":\"", "\"program\":\"9."),
        ("\"heard_at\":1", "\"heard_at\":2"),
        ("\"digest\":\"", "\"digest\":\"0"),
        ("\"number\":0", "\"number\":1"),
        ("\n", ""),
    ] {
        let damaged = written.replace(from, to);
        assert_ne!(damaged, written, "{from}");
        std::fs::write(world.file(4), damaged).unwrap();
        assert_eq!(world.read(&snapshots, 0, 5).await, None, "{from}");
    }
    std::fs::write(world.file(4), &written[..written.len() - 5]).unwrap();
    assert_eq!(world.read(&snapshots, 0, 5).await, None, "cut short");
    std::fs::write(world.file(4), &written).unwrap();
    assert_eq!(world.read(&snapshots, 0, 5).await, Some((4, 5)));
}

#[tokio::test]
async fn the_one_before_is_taken_where_the_newest_does_not_fit_and_older_ones_go() {
    let world = World::new(1..6).await;
    let snapshots = world.snapshots();
    for (from, through) in [(1, 2), (2, 3), (4, 5)] {
        world.write(from, through).await;
    }
    assert!(!world.file(1).exists() && world.file(2).exists() && world.file(4).exists());
    assert_eq!(world.read(&snapshots, 0, 5).await, Some((4, 5)));
    assert_eq!(world.read(&snapshots, 0, 4).await, Some((2, 5)), "the newest knows of more than was committed");
    std::fs::write(world.file(4), "").unwrap();
    assert_eq!(world.read(&snapshots, 0, 5).await, Some((2, 5)), "the newest is damaged");
}

#[tokio::test]
async fn a_topic_that_was_made_anew_has_no_snapshot() {
    let mut world = World::new(1..6).await;
    let snapshots = world.snapshots();
    world.write(0, 0).await;
    assert!(!world.file(0).exists(), "nothing stands before it");
    world.write(4, 5).await;
    world.bus = open(&world.folder.path().join("anew")).await;
    assert_eq!(world.read(&snapshots, 0, 5).await, None, "it is empty");
    append(&world.bus, 11..20).await;
    assert_eq!(world.read(&snapshots, 0, 9).await, None, "another record stands there");
}

#[tokio::test]
async fn services_are_written_down_beside_the_work() {
    let world = World::new(1..6).await;
    let snapshots = world.snapshots();
    let mut writing = Writing::new(snapshots.clone(), &[(0, Bounds { from: 0, through: 3 })].into());
    writing.write_on(&world.bus, &world.engine);
    while writing.stored.join_next().await.is_some() {}
    assert_eq!(world.read(&snapshots, 0, 5).await, Some((3, 5)));
    writing.stands(0, 5);
    writing.write_on(&world.bus, &world.engine);
    while writing.stored.join_next().await.is_some() {}
    assert_eq!(world.read(&snapshots, 0, 5).await, Some((5, 5)));
}
