//! Runs a plan's probes on time and puts what they found on the bus.
//!
//! One loop starts what the schedule (`schedule.rs`) says is due, within a bound on runs at a time; one task
//! writes results in batches and tries again while the bus is away. Between them is a bounded queue, and a run is
//! only started with its place in the queue reserved: when the bus is away for long, probes pause (and the missed
//! points are counted), but nothing that was observed is dropped.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;
use rebound_schemas::event::{Outcome, ProbeCompleted};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventId, ServiceId, SiteId, Source, Topic};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::schedule::Schedule;
use super::{ProbeError, Prober};
use crate::bus::{EventBus, Stream};
use crate::record::record_of;

/// Results in one append at most.
const BATCH: usize = 1000;
/// How long the first result of a batch waits for others. A result that is not healthy waits for nobody.
const BATCH_AGE: Duration = Duration::from_millis(20);
/// The loop wakes at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Waking later than this after it should have, the process stood still: it was stopped, or its machine was.
const STOOD_STILL: Duration = Duration::from_secs(3);
/// Descriptors left for everything but probes.
const SPARE_DESCRIPTORS: u64 = 256;

/// How probes are run.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// Name of this instance, unique among those that run at the same time: part of the events' source.
    pub instance: String,
    /// Run only the probes that look from this site; without it, all of them.
    pub site: Option<SiteId>,
    /// Runs at a time, at most; a command counts as four. Lowered to what the descriptor limit allows.
    pub concurrency: usize,
    /// Results that may wait for the bus.
    pub buffer: usize,
    /// How long a shutdown waits for runs under way, and again for the bus to take the last results.
    pub drain: Duration,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { instance: "local".into(), site: None, concurrency: 2048, buffer: 16_384, drain: Duration::from_secs(10) }
    }
}

/// Labels of what is counted a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Labels of what is counted a kind and outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    outcome: &'static str,
    kind: &'static str,
}

/// What the scheduler counts. Labels are bounded: kinds and outcomes, never probes.
#[derive(Debug, Clone)]
pub struct ProbeMetrics {
    results: Family<ResultLabels, Counter>,
    duration: Family<KindLabel, Histogram, fn() -> Histogram>,
    start_delay: Histogram,
    missed: Counter,
    in_flight: Gauge,
    append_failures: Counter,
}

fn seconds_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl ProbeMetrics {
    /// Registers the scheduler's metrics, all named `rebound_probe_…`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            results: Family::default(),
            duration: Family::new_with_constructor(seconds_histogram),
            start_delay: seconds_histogram(),
            missed: Counter::default(),
            in_flight: Gauge::default(),
            append_failures: Counter::default(),
        };
        registry.register("rebound_probe_results", "Probe runs that ended", metrics.results.clone());
        registry.register("rebound_probe_duration_seconds", "Duration of probe runs", metrics.duration.clone());
        let help = "How much later than due probe runs began";
        registry.register("rebound_probe_start_delay_seconds", help, metrics.start_delay.clone());
        let help = "Probe runs that were due and not made: the one before was still going, or there was no room";
        registry.register("rebound_probe_missed", help, metrics.missed.clone());
        registry.register("rebound_probe_in_flight", "Probe runs under way", metrics.in_flight.clone());
        let help = "Appends of probe results that the bus refused and that were tried again";
        registry.register("rebound_probe_append_failures", help, metrics.append_failures.clone());
        metrics
    }
}

/// Runs the plan's probes until `shutdown`, then lets those under way end, flushes their results and returns.
///
/// Results are `probe.completed` events of the source `rebound/probe/<instance>/<boot>`, where the boot is new at
/// every start, with ids counted from 1; `occurred_at` is when the run ended.
///
/// # Errors
/// A probe that can't be built; a bus that refuses for good, or, shutting down, for longer than `drain`.
pub async fn run_probes(
    plan: Arc<Plan>,
    bus: Arc<dyn EventBus>,
    settings: ProbeSettings,
    metrics: ProbeMetrics,
    shutdown: CancellationToken,
) -> Result<(), ProbeError> {
    let wanted = plan.probes().values().filter(|p| settings.site.is_none() || p.site == settings.site);
    let probers = wanted.map(|p| Prober::new(p, plan.allow()).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let concurrency = fitting(settings.concurrency, descriptor_limit());
    if concurrency < settings.concurrency {
        tracing::warn!(concurrency, "fewer probes run at a time than set: raise the limit on open files (ulimit -n)");
    }
    let settings = ProbeSettings { concurrency, ..settings };
    tracing::info!(probes = probers.len(), concurrency, "probing");
    let targets = probers.iter().map(|p| Target {
        service: p.service.clone(),
        kind: p.kind,
        weight: if p.kind == "command" { 4 } else { 1 },
        timeout: p.timeout,
    });
    let schedule = Schedule::new(Duration::ZERO, probers.iter().map(|p| (&p.id, p.every)));
    let targets = targets.collect();
    let run = |index: usize| {
        let prober = probers[index].clone();
        async move { prober.run().await }
    };
    drive(schedule, targets, run, bus, settings, metrics, shutdown).await
}

/// Runs at a time that the limit on open files leaves room for: a run holds two descriptors at times.
fn fitting(wanted: usize, descriptors: u64) -> usize {
    let room = descriptors.saturating_sub(SPARE_DESCRIPTORS).max(descriptors / 2) / 2;
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(4)
}

fn descriptor_limit() -> u64 {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// A source that no other start of this instance has had: its start's milliseconds and some randomness.
fn source_of(instance: &str, now: DateTime<Utc>, random: u16) -> Result<Source, ProbeError> {
    let run = format!("{:x}{random:04x}", now.timestamp_millis());
    Source::of_probe_run(instance, &run).map_err(ProbeError::Instance)
}

/// What the loop knows of a probe.
#[derive(Debug)]
struct Target {
    service: ServiceId,
    kind: &'static str,
    weight: usize,
    timeout: Duration,
}

/// A run that ended, with its place in the queue.
struct Ended {
    index: usize,
    completed: ProbeCompleted,
    at: DateTime<Utc>,
    place: mpsc::OwnedPermit<Event>,
}

async fn drive<F>(
    schedule: Schedule,
    targets: Vec<Target>,
    run: impl Fn(usize) -> F,
    bus: Arc<dyn EventBus>,
    settings: ProbeSettings,
    metrics: ProbeMetrics,
    shutdown: CancellationToken,
) -> Result<(), ProbeError>
where
    F: Future<Output = ProbeCompleted> + Send + 'static,
{
    let source = source_of(&settings.instance, Utc::now(), rand::random())?;
    let (sender, receiver) = mpsc::channel(settings.buffer.max(1));
    let writer = tokio::spawn(write(receiver, bus, metrics.clone()));
    let drain = settings.drain;
    let mut looping = Loop {
        schedule,
        targets,
        settings,
        metrics,
        source,
        sequence: 0,
        epoch: Instant::now(),
        running: JoinSet::new(),
        weight: 0,
    };
    let outcome = looping.run(&run, &sender, &shutdown).await;
    // Dropped, the queue closes behind the last result, and the writer ends when it has written it.
    drop(looping);
    drop(sender);
    let mut writer = writer;
    let written = match tokio::time::timeout(drain, &mut writer).await {
        Ok(Ok(written)) => written,
        Ok(Err(e)) => Err(broken(&e)),
        Err(_) => {
            writer.abort();
            Err(ProbeError::Drain(drain))
        }
    };
    outcome.and(written)
}

fn broken(error: &JoinError) -> ProbeError {
    ProbeError::Broken(error.to_string())
}

/// The scheduler's loop and what it holds.
struct Loop {
    schedule: Schedule,
    targets: Vec<Target>,
    settings: ProbeSettings,
    metrics: ProbeMetrics,
    source: Source,
    /// The last event's id.
    sequence: u64,
    epoch: Instant,
    running: JoinSet<Ended>,
    /// Of the runs under way.
    weight: usize,
}

/// Why no further run is started just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// Nothing is due.
    Idle,
    /// As many run as may.
    Busy,
    /// The queue to the bus is full.
    Full,
}

impl Loop {
    async fn run<F>(
        &mut self,
        run: &impl Fn(usize) -> F,
        sender: &mpsc::Sender<Event>,
        shutdown: &CancellationToken,
    ) -> Result<(), ProbeError>
    where
        F: Future<Output = ProbeCompleted> + Send + 'static,
    {
        let mut full_since = None;
        while !shutdown.is_cancelled() && !sender.is_closed() {
            let pause = self.start_due(run, sender);
            full_since = full_since.filter(|_| pause == Pause::Full).or((pause == Pause::Full).then(Instant::now));
            let now = Instant::now();
            let due = self.schedule.next_due().map_or(now + HEARTBEAT, |due| self.epoch + due);
            let wake = if pause == Pause::Idle { due.min(now + HEARTBEAT) } else { now + HEARTBEAT };
            tokio::select! {
                () = shutdown.cancelled() => break,
                // The writer gave up: its error is told by whoever waits for it.
                () = sender.closed() => break,
                Some(ended) = self.running.join_next() => self.end(ended)?,
                _ = sender.reserve(), if pause == Pause::Full => {
                    if full_since.is_some_and(|since| since.elapsed() > STOOD_STILL) {
                        self.skip();
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            while let Some(ended) = self.running.try_join_next() {
                self.end(ended)?;
            }
            if Instant::now().saturating_duration_since(wake) > STOOD_STILL {
                self.skip();
            }
        }
        let drained = tokio::time::timeout(self.settings.drain, async {
            while let Some(ended) = self.running.join_next().await {
                self.end(ended)?;
            }
            Ok(())
        });
        match drained.await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(runs = self.running.len(), "probe runs were cut off by the shutdown");
                self.running.shutdown().await;
                self.metrics.in_flight.set(0);
                Ok(())
            }
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Starts what is due, as far as there is room.
    fn start_due<F>(&mut self, run: &impl Fn(usize) -> F, sender: &mpsc::Sender<Event>) -> Pause
    where
        F: Future<Output = ProbeCompleted> + Send + 'static,
    {
        let now = self.now();
        while self.schedule.next_due().is_some_and(|due| due <= now) {
            if self.weight >= self.settings.concurrency {
                return Pause::Busy;
            }
            let Ok(place) = sender.clone().try_reserve_owned() else { return Pause::Full };
            let Some(start) = self.schedule.start(now) else { return Pause::Idle };
            self.metrics.missed.inc_by(start.missed);
            self.metrics.start_delay.observe((now - start.due).as_secs_f64());
            self.metrics.in_flight.inc();
            self.weight += self.targets[start.index].weight;
            let (index, running) = (start.index, run(start.index));
            self.running.spawn(async move {
                let completed = running.await;
                Ended { index, completed, at: Utc::now(), place }
            });
        }
        Pause::Idle
    }

    fn end(&mut self, ended: Result<Ended, JoinError>) -> Result<(), ProbeError> {
        let Ended { index, completed, at, place } = ended.map_err(|e| broken(&e))?;
        let target = &self.targets[index];
        self.weight -= target.weight;
        self.metrics.in_flight.dec();
        self.metrics.missed.inc_by(self.schedule.finish(index, self.epoch.elapsed()));
        let took = Duration::from_micros(completed.latency_us);
        if took > target.timeout + STOOD_STILL {
            // Every run ends by its timeout, unless this process was not running: then it saw nothing of the target.
            tracing::warn!(probe = %completed.probe, ?took, "a probe run spans a stand-still of this process: ignored");
            self.metrics.missed.inc();
            return Ok(());
        }
        let labels = ResultLabels { outcome: completed.outcome.as_str(), kind: target.kind };
        self.metrics.results.get_or_create(&labels).inc();
        self.metrics.duration.get_or_create(&KindLabel { kind: target.kind }).observe(took.as_secs_f64());
        self.sequence += 1;
        place.send(Event {
            id: EventId::new(&self.sequence.to_string()).expect("a number is an id"),
            source: self.source.clone(),
            subject: target.service.clone(),
            occurred_at: at,
            plan: None,
            data: completed.into(),
        });
        Ok(())
    }

    fn skip(&mut self) {
        let missed = self.schedule.skip(self.now());
        self.metrics.missed.inc_by(missed);
        tracing::warn!(missed, "probes stood still: the runs missed meanwhile are not made up for");
    }
}

/// Writes results in batches until the queue closes; a bus that is away is tried again without end.
async fn write(
    mut results: mpsc::Receiver<Event>,
    bus: Arc<dyn EventBus>,
    metrics: ProbeMetrics,
) -> Result<(), ProbeError> {
    let mut batch: Vec<Event> = Vec::with_capacity(BATCH);
    while results.recv_many(&mut batch, BATCH).await > 0 {
        let deadline = Instant::now() + BATCH_AGE;
        while batch.len() < BATCH && batch.iter().all(|e| !urgent(e)) {
            let room = BATCH - batch.len();
            let more = results.recv_many(&mut batch, room);
            if !matches!(tokio::time::timeout_at(deadline, more).await, Ok(1..)) {
                break;
            }
        }
        let records: Vec<_> = batch.drain(..).map(|event| record_of(&event)).collect();
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times();
        (|| bus.append(Stream::Events(Topic::Observations), records.clone()))
            .retry(backoff)
            .when(crate::bus::BusError::is_transient)
            .notify(|error, after| {
                metrics.append_failures.inc();
                tracing::warn!(%error, ?after, results = records.len(), "the bus did not take probe results: trying again");
            })
            .await
            .map_err(|source| ProbeError::Bus { pending: records.len(), source })?;
    }
    Ok(())
}

fn urgent(event: &Event) -> bool {
    matches!(&event.data, rebound_schemas::EventData::ProbeCompleted(data) if data.outcome != Outcome::Healthy)
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
