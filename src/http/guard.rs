//! Who asks: bearer tokens with a name and a role each, and what each role may do.
//!
//! | | viewer | operator | admin |
//! |---|---|---|---|
//! | look: `GET` of anything, SQL | yes | yes | yes |
//! | post events, approve, reject, cancel, run, move a site, pause, resume what a pause names | no | yes | yes |
//! | resume everything, run with `force`, promote a procedure | no | no | yes |
//!
//! Stopping is easier than starting: whoever may act may pause everything. Without any token in the settings the
//! listener is on loopback (see [`crate::config`]), and whoever reaches it may do all of this. The one token of
//! `token_file` may do all of it too, and has no name: who shows it says who they are. Beside tokens with names it is
//! called `token_file`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rebound_ingest::intake::Token;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::config::Http;

/// The name of the token in `token_file`.
const ONE_TOKEN: &str = "token_file";
/// A token has at least so many characters.
const SHORTEST: usize = 16;

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Act.
    Operator,
    /// Act against the limits.
    Admin,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Who asks, as a request's extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    /// The token's name; none where no token is asked for, or all show the same.
    pub(crate) name: Option<String>,
    pub(crate) role: Role,
}

impl Who {
    /// Refuses those whose role is not enough.
    pub(crate) fn must_be(&self, least: Role, to: &str) -> Result<(), Problem> {
        if self.role >= least {
            return Ok(());
        }
        let (name, role, least) = (self.name.as_deref().unwrap_or_default(), self.role.as_str(), least.as_str());
        let detail = format!("the token {name} has the role {role}, and it takes the role {least} to {to}");
        let remedy = format!("ask with a token of the role {least}, or have this one's role changed in [[http.token]]");
        Err(Problem::new(StatusCode::FORBIDDEN, detail, remedy))
    }
}

/// The tokens that the listener knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens(Vec<(Who, Token)>);

impl Tokens {
    /// Reads them from where the settings say.
    pub(crate) fn read(settings: &Http) -> Result<Self> {
        let mut found: Vec<(Who, String, String)> = Vec::new();
        if let Some(file) = &settings.token_file {
            let name = (!settings.token.is_empty()).then(|| ONE_TOKEN.to_owned());
            found.push((Who { name, role: Role::Admin }, "token_file".to_owned(), from_file("token_file", file)?));
        }
        for token in &settings.token {
            let what = format!("token {}", token.name);
            let text = match (&token.file, &token.env) {
                (Some(file), _) => from_file(&what, file)?,
                (None, Some(name)) => std::env::var(name).with_context(|| {
                    format!("[http] {what}: the environment variable {name} is not set: set it, or write file = \"…\"")
                })?,
                (None, None) => bail!("[http] {what} has neither file nor env"),
            };
            found.push((Who { name: Some(token.name.clone()), role: token.role }, what, text));
        }
        let mut tokens = Self::default();
        for (n, (who, what, text)) in found.iter().enumerate() {
            let text = text.trim();
            ensure!(
                text.len() >= SHORTEST,
                "[http] {what}: a token has at least {SHORTEST} characters: make one with `openssl rand -hex 32`"
            );
            ensure!(
                text.bytes().all(|byte| byte.is_ascii_graphic()),
                "[http] {what}: a token is one word of plain characters: make one with `openssl rand -hex 32`"
            );
            if let Some((_, other, _)) = found[..n].iter().find(|(.., other)| other.trim() == text) {
                bail!("[http] {what} is the same text as {other}: nobody could say who asks; give each its own");
            }
            tokens.0.push((who.clone(), Token::new(text)));
        }
        Ok(tokens)
    }

    /// Who shows one of the tokens. All are compared, so that how long it takes does not tell which.
    fn who(&self, headers: &HeaderMap) -> Option<Who> {
        if self.0.is_empty() {
            return Some(Who { name: None, role: Role::Admin });
        }
        let mut shown = None;
        for (who, token) in &self.0 {
            if token.is_shown_by(headers) {
                shown = Some(who.clone());
            }
        }
        shown
    }
}

fn from_file(what: &str, file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("[http] {what}: {} can't be read", file.display()))
}

/// Lets a request through with who asks, if they may do such a thing at all.
pub(super) async fn authorize(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    // SQL is posted, and only reads.
    let looks = matches!(*request.method(), Method::GET | Method::HEAD) || request.uri().path() == super::sql::PATH;
    let least = if looks { Role::Viewer } else { Role::Operator };
    let allowed = match tokens.who(request.headers()) {
        None => Err(Problem::unauthorized(request.headers().contains_key(header::AUTHORIZATION))),
        Some(who) => who.must_be(least, "do more than look").map(|()| who),
    };
    match allowed {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::TokenSetting;

    fn settings(folder: &Path, tokens: &[(&str, Role, &str)]) -> Http {
        let setting = |(name, role, text): &(&str, Role, &str)| {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            TokenSetting { name: (*name).to_owned(), role: *role, file: Some(file), env: None }
        };
        Http { token: tokens.iter().map(setting).collect(), ..Http::default() }
    }

    #[test]
    fn who_asks_is_known_by_the_whole_token() {
        let folder = tempfile::tempdir().unwrap();
        let all = [("ann", Role::Operator, "0123456789abcdef\n"), ("wall", Role::Viewer, "0123456789abcdefg")];
        let tokens = Tokens::read(&settings(folder.path(), &all)).unwrap();
        let who = |shown: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(shown))]);
            tokens.who(&headers).map(|who| (who.name.unwrap(), who.role))
        };
        assert_eq!(who("Bearer 0123456789abcdef"), Some(("ann".to_owned(), Role::Operator)));
        assert_eq!(who("Bearer 0123456789abcdefg"), Some(("wall".to_owned(), Role::Viewer)));
        assert_eq!((who("Bearer 0123456789abcde"), who("0123456789abcdef")), (None, None));
        assert!(!format!("{tokens:?}").contains("0123"), "a token is never shown");
        let one = Http { token_file: Some(folder.path().join("ann")), ..Http::default() };
        let names = |settings: &Http| {
            Tokens::read(settings).unwrap().0.into_iter().map(|(who, _)| who.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&one), [None], "who shows the one token says who they are");
        let both = Http { token: settings(folder.path(), &all[1..]).token, ..one };
        assert_eq!(names(&both), [Some("token_file".to_owned()), Some("wall".to_owned())]);
        let anybody = Tokens::default().who(&HeaderMap::new()).unwrap();
        assert_eq!(anybody, Who { name: None, role: Role::Admin });
    }

    #[test]
    fn bad_tokens_are_refused_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let said = |tokens: &[(&str, Role, &str)]| {
            format!("{:#}", Tokens::read(&settings(folder.path(), tokens)).unwrap_err())
        };
        assert_eq!(
            said(&[("a", Role::Viewer, "short")]),
            "[http] token a: a token has at least 16 characters: make one with `openssl rand -hex 32`"
        );
        let words = "[http] token a: a token is one word of plain characters: make one with `openssl rand -hex 32`";
        assert_eq!(said(&[("a", Role::Viewer, "two words, as it were")]), words);
        let same = [("a", Role::Viewer, "0123456789abcdef"), ("b", Role::Admin, "0123456789abcdef\n")];
        assert_eq!(
            said(&same),
            "[http] token b is the same text as token a: nobody could say who asks; give each its own"
        );
        let env = TokenSetting {
            name: "c".into(),
            role: Role::Admin,
            file: None,
            env: Some("REBOUND_TEST_NO_SUCH_VARIABLE".into()),
        };
        let none = Tokens::read(&Http { token: vec![env], ..Http::default() }).unwrap_err();
        let words = "[http] token c: the environment variable REBOUND_TEST_NO_SUCH_VARIABLE is not set";
        assert!(format!("{none:#}").starts_with(words), "{none:#}");
    }

    #[test]
    fn a_role_does_what_it_may_and_no_more() {
        let roles = [Role::Viewer, Role::Operator, Role::Admin];
        for (least, allowed) in [
            (Role::Viewer, [true, true, true]),
            (Role::Operator, [false, true, true]),
            (Role::Admin, [false, false, true]),
        ] {
            let may = roles.map(|role| Who { name: Some("x".into()), role }.must_be(least, "try").is_ok());
            assert_eq!(may, allowed, "{least:?}");
        }
    }
}
