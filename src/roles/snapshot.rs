//! Snapshots of what was observed: written by the alert role now and then, and taken up when roles start, so that only
//! what came since is read again (see `rebound_alerting::engine::snapshot`).
//!
//! A file a partition, `<data>/snapshots/observations-3.17000`: a line of JSON that says what it is of, and the lines of
//! the services. It is a cache: it may be deleted at any time, is not synced, and counts only if everything fits: the
//! plan, the program, the bus, the place in the topic and the record that stands there, and its own digest. Whatever does
//! not fit is passed over, and the observations are read again instead, as far back as the rules can remember.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rebound_alerting::engine::Engine;
use rebound_alerting::engine::snapshot::{FORMAT, Observed};
use rebound_ingest::bus::{BusError, EventBus, Offset, Partition, ReadLimit, partition_of};
use rebound_schemas::plan::Plan;
use rebound_schemas::{PlanVersion, Topic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::tenure::retried;
use crate::config::{BusKind, Config};

/// Between two snapshots: a start reads up what came since, a few seconds' work of a large fleet at most.
const EVERY: Duration = Duration::from_secs(30);
/// The first comes sooner: what has just started may be killed soon.
const FIRST_AFTER: Duration = Duration::from_secs(5);
/// Services that are written down at once, and the pause before the next: less than a millisecond in five.
const AT_ONCE: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(5);
/// Newest files of a partition that are kept: the newest may reach further than what was committed.
const KEPT: usize = 2;
/// The record that proves that a topic is the one that it was.
const ONE: ReadLimit = ReadLimit { records: 1, bytes: 1, wait: Duration::from_millis(200) };

/// Where snapshots are, and of what.
#[derive(Debug)]
pub(crate) struct Snapshots {
    folder: PathBuf,
    /// Which bus, and which topics of it.
    bus: String,
    plan: PlanVersion,
}

/// What a file is of; its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u32,
    program: String,
    bus: String,
    plan: PlanVersion,
    partitions: i32,
    number: i32,
    /// What comes before was observed by every service.
    from: Offset,
    /// What comes from here on was observed by none.
    through: Offset,
    mark: Mark,
    /// Of the lines that follow, in hexadecimal.
    digest: String,
}

/// A record that stood just before `from`, by where it stands and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    offset: Offset,
    digest: String,
}

/// A stretch of a partition that a snapshot may begin in and has to end in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What is older than this is not worth reading up from.
    pub(crate) from: Offset,
    /// Where the reader stands: nothing beyond may be known.
    pub(crate) through: Offset,
}

/// One partition being written down.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) number: i32,
    pub(crate) from: Offset,
    pub(crate) lines: Vec<u8>,
}

impl Snapshots {
    pub(crate) fn new(config: &Config, plan: &Plan) -> Self {
        let bus = match config.bus.kind {
            BusKind::Embedded => "embedded".to_owned(),
            BusKind::Kafka => format!("kafka {} {}", config.kafka.brokers, config.kafka.prefix),
        };
        Self { folder: config.data.join("snapshots"), bus, plan: plan.version().clone() }
    }

    fn head(&self, bus: &Arc<dyn EventBus>, draft: &Draft, through: Offset, mark: Mark) -> Head {
        Head {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            bus: self.bus.clone(),
            plan: self.plan.clone(),
            partitions: bus.partitions(),
            number: draft.number,
            from: draft.from,
            through,
            mark,
            digest: digest(&draft.lines),
        }
    }

    /// Writes a partition's services down; `through` is where the engine stood when the last of them was. A snapshot
    /// that can't be written is no fault: a start takes longer.
    pub(crate) async fn write(self: Arc<Self>, bus: Arc<dyn EventBus>, draft: Draft, through: Offset) {
        let number = draft.number;
        let written = match mark(&bus, number, draft.from).await {
            Ok(Some(mark)) => {
                let write = move || self.store(&self.head(&bus, &draft, through, mark), &draft.lines);
                tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            // Nothing has come yet.
            Ok(None) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = written {
            tracing::warn!(partition = number, %error, "no snapshot was written: a start will take longer");
        }
    }

    fn store(&self, head: &Head, lines: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("observations-{}.{}", head.number, head.from));
        let aside = self.folder.join(format!("observations-{}.new", head.number));
        let mut bytes = serde_json::to_vec(head)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(lines);
        std::fs::write(&aside, bytes)?;
        std::fs::rename(&aside, path)?;
        for (_, old) in self.files(head.number)?.into_iter().skip(KEPT) {
            std::fs::remove_file(old)?;
        }
        Ok(())
    }

    /// A partition's files, the newest first.
    fn files(&self, number: i32) -> io::Result<Vec<(Offset, PathBuf)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let from = name.strip_prefix(&format!("observations-{number}.")).and_then(|from| from.parse().ok());
            files.extend(from.map(|from: Offset| (from, path.clone())));
        }
        files.sort_by_key(|(from, _)| std::cmp::Reverse(*from));
        Ok(files)
    }

    /// What was observed in these partitions and where to read on, as far as there are snapshots that fit; files are
    /// read side by side.
    pub(crate) async fn read(
        self: &Arc<Self>,
        bus: &Arc<dyn EventBus>,
        partitions: &BTreeMap<i32, Bounds>,
    ) -> BTreeMap<i32, (Offset, Observed)> {
        let one = |(number, bounds): (&i32, &Bounds)| {
            let (this, bus, number, bounds) = (self.clone(), bus.clone(), *number, *bounds);
            async move { Some((number, this.newest(&bus, number, bounds).await?)) }
        };
        futures::future::join_all(partitions.iter().map(one)).await.into_iter().flatten().collect()
    }

    async fn newest(
        self: Arc<Self>,
        bus: &Arc<dyn EventBus>,
        number: i32,
        bounds: Bounds,
    ) -> Option<(Offset, Observed)> {
        // No folder: nothing was written yet.
        for (from, path) in self.files(number).unwrap_or_default() {
            if from < bounds.from {
                break;
            }
            let (this, partitions) = (self.clone(), bus.partitions());
            let read = tokio::task::spawn_blocking(move || this.load(&path, number, partitions, bounds)).await;
            let (head, observed) = match read {
                Ok(Ok(found)) => found,
                Ok(Err(reason)) => {
                    tracing::info!(partition = number, from, %reason, "a snapshot is passed over");
                    continue;
                }
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            if mark(bus, number, head.from).await.ok().flatten().as_ref() == Some(&head.mark) {
                return Some((head.from, observed));
            }
            tracing::info!(partition = number, from, "a snapshot is passed over: the topic is another");
        }
        None
    }

    fn load(&self, path: &Path, number: i32, partitions: i32, bounds: Bounds) -> Result<(Head, Observed), String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
        let (head, lines) = (&bytes[..end], &bytes[end + 1..]);
        let head: Head = serde_json::from_slice(head).map_err(|error| format!("its first line: {error}"))?;
        let fits = [
            (head.format == FORMAT && head.program == env!("CARGO_PKG_VERSION"), "another program wrote it"),
            (head.plan == self.plan, "it was written under another plan"),
            (head.bus == self.bus && head.partitions == partitions && head.number == number, "it is of another bus"),
            (head.from >= bounds.from, "it is too old"),
            (head.through <= bounds.through, "it knows of more than was committed"),
            (head.digest == digest(lines), "it is damaged"),
        ];
        if let Some((_, reason)) = fits.into_iter().find(|(fits, _)| !fits) {
            return Err(reason.to_owned());
        }
        let observed = Observed::read(lines).map_err(|error| error.to_string())?;
        Ok((head, observed))
    }
}

/// Has an engine that has folded the decisions take a snapshot up; answers where each partition is read on.
pub(crate) fn take_up(engine: &mut Engine, snapshot: BTreeMap<i32, (Offset, Observed)>) -> BTreeMap<i32, Offset> {
    let known = snapshot.into_iter().map(|(number, (from, observed))| {
        engine.restore(observed);
        (number, from)
    });
    known.collect()
}

/// Writes snapshots down beside the work, a few services at a time, so that no decision waits for it.
#[derive(Debug)]
pub(crate) struct Writing {
    snapshots: Arc<Snapshots>,
    /// Where the engine stands.
    stands: BTreeMap<i32, Offset>,
    /// What was begun, by partition, and which service is next.
    drafts: BTreeMap<i32, Draft>,
    next: usize,
    /// When the next snapshot is begun, or goes on.
    due: tokio::time::Instant,
    /// On their way to the disk.
    stored: JoinSet<()>,
}

impl Writing {
    pub(crate) fn new(snapshots: Arc<Snapshots>, stretches: &BTreeMap<i32, Bounds>) -> Self {
        let stands = stretches.iter().map(|(number, bounds)| (*number, bounds.through)).collect();
        let due = tokio::time::Instant::now() + FIRST_AFTER;
        Self { snapshots, stands, drafts: BTreeMap::new(), next: 0, due, stored: JoinSet::new() }
    }

    /// The engine has handled what comes before `next`.
    pub(crate) fn stands(&mut self, number: i32, next: Offset) {
        self.stands.insert(number, next);
    }

    /// Waits until there is something to write down. Cancel-safe.
    pub(crate) async fn turn(&self) {
        tokio::time::sleep_until(self.due).await;
    }

    /// Writes a few services more down; the last of them sends all on its way to the disk.
    pub(crate) fn write_on(&mut self, bus: &Arc<dyn EventBus>, engine: &Engine) {
        while self.stored.try_join_next().is_some() {}
        if self.next == 0 {
            let begun =
                |(number, from): (&i32, &Offset)| (*number, Draft { number: *number, from: *from, lines: Vec::new() });
            self.drafts = self.stands.iter().map(begun).collect();
        }
        let partitions = bus.partitions();
        engine.write_observed(self.next..self.next + AT_ONCE, |service, line| {
            let number = partition_of(service.as_str().as_bytes(), partitions);
            if let Some(draft) = self.drafts.get_mut(&number) {
                draft.lines.extend_from_slice(line);
            }
        });
        self.next += AT_ONCE;
        self.due = tokio::time::Instant::now() + PAUSE;
        if self.next >= engine.services() {
            for (number, draft) in std::mem::take(&mut self.drafts) {
                let through = self.stands.get(&number).copied().unwrap_or(draft.from);
                self.stored.spawn(self.snapshots.clone().write(bus.clone(), draft, through));
            }
            self.next = 0;
            self.due = tokio::time::Instant::now() + EVERY;
        }
    }
}

/// The record just before an offset; `None` if there is none.
async fn mark(bus: &Arc<dyn EventBus>, number: i32, from: Offset) -> Result<Option<Mark>, BusError> {
    let partition = Partition::of(Topic::Observations, number);
    let marks = retried(|| bus.watermarks(partition)).await?;
    if from <= marks.low || from > marks.high {
        return Ok(None);
    }
    let fetch = retried(|| bus.read(partition, from - 1, ONE)).await?;
    Ok(fetch
        .deliveries
        .first()
        .map(|delivery| Mark { offset: delivery.offset, digest: digest(&delivery.record.value) }))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
