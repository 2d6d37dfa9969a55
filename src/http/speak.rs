//! From what a person sends to an event that is durable: who says it, what, and under which key.
//!
//! Everything that people say of recoveries and moves goes through one [`Speaker`]: judged by the desk, appended to the
//! bus, and known to the next who speaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Query, Request};
use axum::http::{HeaderMap, StatusCode, header};
use chrono::Utc;
use rebound_alerting::desk::{Key, Said, Word};
use rebound_ingest::bus::{EventBus, Stream};
use rebound_schemas::{Event, EventId};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::guard::Who;
use super::problem::Problem;
use crate::roles::tenure::record;
use crate::roles::view::View;

/// Largest body, in bytes.
pub(crate) const BODY_BYTES: usize = 64 << 10;
/// Longest `Idempotency-Key`.
const KEY_BYTES: usize = 255;
/// How long the bus may take.
const BUS_PATIENCE: Duration = Duration::from_secs(15);

/// What a person sends: who they are, and a JSON object.
pub(crate) struct Asking {
    pub(crate) who: Who,
    headers: HeaderMap,
    body: Bytes,
    path: String,
}

impl<S: Send + Sync> FromRequest<S> for Asking {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let who = request.extensions().get::<Who>().cloned().ok_or_else(|| Problem::unauthorized(false))?;
        let (headers, path) = (request.headers().clone(), request.uri().path().to_owned());
        let body = Bytes::from_request(request, state).await.map_err(|error| {
            let remedy = format!("send a JSON object of at most {BODY_BYTES} bytes");
            Problem::new(error.status(), error.body_text(), remedy)
        })?;
        Ok(Self { who, headers, body, path })
    }
}

impl Asking {
    /// The body as this word has it.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let content_type = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        // Asked for, so that a web page can't post here without the browser asking first.
        if !content_type.is_some_and(|text| text.to_ascii_lowercase().starts_with("application/json")) {
            let remedy = "send a JSON object with the header \"Content-Type: application/json\"";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not announced as JSON", remedy));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let remedy = "send a JSON object with the members that this word has";
            Problem::invalid(format!("the body can't be read: {error}"), remedy)
        })
    }

    /// Who says it: the token's name, which nobody can choose; whoever says that it is for somebody is quoted.
    pub(crate) fn by(&self, by: Option<String>) -> String {
        match (&self.who.name, by) {
            (None, by) => by.unwrap_or_default(),
            (Some(name), Some(other)) if other != *name => format!("{name} (for {other})"),
            (Some(name), _) => name.clone(),
        }
    }

    pub(crate) fn said(&self, word: Word, by: Option<String>, comment: Option<String>) -> Result<Said, Problem> {
        let by = self.by(by);
        let key = self.headers.get("idempotency-key").map(|value| {
            let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_BYTES);
            let remedy = format!("write 1 to {KEY_BYTES} plain characters");
            key.map(str::to_owned).ok_or_else(|| Problem::invalid("the Idempotency-Key is no key", remedy))
        });
        let asked = || format!("{} {}", self.path, String::from_utf8_lossy(&self.body));
        let owner = || self.who.name.clone().unwrap_or_else(|| by.clone());
        let key = key.transpose()?.map(|key| Key { owner: owner(), key, asked: asked() });
        Ok(Said { word, by, comment, key })
    }
}

/// What stands behind the `?` of an address.
pub(crate) fn query<T>(
    query: Result<Query<T>, axum::extract::rejection::QueryRejection>,
    names: &str,
) -> Result<T, Problem> {
    let Query(query) = query.map_err(|error| {
        let text = error.body_text().replace("Failed to deserialize query string", "the query can't be read");
        Problem::invalid(text, format!("write {names}"))
    })?;
    Ok(query)
}

/// Says words on the bus.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) view: Arc<View>,
    bus: Arc<dyn EventBus>,
    /// The view has folded the past.
    ready: Arc<AtomicBool>,
    /// One word at a time, so that of two that exclude each other the second sees the first.
    speaking: Mutex<()>,
}

impl Speaker {
    pub(crate) fn new(view: Arc<View>, bus: Arc<dyn EventBus>, ready: Arc<AtomicBool>) -> Self {
        Self { view, bus, ready, speaking: Mutex::new(()) }
    }

    /// Refuses while the past is being read: what is known then is not what is so.
    pub(crate) fn folded(&self) -> Result<(), Problem> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let detail = "the past is still being read";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail, "ask again when /readyz says so"))
    }

    /// Judges a word and makes its event durable; answers the event's id, and whether it had been said before.
    pub(crate) async fn speak(&self, said: &Said) -> Result<(EventId, bool), Problem> {
        self.folded()?;
        let _alone = self.speaking.lock().await;
        if let Some(id) = self.view.with_desk(|desk| desk.repeated(said))? {
            return Ok((id, true));
        }
        let plan = self.view.plan();
        let event = self.view.with_desk(|desk| desk.judge(plan, said, Utc::now()))?;
        self.append(&event).await?;
        tracing::info!(kind = %event.kind(), subject = %event.subject, by = %said.by, id = %event.id, "said");
        Ok((event.id, false))
    }

    /// Makes an event durable.
    pub(crate) async fn append(&self, event: &Event) -> Result<(), Problem> {
        let stream = Stream::Events(event.kind().topic());
        let appended = tokio::time::timeout(BUS_PATIENCE, self.bus.append(stream, vec![record(event)])).await;
        let failed = match appended {
            Ok(Ok(_)) => {
                self.view.note(event);
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the bus did not answer in time".to_owned(),
        };
        let remedy = "say it again later; with the same Idempotency-Key it is never taken twice";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, failed, remedy))
    }
}
