//! The bearer token that a listener asks for: compared in constant time, never shown.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

/// Bytes of a refused request's body that are taken at most, and how long they may take to come.
const DRAINED: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// A bearer token. Never shown.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Takes the token's text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether a request shows it, as `Authorization: Bearer …`. Takes a time that depends on lengths only.
    #[must_use]
    pub fn is_shown_by(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let (scheme, given) = given.split_at(given.len().min("Bearer ".len()));
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(self.0.as_bytes().ct_eq(given))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Takes the body of a request that is refused, within bounds: over HTTP/2 a client that is still sending sees a
/// broken stream instead of the answer.
pub async fn drain(body: Body) {
    let _ = tokio::time::timeout(DRAINED.1, to_bytes(body, DRAINED.0)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_whole_and_by_its_scheme() {
        let token = Token::new("abcdef");
        for (shown, good) in [
            ("Bearer abcdef", true),
            ("bearer abcdef", true),
            ("Bearer abcdeg", false),
            ("Bearer abcde", false),
            ("Bearer abcdefg", false),
            ("Basic abcdef", false),
            ("abcdef", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(shown))]);
            assert_eq!(token.is_shown_by(&headers), good, "{shown:?}");
        }
        assert!(!token.is_shown_by(&HeaderMap::new()));
        assert!(!format!("{token:?}").contains("abc"));
    }
}
