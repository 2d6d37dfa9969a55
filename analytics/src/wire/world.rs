//! What clients of the PostgreSQL protocol can ask: the tables of SQL in the schema `public`, `pg_catalog` and
//! `information_schema` about them, and PostgreSQL's dialect.
//!
//! There is one world for all connections. Statements are planned over tables without rows, which tells their columns
//! and costs nothing; when one runs, it is planned over the rows of the newest version of the log, of the tables that
//! it names.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider,
};
use datafusion::common::ParamValues;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use tokio::runtime::Handle;

use super::catalog::Roles;
use super::dialect::Dialect;
use super::{catalog, functions};
use crate::guard;
use crate::session::{CATALOG, Rows, Session, Shared, SqlError, SqlLimits};
use crate::tables::TABLES;

/// What there is to ask, and how.
pub(super) struct World {
    shared: Arc<Shared>,
    threads: Handle,
    dialect: Dialect,
    /// Over tables without rows.
    context: SessionContext,
    /// The schemas beside `public`.
    schemas: Vec<(&'static str, Arc<dyn SchemaProvider>)>,
}

impl World {
    pub(super) async fn new(session: &Session, user: &str) -> Result<Self, SqlError> {
        let (shared, threads) = session.parts();
        let (database, public) = (Arc::new(MemoryCatalogProvider::new()), Arc::new(MemorySchemaProvider::new()));
        for table in TABLES {
            let empty = Arc::new(EmptyTable::new(table.schema()));
            public.register_table(table.name.to_owned(), empty).map_err(SqlError::Execution)?;
        }
        database.register_schema("public", public).map_err(SqlError::Execution)?;
        let mut state = shared.state(database.clone())?;
        let options = state.config_mut().options_mut();
        options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
        // Ours is as PostgreSQL's, which clients expect.
        options.catalog.information_schema = false;
        let context = SessionContext::new_with_state(state);
        setup_pg_catalog(&context, CATALOG, Roles(user.to_owned())).map_err(|error| SqlError::Execution(*error))?;
        functions::register(&context, user);
        guard::limit_functions(&mut context.state_ref().write()).map_err(SqlError::Execution)?;
        let information = catalog::information_schema()?;
        database.register_schema("information_schema", information.clone()).map_err(SqlError::Execution)?;
        let pg_catalog = catalog::pg_catalog(&context).await?;
        database.register_schema("pg_catalog", pg_catalog.clone()).map_err(SqlError::Execution)?;
        let schemas: Vec<(_, Arc<dyn SchemaProvider>)> =
            vec![("information_schema", information), ("pg_catalog", pg_catalog)];
        Ok(Self { shared, threads, dialect: Dialect::new(), context, schemas })
    }

    /// The threads that statements run on.
    pub(super) fn threads(&self) -> &Handle {
        &self.threads
    }

    pub(super) fn limits(&self) -> SqlLimits {
        self.shared.limits
    }

    /// The statements of a text.
    pub(super) fn parse(&self, sql: &str) -> Result<Vec<Sql>, SqlError> {
        self.dialect.parse(sql)
    }

    /// The plan of a statement over tables without rows, for its columns and parameters.
    pub(super) async fn plan(&self, statement: Sql) -> Result<LogicalPlan, SqlError> {
        let statement = Statement::Statement(Box::new(statement));
        let plan = self.context.state().statement_to_plan(statement).await.map_err(|error| guard::invalid(&error))?;
        guard::only_reads(&plan)?;
        Ok(plan)
    }

    /// Begins to run a statement: its columns, and its rows as they come.
    pub(super) async fn run(
        &self,
        statement: Sql,
        values: Option<ParamValues>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<(SchemaRef, Rows), SqlError> {
        let now = known_at.unwrap_or_else(Utc::now);
        let public = Arc::new(MemorySchemaProvider::new());
        let state = self.state_over(public.clone(), now)?;
        let statement = Statement::Statement(Box::new(statement));
        let frame = self.shared.plan_over(state, &public, statement, values, now, known_at).await?;
        let columns = Arc::new(frame.schema().as_arrow().clone());
        Ok((columns, self.shared.rows(frame).await?))
    }

    fn state_over(&self, public: Arc<MemorySchemaProvider>, now: DateTime<Utc>) -> Result<SessionState, SqlError> {
        let (databases, database) = (MemoryCatalogProviderList::new(), MemoryCatalogProvider::new());
        database.register_schema("public", public).map_err(SqlError::Execution)?;
        for (name, schema) in &self.schemas {
            database.register_schema(name, schema.clone()).map_err(SqlError::Execution)?;
        }
        databases.register_catalog(CATALOG.to_owned(), Arc::new(database));
        let builder = SessionStateBuilder::new_from_existing(self.context.state());
        let mut state = builder.with_catalog_list(Arc::new(databases)).build();
        state.execution_props_mut().query_execution_start_time = Some(now);
        Ok(state)
    }
}
