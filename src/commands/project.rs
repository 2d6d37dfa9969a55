//! `rebound project`: the tables that SQL and reports read, kept beside the event log so that nobody folds it anew.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use chrono::Utc;
use clap::Subcommand;
use comfy_table::{Table, presets};
use rebound_analytics::kept::{Progress, Quality, Status};
use serde::Serialize;

use crate::cli::{Done, Output};
use crate::config::Config;

/// How often a line tells of progress where no bar can.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// `rebound project`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Fold everything anew from the event log. What was kept is used by nobody after that.
    Rebuild {
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Tables, rows, the version of the log that they reflect, their age and size; and what is odd about incidents.
    Status {
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
}

/// A bar on a terminal; elsewhere a line now and then, if it takes long.
pub(crate) fn progress(what: &'static str) -> Progress {
    if std::io::stderr().is_terminal() {
        let bar = Mutex::new(super::log::progress(what));
        return Arc::new(move |done, all| bar.lock().unwrap_or_else(PoisonError::into_inner)(done, all));
    }
    let told = Mutex::new(Instant::now());
    Arc::new(move |done, all| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            eprintln!("{what}: {done} of {all}");
        }
    })
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(flatten)]
    status: Status,
    quality: Quality,
}

pub(crate) async fn project(config: &Config, command: ProjectCommand) -> Result<Done> {
    let (anew, output, what) = match command {
        ProjectCommand::Rebuild { output } => (true, output, "rebuilding"),
        ProjectCommand::Status { output } => (false, output, "reading the log"),
    };
    let session = super::sql::open(config, super::sql::plan(config)?).await?;
    let started = Instant::now();
    let (status, quality) = session.project(anew, progress(what)).await?;
    let told = Told { seconds: anew.then(|| started.elapsed().as_secs_f64()), status, quality };
    match output {
        Output::Table => print(&told),
        output => super::log::print(&told, output)?,
    }
    Ok(Done::Good)
}

fn print(told: &Told) {
    let Told { seconds, status, quality } = told;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["table", "rows", "folded anew", "bytes"]);
    for kept in &status.tables {
        table.add_row([kept.table.to_owned(), kept.rows.to_string(), kept.anew.to_string(), kept.bytes.to_string()]);
    }
    println!("{table}\n");
    let written = status.written_at.map_or_else(
        || "in memory alone".to_owned(),
        |at| {
            let age = (Utc::now() - at).to_std().unwrap_or_default();
            format!("written {} ago", humantime::format_duration(Duration::from_secs(age.as_secs())))
        },
    );
    println!("of version {} of the event log, {} data files; {written}", status.version, status.log_files);
    if let Some(seconds) = seconds {
        println!("folded anew in {seconds:.1} s");
    }
    if status.unreadable > 0 {
        println!("{} rows of the log can't be read by this build", status.unreadable);
    }
    println!("\n{} incidents, told of by {} events; of them", quality.incidents, quality.events);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (what, n) in [
        ("open", quality.open),
        ("corrected", quality.corrected),
        ("in no figure", quality.excluded),
        ("overlapping another of the service", quality.overlapping),
        ("of zero length", quality.zero_length),
        ("ending before they begin", quality.impossible),
        ("told of late, by an hour or more", quality.late),
        ("told of out of order", quality.out_of_order),
    ] {
        table.add_row(["", what, &n.to_string()]);
    }
    println!("{table}");
    println!("{} events were told again, and count once", quality.events_told_again);
}
