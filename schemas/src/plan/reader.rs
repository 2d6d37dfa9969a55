//! What reading a plan collects: every fault instead of the first one, the place of every key, the ids there are.
//!
//! Places are remembered under key paths (`service.api.rto`), where a later check of relations finds them again.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::error::{PlanError, PlanErrors};

/// Faults that are told at most: a person mends these before reading more.
const MOST_FAULTS: usize = 500;

/// The document's places and faults.
pub(super) struct Reader<'a> {
    file: &'a str,
    /// Byte offset of each line's first character.
    lines: Vec<usize>,
    faults: RefCell<Vec<PlanError>>,
    places: RefCell<HashMap<String, usize>>,
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

    /// Notes a fault of another file that a key names.
    pub(super) fn fault_in(&self, file: &str, line: usize, key: &str, message: impl Into<String>, remedy: &str) {
        self.push_in(file, line, key, message.into(), remedy.to_owned());
    }

    fn push(&self, line: usize, key: &str, message: String, remedy: String) {
        self.push_in(self.file, line, key, message, remedy);
    }

    fn push_in(&self, file: &str, line: usize, key: &str, message: String, remedy: String) {
        let error = PlanError { file: file.to_owned(), line, key: key.to_owned(), message, remedy };
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
    pub(super) fn place(&self, key: &str, at: usize) {
        let mut places = self.places.borrow_mut();
        // Sections are gone through several times.
        if !places.contains_key(key) {
            places.insert(key.to_owned(), at);
        }
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
    known: HashSet<String>,
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
pub fn nearest<'n>(word: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to write instead of a name that isn't there: `did you mean "x"?`, else the choices there are.
#[must_use]
pub fn suggest<'n>(word: &str, candidates: impl IntoIterator<Item = &'n str> + Clone) -> String {
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

/// A share of a whole in percent, as in `99.95 %`, without what a binary fraction adds.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", (share * 1e8).round() / 1e6)
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
