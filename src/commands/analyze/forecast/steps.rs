//! When the steps of a series are: every so many seconds, or months of the calendar, and which of them are missing.

use chrono::{DateTime, Datelike, Months, TimeDelta, Utc};

use super::super::input::Row;

/// The rhythm of a series' times.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rhythm {
    step: Unit,
    last: DateTime<Utc>,
    /// How the file writes its times.
    written: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unit {
    Time(TimeDelta),
    /// Of the calendar, on the day of the month that the first time has (or the month's last).
    Months {
        every: u32,
        day: u32,
    },
}

/// What is wrong with the times, and in which line.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) what: String,
}

impl Rhythm {
    /// The rhythm of rows that all have a time, and at which step, from 0, each row is. None of a single row.
    pub(super) fn of(rows: &[Row], written: &str, gaps: bool) -> Result<(Option<Self>, Vec<usize>), Fault> {
        let times: Vec<(u64, DateTime<Utc>)> = rows.iter().filter_map(|row| Some((row.line, row.at?))).collect();
        for pair in times.windows(2) {
            let [(before_line, before), (line, at)] = *pair else { unreachable!("windows of two") };
            let what = if at == before {
                format!("the time of line {before_line} stands there again: leave one of them out")
            } else if at < before {
                format!("its time is before that of line {before_line}: sort the rows by time")
            } else {
                continue;
            };
            return Err(Fault { line, what });
        }
        let (Some((_, last)), true) = (times.last(), times.len() > 1) else {
            return Ok((None, vec![0; times.len()]));
        };
        let step = Unit::of(&times);
        let mut places = vec![0];
        for pair in times.windows(2) {
            let [(before_line, before), (line, at)] = *pair else { unreachable!("windows of two") };
            let steps = step.between(before, at);
            match steps {
                Some(1) => {}
                Some(steps) if gaps && steps <= 10_000 => {}
                Some(steps) => {
                    let what = if steps == 2 { "a step is".to_owned() } else { format!("{} steps are", steps - 1) };
                    let what = format!(
                        "{what} missing between line {before_line} and this one (a step is {}): add the rows, give \
                         --missing interpolate, or leave --time out",
                        step.words()
                    );
                    return Err(Fault { line, what });
                }
                None => {
                    let what = format!(
                        "it is {} behind line {before_line}, where a step is {}: steps must be equal (or leave --time out)",
                        words(at - before),
                        step.words()
                    );
                    return Err(Fault { line, what });
                }
            }
            places.push(places[places.len() - 1] + steps.unwrap_or(1));
        }
        Ok((Some(Self { step, last: *last, written: format_of(written) }), places))
    }

    /// When the step so many behind the last is, as the file writes times.
    pub(super) fn ahead(&self, steps: usize) -> String {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let at = match self.step {
            Unit::Time(step) => step.checked_mul(i32::try_from(steps).unwrap_or(i32::MAX)).map(|by| self.last + by),
            Unit::Months { every, day } => {
                let month = self.last.with_day(1).and_then(|at| at.checked_add_months(Months::new(every * steps)));
                month.map(|month| month.with_day(day).unwrap_or_else(|| end_of_month(month)))
            }
        };
        at.unwrap_or(self.last).format(self.written).to_string()
    }
}

impl Unit {
    /// Months if all times are on one day of the month (or all at the ends of months) and at one time of day, else the
    /// difference that is there most often, the shorter of two.
    fn of(times: &[(u64, DateTime<Utc>)]) -> Self {
        let first = times[0].1;
        let day = times.iter().map(|(_, at)| at.day()).max().unwrap_or(1);
        let on_day = |at: &DateTime<Utc>| at.day() == day || *at == end_of_month(*at);
        let alike = times.iter().all(|(_, at)| on_day(at) && at.time() == first.time());
        let months = times.windows(2).map(|pair| month_of(pair[1].1) - month_of(pair[0].1)).min().unwrap_or(0);
        if alike && months > 0 {
            return Self::Months { every: u32::try_from(months).unwrap_or(1), day };
        }
        let mut differences: Vec<TimeDelta> = times.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
        differences.sort_unstable();
        let most =
            differences.chunk_by(|a, b| a == b).reduce(|most, next| if next.len() > most.len() { next } else { most });
        Self::Time(most.map_or(TimeDelta::seconds(1), |most| most[0]))
    }

    /// How many steps lie between two times; `None` if no whole number does.
    fn between(self, before: DateTime<Utc>, at: DateTime<Utc>) -> Option<usize> {
        let (whole, step) = match self {
            Self::Months { every, .. } => (i64::from(month_of(at) - month_of(before)), i64::from(every)),
            Self::Time(step) => ((at - before).num_milliseconds(), step.num_milliseconds().max(1)),
        };
        (whole % step == 0).then(|| usize::try_from(whole / step).ok()).flatten()
    }

    fn words(self) -> String {
        match self {
            Self::Months { every: 1, .. } => "a month".to_owned(),
            Self::Months { every: 12, .. } => "a year".to_owned(),
            Self::Months { every, .. } => format!("{every} months"),
            Self::Time(step) => words(step),
        }
    }
}

fn words(time: TimeDelta) -> String {
    time.to_std().map_or_else(|_| time.to_string(), |time| humantime::format_duration(time).to_string())
}

fn month_of(at: DateTime<Utc>) -> i32 {
    at.year() * 12 + at.month0().cast_signed()
}

/// The same time on the last day of its month.
fn end_of_month(at: DateTime<Utc>) -> DateTime<Utc> {
    (28..=31).rev().find_map(|day| at.with_day(day)).unwrap_or(at)
}

fn format_of(written: &str) -> &'static str {
    match written.len() {
        7 => "%Y-%m",
        10 if written.contains('-') => "%Y-%m-%d",
        _ if written.contains(' ') => "%Y-%m-%d %H:%M:%S",
        _ => "%Y-%m-%dT%H:%M:%SZ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(times: &[&str]) -> Vec<Row> {
        let at = |text: &&str| {
            let text = if text.len() == 10 { format!("{text}T00:00:00Z") } else { (*text).to_owned() };
            DateTime::parse_from_rfc3339(&text).expect("a time").to_utc()
        };
        let row = |(n, text): (usize, &&str)| Row { line: n as u64 + 2, at: Some(at(text)), value: Some(1.0) };
        times.iter().enumerate().map(row).collect()
    }

    fn ahead(times: &[&str], written: &str) -> [String; 2] {
        let (rhythm, _) = Rhythm::of(&rows(times), written, false).expect("a rhythm");
        let rhythm = rhythm.expect("more than one row");
        [rhythm.ahead(1), rhythm.ahead(3)]
    }

    #[test]
    fn steps_go_on_as_the_calendar_does() {
        for (times, written, expected) in [
            (&["2025-11-01", "2025-12-01", "2026-01-01"][..], "2026-01", ["2026-02", "2026-04"]),
            (&["2025-11-30", "2025-12-31", "2026-01-31"], "2026-01-31", ["2026-02-28", "2026-04-30"]),
            (&["2025-04-01", "2025-07-01", "2025-10-01"], "2025-10-01", ["2026-01-01", "2026-07-01"]),
            (&["2023-05-05", "2024-05-05", "2025-05-05"], "2025-05-05", ["2026-05-05", "2028-05-05"]),
            (&["2026-02-26", "2026-02-27", "2026-02-28"], "2026-02-28", ["2026-03-01", "2026-03-03"]),
            (
                &["2026-01-01T23:00:00Z", "2026-01-01T23:30:00Z"],
                "2026-01-01 23:30:00",
                ["2026-01-02 00:00:00", "2026-01-02 01:00:00"],
            ),
            (
                &["2026-01-01T23:00:00Z", "2026-01-01T23:30:00Z"],
                "2026-01-01T23:30:00Z",
                ["2026-01-02T00:00:00Z", "2026-01-02T01:00:00Z"],
            ),
        ] {
            assert_eq!(ahead(times, written), expected, "{times:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_times_names_both_lines() {
        for (times, line, what) in [
            (&["2026-01-01", "2026-01-02", "2026-01-02"][..], 4, "the time of line 3 stands there again"),
            (&["2026-01-01", "2026-01-03", "2026-01-02"], 4, "its time is before that of line 3: sort"),
            (&["2026-01-01", "2026-01-02", "2026-01-04", "2026-01-05"], 4, "a step is missing between line 3"),
            (
                &["2026-01-01", "2026-02-01", "2026-03-01", "2026-06-01"],
                5,
                "2 steps are missing between line 4 and this one (a step is a month)",
            ),
            (
                &["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04T05:00:00Z", "2026-01-05"],
                5,
                "it is 1day 5h behind line 4, where a step is 1day: steps must be equal",
            ),
        ] {
            let fault = Rhythm::of(&rows(times), "2026-01-01", false).expect_err("wrong");
            assert!(fault.line == line && fault.what.starts_with(what), "{fault:?} is not {what:?}");
        }
        let (_, places) =
            Rhythm::of(&rows(&["2026-01-01", "2026-01-02", "2026-01-05"]), "2026-01-05", true).expect("bridged");
        assert_eq!(places, [0, 1, 4]);
        assert_eq!(Rhythm::of(&rows(&["2026-01-01"]), "2026-01-01", false), Ok((None, vec![0])));
    }
}
