//! What is kept of one log under one plan: loading and saving it, reading it, and folding groups of it anew.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use chrono::{DateTime, Utc};
use rebound_schemas::incident::Record;
use rebound_schemas::plan::Plan;

use super::disk::{self, Manifest, Rows};
use super::facts::{self, WINDOWS, groups, of_groups};
use super::fold::{self, TABLES, schema};
use super::rebuild;
use super::{Base, Delta, State};
use crate::session::SqlError;

/// What the folder keeps, if it is whole.
pub(super) fn load(home: &Path) -> Option<State> {
    let manifest = Manifest::load(home)?;
    match State::load(home, manifest) {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "projections at {} can't be read", home.display());
            None
        }
    }
}

impl State {
    fn load(home: &Path, manifest: Manifest) -> Result<Self, SqlError> {
        let rows = |table: &str| -> Result<Vec<RecordBatch>, SqlError> {
            let mut batches = Vec::new();
            if let Some(file) = manifest.delta.get(table) {
                rebuild::each(&home.join(&file.name), |batch| {
                    batches.push(batch);
                    Ok(())
                })?;
            }
            Ok(batches)
        };
        let facts = rows("facts")?;
        let mut tables: [Vec<RecordBatch>; 4] = Default::default();
        for (table, batches) in TABLES.into_iter().zip(&mut tables) {
            *batches = rows(table)?;
        }
        let dirty: HashSet<i64> = facts
            .iter()
            .flat_map(|batch| groups(batch).values().iter().copied())
            .filter(|group| *group != WINDOWS)
            .collect();
        let base = (!manifest.base.is_empty()).then(|| Base { folder: home.to_owned(), files: manifest.base.clone() });
        let mut state = Self {
            log: manifest.log,
            version: manifest.version,
            plan: manifest.plan,
            files: manifest.files.into_iter().collect(),
            reach: manifest.reach,
            orphans: manifest.orphans.into_iter().collect(),
            unreadable: manifest.unreadable,
            base,
            delta: Delta { facts, tables, groups: Arc::new(dirty) },
            windows: Record::default(),
            saved: Some((Instant::now(), manifest.written_at)),
            unsaved: 0,
        };
        let mut windows = Record::default();
        state.each_fact(|batch| rebuild::evolve(&mut windows, &of_groups(batch, |group| group == WINDOWS)))?;
        state.windows = windows;
        Ok(state)
    }

    pub(super) fn save(&self, home: &Path) -> Result<DateTime<Utc>, SqlError> {
        let mut manifest = Manifest::new(self.log.clone(), self.version, self.plan.clone());
        manifest.files = self.files.iter().cloned().collect();
        manifest.reach = self.reach.clone();
        manifest.orphans = self.orphans.iter().copied().collect();
        manifest.unreadable = self.unreadable;
        manifest.base = self.base.as_ref().map(|base| base.files.clone()).unwrap_or_default();
        let mut put = |table: &str, schema, batches: &[RecordBatch]| -> Result<(), SqlError> {
            if batches.iter().any(|batch| batch.num_rows() > 0) {
                let mut file = Rows::create(home, table, schema)?;
                batches.iter().try_for_each(|batch| file.write(batch))?;
                manifest.delta.insert(table.to_owned(), file.finish(true)?);
            }
            Ok(())
        };
        put("facts", facts::SCHEMA.clone(), &self.delta.facts)?;
        for (table, batches) in TABLES.into_iter().zip(&self.delta.tables) {
            put(table, schema(table), batches)?;
        }
        manifest.store(home).map_err(disk::failed)?;
        Ok(manifest.written_at)
    }

    /// Every fact that counts, in no order.
    pub(super) fn each_fact(&self, mut take: impl FnMut(&RecordBatch) -> Result<(), SqlError>) -> Result<(), SqlError> {
        if let Some(base) = &self.base {
            for path in base.paths("facts") {
                rebuild::each(&path, |batch| take(&of_groups(&batch, |group| !self.delta.groups.contains(&group))))?;
            }
        }
        self.delta.facts.iter().try_for_each(take)
    }

    /// Some columns of every row of a table, with its group.
    pub(super) fn each_row(
        &self,
        table: usize,
        columns: &[&str],
        mut take: impl FnMut(&RecordBatch),
    ) -> Result<(), SqlError> {
        use parquet::arrow::ProjectionMask;
        use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
        for path in self.base.iter().flat_map(|base| base.paths(TABLES[table])) {
            let file = std::fs::File::open(path).map_err(disk::failed)?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(disk::failed)?;
            let wanted = columns.iter().copied().chain([facts::GROUP]);
            let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
            for batch in builder.with_projection(mask).build().map_err(disk::failed)? {
                let batch = batch.map_err(disk::failed)?;
                take(&of_groups(&batch, |group| !self.delta.groups.contains(&group)));
            }
        }
        self.delta.tables[table].iter().for_each(take);
        Ok(())
    }

    /// The groups of these recoveries, as far as facts tell.
    pub(super) fn groups_of(&self, wanted: &HashSet<i64>) -> Result<HashMap<i64, i64>, SqlError> {
        let mut found = HashMap::new();
        self.each_fact(|batch| {
            let rows = groups(batch).values().iter().zip(facts::recoveries(batch));
            for (group, recovery) in rows {
                // An approval of a recovery that nothing else named is no proof.
                let known = recovery.filter(|it| wanted.contains(it) && facts::orphaned(*it) != *group);
                found.extend(known.map(|recovery| (recovery, *group)));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The groups of the incidents of these services.
    pub(super) fn groups_in(&self, services: &HashSet<String>) -> Result<HashSet<i64>, SqlError> {
        let mut found = HashSet::new();
        self.each_row(0, &["service"], |batch| {
            let names = batch.column_by_name("service").expect("it was asked for");
            let names = arrow::compute::cast(names, &arrow::datatypes::DataType::Utf8).expect("names are text");
            let rows = groups(batch).values().iter().zip(names.as_string::<i32>());
            found.extend(
                rows.filter(|(_, name)| name.is_some_and(|name| services.contains(name))).map(|(group, _)| *group),
            );
        })?;
        Ok(found)
    }

    /// Folds groups of the delta again and puts their rows in the place of the old ones.
    pub(super) fn fold_anew(&mut self, touched: &HashSet<i64>, plan: Option<&Plan>) -> Result<(), SqlError> {
        let facts: Vec<RecordBatch> = self
            .delta
            .facts
            .iter()
            .map(|batch| of_groups(batch, |group| touched.contains(&group)))
            .filter(|batch| batch.num_rows() > 0)
            .collect();
        let mut tables: [Vec<RecordBatch>; 4] = Default::default();
        for (held, kept) in self.delta.tables.iter().zip(&mut tables) {
            let rest = held.iter().map(|batch| of_groups(batch, |group| !touched.contains(&group)));
            kept.extend(rest.filter(|batch| batch.num_rows() > 0));
        }
        let order = fold::order(&facts);
        for chunk in fold::chunks(&facts, &order) {
            let folded = fold::fold(&fold::gathered(&facts, chunk)?, &self.windows, plan)?;
            self.unreadable += folded.unreadable;
            for (kept, table) in tables.iter_mut().zip(folded.tables) {
                if table.num_rows() > 0 {
                    kept.push(table);
                }
            }
        }
        // One batch a table: thousands of small ones would make every query slow.
        for (table, batches) in TABLES.into_iter().zip(&mut tables) {
            if batches.len() > 1 {
                let whole = arrow::compute::concat_batches(&schema(table), batches.iter());
                *batches = vec![whole.map_err(disk::failed)?];
            }
        }
        self.delta.tables = tables;
        Ok(())
    }
}
