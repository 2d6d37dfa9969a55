//! The tables that a statement names, at one version of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use datafusion::catalog::{TableProvider, view::ViewTable};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, lit};

use super::SqlError;
use super::answer::Shared;
use crate::follow::Repeats;
use crate::tables::{TABLES, Table};
use crate::{gather, projections, recall};

impl Shared {
    /// Every table: those named as they are, the others empty, with their columns for `information_schema`.
    pub(crate) async fn tables(
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
        let mut follower = self.follower().await?;
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
        filter = filter.and(col("ingested_at").lt_eq(recall::time(at)));
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
