//! Is recovery getting better: times by day, week, month or quarter, by a Polars group-by over time, and what
//! [`series`](crate::series) says of the medians.
//!
//! An incident belongs to the period of its t0 in a time zone: periods begin at local midnight, so a day of the change
//! to summer time has 23 hours. Excluded, impossible and open incidents have no recovery time and are in no period's
//! figures, by the same rules as [`mttr`](crate::mttr). A period without a recovery has no row; its place is kept, so
//! that a slope is by calendar and not by row.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, TimestampMicrosecondArray};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use polars::prelude::{
    ClosedWindow, DataFrame, Duration, DynamicGroupOptions, IntoLazy, Label, PolarsError, QuantileMethod,
    RollingOptionsDynamicWindow, StartBy, col, len, lit,
};
use rebound_schemas::incident::Incident;
use serde::Serialize;

use crate::comparison::SIGNIFICANT;
use crate::frame::{FrameError, to_polars};
use crate::mttr::seconds;
use crate::series::{ChangePoint, MannKendall, TheilSen, mann_kendall, pettitt, theil_sen};

/// Length of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
    /// From the first of January, April, July, October.
    Quarter,
}

impl Every {
    /// Every length, shortest first.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Quarter];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
        }
    }

    /// `n` periods as Polars writes them.
    fn times(self, n: u32) -> Result<Duration, PolarsError> {
        let unit = match self {
            Self::Day => "d",
            Self::Week => "w",
            Self::Month => "mo",
            Self::Quarter => "q",
        };
        Duration::try_parse(&format!("{n}{unit}"))
    }

    /// Which period begins on this day, counted from one long ago.
    fn place(self, start: NaiveDate) -> i32 {
        match self {
            Self::Day => start.num_days_from_ce(),
            Self::Week => start.num_days_from_ce().div_euclid(7),
            Self::Month => start.year() * 12 + start.month0() as i32,
            Self::Quarter => start.year() * 4 + start.month0() as i32 / 3,
        }
    }
}

/// Which time of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// t3 − t0.
    Recover,
    /// t1 − t0.
    Detect,
    /// t2 − t1, by whomever.
    Acknowledge,
    /// t4 − t1.
    Close,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 4] = [Self::Recover, Self::Detect, Self::Acknowledge, Self::Close];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recover => "recover",
            Self::Detect => "detect",
            Self::Acknowledge => "acknowledge",
            Self::Close => "close",
        }
    }

    /// t0 and the time of an incident in seconds, where it counts and has one.
    #[must_use]
    pub fn of(self, incident: &Incident) -> Option<(DateTime<Utc>, f64)> {
        if incident.is_excluded() || incident.is_impossible() {
            return None;
        }
        let span = match self {
            Self::Recover => incident.time_to_recover(),
            Self::Detect => incident.time_to_detect(),
            Self::Acknowledge => incident.time_to_acknowledge(),
            Self::Close => incident.time_to_close(),
        };
        Some((incident.first_failure_at, seconds(span?)))
    }
}

/// The incidents of one period; times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Period {
    /// Its first day, in the time zone.
    pub date: NaiveDate,
    /// When that day began.
    pub start: DateTime<Utc>,
    /// Incidents that began in it and have the time in question.
    pub n: usize,
    /// Median of their times.
    #[serde(rename = "median_seconds")]
    pub median: f64,
    /// 90th percentile.
    #[serde(rename = "p90_seconds")]
    pub p90: f64,
    /// Mean over the incidents of this period and the three before it.
    #[serde(rename = "rolling_mean_seconds")]
    pub rolling_mean: f64,
}

/// Which way the medians go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// They fall: recovery gets faster.
    Falling,
    /// They rise.
    Rising,
    /// What is seen is what chance could do.
    NotDistinguishable,
    /// Fewer than five periods: even a steady fall would not be a trend at 5 %.
    NotEnoughData,
}

/// What can be said of the medians of periods.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// What it comes to.
    pub direction: Direction,
    /// Whether there is a trend.
    pub mann_kendall: Option<MannKendall>,
    /// How steep, in seconds by period.
    #[serde(rename = "theil_sen_seconds_per_period")]
    pub theil_sen: Option<TheilSen>,
    /// When the level changed, where it did (p below 5 %): the last period before the change.
    pub changed_after: Option<NaiveDate>,
    /// The test of that.
    pub pettitt: Option<ChangePoint>,
}

/// Fewest periods in which a trend can show at 5 %.
const FEWEST_PERIODS: usize = 5;

impl Trend {
    /// Judges the medians of periods, oldest first.
    #[must_use]
    pub fn of(periods: &[Period], every: Every) -> Self {
        let medians: Vec<f64> = periods.iter().map(|period| period.median).collect();
        let place = |period: &Period| f64::from(every.place(period.date));
        let first = periods.first().map_or(0.0, place);
        let points: Vec<_> = periods.iter().map(|period| (place(period) - first, period.median)).collect();
        let (mann_kendall, pettitt) = (mann_kendall(&medians), pettitt(&medians));
        let direction = match mann_kendall {
            Some(found) if found.n >= FEWEST_PERIODS => match found {
                found if found.p >= SIGNIFICANT => Direction::NotDistinguishable,
                found if found.s < 0.0 => Direction::Falling,
                _ => Direction::Rising,
            },
            _ => Direction::NotEnoughData,
        };
        let changed = pettitt.filter(|found| found.p < SIGNIFICANT);
        let changed_after = changed.map(|found| periods[found.last_before].date);
        Self { direction, mann_kendall, theil_sen: theil_sen(&points), changed_after, pettitt }
    }
}

/// The periods of samples (t0, seconds) in any order, oldest first.
///
/// # Errors
/// Polars refused the frame, which would be a defect.
pub fn periods(samples: &[(DateTime<Utc>, f64)], every: Every, zone: Tz) -> Result<Vec<Period>, FrameError> {
    // Grouped by what clocks on the wall showed, which no change of clocks can make ambiguous: 02:30 belongs to its day
    // whether it came once, twice, or never.
    let on_the_wall = |at: &DateTime<Utc>| at.with_timezone(&zone).naive_local().and_utc().timestamp_micros();
    let mut times: Vec<(i64, f64)> = samples.iter().map(|(at, seconds)| (on_the_wall(at), *seconds)).collect();
    if times.is_empty() {
        return Ok(Vec::new());
    }
    times.sort_unstable_by_key(|(start, _)| *start);
    let starts: TimestampMicrosecondArray = times.iter().map(|(start, _)| Some(*start)).collect();
    let lasted: Float64Array = times.iter().map(|(_, lasted)| Some(*lasted)).collect();
    let batch = RecordBatch::try_from_iter([("start", Arc::new(starts) as _), ("seconds", Arc::new(lasted) as _)])
        .map_err(|source| FrameError::Arrow { column: "start".into(), source })?;
    read(&by_period(to_polars(&batch)?, every)?, zone)
}

fn by_period(frame: DataFrame, every: Every) -> Result<DataFrame, FrameError> {
    let options = DynamicGroupOptions {
        index_column: "start".into(),
        every: every.times(1)?,
        period: every.times(1)?,
        offset: Duration::try_parse("0d")?,
        label: Label::Left,
        include_boundaries: false,
        closed_window: ClosedWindow::Left,
        start_by: StartBy::WindowBound,
    };
    // A mean of means would weigh a quiet week like a bad one: sums and counts are rolled apart.
    let four = RollingOptionsDynamicWindow {
        window_size: every.times(4)?,
        min_periods: 1,
        closed_window: ClosedWindow::Right,
        fn_params: None,
    };
    let grouped = frame.lazy().group_by_dynamic(col("start"), [], options).agg([
        len().cast(polars::prelude::DataType::Float64).alias("n"),
        col("seconds").median().alias("median"),
        col("seconds").quantile(lit(0.9), QuantileMethod::Linear).alias("p90"),
        col("seconds").sum().alias("sum"),
    ]);
    let rolled = |column: &str| col(column).rolling_sum_by(col("start"), four.clone());
    Ok(grouped.with_column((rolled("sum") / rolled("n")).alias("rolling_mean")).collect()?)
}

fn read(frame: &DataFrame, zone: Tz) -> Result<Vec<Period>, FrameError> {
    let double = |name: &str| -> Result<Vec<f64>, FrameError> {
        Ok(frame.column(name)?.f64()?.iter().map(|value| value.unwrap_or_default()).collect())
    };
    let starts = frame.column("start")?.datetime()?.physical().clone();
    let (n, median, p90, rolling) = (double("n")?, double("median")?, double("p90")?, double("rolling_mean")?);
    let period = |(row, start): (usize, Option<i64>)| {
        let date = DateTime::from_timestamp_micros(start?)?.date_naive();
        Some(Period {
            date,
            start: day_begins(date, zone),
            n: n[row] as usize,
            median: median[row],
            p90: p90[row],
            rolling_mean: rolling[row],
        })
    };
    Ok(starts.iter().enumerate().filter_map(period).collect())
}

/// When a day begins in a time zone: at midnight, the first if there are two, and where a change of clocks leaves
/// midnight out, at the first moment after it.
#[must_use]
pub fn day_begins(date: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = date.and_time(NaiveTime::MIN);
    let exists = |wall: NaiveDateTime| wall.and_local_timezone(zone).earliest().map(|at| at.to_utc());
    // Clocks were never put forward by more than a day.
    let quarters = (0..=96).map(|quarter| midnight + TimeDelta::minutes(15 * quarter));
    quarters.into_iter().find_map(exists).unwrap_or_else(|| midnight.and_utc())
}

#[cfg(test)]
mod tests;
