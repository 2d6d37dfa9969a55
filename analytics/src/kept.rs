//! Projections that are kept: the incident fold's tables, as far as the log has been read, in memory and on disk.
//!
//! They are a cache. What they hold follows from the log and the plan alone; they are made anew whenever they don't
//! fit, and nothing is lost with them.
//!
//! | what | when | how |
//! |---|---|---|
//! | nothing that fits is kept, or a great deal is new | opening; a long import | all is folded from the log (`rebuild`) |
//! | a few files of the log are new | a log that grows | the groups that their facts speak of are folded anew (`facts`) |
//! | much was folded anew, or the plan is another | now and then | all is folded from the facts that are kept |
//! | the log is another, or went back | its folder was replaced | all is folded from the log |
//!
//! So there are two layers: the *base*, Parquet files that were folded in one go, and the *delta*, the groups that were
//! folded anew since, which count instead of the base's. The delta is small and in memory; it is written beside the
//! base (`disk`) when enough has changed.

mod disk;
mod facts;
mod fold;
mod quality;
mod rebuild;
mod state;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use chrono::{DateTime, Utc};
use deltalake::DeltaTable;
use rebound_schemas::incident::Record;
use rebound_schemas::plan::Plan;
use tempfile::TempDir;

use self::disk::{FileRef, Lock};
use self::facts::{KINDS, Reach, Tagged, WINDOWS, groups, of_groups};
pub use self::quality::Quality;
pub use self::rebuild::Progress;
use self::rebuild::{Facts, LogFile, Rebuilt, Share, Sizes, rebuild};
use self::state::load;
pub use self::status::{Status, TableStatus};
use crate::extract::{Root, may_hold};
use crate::session::SqlError;

/// The delta is written when so many facts, or files of the log, are new since it was written last.
const DUE: usize = 64;
/// … or this long after it was, if anything is new.
const DUE_AFTER: Duration = Duration::from_secs(30);

/// Nobody is told.
pub(crate) fn quietly() -> Progress {
    Arc::new(|_, _| {})
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Where it is kept beyond this process; nowhere without it.
    home: Option<PathBuf>,
    /// Where base files are while they can't be there.
    scratch: Option<TempDir>,
    state: Option<State>,
    /// The whole fold, for those who asked for it.
    record: Option<Arc<Record>>,
    sizes: Sizes,
}

/// What is kept of one log under one plan.
#[derive(Debug, Default)]
struct State {
    log: String,
    version: u64,
    plan: Option<String>,
    /// Files of the log that were taken in, or that hold nothing of interest.
    files: HashSet<String>,
    reach: Reach,
    orphans: HashSet<i64>,
    unreadable: usize,
    base: Option<Base>,
    delta: Delta,
    windows: Record,
    saved: Option<(Instant, DateTime<Utc>)>,
    unsaved: usize,
}

/// Files that were folded in one go.
#[derive(Debug, Clone)]
struct Base {
    folder: PathBuf,
    files: BTreeMap<String, Vec<FileRef>>,
}

impl Base {
    fn paths(&self, table: &str) -> Vec<PathBuf> {
        self.files.get(table).into_iter().flatten().map(|file| self.folder.join(&file.name)).collect()
    }

    fn rows(&self, table: &str) -> u64 {
        self.files.get(table).into_iter().flatten().map(|file| file.rows).sum()
    }
}

/// Groups that were folded anew.
#[derive(Debug, Default)]
struct Delta {
    /// All facts of these groups.
    facts: Vec<RecordBatch>,
    tables: [Vec<RecordBatch>; 4],
    groups: Arc<HashSet<i64>>,
}

impl Delta {
    fn rows(&self) -> usize {
        self.facts.iter().map(RecordBatch::num_rows).sum()
    }
}

/// What is new in the log.
struct New {
    log: String,
    version: u64,
    root: Root,
    files: HashSet<String>,
    /// Those not taken in yet that may hold facts.
    fresh: Vec<LogFile>,
    fresh_files: usize,
    /// All that may hold facts.
    relevant: bool,
}

impl Kept {
    /// Kept in a folder, or only in this process.
    pub(crate) fn new(home: Option<PathBuf>) -> Self {
        Self { home, ..Self::default() }
    }

    /// Follows the log to the version that the table is at.
    pub(crate) async fn refresh(
        &mut self,
        table: &DeltaTable,
        location: &Root,
        plan: Option<&Arc<Plan>>,
        progress: &Progress,
    ) -> Result<(), SqlError> {
        if self.state.is_none() {
            self.state = self.home.as_deref().and_then(load);
        }
        let kept = self.state.is_some();
        match self.follow(table, location, plan, progress).await {
            Err(error) if kept => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "projections are made anew: what was kept can't be used"
                );
                self.rebuild(table, location, plan, progress).await
            }
            other => other,
        }
    }

    /// Makes everything anew from the log, whatever is kept.
    pub(crate) async fn rebuild(
        &mut self,
        table: &DeltaTable,
        location: &Root,
        plan: Option<&Arc<Plan>>,
        progress: &Progress,
    ) -> Result<(), SqlError> {
        (self.state, self.record) = (None, None);
        let new = look(table, location, &HashSet::new())?;
        self.fold_log(new, plan, progress).await
    }

    async fn follow(
        &mut self,
        table: &DeltaTable,
        location: &Root,
        plan: Option<&Arc<Plan>>,
        progress: &Progress,
    ) -> Result<(), SqlError> {
        let version = plan.map(|plan| plan.version().to_string());
        let nothing = HashSet::new();
        let new = look(table, location, self.state.as_ref().map_or(&nothing, |state| &state.files))?;
        let fits = |state: &State| state.log == new.log && state.version <= new.version;
        if !self.state.as_ref().is_some_and(fits) {
            return self.rebuild(table, location, plan, progress).await;
        }
        let state = self.state.as_mut().expect("it fits");
        if state.plan != version {
            state.plan = version;
            self.fold_facts(plan, progress).await?;
        }
        let state = self.state.as_mut().expect("it was made anew");
        if new.fresh.is_empty() {
            (state.version, state.files) = (new.version, new.files);
            state.unsaved += new.fresh_files;
            self.save(false);
            return Ok(());
        }
        let mut tagged = Tagged::default();
        let (mut rows, small) = (0, self.sizes.small);
        let take = |found: Tagged| {
            rows += found.facts.iter().map(RecordBatch::num_rows).sum::<usize>();
            tagged.merge(found);
            rows <= small
        };
        let few = rebuild::read(&new.root, &new.fresh, &state.reach, Share::ALL, progress, take).await?;
        if !few || !self.take_in(tagged, plan.map(AsRef::as_ref))? {
            return self.rebuild(table, location, plan, progress).await;
        }
        let state = self.state.as_mut().expect("it took the facts in");
        (state.version, state.files) = (new.version, new.files);
        state.unsaved += rows + new.fresh_files;
        let base = state.base.as_ref().map_or(0, |base| base.rows("facts"));
        if state.delta.rows() > self.sizes.small.max(usize::try_from(base / 8).unwrap_or(usize::MAX)) {
            self.fold_facts(plan, progress).await?;
        }
        self.save(false);
        Ok(())
    }

    /// Takes new facts in and folds their groups anew. False where only the whole log can tell: a recovery turned up
    /// that was approved before anything said whose it is.
    fn take_in(&mut self, mut tagged: Tagged, plan: Option<&Plan>) -> Result<bool, SqlError> {
        let state = self.state.as_mut().expect("there is something to take it in");
        if tagged.recoveries.keys().any(|recovery| state.orphans.contains(recovery)) {
            return Ok(false);
        }
        if !tagged.approvals.is_empty() {
            let wanted: HashSet<i64> =
                tagged.approvals.iter().flat_map(|batch| facts::recoveries(batch).iter().flatten()).collect();
            let known = state.groups_of(&wanted)?;
            state.orphans.extend(tagged.settle(|recovery| known.get(&recovery).copied()));
        }
        if let Some(record) = &mut self.record {
            let record = Arc::make_mut(record);
            tagged.facts.iter().try_for_each(|batch| rebuild::evolve(record, batch))?;
        }
        let mut touched: HashSet<i64> =
            tagged.facts.iter().flat_map(|batch| groups(batch).values().iter().copied()).collect();
        if touched.remove(&WINDOWS) {
            let services = services_of(&tagged.facts)?;
            touched.extend(state.groups_in(&services)?);
            for batch in &tagged.facts {
                let windows = of_groups(batch, |group| group == WINDOWS);
                rebuild::evolve(&mut state.windows, &windows)?;
            }
        }
        let newly: HashSet<i64> = touched.difference(&state.delta.groups).copied().collect();
        if let Some(base) = &state.base {
            for path in base.paths("facts") {
                rebuild::each(&path, |batch| {
                    let held = of_groups(&batch, |group| newly.contains(&group));
                    if held.num_rows() > 0 {
                        state.delta.facts.push(held);
                    }
                    Ok(())
                })?;
            }
        }
        state.reach.merge(&tagged.reach);
        state.delta.facts.extend(tagged.facts);
        let mut dirty = state.delta.groups.as_ref().clone();
        dirty.extend(&touched);
        state.delta.groups = Arc::new(dirty);
        state.fold_anew(&touched, plan)?;
        Ok(true)
    }

    async fn fold_log(&mut self, new: New, plan: Option<&Arc<Plan>>, progress: &Progress) -> Result<(), SqlError> {
        let source = Facts::Log { root: new.root, files: new.fresh };
        let (folder, lock) = self.place()?;
        let rebuilt = rebuild(source, plan.cloned(), &folder, lock.is_some(), self.sizes, progress).await?;
        let state = State {
            log: new.log,
            version: new.version,
            plan: plan.map(|plan| plan.version().to_string()),
            files: new.files,
            reach: rebuilt.reach.clone(),
            orphans: rebuilt.orphans.iter().copied().collect(),
            ..State::default()
        };
        self.adopt(state, rebuilt, folder, plan, lock, new.relevant)
    }

    async fn fold_facts(&mut self, plan: Option<&Arc<Plan>>, progress: &Progress) -> Result<(), SqlError> {
        let (folder, lock) = self.place()?;
        let state = self.state.as_mut().expect("facts are kept");
        let files = state.base.as_ref().map_or_else(Vec::new, |base| base.paths("facts"));
        let mut newer = state.delta.facts.clone();
        // Windows of the base are not among the delta's, though the delta may have some.
        newer.retain(|batch| batch.num_rows() > 0);
        let source = Facts::Kept { files, newer };
        let rebuilt = rebuild(source, plan.cloned(), &folder, lock.is_some(), self.sizes, progress).await?;
        let state = self.state.take().expect("it is still there");
        let (base, delta) = Default::default();
        let state = State { base, delta, unreadable: 0, windows: Record::default(), ..state };
        self.adopt(state, rebuilt, folder, plan, lock, true)
    }

    /// Makes what was folded the state.
    fn adopt(
        &mut self,
        mut state: State,
        rebuilt: Rebuilt,
        folder: PathBuf,
        plan: Option<&Arc<Plan>>,
        lock: Option<Lock>,
        worth_saving: bool,
    ) -> Result<(), SqlError> {
        state.unreadable = rebuilt.unreadable;
        state.windows = fold::windows(&rebuilt.facts)?;
        if rebuilt.files.is_empty() {
            let touched: HashSet<i64> = rebuilt
                .facts
                .iter()
                .flat_map(|batch| groups(batch).values().iter().copied())
                .filter(|group| *group != WINDOWS)
                .collect();
            state.delta = Delta { facts: rebuilt.facts, groups: Arc::new(touched.clone()), ..Delta::default() };
            state.fold_anew(&touched, plan.map(AsRef::as_ref))?;
        } else {
            let files = rebuilt.files.into_iter().map(|(table, files)| (table.to_owned(), files)).collect();
            state.base = Some(Base { folder, files });
        }
        state.unsaved = usize::from(worth_saving) * DUE;
        state.saved = None;
        self.state = Some(state);
        drop(lock);
        self.save(true);
        Ok(())
    }

    /// Where base files are made: at home with the right to, else in a folder of this process's own.
    fn place(&mut self) -> Result<(PathBuf, Option<Lock>), SqlError> {
        if let Some(home) = &self.home
            && let Some(lock) = Lock::take(home)
        {
            return Ok((home.clone(), Some(lock)));
        }
        let scratch = match &self.scratch {
            Some(scratch) => scratch,
            None => self.scratch.insert(TempDir::with_prefix("rebound-projections-").map_err(disk::failed)?),
        };
        Ok((scratch.path().to_owned(), None))
    }

    /// Writes the delta and the manifest where there is a home, if it is due. What can't be written is not kept: the
    /// next process folds it again.
    fn save(&mut self, now: bool) {
        let (Some(home), Some(state)) = (&self.home, &mut self.state) else { return };
        let old = state.saved.is_none_or(|(at, _)| at.elapsed() >= DUE_AFTER);
        if state.unsaved == 0 || !(now || old || state.unsaved >= DUE) {
            return;
        }
        // Files of a folder of this process's own are of no use to others.
        if state.base.as_ref().is_some_and(|base| base.folder != *home) {
            return;
        }
        let Some(lock) = Lock::take(home) else { return };
        match state.save(home) {
            Ok(at) => (state.saved, state.unsaved) = (Some((Instant::now(), at)), 0),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "projections can't be kept at {}",
                    home.display()
                );
            }
        }
        drop(lock);
    }

    /// The whole fold.
    pub(crate) fn record(&mut self) -> Result<Arc<Record>, SqlError> {
        if let Some(record) = &self.record {
            return Ok(record.clone());
        }
        let state = self.state.as_ref().expect("it was refreshed");
        let mut record = Record::default();
        state.each_fact(|batch| rebuild::evolve(&mut record, batch))?;
        Ok(self.record.insert(Arc::new(record)).clone())
    }

    /// The fold of incidents that are open, and of what belongs to them.
    pub(crate) fn open(&self) -> Result<Record, SqlError> {
        let state = self.state.as_ref().expect("it was refreshed");
        let mut open = HashSet::new();
        state.each_row(0, &["open"], |batch| {
            let flags = batch.column_by_name("open").expect("it was asked for").as_boolean();
            let rows = groups(batch).values().iter().zip(flags).filter(|(_, open)| *open == Some(true));
            open.extend(rows.map(|(group, _)| *group));
        })?;
        let mut record = state.windows.clone();
        if !open.is_empty() {
            state.each_fact(|batch| rebuild::evolve(&mut record, &of_groups(batch, |group| open.contains(&group))))?;
        }
        Ok(record)
    }

    /// Rows that are no events of this build.
    pub(crate) fn unreadable(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.unreadable)
    }
}

/// What the table has that was not taken in.
fn look(table: &DeltaTable, root: &Root, taken: &HashSet<String>) -> Result<New, SqlError> {
    let snapshot = table.snapshot().map_err(SqlError::Log)?;
    let (mut files, mut fresh, mut fresh_files) = (HashSet::new(), Vec::new(), 0);
    for file in snapshot.log_data().into_iter() {
        let path = file.path().into_owned();
        if !taken.contains(&path) {
            fresh_files += 1;
            if may_hold(file.stats().as_deref(), &KINDS) {
                fresh.push(LogFile { path: path.clone(), size: u64::try_from(file.size()).unwrap_or(0) });
            }
        }
        files.insert(path);
    }
    let (log, version) = (snapshot.metadata().id().to_owned(), snapshot.version());
    let relevant = !fresh.is_empty();
    Ok(New { log, version, root: root.clone(), files, fresh, fresh_files, relevant })
}

/// The services that maintenance windows among these facts name.
fn services_of(facts: &[RecordBatch]) -> Result<HashSet<String>, SqlError> {
    let mut services = HashSet::new();
    for batch in facts {
        crate::gather::each_event(&of_groups(batch, |group| group == WINDOWS), |event| {
            services.insert(event.subject.as_str().to_owned());
            if let rebound_schemas::EventData::MaintenanceScheduled(data) = &event.data {
                services.extend(data.services.iter().map(|service| service.as_str().to_owned()));
            }
        })?;
    }
    Ok(services)
}
