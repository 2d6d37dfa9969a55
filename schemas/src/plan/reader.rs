//! A cursor over a TOML document that collects faults instead of stopping at the first one.
//!
//! [`Section`] is a table whose keys are asked for one by one; [`Section::finish`] then reports the keys that
//! nobody asked for, so that the list of known keys is never written a second time. Every value's place is
//! remembered under its key path, where a later check of relations finds it again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{PlanError, PlanErrors};
use crate::ids::IdError;

/// Longest duration that a plan may name: what is longer is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Faults that are told at most: a person mends these before reading more.
const MOST_FAULTS: usize = 500;
/// Shortest one: below it timers are noise.
const SHORTEST: Duration = Duration::from_millis(1);

/// The document's places and faults.
pub(super) struct Reader<'a> {
    file: &'a str,
    /// Byte offset of each line's first character.
    lines: Vec<usize>,
    faults: RefCell<Vec<PlanError>>,
    places: RefCell<BTreeMap<String, usize>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &str, file: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self {
            file,
            lines: std::iter::once(0).chain(ends).collect(),
            faults: RefCell::default(),
            places: RefCell::default(),
        }
    }

    /// The line (from 1) of a byte offset.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// The line of a key that was read; of the section that holds it otherwise.
    pub(super) fn line_of(&self, key: &str) -> usize {
        let places = self.places.borrow();
        let mut path = key;
        loop {
            if let Some(at) = places.get(path) {
                return self.line(*at);
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None => return 1,
            }
        }
    }

    /// Notes a fault of the value at `at`.
    pub(super) fn fault_at(&self, at: usize, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(self.line(at), key, message.into(), remedy.into());
    }

    /// Notes a fault of a key that was read before.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(self.line_of(key), key, message.into(), remedy.into());
    }

    fn push(&self, line: usize, key: &str, message: String, remedy: String) {
        let error = PlanError { file: self.file.to_owned(), line, key: key.to_owned(), message, remedy };
        let mut faults = self.faults.borrow_mut();
        if faults.len() < MOST_FAULTS && !faults.contains(&error) {
            faults.push(error);
        }
    }

    /// Whether none of these keys has a fault yet: a relation between values is judged only when they are sound,
    /// so that one mistake is told once.
    pub(super) fn sound(&self, keys: &[&str]) -> bool {
        !self.faults.borrow().iter().any(|fault| keys.contains(&fault.key.as_str()))
    }

    /// Remembers where a key stands; the first place wins, a duplicate has its own fault.
    fn place(&self, key: &str, at: usize) {
        self.places.borrow_mut().entry(key.to_owned()).or_insert(at);
    }

    /// The faults by line, if there are any.
    pub(super) fn finish(self) -> Result<(), PlanErrors> {
        let errors = self.into_errors();
        if errors.0.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The faults by line.
    pub(super) fn into_errors(self) -> PlanErrors {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| fault.line);
        PlanErrors(faults)
    }
}

/// The ids that a kind of thing has in this plan, to check references against.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// `service`, `tier`…
    pub(super) what: &'static str,
    /// In the order written.
    ids: Vec<String>,
    known: BTreeSet<String>,
}

impl Names {
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, ..Self::default() }
    }

    /// Adds an id; `false` when it is there already.
    pub(super) fn add(&mut self, id: &str) -> bool {
        let new = self.known.insert(id.to_owned());
        if new {
            self.ids.push(id.to_owned());
        }
        new
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.known.contains(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.ids.iter().map(String::as_str)
    }
}

/// The candidate that was probably meant, if one is near enough.
pub(super) fn nearest<'n>(word: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "x"?`, else the choices there are.
pub(super) fn suggest<'n>(word: &str, candidates: impl IntoIterator<Item = &'n str> + Clone) -> String {
    if let Some(near) = nearest(word, candidates.clone()) {
        return format!("did you mean {near:?}?");
    }
    let mut all: Vec<&str> = candidates.into_iter().collect();
    if all.is_empty() {
        return "the plan has none".to_owned();
    }
    let more = all.len().saturating_sub(12);
    all.truncate(12);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match all.as_slice() {
        [only] => format!("there is only {only}"),
        _ => format!("there are {}{more}", all.join(", ")),
    }
}

/// A duration as the plan writes it: `1h 30m`. Never in months, which the plan's author doesn't count in.
pub(super) fn words(duration: Duration) -> String {
    const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut left = duration.as_millis();
    let mut parts = Vec::new();
    for (unit, length) in UNITS {
        if left >= length {
            parts.push(format!("{}{unit}", left / length));
            left %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

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

    /// A number within bounds (`least` itself included when `inclusive`).
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
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
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

/// A noun with its article; TOML's words for types become the plan's.
pub(super) fn article(noun: &str) -> String {
    let noun = match noun {
        "string" => "text",
        "array" => "list",
        "integer" => "whole number",
        "float" => "number with a fraction",
        other => other,
    };
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) || noun.starts_with("http") { "an" } else { "a" };
    format!("{article} {noun}")
}
