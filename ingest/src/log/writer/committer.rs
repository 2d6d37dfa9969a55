//! One commit: dead letters, data files, then the table's next version, tried again until it is made.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::Utc;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use rebound_schemas::Topic;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::encode::{DeadLetter, Encoded, header, topic_index};
use super::super::error::LogError;
use super::super::metrics::{ClassLabel, LogMetrics, topic_label};
use super::super::table::{Advance, Change, LogTable};
use super::super::upkeep::{change_id, room};
use super::{BackOff, CommitReport, GROUP, LogSettings};
use crate::bus::{BusError, EventBus, Offset, Partition, Record};

/// Where the table stands, and when its newest record was taken in (microseconds), a partition.
pub(super) type Progress = Arc<std::sync::Mutex<HashMap<Partition, (Offset, i64)>>>;

/// A batch on its way: what it holds, encoded, and how far it moves each partition.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) encoded: Vec<Encoded>,
    pub(super) advances: BTreeMap<Partition, Span>,
}

/// A stretch of a partition, with the time at which its newest record was taken in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) records: u64,
    pub(super) newest: i64,
}

/// What a commit needs; cloning shares it.
#[derive(Clone)]
pub(super) struct Committer {
    pub(super) bus: Arc<dyn EventBus>,
    pub(super) settings: LogSettings,
    pub(super) metrics: LogMetrics,
    pub(super) table: Arc<Mutex<LogTable>>,
    pub(super) committed: Arc<Notify>,
    pub(super) progress: Progress,
    pub(super) shutdown: CancellationToken,
}

impl Committer {
    pub(super) fn note(&self, partition: Partition, offset: Offset, newest: i64) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, (offset, newest));
    }

    /// Dead letters first, then the data, then the commit: nothing passes that is not kept somewhere.
    pub(super) async fn commit(self, batch: Batch) -> Result<(), LogError> {
        let mut pause = BackOff::default();
        for encoded in &batch.encoded {
            while let Err(error) = self.bury(&encoded.dead).await {
                self.wait(&mut pause, error).await?;
            }
        }
        let now = Utc::now().timestamp_millis();
        let files = || batch.encoded.iter().flat_map(|encoded| &encoded.files);
        let change = Change {
            adds: files().map(|file| file.add(now, true)).collect(),
            removes: Vec::new(),
            advances: batch
                .advances
                .iter()
                .map(|(partition, span)| Advance { app: partition.to_string(), from: span.from, to: span.to })
                .collect(),
            id: change_id(),
        };
        // While this one waits, the next batch grows until it is full, and then the readers wait too.
        if !self.shutdown.is_cancelled()
            && let Err(error) = room(&self.table).await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the newest version can't be read: the commit tells"
            );
        }
        let started = Instant::now();
        pause = BackOff::default();
        let version = loop {
            match self.store(&batch, &change).await {
                Ok(version) => break version,
                Err(error) => self.wait(&mut pause, error).await?,
            }
        };
        self.account(&batch, version, started.elapsed());
        self.committed.notify_one();
        let hint: Vec<_> = batch.advances.iter().map(|(partition, span)| (*partition, span.to)).collect();
        if let Err(error) = self.bus.commit(GROUP, &hint).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the group's position was not noted: the table has it"
            );
        }
        Ok(())
    }

    /// Puts are made again at each attempt: a file is the same under the same name, and vacuum must not find it old.
    async fn store(&self, batch: &Batch, change: &Change) -> Result<u64, LogError> {
        let store = self.table.lock().await.store().clone();
        let puts = batch.encoded.iter().flat_map(|encoded| &encoded.files).map(|file| {
            let (store, path) = (store.clone(), Path::from(file.path.as_str()));
            async move { store.put(&path, file.bytes.clone().into()).await }
        });
        futures::future::try_join_all(puts).await.map_err(|e| LogError::store("storing a data file", e))?;
        self.table.lock().await.commit(change).await
    }

    /// Waits before the next attempt; gives up on what waiting doesn't help, or when draining took too long.
    async fn wait(&self, pause: &mut BackOff, error: LogError) -> Result<(), LogError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.metrics.retries.inc();
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "storing events failed: nothing is lost, trying again"
        );
        let given_up = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(self.settings.drain_within).await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => Ok(()),
            () = given_up => Err(error),
        }
    }

    /// Appends dead letters to their topics. A crash before the commit appends them again; they carry their offset.
    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), LogError> {
        for topic in Topic::ALL {
            let letters: Vec<_> = dead.iter().filter(|letter| letter.topic == topic).collect();
            let Some(first) = letters.first() else { continue };
            let records: Vec<_> = letters.iter().map(|letter| letter.record.clone()).collect();
            match self.bus.append(first.stream(), records.clone()).await {
                Err(BusError::TooLarge { limit, .. }) => {
                    let cut = records.into_iter().map(|record| cut(record, limit)).collect();
                    self.bus.append(first.stream(), cut).await?;
                }
                other => {
                    other?;
                }
            }
            for letter in letters {
                tracing::warn!(topic = topic.as_str(), class = letter.class, "a record could not be decoded");
                self.metrics.dead_lettered.get_or_create(&ClassLabel { class: letter.class.to_owned() }).inc();
            }
        }
        Ok(())
    }

    fn account(&self, batch: &Batch, version: u64, took: Duration) {
        let metrics = &self.metrics;
        metrics.commit_seconds.observe(took.as_secs_f64());
        metrics.commits.inc();
        metrics.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        let (mut events, mut bytes) = (0, 0);
        for encoded in &batch.encoded {
            bytes += encoded.files.iter().map(|file| file.bytes.len() as u64).sum::<u64>();
            for topic in Topic::ALL {
                let stored = encoded.stored[topic_index(topic)];
                events += stored;
                metrics.stored.get_or_create(&topic_label(topic)).inc_by(stored);
            }
        }
        metrics.stored_bytes.inc_by(bytes);
        for (partition, span) in &batch.advances {
            if let crate::bus::Stream::Events(topic) = partition.stream {
                metrics.taken.get_or_create(&topic_label(topic)).inc_by(span.records);
            }
            self.note(*partition, span.to, span.newest);
        }
        if let Some(told) = &self.settings.on_commit {
            told(&CommitReport { version, events, bytes, took });
        }
    }
}

/// A record whose value is short enough for the headers that a dead letter has besides.
fn cut(mut record: Record, limit: usize) -> Record {
    let keep = limit.saturating_sub(limit / 4).min(64 * 1024);
    if record.value.len() > keep {
        record.value.truncate(keep);
        record.headers.push((header::CUT.to_owned(), "true".into()));
    }
    record
}
