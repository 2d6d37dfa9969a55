//! What was imported of a source before, as the event log has it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array as _, ArrayRef, AsArray as _, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use rebound_analytics::session::SqlLimits;
use rebound_ingest::import::{Figure, Known};
use rebound_schemas::plan::Plan;
use rebound_schemas::{IncidentId, Source};

use crate::commands::sql;
use crate::config::Config;

/// Whether there is a log to look into.
fn has_log(config: &Config) -> bool {
    let location = config.log_location();
    location.contains("://") || Path::new(&location).join("_delta_log").exists()
}

/// What was imported of this source before.
pub(super) async fn incidents(
    config: &Config,
    plan: Option<Arc<Plan>>,
    source: &Source,
) -> Result<HashMap<IncidentId, Known>> {
    if !has_log(config) {
        return Ok(HashMap::new());
    }
    let session = sql::open_with(config, plan, unbounded(config)).await?;
    session.project(false, super::super::project::progress("reading the log")).await?;
    let quoted = source.as_str().replace('\'', "''");
    let query = format!(
        "SELECT incident, first_failure_at, recorded_first_failure_at, recovered_at, recorded_recovered_at, cause, \
         acknowledged_at IS NOT NULL FROM incidents WHERE opened_source = '{quoted}'"
    );
    let result = session.query(&query, Utc::now()).await?;
    let mut known = HashMap::with_capacity(result.rows());
    for batch in &result.batches {
        let texts = |column: usize| texts(batch.column(column));
        let times = |column: usize| batch.column(column).as_primitive::<TimestampMicrosecondType>();
        let (ids, causes, acknowledged) = (texts(0)?, texts(5)?, batch.column(6).as_boolean());
        let figure = |now: usize, recorded: usize, row: usize| {
            let at = |column: usize| {
                let times = times(column);
                times.is_valid(row).then(|| DateTime::from_timestamp_micros(times.value(row))).flatten()
            };
            Figure { now: at(now), recorded: at(recorded) }
        };
        for row in 0..batch.num_rows() {
            let first_failure = figure(1, 2, row);
            let (Some(now), Some(recorded)) = (first_failure.now, first_failure.recorded) else { continue };
            let cause = causes.is_valid(row).then(|| causes.value(row).to_owned());
            let is = Known::new(Figure { now, recorded }, figure(3, 4, row), cause, acknowledged.value(row));
            known.insert(IncidentId::new(ids.value(row))?, is);
        }
    }
    Ok(known)
}

/// No limit of rows: all of a source is looked at.
fn unbounded(config: &Config) -> SqlLimits {
    SqlLimits { max_rows: usize::MAX, ..sql::limits(config) }
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8)?;
    Ok(column.as_string::<i32>().clone())
}

/// The ids of probe results that were imported of this source before.
pub(super) async fn probes(config: &Config, source: &Source) -> Result<Vec<String>> {
    if !has_log(config) {
        return Ok(Vec::new());
    }
    let session = sql::open_with(config, None, unbounded(config)).await?;
    let quoted = source.as_str().replace('\'', "''");
    let result = session.query(&format!("SELECT id FROM events WHERE source = '{quoted}'"), Utc::now()).await?;
    let mut ids = Vec::with_capacity(result.rows());
    for batch in &result.batches {
        ids.extend(texts(batch.column(0))?.iter().flatten().map(str::to_owned));
    }
    Ok(ids)
}
