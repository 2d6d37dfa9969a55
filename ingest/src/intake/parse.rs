//! Posted bytes to events: CloudEvents structured, batched, binary and as NDJSON. Pure: `now` is an argument.
//!
//! | content type | body |
//! |---|---|
//! | `application/cloudevents+json` | one event |
//! | `application/cloudevents-batch+json` | a JSON array of events |
//! | `application/x-ndjson`, `application/jsonl` | one event a line; empty lines are passed over |
//! | `application/json` with `ce-*` headers | the payload of one event, its attributes in the headers |
//!
//! A body that can't be taken apart into events is a [`RequestError`]; from there on every event is judged alone.

use std::borrow::Cow;

use axum::http::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use rebound_schemas::codec::{self, Attributes, DecodeError};
use serde_json::Value;

use super::{Accepted, Rejection, Rules, cdevents};

/// Why nothing of a request was looked at further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A content type that events don't come in.
    #[error(
        "the content type {0:?} is not one that events come in: expected application/cloudevents+json, \
         application/cloudevents-batch+json, application/x-ndjson, or application/json with ce-* headers"
    )]
    ContentType(String),
    /// The body is not what its content type says.
    #[error("{message}: expected {expected}")]
    Body {
        /// JSON pointer to the fault.
        pointer: String,
        /// What is wrong.
        message: String,
        /// What should stand there.
        expected: String,
    },
    /// More events than one request may hold.
    #[error("one request has at most {limit} events")]
    TooMany {
        /// How many it may hold.
        limit: usize,
    },
}

impl RequestError {
    pub(super) fn body(message: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Body { pointer: String::new(), message: message.into(), expected: expected.into() }
    }
}

/// The events of one posted body, each accepted or rejected, in the order given.
///
/// `headers` are only read in binary mode. `limit` is how many events one body may hold.
///
/// # Errors
/// A body that can't be taken apart into events.
pub fn parse_events(
    content_type: &str,
    headers: &HeaderMap,
    body: &Bytes,
    rules: Rules,
    limit: usize,
    now: DateTime<Utc>,
) -> Result<Vec<Result<Accepted, Rejection>>, RequestError> {
    let judge = |decoded: Result<Accepted, Rejection>| decoded.and_then(|a| rules.check(&a.event, now).map(|()| a));
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        codec::CONTENT_TYPE => Ok(vec![judge(structured(body.clone()))]),
        "application/cloudevents-batch+json" => batch(body, limit)?.into_iter().map(|e| Ok(judge(e))).collect(),
        "application/x-ndjson" | "application/jsonl" => lines(body, limit)?.into_iter().map(|e| Ok(judge(e))).collect(),
        "application/json" => Ok(vec![judge(binary(headers, body)?)]),
        _ => Err(RequestError::ContentType(content_type.chars().take(100).collect())),
    }
}

/// One event in structured mode, kept as it came.
fn structured(json: Bytes) -> Result<Accepted, Rejection> {
    match codec::decode(&json) {
        Ok(event) => Ok(Accepted { event, json }),
        Err(DecodeError::UnknownType { found }) if cdevents::is_one(&found) => {
            let event = cdevents::from_structured(&json)?;
            let json = codec::encode(&event).into();
            Ok(Accepted { event, json })
        }
        Err(e) => Err(e.into()),
    }
}

fn batch(body: &Bytes, limit: usize) -> Result<Vec<Result<Accepted, Rejection>>, RequestError> {
    let mut events = Vec::new();
    // A first look over the whole: cut short, a batch must not be half taken.
    serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(body)
        .map_err(|e| RequestError::body(format!("not a JSON array: {e}"), "a JSON array of CloudEvents"))?;
    codec::check_depth(body).map_err(|e| RequestError::body(e.to_string(), "a JSON array of CloudEvents"))?;
    for element in sonic_rs::to_array_iter(body) {
        if events.len() == limit {
            return Err(RequestError::TooMany { limit });
        }
        let element = element.map_err(|e| RequestError::Body {
            pointer: format!("/{}", events.len()),
            message: e.to_string().lines().next().unwrap_or_default().to_owned(),
            expected: "a JSON array of CloudEvents".into(),
        })?;
        events.push(structured(Bytes::copy_from_slice(element.as_raw_str().as_bytes())));
    }
    Ok(events)
}

fn lines(body: &Bytes, limit: usize) -> Result<Vec<Result<Accepted, Rejection>>, RequestError> {
    let lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let events: Vec<_> = lines.take(limit.saturating_add(1)).map(|line| structured(body.slice_ref(line))).collect();
    if events.len() > limit { Err(RequestError::TooMany { limit }) } else { Ok(events) }
}

/// Attributes from headers, each percent-encoded as the HTTP binding says.
fn binary(headers: &HeaderMap, body: &Bytes) -> Result<Result<Accepted, Rejection>, RequestError> {
    let attribute = |name: &str| -> Option<Cow<'_, str>> {
        let value = headers.get(format!("ce-{name}"))?;
        let text = String::from_utf8_lossy(value.as_bytes());
        Some(percent_decode_str(text.trim()).decode_utf8_lossy().into_owned().into())
    };
    let names = ["specversion", "id", "source", "type", "subject", "time", "planversion"];
    let [specversion, id, source, type_name, subject, time, plan] = names.map(attribute);
    if specversion.is_none() && type_name.is_none() {
        return Err(RequestError::body(
            "application/json without ce-* headers is not an event",
            "the headers of binary mode (ce-specversion, ce-id, ce-source, ce-type, ce-subject, ce-time), or the \
             content type application/cloudevents+json",
        ));
    }
    if body.len() > codec::MAX_EVENT_BYTES {
        return Ok(Err(DecodeError::TooLarge(body.len()).into()));
    }
    let Ok(data) = std::str::from_utf8(body) else {
        return Ok(Err(Rejection::new("/data", "the body is not UTF-8", "JSON in UTF-8")));
    };
    let attributes = Attributes {
        specversion: specversion.as_deref(),
        id: id.as_deref(),
        source: source.as_deref(),
        type_name: type_name.as_deref(),
        subject: subject.as_deref(),
        time: time.as_deref(),
        planversion: plan.as_deref(),
    };
    let event = if type_name.as_deref().is_some_and(cdevents::is_one) {
        match serde_json::from_str::<Value>(data) {
            Ok(data) => cdevents::map(attributes, &data),
            Err(e) => Err(Rejection::new("/data", format!("not JSON: {e}"), "a CDEvents event")),
        }
    } else {
        codec::decode_parts(attributes, data).map(|(event, _)| event).map_err(Rejection::from)
    };
    Ok(event.map(|event| Accepted { json: codec::encode(&event).into(), event }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rebound_schemas::{EventData, Kind};
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        codec::parse_time("2026-03-01T12:00:00Z").unwrap()
    }

    fn event(id: u32, kind: Kind, data: &Value) -> Value {
        json!({"specversion": "1.0", "id": id.to_string(), "source": "test", "type": kind.type_name(),
               "subject": "api", "time": "2026-03-01T11:00:00Z", "data": data})
    }

    fn measured(id: u32) -> Value {
        event(id, Kind::ResourceMeasured, &json!({"resource": "disk", "utilization": 0.5}))
    }

    fn parse(content_type: &str, body: &str) -> Result<Vec<Result<Accepted, Rejection>>, RequestError> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        parse_events(content_type, &HeaderMap::new(), &body, Rules::default(), 3, now())
    }

    /// Ids of accepted events, pointers of rejected ones.
    fn brief(verdicts: &[Result<Accepted, Rejection>]) -> Vec<String> {
        let one = |v: &Result<Accepted, Rejection>| match v {
            Ok(a) => a.event.id.to_string(),
            Err(r) => r.pointer.clone(),
        };
        verdicts.iter().map(one).collect()
    }

    #[test]
    fn every_form_gives_the_same_event() {
        let one = serde_json::to_string_pretty(&measured(1)).unwrap();
        let structured = parse("application/cloudevents+json; charset=utf-8", &one).unwrap();
        let accepted = structured[0].as_ref().unwrap();
        assert_eq!(accepted.json, one.as_bytes(), "kept as received");
        let batch = parse("application/cloudevents-batch+json", &format!("[ {one} ]")).unwrap();
        assert_eq!(batch[0].as_ref().unwrap(), accepted);
        let lines = parse("application/x-ndjson", &format!("\n{}\r\n\n", measured(1))).unwrap();
        assert_eq!(lines[0].as_ref().unwrap().event, accepted.event);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "%31"),
            ("ce-source", "test"),
            ("ce-type", Kind::ResourceMeasured.type_name()),
            ("ce-subject", "api"),
            ("ce-time", "2026-03-01T11:00:00Z"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let body = Bytes::from(measured(1)["data"].to_string());
        let binary = parse_events("application/json", &headers, &body, Rules::default(), 3, now()).unwrap();
        let binary = binary[0].as_ref().unwrap();
        assert_eq!(binary.event, accepted.event);
        assert_eq!(codec::decode(&binary.json).unwrap(), accepted.event, "structured on the bus");
    }

    #[test]
    fn verdicts_come_in_order_and_one_by_one() {
        let mut no_id = measured(2);
        no_id.as_object_mut().unwrap().remove("id");
        let mut wrong = measured(3);
        wrong["data"]["utilization"] = json!("half");
        let batch = json!([measured(1), no_id, wrong]).to_string();
        let verdicts = parse("application/cloudevents-batch+json", &batch).unwrap();
        assert_eq!(brief(&verdicts), ["1", "/id", "/data/utilization"]);
        let lines = format!("{}\nnot json\n{}", measured(1), measured(2));
        assert_eq!(brief(&parse("application/jsonl", &lines).unwrap()), ["1", "", "2"]);
        assert_eq!(brief(&parse("application/cloudevents+json", "").unwrap()), [""]);
        assert_eq!(brief(&parse("application/cloudevents-batch+json", "[7, {}]").unwrap()), ["", "/data"]);
    }

    #[test]
    fn what_is_no_request_is_refused_whole() {
        let error = |content_type: &str, body: &str| parse(content_type, body).unwrap_err();
        assert!(matches!(error("text/plain", "{}"), RequestError::ContentType(_)));
        assert!(matches!(error("application/json", "{}"), RequestError::Body { .. }));
        for body in ["", "{}", "[", "[{]", "[{}", "[] x"] {
            let error = error("application/cloudevents-batch+json", body);
            assert!(matches!(error, RequestError::Body { .. }), "{body}: {error}");
        }
        let four = json!([measured(1), measured(2), measured(3), measured(4)]).to_string();
        assert_eq!(error("application/cloudevents-batch+json", &four), RequestError::TooMany { limit: 3 });
        let four = [measured(1), measured(2), measured(3), measured(4)].map(|e| e.to_string()).join("\n");
        assert_eq!(error("application/x-ndjson", &four), RequestError::TooMany { limit: 3 });
    }

    #[test]
    fn only_plausible_times_and_outside_kinds_are_taken() {
        let check = |event: Value, rules: Rules| {
            let body = Bytes::from(event.to_string());
            let verdicts = parse_events(codec::CONTENT_TYPE, &HeaderMap::new(), &body, rules, 3, now()).unwrap();
            brief(&verdicts).remove(0)
        };
        let at = |time: &str| {
            let mut event = measured(1);
            event["time"] = json!(time);
            check(event, Rules::default())
        };
        assert_eq!(at("1999-12-31T23:59:59Z"), "/time");
        assert_eq!(at("2000-01-01T00:00:00Z"), "1");
        assert_eq!(at("2026-03-02T12:00:00Z"), "1");
        assert_eq!(at("2026-03-02T12:00:01Z"), "/time");
        let approved = event(1, Kind::RecoveryApproved, &json!({"recovery": "rec-1", "by": "ann"}));
        assert_eq!(check(approved.clone(), Rules::default()), "1");
        assert_eq!(check(approved, Rules { named_words: true, ..Rules::default() }), "/type");
        let started = json!({"recovery": "rec-1", "incident": "inc-1", "procedure": "p", "runner": "r"});
        let started = event(1, Kind::RecoveryStarted, &started);
        assert_eq!(check(started.clone(), Rules::default()), "/type");
        assert_eq!(check(started, Rules { allow_decisions: true, ..Rules::default() }), "1");
    }

    fn cdevent(type_name: &str, subject: &str, content: Value) -> Value {
        json!({"specversion": "1.0", "id": "cd-1", "source": "ci/argo", "type": type_name, "subject": subject,
               "time": "2026-03-01T11:00:00Z", "datacontenttype": "application/json",
               "data": {"context": {"version": "0.4.1", "id": "cd-1", "source": "ci/argo", "type": type_name,
                                    "timestamp": "2026-03-01T11:00:00Z"},
                        "subject": {"id": subject, "type": "x", "content": content}}})
    }

    #[test]
    fn cdevents_become_incidents_and_deployments() {
        let map = |event: Value| parse(codec::CONTENT_TYPE, &event.to_string()).unwrap().remove(0);
        let content = json!({"description": "it burns", "environment": {"id": "prod"}, "service": {"id": "api"}});
        let opened = map(cdevent("dev.cdevents.incident.detected.0.3.0", "i-7", content.clone())).unwrap();
        assert_eq!((opened.event.subject.as_str(), opened.event.id.as_str()), ("api", "cd-1"));
        let EventData::IncidentOpened(data) = &opened.event.data else { panic!("{opened:?}") };
        assert_eq!((data.reason.as_str(), data.first_failure_at), ("it burns", opened.event.occurred_at));
        assert_eq!(codec::decode(&opened.json).unwrap(), opened.event);
        let resolved = map(cdevent("dev.cdevents.incident.resolved.0.3.0", "i-7", content)).unwrap();
        let EventData::IncidentResolved(end) = &resolved.event.data else { panic!("{resolved:?}") };
        assert_eq!(end.incident, data.incident, "one incident from both ends");
        let content = json!({"environment": {"id": "prod"}, "artifactId": "pkg:oci/api@1.2"});
        for (what, outcome) in [("deployed", "succeeded"), ("upgraded", "succeeded"), ("rolledback", "rolled_back")] {
            let done = map(cdevent(&format!("dev.cdevents.service.{what}.0.2.0"), "api", content.clone())).unwrap();
            let EventData::DeploymentFinished(data) = &done.event.data else { panic!("{done:?}") };
            assert_eq!((data.outcome.as_str(), data.version.as_deref()), (outcome, Some("pkg:oci/api@1.2")));
        }
        let none = map(cdevent("dev.cdevents.incident.detected.0.3.0", "i-7", json!({}))).unwrap_err();
        assert_eq!(none.pointer, "/data/subject/content/service/id");
        let other = map(cdevent("dev.cdevents.pipelinerun.started.0.2.0", "x", json!({}))).unwrap_err();
        assert_eq!(other.pointer, "/type");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Arbitrary bytes in any form: an answer, never a panic.
        #[test]
        fn arbitrary_bytes_never_panic(
            form in 0usize..5,
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "[\\[\\]{}\":,a-z0-9\\\\]{0,200}".prop_map(String::into_bytes),
            ],
            header in "[ -~]{0,20}",
        ) {
            let forms = ["application/cloudevents+json", "application/cloudevents-batch+json",
                         "application/x-ndjson", "application/json", header.as_str()];
            let mut headers = HeaderMap::new();
            headers.insert("ce-specversion", axum::http::HeaderValue::from_static("1.0"));
            headers.insert("ce-type", axum::http::HeaderValue::from_str(&header).unwrap());
            let body = Bytes::from(body);
            let _ = parse_events(forms[form], &headers, &body, Rules::default(), 10, now());
            let settings = super::super::alertmanager::Labels::default();
            let _ = super::super::alertmanager::parse_webhook(&body, &settings, 10, now());
        }

        /// A good event cut short or with a byte changed: an answer, never a panic.
        #[test]
        fn damaged_events_never_panic(at in 0usize..220, byte in any::<u8>(), cut in any::<bool>()) {
            let mut body = json!([measured(1)]).to_string().into_bytes();
            let at = at.min(body.len() - 1);
            if cut { body.truncate(at) } else { body[at] = byte }
            let body = Bytes::from(body);
            let _ = parse_events("application/cloudevents-batch+json", &HeaderMap::new(), &body, Rules::default(), 9, now());
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        for open in ["[", "{\"data\":"] {
            let deep = open.repeat(100_000);
            for form in ["application/cloudevents+json", "application/cloudevents-batch+json"] {
                let rejected = parse(form, &deep).map(|v| v.iter().all(Result::is_err));
                assert!(!matches!(rejected, Ok(false)), "{form}");
            }
        }
    }
}
