//! The fast way for what a log is full of: probe results exactly as [`crate::codec::encode`] writes them.
//!
//! One pass, nothing allocated. Anything out of the ordinary (another order of members, escapes, text beyond
//! ASCII, another kind) is `None` and goes the general way; what is taken here, the general way takes too, with
//! equal values, and the payload is the one that [`super::probe_data`] rebuilds.

use chrono::{DateTime, NaiveDate};

use crate::codec::MAX_EVENT_BYTES;
use crate::event::{ErrorClass, Event, Outcome, ProbeCompleted};
use crate::ids::{EventId, MAX_ID_BYTES, PlanVersion, ProbeId, ServiceId, SiteId, Source};

/// A `probe.completed` in canonical form, borrowed. Times are microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScannedProbe<'a> {
    /// CloudEvents `id`.
    pub id: &'a str,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// The service.
    pub subject: &'a str,
    /// When it happened.
    pub occurred_at: i64,
    /// The plan.
    pub plan: Option<&'a str>,
    /// The probe.
    pub probe: &'a str,
    /// What it found.
    pub outcome: Outcome,
    /// Microseconds to the verdict.
    pub latency_us: i64,
    /// The site it looked from.
    pub site: Option<&'a str>,
    /// Why it was not healthy, coarsely.
    pub error_class: Option<ErrorClass>,
    /// Why, in words.
    pub reason: Option<&'a str>,
    /// HTTP status.
    pub http_status: Option<u16>,
    /// Earliest expiry in the certificate chain.
    pub certificate_expires_at: Option<i64>,
}

impl ScannedProbe<'_> {
    /// The event, as the general way gives it. `None` for what only that way may judge.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        let certificate_expires_at = match self.certificate_expires_at {
            Some(micros) => Some(DateTime::from_timestamp_micros(micros)?),
            None => None,
        };
        let data = ProbeCompleted {
            probe: ProbeId::new(self.probe).ok()?,
            outcome: self.outcome,
            latency_us: u64::try_from(self.latency_us).ok()?,
            site: self.site.map(SiteId::new).transpose().ok()?,
            error_class: self.error_class,
            reason: self.reason.map(str::to_owned),
            http_status: self.http_status,
            certificate_expires_at,
        };
        Some(Event {
            id: EventId::new(self.id).ok()?,
            source: Source::new(self.source).ok()?,
            subject: ServiceId::new(self.subject).ok()?,
            occurred_at: DateTime::from_timestamp_micros(self.occurred_at)?,
            plan: self.plan.map(PlanVersion::new).transpose().ok()?,
            data: data.into(),
        })
    }
}

/// A probe's result in canonical form, or `None` for anything else.
#[must_use]
pub fn scan_probe(json: &[u8]) -> Option<ScannedProbe<'_>> {
    if json.len() > MAX_EVENT_BYTES {
        return None;
    }
    let mut at = Scanner { rest: json };
    at.expect(br#"{"specversion":"1.0","id":""#)?;
    let id = at.text()?;
    at.expect(br#","source":""#)?;
    let source = at.text()?;
    at.expect(br#","type":"dev.rebound.probe.completed.v1","subject":""#)?;
    let subject = at.name()?;
    at.expect(br#","time":""#)?;
    let occurred_at = time(at.until_quote()?)?;
    let plan = if at.take(br#","planversion":""#) { Some(at.name()?) } else { None };
    at.expect(br#","datacontenttype":"application/json","data":{"probe":""#)?;
    let probe = at.name()?;
    at.expect(br#","outcome":""#)?;
    let outcome = Outcome::parse(at.text()?)?;
    at.expect(br#","latency_us":"#)?;
    let latency_us = at.number()?;
    let site = if at.take(br#","site":""#) { Some(at.name()?) } else { None };
    let error_class = if at.take(br#","error_class":""#) { Some(ErrorClass::parse(at.text()?)?) } else { None };
    let reason = if at.take(br#","reason":""#) { Some(ascii(at.until_quote()?)?) } else { None };
    let http_status = if at.take(br#","http_status":"#) { Some(u16::try_from(at.number()?).ok()?) } else { None };
    let certificate_expires_at =
        if at.take(br#","certificate_expires_at":""#) { Some(expiry(at.until_quote()?)?) } else { None };
    at.expect(b"}}")?;
    at.rest.is_empty().then_some(ScannedProbe {
        id,
        source,
        subject,
        occurred_at,
        plan,
        probe,
        outcome,
        latency_us,
        site,
        error_class,
        reason,
        http_status,
        certificate_expires_at,
    })
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn take(&mut self, literal: &[u8]) -> bool {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, literal: &[u8]) -> Option<()> {
        self.take(literal).then_some(())
    }

    /// The bytes up to the next quotation mark, which is dropped.
    fn until_quote(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|b| *b == b'"')?;
        let found = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(found)
    }

    /// A text of 1 to [`MAX_ID_BYTES`] bytes that needs no escapes.
    fn text(&mut self) -> Option<&'a str> {
        let bytes = self.until_quote()?;
        (1..=MAX_ID_BYTES).contains(&bytes.len()).then(|| ascii(bytes))?
    }

    /// A text that follows the rule for names that people write.
    fn name(&mut self) -> Option<&'a str> {
        let text = self.text()?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/');
        text.bytes().all(allowed).then_some(text)
    }

    /// Digits as JSON writes a whole number: at most 18, no leading zero.
    fn number(&mut self) -> Option<i64> {
        let end = self.rest.iter().position(|b| !b.is_ascii_digit())?;
        if !(1..=18).contains(&end) || (end > 1 && self.rest[0] == b'0') {
            return None;
        }
        let value = digits(&self.rest[..end])?;
        self.rest = &self.rest[end..];
        Some(value)
    }
}

/// Printable ASCII without a backslash: the same bytes in JSON and in memory.
fn ascii(bytes: &[u8]) -> Option<&str> {
    bytes.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'\\').then(|| std::str::from_utf8(bytes).ok())?
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |n: i64, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

/// `2026-03-01T12:00:00[.123[456]]Z` in microseconds, within the years that [`crate::codec::parse_time`] takes.
fn time(text: &[u8]) -> Option<i64> {
    let (seconds, fraction) = (text.get(..19)?, text.get(19..)?);
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] = seconds else {
        return None;
    };
    let year = i32::try_from(digits(&[*y1, *y2, *y3, *y4])?).ok()?;
    let two = |a: &u8, b: &u8| digits(&[*a, *b]);
    let (month, day) = (u32::try_from(two(m1, m2)?).ok()?, u32::try_from(two(d1, d2)?).ok()?);
    let (hour, minute, second) = (two(h1, h2)?, two(n1, n2)?, two(s1, s2)?);
    if !(1970..2200).contains(&year) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match fraction {
        b"Z" => 0,
        [b'.', a, b, c, b'Z'] => digits(&[*a, *b, *c])? * 1000,
        [b'.', a, b, c, d, e, f, b'Z'] => digits(&[*a, *b, *c, *d, *e, *f])?,
        _ => return None,
    };
    let days = NaiveDate::from_ymd_opt(year, month, day)?.signed_duration_since(NaiveDate::default()).num_days();
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// A time in the one form in which a payload's times are written, whole microseconds.
fn expiry(text: &[u8]) -> Option<i64> {
    let text = ascii(text)?;
    let micros = text.parse::<DateTime<chrono::Utc>>().ok()?.timestamp_micros();
    let again = super::time_text(&DateTime::from_timestamp_micros(micros)?);
    (again.trim_matches('"') == text).then_some(micros)
}
