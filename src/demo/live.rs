//! What the demo shows while it runs, and at its end.
//!
//! In a terminal the state is drawn in place; otherwise what happens is printed a line at a time, and with JSON or
//! CSV output nothing but the summary.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use comfy_table::{Cell, Color, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use rebound_analytics::mttr;

use super::Summary;
use crate::cli::Output;
use crate::config::Config;
use crate::roles::Handle;
use crate::roles::view::{Row, ServiceState};

/// The demo's screen.
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    lines: bool,
    last: Vec<(String, ServiceState)>,
}

impl Screen {
    /// A screen that draws in place if this is a terminal; `talk` says whether it may print lines at all.
    pub(super) fn new(process: &Handle, talk: bool) -> Self {
        let terminal = talk && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is a constant: it can't be wrong.
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let screen = Self { bar, lines: talk, last: Vec::new() };
        screen.say(&format!("metrics {}/metrics · state {}/api/v1/services · Ctrl-C ends", process.url, process.url));
        screen
    }

    /// Prints a line above the state.
    pub(super) fn say(&self, line: &str) {
        let line = format!("{}  {line}", Utc::now().format("%H:%M:%S"));
        match &self.bar {
            Some(bar) => bar.println(line),
            None if self.lines => eprintln!("{line}"),
            None => {}
        }
    }

    /// Draws the state of now.
    pub(super) fn draw(&mut self, process: &Handle, injected: usize) {
        let rows = process.view.rows();
        for row in &rows {
            let name = row.service.to_string();
            match self.last.iter_mut().find(|(known, _)| *known == name) {
                Some((_, state)) if *state == row.state => continue,
                Some((_, state)) => *state = row.state,
                None => {
                    self.last.push((name, row.state));
                    // Before its first probe nothing is known of any of them: no news.
                    if row.state == ServiceState::Unobserved {
                        continue;
                    }
                }
            }
            self.say(&change(row));
        }
        let Some(bar) = &self.bar else { return };
        let figures = process.view.with_record(|record| {
            let report = mttr::mttr(record, process.plan.as_deref(), Utc::now());
            let verified = record.recoveries().filter(|r| r.verified == Some(true)).count();
            let recover = report.overall.recover;
            let times = recover.map_or_else(
                || "no recovery yet".to_owned(),
                |s| format!("MTTR median {:.1} s, p90 {:.1} s (n = {})", s.median, s.p90, s.n),
            );
            format!(
                "failures injected {injected} · incidents {} ({} open) · recoveries verified {verified} · {times}",
                record.incidents().count(),
                report.overall.open
            )
        });
        bar.set_message(format!("{}\n{figures}", table(&rows)));
    }

    pub(super) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn change(row: &Row) -> String {
    let mut line = format!("{:<15} {}", row.service.as_str(), row.state.as_str());
    if let Some(by) = row.suppressed_by.as_ref().filter(|_| row.incident.is_some()) {
        line.push_str(&format!(" (held back: {by} has failed)"));
    } else if row.state != ServiceState::Healthy
        && let Some(reason) = &row.reason
    {
        line.push_str(&format!(": {reason}"));
    }
    line
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["service", "tier", "state", "since", "why"]);
    for row in rows {
        let color = match row.state {
            ServiceState::Healthy => Color::Green,
            ServiceState::Degraded | ServiceState::Failing | ServiceState::Unobserved => Color::Yellow,
            ServiceState::Recovering => Color::Cyan,
            ServiceState::Failed => Color::Red,
        };
        let since = row.first_failure_at.filter(|_| row.state != ServiceState::Healthy);
        let why = match (&row.suppressed_by, &row.reason) {
            (Some(by), _) if row.incident.is_some() => format!("{by} has failed"),
            (_, Some(reason)) if row.state != ServiceState::Healthy => reason.chars().take(60).collect(),
            _ => String::new(),
        };
        table.add_row([
            Cell::new(row.service.as_str()),
            Cell::new(row.tier.as_ref().map_or("", |t| t.as_str())),
            Cell::new(row.state.as_str()).fg(color),
            Cell::new(since.map_or(String::new(), |at| format!("{} s", (Utc::now() - at).num_seconds()))),
            Cell::new(why),
        ]);
    }
    table
}

/// Prints the summary; `since` is when the run began, where the log holds a past from before it.
pub(super) fn print(summary: &Summary, output: Output, config: &Config, since: Option<DateTime<Utc>>) -> Result<()> {
    let shown = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), |f| format!("{f:.2}"));
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(summary)?),
        Output::Csv => {
            println!("seed,injected,detected,recovered,verified,mttr_n,mttr_median_s,mttr_p90_s");
            let plain = |figure: Option<f64>| figure.map_or_else(String::new, |f| f.to_string());
            println!(
                "{},{},{},{},{},{},{},{}",
                summary.seed,
                summary.injected,
                summary.detected,
                summary.recovered,
                summary.verified,
                summary.mttr_s.n,
                plain(summary.mttr_s.median),
                plain(summary.mttr_s.p90)
            );
        }
        Output::Table | Output::Parquet => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.add_row(["failures injected", &summary.injected.to_string()]);
            table.add_row(["  detected", &summary.detected.to_string()]);
            table.add_row(["  recovered", &summary.recovered.to_string()]);
            table.add_row(["  verified", &summary.verified.to_string()]);
            table.add_row(["incidents recovered, dependants included", &summary.mttr_s.n.to_string()]);
            table.add_row(["  MTTR, median (s)", &shown(summary.mttr_s.median)]);
            table.add_row(["  MTTR, p90 (s)", &shown(summary.mttr_s.p90)]);
            println!("{table}");
            let data = config.data.display();
            let filter = since.map_or_else(String::new, |at| {
                format!(" WHERE first_failure_at >= '{}'", at.format("%Y-%m-%dT%H:%M:%SZ"))
            });
            println!("\nThe same in SQL, over the log that this left in {data}:");
            println!(
                "  rebound sql --data {data} \"SELECT count(mttr_seconds) AS n, median(mttr_seconds) AS median FROM incidents{filter}\""
            );
        }
    }
    Ok(())
}
