//! The tables that a statement names, at one version of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use datafusion::catalog::{TableProvider, view::ViewTable};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, cast, col, lit};
use rebound_schemas::ServiceId;
use rebound_schemas::incident::{Incident, Record};

use super::SqlError;
use super::answer::Shared;
use crate::chronicle::Chronicle;
use crate::json::{json_number, json_text};
use crate::observed::Observed;
use crate::projections::{self, Availability, Latest};
use crate::repeats::Rows;
use crate::report::Inputs;
use crate::surroundings::Surroundings;
use crate::tables::{TABLES, Table};
use crate::{gather, recall};

/// Tables that are rows of the log as they are, and of which kind; none: of all.
const VIEWS: [(&str, Option<&str>); 5] = [
    ("events", None),
    ("probes", Some("probe.completed")),
    ("replication", Some("replication.measured")),
    ("service_levels", Some("service_level.measured")),
    ("resources", Some("resource.measured")),
];
/// Tables that the incident fold is needed for.
const OF_RECORD: [&str; 9] = [
    "alerts",
    "incidents",
    "recoveries",
    "recovery_steps",
    "services",
    "attainment",
    "outages",
    "availability_daily",
    "data_quality",
];
/// Of these, the ones that take all of it at once; the others are kept, or need open incidents only.
const OF_WHOLE_RECORD: [&str; 2] = ["outages", "data_quality"];
/// Tables, beside those of the plan, that the chronicle is needed for.
const OF_CHRONICLE: [&str; 9] = [
    "notifications",
    "backups",
    "deployments",
    "drills",
    "failovers",
    "improvements",
    "corrections",
    "attainment",
    "data_quality",
];

/// What the tables that a statement names are made of; what none of them needs is empty.
#[derive(Default)]
struct Made {
    /// As it was known; of now, the follower keeps it.
    past: Option<Arc<Record>>,
    past_latest: BTreeMap<ServiceId, Latest>,
    chronicle: Chronicle,
    attainment: Option<RecordBatch>,
    availability: Vec<Availability>,
    quality: projections::Log,
}

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
        // What is over queries of its own comes before the follower is held: they need it.
        let made = self.made(named, now, known_at).await?;
        let mut follower = self.follower().await?;
        follower.refresh().await?;
        let record = match made.past.clone() {
            Some(record) => record,
            None if OF_WHOLE_RECORD.into_iter().any(wants) => follower.kept(self.plan.as_ref()).await?.record()?,
            None if wants("services") => Arc::new(follower.kept(self.plan.as_ref()).await?.open()?),
            None => Arc::default(),
        };
        let chronicle = &made.chronicle;
        let mut tables: BTreeMap<&'static str, Arc<dyn TableProvider>> = BTreeMap::new();
        for table in TABLES {
            let provider: Arc<dyn TableProvider> = match table.name {
                name if !wants(name) => Arc::new(EmptyTable::new(table.schema())),
                name @ ("alerts" | "incidents" | "recoveries" | "recovery_steps") if made.past.is_none() => {
                    follower.kept(self.plan.as_ref()).await?.table(name, now)?
                }
                "alerts" => memory(projections::alerts(&record))?,
                "incidents" => memory(projections::incidents(&record, plan, now))?,
                "recoveries" => memory(projections::recoveries(&record))?,
                "recovery_steps" => memory(projections::recovery_steps(&record))?,
                "services" if known_at.is_some() => memory(projections::services(&record, plan, &made.past_latest))?,
                "services" => memory(projections::services(&record, plan, follower.latest().await?))?,
                "objectives" => memory(projections::objectives(plan))?,
                "outages" => memory(projections::outages(&record, plan, now))?,
                "availability_daily" => memory(projections::availability_daily(&made.availability, plan))?,
                "notifications" => memory(projections::notifications(chronicle))?,
                "backups" => memory(projections::backups(chronicle))?,
                "deployments" => memory(projections::deployments(chronicle, plan))?,
                "drills" => memory(projections::drills(chronicle, plan))?,
                "failovers" => memory(projections::failovers(chronicle))?,
                "improvements" => memory(projections::improvements(chronicle, now))?,
                "corrections" => memory(projections::corrections(chronicle))?,
                "data_quality" => {
                    let (repeated, unreadable) = (follower.repeats().await?.len(), follower.unreadable());
                    let log = projections::Log { repeated, unreadable, ..made.quality };
                    memory(projections::data_quality(&record, chronicle, plan, log, now))?
                }
                name => {
                    if let Some((_, kind)) = VIEWS.iter().find(|(view, _)| *view == name) {
                        let repeats = follower.repeats().await?.clone();
                        let view = view(follower.provider().await?, *kind, table, &repeats, known_at);
                        Arc::new(view.map_err(SqlError::Execution)?)
                    } else if let Some(batch) = made.attainment.clone().filter(|_| name == "attainment") {
                        memory(batch)?
                    } else {
                        let batch = projections::plan(name, &chronicle.plans);
                        memory(batch.unwrap_or_else(|| RecordBatch::new_empty(table.schema())))?
                    }
                }
            };
            tables.insert(table.name, provider);
        }
        Ok(tables)
    }

    async fn made(
        &self,
        named: &[&str],
        now: DateTime<Utc>,
        known_at: Option<DateTime<Utc>>,
    ) -> Result<Made, SqlError> {
        let plan = self.plan.as_deref();
        let wants = |name: &str| named.contains(&name);
        let mut made = Made::default();
        if OF_CHRONICLE.into_iter().any(wants) || named.iter().any(|name| name.starts_with("plan_")) {
            made.chronicle = self.chronicle(known_at).await?;
        }
        if !OF_RECORD.into_iter().any(wants) {
            return Ok(made);
        }
        let record = match known_at {
            Some(at) => {
                let record = Arc::new(self.record_as_of(at).await?);
                if wants("services") {
                    made.past_latest = self.fold(gather::latest(at), BTreeMap::new(), gather::each_latest).await?;
                }
                made.past = Some(record.clone());
                record
            }
            None if wants("attainment") || wants("availability_daily") => {
                let mut follower = self.follower().await?;
                follower.refresh().await?;
                follower.kept(self.plan.as_ref()).await?.record()?
            }
            None => Arc::default(),
        };
        if wants("attainment") {
            let incidents: Vec<Incident> = record.incidents().collect();
            let surroundings = self.surroundings(&incidents, known_at).await?;
            made.attainment = Some(attainment(&record, &surroundings, &made.chronicle, plan, now));
        }
        if wants("availability_daily") {
            let observed = self.observed(known_at, None).await?;
            made.availability = Availability::of(&record, plan, &observed, now).map_err(|rows| {
                let message = format!(
                    "availability_daily would have {rows} rows, a service and day each: `rebound stats --by service \
                     --since 365d` has the same figures over any period"
                );
                SqlError::Refused(message)
            })?;
        }
        if wants("data_quality") {
            made.quality = self.quality(known_at).await?;
        }
        Ok(made)
    }
}

fn attainment(
    record: &Record,
    surroundings: &Surroundings,
    chronicle: &Chronicle,
    plan: Option<&rebound_schemas::plan::Plan>,
    now: DateTime<Utc>,
) -> RecordBatch {
    let observed = Observed::default();
    let (since, until, only, seed) = (None, None, &[][..], crate::mttr::SEED);
    let inputs = Inputs { record, plan, surroundings, observed: &observed, now, since, until, only, seed };
    projections::attainment(&inputs, &chronicle.plans)
}

fn memory(batch: RecordBatch) -> Result<Arc<dyn TableProvider>, SqlError> {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(SqlError::Execution)?;
    Ok(Arc::new(table))
}

/// Rows of one kind (or all) of the log's table: without internal rows, every event once. A view and not a filter of
/// rows, so that a query's own conditions still reach the files.
fn view(
    log: Arc<dyn TableProvider>,
    kind: Option<&str>,
    table: &Table,
    repeats: &Arc<Rows>,
    known_at: Option<DateTime<Utc>>,
) -> Result<ViewTable, DataFusionError> {
    let mut filter = match kind {
        Some(kind) => col("kind").eq(lit(kind)),
        None => col("kind").not_like(lit("log.%")),
    };
    if let Some(at) = known_at {
        filter = filter.and(col("ingested_at").lt_eq(recall::time(at)));
    }
    if !repeats.is_empty() {
        filter = filter.and(repeats.none_of());
    }
    let payload = |function: ScalarUDF, name: &str| function.call(vec![col("data"), lit(name)]);
    let number = |name: &str| payload(json_number(), name);
    let column = |name: &'static str| match name {
        "latency_seconds" => col("latency_us") / lit(1e6),
        "measured_at" => col("occurred_at"),
        "target_site" => col("site"),
        "resource" => payload(json_text(), "resource"),
        "pending_bytes" => cast(number("pending_bytes"), DataType::Int64),
        "response_seconds" => number("response_time_ms") / lit(1e3),
        "lag_seconds" | "window_seconds" | "throughput_per_second" | "error_rate" | "availability" | "utilization" => {
            number(name)
        }
        _ => col(name),
    };
    let columns: Vec<Expr> = table.columns.iter().map(|listed| column(listed.name).alias(listed.name)).collect();
    let plan = LogicalPlanBuilder::scan("log", provider_as_source(log), None)?.filter(filter)?.project(columns)?;
    Ok(ViewTable::new(plan.build()?, None))
}
