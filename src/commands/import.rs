//! `rebound import`: history from elsewhere, through the bus into the event log.
//!
//! Without `--url` this process puts the events on the bus itself and, over the embedded bus, writes the log too, so
//! that the figures are there when it ends. With `--url` a running Rebound takes them in.

mod known;
mod way;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::Utc;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use rebound_ingest::import::{
    Clock, Column, DateOrder, FileFormat, Incidents, Line, Mapping, Notes, Preset, Probes, Rejects, Row, Rows,
    Services, Verdict,
};
use rebound_schemas::Source;

use super::log::progress;
use crate::cli::Done;
use crate::config::Config;
use way::Way;

/// Events put on the bus at once.
const BATCH: usize = 40_000;
/// Rejected rows that are told of one by one; all of them stand in the file of rejects.
const TOLD: usize = 5;
/// Names told of in a note.
const NAMES: usize = 6;

/// `rebound import …`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ImportCommand {
    /// Incidents: one row an incident, with when it opened and when it was resolved.
    Incidents(IncidentsArgs),
    /// Probe results: one row a result.
    Probes(ProbesArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct IncidentsArgs {
    #[command(flatten)]
    from: From,
    /// Column of the incident's id: what makes importing it again harmless.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    id: Option<String>,
    /// Column of the service that failed.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    service: Option<String>,
    /// Column of the cause.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    cause: Option<String>,
    /// Column of when it began (t0).
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    opened: Option<String>,
    /// Column of when it was noticed (t1); as `opened` when absent.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    detected: Option<String>,
    /// Column of when somebody took it (t2).
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    acknowledged: Option<String>,
    /// Column of who did.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    acknowledged_by: Option<String>,
    /// Column of when the service was back (t3).
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    resolved: Option<String>,
    /// Column of when it was closed (t4); as `resolved` when absent.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    closed: Option<String>,
    /// Column of the severity: `critical`, `warning`, `info`, or the words and numbers that trackers use.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    severity: Option<String>,
    /// Column of what happened, in words.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ProbesArgs {
    #[command(flatten)]
    from: From,
    /// Column of when it ran.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    time: Option<String>,
    /// Column of the service.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    service: Option<String>,
    /// Column of what it found: `healthy`, `degraded`, `failed`, or `up` and `down`, `1` and `0`.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    outcome: Option<String>,
    /// Column of how long it took, in milliseconds.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    latency_ms: Option<String>,
    /// Column of the probe's name.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    probe: Option<String>,
    /// Column of the site that it looked from.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    site: Option<String>,
    /// Column of why it failed.
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    reason: Option<String>,
}

/// The file, and how to understand it.
#[derive(Debug, Clone, Args)]
struct From {
    /// The file; `-` is standard input.
    file: PathBuf,
    /// What kind of file it is; by its name when absent.
    #[arg(long, value_parser = ["csv", "tsv", "ndjson", "json", "atom"])]
    format: Option<String>,
    /// Which system exported it: sets the columns, and what else follows.
    #[arg(long, value_parser = PossibleValuesParser::new(Preset::ALL.iter().map(|(name, _)| *name)))]
    preset: Option<String>,
    /// A mapping file (TOML) with `[columns]`, `[services]` and `[causes]`.
    #[arg(long = "map", value_name = "FILE", conflicts_with = "preset")]
    mapping: Option<PathBuf>,
    /// What the place is called that it comes from: ids count within it.
    #[arg(long)]
    source: Option<String>,
    /// The service that every row is about, where no column says so.
    #[arg(long, value_name = "SERVICE", conflicts_with = "service")]
    service_is: Option<String>,
    /// Time zone of times that name none, as in `Europe/Berlin` [default: UTC].
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Which comes first in `03/04/2025`.
    #[arg(long, value_parser = ["day-first", "month-first"])]
    date_order: Option<String>,
    /// How times are written, as for strftime, where no usual form is meant.
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// Where rejected rows are written [default: FILE.rejects.csv or .ndjson].
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Read and judge every row, and put nothing in.
    #[arg(long)]
    dry_run: bool,
    /// A running Rebound that is to take it in, as in http://127.0.0.1:9464.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File that holds its bearer token.
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

impl From {
    /// What flags, mapping file and preset say together; flags count most.
    fn mapping(&self) -> Result<Mapping> {
        let mut mapping = match (&self.mapping, &self.preset) {
            (Some(file), _) => Mapping::load(file)?,
            (None, Some(preset)) => Mapping::of(Preset::parse(preset).context("a preset of this name")?),
            (None, None) => Mapping::default(),
        };
        if let Some(format) = &self.format {
            mapping.format = FileFormat::parse(format);
        }
        let over = |said: &Option<String>, held: &mut Option<String>| {
            if said.is_some() {
                held.clone_from(said);
            }
        };
        over(&self.source, &mut mapping.source);
        over(&self.tz, &mut mapping.tz);
        over(&self.time_format, &mut mapping.time_format);
        over(&self.service_is, &mut mapping.service);
        over(&self.date_order, &mut mapping.date_order);
        Ok(mapping)
    }

    fn rejects_file(&self, rows: &Rows) -> PathBuf {
        let end = if rows.header().is_some() { "rejects.csv" } else { "rejects.ndjson" };
        self.rejects.clone().unwrap_or_else(|| match self.file.to_str() {
            Some("-") | None => PathBuf::from(format!("import.{end}")),
            Some(file) => PathBuf::from(format!("{file}.{end}")),
        })
    }
}

fn clock(mapping: &Mapping) -> Result<Clock> {
    let zone = Clock::zone(mapping.tz.as_deref().unwrap_or("UTC")).map_err(anyhow::Error::msg)?;
    let order = match mapping.date_order.as_deref() {
        None => None,
        Some("day-first") => Some(DateOrder::DayFirst),
        Some("month-first") => Some(DateOrder::MonthFirst),
        Some(other) => bail!("date_order {other:?} is unknown: write day-first or month-first"),
    };
    Clock::new(zone, order, mapping.time_format.clone()).map_err(anyhow::Error::msg)
}

/// The two kinds of reader behind one face.
enum Reading {
    Incidents(Box<Incidents>),
    Probes(Box<Probes>),
}

impl Reading {
    fn read(&mut self, line: u64, row: &Row) -> Result<Verdict, String> {
        match self {
            Self::Incidents(incidents) => incidents.read(line, row, Utc::now()),
            Self::Probes(probes) => probes.read(row, Utc::now()),
        }
    }

    fn told(&self) -> (&Notes, &Services) {
        match self {
            Self::Incidents(incidents) => (&incidents.notes, &incidents.services),
            Self::Probes(probes) => (&probes.notes, &probes.services),
        }
    }
}

pub(crate) async fn import(config: &Config, command: ImportCommand) -> Result<Done> {
    let from = match &command {
        ImportCommand::Incidents(args) => &args.from,
        ImportCommand::Probes(args) => &args.from,
    };
    let mut mapping = from.mapping()?;
    let columns: Vec<(&'static str, &Option<String>)> = match &command {
        ImportCommand::Incidents(a) => vec![
            ("id", &a.id),
            ("service", &a.service),
            ("cause", &a.cause),
            ("opened", &a.opened),
            ("detected", &a.detected),
            ("acknowledged", &a.acknowledged),
            ("acknowledged_by", &a.acknowledged_by),
            ("resolved", &a.resolved),
            ("closed", &a.closed),
            ("severity", &a.severity),
            ("reason", &a.reason),
        ],
        ImportCommand::Probes(a) => vec![
            ("time", &a.time),
            ("service", &a.service),
            ("outcome", &a.outcome),
            ("latency_ms", &a.latency_ms),
            ("probe", &a.probe),
            ("site", &a.site),
            ("reason", &a.reason),
        ],
    };
    for (field, column) in columns {
        if let Some(column) = column {
            mapping.set(field, Column::named(column));
        }
    }
    let clock = clock(&mapping)?;
    let rows = Rows::open(&from.file, mapping.format)?;
    let plan = super::sql::plan(config)?;
    let services = Services::new(mapping.services.clone(), plan.as_deref());
    let source = mapping.source.clone().unwrap_or_else(|| "file".to_owned());
    let source = Source::of_import(&source).with_context(|| format!("--source {source:?}"))?;
    let reading = match &command {
        ImportCommand::Incidents(_) => {
            let known = known::incidents(config, plan, &source).await?;
            Reading::Incidents(Box::new(Incidents::new(&rows, mapping, clock, services, source, known)?))
        }
        ImportCommand::Probes(_) => {
            let known = known::probes(config, &source).await?;
            Reading::Probes(Box::new(Probes::new(&rows, mapping, clock, services, source, known)?))
        }
    };
    let way = Way::open(config, from).await?;
    let mut run = Run { way, counts: Counts::default(), rejects: None, rejects_file: from.rejects_file(&rows) };
    let result = run.all(rows, reading).await;
    let Run { way, counts, rejects_file, .. } = run;
    way.close().await?;
    let told = result?;
    counts.print(from, &rejects_file, &told);
    Ok(if counts.rejected == 0 { Done::Good } else { Done::Faults })
}

/// What became of the rows.
#[derive(Debug, Default)]
struct Counts {
    rows: u64,
    new: u64,
    unchanged: u64,
    restated: u64,
    rejected: u64,
    reasons: Vec<(u64, String)>,
}

struct Run {
    way: Way,
    counts: Counts,
    rejects: Option<Rejects<BufWriter<File>>>,
    rejects_file: PathBuf,
}

impl Run {
    async fn all(&mut self, mut rows: Rows, mut reading: Reading) -> Result<Vec<String>> {
        let mut bar = progress("importing");
        let mut pending = Vec::with_capacity(BATCH + 3);
        let header = rows.header().map(<[String]>::to_vec);
        while let Some(line) = rows.next() {
            let line = line?;
            self.counts.rows += 1;
            let verdict = match &line.row {
                Ok(row) => reading.read(line.number, row),
                Err(fault) => Err(fault.clone()),
            };
            match verdict {
                Ok(Verdict::New(events)) => {
                    self.counts.new += 1;
                    pending.extend(events);
                }
                Ok(Verdict::Unchanged) => self.counts.unchanged += 1,
                Ok(Verdict::Restated(events)) => {
                    self.counts.restated += 1;
                    pending.extend(events);
                }
                Err(reason) => self.reject(&line, reason, header.as_deref())?,
            }
            if pending.len() >= BATCH {
                self.way.put(std::mem::replace(&mut pending, Vec::with_capacity(BATCH + 3))).await?;
                bar(rows.position(), rows.size.unwrap_or(0).max(rows.position() + 1));
            }
        }
        self.way.put(pending).await?;
        self.way.settle().await?;
        bar(1, 1);
        if self.counts.rows == 0 {
            bail!("{} holds no rows under its header", rows.file().display());
        }
        if let Some(rejects) = &mut self.rejects {
            rejects.finish().with_context(|| format!("{} can't be written", self.rejects_file.display()))?;
        }
        let (notes, services) = reading.told();
        Ok(remarks(notes, services))
    }

    fn reject(&mut self, line: &Line, reason: String, header: Option<&[String]>) -> Result<()> {
        let failed = || format!("the rejected rows can't be written to {}", self.rejects_file.display());
        let rejects = match &mut self.rejects {
            Some(rejects) => rejects,
            none => {
                let file = File::create(&self.rejects_file).with_context(failed)?;
                none.insert(Rejects::new(BufWriter::new(file), header).with_context(failed)?)
            }
        };
        rejects.write(line, &reason).with_context(failed)?;
        self.counts.rejected += 1;
        if self.counts.reasons.len() < TOLD {
            self.counts.reasons.push((line.number, reason));
        }
        Ok(())
    }
}

/// What is worth saying beside the numbers.
fn remarks(notes: &Notes, services: &Services) -> Vec<String> {
    let mut told = Vec::new();
    let mut count = |n: u64, what: &str| {
        if n > 0 {
            told.push(format!("{n} {what}"));
        }
    };
    count(notes.open, "still open: they count as lasting until now");
    count(notes.zero_length, "of zero length");
    count(notes.repeated, "stood twice in the file: counted once");
    count(notes.ambiguous_times, "local time(s) that a change of the clock made two of: the earlier was taken");
    let listed = |names: Vec<String>| {
        let more = names.len().saturating_sub(NAMES);
        let shown = names.into_iter().take(NAMES).collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    };
    let severities: &BTreeMap<String, u64> = &notes.unknown_severities;
    if !severities.is_empty() {
        let names = severities.iter().map(|(word, n)| format!("{word:?} ({n})")).collect();
        told.push(format!("severities taken as warning: {}", listed(names)));
    }
    if !services.renamed.is_empty() {
        let names = services.renamed.iter().map(|(name, id)| format!("{name:?} is {id}")).collect();
        told.push(format!("services named anew: {}", listed(names)));
    }
    if !services.unplanned.is_empty() {
        let names = services.unplanned.iter().map(|(id, n)| format!("{id} ({n})")).collect();
        told.push(format!("services that the plan does not know: {}", listed(names)));
    }
    told
}

impl Counts {
    fn print(&self, from: &From, rejects: &Path, told: &[String]) {
        let Self { rows, new, unchanged, restated, rejected, reasons } = self;
        let dry = if from.dry_run { " (dry run: nothing was put in)" } else { "" };
        println!("{}: {rows} rows{dry}", from.file.display());
        println!("  {new} new, {unchanged} known already, {restated} restated, {rejected} rejected");
        told.iter().for_each(|remark| println!("  {remark}"));
        for (line, reason) in reasons {
            eprintln!("{}:{line}: {reason}", from.file.display());
        }
        if *rejected > 0 {
            let more = rejected - reasons.len() as u64;
            let more = if more > 0 { format!("and {more} more; ") } else { String::new() };
            eprintln!("{more}rejected rows are in {}: mend them there and import that file", rejects.display());
        }
    }
}
