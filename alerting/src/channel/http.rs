//! Channels that are an HTTP server: one or more requests a notice (which, is [`super::request`]'s), sent in turn.
//! When one fails, all are sent again: each of these receivers drops what it has, by its key.
//!
//! A signed request carries `X-Rebound-Timestamp: <seconds since 1970>` and
//! `X-Rebound-Signature: sha256=<hex>`, the HMAC-SHA-256 of `<timestamp>.<body>` under the channel's secret. A receiver
//! computes it over the bytes it got, compares in constant time, and refuses timestamps that are minutes old, so that
//! a recorded request can't be played again. `Idempotency-Key` is the notice's `dedup_key`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rebound_schemas::plan::SecretRef;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use sha2::Sha256;
use url::Url;

use super::guard;
use super::request::{Request, Shape, requests};
use super::secret::{Redactor, Secret};
use super::words::Speech;
use super::{Retry, SendError};
use crate::notify::Notice;

/// Read of an answer, in bytes: it only serves to say what was wrong.
const ANSWER_BYTES: usize = 4096;

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

    /// Sends what the notice is here, in the channel's words.
    pub(crate) async fn send(&self, notice: &Notice, speech: &Speech, now: DateTime<Utc>) -> Result<(), SendError> {
        for request in requests(&self.shape, speech, notice) {
            self.exchange(request, &notice.dedup_key, now).await?;
        }
        Ok(())
    }

    async fn exchange(&self, request: Request, dedup_key: &str, now: DateTime<Utc>) -> Result<(), SendError> {
        let mut url = self.url.clone();
        if let Some(path) = &request.path {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{base}{path}"));
        }
        url.set_query(request.query.or(self.url.query()));
        let body = request.body.to_string();
        let mut request_builder =
            self.client.post(url).header(CONTENT_TYPE, "application/json").header("idempotency-key", dedup_key);
        if let Shape::Opsgenie(key) = &self.shape {
            let mut value = HeaderValue::from_str(&format!("GenieKey {}", key.expose())).map_err(|_| SendError {
                message: "the key can't stand in a header".to_owned(),
                retry: Retry::Never,
            })?;
            value.set_sensitive(true);
            request_builder = request_builder.header(AUTHORIZATION, value);
        }
        if let Some(secret) = &self.secret {
            let timestamp = now.timestamp();
            request_builder = request_builder
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
        let response = request_builder.body(body).send().await.map_err(failed)?;
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
}
