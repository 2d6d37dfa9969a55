//! `/api/v1/sites`, `/api/v1/move` and `/api/v1/requests/ID`: where the load is, what a move would be, asking for one,
//! and what became of it.
//!
//! A move that may not begin is refused here, with the reason, and `recovery.declined` says who asked. One that is
//! asked for is put on the bus as `recovery.requested`, and is then decided and run like any other recovery; its
//! readiness is asked again there.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{SubsecRound, Utc};
use rebound_alerting::moves::{Course, Readiness, StepAhead, choose};
use rebound_alerting::sites::Load;
use rebound_ingest::bus::{EventBus, Stream};
use rebound_schemas::event::{RecoveryDeclined, RecoveryRequested};
use rebound_schemas::{Event, EventData, EventId, IncidentId, ProcedureId, ServiceId, SiteId, Source};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::tenure::record;
use super::view::View;

/// The `source` of requests for moves.
const SOURCE: &str = "rebound/moves";
/// Longest name and longest comment of who asks, in bytes.
const NAME_BYTES: usize = 200;
const COMMENT_BYTES: usize = 2000;

/// One site, as `/api/v1/sites` answers it.
#[derive(Debug, Serialize)]
struct SiteRow {
    site: SiteId,
    /// It can be counted on.
    healthy: bool,
    incidents: Vec<IncidentId>,
    /// Where its load is: itself, or the site that it was moved to.
    load_at: SiteId,
    /// The move has not ended.
    moving: bool,
}

/// Which move: what `GET /api/v1/move` is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// A site or a service.
    pub(crate) what: String,
    pub(crate) to: SiteId,
    #[serde(default)]
    pub(crate) back: bool,
    pub(crate) procedure: Option<ProcedureId>,
}

/// A move that somebody asks for: what is posted to `/api/v1/move`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    #[serde(flatten)]
    pub(crate) wanted: Wanted,
    /// Who asks.
    pub(crate) by: String,
    /// Why.
    pub(crate) comment: String,
    /// Only tell what would be done.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What `POST /api/v1/move` answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The move, where there is one.
    pub(crate) ahead: Option<Ahead>,
    /// Why it was not asked for.
    pub(crate) error: Option<String>,
    /// The request, as `/api/v1/requests/ID` knows it.
    pub(crate) request: Option<EventId>,
}

/// A move as it would be made now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ahead {
    pub(crate) procedure: ProcedureId,
    /// The service whose recovery it is.
    pub(crate) carrier: ServiceId,
    pub(crate) from: SiteId,
    pub(crate) to: SiteId,
    /// Services whose load is moved, in the plan's start order.
    pub(crate) services: Vec<ServiceId>,
    pub(crate) steps: Vec<StepAhead>,
    pub(crate) readiness: Vec<Readiness>,
}

/// What the handlers share.
#[derive(Clone)]
struct Desk {
    view: Arc<View>,
    bus: Arc<dyn EventBus>,
}

pub(crate) fn router(view: Arc<View>, bus: Arc<dyn EventBus>) -> Router {
    Router::new()
        .route("/api/v1/sites", get(sites))
        .route("/api/v1/move", get(ahead).post(ask))
        .route("/api/v1/requests/{id}", get(course))
        .with_state(Desk { view, bus })
}

async fn sites(State(Desk { view, .. }): State<Desk>) -> Json<Vec<SiteRow>> {
    let Some(plan) = view.plan() else { return Json(Vec::new()) };
    let folded = view.lock();
    let rows = plan.sites().keys().map(|site| {
        let (load_at, moving) = match folded.sites.load_of(site) {
            Load::Home => (site, false),
            Load::Leaving(to) => (to, true),
            Load::At(to) => (to, false),
        };
        SiteRow {
            site: site.clone(),
            healthy: folded.sites.healthy(plan).any(|healthy| healthy == site),
            incidents: folded.sites.incidents(plan, site).cloned().collect(),
            load_at: load_at.clone(),
            moving,
        }
    });
    Json(rows.collect())
}

impl Desk {
    fn ahead(&self, wanted: &Wanted) -> Result<Ahead, String> {
        let plan = self.view.plan().ok_or("there is no plan")?;
        let moving = choose(plan, &wanted.what, &wanted.to, wanted.back, wanted.procedure.as_ref());
        let moving = moving.map_err(|error| error.to_string())?;
        let now = Utc::now();
        let steps = moving.steps(plan, now).map_err(|error| error.to_string())?;
        let readiness = {
            let folded = self.view.lock();
            let under_way = folded.under_way(moving.carrier, now);
            moving.readiness(plan, &folded.sites, &folded.pauses, under_way.as_ref(), now)
        };
        Ok(Ahead {
            procedure: moving.procedure.id.clone(),
            carrier: moving.carrier.clone(),
            from: moving.moved.from.clone(),
            to: moving.moved.to.clone(),
            services: moving.services.into_iter().cloned().collect(),
            steps,
            readiness,
        })
    }

    /// The request for a move.
    fn request(ahead: &Ahead, asked: &Asked) -> EventData {
        RecoveryRequested {
            by: asked.by.clone(),
            comment: asked.comment.clone(),
            procedure: Some(ahead.procedure.clone()),
            inputs: BTreeMap::new(),
            dry_run: asked.dry_run,
            overrides: Vec::new(),
        }
        .into()
    }

    /// Puts what somebody asked for, or that it was refused, on the bus; it is durable when this answers.
    async fn say(
        &self,
        carrier: &ServiceId,
        data: impl FnOnce(&EventId) -> EventData,
    ) -> Result<EventId, Box<dyn std::error::Error + Send + Sync>> {
        let now = Utc::now().trunc_subsecs(6);
        let request = EventId::derive(carrier.as_str(), &format!("move-{}", now.timestamp_micros()));
        let data = data(&request);
        let id = match &data {
            EventData::RecoveryDeclined(_) => EventId::derive(request.as_str(), "declined"),
            _ => request.clone(),
        };
        let (source, plan) = (Source::new(SOURCE)?, self.view.plan().map(|plan| plan.version().clone()));
        let event = Event { id, source, subject: carrier.clone(), occurred_at: now, plan, data };
        let stream = Stream::Events(event.kind().topic());
        self.bus.append(stream, vec![record(&event)]).await?;
        Ok(request)
    }
}

async fn ahead(State(desk): State<Desk>, Query(wanted): Query<Wanted>) -> Response {
    match desk.ahead(&wanted) {
        Ok(ahead) => Json(ahead).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

/// | the move | answer |
/// |---|---|
/// | there is none, or nobody says who asks and why | 422 |
/// | may not begin, and is no dry run | 409, and `recovery.declined` |
/// | may begin, or is a dry run | 202 when the request is durable |
/// | the bus is away | 503 |
async fn ask(State(desk): State<Desk>, Json(asked): Json<Asked>) -> (StatusCode, Json<Answer>) {
    let refused = |status, ahead, error: String| (status, Json(Answer { ahead, error: Some(error), request: None }));
    if [&asked.by, &asked.comment].iter().any(|text| text.trim().is_empty()) {
        let error = "say who asks and why: neither may be empty".to_owned();
        return refused(StatusCode::UNPROCESSABLE_ENTITY, None, error);
    }
    if asked.by.len() > NAME_BYTES || asked.comment.len() > COMMENT_BYTES {
        let error = format!("who asks has at most {NAME_BYTES} bytes, and why at most {COMMENT_BYTES}");
        return refused(StatusCode::UNPROCESSABLE_ENTITY, None, error);
    }
    let ahead = match desk.ahead(&asked.wanted) {
        Ok(ahead) => ahead,
        Err(error) => return refused(StatusCode::UNPROCESSABLE_ENTITY, None, error),
    };
    let missing: Vec<&str> = ahead.readiness.iter().filter(|c| !c.held).map(|c| c.detail.as_str()).collect();
    let reason = (!missing.is_empty() && !asked.dry_run).then(|| missing.join("; "));
    let said = desk.say(&ahead.carrier, |request| match &reason {
        None => Desk::request(&ahead, &asked),
        Some(reason) => {
            let (from, to, comment) = (&ahead.from, &ahead.to, &asked.comment);
            let reason = format!("a move from {from} to {to} ({comment}): {reason}");
            RecoveryDeclined { request: request.clone(), by: asked.by.clone(), reason, restraint: None }.into()
        }
    });
    match (said.await, reason) {
        (Ok(_), Some(reason)) => refused(StatusCode::CONFLICT, Some(ahead), reason),
        (Ok(request), None) => {
            (StatusCode::ACCEPTED, Json(Answer { ahead: Some(ahead), error: None, request: Some(request) }))
        }
        (Err(error), _) => refused(StatusCode::SERVICE_UNAVAILABLE, Some(ahead), error.to_string()),
    }
}

async fn course(State(desk): State<Desk>, Path(id): Path<EventId>) -> Result<Json<Course>, StatusCode> {
    desk.view.lock().courses.of(&id).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}
