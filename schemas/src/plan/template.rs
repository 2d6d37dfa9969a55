//! Message templates: a channel's and a route's own words instead of Rebound's.
//!
//! The language is a small part of minijinja: `{{ name }}`, `if` and `for`, a few filters. What a template sees is
//! [`Variables`] and nothing else: it reaches no file, no environment and no secret. A name that nothing has is an
//! error. What it may spend and write is bounded, whatever it says; and what a variable holds is escaped for the
//! place where it ends up, so that a failed probe's answer can't mention a whole team or break a page.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, Output, UndefinedBehavior, filters, tests};
use serde::Serialize;
use serde_json::json;

use crate::event::{Severity, Transition};

/// Instructions that one rendering may spend: enough for some lines about each of 500 changes.
const FUEL: u64 = 100_000;
/// Longest template, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// Longest text that a template writes, or a filter makes on the way, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// Why a template that asks for an unknown name can't be rendered.
pub(super) const NO_NAME: &str = "a name that nothing has";
/// What a template may say in `{% … %}`.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// Where a text ends up, and so what in a variable must be escaped. What the template itself says is left alone:
/// its author may write links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Plain text: mail, PagerDuty, JSON's own texts.
    Plain,
    /// Slack's mrkdwn: `&`, `<` and `>` are entities, so that nothing mentions anybody.
    Slack,
    /// An Adaptive Card's Markdown.
    Card,
    /// HTML.
    Html,
    /// A JSON value: a text is written with its quotes.
    Json,
}

impl Escape {
    /// A text as it must be written here.
    #[must_use]
    pub fn text(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Slack => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            Self::Card => {
                let mut escaped = String::new();
                for c in text.chars() {
                    if "\\`*_[]<>".contains(c) {
                        escaped.push('\\');
                    }
                    escaped.push(c);
                }
                escaped
            }
            Self::Html => {
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                text.replace('"', "&quot;").replace('\'', "&#39;")
            }
            Self::Json => json!(text).to_string(),
        }
    }
}

/// Why a template can't be used, or could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TemplateError {
    /// The line of the template, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// One text with places for variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Takes a template.
    ///
    /// # Errors
    /// It is too long, is no template, or uses what templates of messages may not.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let wrong = |line, reason: String| Err(TemplateError { line, reason });
        if text.len() > MAX_BYTES {
            return wrong(1, format!("it is longer than {MAX_BYTES} bytes"));
        }
        if let Some((line, reason)) = forbidden(text) {
            return wrong(line, reason);
        }
        environment(Escape::Plain).template_from_str(text).map_err(|error| located(&error))?;
        Ok(Self(text.to_owned()))
    }

    /// The template as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The variables that it asks for, without what they hold.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let environment = environment(Escape::Plain);
        let template = environment.template_from_str(&self.0);
        template.map(|found| found.undeclared_variables(false).into_iter().collect()).unwrap_or_default()
    }

    /// The text for these values ([`Variables::values`]). It ends without the line ends that a file ends with.
    ///
    /// # Errors
    /// A name that nothing has, kinds that don't fit, or more spent or written than is allowed.
    pub fn render(&self, escape: Escape, values: &serde_json::Value) -> Result<String, TemplateError> {
        let environment = environment(escape);
        let template = environment.template_from_str(&self.0).map_err(|error| located(&error))?;
        let mut out = Bounded(Vec::new());
        match template.render_captured_to(Value::from_serialize(values), &mut out) {
            Ok(_) => {
                let text = String::from_utf8_lossy(&out.0);
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Err(error) if error.kind() == ErrorKind::WriteFailure => {
                let reason = format!("it writes more than {MAX_OUTPUT_BYTES} bytes");
                Err(TemplateError { line: error.line().unwrap_or(1), reason })
            }
            Err(error) => Err(located(&error)),
        }
    }
}

/// Takes what is written up to the bound.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn located(error: &Error) -> TemplateError {
    let reason = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "it does too much: write fewer loops".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (ErrorKind::UndefinedError, None) => NO_NAME.to_owned(),
        (kind, None) => kind.to_string(),
    };
    TemplateError { line: error.line().unwrap_or(1).max(1), reason }
}

/// What could make a text of any size in a few instructions, or switch escaping off.
fn forbidden(text: &str) -> Option<(usize, String)> {
    let mut at = 0;
    while let Some(found) = text[at..].find("{{").into_iter().chain(text[at..].find("{%")).min() {
        let start = at + found;
        let statement = text[start..].starts_with("{%");
        let end = text[start + 2..].find(if statement { "%}" } else { "}}" });
        let inside = end.map_or(&text[start + 2..], |end| &text[start + 2..start + 2 + end]);
        let line = text[..start].matches('\n').count() + 1;
        let code = without_texts(inside);
        let words: Vec<&str> = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let first = words.iter().find(|word| !word.is_empty()).copied().unwrap_or_default();
        if statement && !STATEMENTS.contains(&first) {
            let known = STATEMENTS.join(", ");
            return Some((line, format!("{first:?} is nothing that a message's template can say: there are {known}")));
        }
        if statement && words.contains(&"recursive") {
            return Some((line, "a loop of a message's template can't be recursive".to_owned()));
        }
        if code.contains('*') {
            return Some((line, "a message's template can't multiply".to_owned()));
        }
        at = start + 2;
    }
    None
}

/// Code without what stands in quotes.
fn without_texts(code: &str) -> String {
    let (mut out, mut quote, mut escaped) = (String::new(), None, false);
    for c in code.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None => out.push(c),
        }
    }
    out
}

fn environment(escape: Escape) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(move |out: &mut Output<'_>, _: &minijinja::State<'_, '_>, value: &Value| {
        let text = match escape {
            Escape::Json => serde_json::to_string(value)
                .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?,
            _ if value.is_none() => String::new(),
            _ => escape.text(&value.to_string()),
        };
        out.write_str(&text).map_err(Error::from)
    });
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("default", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("map", filters::map);
    environment.add_filter("rejectattr", filters::rejectattr);
    environment.add_filter("replace", replace);
    environment.add_filter("selectattr", filters::selectattr);
    environment.add_filter("shorten", shorten);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("unique", filters::unique);
    environment.add_filter("upper", filters::upper);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("eq", tests::is_eq);
    environment.add_test("equalto", tests::is_eq);
    environment.add_test("in", tests::is_in);
    environment.add_test("ne", tests::is_ne);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("endingwith", tests::is_endingwith);
    environment
}

fn bounded(text: String) -> Result<String, Error> {
    match text.len() {
        0..=MAX_OUTPUT_BYTES => Ok(text),
        _ => Err(Error::new(ErrorKind::InvalidOperation, format!("a text longer than {MAX_OUTPUT_BYTES} bytes"))),
    }
}

/// minijinja's own, with an end.
fn join(values: &Value, between: Option<String>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut out = String::new();
    for (n, value) in values.try_iter()?.enumerate() {
        if n > 0 {
            out.push_str(&between);
        }
        out.push_str(&value.to_string());
        out = bounded(out)?;
    }
    Ok(out)
}

fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let more = text.matches(&from).count().saturating_mul(to.len());
    if text.len().saturating_add(more) > MAX_OUTPUT_BYTES {
        return bounded("x".repeat(MAX_OUTPUT_BYTES + 1));
    }
    Ok(text.replace(&from, &to))
}

/// The first so many characters, with an ellipsis where something was cut off.
fn shorten(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) if most > 0 => format!("{}…", text.chars().take(most - 1).collect::<String>()),
        Some(_) => String::new(),
        None => text,
    }
}

/// A channel's or a route's own words; what is left out is Rebound's. A route's go before its channel's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates {
    /// One line: what happened.
    pub title: Option<Template>,
    /// The message.
    pub body: Option<Template>,
    /// Names with short values beside the message; a name's own replaces Rebound's of that name.
    pub fields: BTreeMap<String, Template>,
    /// The message as HTML, for mail.
    pub html: Option<Template>,
    /// The whole body of a webhook's request instead of Rebound's format.
    pub json: Option<Template>,
}

impl Templates {
    /// These, and where they say nothing, `others`.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        let pick = |own: &Option<Template>, other: &Option<Template>| own.clone().or_else(|| other.clone());
        let mut fields = others.fields.clone();
        fields.extend(self.fields.clone());
        Self {
            title: pick(&self.title, &others.title),
            body: pick(&self.body, &others.body),
            fields,
            html: pick(&self.html, &others.html),
            json: pick(&self.json, &others.json),
        }
    }
}

/// What a template sees of a message: this, and of its first (mostly only) change everything that [`Change`] has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Variables {
    /// Rebound's own title.
    pub title: String,
    /// Rebound's own message, in plain lines.
    pub body: String,
    /// How loudly: the loudest change's.
    pub severity: Severity,
    /// The channel that is told.
    pub channel: String,
    /// The same for every attempt at this message, for ever.
    pub dedup_key: String,
    /// Everything that the message tells, in order; never empty.
    pub changes: Vec<Change>,
}

/// One change that a message tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Rebound's own title of this change.
    pub title: String,
    /// `raised`, `repeated`, `resolved`, `escalated`, `demoted`, `acknowledged` or `unacknowledged`.
    pub transition: Transition,
    /// How loudly: `critical`, `warning` or `info`.
    pub severity: Severity,
    /// The service's id.
    pub service: String,
    /// What it is called.
    pub name: String,
    /// Its tier's id; empty when the plan does not know the service.
    pub tier: String,
    /// Its site's id; empty when the plan does not know the service.
    pub site: String,
    /// The policy that fired.
    pub policy: String,
    /// The policy's condition that warns; empty for an outage.
    pub condition: String,
    /// What was seen, or why it was escalated or demoted.
    pub reason: String,
    /// When it began (t0), as in `2026-02-25 06:13:20 UTC`.
    pub since: String,
    /// When this change happened.
    pub at: String,
    /// How long it had lasted by then, as in `1h 5m`; of what is over, in all.
    pub lasted: String,
    /// What Rebound is doing about it.
    pub doing: String,
    /// What a person is to do; empty when there is nothing.
    pub ask: String,
    /// The incident.
    pub incident: String,
    /// The alert.
    pub alert: String,
    /// The key of this change alone, for receivers that take groups apart.
    pub dedup_key: String,
}

impl Variables {
    /// As the templates see them.
    #[must_use]
    pub fn values(&self) -> serde_json::Value {
        let first = self.changes.first().map(|first| json!(first));
        let mut values = first.unwrap_or_else(|| json!({}));
        for (name, value) in json!(self).as_object().into_iter().flatten() {
            values[name] = value.clone();
        }
        values["count"] = json!(self.changes.len());
        values
    }

    /// Made-up messages of every kind, to try a template on.
    #[must_use]
    pub fn samples() -> Vec<Self> {
        let change = |transition: Transition, condition: &str| Change {
            title: "database has failed at primary".to_owned(),
            transition,
            severity: if condition.is_empty() { Severity::Critical } else { Severity::Warning },
            service: "database".to_owned(),
            name: "Database cluster".to_owned(),
            tier: "tier-1".to_owned(),
            site: "primary".to_owned(),
            policy: "default".to_owned(),
            condition: condition.to_owned(),
            reason: "connection refused".to_owned(),
            since: "2026-02-25 06:13:20 UTC".to_owned(),
            at: "2026-02-25 06:13:50 UTC".to_owned(),
            lasted: "30s".to_owned(),
            doing: "Rebound runs restore (rec-1, attempt 1).".to_owned(),
            ask: if transition == Transition::Resolved { String::new() } else { "Nothing yet.".to_owned() },
            incident: "inc-1".to_owned(),
            alert: "alr-1".to_owned(),
            dedup_key: "ntf-1".to_owned(),
        };
        let message = |changes: Vec<Change>| Self {
            title: "database has failed at primary".to_owned(),
            body: "What: connection refused".to_owned(),
            severity: changes[0].severity,
            channel: "ops".to_owned(),
            dedup_key: "ntf-1".to_owned(),
            changes,
        };
        let mut samples: Vec<Self> =
            Transition::ALL.iter().map(|transition| message(vec![change(*transition, "")])).collect();
        samples.push(message(vec![change(Transition::Raised, "backup")]));
        samples.push(message(vec![
            change(Transition::Raised, ""),
            change(Transition::Resolved, ""),
            change(Transition::Raised, "backup"),
        ]));
        samples
    }
}

#[cfg(test)]
#[path = "tests_template.rs"]
mod tests_template;
