//! Data files: Parquet with the encodings that suit the log, named by the digest of their content.
//!
//! A file is `event_date=<day>/<64 hex digits>.parquet`, the digits being its SHA-256: `verify` needs nothing else
//! to tell whether it still holds what was written, and writing it twice changes nothing.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use deltalake::kernel::Add;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use rebound_schemas::table::{PARTITION_COLUMN, file_schema};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::error::LogError;
use super::table::{day_text, stats_time};

/// Columns whose least and greatest values are told to readers, so that they skip files.
const STATISTICS: [&str; 8] =
    ["kind", "service", "probe", "occurred_at", "ingested_at", "topic", "partition", "offset"];

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For commits, which are compacted soon.
    Quick,
    /// For compaction, whose files stay.
    Thorough,
}

/// An encoded data file, not stored yet.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    /// Relative to the table.
    pub(crate) path: String,
    /// `event_date`.
    pub(crate) day: String,
    /// The Parquet.
    pub(crate) bytes: Bytes,
    /// Rows.
    pub(crate) rows: u64,
    /// Delta's statistics.
    stats: String,
}

impl DataFile {
    /// The action that makes it part of the table. `data_change` is false when it replaces others.
    pub(crate) fn add(&self, modified_ms: i64, data_change: bool) -> Add {
        Add {
            path: self.path.clone(),
            partition_values: HashMap::from([(PARTITION_COLUMN.to_owned(), Some(self.day.clone()))]),
            size: i64::try_from(self.bytes.len()).unwrap_or(i64::MAX),
            modification_time: modified_ms,
            data_change,
            stats: Some(self.stats.clone()),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
    }
}

/// The SHA-256 that a file's name promises, in hex; `None` for a file that another program wrote.
pub(crate) fn promised_digest(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
    (name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())).then_some(name)
}

/// SHA-256 in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

fn properties(effort: Effort) -> WriterProperties {
    let (level, statistics) = match effort {
        Effort::Quick => (1, EnabledStatistics::Chunk),
        Effort::Thorough => (6, EnabledStatistics::Page),
    };
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level).expect("1 to 22 are zstd's levels")))
        .set_max_row_group_row_count(Some(1 << 20))
        .set_statistics_enabled(EnabledStatistics::None);
    for column in STATISTICS {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(column), statistics);
    }
    for field in file_schema().fields() {
        // Sorted rows: the next value is near the last one, so differences are small.
        let encoding = match (field.name().as_str(), field.data_type()) {
            (_, DataType::Int64 | DataType::Timestamp(..)) => Encoding::DELTA_BINARY_PACKED,
            ("id", _) => Encoding::DELTA_BYTE_ARRAY,
            ("data", _) => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            _ => continue,
        };
        let column = ColumnPath::from(field.name().as_str());
        properties =
            properties.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, encoding);
    }
    properties.build()
}

/// Writes one data file, batch by batch.
#[derive(Debug)]
pub(crate) struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    day: String,
    rows: u64,
    bounds: Bounds,
}

impl FileWriter {
    /// A file of a day, whose batches have the log's columns (words may be dictionaries).
    pub(crate) fn new(day: String, effort: Effort) -> Result<Self, LogError> {
        // Without Arrow's own schema in the footer, readers see plain types, and the file is smaller.
        let options = ArrowWriterOptions::new().with_properties(properties(effort)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), file_schema(), options).map_err(writing)?;
        Ok(Self { writer, day, rows: 0, bounds: Bounds::default() })
    }

    /// Adds rows, which should go on in the order of the log.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        self.bounds.widen(batch);
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(writing)
    }

    /// Ends the file.
    pub(crate) fn finish(self) -> Result<DataFile, LogError> {
        let bytes = Bytes::from(self.writer.into_inner().map_err(writing)?);
        let path = format!("{PARTITION_COLUMN}={}/{}.parquet", self.day, digest(&bytes));
        let stats = self.bounds.stats(self.rows);
        Ok(DataFile { path, day: self.day, bytes, rows: self.rows, stats })
    }
}

fn writing(source: ParquetError) -> LogError {
    LogError::Parquet { file: "(being written)".into(), source }
}

/// One file of one batch.
pub(crate) fn encode(day: i32, batch: &RecordBatch, effort: Effort) -> Result<DataFile, LogError> {
    let mut writer = FileWriter::new(day_text(day), effort)?;
    writer.write(batch)?;
    writer.finish()
}

/// Least and greatest value a column of [`STATISTICS`].
#[derive(Debug, Default)]
struct Bounds {
    numbers: HashMap<&'static str, (i64, i64)>,
    texts: HashMap<&'static str, (String, String)>,
}

impl Bounds {
    fn widen(&mut self, batch: &RecordBatch) {
        for name in STATISTICS {
            let Some(column) = batch.column_by_name(name) else { continue };
            if let Some((low, high)) = number_bounds(column) {
                let bounds = self.numbers.entry(name).or_insert((low, high));
                *bounds = (bounds.0.min(low), bounds.1.max(high));
            } else if let Some((low, high)) = text_bounds(column) {
                let bounds = self.texts.entry(name).or_insert_with(|| (low.clone(), high.clone()));
                if low < bounds.0 {
                    bounds.0 = low;
                }
                if high > bounds.1 {
                    bounds.1 = high;
                }
            }
        }
    }

    /// Delta's statistics, as JSON text.
    fn stats(&self, rows: u64) -> String {
        let (mut least, mut greatest) = (Map::new(), Map::new());
        for name in STATISTICS {
            let mut put = |low: Option<Value>, high: Option<Value>| {
                if let (Some(low), Some(high)) = (low, high) {
                    least.insert(name.to_owned(), low);
                    greatest.insert(name.to_owned(), high);
                }
            };
            if let Some((low, high)) = self.numbers.get(name) {
                if name.ends_with("_at") {
                    put(stats_time(*low).map(Value::from), stats_time(*high).map(Value::from));
                } else {
                    put(Some((*low).into()), Some((*high).into()));
                }
            } else if let Some((low, high)) = self.texts.get(name) {
                put(Some(low.as_str().into()), Some(high.as_str().into()));
            }
        }
        json!({ "numRecords": rows, "minValues": least, "maxValues": greatest }).to_string()
    }
}

fn number_bounds(column: &ArrayRef) -> Option<(i64, i64)> {
    match column.data_type() {
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            Some((min(values)?.into(), max(values)?.into()))
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            Some((min(values)?, max(values)?))
        }
        DataType::Timestamp(..) => {
            let values = column.as_primitive_opt::<TimestampMicrosecondType>()?;
            Some((min(values)?, max(values)?))
        }
        _ => None,
    }
}

fn text_bounds(column: &ArrayRef) -> Option<(String, String)> {
    if let Some(words) = column.as_dictionary_opt::<Int32Type>() {
        return word_bounds(words);
    }
    let texts = column.as_string_opt::<i32>()?;
    Some((min_string(texts)?.to_owned(), max_string(texts)?.to_owned()))
}

/// Bounds of the words in use: a slice of a batch shares the words of the whole.
fn word_bounds(words: &DictionaryArray<Int32Type>) -> Option<(String, String)> {
    let values = words.values().as_string_opt::<i32>()?;
    let mut used = vec![false; values.len()];
    for key in words.keys().iter().flatten() {
        used[usize::try_from(key).ok()?] = true;
    }
    let words = || used.iter().enumerate().filter(|(_, used)| **used).map(|(i, _)| values.value(i));
    Some((words().min()?.to_owned(), words().max()?.to_owned()))
}
