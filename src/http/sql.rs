//! `POST /v1/sql`: one statement in, its answer out, as JSON, NDJSON, CSV, Arrow IPC or Parquet, as `Accept` asks for
//! it. The body is the statement itself, or JSON: `{"query": "SELECT 1", "as_of": "2026-01-31T00:00:00Z"}`.
//!
//! An error is JSON: `code` is PostgreSQL's SQLSTATE, `message` what is wrong, `hint` what to do about it.
//!
//! | answer | status |
//! |---|---|
//! | all rows | 200 |
//! | the statement is no SQL, or names what is not there | 400 |
//! | it does more than read | 403 |
//! | none of the asked-for formats is known | 406 |
//! | there are too many rows, or it needs too much memory | 422 |
//! | as many statements run as may, or there is no event log yet | 503 |
//! | it takes too long | 504 |

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use rebound_analytics::output::{self, Format};
use rebound_analytics::session::{Session, SqlError};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::config::Sql;

/// Where SQL is posted.
pub(super) const PATH: &str = "/v1/sql";
/// Largest body, in bytes: statements are refused from 64 KiB on, with words.
const MAX_BODY: usize = 16 << 20;

const FORMATS: [(&str, Format); 5] = [
    ("application/json", Format::Json),
    ("application/x-ndjson", Format::Ndjson),
    ("text/csv", Format::Csv),
    ("application/vnd.apache.arrow.stream", Format::Arrow),
    ("application/vnd.apache.parquet", Format::Parquet),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
    as_of: Option<DateTime<Utc>>,
}

#[derive(Clone)]
struct Sqls {
    session: Arc<Session>,
    places: Arc<Semaphore>,
    settings: Arc<Sql>,
}

/// The route.
pub(crate) fn router(session: Arc<Session>, settings: &Sql) -> Router {
    let places = Arc::new(Semaphore::new(settings.max_connections));
    let state = Sqls { session, places, settings: Arc::new(settings.clone()) };
    Router::new().route(PATH, post(answer)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(state)
}

async fn answer(State(sqls): State<Sqls>, headers: HeaderMap, body: Bytes) -> Response {
    let Some((content_type, format)) = chosen(&headers) else {
        let known: Vec<_> = FORMATS.iter().map(|(name, _)| *name).collect();
        let hint = format!("write one of {}", known.join(", "));
        return refused(StatusCode::NOT_ACCEPTABLE, "22023", "Accept names no format that is known", Some(hint));
    };
    let asked = match asked(&headers, &body) {
        Ok(asked) => asked,
        Err(message) => return refused(StatusCode::BAD_REQUEST, "22023", &message, None),
    };
    let Ok(_place) = sqls.places.try_acquire() else {
        let message = format!("{} statements run already", sqls.settings.max_connections);
        let hint = "come later, or raise [sql] max_connections".to_owned();
        return refused(StatusCode::SERVICE_UNAVAILABLE, "53300", &message, Some(hint));
    };
    let answer = match asked.as_of {
        Some(known_at) => sqls.session.query_as_of(&asked.query, known_at).await,
        None => sqls.session.query(&asked.query, Utc::now()).await,
    };
    let answer = match answer {
        // Half an answer would be taken for a whole one.
        Ok(answer) if answer.truncated => Err(SqlError::TooManyRows { limit: sqls.settings.max_rows }),
        answer => answer,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let mut body = Capped { bytes: Vec::new(), most: sqls.settings.memory };
    if let Err(error) = output::write(format, &answer.schema, &answer.batches, &mut body) {
        return refused(StatusCode::UNPROCESSABLE_ENTITY, "54000", &error.to_string(), None);
    }
    ([(header::CONTENT_TYPE, content_type)], body.bytes).into_response()
}

/// Bytes up to a number.
struct Capped {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            let message = format!("it has more than the {} bytes of [sql] memory: select less", self.most);
            return Err(io::Error::other(message));
        }
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The statement: the body itself, or `query` of a JSON body.
fn asked(headers: &HeaderMap, body: &Bytes) -> Result<Asked, String> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.starts_with("application/json") {
        return serde_json::from_slice(body)
            .map_err(|error| format!("the body is not as in {{\"query\": \"SELECT 1\"}}: {error}"));
    }
    let query = String::from_utf8(body.to_vec()).map_err(|_| "the body is not UTF-8: post the statement as text")?;
    Ok(Asked { query, as_of: None })
}

/// The first format of `Accept` that is known; JSON where none is asked for.
fn chosen(headers: &HeaderMap) -> Option<(&'static str, Format)> {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
        return Some(FORMATS[0]);
    };
    accept.split(',').map(|asked| asked.split(';').next().unwrap_or_default().trim()).find_map(|asked| match asked {
        "*/*" | "application/*" => Some(FORMATS[0]),
        "text/*" => Some(FORMATS[2]),
        asked => FORMATS.iter().find(|(name, _)| *name == asked).copied(),
    })
}

fn failed(error: &SqlError) -> Response {
    let status = match error {
        SqlError::Invalid(_) | SqlError::Unknown { .. } | SqlError::TooComplex(_) => StatusCode::BAD_REQUEST,
        SqlError::Refused(_) => StatusCode::FORBIDDEN,
        SqlError::TooManyRows { .. } | SqlError::Memory { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        SqlError::Absent { .. } => StatusCode::SERVICE_UNAVAILABLE,
        SqlError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        // What the data made of it: a division by zero, a text that is no number.
        SqlError::Execution(_) if error.code().starts_with("22") => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let (message, hint) = error.told();
    refused(status, error.code(), &message, hint)
}

fn refused(status: StatusCode, code: &str, message: &str, hint: Option<String>) -> Response {
    (status, Json(json!({ "code": code, "message": message, "hint": hint }))).into_response()
}
