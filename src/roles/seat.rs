//! An instance's seat in a role's group: which tenures begin and end when partitions come and go.
//!
//! A partition that is to go to another instance stays this one's until its tenure has ended (`drain_within`, and a
//! little more): what ran there is finished, or ended and journalled, before the other begins. One that was taken, since
//! this instance was thought dead, is let go at once; whatever its tenure still tries is fenced.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rebound_ingest::bus::{BusError, EventBus, Ownership};
use rebound_schemas::Topic;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::tenure::{Ending, Tenure};

/// How long a tenure may take to end by itself once its time is over: to kill what runs, and to journal that.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Between two looks at whether the tenures have folded their past.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a tenure spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// All partitions of the instance, folded anew when they change: for decisions that cross partitions.
    All,
    /// One partition: what runs in one is not disturbed when others come or go.
    Each,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) group: &'static str,
    pub(crate) topic: Topic,
    pub(crate) span: Span,
    /// How long what runs may go on when its partition is to go to another instance, or the process stops.
    pub(crate) drain_within: Duration,
    /// Cancelled when the process stops.
    pub(crate) shutdown: CancellationToken,
    /// Whether every tenure has folded its past. An instance without a partition is a ready stand-by.
    pub(crate) ready: Arc<AtomicBool>,
}

impl Seat {
    /// Joins, and has `tenure` decide for what the group gives, until the process stops.
    ///
    /// A tenure is a task that is aborted when its time is over, so whatever it spawns must end with it (see
    /// [`JoinSet`]). It says by its flag that it has folded its past.
    pub(crate) async fn serve<F, T>(self, tenure: T) -> Result<(), BusError>
    where
        F: Future<Output = Result<(), BusError>> + Send,
        T: Fn(Arc<Tenure>, Arc<AtomicBool>) -> F + Clone + Send + Sync + 'static,
    {
        let patience = self.drain_within + LAST_WORDS + LAST_WORDS;
        let mut membership = self.bus.join(self.group, self.topic, patience).await?;
        let mut owned: BTreeSet<i32> = BTreeSet::new();
        let mut running = Running::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        let overdue = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(self.drain_within + LAST_WORDS).await;
        };
        tokio::pin!(overdue);
        while !(self.shutdown.is_cancelled() && running.tasks.is_empty()) {
            tokio::select! {
                // Ownership first: a change must not wait behind anything else.
                biased;
                () = &mut overdue => break,
                change = membership.changed() => match change? {
                    Ownership::Gained { partitions, .. } => {
                        owned.extend(&partitions);
                        tracing::info!(group = self.group, ?partitions, "deciding for partitions");
                        if self.span == Span::All {
                            running.abort(&owned).await;
                            running.begin(&self, owned.clone(), &tenure);
                        } else {
                            partitions.iter().for_each(|number| running.begin(&self, [*number].into(), &tenure));
                        }
                    }
                    Ownership::Lost { generation, partitions, taken } => {
                        let lost: BTreeSet<i32> = partitions.into_iter().collect();
                        if self.span == Span::Each && !taken {
                            tracing::info!(group = self.group, partitions = ?lost, "another instance asks for partitions");
                            running.give_up(&lost, self.drain_within).await;
                        }
                        running.abort(&lost).await;
                        membership.let_go(generation);
                        tracing::info!(group = self.group, partitions = ?lost, "partitions went to another instance");
                        owned.retain(|number| !lost.contains(number));
                        if self.span == Span::All && !owned.is_empty() {
                            running.begin(&self, owned.clone(), &tenure);
                        }
                    }
                },
                true = running.reap() => {}
                _ = look.tick() => {}
            }
            while let Some(result) = running.ended.pop_front() {
                let Err(error) = result else { continue };
                let BusError::Fenced { partition } = error else { return Err(error) };
                // Whoever fenced us owns it now; the group's word about it is on its way. Joining anew is the one thing
                // that is right whatever that word is.
                tracing::warn!(group = self.group, %partition, "fenced by another instance: joining anew");
                running.abort(&owned).await;
                running.ended.clear();
                owned.clear();
                membership.leave().await;
                membership = self.bus.join(self.group, self.topic, patience).await?;
            }
            self.ready.store(running.have_folded(), Ordering::Release);
        }
        running.tasks.shutdown().await;
        membership.leave().await;
        Ok(())
    }
}

/// The tenures of now.
#[derive(Debug, Default)]
struct Running {
    tasks: JoinSet<Result<(), BusError>>,
    held: HashMap<Id, Held>,
    /// How those ended that ended by themselves, not looked at yet.
    ended: VecDeque<Result<(), BusError>>,
}

#[derive(Debug)]
struct Held {
    partitions: BTreeSet<i32>,
    task: AbortHandle,
    ending: Ending,
    folded: Arc<AtomicBool>,
}

impl Running {
    fn begin<F, T>(&mut self, seat: &Seat, partitions: BTreeSet<i32>, tenure: &T)
    where
        F: Future<Output = Result<(), BusError>> + Send,
        T: Fn(Arc<Tenure>, Arc<AtomicBool>) -> F + Clone + Send + Sync + 'static,
    {
        let (ending, folded) = (Ending::under(&seat.shutdown), Arc::new(AtomicBool::new(false)));
        let (bus, group, topic, tenure) = (seat.bus.clone(), seat.group, seat.topic, tenure.clone());
        let (over, how, flag) = (partitions.clone(), ending.clone(), folded.clone());
        let task = self.tasks.spawn(async move {
            let held = Tenure::begin(bus, group, topic, &over, how).await?;
            Box::pin(tenure(Arc::new(held), flag)).await
        });
        self.held.insert(task.id(), Held { partitions, task, ending, folded });
    }

    fn over<'a>(&'a self, partitions: &'a BTreeSet<i32>) -> impl Iterator<Item = &'a Held> {
        self.held.values().filter(|held| !held.partitions.is_disjoint(partitions))
    }

    /// Lets what runs there end by itself for `within`; then it is told that it has to.
    async fn give_up(&mut self, partitions: &BTreeSet<i32>, within: Duration) {
        self.over(partitions).for_each(|held| held.ending.leaving.cancel());
        if tokio::time::timeout(within, self.gone(partitions)).await.is_ok() {
            return;
        }
        for held in self.over(partitions) {
            held.ending.overdue.cancel();
            held.ending.shutdown.cancel();
        }
        if tokio::time::timeout(LAST_WORDS, self.gone(partitions)).await.is_err() {
            tracing::warn!(?partitions, "what ran did not end in time: the next owner closes it as interrupted");
        }
    }

    /// Ends what is left there, and returns when it is gone.
    async fn abort(&mut self, partitions: &BTreeSet<i32>) {
        self.over(partitions).for_each(|held| held.task.abort());
        self.gone(partitions).await;
    }

    async fn gone(&mut self, partitions: &BTreeSet<i32>) {
        while self.over(partitions).next().is_some() && self.reap().await {}
    }

    /// Waits for one to end; `false` when none runs. Cancel-safe.
    async fn reap(&mut self) -> bool {
        let (id, result) = match self.tasks.join_next_with_id().await {
            None => return false,
            Some(Ok((id, result))) => (id, Some(result)),
            Some(Err(error)) => (error.id(), aborted(error)),
        };
        self.held.remove(&id);
        self.ended.extend(result);
        true
    }

    fn have_folded(&self) -> bool {
        self.held.values().all(|held| held.folded.load(Ordering::Acquire))
    }
}

/// Nothing is to be said about an abort; a panic goes on.
fn aborted(error: JoinError) -> Option<Result<(), BusError>> {
    if error.is_cancelled() { None } else { std::panic::resume_unwind(error.into_panic()) }
}
