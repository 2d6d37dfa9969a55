//! What there is, listed as PostgreSQL lists it: `information_schema`, and what `pg_catalog` says beyond the names of
//! things: what each table and column means, Rebound's functions, the settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use async_trait::async_trait;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, lit};
use datafusion::prelude::SessionContext;
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::{PgCatalogContextProvider, Role};

use super::functions::Texts;
use super::settings::SETTINGS;
use crate::functions::{FUNCTIONS, Function};
use crate::session::{CATALOG, SqlError};
use crate::tables::{ColumnType, TABLES, Table};

/// The number of the first of Rebound's functions in `pg_proc`: far above those of tables, which count from 16384.
const FIRST_FUNCTION: i32 = 900_000;

/// A column of a table that is made here.
enum Cells {
    Text(Vec<Option<String>>),
    Numbers(Vec<Option<i32>>),
}

impl Cells {
    fn array(self) -> ArrayRef {
        match self {
            Self::Text(cells) => Arc::new(StringArray::from(cells)),
            Self::Numbers(cells) => Arc::new(Int32Array::from(cells)),
        }
    }
}

fn batch(columns: Vec<(&str, Cells)>) -> Result<RecordBatch, SqlError> {
    let arrays: Vec<(&str, ArrayRef)> = columns.into_iter().map(|(name, cells)| (name, cells.array())).collect();
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(arrays.iter().map(field).collect::<Vec<_>>()));
    let arrays = arrays.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(schema, arrays).map_err(|error| SqlError::Execution(error.into()))
}

fn table(batch: RecordBatch) -> Result<Arc<dyn TableProvider>, SqlError> {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(SqlError::Execution)?;
    Ok(Arc::new(table))
}

/// The name of a type in `pg_type`, and the one that SQL writes.
fn type_names(kind: ColumnType) -> (String, String) {
    let name = into_pg_type(&kind.as_arrow()).map_or_else(|_| "text".to_owned(), |kind| kind.name().to_owned());
    let written = match name.as_str() {
        "bool" => "boolean",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "float8" => "double precision",
        "timestamptz" => "timestamp with time zone",
        other => other,
    };
    (name.clone(), written.to_owned())
}

/// `information_schema`, as far as clients look.
pub(super) fn information_schema() -> Result<Arc<dyn SchemaProvider>, SqlError> {
    let schema = MemorySchemaProvider::new();
    let add = |name: &str, columns| {
        schema.register_table(name.to_owned(), table(batch(columns)?)?).map_err(SqlError::Execution)
    };
    let listed: Vec<_> = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().enumerate().map(move |(n, column)| (table, n, column)))
        .collect();
    let each = |text: &str| Cells::Text(vec![Some(text.to_owned()); listed.len()]);
    let none = || Cells::Text(vec![None; listed.len()]);
    let no_number = || Cells::Numbers(vec![None; listed.len()]);
    let of = |text: &dyn Fn(&(&crate::tables::Table, usize, &crate::tables::Column)) -> String| {
        Cells::Text(listed.iter().map(|entry| Some(text(entry))).collect())
    };
    let numbers = listed.iter().map(|(_, n, _)| i32::try_from(n + 1).ok()).collect();
    add(
        "columns",
        vec![
            ("table_catalog", each(CATALOG)),
            ("table_schema", each("public")),
            ("table_name", of(&|(table, _, _)| table.name.to_owned())),
            ("column_name", of(&|(_, _, column)| column.name.to_owned())),
            ("ordinal_position", Cells::Numbers(numbers)),
            ("column_default", none()),
            ("is_nullable", each("YES")),
            ("data_type", of(&|(_, _, column)| type_names(column.kind).1)),
            ("character_maximum_length", no_number()),
            ("character_octet_length", no_number()),
            ("numeric_precision", no_number()),
            ("numeric_precision_radix", no_number()),
            ("numeric_scale", no_number()),
            ("datetime_precision", no_number()),
            ("collation_name", none()),
            ("domain_name", none()),
            ("udt_catalog", each(CATALOG)),
            ("udt_schema", each("pg_catalog")),
            ("udt_name", of(&|(_, _, column)| type_names(column.kind).0)),
            ("is_identity", each("NO")),
            ("identity_generation", none()),
            ("is_generated", each("NEVER")),
            ("generation_expression", none()),
            ("is_updatable", each("NO")),
        ],
    )?;
    let each = |text: &str| Cells::Text(vec![Some(text.to_owned()); TABLES.len()]);
    add(
        "tables",
        vec![
            ("table_catalog", each(CATALOG)),
            ("table_schema", each("public")),
            ("table_name", Cells::Text(TABLES.iter().map(|table| Some(table.name.to_owned())).collect())),
            ("table_type", each("BASE TABLE")),
            ("is_insertable_into", each("NO")),
            ("is_typed", each("NO")),
        ],
    )?;
    let text = |cells: &[&str]| Cells::Text(cells.iter().map(|cell| Some((*cell).to_owned())).collect());
    let schemas = ["information_schema", "pg_catalog", "public"];
    add(
        "schemata",
        vec![
            ("catalog_name", text(&[CATALOG; 3])),
            ("schema_name", text(&schemas)),
            ("schema_owner", text(&[CATALOG; 3])),
        ],
    )?;
    // There are none of these.
    for (name, columns) in [
        ("views", &["table_catalog", "table_schema", "table_name", "view_definition"][..]),
        (
            "routines",
            &["specific_name", "routine_catalog", "routine_schema", "routine_name", "routine_type", "data_type"],
        ),
        ("parameters", &["specific_name", "parameter_name", "data_type"]),
        ("sequences", &["sequence_catalog", "sequence_schema", "sequence_name"]),
        ("triggers", &["trigger_schema", "trigger_name", "event_object_table"]),
        (
            "table_constraints",
            &["constraint_schema", "constraint_name", "table_schema", "table_name", "constraint_type"],
        ),
        ("key_column_usage", &["constraint_schema", "constraint_name", "table_schema", "table_name", "column_name"]),
        (
            "constraint_column_usage",
            &["constraint_schema", "constraint_name", "table_schema", "table_name", "column_name"],
        ),
        ("referential_constraints", &["constraint_schema", "constraint_name", "unique_constraint_name"]),
    ] {
        add(name, columns.iter().map(|column| (*column, Cells::Text(Vec::new()))).collect())?;
    }
    Ok(Arc::new(schema))
}

/// `pg_catalog`, with some of its tables replaced.
#[derive(Debug)]
struct Overlaid {
    beneath: Arc<dyn SchemaProvider>,
    above: BTreeMap<&'static str, Arc<dyn TableProvider>>,
}

#[async_trait]
impl SchemaProvider for Overlaid {
    fn table_names(&self) -> Vec<String> {
        self.beneath.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match self.above.get(name) {
            Some(table) => Ok(Some(table.clone())),
            None => self.beneath.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.beneath.table_exist(name)
    }
}

/// The one role, who may log in and nothing else.
#[derive(Debug, Clone)]
pub(super) struct Roles(pub(super) String);

#[async_trait]
impl PgCatalogContextProvider for Roles {
    async fn roles(&self) -> Vec<String> {
        vec![self.0.clone()]
    }

    async fn role(&self, name: &str) -> Option<Role> {
        (name == self.0).then(|| Role {
            name: self.0.clone(),
            is_superuser: false,
            can_login: true,
            can_create_db: false,
            can_create_role: false,
            can_create_user: false,
            can_replication: false,
            grants: Vec::new(),
            inherited_roles: Vec::new(),
        })
    }
}

/// `pg_class` with the columns that psql looks for besides: nothing is granted to anybody in particular.
fn with_grants(classes: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let mut columns: Vec<Expr> = classes.schema().fields().iter().map(|field| col(field.name())).collect();
    let none = ScalarValue::try_from(&DataType::new_list(DataType::Utf8, true))?;
    columns.extend(["relacl", "reloptions"].map(|name| lit(none.clone()).alias(name)));
    let plan = LogicalPlanBuilder::scan("pg_class", provider_as_source(classes), None)?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// The `pg_catalog` of a context, completed by what is known here.
pub(super) async fn pg_catalog(context: &SessionContext) -> Result<Arc<dyn SchemaProvider>, SqlError> {
    let beneath = context.catalog(CATALOG).and_then(|catalog| catalog.schema("pg_catalog"));
    let beneath = beneath.ok_or_else(|| SqlError::Invalid("there is no pg_catalog".to_owned()))?;
    let mut above = BTreeMap::new();
    above.insert("pg_settings", settings()?);
    if let Some(classes) = beneath.table("pg_class").await.map_err(SqlError::Execution)? {
        above.insert("pg_class", with_grants(classes).map_err(SqlError::Execution)?);
    }
    // What descriptions of tables and columns hang on is pg_class, by its own number.
    let classes = numbers(context, "pg_catalog").await?.get("pg_class").copied();
    let numbers = numbers(context, "public").await?;
    above.insert("pg_description", descriptions(context, &numbers, classes).await?);
    above.insert("pg_proc", functions(context).await?);
    let text = |table: &Table, n: usize| match n.checked_sub(1) {
        None => plain(table.about),
        Some(column) => plain(table.columns[column].meaning),
    };
    let mut meanings = Texts::new();
    for table in TABLES {
        let Some(number) = numbers.get(table.name) else { continue };
        meanings.extend((0..=table.columns.len()).zip(0..).map(|(n, column)| ((*number, column), text(table, n))));
    }
    let (mut results, mut arguments) = (Texts::new(), Texts::new());
    for (number, function) in (FIRST_FUNCTION..).zip(FUNCTIONS) {
        meanings.insert((number, 0), plain(function.meaning));
        results.insert((number, 0), result(context, function).to_owned());
        arguments.insert((number, 0), split(function).1.to_owned());
    }
    super::functions::register_texts(context, meanings, results, arguments);
    Ok(Arc::new(Overlaid { beneath, above }))
}

fn settings() -> Result<Arc<dyn TableProvider>, SqlError> {
    let of = |text: &dyn Fn(&(&str, &str, &str)) -> String| {
        Cells::Text(SETTINGS.iter().map(|setting| Some(text(setting))).collect())
    };
    let each = |text: &str| of(&|_| text.to_owned());
    let none = || Cells::Text(vec![None; SETTINGS.len()]);
    table(batch(vec![
        ("name", of(&|(name, _, _)| (*name).to_owned())),
        ("setting", of(&|(_, value, _)| (*value).to_owned())),
        ("unit", none()),
        ("category", each("Rebound")),
        ("short_desc", of(&|(_, _, meaning)| (*meaning).to_owned())),
        ("extra_desc", none()),
        ("context", each("user")),
        ("vartype", each("string")),
        ("source", each("default")),
        ("min_val", none()),
        ("max_val", none()),
        ("enumvals", none()),
        ("boot_val", of(&|(_, value, _)| (*value).to_owned())),
        ("reset_val", of(&|(_, value, _)| (*value).to_owned())),
        ("sourcefile", none()),
        ("sourceline", Cells::Numbers(vec![None; SETTINGS.len()])),
        ("pending_restart", each("f")),
    ])?)
}

/// The rows of a query over a context.
async fn rows(context: &SessionContext, sql: &str) -> Result<RecordBatch, SqlError> {
    let frame = context.sql(sql).await.map_err(SqlError::Execution)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(SqlError::Execution)?;
    concat_batches(&schema, &batches).map_err(|error| SqlError::Execution(error.into()))
}

/// The numbers of a schema's tables in `pg_class`.
async fn numbers(context: &SessionContext, schema: &str) -> Result<BTreeMap<String, i32>, SqlError> {
    let sql = format!(
        "SELECT c.relname, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = '{schema}'"
    );
    let found = rows(context, &sql).await?;
    let names = cast(found.column(0), &DataType::Utf8).map_err(|error| SqlError::Execution(error.into()))?;
    let oids = cast(found.column(1), &DataType::Int32).map_err(|error| SqlError::Execution(error.into()))?;
    let (names, oids) = (names.as_string::<i32>(), oids.as_primitive::<Int32Type>());
    Ok(names.iter().zip(oids).filter_map(|(name, oid)| Some((name?.to_owned(), oid?))).collect())
}

/// A meaning without its marks.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// A function's name and its arguments.
fn split(function: &Function) -> (&'static str, &'static str) {
    let (name, arguments) = function.call.split_once('(').unwrap_or((function.call, ""));
    (name, arguments.trim_end_matches(')'))
}

/// Whether a function is an aggregate.
fn is_aggregate(context: &SessionContext, function: &Function) -> bool {
    context.state().aggregate_functions().contains_key(split(function).0)
}

/// The type that a function answers.
fn result(context: &SessionContext, function: &Function) -> &'static str {
    match split(function).0 {
        "rto_met" => "boolean",
        "time_bucket" => "timestamp with time zone",
        _ if is_aggregate(context, function) => "double precision",
        _ => "",
    }
}

/// `pg_proc`: Rebound's functions beside PostgreSQL's.
async fn functions(context: &SessionContext) -> Result<Arc<dyn TableProvider>, SqlError> {
    let public = rows(context, "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public'").await?;
    let public = cast(public.column(0), &DataType::Int32).map_err(|error| SqlError::Execution(error.into()))?;
    let public = public.as_primitive::<Int32Type>().iter().next().flatten();
    let of = |text: &dyn Fn(&Function) -> String| {
        Cells::Text(FUNCTIONS.iter().map(|function| Some(text(function))).collect())
    };
    let each = |number: Option<i32>| Cells::Numbers(vec![number; FUNCTIONS.len()]);
    let count = |function: &Function| i32::try_from(split(function).1.split(',').count()).ok();
    let ours = batch(vec![
        ("oid", Cells::Numbers((FIRST_FUNCTION..).zip(FUNCTIONS).map(|(number, _)| Some(number)).collect())),
        ("proname", of(&|function| split(function).0.to_owned())),
        ("pronamespace", each(public)),
        ("proowner", each(Some(10))),
        ("pronargs", Cells::Numbers(FUNCTIONS.iter().map(count).collect())),
        ("prokind", of(&|function| if is_aggregate(context, function) { "a" } else { "f" }.to_owned())),
        ("provolatile", of(&|_| "i".to_owned())),
        ("proparallel", of(&|_| "s".to_owned())),
    ])?;
    extended(context, "pg_proc", &ours).await
}

/// `pg_description`: what tables and columns mean.
async fn descriptions(
    context: &SessionContext,
    numbers: &BTreeMap<String, i32>,
    classes: Option<i32>,
) -> Result<Arc<dyn TableProvider>, SqlError> {
    let (mut on, mut columns, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for listed in TABLES {
        let meanings = listed.columns.iter().map(|column| column.meaning);
        for (n, text) in std::iter::once(listed.about).chain(meanings).enumerate() {
            on.push(numbers.get(listed.name).copied());
            columns.push(i32::try_from(n).ok());
            texts.push(Some(plain(text)));
        }
    }
    let of = vec![classes; on.len()];
    let ours = batch(vec![
        ("objoid", Cells::Numbers(on)),
        ("classoid", Cells::Numbers(of)),
        ("objsubid", Cells::Numbers(columns)),
        ("description", Cells::Text(texts)),
    ])?;
    extended(context, "pg_description", &ours).await
}

/// A table of `pg_catalog` with more rows; what they don't say is NULL.
async fn extended(
    context: &SessionContext,
    name: &str,
    more: &RecordBatch,
) -> Result<Arc<dyn TableProvider>, SqlError> {
    let there = rows(context, &format!("SELECT * FROM pg_catalog.{name}")).await?;
    let failed = |error: arrow::error::ArrowError| SqlError::Execution(error.into());
    let nullable: Vec<Field> =
        there.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(nullable));
    let column = |field: &Arc<Field>| match more.column_by_name(field.name()) {
        Some(cells) => cast(cells, field.data_type()),
        None => Ok(new_null_array(field.data_type(), more.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let more = RecordBatch::try_new(schema.clone(), columns).map_err(failed)?;
    let there = RecordBatch::try_new(schema.clone(), there.columns().to_vec()).map_err(failed)?;
    table(concat_batches(&schema, [&there, &more]).map_err(failed)?)
}
