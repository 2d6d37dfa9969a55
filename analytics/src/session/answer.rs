//! A statement planned, run and folded, within the limits. What it may be is decided by [`guard`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{DataFrame, SQLOptions, SessionConfig};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use futures::future::BoxFuture;
use rebound_schemas::incident::Record;
use rebound_schemas::plan::Plan;
use tokio::sync::Mutex;

use super::{QueryResult, SqlError, SqlLimits};
use crate::follow::Follower;
use crate::{functions, gather, guard};

/// What queries have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) follower: Mutex<Follower>,
    pub(super) runtime: Arc<RuntimeEnv>,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) limits: SqlLimits,
}

impl Shared {
    /// Folds the batches of an internal query over the log, one at a time.
    pub(super) async fn fold<T: Send>(
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

    /// The same of an error from reading the log.
    pub(super) fn spent(&self, error: SqlError) -> SqlError {
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
