//! The log on disk: a fjall database with a keyspace a partition, whose keys are base offsets and whose values are
//! [blocks](super::block), and two small ones for settings and positions.
//!
//! A keyspace a partition keeps tables of one partition apart, so that old ones can be dropped whole. Everything
//! here blocks: it runs on the writer's thread or on tokio's blocking threads.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use fjall::{AbstractTree, Database, Guard, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use rebound_schemas::Topic;
use tokio::sync::watch;

use super::block::Block;
use crate::bus::{BusError, Delivery, Fetch, Offset, Partition, ReadLimit, Stream, Watermarks};

/// Raised when the layout changes in a way that older programs can't read.
const FORMAT: u32 = 1;

/// One partition.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) partition: Partition,
    keyspace: KeyspaceHandle,
    /// What readers see. Changed by the writer alone, after its sync.
    pub(super) ends: watch::Sender<Watermarks>,
    /// The block that was read last: small reads walk through it without asking the store again.
    recent: Mutex<Option<Block>>,
}

/// What the writer needs to go on with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) next: Offset,
    /// Bytes of all records ever appended.
    pub(super) bytes: u64,
    /// Time of the newest block: later ones are never older.
    pub(super) ingested_ms: i64,
}

struct KeyspaceHandle(Keyspace);

impl std::fmt::Debug for KeyspaceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

/// The open database.
pub(super) struct Store {
    db: Database,
    settings: Keyspace,
    groups: Keyspace,
    logs: Vec<Log>,
    partitions: i32,
    path: PathBuf,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

/// All streams, in the order of [`Store::index`].
fn streams() -> impl Iterator<Item = Stream> {
    Topic::ALL.into_iter().flat_map(|topic| [Stream::Events(topic), Stream::DeadLetters(topic)])
}

impl Store {
    /// Opens the bus in a folder, creating it with `partitions` partitions a topic if it is new. Answers the tails of
    /// its logs too.
    pub(super) fn open(path: &Path, partitions: i32) -> Result<(Self, Vec<Tail>), BusError> {
        if partitions < 1 {
            return Err(BusError::Configuration(format!("a bus has at least 1 partition, not {partitions}")));
        }
        let fail = |error| failure(path, error);
        let db =
            Database::builder(path).max_journaling_size(128 * 1024 * 1024).worker_threads(2).open().map_err(fail)?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(4 * 1024 * 1024);
        let settings = db.keyspace("settings", small).map_err(fail)?;
        let groups = db.keyspace("groups", small).map_err(fail)?;
        let mut store = Self { db, settings, groups, logs: Vec::new(), partitions, path: path.to_owned() };
        store.check_settings()?;
        let mut tails = Vec::new();
        for stream in streams() {
            for number in 0..partitions {
                let (log, tail) = store.open_log(Partition { stream, number })?;
                store.logs.push(log);
                tails.push(tail);
            }
        }
        Ok((store, tails))
    }

    fn check_settings(&self) -> Result<(), BusError> {
        let stored = |name: &str| -> Result<Option<u32>, BusError> {
            match self.settings.get(name).map_err(|e| self.failure(e))? {
                None => Ok(None),
                Some(value) => match <[u8; 4]>::try_from(&*value) {
                    Ok(bytes) => Ok(Some(u32::from_be_bytes(bytes))),
                    Err(_) => Err(self.corrupt(format!("the setting {name} is not a number"))),
                },
            }
        };
        let wanted = u32::try_from(self.partitions).expect("at least 1");
        match (stored("format")?, stored("partitions")?) {
            (Some(FORMAT), Some(partitions)) if partitions == wanted => Ok(()),
            (Some(FORMAT), Some(partitions)) => Err(BusError::Configuration(format!(
                "the bus at {} has {partitions} partitions, not {wanted}: the number is fixed when a bus is created; \
                 set partitions = {partitions}, or use another folder",
                self.path.display()
            ))),
            (Some(format), Some(_)) => Err(BusError::Configuration(format!(
                "the bus at {} has format {format}, this program knows {FORMAT}: use the program that wrote it",
                self.path.display()
            ))),
            (None, None) => {
                let mut batch = self.batch();
                batch.insert(&self.settings, "format", FORMAT.to_be_bytes());
                batch.insert(&self.settings, "partitions", wanted.to_be_bytes());
                batch.commit().map_err(|e| self.failure(e))
            }
            _ => Err(self.corrupt("one of its settings is missing".to_owned())),
        }
    }

    fn open_log(&self, partition: Partition) -> Result<(Log, Tail), BusError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(16 * 1024 * 1024);
        let keyspace = self.db.keyspace(&partition.to_string(), options).map_err(|e| self.failure(e))?;
        let kept = self.settings.get(low_key(partition)).map_err(|e| self.failure(e))?;
        let low = match kept {
            None => 0,
            Some(value) => offset_of(&value).ok_or_else(|| self.corrupt(format!("{partition}: no valid low mark")))?,
        };
        let tail = match keyspace.last_key_value() {
            None if low > 0 => return Err(self.corrupt(format!("{partition}: all its records are gone"))),
            None => Tail { next: 0, bytes: 0, ingested_ms: i64::MIN },
            Some(last) => {
                let block = self.block(partition, last)?;
                Tail { next: block.end(), bytes: block.bytes_after(), ingested_ms: block.ingested_ms() }
            }
        };
        let (ends, _) = watch::channel(Watermarks { low, high: tail.next });
        Ok((Log { partition, keyspace: KeyspaceHandle(keyspace), ends, recent: Mutex::new(None) }, tail))
    }

    pub(super) fn partitions(&self) -> i32 {
        self.partitions
    }

    pub(super) fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// Where a partition stands among the logs.
    pub(super) fn index(&self, partition: Partition) -> Result<usize, BusError> {
        let stream = streams().position(|stream| stream == partition.stream).expect("all streams are listed");
        match usize::try_from(partition.number) {
            Ok(number) if partition.number < self.partitions => {
                Ok(stream * usize::try_from(self.partitions).expect("at least 1") + number)
            }
            _ => Err(BusError::Configuration(format!("{partition} does not exist: there are {}", self.partitions))),
        }
    }

    /// A batch that is synced to the disk when it is committed.
    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    pub(super) fn put_block(&self, batch: &mut OwnedWriteBatch, log: usize, base: Offset, block: Vec<u8>) {
        batch.insert(&self.logs[log].keyspace.0, key_of(base), block);
    }

    pub(super) fn put_position(&self, batch: &mut OwnedWriteBatch, group: &str, partition: Partition, at: Offset) {
        batch.insert(&self.groups, group_key(partition, group), at.to_be_bytes());
    }

    pub(super) fn put_low(&self, batch: &mut OwnedWriteBatch, partition: Partition, low: Offset) {
        batch.insert(&self.settings, low_key(partition), low.to_be_bytes());
    }

    pub(super) fn position(&self, group: &str, partition: Partition) -> Result<Option<Offset>, BusError> {
        let Some(value) = self.groups.get(group_key(partition, group)).map_err(|e| self.failure(e))? else {
            return Ok(None);
        };
        let damaged = || self.corrupt(format!("{partition}: no valid position of {group}"));
        offset_of(&value).map(Some).ok_or_else(damaged)
    }

    /// The least position of all groups that ever committed on the partition's stream; `None` if there is no group,
    /// zero if one of them has not committed on this partition yet.
    pub(super) fn least_position(&self, partition: Partition) -> Result<Option<Offset>, BusError> {
        let mut groups: std::collections::BTreeMap<Vec<u8>, Offset> = std::collections::BTreeMap::new();
        for number in 0..self.partitions {
            let prefix = group_key(Partition { number, ..partition }, "");
            for guard in self.groups.prefix(&prefix) {
                let (key, value) = guard.into_inner().map_err(|e| self.failure(e))?;
                let least = groups.entry(key[prefix.len()..].to_vec()).or_insert(0);
                if number == partition.number {
                    *least = offset_of(&value).ok_or_else(|| self.corrupt("a position is damaged".to_owned()))?;
                }
            }
        }
        Ok(groups.into_values().min())
    }

    /// Reads on from an offset that is held.
    pub(super) fn read(&self, log: &Log, from: Offset, high: Offset, limit: ReadLimit) -> Result<Fetch, BusError> {
        let mut deliveries: Vec<Delivery> = Vec::new();
        let mut bytes = 0_usize;
        let records = limit.records.max(1);
        let mut taken = 0_usize;
        let mut room = |size: usize| {
            let fits = taken == 0 || (taken < records && bytes.saturating_add(size) <= limit.bytes);
            if fits {
                taken += 1;
                bytes = bytes.saturating_add(size);
            }
            fits
        };
        let recent = lock(&log.recent).clone();
        let mut last = recent.filter(|block| (block.base..=block.end()).contains(&from));
        let mut open = true;
        let next = match &last {
            Some(block) => {
                if from < block.end() {
                    open = block.read(from, &mut deliveries, &mut room).map_err(|e| self.damaged(log, &e))?;
                }
                block.end()
            }
            None => match log.keyspace.0.range(..=key_of(from)).next_back() {
                Some(guard) => offset_of(&guard.key().map_err(|e| self.failure(e))?).unwrap_or(from),
                None => from,
            },
        };
        // The keyspace shows a group before its sync is known to have succeeded: nothing at or beyond `high` is read.
        if open && next < high {
            for guard in log.keyspace.0.range(key_of(next)..key_of(high)) {
                let block = self.block(log.partition, guard)?;
                open = block.read(from, &mut deliveries, &mut room).map_err(|e| self.damaged(log, &e))?;
                last = Some(block);
                if !open {
                    break;
                }
            }
        }
        *lock(&log.recent) = last;
        let next = deliveries.last().map_or(from, |delivery| delivery.offset + 1);
        // An offset that is held starts the answer; anything else means that blocks are missing.
        match deliveries.first() {
            Some(first) if first.offset == from => Ok(Fetch { deliveries, next }),
            _ => Err(self.damaged(log, &format!("the record at offset {from} is missing"))),
        }
    }

    /// The block that holds an offset.
    pub(super) fn block_at(&self, log: &Log, offset: Offset) -> Result<Block, BusError> {
        match log.keyspace.0.range(..=key_of(offset)).next_back() {
            Some(guard) => self.block(log.partition, guard),
            None => Err(self.damaged(log, &format!("the record at offset {offset} is missing"))),
        }
    }

    /// The first base offset within `low..high` of a block for which `wanted` holds, given that it holds for all
    /// later ones too; `high` if it holds for none.
    pub(super) fn first_block(
        &self,
        log: &Log,
        ends: Watermarks,
        wanted: impl Fn(&Block) -> bool,
    ) -> Result<Offset, BusError> {
        let (mut low, mut high) = (ends.low, ends.high);
        while low < high {
            let block = self.block_at(log, low + (high - low) / 2)?;
            if wanted(&block) {
                high = block.base;
            } else {
                low = block.end();
            }
        }
        Ok(low.max(ends.low))
    }

    /// The offset of the first record taken in at or after `time`.
    pub(super) fn offset_at(&self, log: &Log, time: DateTime<Utc>) -> Result<Offset, BusError> {
        // A fraction of a millisecond rounds up: what was taken in before it is not wanted.
        let ms = time.timestamp_millis() + i64::from(!time.timestamp_subsec_nanos().is_multiple_of(1_000_000));
        let ends = *log.ends.borrow();
        self.first_block(log, ends, |block| block.ingested_ms() >= ms)
    }

    /// Frees the disk that whole tables below the low mark take. May wait for a compaction.
    pub(super) fn drop_below(&self, log: usize, low: Offset) -> Result<(), BusError> {
        let tree = &self.logs[log].keyspace.0.tree;
        tree.drop_range::<[u8; 8], _>(key_of(0)..key_of(low)).map_err(|e| self.failure(e.into()))
    }

    fn block(&self, partition: Partition, guard: Guard) -> Result<Block, BusError> {
        let (key, value) = guard.into_inner().map_err(|e| self.failure(e))?;
        let base = offset_of(&key).ok_or_else(|| self.corrupt(format!("{partition}: a key is no offset")))?;
        Block::open(base, Bytes::from_owner(value)).map_err(|reason| self.corrupt(format!("{partition}: {reason}")))
    }

    fn damaged(&self, log: &Log, reason: &str) -> BusError {
        self.corrupt(format!("{}: {reason}", log.partition))
    }

    fn corrupt(&self, reason: String) -> BusError {
        BusError::Corrupt { path: self.path.display().to_string(), reason }
    }

    pub(super) fn failure(&self, error: fjall::Error) -> BusError {
        failure(&self.path, error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Offsets as keys: big-endian, so that keys sort as offsets do.
fn key_of(offset: Offset) -> [u8; 8] {
    offset.to_be_bytes()
}

fn offset_of(bytes: &[u8]) -> Option<Offset> {
    bytes.try_into().ok().map(Offset::from_be_bytes)
}

fn low_key(partition: Partition) -> String {
    format!("low/{partition}")
}

/// The partition first, so that all groups of one are together. A zero ends it, as in `observations-1` and `-10`.
fn group_key(partition: Partition, group: &str) -> Vec<u8> {
    format!("{partition}\0{group}").into_bytes()
}

fn failure(path: &Path, error: fjall::Error) -> BusError {
    let place = path.display().to_string();
    let io = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            BusError::DiskFull { path: place.clone() }
        }
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => {
            BusError::Corrupt { path: place.clone(), reason: error.to_string() }
        }
        _ => BusError::Unavailable { reason: format!("the store at {place} answers: {error}") },
    };
    match &error {
        fjall::Error::Locked => BusError::Configuration(format!(
            "the bus at {place} is in use by another process: stop that one, or use another data folder"
        )),
        fjall::Error::Poisoned => BusError::Unavailable {
            reason: format!("the store at {place} failed to write and takes no more until it is opened again"),
        },
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => io(error),
        fjall::Error::InvalidVersion(version) => BusError::Configuration(format!(
            "the bus at {place} was written in a format that this program does not know ({version:?})"
        )),
        other => BusError::Corrupt { path: place, reason: format!("{other:?}") },
    }
}
