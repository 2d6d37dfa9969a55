//! A seeded, plausible past: what a year of probing the fleet would have left.
//!
//! Observations are drawn (failures by a Poisson process a service, durations log-normal, a slow improvement over the
//! year), and the decisions about them are made by the same engine that decides live, with the clock of the past.
//! Recoveries are told as the runner would have. Nothing is notified or executed: the deciding roles take this for
//! history, since it is on the bus before they begin.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebound_alerting::engine::Engine;
use rebound_ingest::bus::{EventBus, Partition, Stream};
use rebound_schemas::event::{
    ErrorClass, Outcome, ProbeCompleted, RecoveryFinished, RecoveryOutcome, RecoveryStarted, RecoveryTriggered,
    RecoveryVerified, StepFinished, StepOutcome, StepStarted,
};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventData, EventId, IncidentId, ServiceId, Source, StepId, Topic};

use crate::roles::{Handle, adopted, alert, recover, tenure};

/// Between two probes of a service while it is healthy, and while it is not.
const CALM: TimeDelta = TimeDelta::minutes(5);
const TROUBLED: TimeDelta = TimeDelta::seconds(10);
/// Mean time between failures of one service.
const BETWEEN_FAILURES_DAYS: f64 = 11.0;
/// Records appended at once.
const BATCH: usize = 5_000;

/// Appends the past to the bus, and sets the deciding groups behind it.
pub(super) async fn fill(process: &Handle, length: Duration, seed: u64, progress: bool) -> Result<()> {
    let plan = process.plan.clone().context("the demo has a plan")?;
    let now = Utc::now();
    let length = TimeDelta::from_std(length).ok().filter(|l| *l <= TimeDelta::days(3660));
    let start = now - length.context("--history takes ten years at most")?;
    adopted::adopt(&process.bus, &plan, start).await?;
    let bar = if progress { ProgressBar::new(plan.services().len() as u64) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("history {bar:30} {pos}/{len} services {elapsed}")?);
    for (number, service) in plan.services().keys().enumerate() {
        let (plan, service) = (plan.clone(), service.clone());
        let seed = seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let past = tokio::task::spawn_blocking(move || imagine(&plan, &service, start, now, seed)).await??;
        for topic in Topic::ALL {
            let records: Vec<_> = past.iter().filter(|e| e.kind().topic() == topic).map(tenure::record).collect();
            for batch in records.chunks(BATCH) {
                process.bus.append(Stream::Events(topic), batch.to_vec()).await?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    settle(&process.bus).await
}

/// Sets the deciding groups behind what is on the bus: it is history to them.
async fn settle(bus: &Arc<dyn EventBus>) -> Result<()> {
    for (group, topic) in [(alert::GROUP, Topic::Observations), (recover::GROUP, Topic::Recoveries)] {
        for number in 0..bus.partitions() {
            let partition = Partition::of(topic, number);
            let high = bus.watermarks(partition).await?.high;
            bus.commit(group, &[(partition, high)]).await?;
        }
    }
    Ok(())
}

/// One service's past, oldest first.
fn imagine(
    plan: &Arc<Plan>,
    service: &ServiceId,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    seed: u64,
) -> Result<Vec<Event>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut engine = Engine::new(plan.clone());
    engine.own_where(|own| own == service);
    let probe = plan.probes_of(service).next().context("every service of the fleet has a probe")?.id.clone();
    let source = Source::new(&format!("rebound/probe/demo/history-{seed:x}"))?;
    let mut past = Vec::new();
    let mut at = start + TimeDelta::seconds(random.random_range(0..300));
    let mut failing_until: Option<DateTime<Utc>> = None;
    let mut next_failure = at + gap(&mut random);
    // The last hour stays calm, so that nothing of the past is still open when the demo begins.
    let calm_from = end - TimeDelta::hours(1);
    let mut number = 0_u64;
    // What the runner says of a recovery under way, in its order.
    let mut told: VecDeque<Event> = VecDeque::new();
    while at < end {
        if failing_until.is_none() && at >= next_failure && at < calm_from {
            let elapsed = (at - start).num_seconds() as f64 / (end - start).num_seconds().max(1) as f64;
            failing_until = Some(at + outage(&mut random, elapsed));
        }
        while let Some(event) = told.pop_front_if(|event| event.occurred_at <= at) {
            past.extend(engine.handle(&event, event.occurred_at));
            past.push(event);
        }
        let failed = failing_until.is_some_and(|until| at < until);
        if !failed && failing_until.take().is_some() {
            next_failure = at + gap(&mut random);
        }
        number += 1;
        let observation = Event {
            id: EventId::new(&number.to_string())?,
            source: source.clone(),
            subject: service.clone(),
            occurred_at: at,
            plan: None,
            data: observed(&mut random, probe.clone(), failed).into(),
        };
        let decided = engine.handle(&observation, at);
        let troubled =
            failed || !decided.is_empty() || engine.status(service, at).is_some_and(|s| s.incident.is_some());
        past.push(observation);
        let triggered: Vec<_> = decided.iter().filter_map(trigger_of).collect();
        past.extend(decided);
        for trigger in triggered {
            told.extend(recovered(plan, service, &trigger, at, failing_until.unwrap_or(at)));
        }
        at += if troubled { TROUBLED } else { CALM };
    }
    past.sort_by_key(|event| event.occurred_at);
    Ok(past)
}

fn gap(random: &mut ChaCha8Rng) -> TimeDelta {
    let days = -random.random_range(f64::EPSILON..1.0_f64).ln() * BETWEEN_FAILURES_DAYS;
    TimeDelta::milliseconds((days * 86_400_000.0) as i64)
}

/// Log-normal: a median of four minutes at the start of the past and of two at its end, with a long tail.
fn outage(random: &mut ChaCha8Rng, elapsed: f64) -> TimeDelta {
    let (u, v) = (random.random_range(f64::EPSILON..1.0_f64), random.random_range(0.0..1.0_f64));
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    let median = 240.0 - 120.0 * elapsed;
    TimeDelta::milliseconds((1000.0 * (median * (0.7 * normal).exp()).clamp(30.0, 4.0 * 3600.0)) as i64)
}

fn observed(random: &mut ChaCha8Rng, probe: rebound_schemas::ProbeId, failed: bool) -> ProbeCompleted {
    let latency = if failed { 800_000 } else { 900 + random.random_range(0..2_500) };
    ProbeCompleted {
        probe,
        outcome: if failed { Outcome::Failed } else { Outcome::Healthy },
        latency_us: latency,
        site: None,
        error_class: failed.then_some(ErrorClass::Network),
        reason: failed.then(|| "connection refused".to_owned()),
        http_status: None,
        certificate_expires_at: None,
    }
}

fn trigger_of(event: &Event) -> Option<RecoveryTriggered> {
    match &event.data {
        EventData::RecoveryTriggered(trigger) => Some(trigger.clone()),
        _ => None,
    }
}

/// What the runner would have said of a recovery whose service came back at `back`: the one step takes until then.
fn recovered(
    plan: &Plan,
    service: &ServiceId,
    trigger: &RecoveryTriggered,
    at: DateTime<Utc>,
    back: DateTime<Utc>,
) -> Vec<Event> {
    let RecoveryTriggered { recovery, incident, attempt, procedure, method, .. } = trigger.clone();
    let incident: IncidentId = incident;
    let step = plan.procedures().get(&procedure).and_then(|p| p.steps.first()).map(|s| s.id.clone());
    let step = step.unwrap_or_else(|| StepId::new("restart").expect("a constant id"));
    let began = at + TimeDelta::milliseconds(40);
    let done = back.max(began + TimeDelta::seconds(1));
    let verified = done + TimeDelta::seconds(20);
    let duration_ms =
        |from: DateTime<Utc>, to: DateTime<Utc>| u64::try_from((to - from).num_milliseconds()).unwrap_or(0);
    let event = |what: &str, occurred_at: DateTime<Utc>, data: EventData| Event {
        id: EventId::derive(recovery.as_str(), what),
        source: Source::new(rebound_alerting::runner::SOURCE).expect("a constant source"),
        subject: service.clone(),
        occurred_at,
        plan: Some(plan.version().clone()),
        data,
    };
    let started = RecoveryStarted {
        recovery: recovery.clone(),
        incident: incident.clone(),
        procedure: procedure.clone(),
        runner: "history".into(),
    };
    let step_started = StepStarted {
        recovery: recovery.clone(),
        incident: incident.clone(),
        step: step.clone(),
        index: 0,
        attempt: 1,
        action: "restart".into(),
    };
    let step_finished = StepFinished {
        recovery: recovery.clone(),
        incident: incident.clone(),
        step,
        index: 0,
        attempt: 1,
        outcome: StepOutcome::Succeeded,
        duration_ms: duration_ms(began, done),
        code: Some(0),
        output: None,
        error: None,
    };
    let verification = RecoveryVerified {
        recovery: recovery.clone(),
        incident: incident.clone(),
        passed: true,
        checks: Vec::new(),
        evidence: Vec::new(),
    };
    let finished = RecoveryFinished {
        recovery: recovery.clone(),
        incident,
        attempt,
        procedure,
        method,
        outcome: RecoveryOutcome::Succeeded,
        duration_ms: duration_ms(began, verified),
        error_class: None,
        reason: None,
    };
    vec![
        event("started", began, started.into()),
        event("step-restart-1-started", began, step_started.into()),
        event("step-restart-1-finished", done, step_finished.into()),
        event("verified", verified, verification.into()),
        event("finished", verified, finished.into()),
    ]
}
