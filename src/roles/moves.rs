//! `/api/v1/sites`, `/api/v1/move` and `/api/v1/requests/ID`: where the load is, what a move would be, asking for one,
//! and what became of it.
//!
//! A move that may not begin is refused here, with the reason, and `recovery.declined` says who asked. One that is
//! asked for is said like any request for a recovery ([`crate::http::speak`]), and is then decided and run like one;
//! its readiness is asked again there.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{SubsecRound, Utc};
use rebound_alerting::desk::{Target, Word};
use rebound_alerting::moves::{Course, Readiness, StepAhead, choose};
use rebound_alerting::sites::Load;
use rebound_schemas::event::RecoveryDeclined;
use rebound_schemas::{Event, EventId, IncidentId, ProcedureId, ServiceId, SiteId, Source};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::view::View;
use crate::http::problem::Problem;
use crate::http::speak::{Asking, BODY_BYTES, Speaker, query};

/// The `source` of what is said of moves that may not begin.
const SOURCE: &str = "rebound/moves";

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
    /// Who asks; a token with a name says it first.
    pub(crate) by: Option<String>,
    /// Why.
    pub(crate) comment: Option<String>,
    /// Only tell what would be done.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What `POST /api/v1/move` answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) ahead: Ahead,
    /// The request, as `/api/v1/requests/ID` knows it.
    pub(crate) request: EventId,
    /// Whether it had been asked for before, under the same key.
    pub(crate) repeated: bool,
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
type Desk = State<Arc<Speaker>>;

pub(crate) fn router(speaker: Arc<Speaker>) -> Router {
    Router::new()
        .route("/api/v1/sites", get(sites))
        .route("/api/v1/move", get(ahead).post(ask))
        .route("/api/v1/requests/{id}", get(course))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(speaker)
}

async fn sites(State(desk): Desk) -> Json<Vec<SiteRow>> {
    let view = &desk.view;
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

/// The move that is wanted, as it would be made now.
fn find(view: &View, wanted: &Wanted) -> Result<Ahead, Problem> {
    let none = |error: String| Problem::invalid(error, "`rebound check` shows the moves that the plan has");
    let plan = view.plan().ok_or_else(|| none("there is no plan here".to_owned()))?;
    let moving = choose(plan, &wanted.what, &wanted.to, wanted.back, wanted.procedure.as_ref());
    let moving = moving.map_err(|error| none(error.to_string()))?;
    let now = Utc::now();
    let steps = moving.steps(plan, now).map_err(|error| none(error.to_string()))?;
    let readiness = {
        let folded = view.lock();
        let under_way = folded.desk.under_way(moving.carrier);
        moving.readiness(plan, &folded.sites, folded.desk.paused(), under_way, now)
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

async fn ahead(State(desk): Desk, wanted: Result<Query<Wanted>, QueryRejection>) -> Result<Json<Ahead>, Problem> {
    desk.folded()?;
    let wanted = query(wanted, "what=SITE|SERVICE and to=SITE; back=true and procedure=NAME where they are meant")?;
    find(&desk.view, &wanted).map(Json)
}

/// | the move | answer |
/// |---|---|
/// | there is none, or nobody says who asks and why | 422 |
/// | may not begin, and is no dry run | 409 with what it would be, and `recovery.declined` |
/// | may begin, or is a dry run | 202 when the request is durable |
/// | the bus is away | 503 |
async fn ask(State(desk): Desk, asking: Asking) -> Result<(StatusCode, Json<Answer>), Problem> {
    let Asked { wanted, by, comment, dry_run } = asking.body()?;
    desk.folded()?;
    let ahead = find(&desk.view, &wanted)?;
    let target = Target { name: None, service: Some(ahead.carrier.clone()), procedure: Some(ahead.procedure.clone()) };
    let word = Word::Run { target, inputs: BTreeMap::new(), dry_run, overrides: Vec::new() };
    let said = asking.said(word, by, comment)?;
    said.check()?;
    let missing: Vec<&str> = ahead.readiness.iter().filter(|c| !c.held).map(|c| c.detail.as_str()).collect();
    // What was asked for before is under way, and therefore not ready.
    let repeated = desk.view.with_desk(|desk| desk.repeated(&said))?.is_some();
    if !missing.is_empty() && !dry_run && !repeated {
        let reason = missing.join("; ");
        let Ahead { from, to, .. } = &ahead;
        let told = format!("a move from {from} to {to} ({}): {reason}", said.comment.as_deref().unwrap_or_default());
        desk.append(&declined(&desk.view, &ahead.carrier, said.by, told)).await?;
        let remedy = "see to that and ask again; a dry run tells what it would do";
        return Err(Problem::new(StatusCode::CONFLICT, reason, remedy).with("ahead", json!(ahead)));
    }
    let (request, repeated) = desk.speak(&said).await?;
    Ok((StatusCode::ACCEPTED, Json(Answer { ahead, request, repeated })))
}

/// Says that a move was asked for and refused.
fn declined(view: &View, carrier: &ServiceId, by: String, reason: String) -> Event {
    let now = Utc::now().trunc_subsecs(6);
    let request = EventId::derive(carrier.as_str(), &format!("move-{}", now.timestamp_micros()));
    Event {
        id: EventId::derive(request.as_str(), "declined"),
        source: Source::new(SOURCE).expect("the source's name follows the rule for sources"),
        subject: carrier.clone(),
        occurred_at: now,
        plan: view.plan().map(|plan| plan.version().clone()),
        data: RecoveryDeclined { request, by, reason, restraint: None }.into(),
    }
}

async fn course(State(desk): Desk, Path(id): Path<String>) -> Result<Json<Course>, Problem> {
    let course = id.parse().ok().and_then(|id: EventId| desk.view.lock().courses.of(&id).cloned());
    course.map(Json).ok_or_else(|| {
        let remedy = "it was asked for long ago, elsewhere, or is on its way: `rebound recovery list` shows what is";
        Problem::new(StatusCode::NOT_FOUND, format!("no request {id} is known"), remedy)
    })
}
