//! What time a cell tells: RFC 3339 and its relatives, seconds since 1970, and what spreadsheets and trackers write.
//!
//! A time without a zone is local to the [`Clock`]'s zone, by the rules of the IANA time zone database. A local time
//! that a change of the clock left out is refused; one that it makes two of is taken as the earlier, and counted.
//! `03/04/2025` is refused until somebody says which of the two is the month: a wrong guess would go unnoticed.

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

/// Which comes first in `03/04/2025`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateOrder {
    /// 3 April.
    DayFirst,
    /// March 4.
    MonthFirst,
}

/// With an offset from UTC.
const ZONED: &[&str] = &[
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%d %H:%M %#z",
    "%Y%m%dT%H%M%S%#z",
    "%a, %d %b %Y %H:%M:%S %#z",
    "%d %b %Y %H:%M:%S %#z",
    "%a %b %d %H:%M:%S %#z %Y",
    "%d/%b/%Y:%H:%M:%S %#z",
];

/// Without one; `/` stands for any of `/`, `-` and `.` where a day or a month begins the date.
const LOCAL: &[&str] = &[
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y%m%dT%H%M%S",
    "%Y%m%d%H%M%S",
    "%d/%b/%y %I:%M %p",
    "%d/%b/%Y %I:%M %p",
    "%d/%b/%y %H:%M",
    "%d/%b/%Y %H:%M",
    "%d-%b-%Y %H:%M:%S",
    "%d-%b-%Y %H:%M",
    "%d %b %Y %H:%M:%S",
    "%d %b %Y %H:%M",
    "%d %b %Y, %H:%M",
    "%b %d, %Y %I:%M:%S %p",
    "%b %d, %Y %I:%M %p",
    "%b %d, %Y, %I:%M %p",
    "%b %d, %Y %H:%M:%S",
    "%b %d, %Y %H:%M",
    "%b %d, %Y - %H:%M",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S",
];

/// A day only: it begins at midnight.
const DAYS: &[&str] = &["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d %b %Y", "%b %d, %Y", "%d-%b-%Y", "%d/%b/%y", "%d/%b/%Y"];

/// The time of day after a date that is all numbers.
const TIMES_OF_DAY: &[&str] = &["%H:%M:%S%.f", "%H:%M", "%I:%M:%S %p", "%I:%M %p"];

/// How times are read.
#[derive(Debug, Clone)]
pub struct Clock {
    zone: Tz,
    order: Option<DateOrder>,
    format: Option<String>,
    /// The format that read the last one, tried first: a column is written in one.
    last: usize,
    /// How many local times were two.
    pub ambiguous: u64,
}

impl Clock {
    /// Local times are of this zone; a `format` (as of `strftime`) is the only one tried.
    ///
    /// # Errors
    /// The format is none.
    pub fn new(zone: Tz, order: Option<DateOrder>, format: Option<String>) -> Result<Self, String> {
        if let Some(format) = &format
            && StrftimeItems::new(format).any(|item| item == Item::Error)
        {
            return Err(format!(
                "--time-format {format:?} is no format: write it as for strftime, as in \"%d.%m.%Y %H:%M\""
            ));
        }
        Ok(Self { zone, order, format, last: 0, ambiguous: 0 })
    }

    /// The zone of this name.
    ///
    /// # Errors
    /// There is none; the message names near ones.
    pub fn zone(name: &str) -> Result<Tz, String> {
        if let Ok(zone) = name.parse() {
            return Ok(zone);
        }
        let near = chrono_tz::TZ_VARIANTS
            .iter()
            .map(|zone| (strsim::jaro_winkler(&zone.name().to_lowercase(), &name.to_lowercase()), zone.name()))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or("Europe/Berlin", |(_, name)| name);
        Err(format!("the time zone {name:?} is unknown: write it as in the IANA database, for example {near:?}"))
    }

    /// What time a cell tells, to the microsecond.
    ///
    /// # Errors
    /// It tells none, or more than one; the message says what was expected.
    pub fn read(&mut self, text: &str) -> Result<DateTime<Utc>, String> {
        let text = text.trim();
        if let Some(format) = self.format.clone() {
            return match parsed(text, &format) {
                Some(read) => self.utc(text, read),
                None => Err(format!("{text:?} is not written as --time-format {format:?}")),
            };
        }
        if let Some(at) = epoch(text) {
            return at.ok_or_else(|| format!("{text:?} is too far from 1970 for a time"));
        }
        let (stem, is_utc) = without_utc(text);
        let formats = ZONED.len() + LOCAL.len() + DAYS.len();
        for n in std::iter::once(self.last).chain(0..formats) {
            let format = *ZONED.iter().chain(LOCAL).chain(DAYS).nth(n).expect("one of the formats, which were counted");
            if let Some(read) = parsed(stem, format) {
                self.last = n;
                return if is_utc { Ok(read.in_utc()) } else { self.utc(text, read) };
            }
        }
        match self.numeric(stem)? {
            Some(local) if is_utc => Ok(local.and_utc()),
            Some(local) => self.utc(text, Read::Local(local)),
            None => Err(format!(
                "{text:?} is no time that is understood: write it as 2025-03-30T02:15:00Z, or give --time-format"
            )),
        }
    }

    /// `30/03/2025 02:15` and its relatives.
    fn numeric(&self, text: &str) -> Result<Option<NaiveDateTime>, String> {
        let (date, time) = text.split_once([' ', ',']).unwrap_or((text, ""));
        let Some(sign) = date.chars().find(|c| !c.is_ascii_digit()).filter(|c| matches!(c, '/' | '-' | '.')) else {
            return Ok(None);
        };
        let mut parts = date.split(sign).map(|part| part.parse::<u32>().ok());
        let (Some(Some(a)), Some(Some(b)), Some(Some(year)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        if date.find(sign).is_some_and(|digits| digits > 2) {
            return Ok(None); // a year first: the usual forms have been tried
        }
        let order = match (self.order, sign) {
            (Some(order), _) => order,
            // With full stops the day comes first wherever dates are written so.
            (None, '.') => DateOrder::DayFirst,
            (None, _) if a > 12 => DateOrder::DayFirst,
            (None, _) if b > 12 => DateOrder::MonthFirst,
            (None, _) => {
                return Err(format!(
                    "{text:?} can be day {a} of month {b} or the reverse: say --date-order day-first or month-first"
                ));
            }
        };
        let (day, month) = if order == DateOrder::DayFirst { (a, b) } else { (b, a) };
        let year = if year < 100 { 2000 + year } else { year };
        let day = i32::try_from(year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, month, day));
        let Some(day) = day else {
            return Err(format!("{text:?} is no day of the calendar with month {month}: is --date-order right?"));
        };
        let time = time.trim_start_matches([' ', ',']);
        if time.is_empty() {
            return Ok(Some(day.and_time(NaiveTime::MIN)));
        }
        Ok(TIMES_OF_DAY.iter().find_map(|format| NaiveTime::parse_from_str(time, format).ok()).map(|t| day.and_time(t)))
    }

    fn utc(&mut self, text: &str, read: Read) -> Result<DateTime<Utc>, String> {
        match read {
            Read::Zoned(at) => Ok(at),
            Read::Local(local) => match self.zone.from_local_datetime(&local) {
                LocalResult::Single(at) => Ok(at.to_utc()),
                LocalResult::Ambiguous(earlier, _) => {
                    self.ambiguous += 1;
                    Ok(earlier.to_utc())
                }
                LocalResult::None => Err(format!(
                    "{text:?} never was in {}: the clock was set forward past it; is --tz right?",
                    self.zone.name()
                )),
            },
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Read {
    Zoned(DateTime<Utc>),
    Local(NaiveDateTime),
}

impl Read {
    fn in_utc(self) -> DateTime<Utc> {
        match self {
            Self::Zoned(at) => at,
            Self::Local(local) => local.and_utc(),
        }
    }
}

/// A time by one format: with an offset if the format has one, at midnight if it has no time of day.
fn parsed(text: &str, format: &str) -> Option<Read> {
    let mut fields = Parsed::new();
    parse(&mut fields, text, StrftimeItems::new(format)).ok()?;
    let date = fields.to_naive_date().ok();
    if let Some(offset) = fields.offset() {
        return fields
            .to_naive_datetime_with_offset(offset)
            .ok()
            .map(|local| Read::Zoned((local - chrono::TimeDelta::seconds(i64::from(offset))).and_utc()));
    }
    if fields.timestamp().is_some() {
        return fields.to_naive_datetime_with_offset(0).ok().map(|at| Read::Zoned(at.and_utc()));
    }
    let time = fields.to_naive_time().unwrap_or(NaiveTime::MIN);
    date.map(|date| Read::Local(date.and_time(time)))
}

/// Whether it says that it is UTC by a word at its end; and what stands before.
fn without_utc(text: &str) -> (&str, bool) {
    let stem = ["UTC", "GMT", "Z", "z"].iter().find_map(|word| text.strip_suffix(word));
    match stem {
        Some(stem) if stem.ends_with([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
            (stem.trim_end(), true)
        }
        _ => (text, false),
    }
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, by the number of digits; `None` if it is no number
/// of them, `Some(None)` if it is one out of range.
fn epoch(text: &str) -> Option<Option<DateTime<Utc>>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let numbers = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    // Fewer than nine digits are years, days or times of day; 14 may be a date and time without signs.
    if digits.len() < 9 || !numbers(digits) || !numbers(fraction) || looks_like_a_date(digits) {
        return None;
    }
    let Ok(number) = whole.parse::<i64>() else { return Some(None) };
    Some(match digits.len() {
        9..=11 => {
            let micros = format!("{fraction:0<6}").get(..6).and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(0);
            number.checked_mul(1_000_000).and_then(|n| DateTime::from_timestamp_micros(n + micros))
        }
        12..=13 => DateTime::from_timestamp_millis(number),
        14..=16 => DateTime::from_timestamp_micros(number),
        _ => Some(DateTime::from_timestamp_nanos(number)),
    })
}

/// `20250330021500`: 14 digits that make a date of this age.
fn looks_like_a_date(digits: &str) -> bool {
    digits.len() == 14 && (digits.starts_with("19") || digits.starts_with("20"))
}
