//! What the log writer counts. Names follow Prometheus's rules; the registry adds the prefix.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use rebound_schemas::Topic;

/// Label of figures that are told a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicLabel {
    /// The topic's short name.
    pub topic: String,
}

/// Label of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabel {
    /// Why the record could not be decoded, as [`rebound_schemas::DecodeError::class`] says it.
    pub class: String,
}

/// Figures of the log writer. Cloning shares them.
#[derive(Debug, Clone)]
pub struct LogMetrics {
    /// From the first put of a batch to its durable commit.
    pub commit_seconds: Histogram,
    /// Commits.
    pub commits: Counter,
    /// Records taken from the bus and settled: stored plus dead-lettered. A topic.
    pub taken: Family<TopicLabel, Counter>,
    /// Events stored. A topic.
    pub stored: Family<TopicLabel, Counter>,
    /// Records that went to a dead-letter topic. A class of fault.
    pub dead_lettered: Family<ClassLabel, Counter>,
    /// Bytes of data files committed.
    pub stored_bytes: Counter,
    /// Batches dropped because another writer had committed the same offsets.
    pub conflicts: Counter,
    /// Failed attempts that are tried again (disk full, bus or store away).
    pub retries: Counter,
    /// Version of the table.
    pub version: Gauge,
    /// Data files that the table consists of.
    pub live_files: Gauge,
    /// Records on the bus that are not in the table yet. A topic, over the partitions owned here.
    pub lag_offsets: Family<TopicLabel, Gauge>,
    /// Age of the newest committed record while there is lag, else 0. A topic.
    pub lag_seconds: Family<TopicLabel, Gauge<f64, AtomicU64>>,
    /// Files merged by compaction.
    pub compacted_files: Counter,
}

impl LogMetrics {
    /// Registers the figures as `log_*`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("log");
        let metrics = Self::unregistered();
        let r = registry;
        r.register_with_unit(
            "commit",
            "Time from the first put of a batch to its durable commit",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        r.register("commits", "Commits to the event log", metrics.commits.clone());
        r.register("taken", "Records taken from the bus and settled", metrics.taken.clone());
        r.register("stored", "Events stored", metrics.stored.clone());
        r.register("dead_lettered", "Records sent to a dead-letter topic", metrics.dead_lettered.clone());
        r.register_with_unit("stored", "Size of data files committed", Unit::Bytes, metrics.stored_bytes.clone());
        r.register("conflicts", "Batches that another writer had committed already", metrics.conflicts.clone());
        r.register("retries", "Failed attempts that are tried again", metrics.retries.clone());
        r.register("version", "Version of the event log's table", metrics.version.clone());
        r.register("live_files", "Data files of the event log", metrics.live_files.clone());
        r.register("lag_offsets", "Records on the bus that are not in the log yet", metrics.lag_offsets.clone());
        r.register_with_unit(
            "lag",
            "Age of the newest committed record while there is lag",
            Unit::Seconds,
            metrics.lag_seconds.clone(),
        );
        r.register("compacted_files", "Files merged by compaction", metrics.compacted_files.clone());
        metrics
    }

    /// Figures that nobody scrapes: for commands that end.
    #[must_use]
    pub fn unregistered() -> Self {
        Self {
            commit_seconds: Histogram::new(exponential_buckets(0.002, 2.0, 14)),
            commits: Counter::default(),
            taken: Family::default(),
            stored: Family::default(),
            dead_lettered: Family::default(),
            stored_bytes: Counter::default(),
            conflicts: Counter::default(),
            retries: Counter::default(),
            version: Gauge::default(),
            live_files: Gauge::default(),
            lag_offsets: Family::default(),
            lag_seconds: Family::default(),
            compacted_files: Counter::default(),
        }
    }
}

pub(super) fn topic_label(topic: Topic) -> TopicLabel {
    TopicLabel { topic: topic.as_str().to_owned() }
}
