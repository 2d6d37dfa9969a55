//! What a channel says: Rebound's words, or those of the route's and the channel's templates.
//!
//! A template that fails while somebody is to be told is no reason to tell nobody: Rebound's own words go out
//! instead, and its log says why.

use std::collections::BTreeMap;

use rebound_schemas::plan::{Channel, ChannelKind, Escape, Plan, Template, Templates};
use serde_json::Value;

use crate::notify::Notice;
use crate::notify::wording::moment;
use crate::procedure::shorten;

/// Longest texts, in bytes; receivers with smaller ones cut them further.
const MAX_TITLE: usize = 1000;
const MAX_BODY: usize = 15_000;
const MAX_FIELD: usize = 2000;

/// A message in the words of its channel, escaped for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Words {
    /// One line.
    pub(crate) title: String,
    /// Lines.
    pub(crate) body: String,
    /// Rebound's short values beside it, with those of templates.
    pub(crate) fields: Vec<(String, String)>,
    /// The names among `fields` that templates gave.
    pub(crate) own: BTreeMap<String, String>,
    /// The message as HTML, where a template says how.
    pub(crate) html: Option<String>,
    /// The whole body of a webhook's request, where a template says how.
    pub(crate) json: Option<Value>,
}

/// The templates of one channel, with those of every route.
#[derive(Debug, Clone)]
pub(crate) struct Speech {
    escape: Escape,
    own: Templates,
    by_route: BTreeMap<String, Templates>,
}

impl Speech {
    /// What `channel` says under the routes of `plan`.
    pub(crate) fn new(plan: &Plan, channel: &Channel) -> Self {
        let routes = plan.routes_to(&channel.id).into_iter();
        let by_route = routes.map(|route| (route.path.clone(), route.templates.or(&channel.templates))).collect();
        Self { by_route, ..Self::of(channel) }
    }

    /// What a channel says without a route.
    pub(crate) fn of(channel: &Channel) -> Self {
        let escape = match channel.kind {
            ChannelKind::Slack { .. } => Escape::Slack,
            ChannelKind::Teams { .. } => Escape::Card,
            _ => Escape::Plain,
        };
        Self { escape, own: channel.templates.clone(), by_route: BTreeMap::new() }
    }

    /// The notice in words.
    pub(crate) fn words(&self, notice: &Notice) -> Words {
        let templates = notice.route.as_ref().and_then(|route| self.by_route.get(route)).unwrap_or(&self.own);
        let values = match templates == &Templates::default() {
            true => Value::Null,
            false => notice.variables().values(),
        };
        let render = |what: &str, template: &Option<Template>, escape: Escape| {
            let rendered = template.as_ref()?.render(escape, &values);
            rendered.map_err(|error| lament(notice, what, &error.to_string())).ok()
        };
        let text = |text: &str, limit: usize| self.escape.text(&shorten(text, limit));
        let title = render("title", &templates.title, self.escape);
        let body = render("body", &templates.body, self.escape);
        let mut fields: Vec<(String, String)> =
            facts(notice).into_iter().map(|(name, value)| (name.to_owned(), text(&value, MAX_FIELD))).collect();
        let mut own = BTreeMap::new();
        for (name, template) in &templates.fields {
            let Some(value) = render(name, &Some(template.clone()), self.escape) else { continue };
            let value = shorten(&value, MAX_FIELD);
            fields.retain(|(other, _)| other != name);
            // A field that is empty is left out: so one of Rebound's can be taken off.
            if !value.is_empty() {
                fields.push((name.clone(), value.clone()));
                own.insert(name.clone(), value);
            }
        }
        let json = render("json", &templates.json, Escape::Json);
        let json = json.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| lament(notice, "json", &error.to_string())).ok()
        });
        Words {
            title: shorten(&one_line(&title.unwrap_or_else(|| text(&notice.title(), MAX_TITLE))), MAX_TITLE),
            body: shorten(&body.unwrap_or_else(|| text(&notice.body(), MAX_BODY)), MAX_BODY),
            fields,
            own,
            html: render("html", &templates.html, Escape::Html),
            json,
        }
    }
}

fn lament(notice: &Notice, what: &str, error: &str) {
    let (channel, key) = (&notice.channel, &notice.dedup_key);
    tracing::warn!(%channel, dedup_key = key, template = what, error, "a template failed: Rebound's own words go out");
}

pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What stands beside a message, unless a template says otherwise.
fn facts(notice: &Notice) -> Vec<(&'static str, String)> {
    let severity = ("Severity", notice.severity().to_string());
    let [only] = notice.members.as_slice() else {
        return vec![severity, ("Changes", notice.members.len().to_string())];
    };
    let mut facts = vec![("Service", only.service.to_string()), severity];
    if !only.site.is_empty() {
        facts.push(("Site", only.site.clone()));
    }
    facts.push(("Since", moment(only.first_failure_at)));
    facts.push(("Incident", only.told.incident.to_string()));
    facts
}
