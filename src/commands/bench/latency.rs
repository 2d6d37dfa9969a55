//! How long it takes from an event to what follows: queryable in SQL, and recovery triggered.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use rebound_ingest::bus::{EventBus, Partition, Record, Stream};
use rebound_schemas::event::{ErrorClass, Outcome, ProbeCompleted, ResourceMeasured};
use rebound_schemas::{Event, EventData, EventId, ProbeId, ServiceId, Source, Topic};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::fleet::{Results, write_services};
use crate::config::Config;
use crate::roles::tenure::{self, Feed};
use crate::roles::{Process, Role};

/// Results of the fleet appended at once, so often a second.
const BATCHES: u64 = 100;
/// A trigger that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of times in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Quantiles {
    n: usize,
    pub(super) p50: f64,
    pub(super) p99: f64,
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

/// With nothing else going on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Alone {
    pub(super) acknowledged_to_queryable_ms: Quantiles,
    pub(super) failed_probe_to_trigger_ms: Quantiles,
}

/// With a fleet's results going by.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Loaded {
    pub(super) events_per_second: f64,
    pub(super) failed_probe_to_trigger_ms: Quantiles,
}

/// From acknowledged to queryable, and from a failed probe's acknowledgement to its durable trigger.
pub(super) async fn alone(samples: usize, config: &Config) -> Result<Alone> {
    let process = started(config, samples, 0, vec![Role::Log, Role::Alert]).await?;
    let bus = process.handle().bus.clone();
    let triggers = triggers(samples, Duration::ZERO, &bus).await?;
    let queryable = queryable(samples.min(25), samples, config, &bus).await?;
    process.stop().await?;
    Ok(Alone {
        acknowledged_to_queryable_ms: Quantiles::of(&queryable)?,
        failed_probe_to_trigger_ms: Quantiles::of(&triggers)?,
    })
}

/// From a failed probe's acknowledgement to its durable trigger while a fleet of ten times `rate` services is probed
/// every ten seconds, with every role but the probes and the intake in this process.
pub(super) async fn loaded(samples: usize, rate: u64, config: &Config) -> Result<Loaded> {
    let process = started(config, samples, rate * 10, vec![Role::Log, Role::Alert, Role::Recover, Role::Serve]).await?;
    let bus = process.handle().bus.clone();
    let stop = CancellationToken::new();
    let fleet = tokio::spawn(fleet(rate, bus.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let triggers = triggers(samples, Duration::from_millis(50), &bus).await?;
    stop.cancel();
    let events_per_second = fleet.await.context("the fleet panicked")??;
    process.stop().await?;
    Ok(Loaded { events_per_second, failed_probe_to_trigger_ms: Quantiles::of(&triggers)? })
}

/// A process whose roles are ready: `samples` services that fail at the first failure, `fleet` that don't.
async fn started(config: &Config, samples: usize, fleet: u64, roles: Vec<Role>) -> Result<Process> {
    std::fs::create_dir_all(&config.data)?;
    let mut plan = String::from(
        "name = \"bench\"\n[[policy]]\nid = \"default\"\n[[policy]]\nid = \"first\"\nfailures = 1\nintensity = 1000\n\
         [[procedure]]\nid = \"none\"\nconcurrency = 1\n[[procedure.step]]\nid = \"none\"\nmanual = \"nothing\"\n",
    );
    for n in 0..samples {
        let _ = write!(
            plan,
            "[[service]]\nid = \"s{n}\"\nrto = \"1h\"\npolicy = \"first\"\nprocedure = \"none\"\n\
             [[service.probe]]\nid = \"p{n}\"\ntcp = \"127.0.0.1:1\"\n"
        );
    }
    write_services(&mut plan, fleet);
    let file = config.data.join("plan.toml");
    std::fs::write(&file, plan)?;
    let mut config = config.clone();
    config.plan = Some(file);
    let mut process = Process::prepare(config, roles).await?;
    process.start().await?;
    tokio::time::timeout(Duration::from_secs(60), process.ready()).await.context("the roles did not get ready")?;
    Ok(process)
}

/// Results of a fleet at a steady rate, of which one in fifty failed, until it is stopped; answers the rate reached.
async fn fleet(rate: u64, bus: Arc<dyn EventBus>, stop: CancellationToken) -> Result<f64> {
    let results = Results::new(rate * 10)?;
    let (began, batch) = (Instant::now(), (rate / BATCHES).max(1));
    // What was late is made up for, so that the rate is what was asked for.
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(BATCHES)?);
    let mut sent = 0;
    while !stop.is_cancelled() {
        tick.tick().await;
        let record = |n: u64| -> Result<Record> {
            let (service, round) = (usize::try_from(n)? % results.len(), n / results.len() as u64);
            Ok(tenure::record(&results.event(service, round, Results::outcome(service, round), Utc::now())?))
        };
        let records = (sent..sent + batch).map(record).collect::<Result<Vec<_>>>()?;
        bus.append(Stream::Events(Topic::Observations), records).await?;
        sent += batch;
    }
    Ok(sent as f64 / began.elapsed().as_secs_f64())
}

/// Fails one service after the other and waits for their triggers: `every` so often, or each after the one before.
async fn triggers(samples: usize, every: Duration, bus: &Arc<dyn EventBus>) -> Result<Vec<Duration>> {
    let mut from = Vec::new();
    for number in 0..bus.partitions() {
        let partition = Partition::of(Topic::Recoveries, number);
        from.push((partition, tenure::retried(|| bus.watermarks(partition)).await?.high));
    }
    let mut feed = Feed::start(bus, from);
    let mut triggered: HashMap<ServiceId, Instant> = HashMap::new();
    let mut acknowledged = Vec::new();
    let mut pace = tokio::time::interval(every.max(Duration::from_millis(1)));
    let mut failing = None;
    while triggered.len() < samples {
        let may_go_on = acknowledged.len() < samples && failing.is_none();
        let next = acknowledged.len();
        tokio::select! {
            _ = pace.tick(), if may_go_on && (!every.is_zero() || triggered.len() == next) => {
                let service = ServiceId::new(&format!("s{next}"))?;
                let data = result(ProbeId::new(&format!("p{next}"))?, Outcome::Failed);
                let record = tenure::record(&event(&service, next, data.into())?);
                let bus = bus.clone();
                failing = Some(Box::pin(async move {
                    bus.append(Stream::Events(Topic::Observations), vec![record]).await.map(|_| (service, Instant::now()))
                }));
            }
            done = async { failing.as_mut().expect("asked only when there is one").await }, if failing.is_some() => {
                acknowledged.push(done?);
                failing = None;
            }
            input = tokio::time::timeout(PATIENCE, feed.next()) => {
                let at = Instant::now();
                for event in input.context("no trigger came")??.events {
                    if matches!(event.data, EventData::RecoveryTriggered(_)) {
                        triggered.entry(event.subject).or_insert(at);
                    }
                }
            }
        }
    }
    // A trigger that is read before its cause's acknowledgement has arrived here took no time.
    Ok(acknowledged.iter().map(|(service, at)| triggered[service].saturating_duration_since(*at)).collect())
}

/// `first` is the first number that no event of this source has yet: one said twice would count once.
async fn queryable(samples: usize, first: usize, config: &Config, bus: &Arc<dyn EventBus>) -> Result<Vec<Duration>> {
    let session = super::super::sql::open(config, None).await?;
    let mut times = Vec::new();
    for n in 0..samples {
        let service = ServiceId::new("queryable")?;
        let data = ResourceMeasured { resource: "cpu".into(), utilization: 0.5, site: None };
        let event = event(&service, first + n, data.into())?;
        bus.append(Stream::Events(Topic::Observations), vec![tenure::record(&event)]).await?;
        let began = Instant::now();
        let query = format!("SELECT id FROM events WHERE service = 'queryable' AND id = '{}'", first + n);
        while session.query(&query, Utc::now()).await?.rows() == 0 {
            ensure!(began.elapsed() < PATIENCE, "event {n} did not become queryable within {PATIENCE:?}");
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

/// What a TCP probe says.
pub(super) fn result(probe: ProbeId, outcome: Outcome) -> ProbeCompleted {
    let failed = outcome == Outcome::Failed;
    ProbeCompleted {
        probe,
        outcome,
        latency_us: 1000,
        site: None,
        error_class: failed.then_some(ErrorClass::Network),
        reason: failed.then(|| "connection refused".into()),
        http_status: None,
        certificate_expires_at: None,
    }
}
