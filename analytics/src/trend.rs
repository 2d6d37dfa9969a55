//! Is recovery getting better: recovery times by week, month or quarter, by a Polars group-by over time.
//!
//! An incident belongs to the period of its t0. Excluded, impossible and open incidents have no recovery time and
//! are in no period's figures, by the same rules as [`mttr`](crate::mttr). A period without a recovery has no row.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, TimestampMicrosecondArray};
use chrono::{DateTime, Utc};
use polars::prelude::{
    ClosedWindow, DataFrame, Duration, DynamicGroupOptions, IntoLazy, Label, PolarsError, QuantileMethod,
    RollingOptionsDynamicWindow, StartBy, col, len, lit,
};
use rebound_schemas::ServiceId;
use rebound_schemas::incident::Record;
use serde::Serialize;

use crate::frame::{FrameError, to_polars};
use crate::mttr::seconds;

/// Length of a period, in UTC.
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
    /// The period that a text such as `1w` writes: `1d`, `1w`, `1mo`, `1q`, the 1 optional.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('1').unwrap_or(text) {
            "d" => Some(Self::Day),
            "w" => Some(Self::Week),
            "mo" => Some(Self::Month),
            "q" => Some(Self::Quarter),
            _ => None,
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
}

/// The recoveries of one period; times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Period {
    /// Where it begins.
    pub start: DateTime<Utc>,
    /// Incidents that began in it and recovered.
    pub n: usize,
    /// Median of their recovery times.
    pub median: f64,
    /// 90th percentile.
    pub p90: f64,
    /// Mean over the recoveries of this period and the three before it.
    pub rolling_mean: f64,
}

/// The trend of recovery times (t3 − t0), of one service or of all, oldest period first.
///
/// # Errors
/// Polars refused the frame, which would be a defect.
pub fn mttr_trend(record: &Record, service: Option<&ServiceId>, every: Every) -> Result<Vec<Period>, FrameError> {
    let mut times: Vec<(i64, f64)> = record
        .incidents()
        .filter(|incident| !incident.is_excluded() && service.is_none_or(|service| incident.service == *service))
        .filter_map(|incident| Some((incident.first_failure_at.timestamp_micros(), incident.time_to_recover()?)))
        .map(|(start, lasted)| (start, seconds(lasted)))
        .collect();
    if times.is_empty() {
        return Ok(Vec::new());
    }
    times.sort_unstable_by_key(|(start, _)| *start);
    let starts: TimestampMicrosecondArray = times.iter().map(|(start, _)| Some(*start)).collect();
    let lasted: Float64Array = times.iter().map(|(_, lasted)| Some(*lasted)).collect();
    let batch = RecordBatch::try_from_iter([("start", Arc::new(starts) as _), ("mttr", Arc::new(lasted) as _)])
        .map_err(|source| FrameError::Arrow { column: "start".into(), source })?;
    periods(&by_period(to_polars(&batch)?, every)?)
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
        col("mttr").median().alias("median"),
        col("mttr").quantile(lit(0.9), QuantileMethod::Linear).alias("p90"),
        col("mttr").sum().alias("sum"),
    ]);
    let rolled = |column: &str| col(column).rolling_sum_by(col("start"), four.clone());
    Ok(grouped.with_column((rolled("sum") / rolled("n")).alias("rolling_mean")).collect()?)
}

fn periods(frame: &DataFrame) -> Result<Vec<Period>, FrameError> {
    let double = |name: &str| -> Result<Vec<f64>, FrameError> {
        Ok(frame.column(name)?.f64()?.iter().map(|value| value.unwrap_or_default()).collect())
    };
    let starts = frame.column("start")?.datetime()?.physical().clone();
    let (n, median, p90, rolling) = (double("n")?, double("median")?, double("p90")?, double("rolling_mean")?);
    let period = |(row, start): (usize, Option<i64>)| {
        Some(Period {
            start: DateTime::from_timestamp_micros(start?)?,
            n: n[row] as usize,
            median: median[row],
            p90: p90[row],
            rolling_mean: rolling[row],
        })
    };
    Ok(starts.iter().enumerate().filter_map(period).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::{Datelike, Days, NaiveDate};
    use proptest::prelude::*;
    use rebound_schemas::incident::fold;

    use super::*;
    use crate::fixture::{excluded, opened, resolved};
    use crate::stats;

    const DAY: i64 = 86_400;

    #[test]
    fn periods_are_written_as_people_do() {
        assert_eq!(Every::parse("1w"), Some(Every::Week));
        assert_eq!(Every::parse("mo"), Some(Every::Month));
        assert_eq!((Every::parse("2w"), Every::parse("")), (None, None));
    }

    #[test]
    fn what_has_no_recovery_time_is_in_no_period() {
        assert_eq!(mttr_trend(&fold([]), None, Every::Week).unwrap(), []);
        // 2026-01-01 is a Thursday: its week began on Monday, 2025-12-29.
        let events = [
            opened(1, "api", 0, 10),
            resolved(1, "api", 60, 70),
            opened(2, "api", 5, 15),
            opened(3, "db", 6, 16),
            resolved(3, "db", 5_000, 5_001),
            excluded(3, "db", 6_000),
        ];
        let record = fold(&events);
        let trend = mttr_trend(&record, None, Every::Week).unwrap();
        assert_eq!(trend.len(), 1);
        assert_eq!(trend[0].start.to_rfc3339(), "2025-12-29T00:00:00+00:00");
        assert_eq!((trend[0].n, trend[0].median, trend[0].p90, trend[0].rolling_mean), (1, 60.0, 60.0, 60.0));
        let db = ServiceId::new("db").unwrap();
        assert_eq!(mttr_trend(&record, Some(&db), Every::Week).unwrap(), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn weeks_equal_the_rust_definitions(history in prop::collection::vec((0..200 * DAY, 0..50_000i64), 1..80)) {
            let mut events = Vec::new();
            let mut weeks: BTreeMap<NaiveDate, Vec<f64>> = BTreeMap::new();
            for (n, (t0, lasted)) in (0..).zip(&history) {
                events.extend([opened(n, "api", *t0, t0 + 9), resolved(n, "api", t0 + lasted, t0 + lasted + 9)]);
                let day = crate::fixture::at(*t0).date_naive();
                let monday = day - Days::new(u64::from(day.weekday().num_days_from_monday()));
                weeks.entry(monday).or_default().push(*lasted as f64);
            }
            let trend = mttr_trend(&fold(&events), None, Every::Week).unwrap();
            prop_assert_eq!(trend.len(), weeks.len());
            for (period, (monday, values)) in trend.iter().zip(&weeks) {
                prop_assert_eq!(period.start, monday.and_hms_opt(0, 0, 0).unwrap().and_utc());
                prop_assert_eq!(period.n, values.len());
                let sorted = stats::sorted(values);
                prop_assert!((period.median - stats::quantile(&sorted, 0.5).unwrap()).abs() < 1e-6);
                prop_assert!((period.p90 - stats::quantile(&sorted, 0.9).unwrap()).abs() < 1e-6);
                let four = weeks.range(*monday - Days::new(21)..=*monday).flat_map(|(_, values)| values.iter().copied());
                let mean = stats::mean(&four.collect::<Vec<_>>()).unwrap();
                prop_assert!((period.rolling_mean - mean).abs() < 1e-6, "{} {mean}", period.rolling_mean);
            }
        }
    }
}
