//! `rebound bench`: the figures that the README states, measured on this machine.
//!
//! Everything runs on a folder that is made for it and removed again: the bus that the settings name (a Kafka gets
//! topics of its own, under a prefix with the time in it), and the real log writer and deciding roles. Each part is a
//! process of its own ([`part`]): [`latency`] and [`fleet`] say what is measured there.

mod fleet;
mod latency;
mod part;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use chrono::Utc;
use clap::Args;
use comfy_table::{Table, presets};
use rebound_ingest::log as event_log;
use serde::Serialize;

use crate::cli::{Done, Output};
use crate::config::{BusKind, Config};
use fleet::Fleet;
use latency::{Alone, Loaded, Quantiles};
pub(crate) use part::bench_part;
use part::{Answer, Part};

/// `rebound bench`
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// Probe events to drain from a filled topic; 0 leaves it out, as with the others.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Commits over which the growth of the commit time is measured.
    #[arg(long, default_value_t = 0)]
    versions: u64,
    /// Samples of each latency.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Events a second of a fleet that is probed meanwhile, for the latency under load.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Services of a fleet whose state is measured, and how soon it is back after a kill -9.
    #[arg(long, default_value_t = 0)]
    services: u64,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Everything measured; what was left out is absent. Latencies are in milliseconds.
#[derive(Debug, Serialize)]
struct Measured {
    bus: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    drained: Option<Drained>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_growth: Option<Answer<event_log::CommitGrowth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alone: Option<Alone>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded: Option<Answer<Loaded>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<Fleet>,
}

/// A filled topic drained into the log.
#[derive(Debug, Serialize)]
struct Drained {
    /// Mean size of an event on the bus, in bytes.
    event_bytes: f64,
    #[serde(flatten)]
    log: event_log::DrainReport,
    /// Largest resident size of the process that drained, in MiB.
    peak_mib: u64,
    bytes_per_event_compacted: f64,
    /// Largest resident size of the process that compacted it afterwards, in MiB.
    compaction_peak_mib: u64,
}

/// Lines of the result: what was measured, what is asked for (on 2 cores), and whether it is reached.
struct Lines(Table);

impl Lines {
    fn say(&mut self, figure: &str, measured: String) {
        self.0.add_row([figure, &measured, "", ""]);
    }

    fn hold(&mut self, figure: &str, measured: String, floor: &str, reached: bool) {
        self.0.add_row([figure, &measured, floor, if reached { "reached" } else { "MISSED" }]);
    }

    fn drained(&mut self, drained: &Drained) {
        let log = &drained.log;
        let rate = |rate: f64| format!("{rate:.0}/s");
        let (measured, reached) = (rate(log.events_per_second), log.events_per_second >= 250_000.0);
        self.hold("events drained, joining included", measured, "250000/s", reached);
        self.say("events drained, steady", rate(log.steady_events_per_second));
        self.say("bytes an event on the bus", format!("{:.0}", drained.event_bytes));
        self.say("commit, p50 / p99", format!("{:.0} / {:.0} ms", log.commit_p50_ms, log.commit_p99_ms));
        let (measured, reached) = (format!("{:.1}", log.bytes_per_event), log.bytes_per_event <= 40.0);
        self.hold("bytes an event as committed", measured, "40", reached);
        self.say("bytes an event compacted", format!("{:.1}", drained.bytes_per_event_compacted));
        self.peak("peak memory, draining", drained.peak_mib);
        self.peak("peak memory, compacting", drained.compaction_peak_mib);
    }

    fn peak(&mut self, figure: &str, mib: u64) {
        self.hold(figure, format!("{mib} MiB"), "1024 MiB", mib < 1024);
    }

    fn trigger(&mut self, figure: &str, bus: &str, times: &Quantiles) {
        let floor = if bus == "kafka" { 150.0 } else { 50.0 };
        self.hold(figure, spread(times), &format!("{floor:.0} ms"), times.p99 <= floor);
    }

    fn fleet(&mut self, fleet: &Fleet) {
        let of = format!("{} services", fleet.services);
        let state = format!("{} MiB", fleet.state_mib);
        self.hold(&format!("state of {of}"), state, "500 MiB", fleet.state_mib < 500);
        let state = format!("{} MiB", fleet.state_with_conditions_mib);
        let reached = fleet.state_with_conditions_mib < 500;
        self.hold(&format!("state of {of}, five conditions each"), state, "500 MiB", reached);
        let past = format!("{} results, {} decisions", fleet.past.observations, fleet.past.decisions);
        self.say("their past on the bus", past);
        let cold = format!("{:.1} s", fleet.ready_without_snapshot_seconds);
        self.say("ready where there is no snapshot", cold);
        let seconds = fleet.slowest();
        self.hold("ready after a kill -9, slowest", format!("{seconds:.1} s"), "5 s", seconds <= 5.0);
        self.say("memory of alert, recover and serve, ready", format!("{} MiB", fleet.ready_mib));
    }
}

fn spread(times: &Quantiles) -> String {
    format!("{:.1} / {:.1} ms", times.p50, times.p99)
}

impl Measured {
    fn of(bus: BusKind) -> Self {
        let bus = match bus {
            BusKind::Embedded => "embedded",
            BusKind::Kafka => "kafka",
        };
        Self { bus, drained: None, commit_growth: None, alone: None, loaded: None, fleet: None }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["figure", "measured", "floor", "verdict"]);
        let mut lines = Lines(table);
        lines.say("bus", self.bus.to_owned());
        if let Some(drained) = &self.drained {
            lines.drained(drained);
        }
        if let Some(Answer { figures: growth, peak_mib }) = &self.commit_growth {
            let figure = format!("commit time at version {} ÷ at 100", growth.versions);
            lines.hold(&figure, format!("{:.2}", growth.ratio), "1.5", growth.ratio <= 1.5);
            lines.say("live files at most", growth.most_files.to_string());
            lines.peak("peak memory of these commits and their upkeep", *peak_mib);
        }
        if let Some(alone) = &self.alone {
            let times = &alone.acknowledged_to_queryable_ms;
            let reached = times.p99 <= 2000.0;
            lines.hold("acknowledged to queryable, p50 / p99", spread(times), "2000 ms", reached);
            lines.trigger("failed probe to trigger, p50 / p99", self.bus, &alone.failed_probe_to_trigger_ms);
        }
        if let Some(Answer { figures: loaded, peak_mib }) = &self.loaded {
            let figure = format!("the same at {:.0} events/s", loaded.events_per_second);
            lines.trigger(&figure, self.bus, &loaded.failed_probe_to_trigger_ms);
            lines.say("peak memory of the roles at that", format!("{peak_mib} MiB"));
        }
        if let Some(fleet) = &self.fleet {
            lines.fleet(fleet);
        }
        lines.0
    }
}

pub(crate) async fn bench(bench: Bench, config: &Config) -> Result<Done> {
    let wanted = [bench.events, bench.versions, bench.samples as u64, bench.services];
    ensure!(
        wanted.iter().any(|n| *n > 0),
        "there is nothing to measure: give --events, --versions, --samples or --services"
    );
    ensure!(
        bench.rate == 0 || (100..=100_000).contains(&bench.rate),
        "--rate takes 100 to 100000 events a second, or 0"
    );
    // Whole, since the parts read it from settings of their own, whose paths are meant from where they are.
    let folder = std::path::absolute(config.data.join(format!("bench-{}", std::process::id())))?;
    std::fs::create_dir_all(&folder).with_context(|| format!("the folder {} can't be made", folder.display()))?;
    let mut measured = Measured::of(config.bus.kind);
    let result = tokio::select! {
        result = Box::pin(measure(&bench, config, &folder, &mut measured)) => result,
        // The part under way ends with it.
        () = crate::roles::interrupted() => Err(anyhow!("stopped before all was measured")),
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("the folder {} can't be removed", folder.display()))?;
    // What was measured before something failed is worth knowing.
    match bench.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&measured)?),
        Output::Table => println!("{}", measured.table()),
        _ => super::log::print(&measured, bench.output)?,
    }
    result.map(|()| Done::Good)
}

/// The settings with a data folder and a topic prefix of this part's own.
fn apart(config: &Config, folder: &Path, name: &str) -> Config {
    let mut config = config.clone();
    config.data = folder.join(name);
    config.plan = None;
    config.log.location = None;
    config.kafka.prefix = format!("{}-bench-{}-{name}", config.kafka.prefix, Utc::now().timestamp_millis());
    config.http.listen.set_port(0);
    config
}

async fn measure(bench: &Bench, config: &Config, folder: &Path, measured: &mut Measured) -> Result<()> {
    if bench.events > 0 {
        let config = apart(config, folder, "log");
        eprintln!("filling a topic with {} probe events, then draining it into the log …", bench.events);
        let bytes: Answer<u64> = part::run(&config, &Part::Fill { events: bench.events }).await?;
        let log: Answer<event_log::DrainReport> = part::run(&config, &Part::Drain { events: bench.events }).await?;
        let compacted: Answer<f64> = part::run(&config, &Part::Compact).await?;
        measured.drained = Some(Drained {
            event_bytes: bytes.figures as f64 / bench.events as f64,
            log: log.figures,
            peak_mib: log.peak_mib,
            bytes_per_event_compacted: compacted.figures,
            compaction_peak_mib: compacted.peak_mib,
        });
        forget(&config)?;
    }
    if bench.versions > 0 {
        eprintln!("{} commits …", bench.versions);
        let config = apart(config, folder, "growth");
        measured.commit_growth = Some(part::run(&config, &Part::Growth { versions: bench.versions }).await?);
        forget(&config)?;
    }
    if bench.samples > 0 {
        eprintln!("{} samples of each latency …", bench.samples);
        let config = apart(config, folder, "latency");
        measured.alone = Some(part::run(&config, &Part::Latency { samples: bench.samples }).await?.figures);
        forget(&config)?;
    }
    if bench.samples > 0 && bench.rate > 0 {
        eprintln!("{} samples with {} events a second going by …", bench.samples, bench.rate);
        let config = apart(config, folder, "load");
        let part = Part::Load { samples: bench.samples, rate: bench.rate };
        measured.loaded = Some(part::run(&config, &part).await?);
        forget(&config)?;
    }
    if bench.services > 0 {
        eprintln!("the past of {} services, and {} starts after a kill -9 …", bench.services, fleet::KILLS);
        let config = apart(config, folder, "fleet");
        measured.fleet = Some(fleet::measure(bench.services, &config).await?);
    }
    Ok(())
}

/// Frees the disk for the next part.
fn forget(config: &Config) -> Result<()> {
    std::fs::remove_dir_all(&config.data).with_context(|| format!("{} can't be removed", config.data.display()))
}
