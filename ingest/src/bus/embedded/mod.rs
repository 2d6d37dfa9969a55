//! The embedded bus: a durable log for one process, so that nothing needs a server on a laptop or a small site.
//!
//! Appends of all callers share one sync to disk ([`writer`]); readers are woken when it is done and never poll.
//! The store is fjall's ([`store`]); records that came together are stored together ([`block`]). One process at a
//! time opens a folder, so fencing is a number in memory, and a group has one owner at a time.
//!
//! A delivery's bytes are slices of its block (up to 256 KiB): whoever keeps a few for long should copy them.

mod block;
mod store;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rebound_schemas::Topic;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::partitioner::check_size;
use super::{
    BusError, EventBus, Fetch, Membership, Offset, Ownership, Partition, ReadLimit, Record, Stream, Transactor,
    Watermarks,
};
use store::Store;
use writer::{Command, Placed, Write, Writer};

/// Writes that may wait for the writer; more of them wait for a place.
const QUEUE: usize = 1024;

/// How the embedded bus is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// Folder that holds it; made if missing.
    pub path: PathBuf,
    /// Partitions of every topic. Fixed when the folder is made.
    pub partitions: i32,
    /// Free disk below which appends are refused, in bytes. Reading and the store's own upkeep go on with it.
    pub reserve_bytes: u64,
    /// What is kept.
    pub retention: Retention,
}

/// How much of a partition of observations is kept; decisions (alerts, recoveries) are kept for ever. A record goes when it is too old *or* there are too many bytes, but only once
/// all groups have committed past it. Events that no group has ever read stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Age of events at which they may go.
    pub max_age: Duration,
    /// Bytes of records a partition may hold.
    pub max_bytes: u64,
    /// Age of dead letters at which they may go; they need no group that read them.
    pub dead_letters_max_age: Duration,
    /// How often it is looked at, at most; an idle bus does not grow.
    pub sweep_every: Duration,
}

impl Default for Retention {
    /// A week, 1 GiB a partition, a quarter for dead letters.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            max_age: 7 * day,
            max_bytes: 1024 * 1024 * 1024,
            dead_letters_max_age: 90 * day,
            sweep_every: Duration::from_secs(30),
        }
    }
}

impl EmbeddedSettings {
    /// The defaults, in a folder: 4 partitions, 512 MiB of the disk kept free.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), partitions: 4, reserve_bytes: 512 * 1024 * 1024, retention: Retention::default() }
    }
}

/// A gate that one member of a group over a topic holds at a time, and how often it was passed.
type Gate = Arc<(Arc<tokio::sync::Mutex<()>>, AtomicU64)>;

#[derive(Debug)]
struct Shared {
    /// Gone once closed. Locked for reading while a blocking call is under way, so that closing waits for those.
    store: RwLock<Option<Arc<Store>>>,
    partitions: i32,
    closing: CancellationToken,
    gates: Mutex<HashMap<(String, Topic), Gate>>,
}

/// See the module.
#[derive(Debug)]
pub struct EmbeddedBus {
    shared: Arc<Shared>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    writer: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl EmbeddedBus {
    /// Opens the bus in its folder, or makes it. Errors: the folder is in use, was made with other settings, is
    /// damaged, or can't be written.
    pub async fn open(settings: EmbeddedSettings) -> Result<Self, BusError> {
        let opening = settings.clone();
        let (store, tails) = blocking(move || {
            std::fs::create_dir_all(&opening.path).map_err(|error| {
                BusError::Configuration(format!("the folder {} can't be made: {error}", opening.path.display()))
            })?;
            Store::open(&opening.path, opening.partitions)
        })
        .await?;
        let store = Arc::new(store);
        let (commands, queue) = mpsc::channel(QUEUE);
        let (done, writer) = oneshot::channel();
        let partitions = settings.partitions;
        let thread = Writer::new(Arc::clone(&store), tails, settings);
        std::thread::Builder::new()
            .name("bus-writer".to_owned())
            .spawn(move || {
                thread.run(queue);
                let _ = done.send(());
            })
            .map_err(|error| BusError::Unavailable { reason: format!("no thread to write with: {error}") })?;
        let shared = Shared {
            store: RwLock::new(Some(store)),
            partitions,
            closing: CancellationToken::new(),
            gates: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            commands: Mutex::new(Some(commands)),
            writer: tokio::sync::Mutex::new(Some(writer)),
        })
    }

    fn sender(&self) -> Result<mpsc::Sender<Command>, BusError> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(BusError::Closed)
    }
}

/// Runs what blocks away from the threads that drive tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BusError::Unavailable { reason: format!("the store's call did not end: {error}") }),
    }
}

impl Shared {
    /// Runs something short on the store, or answers that the bus is closed.
    fn with<T>(&self, work: impl FnOnce(&Store) -> Result<T, BusError>) -> Result<T, BusError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        work(store.as_ref().ok_or(BusError::Closed)?)
    }

    fn ends(&self, partition: Partition) -> Result<watch::Receiver<Watermarks>, BusError> {
        self.with(|store| Ok(store.logs()[store.index(partition)?].ends.subscribe()))
    }
}

async fn write(
    commands: &mpsc::Sender<Command>,
    records: Vec<(Stream, Record)>,
    positions: Vec<(String, Partition, Offset)>,
    fence: Option<(String, Partition, u64)>,
) -> Result<Placed, BusError> {
    records.iter().try_for_each(|(_, record)| check_size(record))?;
    let (reply, answer) = oneshot::channel();
    let command = Command::Write(Write { records, positions, fence, reply });
    commands.send(command).await.map_err(|_| BusError::Closed)?;
    answer.await.map_err(|_| BusError::Closed)?
}

#[async_trait]
impl EventBus for EmbeddedBus {
    fn partitions(&self) -> i32 {
        self.shared.partitions
    }

    async fn append(&self, stream: Stream, records: Vec<Record>) -> Result<Vec<(Partition, Offset)>, BusError> {
        let commands = self.sender()?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        write(&commands, records.into_iter().map(|record| (stream, record)).collect(), Vec::new(), None).await
    }

    async fn read(&self, partition: Partition, from: Offset, limit: ReadLimit) -> Result<Fetch, BusError> {
        let mut ends = self.shared.ends(partition)?;
        let Watermarks { low, high } = *ends.borrow_and_update();
        if from < low || from > high {
            return Err(BusError::OutOfRange { partition, wanted: from, low, high });
        }
        if from == high {
            tokio::select! {
                more = ends.wait_for(|ends| ends.high > from) => drop(more.map_err(|_| BusError::Closed)?),
                () = tokio::time::sleep(limit.wait) => return Ok(Fetch { deliveries: Vec::new(), next: from }),
                () = self.shared.closing.cancelled() => return Err(BusError::Closed),
            }
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            shared.with(|store| {
                let log = &store.logs()[store.index(partition)?];
                let Watermarks { low, high } = *log.ends.borrow();
                if from < low {
                    return Err(BusError::OutOfRange { partition, wanted: from, low, high });
                }
                store.read(log, from, high, limit)
            })
        })
        .await
    }

    async fn watermarks(&self, partition: Partition) -> Result<Watermarks, BusError> {
        self.shared.with(|store| writer::ends_of(store, partition))
    }

    async fn offset_at(&self, partition: Partition, time: DateTime<Utc>) -> Result<Offset, BusError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.with(|store| store.offset_at(&store.logs()[store.index(partition)?], time))).await
    }

    async fn committed(&self, group: &str, partition: Partition) -> Result<Option<Offset>, BusError> {
        let shared = Arc::clone(&self.shared);
        let group = group.to_owned();
        blocking(move || {
            shared.with(|store| {
                store.index(partition)?;
                store.position(&group, partition)
            })
        })
        .await
    }

    async fn commit(&self, group: &str, positions: &[(Partition, Offset)]) -> Result<(), BusError> {
        let commands = self.sender()?;
        let positions = positions.iter().map(|(partition, at)| (group.to_owned(), *partition, *at)).collect();
        write(&commands, Vec::new(), positions, None).await.map(drop)
    }

    async fn join(&self, group: &str, topic: Topic, _: Duration) -> Result<Box<dyn Membership>, BusError> {
        self.sender()?;
        let mut gates = self.shared.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = Arc::clone(gates.entry((group.to_owned(), topic)).or_default());
        Ok(Box::new(Member { shared: Arc::clone(&self.shared), gate, held: None }))
    }

    async fn transactor(&self, group: &str, partition: Partition) -> Result<Box<dyn Transactor>, BusError> {
        self.shared.with(|store| store.index(partition))?;
        let commands = self.sender()?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Fence { group: group.to_owned(), partition, reply };
        commands.send(command).await.map_err(|_| BusError::Closed)?;
        let epoch = answer.await.map_err(|_| BusError::Closed)?;
        // Weak, so that an idle transactor does not keep the writer from ending.
        let (commands, closing) = (commands.downgrade(), self.shared.closing.clone());
        Ok(Box::new(Decider { commands, closing, group: group.to_owned(), partition, epoch }))
    }

    async fn close(&self) -> Result<(), BusError> {
        let sender = self.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(sender.ok_or(BusError::Closed)?);
        self.shared.closing.cancel();
        if let Some(writer) = self.writer.lock().await.take() {
            // An error means that the thread is gone, which is as well.
            let _ = writer.await;
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            drop(shared.store.write().unwrap_or_else(PoisonError::into_inner).take());
            Ok(())
        })
        .await
    }
}

/// A member of a group: the one that holds the gate owns all partitions, others wait for it to leave.
#[derive(Debug)]
struct Member {
    shared: Arc<Shared>,
    gate: Gate,
    held: Option<OwnedMutexGuard<()>>,
}

#[async_trait]
impl Membership for Member {
    async fn changed(&mut self) -> Result<Ownership, BusError> {
        if self.held.is_some() {
            self.shared.closing.cancelled().await;
            return Err(BusError::Closed);
        }
        tokio::select! {
            biased;
            () = self.shared.closing.cancelled() => Err(BusError::Closed),
            held = Arc::clone(&self.gate.0).lock_owned() => {
                self.held = Some(held);
                let generation = self.gate.1.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(Ownership::Gained { generation, partitions: (0..self.shared.partitions).collect() })
            }
        }
    }

    async fn leave(self: Box<Self>) {}
}

/// The right to decide, as long as its epoch is the newest.
#[derive(Debug)]
struct Decider {
    commands: mpsc::WeakSender<Command>,
    closing: CancellationToken,
    group: String,
    partition: Partition,
    epoch: u64,
}

#[async_trait]
impl Transactor for Decider {
    async fn step(
        &mut self,
        records: Vec<(Stream, Record)>,
        positions: &[(Partition, Offset)],
    ) -> Result<Vec<(Partition, Offset)>, BusError> {
        let commands = self.commands.upgrade().filter(|_| !self.closing.is_cancelled()).ok_or(BusError::Closed)?;
        let positions = positions.iter().map(|(partition, at)| (self.group.clone(), *partition, *at)).collect();
        let fence = Some((self.group.clone(), self.partition, self.epoch));
        write(&commands, records, positions, fence).await
    }
}
