//! The loop from the bus to the table.
//!
//! ```text
//! readers (one a partition) ──chunks──► pending ──batch──► encode (all cores) ──files──► commit
//!        bounded channel                bounded            one at a time               one at a time
//! ```
//! While one batch is committed, the next is encoded, and a third fills up: that is all the memory there is.
//! Ownership of partition *numbers* comes from the group over the observations topic; whoever owns a number reads it
//! in all three topics. A partition lost is forgotten; should two instances believe they own the same one, the
//! table's positions let only one of them commit.

mod committer;
mod pipeline;
mod reader;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use rebound_schemas::table::{Position, RowBuilder};
use tokio_util::sync::CancellationToken;

use super::encode::{Gap, encode_days, push_gap};
use super::error::LogError;
use super::location::LogLocation;
use super::metrics::LogMetrics;
use super::table::{Advance, Change, LogTable};
use super::upkeep::change_id;
use crate::bus::{BusError, EventBus, Offset, Partition, Stream};
use object_store::ObjectStoreExt as _;

/// Bytes of records after which a batch is committed, by default: a tenth of a second at full speed.
pub const COMMIT_BYTES: usize = 32 << 20;
/// The consumer group of log writers.
pub const GROUP: &str = "log";

/// One commit, for those who measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommitReport {
    /// The table's version.
    pub version: u64,
    /// Events in it.
    pub events: u64,
    /// Bytes of its data files.
    pub bytes: u64,
    /// From the first put to the durable commit.
    pub took: Duration,
}

/// Is told of every commit, on the writer's own task: it should return at once.
pub type CommitObserver = Arc<dyn Fn(&CommitReport) + Send + Sync>;

/// How the log is written.
#[derive(Clone)]
pub struct LogSettings {
    /// Where the table is.
    pub location: LogLocation,
    /// A batch is committed when its oldest record has waited this long.
    pub commit_age: Duration,
    /// A batch is committed when it holds this many bytes. About four times this is held in memory at most.
    pub commit_bytes: usize,
    /// Threads that decode and encode.
    pub workers: usize,
    /// How long a stop waits for the last commit.
    pub drain_within: Duration,
    /// Told of every commit.
    pub on_commit: Option<CommitObserver>,
}

impl LogSettings {
    /// The defaults: commits after 1 s or 32 MiB, as many workers as cores.
    #[must_use]
    pub fn new(location: LogLocation) -> Self {
        Self {
            location,
            commit_age: Duration::from_secs(1),
            commit_bytes: COMMIT_BYTES,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            drain_within: Duration::from_secs(20),
            on_commit: None,
        }
    }
}

impl fmt::Debug for LogSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSettings")
            .field("location", &self.location)
            .field("commit_age", &self.commit_age)
            .field("commit_bytes", &self.commit_bytes)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Writes the log until `shutdown`, then commits what it has read and leaves the group.
///
/// A failing store or bus is waited for, with back-off; another writer's faster commit means reading again. Neither
/// ends it.
///
/// # Errors
/// What needs a person: [`LogError::Recreated`], [`LogError::Overtaken`], [`LogError::AppendOnlyOff`],
/// [`LogError::NotTheLog`], [`LogError::Corrupt`], a wrong setting, a closed bus, or a store that fails while
/// draining.
pub async fn run_log(
    bus: Arc<dyn EventBus>,
    settings: LogSettings,
    metrics: LogMetrics,
    shutdown: CancellationToken,
) -> Result<(), LogError> {
    let mut pause = BackOff::default();
    loop {
        let started = tokio::time::Instant::now();
        let error = match Box::pin(pipeline::session(&bus, &settings, &metrics, &shutdown)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if started.elapsed() > Duration::from_secs(60) {
            pause = BackOff::default();
        }
        match error {
            LogError::Conflict { what } => {
                metrics.conflicts.inc();
                tracing::warn!(what, "another log writer was faster: reading again from where the table stands");
            }
            LogError::Bus(BusError::Fenced { partition }) => {
                tracing::warn!(%partition, "the partition is another log writer's now");
            }
            error if error.is_transient() && !shutdown.is_cancelled() => {
                metrics.retries.inc();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the event log can't be written: trying again"
                );
            }
            error => return Err(error),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause.next()) => {}
        }
    }
}

/// Waits between attempts: 100 ms, doubling to 10 s, up to a quarter more at random.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    attempts: u32,
}

impl BackOff {
    pub(super) fn next(&mut self) -> Duration {
        let base = Duration::from_millis(100) * 2u32.pow(self.attempts.min(7));
        self.attempts += 1;
        base.min(Duration::from_secs(10)).mul_f64(1.0 + rand::random_range(0.0..0.25))
    }
}

/// Goes on past records that retention removed from the bus before they were stored, after
/// [`LogError::Overtaken`]: the loss becomes a row of the log (`log.gap`, `"why":"loss_accepted"`). Answers how many
/// offsets are given up. Nothing is accepted that the bus still holds: `low` must be its oldest offset, or less.
///
/// # Errors
/// The table stands at or beyond `low` already ([`LogError::Conflict`]), or can't be opened or written.
pub async fn accept_loss(location: &LogLocation, partition: Partition, low: Offset) -> Result<i64, LogError> {
    let mut table = LogTable::load(location).await?;
    let app = partition.to_string();
    let Stream::Events(topic) = partition.stream else {
        return Err(LogError::Conflict { what: format!("{partition} holds dead letters, which the log does not") });
    };
    let from = table.state.positions.get(&app).copied().unwrap_or(0);
    if from >= low {
        return Err(LogError::Conflict { what: format!("{partition} stands at {from}: nothing is lost below {low}") });
    }
    let now = Utc::now();
    let mut rows = RowBuilder::new();
    let at = Position { topic, partition: partition.number, offset: from, ingested_at: now.timestamp_micros() };
    push_gap(&mut rows, at, from..low, Gap::LossAccepted);
    let files = encode_days(&rows.finish())?;
    for file in &files {
        let path = object_store::path::Path::from(file.path.as_str());
        let put = table.store().put(&path, file.bytes.clone().into()).await;
        put.map_err(|e| LogError::store("storing a data file", e))?;
    }
    let change = Change {
        adds: files.iter().map(|file| file.add(now.timestamp_millis(), true)).collect(),
        advances: vec![Advance { app, from, to: low }],
        id: change_id(),
        ..Change::default()
    };
    table.commit(&change).await?;
    Ok(low - from)
}
