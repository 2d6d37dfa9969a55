//! Compaction: many data files of a day into one, rows in the order of the log, data unchanged.
//!
//! Which files is decided by [`plan`], which is pure: files of like size are merged, so that a row is written again
//! only a few times in its life. The merge streams; memory is bounded by [`MERGE_BYTES`] of input as stored, and by
//! the decoded pages of [`MERGE_ROWS`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use rebound_schemas::table::file_schema;

use super::error::LogError;
use super::file::{DataFile, Effort, FileWriter};
use super::table::LiveFile;

const MIB: u64 = 1 << 20;
/// Files of this size are left alone.
pub(crate) const TARGET_BYTES: u64 = 64 * MIB;
/// Bytes of input of one merge, at most.
pub(crate) const MERGE_BYTES: u64 = 96 * MIB;
/// Files of one merge, at most.
const MERGE_FILES: usize = 128;
/// Rows of a page, at most, as Parquet's writers cut them: so much of each input is decoded at a time.
const PAGE_ROWS: u64 = 20_000;
/// Rows of one merge that are decoded at the same time, at most. A row is about 400 bytes in that state, buffers
/// included: 128 small files are one merge, and of large ones some thirty.
const MERGE_ROWS: u64 = 600_000;
/// A past day that has seen no new file for this long is merged to its end.
const QUIET_MS: i64 = 10 * 60 * 1000;
/// Columns of the log's order.
const ORDER: [&str; 6] = ["kind", "service", "probe", "occurred_at", "partition", "offset"];

/// How eagerly files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eagerness {
    /// In the background: enough files of like size.
    Steady,
    /// On request: whatever is below the target.
    Everything,
}

/// The paths of the next merge, all of one day; `None` when there is nothing to do.
///
/// | files | merged when there are |
/// |---|---|
/// | below 1 MiB | 30 |
/// | from 1 to 16 MiB (smaller ones join) | 8 |
/// | from 16 to 64 MiB (smaller ones join) | 4 |
/// | below 64 MiB of a past day, nothing new for 10 minutes | 2 |
pub(crate) fn plan<'a>(
    files: impl IntoIterator<Item = &'a LiveFile>,
    today: &str,
    now_ms: i64,
    eagerness: Eagerness,
) -> Option<Vec<String>> {
    let mut days: BTreeMap<&str, Vec<&LiveFile>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| file.size < TARGET_BYTES) {
        days.entry(&file.day).or_default().push(file);
    }
    for (day, mut files) in days {
        files.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
        let quiet = day < today && files.iter().all(|file| file.modified_ms < now_ms - QUIET_MS);
        if (quiet || eagerness == Eagerness::Everything) && files.len() >= 2 {
            return Some(take(files.into_iter()));
        }
        for (from, below, enough) in [(0, MIB, 30), (MIB, 16 * MIB, 8), (16 * MIB, TARGET_BYTES, 4)] {
            if files.iter().filter(|file| (from..below).contains(&file.size)).count() >= enough {
                return Some(take(files.into_iter().filter(|file| file.size < below)));
            }
        }
    }
    None
}

/// The smallest files, within the limits of one merge; at least two, whatever their size.
fn take<'a>(files: impl Iterator<Item = &'a LiveFile>) -> Vec<String> {
    let (mut bytes, mut rows) = (0, 0);
    files
        .take(MERGE_FILES)
        .enumerate()
        .take_while(|(i, file)| {
            bytes += file.size;
            rows += file.rows.min(PAGE_ROWS);
            *i < 2 || (bytes <= MERGE_BYTES && rows <= MERGE_ROWS)
        })
        .map(|(_, file)| file.path.clone())
        .collect()
}

/// Merges files of one day, given as (path, content), into one.
pub(crate) fn merge(day: String, inputs: Vec<(String, Bytes)>) -> Result<DataFile, LogError> {
    let rows = (256 * 1024 / inputs.len().max(1)).clamp(512, 8192);
    let mut merger = Merger::new(day)?;
    for (path, bytes) in inputs {
        merger.open(path, bytes, rows)?;
    }
    merger.run()
}

/// One input: its reader, the batch under way and its sort keys.
struct Input {
    path: String,
    reader: ParquetRecordBatchReader,
    batch: RecordBatch,
    keys: Rows,
    at: usize,
}

struct Merger {
    writer: FileWriter,
    converter: RowConverter,
    inputs: Vec<Input>,
    /// The next key of every input that has rows left.
    next: BinaryHeap<Reverse<(OwnedRow, usize)>>,
    /// Chosen rows that are not written yet: (input, row of its batch).
    chosen: Vec<(usize, usize)>,
}

impl Merger {
    fn new(day: String) -> Result<Self, LogError> {
        let schema = file_schema();
        let field = |name: &&str| schema.field_with_name(name).map(|f| SortField::new(f.data_type().clone()));
        let fields: Result<Vec<_>, _> = ORDER.iter().map(field).collect();
        let converter = fields.and_then(RowConverter::new).map_err(|e| broken("(merge)", e.into()))?;
        let writer = FileWriter::new(day, Effort::Thorough)?;
        Ok(Self { writer, converter, inputs: Vec::new(), next: BinaryHeap::new(), chosen: Vec::new() })
    }

    fn open(&mut self, path: String, bytes: Bytes, rows: usize) -> Result<(), LogError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(|builder| builder.with_batch_size(rows).build())
            .map_err(|e| broken(&path, e))?;
        let keys = self.converter.empty_rows(0, 0);
        let batch = RecordBatch::new_empty(file_schema());
        self.inputs.push(Input { path, reader, batch, keys, at: 0 });
        self.advance(self.inputs.len() - 1)
    }

    /// Loads an input's next batch, if the one under way is used up, and queues its next row.
    fn advance(&mut self, input: usize) -> Result<(), LogError> {
        if self.inputs[input].at == self.inputs[input].batch.num_rows() {
            // The batch about to go still holds chosen rows.
            self.flush()?;
            if !self.load(input)? {
                return Ok(());
            }
        }
        let source = &self.inputs[input];
        self.next.push(Reverse((source.keys.row(source.at).owned(), input)));
        Ok(())
    }

    fn load(&mut self, input: usize) -> Result<bool, LogError> {
        let source = &mut self.inputs[input];
        for batch in source.reader.by_ref() {
            let batch = batch.map_err(|e| broken(&source.path, e.into()))?;
            if batch.num_rows() == 0 {
                continue;
            }
            let keys = ORDER
                .iter()
                .map(|name| batch.column_by_name(name).cloned().ok_or_else(|| missing(&source.path, name)))
                .collect::<Result<Vec<_>, _>>()?;
            source.keys = self.converter.convert_columns(&keys).map_err(|e| broken(&source.path, e.into()))?;
            source.batch = batch.with_schema(file_schema()).map_err(|e| broken(&source.path, e.into()))?;
            source.at = 0;
            return Ok(true);
        }
        Ok(false)
    }

    fn run(mut self) -> Result<DataFile, LogError> {
        while let Some(Reverse((_, input))) = self.next.pop() {
            // As long as this input's rows come before everybody else's next, take them in one go.
            let source = &mut self.inputs[input];
            let limit = self.next.peek().map(|Reverse((key, _))| key.row());
            loop {
                self.chosen.push((input, source.at));
                source.at += 1;
                let on = source.at < source.batch.num_rows();
                if !on || limit.is_some_and(|limit| source.keys.row(source.at) > limit) {
                    break;
                }
            }
            self.advance(input)?;
            if self.chosen.len() >= 8192 {
                self.flush()?;
            }
        }
        self.flush()?;
        self.writer.finish()
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if self.chosen.is_empty() {
            return Ok(());
        }
        let batches: Vec<_> = self.inputs.iter().map(|input| &input.batch).collect();
        let merged = interleave_record_batch(&batches, &self.chosen).map_err(|e| broken("(merge)", e.into()))?;
        self.chosen.clear();
        self.writer.write(&merged)
    }
}

fn broken(file: &str, source: parquet::errors::ParquetError) -> LogError {
    LogError::Parquet { file: file.to_owned(), source }
}

fn missing(file: &str, column: &str) -> LogError {
    LogError::Corrupt { file: file.to_owned(), reason: format!("it has no column {column:?}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rebound_schemas::table::{Row, RowBuilder, RowReader};

    use super::*;
    use crate::log::encode::encode_days;

    fn live(path: &str, day: &str, size: u64) -> LiveFile {
        LiveFile { path: path.into(), day: day.into(), size, rows: 1, modified_ms: 0 }
    }

    fn planned(files: &[LiveFile], today: &str, eagerness: Eagerness) -> usize {
        plan(files, today, 3_600_000, eagerness).map_or(0, |paths| paths.len())
    }

    #[test]
    fn files_of_like_size_are_merged_when_there_are_enough() {
        let many = |n: usize, size: u64| (0..n).map(|i| live(&i.to_string(), "d", size)).collect::<Vec<_>>();
        let rows = [
            (29, 1000, 0),
            (30, 1000, 30),
            (200, 1000, 128),
            (7, 2 * MIB, 0),
            (8, 2 * MIB, 8),
            (3, 20 * MIB, 0),
            (4, 20 * MIB, 4),
            (90, 64 * MIB, 0),
        ];
        for (n, size, merged) in rows {
            assert_eq!(planned(&many(n, size), "d", Eagerness::Steady), merged, "{n} files of {size}");
        }
        assert_eq!(planned(&many(2, 1000), "e", Eagerness::Steady), 2, "a past day is merged to its end");
        assert_eq!(planned(&many(2, 1000), "d", Eagerness::Everything), 2);
        assert_eq!(planned(&many(1, 1000), "e", Eagerness::Everything), 0);
        let fresh = [live("a", "d", 1), LiveFile { modified_ms: 3_500_000, ..live("b", "d", 1) }];
        assert_eq!(planned(&fresh, "e", Eagerness::Steady), 0, "a past day that still grows waits");
        let large = many(6, 40 * MIB);
        assert_eq!(planned(&large, "d", Eagerness::Steady), 2, "no more than fits into one merge");
        let wide: Vec<_> = many(100, 1).into_iter().map(|file| LiveFile { rows: 50_000, ..file }).collect();
        assert_eq!(planned(&wide, "d", Eagerness::Everything), 30, "no more than may be decoded at once");
        let days = [live("a", "d", 1), live("b", "e", 1)];
        assert_eq!(planned(&days, "z", Eagerness::Everything), 0, "days are not mixed");
    }

    proptest! {
        /// Merging sorted files gives the same rows, in the order of the log.
        #[test]
        fn a_merge_is_the_sorted_union(parts in proptest::collection::vec(
            proptest::collection::vec((0..3u8, 0..50i64), 1..40), 2..6)) {
            let mut all = Vec::new();
            let mut inputs = Vec::new();
            let mut offset = 0;
            for part in parts {
                let mut builder = RowBuilder::new();
                for (service, occurred_at) in part {
                    let service = ["a", "b", "c"][usize::from(service)];
                    all.push((service.to_owned(), occurred_at, offset));
                    builder.push(&Row { kind: "k", service: Some(service), occurred_at, offset, ..Row::default() });
                    offset += 1;
                }
                let file = encode_days(&builder.finish()).unwrap().remove(0);
                inputs.push((file.path, file.bytes));
            }
            all.sort();
            let merged = merge("1970-01-01".into(), inputs).unwrap();
            prop_assert_eq!(merged.rows as usize, all.len());
            let mut found = Vec::new();
            for batch in ParquetRecordBatchReaderBuilder::try_new(merged.bytes).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let reader = RowReader::new(&batch).unwrap();
                found.extend(reader.iter().map(|r| (r.service.unwrap().to_owned(), r.occurred_at, r.offset)));
            }
            prop_assert_eq!(found, all);
        }
    }
}
