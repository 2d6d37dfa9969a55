//! `rebound analyze forecast`: a series of equal steps from a file, forecast, and how that came about.

mod steps;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use rebound_analytics::forecast::{Ask, Forecast as Made, Step, forecast as made_of};
use serde_json::{Map, Value, json};

use super::input::{Input, Row};
use super::{Output, Source, rounded};
use crate::cli::Done;
use steps::Rhythm;

/// Rows that are held; only the newest are looked at anyway.
const MOST_ROWS: usize = 1_000_000;

/// `rebound analyze forecast`
#[derive(Debug, Args)]
pub(crate) struct Forecast {
    #[command(flatten)]
    source: Source,
    /// Steps after which the series repeats: 12 for months, 4 for quarters, 7 for days; 1 for none.
    #[arg(long, value_name = "STEPS", default_value_t = 1)]
    season: usize,
    /// How many steps ahead.
    #[arg(long, value_name = "STEPS", default_value_t = 12)]
    horizon: usize,
    /// Interval that holds so many percent of the values to come; may be given again.
    #[arg(long, value_name = "PERCENT", default_values_t = [80.0, 95.0])]
    level: Vec<f64>,
    /// What becomes of rows without a value and of steps that are missing.
    #[arg(long, value_enum, default_value = "refuse", value_name = "WHAT")]
    missing: Missing,
    /// A row a step; the table and JSON say how the forecast came about, too.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Missing {
    /// An error with its line.
    Refuse,
    /// A straight line between the values on either side.
    Interpolate,
}

pub(super) fn forecast(asked: &Forecast) -> Result<Done> {
    let mut levels = asked.level.clone();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    let mut input = Input::open(&asked.source)?;
    let series = read(&mut input, asked.missing)?;
    let ask = Ask { season: asked.season, horizon: asked.horizon, levels };
    let made = made_of(&series.values, &ask).map_err(|error| anyhow::anyhow!("{}: {error}", input.name()))?;
    match asked.output {
        Output::Csv => print!("{}", csv(&made, &ask, series.rhythm.as_ref())),
        Output::Table => print!("{}", table(&made, &ask, series.rhythm.as_ref())),
        Output::Json => println!("{}", serde_json::to_string_pretty(&document(&made, &ask, series.rhythm.as_ref()))?),
        Output::Ndjson => {
            for step in &made.steps {
                println!("{}", Value::Object(object(step, series.rhythm.as_ref())));
            }
        }
    }
    if matches!(asked.output, Output::Csv | Output::Ndjson) {
        for note in &made.notes {
            eprintln!("rebound: {note}");
        }
    }
    Ok(Done::Good)
}

/// A series at equal steps.
#[derive(Debug)]
struct Series {
    values: Vec<f64>,
    /// When its steps are, where a column says so.
    rhythm: Option<Rhythm>,
}

fn read(input: &mut Input, missing: Missing) -> Result<Series> {
    let mut rows: Vec<Row> = Vec::new();
    let mut last_text = String::new();
    while let Some(row) = input.next()? {
        if row.value.is_none() && missing == Missing::Refuse {
            bail!("{}: no value stands there: fill it in, or give --missing interpolate", input.place(row.line));
        }
        if rows.len() == MOST_ROWS {
            bail!("{} has more than {MOST_ROWS} rows: give it the newest, or larger steps", input.name());
        }
        input.time_text().clone_into(&mut last_text);
        rows.push(row);
    }
    let (rhythm, values) = match rows.first().is_some_and(|row| row.at.is_some()) {
        true => {
            let (rhythm, places) = Rhythm::of(&rows, &last_text, missing == Missing::Interpolate)
                .map_err(|fault| anyhow::anyhow!("{}: {}", input.place(fault.line), fault.what))?;
            let mut values = vec![None; places.last().map_or(0, |last| last + 1)];
            for (row, place) in rows.iter().zip(places) {
                values[place] = row.value;
            }
            (rhythm, values)
        }
        false => (None, rows.iter().map(|row| row.value).collect()),
    };
    Ok(Series { values: filled(values), rhythm })
}

/// Straight lines over what is missing; what is missing at either end is left out.
fn filled(values: Vec<Option<f64>>) -> Vec<f64> {
    let mut filled: Vec<f64> = Vec::with_capacity(values.len());
    let mut missing = 0;
    for value in values {
        let Some(value) = value else {
            missing += 1;
            continue;
        };
        if let Some(before) = filled.last().copied() {
            let parts = f64::from(missing + 1);
            filled.extend((1..=missing).map(|part| before + (value - before) * f64::from(part) / parts));
        }
        missing = 0_u32;
        filled.push(value);
    }
    filled
}

/// `80`, `97.5`.
fn column(end: &str, level: f64) -> String {
    format!("{end}_{level}")
}

fn columns(ask: &Ask, timed: bool) -> Vec<String> {
    let mut columns = vec!["step".to_owned()];
    if timed {
        columns.push("timestamp".to_owned());
    }
    columns.push("forecast".to_owned());
    columns.extend(ask.levels.iter().flat_map(|level| ["lower", "upper"].map(|end| column(end, *level))));
    columns
}

fn cells(step: &Step, rhythm: Option<&Rhythm>, number: impl Fn(f64) -> String) -> Vec<String> {
    let mut cells = vec![step.step.to_string()];
    cells.extend(rhythm.map(|rhythm| rhythm.ahead(step.step)));
    cells.push(number(step.forecast));
    cells.extend(step.intervals.iter().flat_map(|interval| [interval.lower, interval.upper].map(&number)));
    cells
}

fn csv(made: &Made, ask: &Ask, rhythm: Option<&Rhythm>) -> String {
    let mut text = columns(ask, rhythm.is_some()).join(",") + "\n";
    for step in &made.steps {
        text += &(cells(step, rhythm, |value| value.to_string()).join(",") + "\n");
    }
    text
}

fn object(step: &Step, rhythm: Option<&Rhythm>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("step".into(), json!(step.step));
    if let Some(rhythm) = rhythm {
        object.insert("timestamp".into(), json!(rhythm.ahead(step.step)));
    }
    object.insert("forecast".into(), json!(step.forecast));
    for interval in &step.intervals {
        object.insert(column("lower", interval.level), json!(interval.lower));
        object.insert(column("upper", interval.level), json!(interval.upper));
    }
    object
}

fn document(made: &Made, ask: &Ask, rhythm: Option<&Rhythm>) -> Value {
    json!({
        "forecast": made.steps.iter().map(|step| object(step, rhythm)).collect::<Vec<_>>(),
        "model": {
            "methods": made.parts,
            "logarithmic": made.logarithmic,
            "season": ask.season,
            "seasonal": made.seasonal,
            "values": made.values,
            "origins": made.origins,
            "why": why(made, ask),
        },
        "notes": made.notes,
    })
}

/// How the forecast came about, in a sentence.
fn why(made: &Made, ask: &Ask) -> String {
    let parts: Vec<String> = made
        .parts
        .iter()
        .map(|part| {
            let name = part.method.as_str().replace('_', " ");
            let error = part.error_to_naive.map_or_else(String::new, |error| format!(", error {error:.2}"));
            format!("{name} {:.0} % (weight{error})", 100.0 * part.weight)
                .replace(" % (weight)", " %")
                .replace("(weight, ", "(")
        })
        .collect();
    let tried = match made.origins {
        0 => "the past could not be tried".to_owned(),
        1 => "errors are to the seasonal naive forecast's, from 1 point of the past".to_owned(),
        n => format!("errors are to the seasonal naive forecast's, from {n} points of the past"),
    };
    let scale = if made.logarithmic { "; in logarithms, since its swings grow with its level" } else { "" };
    let season = if made.seasonal { format!("; a season of {} steps", ask.season) } else { String::new() };
    format!("{} values; {}; {tried}{season}{scale}", made.values, parts.join(", "))
}

fn table(made: &Made, ask: &Ask, rhythm: Option<&Rhythm>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns(ask, rhythm.is_some()));
    table.add_rows(made.steps.iter().map(|step| cells(step, rhythm, rounded)));
    let notes: String = made.notes.iter().map(|note| format!("note: {note}\n")).collect();
    format!("{table}\n{}\n{notes}", why(made, ask))
}

#[cfg(test)]
mod tests {
    use super::super::input::tests::input;
    use super::*;

    fn series(text: &str, time: Option<&str>, missing: Missing) -> Result<Series> {
        read(&mut input(text, time)?, missing)
    }

    #[test]
    fn gaps_are_refused_or_bridged() {
        let text = "day,value\n2026-01-01,1\n2026-01-02,\n2026-01-04,4\n2026-01-05,5\n2026-01-06,6\n";
        let refused = series(text, Some("day"), Missing::Refuse).expect_err("refused").to_string();
        assert_eq!(refused, "series.csv:3: no value stands there: fill it in, or give --missing interpolate");
        let bridged = series(text, Some("day"), Missing::Interpolate).expect("bridged");
        assert_eq!(bridged.values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(bridged.rhythm.map(|rhythm| rhythm.ahead(1)).as_deref(), Some("2026-01-07"));
        assert_eq!(filled(vec![None, Some(1.0), None, None, Some(4.0), None]), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn answers_name_their_intervals() {
        let values: Vec<f64> = (0..30).map(|n| 100.0 + f64::from(n * 7 % 11)).collect();
        let ask = Ask { season: 1, horizon: 2, levels: vec![80.0, 97.5] };
        let made = made_of(&values, &ask).expect("enough");
        let csv = csv(&made, &ask, None);
        assert_eq!(csv.lines().next(), Some("step,forecast,lower_80,upper_80,lower_97.5,upper_97.5"));
        assert_eq!(csv.lines().count(), 3);
        let document = document(&made, &ask, None);
        assert!(document["forecast"][1]["upper_97.5"].as_f64() > document["forecast"][1]["upper_80"].as_f64());
        assert!(document["model"]["why"].as_str().is_some_and(|why| why.starts_with("30 values; ")), "{document}");
        assert!(table(&made, &ask, None).contains("lower_97.5"));
    }
}
