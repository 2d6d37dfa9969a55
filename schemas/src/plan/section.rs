//! A cursor over one TOML table, whose keys are asked for one by one.
//!
//! [`Section::finish`] reports the keys that nobody asked for, so that the list of known keys is never written a
//! second time. A wrong value is a fault and then as good as absent: reading goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;
use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Names, Reader, article, nearest, suggest};
use crate::ids::IdError;

/// Longest duration that a plan may name: what is longer is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Shortest one: below it timers are noise.
const SHORTEST: Duration = Duration::from_millis(1);

/// A table of the document.
pub(super) struct Section<'a> {
    pub(super) reader: &'a Reader<'a>,
    /// Key path: `service.api`.
    pub(super) path: String,
    /// Byte offset of its header.
    pub(super) at: usize,
    table: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, path: String, at: usize, table: &'a DeTable<'a>) -> Self {
        reader.place(&path, at);
        Self { reader, path, at, table, asked: RefCell::default() }
    }

    /// The path of one of its keys.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a fault of one of its keys.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.reader.fault(&self.key(key), message, remedy);
    }

    /// Notes a fault of a key that stands there and was not asked for.
    pub(super) fn fault_here(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.get(key);
        self.fault(key, message, remedy);
    }

    /// Whether the key is written, without asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key.to_owned());
        let (name, value) = self.table.get_key_value(key)?;
        self.reader.place(&self.key(key), name.span().start);
        Some(value)
    }

    /// Reports the keys that nobody asked for. `what` is the section's kind, with its article.
    pub(super) fn finish(&self, what: &str) {
        let asked = self.asked.borrow();
        for (name, _) in self.table.iter() {
            let name_text: &str = name.get_ref();
            if !asked.contains(name_text) {
                let known: Vec<&str> = asked.iter().map(String::as_str).collect();
                let remedy = match nearest(name_text, known.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("it has {}", known.join(", ")),
                };
                let message = format!("{name_text:?} is not a key of {what}");
                self.reader.fault_at(name.span().start, &self.key(name_text), message, remedy);
            }
        }
    }

    /// The key must be written: its absence is a fault.
    pub(super) fn required(&self, key: &str, what: &str) {
        if !self.has(key) {
            self.reader.fault_at(self.at, &self.key(key), "is missing", format!("write {what}"));
        }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'a>>, expected: &str, example: &str) {
        let message = format!("expected {expected}, found {}", article(value.get_ref().type_str()));
        self.reader.fault_at(value.span().start, &self.key(key), message, format!("write {example}"));
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.wrong_type(key, value, "a text", &format!("{key} = \"…\""));
                None
            }
        }
    }

    /// A text that isn't blank.
    pub(super) fn words(&self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if text.trim().is_empty() {
            self.fault(key, "is blank", "write a text or leave the key out");
            return None;
        }
        Some(text)
    }

    /// The section's own id.
    pub(super) fn id<T: FromStr<Err = IdError>>(&self, what: &str) -> Option<T> {
        self.required("id", &format!("id = \"…\", the name of the {what}"));
        self.parsed("id", &self.text("id")?)
    }

    fn parsed<T: FromStr<Err = IdError>>(&self, key: &str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.fault(key, error.to_string(), "");
                None
            }
        }
    }

    /// A reference to something that must be in the plan.
    pub(super) fn reference<T: FromStr<Err = IdError>>(&self, key: &str, names: &Names) -> Option<T> {
        let text = self.text(key)?;
        if !names.has(&text) {
            self.dangling(key, self.place(key), &text, names);
            return None;
        }
        text.parse().ok()
    }

    /// References to things that must be in the plan, each at most once.
    pub(super) fn references<T: FromStr<Err = IdError>>(&self, key: &str, names: &Names) -> Option<Vec<T>> {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut ids = Vec::new();
        for (at, text) in self.texts(key)? {
            if seen.contains(&text) {
                self.reader.fault_at(at, &self.key(key), format!("{text:?} is there twice"), "write it once");
            } else if names.has(&text) {
                ids.extend(text.parse().ok());
            } else {
                self.dangling(key, at, &text, names);
            }
            seen.insert(text);
        }
        Some(ids)
    }

    fn dangling(&self, key: &str, at: usize, text: &str, names: &Names) {
        let remedy = suggest(text, names.iter());
        self.reader.fault_at(at, &self.key(key), format!("{text:?} is not a {}", names.what), remedy);
    }

    /// The keys that are written.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().map(|name| name.get_ref().to_string()).collect()
    }

    /// Byte offset of a key's value; of the section without it.
    pub(super) fn place(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.at, |value| value.span().start)
    }

    /// Texts with their places.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<(usize, String)>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of texts", &format!("{key} = [\"…\"]"));
            return None;
        };
        let mut texts = Vec::new();
        for item in array {
            match item.get_ref() {
                DeValue::String(text) => texts.push((item.span().start, text.to_string())),
                _ => self.wrong_type(key, item, "a text", &format!("{key} = [\"…\"]")),
            }
        }
        Some(texts)
    }

    /// A table of texts.
    pub(super) fn text_map(&self, key: &str) -> Option<BTreeMap<String, String>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table of texts", &format!("{key} = {{ name = \"…\" }}"));
            return None;
        };
        let mut map = BTreeMap::new();
        for (name, item) in table.iter() {
            match item.get_ref() {
                DeValue::String(text) => drop(map.insert(name.get_ref().to_string(), text.to_string())),
                _ => self.wrong_type(&format!("{key}.{}", name.get_ref()), item, "a text", "\"…\""),
            }
        }
        Some(map)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false", &format!("{key} = true"));
        }
        flag
    }

    /// A whole number within bounds.
    pub(super) fn count(&self, key: &str, least: u32, most: u32) -> Option<u32> {
        let value = self.get(key)?;
        let Some(number) = integer(value.get_ref()) else {
            self.wrong_type(key, value, "a whole number", &format!("{key} = {}", least.max(1)));
            return None;
        };
        match u32::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.fault(key, format!("{number} is out of range"), format!("write a number from {least} to {most}"));
                None
            }
        }
    }

    /// Whole numbers within bounds.
    pub(super) fn counts(&self, key: &str, least: u16, most: u16) -> Option<Vec<u16>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of whole numbers", &format!("{key} = [{least}]"));
            return None;
        };
        let mut counts = Vec::new();
        for item in array {
            match integer(item.get_ref()).and_then(|number| u16::try_from(number).ok()) {
                Some(number) if (least..=most).contains(&number) => counts.push(number),
                _ => {
                    let found = integer(item.get_ref())
                        .map_or_else(|| article(item.get_ref().type_str()), |number| number.to_string());
                    let remedy = format!("write whole numbers from {least} to {most}");
                    self.reader.fault_at(item.span().start, &self.key(key), format!("{found} is out of range"), remedy);
                }
            }
        }
        Some(counts)
    }

    /// A number within bounds.
    pub(super) fn number(&self, key: &str, range: Bounds) -> Option<f64> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().replace('_', "").parse::<f64>().ok(),
            other => integer(other).map(|number| number as f64),
        };
        let Some(number) = number else {
            self.wrong_type(key, value, "a number", &format!("{key} = {}", range.example));
            return None;
        };
        let above = if range.open { number > range.least } else { number >= range.least };
        if !(above && number <= range.most) {
            let from = if range.open { "above" } else { "from" };
            let remedy = format!("write a number {from} {} up to {}, as in {}", range.least, range.most, range.example);
            self.fault(key, format!("{number} is out of range"), remedy);
            return None;
        }
        Some(number)
    }

    /// A duration, which is never zero.
    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        let duration = self.duration_or_zero(key)?;
        if duration.is_zero() {
            self.fault(key, "must not be zero", format!("write {key} = \"10s\" or leave the key out"));
            return None;
        }
        Some(duration)
    }

    /// A duration for which zero means something.
    pub(super) fn duration_or_zero(&self, key: &str) -> Option<Duration> {
        let value = self.get(key)?;
        let example = format!("{key} = \"10s\" (units: ms, s, m, h, d)");
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(key, value, "a duration in quotes", &example);
            return None;
        };
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() && !(SHORTEST..=LONGEST).contains(&duration) => {
                self.fault(key, format!("{text:?} is out of range"), "write a duration from 1ms to ten years");
                None
            }
            Ok(duration) => Some(duration),
            Err(_) => {
                self.fault(key, format!("{text:?} is not a duration"), format!("write {example}"));
                None
            }
        }
    }

    /// One of a closed set of words.
    pub(super) fn word<T: Copy>(&self, key: &str, set: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = set.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<&str> = set.iter().map(|(word, _)| *word).collect();
            let remedy = match nearest(&text, all.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("write one of {}", all.join(", ")),
            };
            self.fault(key, format!("{text:?} is not known here"), remedy);
        }
        found
    }

    /// A regular expression's text, which compiles.
    pub(super) fn check_regex(&self, key: &str, at: usize, text: &str) {
        if let Err(error) = regex::Regex::new(text) {
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let message = format!("{text:?} is not a regular expression: {why}");
            self.reader.fault_at(
                at,
                &self.key(key),
                message,
                "a character meant literally needs a backslash before it",
            );
        }
    }

    /// Regular expressions, each of which compiles.
    pub(super) fn regexes(&self, key: &str) -> Option<Vec<String>> {
        let texts = self.texts(key)?;
        for (at, text) in &texts {
            self.check_regex(key, *at, text);
        }
        Some(texts.into_iter().map(|(_, text)| text).collect())
    }

    /// A nested table.
    pub(super) fn section(&self, key: &str) -> Option<Section<'a>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::new(self.reader, self.key(key), value.span().start, table)),
            _ => {
                self.wrong_type(key, value, "a table", &format!("{key} = {{ … }}"));
                None
            }
        }
    }

    /// Whether a key holds a table, without asking for it.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// Whether a key holds `true` or `false`, without asking for it.
    pub(super) fn is_flag(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_bool())
    }

    /// An array of tables; each one's path ends in its `id`, or in its number when it has none.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let path = self.key(key);
        let tables = value.get_ref().as_array().filter(|array| array.iter().all(|item| item.get_ref().is_table()));
        let Some(array) = tables else {
            let found = article(value.get_ref().type_str());
            let remedy = format!("write [[{key}]] in double brackets, once for each, or {key} = [{{ … }}]");
            self.reader.fault_at(value.span().start, &path, format!("expected tables, found {found}"), remedy);
            return Vec::new();
        };
        let tables = array.iter().filter_map(|item| Some((item.span().start, item.get_ref().as_table()?)));
        tables
            .enumerate()
            .map(|(n, (at, table))| {
                let path = match table.get("id").and_then(|id| id.get_ref().as_str()) {
                    Some(id) if !id.is_empty() => format!("{path}.{id}"),
                    _ => format!("{path}[{}]", n + 1),
                };
                Section::new(self.reader, path, at, table)
            })
            .collect()
    }

    /// The ids that an array of tables has, duplicates reported.
    pub(super) fn names(&self, key: &str, what: &'static str) -> Names {
        let mut names = Names::of(what);
        let mut lines: HashMap<String, usize> = HashMap::new();
        for section in self.sections(key) {
            let Some(id) = section.raw_text("id") else { continue };
            let line = self.reader.line(section.at);
            if let Some(first) = lines.get(&id) {
                let message = format!("the {what} at line {first} has this id already");
                self.reader.fault_at(section.at, &section.path, message, "give each its own id");
            } else {
                lines.insert(id.clone(), line);
                names.add(&id);
            }
        }
        names
    }

    /// A text as it stands, without asking for it or judging it.
    pub(super) fn raw_text(&self, key: &str) -> Option<String> {
        self.table.get(key)?.get_ref().as_str().map(str::to_owned)
    }
}

/// What a number may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) least: f64,
    /// `least` itself is not allowed.
    pub(super) open: bool,
    pub(super) most: f64,
    pub(super) example: f64,
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}
