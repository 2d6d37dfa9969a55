//! Readers: consumers with a partition assigned by hand, that fetch ahead and are kept for the next read.
//!
//! A reader stands at one position; a read that wants another one gets another reader, or a reassigned one, so that
//! what was fetched ahead for one reading is never given to another. Readers see committed records only. Offsets
//! that hold none (transaction markers, aborted records) are skipped by proof, not by guess: see [`Reader::fill`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::time::Instant;

use super::settings::{Link, Reporter};
use super::{Queries, blocking};
use crate::bus::{BusError, Delivery, Fetch, Offset, Partition, ReadLimit, Record, Watermarks};

/// Idle readers kept a partition: one for each role that reads it, and one for looking at lag.
const IDLE: usize = 3;
/// Fetched ahead for all partitions of a topic together, in KiB; a partition has 1 to 8 MiB of it.
const AHEAD_KIB: i64 = 32 << 10;
/// What the broker has beyond the position is either a record, which is on its way and here within this, or nothing
/// that is ever given.
const ON_ITS_WAY: Duration = Duration::from_millis(30);

/// Readers that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<HashMap<Partition, Vec<Reader>>>);

impl Pool {
    /// The reader that stands where the caller wants to read on; or, if there are enough, one to reassign.
    fn take(&self, partition: Partition, from: Offset) -> Option<Reader> {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = pool.get_mut(&partition)?;
        let fitting = idle.iter().position(|reader| reader.position == from);
        match fitting {
            Some(at) => Some(idle.swap_remove(at)),
            None if idle.len() < IDLE => None,
            None => {
                let oldest = (0..idle.len()).min_by_key(|at| idle[*at].used)?;
                Some(idle.swap_remove(oldest))
            }
        }
    }

    fn put(&self, partition: Partition, mut reader: Reader) {
        reader.used = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(partition).or_default().push(reader);
    }

    /// Closes all. Blocks.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

pub(super) struct Reader {
    /// `None` only while it is being dropped.
    consumer: Option<StreamConsumer<Reporter>>,
    topic: String,
    number: i32,
    position: Offset,
    /// A record that was fetched but did not fit into the last answer; it is at `position`.
    held: Option<Delivery>,
    /// The client said that it reached the end, and nothing came since.
    at_end: bool,
    /// Where the broker ends beyond what the client reached, and until when a record of it is waited for.
    beyond: Option<(Offset, Instant)>,
    /// The end as it was before the reader was assigned anew to look for records below it.
    proving: Option<Offset>,
    used: Instant,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({}-{} at {})", self.topic, self.number, self.position)
    }
}

impl Drop for Reader {
    /// Closing a consumer waits for its threads, which must not hold up tasks.
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            match tokio::runtime::Handle::try_current() {
                Ok(handle) => drop(handle.spawn_blocking(move || drop(consumer))),
                Err(_) => drop(consumer),
            }
        }
    }
}

/// Reads on from `from`.
pub(super) async fn read(
    pool: &Pool,
    queries: &Arc<Queries>,
    partition: Partition,
    from: Offset,
    limit: ReadLimit,
) -> Result<Fetch, BusError> {
    let deadline = Instant::now() + limit.wait;
    let mut reader = match pool.take(partition, from) {
        Some(reader) if reader.position == from => reader,
        other => Reader::open(queries, partition, from, other).await?,
    };
    match reader.fill(queries, partition, limit, deadline).await {
        Ok(fetch) => {
            pool.put(partition, reader);
            Ok(fetch)
        }
        Err(Failure::Bus(error)) => Err(error),
        Err(Failure::Gone(code)) => {
            // The client can't say what is left: the broker can.
            let Watermarks { low, high } = queries.watermarks(partition, from).await?;
            if from < low || from > high || high == 0 {
                return Err(BusError::OutOfRange { partition, wanted: from, low, high });
            }
            Err(queries.link.error("reading", KafkaError::MessageConsumption(code)))
        }
    }
}

enum Failure {
    Bus(BusError),
    /// The position, or the topic, is not there any more.
    Gone(RDKafkaErrorCode),
}

impl Reader {
    async fn open(
        queries: &Arc<Queries>,
        partition: Partition,
        from: Offset,
        old: Option<Self>,
    ) -> Result<Self, BusError> {
        let Watermarks { low, high } = queries.watermarks(partition, from).await?;
        if from < low || from > high {
            return Err(BusError::OutOfRange { partition, wanted: from, low, high });
        }
        let link = Arc::clone(&queries.link);
        let topic = partition.stream.name(&link.settings.prefix);
        blocking(move || {
            let consumer = match old.and_then(|mut old| old.consumer.take()) {
                Some(consumer) => consumer,
                None => Self::connect(&link)?,
            };
            let reader = Self {
                consumer: Some(consumer),
                topic,
                number: partition.number,
                position: from,
                held: None,
                at_end: false,
                beyond: None,
                proving: None,
                used: Instant::now(),
            };
            reader.assign(&link)?;
            Ok(reader)
        })
        .await
    }

    fn connect(link: &Arc<Link>) -> Result<StreamConsumer<Reporter>, BusError> {
        let mut config = link.consumer("reader", &format!("{}.reader", link.settings.prefix));
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        // A full queue of records stops the fetching, and by default for a whole second, of which a fast role would
        // spend a part with nothing to read.
        let ahead = (AHEAD_KIB / i64::from(link.settings.partitions)).clamp(1024, 8192).to_string();
        let ours = [
            ("queued.max.messages.kbytes", ahead.as_str()),
            ("fetch.wait.max.ms", "200"),
            ("fetch.queue.backoff.ms", "10"),
        ];
        for (key, value) in ours {
            config.set(key, link.property(key, value));
        }
        link.create(&config, link.reporter())
    }

    /// Starts fetching from the position; what was fetched before is dropped by the client.
    fn assign(&self, link: &Arc<Link>) -> Result<(), BusError> {
        let Some(consumer) = &self.consumer else { return Err(BusError::Closed) };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.number, rdkafka::Offset::Offset(self.position))
            .and_then(|()| consumer.assign(&list))
            .map_err(|error| link.error("assigning a partition", error))
    }

    /// Collects records until the limit, or until there are no more at hand.
    ///
    /// At the end of the partition the position may lie below the broker's end, with markers between. They are
    /// skipped only when it is proven that no record is among them: the end is asked for first, then the reader is
    /// assigned anew at its position, and only if *that* assignment, which can't have begun earlier, reports an end
    /// without a record, was there none below the end asked for. Where records keep coming, what lies beyond the
    /// position is mostly the next one: it is waited for a little first, since assigning anew throws away what is
    /// under way.
    async fn fill(
        &mut self,
        queries: &Arc<Queries>,
        partition: Partition,
        limit: ReadLimit,
        deadline: Instant,
    ) -> Result<Fetch, Failure> {
        let records = limit.records.max(1);
        let mut out: Vec<Delivery> = Vec::new();
        let mut bytes = 0_usize;
        let mut unreachable = None;
        if let Some(held) = self.held.take() {
            bytes = held.record.value.len();
            self.position = held.offset + 1;
            out.push(held);
        }
        while out.len() < records && bytes < limit.bytes.max(1) {
            let mut until = deadline;
            if out.is_empty() && self.at_end {
                match self.beyond {
                    None => {
                        let high = queries.watermarks(partition, self.position).await.map_err(Failure::Bus)?.high;
                        if high > self.position {
                            self.beyond = Some((high, Instant::now() + ON_ITS_WAY));
                        } else {
                            self.at_end = false;
                        }
                        continue;
                    }
                    Some((high, patience)) if Instant::now() >= patience => {
                        (self.at_end, self.beyond) = (false, None);
                        self.assign(&queries.link).map_err(Failure::Bus)?;
                        self.proving = Some(high);
                    }
                    Some((_, patience)) => until = deadline.min(patience),
                }
            }
            let Some(consumer) = &self.consumer else { return Err(Failure::Bus(BusError::Closed)) };
            let mut messages = consumer.stream();
            let next = if out.is_empty() {
                tokio::time::timeout_at(until, messages.next()).await.ok().flatten()
            } else {
                messages.next().now_or_never().flatten()
            };
            match next {
                None if until < deadline => {}
                None => break,
                Some(Ok(message)) => {
                    let delivery = delivery_of(&message);
                    if delivery.offset < self.position {
                        continue;
                    }
                    (self.at_end, self.beyond, self.proving) = (false, None, None);
                    let size = delivery.record.value.len();
                    if !out.is_empty() && bytes.saturating_add(size) > limit.bytes {
                        self.held = Some(delivery);
                        break;
                    }
                    bytes += size;
                    self.position = delivery.offset + 1;
                    out.push(delivery);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => match self.proving.take() {
                    Some(high) if out.is_empty() && high > self.position => {
                        self.position = high;
                        break;
                    }
                    _ => self.at_end = true,
                },
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(
                        code @ (RDKafkaErrorCode::AutoOffsetReset
                        | RDKafkaErrorCode::OffsetOutOfRange
                        | RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownPartition
                        | RDKafkaErrorCode::UnknownTopicId),
                    ) => return Err(Failure::Gone(code)),
                    Some(
                        RDKafkaErrorCode::TopicAuthorizationFailed
                        | RDKafkaErrorCode::Authentication
                        | RDKafkaErrorCode::SaslAuthenticationFailed,
                    ) => return Err(Failure::Bus(queries.link.error("reading", error))),
                    // The client goes on by itself; if nothing comes until the deadline, this was why.
                    _ => unreachable = Some(error),
                },
            }
            if !out.is_empty() && self.at_end {
                break;
            }
        }
        match unreachable {
            Some(error) if out.is_empty() => Err(Failure::Bus(queries.link.error("reading", error))),
            _ => Ok(Fetch { deliveries: out, next: self.position }),
        }
    }
}

fn delivery_of(message: &BorrowedMessage<'_>) -> Delivery {
    let bytes = |slice: Option<&[u8]>| slice.map(Bytes::copy_from_slice).unwrap_or_default();
    let ms = message.timestamp().to_millis().unwrap_or_default();
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_ascii_lowercase(), bytes(header.value))).collect()
    });
    Delivery {
        offset: message.offset(),
        ingested_at: DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default(),
        record: Record { key: bytes(message.key()), value: bytes(message.payload()), headers },
    }
}
