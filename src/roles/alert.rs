//! The alerting role: folds what happened, decides, tells people. The rules are in `rebound_alerting`; here are the
//! clock, the bus and the channels.
//!
//! A tenure begins with the past, from which nothing is decided: all alerts and recoveries, and as much of the owned
//! partitions' observations as the rules can remember, or what came since a snapshot of them. Then it goes on where its
//! group stood. An observation's
//! position is committed in the same step as what was decided about it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_alerting::channel::Channels;
use rebound_alerting::engine::{Engine, lookback};
use rebound_alerting::notify::Notifier;
use rebound_alerting::pause::Scope;
use rebound_ingest::bus::{BusError, EventBus, Offset, Partition};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, Topic};
use tokio::task::JoinSet;

use super::clock::Clock;
use super::snapshot::{Bounds, Snapshots, Writing, take_up};
use super::tenure::{Feed, Tenure, replay, retried};

/// The role's consumer group, behind the configured prefix.
pub(crate) const GROUP: &str = "alert";
/// Deliveries under way at most; further notices wait for the next round.
const DELIVERIES: usize = 32;
/// How often positions are committed while nothing is decided.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// The loop comes round at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Coming round later than this, it stood still: the process was stopped, or the bus was away.
const STOOD_STILL: Duration = Duration::from_secs(10);

/// Where each group of inputs is read on after the past was folded.
type Positions = Vec<(Partition, Offset)>;

/// Folds the whole of the alerts and recoveries topics into `take`; answers where to read on.
pub(crate) async fn fold_decisions(
    bus: &Arc<dyn EventBus>,
    mut take: impl FnMut(&Event),
) -> Result<Positions, BusError> {
    let mut on = Vec::new();
    for topic in [Topic::Alerts, Topic::Recoveries] {
        let mut stretches = Vec::new();
        for number in 0..bus.partitions() {
            let partition = Partition::of(topic, number);
            let marks = retried(|| bus.watermarks(partition)).await?;
            stretches.push((partition, marks.low, marks.high));
            on.push((partition, marks.high));
        }
        replay(bus, stretches, &mut take).await?;
    }
    Ok(on)
}

/// The newest stretches of partitions' observations, up to where `group` stands (or, without a group, to the end).
pub(crate) async fn remembered(
    bus: &Arc<dyn EventBus>,
    numbers: impl IntoIterator<Item = i32>,
    since: DateTime<Utc>,
    group: Option<&str>,
) -> Result<BTreeMap<i32, Bounds>, BusError> {
    let mut stretches = BTreeMap::new();
    for number in numbers {
        let partition = Partition::of(Topic::Observations, number);
        let marks = retried(|| bus.watermarks(partition)).await?;
        let from = retried(|| bus.offset_at(partition, since)).await?.clamp(marks.low, marks.high);
        let stands = match group {
            None => Some(marks.high),
            Some(group) => retried(|| bus.committed(group, partition)).await?,
        };
        // A group that never stood anywhere begins with what the rules can remember, and decides about it.
        let through = stands.unwrap_or(from).clamp(marks.low, marks.high);
        stretches.insert(number, Bounds { from: from.min(through), through });
    }
    Ok(stretches)
}

/// Folds stretches of observations into `take`, what of them `known` holds already left out; answers where to read on.
pub(crate) async fn fold_observations(
    bus: &Arc<dyn EventBus>,
    stretches: &BTreeMap<i32, Bounds>,
    known: &BTreeMap<i32, Offset>,
    take: impl FnMut(&Event),
) -> Result<Positions, BusError> {
    let of = |number: &i32| Partition::of(Topic::Observations, *number);
    let from = |(number, bounds): (&i32, &Bounds)| {
        (of(number), known.get(number).copied().unwrap_or(bounds.from), bounds.through)
    };
    replay(bus, stretches.iter().map(from).collect(), take).await?;
    Ok(stretches.iter().map(|(number, bounds)| (of(number), bounds.through)).collect())
}

/// Decides for the owned partitions until the tenure ends.
pub(crate) async fn decide(
    held: Arc<Tenure>,
    plan: Arc<Plan>,
    channels: Arc<Channels>,
    snapshots: Arc<Snapshots>,
    ready: Arc<AtomicBool>,
) -> Result<(), BusError> {
    let bus = held.bus().clone();
    let mut engine = Engine::new(plan.clone());
    engine.own_where(|service| held.owns(service));
    let mut notifier = Notifier::new(plan.clone());

    let since = Utc::now() - TimeDelta::from_std(lookback(&plan)).unwrap_or(TimeDelta::days(1));
    let stretches = remembered(&bus, held.owned(), since, Some(GROUP)).await?;
    let decisions = fold_decisions(&bus, |event| {
        engine.fold(event);
        notifier.fold(event);
    });
    let (on, snapshot) = tokio::join!(decisions, snapshots.read(&bus, &stretches));
    let mut on = on?;
    engine.seen_since(since);
    let known = take_up(&mut engine, snapshot);
    on.extend(fold_observations(&bus, &stretches, &known, |event| engine.fold(event)).await?);
    let mut writing = Writing::new(snapshots, &stretches);
    let mut feed = Feed::start(&bus, on);
    let mut deliveries = JoinSet::new();
    let mut telling = HashSet::new();
    let mut uncommitted: BTreeMap<Partition, Offset> = BTreeMap::new();
    let mut advancing = JoinSet::new();
    let mut commit = tokio::time::interval(COMMIT_EVERY);
    commit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ready.store(true, Ordering::Release);
    let mut clock = Clock::new(STOOD_STILL);
    loop {
        let unheard = clock.unheard();
        if !unheard.is_zero() {
            tracing::warn!(
                seconds = unheard.num_seconds(),
                "the clock was set, or this process stood still: the time between is not taken for silence"
            );
            engine.stood_still(unheard);
        }
        let now = Utc::now();
        let planned = notifier.plan(now, &|service| engine.is_quiet(service, now), &|service| held.owns(service));
        if !planned.events.is_empty() {
            // What a message tells is durable before it is sent, so that it is the same after a crash.
            held.append(&planned.events, &[]).await?;
            planned.events.iter().for_each(|event| notifier.fold(event));
        }
        for notice in notifier.due() {
            if deliveries.len() < DELIVERIES
                && held.owns(&notice.first().service)
                && telling.insert(notice.dedup_key.clone())
            {
                let channels = channels.clone();
                deliveries.spawn(async move { (notice.dedup_key.clone(), channels.deliver(&notice).await) });
            }
        }
        let next = [engine.next_deadline(), planned.next].into_iter().flatten().min();
        // A deadline in the past is due at once, but never in a tight loop.
        let pause = next.map_or(HEARTBEAT, |at| (at - now).to_std().unwrap_or(Duration::ZERO));
        let pause = pause.clamp(Duration::from_millis(5), HEARTBEAT);
        let decided = tokio::select! {
            () = held.shutdown().cancelled() => return Ok(()),
            input = feed.next() => {
                let input = input?;
                let mut decided = Vec::new();
                for event in &input.events {
                    notifier.fold(event);
                    warn_of_scope(event, &plan);
                    decided.extend(engine.handle(event, Utc::now()));
                }
                if input.partition.stream == rebound_ingest::bus::Stream::Events(Topic::Observations) {
                    writing.stands(input.partition.number, input.next);
                    uncommitted.insert(input.partition, input.next);
                }
                decided
            }
            () = tokio::time::sleep(pause) => engine.tick(Utc::now()),
            Some(done) = deliveries.join_next() => match done {
                Ok((key, event)) => {
                    telling.remove(&key);
                    vec![event]
                }
                Err(panicked) => {
                    // Its key stays in `telling`: a notice that panics its channel is not tried again in this tenure.
                    tracing::error!(%panicked, "a notification channel panicked");
                    Vec::new()
                }
            },
            _ = commit.tick(), if !uncommitted.is_empty() => {
                held.advance(&mut uncommitted, &mut advancing);
                continue;
            }
            () = writing.turn() => {
                writing.write_on(&bus, &engine);
                continue;
            }
            Some(done) = advancing.join_next() => match done {
                Ok(advanced) => {
                    advanced?;
                    continue;
                }
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            },
        };
        if !decided.is_empty() {
            for event in &decided {
                notifier.fold(event);
                tracing::info!(kind = %event.kind(), service = %event.subject, id = %event.id, "decided");
            }
            let positions: Positions = std::mem::take(&mut uncommitted).into_iter().collect();
            held.append(&decided, &positions).await?;
        }
    }
}

/// Says so when somebody pauses, or resumes, what the plan does not have: they believe that it stopped.
fn warn_of_scope(event: &Event, plan: &Plan) {
    if let Some((fault, remedy)) = Scope::of(&event.data).and_then(|scope| scope.fault(plan)) {
        tracing::warn!(kind = %event.kind(), id = %event.id, "stops nothing and lets nothing go on: {fault}: {remedy}");
    }
}
