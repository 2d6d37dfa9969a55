//! The door of a running Rebound, for commands that ask it something: `recovery`, `failover`, `failback`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rebound_alerting::moves::Course;
use rebound_schemas::EventId;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::emit::{Target, client};

/// How often the course of a request is asked for.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// A request that nobody answers for so long is told of.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What was asked is refused.
#[derive(Debug, thiserror::Error)]
#[error("refused: {detail}\nwhat to do: {remedy}")]
pub(crate) struct Refused {
    detail: String,
    remedy: String,
    /// The whole answer (RFC 9457).
    pub(crate) problem: Value,
    status: u16,
}

/// Where it is, and the token that is shown there.
pub(crate) struct Door {
    client: reqwest::Client,
    url: String,
}

impl Door {
    pub(crate) fn new(target: &Target) -> Result<Self> {
        Ok(Self { client: client(target.token_file())?, url: target.url().trim_end_matches('/').to_owned() })
    }

    /// # Errors
    /// It does not answer, or [`Refused`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.answer(self.client.get(format!("{}{path}", self.url))).await
    }

    /// Says something; members that are null are left out. Under a key, saying the same again does nothing.
    ///
    /// # Errors
    /// It does not answer, or [`Refused`].
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, mut body: Value, key: Option<&str>) -> Result<T> {
        if let Some(members) = body.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        let request = self.client.post(format!("{}{path}", self.url)).json(&body);
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        self.answer(request).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        let url = &self.url;
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => bail!("{url} does not answer ({}): is `rebound up` running there?", root(&error)),
        };
        let status = answer.status();
        let text = answer.text().await?;
        let foreign = || format!("{url} answered {status}: {}: is it a Rebound with the role serve?", text.trim());
        if status.is_success() {
            return serde_json::from_str(&text).with_context(foreign);
        }
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let (Some(detail), Some(remedy)) = (problem["detail"].as_str(), problem["remedy"].as_str()) else {
            bail!(foreign());
        };
        Err(Refused { detail: detail.to_owned(), remedy: remedy.to_owned(), status: status.as_u16(), problem }.into())
    }

    /// Prints what becomes of a request until its end; whether it went well. Ending this ends nothing there.
    pub(crate) async fn follow(&self, id: &EventId) -> Result<bool> {
        let (mut told, mut silent) = (0, Duration::ZERO);
        loop {
            let course: Result<Course> = self.get(&format!("/api/v1/requests/{id}")).await;
            // Not known yet is no fault: the request is on its way.
            let unknown = |error: &anyhow::Error| error.downcast_ref::<Refused>().is_some_and(|no| no.status == 404);
            match course {
                Ok(course) => {
                    for line in course.lines.iter().skip(told) {
                        println!("{line}");
                    }
                    told = told.max(course.lines.len());
                    if let Some(succeeded) = course.succeeded() {
                        return Ok(succeeded);
                    }
                    if told > 0 {
                        silent = Duration::ZERO;
                    }
                }
                Err(error) if silent >= ANSWERED_WITHIN && !unknown(&error) => {
                    return Err(error.context(format!("{id} goes on, and can't be followed any more")));
                }
                Err(_) => {}
            }
            if told == 0 && silent >= ANSWERED_WITHIN {
                bail!(
                    "nobody answered within {} s: does a Rebound with the role alert run? {id} is asked for all the \
                     same, and `rebound recovery list` shows what becomes of it",
                    ANSWERED_WITHIN.as_secs()
                );
            }
            tokio::time::sleep(ASK_EVERY).await;
            silent += ASK_EVERY;
        }
    }
}

/// The innermost cause: what stands around it is the client's, and no help.
fn root(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

/// A path segment or a query's value: ids have `/` and `:`.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ids_have_is_escaped() {
        assert_eq!(escaped("rec-1.a_b"), "rec-1.a_b");
        assert_eq!(escaped("urn:x/y z&ä"), "urn%3Ax%2Fy%20z%26%C3%A4");
    }
}
