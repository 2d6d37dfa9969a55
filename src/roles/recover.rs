//! The recovery role: folds recoveries, starts those whose turn it is, and gives each its journal and its
//! observations. What runs when is decided by `rebound_alerting::queue`, how by `rebound_alerting::runner`.
//!
//! Everything it spawns ends with the tenure. When a partition is to go to another instance, nothing new begins, and
//! what runs may end (see [`seat`](super::seat)); what was killed with its instance is found unfinished by the next
//! owner and closed as interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use rebound_alerting::queue::{Command, Queue, QueueLimits};
use rebound_alerting::runner::{Journal, JournalError, Observations, RunnerError, Settings, Stop, Task, run_task};
use rebound_alerting::sites::Sites;
use rebound_ingest::bus::{BusError, Partition, Stream};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventData, RecoveryId, Topic};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::alert::fold_decisions;
use super::tenure::{Feed, Tenure, retried};
use crate::config::Config;

/// The role's consumer group, behind the configured prefix.
pub(crate) const GROUP: &str = "recover";
/// How often the queue is asked, besides after every input: back-off ends and triggers go stale by time alone.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Observations that a verification may lag behind; older ones are lost to it, which only delays it.
const OBSERVATIONS: usize = 4096;
/// Approvals, answers and people's words that a run may lag behind: they are rare.
const ANSWERS: usize = 1024;
/// Journalled events on their way to the queue.
const JOURNALLED: usize = 256;

/// What the role needs to know, whichever partitions it owns.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    plan: Arc<Plan>,
    runner: String,
    limits: QueueLimits,
    drain_within: Duration,
}

impl Role {
    pub(crate) fn new(plan: Arc<Plan>, config: &Config) -> Self {
        let limits = QueueLimits {
            total: config.recover.concurrency,
            per_site: config.recover.site_concurrency,
            ..QueueLimits::default()
        };
        let runner = format!("{}/{}", config.instance, std::process::id());
        Self { plan, runner, limits, drain_within: config.recover.drain_within }
    }

    /// Runs recoveries of the owned partitions until the tenure ends.
    pub(crate) async fn run(self, held: Arc<Tenure>, ready: Arc<AtomicBool>) -> Result<(), BusError> {
        let bus = held.bus().clone();
        let mut queue = Queue::new(self.limits.clone());
        let mut sites = Sites::default();
        let fold = |event: &Event| {
            queue.evolve(event);
            sites.evolve(event);
        };
        let mut on = fold_decisions(&bus, fold).await?;
        for number in 0..bus.partitions() {
            // Probes that a step waits for may belong to another partition's service.
            let partition = Partition::of(Topic::Observations, number);
            on.push((partition, retried(|| bus.watermarks(partition)).await?.high));
        }
        let mut feed = Feed::start(&bus, on);
        let (observations, _) = broadcast::channel(OBSERVATIONS);
        let (answers, _) = broadcast::channel(ANSWERS);
        let (journalled, mut written) = mpsc::channel::<Event>(JOURNALLED);
        let mut runs: JoinSet<(RecoveryId, Result<(), RunnerError>)> = JoinSet::new();
        // Cancelled when this future is dropped: a run that is between two awaits still sees it.
        let fenced = CancellationToken::new();
        let _lost: DropGuard = fenced.clone().drop_guard();
        let stop = Stop { shutdown: held.shutdown().clone(), overdue: held.overdue().clone(), fenced };
        let mut ask = tokio::time::interval(ASK_EVERY);
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ready.store(true, Ordering::Release);
        loop {
            if !held.leaving().is_cancelled() {
                for command in queue.decide(self.plan.as_ref(), Utc::now(), |service| held.owns(service)) {
                    match command {
                        Command::Finish { finished } => {
                            held.append(std::slice::from_ref(finished.as_ref()), &[]).await?;
                            queue.evolve(&finished);
                        }
                        Command::Expire { events } => {
                            held.append(&events, &[]).await?;
                            events.iter().for_each(|event| queue.evolve(event));
                        }
                        Command::Start { triggered } => {
                            let Some(id) = recovery_of(&triggered) else { continue };
                            queue.begin(&id);
                            tracing::info!(recovery = %id, service = %triggered.subject, "recovering");
                            let journal = BusJournal { held: held.clone(), journalled: journalled.clone() };
                            let watch = Watch { answers: answers.subscribe(), observations: observations.subscribe() };
                            let task = self.task(&triggered, &sites);
                            // The next one to begin must know of it.
                            let moved = task.as_ref().ok().filter(|task| task.steps.is_ok() && !id.is_dry_run());
                            if let Some(moved) = moved.and_then(|task| task.moves.as_ref()) {
                                sites.begin(moved, Utc::now());
                            }
                            runs.spawn(self.clone().recover(id, task, journal, watch, stop.clone()));
                        }
                    }
                }
            } else if runs.is_empty() {
                return Ok(());
            }
            tokio::select! {
                input = feed.next() => {
                    let input = input?;
                    if input.partition.stream == Stream::Events(Topic::Observations) {
                        if observations.receiver_count() > 0 {
                            for event in input.events {
                                // Nobody listening is no fault.
                                let _ = observations.send(Arc::new(event));
                            }
                        }
                    } else {
                        for event in input.events {
                            queue.evolve(&event);
                            sites.evolve(&event);
                            if is_for_runs(&event.data) {
                                let _ = answers.send(Arc::new(event));
                            }
                        }
                    }
                }
                Some(event) = written.recv() => queue.evolve(&event),
                Some(done) = runs.join_next() => {
                    while let Ok(event) = written.try_recv() {
                        queue.evolve(&event);
                    }
                    match done {
                        Ok((id, Ok(()))) => {
                            queue.end(&id, true);
                            continue;
                        }
                        Ok((id, Err(error))) => {
                            tracing::error!(recovery = %id, %error, "the recovery stopped without an end");
                        }
                        Err(panicked) => tracing::error!(%panicked, "a recovery's runner panicked"),
                    }
                    // Whether it was started is in the partition, which the next tenure reads from its beginning: so
                    // this one ends.
                    let number = held.owned().next().unwrap_or_default();
                    return Err(BusError::Fenced { partition: Partition::of(Topic::Recoveries, number) });
                }
                _ = ask.tick(), if !held.shutdown().is_cancelled() => {
                    // What waits for less than this is not worth a word.
                    let waits = queue.withheld(self.plan.as_ref(), Utc::now(), |service| held.owns(service));
                    if !waits.is_empty() {
                        held.append(&waits, &[]).await?;
                        waits.iter().for_each(|event| queue.evolve(event));
                    }
                    queue.prune(Utc::now());
                }
            }
        }
    }

    /// What a trigger asks for; a move between sites that would leave too few healthy ones runs nothing.
    fn task(&self, triggered: &Event, sites: &Sites) -> Result<Task, RunnerError> {
        let task = Task::new(&self.plan, triggered)?;
        let refused = task.moves.as_ref().and_then(|moved| sites.allow(&self.plan, moved).err());
        Ok(match refused {
            Some(reason) => task.refused(reason),
            None => task,
        })
    }

    async fn recover(
        self,
        id: RecoveryId,
        task: Result<Task, RunnerError>,
        mut journal: BusJournal,
        mut watch: Watch,
        stop: Stop,
    ) -> (RecoveryId, Result<(), RunnerError>) {
        let task = match task {
            Ok(task) => task,
            Err(error) => return (id, Err(error)),
        };
        let settings = Settings { drain: self.drain_within, ..Settings::default() };
        let run = run_task(&task, &self.runner, &mut journal, &mut watch, &settings, &stop);
        let result = Box::pin(run).await.map(|outcome| {
            tracing::info!(recovery = %id, service = %task.service, %outcome, "recovery ended");
        });
        (id, result)
    }
}

/// What those that run wait for, besides observations.
fn is_for_runs(data: &EventData) -> bool {
    matches!(data, EventData::RecoveryApproved(_) | EventData::RecoveryCancelled(_) | EventData::StepAnswered(_))
}

fn recovery_of(triggered: &Event) -> Option<RecoveryId> {
    match &triggered.data {
        rebound_schemas::EventData::RecoveryTriggered(data) => Some(data.recovery.clone()),
        _ => None,
    }
}

/// What a recovery waits for. Approvals and answers have a way of their own, so that a flood of observations can't
/// push them out.
#[derive(Debug)]
struct Watch {
    answers: broadcast::Receiver<Arc<Event>>,
    observations: broadcast::Receiver<Arc<Event>>,
}

#[async_trait]
impl Observations for Watch {
    async fn next(&mut self) -> Option<Arc<Event>> {
        tokio::select! {
            biased;
            event = Observations::next(&mut self.answers) => event,
            event = Observations::next(&mut self.observations) => event,
        }
    }
}

/// A recovery's journal: its service's partition, under this tenure's fence.
#[derive(Debug)]
struct BusJournal {
    held: Arc<Tenure>,
    journalled: mpsc::Sender<Event>,
}

#[async_trait]
impl Journal for BusJournal {
    async fn record(&mut self, events: Vec<Event>) -> Result<(), JournalError> {
        match self.held.append(&events, &[]).await {
            Ok(()) => {}
            Err(BusError::Fenced { .. }) => return Err(JournalError::Fenced),
            Err(error) => return Err(JournalError::Unavailable(error.to_string())),
        }
        for event in events {
            // The tenure is over if nobody takes it; what is durable is durable.
            let _ = self.journalled.send(event).await;
        }
        Ok(())
    }
}
