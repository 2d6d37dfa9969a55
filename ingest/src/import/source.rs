//! Rows of a file: CSV and TSV, NDJSON, a JSON document with a list in it, an Atom feed.
//!
//! A row that can't be read is a row with a fault, not the end of the file.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::mapping::Column;
use super::{ImportError, MAX_DOCUMENT_BYTES, MAX_ROW_BYTES, atom};

/// The kinds of file that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// A header and rows; the delimiter is what the header has most of: `,`, `;`, tab or `|`.
    Csv,
    /// The same with tabs.
    Tsv,
    /// One JSON object a line.
    Ndjson,
    /// A JSON array of objects, or an object with one.
    Json,
    /// An Atom feed: an entry a row.
    Atom,
}

impl FileFormat {
    /// The format of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "ndjson" | "jsonl" => Self::Ndjson,
            "json" => Self::Json,
            "atom" => Self::Atom,
            _ => return None,
        })
    }

    fn of_file(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_lowercase();
        if extension == "xml" { Some(Self::Atom) } else { Self::parse(&extension) }
    }
}

/// One row, as it was read.
#[derive(Debug, Clone)]
pub enum Row {
    /// Of a file with a header.
    Cells {
        /// Where each column stands, by its name.
        header: Arc<Header>,
        /// The cells.
        cells: csv::StringRecord,
    },
    /// Of a file of objects.
    Object(Value),
}

/// The columns of a file with a header.
#[derive(Debug, Default)]
pub struct Header {
    pub(super) names: Vec<String>,
    index: HashMap<String, usize>,
}

impl Header {
    fn new(names: Vec<String>) -> Self {
        let mut index = HashMap::new();
        for (n, name) in names.iter().enumerate() {
            // As written, and in lower case where that is no other column's name; of two of a name, the first.
            index.entry(name.clone()).or_insert(n);
        }
        for (n, name) in names.iter().enumerate() {
            index.entry(name.to_lowercase()).or_insert(n);
        }
        Self { names, index }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.index.get(name).or_else(|| self.index.get(&name.to_lowercase())).copied()
    }
}

impl Row {
    /// What stands in a column; `None` if it is not there or empty.
    pub(super) fn get(&self, column: &Column) -> Option<String> {
        column.names.iter().find_map(|name| match self {
            Self::Cells { header, cells } => {
                cells.get(header.place(name)?).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
            }
            Self::Object(object) => text_of(member(object, name)?),
        })
    }

    /// The same of a column that there is no doing without; `what` it tells is for the message.
    pub(super) fn need(&self, what: &str, column: &Column) -> Result<String, String> {
        self.get(column).ok_or_else(|| missing(what, column))
    }
}

/// Why a row without this column can't go in.
pub(super) fn missing(what: &str, column: &Column) -> String {
    format!("it has no {what}: nothing stands in {}", column.names.join(" or "))
}

fn member<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    path.split('.').try_fold(object, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => value.get(step),
    })
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A row and where it stands.
#[derive(Debug, Clone)]
pub struct Line {
    /// The line that it begins in, from 1; in a JSON or Atom document, which item it is.
    pub number: u64,
    /// The row, or why it can't be read.
    pub row: Result<Row, String>,
    /// It as it stood in the file, where it can't be read.
    pub raw: Option<String>,
}

enum Reader {
    Cells { reader: csv::Reader<Box<dyn Read + Send>>, header: Arc<Header>, record: csv::ByteRecord },
    Lines { reader: Box<dyn BufRead + Send>, number: u64, read: u64 },
    Items { items: std::vec::IntoIter<Value>, number: u64 },
}

/// The rows of a file, one after the other; what is held at a time is one row, or for JSON and Atom the document.
pub struct Rows {
    file: PathBuf,
    format: FileFormat,
    reader: Reader,
    /// Bytes of the file, where that is known.
    pub size: Option<u64>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("file", &self.file).field("format", &self.format).finish_non_exhaustive()
    }
}

impl Rows {
    /// Opens a file; `-` is standard input. Without a format, the file's name says which.
    ///
    /// # Errors
    /// It can't be read, it is empty, or it is not of that format.
    pub fn open(path: &Path, format: Option<FileFormat>) -> Result<Self, ImportError> {
        let format = format
            .or_else(|| FileFormat::of_file(path))
            .ok_or_else(|| ImportError::Format { file: path.to_owned() })?;
        let failed = |source| ImportError::Read { file: path.to_owned(), source };
        if path == Path::new("-") {
            return Self::read(path, format, Box::new(std::io::stdin()), None);
        }
        let file = std::fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(std::io::Error::other("it is a folder")));
        }
        Self::read(path, format, Box::new(file), Some(metadata.len()))
    }

    /// Of what can be read; `path` is for messages.
    pub(super) fn read(
        path: &Path,
        format: FileFormat,
        from: Box<dyn Read + Send>,
        size: Option<u64>,
    ) -> Result<Self, ImportError> {
        let file = path.to_owned();
        let failed = |source| ImportError::Read { file: path.to_owned(), source };
        let mut from: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(256 * 1024, from));
        let beginning = from.fill_buf().map_err(failed)?;
        if beginning.is_empty() {
            return Err(ImportError::Empty { file, hint: "" });
        }
        let reader = match format {
            FileFormat::Csv | FileFormat::Tsv => {
                let delimiter = if format == FileFormat::Tsv { b'\t' } else { delimiter_of(beginning) };
                let from: Box<dyn Read + Send> = Box::new(from);
                let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(from);
                let header = reader.headers().map_err(|e| malformed(path, Some(1), &e))?;
                let header = header.iter().map(|name| name.trim().to_owned()).collect::<Vec<_>>();
                Reader::Cells { reader, header: Arc::new(Header::new(header)), record: csv::ByteRecord::new() }
            }
            FileFormat::Ndjson => Reader::Lines { reader: from, number: 0, read: 0 },
            FileFormat::Json | FileFormat::Atom => {
                let mut text = String::new();
                from.take(MAX_DOCUMENT_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
                if text.len() as u64 > MAX_DOCUMENT_BYTES {
                    let message = format!(
                        "more than {} MiB in one document: split it, or make it NDJSON (`jq -c '.[]'`)",
                        MAX_DOCUMENT_BYTES >> 20
                    );
                    return Err(ImportError::Malformed { file, line: None, message });
                }
                let items = if format == FileFormat::Json { items(path, &text)? } else { atom::entries(path, &text)? };
                Reader::Items { items: items.into_iter(), number: 0 }
            }
        };
        Ok(Self { file, format, reader, size })
    }

    /// What kind of file it is.
    #[must_use]
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Which file it is.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The columns, where the file has a header.
    #[must_use]
    pub fn header(&self) -> Option<&[String]> {
        match &self.reader {
            Reader::Cells { header, .. } => Some(&header.names),
            Reader::Lines { .. } | Reader::Items { .. } => None,
        }
    }

    /// Bytes read so far; of a document, nothing is known of what lies ahead.
    #[must_use]
    pub fn position(&self) -> u64 {
        match &self.reader {
            Reader::Cells { reader, .. } => reader.position().byte(),
            Reader::Lines { read, .. } => *read,
            Reader::Items { .. } => self.size.unwrap_or(0),
        }
    }

    /// Refuses a file whose header lacks a column that somebody asked for, or that there is no doing without.
    ///
    /// # Errors
    /// [`ImportError::Column`], with the nearest name that is there.
    pub(super) fn demand(&self, what: &'static str, column: &Column, needed: bool) -> Result<(), ImportError> {
        let Reader::Cells { header, .. } = &self.reader else { return Ok(()) };
        if column.names.iter().any(|name| header.place(name).is_some()) || !(needed || column.asked) {
            return Ok(());
        }
        let there = header.names.join(", ");
        let flag = what.replace('_', "-");
        let hint = match column.names.first().filter(|_| column.asked) {
            Some(asked) => {
                let near = nearest(asked, header.names.iter().map(String::as_str));
                format!("{asked:?} is not in its header; did you mean {near:?}? (it has {there})")
            }
            None => format!("say which by --{flag} COLUMN (it has {there})"),
        };
        Err(ImportError::Column { file: self.file.clone(), what, hint })
    }
}

impl Iterator for Rows {
    type Item = Result<Line, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.reader {
            Reader::Cells { reader, header, record } => {
                let read = reader.read_byte_record(record);
                let number = record.position().map_or(0, csv::Position::line);
                match read {
                    Ok(false) => None,
                    Ok(true) => Some(Ok(cells(record, header, number))),
                    Err(error) if error.is_io_error() => Some(Err(malformed(&self.file, None, &error))),
                    Err(error) => {
                        let line = error.position().map_or(number, csv::Position::line);
                        let fault = match error.kind() {
                            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!(
                                "it has {len} cells, the header {expected_len}: is a quote missing, or a delimiter unquoted?"
                            ),
                            _ => error.to_string(),
                        };
                        let raw = record.iter().map(|cell| String::from_utf8_lossy(cell)).collect::<Vec<_>>().join(",");
                        Some(Ok(Line { number: line, row: Err(fault), raw: Some(raw) }))
                    }
                }
            }
            Reader::Lines { reader, number, read } => loop {
                let mut bytes = Vec::new();
                let limit = MAX_ROW_BYTES as u64 + 1;
                match reader.by_ref().take(limit).read_until(b'\n', &mut bytes) {
                    Err(source) => return Some(Err(ImportError::Read { file: self.file.clone(), source })),
                    Ok(0) => return None,
                    Ok(n) => *read += n as u64,
                }
                *number += 1;
                if bytes.len() > MAX_ROW_BYTES {
                    if let Err(source) = skip_line(reader, read) {
                        return Some(Err(ImportError::Read { file: self.file.clone(), source }));
                    }
                    let fault = format!("the line is longer than {} KiB", MAX_ROW_BYTES >> 10);
                    bytes.truncate(200);
                    let raw = Some(String::from_utf8_lossy(&bytes).into_owned());
                    return Some(Ok(Line { number: *number, row: Err(fault), raw }));
                }
                let text = String::from_utf8_lossy(&bytes);
                let text = text.trim_start_matches('\u{feff}').trim();
                if !text.is_empty() {
                    return Some(Ok(object(text, *number)));
                }
            },
            Reader::Items { items, number } => {
                let item = items.next()?;
                *number += 1;
                let row = match item {
                    Value::Object(_) => Ok(Row::Object(item)),
                    other => Err(format!("it is no object: {other}")),
                };
                Some(Ok(Line { number: *number, raw: row.as_ref().err().cloned(), row }))
            }
        }
    }
}

fn cells(record: &csv::ByteRecord, header: &Arc<Header>, number: u64) -> Line {
    match csv::StringRecord::from_byte_record(record.clone()) {
        Ok(cells) => Line { number, row: Ok(Row::Cells { header: header.clone(), cells }), raw: None },
        Err(error) => {
            let column = header.names.get(error.utf8_error().field()).map_or("", String::as_str);
            let raw = error.into_byte_record();
            let raw = raw.iter().map(|cell| String::from_utf8_lossy(cell)).collect::<Vec<_>>().join(",");
            let fault = format!("column {column:?} is not UTF-8: convert the file (`iconv -f WINDOWS-1252 -t UTF-8`)");
            Line { number, row: Err(fault), raw: Some(raw) }
        }
    }
}

fn object(text: &str, number: u64) -> Line {
    let row = match serde_json::from_str::<Value>(text) {
        Ok(value @ Value::Object(_)) => Ok(Row::Object(value)),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    };
    let raw = row.is_err().then(|| text.to_owned());
    Line { number, row, raw }
}

fn skip_line(reader: &mut Box<dyn BufRead + Send>, read: &mut u64) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let (n, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(n);
        *read += n as u64;
        if ended {
            return Ok(());
        }
    }
}

/// What the first line has most of.
fn delimiter_of(beginning: &[u8]) -> u8 {
    let line = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| line.iter().filter(|byte| **byte == delimiter).count();
    [b'|', b'\t', b';', b','].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

/// The array that a document is, or the one array of objects that it has.
fn items(path: &Path, text: &str) -> Result<Vec<Value>, ImportError> {
    let fault = |line, message: String| ImportError::Malformed { file: path.to_owned(), line, message };
    let document: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
        let hint = if e.line() == 2 { ": is it NDJSON? then give --format ndjson" } else { "" };
        fault(Some(e.line() as u64), format!("no JSON: {e}{hint}"))
    })?;
    match document {
        Value::Array(items) => Ok(items),
        Value::Object(members) => {
            let mut lists: Vec<_> = members.into_iter().filter(|(_, value)| value.is_array()).collect();
            match (lists.len(), lists.pop()) {
                (1, Some((_, Value::Array(items)))) => Ok(items),
                (0, _) => Err(fault(None, "an object without a list: expected an array of objects".to_owned())),
                _ => Err(fault(
                    None,
                    "an object with several lists: take out the one that is meant (`jq .incidents`)".to_owned(),
                )),
            }
        }
        _ => Err(fault(None, "expected an array of objects".to_owned())),
    }
}

fn malformed(path: &Path, line: Option<u64>, error: &csv::Error) -> ImportError {
    ImportError::Malformed { file: path.to_owned(), line, message: error.to_string() }
}

/// The name that looks most like this one.
pub(super) fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> &'a str {
    let likeness = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    among.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default()
}
