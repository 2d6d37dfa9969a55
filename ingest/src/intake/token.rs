//! The bearer token that a listener asks for: compared in constant time, never shown.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

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
