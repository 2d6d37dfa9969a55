//! What `{…}` in a step's texts and names in its condition may be: the recovery's inputs and earlier steps.
//!
//! | written | is |
//! |---|---|
//! | `{service}` `{site}` `{incident}` `{recovery}` `{attempt}` `{error_class}` `{first_failure_at}` | plain ids, numbers and times: anywhere |
//! | `{each}` | the service that a repeated step is for: anywhere in that step |
//! | `{input.target}` | what a person handed to the procedure, or its own default: only where it is one argument |
//! | `{reason}`, `{steps.find.output}` | texts from outside: only where they are one argument, never within an address or a body |
//! | `{steps.find.outcome}`, `{steps.find.code}` | how an earlier step ended: anywhere |

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Action, Step};
use super::reader::{Names, suggest};
use super::section::Section;
use super::when::{When, name_in_conditions};

/// Inputs of every recovery.
const INPUTS: [&str; 8] =
    ["service", "site", "incident", "recovery", "attempt", "reason", "error_class", "first_failure_at"];
/// What is known of an earlier step.
const FIELDS: [&str; 3] = ["outcome", "output", "code"];
/// Longest value of a procedure's input, in bytes.
pub const MOST_INPUT_BYTES: usize = 1_000;

/// Why a text is no value of a procedure's input, as what to write instead.
///
/// # Errors
/// It could be taken for an option of a program, or holds what no argument should.
pub fn check_input(value: &str) -> Result<(), String> {
    match value {
        long if long.len() > MOST_INPUT_BYTES => Err(format!("write at most {MOST_INPUT_BYTES} bytes")),
        option if option.starts_with('-') => {
            Err("write it without the leading \"-\": a program could take it for an option".to_owned())
        }
        text if text.contains(char::is_control) => Err("write it without line ends and control characters".to_owned()),
        _ => Ok(()),
    }
}

/// The inputs that a procedure declares: name and default.
pub(super) fn declared(section: &Section<'_>) -> BTreeMap<String, String> {
    let inputs = section.text_map("inputs").unwrap_or_default();
    for (name, value) in &inputs {
        let key = format!("inputs.{name}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            section.fault(&key, "is not an input's name", "write lower-case letters, digits and \"_\"");
        }
        if let Err(remedy) = check_input(value) {
            section.fault(&key, format!("{value:?} is not a value for an input"), remedy);
        }
    }
    inputs
}

/// What a text may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safe {
    /// Anything: it is an argument of its own.
    Texts,
    /// Ids and numbers only: it is put together with other text that somebody parses.
    Ids,
}

/// What can be named besides the inputs.
#[derive(Debug, Default)]
pub(super) struct Known<'n> {
    /// Steps of the procedure.
    pub(super) steps: Option<&'n Names>,
    /// Whether the step is repeated.
    pub(super) each: bool,
    /// Inputs of the procedure.
    pub(super) inputs: Option<&'n BTreeMap<String, String>>,
}

/// Every `{word}` must be known; other braces, as JSON has them, are left alone.
pub(super) fn check(section: &Section<'_>, key: &str, text: &str, known: &Known<'_>, safe: Safe) {
    for word in words(text) {
        if let Some(rest) = word.strip_prefix("steps.") {
            check_step(section, key, word, rest, known.steps, safe);
        } else if let Some(input) = word.strip_prefix("input.") {
            check_declared(section, key, input, known.inputs);
            if safe == Safe::Ids {
                not_safe(section, key, word);
            }
        } else if word == "each" {
            if !known.each {
                let remedy = "write each = \"all\", \"dependencies\" or \"dependants\" at the step";
                section.fault(key, "{each} is only known in a repeated step", remedy);
            }
        } else if !INPUTS.contains(&word) {
            let remedy = suggest(word, INPUTS.iter().copied());
            section.fault(key, format!("\"{{{word}}}\" is not a placeholder"), remedy);
        } else if word == "reason" && safe == Safe::Ids {
            not_safe(section, key, word);
        }
    }
}

fn check_declared(section: &Section<'_>, key: &str, input: &str, inputs: Option<&BTreeMap<String, String>>) {
    let Some(inputs) = inputs else {
        let message = format!("{{input.{input}}}: a procedure's inputs are not known here");
        return section.fault(key, message, "write what every recovery has, as in {service}");
    };
    if !inputs.contains_key(input) {
        let remedy = match inputs.is_empty() {
            true => {
                format!("write inputs = {{ {input} = \"…\" }} at the procedure, with the value that it has by default")
            }
            false => suggest(input, inputs.keys().map(String::as_str)),
        };
        section.fault(key, format!("{{input.{input}}}: {input:?} is not an input of the procedure"), remedy);
    }
}

fn check_step(section: &Section<'_>, key: &str, word: &str, rest: &str, steps: Option<&Names>, safe: Safe) {
    let Some((step, field)) = rest.rsplit_once('.') else {
        let remedy = format!("write {{{word}.output}}");
        return section.fault(key, format!("{{{word}}} does not say what of the step"), remedy);
    };
    let Some(steps) = steps else {
        return section.fault(key, format!("{{{word}}}: steps are not known here"), "write an input, as in {service}");
    };
    if !steps.has(step) {
        section.fault(key, format!("{{{word}}}: {step:?} is not a step"), suggest(step, steps.iter()));
    } else if !FIELDS.contains(&field) {
        let remedy = suggest(field, FIELDS.iter().copied());
        section.fault(key, format!("{{{word}}}: {field:?} is not known of a step"), remedy);
    } else if field == "output" && safe == Safe::Ids {
        not_safe(section, key, word);
    }
}

fn not_safe(section: &Section<'_>, key: &str, word: &str) {
    let message = format!("{{{word}}} is a text from outside, which could change what this means");
    section.fault(key, message, "hand it to a command as an argument of its own, or to ask = \"…\" in args");
}

/// Every name of a condition must be known.
pub(super) fn check_condition(section: &Section<'_>, when: &When, names: &Names, inputs: &BTreeMap<String, String>) {
    let steps: BTreeMap<String, &str> = names.iter().map(|id| (name_in_conditions(id), id)).collect();
    for name in when.names() {
        let mut parts = name.split('.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("steps"), Some(step), field) => {
                if !steps.contains_key(step) {
                    let remedy = suggest(step, steps.keys().map(String::as_str));
                    section.fault("when", format!("{step:?} is not a step"), remedy);
                } else if !field.is_some_and(|field| FIELDS.contains(&field)) {
                    let found = field.unwrap_or_default();
                    let message = format!("{found:?} is not known of a step");
                    section.fault("when", message, suggest(found, FIELDS.iter().copied()));
                }
            }
            (Some("steps"), None, _) => {
                section.fault("when", "does not say which step", "write steps.name.outcome");
            }
            (Some("input"), Some(input), _) => {
                check_declared(section, "when", input, Some(inputs));
            }
            (Some(input), ..) if !INPUTS.contains(&input) => {
                let remedy = suggest(input, INPUTS.iter().copied());
                section.fault("when", format!("{input:?} is not known in a condition"), remedy);
            }
            _ => {}
        }
    }
}

/// What a step names must have ended before it begins. `steps` are in order, so what comes before is judged already.
pub(super) fn check_order(section: &Section<'_>, steps: &[Step]) {
    let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for step in steps {
        let mut all: BTreeSet<&str> = BTreeSet::new();
        for earlier in step.needs.iter().chain(&step.after) {
            all.insert(earlier.as_str());
            all.extend(before.get(earlier.as_str()).into_iter().flatten());
        }
        for named in named(step) {
            let known = steps.iter().find(|other| name_in_conditions(other.id.as_str()) == named);
            if let Some(other) = known.filter(|other| !all.contains(other.id.as_str())) {
                let key = format!("step.{}", step.id);
                let message = format!("names step {}, which may not have ended by then", other.id);
                let remedy = format!("write after = [\"{}\"], or add it to needs", other.id);
                section.fault(&key, message, remedy);
            }
        }
        before.insert(step.id.as_str(), all);
    }
}

/// Steps that a step's texts and condition name, as conditions write them.
fn named(step: &Step) -> BTreeSet<String> {
    let mut texts: Vec<&str> = Vec::new();
    match &step.action {
        Action::Command { argv, env } => texts.extend(argv.iter().chain(env.values()).map(String::as_str)),
        Action::Http { url, headers, body, .. } => {
            texts.extend(std::iter::once(url).chain(headers.values()).chain(body).map(String::as_str));
        }
        Action::Manual { instruction: text } | Action::Approve { question: text } => texts.push(text),
        Action::Ask { args, .. } => texts.extend(args.values().map(String::as_str)),
        Action::WaitForProbe { .. } | Action::Procedure { .. } => {}
    }
    let in_texts = texts.into_iter().flat_map(words).filter_map(|word| {
        let (step, _) = word.strip_prefix("steps.")?.rsplit_once('.')?;
        Some(name_in_conditions(step))
    });
    let in_condition = step.when.iter().flat_map(When::names).filter_map(|name| {
        let step = name.strip_prefix("steps.")?.split('.').next()?;
        Some(step.to_owned())
    });
    in_texts.chain(in_condition).collect()
}

/// A text with every placeholder replaced by `x`, to see what shape it has.
pub(super) fn without(text: &str) -> String {
    let mut plain = text.to_owned();
    for word in words(text) {
        plain = plain.replace(&format!("{{{word}}}"), "x");
    }
    plain
}

/// What stands between braces and looks like a placeholder.
fn words(text: &str) -> Vec<&str> {
    let inside = text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let looks_like_one = |word: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let path = |c: char| plain(c) || matches!(c, '.' | '-' | ':' | '/');
        let dotted = word.starts_with("steps.") || word.starts_with("input.");
        !word.is_empty() && (word.chars().all(plain) || dotted && word.chars().all(path))
    };
    inside.filter(looks_like_one).collect()
}
