//! Reads rows of a few kinds out of the log's data files, and nothing else of them.
//!
//! Of a hundred million healthy probes the incident fold needs none. What is not needed is passed over as early as it
//! can be told: a file by its statistics in the table's log (`may_hold`), a row group and a page by theirs (files are
//! sorted by kind), a row before its other columns are decoded. Small files are many where history was imported, so
//! each is opened once and read on the thread that decodes it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use deltalake::logstore::object_store::path::Path as ObjectPath;
use deltalake::logstore::object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::ChunkReader;
use serde_json::Value;

use crate::session::SqlError;

/// Rows of a batch that is handed on.
const BATCH_ROWS: usize = 8192;

/// Where data files are.
#[derive(Debug, Clone)]
pub(crate) enum Root {
    /// In a folder of this machine.
    Local(PathBuf),
    /// In an object store, rooted at the table.
    Remote(Arc<dyn ObjectStore>),
}

impl Root {
    /// The rows of these kinds in a file, with those of `columns` that it has.
    pub(crate) async fn rows(
        &self,
        path: &str,
        kinds: &[&str],
        columns: &[&str],
    ) -> Result<Vec<RecordBatch>, SqlError> {
        match self {
            Self::Local(_) => self.rows_here(path, kinds, columns),
            Self::Remote(store) => {
                let bytes = async { store.get(&ObjectPath::from(path)).await?.bytes().await }.await;
                let bytes = bytes.map_err(|error| failed(path, &ParquetError::External(error.into())))?;
                rows_of(bytes, kinds, columns).map_err(|error| failed(path, &error))
            }
        }
    }

    /// The same of a local file, on this thread.
    pub(crate) fn rows_here(&self, path: &str, kinds: &[&str], columns: &[&str]) -> Result<Vec<RecordBatch>, SqlError> {
        let Self::Local(root) = self else { unreachable!("only local files are read on this thread") };
        let file = File::open(root.join(path)).map_err(|error| failed(path, &ParquetError::External(error.into())))?;
        rows_of(file, kinds, columns).map_err(|error| failed(path, &error))
    }
}

fn failed(path: &str, error: &ParquetError) -> SqlError {
    let error = ParquetError::General(format!("{path}: {error}"));
    SqlError::Execution(DataFusionError::ParquetError(Box::new(error)))
}

/// Whether a file can hold one of these kinds, by its statistics in the table's log.
pub(crate) fn may_hold(stats: Option<&str>, kinds: &[&str]) -> bool {
    let bounds = stats.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let bound = |which: &str| bounds.as_ref().and_then(|stats| stats.get(which)?.get("kind")?.as_str());
    within(bound("minValues"), bound("maxValues"), kinds)
}

/// Whether one of the kinds lies between two bounds, of which what is unknown excludes none.
fn within(least: Option<&str>, greatest: Option<&str>, kinds: &[&str]) -> bool {
    kinds.iter().any(|kind| least.is_none_or(|least| least <= *kind) && greatest.is_none_or(|most| *kind <= most))
}

fn texts(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// For each place (row group or page) whether it can hold one of the kinds.
fn possible(least: &ArrayRef, greatest: &ArrayRef, kinds: &[&str]) -> Result<Vec<bool>, ArrowError> {
    let (least, greatest) = (texts(least)?, texts(greatest)?);
    Ok(least.iter().zip(greatest.iter()).map(|(least, greatest)| within(least, greatest, kinds)).collect())
}

fn rows_of(
    input: impl ChunkReader + 'static,
    kinds: &[&str],
    columns: &[&str],
) -> Result<Vec<RecordBatch>, ParquetError> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(input, options)?.with_batch_size(BATCH_ROWS);
    let (metadata, schema) = (builder.metadata().clone(), builder.schema().clone());
    let (groups, selection) = {
        let converter = StatisticsConverter::try_new("kind", &schema, builder.parquet_schema())?;
        let all = metadata.row_groups();
        let held = possible(&converter.row_group_mins(all)?, &converter.row_group_maxes(all)?, kinds)?;
        let groups: Vec<usize> = (0..all.len()).filter(|group| held[*group]).collect();
        let selection = match (metadata.column_index(), metadata.offset_index()) {
            (Some(index), Some(offsets)) if !groups.is_empty() => {
                let least = converter.data_page_mins(index, offsets, &groups)?;
                let greatest = converter.data_page_maxes(index, offsets, &groups)?;
                let counts = converter.data_page_row_counts(offsets, all, &groups)?;
                let held = possible(&least, &greatest, kinds)?;
                counts.filter(|counts| counts.len() == held.len()).map(|counts| {
                    let select = |(rows, held): (&u64, &bool)| match (usize::try_from(*rows).unwrap_or(0), held) {
                        (rows, true) => RowSelector::select(rows),
                        (rows, false) => RowSelector::skip(rows),
                    };
                    counts.values().iter().zip(&held).map(select).collect::<RowSelection>()
                })
            }
            _ => None,
        };
        (groups, selection)
    };
    if groups.is_empty() || selection.as_ref().is_some_and(|selection| !selection.selects_any()) {
        return Ok(Vec::new());
    }
    let wanted: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let kind = ProjectionMask::columns(builder.parquet_schema(), ["kind"]);
    let filter = ArrowPredicateFn::new(kind, move |batch| {
        let kinds = texts(batch.column(0))?;
        Ok(kinds
            .iter()
            .map(|kind| kind.map(|kind| wanted.iter().any(|wanted| wanted == kind)))
            .collect::<BooleanArray>())
    });
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let mut builder =
        builder.with_row_groups(groups).with_projection(mask).with_row_filter(RowFilter::new(vec![Box::new(filter)]));
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    builder.build()?.collect::<Result<Vec<_>, _>>().map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};
    use rebound_schemas::table::{Row, RowBuilder, RowReader};

    use super::*;

    /// Sorted by kind, in pages of a hundred rows, with statistics of pages, of row groups, or none.
    #[test]
    fn rows_of_the_wanted_kinds_are_found_whatever_a_file_tells_of_itself() {
        let mut rows = RowBuilder::new();
        for (kind, n) in
            [("alert.raised", 130), ("incident.opened", 3), ("probe.completed", 4_000), ("step.started", 250)]
        {
            (0..n).for_each(|offset| {
                rows.push(&Row { kind, id: "x", source: "y", topic: "alerts", offset, ..Row::default() })
            });
        }
        let batch = rows.finish().remove(0).batch;
        for statistics in [EnabledStatistics::Page, EnabledStatistics::Chunk, EnabledStatistics::None] {
            let properties = WriterProperties::builder()
                .set_statistics_enabled(statistics)
                .set_data_page_row_count_limit(100)
                .set_write_batch_size(50)
                .set_max_row_group_row_count(Some(1_500))
                .build();
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            let file = bytes::Bytes::from(writer.into_inner().unwrap());
            let columns =
                ["kind", "version", "id", "source", "occurred_at", "ingested_at", "topic", "partition", "offset"];
            for (kinds, expected) in [
                (vec!["incident.opened", "step.started"], 253),
                (vec!["alert.raised"], 130),
                (vec!["incident.resolved"], 0),
                (vec!["zzz"], 0),
            ] {
                let found = rows_of(file.clone(), &kinds, &columns).unwrap();
                let found: Vec<_> = found.iter().map(|batch| RowReader::new(batch).unwrap()).collect();
                let rows: Vec<_> = found.iter().flat_map(RowReader::iter).collect();
                assert_eq!(rows.len(), expected, "{kinds:?} with {statistics:?}");
                assert!(rows.iter().all(|row| kinds.contains(&row.kind)));
            }
        }
    }

    #[test]
    fn a_file_is_passed_over_by_what_its_statistics_exclude() {
        let stats = |least: &str, most: &str| {
            format!(r#"{{"minValues":{{"kind":"{least}"}},"maxValues":{{"kind":"{most}"}}}}"#)
        };
        let kinds = ["alert.raised", "recovery.started"];
        let rows = [
            ("probe.completed", "probe.completed", false),
            ("incident.opened", "probe.completed", false),
            ("alert.raised", "probe.completed", true),
            ("probe.completed", "step.started", true),
            ("recovery.started", "recovery.started", true),
        ];
        for (least, most, held) in rows {
            assert_eq!(may_hold(Some(&stats(least, most)), &kinds), held, "{least}..{most}");
        }
        assert!(may_hold(None, &kinds) && may_hold(Some("{}"), &kinds) && may_hold(Some("no JSON"), &kinds));
    }
}
