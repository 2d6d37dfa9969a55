//! What becomes of a client's statements: those that read are planned and run, settings and transactions are answered
//! at once, everything else is refused.
//!
//! | asked by | may hold |
//! |---|---|
//! | a simple query | several statements, each answered in turn |
//! | a prepared statement | one, with parameters `$1`, `$2`, … |
//!
//! Inside a transaction that has failed nothing runs until it ends, as in PostgreSQL; otherwise transactions change
//! nothing, since there is nothing to change: each statement sees the newest version of the log.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch, into_pg_type};
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse, Response};
use datafusion_postgres::pgwire::api::stmt::{QueryParser, StoredStatement};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, ErrorHandler, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Parse, ParseComplete,
};
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::{Sink, SinkExt, Stream, StreamExt, stream};

use super::run::{Asked, Present, Run};
use super::world::World;
use super::{dialect, error, parameters, settings, told};

/// Most statements of a simple query.
const MAX_STATEMENTS: usize = 64;
/// Most prepared statements, and most portals, that a connection keeps.
const MAX_NAMES: usize = 1_000;

/// A statement that was parsed and, if it reads, planned for its columns and parameters.
#[derive(Clone)]
pub(super) struct Prepared(Arc<Inner>);

struct Inner {
    statement: Sql,
    columns: Schema,
    /// In their order; `None` where nothing says what it must be.
    parameters: Vec<Option<DataType>>,
}

/// One connection's statements.
pub(super) struct Gate {
    world: Arc<World>,
    present: Arc<Present>,
    parser: Arc<Parser>,
    statements: Mutex<HashSet<String>>,
    portals: Mutex<HashSet<String>>,
}

impl Gate {
    pub(super) fn new(world: Arc<World>, present: Arc<Present>) -> Self {
        let parser = Arc::new(Parser(world.clone()));
        Self { world, present, parser, statements: Mutex::default(), portals: Mutex::default() }
    }

    /// Answers one statement.
    async fn answer<C>(
        &self,
        client: &mut C,
        statement: &Sql,
        values: Option<ParamValues>,
        format: &Format,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let ends = matches!(statement, Sql::Commit { .. } | Sql::Rollback { savepoint: None, .. });
        if client.transaction_status() == TransactionStatus::Error && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(error("25P02", message));
        }
        if ends {
            client.portal_store().clear_portals();
            names(&self.portals).clear();
        }
        if let Sql::Deallocate { name, .. } = statement {
            self.deallocate(client.portal_store(), &name.value);
        }
        if let Some(answered) = settings::answer(client, statement, format).await {
            return answered;
        }
        let statement = dialect::readable(statement).map_err(|sql| told(&sql))?;
        let timeout = settings::timeout(client.metadata(), self.world.limits().timeout);
        let asked_for = statement.clone();
        let asked = Asked { statement, values, known_at: settings::as_of(client.metadata()), timeout };
        let (run, columns) = Run::start(&self.world, &self.present, asked).await?;
        let columns = named(&columns, &dialect::names(&asked_for));
        let fields = Arc::new(fields(&columns, format, client.metadata())?);
        let rows = rows(run, fields.clone());
        Ok(Response::Query(QueryResponse::new(fields, rows)))
    }

    fn deallocate(&self, store: &impl PortalStore, name: &str) {
        let mut names = names(&self.statements);
        if name.eq_ignore_ascii_case("all") {
            names.drain().for_each(|name| store.rm_statement(&name));
        } else if names.remove(name) {
            store.rm_statement(name);
        }
    }
}

fn names(of: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a name, if there is room for one more.
fn keep(of: &Mutex<HashSet<String>>, name: &str, what: &str) -> PgWireResult<()> {
    let mut names = names(of);
    if !names.contains(name) && names.len() >= MAX_NAMES {
        return Err(error("53400", format!("a connection keeps at most {MAX_NAMES} {what}: close some")));
    }
    names.insert(name.to_owned());
    Ok(())
}

fn fields(
    columns: &Schema,
    format: &Format,
    metadata: &std::collections::HashMap<String, String>,
) -> PgWireResult<Vec<FieldInfo>> {
    if let Format::Individual(codes) = format
        && codes.len() != columns.fields().len()
    {
        let message = format!("{} formats for {} columns", codes.len(), columns.fields().len());
        return Err(error("08P01", message));
    }
    arrow_schema_to_pg_fields(columns, format, Some(Arc::new(FormatOptions::from_client_metadata(metadata))))
}

/// The columns as PostgreSQL would name them.
fn named(columns: &Schema, names: &[Option<String>]) -> Schema {
    if names.len() != columns.fields().len() {
        return columns.clone();
    }
    let named = columns.fields().iter().zip(names).map(|(field, name)| match name {
        Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
        None => field.clone(),
    });
    Schema::new_with_metadata(named.collect::<Vec<_>>(), columns.metadata().clone())
}

/// A running statement's rows as the protocol has them; an error is the last of them.
fn rows(
    run: Run,
    fields: Arc<Vec<FieldInfo>>,
) -> impl Stream<Item = PgWireResult<datafusion_postgres::pgwire::messages::data::DataRow>> + Send + 'static {
    let batches = stream::unfold(Some(run), async |run| {
        let mut run = run?;
        match run.next().await {
            Ok(Some(batch)) => Some((Ok(batch), Some(run))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let encoded = move |batch: PgWireResult<RecordBatch>| {
        let (batch, failed) = match batch {
            Ok(batch) => (Some(batch), None),
            Err(error) => (None, Some(Err(error))),
        };
        let rows = batch.map(|batch| encode_recordbatch(fields.clone(), batch));
        stream::iter(rows.into_iter().flatten().chain(failed))
    };
    batches.map(encoded).flatten()
}

#[async_trait]
impl SimpleQueryHandler for Gate {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.world.parse(query).map_err(|sql| told(&sql))?;
        if statements.len() > MAX_STATEMENTS {
            let message = format!("a query has at most {MAX_STATEMENTS} statements, this one has {}", statements.len());
            return Err(error("54001", message));
        }
        let mut responses = Vec::new();
        for statement in &statements {
            match self.answer(client, statement, None, &Format::UnifiedText).await {
                Ok(response) => responses.push(response),
                Err(error) if responses.is_empty() => return Err(error),
                // Those before it have their answers.
                Err(error) => {
                    responses.push(Response::Error(Box::new(error.into())));
                    break;
                }
            }
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Gate {
    type Statement = Prepared;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        self.parser.clone()
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        keep(&self.statements, &name, "prepared statements")?;
        match StoredStatement::parse(client, &message, self.query_parser()).await? {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(&name),
        }
        client.send(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        use datafusion_postgres::pgwire::api::store::Entry;
        let statement_name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal_name = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        keep(&self.portals, portal_name, "portals")?;
        match client.portal_store().get_statement(statement_name) {
            Some(Entry::Value(statement)) => {
                let (given, asked) = (message.parameters.len(), statement.statement.0.parameters.len());
                // What is given for parts that were left out is not looked at: see `dialect`.
                if given < asked {
                    let message = format!("the statement has {asked} parameters, {given} are given");
                    return Err(error("08P01", message));
                }
                client.portal_store().put_portal(Arc::new(Portal::try_new(&message, statement)?));
            }
            Some(Entry::Empty) => client.portal_store().put_empty_portal(portal_name),
            None => return Err(PgWireError::StatementNotFound(statement_name.to_owned())),
        }
        client.send(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match message.target_type {
            b'S' => {
                names(&self.statements).remove(name);
                client.portal_store().rm_statement(name);
            }
            _ => {
                names(&self.portals).remove(name);
                client.portal_store().rm_portal(name);
            }
        }
        client.send(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement.0;
        let values = parameters::values(portal, &prepared.parameters)?;
        self.answer(client, &prepared.statement, values, &portal.result_column_format).await
    }
}

/// Errors that come from beneath, in words.
impl ErrorHandler for Gate {
    fn on_error<C: ClientInfo>(&self, client: &C, error: &mut PgWireError) {
        tracing::debug!(peer = %client.socket_addr(), %error, "a SQL statement failed");
    }
}

/// Parses and plans statements that are prepared.
pub(super) struct Parser(Arc<World>);

#[async_trait]
impl QueryParser for Parser {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, _client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = self.0.parse(sql).map_err(|sql| told(&sql))?;
        if statements.len() > 1 {
            let message = format!("a prepared statement is one statement, here are {}", statements.len());
            return Err(error("42601", message));
        }
        let Some(statement) = statements.pop() else { return Ok(None) };
        let (columns, parameters) = match settings::columns(&statement) {
            Some(columns) => (columns, Vec::new()),
            None => {
                let statement = dialect::readable(&statement).map_err(|sql| told(&sql))?;
                let asked_for = statement.clone();
                let plan = Box::pin(self.0.plan(statement)).await.map_err(|sql| told(&sql))?;
                (
                    named(plan.schema().as_arrow(), &dialect::names(&asked_for)),
                    parameters::types(&plan).map_err(|sql| told(&sql))?,
                )
            }
        };
        Ok(Some(Prepared(Arc::new(Inner { statement, columns, parameters }))))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        let known = |kind: &Option<DataType>| kind.as_ref().map_or(Ok(Type::UNKNOWN), into_pg_type);
        prepared.0.parameters.iter().map(known).collect()
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        fields(&prepared.0.columns, format.unwrap_or(&Format::UnifiedText), &std::collections::HashMap::new())
    }
}
