//! Measures the log writer: how fast a filled topic gets into the table, and whether commits stay quick.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::codec::encode as encode_event;
use rebound_schemas::event::{ErrorClass, Outcome, ProbeCompleted};
use rebound_schemas::table::{Position, Row, RowBuilder, scan_probe};
use rebound_schemas::{Event, EventId, ProbeId, ServiceId, SiteId, Source, Topic};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::encode::encode_days;
use super::error::LogError;
use super::metrics::LogMetrics;
use super::table::{Advance, Change, LogTable};
use super::upkeep::{Upkeep, change_id, room};
use super::writer::{CommitReport, LogSettings, run_log};
use crate::bus::{EventBus, Partition, Record, Stream};
use object_store::ObjectStoreExt as _;

/// Result of [`bench_drain`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Events drained.
    pub events: u64,
    /// From the writer's start to the last event's durable commit.
    pub seconds: f64,
    /// Events a second over that time, joining the group included.
    pub events_per_second: f64,
    /// Events a second from the first commit to the last: what goes on for longer.
    pub steady_events_per_second: f64,
    /// Commits.
    pub commits: u64,
    /// Median time of a commit, in milliseconds.
    pub commit_p50_ms: f64,
    /// 99th percentile.
    pub commit_p99_ms: f64,
    /// Bytes of the table's data files an event, as written.
    pub bytes_per_event: f64,
}

/// Result of [`bench_commits`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitGrowth {
    /// Commits made.
    pub versions: u64,
    /// Median time of the commits around version 100, in milliseconds.
    pub early_p50_ms: f64,
    /// Median time of the last 200 commits.
    pub late_p50_ms: f64,
    /// Late over early.
    pub ratio: f64,
    /// Live data files at the end.
    pub live_files: u64,
    /// The most live data files there were.
    pub most_files: u64,
    /// How long commits waited for compaction altogether.
    pub waited_seconds: f64,
}

/// The `n`-th of a plausible stream of probe results: 1,000 services with two probes each, about every ten seconds.
/// Times are jittered to the microsecond, latencies spread over three decades with a median a service, one service in
/// forty fails in stretches and the others now and then, each failure with a reason of its own. Ids count up, as
/// those of Rebound's own probes do, of which four instances share the work. About 340 bytes as JSON.
fn probe(n: u64, start: DateTime<Utc>) -> Event {
    let (target, round) = (mixed(n / 2000) % 2000 + n, n / 2000);
    let target = target % 2000;
    let service = target / 2;
    let noise = mixed(n);
    let spread = [1, 1, 1, 1, 2, 2, 3, 5, 12, 80][(noise % 10) as usize];
    let latency = 200 + mixed(service) % 20_000 + (noise >> 32) % 1_500 * spread;
    let in_trouble = mixed(service ^ (round / 60) << 20).is_multiple_of(40);
    let failed = (noise >> 8).is_multiple_of(if in_trouble { 2 } else { 400 });
    let micros = round * 10_000_000 + n % 2000 * 5_000 + (noise >> 16) % 200_000;
    let name = format!("service-{service:04}");
    let (class, reason) = match (noise >> 24) % 3 {
        0 => (ErrorClass::Timeout, "no answer within 5s".to_owned()),
        1 => (ErrorClass::Network, format!("connection refused by 10.0.{}.{}:443", service % 256, noise % 256)),
        _ => (ErrorClass::Unknown, format!("status 503, body of {} bytes", noise % 4096)),
    };
    Event {
        id: EventId::new(&(n / 4 + 1).to_string()).expect("digits are an id"),
        source: Source::new(&format!("rebound/probe/primary-site/instance-{:02}", n % 4)).expect("short and plain"),
        subject: ServiceId::new(&name).expect("a literal and digits"),
        occurred_at: start + TimeDelta::microseconds(i64::try_from(micros).unwrap_or(0)),
        plan: None,
        data: ProbeCompleted {
            probe: ProbeId::new(&format!("{name}-{}", if target.is_multiple_of(2) { "http" } else { "tcp" }))
                .expect("a literal and digits"),
            outcome: if failed { Outcome::Failed } else { Outcome::Healthy },
            latency_us: latency,
            site: Some(SiteId::new("primary").expect("a literal")),
            error_class: failed.then_some(class),
            reason: failed.then_some(reason),
            http_status: (!failed).then_some(200),
            certificate_expires_at: None,
        }
        .into(),
    }
}

/// Noise that no encoding sees through (the finaliser of SplitMix64): real jitter and latencies don't compress either.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// Appends `n` probe results to the observations topic; answers their bytes.
///
/// # Errors
/// What the bus answers.
pub async fn fill(bus: &Arc<dyn EventBus>, n: u64) -> Result<u64, LogError> {
    let start = Utc::now() - TimeDelta::days(1);
    let mut bytes = 0;
    let mut at = 0;
    while at < n {
        let until = n.min(at + 20_000);
        let records: Vec<_> = (at..until)
            .map(|i| {
                let event = probe(i, start);
                let value = Bytes::from(encode_event(&event));
                bytes += value.len() as u64;
                Record { key: Bytes::from(event.subject.as_str().to_owned()), value, headers: Vec::new() }
            })
            .collect();
        bus.append(Stream::Events(Topic::Observations), records).await?;
        at = until;
    }
    Ok(bytes)
}

/// Drains a topic that [`fill`] has filled with `n` probe results into the table.
///
/// # Errors
/// What the bus or the writer answers.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn bench_drain(bus: Arc<dyn EventBus>, settings: LogSettings, n: u64) -> Result<DrainReport, LogError> {
    let commits = Arc::new(Mutex::new(Vec::<(Instant, CommitReport)>::new()));
    let told = Arc::clone(&commits);
    let progress = Arc::new(Notify::new());
    let bell = Arc::clone(&progress);
    let mut settings = settings;
    settings.on_commit = Some(Arc::new(move |report| {
        told.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), *report));
        bell.notify_one();
    }));
    let stop = CancellationToken::new();
    let started = Instant::now();
    let writer = tokio::spawn(run_log(bus, settings, LogMetrics::unregistered(), stop.clone()));
    let stored = || commits.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, c)| c.events).sum::<u64>();
    while stored() < n && !writer.is_finished() {
        tokio::select! {
            () = progress.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    stop.cancel();
    writer.await.map_err(|_| LogError::Panicked { what: "draining a topic" })??;
    let commits = commits.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut took: Vec<_> = commits.iter().map(|(_, c)| millis(c.took)).collect();
    took.sort_by(f64::total_cmp);
    let written: u64 = commits.iter().map(|(_, c)| c.bytes).sum();
    let steady = match (commits.first(), commits.last()) {
        (Some((begin, first)), Some((end, _))) if end > begin => {
            (n - first.events.min(n)) as f64 / end.duration_since(*begin).as_secs_f64()
        }
        _ => n as f64 / seconds,
    };
    Ok(DrainReport {
        events: n,
        seconds,
        events_per_second: n as f64 / seconds,
        steady_events_per_second: steady,
        commits: took.len() as u64,
        commit_p50_ms: quantile(&took, 0.5),
        commit_p99_ms: quantile(&took, 0.99),
        bytes_per_event: written as f64 / n as f64,
    })
}

/// Makes `versions` small commits, with compaction and checkpoints beside them as in operation, and compares early
/// with late ones.
///
/// # Errors
/// What the table answers.
pub async fn bench_commits(settings: &LogSettings, versions: u64) -> Result<CommitGrowth, LogError> {
    let table = Arc::new(tokio::sync::Mutex::new(Box::pin(LogTable::open(&settings.location)).await?));
    let committed = Arc::new(Notify::new());
    let upkeep = Upkeep {
        table: Arc::clone(&table),
        metrics: LogMetrics::unregistered(),
        owner: Arc::new(true.into()),
        busy: Arc::default(),
        committed: Arc::clone(&committed),
    };
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(upkeep.run(stop.clone()));
    let app = Partition::of(Topic::Observations, 0).to_string();
    let first = table.lock().await.state.positions.get(&app).copied().unwrap_or(0);
    let (mut took, mut waited, mut most_files) = (Vec::new(), Duration::ZERO, 0);
    for n in 0..versions {
        let offset = first + i64::try_from(n).unwrap_or(i64::MAX);
        let now = Utc::now();
        let json = encode_event(&probe(n, now));
        let at = Position { topic: Topic::Observations, partition: 0, offset, ingested_at: now.timestamp_micros() };
        let mut rows = RowBuilder::new();
        if let Some(probe) = scan_probe(&json) {
            rows.push(&Row::of_probe(&probe, at));
        }
        let files = encode_days(&rows.finish())?;
        // Told apart from the commit's own time: compaction that is waited for is in the whole run's.
        let waiting = Instant::now();
        room(&table).await?;
        waited += waiting.elapsed();
        let started = Instant::now();
        let store = table.lock().await.store().clone();
        for file in &files {
            let path = object_store::path::Path::from(file.path.as_str());
            let put = store.put(&path, file.bytes.clone().into()).await;
            put.map_err(|e| LogError::store("storing a data file", e))?;
        }
        let change = Change {
            adds: files.iter().map(|file| file.add(now.timestamp_millis(), true)).collect(),
            advances: vec![Advance { app: app.clone(), from: offset, to: offset + 1 }],
            id: change_id(),
            ..Change::default()
        };
        let files = {
            let mut table = table.lock().await;
            table.commit(&change).await?;
            table.state.files.len() as u64
        };
        took.push(millis(started.elapsed()));
        most_files = files.max(most_files);
        committed.notify_one();
    }
    stop.cancel();
    let _ = upkeep.await;
    let median = |part: &[f64]| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        quantile(&part, 0.5)
    };
    let early = median(&took[took.len().min(50)..took.len().min(250)]);
    let late = median(&took[took.len().saturating_sub(200)..]);
    let live_files = table.lock().await.state.files.len() as u64;
    Ok(CommitGrowth {
        versions,
        early_p50_ms: early,
        late_p50_ms: late,
        ratio: late / early,
        live_files,
        most_files,
        waited_seconds: waited.as_secs_f64(),
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The quantile of sorted figures, linearly interpolated; 0 of none.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
