//! The benchmark's parts, each in a process of its own: a peak of memory is then that of the part alone, and not what
//! an allocator kept from the one before.

use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use rebound_ingest::log::{self as event_log, LogLocation, LogSettings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{fleet, latency};
use crate::config::Config;

/// What one process of the benchmark does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub(super) enum Part {
    /// Puts probe events on the observations topic; answers their bytes.
    Fill { events: u64 },
    /// Drains them into the log.
    Drain { events: u64 },
    /// Compacts the log; answers bytes an event.
    Compact,
    /// Makes many small commits.
    Growth { versions: u64 },
    /// From acknowledged to queryable, and from failed to triggered, with nothing else going on.
    Latency { samples: usize },
    /// From failed to triggered, with a fleet's results going by.
    Load { samples: usize, rate: u64 },
    /// Fills the topics with what a fleet's past is.
    FleetPast { services: u64 },
    /// Adds what came between the newest snapshot and a kill.
    FleetNewest { services: u64 },
    /// Folds a fleet's results in memory.
    FleetState { services: u64, conditions: bool },
}

/// What a part answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer<T> {
    pub(super) figures: T,
    /// Largest resident size of its process, in MiB.
    pub(super) peak_mib: u64,
}

/// Has a part done by a process of its own, with these settings. What it says goes on to standard error.
pub(super) async fn run<T: DeserializeOwned>(config: &Config, part: &Part) -> Result<Answer<T>> {
    let mut command = command(config)?;
    command.arg("bench-part").arg(serde_json::to_string(part)?).stdout(Stdio::piped());
    let output = command.spawn().context("a part of the benchmark can't be started")?.wait_with_output().await?;
    if !output.status.success() {
        bail!("a part of the benchmark failed: {part:?}");
    }
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().with_context(|| format!("a part of the benchmark said nothing: {part:?}"))?;
    serde_json::from_str(last).with_context(|| format!("{part:?} answers {last}"))
}

/// This program, with these settings and no others: what the environment sets is among them already. It ends when it
/// is dropped.
pub(super) fn command(config: &Config) -> Result<tokio::process::Command> {
    std::fs::create_dir_all(&config.data)?;
    let file = config.data.join("settings.toml");
    // With secrets, for this user alone, and removed with the folder.
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(0o600).open(&file);
    let mut written = written.with_context(|| format!("{} can't be written", file.display()))?;
    std::io::Write::write_all(&mut written, toml::to_string(config)?.as_bytes())?;
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg("--config").arg(file).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("REBOUND_") && name != "REBOUND_LOG");
        if ours {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// `rebound bench-part`
pub(crate) async fn bench_part(part: &str, config: &Config) -> Result<()> {
    let part: Part = serde_json::from_str(part).context("no part of the benchmark")?;
    let figures = match part {
        Part::Fill { events } => {
            let bus = crate::roles::open_bus(config).await?;
            let bytes = event_log::fill(&bus, events).await?;
            bus.close().await?;
            serde_json::to_value(bytes)
        }
        Part::Drain { events } => {
            let bus = crate::roles::open_bus(config).await?;
            let mut settings = LogSettings::new(location(config)?);
            settings.commit_age = config.log.commit_age;
            settings.commit_bytes = config.log.commit_bytes;
            let report = Box::pin(event_log::bench_drain(bus.clone(), settings, events)).await?;
            bus.close().await?;
            serde_json::to_value(report)
        }
        Part::Compact => {
            let location = location(config)?;
            Box::pin(event_log::compact(&location, |_, _| {})).await?;
            let stats = Box::pin(event_log::stats(&location)).await?;
            serde_json::to_value(stats.bytes_per_event.unwrap_or_default())
        }
        Part::Growth { versions } => {
            let settings = LogSettings::new(location(config)?);
            serde_json::to_value(Box::pin(event_log::bench_commits(&settings, versions)).await?)
        }
        Part::Latency { samples } => serde_json::to_value(Box::pin(latency::alone(samples, config)).await?),
        Part::Load { samples, rate } => serde_json::to_value(Box::pin(latency::loaded(samples, rate, config)).await?),
        Part::FleetPast { services } => serde_json::to_value(Box::pin(fleet::fill(services, config)).await?),
        Part::FleetNewest { services } => serde_json::to_value(Box::pin(fleet::add_newest(services, config)).await?),
        Part::FleetState { services, conditions } => serde_json::to_value(fleet::state(services, conditions)?),
    }?;
    println!("{}", serde_json::to_string(&Answer { figures, peak_mib: memory("self", "VmHWM")? })?);
    Ok(())
}

fn location(config: &Config) -> Result<LogLocation> {
    Ok(LogLocation::parse(&config.log_location())?)
}

/// What the system says of a process's memory, in MiB: `VmRSS` now, `VmHWM` at most so far.
pub(super) fn memory(process: &str, what: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .context("this system does not tell a process's memory: the benchmark needs Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kib: u64 = line.and_then(|line| line.trim().strip_suffix("kB")).context("no size")?.trim().parse()?;
    ensure!(kib > 0, "{what} is 0");
    Ok(kib / 1024)
}
