//! `rebound bench-probes`: whether many probes keep their time on this machine.
//!
//! The real scheduler runs real HTTP and TCP probes, half each, against a stand-in that is a process of its own (so
//! that its cost is not taken for that of the probes) and puts the results on a real bus in a folder made for it.
//! Connections are spread over many loopback addresses: one would run out of ports for so many short ones.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use prometheus_client::registry::Registry;
use rebound_ingest::probe::{ProbeMetrics, ProbeSettings, run_probes};
use rebound_schemas::plan::Plan;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::cli::{Done, Output};
use crate::config::Config;

/// Loopback addresses that the stand-in answers on.
const ADDRESSES: u8 = 32;

/// `rebound bench-probes`
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchProbes {
    /// Targets.
    #[arg(long, default_value_t = 10_000)]
    probes: usize,
    /// How often each is probed.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How long it is measured, after one period in which all of them begin.
    #[arg(long = "for", default_value = "60s", value_name = "TIME", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Targets that take the connection and never answer, in percent.
    #[arg(long, default_value_t = 0)]
    hanging: usize,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    probes: usize,
    hanging: usize,
    runs: u64,
    runs_per_second: f64,
    healthy: u64,
    failed: u64,
    /// Due and not made.
    missed: u64,
    /// Half, and 99 % of the runs began no later than this after they were due: upper limits, from a histogram.
    start_delay_p50_ms_at_most: f64,
    start_delay_p99_ms_at_most: f64,
    /// Of this process: probes, scheduler and bus. 1 is one core.
    cores_used: f64,
    peak_memory_mib: i64,
}

pub(crate) async fn bench(bench: BenchProbes, config: &Config) -> Result<Done> {
    ensure!(bench.probes > 0 && bench.hanging <= 100, "--probes takes 1 or more, --hanging at most 100");
    let folder = config.data.join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("the folder {} can't be made", folder.display()))?;
    let result = Box::pin(measure(&bench, config, &folder)).await;
    std::fs::remove_dir_all(&folder).with_context(|| format!("the folder {} can't be removed", folder.display()))?;
    super::log::print(&result?, bench.output)?;
    Ok(Done::Good)
}

async fn measure(bench: &BenchProbes, config: &Config, folder: &std::path::Path) -> Result<Measured> {
    // Ended when dropped.
    let mut stand_in = tokio::process::Command::new(std::env::current_exe()?)
        .arg("bench-target")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("the stand-in can't be started")?;
    let mut said = BufReader::new(stand_in.stdout.take().context("the stand-in has no output")?).lines();
    let port: u16 = said.next_line().await?.context("the stand-in ended at once")?.trim().parse()?;
    let plan = Arc::new(plan(bench, port)?);
    let mut config = config.clone();
    config.data = folder.to_owned();
    config.kafka.prefix = format!("{}-bench-{}", config.kafka.prefix, std::process::id());
    let bus = crate::roles::open_bus(&config).await?;
    let settings = ProbeSettings {
        instance: config.instance.clone(),
        concurrency: config.probe.concurrency,
        ..ProbeSettings::default()
    };
    let mut registry = Registry::default();
    let metrics = ProbeMetrics::new(&mut registry);
    let stop = CancellationToken::new();
    let probing = tokio::spawn(run_probes(plan, bus.clone(), settings, metrics, stop.clone()));
    eprintln!("{} probes every {:?}, {} % of them hanging …", bench.probes, bench.every, bench.hanging);
    tokio::time::sleep(bench.every).await;
    let (before, began, cpu_before) = (Figures::read(&registry)?, Instant::now(), cpu_time()?);
    tokio::time::sleep(bench.length).await;
    let (after, took, cpu) = (Figures::read(&registry)?, began.elapsed(), cpu_time()? - cpu_before);
    stop.cancel();
    probing.await.context("the probes panicked")??;
    bus.close().await?;
    let (healthy, failed) = (after.healthy - before.healthy, after.failed - before.failed);
    let runs = healthy + failed;
    if runs == 0 {
        bail!("no probe ended within {:?}: measure longer with --for", bench.length);
    }
    Ok(Measured {
        probes: bench.probes,
        hanging: bench.probes * bench.hanging / 100,
        runs,
        runs_per_second: runs as f64 / took.as_secs_f64(),
        healthy,
        failed,
        missed: after.missed - before.missed,
        start_delay_p50_ms_at_most: after.delay_within(&before, 0.5),
        start_delay_p99_ms_at_most: after.delay_within(&before, 0.99),
        cores_used: cpu.as_secs_f64() / took.as_secs_f64(),
        peak_memory_mib: usage()?.max_rss() / 1024,
    })
}

fn usage() -> Result<Usage> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?)
}

fn cpu_time() -> Result<Duration> {
    let usage = usage()?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = |time: nix::sys::time::TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs();
    Ok(Duration::from_micros(micros(user) + micros(system)))
}

/// Ten probes a service; every `100 / hanging`-th target hangs.
fn plan(bench: &BenchProbes, port: u16) -> Result<Plan> {
    let every = humantime::format_duration(bench.every);
    let timeout = humantime::format_duration(bench.every.min(Duration::from_secs(10)) / 2);
    let mut text = String::from("name = \"bench\"\n");
    for n in 0..bench.probes {
        if n % 10 == 0 {
            text.push_str(&format!("[[service]]\nid = \"s{n}\"\nrto = \"1h\"\n"));
        }
        let address = format!("127.0.0.{}:{}", n % usize::from(ADDRESSES) + 1, port);
        let hangs = (n + 1) * bench.hanging / 100 > n * bench.hanging / 100;
        let tcp = |send: &str| format!("tcp = \"{address}\"\ndialogue = [{{ send = \"{send}\", expect = \"pong\" }}]");
        // In stretches, so that both kinds have their share of those that hang.
        let target = match (n / 7 % 2, hangs) {
            (0, _) => format!("http = \"http://{address}/{}\"", if hangs { "hang" } else { "" }),
            (_, true) => tcp("hang"),
            (_, false) => tcp("ping"),
        };
        text.push_str(&format!(
            "[[service.probe]]\nid = \"p{n}\"\nevery = \"{every}\"\ntimeout = \"{timeout}\"\n{target}\n"
        ));
    }
    Plan::parse(&text, "bench").map_err(|faults| anyhow::anyhow!("the benchmark's plan: {faults}"))
}

/// What the scheduler's metrics say at one moment.
struct Figures {
    healthy: u64,
    failed: u64,
    missed: u64,
    /// Upper bound in seconds, runs up to it.
    delays: Vec<(f64, u64)>,
}

impl Figures {
    fn read(registry: &Registry) -> Result<Self> {
        let (_, text) = crate::http::exposition::encode(registry, None)?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut figures = Self { healthy: 0, failed: 0, missed: 0, delays: Vec::new() };
        for (name, value) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
            let value = value.parse::<f64>().unwrap_or_default() as u64;
            if name.starts_with("rebound_probe_results_total") {
                let healthy = name.contains("outcome=\"healthy\"");
                *if healthy { &mut figures.healthy } else { &mut figures.failed } += value;
            } else if name == "rebound_probe_missed_total" {
                figures.missed = value;
            } else if let Some(bound) = name.strip_prefix("rebound_probe_start_delay_seconds_bucket{le=\"") {
                let bound = bound.trim_end_matches("\"}").parse().unwrap_or(f64::INFINITY);
                figures.delays.push((bound, value));
            }
        }
        figures
    }

    /// The least bound, in milliseconds, within which this share of the runs since `before` began.
    fn delay_within(&self, before: &Self, share: f64) -> f64 {
        let since = self.delays.iter().zip(&before.delays).map(|((bound, now), (_, then))| (*bound, now - then));
        let since: Vec<(f64, u64)> = since.collect();
        let all = since.last().map_or(0, |(_, n)| *n) as f64;
        let within = since.iter().find(|(_, n)| *n as f64 >= all * share);
        within.map_or(f64::INFINITY, |(bound, _)| bound * 1000.0)
    }
}

/// `rebound bench-target`: answers whatever is asked in one way or another, until it is ended.
pub(crate) async fn target() -> Result<()> {
    let first = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    for n in 2..=ADDRESSES {
        listeners.push(TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 0, n), port)).await?);
    }
    println!("{port}");
    for listener in listeners {
        tokio::spawn(async move {
            loop {
                // Out of descriptors, say: the next one may come through.
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(answer(stream));
            }
        });
    }
    std::future::pending().await
}

async fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {
        let answer: &[u8] = match () {
            () if buffer.starts_with(b"GET /hang") || buffer.starts_with(b"hang") => continue,
            () if buffer.starts_with(b"GET ") => b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n",
            () => b"pong\n",
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_classic_text() {
        let text = |fast: u64, all: u64| {
            format!(
                "# TYPE x counter\nrebound_probe_results_total{{outcome=\"healthy\",kind=\"http\"}} {fast}\n\
                 rebound_probe_results_total{{outcome=\"failed\",kind=\"tcp\"}} 2\nrebound_probe_missed_total 3\n\
                 rebound_probe_start_delay_seconds_bucket{{le=\"0.001\"}} {fast}\n\
                 rebound_probe_start_delay_seconds_bucket{{le=\"0.005\"}} {all}\n\
                 rebound_probe_start_delay_seconds_bucket{{le=\"+Inf\"}} {all}\n"
            )
        };
        let (before, after) = (Figures::parse(&text(10, 20)), Figures::parse(&text(70, 120)));
        assert_eq!((after.healthy, after.failed, after.missed), (70, 2, 3));
        assert_eq!(after.delay_within(&before, 0.5), 1.0, "60 of 100 within a millisecond");
        assert_eq!(after.delay_within(&before, 0.99), 5.0);
    }

    #[test]
    fn the_plan_holds_and_as_many_hang_as_said() {
        let bench = BenchProbes {
            probes: 200,
            every: Duration::from_secs(10),
            length: Duration::from_secs(1),
            hanging: 5,
            output: Output::Json,
        };
        let plan = plan(&bench, 1234).unwrap();
        assert_eq!((plan.services().len(), plan.probes().len()), (20, 200));
    }
}
