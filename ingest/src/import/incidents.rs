//! Rows to incidents: `incident.opened`, `.acknowledged`, `.resolved`, and `.corrected` for what has changed.
//!
//! | the row's incident | becomes |
//! |---|---|
//! | is not known | opened, acknowledged and resolved, as far as the row tells |
//! | is known with the row's figures, restated or original | nothing |
//! | is known as open, the row says resolved | resolved (acknowledged likewise) |
//! | is known with other times or another cause | a correction, which keeps the figures of both |
//!
//! "Original" figures count as the same, so that what a person corrected here is not taken back by the old export.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{IncidentAcknowledged, IncidentCorrected, IncidentOpened, IncidentResolved, Severity};
use rebound_schemas::incident::Incident;
use rebound_schemas::{Event, EventData, EventId, IncidentId, Kind, ServiceId, Source};
use sha2::{Digest, Sha256};

use super::mapping::{Column, IncidentColumns, Mapping};
use super::source::{Row, Rows, missing};
use super::times::Clock;
use super::words::{self, Services};
use super::{ImportError, Notes, Verdict, check};

/// What is known of an incident that was imported before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    first_failure: [DateTime<Utc>; 2],
    recovered: [Option<DateTime<Utc>>; 2],
    cause: Option<String>,
    acknowledged: bool,
    resolved: bool,
}

/// A figure as it stands, and as it was first recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure<T> {
    /// After every correction.
    pub now: T,
    /// Before them.
    pub recorded: T,
}

impl Known {
    /// Of an incident that is known with these figures.
    #[must_use]
    pub fn new(
        first_failure: Figure<DateTime<Utc>>,
        recovered: Figure<Option<DateTime<Utc>>>,
        cause: Option<String>,
        acknowledged: bool,
    ) -> Self {
        Self {
            first_failure: [first_failure.now, first_failure.recorded],
            recovered: [recovered.now, recovered.recorded],
            cause,
            acknowledged,
            resolved: recovered.now.is_some(),
        }
    }
}

impl From<&Incident> for Known {
    fn from(incident: &Incident) -> Self {
        let correction = incident.correction.as_ref();
        let maintained = incident.maintenance.as_ref().map(|it| it.original_first_failure_at);
        let original = correction.map(|it| it.original_first_failure_at).or(maintained);
        let first_failure =
            Figure { now: incident.first_failure_at, recorded: original.unwrap_or(incident.first_failure_at) };
        let recovered = Figure {
            now: incident.recovered_at,
            recorded: correction.map_or(incident.recovered_at, |it| it.original_recovered_at),
        };
        Self::new(first_failure, recovered, incident.cause.clone(), incident.acknowledged.is_some())
    }
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    service: ServiceId,
    incident: IncidentId,
    cause: Option<String>,
    opened: DateTime<Utc>,
    detected: DateTime<Utc>,
    acknowledged: Option<DateTime<Utc>>,
    acknowledged_by: String,
    resolved: Option<DateTime<Utc>>,
    closed: Option<DateTime<Utc>>,
    severity: Severity,
    reason: Option<String>,
}

/// Turns rows into incidents.
#[derive(Debug)]
pub struct Incidents {
    columns: IncidentColumns,
    mapping: Mapping,
    clock: Clock,
    source: Source,
    known: HashMap<IncidentId, Known>,
    /// Rows of this file by their incident: where each stands, and what it said.
    seen: HashMap<IncidentId, (u64, [u8; 8])>,
    /// Who is meant by which name.
    pub services: Services,
    /// What is worth saying of them.
    pub notes: Notes,
}

/// States that say that it is over, where a system tells no time of it but that of its last change.
const OVER: &[&str] = &["resolved", "closed", "done", "completed"];

impl Incidents {
    /// For the rows of a file, with what was imported from the same source before.
    ///
    /// # Errors
    /// The file's header lacks a column that is needed or was asked for.
    pub fn new(
        rows: &Rows,
        mapping: Mapping,
        clock: Clock,
        services: Services,
        source: Source,
        known: HashMap<IncidentId, Known>,
    ) -> Result<Self, ImportError> {
        let columns = IncidentColumns::of(rows, &mapping, &["id", "opened"])?;
        Ok(Self { columns, mapping, clock, source, known, seen: HashMap::new(), services, notes: Notes::default() })
    }

    /// What a row becomes. `line` is where it stands, `now` until when something can have happened.
    ///
    /// # Errors
    /// Why it can't go in, in words for who has to mend it.
    pub fn read(&mut self, line: u64, row: &Row, now: DateTime<Utc>) -> Result<Verdict, String> {
        let said = self.said(row)?;
        in_order(&said)?;
        let events = self.events(&said);
        events.iter().try_for_each(|event| check(event, now))?;
        if let Some((first, digest)) = self.seen.get(&said.incident) {
            if *digest == digest_of(&said) {
                self.notes.repeated += 1;
                return Ok(Verdict::Unchanged);
            }
            return Err(format!("its id stands in line {first} already, with other figures: which of the two counts?"));
        }
        self.seen.insert(said.incident.clone(), (line, digest_of(&said)));
        self.notes.zero_length += u64::from(said.resolved == Some(said.opened));
        self.notes.open += u64::from(said.resolved.is_none());
        self.notes.ambiguous_times = self.clock.ambiguous;
        Ok(match self.known.get(&said.incident) {
            None => Verdict::New(events),
            Some(known) => self.restated(&said, events, known, now),
        })
    }

    fn said(&mut self, row: &Row) -> Result<Said, String> {
        let c = &self.columns;
        let id = row.need("id", &c.id)?;
        let id = EventId::new(&id).map_err(|e| format!("id {id:?}: {e}"))?;
        let name = match &self.mapping.service {
            Some(name) => name.clone(),
            None => row.need("service", &c.service)?,
        };
        let name = match &self.mapping.service_pattern {
            Some(pattern) => pattern.captures(&name).and_then(|found| found.get(1)).map_or(&*name, |m| m.as_str()),
            None => &name,
        };
        let service = self.services.of(name)?;
        let clock = &mut self.clock;
        let mut time = |what: &str, column: &Column| match row.get(column) {
            None => Ok(None),
            Some(text) => clock.read(&text).map(Some).map_err(|fault| format!("{what}: {fault}")),
        };
        let opened = time("opened", &c.opened)?.ok_or_else(|| missing("time of opening", &c.opened))?;
        let detected = time("detected", &c.detected)?.unwrap_or(opened);
        let mut acknowledged = time("acknowledged", &c.acknowledged)?;
        let mut resolved = time("resolved", &c.resolved)?;
        let closed = time("closed", &c.closed)?;
        let changed = time("changed", &c.changed)?;
        for (told, seconds, millis) in [
            (&mut acknowledged, &c.acknowledged_after_s, &c.acknowledged_after_ms),
            (&mut resolved, &c.resolved_after_s, &c.resolved_after_ms),
        ] {
            if told.is_none() {
                *told = after(row, opened, seconds, 1_000_000.0)?;
            }
            if told.is_none() {
                *told = after(row, opened, millis, 1_000.0)?;
            }
        }
        let over = row.get(&c.status).is_some_and(|status| OVER.contains(&status.to_lowercase().as_str()));
        if resolved.is_none() && over {
            resolved = changed;
        }
        let severity = match row.get(&c.severity) {
            None => Severity::Warning,
            Some(word) => words::severity(&word).unwrap_or_else(|| {
                *self.notes.unknown_severities.entry(word).or_default() += 1;
                Severity::Warning
            }),
        };
        Ok(Said {
            incident: IncidentId::derive(&service, &self.source, &id),
            service,
            cause: row.get(&c.cause),
            opened,
            detected,
            acknowledged,
            acknowledged_by: row.get(&c.acknowledged_by).unwrap_or_else(|| "unknown".to_owned()),
            resolved,
            closed: closed.filter(|_| resolved.is_some()),
            severity,
            reason: row.get(&c.reason),
        })
    }

    fn event(&self, said: &Said, what: &str, occurred_at: DateTime<Utc>, data: EventData) -> Event {
        Event {
            id: EventId::derive(said.incident.as_str(), what),
            source: self.source.clone(),
            subject: said.service.clone(),
            occurred_at,
            plan: None,
            data,
        }
    }

    /// Everything that a row tells of.
    fn events(&self, said: &Said) -> Vec<Event> {
        let incident = &said.incident;
        let cause = said.cause.as_deref().unwrap_or_default();
        let data = IncidentOpened {
            incident: incident.clone(),
            severity: said.severity,
            first_failure_at: said.opened,
            last_success_at: None,
            detected_at: said.detected,
            policy: None,
            error_class: words::error_class(cause, &self.mapping.causes),
            cause: said.cause.clone(),
            reason: said.reason.clone().unwrap_or_else(|| "imported, without a description".to_owned()),
        };
        let mut events = vec![self.event(said, "opened", said.detected, data.into())];
        if let Some(at) = said.acknowledged {
            let by = said.acknowledged_by.clone();
            let data = IncidentAcknowledged { incident: incident.clone(), by, automated: false, comment: None };
            events.push(self.event(said, "acknowledged", at, data.into()));
        }
        if let Some(at) = said.resolved {
            let data = IncidentResolved { incident: incident.clone(), recovered_at: at, recovery: None };
            events.push(self.event(said, "resolved", said.closed.unwrap_or(at), data.into()));
        }
        events
    }

    /// Of all that a row tells of, what is not known yet; and a correction of what is known otherwise.
    fn restated(&self, said: &Said, mut events: Vec<Event>, known: &Known, now: DateTime<Utc>) -> Verdict {
        events.retain(|event| match event.kind() {
            Kind::IncidentAcknowledged => !known.acknowledged,
            Kind::IncidentResolved => !known.resolved,
            _ => false,
        });
        let first_failure_at = Some(said.opened).filter(|at| !known.first_failure.contains(at));
        let recovered_at = said.resolved.filter(|at| known.resolved && !known.recovered.contains(&Some(*at)));
        let cause = said.cause.clone().filter(|cause| known.cause.as_ref() != Some(cause));
        if first_failure_at.is_some() || recovered_at.is_some() || cause.is_some() {
            let error_class = cause.as_deref().map(|cause| words::error_class(cause, &self.mapping.causes));
            let data = IncidentCorrected {
                incident: said.incident.clone(),
                by: self.source.as_str().to_owned(),
                reason: "imported again, with other figures".to_owned(),
                first_failure_at,
                recovered_at,
                error_class,
                cause,
                exclude: false,
            };
            let what = format!("corrected-{}", data_encoding::HEXLOWER.encode(&digest_of(said)));
            events.push(self.event(said, &what, now, data.into()));
        }
        if events.is_empty() { Verdict::Unchanged } else { Verdict::Restated(events) }
    }
}

/// Whether nothing lies before what it must come after.
fn in_order(said: &Said) -> Result<(), String> {
    let shown = rebound_schemas::codec::format_time;
    for (what, at) in [
        ("detected", Some(said.detected)),
        ("acknowledged", said.acknowledged),
        ("resolved", said.resolved),
        ("closed", said.closed),
    ] {
        if let Some(at) = at.filter(|at| *at < said.opened) {
            return Err(format!(
                "{what} {} lies before opened {}: are the columns the wrong way round?",
                shown(at),
                shown(said.opened)
            ));
        }
    }
    if let (Some(closed), Some(resolved)) = (said.closed, said.resolved)
        && closed < resolved
    {
        return Err(format!("closed {} lies before resolved {}", shown(closed), shown(resolved)));
    }
    Ok(())
}

/// `opened` and so much; `per` microseconds are one of the column's units.
fn after(row: &Row, opened: DateTime<Utc>, column: &Column, per: f64) -> Result<Option<DateTime<Utc>>, String> {
    let Some(text) = row.get(column) else { return Ok(None) };
    let length = text.parse::<f64>().ok().filter(|n| *n >= 0.0 && *n * per < 1e17);
    let length = length.ok_or_else(|| format!("{}: {text:?} is no length of time", column.names.join(" or ")))?;
    Ok(opened.checked_add_signed(TimeDelta::microseconds((length * per).round() as i64)))
}

/// What a row said, to tell whether another says the same.
fn digest_of(said: &Said) -> [u8; 8] {
    let text = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        said.cause, said.opened, said.detected, said.acknowledged, said.resolved, said.closed, said.severity
    );
    let mut half = [0; 8];
    half.copy_from_slice(&Sha256::digest(text.as_bytes())[..8]);
    half
}
