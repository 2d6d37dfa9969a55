//! `rebound sql` and `rebound mttr`: the event log asked from the command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::Utc;
use comfy_table::{Table, presets};
use rebound_analytics::mttr::{Mttr, mttr as figures_of};
use rebound_analytics::output::{self, Format};
use rebound_analytics::session::{Session, SqlLimits};
use rebound_analytics::trend::{self, Every};
use rebound_schemas::plan::Plan;

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

pub(crate) async fn sql(config: &Config, query: &str, output: Output, to: Option<PathBuf>) -> Result<Done> {
    let session = open(config, plan(config)?).await?;
    let result = session.query(query, Utc::now()).await.map_err(|error| {
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

pub(crate) async fn mttr(config: &Config, every: Option<String>, output: Output) -> Result<Done> {
    let plan = plan(config)?;
    let session = open(config, plan.clone()).await?;
    let record = session.record().await?;
    if let Some(every) = every {
        let every =
            Every::parse(&every).with_context(|| format!("--every {every:?} is no period: write 1d, 1w, 1mo or 1q"))?;
        let trend = trend::mttr_trend(&record, None, every)?;
        match output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&trend)?),
            Output::Csv => {
                println!("start,n,median_s,p90_s,rolling_mean_s");
                for row in &trend {
                    println!("{},{},{},{},{}", row.start.date_naive(), row.n, row.median, row.p90, row.rolling_mean);
                }
            }
            Output::Table | Output::Parquet => {
                let rows = trend.iter().map(|row| {
                    let seconds = [row.median, row.p90, row.rolling_mean].map(|s| format!("{s:.1}"));
                    let [median, p90, rolling] = seconds;
                    vec![row.start.date_naive().to_string(), row.n.to_string(), median, p90, rolling]
                });
                print_table(&["period", "n", "median s", "p90 s", "4-period mean s"], rows);
            }
        }
        return Ok(Done::Good);
    }
    let report = figures_of(&record, plan.as_deref(), Utc::now());
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Csv => {
            println!(
                "service,n,median_s,median_low_s,median_high_s,p90_s,p95_s,geometric_mean_s,mean_s,km_median_s,open,rto_attainment"
            );
            for (service, figures) in lines(&report.overall, &report.services) {
                println!("{service},{}", columns(figures, |f| f.to_string()).join(","));
            }
        }
        Output::Table | Output::Parquet => {
            let rows = lines(&report.overall, &report.services).map(|(service, figures)| {
                let mut row = vec![service.to_owned()];
                row.extend(columns(figures, |f| format!("{f:.2}")));
                row
            });
            let header = [
                "service",
                "n",
                "median s",
                "95 % from",
                "to",
                "p90 s",
                "p95 s",
                "geo. mean s",
                "mean s",
                "KM median s",
                "open",
                "RTO met",
            ];
            print_table(&header, rows);
        }
    }
    Ok(Done::Good)
}

fn lines<'a>(
    overall: &'a Mttr,
    services: &'a std::collections::BTreeMap<String, Mttr>,
) -> impl Iterator<Item = (&'a str, &'a Mttr)> {
    services.iter().map(|(service, figures)| (service.as_str(), figures)).chain([("(all)", overall)])
}

/// The figures of one row, in the order of the header; what is not known is empty.
fn columns(figures: &Mttr, number: impl Fn(f64) -> String) -> Vec<String> {
    let summary = figures.recover;
    let of = |pick: fn(&rebound_analytics::stats::Summary) -> f64| summary.as_ref().map(pick);
    let shown = |figure: Option<f64>| figure.map_or_else(String::new, &number);
    vec![
        summary.map_or(0, |s| s.n).to_string(),
        shown(of(|s| s.median)),
        shown(of(|s| s.median_low)),
        shown(of(|s| s.median_high)),
        shown(of(|s| s.p90)),
        shown(of(|s| s.p95)),
        shown(of(|s| s.geometric_mean)),
        shown(of(|s| s.mean)),
        shown(figures.survival_median),
        figures.open.to_string(),
        shown(figures.rto.share()),
    ]
}

fn print_table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    println!("{table}");
}
