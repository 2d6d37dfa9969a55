//! Read-only SQL over the event log and its projections, within limits of time, memory and rows.
//!
//! A query sees one version of the log: the newest when it began. What may run is decided twice: [`guard`](crate::guard)
//! lets only a single statement that reads through, and DataFusion's own options refuse everything that writes. Tables
//! are those of [`tables`](crate::tables) and nothing else: no file, no URL, no external table can be named.
//!
//! `answer` plans and runs a statement, over what `tables` makes of the log for it and `context` reads for that, on
//! `threads` of their own.

mod answer;
mod context;
mod error;
mod tables;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_statistics;
#[cfg(test)]
mod tests_tables;
mod threads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use rebound_schemas::Event;
use rebound_schemas::incident::{Incident, Record};
use rebound_schemas::plan::Plan;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

pub(crate) use self::answer::{CATALOG, Rows, Shared};
pub use self::error::SqlError;
pub(crate) use self::threads::Threads;
use crate::follow::Follower;
use crate::kept::{Progress, Quality, Status};
use crate::observed::Observed;
use crate::recall::Wanted;
use crate::surroundings::Surroundings;

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
    /// The rows count as memory that SQL uses for as long as somebody has them.
    _held: Arc<MemoryReservation>,
}

impl QueryResult {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// An open event log to ask.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    threads: Threads,
}

impl Session {
    /// Opens the event log at a path or an `s3://` URL. Without a plan, tiers and objectives are NULL.
    ///
    /// # Errors
    /// There is no Delta table at the location, or it can't be read.
    pub async fn open(location: &str, plan: Option<Arc<Plan>>, limits: SqlLimits) -> Result<Self, SqlError> {
        Self::open_keeping(location, plan, limits, None).await
    }

    /// The same, with a folder in which the incident fold's tables are kept for the next one who opens the log: then
    /// only what is new in the log is read.
    ///
    /// # Errors
    /// As [`Session::open`]. A folder that can't be read or written is no error: then nothing is kept.
    pub async fn open_keeping(
        location: &str,
        plan: Option<Arc<Plan>>,
        limits: SqlLimits,
        projections: Option<PathBuf>,
    ) -> Result<Self, SqlError> {
        let session = Self::lazy(location, plan, limits, projections)?;
        drop(session.shared.follower().await?);
        Ok(session)
    }

    /// The same for a log that need not be there yet: it is looked for whenever it is asked, until it is.
    ///
    /// # Errors
    /// Threads, or the folder for what is spilt, can't be had.
    pub fn lazy(
        location: &str,
        plan: Option<Arc<Plan>>,
        limits: SqlLimits,
        projections: Option<PathBuf>,
    ) -> Result<Self, SqlError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory)))
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_max_temp_directory_size(limits.memory as u64 * 4),
            )
            .build_arc()
            .map_err(SqlError::Execution)?;
        let threads = Threads::new("sql").map_err(|error| SqlError::Execution(error.into()))?;
        let location = location.to_owned();
        let shared = Shared { location, projections, follower: Mutex::new(None), runtime, plan, limits };
        Ok(Self { shared: Arc::new(shared), threads })
    }

    /// Moves to the newest version of the log and gives it; a query does so by itself.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn refresh(&self) -> Result<u64, SqlError> {
        let mut follower = self.shared.follower().await?;
        follower.refresh().await?;
        Ok(follower.version().unwrap_or_default())
    }

    /// The incident fold of the newest version of the log.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn record(&self) -> Result<Arc<Record>, SqlError> {
        let mut follower = self.shared.follower().await?;
        follower.refresh().await?;
        follower.kept(self.shared.plan.as_ref()).await?.record()
    }

    /// Brings the incident fold's tables up to the newest version of the log, or makes them anew, for as long as it
    /// takes: a query, which does the first by itself, has its time limit. Tells what is kept then.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn project(&self, anew: bool, progress: Progress) -> Result<(Status, Quality), SqlError> {
        let shared = self.shared.clone();
        let work = async move {
            let mut follower = shared.follower().await?;
            follower.refresh().await?;
            let kept = follower.project(shared.plan.as_ref(), anew, &progress).await?;
            Ok((kept.status().expect("it was brought up to date"), kept.quality()?))
        };
        let mut task = JoinSet::new();
        task.spawn_on(work, self.threads.handle());
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(SqlError::Execution(DataFusionError::External(error.into()))),
            None => unreachable!("a task was spawned"),
        }
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
        let (shared, incidents) = (self.shared.clone(), incidents.to_vec());
        self.run(async move { shared.surroundings(&incidents, known_at).await }).await
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
        let shared = self.shared.clone();
        self.run(async move { shared.observed(known_at, since).await }).await
    }

    /// The events that are asked for, each once, at most `limit` rows read a question; see [`Wanted`].
    ///
    /// # Errors
    /// The log can't be read, or it takes longer than a query may.
    pub async fn recall(&self, wanted: &[Wanted], limit: usize) -> Result<Vec<Event>, SqlError> {
        let (shared, filters) = (self.shared.clone(), wanted.iter().map(Wanted::filter).collect::<Vec<_>>());
        self.run(async move {
            let mut follower = shared.follower().await?;
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
            let mut follower = shared.follower().await?;
            follower.refresh().await?;
            follower.reached().await
        })
        .await
    }

    /// Rows of the log that the fold could not read: written by a newer build, or damaged.
    pub async fn unreadable(&self) -> usize {
        self.shared.follower.lock().await.as_ref().map_or(0, Follower::unreadable)
    }

    /// What statements share, and the threads that they run on.
    pub(crate) fn parts(&self) -> (Arc<Shared>, Handle) {
        (self.shared.clone(), self.threads.handle().clone())
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
