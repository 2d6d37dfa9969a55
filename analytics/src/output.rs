//! Answers for people and programs: aligned table, JSON, NDJSON, CSV, Parquet, Arrow. Times are RFC 3339 in UTC.

use std::io::{self, Write};
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder as JsonBuilder;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// An array of objects; a NULL is `null`.
    Json,
    /// An object a line.
    Ndjson,
    /// With a header; a NULL is an empty field.
    Csv,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC stream.
    Arrow,
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            "arrow" => Ok(Self::Arrow),
            other => Err(format!("{other:?} is no output format: use table, json, ndjson, csv, parquet or arrow")),
        }
    }
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The writer refused.
    #[error("the answer can't be written: {0}")]
    Io(#[from] io::Error),
    /// A column has a type that the format does not know.
    #[error("the answer can't be written in this format: {0}")]
    Arrow(#[from] ArrowError),
    /// As `Arrow`, for Parquet.
    #[error("the answer can't be written as parquet: {0}")]
    Parquet(#[from] ParquetError),
}

const TIME: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// Writes an answer; one without rows still has its columns (an empty array in JSON).
///
/// # Errors
/// The writer fails, or the format can't hold a column.
pub fn write(
    format: Format,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    mut out: impl Write + Send,
) -> Result<(), OutputError> {
    let empty = RecordBatch::new_empty(schema.clone());
    let batches = if batches.is_empty() { std::slice::from_ref(&empty) } else { batches };
    let rows: Vec<&RecordBatch> = batches.iter().collect();
    match format {
        Format::Table => {
            let options = FormatOptions::new().with_timestamp_tz_format(Some(TIME));
            writeln!(out, "{}", pretty_format_batches_with_options(batches, &options)?)?;
        }
        Format::Json => {
            let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut out);
            writer.write_batches(&rows)?;
            writer.finish()?;
            writeln!(out)?;
        }
        Format::Ndjson => {
            let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut out);
            writer.write_batches(&rows)?;
            writer.finish()?;
        }
        Format::Csv => {
            let mut writer = CsvBuilder::new().with_timestamp_tz_format(TIME.into()).build(&mut out);
            for batch in batches {
                writer.write(batch)?;
            }
        }
        Format::Parquet => {
            let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            let mut writer = ArrowWriter::try_new(&mut out, schema.clone(), Some(properties))?;
            for batch in batches {
                writer.write(batch)?;
            }
            writer.close()?;
        }
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(&mut out, schema)?;
            for batch in batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray};
    use arrow::ipc::reader::StreamReader;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn batch() -> RecordBatch {
        let times = TimestampMicrosecondArray::from(vec![Some(1_767_225_600_250_000), None]).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 4] = [
            ("service", Arc::new(StringArray::from(vec![Some("a \"b\", c"), None]))),
            ("seconds", Arc::new(Float64Array::from(vec![Some(1.5), None]))),
            ("open", Arc::new(BooleanArray::from(vec![Some(true), Some(false)]))),
            ("at", Arc::new(times)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written(format: &str, batches: &[RecordBatch]) -> Vec<u8> {
        let mut out = Vec::new();
        write(format.parse().unwrap(), &batch().schema(), batches, &mut out).unwrap();
        out
    }

    #[test]
    fn each_format_says_the_same() {
        let say = |format| String::from_utf8(written(format, &[batch()])).unwrap();
        assert_eq!(
            say("csv"),
            "service,seconds,open,at\n\"a \"\"b\"\", c\",1.5,true,2026-01-01T00:00:00.250Z\n,,false,\n"
        );
        let one = r#"{"service":"a \"b\", c","seconds":1.5,"open":true,"at":"2026-01-01T00:00:00.250Z"}"#;
        let two = r#"{"service":null,"seconds":null,"open":false,"at":null}"#;
        assert_eq!(say("json"), format!("[{one},{two}]\n"));
        assert_eq!(say("ndjson"), format!("{one}\n{two}\n"));
        assert!(say("table").contains("| 2026-01-01T00:00:00.250Z |"), "{}", say("table"));
        let file = bytes(written("parquet", &[batch()]));
        let read: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().collect();
        assert_eq!(read.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [batch()]);
        let stream = written("arrow", &[batch()]);
        let read = StreamReader::try_new(stream.as_slice(), None).unwrap();
        assert_eq!(read.map(Result::unwrap).collect::<Vec<_>>(), [batch()]);
    }

    fn bytes(content: Vec<u8>) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        file
    }

    #[test]
    fn an_answer_without_rows_has_columns() {
        let say = |format| String::from_utf8(written(format, &[])).unwrap();
        assert_eq!(say("csv"), "service,seconds,open,at\n");
        assert_eq!((say("json").as_str(), say("ndjson").as_str()), ("[]\n", ""));
        assert!(say("table").contains("| service | seconds | open | at |"));
    }

    #[test]
    fn an_unknown_format_names_the_known() {
        assert!("xml".parse::<Format>().unwrap_err().contains("use table, json, ndjson, csv, parquet or arrow"));
    }
}
