//! One task a partition and topic: reads on from where the table stands, chunk by chunk.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::encode::{Chunk, Gap};
use super::super::error::LogError;
use super::BackOff;
use crate::bus::{BusError, EventBus, Offset, Partition, ReadLimit};
use rebound_schemas::Topic;

/// Limits of one read, for as many partitions as may each have one in hand: enough to be worth a hand-over, little
/// enough that all of them together are no more than a batch.
pub(super) fn limit(commit_bytes: usize, partitions: usize) -> ReadLimit {
    let bytes = (commit_bytes / partitions.max(1)).clamp(256 << 10, 4 << 20);
    ReadLimit { records: 16 * 1024, bytes, wait: Duration::from_millis(500) }
}

/// What a reader sends: the assignment that it reads for, and a chunk or why there is none.
pub(super) type Sent = (u64, Result<Chunk, LogError>);

/// Reads a partition until it is stopped.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) bus: Arc<dyn EventBus>,
    pub(super) topic: Topic,
    pub(super) number: i32,
    /// Where the table stands; `None` when it has nothing of the partition.
    pub(super) stored: Option<Offset>,
    /// How much is read at a time.
    pub(super) limit: ReadLimit,
    /// Tells chunks of an older assignment of the same partition apart.
    pub(super) assignment: u64,
}

impl Reader {
    pub(super) async fn run(self, to: mpsc::Sender<Sent>, stop: CancellationToken) {
        let assignment = self.assignment;
        let work = async {
            if let Err(error) = self.read(&to).await {
                let _ = to.send((assignment, Err(error))).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    async fn read(&self, to: &mpsc::Sender<Sent>) -> Result<(), LogError> {
        let partition = Partition::of(self.topic, self.number);
        let mut pause = BackOff::default();
        let low = loop {
            match check(partition, self.stored, &self.bus).await {
                Err(error) if error.is_transient() => tokio::time::sleep(pause.next()).await,
                other => break other?,
            }
        };
        let mut from = self.stored.unwrap_or(0);
        // What retention removed before the log began is one gap, so that the table's offsets begin at 0.
        let mut at = from.max(low);
        let mut gap = if at > from { Gap::BeforeTheLog } else { Gap::NoRecord };
        pause = BackOff::default();
        loop {
            let fetch = match self.bus.read(partition, at, self.limit).await {
                Ok(fetch) => fetch,
                Err(BusError::OutOfRange { wanted, low, high, .. }) => {
                    return Err(out_of_range(partition, wanted, low, high));
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%partition, error = &error as &dyn std::error::Error, "reading the bus failed: trying again");
                    tokio::time::sleep(pause.next()).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            pause = BackOff::default();
            let next = fetch.next.max(fetch.deliveries.last().map_or(at, |d| d.offset + 1));
            if next == from {
                continue;
            }
            let chunk = Chunk {
                topic: self.topic,
                number: self.number,
                from,
                next,
                deliveries: fetch.deliveries,
                gap,
                read_at: Utc::now().timestamp_micros(),
            };
            if to.send((self.assignment, Ok(chunk))).await.is_err() {
                return Ok(());
            }
            (from, at, gap) = (next, next, Gap::NoRecord);
        }
    }
}

/// Compares where the table stands with what the bus holds; answers the oldest offset held.
///
/// | table | bus | |
/// |---|---|---|
/// | nothing | low..high | from low; 0..low becomes a gap |
/// | n | low ≤ n ≤ high | from n |
/// | n | n > high | [`LogError::Recreated`] |
/// | n | n < low | [`LogError::Overtaken`] |
async fn check(partition: Partition, stored: Option<Offset>, bus: &Arc<dyn EventBus>) -> Result<Offset, LogError> {
    let marks = bus.watermarks(partition).await?;
    match stored {
        Some(stored) if stored > marks.high => Err(LogError::Recreated { partition, stored, high: marks.high }),
        Some(stored) if stored < marks.low => Err(LogError::Overtaken { partition, stored, low: marks.low }),
        Some(_) | None => Ok(marks.low),
    }
}

fn out_of_range(partition: Partition, stored: Offset, low: Offset, high: Offset) -> LogError {
    if stored < low {
        LogError::Overtaken { partition, stored, low }
    } else {
        LogError::Recreated { partition, stored, high }
    }
}
