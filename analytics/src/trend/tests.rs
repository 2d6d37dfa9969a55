//! Periods against the Rust definitions and against calendars worked out by hand.

use std::collections::BTreeMap;

use chrono::Days;
use proptest::prelude::*;
use rebound_schemas::incident::{Record, fold};

use super::*;
use crate::fixture::{at, excluded, opened, outage, resolved};
use crate::stats;

const DAY: i64 = 86_400;

fn recoveries(record: &Record) -> Vec<(DateTime<Utc>, f64)> {
    record.incidents().filter_map(|incident| Measure::Recover.of(&incident)).collect()
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn what_has_no_recovery_time_is_in_no_period() {
    assert_eq!(periods(&[], Every::Week, Tz::UTC).unwrap(), []);
    // 2026-01-01 is a Thursday: its week began on Monday, 2025-12-29.
    let events = [
        outage(1, "api", 0, 60),
        vec![opened(2, "api", 5, 15)],
        outage(3, "db", 6, 5_000),
        vec![excluded(3, "db", 6_000)],
        vec![opened(4, "db", 100, 16), resolved(4, "db", 50, 101)],
    ]
    .concat();
    let found = periods(&recoveries(&fold(&events)), Every::Week, Tz::UTC).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].start.to_rfc3339(), "2025-12-29T00:00:00+00:00");
    assert_eq!((found[0].n, found[0].median, found[0].p90, found[0].rolling_mean), (1, 60.0, 60.0, 60.0));
}

/// Each moment on either side of a boundary in local time, by the calendars of the places.
#[test]
fn periods_begin_at_local_midnight_whatever_the_clocks_do() {
    for (zone, every, moment, date, start) in [
        // Berlin went to summer time on Sunday 2026-03-29: Monday began at 22:00 UTC, not 23:00.
        ("Europe/Berlin", Every::Week, "2026-03-29T21:59:59Z", "2026-03-23", "2026-03-22T23:00:00Z"),
        ("Europe/Berlin", Every::Week, "2026-03-29T22:00:00Z", "2026-03-30", "2026-03-29T22:00:00Z"),
        ("Europe/Berlin", Every::Month, "2026-03-31T22:00:00Z", "2026-04-01", "2026-03-31T22:00:00Z"),
        ("Europe/Berlin", Every::Quarter, "2026-03-31T21:59:59Z", "2026-01-01", "2025-12-31T23:00:00Z"),
        // The hour from 01:00 UTC on 2026-10-25 was 02:00 to 03:00 for the second time.
        ("Europe/Berlin", Every::Day, "2026-10-25T01:30:00Z", "2026-10-25", "2026-10-24T22:00:00Z"),
        ("America/New_York", Every::Month, "2026-11-01T03:59:59Z", "2026-10-01", "2026-10-01T04:00:00Z"),
        ("America/New_York", Every::Month, "2026-12-01T04:59:59Z", "2026-11-01", "2026-11-01T04:00:00Z"),
        // Cairo has no midnight on 2026-04-24: the day begins at 01:00, which is 22:00 UTC.
        ("Africa/Cairo", Every::Day, "2026-04-23T22:00:00Z", "2026-04-24", "2026-04-23T22:00:00Z"),
        ("Africa/Cairo", Every::Day, "2026-04-23T21:59:59Z", "2026-04-23", "2026-04-22T22:00:00Z"),
        ("Asia/Kathmandu", Every::Day, "2026-01-01T18:15:00Z", "2026-01-02", "2026-01-01T18:15:00Z"),
        ("UTC", Every::Quarter, "2026-12-31T23:59:59Z", "2026-10-01", "2026-10-01T00:00:00Z"),
    ] {
        let found = periods(&[(instant(moment), 7.0)], every, zone.parse().unwrap()).unwrap();
        let found: Vec<_> = found.iter().map(|period| (period.date.to_string(), period.start)).collect();
        assert_eq!(found, [(date.to_owned(), instant(start))], "{zone} {moment}");
    }
}

/// A slope is by calendar: scipy.stats.theilslopes([310, …], [0, 1, 3, 4, 7, 8, 9, 12]), months without a recovery
/// in between; z by pymannkendall.
#[test]
fn a_trend_keeps_the_places_of_empty_periods() {
    let months = [(0, 310.), (1, 250.), (3, 265.), (4, 190.), (7, 205.), (8, 180.), (9, 240.), (12, 120.)];
    let samples: Vec<_> = months
        .iter()
        .map(|(month, seconds)| {
            let date = NaiveDate::from_ymd_opt(2025 + month / 12, (month % 12) as u32 + 1, 15).unwrap();
            (date.and_time(NaiveTime::MIN).and_utc(), *seconds)
        })
        .collect();
    let found = periods(&samples, Every::Month, Tz::UTC).unwrap();
    let trend = Trend::of(&found, Every::Month);
    let line = trend.theil_sen.unwrap();
    assert_eq!((line.slope, line.intercept, line.low, line.high), (-15.0, 305.0, -20.0, -1.25));
    assert!((trend.mann_kendall.unwrap().z + 2.103_204_552_047_922_3).abs() < 1e-9);
    assert_eq!((trend.direction, trend.changed_after), (Direction::Falling, None));

    let weeks = periods(&samples[..4], Every::Week, Tz::UTC).unwrap();
    assert_eq!(Trend::of(&weeks, Every::Week).direction, Direction::NotEnoughData);
    let nothing = Trend::of(&[], Every::Week);
    assert_eq!((nothing.direction, nothing.mann_kendall, nothing.theil_sen), (Direction::NotEnoughData, None, None));
    let level = Trend::of(&found.iter().map(|p| Period { median: 5.0, ..p.clone() }).collect::<Vec<_>>(), Every::Month);
    assert_eq!(level.direction, Direction::NotDistinguishable);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn weeks_equal_the_rust_definitions(history in prop::collection::vec((0..200 * DAY, 0..50_000i64), 1..80)) {
        let mut events = Vec::new();
        let mut weeks: BTreeMap<NaiveDate, Vec<f64>> = BTreeMap::new();
        for (n, (t0, lasted)) in (0..).zip(&history) {
            events.extend(outage(n, "api", *t0, t0 + lasted));
            let day = at(*t0).date_naive();
            let monday = day - Days::new(u64::from(day.weekday().num_days_from_monday()));
            weeks.entry(monday).or_default().push(*lasted as f64);
        }
        let found = periods(&recoveries(&fold(&events)), Every::Week, Tz::UTC).unwrap();
        prop_assert_eq!(found.len(), weeks.len());
        for (period, (monday, values)) in found.iter().zip(&weeks) {
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
