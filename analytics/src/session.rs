//! Read-only SQL over the event log and its projections, within limits of time, memory and rows.
//!
//! A query sees one version of the log: the newest when it began. What may run is decided twice: [`guard`] lets
//! only a single statement that reads through, and DataFusion's own options refuse everything that writes. Tables are those of
//! [`tables`](crate::tables) and nothing else: no file, no URL, no external table can be named.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, TimeDelta, Utc};
use datafusion::catalog::{
    MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider, view::ViewTable,
};
use datafusion::common::ScalarValue;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, lit};
use datafusion::prelude::{DataFrame, SQLOptions, SessionConfig};
use datafusion::sql::parser::Statement;
use deltalake::DeltaTableError;
use futures::StreamExt;
use futures::future::BoxFuture;
use rebound_schemas::Event;
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::Plan;
use rebound_schemas::table::ReadError;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::follow::{Follower, Repeats};
use crate::observed::{Breaks, Observed};
use crate::recall::Wanted;
use crate::surroundings::Surroundings;
use crate::tables::{TABLES, Table};
use crate::{functions, gather, guard, observed, projections};

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

/// Bounds of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlLimits {
    /// Longest that a query may take, planning included.
    pub timeout: Duration,
    /// Bytes that all queries together may hold; as much again, four times, may be spilt to temporary files.
    pub memory: usize,
    /// Rows that an answer has at most.
    pub max_rows: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), memory: 1 << 30, max_rows: 1_000_000 }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows, in order.
    pub batches: Vec<RecordBatch>,
    /// Whether there were more rows than the limit.
    pub truncated: bool,
}

impl QueryResult {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Stack of a thread that plans and runs SQL: planners recurse deeper than usual threads have room for. Reserved
/// address space, of which only what is used is ever memory.
const STACK_BYTES: usize = 64 << 20;

/// Threads for SQL alone, so that a heavy query does not keep the other roles of the process waiting.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    fn new() -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, NonZero::get);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name("sql").thread_stack_size(STACK_BYTES).enable_all();
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("the runtime is taken only by drop").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not by dropping the runtime: that waits for its threads, which async code must not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// An open event log to ask.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    threads: Threads,
}

#[derive(Debug)]
struct Shared {
    follower: Mutex<Follower>,
    runtime: Arc<RuntimeEnv>,
    plan: Option<Arc<Plan>>,
    limits: SqlLimits,
}

impl Session {
    /// Opens the event log at a path or an `s3://` URL. Without a plan, tiers and objectives are NULL.
    ///
    /// # Errors
    /// There is no Delta table at the location, or it can't be read.
    pub async fn open(location: &str, plan: Option<Arc<Plan>>, limits: SqlLimits) -> Result<Self, SqlError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory)))
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_max_temp_directory_size(limits.memory as u64 * 4),
            )
            .build_arc()
            .map_err(SqlError::Execution)?;
        let threads = Threads::new().map_err(|error| SqlError::Execution(error.into()))?;
        let follower = Follower::open(location, runtime.clone()).await?;
        let shared = Shared { follower: Mutex::new(follower), runtime, plan, limits };
        Ok(Self { shared: Arc::new(shared), threads })
    }

    /// Moves to the newest version of the log and gives it; a query does so by itself.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn refresh(&self) -> Result<u64, SqlError> {
        let mut follower = self.shared.follower.lock().await;
        follower.refresh().await?;
        Ok(follower.version().unwrap_or_default())
    }

    /// The incident fold of the newest version of the log.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn record(&self) -> Result<Arc<Record>, SqlError> {
        let mut follower = self.shared.follower.lock().await;
        follower.refresh().await?;
        follower.record().await
    }

    /// The incident fold as the log was known at a time: of what had been taken in until then, corrections included.
    ///
    /// # Errors
    /// As [`Session::record`].
    pub async fn record_as_of(&self, known_at: DateTime<Utc>) -> Result<Record, SqlError> {
        let shared = self.shared.clone();
        self.run(async move { shared.record_as_of(known_at).await }).await
    }

    /// What surrounds these incidents, as known at a time or, without one, now.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn surroundings(
        &self,
        incidents: &[Incident],
        known_at: Option<DateTime<Utc>>,
    ) -> Result<Surroundings, SqlError> {
        let query = gather::events_of(Surroundings::KINDS, known_at);
        let init = Surroundings::around(incidents);
        self.gather(query, init, |around, batch| gather::each_event(batch, |event| around.evolve(event))).await
    }

    /// When each service was observed, from `since` on if that is given, as known at a time or, without one, now: from
    /// a probe until the next, but not longer than the silence after which its policy calls it unobserved.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn observed(
        &self,
        known_at: Option<DateTime<Utc>>,
        since: Option<DateTime<Utc>>,
    ) -> Result<Observed, SqlError> {
        let plan = self.shared.plan.as_deref();
        let (least, most) = observed::silences(plan);
        // A probe speaks for as long as the longest silence after it.
        let from = since.map(|since| since - TimeDelta::microseconds(most));
        let breaks = self.gather(gather::breaks(least, known_at, from), Breaks::default(), gather::each_break).await?;
        let first = match since {
            Some(_) => self.gather(gather::first(known_at), BTreeMap::new(), gather::each_first).await?,
            None => BTreeMap::new(),
        };
        Ok(Observed::of(breaks, first, plan))
    }

    /// Folds the batches of an internal query, one at a time, under the same limits of memory and time as SQL.
    async fn gather<T: Send + 'static>(
        &self,
        sql: String,
        init: T,
        step: fn(&mut T, &RecordBatch) -> Result<(), SqlError>,
    ) -> Result<T, SqlError> {
        let shared = self.shared.clone();
        self.run(async move { shared.fold(sql, init, step).await }).await
    }

    /// The events that are asked for, each once, at most `limit` rows read a question; see [`Wanted`].
    ///
    /// # Errors
    /// The log can't be read, or it takes longer than a query may.
    pub async fn recall(&self, wanted: &[Wanted], limit: usize) -> Result<Vec<Event>, SqlError> {
        let (shared, filters) = (self.shared.clone(), wanted.iter().map(Wanted::filter).collect::<Vec<_>>());
        self.run(async move {
            let mut follower = shared.follower.lock().await;
            follower.refresh().await?;
            let mut once = BTreeMap::new();
            for filter in filters {
                for event in follower.recall(filter, limit).await.map_err(|error| shared.spent(error))? {
                    once.entry((event.source.clone(), event.id.clone())).or_insert(event);
                }
            }
            Ok(once.into_values().collect())
        })
        .await
    }

    /// When the newest of what the log holds was taken in; `None` while it is empty.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn reached(&self) -> Result<Option<DateTime<Utc>>, SqlError> {
        let shared = self.shared.clone();
        self.run(async move {
            let mut follower = shared.follower.lock().await;
            follower.refresh().await?;
            follower.reached().await
        })
        .await
    }

    /// Rows of the log that the fold could not read: written by a newer build, or damaged.
    pub async fn unreadable(&self) -> usize {
        self.shared.follower.lock().await.unreadable()
    }

    /// The plan that tiers and objectives come from.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.shared.plan.as_deref()
    }

    /// Answers one statement that reads. `now` is what `now()` says, and until when open incidents last.
    ///
    /// # Errors
    /// The statement is refused or wrong, or it exceeds a limit; see [`SqlError`].
    pub async fn query(&self, sql: &str, now: DateTime<Utc>) -> Result<QueryResult, SqlError> {
        let (shared, sql) = (self.shared.clone(), sql.to_owned());
        self.run(async move { Box::pin(shared.answer(&sql, now, None)).await }).await
    }

    /// Answers as [`Session::query`] would have at a time, as far as the log had been taken in until then: of events
    /// and corrections told later nothing is known, and open incidents last until then.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn query_as_of(&self, sql: &str, known_at: DateTime<Utc>) -> Result<QueryResult, SqlError> {
        let (shared, sql) = (self.shared.clone(), sql.to_owned());
        self.run(async move { Box::pin(shared.answer(&sql, known_at, Some(known_at))).await }).await
    }

    /// Runs on the threads for SQL, for at most the statement timeout.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, SqlError> {
        let timeout = self.shared.limits.timeout;
        // A set of one task, which is stopped when the caller goes away or the time is over.
        let mut task = JoinSet::new();
        task.spawn_on(work, self.threads.handle());
        match tokio::time::timeout(timeout, task.join_next()).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(Some(Err(error))) => Err(SqlError::Execution(DataFusionError::External(error.into()))),
            Ok(None) | Err(_) => Err(SqlError::Timeout(timeout)),
        }
    }
}

impl Shared {
    /// Folds the batches of an internal query over the log, one at a time.
    async fn fold<T: Send>(
        &self,
        sql: String,
        init: T,
        step: fn(&mut T, &RecordBatch) -> Result<(), SqlError>,
    ) -> Result<T, SqlError> {
        let statement = guard::statement(&sql)?;
        let mut stream = self.planned(statement).await?.execute_stream().await.map_err(|error| self.failed(error))?;
        let mut folded = init;
        while let Some(batch) = stream.next().await {
            step(&mut folded, &batch.map_err(|error| self.failed(error))?)?;
        }
        Ok(folded)
    }

    /// An internal statement, planned. Boxed: the tables of a query may need a fold, which is over a query.
    fn planned(&self, statement: Statement) -> BoxFuture<'_, Result<DataFrame, SqlError>> {
        Box::pin(self.plan_statement(statement, DateTime::UNIX_EPOCH, None))
    }

    async fn record_as_of(&self, known_at: DateTime<Utc>) -> Result<Record, SqlError> {
        let query = gather::events_of(Record::KINDS, Some(known_at));
        self.fold(query, Record::default(), |record, batch| gather::each_event(batch, |event| record.evolve(event)))
            .await
    }

    async fn answer(
        &self,
        sql: &str,
        now: DateTime<Utc>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<QueryResult, SqlError> {
        let statement = guard::statement(sql)?;
        let frame = self.plan_statement(statement, now, known_at).await?;
        let mut stream = frame.execute_stream().await.map_err(|error| self.failed(error))?;
        let schema = stream.schema();
        let (mut batches, mut rows, mut bytes, mut truncated) = (Vec::new(), 0, 0, false);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|error| self.failed(error))?;
            let room = self.limits.max_rows - rows;
            truncated = batch.num_rows() > room;
            let batch = if truncated { batch.slice(0, room) } else { batch };
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if bytes > self.limits.memory {
                return Err(SqlError::Memory { limit: self.limits.memory });
            }
            batches.push(batch);
            if truncated {
                break;
            }
        }
        Ok(QueryResult { schema, batches, truncated })
    }

    /// The statement over the tables that it names, at one version of the log.
    async fn plan_statement(
        &self,
        statement: Statement,
        now: DateTime<Utc>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<DataFrame, SqlError> {
        let catalog = Arc::new(MemoryCatalogProvider::new());
        let schema = Arc::new(MemorySchemaProvider::new());
        let invalid = |error: DataFusionError| SqlError::Invalid(guard::explain(&error));
        datafusion::catalog::CatalogProvider::register_schema(catalog.as_ref(), "public", schema.clone())
            .map_err(SqlError::Execution)?;
        let config = SessionConfig::new()
            .with_default_catalog_and_schema("rebound", "public")
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true);
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .build();
        state.catalog_list().register_catalog("rebound".into(), catalog);
        guard::limit_functions(&mut state).map_err(SqlError::Execution)?;
        functions::register(&mut state).map_err(SqlError::Execution)?;
        state.execution_props_mut().query_execution_start_time = Some(now);
        let named = state.resolve_table_references(&statement).map_err(invalid)?;
        let named: Vec<&str> = named.iter().map(|reference| reference.table()).collect();
        for (name, table) in self.tables(&named, now, known_at).await? {
            schema.register_table(name.to_owned(), table).map_err(SqlError::Execution)?;
        }
        let plan = state.statement_to_plan(statement).await.map_err(invalid)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        options.verify_plan(&plan).map_err(|error| SqlError::Refused(guard::refusal(&guard::explain(&error))))?;
        Ok(DataFrame::new(state, plan))
    }

    /// Every table: those named as they are, the others empty, with their columns for `information_schema`.
    async fn tables(
        &self,
        named: &[&str],
        now: DateTime<Utc>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<BTreeMap<&'static str, Arc<dyn TableProvider>>, SqlError> {
        let plan = self.plan.as_deref();
        let wants = |name: &str| named.contains(&name);
        let folded = ["alerts", "incidents", "recoveries", "recovery_steps", "services"].into_iter().any(wants);
        // What was known is folded anew, before the follower is held: that is over queries, which need it.
        let (past, past_latest) = match known_at {
            Some(at) if folded => {
                let record = self.record_as_of(at).await?;
                let latest = match wants("services") {
                    true => self.fold(gather::latest(at), BTreeMap::new(), gather::each_latest).await?,
                    false => BTreeMap::new(),
                };
                (Some(Arc::new(record)), latest)
            }
            _ => (None, BTreeMap::new()),
        };
        let mut follower = self.follower.lock().await;
        follower.refresh().await?;
        let record = match past {
            Some(record) => record,
            None if folded => follower.record().await?,
            None => Arc::default(),
        };
        let mut tables: BTreeMap<&'static str, Arc<dyn TableProvider>> = BTreeMap::new();
        for table in TABLES {
            let provider: Arc<dyn TableProvider> = match table.name {
                name if !wants(name) => Arc::new(EmptyTable::new(table.schema())),
                name @ ("events" | "probes") => {
                    let repeats = follower.repeats().await?.clone();
                    let view = view(follower.provider().await?, name, table, &repeats, known_at);
                    Arc::new(view.map_err(SqlError::Execution)?)
                }
                "alerts" => memory(projections::alerts(&record))?,
                "incidents" => memory(projections::incidents(&record, plan, now))?,
                "recoveries" => memory(projections::recoveries(&record))?,
                "recovery_steps" => memory(projections::recovery_steps(&record))?,
                "services" if known_at.is_some() => memory(projections::services(&record, plan, &past_latest))?,
                "services" => memory(projections::services(&record, plan, follower.latest().await?))?,
                _ => memory(projections::objectives(plan))?,
            };
            tables.insert(table.name, provider);
        }
        Ok(tables)
    }

    /// The same of an error from reading the log.
    fn spent(&self, error: SqlError) -> SqlError {
        match error {
            SqlError::Execution(error) => self.failed(error),
            error => error,
        }
    }

    /// An error while running, as what the user can do about it.
    fn failed(&self, error: DataFusionError) -> SqlError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => SqlError::Memory { limit: self.limits.memory },
            _ => SqlError::Execution(error),
        }
    }
}

fn memory(batch: RecordBatch) -> Result<Arc<dyn TableProvider>, SqlError> {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(SqlError::Execution)?;
    Ok(Arc::new(table))
}

/// `events` or `probes` over the log's table: without internal rows, every event once. A view and not a filter of
/// rows, so that a query's own conditions still reach the files.
fn view(
    log: Arc<dyn TableProvider>,
    name: &str,
    table: &Table,
    repeats: &Repeats,
    known_at: Option<DateTime<Utc>>,
) -> Result<ViewTable, DataFusionError> {
    let mut filter = match name {
        "probes" => col("kind").eq(lit("probe.completed")),
        _ => col("kind").not_like(lit("log.%")),
    };
    if let Some(at) = known_at {
        let at = ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()));
        filter = filter.and(col("ingested_at").lt_eq(lit(at)));
    }
    for ((topic, partition), offsets) in repeats {
        let offsets = offsets.iter().map(|offset| lit(*offset)).collect();
        let here = col("topic").eq(lit(topic)).and(col("partition").eq(lit(*partition)));
        filter = filter.and(Expr::Not(Box::new(here.and(col("offset").in_list(offsets, false)))));
    }
    let column = |name: &'static str| match name {
        "latency_seconds" => (col("latency_us") / lit(1e6)).alias(name),
        _ => col(name),
    };
    let columns: Vec<Expr> = table.columns.iter().map(|listed| column(listed.name)).collect();
    let plan = LogicalPlanBuilder::scan("log", provider_as_source(log), None)?.filter(filter)?.project(columns)?;
    Ok(ViewTable::new(plan.build()?, None))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_statistics;
