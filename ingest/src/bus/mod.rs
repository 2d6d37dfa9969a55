//! The bus: an append-only log a topic partition, that roles read from and append to.
//!
//! [`EventBus`] is what the rest of Rebound knows; [`embedded`] (durable, one process) and [`kafka`] implement it,
//! and one conformance suite (`conformance`, among the tests) holds both to the same promises:
//!
//! 1. **Acknowledged means durable.** When `append` answers, the records are synced (embedded) or replicated as
//!    `acks=all` says (Kafka).
//! 2. **Order.** Records of one partition are read in offset order; offsets only grow, gaps are possible (Kafka's
//!    transaction markers), and a record never changes.
//! 3. **Atomic step.** [`Transactor::step`] makes appended records and an advanced position visible together or
//!    not at all, and only while the caller owns the partition: a zombie's step answers [`BusError::Fenced`].
//! 4. **Committed data only.** What an aborted step appended is never read.
//! 5. **Ownership.** Within a group, a partition has at most one owner a generation; [`Membership`] tells of
//!    gains and losses, and whoever lost a partition must forget what it read but did not commit.
//!
//! Left out on purpose: filtering, schemas, retries above the client's own. A bus moves bytes.

pub mod embedded;
pub mod kafka;
mod lag;
mod partitioner;

#[cfg(test)]
mod conformance;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rebound_schemas::Topic;

pub use lag::{Lag, lag};
pub use partitioner::partition_of;

/// Largest record that a bus takes: key, value and headers together, in bytes.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Position of a record within its partition.
pub type Offset = i64;

/// A topic or its dead-letter companion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Events.
    Events(Topic),
    /// What could not be decoded from that topic (`<topic>.dlq`).
    DeadLetters(Topic),
}

impl Stream {
    /// Topic name behind the configured prefix: `<prefix>.observations`, `<prefix>.observations.dlq`.
    #[must_use]
    pub fn name(self, prefix: &str) -> String {
        match self {
            Self::Events(topic) => format!("{prefix}.{}", topic.as_str()),
            Self::DeadLetters(topic) => format!("{prefix}.{}.dlq", topic.as_str()),
        }
    }
}

/// One partition of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The stream.
    pub stream: Stream,
    /// From 0.
    pub number: i32,
}

impl Partition {
    /// Partition `number` of a topic's events.
    #[must_use]
    pub fn of(topic: Topic, number: i32) -> Self {
        Self { stream: Stream::Events(topic), number }
    }
}

impl fmt::Display for Partition {
    /// `observations-3`, `observations.dlq-0`: also the Delta application id of the partition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream {
            Stream::Events(topic) => write!(f, "{}-{}", topic.as_str(), self.number),
            Stream::DeadLetters(topic) => write!(f, "{}.dlq-{}", topic.as_str(), self.number),
        }
    }
}

/// What is appended: the value is the event's JSON, the key its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition; equal keys, equal partition, in every topic.
    pub key: Bytes,
    /// The event, as CloudEvents JSON (structured), or its bare payload with `ce_*` headers (binary).
    pub value: Bytes,
    /// Names are lower case.
    pub headers: Vec<(String, Bytes)>,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it stands.
    pub offset: Offset,
    /// When the pipeline took it in, to the millisecond.
    pub ingested_at: DateTime<Utc>,
    /// What was appended. An empty key is possible when another producer wrote it.
    pub record: Record,
}

/// A stretch of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetch {
    /// In offset order; empty if nothing came within the wait.
    pub deliveries: Vec<Delivery>,
    /// Where to read on: past the last delivery, and past anything that holds no record (transaction markers).
    pub next: Offset,
}

/// First and last readable positions of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Offset of the oldest record still held.
    pub low: Offset,
    /// One past the newest committed record.
    pub high: Offset,
}

/// A change of what this member owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// These partition numbers are this member's from now on.
    Gained {
        /// Grows with every change; work tagged with an older one is void for the partitions lost since.
        generation: u64,
        /// Partition numbers of the joined topic.
        partitions: Vec<i32>,
    },
    /// These are no longer.
    Lost {
        /// See `Gained`.
        generation: u64,
        /// Partition numbers of the joined topic.
        partitions: Vec<i32>,
        /// They may be another member's already, since this one was taken for dead. Otherwise nobody gets them before
        /// [`Membership::let_go`], or the end of the time that was asked for when joining.
        taken: bool,
    },
}

/// Why the bus did not do it. Normal flow (nothing to read, a rebalance) is a value, not an error.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Another instance owns the partition now; forget what was not committed.
    #[error("{partition} is owned by another instance now")]
    Fenced {
        /// Which partition.
        partition: Partition,
    },
    /// The wanted offset is no longer, or not yet, there: the topic was recreated, or retention overtook a reader.
    #[error(
        "{partition}: offset {wanted} is outside {low}..={high}: the topic was recreated or its retention overtook this reader"
    )]
    OutOfRange {
        /// Which partition.
        partition: Partition,
        /// What was asked for.
        wanted: Offset,
        /// Oldest offset held.
        low: Offset,
        /// One past the newest.
        high: Offset,
    },
    /// A record is larger than the bus takes.
    #[error("a record of {bytes} bytes is larger than the {limit} that the bus takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The bus can't be reached, or not now: worth trying again.
    #[error("the bus is unavailable: {reason}")]
    Unavailable {
        /// What the client said, secrets removed.
        reason: String,
    },
    /// The disk is full: appending is refused, reading goes on.
    #[error("the disk that holds the bus ({path}) is full")]
    DiskFull {
        /// Where.
        path: String,
    },
    /// A setting is wrong: trying again won't help.
    #[error("{0}")]
    Configuration(String),
    /// Bytes on disk are not what was written.
    #[error("the bus at {path} is corrupt: {reason}")]
    Corrupt {
        /// Where.
        path: String,
        /// What was found.
        reason: String,
    },
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
}

impl BusError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::DiskFull { .. })
    }
}

/// Limits of one read.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// Records at most.
    pub records: usize,
    /// Bytes of values at most; one record is always given, however large.
    pub bytes: usize,
    /// How long to wait when there is nothing.
    pub wait: Duration,
}

/// An append-only log a topic partition, with consumer groups. See the module for its promises.
#[async_trait]
pub trait EventBus: Send + Sync + fmt::Debug + 'static {
    /// How many partitions every topic has. The partition number of a key is the same in all topics.
    fn partitions(&self) -> i32;

    /// Appends records, each to its key's partition; answers where each stands, in the order given, once all are
    /// durable. On an error some may have been appended: append them again, readers count an event once.
    async fn append(&self, stream: Stream, records: Vec<Record>) -> Result<Vec<(Partition, Offset)>, BusError>;

    /// Reads on from `from`, at the latest when `limit.wait` is over. Reading ahead of the end waits; reading
    /// before the oldest or beyond the newest record is [`BusError::OutOfRange`].
    async fn read(&self, partition: Partition, from: Offset, limit: ReadLimit) -> Result<Fetch, BusError>;

    /// The readable positions of a partition.
    async fn watermarks(&self, partition: Partition) -> Result<Watermarks, BusError>;

    /// The offset of the first record taken in at or after `time`; the end if there is none.
    async fn offset_at(&self, partition: Partition, time: DateTime<Utc>) -> Result<Offset, BusError>;

    /// Where a group stands: the next offset it wants; `None` if it never committed.
    async fn committed(&self, group: &str, partition: Partition) -> Result<Option<Offset>, BusError>;

    /// Notes where a group stands, outside of any step. A hint for lag and restarts, where the truth is elsewhere.
    async fn commit(&self, group: &str, positions: &[(Partition, Offset)]) -> Result<(), BusError>;

    /// Joins a group over a topic: partitions are shared out among the group's members. A partition that is to go to
    /// another member is this one's until it lets go of it, for `patience` at most.
    async fn join(&self, group: &str, topic: Topic, patience: Duration) -> Result<Box<dyn Membership>, BusError>;

    /// Takes over decisions for a partition of a group: fences every earlier transactor of the same two, wherever
    /// it runs, and aborts what it left open.
    async fn transactor(&self, group: &str, partition: Partition) -> Result<Box<dyn Transactor>, BusError>;

    /// Stops taking appends, waits for those under way, and closes. Later calls answer [`BusError::Closed`].
    async fn close(&self) -> Result<(), BusError>;
}

/// Membership of a group. Dropping it leaves the group.
#[async_trait]
pub trait Membership: Send + fmt::Debug {
    /// Waits for the next change; a member that waits for another to leave hears nothing until then. Cancel-safe.
    /// A member whose process does not run for the session's time-out is taken for dead, and its partitions go to
    /// others; a member whose caller merely does not listen keeps them.
    async fn changed(&mut self) -> Result<Ownership, BusError>;

    /// What was lost at this generation is done with: it may go to others now. Where nothing is ever lost, nobody waits.
    fn let_go(&mut self, _generation: u64) {}

    /// Leaves the group now, so that others need not wait for a time-out.
    async fn leave(self: Box<Self>);
}

/// Exclusive right to decide for one partition.
#[async_trait]
pub trait Transactor: Send + fmt::Debug {
    /// Appends records to event streams and advances the group's positions, together or not at all.
    /// Answers where each record stands, in the order given. The records show to readers at once (embedded), or a
    /// moment later (Kafka). After [`BusError::Fenced`] the transactor is of no more use; nor is it when the caller
    /// stopped waiting for a step, or a step's outcome is not known: take a new one, and go on from what is committed.
    async fn step(
        &mut self,
        records: Vec<(Stream, Record)>,
        positions: &[(Partition, Offset)],
    ) -> Result<Vec<(Partition, Offset)>, BusError>;
}
