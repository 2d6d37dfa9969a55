//! A large fleet: what its state takes in memory, and how soon the roles that fold it are ready after a kill -9.
//!
//! The past is what a fleet's is that is probed every ten seconds: as many results a service as the rules look back,
//! a second of them not yet decided about, and incidents that began, were told and ended, one for every ten services.
//! The roles are the real ones, in a process that is really killed: once before it has written a snapshot, and then with
//! one that is as old as it ever gets, so that half a minute's results are read again.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use rebound_alerting::engine::{Engine, lookback};
use rebound_alerting::notify::Notifier;
use rebound_ingest::bus::{EventBus, Partition, Record, Stream};
use rebound_schemas::event::{Outcome, ProbeCompleted};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventId, ProbeId, ServiceId, Source, Topic};
use serde::{Deserialize, Serialize};

use super::latency::result;
use super::part::{self, Part, memory};
use crate::config::Config;
use crate::roles::{alert, tenure};

/// Between two results of a service, in seconds.
const EVERY: u64 = 10;
/// Rounds between the newest snapshot and a kill: half a minute.
const NEWEST: u64 = 3;
/// Times that the roles are killed.
pub(super) const KILLS: usize = 3;

/// What five conditions a service are, two of them with their windows of burn rates.
const CONDITIONS: &str = "[[policy.condition]]\nlatency_above = \"1s\"\n[[policy.condition]]\nunobserved = true\n\
    [[policy.condition]]\ncertificate_expires_within = \"7d\"\n[[policy.condition]]\nid = \"page\"\nburn_rate = \"page\"\n\
    objective = 0.999\n[[policy.condition]]\nid = \"ticket\"\nburn_rate = \"ticket\"\nobjective = 0.999\n";

/// What a fleet costs.
#[derive(Debug, Serialize)]
pub(super) struct Fleet {
    pub(super) services: u64,
    /// Resident size of the plan and the alerting state, in MiB.
    pub(super) state_mib: u64,
    /// The same with five conditions a service.
    pub(super) state_with_conditions_mib: u64,
    /// Results and decisions that are folded at a start.
    pub(super) past: Past,
    /// From the start to ready where there is no snapshot, so that everything is read, in seconds.
    pub(super) ready_without_snapshot_seconds: f64,
    /// From the start to ready after each kill -9, in seconds; the slowest counts.
    pub(super) ready_seconds: Vec<f64>,
    /// Resident size of the process once it is ready (alerting, recoveries, and the view of all services), in MiB.
    pub(super) ready_mib: u64,
}

impl Fleet {
    pub(super) fn slowest(&self) -> f64 {
        self.ready_seconds.iter().copied().fold(0.0, f64::max)
    }
}

/// What is on the bus.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) observations: u64,
    pub(super) decisions: u64,
}

/// Measures a fleet of so many services.
pub(super) async fn measure(services: u64, config: &Config) -> Result<Fleet> {
    let state = |conditions| async move {
        let part = Part::FleetState { services, conditions };
        Ok::<u64, anyhow::Error>(part::run(config, &part).await?.figures)
    };
    let (state_mib, state_with_conditions_mib) = (state(false).await?, state(true).await?);
    let mut config = config.clone();
    config.plan = Some(config.data.join("plan.toml"));
    std::fs::create_dir_all(&config.data)?;
    std::fs::write(config.data.join("plan.toml"), plan(services, ""))?;
    let mut past: Past = part::run(&config, &Part::FleetPast { services }).await?.figures;
    let (ready_without_snapshot_seconds, mut ready_mib) = start_and_kill(&config, false).await?;
    start_and_kill(&config, true).await?;
    let newest: Past = part::run(&config, &Part::FleetNewest { services }).await?.figures;
    past.observations += newest.observations;
    let mut ready_seconds = Vec::new();
    for _ in 0..KILLS {
        let (seconds, mib) = start_and_kill(&config, false).await?;
        ready_seconds.push(seconds);
        ready_mib = ready_mib.max(mib);
    }
    Ok(Fleet {
        services,
        state_mib,
        state_with_conditions_mib,
        past,
        ready_without_snapshot_seconds,
        ready_seconds,
        ready_mib,
    })
}

/// Starts the roles that fold, waits until they are ready (and, if asked, have written a snapshot of every partition),
/// kills them; answers seconds to ready and resident size.
async fn start_and_kill(config: &Config, with_snapshot: bool) -> Result<(f64, u64)> {
    let mut config = config.clone();
    // Free now: it is asked for at once.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    config.http.listen.set_port(port);
    let mut command = part::command(&config)?;
    command.args(["run", "alert", "recover", "serve"]).env("REBOUND_LOG", "warn");
    let began = Instant::now();
    let mut roles = command.spawn().context("the roles can't be started")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:{port}/readyz");
    loop {
        match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => break,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        ensure!(roles.try_wait()?.is_none(), "the roles ended instead of getting ready");
        ensure!(began.elapsed() < Duration::from_secs(300), "the roles are not ready after 300 s");
    }
    let seconds = began.elapsed().as_secs_f64();
    let mib = memory(&roles.id().context("it runs")?.to_string(), "VmRSS")?;
    while with_snapshot && snapshots(&config) < config.bus.partitions {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ensure!(roles.try_wait()?.is_none(), "the roles ended");
        ensure!(began.elapsed() < Duration::from_secs(300), "there is no snapshot after 300 s");
    }
    roles.start_kill()?;
    roles.wait().await?;
    Ok((seconds, mib))
}

/// Partitions of which there is a snapshot.
fn snapshots(config: &Config) -> i32 {
    let folder = config.data.join("snapshots");
    let there = |number: &i32| {
        let begins = format!("observations-{number}.");
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).any(|name| name.starts_with(&begins) && !name.ends_with("new"))
    };
    (0..config.bus.partitions).filter(there).count() as i32
}

fn plan(services: u64, conditions: &str) -> String {
    let mut text = format!("[[policy]]\nid = \"default\"\n{conditions}");
    write_services(&mut text, services);
    text
}

/// The fleet's services, as a plan says them.
pub(super) fn write_services(plan: &mut String, services: u64) {
    for n in 0..services {
        let _ = write!(
            plan,
            "[[service]]\nid = \"service-{n}\"\n[[service.probe]]\nid = \"service-{n}/tcp\"\ntcp = \"127.0.0.1:1\"\n"
        );
    }
}

/// Makes a fleet's results: round after round, each numbered as a prober does.
pub(super) struct Results {
    source: Source,
    /// Of every service's certificate, where there are any.
    expiry: Option<DateTime<Utc>>,
    services: Vec<(ServiceId, ProbeId)>,
}

impl Results {
    pub(super) fn new(services: u64) -> Result<Self> {
        let name = |n| Ok((ServiceId::new(&format!("service-{n}"))?, ProbeId::new(&format!("service-{n}/tcp"))?));
        Ok(Self {
            source: Source::of_probe_run("bench", "fleet")?,
            expiry: None,
            services: (0..services).map(name).collect::<Result<_>>()?,
        })
    }

    /// How many services there are.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// One in fifty failed, and was healthy the last time: below every threshold.
    pub(super) fn outcome(service: usize, round: u64) -> Outcome {
        if (service as u64 + round).is_multiple_of(50) { Outcome::Failed } else { Outcome::Healthy }
    }

    pub(super) fn event(&self, service: usize, round: u64, outcome: Outcome, at: DateTime<Utc>) -> Result<Event> {
        let (subject, probe) = self.services[service].clone();
        let number = round * self.services.len() as u64 + service as u64 + 1;
        let (id, source) = (EventId::new(&number.to_string())?, self.source.clone());
        let data = ProbeCompleted { certificate_expires_at: self.expiry, ..result(probe, outcome) };
        Ok(Event { id, source, subject, occurred_at: at, plan: None, data: data.into() })
    }
}

fn parsed(services: u64) -> Result<Arc<Plan>> {
    Ok(Arc::new(Plan::parse(&plan(services, ""), "plan").map_err(|faults| anyhow::anyhow!("{faults}"))?))
}

/// Rounds that the rules look back.
fn rounds(plan: &Plan) -> u64 {
    lookback(plan).as_secs().div_ceil(EVERY)
}

/// Adds the newest results; see the module.
pub(super) async fn add_newest(services: u64, config: &Config) -> Result<Past> {
    let bus = crate::roles::open_bus(config).await?;
    let past = 10 + rounds(parsed(services)?.as_ref()) - NEWEST;
    observe(&bus, &Results::new(services)?, past..past + NEWEST).await?;
    bus.close().await?;
    Ok(Past { observations: NEWEST * services, decisions: 0 })
}

/// Fills the topics; see the module.
pub(super) async fn fill(services: u64, config: &Config) -> Result<Past> {
    let bus = crate::roles::open_bus(config).await?;
    let plan = parsed(services)?;
    let results = Results::new(services)?;
    let rounds = rounds(&plan) - NEWEST;
    let count = results.len();
    // Incidents of last month: each is what the rules make of failures and successes.
    let (mut engine, mut notifier) = (Engine::new(plan.clone()), Notifier::new(plan));
    engine.own_where(|_| true);
    let mut decided = Vec::new();
    let month = Utc::now() - TimeDelta::days(30);
    for service in (0..count).step_by(10) {
        let outcomes = [Outcome::Failed, Outcome::Failed, Outcome::Failed, Outcome::Healthy, Outcome::Healthy];
        for (round, outcome) in (0..).zip(outcomes) {
            let at = month + TimeDelta::seconds(service as i64 * 10 + round as i64 * EVERY as i64);
            let mut now = engine.handle(&results.event(service, round, outcome, at)?, at);
            now.iter().for_each(|event| notifier.fold(event));
            let planned = notifier.plan(at, &|_| false, &|_| true).events;
            planned.iter().for_each(|event| notifier.fold(event));
            let sent: Vec<Event> = notifier.due().iter().map(|notice| notice.sent(1, at)).collect();
            sent.iter().for_each(|event| notifier.fold(event));
            now.extend(planned.into_iter().chain(sent));
            decided.extend(now);
        }
    }
    drop((engine, notifier));
    for topic in [Topic::Alerts, Topic::Recoveries] {
        let records: Vec<Record> =
            decided.iter().filter(|event| event.kind().topic() == topic).map(tenure::record).collect();
        for batch in records.chunks(20_000) {
            bus.append(Stream::Events(topic), batch.to_vec()).await?;
        }
    }
    observe(&bus, &results, 10..10 + rounds).await?;
    bus.close().await?;
    Ok(Past { observations: rounds * services, decisions: decided.len() as u64 })
}

/// Puts rounds of results on the bus, the last of them as of now; the group stands a second before the end.
async fn observe(bus: &Arc<dyn EventBus>, results: &Results, rounds: Range<u64>) -> Result<()> {
    let count = results.len();
    let start = Utc::now() - TimeDelta::seconds(((rounds.end - rounds.start) * EVERY) as i64);
    let mut ends = std::collections::BTreeMap::new();
    for round in rounds.clone() {
        let at = start + TimeDelta::seconds(((round - rounds.start) * EVERY) as i64);
        for first in (0..count).step_by(20_000) {
            let record =
                |service| Ok(tenure::record(&results.event(service, round, Results::outcome(service, round), at)?));
            let records = (first..count.min(first + 20_000)).map(record).collect::<Result<Vec<_>>>()?;
            for (partition, offset) in bus.append(Stream::Events(Topic::Observations), records).await? {
                ends.insert(partition, offset + 1);
            }
        }
    }
    let behind = (count as u64 / EVERY / bus.partitions().unsigned_abs() as u64) as i64;
    let positions: Vec<(Partition, i64)> =
        ends.into_iter().map(|(partition, end)| (partition, (end - behind).max(0))).collect();
    bus.commit(alert::GROUP, &positions).await?;
    Ok(())
}

/// Folds twenty results a service, live; answers what the process has grown by since before the plan, in MiB.
pub(super) fn state(services: u64, conditions: bool) -> Result<u64> {
    let expiry = conditions.then(|| Utc::now() + TimeDelta::days(60));
    let results = Results { expiry, ..Results::new(services)? };
    let before = memory("self", "VmRSS")?;
    let text = plan(services, if conditions { CONDITIONS } else { "" });
    let plan = Arc::new(Plan::parse(&text, "plan").map_err(|faults| anyhow::anyhow!("{faults}"))?);
    drop(text);
    let mut engine = Engine::new(plan);
    engine.own_where(|_| true);
    let start = Utc::now();
    engine.seen_since(start);
    for round in 0..20 {
        let at = start + TimeDelta::seconds((round * EVERY) as i64);
        for service in 0..results.len() {
            engine.handle(&results.event(service, round, Results::outcome(service, round), at)?, at);
        }
        engine.tick(at);
    }
    // What the allocator has of free memory goes back in the meantime.
    std::thread::sleep(Duration::from_secs(1));
    let after = memory("self", "VmRSS")?;
    ensure!(engine.next_deadline().is_none_or(|at| at > DateTime::UNIX_EPOCH), "the engine has folded");
    Ok(after.saturating_sub(before))
}
