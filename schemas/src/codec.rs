//! Events to CloudEvents 1.0 JSON and back, and old payload versions to the newest.
//!
//! Structured mode (`application/cloudevents+json`) is what the bus carries. Binary mode (`ce_*` attributes and a
//! bare payload) is accepted through [`decode_parts`], which both modes end in. Rebound's one extension attribute
//! is `planversion`; other extension attributes are accepted and not kept.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;

use crate::event::{Event, EventData, Kind};
use crate::ids::{EventId, IdError, PlanVersion, ServiceId, Source};
use crate::table::scan_probe;

/// The CloudEvents version that Rebound speaks.
pub const SPEC_VERSION: &str = "1.0";
/// What every Rebound type name begins with.
pub const TYPE_PREFIX: &str = "dev.rebound.";
/// The content type of structured mode.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// Largest event accepted anywhere, in bytes of JSON.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Deepest nesting of arrays and objects accepted anywhere.
pub const MAX_DEPTH: usize = 64;

/// Why bytes are not an event. [`DecodeError::class`] is what dead letters are counted by,
/// [`DecodeError::pointer`] is where in the JSON the fault is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// More than [`MAX_EVENT_BYTES`].
    #[error("an event has at most {MAX_EVENT_BYTES} bytes, this one has {0}")]
    TooLarge(usize),
    /// A required CloudEvents attribute is missing.
    #[error("the attribute {0:?} is missing")]
    Missing(&'static str),
    /// An attribute is there and wrong.
    #[error("the attribute {attribute:?} is {found:?}: expected {expected}")]
    Attribute {
        /// Which.
        attribute: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// A type that Rebound doesn't know.
    #[error("the type {found:?} is unknown: expected {TYPE_PREFIX}<kind>.v<version>, for example \"{}\"", Kind::ProbeCompleted.type_name())]
    UnknownType {
        /// The type given.
        found: String,
    },
    /// A version newer than this build.
    #[error("{kind} version {found} is newer than this build, which knows up to version {}: upgrade Rebound", kind.version())]
    NewerVersion {
        /// The kind.
        kind: Kind,
        /// The version given.
        found: u16,
    },
    /// The payload is not one of its kind.
    #[error("the data of a {kind} is wrong: {message}")]
    Data {
        /// The kind.
        kind: Kind,
        /// The member at fault, where it is known.
        member: Option<String>,
        /// What is wrong and what was expected.
        message: String,
    },
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl DecodeError {
    /// A short, fixed word for metrics and dead-letter headers.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::TooLarge(_) => "too_large",
            Self::Missing(_) | Self::Attribute { .. } => "attribute",
            Self::UnknownType { .. } => "unknown_type",
            Self::NewerVersion { .. } => "newer_version",
            Self::Data { .. } => "data",
        }
    }

    /// A JSON pointer (RFC 6901) to the fault within the event.
    #[must_use]
    pub fn pointer(&self) -> String {
        match self {
            Self::Json(_) | Self::TooLarge(_) => String::new(),
            Self::Missing(attribute) | Self::Attribute { attribute, .. } => format!("/{attribute}"),
            Self::UnknownType { .. } | Self::NewerVersion { .. } => "/type".into(),
            Self::Data { member: None, .. } => "/data".into(),
            Self::Data { member: Some(member), .. } => {
                format!("/data/{}", member.replace('~', "~0").replace('/', "~1"))
            }
        }
    }
}

/// The envelope as it stands in the JSON, nothing interpreted yet.
#[derive(Debug, Deserialize)]
struct RawEnvelope<'a> {
    #[serde(borrow)]
    specversion: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    type_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    planversion: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<sonic_rs::LazyValue<'a>>,
}

/// The CloudEvents attributes of one event, from either mode.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// `specversion`, which must be "1.0".
    pub specversion: Option<&'a str>,
    /// `id`.
    pub id: Option<&'a str>,
    /// `source`.
    pub source: Option<&'a str>,
    /// `type`.
    pub type_name: Option<&'a str>,
    /// `subject`: the service.
    pub subject: Option<&'a str>,
    /// `time`, RFC 3339.
    pub time: Option<&'a str>,
    /// `planversion`, Rebound's extension.
    pub planversion: Option<&'a str>,
}

/// An event with the JSON text of its payload as it was received, which the event log keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded<'a> {
    /// The event, its payload upcast to the newest version.
    pub event: Event,
    /// The version that the payload was written in.
    pub version: u16,
    /// The payload as received.
    pub data: Cow<'a, str>,
}

/// One event from structured-mode JSON. Probe results, which are nearly all there is, go a faster way.
pub fn decode(json: &[u8]) -> Result<Event, DecodeError> {
    if let Some(event) = scan_probe(json).and_then(|probe| probe.event()) {
        return Ok(event);
    }
    decode_full(json).map(|decoded| decoded.event)
}

/// One event from structured-mode JSON, with the payload's own text and version.
pub fn decode_full(json: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    if json.len() > MAX_EVENT_BYTES {
        return Err(DecodeError::TooLarge(json.len()));
    }
    check_depth(json)?;
    let raw: RawEnvelope<'_> = sonic_rs::from_slice(json).map_err(|e| DecodeError::Json(brief(&e)))?;
    let attributes = Attributes {
        specversion: raw.specversion.as_deref(),
        id: raw.id.as_deref(),
        source: raw.source.as_deref(),
        type_name: raw.type_name.as_deref(),
        subject: raw.subject.as_deref(),
        time: raw.time.as_deref(),
        planversion: raw.planversion.as_deref(),
    };
    let data = raw.data.as_ref().ok_or(DecodeError::Missing("data"))?;
    let (event, version) = decode_parts(attributes, data.as_raw_str())?;
    Ok(Decoded { event, version, data: Cow::Owned(data.as_raw_str().to_owned()) })
}

/// One event from its attributes and the JSON text of its payload; also gives the payload's written version.
pub fn decode_parts(attributes: Attributes<'_>, data: &str) -> Result<(Event, u16), DecodeError> {
    let required = |name, value: Option<_>| value.ok_or(DecodeError::Missing(name));
    let specversion = required("specversion", attributes.specversion)?;
    if specversion != SPEC_VERSION {
        return Err(wrong("specversion", specversion, "\"1.0\""));
    }
    let (kind, version) = parse_type(required("type", attributes.type_name)?)?;
    let id = named("id", required("id", attributes.id)?, EventId::new)?;
    let source = named("source", required("source", attributes.source)?, Source::new)?;
    let subject = named("subject", required("subject", attributes.subject)?, ServiceId::new)?;
    let time = required("time", attributes.time)?;
    let occurred_at = parse_time(time)
        .ok_or_else(|| wrong("time", time, "a time as in RFC 3339, for example \"2026-01-31T12:00:00Z\""))?;
    let plan = attributes.planversion.map(|text| named("planversion", text, PlanVersion::new)).transpose()?;
    let data = decode_data(kind, version, data)?;
    Ok((Event { id, source, subject, occurred_at, plan, data }, version))
}

/// The payload of a kind from JSON text of any version up to the newest.
pub fn decode_data(kind: Kind, version: u16, json: &str) -> Result<EventData, DecodeError> {
    check_depth(json.as_bytes())?;
    let upcast = match version.cmp(&kind.version()) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => return Err(DecodeError::NewerVersion { kind, found: version }),
        std::cmp::Ordering::Less => {
            let old = serde_json::from_str(json).map_err(|e| data_error(kind, json, &e.to_string()))?;
            Some(upcast(kind, version, old)?.to_string())
        }
    };
    let json = upcast.as_deref().unwrap_or(json);
    EventData::from_json(kind, json).map_err(|e| data_error(kind, json, &brief(&e)))
}

/// Refuses JSON that nests deeper than [`MAX_DEPTH`]: sonic-rs passes over values it does not want by recursion, and
/// a quarter of a megabyte of `[` would overflow the stack. Text that is not JSON is let through, for the parser.
pub fn check_depth(json: &[u8]) -> Result<(), DecodeError> {
    // Nearly every event has fewer brackets than that, and counting them is quick.
    let open = |b: &u8| matches!(b, b'[' | b'{');
    if json.iter().filter(|b| open(b)).count() <= MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(DecodeError::Json(format!("it nests deeper than {MAX_DEPTH} levels")));
        }
    }
    Ok(())
}

/// Lifts a payload of an old version to the newest, one version at a time.
///
/// | kind | from | what changed |
/// |---|---|---|
/// | `deployment.finished` | 1 | `succeeded: bool` became `outcome: succeeded \| failed \| rolled_back` |
fn upcast(kind: Kind, version: u16, mut data: serde_json::Value) -> Result<serde_json::Value, DecodeError> {
    if (kind, version) == (Kind::DeploymentFinished, 1) {
        let object = data.as_object_mut().ok_or_else(|| DecodeError::Data {
            kind,
            member: None,
            message: "expected an object".into(),
        })?;
        let Some(succeeded) = object.remove("succeeded").and_then(|v| v.as_bool()) else {
            let message = "version 1 has a member \"succeeded\": true or false".into();
            return Err(DecodeError::Data { kind, member: Some("succeeded".into()), message });
        };
        object.insert("outcome".into(), if succeeded { "succeeded" } else { "failed" }.into());
        return Ok(data);
    }
    let message = format!("there was never a version {version}; the newest is {}", kind.version());
    Err(DecodeError::Data { kind, member: None, message })
}

/// An event as structured-mode JSON of the newest version.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    let kind = event.kind();
    let data = event.data.to_json().expect("payloads have string keys and finite numbers");
    let text = |s: &str| serde_json::to_string(s).expect("a string is always JSON");
    let mut json = format!(
        r#"{{"specversion":"{SPEC_VERSION}","id":{},"source":{},"type":"{}","subject":{},"time":"{}","#,
        text(event.id.as_str()),
        text(event.source.as_str()),
        kind.type_name(),
        text(event.subject.as_str()),
        format_time(event.occurred_at),
    );
    if let Some(plan) = &event.plan {
        json.push_str(&format!(r#""planversion":{},"#, text(plan.as_str())));
    }
    json.push_str(r#""datacontenttype":"application/json","data":"#);
    json.push_str(&data);
    json.push('}');
    json.into_bytes()
}

/// A type name's kind and version.
pub fn parse_type(text: &str) -> Result<(Kind, u16), DecodeError> {
    let unknown = || DecodeError::UnknownType { found: text.chars().take(200).collect() };
    let rest = text.strip_prefix(TYPE_PREFIX).ok_or_else(unknown)?;
    let (kind, version) = rest.rsplit_once(".v").ok_or_else(unknown)?;
    let kind = Kind::parse(kind).ok_or_else(unknown)?;
    let version: u16 = version.parse().ok().filter(|v| *v > 0).ok_or_else(unknown)?;
    if version > kind.version() {
        return Err(DecodeError::NewerVersion { kind, found: version });
    }
    Ok((kind, version))
}

/// RFC 3339 in UTC, with as many digits of the second as there are, to the microsecond that the event log keeps.
#[must_use]
pub fn format_time(time: DateTime<Utc>) -> String {
    let precise =
        if time.timestamp_subsec_micros().is_multiple_of(1000) { SecondsFormat::Millis } else { SecondsFormat::Micros };
    time.to_rfc3339_opts(precise, true)
}

/// An RFC 3339 time, cut to the microsecond; `None` if it isn't one or lies outside the years 1970 to 2200.
#[must_use]
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let micros = time.timestamp_micros();
    (0..7_258_118_400_000_000).contains(&micros).then(|| DateTime::from_timestamp_micros(micros))?
}

fn named<T>(attribute: &'static str, text: &str, new: fn(&str) -> Result<T, IdError>) -> Result<T, DecodeError> {
    new(text).map_err(|e| wrong(attribute, text, &e.to_string()))
}

fn wrong(attribute: &'static str, found: &str, expected: &str) -> DecodeError {
    DecodeError::Attribute { attribute, found: found.chars().take(200).collect(), expected: expected.into() }
}

fn brief(error: &sonic_rs::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().trim().to_owned()
}

/// The parser that is fast names no member, so a failed payload is read once more by one that does.
fn data_error(kind: Kind, json: &str, message: &str) -> DecodeError {
    let member = serde_json::from_str::<serde_json::Value>(json).ok().and_then(|value| {
        let object = value.as_object()?;
        // "unknown field `x`", "missing field `x`": the member stands between back-ticks.
        if let Some(name) = message.split('`').nth(1).filter(|_| message.contains("field")) {
            return Some(name.to_owned());
        }
        // A wrong type: the first member without which the complaint changes.
        object.keys().find_map(|key| {
            let mut without = object.clone();
            without.remove(key);
            let text = serde_json::Value::Object(without).to_string();
            let complaint = EventData::from_json(kind, &text).err().map(|e| brief(&e));
            complaint.is_none_or(|c| c.contains("missing field") && c.contains(key.as_str())).then(|| key.clone())
        })
    });
    DecodeError::Data { kind, member, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{DeploymentOutcome, Outcome, ProbeCompleted};

    fn probe() -> Event {
        Event {
            id: EventId::new("17").unwrap(),
            source: Source::new("rebound/probe/a").unwrap(),
            subject: ServiceId::new("api").unwrap(),
            occurred_at: parse_time("2026-03-01T12:00:00.123Z").unwrap(),
            plan: None,
            data: ProbeCompleted {
                probe: crate::ProbeId::new("api-http").unwrap(),
                outcome: Outcome::Healthy,
                latency_us: 1234,
                site: None,
                error_class: None,
                reason: None,
                http_status: Some(200),
                certificate_expires_at: None,
            }
            .into(),
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        assert_eq!(decode(&encode(&probe())), Ok(probe()));
    }

    #[test]
    fn faults_are_located() {
        let good = String::from_utf8(encode(&probe())).unwrap();
        let check = |from: &str, to: &str, class: &str, pointer: &str, says: &str| {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from} not found");
            let error = decode(bad.as_bytes()).unwrap_err();
            assert_eq!((error.class(), error.pointer().as_str()), (class, pointer), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        check(r#""specversion":"1.0""#, r#""specversion":"0.3""#, "attribute", "/specversion", "1.0");
        check(r#""id":"17","#, "", "attribute", "/id", "missing");
        check(r#""subject":"api""#, r#""subject":"a b""#, "attribute", "/subject", "' '");
        check("12:00:00.123Z", "noon", "attribute", "/time", "RFC 3339");
        check("probe.completed.v1", "probe.complete.v1", "unknown_type", "/type", "probe.complete.v1");
        check("probe.completed.v1", "probe.completed.v9", "newer_version", "/type", "upgrade");
        check(r#""latency_us":1234"#, r#""latency_us":"fast""#, "data", "/data/latency_us", "");
        check(r#""outcome":"healthy""#, r#""outcome":"fine""#, "data", "/data/outcome", "");
        check(r#""latency_us":1234,"#, "", "data", "/data/latency_us", "missing field");
        check(r#""latency_us""#, r#""latency_ms""#, "data", "/data/latency_ms", "unknown field");
        check("}}", "}", "json", "", "JSON");
        assert_eq!(decode(&vec![b' '; MAX_EVENT_BYTES + 1]).unwrap_err().class(), "too_large");
    }

    #[test]
    fn deep_nesting_is_refused_wherever_it_stands() {
        let good = String::from_utf8(encode(&probe())).unwrap();
        for deep in ["[".repeat(200_000), "{\"a\":".repeat(40_000), "[".repeat(100_000) + &"]".repeat(100_000)] {
            assert_eq!(decode(deep.as_bytes()).unwrap_err().class(), "json");
            for place in ["\"api\"", "1234", "\"healthy\"", "\"17\""] {
                let error = decode(good.replace(place, &deep).as_bytes()).unwrap_err();
                assert!(error.to_string().contains("64 levels"), "{error}");
            }
            assert_eq!(decode_data(Kind::ProbeCompleted, 1, &deep).unwrap_err().class(), "json");
        }
        // Brackets within texts nest nothing.
        let reason = format!(r#""reason":"{}\"{}","outcome""#, "[".repeat(100), "{".repeat(100));
        decode(good.replace("\"outcome\"", &reason).as_bytes()).unwrap();
    }

    #[test]
    fn old_versions_are_upcast() {
        let old = r#"{"specversion":"1.0","id":"1","source":"ci","type":"dev.rebound.deployment.finished.v1",
            "subject":"api","time":"2026-03-01T12:00:00Z","data":{"deployment":"d-1","succeeded":false}}"#;
        let decoded = decode_full(old.as_bytes()).unwrap();
        assert_eq!(decoded.version, 1);
        let EventData::DeploymentFinished(data) = decoded.event.data else { panic!("another kind") };
        assert_eq!(data.outcome, DeploymentOutcome::Failed);
        assert!(decoded.data.contains("succeeded"), "the log keeps what was received");
    }

    #[test]
    fn every_kind_has_a_type_name_that_parses() {
        for kind in Kind::ALL {
            assert_eq!(parse_type(kind.type_name()), Ok((*kind, kind.version())));
        }
    }
}
