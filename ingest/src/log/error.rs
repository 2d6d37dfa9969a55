//! What can go wrong with the event log, each with what happened, where, and how to go on.

use deltalake::DeltaTableError;

use super::store::Located;
use crate::bus::{BusError, Offset, Partition};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The location is neither a path nor a URL that can hold the log.
    #[error("{text:?} can't hold the event log: {reason}; give a local path or s3://bucket/prefix")]
    Location {
        /// What was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no table.
    #[error("there is no event log at {location} yet: start a log writer (rebound up, or rebound run log) first")]
    Absent {
        /// Where.
        location: String,
    },
    /// The table is somebody else's.
    #[error("the table at {location} is not an event log: {reason}; point [log] at another location")]
    NotTheLog {
        /// Where.
        location: String,
        /// What differs.
        reason: String,
    },
    /// Somebody made the log mutable.
    #[error(
        "the event log at {location} is no longer append-only: find out who changed it and what was altered, then set the table property delta.appendOnly to true again"
    )]
    AppendOnlyOff {
        /// Where.
        location: String,
    },
    /// The table ends where the bus has not been yet.
    #[error(
        "{partition}: the event log ends at offset {stored}, the bus at {high}: the topic was deleted and made anew, or the bus lost records. Nothing is skipped or overwritten. Restore the topic; or keep this log as it is and point [log] at a new location (or the bus at a new topic prefix)"
    )]
    Recreated {
        /// Which partition.
        partition: Partition,
        /// The next offset that the table wants.
        stored: Offset,
        /// One past the newest record of the bus.
        high: Offset,
    },
    /// The bus dropped records before they were stored.
    #[error(
        "{partition}: the event log wants offset {stored}, the oldest that the bus still holds is {low}: retention removed {} records before they were stored. Restore them; or accept the loss, which is recorded in the log, with: rebound log accept-loss {partition} {low}",
        low - stored
    )]
    Overtaken {
        /// Which partition.
        partition: Partition,
        /// The next offset that the table wants.
        stored: Offset,
        /// The oldest offset held.
        low: Offset,
    },
    /// Another writer committed the same offsets or files first. The writer reloads and goes on by itself.
    #[error("another writer was faster: {what}")]
    Conflict {
        /// What was committed already.
        what: String,
    },
    /// A file of the table's own log can't be read.
    #[error(
        "{file} is corrupt: {reason}. Only a torn newest commit or checkpoint is set aside by itself; restore this file from a backup"
    )]
    Corrupt {
        /// Which, relative to the table.
        file: String,
        /// What was found.
        reason: String,
    },
    /// The newest commit is torn, and there was no writer since.
    #[error(
        "{file} is torn: {reason}. A log writer (rebound up, or rebound run log) sets it aside when it starts, and reads what it held from the bus again"
    )]
    Torn {
        /// Which, relative to the table.
        file: String,
        /// What was found.
        reason: String,
    },
    /// A data file can't be read.
    #[error("the data file {file} can't be read")]
    Parquet {
        /// Which, relative to the table.
        file: String,
        /// What Parquet said.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A data file does not hold the log's columns.
    #[error("the data file {file} does not hold the event log's columns")]
    Columns {
        /// Which.
        file: String,
        /// What differs.
        #[source]
        source: rebound_schemas::table::ReadError,
    },
    /// No room for the log.
    #[error("the disk that holds the event log is full: {reason}; nothing is lost, storing goes on when there is room")]
    DiskFull {
        /// What the system said.
        reason: String,
    },
    /// The store failed.
    #[error("{what} failed")]
    Store {
        /// What was being done.
        what: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The table format's library failed.
    #[error("{what} failed")]
    Delta {
        /// What was being done.
        what: String,
        /// What it said.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// The bus failed.
    #[error("the bus failed while the log was written")]
    Bus(#[from] BusError),
    /// A worker thread panicked: a broken invariant, which the panic's message names.
    #[error("a worker of the log writer panicked while {what}")]
    Panicked {
        /// What it was doing.
        what: &'static str,
    },
}

impl LogError {
    pub(super) fn store(what: impl Into<String>, source: object_store::Error) -> Self {
        match full(&source) {
            Some(reason) => Self::DiskFull { reason },
            None => Self::Store { what: what.into(), source },
        }
    }

    pub(super) fn delta(what: impl Into<String>, source: DeltaTableError) -> Self {
        match source {
            DeltaTableError::ObjectStore { source } => Self::store(what, source),
            source => match full(&source) {
                Some(reason) => Self::DiskFull { reason },
                None => Self::Delta { what: what.into(), source: Box::new(source) },
            },
        }
    }

    /// Whether the same may succeed later without anybody doing anything to the log.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::Store { .. } => true,
            Self::Bus(error) => error.is_transient(),
            _ => false,
        }
    }
}

/// Whether an error's chain ends in "no space left on device".
fn full(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error
            .downcast_ref::<std::io::Error>()
            .or_else(|| error.downcast_ref::<Located>().map(|located| &located.source));
        if io.is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
        {
            return Some(error.to_string());
        }
        next = error.source();
    }
    None
}
