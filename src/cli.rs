//! The command line: what can be said, and what each exit code means.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it did not work: the message says what, where and what to do |
//! | 2 | the command line is wrong |
//! | 3 | it ran, and found faults (`log verify`, `channels test`, `failover`, `demo`), or some events or rows were rejected (`emit`, `import`, …) |

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::Config;
use crate::demo;
use crate::roles::Role;
use crate::telemetry::{self, LogFormat};

/// Monitoring and metrics for technology recovery: probes, an event log that keeps everything, recoveries that are
/// triggered once and verified, and the figures over them.
#[derive(Debug, Parser)]
#[command(name = "rebound", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Settings file (TOML); `rebound check --print` shows every setting.
    #[arg(long, global = true, env = "REBOUND_CONFIG", value_name = "FILE", help_heading = "Options of every command")]
    config: Option<PathBuf>,
    /// Folder of the bus, the event log and derived state [default: ./rebound-data].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Options of every command")]
    data: Option<PathBuf>,
    /// The continuity plan (TOML).
    #[arg(long, global = true, value_name = "FILE", help_heading = "Options of every command")]
    plan: Option<PathBuf>,
    /// How log lines look.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "REBOUND_LOG_FORMAT",
        value_name = "FORMAT",
        help_heading = "Options of every command"
    )]
    log_format: LogFormat,
}

impl Common {
    /// The settings in force.
    pub(crate) fn settings(&self) -> Result<Config> {
        let mut config = Config::load(self.config.as_deref(), std::env::vars())?;
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        if let Some(plan) = &self.plan {
            config.plan = Some(plan.clone());
        }
        Ok(config)
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Csv,
    /// Only where a file or a pipe takes it.
    Parquet,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every role in this process.
    Up,
    /// Run chosen roles in this process: several machines share the work over one Kafka.
    Run {
        /// The roles.
        #[arg(required = true, value_enum)]
        roles: Vec<Role>,
    },
    /// Check the settings and the plan, and say what they mean.
    Check {
        /// A plan to check instead of the one in the settings.
        #[arg(value_name = "PLAN")]
        file: Option<PathBuf>,
        /// Print every setting in force, secrets replaced.
        #[arg(long)]
        print: bool,
    },
    /// Look after notification channels: try one, and see and retry what could not be delivered.
    #[command(subcommand)]
    Channels(crate::commands::channels::ChannelsCommand),
    /// Send events to a running Rebound.
    Emit(crate::commands::emit::Emit),
    /// Bring in history from elsewhere: incidents and probe results, from CSV, NDJSON, JSON or Atom.
    #[command(subcommand)]
    Import(Box<crate::commands::import::ImportCommand>),
    /// See, run, approve, refuse, call off or pause recoveries of a running Rebound.
    Recovery(crate::commands::recovery::Recovery),
    /// Move the load of a site or a service to another site, by the plan's procedure.
    Failover(crate::commands::failover::Move),
    /// Move it back.
    Failback(crate::commands::failover::Move),
    /// Keep alerts quiet for a while; what happens is tracked all the same.
    #[command(subcommand)]
    Silence(crate::commands::window::SilenceCommand),
    /// Say when work is done, before or afterwards.
    #[command(subcommand)]
    Maintenance(crate::commands::window::MaintenanceCommand),
    /// Tell why something fired, was suppressed, was triggered or was not, with the events that say so.
    Explain(crate::commands::explain::Explain),
    /// Query the event log and its projections.
    ///
    /// `SHOW TABLES` lists the tables, `DESCRIBE incidents` the columns of one; `--reference` tells what each means, with
    /// worked queries of an annual review. In `events`, `data` is the event's payload as JSON; it is NULL where the
    /// columns hold all of it, as for most `probe.completed` events: read those from `probes`.
    Sql {
        /// One SELECT statement.
        #[arg(required_unless_present = "reference")]
        query: Option<String>,
        /// Print the reference of tables, columns and functions, docs/sql.md, instead.
        #[arg(long, conflicts_with_all = ["query", "to", "as_of"])]
        reference: bool,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
        /// Write here instead of standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// As the log was known then: later events and corrections are left out, and open incidents last until then.
        #[arg(long, value_name = "TIME")]
        as_of: Option<String>,
    },
    /// Answer SQL over the PostgreSQL protocol and HTTP, for psql, Grafana, Metabase and the like.
    Serve(crate::commands::serve::Serve),
    /// Recovery statistics: times, success and objectives, availability, impact; for all incidents or by group.
    #[command(visible_alias = "mttr")]
    Stats(crate::commands::stats::Stats),
    /// Is recovery getting faster: times by period, slope, change point.
    Trend(crate::commands::stats::Trend),
    /// Did it help: recovery times before and after an improvement or a date.
    Compare(crate::commands::stats::Compare),
    /// What is unusual in a series of one's own, and what comes next: from a CSV file.
    #[command(subcommand)]
    Analyze(crate::commands::analyze::AnalyzeCommand),
    /// Look after the projections that are kept beside the event log.
    #[command(subcommand)]
    Project(crate::commands::project::ProjectCommand),
    /// Look after the event log.
    #[command(subcommand)]
    Log(crate::commands::log::LogCommand),
    /// Look after messages that could not be read.
    #[command(subcommand)]
    Dlq(crate::commands::log::DlqCommand),
    /// A small fleet of real processes that fail and are recovered, live in this terminal.
    Demo(demo::Demo),
    /// Measure this machine: events a second, latencies, bytes an event.
    Bench(crate::commands::bench::Bench),
    /// Measure whether many probes keep their time on this machine.
    BenchProbes(crate::commands::bench_probes::BenchProbes),
    /// Completion script for a shell.
    Completions { shell: Shell },
    /// A part of the benchmark, in a process of its own.
    #[command(hide = true)]
    BenchPart { part: String },
    /// What the benchmark probes.
    #[command(hide = true)]
    BenchTarget,
    /// One service of the demo's fleet.
    #[command(hide = true)]
    DemoService(demo::service::DemoService),
    /// Acts on the demo's fleet, as its recovery procedure does.
    #[command(hide = true)]
    DemoCtl(demo::DemoCtl),
}

/// How a command ended, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Good,
    /// It ran and found faults.
    Faults,
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    // Roles tell what they do; a command that prints its result says only what is wrong.
    let talks = matches!(cli.command, Command::Up | Command::Run { .. } | Command::Serve(_));
    telemetry::start(cli.common.log_format, if talks { telemetry::ROLES } else { telemetry::COMMANDS });
    // Two providers of cryptography are compiled in by what Rebound stands on: say which one is meant.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    raise_descriptor_limit();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")
        .and_then(|runtime| {
            let result = runtime.block_on(Box::pin(run(cli)));
            // What still blocks (a hanging DNS look-up, say) must not hold up the end.
            runtime.shutdown_timeout(Duration::from_secs(2));
            result
        });
    match result {
        Ok(Done::Good) => ExitCode::SUCCESS,
        Ok(Done::Faults) => ExitCode::from(3),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rebound: {}", told_once(&without_backtrace(&format!("{error:#}"))));
            ExitCode::FAILURE
        }
    }
}

/// Each probe in flight holds a descriptor or more, and the usual soft limit of 1024 is for programs of another age.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files can't be raised: fewer probes run at the same time");
    }
}

/// An error's text without the backtraces that libraries write into theirs when `RUST_BACKTRACE` is set.
fn without_backtrace(text: &str) -> String {
    let is_frame = |line: &str| {
        let words = line.trim_start();
        let numbered = words.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        words.len() < line.len() && (numbered || words.starts_with("at "))
    };
    if !text.lines().any(is_frame) {
        return text.to_owned();
    }
    let lines: Vec<&str> = text.lines().filter(|line| !is_frame(line) && !line.is_empty()).collect();
    // What follows a backtrace goes on with the chain.
    lines.join("\n").replace("\n: ", ": ").replace("\n. ", ". ")
}

/// An error's chain without what its layers repeat: libraries underneath tell the cause within each layer again.
fn told_once(chain: &str) -> String {
    let mut told: Vec<&str> = Vec::new();
    for part in chain.split(": ") {
        // Short ones may stand twice with good reason: a number, a name.
        if part.len() < 12 && !part.ends_with(" error") || !told.contains(&part) {
            told.push(part);
        }
    }
    told.join(": ")
}

/// `rebound sql … | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn run(cli: Cli) -> Result<Done> {
    use crate::commands;
    let common = cli.common;
    match cli.command {
        Command::Up => crate::roles::run(common.settings()?, Role::ALL.to_vec()).await,
        Command::Run { roles } => crate::roles::run(common.settings()?, roles).await,
        Command::Check { file, print } => commands::check::check(&common.settings()?, file, print),
        Command::Channels(command) => commands::channels::channels(&common.settings()?, command).await,
        Command::Emit(emit) => commands::emit::emit(emit).await,
        Command::Import(command) => commands::import::import(&common.settings()?, *command).await,
        Command::Recovery(word) => commands::recovery::recovery(word).await,
        Command::Failover(asked) => commands::failover::failover(asked, false).await,
        Command::Failback(asked) => commands::failover::failover(asked, true).await,
        Command::Silence(command) => commands::window::silence(command, &common).await,
        Command::Maintenance(command) => commands::window::maintenance(command, &common).await,
        Command::Explain(explain) => commands::explain::explain(&common.settings()?, explain).await,
        Command::Sql { query, output, to, as_of, reference } => match query.filter(|_| !reference) {
            Some(query) => commands::sql::sql(&common.settings()?, &query, output, to, as_of).await,
            None => commands::sql::reference(),
        },
        Command::Serve(serve) => commands::serve::serve(common.settings()?, serve).await,
        Command::Stats(stats) => commands::stats::stats(&common.settings()?, stats).await,
        Command::Trend(trend) => commands::stats::trend(&common.settings()?, trend).await,
        Command::Compare(compare) => commands::stats::compare(&common.settings()?, compare).await,
        Command::Analyze(command) => commands::analyze::analyze(command),
        Command::Project(command) => commands::project::project(&common.settings()?, command).await,
        Command::Log(command) => commands::log::log(&common.settings()?, command).await,
        Command::Dlq(command) => commands::log::dlq(&common.settings()?, command).await,
        Command::Demo(demo) => demo::demo(demo, common.settings()?).await,
        Command::Bench(bench) => commands::bench::bench(bench, &common.settings()?).await,
        Command::BenchProbes(bench) => commands::bench_probes::bench(bench, &common.settings()?).await,
        Command::BenchPart { part } => {
            commands::bench::bench_part(&part, &common.settings()?).await.map(|()| Done::Good)
        }
        Command::BenchTarget => commands::bench_probes::target().await.map(|()| Done::Good),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "rebound", &mut std::io::stdout());
            Ok(Done::Good)
        }
        Command::DemoService(service) => demo::service::serve(service).await.map(|()| Done::Good),
        Command::DemoCtl(ctl) => demo::ctl(&ctl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backtraces_are_not_for_users() {
        let text = "it can't be opened: no JSON\n   0: a::b\n             at ./c.rs:1:2\n  12: d\n\n: no JSON";
        assert_eq!(without_backtrace(text), "it can't be opened: no JSON: no JSON");
        let faults = "two faults:\nplan.toml:3: no\nplan.toml:4: no";
        assert_eq!(without_backtrace(faults), faults);
    }

    #[test]
    fn what_layers_repeat_is_told_once() {
        let chain =
            "the query failed: Parquet error: Parquet error: f.parquet is torn: Parquet error: f.parquet is torn";
        assert_eq!(told_once(chain), "the query failed: Parquet error: f.parquet is torn");
        assert_eq!(told_once("it failed: Json error: no JSON: Json error"), "it failed: Json error: no JSON");
        assert_eq!(told_once("a: 1: b: 1"), "a: 1: b: 1");
        assert_eq!(told_once("plan.toml:3: no\nplan.toml:4: no"), "plan.toml:3: no\nplan.toml:4: no");
    }
}
