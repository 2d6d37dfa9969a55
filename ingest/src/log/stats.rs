//! What the log consists of, from the table's own metadata: no data file is read.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::error::LogError;
use super::location::{LogLocation, open_table};
use super::positions;

/// See [`stats`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogStats {
    /// Where it is.
    pub location: String,
    /// The table's version: how often it was committed to.
    pub version: u64,
    /// Data files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows: events, and gaps that stand for offsets without one.
    pub rows: u64,
    /// Bytes a row; `None` while there is none.
    pub bytes_per_event: Option<f64>,
    /// Earliest `occurred_at`.
    pub oldest: Option<DateTime<Utc>>,
    /// Latest `occurred_at`.
    pub newest: Option<DateTime<Utc>>,
    /// Latest `ingested_at`.
    pub newest_ingested: Option<DateTime<Utc>>,
    /// How far each partition is stored, in name order.
    pub partitions: Vec<PartitionPosition>,
}

/// How far a partition is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionPosition {
    /// `observations-3`.
    pub partition: String,
    /// The next offset wanted: everything before it is in the table.
    pub next_offset: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileStats {
    #[serde(default)]
    num_records: u64,
    #[serde(default)]
    min_values: Times,
    #[serde(default)]
    max_values: Times,
}

#[derive(Deserialize, Default)]
struct Times {
    occurred_at: Option<DateTime<Utc>>,
    ingested_at: Option<DateTime<Utc>>,
}

/// Figures of the newest version.
///
/// # Errors
/// There is no log, or it can't be read.
pub async fn stats(location: &LogLocation) -> Result<LogStats, LogError> {
    let table = Box::pin(open_table(location)).await?;
    let snapshot = table.snapshot().map_err(|e| LogError::delta(format!("reading the event log at {location}"), e))?;
    let mut stats = LogStats {
        location: location.to_string(),
        version: snapshot.version(),
        files: 0,
        bytes: 0,
        rows: 0,
        bytes_per_event: None,
        oldest: None,
        newest: None,
        newest_ingested: None,
        partitions: Vec::new(),
    };
    for view in snapshot.log_data().iter() {
        stats.files += 1;
        stats.bytes += u64::try_from(view.size()).unwrap_or_default();
        let Some(file) = view.stats().and_then(|text| serde_json::from_str::<FileStats>(&text).ok()) else { continue };
        stats.rows += file.num_records;
        stats.oldest = [stats.oldest, file.min_values.occurred_at].into_iter().flatten().min();
        stats.newest = stats.newest.max(file.max_values.occurred_at);
        stats.newest_ingested = stats.newest_ingested.max(file.max_values.ingested_at);
    }
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    if stats.rows > 0 {
        stats.bytes_per_event = Some(stats.bytes as f64 / stats.rows as f64);
    }
    let store = table.log_store().object_store(None);
    stats.partitions = positions::read(&store, stats.version)
        .await?
        .into_iter()
        .map(|(partition, next_offset)| PartitionPosition { partition, next_offset })
        .collect();
    Ok(stats)
}
