//! A bus in memory for tests of probes and intake: it can be told to be away, and keeps what was appended.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rebound_schemas::{Event, Topic, decode};

use crate::bus::{
    BusError, EventBus, Fetch, Membership, Offset, Partition, ReadLimit, Record, Stream, Transactor, Watermarks,
};

/// One partition a topic; only appending works.
#[derive(Debug, Default)]
pub(crate) struct MemoryBus {
    records: Mutex<Vec<(Stream, Record)>>,
    away: AtomicBool,
    closed: AtomicBool,
    /// How long each append takes.
    pub(crate) delay: Duration,
}

impl MemoryBus {
    pub(crate) fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn records(&self) -> Vec<(Stream, Record)> {
        self.records.lock().unwrap().clone()
    }

    /// What stands on a topic, decoded.
    pub(crate) fn events(&self, topic: Topic) -> Vec<Event> {
        let of_topic = self.records().into_iter().filter(|(stream, _)| *stream == Stream::Events(topic));
        of_topic.map(|(_, record)| decode(&record.value).unwrap()).collect()
    }
}

fn unsupported<T>() -> Result<T, BusError> {
    Err(BusError::Configuration("the bus in memory only appends".into()))
}

#[async_trait]
impl EventBus for MemoryBus {
    fn partitions(&self) -> i32 {
        1
    }

    async fn append(&self, stream: Stream, records: Vec<Record>) -> Result<Vec<(Partition, Offset)>, BusError> {
        tokio::time::sleep(self.delay).await;
        if self.closed.load(Ordering::SeqCst) {
            return Err(BusError::Closed);
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(BusError::Unavailable { reason: "told to be away".into() });
        }
        let mut held = self.records.lock().unwrap();
        let from = held.iter().filter(|(s, _)| *s == stream).count() as Offset;
        let n = records.len() as Offset;
        held.extend(records.into_iter().map(|record| (stream, record)));
        Ok((from..from + n).map(|offset| (Partition { stream, number: 0 }, offset)).collect())
    }

    async fn read(&self, _: Partition, _: Offset, _: ReadLimit) -> Result<Fetch, BusError> {
        unsupported()
    }

    async fn watermarks(&self, _: Partition) -> Result<Watermarks, BusError> {
        unsupported()
    }

    async fn offset_at(&self, _: Partition, _: DateTime<Utc>) -> Result<Offset, BusError> {
        unsupported()
    }

    async fn committed(&self, _: &str, _: Partition) -> Result<Option<Offset>, BusError> {
        unsupported()
    }

    async fn commit(&self, _: &str, _: &[(Partition, Offset)]) -> Result<(), BusError> {
        unsupported()
    }

    async fn join(&self, _: &str, _: Topic, _: Duration) -> Result<Box<dyn Membership>, BusError> {
        unsupported()
    }

    async fn transactor(&self, _: &str, _: Partition) -> Result<Box<dyn Transactor>, BusError> {
        unsupported()
    }

    async fn close(&self) -> Result<(), BusError> {
        self.closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}
