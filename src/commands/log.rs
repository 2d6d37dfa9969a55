//! `rebound log` and `rebound dlq`: looking after what is stored and what could not be read.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Subcommand;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use rebound_ingest::bus::Partition;
use rebound_ingest::log::{self as event_log, LogLocation};
use rebound_schemas::Topic;
use serde::Serialize;

use crate::cli::{Done, Output};
use crate::config::Config;

/// `rebound log`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum LogCommand {
    /// Size, age and position of the event log.
    Stats {
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Prove from the table alone that nothing is missing or doubled and that every checksum holds.
    Verify {
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Merge small files into large ones.
    Compact {
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Go on past events that the bus no longer had when the log writer came to them. The loss is noted in the log.
    AcceptLoss {
        /// The partition, as in `observations-3`.
        partition: String,
        /// The oldest offset that the bus still holds, as the error said.
        low: i64,
    },
}

/// `rebound dlq`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DlqCommand {
    /// List what could not be read, and why.
    List {
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Put back what can be read now, by a newer Rebound say.
    Replay {
        /// Also what still can't be read.
        #[arg(long)]
        all: bool,
        /// Only what failed for this reason, as `dlq list` names it.
        #[arg(long)]
        class: Option<String>,
    },
}

/// A progress bar on standard error; none where that is no terminal.
pub(crate) fn progress(what: &'static str) -> impl FnMut(u64, u64) {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what);
    move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
        }
    }
}

/// Prints one object: as JSON, or a line a figure.
pub(crate) fn print(value: &impl Serialize, output: Output) -> Result<()> {
    let json = serde_json::to_value(value)?;
    match (&json, output) {
        (_, Output::Json) => println!("{}", serde_json::to_string_pretty(&json)?),
        (serde_json::Value::Object(members), Output::Csv) => {
            println!("figure,value");
            members.iter().for_each(|(name, value)| println!("{name},{}", text(value)));
        }
        (serde_json::Value::Object(members), _) => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.add_rows(members.iter().map(|(name, value)| [name.replace('_', " "), text(value)]));
            println!("{table}");
        }
        (other, _) => println!("{other}"),
    }
    Ok(())
}

fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "–".into(),
        serde_json::Value::Array(items) if items.is_empty() => "none".into(),
        serde_json::Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join("\n"),
        serde_json::Value::Object(members) => {
            // What it is about comes first, then its figures.
            let about = members.get("partition").map(text);
            let figures = members.iter().filter(|(name, _)| *name != "partition");
            let figures = figures.map(|(name, value)| format!("{} {}", name.replace('_', " "), text(value)));
            let figures = figures.collect::<Vec<_>>().join(", ");
            about.map_or(figures.clone(), |about| format!("{about}: {figures}"))
        }
        serde_json::Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(|| number.to_string(), |figure| format!("{figure:.1}"))
        }
        other => other.to_string(),
    }
}

pub(crate) async fn log(config: &Config, command: LogCommand) -> Result<Done> {
    let location = LogLocation::parse(&config.log_location())?;
    match command {
        LogCommand::Stats { output } => print(&event_log::stats(&location).await?, output)?,
        LogCommand::Verify { output } => {
            let report = event_log::verify(&location, progress("verifying")).await?;
            print(&report, output)?;
            if !report.holds() {
                eprintln!("the event log at {location} is not whole: {} findings", report.findings.len());
                return Ok(Done::Faults);
            }
        }
        LogCommand::Compact { output } => {
            print(&event_log::compact(&location, progress("compacting")).await?, output)?;
        }
        LogCommand::AcceptLoss { partition, low } => {
            let parsed = partition.rsplit_once('-').and_then(|(topic, number)| {
                let topic = Topic::ALL.into_iter().find(|t| t.as_str() == topic)?;
                Some(Partition::of(topic, number.parse().ok()?))
            });
            let parsed =
                parsed.with_context(|| format!("{partition:?} is no partition: write one as observations-3"))?;
            let lost = event_log::accept_loss(&location, parsed, low).await?;
            println!("{parsed}: {lost} offsets are given up and noted in the log");
        }
    }
    Ok(Done::Good)
}

pub(crate) async fn dlq(config: &Config, command: DlqCommand) -> Result<Done> {
    let bus = crate::roles::open_bus(config).await?;
    let result = match command {
        DlqCommand::List { output } => {
            let letters = event_log::dlq_list(&bus, &Topic::ALL).await?;
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&letters)?),
                Output::Csv => {
                    println!("topic,partition,offset,class,pointer,bytes");
                    for l in &letters {
                        println!("{},{},{},{},{},{}", l.topic, l.partition, l.offset, l.class, l.pointer, l.bytes);
                    }
                }
                Output::Table | Output::Parquet if letters.is_empty() => {
                    println!("no dead letters: everything that came could be read");
                }
                Output::Table | Output::Parquet => {
                    let rows = letters.iter().map(|l| {
                        let begin: String = l.excerpt.chars().take(40).collect();
                        let (partition, offset) = (l.partition.to_string(), l.offset.to_string());
                        [l.topic.to_owned(), partition, offset, l.class.clone(), l.reason.clone(), begin]
                    });
                    super::print_table(["topic", "partition", "offset", "class", "reason", "begins with"], rows);
                    println!("{} dead letters", letters.len());
                }
            }
            Ok(Done::Good)
        }
        DlqCommand::Replay { all, class } => {
            let chosen =
                |letter: &event_log::DeadLetterEntry| class.as_ref().is_none_or(|class| letter.class == *class);
            let report = event_log::dlq_replay(&bus, &Topic::ALL, all, chosen).await?;
            print(&report, Output::Table).map(|()| Done::Good)
        }
    };
    Arc::clone(&bus).close().await?;
    result
}
