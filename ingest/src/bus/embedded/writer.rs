//! The one thread that writes: it takes what has queued up, commits it in one synced batch, and answers.
//!
//! While a sync is under way the next commands queue up, so the busier the bus, the larger the groups: nobody waits
//! for a timer. All that must be serial (offsets, fencing, retention) lives here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use chrono::Utc;
use rebound_schemas::Topic;
use tokio::sync::{mpsc, oneshot};

use super::block::Builder;
use super::store::{Store, Tail};
use super::{EmbeddedSettings, Retention};
use crate::bus::partitioner::{partition_of, size_of};
use crate::bus::{BusError, Offset, Partition, Record, Stream, Watermarks};

/// Bytes of records after which a group is committed, however many more wait.
const GROUP_BYTES: usize = 16 * 1024 * 1024;

pub(super) type Placed = Vec<(Partition, Offset)>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Append, and advance positions, together.
    Write(Write),
    /// Take over decisions: answers the epoch that steps must carry from now on.
    Fence { group: String, partition: Partition, reply: oneshot::Sender<u64> },
}

#[derive(Debug)]
pub(super) struct Write {
    pub(super) records: Vec<(Stream, Record)>,
    pub(super) positions: Vec<(String, Partition, Offset)>,
    /// The transactor that wants it, if it is a step.
    pub(super) fence: Option<(String, Partition, u64)>,
    pub(super) reply: oneshot::Sender<Result<Placed, BusError>>,
}

pub(super) struct Writer {
    store: Arc<Store>,
    tails: Vec<Tail>,
    epochs: HashMap<(String, Partition), u64>,
    settings: EmbeddedSettings,
    swept: Instant,
    sweeper: Option<JoinHandle<()>>,
}

/// What a group adds to one log.
#[derive(Default)]
struct Staged {
    builder: Builder,
    blocks: Vec<(Offset, Vec<u8>)>,
    records: i64,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, tails: Vec<Tail>, settings: EmbeddedSettings) -> Self {
        Self { store, tails, epochs: HashMap::new(), settings, swept: Instant::now(), sweeper: None }
    }

    /// Runs until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.sweep();
        while let Some(first) = commands.blocking_recv() {
            let mut group = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Fence { group, partition, reply } => {
                        let epoch = self.epochs.entry((group, partition)).or_default();
                        *epoch += 1;
                        let _ = reply.send(*epoch);
                    }
                    Command::Write(write) => match self.admit(&write) {
                        Ok(()) => {
                            bytes += write.records.iter().map(|(_, record)| size_of(record)).sum::<usize>();
                            group.push(write);
                        }
                        Err(error) => drop(write.reply.send(Err(error))),
                    },
                }
                next = if bytes < GROUP_BYTES { commands.try_recv().ok() } else { None };
            }
            self.commit(group, bytes);
            if self.swept.elapsed() >= self.settings.retention.sweep_every {
                self.sweep();
            }
        }
        if let Some(sweeper) = self.sweeper.take() {
            let _ = sweeper.join();
        }
    }

    /// Whether a write may join the group: steps of a fenced transactor may not.
    fn admit(&self, write: &Write) -> Result<(), BusError> {
        if let Some((group, partition, epoch)) = &write.fence {
            let current = self.epochs.get(&(group.clone(), *partition));
            if current != Some(epoch) {
                return Err(BusError::Fenced { partition: *partition });
            }
        }
        write.positions.iter().try_for_each(|(_, partition, _)| self.store.index(*partition).map(drop))
    }

    /// Commits a group and answers everyone in it.
    fn commit(&mut self, group: Vec<Write>, bytes: usize) {
        if group.is_empty() {
            return;
        }
        match self.try_commit(&group, bytes) {
            Ok(placed) => {
                for (write, placed) in group.into_iter().zip(placed) {
                    // Whoever asked may have given up waiting.
                    let _ = write.reply.send(Ok(placed));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a group of {} writes was not committed", group.len());
                for write in group {
                    let _ = write.reply.send(Err(again(&error)));
                }
            }
        }
    }

    fn try_commit(&mut self, group: &[Write], bytes: usize) -> Result<Vec<Placed>, BusError> {
        self.check_disk(bytes)?;
        let mut staged: BTreeMap<usize, Staged> = BTreeMap::new();
        let mut batch = self.store.batch();
        let mut placed = Vec::with_capacity(group.len());
        let now = Utc::now().timestamp_millis();
        let mut tails = self.tails.clone();
        for write in group {
            let mut places = Vec::with_capacity(write.records.len());
            for (stream, record) in &write.records {
                let number = partition_of(&record.key, self.store.partitions());
                let partition = Partition { stream: *stream, number };
                let log = self.store.index(partition)?;
                let stage = staged.entry(log).or_default();
                places.push((partition, self.tails[log].next + stage.records));
                stage.records += 1;
                stage.builder.push(record);
                if stage.builder.is_full() {
                    stage.cut(&mut tails[log], now);
                }
            }
            placed.push(places);
            for (name, partition, at) in &write.positions {
                self.store.put_position(&mut batch, name, *partition, *at);
            }
        }
        for (log, stage) in &mut staged {
            if !stage.builder.is_empty() {
                stage.cut(&mut tails[*log], now);
            }
            for (base, block) in stage.blocks.drain(..) {
                self.store.put_block(&mut batch, *log, base, block);
            }
        }
        batch.commit().map_err(|error| self.store.failure(error))?;
        self.tails = tails;
        // Only now, synced, may readers see it.
        for log in staged.keys() {
            let next = self.tails[*log].next;
            self.store.logs()[*log].ends.send_modify(|ends| ends.high = next);
        }
        Ok(placed)
    }

    /// Refuses to write into the last of the disk: a store that fails within a write must be opened again, so it
    /// should not come to that.
    fn check_disk(&self, bytes: usize) -> Result<(), BusError> {
        let path = &self.settings.path;
        let space = nix::sys::statvfs::statvfs(path)
            .map_err(|error| BusError::Unavailable { reason: format!("{}: {error}", path.display()) })?;
        // The widths differ between platforms.
        #[allow(clippy::useless_conversion)]
        let free = u64::from(space.blocks_available()).saturating_mul(u64::from(space.fragment_size()));
        if free < self.settings.reserve_bytes.saturating_add(bytes as u64) {
            return Err(BusError::DiskFull { path: path.display().to_string() });
        }
        Ok(())
    }

    /// Drops what retention allows. Freeing the disk may wait for a compaction, so a thread of its own does that.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        if self.sweeper.as_ref().is_some_and(|sweeper| !sweeper.is_finished()) {
            return;
        }
        let mut lows = Vec::new();
        for log in 0..self.store.logs().len() {
            match self.low_after(log) {
                Ok(Some(low)) => lows.push((log, low)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "retention failed"),
            }
        }
        if lows.is_empty() {
            return;
        }
        let mut batch = self.store.batch();
        for (log, low) in &lows {
            self.store.put_low(&mut batch, self.store.logs()[*log].partition, *low);
        }
        if let Err(error) = batch.commit() {
            tracing::warn!(error = %self.store.failure(error), "retention failed");
            return;
        }
        for (log, low) in &lows {
            self.store.logs()[*log].ends.send_modify(|ends| ends.low = *low);
        }
        let store = Arc::clone(&self.store);
        let free = move || {
            for (log, low) in lows {
                if let Err(error) = store.drop_below(log, low) {
                    tracing::warn!(%error, "old records could not be removed from the disk");
                }
            }
        };
        match std::thread::Builder::new().name("bus-retention".to_owned()).spawn(free) {
            Ok(sweeper) => self.sweeper = Some(sweeper),
            Err(error) => tracing::warn!(%error, "old records could not be removed from the disk"),
        }
    }

    /// Where a log may start from now on, if that is later than today. A log keeps its last block, which says where
    /// its offsets go on.
    fn low_after(&self, log: usize) -> Result<Option<Offset>, BusError> {
        let tail = self.tails[log];
        let log = &self.store.logs()[log];
        let ends = *log.ends.borrow();
        if ends.low >= ends.high {
            return Ok(None);
        }
        let least = self.store.least_position(log.partition)?;
        let Retention { max_age, max_bytes, dead_letters_max_age, .. } = self.settings.retention;
        let (allowed, age) = match (log.partition.stream, least) {
            // Decisions are few, and every deciding role folds all of them when it starts: they are never dropped.
            (Stream::Events(Topic::Alerts | Topic::Recoveries), _) => return Ok(None),
            // Nobody has read it yet, but somebody will.
            (Stream::Events(_), None) => return Ok(None),
            (Stream::Events(_), Some(least)) => (least, max_age),
            (Stream::DeadLetters(_), least) => (least.unwrap_or(ends.high), dead_letters_max_age),
        };
        let oldest = Utc::now().timestamp_millis().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let kept = tail.bytes.saturating_sub(max_bytes);
        let young =
            self.store.first_block(log, ends, |block| block.ingested_ms() >= oldest && block.bytes_before() >= kept)?;
        let last = self.store.block_at(log, ends.high - 1)?.base;
        // A group may stand within a block: that one stays.
        let limit = young.min(allowed).min(last);
        let low = if limit >= ends.high || limit <= ends.low { limit } else { self.store.block_at(log, limit)?.base };
        Ok((low > ends.low).then_some(low))
    }
}

impl Staged {
    fn cut(&mut self, tail: &mut Tail, now: i64) {
        // The clock may step back; a log's times do not.
        let at = now.max(tail.ingested_ms);
        let (block, records, bytes) = self.builder.finish(at, tail.bytes);
        self.blocks.push((tail.next, block));
        *tail = Tail { next: tail.next + records, bytes: tail.bytes + bytes, ingested_ms: at };
    }
}

/// The same error for another one who waits.
fn again(error: &BusError) -> BusError {
    match error {
        BusError::DiskFull { path } => BusError::DiskFull { path: path.clone() },
        BusError::Corrupt { path, reason } => BusError::Corrupt { path: path.clone(), reason: reason.clone() },
        BusError::Configuration(text) => BusError::Configuration(text.clone()),
        other => BusError::Unavailable { reason: other.to_string() },
    }
}

/// Where readers stand after a sweep, for tests and metrics.
pub(super) fn ends_of(store: &Store, partition: Partition) -> Result<Watermarks, BusError> {
    Ok(*store.logs()[store.index(partition)?].ends.borrow())
}
