//! Why a query has no answer, in words for whoever asked.

use std::time::Duration;

use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;
use rebound_schemas::table::ReadError;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// There is no event log.
    #[error(
        "there is no event log at {location} yet: start a log writer (rebound up, or rebound run log) first, or name its folder (--data DIR)"
    )]
    Absent {
        /// Where it should be.
        location: String,
    },
    /// The event log is not readable.
    #[error("the event log at {location} can't be opened: {reason}")]
    Open {
        /// Where it should be.
        location: String,
        /// What was found, and what to do.
        reason: String,
    },
    /// The event log was there and is no longer readable.
    #[error("the event log can't be read: {0}")]
    Log(#[source] DeltaTableError),
    /// The table is not an event log.
    #[error("the table is not an event log of this version: {0}")]
    Rows(#[source] ReadError),
    /// The statement may not run.
    #[error("{0}")]
    Refused(String),
    /// The statement is not SQL, or names what does not exist.
    #[error("{0}")]
    Invalid(String),
    /// It took too long.
    #[error("the query was stopped after {}: narrow it down, or raise [sql] timeout", humantime(*.0))]
    Timeout(Duration),
    /// It needed too much memory.
    #[error(
        "the query needs more than the {limit} bytes of memory that SQL may use: select fewer columns, aggregate, or raise [sql] memory"
    )]
    Memory {
        /// The limit in bytes.
        limit: usize,
    },
    /// It failed while running.
    #[error("the query failed: {0}")]
    Execution(#[source] DataFusionError),
}

fn humantime(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
