//! Rows to probe results: `probe.completed`, one a row.
//!
//! A result is known by its service, its probe and its time, so that the same file imported twice counts once.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, Utc};
use rebound_schemas::event::{Outcome, ProbeCompleted};
use rebound_schemas::{Event, EventId, ProbeId, SiteId, Source};

use super::mapping::{Mapping, ProbeColumns};
use super::source::{Row, Rows};
use super::times::Clock;
use super::words::{self, Services};
use super::{ImportError, Notes, Verdict, check};

/// What a probe is called where the file does not say.
const PROBE: &str = "import";

/// Turns rows into probe results.
#[derive(Debug)]
pub struct Probes {
    columns: ProbeColumns,
    mapping: Mapping,
    clock: Clock,
    source: Source,
    /// Hashes of the event ids that are there already, or stood in the file before: 8 bytes a result.
    known: HashSet<u64>,
    before: usize,
    /// Who is meant by which name.
    pub services: Services,
    /// What is worth saying of them.
    pub notes: Notes,
}

impl Probes {
    /// For the rows of a file, with the ids that were imported from the same source before.
    ///
    /// # Errors
    /// The file's header lacks a column that is needed or was asked for.
    pub fn new(
        rows: &Rows,
        mapping: Mapping,
        clock: Clock,
        services: Services,
        source: Source,
        known: impl IntoIterator<Item = String>,
    ) -> Result<Self, ImportError> {
        let columns = ProbeColumns::of(rows, &mapping, &["time", "outcome"])?;
        let known: HashSet<u64> = known.into_iter().map(|id| hash(&id)).collect();
        let before = known.len();
        Ok(Self { columns, mapping, clock, source, known, before, services, notes: Notes::default() })
    }

    /// How many results of the source were known before.
    #[must_use]
    pub fn known_before(&self) -> usize {
        self.before
    }

    /// What a row becomes. `now` is until when something can have happened.
    ///
    /// # Errors
    /// Why it can't go in, in words for who has to mend it.
    pub fn read(&mut self, row: &Row, now: DateTime<Utc>) -> Result<Verdict, String> {
        let c = &self.columns;
        let at = self.clock.read(&row.need("time", &c.time)?).map_err(|fault| format!("time: {fault}"))?;
        let name = match &self.mapping.service {
            Some(name) => name.clone(),
            None => row.need("service", &c.service)?,
        };
        let service = self.services.of(&name)?;
        let word = row.need("outcome", &c.outcome)?;
        let outcome = words::outcome(&word).ok_or_else(|| {
            format!("outcome: {word:?} is no outcome: write healthy, degraded or failed (or up and down, 1 and 0)")
        })?;
        let latency_us = match row.get(&c.latency_ms) {
            None => 0,
            Some(text) => {
                let millis = text.parse::<f64>().ok().filter(|ms| (0.0..1e12).contains(ms));
                let millis = millis.ok_or_else(|| format!("latency_ms: {text:?} is no number of milliseconds"))?;
                (millis * 1000.0).round() as u64
            }
        };
        let probe = row.get(&c.probe).unwrap_or_else(|| PROBE.to_owned());
        let probe = ProbeId::new(&probe).map_err(|e| format!("probe {probe:?}: {e}"))?;
        let site =
            row.get(&c.site).map(|site| SiteId::new(&site).map_err(|e| format!("site {site:?}: {e}"))).transpose()?;
        let cause = row.get(&c.cause).filter(|_| outcome == Outcome::Failed);
        let id = format!("{service}/{probe}/{}{}", site.as_ref().map_or("", |s| s.as_str()), at.timestamp_micros());
        let event = Event {
            id: EventId::new(&id).map_err(|e| format!("the names are too long together: {e}"))?,
            source: self.source.clone(),
            subject: service,
            occurred_at: at,
            plan: None,
            data: ProbeCompleted {
                probe,
                outcome,
                latency_us,
                site,
                error_class: cause.as_deref().map(|cause| words::error_class(cause, &self.mapping.causes)),
                reason: row.get(&c.reason).or(cause),
                http_status: None,
                certificate_expires_at: None,
            }
            .into(),
        };
        check(&event, now)?;
        self.notes.ambiguous_times = self.clock.ambiguous;
        Ok(if self.known.insert(hash(event.id.as_str())) { Verdict::New(vec![event]) } else { Verdict::Unchanged })
    }
}

/// Within one source: a collision among 10⁷ results is a matter of 10⁻⁶.
fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
