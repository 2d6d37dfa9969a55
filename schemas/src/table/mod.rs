//! The event log's table: its columns, rows to Arrow batches, and rows back to events.
//!
//! One row an event, partitioned by `event_date`, the UTC date of `occurred_at`. Columns that queries touch are
//! typed; `data` is the payload's JSON as received. **`data` is NULL where the typed columns say all of it**: a
//! `probe.completed` whose payload text is, byte for byte, what [`probe_data`] rebuilds. Readers of payloads go
//! through [`Row::data_text`] or [`Row::event`], which give the same text either way.
//! Offsets that hold no event are rows of kind [`GAP_KIND`], so that contiguity can be proved from the table alone.

mod build;
mod columns;
mod read;
mod scan;

use std::borrow::Cow;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use crate::codec::{DecodeError, Decoded, decode_data};
use crate::event::{ErrorClass, Event, EventData, Kind, Outcome, ProbeCompleted, Topic};
use crate::ids::{EventId, IdError, PlanVersion, ProbeId, ServiceId, SiteId, Source};

pub use build::{DayBatch, RowBuilder};
pub use columns::{PARTITION_COLUMN, Row, file_schema, table_schema};
pub use read::{ReadError, RowReader};
pub use scan::{ScannedProbe, scan_probe};

/// Kind of the internal rows that stand for offsets without an event. Not an event: projections leave it out.
pub const GAP_KIND: &str = "log.gap";

/// Where an event stands on the bus and when it was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The topic.
    pub topic: Topic,
    /// The partition's number.
    pub partition: i32,
    /// The offset within it.
    pub offset: i64,
    /// Microseconds since 1970, UTC.
    pub ingested_at: i64,
}

impl<'a> Row<'a> {
    /// The row of a decoded event. `data` becomes `None` where the typed columns say all of it.
    #[must_use]
    pub fn of_event(decoded: &'a Decoded<'_>, at: Position) -> Self {
        let event = &decoded.event;
        let mut row = Self {
            kind: event.kind().as_str(),
            version: i32::from(decoded.version),
            id: event.id.as_str(),
            source: event.source.as_str(),
            service: Some(event.subject.as_str()),
            occurred_at: event.occurred_at.timestamp_micros(),
            plan: event.plan.as_ref().map(PlanVersion::as_str),
            data: Some(&decoded.data),
            ..Self::at(at)
        };
        row.set_typed(&event.data);
        if event.kind() == Kind::ProbeCompleted && rebuild(&row).is_some_and(|text| text == *decoded.data) {
            row.data = None;
        }
        row
    }

    /// The row of a probe's result that [`scan_probe`] found to be in canonical form.
    #[must_use]
    pub fn of_probe(probe: &ScannedProbe<'a>, at: Position) -> Self {
        Self {
            kind: Kind::ProbeCompleted.as_str(),
            version: 1,
            id: probe.id,
            source: probe.source,
            service: Some(probe.subject),
            occurred_at: probe.occurred_at,
            plan: probe.plan,
            site: probe.site,
            probe: Some(probe.probe),
            outcome: Some(probe.outcome.as_str()),
            error_class: probe.error_class.map(ErrorClass::as_str),
            reason: probe.reason,
            latency_us: Some(probe.latency_us),
            http_status: probe.http_status.map(i32::from),
            certificate_expires_at: probe.certificate_expires_at,
            ..Self::at(at)
        }
    }

    /// The row that stands for offsets `at.offset..until`, which hold no event. `id` and `data` come from
    /// [`gap_id`] and [`gap_data`].
    #[must_use]
    pub fn of_gap(id: &'a str, data: &'a str, at: Position) -> Self {
        Self {
            kind: GAP_KIND,
            version: 1,
            id,
            source: "rebound/log",
            occurred_at: at.ingested_at,
            data: Some(data),
            ..Self::at(at)
        }
    }

    fn at(at: Position) -> Self {
        Self {
            topic: at.topic.as_str(),
            partition: at.partition,
            offset: at.offset,
            ingested_at: at.ingested_at,
            ..Self::default()
        }
    }

    /// The typed columns of a payload. What a column can't hold exactly stays in `data` alone.
    fn set_typed(&mut self, data: &'a EventData) {
        match data {
            EventData::ProbeCompleted(d) => {
                self.probe = Some(d.probe.as_str());
                self.outcome = Some(d.outcome.as_str());
                self.latency_us = i64::try_from(d.latency_us).ok();
                self.site = d.site.as_ref().map(SiteId::as_str);
                self.error_class = d.error_class.map(ErrorClass::as_str);
                self.reason = d.reason.as_deref();
                self.http_status = d.http_status.map(i32::from);
                self.certificate_expires_at = d.certificate_expires_at.map(|t| t.timestamp_micros());
            }
            EventData::ServiceLevelMeasured(_) => {}
            EventData::ResourceMeasured(d) => self.site = d.site.as_ref().map(SiteId::as_str),
            EventData::ReplicationMeasured(d) => self.site = Some(d.target_site.as_str()),
            EventData::BackupFinished(d) => {
                self.outcome = Some(succeeded(d.succeeded));
                self.duration_ms = d.duration_ms.and_then(|ms| i64::try_from(ms).ok());
                self.reason = d.detail.as_deref();
            }
            EventData::BackupVerified(d) => self.outcome = Some(succeeded(d.passed)),
            EventData::CertificateObserved(d) => self.certificate_expires_at = Some(d.not_after.timestamp_micros()),
            EventData::DeploymentFinished(d) => self.outcome = Some(d.outcome.as_str()),
            EventData::AlertRaised(d) => {
                self.alert = Some(d.alert.as_str());
                self.incident = Some(d.incident.as_str());
                self.policy = Some(d.policy.as_str());
                self.severity = Some(d.severity.as_str());
                self.first_failure_at = Some(d.first_failure_at.timestamp_micros());
                self.reason = Some(&d.reason);
            }
            EventData::AlertSuppressed(d) => {
                self.alert = Some(d.alert.as_str());
                self.incident = Some(d.incident.as_str());
                self.policy = Some(d.policy.as_str());
                self.reason = Some(d.cause.as_str());
            }
            EventData::AlertResolved(d) => {
                self.alert = Some(d.alert.as_str());
                self.incident = Some(d.incident.as_str());
                self.policy = Some(d.policy.as_str());
                self.recovered_at = Some(d.recovered_at.timestamp_micros());
            }
            EventData::NotificationPlanned(d) => {
                self.alert = d.members.first().map(|told| told.alert.as_str());
                self.incident = d.members.first().map(|told| told.incident.as_str());
                self.channel = Some(d.channel.as_str());
            }
            EventData::NotificationRetried(_) => {}
            EventData::NotificationSent(d) => {
                self.alert = Some(d.alert.as_str());
                self.incident = Some(d.incident.as_str());
                self.channel = Some(d.channel.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
            }
            EventData::NotificationFailed(d) => {
                self.alert = Some(d.alert.as_str());
                self.incident = Some(d.incident.as_str());
                self.channel = Some(d.channel.as_str());
                self.attempt = i32::try_from(d.attempts).ok();
                self.reason = Some(&d.error);
            }
            EventData::IncidentOpened(d) => {
                self.incident = Some(d.incident.as_str());
                self.severity = Some(d.severity.as_str());
                self.policy = d.policy.as_ref().map(crate::ids::PolicyId::as_str);
                self.first_failure_at = Some(d.first_failure_at.timestamp_micros());
                self.error_class = Some(d.error_class.as_str());
                self.reason = Some(&d.reason);
            }
            EventData::IncidentAcknowledged(d) => self.incident = Some(d.incident.as_str()),
            EventData::IncidentResolved(d) => {
                self.incident = Some(d.incident.as_str());
                self.recovery = d.recovery.as_ref().map(crate::ids::RecoveryId::as_str);
                self.recovered_at = Some(d.recovered_at.timestamp_micros());
            }
            EventData::IncidentCorrected(d) => {
                self.incident = Some(d.incident.as_str());
                self.first_failure_at = d.first_failure_at.map(|t| t.timestamp_micros());
                self.recovered_at = d.recovered_at.map(|t| t.timestamp_micros());
                self.error_class = d.error_class.map(ErrorClass::as_str);
                self.reason = Some(&d.reason);
            }
            EventData::MaintenanceScheduled(d) => self.reason = Some(&d.reason),
            EventData::SilenceCreated(d) => self.reason = Some(&d.reason),
            EventData::SilenceExpired(d) => self.reason = d.reason.as_deref(),
            EventData::MaintenanceCancelled(d) => self.reason = d.reason.as_deref(),
            EventData::RecoveryRequested(d) => {
                self.procedure = d.procedure.as_ref().map(crate::ids::ProcedureId::as_str);
                self.reason = Some(&d.comment);
            }
            EventData::RecoveryDeclined(d) => self.reason = Some(&d.reason),
            EventData::RecoveryExpired(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
            }
            EventData::RecoveryWithheld(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
                self.reason = Some(d.reason.as_str());
            }
            EventData::RecoveryTriggered(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
                self.procedure = Some(d.procedure.as_str());
                self.method = d.method.map(crate::event::RecoveryMethod::as_str);
                self.first_failure_at = Some(d.first_failure_at.timestamp_micros());
            }
            EventData::RecoveryApproved(d) => self.recovery = Some(d.recovery.as_str()),
            EventData::RecoveryRejected(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.reason = Some(&d.reason);
            }
            EventData::RecoveryCancelled(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.reason = Some(&d.reason);
            }
            EventData::RecoveryPaused(d) => self.reason = Some(&d.reason),
            EventData::RecoveryResumed(d) => self.reason = Some(&d.reason),
            EventData::RecoveryStarted(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.procedure = Some(d.procedure.as_str());
            }
            EventData::StepStarted(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.step = Some(d.step.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
            }
            EventData::StepFinished(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.step = Some(d.step.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
                self.outcome = Some(d.outcome.as_str());
                self.duration_ms = i64::try_from(d.duration_ms).ok();
                self.reason = d.error.as_deref();
            }
            EventData::StepRequested(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.step = Some(d.step.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
            }
            EventData::StepAnswered(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.step = Some(d.step.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
                self.outcome = Some(succeeded(d.succeeded));
                self.reason = d.error.as_deref();
            }
            EventData::RecoveryVerified(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.outcome = Some(succeeded(d.passed));
            }
            EventData::RecoveryFinished(d) => {
                self.recovery = Some(d.recovery.as_str());
                self.incident = Some(d.incident.as_str());
                self.attempt = i32::try_from(d.attempt).ok();
                self.procedure = Some(d.procedure.as_str());
                self.method = d.method.map(crate::event::RecoveryMethod::as_str);
                self.outcome = Some(d.outcome.as_str());
                self.duration_ms = i64::try_from(d.duration_ms).ok();
                self.error_class = d.error_class.map(ErrorClass::as_str);
                self.reason = d.reason.as_deref();
            }
            EventData::RecoveryEscalated(d) => {
                self.incident = Some(d.incident.as_str());
                self.recovery = d.recovery.as_ref().map(crate::ids::RecoveryId::as_str);
                self.attempt = i32::try_from(d.attempts).ok();
                self.reason = Some(&d.reason);
            }
            EventData::ProcedureDemoted(d) => {
                self.procedure = Some(d.procedure.as_str());
                self.recovery = Some(d.newest.as_str());
            }
            EventData::ProcedurePromoted(d) => {
                self.procedure = Some(d.procedure.as_str());
                self.reason = Some(&d.comment);
            }
            EventData::FailoverStarted(d) => {
                self.recovery = d.recovery.as_ref().map(crate::ids::RecoveryId::as_str);
                self.site = Some(d.to_site.as_str());
            }
            EventData::FailoverFinished(d) => {
                self.site = Some(d.to_site.as_str());
                self.outcome = Some(succeeded(d.succeeded));
                self.duration_ms = i64::try_from(d.duration_ms).ok();
                self.reason = d.reason.as_deref();
            }
            EventData::FailbackFinished(d) => {
                self.site = Some(d.to_site.as_str());
                self.outcome = Some(succeeded(d.succeeded));
                self.duration_ms = i64::try_from(d.duration_ms).ok();
            }
            EventData::DrillStarted(d) => self.drill = Some(d.drill.as_str()),
            EventData::FaultInjected(d) => self.drill = d.drill.as_ref().map(crate::ids::DrillId::as_str),
            EventData::DrillFinished(d) => {
                self.drill = Some(d.drill.as_str());
                self.outcome = Some(succeeded(d.passed));
            }
            EventData::ImprovementOpened(d) => {
                self.incident = d.incident.as_ref().map(crate::ids::IncidentId::as_str);
            }
            EventData::ImprovementClosed(_) | EventData::PlanAdopted(_) => {}
        }
    }

    /// The payload's JSON as received: `data`, or rebuilt from the typed columns where that is NULL.
    /// `None` for a row that holds neither, which this build never writes.
    #[must_use]
    pub fn data_text(&self) -> Option<Cow<'a, str>> {
        self.data.map(Cow::Borrowed).or_else(|| rebuild(self).map(Cow::Owned))
    }

    /// Whether the row stands for offsets without an event.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        self.kind == GAP_KIND
    }

    /// The row's event, its payload upcast to the newest version; `None` for a gap.
    ///
    /// # Errors
    /// What the row holds is not an event of this build's vocabulary.
    pub fn event(&self) -> Result<Option<Event>, DecodeError> {
        if self.is_gap() {
            return Ok(None);
        }
        let kind = Kind::parse(self.kind)
            .ok_or_else(|| DecodeError::UnknownType { found: self.kind.chars().take(200).collect() })?;
        let wrong = |attribute, found: &str, e: IdError| DecodeError::Attribute {
            attribute,
            found: found.chars().take(200).collect(),
            expected: e.to_string(),
        };
        let subject = self.service.ok_or(DecodeError::Missing("subject"))?;
        let data = match self.data {
            Some(text) => decode_data(kind, u16::try_from(self.version).unwrap_or(u16::MAX), text)?,
            None => probe_of(self).ok_or(DecodeError::Missing("data"))?.into(),
        };
        let occurred_at = DateTime::from_timestamp_micros(self.occurred_at).ok_or(DecodeError::Missing("time"))?;
        Ok(Some(Event {
            id: EventId::new(self.id).map_err(|e| wrong("id", self.id, e))?,
            source: Source::new(self.source).map_err(|e| wrong("source", self.source, e))?,
            subject: ServiceId::new(subject).map_err(|e| wrong("subject", subject, e))?,
            occurred_at,
            plan: self
                .plan
                .map(|text| PlanVersion::new(text).map_err(|e| wrong("planversion", text, e)))
                .transpose()?,
            data,
        }))
    }

    /// For a gap, the first offset after it.
    #[must_use]
    pub fn gap_until(&self) -> Option<i64> {
        let gap: Gap = sonic_rs::from_str(self.data.filter(|_| self.is_gap())?).ok()?;
        Some(gap.until)
    }
}

fn succeeded(yes: bool) -> &'static str {
    if yes { "succeeded" } else { "failed" }
}

/// `data` of a gap.
#[derive(serde::Serialize, serde::Deserialize)]
struct Gap {
    until: i64,
    why: String,
}

/// `data` of the row for offsets up to, not including, `until`: `{"until":8,"why":"dead_letter"}`.
#[must_use]
pub fn gap_data(until: i64, why: &str) -> String {
    serde_json::to_string(&Gap { until, why: why.to_owned() }).expect("an integer and a text are always JSON")
}

/// `id` of the row for offsets from `offset`.
#[must_use]
pub fn gap_id(topic: Topic, partition: i32, offset: i64) -> String {
    format!("gap:{}-{partition}:{offset}", topic.as_str())
}

/// The payload text of a `probe.completed` from its typed columns, in the one form in which Rebound writes it:
/// members in the order of [`ProbeCompleted`], absent ones left out, no white space.
#[must_use]
pub fn probe_data(probe: &ProbeCompleted) -> String {
    let mut text = String::with_capacity(160);
    let quoted = |s: &str| serde_json::to_string(s).expect("a string is always JSON");
    let _ = write!(
        text,
        r#"{{"probe":{},"outcome":"{}","latency_us":{}"#,
        quoted(probe.probe.as_str()),
        probe.outcome,
        probe.latency_us
    );
    if let Some(site) = &probe.site {
        let _ = write!(text, r#","site":{}"#, quoted(site.as_str()));
    }
    if let Some(class) = probe.error_class {
        let _ = write!(text, r#","error_class":"{class}""#);
    }
    if let Some(reason) = &probe.reason {
        let _ = write!(text, r#","reason":{}"#, quoted(reason));
    }
    if let Some(status) = probe.http_status {
        let _ = write!(text, r#","http_status":{status}"#);
    }
    if let Some(time) = &probe.certificate_expires_at {
        let _ = write!(text, r#","certificate_expires_at":{}"#, time_text(time));
    }
    text.push('}');
    text
}

fn time_text(time: &DateTime<Utc>) -> String {
    serde_json::to_string(time).expect("a time is always JSON")
}

fn rebuild(row: &Row<'_>) -> Option<String> {
    probe_of(row).map(|probe| probe_data(&probe))
}

/// The payload that a `probe.completed` row's typed columns hold.
fn probe_of(row: &Row<'_>) -> Option<ProbeCompleted> {
    if row.kind != Kind::ProbeCompleted.as_str() || row.version != 1 {
        return None;
    }
    Some(ProbeCompleted {
        probe: ProbeId::new(row.probe?).ok()?,
        outcome: Outcome::parse(row.outcome?)?,
        latency_us: u64::try_from(row.latency_us?).ok()?,
        site: row.site.map(SiteId::new).transpose().ok()?,
        error_class: match row.error_class {
            Some(class) => Some(ErrorClass::parse(class)?),
            None => None,
        },
        reason: row.reason.map(str::to_owned),
        http_status: row.http_status.map(u16::try_from).transpose().ok()?,
        certificate_expires_at: match row.certificate_expires_at {
            Some(micros) => Some(DateTime::from_timestamp_micros(micros)?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests;
