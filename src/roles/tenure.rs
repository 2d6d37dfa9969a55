//! What the deciding roles share: tenures over partitions, in which state is folded, inputs arrive and decisions are
//! appended.
//!
//! A tenure lasts while its partitions stay the instance's own. Its state is folded anew at its start, and everything
//! it held is dropped at its end: nothing decided under one assignment leaks into the next. Decisions go through
//! the partition's [`Transactor`], so a process that was paused and lost its partitions is fenced at its first word.
//! Who joins, and which tenures begin and end when partitions move, is [`seat`](super::seat)'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rebound_ingest::bus::{
    BusError, Delivery, EventBus, Fetch, Offset, Partition, ReadLimit, Record, Stream, Transactor, partition_of,
};
use rebound_schemas::{Event, ServiceId, Topic};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Records a read takes at most: small enough that one slow fold does not hold up the timers.
const READ: ReadLimit = ReadLimit { records: 2_000, bytes: 4 << 20, wait: Duration::from_millis(500) };
/// The same where the past is folded, and there are no timers yet.
const PAST: ReadLimit = ReadLimit { records: 8_000, ..READ };
/// Fetches waiting for a role at most; readers wait when it is full.
const FEED_DEPTH: usize = 16;

/// How a tenure is asked to end by itself, the gentlest first. It is dropped if it does not.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// Nothing new is begun; what runs goes on to its end.
    pub(super) leaving: CancellationToken,
    /// What runs ends at its next occasion.
    pub(super) shutdown: CancellationToken,
    /// What runs ends now.
    pub(super) overdue: CancellationToken,
}

impl Ending {
    /// The first two come by themselves when the process stops.
    pub(super) fn under(stop: &CancellationToken) -> Self {
        Self { leaving: stop.child_token(), shutdown: stop.child_token(), overdue: CancellationToken::new() }
    }
}

/// What goes through one partition's transactor at once.
type Step = (Vec<(Stream, Record)>, Vec<(Partition, Offset)>);

/// The right to decide for some partitions, for as long as nobody else has it.
#[derive(Debug)]
pub(crate) struct Tenure {
    bus: Arc<dyn EventBus>,
    group: &'static str,
    transactors: BTreeMap<i32, Arc<Mutex<Box<dyn Transactor>>>>,
    ending: Ending,
}

impl Tenure {
    pub(super) async fn begin(
        bus: Arc<dyn EventBus>,
        group: &'static str,
        topic: Topic,
        owned: &BTreeSet<i32>,
        ending: Ending,
    ) -> Result<Self, BusError> {
        let mut transactors = BTreeMap::new();
        for number in owned {
            let transactor = retried(|| bus.transactor(group, Partition::of(topic, *number))).await?;
            transactors.insert(*number, Arc::new(Mutex::new(transactor)));
        }
        Ok(Self { bus, group, transactors, ending })
    }

    pub(crate) fn bus(&self) -> &Arc<dyn EventBus> {
        &self.bus
    }

    /// Cancelled when the tenure is to end: it begins nothing new, and ends by itself when nothing runs.
    pub(crate) fn leaving(&self) -> &CancellationToken {
        &self.ending.leaving
    }

    /// Cancelled when the process stops, or there is no more time: the tenure then ends by itself, soon.
    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.ending.shutdown
    }

    /// Cancelled when another instance waits for the partition: what runs is ended at once.
    pub(crate) fn overdue(&self) -> &CancellationToken {
        &self.ending.overdue
    }

    /// The owned partition numbers.
    pub(crate) fn owned(&self) -> impl Iterator<Item = i32> + '_ {
        self.transactors.keys().copied()
    }

    /// Whether decisions about this service are this tenure's.
    pub(crate) fn owns(&self, service: &ServiceId) -> bool {
        self.transactors.contains_key(&self.partition(service))
    }

    fn partition(&self, service: &ServiceId) -> i32 {
        partition_of(service.as_str().as_bytes(), self.bus.partitions())
    }

    /// Appends decided events, each through its service's partition, and advances `positions` with those of the same
    /// partition number, partitions side by side. Answers when all is durable; waits and tries again while the bus is
    /// unavailable. What is tried again carries the same ids, which readers count once.
    pub(crate) async fn append(&self, events: &[Event], positions: &[(Partition, Offset)]) -> Result<(), BusError> {
        let mut steps: BTreeMap<i32, Step> = BTreeMap::new();
        for event in events {
            let number = self.partition(&event.subject);
            steps.entry(number).or_default().0.push((Stream::Events(event.kind().topic()), record(event)));
        }
        for position in positions {
            steps.entry(position.0.number).or_default().1.push(*position);
        }
        let steps = steps.into_iter().map(|(number, step)| async move {
            let Some(transactor) = self.transactors.get(&number) else {
                return Err(BusError::Fenced { partition: Partition::of(Topic::Observations, number) });
            };
            take_step(transactor.lock().await.as_mut(), self.group, step).await
        });
        futures::future::try_join_all(steps).await.map(drop)
    }

    /// Advances positions about which nothing was decided, aside, so that the next decision need not wait for it
    /// unless it is of the same partition. Takes those out of `positions` whose partition has no step under way.
    pub(crate) fn advance(
        &self,
        positions: &mut BTreeMap<Partition, Offset>,
        aside: &mut JoinSet<Result<(), BusError>>,
    ) {
        positions.retain(|partition, at| {
            // Locked here, not in the task: a decision made after this goes after it.
            let transactor = self.transactors.get(&partition.number).map(Arc::clone);
            let Some(Ok(mut transactor)) = transactor.map(Mutex::try_lock_owned) else { return true };
            let (group, step) = (self.group, (Vec::new(), vec![(*partition, *at)]));
            aside.spawn(async move { take_step(transactor.as_mut(), group, step).await });
            false
        });
    }
}

/// Takes one partition's step, again and again while the bus is unavailable.
async fn take_step(
    transactor: &mut dyn Transactor,
    group: &'static str,
    (records, positions): Step,
) -> Result<(), BusError> {
    let mut pause = Duration::from_millis(100);
    loop {
        match transactor.step(records.clone(), &positions).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_transient() => {
                tracing::warn!(group, %error, "decisions can't be appended yet: trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// An event as a record of the bus.
pub(crate) fn record(event: &Event) -> Record {
    Record {
        key: Bytes::copy_from_slice(event.subject.as_str().as_bytes()),
        value: rebound_schemas::encode(event).into(),
        headers: Vec::new(),
    }
}

/// Does a bus call again, with doubling pauses, while the bus is unavailable.
pub(crate) async fn retried<T, F>(mut call: impl FnMut() -> F) -> Result<T, BusError>
where
    F: Future<Output = Result<T, BusError>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match call().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
            result => return result,
        }
    }
}

/// The events of what was read. What doesn't decode is the log writer's to put aside; here it says nothing.
fn decoded<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Vec<Event> {
    deliveries.into_iter().filter_map(|delivery| rebound_schemas::decode(&delivery.record.value).ok()).collect()
}

/// Reads stretches of partitions (from, up to and not including) and hands every event that decodes to `take`: in
/// order within a partition, several partitions side by side, decoded on all cores.
pub(crate) async fn replay(
    bus: &Arc<dyn EventBus>,
    stretches: Vec<(Partition, Offset, Offset)>,
    mut take: impl FnMut(&Event),
) -> Result<(), BusError> {
    let (send, mut events) = mpsc::channel(FEED_DEPTH);
    let mut readers = JoinSet::new();
    for (partition, from, to) in stretches {
        let (bus, send) = (bus.clone(), send.clone());
        readers.spawn(async move {
            let mut at = from;
            while at < to {
                let fetch = retried(|| bus.read(partition, at, PAST)).await?;
                let wanted = fetch.deliveries.iter().filter(|delivery| delivery.offset < to);
                let decoded = decoded(wanted);
                at = fetch.next;
                if send.send(decoded).await.is_err() {
                    break;
                }
            }
            Ok::<(), BusError>(())
        });
    }
    drop(send);
    while let Some(stretch) = events.recv().await {
        stretch.iter().for_each(&mut take);
    }
    while let Some(ended) = readers.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok(())
}

/// One stretch of one partition, decoded.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) partition: Partition,
    pub(crate) events: Vec<Event>,
    /// Where to read on.
    pub(crate) next: Offset,
}

/// Live inputs of several partitions, in order within each. Readers end when this is dropped.
pub(crate) struct Feed {
    inputs: mpsc::Receiver<Result<Input, BusError>>,
    _readers: JoinSet<()>,
}

impl Feed {
    /// Reads each partition on from its offset.
    pub(crate) fn start(bus: &Arc<dyn EventBus>, from: Vec<(Partition, Offset)>) -> Self {
        let (send, inputs) = mpsc::channel(FEED_DEPTH);
        let mut readers = JoinSet::new();
        for (partition, offset) in from {
            readers.spawn(read_on(bus.clone(), partition, offset, send.clone()));
        }
        Self { inputs, _readers: readers }
    }

    /// The next input; waits for it. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Input, BusError> {
        self.inputs.recv().await.unwrap_or(Err(BusError::Closed))
    }
}

async fn read_on(
    bus: Arc<dyn EventBus>,
    partition: Partition,
    mut at: Offset,
    send: mpsc::Sender<Result<Input, BusError>>,
) {
    loop {
        let read: Result<Fetch, BusError> = retried(|| bus.read(partition, at, READ)).await;
        let input = match read {
            Ok(fetch) if fetch.deliveries.is_empty() => {
                at = fetch.next;
                continue;
            }
            Ok(fetch) => {
                at = fetch.next;
                Ok(Input { partition, events: decoded(&fetch.deliveries), next: at })
            }
            Err(error) => Err(error),
        };
        let failed = input.is_err();
        if send.send(input).await.is_err() || failed {
            return;
        }
    }
}
