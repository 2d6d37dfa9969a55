//! What is answered to a request that is refused: `application/problem+json` (RFC 9457) with what to do instead.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rebound_alerting::desk::{Refusal, RefusalKind};
use serde_json::{Value, json};

/// Why a request is refused, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
    pub(crate) remedy: String,
    /// A further member, where there is more to tell.
    more: Option<(&'static str, Value)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), remedy: remedy.into(), more: None }
    }

    /// What makes no sense, however things are.
    pub(crate) fn invalid(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail, remedy)
    }

    /// With a further member.
    pub(crate) fn with(self, name: &'static str, value: Value) -> Self {
        Self { more: Some((name, value)), ..self }
    }

    /// No token is shown, or one that nobody knows.
    pub(crate) fn unauthorized(shown: bool) -> Self {
        let remedy = "send the header \"Authorization: Bearer TOKEN\" (the commands: --token-file FILE or \
                      REBOUND_TOKEN_FILE) with a token that [http] names";
        let detail = match shown {
            true => "the bearer token is none that is known here",
            false => "a bearer token is required",
        };
        Self::new(StatusCode::UNAUTHORIZED, detail, remedy)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, refusal.detail, refusal.remedy)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Refused");
        let mut body = json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(),
            "detail": self.detail, "remedy": self.remedy,
        });
        if let Some((name, value)) = self.more {
            body[name] = value;
        }
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, format!("{body}\n")).into_response();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }
}
