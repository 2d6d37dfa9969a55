//! `/api/v1/recoveries`, `/api/v1/pause|resume|promote`: what recoveries there are, and what people say of them.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /api/v1/recoveries?service=&state=&limit=` | | 200: recoveries, requests that became none, pauses, demoted procedures |
//! | `GET /api/v1/recoveries/{id}` | | 200: one with its steps and what was said |
//! | `POST /api/v1/recoveries` | `target` or `service`, `procedure`; `inputs`, `dry_run`, `force`, `comment`, `by` | 201 once it is decided on, 202 while it is not, 409 if it was declined |
//! | `POST /api/v1/recoveries/{id}/approve` | `step`, `comment`, `by` | 202: the word is durable |
//! | `POST /api/v1/recoveries/{id}/reject`, `…/cancel` | `comment`, `by`; `now` | 202 |
//! | `POST /api/v1/pause`, `/api/v1/resume` | `site`, `service`, `tier`, `procedure`, `comment`, `by`; `until` or `for` | 202 |
//! | `POST /api/v1/promote` | `procedure`, `comment`, `by` | 202 |
//!
//! Each word is an event that says who (the token's name) and why. The command line says the same through the same
//! door. With an `Idempotency-Key` a word may be said again and is answered as before, with `repeated`. Refusals are
//! problems (RFC 9457) with what to do instead: 401, 403, 404, 409, 415, 422, and 503 while the past is being folded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use rebound_alerting::desk::{Answered, Standing, StandingState, Target, Word};
use rebound_alerting::pause::Scope;
use rebound_schemas::event::Restraint;
use rebound_schemas::plan::nearest;
use rebound_schemas::{EventId, ProcedureId, RecoveryId, ServiceId, SiteId, StepId, TierId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::guard::Role;
use super::problem::Problem;
use super::speak::{Asking, BODY_BYTES, Speaker, query};

/// Recoveries in one answer, unless asked otherwise, and at most.
const LIMIT: usize = 100;
const MOST: usize = 1000;
/// How long a request is waited for until somebody has decided about it.
const DECIDED_WITHIN: Duration = Duration::from_secs(5);

/// What the handlers share.
type Desk = State<Arc<Speaker>>;

/// The routes.
pub(crate) fn router(speaker: Arc<Speaker>) -> Router {
    Router::new()
        .route("/api/v1/recoveries", get(list).post(run))
        .route("/api/v1/recoveries/{id}", get(show))
        .route("/api/v1/recoveries/{id}/{word}", post(say))
        .route("/api/v1/pause", post(pause))
        .route("/api/v1/resume", post(resume))
        .route("/api/v1/promote", post(promote))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(speaker)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    service: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
}

async fn list(State(desk): Desk, filter: Result<Query<Filter>, QueryRejection>) -> Result<Json<Value>, Problem> {
    desk.folded()?;
    let filter = query(filter, "service=NAME, state=STATE and limit=NUMBER, and nothing else")?;
    let state = filter.state.as_deref().map(parse_state).transpose()?;
    let limit = filter.limit.unwrap_or(LIMIT).min(MOST);
    let (plan, now) = (desk.view.plan(), Utc::now());
    if let (Some(plan), Some(name)) = (plan, &filter.service)
        && !plan.services().contains_key(name.as_str())
    {
        let scope = Scope { service: ServiceId::new(name).ok(), ..Scope::default() };
        let (detail, remedy) = scope.fault(plan).unwrap_or_else(|| (format!("{name:?} is no name"), String::new()));
        return Err(Problem::new(StatusCode::NOT_FOUND, detail, remedy));
    }
    Ok(Json(desk.view.with_desk(|desk| {
        let of = |service: &ServiceId| filter.service.as_deref().is_none_or(|wanted| wanted == service.as_str());
        let wanted = |standing: &Standing| of(&standing.service) && state.is_none_or(|state| state == standing.state);
        let standings = desk.standings(plan, now).into_iter().filter(wanted);
        let recoveries: Vec<Standing> = standings.take(limit).collect();
        let requests = desk.open_requests(now).into_iter().filter(|request| of(&request.service)).take(limit);
        json!({
            "recoveries": recoveries, "requests": requests.collect::<Vec<_>>(), "pauses": desk.pauses(now),
            "demoted": desk.demoted_procedures(),
        })
    })))
}

fn parse_state(text: &str) -> Result<StandingState, Problem> {
    let known = StandingState::ALL.map(StandingState::as_str);
    StandingState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
        let remedy = match nearest(text, known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write one of {}", known.join(", ")),
        };
        Problem::invalid(format!("{text:?} is not a state of a recovery"), remedy)
    })
}

async fn show(State(desk): Desk, Path(id): Path<String>) -> Result<Response, Problem> {
    desk.folded()?;
    let id = recovery(&id)?;
    let (plan, now) = (desk.view.plan(), Utc::now());
    match desk.view.with_desk(|desk| desk.detail(&id, plan, now)) {
        Some(detail) => Ok(Json(detail).into_response()),
        None => {
            let remedy = format!(
                "`rebound recovery list` shows those that are; older ones are in the log: `rebound explain {id}`"
            );
            Err(Problem::new(StatusCode::NOT_FOUND, format!("no recovery {id} is known"), remedy))
        }
    }
}

fn recovery(id: &str) -> Result<RecoveryId, Problem> {
    RecoveryId::new(id).map_err(|error| {
        let remedy = "name a recovery as `rebound recovery list` shows it";
        Problem::invalid(format!("{id:?} is no recovery's id: {error}"), remedy)
    })
}

/// What every word may carry.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    by: Option<String>,
    comment: Option<String>,
    step: Option<StepId>,
    now: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunBody {
    by: Option<String>,
    comment: Option<String>,
    target: Option<String>,
    service: Option<ServiceId>,
    procedure: Option<ProcedureId>,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: Vec<Restraint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeBody {
    by: Option<String>,
    comment: Option<String>,
    site: Option<SiteId>,
    service: Option<ServiceId>,
    tier: Option<TierId>,
    procedure: Option<ProcedureId>,
    until: Option<DateTime<Utc>>,
    #[serde(rename = "for")]
    length: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromoteBody {
    by: Option<String>,
    comment: Option<String>,
    procedure: ProcedureId,
}

async fn say(State(desk): Desk, Path((id, word)): Path<(String, String)>, asking: Asking) -> Result<Response, Problem> {
    let recovery = recovery(&id)?;
    let Body { by, comment, step, now } = asking.body()?;
    let takes = |step_too: bool, now_too: bool| {
        let surplus = [("step", step.is_some() && !step_too), ("now", now.is_some() && !now_too)];
        match surplus.into_iter().find(|(_, surplus)| *surplus) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid(format!("{word} takes no {name:?}"), "leave it out")),
        }
    };
    let said = match word.as_str() {
        "approve" => takes(true, false).map(|()| Word::Approve { recovery, step: step.clone() }),
        "reject" => takes(false, false).map(|()| Word::Reject { recovery }),
        "cancel" => takes(false, true).map(|()| Word::Cancel { recovery, now: now.unwrap_or(false) }),
        other => {
            let detail = format!("{other:?} is nothing that can be said of a recovery");
            Err(Problem::new(StatusCode::NOT_FOUND, detail, "post to approve, reject or cancel"))
        }
    };
    taken(&desk, &asking, said?, by, comment).await
}

async fn pause(State(desk): Desk, asking: Asking) -> Result<Response, Problem> {
    let ScopeBody { by, comment, site, service, tier, procedure, until, length } = asking.body()?;
    let until = match (until, length) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("both until and for say when it ends", "write one of them"));
        }
        (until, None) => until,
        (None, Some(text)) => {
            let length = humantime::parse_duration(&text).ok().and_then(|length| TimeDelta::from_std(length).ok());
            let end = length.and_then(|length| Utc::now().checked_add_signed(length));
            let remedy = "write it as in \"2h\" or \"1h 30m\", or leave it out for a pause that somebody resumes";
            Some(end.ok_or_else(|| Problem::invalid(format!("{text:?} is not how long a pause can be"), remedy))?)
        }
    };
    let scope = Scope { site, service, tier, procedure };
    taken(&desk, &asking, Word::Pause { scope, until }, by, comment).await
}

async fn resume(State(desk): Desk, asking: Asking) -> Result<Response, Problem> {
    let ScopeBody { by, comment, site, service, tier, procedure, until, length } = asking.body()?;
    if until.is_some() || length.is_some() {
        return Err(Problem::invalid("a resume has no end", "leave until and for out"));
    }
    let scope = Scope { site, service, tier, procedure };
    if scope == Scope::default() {
        asking.who.must_be(Role::Admin, "resume everything")?;
    }
    taken(&desk, &asking, Word::Resume { scope }, by, comment).await
}

async fn promote(State(desk): Desk, asking: Asking) -> Result<Response, Problem> {
    let PromoteBody { by, comment, procedure } = asking.body()?;
    asking.who.must_be(Role::Admin, "promote a procedure")?;
    taken(&desk, &asking, Word::Promote { procedure }, by, comment).await
}

async fn run(State(desk): Desk, asking: Asking) -> Result<Response, Problem> {
    let RunBody { by, comment, target, service, procedure, inputs, dry_run, force } = asking.body()?;
    if !force.is_empty() {
        asking.who.must_be(Role::Admin, "run against a limit")?;
    }
    let target = Target { name: target, service, procedure };
    let said = asking.said(Word::Run { target, inputs, dry_run, overrides: force }, by, comment)?;
    let (request, repeated) = desk.speak(&said).await?;
    match decided(&desk, &request).await {
        Some(Answered::Triggered { recovery }) => {
            let location = format!("/api/v1/recoveries/{recovery}");
            let (plan, now) = (desk.view.plan(), Utc::now());
            let standing = desk.view.with_desk(|desk| desk.standing(&recovery, plan, now));
            let body = json!({ "request": request, "recovery": recovery, "repeated": repeated, "standing": standing });
            Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
        }
        Some(Answered::Declined { reason, restraint }) => {
            let remedy = match restraint {
                Some(restraint) => {
                    format!(
                        "wait, or pass over it with \"force\": [\"{restraint}\"] (--force {restraint}), and say why"
                    )
                }
                None => "change what stands in its way, and ask again".to_owned(),
            };
            Err(Problem::new(StatusCode::CONFLICT, format!("declined: {reason}"), remedy)
                .with("request", json!(request)))
        }
        None => {
            let body = json!({ "request": request, "repeated": repeated, "recovery": null });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
    }
}

/// Says a word of which nothing but itself comes back.
async fn taken(
    desk: &Speaker,
    asking: &Asking,
    word: Word,
    by: Option<String>,
    comment: Option<String>,
) -> Result<Response, Problem> {
    let (event, repeated) = desk.speak(&asking.said(word, by, comment)?).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "event": event, "repeated": repeated }))).into_response())
}

/// What became of a request, if somebody decides in time.
async fn decided(desk: &Speaker, request: &EventId) -> Option<Answered> {
    let answered = async {
        loop {
            if let Some(answer) = desk.view.with_desk(|desk| desk.answer(request).cloned()) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DECIDED_WITHIN, answered).await.ok()
}
