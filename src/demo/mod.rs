//! `rebound demo`: a fleet of real processes, watched, broken, and recovered, with nothing installed.
//!
//! Nothing here is staged: the roles are the ones of `rebound up`, the plan is a file like any other, the faults are
//! signals, and the summary is read from the event log when everything has been written.

pub(crate) mod fleet;
mod history;
mod live;
pub(crate) mod service;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebound_analytics::mttr::Mttr;
use rebound_schemas::event::FaultInjected;
use rebound_schemas::incident::Incident;
use rebound_schemas::{Event, EventId, ServiceId, Source, Topic};

use crate::cli::{Done, Output};
use crate::config::Config;
use crate::roles::{Process, Role, tenure};
use fleet::{Fault, Fleet};

/// A fault is injected this long before the end at the latest, so that its recovery can be seen.
const LAST_FAULT: Duration = Duration::from_secs(14);
/// What a fault may take from injection to the end of its incident before the demo calls it lost.
const PATIENCE: Duration = Duration::from_secs(45);

/// `rebound demo`
#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// End by itself after this long; without it, at Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// Repeats the order of faults, and the history.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First fill the log with a plausible past of this length.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    history: Option<Duration>,
    /// How the summary is printed.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// `rebound demo-ctl`
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoCtl {
    #[command(subcommand)]
    action: CtlAction,
}

#[derive(Debug, Clone, Subcommand)]
enum CtlAction {
    /// Ends what is left of a service and starts it anew.
    Restart {
        service: String,
        #[arg(long)]
        state: PathBuf,
    },
    /// Breaks a service.
    Inject {
        service: String,
        #[arg(value_enum)]
        fault: Fault,
        #[arg(long)]
        state: PathBuf,
    },
}

pub(crate) fn ctl(ctl: &DemoCtl) -> Result<Done> {
    match &ctl.action {
        CtlAction::Restart { service, state } => {
            Fleet::open(state)?.restart(service)?;
            println!("{service} was started anew");
        }
        CtlAction::Inject { service, fault, state } => {
            Fleet::open(state)?.inject(service, *fault)?;
            println!("{service}: {}", fault.as_str());
        }
    }
    Ok(Done::Good)
}

/// Ends the fleet however the demo ends, panics included.
struct Guard(Fleet);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop_all();
    }
}

pub(crate) async fn demo(demo: Demo, mut config: Config) -> Result<Done> {
    if demo.output == Output::Parquet {
        bail!("the demo's summary is a table, JSON or CSV: use -o table, json or csv");
    }
    if demo.length.is_some_and(|length| length < Duration::from_secs(30)) {
        bail!("--for takes 30s or more: a failure needs some seconds to be detected, recovered and verified");
    }
    prepare(&config.data)?;
    let fleet = Fleet::create(&config.data.join("demo"))?;
    let plan_file = config.data.join("demo/plan.toml");
    std::fs::write(&plan_file, fleet.plan()?)?;
    config.plan = Some(plan_file);
    if config.http.listen == crate::config::Http::default().listen && port_is_taken(&config) {
        // A newcomer's second demo, or a running Rebound: any port will do.
        config.http.listen.set_port(0);
    }
    let guard = Guard(fleet);
    let fleet = &guard.0;
    let starting = fleet.clone();
    tokio::task::spawn_blocking(move || starting.members.iter().try_for_each(|m| starting.start(&m.name))).await??;

    let mut process = Process::prepare(config.clone(), Role::ALL.to_vec()).await?;
    if let Some(length) = demo.history {
        history::fill(&process, length, demo.seed, demo.output == Output::Table).await?;
    }
    let began = Utc::now();
    process.start().await?;
    let mut screen = live::Screen::new(&process, demo.output == Output::Table);
    let injected = tokio::select! {
        injected = break_things(&demo, fleet, &process, &mut screen) => injected?,
        failed = process.failed() => return Err(failed),
    };
    screen.close();
    process.stop().await?;
    drop(guard);
    summarize(&demo, &config, began, &injected).await
}

/// Makes an empty data folder, or empties the one that an earlier demo left; any other is not the demo's to touch.
fn prepare(data: &Path) -> Result<()> {
    let earlier = data.join("demo/fleet.json");
    if earlier.exists() {
        if let Ok(fleet) = Fleet::open(&data.join("demo")) {
            fleet.stop_all();
        }
        std::fs::remove_dir_all(data)
            .with_context(|| format!("the earlier demo in {} can't be removed", data.display()))?;
    } else if data.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} holds something that no demo made: choose another folder with --data", data.display());
    }
    std::fs::create_dir_all(data).with_context(|| format!("the folder {} can't be made", data.display()))
}

fn port_is_taken(config: &Config) -> bool {
    std::net::TcpListener::bind(config.http.listen).is_err()
}

/// One fault and what became of it.
struct Injected {
    service: ServiceId,
    at: DateTime<Utc>,
}

/// Breaks one service after the other, each when the last one has been recovered, until the time is over.
async fn break_things(
    demo: &Demo,
    fleet: &Fleet,
    process: &Process,
    screen: &mut live::Screen,
) -> Result<Vec<Injected>> {
    let started = Instant::now();
    let mut random = ChaCha8Rng::seed_from_u64(demo.seed);
    let mut injected = Vec::new();
    let mut interrupt = std::pin::pin!(crate::roles::interrupted());
    let ends = |elapsed: Duration| demo.length.is_some_and(|length| elapsed >= length);
    // The first fault comes when every service has been seen healthy.
    let mut next = Instant::now() + Duration::from_secs(4);
    let mut waiting: Option<Injected> = None;
    loop {
        screen.draw(process, injected.len() + usize::from(waiting.is_some()));
        tokio::select! {
            () = &mut interrupt => break,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        let settled = process.view().all_healthy();
        if let Some(fault) = &waiting {
            let incident = |record: &rebound_schemas::incident::Record| {
                let seen = |i: &Incident| i.service == fault.service && i.first_failure_at >= fault.at && !i.is_open();
                record.incidents().any(|i| seen(&i))
            };
            let over = settled && process.view().with_record(incident);
            let lost = Utc::now() - fault.at > chrono::TimeDelta::from_std(PATIENCE)?;
            if over || lost {
                injected.extend(waiting.take());
                next = Instant::now() + Duration::from_millis(random.random_range(1500..4000));
            }
        } else if settled && Instant::now() >= next {
            let late = demo.length.is_some_and(|length| started.elapsed() + LAST_FAULT > length);
            if !late {
                let victim = &fleet.members[random.random_range(0..fleet.members.len())].name;
                let fault = Fault::ALL[random.random_range(0..Fault::ALL.len())];
                waiting = Some(inject(fleet, process, screen, victim, fault).await?);
            }
        }
        if ends(started.elapsed()) && waiting.is_none() {
            break;
        }
    }
    injected.extend(waiting);
    Ok(injected)
}

async fn inject(
    fleet: &Fleet,
    process: &Process,
    screen: &live::Screen,
    victim: &str,
    fault: Fault,
) -> Result<Injected> {
    let service = ServiceId::new(victim)?;
    let at = Utc::now();
    fleet.inject(victim, fault)?;
    screen.say(&format!("fault injected: {} {victim}", fault.as_str()));
    let data = FaultInjected { drill: None, fault: fault.as_str().into(), target: victim.into() };
    let event = Event {
        id: EventId::new(&format!("{victim}-{}", at.timestamp_millis()))?,
        source: Source::new("rebound/demo")?,
        subject: service.clone(),
        occurred_at: at,
        plan: None,
        data: data.into(),
    };
    process.bus().append(rebound_ingest::bus::Stream::Events(Topic::Recoveries), vec![tenure::record(&event)]).await?;
    Ok(Injected { service, at })
}

/// What the demo says at its end: read from the log, nothing kept beside it.
async fn summarize(demo: &Demo, config: &Config, began: DateTime<Utc>, injected: &[Injected]) -> Result<Done> {
    let session = crate::commands::sql::open(config, None).await?;
    let record = session.record().await?;
    let incidents: Vec<_> = record.incidents().filter(|incident| incident.first_failure_at >= began).collect();
    let figures = Mttr::of(&incidents, |_| None, Utc::now());
    let patience = chrono::TimeDelta::from_std(PATIENCE)?;
    let found: Vec<_> = injected
        .iter()
        .filter_map(|fault| {
            let caused = |incident: &&Incident| {
                let after = incident.first_failure_at - fault.at;
                incident.service == fault.service && after >= chrono::TimeDelta::zero() && after < patience
            };
            incidents.iter().find(caused)
        })
        .collect();
    let verified = |incident: &Incident| {
        record.recoveries().any(|recovery| recovery.incident == incident.id && recovery.verified == Some(true))
    };
    let summary = Summary {
        seed: demo.seed,
        injected: injected.len(),
        detected: found.len(),
        recovered: found.iter().filter(|incident| incident.recovered_at.is_some()).count(),
        verified: found.iter().filter(|incident| verified(incident)).count(),
        mttr_s: MttrSummary {
            n: figures.recover.map_or(0, |summary| summary.n),
            median: figures.recover.map(|summary| summary.median),
            p90: figures.recover.map(|summary| summary.p90),
        },
    };
    live::print(&summary, demo.output, config, demo.history.map(|_| began))?;
    Ok(if summary.verified == summary.injected { Done::Good } else { Done::Faults })
}

/// The summary, as `-o json` prints it.
#[derive(Debug, serde::Serialize)]
struct Summary {
    seed: u64,
    injected: usize,
    detected: usize,
    recovered: usize,
    verified: usize,
    /// Over every incident of the run, dependants included, in seconds.
    mttr_s: MttrSummary,
}

#[derive(Debug, serde::Serialize)]
struct MttrSummary {
    n: usize,
    median: Option<f64>,
    p90: Option<f64>,
}
