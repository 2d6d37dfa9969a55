//! What keeps the table quick: compaction, checkpoints, removal of old commits and of files that nothing refers to.
//!
//! It runs beside the writer and never holds it up: files are merged without the table's lock, which is taken for
//! the commit alone. One member of the group does it, the owner of partition 0, and its failures are told of and
//! tried again later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::error::LogError;
use super::location::LogLocation;
use super::merge::{Eagerness, merge, plan};
use super::metrics::LogMetrics;
use super::positions::list_log;
use super::store::is_staging;
use super::table::{Change, LogTable, read_file};

/// Commits between checkpoints.
pub(crate) const CHECKPOINT_EVERY: u64 = 100;
/// More live files than this are merged even while the writer has a backlog.
const CROWDED: usize = 400;
/// With more live files than this, commits wait for compaction: fewer and larger ones follow.
pub(crate) const OVERCROWDED: usize = 1500;
/// How long a commit waits for compaction at most. Should that fail, events are stored all the same.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);
/// Commits and checkpoints older than this are removed, once two newer checkpoints hold what they say.
const KEEP_LOG: Duration = Duration::from_secs(3600);
/// Unreferenced files are left alone for this long: a reader may be at them, or a writer about to commit them.
const KEEP_ORPHANS: Duration = Duration::from_secs(2 * 3600);

/// What compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CompactReport {
    /// Data files before.
    pub files_before: u64,
    /// Data files after.
    pub files_after: u64,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes after.
    pub bytes_after: u64,
    /// Rows that were written again.
    pub rows_rewritten: u64,
}

/// A change's id, unlike any other's.
pub(crate) fn change_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Merges the planned files; answers how many there were, and rows. `None` when there is nothing to merge.
pub(crate) async fn compact_once(
    table: &Mutex<LogTable>,
    eagerness: Eagerness,
) -> Result<Option<(u64, u64)>, LogError> {
    let now = Utc::now();
    let (paths, day, store) = {
        let table = table.lock().await;
        let Some(paths) = next_merge(&table, now, eagerness) else { return Ok(None) };
        let day = table.state.files[&paths[0]].day.clone();
        (paths, day, table.store().clone())
    };
    let mut inputs = Vec::with_capacity(paths.len());
    for path in &paths {
        inputs.push((path.clone(), read_file(&store, path).await?));
    }
    let merged = tokio::task::spawn_blocking(move || merge(day, inputs))
        .await
        .map_err(|_| LogError::Panicked { what: "merging data files" })??;
    let path = Path::from(merged.path.as_str());
    store
        .put(&path, merged.bytes.clone().into())
        .await
        .map_err(|e| LogError::store("storing a merged data file", e))?;
    let change = Change {
        adds: vec![merged.add(now.timestamp_millis(), false)],
        removes: paths,
        advances: Vec::new(),
        id: change_id(),
    };
    let files = change.removes.len() as u64;
    table.lock().await.commit(&change).await?;
    Ok(Some((files, merged.rows)))
}

/// Waits until the table has room for another commit's files: readers and checkpoints pay for each live file, so
/// there must be an end to them, however small and many the commits are. Compaction may be another member's, whose
/// commits are read here. Answers whether there is room now.
///
/// Files that no merge would make fewer are none to wait for: years of history that come in at once are a file a day
/// at least, and what is merged is of one day.
pub(crate) async fn room(table: &Mutex<LogTable>) -> Result<bool, LogError> {
    let until = tokio::time::Instant::now() + WAIT_FOR_ROOM;
    loop {
        let (files, mergeable) = {
            let table = table.lock().await;
            let files = &table.state.files;
            (files.len(), files.len() > OVERCROWDED && next_merge(&table, Utc::now(), Eagerness::Steady).is_some())
        };
        if !mergeable {
            return Ok(true);
        }
        if tokio::time::Instant::now() >= until {
            tracing::warn!(files, "compaction of the event log does not keep up");
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        table.lock().await.catch_up(None).await?;
    }
}

fn next_merge(table: &LogTable, now: DateTime<Utc>, eagerness: Eagerness) -> Option<Vec<String>> {
    let today = now.format("%Y-%m-%d").to_string();
    plan(table.state.files.values(), &today, now.timestamp_millis(), eagerness)
}

/// Writes a checkpoint of the newest version, from the log itself, so that it always has the files.
pub(crate) async fn checkpoint(location: &LogLocation) -> Result<(), LogError> {
    let loading = |e| LogError::delta("writing a checkpoint", e);
    let table = Box::pin(location.builder()?.load()).await.map_err(loading)?;
    Box::pin(deltalake::checkpoints::create_checkpoint(&table, None)).await.map_err(loading)
}

/// Removes commits and checkpoints that two newer checkpoints make superfluous; answers how many.
pub(crate) async fn clean_log(store: &Arc<dyn ObjectStore>, keep: Duration) -> Result<usize, LogError> {
    let log = list_log(store).await?;
    let checkpoints: BTreeSet<u64> = log.iter().filter_map(|file| file.checkpoint).collect();
    let Some(needed) = checkpoints.iter().rev().nth(1).copied() else { return Ok(0) };
    let before = Utc::now() - keep;
    let old: Vec<_> = log
        .into_iter()
        .filter(|file| file.commit.or(file.checkpoint).is_some_and(|version| version < needed))
        .filter(|file| file.modified < before)
        .map(|file| Ok(file.path))
        .collect();
    delete(store, old).await
}

/// Removes data files that no version in use refers to; answers how many.
pub(crate) async fn vacuum(table: &Mutex<LogTable>, keep: Duration) -> Result<usize, LogError> {
    let (store, location) = {
        let table = table.lock().await;
        (table.store().clone(), table.location().clone())
    };
    let before = Utc::now() - keep;
    let listing = |e| LogError::store("listing data files", e);
    let found: Vec<_> = store.list(None).try_collect().await.map_err(listing)?;
    // What is live is asked after the listing: a file committed in between is not an orphan.
    let live = {
        let mut table = table.lock().await;
        table.catch_up(None).await?;
        table.state.files.keys().cloned().collect::<BTreeSet<_>>()
    };
    let orphans = found
        .into_iter()
        .filter(|meta| meta.location.as_ref().starts_with("event_date=") && meta.last_modified < before)
        .filter(|meta| !live.contains(meta.location.as_ref()))
        .map(|meta| Ok(meta.location))
        .collect();
    let removed = delete(&store, orphans).await?;
    let staged = match location.local_path() {
        Some(path) => tokio::task::spawn_blocking(move || remove_staging(&path, before.into()))
            .await
            .map_err(|_| LogError::Panicked { what: "removing staging files" })?,
        None => 0,
    };
    Ok(removed + staged)
}

async fn delete(store: &Arc<dyn ObjectStore>, paths: Vec<object_store::Result<Path>>) -> Result<usize, LogError> {
    let removed: Vec<_> = store
        .delete_stream(futures::stream::iter(paths).boxed())
        .try_collect()
        .await
        .map_err(|e| LogError::store("removing old files", e))?;
    Ok(removed.len())
}

/// Staging files that a killed process left behind; listings don't show them.
fn remove_staging(dir: &std::path::Path, before: std::time::SystemTime) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => remove_staging(&entry.path(), before),
            Ok(meta) => {
                let staging = entry.file_name().to_str().is_some_and(is_staging);
                let old = meta.modified().is_ok_and(|at| at < before);
                usize::from(staging && old && std::fs::remove_file(entry.path()).is_ok())
            }
            Err(_) => 0,
        })
        .sum()
}

/// The background task.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    pub(crate) table: Arc<Mutex<LogTable>>,
    pub(crate) metrics: LogMetrics,
    /// Whether this member is the one who does it.
    pub(crate) owner: Arc<AtomicBool>,
    /// Whether the writer has a backlog, behind which compaction waits.
    pub(crate) busy: Arc<AtomicBool>,
    /// Rung after every commit.
    pub(crate) committed: Arc<Notify>,
}

impl Upkeep {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut next_checkpoint = None;
        let mut vacuumed = tokio::time::Instant::now();
        loop {
            let pause = tokio::time::sleep(Duration::from_secs(30));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.committed.notified() => {}
                () = pause => {}
            }
            if !self.owner.load(Ordering::Relaxed) {
                continue;
            }
            let step = async {
                self.checkpoints(&mut next_checkpoint).await?;
                self.compaction().await?;
                if vacuumed.elapsed() > Duration::from_secs(1800) {
                    vacuumed = tokio::time::Instant::now();
                    vacuum(&self.table, KEEP_ORPHANS).await?;
                }
                Ok::<(), LogError>(())
            };
            // A merge may be dropped at any point: what it stored without committing is an orphan.
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = step => result,
            };
            match result {
                Ok(()) | Err(LogError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "upkeep of the event log failed");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    }
                }
            }
        }
    }

    async fn checkpoints(&self, next: &mut Option<u64>) -> Result<(), LogError> {
        let (version, location, store) = {
            let table = self.table.lock().await;
            (table.state.version, table.location().clone(), table.store().clone())
        };
        let due = *next.get_or_insert(version - version % CHECKPOINT_EVERY + CHECKPOINT_EVERY);
        if version >= due {
            checkpoint(&location).await?;
            *next = Some(version - version % CHECKPOINT_EVERY + CHECKPOINT_EVERY);
            clean_log(&store, KEEP_LOG).await?;
        }
        Ok(())
    }

    async fn compaction(&self) -> Result<(), LogError> {
        loop {
            let files = self.table.lock().await.state.files.len();
            self.metrics.live_files.set(i64::try_from(files).unwrap_or(i64::MAX));
            if self.busy.load(Ordering::Relaxed) && files < CROWDED {
                return Ok(());
            }
            match compact_once(&self.table, Eagerness::Steady).await? {
                Some((merged, _)) => self.metrics.compacted_files.inc_by(merged),
                None => return Ok(()),
            };
        }
    }
}

/// Merges every file below the target size. `progress` is told (files done, files to do at the start).
///
/// # Errors
/// The log can't be opened, read or written; a writer that works on it at the same time is no error.
pub async fn compact(location: &LogLocation, mut progress: impl FnMut(u64, u64)) -> Result<CompactReport, LogError> {
    let table = Mutex::new(LogTable::load(location).await?);
    let totals = async || {
        let table = table.lock().await;
        let files = &table.state.files;
        (files.len() as u64, files.values().map(|file| file.size).sum::<u64>())
    };
    let (files_before, bytes_before) = totals().await;
    let mut report = CompactReport { files_before, bytes_before, ..CompactReport::default() };
    let mut done = 0;
    loop {
        match compact_once(&table, Eagerness::Everything).await {
            Ok(Some((files, rows))) => {
                done += files;
                report.rows_rewritten += rows;
                progress(done.min(files_before), files_before);
            }
            Ok(None) => break,
            // Somebody merged the same files: see what is left.
            Err(LogError::Conflict { .. }) => {
                table.lock().await.catch_up(None).await?;
            }
            Err(e) => return Err(e),
        }
    }
    checkpoint(location).await?;
    vacuum(&table, KEEP_ORPHANS).await?;
    (report.files_after, report.bytes_after) = totals().await;
    Ok(report)
}
