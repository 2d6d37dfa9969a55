//! The writer's view of the table: version, positions and live files, kept up to date commit by commit.
//!
//! Commits go straight to the log store, so that their cost does not depend on how long the table's history or how
//! many its files are; delta-rs loads the table, writes checkpoints, and is what everybody else reads with.
//!
//! **Positions.** A Delta application transaction per topic partition (`observations-3`) holds the *next offset
//! wanted*: 1 + the last offset in the table. [`LogTable::commit`] takes an [`Advance`] only from exactly where the
//! table stands:
//!
//! | table's `txn` | the batch's `from` | |
//! |---|---|---|
//! | none | 0 | committed |
//! | n | n | committed |
//! | n | anything else | [`LogError::Conflict`]: drop it, reload, read again |

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake::kernel::transaction::{CommitData, TransactionError};
use deltalake::kernel::{Action, Add, Metadata, Remove, StructType, Transaction};
use deltalake::logstore::{CommitOrBytes, LogStoreRef, get_actions};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use rebound_schemas::table::{PARTITION_COLUMN, table_schema};
use std::sync::Arc;

use super::error::LogError;
use super::location::{LogLocation, open_table};
use super::repair;
use crate::bus::Offset;

/// Properties that the table is made with. Time travel by table version is not what answers "as known at T"
/// (`ingested_at <= T` does), so old commits and tombstones are not kept for long.
const PROPERTIES: [(&str, &str); 5] = [
    ("delta.appendOnly", "true"),
    ("delta.logRetentionDuration", "interval 1 hours"),
    ("delta.deletedFileRetentionDuration", "interval 1 hours"),
    ("delta.checkpointInterval", "100"),
    ("rebound.format", "1"),
];

/// A data file that the table consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveFile {
    /// Relative to the table.
    pub(crate) path: String,
    /// `event_date`.
    pub(crate) day: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Rows, where the statistics say so.
    pub(crate) rows: u64,
    /// When it was written, in milliseconds since 1970.
    pub(crate) modified_ms: i64,
}

/// A partition's position, moved by a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advance {
    /// The partition as [`crate::bus::Partition`] writes it.
    pub(crate) app: String,
    /// Where the table must stand; 0 where it has no position yet.
    pub(crate) from: Offset,
    /// Where it stands afterwards: the next offset wanted.
    pub(crate) to: Offset,
}

/// What is committed together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    /// Data files, already durable.
    pub(crate) adds: Vec<Add>,
    /// Files that the added ones replace, by path; only ever in a change that keeps the data.
    pub(crate) removes: Vec<String>,
    /// Positions.
    pub(crate) advances: Vec<Advance>,
    /// Unlike any other's: tells whether a commit that seemed to fail was ours.
    pub(crate) id: String,
}

/// What the newest version says.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogState {
    /// Its version.
    pub(crate) version: u64,
    /// Next offset wanted, by partition.
    pub(crate) positions: BTreeMap<String, Offset>,
    /// Data files by path.
    pub(crate) files: BTreeMap<String, LiveFile>,
}

/// The table, open for writing.
pub(crate) struct LogTable {
    location: LogLocation,
    log_store: LogStoreRef,
    store: Arc<dyn ObjectStore>,
    pub(crate) state: LogState,
}

impl std::fmt::Debug for LogTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogTable").field("location", &self.location).field("version", &self.state.version).finish()
    }
}

/// Refuses a table that is not an event log, or that was made mutable.
pub(super) fn guard(location: &LogLocation, table: &DeltaTable) -> Result<(), LogError> {
    let snapshot = table.snapshot().map_err(|e| LogError::delta(format!("opening the event log at {location}"), e))?;
    check_append_only(location, snapshot.metadata())?;
    let wanted = kernel_schema();
    let found = snapshot.schema();
    let foreign = |reason: String| LogError::NotTheLog { location: location.to_string(), reason };
    if *snapshot.metadata().partition_columns() != [PARTITION_COLUMN] {
        return Err(foreign(format!("it is not partitioned by {PARTITION_COLUMN}")));
    }
    for field in wanted.fields() {
        match found.field(field.name()) {
            None => return Err(foreign(format!("it has no column {:?}", field.name()))),
            Some(other) if other.data_type() != field.data_type() => {
                return Err(foreign(format!("its column {:?} is {}", field.name(), other.data_type())));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_append_only(location: &LogLocation, metadata: &Metadata) -> Result<(), LogError> {
    match metadata.configuration().get("delta.appendOnly").map(String::as_str) {
        Some("true") => Ok(()),
        _ => Err(LogError::AppendOnlyOff { location: location.to_string() }),
    }
}

fn kernel_schema() -> StructType {
    table_schema().as_ref().try_into_kernel().expect("the log's columns are all of Delta's primitive types")
}

impl LogTable {
    /// Opens the table for writing; makes it where there is none, and sets torn files aside first.
    pub(crate) async fn open(location: &LogLocation) -> Result<Self, LogError> {
        let log_store = location.log_store()?;
        let store = log_store.object_store(None);
        for torn in repair::quarantine(&store).await? {
            tracing::error!(
                file = torn.file,
                moved_to = torn.moved_to,
                reason = torn.reason,
                "a torn file of the event log was set aside; what it held is read from the bus again"
            );
        }
        let exists = log_store
            .is_delta_table_location()
            .await
            .map_err(|e| LogError::delta(format!("looking for the event log at {location}"), e))?;
        if !exists {
            create(location, &log_store).await?;
        }
        Self::load(location).await
    }

    /// Opens an existing table.
    pub(crate) async fn load(location: &LogLocation) -> Result<Self, LogError> {
        let table = open_table(location).await?;
        let log_store = table.log_store();
        let store = log_store.object_store(None);
        let reading = |e| LogError::delta(format!("reading the event log at {location}"), e);
        let snapshot = table.snapshot().map_err(reading)?;
        let mut files = BTreeMap::new();
        for view in snapshot.log_data().iter() {
            let file = LiveFile {
                path: view.path().into_owned(),
                day: view.partition_values_map().remove(PARTITION_COLUMN).flatten().unwrap_or_default(),
                size: u64::try_from(view.size()).unwrap_or_default(),
                rows: view.num_records().map_or(0, |rows| rows as u64),
                modified_ms: view.modification_time(),
            };
            files.insert(file.path.clone(), file);
        }
        let version = snapshot.version();
        let positions = super::positions::read(&store, version).await?;
        Ok(Self { location: location.clone(), log_store, store, state: LogState { version, positions, files } })
    }

    /// The store, rooted at the table.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where it is.
    pub(crate) fn location(&self) -> &LogLocation {
        &self.location
    }

    /// Commits a change, behind whatever others committed meanwhile. When it answers, the commit is durable.
    /// Safe to call again with the same change after an error.
    pub(crate) async fn commit(&mut self, change: &Change) -> Result<u64, LogError> {
        loop {
            self.check(change)?;
            let bytes = self.encode(change)?;
            let version = self.state.version + 1;
            // The stores in use ignore the operation's id.
            let written =
                self.log_store.write_commit_entry(version, CommitOrBytes::LogBytes(bytes), Default::default()).await;
            match written {
                Ok(()) => {
                    self.apply_own(change);
                    self.state.version = version;
                    return Ok(version);
                }
                Err(TransactionError::VersionAlreadyExists(_)) => {
                    if self.catch_up(Some(&change.id)).await? {
                        return Ok(self.state.version);
                    }
                }
                Err(e) => return Err(LogError::delta(format!("commit {version} to the event log"), e.into())),
            }
        }
    }

    /// Reads what others committed since. Tells whether a commit with the given id was among it.
    pub(crate) async fn catch_up(&mut self, own: Option<&str>) -> Result<bool, LogError> {
        let mut found = false;
        loop {
            let version = self.state.version + 1;
            let reading = |e| LogError::delta(format!("reading commit {version} of the event log"), e);
            let Some(bytes) = self.log_store.read_commit_entry(version).await.map_err(reading)? else {
                return Ok(found);
            };
            found |= self.apply(version, &bytes, own)?;
        }
    }

    fn apply(&mut self, version: u64, bytes: &Bytes, own: Option<&str>) -> Result<bool, LogError> {
        let actions = get_actions(version, bytes)
            .map_err(|e| LogError::Corrupt { file: commit_file(version).to_string(), reason: e.to_string() })?;
        let mut found = false;
        for action in actions {
            match action {
                Action::Add(add) => {
                    let file = LiveFile::of(&add);
                    self.state.files.insert(file.path.clone(), file);
                }
                Action::Remove(remove) => {
                    self.state.files.remove(&remove.path);
                }
                Action::Txn(txn) => {
                    self.state.positions.insert(txn.app_id, txn.version);
                }
                Action::Metadata(metadata) => check_append_only(&self.location, &metadata)?,
                Action::CommitInfo(info) => {
                    let id = info.info.get(COMMIT_ID).and_then(|id| id.as_str());
                    found |= own.is_some() && id == own;
                }
                Action::Protocol(_) | Action::Cdc(_) | Action::DomainMetadata(_) => {}
            }
        }
        self.state.version = version;
        Ok(found)
    }

    fn check(&self, change: &Change) -> Result<(), LogError> {
        for advance in &change.advances {
            let stands = self.state.positions.get(&advance.app).copied().unwrap_or(0);
            if stands != advance.from || advance.to <= advance.from {
                let what = format!("{} stands at offset {stands}, the batch goes from {}", advance.app, advance.from);
                return Err(LogError::Conflict { what });
            }
        }
        match change.removes.iter().find(|path| !self.state.files.contains_key(*path)) {
            Some(path) => Err(LogError::Conflict { what: format!("the file {path} was replaced already") }),
            None => Ok(()),
        }
    }

    fn encode(&self, change: &Change) -> Result<Bytes, LogError> {
        let now = Utc::now().timestamp_millis();
        let mut actions: Vec<Action> = Vec::new();
        for path in &change.removes {
            let file = &self.state.files[path];
            actions.push(Action::Remove(Remove {
                path: path.clone(),
                data_change: false,
                deletion_timestamp: Some(now),
                extended_file_metadata: Some(true),
                partition_values: Some([(PARTITION_COLUMN.to_owned(), Some(file.day.clone()))].into()),
                size: i64::try_from(file.size).ok(),
                ..Remove::default()
            }));
        }
        actions.extend(change.adds.iter().cloned().map(Action::Add));
        let txns: Vec<_> =
            change.advances.iter().map(|a| Transaction::new_with_last_update(&a.app, a.to, Some(now))).collect();
        let operation = if change.removes.is_empty() {
            DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: Some(vec![PARTITION_COLUMN.to_owned()]),
                predicate: None,
            }
        } else {
            DeltaOperation::Optimize { predicate: None, target_size: 0 }
        };
        // One line an action, one more for the commit's own: a commit cut at the end of a line is known as torn.
        let lines = actions.len() + txns.len() + 1;
        let info = [(COMMIT_ID.to_owned(), change.id.clone().into()), (COMMIT_LINES.to_owned(), lines.into())];
        CommitData::new(actions, operation, info.into(), txns)
            .get_bytes()
            .map_err(|e| LogError::delta("encoding a commit", e.into()))
    }

    fn apply_own(&mut self, change: &Change) {
        for path in &change.removes {
            self.state.files.remove(path);
        }
        for add in &change.adds {
            let file = LiveFile::of(add);
            self.state.files.insert(file.path.clone(), file);
        }
        for advance in &change.advances {
            self.state.positions.insert(advance.app.clone(), advance.to);
        }
    }
}

/// Key of a change's id in its commit's information.
const COMMIT_ID: &str = "rebound.commit";
/// Key of the number of lines of a commit.
pub(super) const COMMIT_LINES: &str = "rebound.lines";

/// A commit's file, relative to the table.
pub(super) fn commit_file(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

impl LiveFile {
    fn of(add: &Add) -> Self {
        #[derive(serde::Deserialize)]
        struct Stats {
            #[serde(rename = "numRecords")]
            num_records: Option<u64>,
        }
        let stats = add.stats.as_deref().and_then(|text| serde_json::from_str::<Stats>(text).ok());
        Self {
            path: add.path.clone(),
            day: add.partition_values.get(PARTITION_COLUMN).cloned().flatten().unwrap_or_default(),
            size: u64::try_from(add.size).unwrap_or_default(),
            rows: stats.and_then(|s| s.num_records).unwrap_or_default(),
            modified_ms: add.modification_time,
        }
    }
}

async fn create(location: &LogLocation, log_store: &LogStoreRef) -> Result<(), LogError> {
    let schema = kernel_schema();
    let created = CreateBuilder::new()
        .with_log_store(log_store.clone())
        .with_table_name("events")
        .with_comment("Rebound's event log: append-only, one row an event")
        .with_columns(schema.fields().cloned())
        .with_partition_columns([PARTITION_COLUMN])
        .with_configuration(PROPERTIES.map(|(key, value)| (key, Some(value))))
        .with_raise_if_key_not_exists(false)
        .with_save_mode(SaveMode::Ignore)
        .await;
    match created {
        Ok(_) | Err(deltalake::DeltaTableError::VersionAlreadyExists(_)) => Ok(()),
        Err(e) => Err(LogError::delta(format!("making the event log at {location}"), e)),
    }
}

/// The partition column's value for a day since 1970.
pub(super) fn day_text(day: i32) -> String {
    let date = NaiveDate::default() + chrono::TimeDelta::days(i64::from(day));
    date.format("%Y-%m-%d").to_string()
}

/// A time of a file's statistics.
pub(super) fn stats_time(micros: i64) -> Option<String> {
    Some(DateTime::from_timestamp_micros(micros)?.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

/// The bytes of a file of the table.
pub(super) async fn read_file(store: &Arc<dyn ObjectStore>, path: &str) -> Result<Bytes, LogError> {
    let reading = |e| LogError::store(format!("reading {path} of the event log"), e);
    store.get(&Path::from(path)).await.map_err(reading)?.bytes().await.map_err(reading)
}
