//! Dead letters: what could not be decoded, listed and played back.
//!
//! Replaying appends a letter's record to its topic again, without the headers that were added to it, and keeps the
//! letter: the dead-letter stream is a log too. What fails again becomes a letter again. A letter may stand there
//! twice when a writer died between the letter and its commit; both have the same topic, partition and offset.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rebound_schemas::Topic;
use rebound_schemas::codec::decode_full;
use serde::Serialize;

use super::encode::{decode_binary, header};
use crate::bus::{BusError, Delivery, EventBus, Offset, Partition, ReadLimit, Record, Stream};

/// Why dead letters can't be listed or replayed.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    /// The bus failed.
    #[error("the bus failed while dead letters were read")]
    Bus(#[from] BusError),
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterEntry {
    /// The topic it was read from.
    pub topic: &'static str,
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: Offset,
    /// When the pipeline first took it in.
    pub ingested_at: Option<DateTime<Utc>>,
    /// Its key: the service, where the producer set it.
    pub key: String,
    /// Why, as one word.
    pub class: String,
    /// Why, in words.
    pub reason: String,
    /// Where in the JSON.
    pub pointer: String,
    /// Bytes of its value.
    pub bytes: usize,
    /// The beginning of its value, as far as it is text (at most 200 characters).
    pub excerpt: String,
}

/// What [`dlq_replay`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Letters looked at.
    pub letters: u64,
    /// Appended to their topic again.
    pub replayed: u64,
    /// Left alone, since they still can't be decoded.
    pub still_undecodable: u64,
    /// Left alone, since they were cut to fit or an equal letter was replayed already in this run.
    pub skipped: u64,
}

const LIMIT: ReadLimit = ReadLimit { records: 1000, bytes: 4 << 20, wait: Duration::ZERO };

/// Calls `each` for every letter of a topic; stops at the first error.
async fn for_each<F>(bus: &Arc<dyn EventBus>, topic: Topic, mut each: F) -> Result<(), DlqError>
where
    F: AsyncFnMut(Delivery) -> Result<(), DlqError>,
{
    for number in 0..bus.partitions() {
        let partition = Partition { stream: Stream::DeadLetters(topic), number };
        let marks = bus.watermarks(partition).await?;
        let mut at = marks.low;
        while at < marks.high {
            let fetch = bus.read(partition, at, LIMIT).await?;
            if fetch.next <= at {
                break;
            }
            at = fetch.next;
            for delivery in fetch.deliveries.into_iter().filter(|d| d.offset < marks.high) {
                each(delivery).await?;
            }
        }
    }
    Ok(())
}

/// Every dead letter of the given topics, in the order of the topics; one written twice is listed once.
pub async fn dlq_list(bus: &Arc<dyn EventBus>, topics: &[Topic]) -> Result<Vec<DeadLetterEntry>, DlqError> {
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    for topic in topics {
        for_each(bus, *topic, async |delivery| {
            let entry = entry(*topic, &delivery);
            if seen.insert((entry.topic, entry.partition, entry.offset)) {
                entries.push(entry);
            }
            Ok(())
        })
        .await?;
    }
    Ok(entries)
}

/// Appends dead letters of the given topics to them again, if they decode now (a newer build knows more); `all`
/// appends the others too. `chosen` tells which letters are meant.
pub async fn dlq_replay(
    bus: &Arc<dyn EventBus>,
    topics: &[Topic],
    all: bool,
    chosen: impl Fn(&DeadLetterEntry) -> bool,
) -> Result<ReplayReport, DlqError> {
    let mut report = ReplayReport::default();
    let mut seen = BTreeSet::new();
    for topic in topics {
        for_each(bus, *topic, async |delivery| {
            let entry = entry(*topic, &delivery);
            if !chosen(&entry) {
                return Ok(());
            }
            report.letters += 1;
            let is_cut = delivery.record.headers.iter().any(|(name, _)| name == header::CUT);
            if is_cut || !seen.insert((entry.topic, entry.partition, entry.offset)) {
                report.skipped += 1;
                return Ok(());
            }
            let record = original(delivery.record);
            if !all && !decodes(&record) {
                report.still_undecodable += 1;
                return Ok(());
            }
            bus.append(Stream::Events(*topic), vec![record]).await?;
            report.replayed += 1;
            Ok(())
        })
        .await?;
    }
    Ok(report)
}

fn decodes(record: &Record) -> bool {
    if record.headers.iter().any(|(name, _)| name == "ce_type") {
        decode_binary(record).is_ok()
    } else {
        decode_full(&record.value).is_ok()
    }
}

/// The record as it was, without what was added when it became a letter.
fn original(mut record: Record) -> Record {
    const ADDED: [&str; 7] = [
        header::TOPIC,
        header::PARTITION,
        header::OFFSET,
        header::INGESTED_AT,
        header::CLASS,
        header::REASON,
        header::POINTER,
    ];
    record.headers.retain(|(name, _)| !ADDED.contains(&name.as_str()));
    record
}

fn entry(topic: Topic, delivery: &Delivery) -> DeadLetterEntry {
    // A letter that fails again has the headers twice: the last ones tell of the last failure.
    let headers: HashMap<&str, &[u8]> =
        delivery.record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
    let text = |name: &str| String::from_utf8_lossy(headers.get(name).copied().unwrap_or_default()).into_owned();
    let value = &delivery.record.value;
    DeadLetterEntry {
        topic: topic.as_str(),
        partition: text(header::PARTITION).parse().unwrap_or(-1),
        offset: text(header::OFFSET).parse().unwrap_or(-1),
        ingested_at: rebound_schemas::codec::parse_time(&text(header::INGESTED_AT)),
        key: String::from_utf8_lossy(&delivery.record.key).into_owned(),
        class: text(header::CLASS),
        reason: text(header::REASON),
        pointer: text(header::POINTER),
        bytes: value.len(),
        excerpt: String::from_utf8_lossy(&value[..value.len().min(800)]).chars().take(200).collect(),
    }
}
