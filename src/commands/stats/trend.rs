//! `rebound trend`: times by day, week, month or quarter, and whether they fall.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, ValueEnum};
use rebound_analytics::report::Dimension;
use rebound_analytics::trend::{self, Direction, Every, Measure, Period};
use serde::Serialize;

use super::show::{NONE, NOT_ENOUGH, Notes, or, p_value, span, table};
use super::{Loaded, Output, Scope, dimension};
use crate::cli::Done;
use crate::config::Config;

/// Is recovery getting faster: times by period, with the tests of Mann–Kendall, Theil–Sen and Pettitt.
///
/// A period's time is the median of the incidents that began in it. A trend is called one when chance alone would
/// show as much in less than 5 of 100 cases.
#[derive(Debug, Args)]
pub(crate) struct Trend {
    /// Length of a period; weeks begin on Monday.
    #[arg(long, value_enum, default_value = "month", value_name = "LENGTH")]
    period: Length,
    /// Which time: failure to recovery (t3 − t0), to detection (t1 − t0), decision to acknowledgement (t2 − t1) or to
    /// closing (t4 − t1).
    #[arg(long, value_enum, default_value = "recover", value_name = "TIME")]
    of: Which,
    /// One trend each: service, tier, site, cause, method, automation, drill, severity.
    #[arg(long, value_name = "WHAT", value_parser = dimension)]
    by: Option<Dimension>,
    #[command(flatten)]
    scope: Scope,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Length {
    Day,
    Week,
    Month,
    Quarter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Recover,
    Detect,
    Acknowledge,
    Close,
}

impl From<Length> for Every {
    fn from(length: Length) -> Self {
        match length {
            Length::Day => Self::Day,
            Length::Week => Self::Week,
            Length::Month => Self::Month,
            Length::Quarter => Self::Quarter,
        }
    }
}

impl From<Which> for Measure {
    fn from(which: Which) -> Self {
        match which {
            Which::Recover => Self::Recover,
            Which::Detect => Self::Detect,
            Which::Acknowledge => Self::Acknowledge,
            Which::Close => Self::Close,
        }
    }
}

/// One series and what can be said of it.
#[derive(Debug, Serialize)]
struct Series {
    periods: Vec<Period>,
    #[serde(flatten)]
    trend: trend::Trend,
}

#[derive(Debug, Serialize)]
struct Answer {
    period: &'static str,
    time_zone: String,
    measure: &'static str,
    by: Option<Dimension>,
    all: Series,
    groups: BTreeMap<String, Series>,
}

pub(crate) async fn trend(config: &Config, command: Trend) -> Result<Done> {
    let (every, measure): (Every, Measure) = (command.period.into(), command.of.into());
    let loaded = Loaded::new(config, &command.scope, false).await?;
    let cases = loaded.cases(&command.scope)?;
    let series = |samples: &[_]| -> Result<Series> {
        let periods = trend::periods(samples, every, command.scope.tz)?;
        let trend = trend::Trend::of(&periods, every);
        Ok(Series { periods, trend })
    };
    let mut samples = Vec::new();
    let mut grouped: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for case in &cases {
        let Some(sample) = measure.of(&case.incident) else { continue };
        samples.push(sample);
        if let Some(by) = command.by {
            grouped.entry(case.is(by, loaded.plan.as_deref())).or_default().push(sample);
        }
    }
    let groups = grouped.into_iter().map(|(name, samples)| Ok((name, series(&samples)?))).collect::<Result<_>>()?;
    let answer = Answer {
        period: every.as_str(),
        time_zone: command.scope.tz.name().to_owned(),
        measure: measure.as_str(),
        by: command.by,
        all: series(&samples)?,
        groups,
    };
    match command.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
        Output::Csv => print!("{}", csv(&answer)),
        Output::Table => print!("{}", show(&answer, samples.len(), cases.len())),
    }
    Ok(Done::Good)
}

fn csv(answer: &Answer) -> String {
    let mut text = String::from("group,period,start,n,median_seconds,p90_seconds,rolling_mean_seconds\n");
    let all = ("(all)".to_owned(), &answer.all);
    for (name, series) in answer.groups.iter().map(|(name, series)| (name.clone(), series)).chain([all]) {
        for row in &series.periods {
            let start = row.start.format("%Y-%m-%dT%H:%M:%SZ");
            text += &format!("{name},{},{start},{},{},{},{}\n", row.date, row.n, row.median, row.p90, row.rolling_mean);
        }
    }
    text
}

fn words(direction: Direction) -> &'static str {
    match direction {
        Direction::Falling => "falling",
        Direction::Rising => "rising",
        Direction::NotDistinguishable => "no trend distinguishable from chance",
        Direction::NotEnoughData => NOT_ENOUGH,
    }
}

fn show(answer: &Answer, samples: usize, incidents: usize) -> String {
    let what = match answer.measure {
        "recover" => "failure to recovery (t3 − t0)",
        "detect" => "failure to decision (t1 − t0)",
        "acknowledge" => "decision to acknowledgement (t2 − t1)",
        _ => "decision to closing (t4 − t1)",
    };
    let mut text = format!("{what} by {}, {}\n\n", answer.period, answer.time_zone);
    let mut notes = Notes::default();
    if answer.by.is_some() {
        text += &groups(answer);
        notes.say("slope: Theil–Sen, with its 95 % interval; p: Mann–Kendall, that there is no trend.");
        notes.say("changed after: the last period of the old level, by Pettitt's test, where p is below 5 %.");
    } else {
        let rows = answer.all.periods.iter().map(|row| {
            let times = [row.median, row.p90, row.rolling_mean].map(span);
            [row.date.to_string(), row.n.to_string()].into_iter().chain(times).collect()
        });
        text += &table(&[answer.period, "n", "median", "p90", "4-period mean"], 1, rows);
        text.push('\n');
        text += &judged(answer);
    }
    let periods = answer.all.periods.len();
    if (5..10).contains(&periods) {
        notes.say(format!("With {periods} periods the p-values are rough."));
    }
    if samples < incidents {
        notes.say(format!(
            "{} of {incidents} incidents have no such time (open, excluded or impossible).",
            incidents - samples
        ));
    }
    notes.say("Periods without such an incident have no row; a slope is by calendar all the same.");
    text + &notes.show()
}

fn signed(number: f64, digits: usize) -> String {
    format!("{number:.digits$}").replace('-', "−")
}

fn judged(answer: &Answer) -> String {
    let (trend, period) = (&answer.all.trend, answer.period);
    let mut text = format!("Trend: {}", words(trend.direction));
    match trend.mann_kendall {
        Some(found) if trend.direction != Direction::NotEnoughData => {
            text += &format!(
                " (Mann–Kendall: S = {}, Z = {}, {})\n",
                signed(found.s, 0),
                signed(found.z, 3),
                p_value(found.p)
            );
            if let Some(line) = trend.theil_sen {
                let [slope, low, high] = [line.slope, line.low, line.high].map(span);
                text += &format!("Slope: {slope} a {period} (Theil–Sen, 95 % {low} to {high})\n");
            }
            if let Some(found) = trend.pettitt {
                text += &match trend.changed_after {
                    Some(date) => format!(
                        "Changed after: the {period} of {date} (Pettitt: K = {}, {})\n",
                        found.k,
                        p_value(found.p)
                    ),
                    None => format!(
                        "Changed after: no {period} stands out (Pettitt: K = {}, {})\n",
                        found.k,
                        p_value(found.p)
                    ),
                };
            }
        }
        _ => text += ": a trend needs five periods at least\n",
    }
    text
}

fn groups(answer: &Answer) -> String {
    let name = answer.by.map_or("", Dimension::as_str);
    let slope = format!("slope a {}", answer.period);
    let header = [name, "periods", "n", "first", "last", &slope, "95 % from", "to", "p", "trend", "changed after"];
    let all = ("(all)".to_owned(), &answer.all);
    let rows = answer.groups.iter().map(|(name, series)| (name.clone(), series)).chain([all]).map(|(name, series)| {
        let Series { periods, trend } = series;
        let told = trend.direction != Direction::NotEnoughData;
        let line = trend.theil_sen.filter(|_| told);
        let of = |pick: Option<f64>| or(pick.map(span), NONE);
        let p = trend.mann_kendall.filter(|_| told).map(|found| found.p);
        let p = or(p.map(|p| if p < 0.000_1 { "< 0.0001".to_owned() } else { format!("{p:.4}") }), NONE);
        let direction = match trend.direction {
            Direction::NotDistinguishable => "none",
            direction => words(direction),
        };
        vec![
            name,
            periods.len().to_string(),
            periods.iter().map(|period| period.n).sum::<usize>().to_string(),
            of(periods.first().map(|period| period.median)),
            of(periods.last().map(|period| period.median)),
            of(line.map(|line| line.slope)),
            of(line.map(|line| line.low)),
            of(line.map(|line| line.high)),
            p,
            direction.to_owned(),
            or(trend.changed_after.filter(|_| told).map(|date| date.to_string()), NONE),
        ]
    });
    table(&header, 1, rows)
}
