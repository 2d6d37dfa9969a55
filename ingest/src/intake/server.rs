//! The intake's HTTP: `POST /v1/events` and `POST /v1/alertmanager`.
//!
//! | status | when |
//! |---|---|
//! | 202 | every event was accepted, and the bus holds them all durably |
//! | 207 | some were accepted (durably), some rejected: the verdicts say which |
//! | 400 | no event was accepted, or the body is not what its content type says |
//! | 401 | a token is set, and the request carries another or none |
//! | 408 | the body did not come in time |
//! | 413 | the body is larger, or has more events, than one request may |
//! | 415 | a content type or encoding that events don't come in |
//! | 429 | too much is in flight: `Retry-After` |
//! | 503 | the bus is away, or its disk full: `Retry-After`; whatever was posted, post it again |

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use chrono::Utc;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;
use rebound_schemas::Topic;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::alertmanager::{Labels, parse_webhook};
use super::token::Token;
use super::{Accepted, Rejection, RequestError, Rules, parse_events};
use crate::bus::{BusError, EventBus, Stream};
use crate::record::structured;

/// What the intake takes.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// Asked of every request as `Authorization: Bearer …`; none: whoever reaches the listener may post.
    pub token: Option<Token>,
    /// What may be posted.
    pub rules: Rules,
    /// What Alertmanager's labels mean.
    pub labels: Labels,
    /// Largest body, in bytes.
    pub max_body_bytes: usize,
    /// Events in one request, at most.
    pub max_events: usize,
    /// Bytes of bodies in flight, at most, over all requests.
    pub max_in_flight_bytes: usize,
    /// A body must have come, and the bus answered, within this each.
    pub timeout: Duration,
    /// What `Retry-After` says.
    pub retry_after: Duration,
}

impl Default for IntakeSettings {
    fn default() -> Self {
        Self {
            token: None,
            rules: Rules::default(),
            labels: Labels::default(),
            max_body_bytes: 4 << 20,
            max_events: 10_000,
            max_in_flight_bytes: 64 << 20,
            timeout: Duration::from_secs(15),
            retry_after: Duration::from_secs(2),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What the intake counts: events by what became of them.
#[derive(Debug, Clone)]
pub struct IntakeMetrics {
    events: Family<ResultLabel, Counter>,
}

impl IntakeMetrics {
    /// Registers `rebound_intake_events`: `accepted` (durable), `rejected`, or `unavailable` (good, but the bus did
    /// not take them: whoever posted them was told to post them again).
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self { events: Family::default() };
        registry.register("rebound_intake_events", "Posted events by what became of them", metrics.events.clone());
        metrics
    }

    fn count(&self, result: &'static str, n: usize) {
        self.events.get_or_create(&ResultLabel { result }).inc_by(n as u64);
    }
}

/// The intake: what its handlers share.
#[derive(Debug, Clone)]
pub struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bus: Arc<dyn EventBus>,
    settings: IntakeSettings,
    metrics: IntakeMetrics,
    /// One permit a KiB of body.
    in_flight: Semaphore,
}

impl Intake {
    /// An intake that appends to `bus`.
    #[must_use]
    pub fn new(bus: Arc<dyn EventBus>, settings: IntakeSettings, metrics: IntakeMetrics) -> Self {
        // A body at its largest must fit, or nothing ever would.
        let kib = kib(settings.max_in_flight_bytes.max(settings.max_body_bytes)).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared { bus, settings, metrics, in_flight: Semaphore::new(kib) }))
    }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}

/// The routes of the intake.
pub fn router(state: Intake) -> axum::Router {
    axum::Router::new()
        .route("/v1/events", post(events))
        .route("/v1/alertmanager", post(alertmanager))
        .with_state(state)
}

/// Why a request as a whole was not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("the token is missing or wrong: expected Authorization: Bearer <token>")]
    Token,
    #[error("the body did not come within {0:?}")]
    Slow(Duration),
    #[error("the body is larger than the {0} bytes that one request may have")]
    TooLarge(usize),
    #[error("the connection broke before the body was complete")]
    Broken,
    #[error("the content encoding {0:?} is not supported: expected none")]
    Encoding(String),
    #[error("too much is being taken in just now: post it again later")]
    Busy,
    #[error("{0}: post it again later")]
    Bus(#[from] BusError),
    #[error("the bus did not answer in time: post it again later")]
    BusSlow,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Request(RequestError::ContentType(_)) | Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Request(RequestError::TooMany { .. }) | Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Request(RequestError::Body { .. }) | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Bus(_) | Self::BusSlow => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What is answered to a request that was not taken as a whole.
#[derive(Serialize)]
struct RefusalBody {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
}

/// What is answered to a request whose events were judged.
#[derive(Serialize)]
struct Verdicts<'a> {
    accepted: usize,
    rejected: usize,
    events: Vec<EventVerdict<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum EventVerdict<'a> {
    Accepted {
        index: usize,
        source: &'a str,
        id: &'a str,
    },
    Rejected {
        index: usize,
        #[serde(flatten)]
        rejection: &'a Rejection,
    },
}

async fn events(State(intake): State<Intake>, request: Request) -> Response {
    let intake = &*intake.0;
    respond(
        intake,
        intake
            .take(request, |content_type, headers, body| {
                let IntakeSettings { rules, max_events, .. } = intake.settings;
                parse_events(content_type, headers, body, rules, max_events, Utc::now())
            })
            .await,
    )
}

async fn alertmanager(State(intake): State<Intake>, request: Request) -> Response {
    let intake = &*intake.0;
    respond(
        intake,
        intake
            .take(request, |content_type, _, body| {
                // Asked for, so that a web page can't post here without the browser asking first.
                if !content_type.to_ascii_lowercase().starts_with("application/json") {
                    return Err(RequestError::ContentType(content_type.chars().take(100).collect()));
                }
                parse_webhook(body, &intake.settings.labels, intake.settings.max_events, Utc::now())
            })
            .await,
    )
}

type Judged = Vec<Result<Accepted, Rejection>>;

impl Shared {
    /// Reads a request, has it judged, and puts what was accepted on the bus.
    async fn take(
        &self,
        request: Request,
        judge: impl FnOnce(&str, &HeaderMap, &Bytes) -> Result<Judged, RequestError>,
    ) -> Result<Judged, Refusal> {
        let (parts, body) = request.into_parts();
        self.authorize(&parts.headers)?;
        if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING).filter(|e| *e != "identity") {
            return Err(Refusal::Encoding(String::from_utf8_lossy(encoding.as_bytes()).into_owned()));
        }
        let _room = self.room(&parts.headers)?;
        let body = self.read(body).await?;
        let content_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let judged = judge(&String::from_utf8_lossy(content_type), &parts.headers, &body)?;
        self.append(&judged).await?;
        Ok(judged)
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.settings.token else { return Ok(()) };
        if token.is_shown_by(headers) { Ok(()) } else { Err(Refusal::Token) }
    }

    /// Room for the body that the headers announce; for one without a length, for the largest.
    fn room(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Refusal> {
        let limit = self.settings.max_body_bytes;
        let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > limit) {
            return Err(Refusal::TooLarge(limit));
        }
        let permits = u32::try_from(kib(length.unwrap_or(limit))).unwrap_or(u32::MAX);
        self.in_flight.try_acquire_many(permits).map_err(|_| Refusal::Busy)
    }

    async fn read(&self, body: Body) -> Result<Bytes, Refusal> {
        let limit = self.settings.max_body_bytes;
        match tokio::time::timeout(self.settings.timeout, to_bytes(body, limit)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(e)) => {
                let over = std::error::Error::source(&e).is_some_and(|e| e.is::<http_body_util::LengthLimitError>());
                Err(if over { Refusal::TooLarge(limit) } else { Refusal::Broken })
            }
            Err(_) => Err(Refusal::Slow(self.settings.timeout)),
        }
    }

    /// Appends what was accepted, topic by topic in the order of the data. When a later topic fails, the earlier
    /// ones are there already: posting all of it again is harmless, and that is what the answer asks for.
    async fn append(&self, judged: &Judged) -> Result<(), Refusal> {
        let rejected = judged.iter().filter(|v| v.is_err()).count();
        let accepted: Vec<&Accepted> = judged.iter().flatten().collect();
        let appended = tokio::time::timeout(self.settings.timeout, async {
            for topic in Topic::ALL {
                let of_topic = accepted.iter().filter(|a| a.event.kind().topic() == topic);
                let records: Vec<_> = of_topic.map(|a| structured(&a.event.subject, a.json.clone())).collect();
                if !records.is_empty() {
                    self.bus.append(Stream::Events(topic), records).await?;
                }
            }
            Ok::<_, BusError>(())
        });
        let appended = match appended.await {
            Ok(appended) => appended.map_err(Refusal::from),
            Err(_) => Err(Refusal::BusSlow),
        };
        self.metrics.count("rejected", rejected);
        self.metrics.count(if appended.is_ok() { "accepted" } else { "unavailable" }, accepted.len());
        if let Err(error) = &appended {
            tracing::warn!(%error, events = accepted.len(), "posted events could not be put on the bus");
        }
        appended
    }
}

fn respond(intake: &Shared, taken: Result<Judged, Refusal>) -> Response {
    match taken {
        Ok(judged) => verdicts(&judged),
        Err(refusal) => refuse(intake, &refusal),
    }
}

fn verdicts(judged: &Judged) -> Response {
    let verdict = |(index, verdict)| match verdict {
        &Ok(Accepted { ref event, .. }) => {
            EventVerdict::Accepted { index, source: event.source.as_str(), id: event.id.as_str() }
        }
        Err(rejection) => EventVerdict::Rejected { index, rejection },
    };
    let accepted = judged.iter().filter(|v| v.is_ok()).count();
    let rejected = judged.len() - accepted;
    let status = match (accepted, rejected) {
        (_, 0) => StatusCode::ACCEPTED,
        (0, _) => StatusCode::BAD_REQUEST,
        _ => StatusCode::MULTI_STATUS,
    };
    (status, Json(Verdicts { accepted, rejected, events: judged.iter().enumerate().map(verdict).collect() }))
        .into_response()
}

fn refuse(intake: &Shared, refusal: &Refusal) -> Response {
    let (pointer, expected) = match refusal {
        Refusal::Request(RequestError::Body { pointer, expected, .. }) => {
            (Some(pointer.clone()), Some(expected.clone()))
        }
        _ => (None, None),
    };
    let status = refusal.status();
    let mut response = (status, Json(RefusalBody { error: refusal.to_string(), pointer, expected })).into_response();
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let seconds = intake.settings.retry_after.as_secs().max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        _ => {}
    }
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
