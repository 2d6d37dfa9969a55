//! Webhooks: Rebound's own JSON, signed, and Slack's.
//!
//! A signed request carries `X-Rebound-Timestamp: <seconds since 1970>` and
//! `X-Rebound-Signature: sha256=<hex>`, the HMAC-SHA-256 of `<timestamp>.<body>` under the channel's secret. A receiver
//! computes it over the bytes it got, compares in constant time, and refuses timestamps that are minutes old, so that
//! a recorded request can't be played again. `Idempotency-Key` is the notice's `dedup_key`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rebound_schemas::codec::format_time;
use rebound_schemas::event::{Severity, Transition};
use rebound_schemas::plan::SecretRef;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::json;
use sha2::Sha256;
use url::Url;

use super::guard;
use super::secret::{Redactor, Secret};
use super::{Retry, SendError};
use crate::notify::Notice;
use crate::procedure::shorten;

/// Read of an answer, in bytes: it only serves to say what was wrong.
const ANSWER_BYTES: usize = 4096;

/// What the body looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Rebound,
    Slack,
}

/// One address that notices are posted to.
pub(crate) struct Webhook {
    url: Url,
    secret: Option<Secret>,
    client: reqwest::Client,
    shape: Shape,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may be the secret.
        f.debug_struct("Webhook").field("shape", &self.shape).field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Webhook {
    pub(crate) fn new(
        url: &SecretRef,
        secret: Option<&SecretRef>,
        allow_private: bool,
        timeout: Duration,
        shape: Shape,
        redactor: &mut Redactor,
    ) -> Result<Self, (&'static str, String)> {
        let url = Secret::load(url).map_err(|e| ("url", e))?;
        let url = guard::check_url(url.expose().trim(), allow_private).map_err(|e| ("url", e.to_string()))?;
        redactor.add_url(&url);
        let secret = secret.map(Secret::load).transpose().map_err(|e| ("secret", e))?;
        secret.iter().for_each(|secret| redactor.add(secret.expose()));
        let client = guard::client(allow_private, timeout).map_err(|e| ("url", e.to_string()))?;
        Ok(Self { url, secret, client, shape })
    }

    pub(crate) async fn send(&self, notice: &Notice, now: DateTime<Utc>) -> Result<(), SendError> {
        let body = match self.shape {
            Shape::Rebound => rebound_body(notice),
            Shape::Slack => slack_body(notice),
        };
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", &notice.dedup_key);
        if let Some(secret) = &self.secret {
            let timestamp = now.timestamp();
            request = request
                .header("x-rebound-timestamp", timestamp)
                .header("x-rebound-signature", signature(secret, timestamp, body.as_bytes()));
        }
        let failed = |error: reqwest::Error| {
            // What the guard refused once may be permitted later: names change.
            let message = match error.is_timeout() {
                true => "there was no complete answer in time".to_owned(),
                false => guard::describe(error),
            };
            SendError { message, retry: Retry::Usual }
        };
        let response = request.body(body).send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| retry_after(v, now));
        let retry = match (status.as_u16(), asked) {
            (408 | 429 | 500.., Some(wait)) => Retry::After(wait),
            (408 | 429 | 500.., None) => Retry::Usual,
            _ => Retry::Never,
        };
        let answer = guard::read_capped(response, ANSWER_BYTES).await.unwrap_or_default();
        let answer: String = answer.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let message = match (status.is_redirection(), answer.trim()) {
            (true, _) => {
                format!("the server answered {status}; redirects are not followed, so write the final address")
            }
            (false, "") => format!("the server answered {status}"),
            (false, answer) => format!("the server answered {status}: {answer}"),
        };
        Err(SendError { message, retry })
    }
}

/// `sha256=<hex>` of `<timestamp>.<body>`.
pub(crate) fn signature(secret: &Secret, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    format!("sha256={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => DateTime::parse_from_rfc2822(text).ok()?.signed_duration_since(now).to_std().ok(),
    }
}

fn rebound_body(notice: &Notice) -> String {
    json!({
        "version": 1,
        "dedup_key": notice.dedup_key,
        "transition": notice.transition,
        "repeat": notice.repeat,
        "severity": notice.severity,
        "service": notice.service,
        "title": notice.title,
        "reason": notice.reason,
        "alert": notice.alert,
        "incident": notice.incident,
        "policy": notice.policy,
        "channel": notice.channel,
        "first_failure_at": format_time(notice.first_failure_at),
        "at": format_time(notice.at),
        "plan": notice.plan,
    })
    .to_string()
}

/// Slack's three characters with a meaning are written as entities, so that a reason can't mention everybody.
fn slack_text(text: &str) -> String {
    shorten(text, 2000).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn slack_body(notice: &Notice) -> String {
    let color = match (notice.transition, notice.severity) {
        (Transition::Resolved, _) => "good",
        (_, Severity::Critical) => "danger",
        (_, Severity::Warning) => "warning",
        (_, Severity::Info) => "#439fe0",
    };
    let field = |title: &str, value: &str| json!({ "title": title, "value": slack_text(value), "short": true });
    json!({
        "text": slack_text(&notice.title),
        "attachments": [{
            "color": color,
            "fallback": slack_text(&notice.title),
            "text": slack_text(&notice.reason),
            "fields": [
                field("Service", notice.service.as_str()),
                field("Severity", notice.severity.as_str()),
                field("Since", &format_time(notice.first_failure_at)),
                field("Incident", notice.incident.as_str()),
            ],
            "ts": notice.at.timestamp(),
        }],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_that_others_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac It\'s\ a\ secret
        let secret = Secret::load(&SecretRef::Plain("It's a secret".into())).unwrap();
        let known = "063c01779d2db19173363fe63eef90a220a70862d2f4742cbb8b449a2c73c877";
        assert_eq!(signature(&secret, 1_700_000_000, br#"{"a":1}"#), format!("sha256={known}"));
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = DateTime::from_timestamp(1_772_000_000, 0).unwrap();
        let date = (now + chrono::TimeDelta::seconds(90)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        for (text, want) in [("7", Some(7)), (date.as_str(), Some(90)), ("soon", None), ("-1", None)] {
            assert_eq!(retry_after(text, now), want.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn slack_texts_can_not_mention_anybody() {
        assert_eq!(slack_text("<!channel> & co"), "&lt;!channel&gt; &amp; co");
    }
}
