//! The Kafka bus: any cluster that speaks Kafka's protocol, by librdkafka.
//!
//! Appends go through an idempotent producer (`acks=all`) to a partition chosen by our own rule; steps are
//! transactions ([`transactor`]); readers see committed records only ([`reader`]); ownership is a consumer group
//! ([`member`]). Calls that block run on tokio's blocking threads, each within the configured time.
//!
//! An offset of −1 in an answer means that the broker took a repeated record and no longer knows where it stands.

mod member;
mod publisher;
mod reader;
mod settings;
mod transactor;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{DeliveryFuture, FutureRecord, Producer};
use rebound_schemas::Topic;
use tokio_util::sync::CancellationToken;

use super::partitioner::{check_size, partition_of};
use super::{
    BusError, EventBus, Fetch, MAX_RECORD_BYTES, Membership, Offset, Partition, ReadLimit, Record, Stream, Transactor,
    Watermarks,
};
use member::Member;
pub use publisher::KafkaPublisher;
use reader::Pool;
pub use settings::{KafkaSettings, is_secret};
use settings::{Link, Reporter};
use transactor::{Client, Decider};

type Closing = CancellationToken;

/// See the module.
pub struct KafkaBus {
    link: Arc<Link>,
    queries: Arc<Queries>,
    readers: Arc<Pool>,
    producer: Mutex<Option<Client>>,
    groups: Mutex<HashMap<String, Arc<BaseConsumer<Reporter>>>>,
    /// The producer that notes positions outside of steps.
    notes: tokio::sync::Mutex<Option<Client>>,
    closing: Closing,
}

impl std::fmt::Debug for KafkaBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaBus").field("settings", &self.link.settings).finish_non_exhaustive()
    }
}

/// How long a topic may be unknown before it counts as gone: a broker does not tell of a new one at once.
const GONE_AFTER: Duration = Duration::from_secs(2);

/// A consumer that asks the broker about partitions.
struct Queries {
    link: Arc<Link>,
    consumer: BaseConsumer<Reporter>,
}

impl std::fmt::Debug for Queries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queries")
    }
}

impl Queries {
    /// The ends of a partition; the high one is that of committed records. A topic that is gone is out of range of
    /// whoever reads on from `from`.
    async fn watermarks(self: &Arc<Self>, partition: Partition, from: Offset) -> Result<Watermarks, BusError> {
        let queries = Arc::clone(self);
        blocking(move || {
            let topic = partition.stream.name(&queries.link.settings.prefix);
            let asked = Instant::now();
            loop {
                match queries.consumer.fetch_watermarks(&topic, partition.number, queries.link.settings.timeout()) {
                    Ok((low, high)) => return Ok(Watermarks { low, high }),
                    Err(error) => match error.rdkafka_error_code() {
                        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownPartition) => {
                            if asked.elapsed() >= GONE_AFTER {
                                return Err(BusError::OutOfRange { partition, wanted: from, low: 0, high: 0 });
                            }
                            std::thread::sleep(Duration::from_millis(100));
                        }
                        _ => return Err(queries.link.error("asking for a partition's ends", error)),
                    },
                }
            }
        })
        .await
    }
}

/// Runs what blocks away from the threads that drive tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BusError::Unavailable { reason: format!("the client's call did not end: {error}") }),
    }
}

/// Hands a record to the client's queue.
fn send(producer: &Client, topic: &str, partition: i32, record: &Record) -> Result<DeliveryFuture, KafkaError> {
    let mut out = FutureRecord::<[u8], [u8]>::to(topic).partition(partition).key(&record.key).payload(&record.value);
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        out = out.headers(
            record
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_ref()) })),
        );
    }
    producer.send_result(out).map_err(|(error, _)| error)
}

/// Waits until all records that were sent are acknowledged.
async fn placed(
    link: &Link,
    places: &[Partition],
    sent: Vec<DeliveryFuture>,
) -> Result<Vec<(Partition, Offset)>, BusError> {
    let mut out = Vec::with_capacity(sent.len());
    for (partition, delivery) in places.iter().zip(sent) {
        match delivery.await {
            Ok(Ok(delivery)) => out.push((*partition, delivery.offset)),
            Ok(Err((error, message))) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                    let bytes = message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
                    return Err(BusError::TooLarge { bytes, limit: MAX_RECORD_BYTES });
                }
                return Err(link.error("appending", error));
            }
            Err(_) => return Err(BusError::Closed),
        }
    }
    Ok(out)
}

impl KafkaBus {
    /// Reaches the cluster, and creates the topics that are missing. Errors: a setting is wrong, no broker answers
    /// in time, or existing topics don't fit.
    pub async fn connect(settings: KafkaSettings) -> Result<Self, BusError> {
        settings.check()?;
        let link = Link::new(settings);
        let making = Arc::clone(&link);
        let (queries, producer) = blocking(move || {
            let config = making.consumer("queries", &format!("{}.queries", making.settings.prefix));
            let consumer = making.create(&config, making.reporter())?;
            let producer: Client = making.create(&making.producer("producer", None), making.reporter())?;
            Ok((Arc::new(Queries { link: making, consumer }), producer))
        })
        .await?;
        let bus = Self {
            link,
            queries,
            readers: Arc::default(),
            producer: Mutex::new(Some(producer)),
            groups: Mutex::default(),
            notes: tokio::sync::Mutex::default(),
            closing: Closing::new(),
        };
        bus.prepare_topics().await?;
        Ok(bus)
    }

    fn topics(&self) -> Vec<String> {
        let streams = Topic::ALL.into_iter().flat_map(|topic| [Stream::Events(topic), Stream::DeadLetters(topic)]);
        streams.map(|stream| stream.name(&self.link.settings.prefix)).collect()
    }

    async fn metadata(&self) -> Result<Metadata, BusError> {
        let queries = Arc::clone(&self.queries);
        blocking(move || {
            let answer = queries.consumer.fetch_metadata(None, queries.link.settings.timeout());
            answer.map_err(|error| queries.link.error("no broker answered in time", error))
        })
        .await
    }

    /// Creates what is missing and waits until every topic can be used.
    async fn prepare_topics(&self) -> Result<(), BusError> {
        let settings = &self.link.settings;
        let missing = self.missing(&self.metadata().await?)?;
        if missing.is_empty() {
            return Ok(());
        }
        let config = self.link.producer("admin", None);
        let admin: AdminClient<Reporter> = self.link.create(&config, self.link.reporter())?;
        let size = (2 * MAX_RECORD_BYTES).to_string();
        let kept = [Topic::Alerts, Topic::Recoveries].map(|topic| Stream::Events(topic).name(&settings.prefix));
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|name| {
                let topic = NewTopic::new(name, settings.partitions, TopicReplication::Fixed(settings.replication))
                    .set("max.message.bytes", &size)
                    .set("message.timestamp.type", "LogAppendTime");
                // Decisions are few, and every deciding role folds all of them when it starts: they are kept.
                if kept.contains(name) { topic.set("retention.ms", "-1") } else { topic }
            })
            .collect();
        let options =
            AdminOptions::new().request_timeout(Some(settings.timeout())).operation_timeout(Some(settings.timeout()));
        let answers = admin.create_topics(&topics, &options).await;
        for answer in answers.map_err(|error| self.link.error("creating topics", error))? {
            match answer {
                // Another instance may have been faster.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(self.link.error(&format!("creating the topic {name}"), KafkaError::AdminOp(code)));
                }
            }
        }
        let deadline = Instant::now() + settings.timeout();
        loop {
            let missing = self.missing(&self.metadata().await?)?;
            match missing.first() {
                None => return Ok(()),
                Some(name) if Instant::now() >= deadline => {
                    let reason = format!("kafka at {}: the topic {name} has no leaders yet", settings.brokers);
                    return Err(BusError::Unavailable { reason });
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Topics that do not exist, or have no leaders yet.
    fn missing(&self, metadata: &Metadata) -> Result<Vec<String>, BusError> {
        let wanted = self.link.settings.partitions;
        let mut missing = Vec::new();
        for name in self.topics() {
            let known = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
            match known.map(rdkafka::metadata::MetadataTopic::partitions) {
                Some(partitions) if i32::try_from(partitions.len()) != Ok(wanted) => {
                    return Err(BusError::Configuration(format!(
                        "the topic {name} has {} partitions, [kafka] partitions says {wanted}: all topics must have as \
                         many; set it to {0}, or use another prefix",
                        partitions.len()
                    )));
                }
                Some(partitions) if partitions.iter().all(|p| p.leader() >= 0 && p.error().is_none()) => {}
                _ => missing.push(name),
            }
        }
        Ok(missing)
    }

    /// A group's name behind the prefix; a name that has it already stays.
    fn group_id(&self, group: &str) -> String {
        let prefix = &self.link.settings.prefix;
        if group.starts_with(&format!("{prefix}.")) { group.to_owned() } else { format!("{prefix}.{group}") }
    }

    /// A consumer of a group that never joins it: it asks for positions, and names the group in transactions.
    async fn group(&self, group: &str) -> Result<Arc<BaseConsumer<Reporter>>, BusError> {
        let id = self.group_id(group);
        if let Some(known) = self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(known));
        }
        let link = Arc::clone(&self.link);
        let name = id.clone();
        let made = blocking(move || link.create(&link.consumer("positions", &name), link.reporter())).await?;
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(groups.entry(id).or_insert_with(|| Arc::new(made))))
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.closing.is_cancelled() { Err(BusError::Closed) } else { Ok(()) }
    }

    fn check(&self, partition: Partition) -> Result<(), BusError> {
        self.check_open()?;
        let partitions = self.link.settings.partitions;
        if (0..partitions).contains(&partition.number) {
            return Ok(());
        }
        Err(BusError::Configuration(format!("{partition} does not exist: there are {partitions}")))
    }

    fn list(&self, partition: Partition, at: rdkafka::Offset) -> Result<TopicPartitionList, BusError> {
        let mut list = TopicPartitionList::new();
        let topic = partition.stream.name(&self.link.settings.prefix);
        list.add_partition_offset(&topic, partition.number, at)
            .map_err(|error| self.link.error("a position", error))?;
        Ok(list)
    }
}

#[async_trait]
impl EventBus for KafkaBus {
    fn partitions(&self) -> i32 {
        self.link.settings.partitions
    }

    async fn append(&self, stream: Stream, records: Vec<Record>) -> Result<Vec<(Partition, Offset)>, BusError> {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(BusError::Closed)?;
        records.iter().try_for_each(check_size)?;
        let topic = stream.name(&self.link.settings.prefix);
        let deadline = Instant::now() + self.link.settings.timeout();
        let (mut places, mut sent) = (Vec::with_capacity(records.len()), Vec::with_capacity(records.len()));
        for record in &records {
            let number = partition_of(&record.key, self.partitions());
            places.push(Partition { stream, number });
            loop {
                match send(&producer, &topic, number, record) {
                    Ok(delivery) => break sent.push(delivery),
                    // The client's queue is bounded: wait for room.
                    Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) if Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    Err(error) => return Err(self.link.error("appending", error)),
                }
            }
        }
        placed(&self.link, &places, sent).await
    }

    async fn read(&self, partition: Partition, from: Offset, limit: ReadLimit) -> Result<Fetch, BusError> {
        self.check(partition)?;
        tokio::select! {
            () = self.closing.cancelled() => Err(BusError::Closed),
            fetch = reader::read(&self.readers, &self.queries, partition, from, limit) => fetch,
        }
    }

    async fn watermarks(&self, partition: Partition) -> Result<Watermarks, BusError> {
        self.check(partition)?;
        self.queries.watermarks(partition, 0).await
    }

    async fn offset_at(&self, partition: Partition, time: DateTime<Utc>) -> Result<Offset, BusError> {
        self.check(partition)?;
        let ms = time.timestamp_millis() + i64::from(!time.timestamp_subsec_nanos().is_multiple_of(1_000_000));
        let list = self.list(partition, rdkafka::Offset::Offset(ms.max(0)))?;
        let queries = Arc::clone(&self.queries);
        let found = blocking(move || {
            let answer = queries.consumer.offsets_for_times(list, queries.link.settings.timeout());
            let answer = answer.map_err(|error| queries.link.error("asking for an offset by time", error))?;
            Ok(answer.elements().first().map(|element| element.offset()))
        })
        .await?;
        let ends = self.queries.watermarks(partition, 0).await?;
        match found {
            Some(rdkafka::Offset::Offset(at)) => Ok(at.clamp(ends.low, ends.high)),
            _ => Ok(ends.high),
        }
    }

    async fn committed(&self, group: &str, partition: Partition) -> Result<Option<Offset>, BusError> {
        self.check(partition)?;
        let group = self.group(group).await?;
        let list = self.list(partition, rdkafka::Offset::Invalid)?;
        let link = Arc::clone(&self.link);
        blocking(move || {
            let answer = group.committed_offsets(list, link.settings.timeout());
            let answer = answer.map_err(|error| link.error("asking for a position", error))?;
            Ok(answer.elements().first().and_then(|element| match element.offset() {
                rdkafka::Offset::Offset(at) => Some(at),
                _ => None,
            }))
        })
        .await
    }

    async fn commit(&self, group: &str, positions: &[(Partition, Offset)]) -> Result<(), BusError> {
        self.check_open()?;
        positions.iter().try_for_each(|(partition, _)| self.check(*partition))?;
        if positions.is_empty() {
            return Ok(());
        }
        let group = self.group(group).await?;
        let mut notes = self.notes.lock().await;
        // Taken out while it is used: after an error, or when the caller stops waiting, the next one starts afresh.
        let producer = match notes.take() {
            Some(producer) => producer,
            None => {
                let id = format!("{}.notes.{:016x}", self.link.settings.prefix, rand::random::<u64>());
                transactor::begin(&self.link, &id).await?
            }
        };
        transactor::note(&self.link, producer.clone(), group, positions.to_vec()).await?;
        *notes = Some(producer);
        Ok(())
    }

    async fn join(&self, group: &str, topic: Topic, patience: Duration) -> Result<Box<dyn Membership>, BusError> {
        self.check_open()?;
        let topic = Stream::Events(topic).name(&self.link.settings.prefix);
        Ok(Box::new(Member::join(&self.link, self.group_id(group), topic, patience, self.closing.clone()).await?))
    }

    async fn transactor(&self, group: &str, partition: Partition) -> Result<Box<dyn Transactor>, BusError> {
        self.check(partition)?;
        let id = format!("{}.{partition}", self.group_id(group));
        let group = self.group(group).await?;
        Ok(Box::new(Decider::take_over(&self.link, group, &id, partition, self.closing.clone()).await?))
    }

    async fn close(&self) -> Result<(), BusError> {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(BusError::Closed)?;
        let link = Arc::clone(&self.link);
        let flushed = blocking(move || {
            producer.flush(link.settings.timeout()).map_err(|error| link.error("waiting for appends", error))
        })
        .await;
        self.closing.cancel();
        let notes = self.notes.lock().await.take();
        let groups = std::mem::take(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner));
        let readers = Arc::clone(&self.readers);
        blocking(move || {
            drop((notes, groups));
            readers.clear();
            Ok(())
        })
        .await?;
        flushed
    }
}
