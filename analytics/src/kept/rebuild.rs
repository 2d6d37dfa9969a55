//! Everything folded from nothing: from the log, or from the facts that were taken out of it before.
//!
//! Facts are held in memory and not their whole: when they are more than [`Sizes::budget`], each pass over the source takes
//! half as many groups, and there are twice as many passes. Each pass folds its groups on all cores, and each core
//! writes files of its own.

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array as _, RecordBatch};
use futures::{StreamExt as _, TryStreamExt as _};
use rebound_schemas::incident::Record;
use rebound_schemas::plan::Plan;

use super::disk::{FileRef, Rows, failed};
use super::facts::{self, KINDS, READ, Reach, SCHEMA, Tagged, WINDOWS, of_groups};
use super::fold::{self, TABLES, schema};
use crate::extract::Root;
use crate::session::SqlError;

/// Facts of a pass that are never too much.
const LEAST: usize = 64;

/// How much is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Bytes of facts at a time, about.
    pub(super) budget: usize,
    /// Facts up to so many stay in memory; more become files.
    pub(super) small: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { budget: 800 << 20, small: 50_000 }
    }
}

/// Bytes and files of the log that one task reads.
const TASK: (u64, usize) = (16 << 20, 128);

/// Told of progress: done, of how many.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A data file of the log.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    pub(super) path: String,
    pub(super) size: u64,
}

/// Where facts come from.
pub(super) enum Facts {
    /// The log.
    Log { root: Root, files: Vec<LogFile> },
    /// Files of facts, and facts that count instead of those of the same group there.
    Kept { files: Vec<PathBuf>, newer: Vec<RecordBatch> },
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    /// Files by table, `facts` among them; none where all stays in `facts`.
    pub(super) files: HashMap<&'static str, Vec<FileRef>>,
    /// All facts where they are few; else those of maintenance windows.
    pub(super) facts: Vec<RecordBatch>,
    pub(super) reach: Reach,
    pub(super) orphans: Vec<i64>,
    pub(super) unreadable: usize,
}

pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, NonZero::get)
}

/// Files in portions that a task reads, in order.
fn portions(files: &[LogFile]) -> Vec<Vec<String>> {
    let mut portions: Vec<Vec<String>> = Vec::new();
    let mut bytes = u64::MAX;
    for file in files {
        if bytes.saturating_add(file.size) > TASK.0 || portions.last().is_none_or(|portion| portion.len() >= TASK.1) {
            portions.push(Vec::new());
            bytes = 0;
        }
        bytes += file.size;
        portions.last_mut().expect("there is one").push(file.path.clone());
    }
    portions
}

/// Which groups a pass takes: those whose number leaves `this` over when divided by `of`, a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    of: u64,
    this: u64,
}

impl Share {
    pub(super) const ALL: Self = Self { of: 1, this: 0 };

    fn has(self, group: i64) -> bool {
        u64::from_ne_bytes(group.to_ne_bytes()) % self.of == self.this
    }
}

/// Reads facts out of files of the log, several tasks at a time, and hands them on in no order. `take` may say no to
/// more.
pub(super) async fn read(
    root: &Root,
    files: &[LogFile],
    known: &Reach,
    share: Share,
    progress: &Progress,
    mut take: impl FnMut(Tagged) -> bool,
) -> Result<bool, SqlError> {
    let (known, total) = (Arc::new(known.clone()), files.len() as u64);
    let tasks = portions(files).into_iter().map(|portion| {
        let (root, known) = (root.clone(), Arc::clone(&known));
        async move {
            let n = portion.len() as u64;
            let tag = move |batches: Vec<RecordBatch>, tagged: &mut Tagged| {
                let new = |topic: &str, partition, offset| !known.covers(topic, partition, offset);
                batches.iter().try_for_each(|batch| tagged.push(batch, new, |group| share.has(group)))
            };
            let mut tagged = Tagged::default();
            if matches!(root, Root::Local(_)) {
                let work = move || {
                    for path in &portion {
                        tag(root.rows_here(path, &KINDS, &READ)?, &mut tagged)?;
                    }
                    Ok::<_, SqlError>(tagged)
                };
                tagged = tokio::task::spawn_blocking(work).await.map_err(|error| failed(join(error)))??;
            } else {
                for path in &portion {
                    tag(root.rows(path, &KINDS, &READ).await?, &mut tagged)?;
                }
            }
            Ok::<_, SqlError>((n, tagged))
        }
    });
    let mut tasks = futures::stream::iter(tasks).buffer_unordered(workers());
    let mut done = 0;
    while let Some((n, tagged)) = tasks.try_next().await? {
        done += n;
        progress(done, total);
        if !take(tagged) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn join(error: tokio::task::JoinError) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(error.into())
}

/// Facts of one pass.
struct Pass {
    share: Share,
    tagged: Tagged,
    bytes: usize,
    rows: usize,
    budget: usize,
}

impl Pass {
    fn take(&mut self, tagged: Tagged) {
        let from = self.tagged.facts.len();
        self.tagged.merge(tagged);
        self.narrow(from);
        while self.bytes > self.budget && self.rows > LEAST && self.share.this == 0 {
            self.share.of *= 2;
            (self.bytes, self.rows) = (0, 0);
            self.narrow(0);
        }
    }

    /// Leaves out what is another pass's, and counts the rest.
    fn narrow(&mut self, from: usize) {
        let share = self.share;
        for batch in &mut self.tagged.facts[from..] {
            if share != Share::ALL {
                *batch = of_groups(batch, |group| group == WINDOWS || share.has(group));
            }
            self.rows += batch.num_rows();
            self.bytes += batch.columns().iter().map(|column| column.get_array_memory_size()).sum::<usize>();
        }
    }
}

/// Folds everything; files are made in `folder`, and synced if `durable`.
pub(super) async fn rebuild(
    source: Facts,
    plan: Option<Arc<Plan>>,
    folder: &Path,
    durable: bool,
    sizes: Sizes,
    progress: &Progress,
) -> Result<Rebuilt, SqlError> {
    let mut rebuilt = Rebuilt::default();
    let mut share = Share::ALL;
    let (mut approvals, mut recoveries) = (Vec::new(), HashMap::new());
    loop {
        let mut pass = Pass { share, tagged: Tagged::default(), bytes: 0, rows: 0, budget: sizes.budget };
        match &source {
            Facts::Log { root, files } => {
                let all = Reach::default();
                read(root, files, &all, share, progress, |tagged| {
                    pass.take(tagged);
                    true
                })
                .await?;
            }
            Facts::Kept { files, newer } => {
                // Windows stand in both, each once.
                let instead: HashSet<i64> = newer
                    .iter()
                    .flat_map(|batch| facts::groups(batch).values().iter().copied())
                    .filter(|group| *group != WINDOWS)
                    .collect();
                for file in files {
                    each(file, |batch| {
                        let facts = vec![of_groups(&batch, |group| !instead.contains(&group))];
                        pass.take(Tagged { facts, ..Tagged::default() });
                        Ok(())
                    })?;
                }
                pass.take(Tagged { facts: newer.clone(), ..Tagged::default() });
            }
        }
        if pass.share.this == 0 {
            approvals = std::mem::take(&mut pass.tagged.approvals);
            recoveries = std::mem::take(&mut pass.tagged.recoveries);
            rebuilt.reach = std::mem::take(&mut pass.tagged.reach);
        }
        let mut approved = Tagged { approvals: approvals.clone(), ..Tagged::default() };
        rebuilt.orphans = approved.settle(|recovery| recoveries.get(&recovery).copied());
        pass.take(Tagged { facts: approved.facts, ..Tagged::default() });
        // Only now: up to here a pass may still have had to take less.
        share = pass.share;
        let facts = pass.tagged.facts;
        if share == Share::ALL && pass.rows <= sizes.small {
            rebuilt.facts = facts;
            return Ok(rebuilt);
        }
        let (plan, folder, progress) = (plan.clone(), folder.to_owned(), progress.clone());
        let first = share.this == 0;
        let work = move || fold_share(facts, first, plan.as_deref(), &folder, durable, &progress);
        let (parts, windows) = tokio::task::spawn_blocking(work).await.map_err(|error| failed(join(error)))??;
        for part in parts {
            rebuilt.unreadable += part.unreadable;
            for (table, file) in part.files {
                rebuilt.files.entry(table).or_default().push(file);
            }
        }
        rebuilt.facts = windows;
        share.this += 1;
        if share.this == share.of {
            return Ok(rebuilt);
        }
    }
}

/// What one thread folded.
#[derive(Debug, Default)]
struct Part {
    files: Vec<(&'static str, FileRef)>,
    unreadable: usize,
}

fn fold_share(
    facts: Vec<RecordBatch>,
    first: bool,
    plan: Option<&Plan>,
    folder: &Path,
    durable: bool,
    progress: &Progress,
) -> Result<(Vec<Part>, Vec<RecordBatch>), SqlError> {
    let windows: Vec<RecordBatch> =
        facts.iter().map(|batch| of_groups(batch, |group| group == WINDOWS)).filter(|b| b.num_rows() > 0).collect();
    let record = fold::windows(&windows)?;
    let order = fold::order(&facts);
    let chunks = fold::chunks(&facts, &order);
    let share = chunks.len().div_ceil(workers()).max(1);
    let (done, total) = (AtomicU64::new(0), chunks.len() as u64);
    let work = |chunks: &[&[(usize, usize)]]| -> Result<Part, SqlError> {
        let mut part = Part::default();
        let mut facts_file = Rows::create(folder, "facts", SCHEMA.clone())?;
        let mut files = TABLES.iter().map(|t| Rows::create(folder, t, schema(t))).collect::<Result<Vec<_>, _>>()?;
        for chunk in chunks {
            let mut batch = fold::gathered(&facts, chunk)?;
            if !first {
                batch = of_groups(&batch, |group| group != WINDOWS);
            }
            let folded = fold::fold(&batch, &record, plan)?;
            part.unreadable += folded.unreadable;
            facts_file.write(&batch)?;
            for (file, table) in files.iter_mut().zip(&folded.tables) {
                file.write(table)?;
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        }
        part.files.push(("facts", facts_file.finish(durable)?));
        for (table, file) in TABLES.into_iter().zip(files) {
            part.files.push((table, file.finish(durable)?));
        }
        Ok(part)
    };
    let parts = std::thread::scope(|threads| {
        let running: Vec<_> = chunks.chunks(share).map(|chunks| threads.spawn(move || work(chunks))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a thread that folds does not panic"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok((parts, windows))
}

/// Hands on the batches of a file of facts.
pub(super) fn each(file: &Path, mut take: impl FnMut(RecordBatch) -> Result<(), SqlError>) -> Result<(), SqlError> {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let opened = std::fs::File::open(file).map_err(failed)?;
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(opened).and_then(|builder| builder.build()).map_err(failed)?;
    for batch in reader {
        take(batch.map_err(failed)?)?;
    }
    Ok(())
}

/// A record of all facts, for those who need more than the tables.
pub(super) fn evolve(record: &mut Record, batch: &RecordBatch) -> Result<(), SqlError> {
    crate::gather::each_event(batch, |event| record.evolve(event))
}
