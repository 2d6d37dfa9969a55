//! Alertmanager's webhook (version 4) to incidents: a firing alert opens one, a resolved one resolves it. Pure.
//!
//! Alertmanager repeats itself (every `repeat_interval`, after every failed delivery, from each of its replicas),
//! so everything follows from the alert alone: the incident from its fingerprint and start, the event from those and
//! its status, and the source is the same for all. A repeated alert is the same event, which counts once.

use chrono::{DateTime, Utc};
use rebound_schemas::event::{ErrorClass, IncidentOpened, IncidentResolved, Severity};
use rebound_schemas::{Event, EventId, IncidentId, ServiceId, Source, codec};
use serde::Deserialize;
use serde_json::Value;

use super::parse::RequestError;
use super::{Accepted, Rejection, Rules, escape};

/// The source of events made from Alertmanager's.
const SOURCE: &str = "alertmanager";

/// Which labels say what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The service: the first of these labels that an alert has.
    pub service: Vec<String>,
    /// The severity.
    pub severity: String,
}

impl Default for Labels {
    fn default() -> Self {
        Self { service: vec!["service".into()], severity: "severity".into() }
    }
}

#[derive(Deserialize)]
struct Webhook {
    version: String,
    alerts: Vec<Value>,
}

/// The incidents' events of one webhook, in the order of its alerts. Pointers lead into the posted body.
///
/// # Errors
/// A body that is not a webhook of version 4, or has more than `limit` alerts.
pub fn parse_webhook(
    body: &[u8],
    labels: &Labels,
    limit: usize,
    now: DateTime<Utc>,
) -> Result<Vec<Result<Accepted, Rejection>>, RequestError> {
    let webhook: Webhook = serde_json::from_slice(body)
        .map_err(|e| RequestError::body(e.to_string(), "the body of an Alertmanager webhook"))?;
    if webhook.version != "4" {
        return Err(RequestError::Body {
            pointer: "/version".into(),
            message: format!("version {:?} of the webhook is unknown", webhook.version),
            expected: "\"4\"".into(),
        });
    }
    if webhook.alerts.len() > limit {
        return Err(RequestError::TooMany { limit });
    }
    let one = |(index, alert): (usize, &Value)| {
        let at = format!("/alerts/{index}");
        let event = event_of(alert, labels).and_then(|event| Rules::default().check(&event, now).map(|()| event));
        match event {
            Ok(event) => Ok(Accepted { json: codec::encode(&event).into(), event }),
            // The rules speak of the event's `time`; here that is the alert's own.
            Err(r) if r.pointer == "/time" => Err(Rejection { pointer: format!("{at}/{}", time_member(alert)), ..r }),
            Err(r) => Err(Rejection { pointer: format!("{at}{}", r.pointer), ..r }),
        }
    };
    Ok(webhook.alerts.iter().enumerate().map(one).collect())
}

fn time_member(alert: &Value) -> &'static str {
    if alert.get("status").and_then(Value::as_str) == Some("resolved") { "endsAt" } else { "startsAt" }
}

fn event_of(alert: &Value, labels: &Labels) -> Result<Event, Rejection> {
    let text = |pointer: &str, expected: &str| {
        let missing = || Rejection::new(pointer, "missing, or not a text", expected);
        alert.pointer(pointer).and_then(Value::as_str).ok_or_else(missing)
    };
    let time = |pointer: &str| {
        let written = text(pointer, "a time as in RFC 3339")?;
        codec::parse_time(written)
            .ok_or_else(|| Rejection::new(pointer, format!("{written:?} is not when this can have been"), "RFC 3339"))
    };
    let fingerprint = text("/fingerprint", "the alert's fingerprint")?;
    let starts_at = time("/startsAt")?;
    let subject = service(alert, labels)?;
    let source = Source::new(SOURCE).map_err(|e| Rejection::new("", e.to_string(), "a source"))?;
    let start = format!("{fingerprint}:{}", codec::format_time(starts_at));
    let named =
        |text: &str| EventId::new(text).map_err(|e| Rejection::new("/fingerprint", e.to_string(), "hex digits"));
    let incident = IncidentId::derive(&subject, &source, &named(&start)?);
    let status = text("/status", "\"firing\" or \"resolved\"")?;
    let (occurred_at, data) = match status {
        // `endsAt` of a firing alert is the year 1, or a guess: it says nothing and is not read.
        "firing" => (starts_at, opened(alert, labels, incident, starts_at).into()),
        "resolved" => {
            let ends_at = time("/endsAt")?;
            (ends_at, IncidentResolved { incident, recovered_at: ends_at, recovery: None }.into())
        }
        other => {
            let message = format!("the status {other:?} is unknown");
            return Err(Rejection::new("/status", message, "\"firing\" or \"resolved\""));
        }
    };
    Ok(Event { id: named(&format!("{start}:{status}"))?, source, subject, occurred_at, plan: None, data })
}

fn service(alert: &Value, labels: &Labels) -> Result<ServiceId, Rejection> {
    let label = |name: &String| Some((name.clone(), alert.get("labels")?.get(name)?.as_str()?));
    let first = labels.service.first().map(String::as_str).unwrap_or_default();
    let Some((name, value)) = labels.service.iter().find_map(label) else {
        return Err(Rejection::new(
            format!("/labels/{}", escape(first)),
            "the alert does not say which service it is about",
            format!("one of the labels {}", labels.service.join(", ")),
        ));
    };
    ServiceId::new(value)
        .map_err(|e| Rejection::new(format!("/labels/{}", escape(&name)), format!("{value:?}: {e}"), "a service's id"))
}

fn opened(alert: &Value, labels: &Labels, incident: IncidentId, starts_at: DateTime<Utc>) -> IncidentOpened {
    let text = |pointer: &str| alert.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let severity = match text(&format!("/labels/{}", escape(&labels.severity))) {
        Some("critical" | "page" | "error" | "emergency") => Severity::Critical,
        Some("info" | "none" | "notice") => Severity::Info,
        _ => Severity::Warning,
    };
    let reason = text("/annotations/summary")
        .or_else(|| text("/annotations/description"))
        .or_else(|| text("/labels/alertname"))
        .unwrap_or("an alert without a name");
    IncidentOpened {
        incident,
        severity,
        first_failure_at: starts_at,
        last_success_at: None,
        detected_at: starts_at,
        policy: None,
        error_class: ErrorClass::Unknown,
        cause: None,
        reason: reason.chars().take(300).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rebound_schemas::EventData;
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        codec::parse_time("2026-11-22T21:02:00Z").unwrap()
    }

    /// As Alertmanager 0.25 sends it.
    fn webhook(status: &str, ends_at: &str) -> Value {
        json!({"receiver": "w", "status": status, "alerts": [{
            "status": status,
            "labels": {"alertname": "Down", "instance": "a", "severity": "critical", "service": "api"},
            "annotations": {"summary": "a is down"},
            "startsAt": "2026-11-22T21:01:45Z", "endsAt": ends_at, "generatorURL": "",
            "fingerprint": "55dbe9f10d24a0f6"}],
            "groupLabels": {"alertname": "Down"}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://am:9093", "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0})
    }

    fn parse(body: &Value, labels: &Labels) -> Vec<Result<Accepted, Rejection>> {
        parse_webhook(body.to_string().as_bytes(), labels, 10, now()).unwrap()
    }

    fn one(body: &Value) -> Result<Event, Rejection> {
        parse(body, &Labels::default()).remove(0).map(|a| a.event)
    }

    #[test]
    fn firing_opens_and_resolved_resolves_the_same_incident() {
        let firing = one(&webhook("firing", "0001-01-01T00:00:00Z")).unwrap();
        let EventData::IncidentOpened(opened) = &firing.data else { panic!("{firing:?}") };
        assert_eq!((firing.subject.as_str(), opened.severity), ("api", Severity::Critical));
        assert_eq!(codec::format_time(firing.occurred_at), "2026-11-22T21:01:45.000Z");
        assert_eq!(opened.reason, "a is down");
        let resolved = one(&webhook("resolved", "2026-11-22T21:01:49Z")).unwrap();
        let EventData::IncidentResolved(end) = &resolved.data else { panic!("{resolved:?}") };
        assert_eq!(end.incident, opened.incident);
        assert_eq!(codec::format_time(end.recovered_at), "2026-11-22T21:01:49.000Z");
        assert_ne!(firing.id, resolved.id);
    }

    #[test]
    fn what_is_repeated_is_the_same_event() {
        let first = one(&webhook("firing", "0001-01-01T00:00:00Z")).unwrap();
        let mut again = webhook("firing", "2026-11-22T21:06:00Z");
        again["receiver"] = json!("other");
        again["externalURL"] = json!("http://replica:9093");
        assert_eq!(one(&again).unwrap(), first, "neither endsAt nor the replica matter while firing");
        let mut later = webhook("firing", "0001-01-01T00:00:00Z");
        later["alerts"][0]["startsAt"] = json!("2026-11-22T21:01:46Z");
        assert_ne!(one(&later).unwrap().id, first.id, "another outage");
    }

    #[test]
    fn faults_are_located() {
        let pointer = |change: &dyn Fn(&mut Value)| {
            let mut body = webhook("resolved", "2026-11-22T21:01:49Z");
            change(&mut body["alerts"][0]);
            one(&body).unwrap_err().pointer
        };
        let remove = |name: &'static str| move |alert: &mut Value| drop(alert.as_object_mut().unwrap().remove(name));
        assert_eq!(pointer(&remove("labels")), "/alerts/0/labels/service");
        assert_eq!(pointer(&remove("fingerprint")), "/alerts/0/fingerprint");
        assert_eq!(pointer(&remove("status")), "/alerts/0/status");
        assert_eq!(pointer(&|a| a["status"] = json!("maybe")), "/alerts/0/status");
        assert_eq!(pointer(&|a| a["labels"]["service"] = json!("a b")), "/alerts/0/labels/service");
        assert_eq!(pointer(&|a| a["startsAt"] = json!("yesterday")), "/alerts/0/startsAt");
        assert_eq!(pointer(&|a| a["endsAt"] = json!("0001-01-01T00:00:00Z")), "/alerts/0/endsAt");
        assert_eq!(pointer(&|a| a["endsAt"] = json!("2027-11-22T21:01:49Z")), "/alerts/0/endsAt", "far ahead");
        assert_eq!(pointer(&|a| *a = json!(7)), "/alerts/0/fingerprint");
    }

    #[test]
    fn labels_are_configurable() {
        let labels = Labels { service: vec!["app".into(), "instance".into()], severity: "prio".into() };
        let mut body = webhook("firing", "0001-01-01T00:00:00Z");
        body["alerts"][0]["labels"]["prio"] = json!("info");
        let event = parse(&body, &labels).remove(0).unwrap().event;
        let EventData::IncidentOpened(opened) = &event.data else { panic!("{event:?}") };
        assert_eq!((event.subject.as_str(), opened.severity), ("a", Severity::Info));
    }

    #[test]
    fn what_is_no_webhook_is_refused_whole() {
        let error = |body: &str| parse_webhook(body.as_bytes(), &Labels::default(), 1, now()).unwrap_err();
        assert!(matches!(error("{"), RequestError::Body { .. }));
        assert!(matches!(error("{\"version\":\"4\"}"), RequestError::Body { .. }));
        let mut body = webhook("firing", "");
        body["version"] = json!("5");
        assert!(matches!(error(&body.to_string()), RequestError::Body { pointer, .. } if pointer == "/version"));
        body["version"] = json!("4");
        body["alerts"] = json!([1, 2]);
        assert_eq!(error(&body.to_string()), RequestError::TooMany { limit: 1 });
    }
}
