//! One membership of the group: chunks to batches, batches to commits, until a stop, a conflict or a failure.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::Utc;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use rebound_schemas::Topic;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::encode::{Chunk, DeadLetter, Encoded, encode, header, topic_index};
use super::super::error::LogError;
use super::super::metrics::{ClassLabel, LogMetrics, topic_label};
use super::super::table::{Advance, Change, LogTable};
use super::super::upkeep::{Upkeep, change_id, room};
use super::reader::{Reader, Sent, limit};
use super::{BackOff, CommitReport, GROUP, LogSettings};
use crate::bus::{BusError, EventBus, Membership, Offset, Ownership, Partition, Record};

/// Where the table stands, and when its newest record was taken in (microseconds), a partition.
type Progress = Arc<std::sync::Mutex<HashMap<Partition, (Offset, i64)>>>;

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

/// A batch on its way: what it holds, encoded, and how far it moves each partition.
#[derive(Debug)]
struct Batch {
    encoded: Vec<Encoded>,
    advances: BTreeMap<Partition, Span>,
}

/// A stretch of a partition, with the time at which its newest record was taken in.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Offset,
    to: Offset,
    records: u64,
    newest: i64,
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

/// What a commit needs; cloning shares it.
#[derive(Clone)]
struct Committer {
    bus: Arc<dyn EventBus>,
    settings: LogSettings,
    metrics: LogMetrics,
    table: Arc<Mutex<LogTable>>,
    committed: Arc<Notify>,
    progress: Progress,
    shutdown: CancellationToken,
}

impl Committer {
    fn note(&self, partition: Partition, offset: Offset, newest: i64) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, (offset, newest));
    }

    /// Dead letters first, then the data, then the commit: nothing passes that is not kept somewhere.
    async fn commit(self, batch: Batch) -> Result<(), LogError> {
        let mut pause = BackOff::default();
        for encoded in &batch.encoded {
            while let Err(error) = self.bury(&encoded.dead).await {
                self.wait(&mut pause, error).await?;
            }
        }
        let now = Utc::now().timestamp_millis();
        let files = || batch.encoded.iter().flat_map(|encoded| &encoded.files);
        let change = Change {
            adds: files().map(|file| file.add(now, true)).collect(),
            removes: Vec::new(),
            advances: batch
                .advances
                .iter()
                .map(|(partition, span)| Advance { app: partition.to_string(), from: span.from, to: span.to })
                .collect(),
            id: change_id(),
        };
        // While this one waits, the next batch grows until it is full, and then the readers wait too.
        if !self.shutdown.is_cancelled()
            && let Err(error) = room(&self.table).await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the newest version can't be read: the commit tells"
            );
        }
        let started = Instant::now();
        pause = BackOff::default();
        let version = loop {
            match self.store(&batch, &change).await {
                Ok(version) => break version,
                Err(error) => self.wait(&mut pause, error).await?,
            }
        };
        self.account(&batch, version, started.elapsed());
        self.committed.notify_one();
        let hint: Vec<_> = batch.advances.iter().map(|(partition, span)| (*partition, span.to)).collect();
        if let Err(error) = self.bus.commit(GROUP, &hint).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the group's position was not noted: the table has it"
            );
        }
        Ok(())
    }

    /// Puts are made again at each attempt: a file is the same under the same name, and vacuum must not find it old.
    async fn store(&self, batch: &Batch, change: &Change) -> Result<u64, LogError> {
        let store = self.table.lock().await.store().clone();
        let puts = batch.encoded.iter().flat_map(|encoded| &encoded.files).map(|file| {
            let (store, path) = (store.clone(), Path::from(file.path.as_str()));
            async move { store.put(&path, file.bytes.clone().into()).await }
        });
        futures::future::try_join_all(puts).await.map_err(|e| LogError::store("storing a data file", e))?;
        self.table.lock().await.commit(change).await
    }

    /// Waits before the next attempt; gives up on what waiting doesn't help, or when draining took too long.
    async fn wait(&self, pause: &mut BackOff, error: LogError) -> Result<(), LogError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.metrics.retries.inc();
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "storing events failed: nothing is lost, trying again"
        );
        let given_up = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(self.settings.drain_within).await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => Ok(()),
            () = given_up => Err(error),
        }
    }

    /// Appends dead letters to their topics. A crash before the commit appends them again; they carry their offset.
    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), LogError> {
        for topic in Topic::ALL {
            let letters: Vec<_> = dead.iter().filter(|letter| letter.topic == topic).collect();
            let Some(first) = letters.first() else { continue };
            let records: Vec<_> = letters.iter().map(|letter| letter.record.clone()).collect();
            match self.bus.append(first.stream(), records.clone()).await {
                Err(BusError::TooLarge { limit, .. }) => {
                    let cut = records.into_iter().map(|record| cut(record, limit)).collect();
                    self.bus.append(first.stream(), cut).await?;
                }
                other => {
                    other?;
                }
            }
            for letter in letters {
                tracing::warn!(topic = topic.as_str(), class = letter.class, "a record could not be decoded");
                self.metrics.dead_lettered.get_or_create(&ClassLabel { class: letter.class.to_owned() }).inc();
            }
        }
        Ok(())
    }

    fn account(&self, batch: &Batch, version: u64, took: Duration) {
        let metrics = &self.metrics;
        metrics.commit_seconds.observe(took.as_secs_f64());
        metrics.commits.inc();
        metrics.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        let (mut events, mut bytes) = (0, 0);
        for encoded in &batch.encoded {
            bytes += encoded.files.iter().map(|file| file.bytes.len() as u64).sum::<u64>();
            for topic in Topic::ALL {
                let stored = encoded.stored[topic_index(topic)];
                events += stored;
                metrics.stored.get_or_create(&topic_label(topic)).inc_by(stored);
            }
        }
        metrics.stored_bytes.inc_by(bytes);
        for (partition, span) in &batch.advances {
            if let crate::bus::Stream::Events(topic) = partition.stream {
                metrics.taken.get_or_create(&topic_label(topic)).inc_by(span.records);
            }
            self.note(*partition, span.to, span.newest);
        }
        if let Some(told) = &self.settings.on_commit {
            told(&CommitReport { version, events, bytes, took });
        }
    }
}

/// A record whose value is short enough for the headers that a dead letter has besides.
fn cut(mut record: Record, limit: usize) -> Record {
    let keep = limit.saturating_sub(limit / 4).min(64 * 1024);
    if record.value.len() > keep {
        record.value.truncate(keep);
        record.headers.push((header::CUT.to_owned(), "true".into()));
    }
    record
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
