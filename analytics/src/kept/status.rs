//! What SQL sees of kept projections, and what is told of them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type};
use chrono::{DateTime, Utc};
use datafusion::catalog::{TableProvider, view::ViewTable};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, ExprFunctionExt, LogicalPlanBuilder, ScalarUDF, Volatility, WindowFrame,
    WindowFrameBound, WindowFrameUnits, cast, col, create_udf, lit, when,
};
use datafusion::scalar::ScalarValue;
use serde::Serialize;

use super::facts::GROUP;
use super::fold::{TABLES, schema};
use super::{Kept, disk};
use crate::session::SqlError;
use crate::tables::Table;

/// Names of columns that others are told from.
const ENDED: &str = "_ended";
const FIRST_ALIKE: &str = "_first_alike";

/// A table as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// Its name; `facts` are the log's rows that the others are folded from.
    pub table: &'static str,
    /// Its rows.
    pub rows: u64,
    /// Of these, folded anew since all was folded in one go.
    pub anew: u64,
    /// Its bytes on disk.
    pub bytes: u64,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The version of the log that it reflects.
    pub version: u64,
    /// When it was written to disk last; `None` while it is in memory alone.
    pub written_at: Option<DateTime<Utc>>,
    /// Data files of the log that it reflects.
    pub log_files: usize,
    /// Rows of the log that this build could not read.
    pub unreadable: usize,
    /// The tables.
    pub tables: Vec<TableStatus>,
}

impl Kept {
    /// What is kept.
    pub(crate) fn status(&self) -> Option<Status> {
        let state = self.state.as_ref()?;
        let manifest = self.home.as_deref().and_then(disk::Manifest::load);
        let mut gone = [0; 5];
        for (n, gone) in gone.iter_mut().enumerate().take(4) {
            *gone = self.replaced(n).unwrap_or(0);
        }
        let of = |n: usize, table: &'static str, anew: usize| {
            let base = state.base.as_ref().map_or(0, |base| base.rows(table));
            let bytes = manifest.as_ref().map_or(0, |manifest| manifest.bytes(table));
            TableStatus { table, rows: base - gone[n].min(base) + anew as u64, anew: anew as u64, bytes }
        };
        let mut tables: Vec<_> = TABLES
            .into_iter()
            .enumerate()
            .map(|(n, table)| of(n, table, state.delta.tables[n].iter().map(|batch| batch.num_rows()).sum()))
            .collect();
        tables.push(of(4, "facts", state.delta.rows()));
        Some(Status {
            version: state.version,
            written_at: state.saved.map(|(_, at)| at),
            log_files: state.files.len(),
            unreadable: state.unreadable,
            tables,
        })
    }

    /// Rows of the base that the delta replaces.
    fn replaced(&self, table: usize) -> Result<u64, SqlError> {
        let Some(state) = self.state.as_ref().filter(|state| !state.delta.groups.is_empty()) else { return Ok(0) };
        let (mut counted, base) = (0, state.base.as_ref().map_or(0, |base| base.rows(TABLES[table])));
        let delta: u64 = state.delta.tables[table].iter().map(|batch| batch.num_rows() as u64).sum();
        state.each_row(table, &[], |batch| counted += batch.num_rows() as u64)?;
        Ok(base + delta - counted)
    }

    /// A table as SQL sees it. What still lasts is measured up to `now`.
    pub(crate) fn table(&self, name: &str, now: DateTime<Utc>) -> Result<Arc<dyn TableProvider>, SqlError> {
        self.view(name, now).map(|view| Arc::new(view) as _).map_err(SqlError::Execution)
    }

    fn view(&self, name: &str, now: DateTime<Utc>) -> Result<ViewTable, DataFusionError> {
        let state = self.state.as_ref().expect("it was refreshed");
        let n = TABLES.iter().position(|table| *table == name).expect("a table that is kept");
        let delta = MemTable::try_new(schema(name), vec![state.delta.tables[n].clone()])?;
        let scan =
            |provider: Arc<dyn TableProvider>| LogicalPlanBuilder::scan(name, provider_as_source(provider), None);
        let plan = match &state.base {
            None => scan(Arc::new(delta))?,
            Some(base) => {
                let urls = base.paths(name).into_iter().map(|path| ListingTableUrl::parse(path.to_string_lossy()));
                let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
                let config = ListingTableConfig::new_with_multi_paths(urls.collect::<Result<_, _>>()?)
                    .with_listing_options(options)
                    .with_schema(schema(name));
                let held = scan(Arc::new(ListingTable::try_new(config)?))?;
                match state.delta.groups.is_empty() {
                    true => held,
                    false => held
                        .filter(standing(state.delta.groups.clone()).call(vec![col(GROUP)]))?
                        .union(scan(Arc::new(delta))?.build()?)?,
                }
            }
        };
        // Where a query does not ask for them, the planner takes these windows out again.
        let plan = match name {
            "incidents" => plan.window(vec![ended(now)?])?.window(vec![first_alike(now)?])?,
            _ => plan,
        };
        let table = Table::named(name).expect("a listed table");
        let shown = table.columns.iter().map(|column| match (name, column.name) {
            ("incidents", "lasted_seconds") => lasted(now),
            ("incidents", "rto_met") => rto_met(now),
            ("incidents", "impossible") => impossible(now).map(|it| it.alias("impossible")),
            ("incidents", "overlapping") => overlapping(now),
            ("incidents", "duplicate_of") => duplicate_of(now),
            (_, name) => Ok(col(name)),
        });
        let columns = shown.collect::<Result<Vec<Expr>, _>>()?;
        Ok(ViewTable::new(plan.project(columns)?.build()?, None))
    }
}

fn counts() -> Expr {
    col("recovered_at").is_null().and(Expr::Not(Box::new(col("excluded"))))
}

/// Microseconds from t0 until now, of what has not recovered.
fn so_far(now: DateTime<Utc>) -> Expr {
    lit(now.timestamp_micros()) - cast(col("first_failure_at"), DataType::Int64)
}

fn lasted(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    let seconds = cast(so_far(now), DataType::Float64) / lit(1e6);
    let lasting = counts().and(so_far(now).gt_eq(lit(0_i64)));
    Ok(when(lasting, seconds).otherwise(col("lasted_seconds"))?.alias("lasted_seconds"))
}

/// Of what has not recovered: false beyond the objective, unknown within.
fn rto_met(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    let beyond = cast(so_far(now), DataType::Float64) / lit(1e6);
    let past = counts().and(beyond.gt(col("rto_seconds")));
    Ok(when(past, lit(false)).otherwise(col("rto_met"))?.alias("rto_met"))
}

fn impossible(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    when(col("recovered_at").is_null(), so_far(now).lt(lit(0_i64))).otherwise(col("impossible"))
}

/// Those among which others are looked for: see [`crate::oddities`].
fn counted(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    Ok(Expr::Not(Box::new(col("excluded"))).and(Expr::Not(Box::new(impossible(now)?))))
}

/// When the earlier ones of the same service had ended: [`crate::oddities::overlapping`] in SQL.
fn ended(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    let until = coalesce(vec![col("recovered_at"), cast(lit("9999-12-31T00:00:00Z"), times())]);
    let order = [col("first_failure_at"), until.clone(), col("incident")].map(|key| key.sort(true, true)).to_vec();
    let ended = over(max_udaf(), until)
        .partition_by(vec![col("service"), counted(now)?])
        .order_by(order)
        .window_frame(WindowFrame::new_bounds(
            WindowFrameUnits::Rows,
            WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
            WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
        ))
        .build()?;
    Ok(ended.alias(ENDED))
}

/// The smallest id of those with the same service, t0 and t3: [`crate::oddities::duplicates`] in SQL.
fn first_alike(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    let alike = vec![col("service"), col("first_failure_at"), col("recovered_at"), counted(now)?];
    Ok(over(min_udaf(), col("incident")).partition_by(alike).build()?.alias(FIRST_ALIKE))
}

fn over(function: Arc<AggregateUDF>, argument: Expr) -> Expr {
    Expr::from(WindowFunction::new(function, vec![argument]))
}

fn overlapping(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    let within = coalesce(vec![col(ENDED).gt(col("first_failure_at")), lit(false)]);
    Ok(counted(now)?.and(within).alias("overlapping"))
}

fn duplicate_of(now: DateTime<Utc>) -> Result<Expr, DataFusionError> {
    let another = counted(now)?.and(col(FIRST_ALIKE).lt(col("incident")));
    Ok(when(another, col(FIRST_ALIKE)).end()?.alias("duplicate_of"))
}

fn times() -> DataType {
    schema("incidents").field_with_name("recovered_at").expect("a listed column").data_type().clone()
}

/// Whether a row of the base still counts: its group was not folded anew.
fn standing(anew: Arc<HashSet<i64>>) -> ScalarUDF {
    let stands = move |arguments: &[ColumnarValue]| match &arguments[0] {
        ColumnarValue::Array(groups) => {
            let groups = groups.as_primitive::<Int64Type>().values();
            let stands: BooleanArray = groups.iter().map(|group| Some(!anew.contains(group))).collect();
            Ok(ColumnarValue::Array(Arc::new(stands) as ArrayRef))
        }
        ColumnarValue::Scalar(ScalarValue::Int64(Some(group))) => {
            Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(!anew.contains(group)))))
        }
        ColumnarValue::Scalar(_) => Ok(ColumnarValue::Scalar(ScalarValue::Boolean(None))),
    };
    // Stable, so that it is not taken for a function of its argument alone: two versions have different groups.
    create_udf("_standing", vec![DataType::Int64], DataType::Boolean, Volatility::Stable, Arc::new(stands))
}
