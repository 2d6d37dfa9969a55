//! History from elsewhere: files of incidents and of probe results, turned into events.
//!
//! Reading order: [`Mapping`] says which column is what (by flags, a mapping file or a [`Preset`]); `source` reads
//! rows from CSV, NDJSON, JSON and Atom; `times` and `words` understand what stands in the cells; [`Incidents`] and
//! [`Probes`] turn rows into events. All of it is pure but for reading the file; putting events on the bus is the
//! caller's.
//!
//! **Imported again, nothing changes.** An incident's id and its events' ids follow from the source's name and the
//! row's id. What is there already is left out; what has changed since becomes a correction, so that both figures
//! stay known. **A bad row is named, with its line and its fault, and kept**; the good ones go in.

mod atom;
mod incidents;
mod mapping;
mod probes;
mod rejects;
mod source;
mod times;
mod words;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use incidents::{Figure, Incidents, Known};
pub use mapping::{Column, Mapping, Preset};
pub use probes::Probes;
pub use rejects::Rejects;
pub use source::{FileFormat, Line, Row, Rows};
pub use times::{Clock, DateOrder};
pub use words::Services;

use chrono::{DateTime, Utc};
use rebound_schemas::Event;

use crate::intake::{Rejection, Rules};

/// Longest row accepted, in bytes.
pub const MAX_ROW_BYTES: usize = 1024 * 1024;
/// Largest JSON or Atom document accepted, in bytes: it is held as a whole. NDJSON and CSV have no such limit.
pub const MAX_DOCUMENT_BYTES: u64 = 512 * 1024 * 1024;

/// Why a file can't be imported at all.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file can't be read.
    #[error("{file} can't be read")]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its name does not tell what it is.
    #[error("{file}: what kind of file is it? give --format csv, tsv, ndjson, json or atom")]
    Format {
        /// Which.
        file: PathBuf,
    },
    /// It holds nothing.
    #[error("{file} holds no rows{hint}")]
    Empty {
        /// Which.
        file: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// It is not what it should be.
    #[error("{file}{}: {message}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// Where, from 1.
        line: Option<u64>,
        /// What is wrong and what to do.
        message: String,
    },
    /// A column that is asked for, or needed, is not there.
    #[error("{file} has no column for {what}: {hint}")]
    Column {
        /// Which.
        file: PathBuf,
        /// What the column would have told.
        what: &'static str,
        /// What to write instead.
        hint: String,
    },
    /// The mapping is wrong.
    #[error("{0}")]
    Mapping(String),
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Events that were not there before.
    New(Vec<Event>),
    /// It was there already, as it is.
    Unchanged,
    /// It was there already and has changed since: what restates it.
    Restated(Vec<Event>),
}

/// What is worth saying about rows that went in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Began and ended at the same time.
    pub zero_length: u64,
    /// Still open.
    pub open: u64,
    /// The same row twice in the file.
    pub repeated: u64,
    /// Local times that a clock change makes two of: the earlier was taken.
    pub ambiguous_times: u64,
    /// Severities that are no known word, taken as `warning`.
    pub unknown_severities: std::collections::BTreeMap<String, u64>,
}

/// Whether an event may come from outside, by the rules of the intake.
fn check(event: &Event, now: DateTime<Utc>) -> Result<(), String> {
    let rejected = |rejection: Rejection| format!("{}: expected {}", rejection.message, rejection.expected);
    Rules::default().check(event, now).map_err(rejected)
}
