//! HTTP probes: one request over a new connection, then status, headers and body are held against the check.
//!
//! As blackbox_exporter: 2xx passes unless the check lists statuses, redirects are followed unless it says no,
//! and nothing is retried. The body is read up to [`MAX_BODY_BYTES`]; more is neither read nor judged.

use std::sync::Arc;

use rebound_schemas::event::ErrorClass;
use rebound_schemas::plan::HttpCheck;
use regex::Regex;
use regex::bytes::Regex as BytesRegex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url, redirect, retry};

use super::fault::{Fault, Stage};
use super::trust::{Chain, Verifier};
use super::{Verdict, Wrong, wrong};

/// How much of a body is read and matched.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Redirects followed at most.
const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("rebound/", env!("CARGO_PKG_VERSION"));

/// A compiled HTTP check.
#[derive(Debug)]
pub(super) struct HttpProbe {
    client: Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
    assertions: Assertions,
}

/// What the answer must be.
#[derive(Debug)]
struct Assertions {
    status: Vec<u16>,
    headers: Vec<(HeaderName, Regex)>,
    matches: Vec<BytesRegex>,
    not_matches: Vec<BytesRegex>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl HttpProbe {
    pub(super) fn new(check: &HttpCheck, chain: &Arc<Chain>) -> Result<Self, Wrong> {
        let mut headers = HeaderMap::new();
        for (name, value) in &check.headers {
            let name = HeaderName::try_from(name).map_err(|e| wrong("headers", format!("{name:?}: {e}")))?;
            let mut value = HeaderValue::try_from(value).map_err(|e| wrong("headers", format!("{name}: {e}")))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let verifier = Verifier::new(check.ca_file.as_deref(), check.insecure, chain)?;
        let client = Client::builder()
            .tls_backend_preconfigured(verifier.client_config(&["h2", "http/1.1"]))
            .user_agent(USER_AGENT)
            .no_proxy()
            .retry(retry::never())
            // A kept connection would hide that nobody can connect any more.
            .pool_max_idle_per_host(0)
            .redirect(match check.follow_redirects {
                true => redirect::Policy::limited(MAX_REDIRECTS),
                false => redirect::Policy::none(),
            })
            .build()
            .map_err(|e| wrong("url", Fault::from_error(&e, ErrorClass::Configuration).reason))?;
        Ok(Self {
            client,
            method: Method::try_from(check.method.as_str()).map_err(|e| wrong("method", e))?,
            url: check.url.clone(),
            headers,
            body: check.body.clone(),
            assertions: Assertions::new(check)?,
        })
    }

    pub(super) async fn ask(&self, stage: &Stage) -> Result<HttpAnswer, Fault> {
        let mut request = self.client.request(self.method.clone(), self.url.clone()).headers(self.headers.clone());
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let mut response = request.send().await.map_err(fault)?;
        stage.enter(Stage::WAITING);
        let mut body = Vec::new();
        while body.len() < MAX_BODY_BYTES {
            let Some(chunk) = response.chunk().await.map_err(fault)? else { break };
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]);
        }
        Ok(HttpAnswer { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }

    pub(super) fn judge(&self, answer: &HttpAnswer) -> Verdict {
        self.assertions.judge(answer)
    }
}

/// Too many redirects is a setting that is wrong somewhere; the rest goes by its cause. URLs may hold secrets.
fn fault(error: reqwest::Error) -> Fault {
    let otherwise = if error.is_redirect() { ErrorClass::Configuration } else { ErrorClass::Network };
    Fault::from_error(&error.without_url(), otherwise)
}

impl Assertions {
    fn new(check: &HttpCheck) -> Result<Self, Wrong> {
        let all = |key, patterns: &[String]| {
            patterns.iter().map(|text| BytesRegex::new(text).map_err(|e| wrong(key, e))).collect::<Result<_, Wrong>>()
        };
        let mut headers = Vec::new();
        for (name, pattern) in &check.header_matches {
            let name = HeaderName::try_from(name).map_err(|e| wrong("header_matches", format!("{name:?}: {e}")))?;
            headers.push((name, Regex::new(pattern).map_err(|e| wrong("header_matches", e))?));
        }
        Ok(Self {
            status: check.status.clone(),
            headers,
            matches: all("body_matches", &check.body_matches)?,
            not_matches: all("body_not_matches", &check.body_not_matches)?,
        })
    }

    /// Status first, then headers, then body: the first that doesn't hold is the reason.
    fn judge(&self, answer: &HttpAnswer) -> Verdict {
        let mut verdict = match self.refuse(answer) {
            Some((class, reason)) => Verdict::failed(class, reason),
            None => Verdict::healthy(),
        };
        verdict.http_status = Some(answer.status);
        verdict
    }

    fn refuse(&self, answer: &HttpAnswer) -> Option<(ErrorClass, String)> {
        let status = answer.status;
        let passes = if self.status.is_empty() { (200..300).contains(&status) } else { self.status.contains(&status) };
        if !passes {
            let expected = match self.status.as_slice() {
                [] => "2xx".to_owned(),
                list => list.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
            };
            return Some((class_of_status(status), format!("status {status}, expected {expected}")));
        }
        for (name, pattern) in &self.headers {
            let values: Vec<_> = answer.headers.get_all(name).iter().collect();
            if values.is_empty() {
                return Some((ErrorClass::DataIntegrity, format!("the header {name} is missing")));
            }
            if !values.iter().any(|v| pattern.is_match(&String::from_utf8_lossy(v.as_bytes()))) {
                return Some((ErrorClass::DataIntegrity, format!("the header {name} does not match /{pattern}/")));
            }
        }
        if let Some(pattern) = self.matches.iter().find(|p| !p.is_match(&answer.body)) {
            return Some((ErrorClass::DataIntegrity, format!("the body does not match /{pattern}/")));
        }
        if let Some(pattern) = self.not_matches.iter().find(|p| p.is_match(&answer.body)) {
            return Some((ErrorClass::DataIntegrity, format!("the body matches /{pattern}/, which it must not")));
        }
        None
    }
}

/// | status | class |
/// |---|---|
/// | 401, 403, 407, 511 | security |
/// | 408, 504 | timeout |
/// | 429, 503, 507 | resource_constraint |
/// | 502 | dependency |
/// | other 3xx and 4xx | configuration |
/// | the rest | unknown |
fn class_of_status(status: u16) -> ErrorClass {
    match status {
        401 | 403 | 407 | 511 => ErrorClass::Security,
        408 | 504 => ErrorClass::Timeout,
        429 | 503 | 507 => ErrorClass::ResourceConstraint,
        502 => ErrorClass::Dependency,
        300..=499 => ErrorClass::Configuration,
        _ => ErrorClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{self, http_check, run};
    use super::*;
    use axum::http::StatusCode;
    use axum::response::Redirect;
    use axum::routing::get;
    use rebound_schemas::event::Outcome;
    use rebound_schemas::plan::Check;

    #[test]
    fn answers_are_judged_by_status_then_headers_then_body() {
        let mut check = http_check("http://127.0.0.1/");
        check.body_matches = vec!["ready".into()];
        check.body_not_matches = vec!["(?i)panic".into()];
        check.header_matches.insert("x-version".into(), "^1\\.".into());
        let judge = |check: &HttpCheck, status, version: Option<&str>, body: &[u8]| {
            let mut headers = HeaderMap::new();
            version.map(|v| headers.insert("x-version", v.parse().unwrap()));
            let assertions = Assertions::new(check).ok().unwrap();
            let verdict = assertions.judge(&HttpAnswer { status, headers, body: body.to_vec() });
            assert_eq!(verdict.http_status, Some(status));
            (verdict.outcome, verdict.error_class, verdict.reason.unwrap_or_default())
        };
        let failed = |class, reason: &str| (Outcome::Failed, Some(class), reason.to_owned());
        let healthy = (Outcome::Healthy, None, String::new());
        assert_eq!(judge(&check, 200, Some("1.2"), b"ready"), healthy);
        assert_eq!(judge(&check, 204, Some("1.2"), b"\xff ready \xfe"), healthy);
        let integrity = ErrorClass::DataIntegrity;
        for (status, class) in [
            (401, ErrorClass::Security),
            (404, ErrorClass::Configuration),
            (301, ErrorClass::Configuration),
            (408, ErrorClass::Timeout),
            (500, ErrorClass::Unknown),
            (502, ErrorClass::Dependency),
            (503, ErrorClass::ResourceConstraint),
            (504, ErrorClass::Timeout),
        ] {
            let reason = format!("status {status}, expected 2xx");
            assert_eq!(judge(&check, status, None, b""), failed(class, &reason));
        }
        assert_eq!(judge(&check, 200, None, b"ready"), failed(integrity, "the header x-version is missing"));
        assert_eq!(
            judge(&check, 200, Some("2.0"), b"ready"),
            failed(integrity, "the header x-version does not match /^1\\./")
        );
        assert_eq!(judge(&check, 200, Some("1.2"), b"no"), failed(integrity, "the body does not match /ready/"));
        assert_eq!(
            judge(&check, 200, Some("1.2"), b"ready to PANIC"),
            failed(integrity, "the body matches /(?i)panic/, which it must not")
        );
        check.status = vec![301, 404];
        assert_eq!(judge(&check, 404, Some("1.2"), b"ready"), healthy);
        assert_eq!(judge(&check, 200, None, b"").2, "status 200, expected 301, 404");
    }

    fn server() -> axum::Router {
        axum::Router::new()
            .route("/ok", get(|| async { "ready" }))
            .route("/down", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "down") }))
            .route("/moved", get(|| async { Redirect::temporary("/ok") }))
            .route("/loop", get(|| async { Redirect::temporary("/loop") }))
            .route("/slow", get(std::future::pending::<()>))
            .route("/large", get(|| async { [vec![b'x'; MAX_BODY_BYTES], b"tail".to_vec()].concat() }))
            .route(
                "/echo",
                axum::routing::post(|h: HeaderMap, body: String| async move {
                    format!("{} {body}", h["x-a"].to_str().unwrap())
                }),
            )
    }

    #[tokio::test]
    async fn a_real_server_is_probed() {
        let base = testing::serve(server()).await;
        let probe = async |path: &str, change: fn(&mut HttpCheck)| {
            let mut check = http_check(&format!("{base}{path}"));
            change(&mut check);
            run(Check::Http(check), Duration::from_secs(20)).await
        };
        let same = |_: &mut HttpCheck| {};
        let found = probe("/ok", |c| c.body_matches = vec!["^ready$".into()]).await;
        assert_eq!((found.outcome, found.http_status), (Outcome::Healthy, Some(200)));
        let found = probe("/down", same).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::ResourceConstraint)));
        assert_eq!(probe("/moved", same).await.http_status, Some(200));
        let found = probe("/moved", |c| c.follow_redirects = false).await;
        assert_eq!((found.outcome, found.http_status), (Outcome::Failed, Some(307)));
        let found = probe("/loop", same).await;
        assert_eq!(found.error_class, Some(ErrorClass::Configuration), "{found:?}");
        assert!(found.reason.unwrap().contains("redirects"));
        let found = probe("/large", |c| c.body_not_matches = vec!["tail".into()]).await;
        assert_eq!(found.outcome, Outcome::Healthy, "the cap ends before the tail: {found:?}");
        let found = probe("/echo", |c| {
            c.method = "POST".into();
            c.headers.insert("X-A".into(), "7".into());
            c.body = Some("hello".into());
            c.body_matches = vec!["^7 hello$".into()];
        })
        .await;
        assert_eq!(found.outcome, Outcome::Healthy, "{found:?}");
    }

    #[tokio::test]
    async fn no_answer_in_time_and_no_server_fail() {
        let base = testing::serve(server()).await;
        let slow = Check::Http(http_check(&format!("{base}/slow")));
        let found = run(slow, Duration::from_millis(200)).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Timeout)));
        let nobody = testing::closed_port().await;
        let found = run(Check::Http(http_check(&format!("http://u:secret@{nobody}/"))), Duration::from_secs(20)).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Network)), "{found:?}");
        assert!(!found.reason.unwrap().contains("secret"));
    }

    #[tokio::test]
    async fn https_is_verified_and_its_expiry_told() {
        let pki = testing::Pki::new("localhost", time_left(40));
        let address = testing::serve_tls(&pki, server()).await;
        let port = address.port();
        let mut check = http_check(&format!("https://localhost:{port}/ok"));
        let long = Duration::from_secs(20);
        let found = run(Check::Http(check.clone()), long).await;
        assert_eq!(found.error_class, Some(ErrorClass::Security), "{found:?}");
        assert_eq!(found.certificate_expires_at, Some(pki.leaf_expires_at), "told though it was refused");
        check.ca_file = Some(pki.ca_path());
        check.expiry_warning = Some(Duration::from_secs(30 * 86_400));
        let found = run(Check::Http(check.clone()), long).await;
        assert_eq!(found.outcome, Outcome::Healthy, "{found:?}");
        assert_eq!(found.certificate_expires_at, Some(pki.leaf_expires_at));
        check.expiry_warning = Some(Duration::from_secs(50 * 86_400));
        let found = run(Check::Http(check.clone()), long).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Degraded, Some(ErrorClass::Security)));
        check.url = format!("https://127.0.0.1:{port}/ok").parse().unwrap();
        let found = run(Check::Http(check.clone()), long).await;
        assert_eq!(found.error_class, Some(ErrorClass::Security), "another name: {found:?}");
        check.insecure = true;
        check.expiry_warning = None;
        assert_eq!(run(Check::Http(check), long).await.outcome, Outcome::Healthy);
    }

    fn time_left(days: i64) -> chrono::TimeDelta {
        chrono::TimeDelta::days(days)
    }
}
