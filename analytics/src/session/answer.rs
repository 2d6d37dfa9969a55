//! A statement planned, run and folded, within the limits. What it may be is decided by [`guard`].

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::common::ParamValues;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::prelude::{DataFrame, SessionConfig};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use futures::future::BoxFuture;
use rebound_schemas::incident::Record;
use rebound_schemas::plan::Plan;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::{QueryResult, SqlError, SqlLimits};
use crate::follow::Follower;
use crate::tables::{TABLES, Table};
use crate::{functions, gather, guard};

/// The one catalog, which clients of the PostgreSQL protocol know as the database.
pub(crate) const CATALOG: &str = "rebound";

/// What queries have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) location: String,
    /// Where the incident fold's tables are kept, if anywhere.
    pub(super) projections: Option<PathBuf>,
    /// `None` until the log has been found.
    pub(super) follower: Mutex<Option<Follower>>,
    pub(super) runtime: Arc<RuntimeEnv>,
    pub(super) plan: Option<Arc<Plan>>,
    pub(crate) limits: SqlLimits,
}

/// The rows of an answer as they come, no more than an answer may have: where CLI, HTTP and the PostgreSQL protocol
/// are all held to it.
pub(crate) struct Rows {
    stream: SendableRecordBatchStream,
    limits: SqlLimits,
    left: usize,
    over: bool,
}

impl Rows {
    /// Their columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next of them, `None` at the end. When there are more than the limit, those within it come first and then
    /// [`SqlError::TooManyRows`].
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        if self.over {
            return Err(SqlError::TooManyRows { limit: self.limits.max_rows });
        }
        let Some(batch) = self.stream.next().await else { return Ok(None) };
        let batch = batch.map_err(|error| self.limits.failed(error))?;
        self.over = batch.num_rows() > self.left;
        let batch = if self.over { batch.slice(0, self.left) } else { batch };
        self.left -= batch.num_rows();
        Ok(Some(batch))
    }
}

impl SqlLimits {
    /// An error while running, as what the user can do about it.
    pub(crate) fn failed(self, error: DataFusionError) -> SqlError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => SqlError::Memory { limit: self.memory },
            // Some faults of a statement show only when it is made ready to run.
            root @ (DataFusionError::Plan(_) | DataFusionError::SchemaError(..)) => guard::invalid(root),
            _ => SqlError::Execution(error),
        }
    }
}

impl Shared {
    /// The log, opened if it has not been yet.
    pub(super) async fn follower(&self) -> Result<MappedMutexGuard<'_, Follower>, SqlError> {
        let mut follower = self.follower.lock().await;
        if follower.is_none() {
            *follower = Some(Follower::open(&self.location, self.runtime.clone(), self.projections.clone()).await?);
        }
        Ok(MutexGuard::map(follower, |follower| follower.as_mut().expect("it was opened just now")))
    }

    /// Folds the batches of an internal query over the log, one at a time.
    pub(super) async fn fold<T: Send>(
        &self,
        sql: String,
        init: T,
        step: fn(&mut T, &RecordBatch) -> Result<(), SqlError>,
    ) -> Result<T, SqlError> {
        let statement = guard::statement(&sql)?;
        let mut stream =
            self.planned(statement).await?.execute_stream().await.map_err(|error| self.limits.failed(error))?;
        let mut folded = init;
        while let Some(batch) = stream.next().await {
            step(&mut folded, &batch.map_err(|error| self.limits.failed(error))?)?;
        }
        Ok(folded)
    }

    /// An internal statement, planned. Boxed: the tables of a query may need a fold, which is over a query.
    fn planned(&self, statement: Statement) -> BoxFuture<'_, Result<DataFrame, SqlError>> {
        Box::pin(self.plan_statement(statement, DateTime::UNIX_EPOCH, None))
    }

    pub(super) async fn record_as_of(&self, known_at: DateTime<Utc>) -> Result<Record, SqlError> {
        let query = gather::events_of(Record::KINDS, Some(known_at));
        self.fold(query, Record::default(), |record, batch| gather::each_event(batch, |event| record.evolve(event)))
            .await
    }

    pub(super) async fn answer(
        &self,
        sql: &str,
        now: DateTime<Utc>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<QueryResult, SqlError> {
        let statement = guard::statement(sql)?;
        let frame = self.plan_statement(statement, now, known_at).await?;
        let mut answer = self.rows(frame).await?;
        let held = MemoryConsumer::new("answer").register(&self.runtime.memory_pool);
        let mut batches = Vec::new();
        let truncated = loop {
            match answer.next().await {
                Ok(Some(batch)) => {
                    held.try_grow(batch.get_array_memory_size()).map_err(|error| self.limits.failed(error))?;
                    batches.push(batch);
                }
                Ok(None) => break false,
                Err(SqlError::TooManyRows { .. }) => break true,
                Err(error) => return Err(error),
            }
        };
        Ok(QueryResult { schema: answer.schema(), batches, truncated, _held: Arc::new(held) })
    }

    /// Begins to run what was planned.
    pub(crate) async fn rows(&self, frame: DataFrame) -> Result<Rows, SqlError> {
        let stream = frame.execute_stream().await.map_err(|error| self.limits.failed(error))?;
        Ok(Rows { stream, limits: self.limits, left: self.limits.max_rows, over: false })
    }

    /// The statement over the tables that it names, at one version of the log.
    async fn plan_statement(
        &self,
        statement: Statement,
        now: DateTime<Utc>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<DataFrame, SqlError> {
        let (catalog, public) = (Arc::new(MemoryCatalogProvider::new()), Arc::new(MemorySchemaProvider::new()));
        catalog.register_schema("public", public.clone()).map_err(SqlError::Execution)?;
        let mut state = self.state(catalog)?;
        state.execution_props_mut().query_execution_start_time = Some(now);
        self.plan_over(state, &public, statement, None, now, known_at).await
    }

    /// A state over a catalog, with the functions that may be used.
    pub(crate) fn state(&self, catalog: Arc<dyn CatalogProvider>) -> Result<SessionState, SqlError> {
        let config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, "public")
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true);
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .build();
        state.catalog_list().register_catalog(CATALOG.into(), catalog);
        guard::limit_functions(&mut state).map_err(SqlError::Execution)?;
        functions::register(&mut state).map_err(SqlError::Execution)?;
        Ok(state)
    }

    /// The statement over the tables that it names, which are put into the empty schema `public` of the state, with
    /// these values for its parameters.
    pub(crate) async fn plan_over(
        &self,
        state: SessionState,
        public: &MemorySchemaProvider,
        statement: Statement,
        values: Option<ParamValues>,
        now: DateTime<Utc>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<DataFrame, SqlError> {
        let invalid = |error: DataFusionError| guard::invalid(&error);
        let named = state.resolve_table_references(&statement).map_err(invalid)?;
        let named: Vec<&str> = named.iter().map(|reference| reference.table()).collect();
        // What names no table of the log needs none: clients look around before there is one.
        let tables = match named.iter().any(|name| Table::named(name).is_some()) {
            true => self.tables(&named, now, known_at).await?,
            false => TABLES.iter().map(|table| (table.name, Arc::new(EmptyTable::new(table.schema())) as _)).collect(),
        };
        for (name, table) in tables {
            public.register_table(name.to_owned(), table).map_err(SqlError::Execution)?;
        }
        let mut plan = state.statement_to_plan(statement).await.map_err(invalid)?;
        if let Some(values) = values {
            plan = plan.replace_params_with_values(&values).map_err(invalid)?;
        }
        guard::only_reads(&plan)?;
        Ok(DataFrame::new(state, plan))
    }

    /// The same of an error from reading the log.
    pub(super) fn spent(&self, error: SqlError) -> SqlError {
        match error {
            SqlError::Execution(error) => self.limits.failed(error),
            error => error,
        }
    }
}
