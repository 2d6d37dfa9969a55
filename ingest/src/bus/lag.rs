//! How far a group is behind a partition: in records and in time, alike on every bus.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{BusError, EventBus, Partition, ReadLimit};

/// How far behind a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Offsets between the group's position and the end: records, plus what transactions leave between them.
    pub offsets: i64,
    /// Age of the oldest record that the group has not read; zero if it has read all.
    pub age: Duration,
}

/// The lag of a group on a partition, at `now`. A group that never committed, or whose position is no longer held,
/// counts from the oldest record.
pub async fn lag(bus: &dyn EventBus, group: &str, partition: Partition, now: DateTime<Utc>) -> Result<Lag, BusError> {
    let ends = bus.watermarks(partition).await?;
    let position = bus.committed(group, partition).await?.unwrap_or(ends.low).max(ends.low);
    if position >= ends.high {
        return Ok(Lag::default());
    }
    let limit = ReadLimit { records: 1, bytes: 1, wait: Duration::from_millis(200) };
    let fetch = bus.read(partition, position, limit).await?;
    let age = match fetch.deliveries.first() {
        Some(oldest) => (now - oldest.ingested_at).to_std().unwrap_or_default(),
        None => Duration::ZERO,
    };
    Ok(Lag { offsets: ends.high - position, age })
}
