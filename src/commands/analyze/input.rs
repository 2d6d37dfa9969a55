//! Rows of a series' file: a time and a value each, or a message with the line, and what to write instead.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use rebound_ingest::import::Clock;
use rebound_schemas::plan::nearest;

use super::Source;

/// Values beyond are no measurements, and their squares no numbers.
const LARGEST: f64 = 1e100;
/// A header or a row is no longer than this.
const MOST_CELLS: usize = 10_000;

/// A series that is read row after row.
pub(super) struct Input {
    path: PathBuf,
    reader: csv::Reader<Box<dyn Read>>,
    record: csv::StringRecord,
    value: usize,
    value_name: String,
    time: Option<usize>,
    clock: Clock,
    /// Where lines end in CR LF, the reader of CSV counts a row as beginning before its LF: one line too early.
    behind: u64,
}

/// What a row says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The line that it begins in, the header's being 1.
    pub(super) line: u64,
    /// Its time, where a column is named.
    pub(super) at: Option<DateTime<Utc>>,
    /// `None` where none stands.
    pub(super) value: Option<f64>,
}

impl Input {
    /// Opens a file and finds its columns.
    pub(super) fn open(source: &Source) -> Result<Self> {
        let path = source.input.clone();
        let from: Box<dyn Read> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            let file = File::open(&path).with_context(|| format!("{} can't be read", path.display()))?;
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                bail!("{} can't be read: it is a folder, write a CSV file in it", path.display());
            }
            Box::new(file)
        };
        Self::read(source, from)
    }

    fn read(source: &Source, from: Box<dyn Read>) -> Result<Self> {
        let path = source.input.clone();
        let mut from = BufReader::with_capacity(256 * 1024, from);
        let beginning = from.fill_buf().with_context(|| format!("{} can't be read", path.display()))?;
        if beginning.iter().all(u8::is_ascii_whitespace) {
            bail!("{} is empty: a header and rows are needed, as in timestamp,value", path.display());
        }
        let delimiter = delimiter(beginning);
        let behind = u64::from(beginning.split(|byte| *byte == b'\n').next().is_some_and(|line| line.ends_with(b"\r")));
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(
            // A byte order mark is skipped by the reader of CSV itself.
            Box::new(from) as Box<dyn Read>,
        );
        let header = reader.headers().map_err(|error| anyhow::anyhow!(fault(&path, &error, 0)))?.clone();
        if header.len() > MOST_CELLS {
            bail!("{}:1: the header has {} columns: is it a CSV file?", path.display(), header.len());
        }
        let place = |option: &str, name: &str| -> Result<usize> {
            let place = header.iter().position(|there| there == name);
            if let Some(place) = place.or_else(|| header.iter().position(|there| there.eq_ignore_ascii_case(name))) {
                return Ok(place);
            }
            let file = path.display();
            if header.iter().any(|cell| cell.parse::<f64>().is_ok()) {
                bail!(
                    "{file}:1: the first line is no header ({}): write one above it, as in timestamp,value",
                    shown(&header)
                );
            }
            match nearest(name, header.iter()) {
                Some(near) => bail!("{file} has no column {name:?}: did you mean {option} {near}?"),
                None => bail!("{file} has no column {name:?}: {option} is one of {}", shown(&header)),
            }
        };
        let value = place("--value", &source.value)?;
        let time = source.time.as_deref().map(|name| place("--time", name)).transpose()?;
        let zone = Clock::zone(&source.tz).map_err(anyhow::Error::msg)?;
        let clock = Clock::new(zone, None, source.time_format.clone()).map_err(anyhow::Error::msg)?;
        let value_name = source.value.clone();
        Ok(Self { path, reader, record: csv::StringRecord::new(), value, value_name, time, clock, behind })
    }

    /// The next row; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        if !self
            .reader
            .read_record(&mut self.record)
            .map_err(|error| anyhow::anyhow!(fault(&self.path, &error, self.behind)))?
        {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line) + self.behind;
        let value = number(self.value_text()).map_err(|what| {
            anyhow::anyhow!("{}:{line}: {what} in column {:?}", self.path.display(), self.value_name)
        })?;
        let at = match self.time {
            Some(time) => {
                let text = self.record.get(time).unwrap_or_default();
                let read = self.clock.read(text).or_else(|what| month(text).ok_or(what));
                Some(read.map_err(|what| anyhow::anyhow!("{}:{line}: {what}", self.path.display()))?)
            }
            None => None,
        };
        Ok(Some(Row { line, at, value }))
    }

    /// The value of the last row, as it stands in the file.
    pub(super) fn value_text(&self) -> &str {
        self.record.get(self.value).unwrap_or_default()
    }

    /// The time of the last row, as it stands in the file; empty without a column of times.
    pub(super) fn time_text(&self) -> &str {
        self.time.and_then(|time| self.record.get(time)).unwrap_or_default()
    }

    /// Where a line is, for messages.
    pub(super) fn place(&self, line: u64) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// The file's name, for messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// What the header has most of.
fn delimiter(beginning: &[u8]) -> u8 {
    let header = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| header.iter().filter(|byte| **byte == delimiter).count();
    *[b'|', b'\t', b';', b','].iter().max_by_key(|delimiter| count(**delimiter)).unwrap_or(&b',')
}

/// The first columns of a header.
fn shown(header: &csv::StringRecord) -> String {
    let more = if header.len() > 8 { ", …" } else { "" };
    header.iter().take(8).collect::<Vec<_>>().join(", ") + more
}

/// A cell's number; `None` where nothing stands or what stands for nothing.
fn number(text: &str) -> Result<Option<f64>, String> {
    if text.is_empty() || ["na", "n/a", "null", "none", "-"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(value) if value.abs() <= LARGEST => Ok(Some(value)),
        Ok(value) if value.is_nan() => Ok(None),
        Ok(value) if value.is_infinite() => Err(format!("{text:?} is no finite number: leave the cell empty")),
        Ok(_) => Err(format!("{text} is beyond ±1e100, where no measurement is: use a larger unit")),
        Err(_) if text.replace(',', ".").parse::<f64>().is_ok() => {
            Err(format!("{text:?} has a decimal comma: write {}", text.replace(',', ".")))
        }
        Err(_) => Err(format!("{text:?} is no number: write it as in 12.5, or leave the cell empty")),
    }
}

/// `2026-03`: a month's beginning.
fn month(text: &str) -> Option<DateTime<Utc>> {
    let day = chrono::NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok()?;
    (text.len() == 7).then(|| day.and_time(chrono::NaiveTime::MIN).and_utc())
}

fn fault(path: &Path, error: &csv::Error, behind: u64) -> String {
    let file = path.display();
    let line = error.position().map_or(1, csv::Position::line) + behind;
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!(
                "{file}:{line}: it has {len} cells where the header has {expected_len}: is a quote or a delimiter amiss?"
            )
        }
        csv::ErrorKind::Utf8 { .. } => format!("{file}:{line}: it is not UTF-8: save the file as UTF-8"),
        csv::ErrorKind::Io(error) => format!("{file} can't be read: {error}"),
        _ => format!("{file}:{line}: {error}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An input of a text, as if it were `series.csv`.
    pub(crate) fn input(text: &str, time: Option<&str>) -> Result<Input> {
        let source = Source {
            input: "series.csv".into(),
            time: time.map(Into::into),
            value: "value".into(),
            tz: "UTC".into(),
            time_format: None,
        };
        Input::read(&source, Box::new(std::io::Cursor::new(text.as_bytes().to_vec())))
    }

    fn rows(text: &str, time: Option<&str>) -> Result<Vec<Row>> {
        let mut input = input(text, time)?;
        let mut rows = Vec::new();
        while let Some(row) = input.next()? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn what_is_wrong_says_where_and_what_to_write() {
        for (text, message) in [
            ("", "series.csv is empty: a header and rows are needed, as in timestamp,value"),
            (" \n\n", "series.csv is empty: a header and rows are needed, as in timestamp,value"),
            ("timestamp,vlaue\n", "series.csv has no column \"value\": did you mean --value vlaue?"),
            ("timestamp,cpu,load\n", "series.csv has no column \"value\": --value is one of timestamp, cpu, load"),
            (
                "2026-01-01,3.5\n2026-01-02,4\n",
                "series.csv:1: the first line is no header (2026-01-01, 3.5): write one above it, as in timestamp,value",
            ),
            (
                "timestamp,value\n2026-01-01,1\n2026-01-02\n",
                "series.csv:3: it has 1 cells where the header has 2: is a quote or a delimiter amiss?",
            ),
            (
                "timestamp,value\n2026-01-01,high\n",
                "series.csv:2: \"high\" is no number: write it as in 12.5, or leave the cell empty in column \"value\"",
            ),
            (
                "timestamp;value\n2026-01-01;3,5\n",
                "series.csv:2: \"3,5\" has a decimal comma: write 3.5 in column \"value\"",
            ),
            (
                "timestamp,value\n2026-01-01,inf\n",
                "series.csv:2: \"inf\" is no finite number: leave the cell empty in column \"value\"",
            ),
            (
                "timestamp,value\n2026-01-01,1e200\n",
                "series.csv:2: 1e200 is beyond ±1e100, where no measurement is: use a larger unit in column \"value\"",
            ),
            (
                "timestamp,value\nyesterday,1\n",
                "series.csv:2: \"yesterday\" is no time that is understood: write it as 2025-03-30T02:15:00Z, or give --time-format",
            ),
        ] {
            assert_eq!(rows(text, Some("timestamp")).expect_err(text).to_string(), message);
        }
        let latin = Input::read(
            &Source { input: "l.csv".into(), time: None, value: "value".into(), tz: "UTC".into(), time_format: None },
            Box::new(std::io::Cursor::new(b"value\n\xe4\n".to_vec())),
        );
        assert_eq!(
            latin.and_then(|mut l| l.next()).expect_err("bad").to_string(),
            "l.csv:2: it is not UTF-8: save the file as UTF-8"
        );
    }

    #[test]
    fn files_come_in_many_ways() {
        for text in [
            "\u{feff}timestamp,value\r\n2026-01-01 00:05:00,1.5\r\n",
            "value\ttimestamp\n1.5\t2026-01-01T00:05:00Z\n",
            "other;Value;timestamp\nx; 1.5 ;1767225900\n",
        ] {
            let at = DateTime::from_timestamp(1_767_225_900, 0);
            assert_eq!(rows(text, Some("timestamp")).expect(text), [Row { line: 2, at, value: Some(1.5) }]);
        }
        let torn = rows("timestamp,value\r\n2026-01-01,1\r\n2026-01-02,x\r\n", None).expect_err("torn").to_string();
        assert!(torn.starts_with("series.csv:3: \"x\" is no number"), "{torn}");
        let missing = rows("value\n1\n\nNA\n nan \n\"\"\n2\n", None).expect("read");
        let values: Vec<_> = missing.iter().map(|row| row.value).collect();
        assert_eq!(values, [Some(1.0), None, None, None, Some(2.0)]);
        assert_eq!(rows("t,value\n2026-03,1\n", Some("t")).expect("read")[0].at, month("2026-03"));
    }
}
