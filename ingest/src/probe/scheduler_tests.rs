//! The scheduler's loop under paused time with targets that only sleep, and the whole of it on real sockets.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::testing;
use super::*;
use crate::memory_bus::MemoryBus;
use rebound_schemas::{EventData, ProbeId};

const S: Duration = Duration::from_secs(1);

/// Targets that answer after `takes`, and a note of every start.
struct Fleet {
    ids: Vec<ProbeId>,
    every: Duration,
    timeout: Duration,
    starts: Arc<Mutex<Vec<(usize, Instant)>>>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Fleet {
    fn new(n: usize, every: Duration, timeout: Duration) -> Self {
        let ids = (0..n).map(|n| ProbeId::new(&format!("probe-{n}")).unwrap()).collect();
        Self { ids, every, timeout, starts: Arc::default(), running: Arc::default(), most: Arc::default() }
    }

    /// Runs for a while; answers the shutdown's outcome, the metrics as text, and how long the shutdown took.
    async fn run(
        &self,
        takes: impl Fn(usize) -> Duration,
        bus: &Arc<MemoryBus>,
        settings: ProbeSettings,
        meanwhile: impl Future<Output = ()>,
    ) -> (Result<(), ProbeError>, String, Duration) {
        let mut registry = Registry::default();
        let metrics = ProbeMetrics::new(&mut registry);
        let shutdown = CancellationToken::new();
        let target =
            || Target { service: ServiceId::new("s").unwrap(), kind: "http", weight: 1, timeout: self.timeout };
        let schedule = Schedule::new(Duration::ZERO, self.ids.iter().map(|id| (id, self.every)));
        let run = |index: usize| {
            let (takes, timeout, id) = (takes(index), self.timeout, self.ids[index].clone());
            let (starts, running, most) = (self.starts.clone(), self.running.clone(), self.most.clone());
            async move {
                starts.lock().unwrap().push((index, Instant::now()));
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let hangs = takes > timeout;
                tokio::time::sleep(takes.min(timeout)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                let outcome = if hangs { Outcome::Failed } else { Outcome::Healthy };
                completed(id, outcome, takes.min(timeout))
            }
        };
        let driven = drive(
            schedule,
            self.ids.iter().map(|_| target()).collect(),
            run,
            bus.clone(),
            settings,
            metrics,
            shutdown.clone(),
        );
        let stopping = async {
            meanwhile.await;
            shutdown.cancel();
            Instant::now()
        };
        let (outcome, stopped) = tokio::join!(driven, stopping);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        (outcome, text, stopped.elapsed())
    }

    fn starts_of(&self, index: usize) -> Vec<Instant> {
        self.starts.lock().unwrap().iter().filter(|(i, _)| *i == index).map(|(_, at)| *at).collect()
    }
}

fn completed(probe: ProbeId, outcome: Outcome, took: Duration) -> ProbeCompleted {
    ProbeCompleted {
        probe,
        outcome,
        latency_us: took.as_micros() as u64,
        site: None,
        error_class: None,
        reason: None,
        http_status: None,
        certificate_expires_at: None,
    }
}

fn metric(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{name}: {text}"))
}

/// Ten thousand targets a ten seconds, one in twenty hanging: everybody keeps their cadence, and nobody drifts.
#[tokio::test(start_paused = true)]
async fn ten_thousand_targets_keep_their_cadence() {
    let fleet = Fleet::new(10_000, 10 * S, 5 * S);
    let bus = Arc::new(MemoryBus::default());
    let takes = |index: usize| if index.is_multiple_of(20) { 3600 * S } else { Duration::from_millis(20) };
    let begin = Instant::now();
    let (outcome, text, _) = fleet.run(takes, &bus, ProbeSettings::default(), tokio::time::sleep(30 * S)).await;
    outcome.unwrap();
    let mut starts: HashMap<usize, Vec<Duration>> = HashMap::new();
    for (index, at) in fleet.starts.lock().unwrap().iter() {
        starts.entry(*index).or_default().push(*at - begin);
    }
    assert_eq!(starts.len(), 10_000);
    for (index, starts) in &starts {
        assert_eq!(starts.len(), 3, "probe {index}");
        for (k, at) in starts.iter().enumerate() {
            let drift = *at - starts[0];
            let grid = 10 * S * k as u32;
            let apart = drift.abs_diff(grid);
            assert!(apart <= Duration::from_millis(2), "probe {index}: start {k} is {apart:?} off its grid");
        }
    }
    assert_eq!(metric(&text, "rebound_probe_missed_total"), 0);
    assert_eq!(metric(&text, "rebound_probe_in_flight"), 0);
    let events = bus.events(Topic::Observations);
    assert_eq!(events.len(), 30_000);
    let most = fleet.most.load(Ordering::SeqCst);
    assert!(most < 500, "spread over their period, {most} ran at a time");
    let ids: Vec<u64> = events.iter().map(|e| e.id.as_str().parse().unwrap()).collect();
    assert!(ids.iter().zip(1..).all(|(id, n)| *id == n), "ids count from 1 without gaps");
    assert!(events.iter().all(|e| e.source == events[0].source));
    assert!(events[0].source.as_str().starts_with("rebound/probe/local/"));
}

/// A target that hangs for longer than its period is run once at a time, and again as soon as it is over.
#[tokio::test(start_paused = true)]
async fn hanging_targets_never_pile_up() {
    let fleet = Fleet::new(1, S, 5 * S / 2);
    let bus = Arc::new(MemoryBus::default());
    let (outcome, text, _) = fleet.run(|_| 3600 * S, &bus, ProbeSettings::default(), tokio::time::sleep(60 * S)).await;
    outcome.unwrap();
    assert_eq!(fleet.most.load(Ordering::SeqCst), 1);
    let runs = fleet.starts_of(0).len() as u64;
    assert!((23..=24).contains(&runs), "{runs}: back to back");
    let missed = metric(&text, "rebound_probe_missed_total");
    assert!((59..=62).contains(&(runs + missed)), "{runs} runs and {missed} missed are the minute's 60 points");
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_bounded_and_fair() {
    let fleet = Fleet::new(100, 10 * S, 5 * S);
    let bus = Arc::new(MemoryBus::default());
    let settings = ProbeSettings { concurrency: 10, ..ProbeSettings::default() };
    // Ten at a time for five seconds each: 20 of the 100 a period.
    let (outcome, ..) = fleet.run(|_| 3600 * S, &bus, settings, tokio::time::sleep(500 * S)).await;
    outcome.unwrap();
    assert_eq!(fleet.most.load(Ordering::SeqCst), 10);
    for index in 0..100 {
        let runs = fleet.starts_of(index).len();
        assert!((8..=12).contains(&runs), "probe {index} ran {runs} times, of about 10 that are its share");
    }
}

/// The bus is away for minutes: probes pause, nothing observed is lost, and there is no burst afterwards.
#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_pauses_probes_and_loses_nothing() {
    let fleet = Fleet::new(1000, 10 * S, S);
    let bus = Arc::new(MemoryBus::default());
    bus.set_away(true);
    let settings = ProbeSettings { buffer: 2500, ..ProbeSettings::default() };
    let begin = Instant::now();
    let meanwhile = async {
        tokio::time::sleep(300 * S).await;
        bus.set_away(false);
        tokio::time::sleep(60 * S).await;
    };
    let (outcome, text, _) = fleet.run(|_| S / 100, &bus, settings, meanwhile).await;
    outcome.unwrap();
    let runs = fleet.starts.lock().unwrap().len();
    let during = fleet.starts.lock().unwrap().iter().filter(|(_, at)| *at - begin < 300 * S).count();
    assert!((2500..=2500 + BATCH).contains(&during), "{during}: the queue and one batch in hand");
    assert_eq!(bus.records().len(), runs, "everything observed is on the bus");
    let ids: Vec<u64> = bus.events(Topic::Observations).iter().map(|e| e.id.as_str().parse().unwrap()).collect();
    assert!(ids.iter().zip(1..).all(|(id, n)| *id == n), "each once, in order");
    assert!(metric(&text, "rebound_probe_missed_total") > 20_000);
    assert!(metric(&text, "rebound_probe_append_failures_total") > 10);
    let mut seconds = HashMap::<u64, usize>::new();
    for (_, at) in fleet.starts.lock().unwrap().iter().filter(|(_, at)| *at - begin > 300 * S) {
        *seconds.entry((*at - begin).as_secs()).or_default() += 1;
    }
    assert!(seconds.values().all(|n| *n < 200), "about 100 a second, never all at once: {seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stand_still_is_neither_made_up_for_nor_judged() {
    let fleet = Fleet::new(1000, 10 * S, 5 * S);
    let bus = Arc::new(MemoryBus::default());
    let begin = Instant::now();
    let meanwhile = async {
        tokio::time::sleep(20 * S).await;
        tokio::time::advance(600 * S).await;
        tokio::time::sleep(20 * S).await;
    };
    let (outcome, text, _) = fleet.run(|_| S / 100, &bus, ProbeSettings::default(), meanwhile).await;
    outcome.unwrap();
    let mut seconds = HashMap::<u64, usize>::new();
    for (_, at) in fleet.starts.lock().unwrap().iter() {
        *seconds.entry((*at - begin).as_secs()).or_default() += 1;
    }
    assert!(seconds.values().all(|n| *n < 200), "{seconds:?}");
    assert!(metric(&text, "rebound_probe_missed_total") > 50_000);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_runs_and_flushes() {
    let fleet = Fleet::new(50, S, S);
    let bus = Arc::new(MemoryBus::slow(S / 5));
    let (outcome, _, took) = fleet.run(|_| S / 2, &bus, ProbeSettings::default(), tokio::time::sleep(5 * S)).await;
    outcome.unwrap();
    assert!(took < 2 * S, "{took:?}");
    assert_eq!(bus.records().len(), fleet.starts.lock().unwrap().len(), "every run's result is there");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_bus_that_stays_away() {
    let fleet = Fleet::new(50, S, S);
    let bus = Arc::new(MemoryBus::default());
    bus.set_away(true);
    let (outcome, ..) = fleet.run(|_| S / 2, &bus, ProbeSettings::default(), tokio::time::sleep(5 * S)).await;
    assert!(matches!(outcome, Err(ProbeError::Drain(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_refuses_for_good_ends_it() {
    let fleet = Fleet::new(50, S, S);
    let bus = Arc::new(MemoryBus::default());
    bus.close().await.unwrap();
    let begin = Instant::now();
    let (outcome, ..) = fleet.run(|_| S / 2, &bus, ProbeSettings::default(), tokio::time::sleep(5 * S)).await;
    assert!(matches!(outcome, Err(ProbeError::Bus { pending: 1.., .. })), "{outcome:?}");
    assert!(begin.elapsed() >= 5 * S, "told at once, and joined with the shutdown here");
}

#[test]
fn descriptors_bound_concurrency() {
    assert_eq!(fitting(2048, 1_048_576), 2048);
    assert_eq!(fitting(2048, 1024), 384);
    assert_eq!(fitting(2048, 256), 64);
    assert_eq!(fitting(1, 1024), 4, "room for one command");
}

#[test]
fn every_start_has_a_source_of_its_own() {
    let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
    assert_eq!(source_of("a", at(0x123), 7).unwrap().as_str(), "rebound/probe/a/1230007");
    assert_ne!(source_of("a", at(1), 7).unwrap(), source_of("a", at(2), 7).unwrap());
    assert!(matches!(source_of("a\n", at(1), 7), Err(ProbeError::Instance(_))));
}

/// The whole way, with a real plan, real targets and real time.
#[tokio::test]
async fn a_plans_probes_reach_the_bus() {
    let web = testing::serve(axum::Router::new().route("/", axum::routing::get(|| async { "ready" }))).await;
    let nobody = testing::closed_port().await;
    let text = format!(
        r#"
name = "test"
[[site]]
id = "here"
[[service]]
id = "web"
[[service.probe]]
id = "web-http"
http = "{web}/"
every = "100ms"
timeout = "100ms"
site = "here"
[[service]]
id = "db"
[[service.probe]]
id = "db-tcp"
tcp = "{nobody}"
every = "100ms"
timeout = "100ms"
"#
    );
    let plan = Arc::new(Plan::parse(&text, "plan.toml").unwrap());
    let probe_until = async |site: Option<&str>, n: usize| {
        let bus = Arc::new(MemoryBus::default());
        let shutdown = CancellationToken::new();
        let settings = ProbeSettings { site: site.map(|s| SiteId::new(s).unwrap()), ..ProbeSettings::default() };
        let metrics = ProbeMetrics::new(&mut Registry::default());
        let running = run_probes(plan.clone(), bus.clone(), settings, metrics, shutdown.clone());
        let watching = async {
            while bus.records().len() < n {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            shutdown.cancel();
        };
        let (outcome, ()) = tokio::join!(running, watching);
        outcome.unwrap();
        bus.events(Topic::Observations)
    };
    let events = probe_until(None, 10).await;
    for event in &events {
        let EventData::ProbeCompleted(data) = &event.data else { panic!("{event:?}") };
        match event.subject.as_str() {
            "web" => {
                assert_eq!((data.probe.as_str(), data.site.as_ref().map(SiteId::as_str)), ("web-http", Some("here")))
            }
            "db" => assert_eq!((data.probe.as_str(), data.outcome), ("db-tcp", Outcome::Failed)),
            other => panic!("{other}"),
        }
    }
    assert!(events.iter().any(|e| e.subject.as_str() == "web") && events.iter().any(|e| e.subject.as_str() == "db"));
    let events = probe_until(Some("here"), 5).await;
    assert!(events.iter().all(|e| e.subject.as_str() == "web"), "only that site's probes");
}
