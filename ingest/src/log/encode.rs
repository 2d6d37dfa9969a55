//! What was read from the bus to data files and dead letters: pure, and all the work of the hot path.

use std::ops::Range;

use bytes::Bytes;
use rebound_schemas::codec::{Attributes, DecodeError, Decoded, MAX_EVENT_BYTES, decode_full, decode_parts};
use rebound_schemas::table::{Position, Row, RowBuilder, gap_data, gap_id, scan_probe};
use rebound_schemas::{Topic, table::DayBatch};
use std::borrow::Cow;

use super::error::LogError;
use super::file::{self, DataFile, Effort};
use crate::bus::{Delivery, Offset, Partition, Record, Stream};

/// A stretch of a partition, as read: everything from `from` up to, not including, `next`.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) topic: Topic,
    pub(crate) number: i32,
    pub(crate) from: Offset,
    pub(crate) next: Offset,
    pub(crate) deliveries: Vec<Delivery>,
    /// Why the offsets before the first delivery hold nothing, where they do.
    pub(crate) gap: Gap,
    /// When it was read, in microseconds since 1970: the time of gaps that no record tells the time of.
    pub(crate) read_at: i64,
}

/// Why offsets hold no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The bus had dropped them before the log began.
    BeforeTheLog,
    /// The bus gave no record for them: transaction markers, aborted records.
    NoRecord,
    /// The record could not be decoded.
    DeadLetter,
    /// Retention removed them before they were stored, and an operator accepted that.
    LossAccepted,
}

impl Gap {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BeforeTheLog => "before_the_log",
            Self::NoRecord => "no_record",
            Self::DeadLetter => "dead_letter",
            Self::LossAccepted => "loss_accepted",
        }
    }
}

impl Chunk {
    pub(crate) fn partition(&self) -> Partition {
        Partition::of(self.topic, self.number)
    }

    /// Bytes that it keeps in memory, about.
    pub(crate) fn weight(&self) -> usize {
        let record = |d: &Delivery| {
            let headers: usize = d.record.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
            d.record.key.len() + d.record.value.len() + headers + size_of::<Delivery>()
        };
        self.deliveries.iter().map(record).sum::<usize>() + size_of::<Self>()
    }
}

/// A record that could not be decoded.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) topic: Topic,
    pub(crate) class: &'static str,
    pub(crate) record: Record,
}

impl DeadLetter {
    pub(crate) fn stream(&self) -> Stream {
        Stream::DeadLetters(self.topic)
    }
}

/// What chunks became.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) files: Vec<DataFile>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Events stored, a topic in the order of [`Topic::ALL`].
    pub(crate) stored: [u64; 3],
}

/// Decodes and encodes chunks into one file a day.
pub(crate) fn encode(chunks: &[Chunk]) -> Result<Encoded, LogError> {
    let mut rows = RowBuilder::new();
    let mut out = Encoded::default();
    for chunk in chunks {
        push_chunk(chunk, &mut rows, &mut out);
    }
    out.files = encode_days(&rows.finish())?;
    Ok(out)
}

pub(crate) fn encode_days(days: &[DayBatch]) -> Result<Vec<DataFile>, LogError> {
    days.iter().map(|day| file::encode(day.day, &day.batch, Effort::Quick)).collect()
}

fn push_chunk(chunk: &Chunk, rows: &mut RowBuilder, out: &mut Encoded) {
    let mut wanted = chunk.from;
    let mut why = chunk.gap;
    for delivery in &chunk.deliveries {
        let at = Position {
            topic: chunk.topic,
            partition: chunk.number,
            offset: delivery.offset,
            ingested_at: delivery.ingested_at.timestamp_micros(),
        };
        push_gap(rows, at, wanted..delivery.offset, why);
        why = Gap::NoRecord;
        wanted = delivery.offset + 1;
        match push_delivery(rows, delivery, at) {
            Ok(()) => out.stored[topic_index(chunk.topic)] += 1,
            Err(error) => {
                push_gap(rows, at, delivery.offset..wanted, Gap::DeadLetter);
                out.dead.push(dead_letter(chunk, delivery, &error));
            }
        }
    }
    let at = Position { topic: chunk.topic, partition: chunk.number, offset: wanted, ingested_at: chunk.read_at };
    push_gap(rows, at, wanted..chunk.next, why);
}

pub(crate) fn topic_index(topic: Topic) -> usize {
    match topic {
        Topic::Observations => 0,
        Topic::Alerts => 1,
        Topic::Recoveries => 2,
    }
}

pub(crate) fn push_gap(rows: &mut RowBuilder, at: Position, offsets: Range<Offset>, why: Gap) {
    if offsets.is_empty() {
        return;
    }
    let id = gap_id(at.topic, at.partition, offsets.start);
    let data = gap_data(offsets.end, why.as_str());
    rows.push(&Row::of_gap(&id, &data, Position { offset: offsets.start, ..at }));
}

fn push_delivery(rows: &mut RowBuilder, delivery: &Delivery, at: Position) -> Result<(), DecodeError> {
    let record = &delivery.record;
    if record.headers.iter().any(|(name, _)| name == "ce_type") {
        let decoded = decode_binary(record)?;
        rows.push(&Row::of_event(&decoded, at));
    } else if let Some(probe) = scan_probe(&record.value) {
        rows.push(&Row::of_probe(&probe, at));
    } else {
        let decoded = decode_full(&record.value)?;
        rows.push(&Row::of_event(&decoded, at));
    }
    Ok(())
}

/// Decodes a record of CloudEvents' binary mode: attributes in `ce_*` headers, the value is the payload.
pub(crate) fn decode_binary(record: &Record) -> Result<Decoded<'_>, DecodeError> {
    if record.value.len() > MAX_EVENT_BYTES {
        return Err(DecodeError::TooLarge(record.value.len()));
    }
    let header = |name: &str| {
        let value = record.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value)?;
        std::str::from_utf8(value).ok()
    };
    let attributes = Attributes {
        specversion: header("ce_specversion"),
        id: header("ce_id"),
        source: header("ce_source"),
        type_name: header("ce_type"),
        subject: header("ce_subject"),
        time: header("ce_time"),
        planversion: header("ce_planversion"),
    };
    let data = std::str::from_utf8(&record.value).map_err(|e| DecodeError::Json(e.to_string()))?;
    let (event, version) = decode_parts(attributes, data)?;
    Ok(Decoded { event, version, data: Cow::Borrowed(data) })
}

/// Names of the headers that say where a dead letter came from and why it is one.
pub(crate) mod header {
    pub(crate) const TOPIC: &str = "rebound_topic";
    pub(crate) const PARTITION: &str = "rebound_partition";
    pub(crate) const OFFSET: &str = "rebound_offset";
    pub(crate) const INGESTED_AT: &str = "rebound_ingested_at";
    pub(crate) const CLASS: &str = "rebound_class";
    pub(crate) const REASON: &str = "rebound_reason";
    pub(crate) const POINTER: &str = "rebound_pointer";
    /// Set when the value was cut to fit.
    pub(crate) const CUT: &str = "rebound_cut";
}

fn dead_letter(chunk: &Chunk, delivery: &Delivery, error: &DecodeError) -> DeadLetter {
    let mut record = delivery.record.clone();
    let reason: String = error.to_string().chars().take(500).collect();
    let mut put = |name: &str, value: String| record.headers.push((name.to_owned(), Bytes::from(value)));
    put(header::TOPIC, chunk.topic.as_str().to_owned());
    put(header::PARTITION, chunk.number.to_string());
    put(header::OFFSET, delivery.offset.to_string());
    put(header::INGESTED_AT, rebound_schemas::codec::format_time(delivery.ingested_at));
    put(header::CLASS, error.class().to_owned());
    put(header::REASON, reason);
    put(header::POINTER, error.pointer());
    DeadLetter { topic: chunk.topic, class: error.class(), record }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use rebound_schemas::table::RowReader;

    use super::*;

    fn delivery(offset: Offset, value: &str, headers: &[(&str, &str)]) -> Delivery {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), Bytes::from((*v).to_owned()))).collect();
        Delivery {
            offset,
            ingested_at: chrono::DateTime::from_timestamp_millis(1_772_366_400_000).unwrap(),
            record: Record { key: Bytes::from_static(b"api"), value: Bytes::from(value.to_owned()), headers },
        }
    }

    fn chunk(from: Offset, next: Offset, deliveries: Vec<Delivery>) -> Chunk {
        Chunk {
            topic: Topic::Observations,
            number: 1,
            from,
            next,
            deliveries,
            gap: Gap::BeforeTheLog,
            read_at: 1_772_366_401_000_000,
        }
    }

    fn batches(file: &DataFile) -> Vec<RecordBatch> {
        ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone())
            .unwrap()
            .build()
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    const PROBE: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"dev.rebound.probe.completed.v1","subject":"api","time":"2026-03-01T12:00:00Z","datacontenttype":"application/json","data":{"probe":"p","outcome":"healthy","latency_us":7}}"#;

    #[test]
    fn every_offset_becomes_an_event_a_dead_letter_or_a_gap() {
        let binary = [
            ("ce_specversion", "1.0"),
            ("ce_id", "2"),
            ("ce_source", "s"),
            ("ce_type", "dev.rebound.probe.completed.v1"),
            ("ce_subject", "api"),
            ("ce_time", "2026-03-01T12:00:01Z"),
        ];
        let encoded = encode(&[chunk(
            3,
            12,
            vec![
                delivery(5, PROBE, &[]),
                delivery(6, "{", &[]),
                delivery(8, r#"{"probe":"p","outcome":"failed","latency_us":8}"#, &binary),
                delivery(9, &PROBE.replace("probe.completed", "probe.dreamt"), &[]),
            ],
        )])
        .unwrap();
        assert_eq!(encoded.stored, [2, 0, 0]);
        let classes: Vec<_> = encoded.dead.iter().map(|d| d.class).collect();
        assert_eq!(classes, ["json", "unknown_type"]);
        let headers: Vec<_> = encoded.dead[0].record.headers.iter().map(|(n, _)| n.as_str()).collect();
        assert!(headers.contains(&header::OFFSET) && headers.contains(&header::REASON));
        let mut rows = Vec::new();
        for file in &encoded.files {
            for batch in batches(file) {
                let reader = RowReader::new(&batch).unwrap();
                for row in reader.iter() {
                    let until = row.gap_until().unwrap_or(row.offset + 1);
                    rows.push((row.offset, until, row.kind.to_owned(), row.data.map(str::to_owned)));
                }
            }
        }
        rows.sort();
        let spans: Vec<_> = rows.iter().map(|(from, until, kind, _)| (*from, *until, kind.as_str())).collect();
        let (gap, probe) = ("log.gap", "probe.completed");
        assert_eq!(
            spans,
            [(3, 5, gap), (5, 6, probe), (6, 7, gap), (7, 8, gap), (8, 9, probe), (9, 10, gap), (10, 12, gap)]
        );
        let why: Vec<_> = rows.iter().filter_map(|r| r.3.as_deref()).collect();
        assert!(why[0].contains("before_the_log") && why[1].contains("dead_letter") && why[2].contains("no_record"));
    }

    #[test]
    fn a_file_is_named_by_its_content_and_read_with_plain_types() {
        let encoded = encode(&[chunk(0, 1, vec![delivery(0, PROBE, &[])])]).unwrap();
        let file = &encoded.files[0];
        assert_eq!(file::promised_digest(&file.path), Some(file::digest(&file.bytes).as_str()));
        assert!(file.path.starts_with("event_date=2026-03-01/"));
        assert_eq!(batches(file)[0].schema().fields(), rebound_schemas::table::file_schema().fields());
        let add = file.add(1, true);
        let stats: serde_json::Value = serde_json::from_str(&add.stats.unwrap()).unwrap();
        assert_eq!(stats["numRecords"], 1);
        assert_eq!(stats["minValues"]["occurred_at"], "2026-03-01T12:00:00.000000Z");
        assert_eq!(stats["maxValues"]["service"], "api");
        assert!(file::promised_digest("event_date=2026-03-01/part-0001.parquet").is_none());
    }

    #[test]
    fn an_oversized_record_is_a_dead_letter() {
        let big = format!("{}{}", PROBE, " ".repeat(MAX_EVENT_BYTES));
        let encoded = encode(&[chunk(0, 1, vec![delivery(0, &big, &[])])]).unwrap();
        assert_eq!((encoded.stored[0], encoded.dead[0].class), (0, "too_large"));
    }
}
