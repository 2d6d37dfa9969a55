//! Kept projections on disk: a folder of Parquet files that never change, and one small file that says which of them
//! count.
//!
//! A file is synced before the manifest names it, and the manifest is replaced in one step: whoever is killed in
//! between leaves files that nothing names, which the next writer removes. Readers that still hold an older manifest
//! find its files for [`GRACE`].

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::error::DataFusionError;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};

use super::facts::{Reach, hash};
use super::fold::{TABLES, schema};
use crate::session::SqlError;

/// Raised when what is kept changes its meaning.
const FORMAT: u32 = 1;
/// Files that nothing names any more are left for readers this long.
const GRACE: Duration = Duration::from_secs(600);
/// Rows of a row group: enough of them that several threads share a table.
const GROUP_ROWS: usize = 128 * 1024;
const MANIFEST: &str = "projections.json";

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRef {
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// What is kept, and of which log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    /// Digest of the tables' columns.
    columns: i64,
    /// The log table's id: a log that was made anew has another.
    pub(super) log: String,
    /// The version of the log that is reflected.
    pub(super) version: u64,
    /// The plan that tiers and objectives come from.
    pub(super) plan: Option<String>,
    pub(super) written_at: DateTime<Utc>,
    /// Data files of the log that were taken in.
    pub(super) files: Vec<String>,
    pub(super) reach: Reach,
    pub(super) orphans: Vec<i64>,
    pub(super) unreadable: usize,
    /// Folded in one go, by table; `facts` too.
    pub(super) base: BTreeMap<String, Vec<FileRef>>,
    /// What was folded anew since, which counts instead.
    pub(super) delta: BTreeMap<String, FileRef>,
}

impl Manifest {
    pub(super) fn new(log: String, version: u64, plan: Option<String>) -> Self {
        Self {
            format: FORMAT,
            columns: columns(),
            log,
            version,
            plan,
            written_at: Utc::now(),
            files: Vec::new(),
            reach: Reach::default(),
            orphans: Vec::new(),
            unreadable: 0,
            base: BTreeMap::new(),
            delta: BTreeMap::new(),
        }
    }

    /// The folder's manifest; `None` where there is none that this build understands, or one of its files is gone.
    pub(super) fn load(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(folder.join(MANIFEST)).ok()?;
        let manifest: Self = serde_json::from_slice(&bytes).ok()?;
        let whole = |file: &FileRef| folder.join(&file.name).metadata().is_ok_and(|found| found.len() == file.bytes);
        let fits = manifest.format == FORMAT && manifest.columns == columns();
        (fits && manifest.named().all(whole)).then_some(manifest)
    }

    fn named(&self) -> impl Iterator<Item = &FileRef> {
        self.base.values().flatten().chain(self.delta.values())
    }

    /// Makes it the folder's, then removes what has been unnamed for a while.
    pub(super) fn store(&self, folder: &Path) -> std::io::Result<()> {
        let staged = folder.join(format!("{MANIFEST}.new"));
        let mut file = File::create(&staged)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        // The files that it names, before itself.
        File::open(folder)?.sync_all()?;
        std::fs::rename(&staged, folder.join(MANIFEST))?;
        File::open(folder)?.sync_all()?;
        let before = SystemTime::now() - GRACE;
        for entry in folder.read_dir()?.flatten() {
            let name = entry.file_name();
            let named = self.named().any(|file| name == file.name.as_str());
            let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at < before);
            if old && !named && name.to_string_lossy().ends_with(".parquet") {
                // Best effort: the next one tries again.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Bytes of the files of a table.
    pub(super) fn bytes(&self, table: &str) -> u64 {
        let base = self.base.get(table).into_iter().flatten().map(|file| file.bytes).sum::<u64>();
        base + self.delta.get(table).map_or(0, |file| file.bytes)
    }
}

fn columns() -> i64 {
    hash(&TABLES.map(|table| format!("{table} {:?}", schema(table))).join("\n"))
}

/// The right to change the folder: one process at a time has it.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "held, and let go of when it is dropped")] File);

impl Lock {
    /// Makes the folder if need be. `None` where another process has it, or nothing can be written there.
    pub(super) fn take(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).ok()?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock")).ok()?;
        match file.try_lock() {
            Ok(()) => Some(Self(file)),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
        }
    }
}

/// A file of rows, while it is written.
pub(super) struct Rows {
    writer: ArrowWriter<File>,
    path: PathBuf,
    name: String,
    rows: u64,
}

impl Rows {
    pub(super) fn create(folder: &Path, table: &str, schema: SchemaRef) -> Result<Self, SqlError> {
        let name = format!("{table}-{:016x}.parquet", rand::random::<u64>());
        let path = folder.join(&name);
        let file = File::create_new(&path).map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_statistics_enabled(EnabledStatistics::Page)
            .build();
        let writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(failed)?;
        Ok(Self { writer, path, name, rows: 0 })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(failed)
    }

    /// Ends the file; `durable` syncs it.
    pub(super) fn finish(self, durable: bool) -> Result<FileRef, SqlError> {
        let file = self.writer.into_inner().map_err(failed)?;
        if durable {
            file.sync_all().map_err(failed)?;
        }
        let bytes = self.path.metadata().map_err(failed)?.len();
        Ok(FileRef { name: self.name, rows: self.rows, bytes })
    }
}

pub(super) fn failed(error: impl Into<DataFusionError>) -> SqlError {
    SqlError::Execution(error.into())
}
