//! CDEvents to Rebound's own: incidents and deployments, as they arrive within CloudEvents.
//!
//! | CDEvents type | becomes | service |
//! |---|---|---|
//! | `dev.cdevents.incident.detected.*`, `.reported.*` | `incident.opened` | `content.service.id` |
//! | `dev.cdevents.incident.resolved.*` | `incident.resolved` | `content.service.id` |
//! | `dev.cdevents.service.deployed.*`, `.upgraded.*` | `deployment.finished`, succeeded | `subject.id` |
//! | `dev.cdevents.service.rolledback.*` | `deployment.finished`, rolled_back | `subject.id` |
//!
//! An incident's id comes from the CDEvents source and subject, so that detected, reported and resolved meet.

use chrono::{DateTime, Utc};
use rebound_schemas::codec::{Attributes, DecodeError, parse_time};
use rebound_schemas::event::{
    DeploymentFinished, DeploymentOutcome, ErrorClass, IncidentOpened, IncidentResolved, Severity,
};
use rebound_schemas::{Event, EventData, EventId, IncidentId, ServiceId, Source};
use serde_json::Value;

use super::Rejection;

const PREFIX: &str = "dev.cdevents.";

/// Whether a CloudEvents type is of CDEvents.
pub(super) fn is_one(type_name: &str) -> bool {
    type_name.starts_with(PREFIX)
}

/// From a whole CloudEvent in structured mode.
pub(super) fn from_structured(json: &[u8]) -> Result<Event, Rejection> {
    let envelope: Value = serde_json::from_slice(json).map_err(|e| DecodeError::Json(e.to_string()))?;
    let text = |name: &str| envelope.get(name).and_then(Value::as_str);
    let attributes = Attributes {
        specversion: text("specversion"),
        id: text("id"),
        source: text("source"),
        type_name: text("type"),
        subject: text("subject"),
        time: text("time"),
        planversion: None,
    };
    map(attributes, envelope.get("data").unwrap_or(&Value::Null))
}

/// From the attributes and the payload, which is the CDEvent itself.
pub(super) fn map(attributes: Attributes<'_>, data: &Value) -> Result<Event, Rejection> {
    let context = |name: &str| data.pointer(&format!("/context/{name}")).and_then(Value::as_str);
    let attribute = |name: &'static str, value: Option<&str>, own: &str| {
        value.or_else(|| context(own)).map(str::to_owned).ok_or_else(|| Rejection::from(DecodeError::Missing(name)))
    };
    let id = attribute("id", attributes.id, "id")?;
    let id = EventId::new(&id).map_err(|e| Rejection::new("/id", e.to_string(), "an id"))?;
    let source = attribute("source", attributes.source, "source")?;
    let source = Source::new(&source).map_err(|e| Rejection::new("/source", e.to_string(), "a source"))?;
    let time = attribute("time", attributes.time, "timestamp")?;
    let at = parse_time(&time).ok_or_else(|| Rejection::new("/time", format!("{time:?} is no time"), "RFC 3339"))?;
    let type_name = attribute("type", attributes.type_name, "type")?;
    let words: Vec<_> = type_name.strip_prefix(PREFIX).unwrap_or_default().splitn(3, '.').collect();
    let (subject, data) = match words.as_slice() {
        ["incident", "detected" | "reported", _] => {
            let (service, incident) = incident(data, &source)?;
            (service, opened(incident, data, at))
        }
        ["incident", "resolved", _] => {
            let (service, incident) = incident(data, &source)?;
            (service, IncidentResolved { incident, recovered_at: at, recovery: None }.into())
        }
        ["service", "deployed" | "upgraded", _] => deployment(data, &id, DeploymentOutcome::Succeeded)?,
        ["service", "rolledback", _] => deployment(data, &id, DeploymentOutcome::RolledBack)?,
        _ => {
            return Err(Rejection::new(
                "/type",
                format!("{type_name:?} is a CDEvent that Rebound has no use for"),
                "incident.detected, .reported or .resolved, or service.deployed, .upgraded or .rolledback",
            ));
        }
    };
    Ok(Event { id, source, subject, occurred_at: at, plan: None, data })
}

/// A text of the CDEvent's subject, by its JSON pointer within the payload.
fn required<'a>(data: &'a Value, pointer: &str, expected: &str) -> Result<&'a str, Rejection> {
    let missing = || Rejection::new(format!("/data{pointer}"), "missing, or not a text", expected);
    data.pointer(pointer).and_then(Value::as_str).ok_or_else(missing)
}

fn service(data: &Value, pointer: &str, expected: &str) -> Result<ServiceId, Rejection> {
    let text = required(data, pointer, expected)?;
    ServiceId::new(text).map_err(|e| Rejection::new(format!("/data{pointer}"), e.to_string(), expected))
}

fn incident(data: &Value, source: &Source) -> Result<(ServiceId, IncidentId), Rejection> {
    let service = service(data, "/subject/content/service/id", "the id of the service that the incident is about")?;
    let expected = "the incident's id";
    let name = required(data, "/subject/id", expected)?;
    let name = EventId::new(name).map_err(|e| Rejection::new("/data/subject/id", e.to_string(), expected))?;
    let incident = IncidentId::derive(&service, source, &name);
    Ok((service, incident))
}

/// CDEvents tell no severity: somebody should look, and who knows better corrects it.
fn opened(incident: IncidentId, data: &Value, at: DateTime<Utc>) -> EventData {
    let reason = data.pointer("/subject/content/description").and_then(Value::as_str);
    IncidentOpened {
        incident,
        severity: Severity::Warning,
        first_failure_at: at,
        last_success_at: None,
        detected_at: at,
        policy: None,
        error_class: ErrorClass::Unknown,
        cause: None,
        reason: reason.unwrap_or("reported as a CDEvent, without a description").to_owned(),
    }
    .into()
}

fn deployment(data: &Value, id: &EventId, outcome: DeploymentOutcome) -> Result<(ServiceId, EventData), Rejection> {
    let service = service(data, "/subject/id", "the id of the service that was deployed")?;
    let version = data.pointer("/subject/content/artifactId").and_then(Value::as_str).map(str::to_owned);
    Ok((service, DeploymentFinished { deployment: id.as_str().to_owned(), outcome, version }.into()))
}
