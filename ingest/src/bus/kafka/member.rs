//! Membership of a consumer group, for ownership only: its consumer never reads.
//!
//! A thread of its own polls, so that heartbeats and rebalances go on while the role works. A process that was
//! stopped for longer than the session's time-out is told that it lost everything as soon as it runs again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::blocking;
use super::settings::{Link, Reporter};
use crate::bus::{BusError, Membership, Ownership};

type Change = Result<Ownership, BusError>;

/// What the client adds to the caller's patience before it takes a polling thread for dead.
const SLACK: Duration = Duration::from_secs(10);

/// Turns rebalances into changes.
struct Watcher {
    reporter: Reporter,
    generation: AtomicU64,
    /// Unbounded, but it holds two entries a rebalance and a rebalance takes seconds.
    changes: mpsc::UnboundedSender<Change>,
    hand_over: Arc<HandOver>,
}

/// Where the polling thread waits until the caller has let go of what it lost. Heartbeats go on meanwhile: they are
/// another thread's.
#[derive(Debug)]
struct HandOver {
    patience: Duration,
    stop: AtomicBool,
    closing: CancellationToken,
    /// The newest generation whose losses are done with.
    done: Mutex<u64>,
    told: Condvar,
}

impl HandOver {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.closing.is_cancelled()
    }

    fn let_go(&self, generation: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = generation.max(*done);
        self.told.notify_all();
    }

    fn wait(&self, generation: u64) {
        let deadline = Instant::now() + self.patience;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while *done < generation && !self.is_over() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.told.wait_timeout(done, left.min(Duration::from_millis(100)));
            done = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl ClientContext for Watcher {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.reporter.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl Watcher {
    /// Answers the change's generation; `None` if nothing changed.
    fn tell(&self, list: &TopicPartitionList, change: impl FnOnce(u64, Vec<i32>) -> Ownership) -> Option<u64> {
        let mut partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        partitions.sort_unstable();
        if partitions.is_empty() {
            return None;
        }
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        // Nobody listens any more when the member is being dropped.
        let _ = self.changes.send(Ok(change(generation, partitions)));
        Some(generation)
    }
}

impl ConsumerContext for Watcher {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Before the broker learns that they are free, so that the loss is known no later than the other's gain.
        if let Rebalance::Revoke(list) = rebalance {
            let taken = consumer.assignment_lost();
            let lost = self.tell(list, |generation, partitions| Ownership::Lost { generation, partitions, taken });
            if let (Some(generation), false) = (lost, taken) {
                self.hand_over.wait(generation);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "a member could not pause its partitions");
            }
            self.tell(list, |generation, partitions| Ownership::Gained { generation, partitions });
        }
    }
}

pub(super) struct Member {
    changes: mpsc::UnboundedReceiver<Change>,
    hand_over: Arc<HandOver>,
    left: Option<oneshot::Receiver<()>>,
    group: String,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Member({})", self.group)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hand_over.stop.store(true, Ordering::Relaxed);
    }
}

impl Member {
    pub(super) async fn join(
        link: &Arc<Link>,
        group: String,
        topic: String,
        patience: Duration,
        closing: CancellationToken,
    ) -> Result<Self, BusError> {
        let (changes, receiver) = mpsc::unbounded_channel();
        let hand_over = Arc::new(HandOver {
            patience,
            stop: AtomicBool::new(false),
            closing,
            done: Mutex::default(),
            told: Condvar::new(),
        });
        let (left, has_left) = oneshot::channel();
        let mut config = link.consumer("member", &group);
        let session = link.settings.session_timeout_ms;
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", (session / 4).max(100).to_string())
            .set("max.poll.interval.ms", longest_pause(session, patience).to_string())
            .set("auto.offset.reset", "latest");
        let watcher = Watcher {
            reporter: link.reporter(),
            generation: AtomicU64::new(0),
            changes: changes.clone(),
            hand_over: Arc::clone(&hand_over),
        };
        let link = Arc::clone(link);
        let polling = Arc::clone(&hand_over);
        blocking(move || {
            let consumer: BaseConsumer<Watcher> = link.create(&config, watcher)?;
            consumer.subscribe(&[&topic]).map_err(|error| link.error("joining a group", error))?;
            std::thread::Builder::new()
                .name("bus-member".to_owned())
                .spawn(move || {
                    while !polling.is_over() {
                        if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
                            report(&link, &changes, error);
                        }
                    }
                    // Dropping it leaves the group.
                    drop(consumer);
                    let _ = left.send(());
                })
                .map_err(|error| BusError::Unavailable { reason: format!("no thread for a member: {error}") })?;
            Ok(())
        })
        .await?;
        Ok(Self { changes: receiver, hand_over, left: Some(has_left), group })
    }
}

/// How long the polling thread may be away, in milliseconds: it is while it waits for the caller to let go.
fn longest_pause(session_ms: u64, patience: Duration) -> u64 {
    let patience = u64::try_from((patience + SLACK).as_millis()).unwrap_or(u64::MAX);
    // What librdkafka takes at most is a day.
    session_ms.saturating_mul(3).max(patience).min(24 * 3600 * 1000)
}

/// Passes on what a member can't recover from by itself.
fn report(link: &Link, changes: &mpsc::UnboundedSender<Change>, error: KafkaError) {
    let lasting = matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::UnknownTopicOrPartition
            )
        );
    let error = link.error("being a member of a group", error);
    if lasting {
        let _ = changes.send(Err(error));
    } else {
        tracing::warn!(%error, "a member goes on");
    }
}

#[async_trait]
impl Membership for Member {
    async fn changed(&mut self) -> Result<Ownership, BusError> {
        tokio::select! {
            biased;
            () = self.hand_over.closing.cancelled() => Err(BusError::Closed),
            change = self.changes.recv() => change.unwrap_or(Err(BusError::Closed)),
        }
    }

    fn let_go(&mut self, generation: u64) {
        self.hand_over.let_go(generation);
    }

    async fn leave(mut self: Box<Self>) {
        self.hand_over.stop.store(true, Ordering::Relaxed);
        if let Some(left) = self.left.take() {
            // An error means that the thread is gone, and the consumer with it.
            let _ = left.await;
        }
    }
}
