//! Message templates as the plan writes them: in place, or in a file beside the plan. Each is parsed, and tried on
//! made-up messages of every kind, so that a slip of the pen is found now and not at night.

use super::read::Reading;
use super::reader::suggest;
use super::section::Section;
use super::template::{Escape, NO_NAME, Template, TemplateError, Templates, Variables};

/// What a message has for itself, beside what it has of its first change.
const OWN: [&str; 6] = ["title", "body", "severity", "channel", "count", "changes"];
/// What one of `changes` has.
const CHANGE: [&str; 18] = [
    "title",
    "severity",
    "service",
    "name",
    "tier",
    "site",
    "policy",
    "condition",
    "reason",
    "since",
    "at",
    "lasted",
    "doing",
    "ask",
    "transition",
    "incident",
    "alert",
    "dedup_key",
];

/// What a template can ask for, each once.
fn names() -> impl Iterator<Item = &'static str> + Clone {
    OWN.into_iter().chain(CHANGE.into_iter().filter(|name| !OWN.contains(name)))
}

impl<'a> Reading<'a> {
    /// The `template` table of a channel of this kind, or of a route.
    pub(super) fn templates(&self, owner: &Section<'a>, kind: Option<&str>) -> Templates {
        if !owner.has("template") {
            return Templates::default();
        }
        let Some(section) = owner.section("template") else { return Templates::default() };
        let only = |key: &str, of: &str| {
            if section.has(key) && kind != Some(of) {
                let remedy = format!("leave it out: only the template of a channel of kind {of:?} has it");
                section.fault_here(key, "has no meaning here", remedy);
                return false;
            }
            section.has(key)
        };
        let html = only("html", "email").then(|| self.template(&section, "html", Escape::Html)).flatten();
        let json = only("json", "webhook").then(|| self.template(&section, "json", Escape::Json)).flatten();
        let mut templates = Templates {
            title: self.template(&section, "title", Escape::Plain),
            body: self.template(&section, "body", Escape::Plain),
            html,
            json,
            ..Templates::default()
        };
        if section.has("fields")
            && let Some(fields) = section.section("fields")
        {
            for name in fields.keys() {
                if let Some(template) = self.template(&fields, &name, Escape::Plain) {
                    templates.fields.insert(name, template);
                }
            }
        }
        section.finish("a template");
        templates
    }

    /// `key = "…"`, or `key = { file = "./…" }`.
    fn template(&self, section: &Section<'a>, key: &str, escape: Escape) -> Option<Template> {
        if !section.has(key) {
            // Asked for, so that it is listed among the known keys.
            return section.text(key).and(None);
        }
        let (text, file) = if section.is_table(key) {
            let table = section.section(key)?;
            table.required("file", "file = \"./message.txt\", beside the plan");
            let path = self.file(&table, "file");
            table.finish("a template");
            let path = path?;
            match (self.files)(&path) {
                Ok(text) => (text, Some(path)),
                Err(error) => {
                    let message = format!("{path} can't be read: {error}");
                    table.fault("file", message, "name a readable file, from \"./\" for the plan's folder");
                    return None;
                }
            }
        } else {
            (section.text(key)?, None)
        };
        let fault = |error: TemplateError| {
            let mut remedy = "see \"Templates\" in the README".to_owned();
            let mut reason = error.reason.clone();
            if error.reason == NO_NAME {
                let asked = Template::parse(&text).map(|template| template.names()).unwrap_or_default();
                let unknown = asked.into_iter().find(|asked| !names().any(|name| name == asked));
                remedy = match &unknown {
                    Some(name) => suggest(name, names()),
                    None => format!("a change has {}", CHANGE.join(", ")),
                };
                reason = unknown.map_or(reason, |name| format!("{name:?} is no variable of a message"));
            }
            match &file {
                Some(file) => section.reader.fault_in(file, error.line, &section.key(key), reason, &remedy),
                None if error.line > 1 => section.fault(key, format!("line {}: {reason}", error.line), remedy),
                None => section.fault(key, reason, remedy),
            }
        };
        let template = Template::parse(&text).map_err(&fault).ok()?;
        for sample in Variables::samples() {
            let found = template.render(escape, &sample.values()).and_then(|text| match escape {
                Escape::Json => serde_json::from_str::<serde_json::Value>(&text).map(drop).map_err(|error| {
                    let reason = format!("what it writes is not JSON: {error} (a text comes with its quotes)");
                    TemplateError { line: error.line().max(1), reason }
                }),
                _ => Ok(()),
            });
            if let Err(error) = found {
                fault(error);
                return None;
            }
        }
        Some(template)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_names_are_those_there_are() {
        let values = Variables::samples()[0].values();
        let sorted = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(sorted(&names().collect::<Vec<_>>()), keys(&values));
        assert_eq!(sorted(&CHANGE), keys(&values["changes"][0]));
    }
}
