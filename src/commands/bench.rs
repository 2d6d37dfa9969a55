//! `rebound bench`: the figures that the README states, measured on this machine.
//!
//! Everything runs in this process on a folder that is made for it and removed again: the bus that the settings name
//! (a Kafka gets topics of its own, under a prefix with the time in it), and the real log writer and alerting role.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use clap::Args;
use comfy_table::{Table, presets};
use rebound_ingest::bus::{EventBus, Partition, Stream};
use rebound_ingest::log::{self as event_log, LogLocation, LogSettings};
use rebound_schemas::event::{ErrorClass, Outcome, ProbeCompleted, ResourceMeasured};
use rebound_schemas::{Event, EventData, EventId, ProbeId, ServiceId, Source, Topic};
use serde::Serialize;

use crate::cli::{Done, Output};
use crate::config::{BusKind, Config};
use crate::roles::tenure::{self, Feed};
use crate::roles::{Process, Role};

/// `rebound bench`
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// Probe events to drain from a filled topic.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Commits over which the growth of the commit time is measured; 0 leaves it out.
    #[arg(long, default_value_t = 0)]
    versions: u64,
    /// Samples of each latency.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Everything measured. Latencies are in milliseconds.
#[derive(Debug, Serialize)]
struct Measured {
    bus: &'static str,
    log: event_log::BenchReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_growth: Option<event_log::CommitGrowth>,
    acknowledged_to_queryable_ms: Quantiles,
    failed_probe_to_trigger_ms: Quantiles,
    /// Largest resident size of this process, in MiB.
    peak_memory_mib: i64,
}

impl Measured {
    /// A line a figure: what was measured, what is asked for (on 2 cores), and whether it is reached.
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["figure", "measured", "floor", "verdict"]);
        let mut row = |figure: &str, measured: String, floor: String, reached: Option<bool>| {
            let verdict = reached.map_or("", |reached| if reached { "reached" } else { "MISSED" });
            table.add_row([figure, &measured, &floor, verdict]);
        };
        let (log, mib) = (&self.log, |mib: u64| format!("{mib} MiB"));
        let rate = |rate: f64| format!("{rate:.0}/s");
        row("bus", self.bus.to_owned(), String::new(), None);
        let reached = Some(log.events_per_second >= 250_000.0);
        row("events drained, joining included", rate(log.events_per_second), "250000/s".into(), reached);
        row("events drained, steady", rate(log.steady_events_per_second), String::new(), None);
        row("bytes an event on the bus", format!("{:.0}", log.event_bytes), String::new(), None);
        let commit = format!("{:.0} / {:.0} ms", log.commit_p50_ms, log.commit_p99_ms);
        row("commit, p50 / p99", commit, String::new(), None);
        let reached = Some(log.bytes_per_event <= 40.0);
        row("bytes an event as committed", format!("{:.1}", log.bytes_per_event), "40".into(), reached);
        row("bytes an event compacted", format!("{:.1}", log.bytes_per_event_compacted), "40".into(), None);
        if let Some(peak) = log.drain_peak_mib {
            row("peak memory, draining", mib(peak), "1024 MiB".into(), Some(peak < 1024));
        }
        if let Some(peak) = log.compaction_peak_mib {
            row("peak memory, compacting", mib(peak), String::new(), None);
        }
        if let Some(growth) = &self.commit_growth {
            let figure = format!("commit time at version {} ÷ at 100", growth.versions);
            row(&figure, format!("{:.2}", growth.ratio), "1.5".into(), Some(growth.ratio <= 1.5));
            row("live files at most", growth.most_files.to_string(), String::new(), None);
        }
        let times = |q: &Quantiles| format!("{:.1} / {:.1} ms", q.p50, q.p99);
        let queryable = &self.acknowledged_to_queryable_ms;
        row("acknowledged to queryable, p50 / p99", times(queryable), "2000 ms".into(), Some(queryable.p99 <= 2000.0));
        let (trigger, floor) = (&self.failed_probe_to_trigger_ms, if self.bus == "kafka" { 150.0 } else { 50.0 });
        let reached = Some(trigger.p99 <= floor);
        row("failed probe to trigger, p50 / p99", times(trigger), format!("{floor:.0} ms"), reached);
        table
    }
}

#[derive(Debug, Serialize)]
struct Quantiles {
    n: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Quantiles {
    fn of(times: &[Duration]) -> Result<Self> {
        let times: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        let sorted = rebound_analytics::stats::sorted(&times);
        let at = |q| rebound_analytics::stats::quantile(&sorted, q).context("nothing was measured");
        Ok(Self { n: sorted.len(), p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

pub(crate) async fn bench(bench: Bench, config: &Config) -> Result<Done> {
    ensure!(bench.samples > 0 && bench.events > 0, "--samples and --events take 1 or more");
    let folder = config.data.join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("the folder {} can't be made", folder.display()))?;
    let result = Box::pin(measure(&bench, config, &folder)).await;
    std::fs::remove_dir_all(&folder).with_context(|| format!("the folder {} can't be removed", folder.display()))?;
    let measured = result?;
    match bench.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&measured)?),
        Output::Table => println!("{}", measured.table()),
        _ => super::log::print(&measured, bench.output)?,
    }
    Ok(Done::Good)
}

/// The settings with a data folder and a topic prefix of this part's own.
fn part(config: &Config, folder: &std::path::Path, name: &str) -> Config {
    let mut config = config.clone();
    config.data = folder.join(name);
    config.log.location = None;
    config.kafka.prefix = format!("{}-bench-{}-{name}", config.kafka.prefix, Utc::now().timestamp_millis());
    config.http.listen.set_port(0);
    config
}

async fn measure(bench: &Bench, config: &Config, folder: &std::path::Path) -> Result<Measured> {
    let throughput = part(config, folder, "log");
    let bus = crate::roles::open_bus(&throughput).await?;
    let settings = LogSettings::new(LogLocation::parse(&throughput.log_location())?);
    eprintln!("filling a topic with {} probe events, then draining it into the log …", bench.events);
    let log = Box::pin(event_log::bench_log(bus.clone(), settings, bench.events)).await?;
    bus.close().await?;
    let commit_growth = match bench.versions {
        0 => None,
        versions => {
            eprintln!("{versions} commits …");
            let location = LogLocation::parse(&folder.join("growth").display().to_string())?;
            Some(Box::pin(event_log::bench_commits(&LogSettings::new(location), versions)).await?)
        }
    };
    eprintln!("{} samples of each latency …", bench.samples);
    let latency = latencies(bench.samples, &part(config, folder, "latency")).await?;
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    Ok(Measured {
        bus: match config.bus.kind {
            BusKind::Embedded => "embedded",
            BusKind::Kafka => "kafka",
        },
        log,
        commit_growth,
        acknowledged_to_queryable_ms: Quantiles::of(&latency.0)?,
        failed_probe_to_trigger_ms: Quantiles::of(&latency.1)?,
        peak_memory_mib: usage.max_rss() / 1024,
    })
}

/// From acknowledged to queryable, and from a failed probe's end to its durable trigger.
async fn latencies(samples: usize, config: &Config) -> Result<(Vec<Duration>, Vec<Duration>)> {
    std::fs::create_dir_all(&config.data)?;
    let mut plan = String::from(
        "name = \"bench\"\n[[policy]]\nid = \"default\"\nfailures = 1\nintensity = 1000\n\
         [[procedure]]\nid = \"none\"\nconcurrency = 1\n[[procedure.step]]\nid = \"none\"\nmanual = \"nothing\"\n",
    );
    for n in 0..samples {
        plan.push_str(&format!(
            "[[service]]\nid = \"s{n}\"\nrto = \"1h\"\nprocedure = \"none\"\n[[service.probe]]\nid = \"p{n}\"\ntcp = \"127.0.0.1:1\"\n"
        ));
    }
    let file = config.data.join("plan.toml");
    std::fs::write(&file, plan)?;
    let mut config = config.clone();
    config.plan = Some(file);
    let mut process = Process::prepare(config.clone(), vec![Role::Log, Role::Alert]).await?;
    process.start().await?;
    let bus = process.handle().bus.clone();
    let triggers = triggers(samples, &bus).await?;
    let queryable = queryable(samples.min(50), samples, &config, &bus).await?;
    process.stop().await?;
    Ok((queryable, triggers))
}

async fn triggers(samples: usize, bus: &Arc<dyn EventBus>) -> Result<Vec<Duration>> {
    let from = (0..bus.partitions()).map(|n| (Partition::of(Topic::Recoveries, n), 0)).collect();
    let mut feed = Feed::start(bus, from);
    // A trigger for a service that was failed before the role was ready would count the role's start.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut times = Vec::new();
    for n in 0..samples {
        let service = ServiceId::new(&format!("s{n}"))?;
        let event = event(&service, n, failed(n)?.into())?;
        let began = Instant::now();
        bus.append(Stream::Events(Topic::Observations), vec![tenure::record(&event)]).await?;
        let seen = async {
            loop {
                let input = feed.next().await?;
                let is_it = |e: &Event| e.subject == service && matches!(e.data, EventData::RecoveryTriggered(_));
                if input.events.iter().any(is_it) {
                    return Ok::<_, anyhow::Error>(began.elapsed());
                }
            }
        };
        times.push(tokio::time::timeout(Duration::from_secs(30), seen).await.context("no trigger came")??);
    }
    Ok(times)
}

/// `first` is the first number that no event of this source has yet: one said twice would count once.
async fn queryable(samples: usize, first: usize, config: &Config, bus: &Arc<dyn EventBus>) -> Result<Vec<Duration>> {
    let session = super::sql::open(config, None).await?;
    let mut times = Vec::new();
    for n in 0..samples {
        let service = ServiceId::new("queryable")?;
        let data = ResourceMeasured { resource: "cpu".into(), utilization: 0.5, site: None };
        let event = event(&service, first + n, data.into())?;
        bus.append(Stream::Events(Topic::Observations), vec![tenure::record(&event)]).await?;
        let began = Instant::now();
        let query = format!("SELECT id FROM events WHERE service = 'queryable' AND id = '{}'", first + n);
        while session.query(&query, Utc::now()).await?.rows() == 0 {
            ensure!(began.elapsed() < Duration::from_secs(30), "event {n} did not become queryable within 30 s");
        }
        times.push(began.elapsed());
        // Not in step with the writer's one-second rhythm.
        tokio::time::sleep(Duration::from_millis((n as u64 * 137) % 1000)).await;
    }
    Ok(times)
}

fn event(service: &ServiceId, n: usize, data: EventData) -> Result<Event> {
    Ok(Event {
        id: EventId::new(&n.to_string())?,
        source: Source::new("rebound/bench")?,
        subject: service.clone(),
        occurred_at: Utc::now(),
        plan: None,
        data,
    })
}

fn failed(n: usize) -> Result<ProbeCompleted> {
    Ok(ProbeCompleted {
        probe: ProbeId::new(&format!("p{n}"))?,
        outcome: Outcome::Failed,
        latency_us: 1000,
        site: None,
        error_class: Some(ErrorClass::Network),
        reason: Some("connection refused".into()),
        http_status: None,
        certificate_expires_at: None,
    })
}
