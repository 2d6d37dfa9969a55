//! The bus of a running Rebound, seen from outside: what stands in Kafka, and how others append to it.

use std::time::Duration;

use bytes::Bytes;
use rebound_ingest::bus::kafka::{KafkaBus, KafkaSettings};
use rebound_ingest::bus::{EventBus, Partition, ReadLimit, Record, Stream};
use rebound_schemas::{Event, Topic};

/// A client of its own, with a runtime of its own.
pub(crate) struct KafkaClient {
    runtime: tokio::runtime::Runtime,
    bus: KafkaBus,
}

/// One record of a topic, as it stands there.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    topic: Topic,
    pub(crate) event: Event,
    record: Record,
}

impl KafkaClient {
    pub(crate) fn connect(brokers: &str, prefix: &str, partitions: i32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut settings = KafkaSettings::new(brokers);
        settings.prefix = prefix.to_owned();
        settings.partitions = partitions;
        let bus = runtime.block_on(KafkaBus::connect(settings)).expect("Kafka answers");
        Self { runtime, bus }
    }

    /// Every committed record of a topic, in order within each partition.
    pub(crate) fn read(&self, topic: Topic) -> Vec<Stored> {
        self.runtime.block_on(async {
            let mut all = Vec::new();
            for number in 0..self.bus.partitions() {
                let partition = Partition::of(topic, number);
                let marks = self.bus.watermarks(partition).await.expect("watermarks");
                let mut at = marks.low;
                while at < marks.high {
                    let limit = ReadLimit { records: 5000, bytes: 8 << 20, wait: Duration::from_secs(1) };
                    let fetch = self.bus.read(partition, at, limit).await.expect("a read");
                    all.extend(fetch.deliveries.into_iter().map(|delivery| Stored {
                        topic,
                        event: rebound_schemas::decode(&delivery.record.value).expect("an event"),
                        record: delivery.record,
                    }));
                    at = fetch.next;
                }
            }
            all
        })
    }

    /// Appends records again, byte for byte, as a producer does that did not hear of its success.
    pub(crate) fn redeliver(&self, records: &[Stored]) {
        for topic in Topic::ALL {
            let of: Vec<Record> = records.iter().filter(|r| r.topic == topic).map(|r| r.record.clone()).collect();
            if !of.is_empty() {
                self.runtime.block_on(self.bus.append(Stream::Events(topic), of)).expect("appended");
            }
        }
    }

    /// Appends what another program says.
    pub(crate) fn append(&self, event: &Event) {
        let (key, value) = (Bytes::copy_from_slice(event.subject.as_str().as_bytes()), rebound_schemas::encode(event));
        let record = Record { key, value: value.into(), headers: Vec::new() };
        let stream = Stream::Events(event.kind().topic());
        self.runtime.block_on(self.bus.append(stream, vec![record])).expect("appended");
    }
}

impl Drop for KafkaClient {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.bus.close());
    }
}
