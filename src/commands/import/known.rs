//! What was imported of a source before, as the event log has it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use chrono::Utc;
use rebound_analytics::session::{Session, SqlLimits};
use rebound_ingest::import::Known;
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
    let record = sql::open(config, plan).await?.record().await?;
    let own = record.incidents().filter(|incident| incident.opened_by.source == *source);
    Ok(own.map(|incident| (incident.id.clone(), Known::from(&incident))).collect())
}

/// The ids of probe results that were imported of this source before.
pub(super) async fn probes(config: &Config, source: &Source) -> Result<Vec<String>> {
    if !has_log(config) {
        return Ok(Vec::new());
    }
    let limits = SqlLimits { max_rows: usize::MAX, ..sql::limits(config) };
    let session = Session::open(&config.log_location(), None, limits).await?;
    let quoted = source.as_str().replace('\'', "''");
    let result = session.query(&format!("SELECT id FROM events WHERE source = '{quoted}'"), Utc::now()).await?;
    let mut ids = Vec::with_capacity(result.rows());
    for batch in &result.batches {
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
        let column = column.as_any().downcast_ref::<arrow::array::StringArray>().context("ids are text")?;
        ids.extend(column.iter().flatten().map(str::to_owned));
    }
    Ok(ids)
}
