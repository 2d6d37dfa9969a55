//! Follows the event log: what is new in the table since last time, folded into what SQL and reports stand on.
//!
//! The log is append-only, so each thing kept here remembers the data files that it has read and reads only files
//! it has not; a file that compaction wrote repeats old rows, which every fold here takes without effect. A table
//! whose version went back was made anew, and everything starts over.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use deltalake::{DeltaTable, DeltaTableError};
use futures::StreamExt;
use rebound_schemas::incident::Record;
use rebound_schemas::table::RowReader;
use rebound_schemas::{Event, ServiceId};

use crate::gather;
use crate::projections::Latest;
use crate::repeats::{Doubts, LOOKED_AT, Rows, Seen, WEIGHED};
use crate::session::SqlError;

/// First pause before a refresh that failed is tried again; it doubles.
const LISTING_PAUSE: Duration = Duration::from_millis(10);
/// After a longer one than this, the failure counts: that is within a second.
const LISTING_PAUSE_MOST: Duration = Duration::from_millis(320);

/// Files among which the newest event is looked for: several are written at the same time.
const NEWEST_FILES: usize = 8;

/// Ids that are named in a filter at most; of more all rows of their sources are read.
const MOST_IDS: usize = 1_000;

/// Files of the table that one fold has taken in.
#[derive(Debug, Default)]
struct Taken(HashSet<String>);

impl Taken {
    /// Files that are new, and from now on taken. What is no longer in the table is forgotten.
    fn new_files(&mut self, files: &HashSet<String>) -> Vec<String> {
        let new = files.difference(&self.0).cloned().collect();
        self.0.clone_from(files);
        new
    }
}

/// The log as far as it was read.
pub(crate) struct Follower {
    table: DeltaTable,
    context: SessionContext,
    folded: Taken,
    record: Arc<Record>,
    unreadable: usize,
    observed: Taken,
    latest: BTreeMap<ServiceId, Latest>,
    compared: Taken,
    seen: Seen,
    doubts: Doubts,
    repeats: Arc<Rows>,
}

/// The path of a log on this machine; `None` for one in an object store.
fn local(location: &str) -> Option<&Path> {
    match location.split_once("://") {
        None => Some(Path::new(location)),
        Some(("file", path)) => Some(Path::new(path)),
        Some(_) => None,
    }
}

/// Looks whether a log on this machine is there at all, for which the table's library has many and long words.
fn is_there(location: &str) -> Result<(), SqlError> {
    let Some(path) = local(location) else { return Ok(()) };
    match path.join("_delta_log").read_dir().map(|mut entries| entries.next().is_some()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(SqlError::Absent { location: location.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(SqlError::Absent { location: location.to_owned() }),
        Err(error) => Err(SqlError::Open { location: location.to_owned(), reason: error.to_string() }),
    }
}

fn cant_open(location: &str, error: DeltaTableError) -> SqlError {
    let location = location.to_owned();
    match (error, local(&location)) {
        (DeltaTableError::NotATable(_), None) => SqlError::Absent { location },
        (error, None) => {
            let reason = format!(
                "{error}. A log is at a local path or s3://bucket/prefix, whose credentials are in AWS_… variables"
            );
            SqlError::Open { location, reason }
        }
        (error, Some(_)) => {
            let reason = format!("{error}. `rebound log verify` tells which file is damaged");
            SqlError::Open { location, reason }
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("version", &self.table.version()).finish_non_exhaustive()
    }
}

impl Follower {
    /// Opens the table at its newest version.
    pub(crate) async fn open(location: &str, runtime: Arc<RuntimeEnv>) -> Result<Self, SqlError> {
        is_there(location)?;
        let wrong = |error| cant_open(location, error);
        let url = deltalake::table::builder::parse_table_uri(location).map_err(wrong)?;
        let table = deltalake::open_table(url).await.map_err(wrong)?;
        let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
        table.update_datafusion_session(&context.state()).map_err(wrong)?;
        Ok(Self {
            table,
            context,
            folded: Taken::default(),
            record: Arc::default(),
            unreadable: 0,
            observed: Taken::default(),
            latest: BTreeMap::new(),
            compared: Taken::default(),
            seen: Seen::default(),
            doubts: Doubts::default(),
            repeats: Arc::default(),
        })
    }

    /// Moves to the table's newest version: one listing of the log's folder when nothing changed.
    pub(crate) async fn refresh(&mut self) -> Result<(), SqlError> {
        let before = self.table.version();
        // A listing is no snapshot: of commits made meanwhile it may show a later one and not the earlier, which
        // delta-rs refuses as a hole. A moment later the listing is whole; a real hole stays, and is told of.
        let mut pause = LISTING_PAUSE;
        loop {
            match self.table.update_state().await {
                Ok(()) => break,
                // The folder holds another, shorter log than the one that was read.
                Err(DeltaTableError::InvalidVersion(_)) => {
                    self.table.load().await.map_err(SqlError::Log)?;
                    break;
                }
                Err(error) if pause > LISTING_PAUSE_MOST => return Err(SqlError::Log(error)),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
        if self.table.version() < before {
            self.forget();
        }
        Ok(())
    }

    fn forget(&mut self) {
        (self.folded, self.observed, self.compared) = Default::default();
        self.record = Arc::default();
        self.unreadable = 0;
        self.latest.clear();
        (self.seen, self.doubts, self.repeats) = Default::default();
    }

    /// The version that everything here is of.
    pub(crate) fn version(&self) -> Option<u64> {
        self.table.version()
    }

    /// The whole table, to be scanned.
    pub(crate) async fn provider(&self) -> Result<Arc<dyn TableProvider>, SqlError> {
        self.table.table_provider().await.map_err(SqlError::Execution)
    }

    fn files(&self) -> Result<HashSet<String>, SqlError> {
        let snapshot = self.table.snapshot().map_err(SqlError::Log)?;
        Ok(snapshot.log_data().into_iter().map(|file| file.path().into_owned()).collect())
    }

    /// The rows of some files that pass a filter, these columns only; `None` of no files.
    async fn frame(&self, files: Vec<String>, filter: Expr, columns: &[&str]) -> Result<Option<DataFrame>, SqlError> {
        if files.is_empty() {
            return Ok(None);
        }
        let provider = self.table.table_provider().with_file_paths(files).await.map_err(SqlError::Execution)?;
        let frame = self.context.read_table(provider).map_err(SqlError::Execution)?;
        let frame = frame.filter(filter).and_then(|frame| frame.select_columns(columns));
        frame.map(Some).map_err(SqlError::Execution)
    }

    /// The same, all at once: only of what is known to be little.
    async fn read(&self, files: Vec<String>, filter: Expr, columns: &[&str]) -> Result<Vec<RecordBatch>, SqlError> {
        match self.frame(files, filter, columns).await? {
            Some(frame) => frame.collect().await.map_err(SqlError::Execution),
            None => Ok(Vec::new()),
        }
    }

    /// The same, a batch at a time.
    async fn scan(
        &self,
        files: Vec<String>,
        filter: Expr,
        columns: &[&str],
    ) -> Result<Option<SendableRecordBatchStream>, SqlError> {
        match self.frame(files, filter, columns).await? {
            Some(frame) => frame.execute_stream().await.map(Some).map_err(SqlError::Execution),
            None => Ok(None),
        }
    }

    /// When the newest of what the log holds was taken in: of its newest files, so that no more is read.
    pub(crate) async fn reached(&self) -> Result<Option<DateTime<Utc>>, SqlError> {
        let snapshot = self.table.snapshot().map_err(SqlError::Log)?;
        let mut files: Vec<(i64, String)> =
            snapshot.log_data().into_iter().map(|file| (file.modification_time(), file.path().into_owned())).collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        let newest = files.into_iter().take(NEWEST_FILES).map(|(_, path)| path).collect();
        let batches = self.read(newest, lit(true), &["ingested_at"]).await?;
        let of = |batch: &RecordBatch| arrow::compute::max(batch.column(0).as_primitive::<TimestampMicrosecondType>());
        Ok(batches.iter().filter_map(of).max().and_then(DateTime::from_timestamp_micros))
    }

    /// Events that pass a filter, at most `limit`, in no order; one that is in the log twice may come twice. Only
    /// what passes is decoded: the filter goes down into the files.
    pub(crate) async fn recall(&self, filter: Expr, limit: usize) -> Result<Vec<Event>, SqlError> {
        let mut config = SessionConfig::new();
        config.options_mut().execution.parquet.pushdown_filters = true;
        config.options_mut().execution.parquet.reorder_filters = true;
        let context = SessionContext::new_with_config_rt(config, self.context.runtime_env());
        let provider = self.table.table_provider().await.map_err(SqlError::Execution)?;
        let frame = context.read_table(provider).and_then(|frame| frame.filter(filter)?.limit(0, Some(limit)));
        let batches = frame.map_err(SqlError::Execution)?.collect().await.map_err(SqlError::Execution)?;
        let mut events = Vec::new();
        for batch in &batches {
            let rows = RowReader::new(batch).map_err(SqlError::Rows)?;
            // What a newer build wrote can't be told of by this one.
            events.extend(rows.iter().filter_map(|row| row.event().ok().flatten()));
        }
        Ok(events)
    }

    /// The incident fold of the table's present version.
    pub(crate) async fn record(&mut self) -> Result<Arc<Record>, SqlError> {
        let files = self.files()?;
        let mut taken = Taken(self.folded.0.clone());
        let new = taken.new_files(&files);
        let kinds = Record::KINDS.iter().map(|kind| lit(kind.as_str())).collect();
        let columns = [
            "kind",
            "version",
            "id",
            "source",
            "service",
            "occurred_at",
            "ingested_at",
            "topic",
            "partition",
            "offset",
            "plan",
            "data",
        ];
        let batches = self.read(new, col("kind").in_list(kinds, false), &columns).await?;
        let readers: Vec<_> = batches.iter().map(RowReader::new).collect::<Result<_, _>>().map_err(SqlError::Rows)?;
        let mut rows: Vec<_> = readers.iter().flat_map(RowReader::iter).collect();
        rows.sort_unstable_by_key(|row| (row.ingested_at, row.topic, row.partition, row.offset));
        if !rows.is_empty() {
            let record = Arc::make_mut(&mut self.record);
            for row in rows {
                match row.event() {
                    Ok(Some(event)) => record.evolve(&event),
                    Ok(None) => {}
                    Err(error) => {
                        gather::unreadable(&row, &error);
                        self.unreadable += 1;
                    }
                }
            }
        }
        // Only now: after an error the same files are read again, and what was folded twice counts once.
        self.folded = taken;
        Ok(self.record.clone())
    }

    /// Rows that the incident fold could not read.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// What the newest probe of each service found.
    pub(crate) async fn latest(&mut self) -> Result<&BTreeMap<ServiceId, Latest>, SqlError> {
        use datafusion::functions_aggregate::expr_fn::{last_value, max};
        let files = self.files()?;
        let mut taken = Taken(self.observed.0.clone());
        let new = taken.new_files(&files);
        if !new.is_empty() {
            let provider = self.table.table_provider().with_file_paths(new).await.map_err(SqlError::Execution)?;
            let newest = vec![col("occurred_at").sort(true, false), col("offset").sort(true, false)];
            let frame = self.context.read_table(provider).and_then(|frame| {
                frame.filter(col("kind").eq(lit("probe.completed")))?.aggregate(
                    vec![col("service")],
                    vec![
                        max(col("occurred_at")).alias("observed_at"),
                        last_value(col("outcome"), newest).alias("outcome"),
                    ],
                )
            });
            let batches = frame.map_err(SqlError::Execution)?.collect().await.map_err(SqlError::Execution)?;
            for batch in &batches {
                gather::each_latest(&mut self.latest, batch)?;
            }
        }
        self.observed = taken;
        Ok(&self.latest)
    }

    /// Rows that repeat an event that stands elsewhere in the log.
    pub(crate) async fn repeats(&mut self) -> Result<&Arc<Rows>, SqlError> {
        let files = self.files()?;
        let mut taken = Taken(self.compared.0.clone());
        let new = taken.new_files(&files);
        let event = || col("kind").not_like(lit("log.%"));
        let mut stream = self.scan(new, event(), &LOOKED_AT).await?;
        while let Some(batch) = next(&mut stream).await? {
            self.seen.look(&batch, &mut self.doubts)?;
        }
        if !self.doubts.is_empty() {
            let one_of =
                |name: &str, texts: HashSet<&str>| col(name).in_list(texts.into_iter().map(lit).collect(), false);
            let mut filter = event().and(one_of("source", self.doubts.sources()));
            if let Some(ids) = self.doubts.ids(MOST_IDS) {
                filter = filter.and(one_of("id", ids));
            }
            let mut stream = self.scan(files.into_iter().collect(), filter, &WEIGHED).await?;
            // Only when all were found is anything settled: after an error they are still doubtful.
            let mut doubts = self.doubts.clone();
            while let Some(batch) = next(&mut stream).await? {
                doubts.take(&batch)?;
            }
            doubts.settle(Arc::make_mut(&mut self.repeats));
            self.doubts = Doubts::default();
        }
        self.compared = taken;
        Ok(&self.repeats)
    }
}

async fn next(stream: &mut Option<SendableRecordBatchStream>) -> Result<Option<RecordBatch>, SqlError> {
    match stream {
        Some(stream) => stream.next().await.transpose().map_err(SqlError::Execution),
        None => Ok(None),
    }
}
