//! `rebound analyze anomalies`: one row at a time, in and out, so that a file may be of any length.

use std::io::{self, BufWriter, Write};

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use rebound_analytics::anomaly::{ALARM, Basis, Detector, Score, WARM_UP};
use serde_json::json;

use super::input::Input;
use super::{Output, Source, rounded};
use crate::cli::Done;
use crate::commands::print_table;

/// So many anomalies are shown in a table; all of them stand in the other outputs.
const SHOWN: usize = 200;

/// `rebound analyze anomalies`
#[derive(Debug, Args)]
pub(crate) struct Anomalies {
    #[command(flatten)]
    source: Source,
    /// What becomes of a row without a value.
    #[arg(long, value_enum, default_value = "refuse", value_name = "WHAT")]
    missing: Missing,
    /// Rows with their scores; the table shows the anomalies only.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Missing {
    /// An error with its line.
    Refuse,
    /// Its score is 0, and the detector does not see it.
    Skip,
}

pub(super) fn anomalies(asked: &Anomalies) -> Result<Done> {
    let mut input = Input::open(&asked.source)?;
    let out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let notes = score(&mut input, asked, out)?;
    for note in notes {
        eprintln!("rebound: {note}");
    }
    Ok(Done::Good)
}

/// Scores all rows into `out`, and gives what should be known of them.
fn score(input: &mut Input, asked: &Anomalies, mut out: impl Write) -> Result<Vec<String>> {
    let mut detector = Detector::default();
    let mut found: Vec<[String; 5]> = Vec::new();
    let (mut rows, mut skipped, mut anomalies, mut backwards) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut newest: Option<DateTime<Utc>> = None;
    match asked.output {
        Output::Csv => writeln!(out, "timestamp,value,anomaly_score")?,
        Output::Json => write!(out, "[")?,
        Output::Table | Output::Ndjson => {}
    }
    while let Some(row) = input.next()? {
        rows += 1;
        let score = match row.value {
            Some(value) => Some(detector.next(row.at, value)),
            None if asked.missing == Missing::Skip => None,
            None => bail!("{}: no value stands there: fill it in, or give --missing skip", input.place(row.line)),
        };
        skipped += u64::from(score.is_none());
        if let Some(at) = row.at {
            backwards += u64::from(newest.is_some_and(|newest| at < newest));
            newest = newest.max(Some(at));
        }
        let unusual = score.filter(|score| score.score >= ALARM);
        anomalies += u64::from(unusual.is_some());
        let points = score.map_or(0.0, |score| score.score);
        match asked.output {
            Output::Csv => {
                cell(&mut out, input.time_text())?;
                out.write_all(b",")?;
                cell(&mut out, input.value_text())?;
                writeln!(out, ",{points:.6}")?;
            }
            Output::Json | Output::Ndjson => {
                let document = json!({
                    "timestamp": Some(input.time_text()).filter(|text| !text.is_empty()),
                    "value": row.value,
                    "anomaly_score": (points * 1e6).round() / 1e6,
                    "expected": score.and_then(|score| score.expected),
                    "reason": unusual.map(|score| reason(&score)),
                });
                match (asked.output, rows) {
                    (Output::Ndjson, _) => writeln!(out, "{document}")?,
                    (_, 1) => write!(out, "\n{document}")?,
                    _ => write!(out, ",\n{document}")?,
                }
            }
            Output::Table => {
                if let Some(score) = unusual.filter(|_| found.len() < SHOWN) {
                    let when = match input.time_text() {
                        "" => format!("line {}", row.line),
                        time => time.to_owned(),
                    };
                    let expected = score.expected.map_or_else(String::new, rounded);
                    let value = input.value_text().to_owned();
                    found.push([when, value, expected, format!("{points:.3}"), reason(&score)]);
                }
            }
        }
    }
    if rows == 0 {
        bail!("{} has a header and no rows: there is nothing to score", input.name());
    }
    match asked.output {
        Output::Json => writeln!(out, "\n]")?,
        Output::Table => {
            if !found.is_empty() {
                out.flush()?;
                print_table(["when", "value", "expected", "score", "why"], found.clone());
            }
            let more = anomalies - found.len() as u64;
            let more = if more > 0 { format!("; {more} more are in -o csv") } else { String::new() };
            let s = if anomalies == 1 { "y" } else { "ies" };
            writeln!(out, "{anomalies} anomal{s} in {rows} rows{more}")?;
        }
        Output::Csv | Output::Ndjson => {}
    }
    out.flush()?;
    let mut notes = Vec::new();
    if skipped > 0 {
        notes.push(format!("{skipped} rows without a value were skipped"));
    }
    if backwards > 0 {
        notes.push(format!("{backwards} times step back: rows were taken in the order they stand in"));
    }
    if rows <= WARM_UP as u64 {
        notes.push(format!("not enough data: {rows} rows, and the first {WARM_UP} are only learnt from"));
    }
    Ok(notes)
}

fn reason(score: &Score) -> String {
    let basis = match score.basis {
        Basis::Recent => "",
        Basis::Day => ", for this time of day",
        Basis::Week => ", for this time of the week",
    };
    format!("{}{basis}", score.reason.as_str())
}

/// A cell as CSV has it.
fn cell(out: &mut impl Write, text: &str) -> io::Result<()> {
    if text.contains([',', '"', '\n', '\r']) {
        write!(out, "\"{}\"", text.replace('"', "\"\""))
    } else {
        out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::tests::input;
    use super::*;

    fn said(text: &str, time: Option<&str>, output: Output, missing: Missing) -> Result<(String, Vec<String>)> {
        let source = Source {
            input: "series.csv".into(),
            time: time.map(Into::into),
            value: "value".into(),
            tz: "UTC".into(),
            time_format: None,
        };
        let mut out = Vec::new();
        let notes = score(&mut input(text, time)?, &Anomalies { source, missing, output }, &mut out)?;
        Ok((String::from_utf8(out).expect("text"), notes))
    }

    #[test]
    fn a_row_out_for_a_row_in_as_it_stood() {
        let text = "value,when\n1.50,2026-01-02 00:00:00\n\"2\",2026-01-01 00:00:00\n";
        let (csv, notes) = said(text, Some("when"), Output::Csv, Missing::Refuse).expect("scored");
        let rows = "2026-01-02 00:00:00,1.50,0.000000\n2026-01-01 00:00:00,2,0.000000\n";
        assert_eq!(csv, format!("timestamp,value,anomaly_score\n{rows}"));
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("1 times step back") && notes[1].contains("not enough data"), "{notes:?}");
    }

    #[test]
    fn a_row_without_a_value_is_refused_or_skipped() {
        let text = "value\n1\nNA\n3\n";
        let refused = said(text, None, Output::Csv, Missing::Refuse).expect_err("refused");
        assert_eq!(refused.to_string(), "series.csv:3: no value stands there: fill it in, or give --missing skip");
        let (csv, notes) = said(text, None, Output::Csv, Missing::Skip).expect("scored");
        assert_eq!(csv, "timestamp,value,anomaly_score\n,1,0.000000\n,NA,0.000000\n,3,0.000000\n");
        assert!(notes[0].starts_with("1 rows without a value"), "{notes:?}");
        let none = said("value\n", None, Output::Csv, Missing::Skip).expect_err("no rows");
        assert_eq!(none.to_string(), "series.csv has a header and no rows: there is nothing to score");
    }

    #[test]
    fn documents_say_what_was_expected_and_why() {
        let mut text = "value\n".to_owned();
        for n in 0..400 {
            text += &format!("{}\n", if n == 300 { 90 } else { 50 + (n * n * 7 + n) % 11 });
        }
        let (json, _) = said(&text, None, Output::Json, Missing::Refuse).expect("scored");
        let rows: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
        assert_eq!((rows.len(), &rows[300]["value"]), (400, &json!(90.0)));
        let reason = rows[300]["reason"].as_str().expect("a reason");
        assert!(!reason.is_empty() && rows[300]["anomaly_score"].as_f64() > Some(ALARM), "{}", rows[300]);
        assert!(rows[0]["expected"].is_null() && rows[299]["reason"].is_null());
        let (lines, _) = said(&text, None, Output::Ndjson, Missing::Refuse).expect("scored");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(lines.lines().nth(300).expect("it")).ok(),
            rows.get(300).cloned()
        );
        let (table, _) = said(&text, None, Output::Table, Missing::Refuse).expect("scored");
        assert_eq!(table, "1 anomaly in 400 rows\n");
    }
}
