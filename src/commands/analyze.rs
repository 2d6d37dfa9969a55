//! `rebound analyze anomalies` and `rebound analyze forecast`: what is unusual in a series of one's own, and what comes
//! next. Nothing of Rebound need be running, and nothing is kept.

mod anomalies;
mod forecast;
mod input;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::Done;

/// `rebound analyze …`
#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeCommand {
    /// Score every row of a series by how unusual it is, from the rows before it and nothing else.
    ///
    /// A score from 0.5 on is an anomaly; what goes on within the next 100 rows is told once. The first 150 rows are
    /// only learnt from. With times, a daily and a weekly season are found by themselves.
    Anomalies(anomalies::Anomalies),
    /// Forecast a series of equal steps, with intervals, or say that there is not enough data.
    ///
    /// Exponential smoothing, Theta, a damped trend and the seasonal naive forecast are tried on the past; what counts
    /// is their mean, each weighted by how well it did. Where no value is negative, no forecast is.
    Forecast(forecast::Forecast),
}

/// A series in a file.
#[derive(Debug, Args)]
struct Source {
    /// The CSV file, with a header; - is standard input.
    #[arg(long, value_name = "FILE")]
    input: std::path::PathBuf,
    /// Column of the times; without it rows are steps in their order.
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// Column of the values.
    #[arg(long, value_name = "COLUMN", default_value = "value")]
    value: String,
    /// Time zone of times that name none, as in Europe/Berlin.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// How times are written (as for strftime), where they are not understood by themselves.
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One document.
    Json,
    /// An object a row.
    Ndjson,
    /// With a header.
    Csv,
}

pub(crate) fn analyze(command: AnalyzeCommand) -> Result<Done> {
    match command {
        AnalyzeCommand::Anomalies(asked) => anomalies::anomalies(&asked),
        AnalyzeCommand::Forecast(asked) => forecast::forecast(&asked),
    }
}

/// A number for people: six digits that count.
fn rounded(value: f64) -> String {
    if value == 0.0 || !(1e-4..1e15).contains(&value.abs()) {
        return if value == 0.0 { "0".to_owned() } else { format!("{value:.5e}") };
    }
    let digits = (5 - value.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people_have_six_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-431.182_73, "-431.183"),
            (0.001_234_567_8, "0.00123457"),
            (123_456_789.4, "123456789"),
            (1e-9, "1.00000e-9"),
            (1e20, "1.00000e20"),
        ] {
            assert_eq!(rounded(value), text);
        }
    }
}
