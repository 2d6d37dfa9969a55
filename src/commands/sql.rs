//! `rebound sql`: the event log asked from the command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use rebound_analytics::output::{self, Format};
use rebound_analytics::session::{Session, SqlLimits};
use rebound_schemas::plan::Plan;
use serde_json::Value;

use crate::cli::{Done, Output};
use crate::config::Config;

/// Opens the event log with the limits in force.
pub(crate) async fn open(config: &Config, plan: Option<Arc<Plan>>) -> Result<Session> {
    Ok(Session::open(&config.log_location(), plan, limits(config)).await?)
}

/// What a statement may take.
pub(crate) fn limits(config: &Config) -> SqlLimits {
    SqlLimits { timeout: config.sql.timeout, memory: config.sql.memory, max_rows: config.sql.max_rows }
}

/// The plan, where there is one: tiers and objectives come from it.
pub(crate) fn plan(config: &Config) -> Result<Option<Arc<Plan>>> {
    if let Some(path) = &config.plan {
        return super::check::load_plan(path).map(|plan| Some(Arc::new(plan)));
    }
    // The demo leaves its plan beside its log.
    let demo = config.data.join("demo/plan.toml");
    if demo.exists() { super::check::load_plan(&demo).map(|plan| Some(Arc::new(plan))) } else { Ok(None) }
}

/// The rows of an answer as JSON objects, and whether there were more than the limit.
pub(crate) async fn rows(session: &Session, query: &str, now: DateTime<Utc>) -> Result<(Vec<Value>, bool)> {
    let result = session.query(query, now).await?;
    let mut json = Vec::new();
    output::write(Format::Json, &result.schema, &result.batches, &mut json)?;
    Ok((serde_json::from_slice(&json).context("the log's answer is not JSON")?, result.truncated))
}

/// Prints what there is to ask.
pub(crate) fn reference() -> Result<Done> {
    std::io::stdout().write_all(rebound_analytics::tables::reference().as_bytes())?;
    Ok(Done::Good)
}

pub(crate) async fn sql(
    config: &Config,
    query: &str,
    output: Output,
    to: Option<PathBuf>,
    as_of: Option<String>,
) -> Result<Done> {
    let now = Utc::now();
    let as_of = as_of.map(|text| super::stats::time(&text, "--as-of", chrono_tz::Tz::UTC, now)).transpose()?;
    let session = open(config, plan(config)?).await?;
    let answer = match as_of {
        Some(known_at) => session.query_as_of(query, known_at).await,
        None => session.query(query, now).await,
    };
    let result = answer.map_err(|error| {
        let damaged = error.to_string().contains("Parquet error") || error.to_string().contains("Object Store error");
        let error = anyhow::Error::from(error);
        if damaged {
            error.context("a file of the event log can't be read (`rebound log verify` tells which)")
        } else {
            error
        }
    })?;
    let format = match output {
        Output::Table => Format::Table,
        Output::Json => Format::Json,
        Output::Csv => Format::Csv,
        Output::Parquet if to.is_none() && std::io::stdout().is_terminal() => {
            bail!("Parquet is not for a terminal: add --to FILE, or pipe it somewhere");
        }
        Output::Parquet => Format::Parquet,
    };
    match to {
        Some(path) => {
            let file = std::fs::File::create(&path).with_context(|| format!("{} can't be written", path.display()))?;
            let mut file = std::io::BufWriter::new(file);
            output::write(format, &result.schema, &result.batches, &mut file)?;
            file.flush()?;
        }
        None => {
            let mut out = std::io::stdout();
            output::write(format, &result.schema, &result.batches, &mut out)?;
            out.flush()?;
        }
    }
    if result.truncated {
        eprintln!("only the first {} rows are shown: raise [sql] max_rows for more", config.sql.max_rows);
    }
    Ok(Done::Good)
}
