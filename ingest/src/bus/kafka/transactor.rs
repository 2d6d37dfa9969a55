//! Steps as Kafka transactions, one transactional producer a group and partition.
//!
//! Taking over is `init_transactions`: the broker raises the epoch of the transactional id, aborts what the earlier
//! producer left open, and refuses its later calls. That fences whoever decided for the partition before, wherever
//! it runs, even if it was stopped for an hour and does not know yet that it lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, Producer};

use super::settings::{Link, Reporter};
use super::{Closing, blocking, placed, send};
use crate::bus::partitioner::{check_size, partition_of};
use crate::bus::{BusError, Offset, Partition, Record, Stream, Transactor};

pub(super) type Client = FutureProducer<Reporter>;

pub(super) struct Decider {
    link: Arc<Link>,
    producer: Client,
    /// Never joined: it names the group whose positions a step advances.
    group: Arc<BaseConsumer<Reporter>>,
    partition: Partition,
    closing: Closing,
    /// Set when the outcome of a step is not known, or another took over: nothing can be decided any more.
    spent: bool,
}

impl std::fmt::Debug for Decider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decider")
            .field("partition", &self.partition)
            .field("spent", &self.spent)
            .finish_non_exhaustive()
    }
}

impl Decider {
    pub(super) async fn take_over(
        link: &Arc<Link>,
        group: Arc<BaseConsumer<Reporter>>,
        id: &str,
        partition: Partition,
        closing: Closing,
    ) -> Result<Self, BusError> {
        let producer = begin(link, id).await?;
        Ok(Self { link: Arc::clone(link), producer, group, partition, closing, spent: false })
    }
}

/// A producer that owns a transactional id.
pub(super) async fn begin(link: &Arc<Link>, id: &str) -> Result<Client, BusError> {
    let config = link.producer("transactor", Some(id));
    let link = Arc::clone(link);
    blocking(move || {
        let producer: Client = link.create(&config, link.reporter())?;
        let deadline = Instant::now() + link.settings.timeout();
        retried(deadline, |limit| producer.init_transactions(limit))
            .map_err(|error| link.error("taking over a transactional id", error))?;
        Ok(producer)
    })
    .await
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
}

/// Why a transaction did not commit.
enum Failed {
    /// Another one has the transactional id.
    Fenced,
    /// It was aborted: nothing of it will be seen.
    Aborted(KafkaError),
    /// Nobody knows.
    Unknown(KafkaError),
}

/// One transaction: records, positions, commit. Blocks.
fn transact(
    link: &Arc<Link>,
    producer: &Client,
    group: &BaseConsumer<Reporter>,
    records: &[(Partition, Record)],
    positions: &[(Partition, Offset)],
) -> Result<Vec<DeliveryFuture>, Failed> {
    let deadline = Instant::now() + Duration::from_millis(link.settings.transaction_timeout_ms);
    let began = Instant::now();
    let run = || -> Result<Vec<DeliveryFuture>, KafkaError> {
        producer.begin_transaction()?;
        let mut sent = Vec::with_capacity(records.len());
        for (partition, record) in records {
            let topic = partition.stream.name(&link.settings.prefix);
            loop {
                match send(producer, &topic, partition.number, record) {
                    Ok(delivery) => break sent.push(delivery),
                    Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if !positions.is_empty() {
            let mut list = TopicPartitionList::new();
            for (partition, at) in positions {
                let topic = partition.stream.name(&link.settings.prefix);
                list.add_partition_offset(&topic, partition.number, rdkafka::Offset::Offset(*at))?;
            }
            let metadata = group.group_metadata().ok_or(KafkaError::Canceled)?;
            retried(deadline, |limit| producer.send_offsets_to_transaction(&list, &metadata, limit))?;
        }
        let prepared = began.elapsed();
        settle(producer, deadline);
        retried(deadline, |limit| producer.commit_transaction(limit))?;
        tracing::debug!(records = records.len(), ?prepared, committed = ?began.elapsed(), "a transaction");
        Ok(sent)
    };
    run().map_err(|error| {
        if is_fenced(&error) {
            return Failed::Fenced;
        }
        match retried(Instant::now() + link.settings.timeout(), |limit| producer.abort_transaction(limit)) {
            Ok(()) => Failed::Aborted(error),
            Err(abort) if is_fenced(&abort) => Failed::Fenced,
            Err(_) => Failed::Unknown(error),
        }
    })
}

/// Waits until every record sent is acknowledged or has failed. The client's commit would wait for that too, but in
/// steps of 100 ms whenever a record is still under way.
fn settle(producer: &Client, deadline: Instant) {
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn retried(deadline: Instant, mut call: impl FnMut(Duration) -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    loop {
        match call(left(deadline)) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
            other => return other,
        }
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::InvalidProducerIdMapping)
    ) || matches!(error, KafkaError::Transaction(inner) if inner.is_fatal())
        || matches!(error.rdkafka_error_code(), Some(Code::Fatal))
}

/// Notes positions in a transaction of their own: the one way that a group with live members takes them from
/// somebody who is not one of them.
pub(super) async fn note(
    link: &Arc<Link>,
    producer: Client,
    group: Arc<BaseConsumer<Reporter>>,
    positions: Vec<(Partition, Offset)>,
) -> Result<(), BusError> {
    let link = Arc::clone(link);
    blocking(move || match transact(&link, &producer, &group, &[], &positions) {
        Ok(_) => Ok(()),
        Err(Failed::Fenced) => Err(link.error("noting positions", KafkaError::Canceled)),
        Err(Failed::Aborted(error) | Failed::Unknown(error)) => Err(link.error("noting positions", error)),
    })
    .await
}

#[async_trait]
impl Transactor for Decider {
    async fn step(
        &mut self,
        records: Vec<(Stream, Record)>,
        positions: &[(Partition, Offset)],
    ) -> Result<Vec<(Partition, Offset)>, BusError> {
        if self.closing.is_cancelled() {
            return Err(BusError::Closed);
        }
        if self.spent {
            return Err(BusError::Fenced { partition: self.partition });
        }
        records.iter().try_for_each(|(_, record)| check_size(record))?;
        if records.is_empty() && positions.is_empty() {
            return Ok(Vec::new());
        }
        let partitions = self.link.settings.partitions;
        let records: Vec<(Partition, Record)> = records
            .into_iter()
            .map(|(stream, record)| (Partition { stream, number: partition_of(&record.key, partitions) }, record))
            .collect();
        // A caller that stops waiting leaves it so: it can't know how the step ended.
        self.spent = true;
        let (link, producer, group) = (Arc::clone(&self.link), self.producer.clone(), Arc::clone(&self.group));
        let positions = positions.to_vec();
        let places: Vec<Partition> = records.iter().map(|(partition, _)| *partition).collect();
        let outcome = blocking(move || Ok(transact(&link, &producer, &group, &records, &positions))).await?;
        match outcome {
            Ok(sent) => {
                let placed = placed(&self.link, &places, sent).await?;
                self.spent = false;
                Ok(placed)
            }
            Err(Failed::Fenced) => Err(BusError::Fenced { partition: self.partition }),
            Err(Failed::Aborted(error)) => {
                self.spent = false;
                Err(self.link.error("a step, which was undone", error))
            }
            Err(Failed::Unknown(error)) => {
                Err(self.link.error("a step, whose outcome is not known until a transactor takes over", error))
            }
        }
    }
}
