//! One membership of the group: chunks to batches, batches to commits, until a stop, a conflict or a failure.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::Utc;
use rebound_schemas::Topic;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::encode::{Chunk, encode};
use super::super::error::LogError;
use super::super::metrics::{LogMetrics, topic_label};
use super::super::table::LogTable;
use super::super::upkeep::Upkeep;
use super::committer::{Batch, Committer, Progress, Span};
use super::reader::{Reader, Sent, limit};
use super::{GROUP, LogSettings};
use crate::bus::{EventBus, Membership, Ownership, Partition};

/// Runs until shutdown (`Ok`) or until something must begin again or stop (`Err`).
pub(super) async fn session(
    bus: &Arc<dyn EventBus>,
    settings: &LogSettings,
    metrics: &LogMetrics,
    shutdown: &CancellationToken,
) -> Result<(), LogError> {
    let table = Box::pin(LogTable::open(&settings.location)).await?;
    metrics.version.set(i64::try_from(table.state.version).unwrap_or(i64::MAX));
    let table = Arc::new(Mutex::new(table));
    let mut membership = bus.join(GROUP, Topic::Observations, Duration::ZERO).await?;
    let stop = CancellationToken::new();
    let (owner, busy, committed) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::new(Notify::new()));
    let upkeep = Upkeep {
        table: table.clone(),
        metrics: metrics.clone(),
        owner: Arc::clone(&owner),
        busy: Arc::clone(&busy),
        committed: Arc::clone(&committed),
    };
    let upkeep = tokio::spawn(upkeep.run(stop.clone()));
    let progress = Progress::default();
    let lag = tokio::spawn(tell_lag(bus.clone(), metrics.clone(), progress.clone(), stop.clone()));
    let (to, chunks) = mpsc::channel(4);
    let committer = Committer {
        bus: bus.clone(),
        settings: settings.clone(),
        metrics: metrics.clone(),
        table,
        committed,
        progress,
        shutdown: shutdown.clone(),
    };
    let mut pipeline = Pipeline {
        committer,
        chunks,
        to,
        readers: HashMap::new(),
        tasks: JoinSet::new(),
        assignments: 0,
        pending: Pending::default(),
        encoding: None,
        ready: None,
        committing: None,
        owner,
        busy,
    };
    let result = pipeline.drive(&mut *membership, shutdown).await;
    pipeline.tasks.shutdown().await;
    stop.cancel();
    // Both return soon after the stop; a panic in them has been told by the runtime already.
    let _ = tokio::join!(upkeep, lag);
    membership.leave().await;
    result
}

/// Chunks that wait to be encoded.
#[derive(Debug, Default)]
struct Pending {
    chunks: Vec<Chunk>,
    weight: usize,
    oldest: Option<Instant>,
}

impl Pending {
    fn push(&mut self, chunk: Chunk) {
        self.weight += chunk.weight();
        self.oldest.get_or_insert_with(Instant::now);
        self.chunks.push(chunk);
    }

    fn forget(&mut self, number: i32) {
        self.chunks.retain(|chunk| chunk.number != number);
        self.weight = self.chunks.iter().map(Chunk::weight).sum();
        if self.chunks.is_empty() {
            self.oldest = None;
        }
    }
}

struct Pipeline {
    committer: Committer,
    chunks: mpsc::Receiver<Sent>,
    to: mpsc::Sender<Sent>,
    /// By partition number: the assignment, and what stops its readers.
    readers: HashMap<i32, (u64, CancellationToken)>,
    tasks: JoinSet<()>,
    assignments: u64,
    pending: Pending,
    encoding: Option<JoinHandle<Result<Batch, LogError>>>,
    ready: Option<Batch>,
    committing: Option<JoinHandle<Result<(), LogError>>>,
    owner: Arc<AtomicBool>,
    busy: Arc<AtomicBool>,
}

impl Pipeline {
    async fn drive(&mut self, membership: &mut dyn Membership, shutdown: &CancellationToken) -> Result<(), LogError> {
        let (age, bytes) = (self.committer.settings.commit_age, self.committer.settings.commit_bytes);
        let mut draining = false;
        loop {
            self.start_stages(draining);
            let idle = self.encoding.is_none() && self.ready.is_none() && self.committing.is_none();
            if draining && idle && self.pending.chunks.is_empty() {
                return Ok(());
            }
            let full = self.pending.weight >= bytes;
            self.busy.store(full, Ordering::Relaxed);
            let can_encode = self.encoding.is_none() && self.ready.is_none();
            let due = self.pending.oldest.filter(|_| can_encode).map(|oldest| oldest + age);
            tokio::select! {
                change = membership.changed(), if !draining => self.owned(change?).await,
                Some((assignment, chunk)) = self.chunks.recv(), if !draining && !full => {
                    self.take(assignment, chunk)?;
                }
                batch = joined(&mut self.encoding, "encoding a batch") => self.ready = Some(batch??),
                done = joined(&mut self.committing, "committing a batch") => done??,
                () = until(due) => {}
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    self.stop_readers();
                }
            }
        }
    }

    fn start_stages(&mut self, draining: bool) {
        if self.committing.is_none()
            && let Some(batch) = self.ready.take()
        {
            let committer = self.committer.clone();
            self.committing = Some(tokio::spawn(async move { Box::pin(committer.commit(batch)).await }));
        }
        let settings = &self.committer.settings;
        let aged = self.pending.oldest.is_some_and(|oldest| oldest.elapsed() >= settings.commit_age);
        let due = aged || draining || self.pending.weight >= settings.commit_bytes;
        if due && !self.pending.chunks.is_empty() && self.encoding.is_none() && self.ready.is_none() {
            let chunks = std::mem::take(&mut self.pending).chunks;
            self.encoding = Some(tokio::spawn(encode_batch(chunks, settings.workers)));
        }
    }

    async fn owned(&mut self, change: Ownership) {
        match change {
            Ownership::Gained { partitions, .. } => {
                for number in partitions {
                    self.lose(number);
                    self.gain(number).await;
                }
            }
            Ownership::Lost { partitions, .. } => partitions.into_iter().for_each(|number| self.lose(number)),
        }
        self.owner.store(self.readers.contains_key(&0), Ordering::Relaxed);
    }

    async fn gain(&mut self, number: i32) {
        self.assignments += 1;
        let stop = CancellationToken::new();
        self.readers.insert(number, (self.assignments, stop.clone()));
        // Another member may have committed since the table was read here. If the store can't tell now, the
        // commit will: it takes nothing but what follows on the newest version.
        let mut table = self.committer.table.lock().await;
        if let Err(error) = table.catch_up(None).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the newest version of the event log can't be read"
            );
        }
        let partitions = usize::try_from(self.committer.bus.partitions()).unwrap_or(1);
        let limit = limit(self.committer.settings.commit_bytes, partitions);
        for topic in Topic::ALL {
            let partition = Partition::of(topic, number);
            let stored = table.state.positions.get(&partition.to_string()).copied();
            self.committer.note(partition, stored.unwrap_or(0), 0);
            let (bus, assignment) = (self.committer.bus.clone(), self.assignments);
            let reader = Reader { bus, topic, number, stored, limit, assignment };
            self.tasks.spawn(reader.run(self.to.clone(), stop.clone()));
        }
    }

    fn lose(&mut self, number: i32) {
        if let Some((_, stop)) = self.readers.remove(&number) {
            stop.cancel();
            self.pending.forget(number);
            let mut progress = self.committer.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.retain(|partition, _| partition.number != number);
        }
    }

    fn stop_readers(&mut self) {
        self.readers.values().for_each(|(_, stop)| stop.cancel());
    }

    fn take(&mut self, assignment: u64, chunk: Result<Chunk, LogError>) -> Result<(), LogError> {
        let current = |number: i32| self.readers.get(&number).is_some_and(|(a, _)| *a == assignment);
        match chunk {
            Ok(chunk) if current(chunk.number) => self.pending.push(chunk),
            Ok(_) => {}
            // Of a partition lost meanwhile, even a failure says nothing any more.
            Err(_) if !self.readers.values().any(|(a, _)| *a == assignment) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Waits for a stage that is under way; for ever when there is none.
async fn joined<T>(stage: &mut Option<JoinHandle<T>>, what: &'static str) -> Result<T, LogError> {
    match stage {
        Some(handle) => {
            let result = handle.await;
            *stage = None;
            result.map_err(|_| LogError::Panicked { what })
        }
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Encodes chunks on several threads; each makes files of its own.
async fn encode_batch(chunks: Vec<Chunk>, workers: usize) -> Result<Batch, LogError> {
    let mut advances: BTreeMap<Partition, Span> = BTreeMap::new();
    for chunk in &chunks {
        let newest = chunk.deliveries.last().map_or(0, |d| d.ingested_at.timestamp_micros());
        let fresh = Span { from: chunk.from, to: chunk.from, records: 0, newest: 0 };
        let span = advances.entry(chunk.partition()).or_insert(fresh);
        span.to = chunk.next;
        span.records += chunk.deliveries.len() as u64;
        span.newest = span.newest.max(newest);
    }
    let tasks: Vec<_> = share_out(chunks, workers)
        .into_iter()
        .map(|share| tokio::task::spawn_blocking(move || encode(&share)))
        .collect();
    let mut encoded = Vec::with_capacity(tasks.len());
    for task in tasks {
        encoded.push(task.await.map_err(|_| LogError::Panicked { what: "encoding a batch" })??);
    }
    Ok(Batch { encoded, advances })
}

/// Chunks in shares of about equal weight, whole partition numbers where there are enough of them: rows of one
/// service then stand together. A little work is not worth several files.
fn share_out(mut chunks: Vec<Chunk>, workers: usize) -> Vec<Vec<Chunk>> {
    const WORTH_SHARING: usize = 1 << 20;
    let total: usize = chunks.iter().map(Chunk::weight).sum();
    if workers < 2 || total < WORTH_SHARING {
        return vec![chunks];
    }
    chunks.sort_by_key(|chunk| chunk.number);
    let mut shares: Vec<Vec<Chunk>> = vec![Vec::new()];
    let mut weight = 0;
    for chunk in chunks {
        weight += chunk.weight();
        let last = shares.last_mut().expect("there is one from the start");
        last.push(chunk);
        if weight >= total * shares.len() / workers && shares.len() < workers {
            shares.push(Vec::new());
        }
    }
    shares.retain(|share| !share.is_empty());
    shares
}

/// Tells every few seconds how far behind the table is.
async fn tell_lag(bus: Arc<dyn EventBus>, metrics: LogMetrics, progress: Progress, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        let positions = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for topic in Topic::ALL {
            let (mut offsets, mut newest) = (0, i64::MAX);
            for (partition, (offset, taken)) in
                positions.iter().filter(|(p, _)| p.stream == crate::bus::Stream::Events(topic))
            {
                let Ok(marks) = bus.watermarks(*partition).await else { continue };
                let behind = (marks.high - offset.max(&marks.low)).max(0);
                offsets += behind;
                if behind > 0 && *taken > 0 {
                    newest = newest.min(*taken);
                }
            }
            let now = Utc::now().timestamp_micros();
            let seconds = if newest == i64::MAX {
                0.0
            } else {
                Duration::from_micros((now - newest).max(0).unsigned_abs()).as_secs_f64()
            };
            metrics.lag_offsets.get_or_create(&topic_label(topic)).set(offsets);
            metrics.lag_seconds.get_or_create(&topic_label(topic)).set(seconds);
        }
    }
}
