//! A bus in memory whose faults are scripted, and an object store that fails when told to.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use rebound_schemas::Topic;

use crate::bus::{
    BusError, Delivery, EventBus, Fetch, Membership, Offset, Ownership, Partition, ReadLimit, Record, Stream,
    Transactor, Watermarks,
};
use crate::log::store::DurableLocal;

/// Every member owns every partition: what two log writers believe during a botched rebalance.
#[derive(Debug, Default)]
pub(super) struct MemoryBus {
    partitions: i32,
    logs: Mutex<HashMap<Partition, Log>>,
}

#[derive(Debug, Default, Clone)]
struct Log {
    low: Offset,
    next: Offset,
    held: Vec<Delivery>,
}

impl MemoryBus {
    pub(super) fn new(partitions: i32) -> Arc<Self> {
        Arc::new(Self { partitions, logs: Mutex::default() })
    }

    /// Offsets without a record, as a transaction's marker leaves them.
    pub(super) fn skip(&self, partition: Partition, offsets: Offset) {
        self.logs.lock().unwrap().entry(partition).or_default().next += offsets;
    }

    /// Retention: records below `low` are gone.
    pub(super) fn drop_below(&self, partition: Partition, low: Offset) {
        let mut logs = self.logs.lock().unwrap();
        let log = logs.entry(partition).or_default();
        log.low = low;
        log.held.retain(|d| d.offset >= low);
    }

    /// The topic is deleted and made anew.
    pub(super) fn recreate(&self) {
        self.logs.lock().unwrap().clear();
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    fn partitions(&self) -> i32 {
        self.partitions
    }

    async fn append(
        &self,
        stream: Stream,
        records: Vec<Record>,
    ) -> std::result::Result<Vec<(Partition, Offset)>, BusError> {
        let mut logs = self.logs.lock().unwrap();
        let place = |record: Record| {
            let sum: i32 = record.key.iter().map(|b| i32::from(*b)).sum();
            let partition = Partition { stream, number: sum % self.partitions };
            let log = logs.entry(partition).or_default();
            let offset = log.next;
            log.held.push(Delivery { offset, ingested_at: Utc::now(), record });
            log.next += 1;
            (partition, offset)
        };
        Ok(records.into_iter().map(place).collect())
    }

    async fn read(&self, partition: Partition, from: Offset, limit: ReadLimit) -> std::result::Result<Fetch, BusError> {
        let log = self.logs.lock().unwrap().entry(partition).or_default().clone();
        if from < log.low || from > log.next {
            return Err(BusError::OutOfRange { partition, wanted: from, low: log.low, high: log.next });
        }
        let deliveries: Vec<_> = log.held.into_iter().filter(|d| d.offset >= from).take(limit.records.min(7)).collect();
        let next = deliveries.last().map_or(log.next, |d| d.offset + 1);
        if next == from {
            tokio::time::sleep(limit.wait.min(Duration::from_millis(20))).await;
        }
        Ok(Fetch { deliveries, next })
    }

    async fn watermarks(&self, partition: Partition) -> std::result::Result<Watermarks, BusError> {
        let log = self.logs.lock().unwrap().entry(partition).or_default().clone();
        Ok(Watermarks { low: log.low, high: log.next })
    }

    async fn offset_at(&self, partition: Partition, _: DateTime<Utc>) -> std::result::Result<Offset, BusError> {
        Ok(self.watermarks(partition).await?.high)
    }

    async fn committed(&self, _: &str, _: Partition) -> std::result::Result<Option<Offset>, BusError> {
        Ok(None)
    }

    async fn commit(&self, _: &str, _: &[(Partition, Offset)]) -> std::result::Result<(), BusError> {
        Ok(())
    }

    async fn join(&self, _: &str, _: Topic, _: Duration) -> std::result::Result<Box<dyn Membership>, BusError> {
        Ok(Box::new(Everything { partitions: Some((0..self.partitions).collect()) }))
    }

    async fn transactor(&self, _: &str, partition: Partition) -> std::result::Result<Box<dyn Transactor>, BusError> {
        Err(BusError::Fenced { partition })
    }

    async fn close(&self) -> std::result::Result<(), BusError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Everything {
    partitions: Option<Vec<i32>>,
}

#[async_trait]
impl Membership for Everything {
    async fn changed(&mut self) -> std::result::Result<Ownership, BusError> {
        match self.partitions.take() {
            Some(partitions) => Ok(Ownership::Gained { generation: 1, partitions }),
            None => std::future::pending().await,
        }
    }

    async fn leave(self: Box<Self>) {}
}

/// How a put fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is written; the disk is full.
    Full,
    /// It is written, and the answer is an error.
    AnswerLost,
}

/// Puts from the `first`-th on fail, `times` times.
#[derive(Debug)]
pub(super) struct FaultyStore {
    inner: DurableLocal,
    fault: Fault,
    left_alone: AtomicI64,
    times: AtomicI64,
    pub(super) failed: AtomicUsize,
}

impl FaultyStore {
    pub(super) fn new(fault: Fault, first: i64, times: i64) -> Arc<Self> {
        Arc::new(Self {
            inner: DurableLocal::new(),
            fault,
            left_alone: first.into(),
            times: times.into(),
            failed: AtomicUsize::new(0),
        })
    }

    fn fails(&self) -> bool {
        let fails =
            self.left_alone.fetch_sub(1, Ordering::SeqCst) <= 0 && self.times.fetch_sub(1, Ordering::SeqCst) > 0;
        if fails {
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
        fails
    }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyStore")
    }
}

fn injected(kind: ErrorKind) -> object_store::Error {
    object_store::Error::Generic { store: "FaultyStore", source: Box::new(std::io::Error::from(kind)) }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if !self.fails() {
            return self.inner.put_opts(location, payload, opts).await;
        }
        match self.fault {
            Fault::Full => Err(injected(ErrorKind::StorageFull)),
            Fault::AnswerLost => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(injected(ErrorKind::ConnectionReset))
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// A probe's result as a record; the same number, the same event.
pub(super) fn record(n: u64) -> Record {
    let service = format!("service-{}", n % 5);
    let value = format!(
        r#"{{"specversion":"1.0","id":"{n}","source":"test","type":"dev.rebound.probe.completed.v1","subject":"{service}","time":"2026-03-01T12:{:02}:{:02}Z","datacontenttype":"application/json","data":{{"probe":"p","outcome":"healthy","latency_us":{n}}}}}"#,
        n / 60 % 60,
        n % 60
    );
    Record { key: Bytes::from(service), value: value.into(), headers: Vec::new() }
}

pub(super) fn bad(n: u64) -> Record {
    Record {
        key: Bytes::from(format!("service-{}", n % 5)),
        value: Bytes::from_static(b"{\"id\":"),
        headers: Vec::new(),
    }
}
