//! Procedures as the plan writes them: steps from top to bottom, each with the one key that says what it does.
//!
//! A step needs the one written before it unless it says `needs = […]`; `needs = []` needs nothing.

use std::time::Duration;

use super::model::{Action, OnFailure, Procedure, Step};
use super::order;
use super::read::Reading;
use super::read_probe::{check_url, headers, method, one_of};
use super::reader::{Names, article, suggest};
use super::section::Section;
use crate::ids::StepId;

/// What `{…}` in a step's texts may name.
pub(super) const PLACEHOLDERS: [&str; 5] = ["service", "site", "incident", "recovery", "attempt"];

const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// The keys of which a step has exactly one.
const ACTIONS: [&str; 4] = ["command", "http", "wait_for_probe", "manual"];

impl<'a> Reading<'a> {
    /// A procedure with its steps, in an order that respects what they need.
    pub(super) fn procedure(&self, section: &Section<'a>) -> Option<Procedure> {
        let id: Option<crate::ids::ProcedureId> = section.id("procedure");
        let name = section.words("name");
        let concurrency = section.count("concurrency", 1, 1000).unwrap_or(1);
        let names = section.names("step", "step");
        let written = section.sections("step");
        if written.is_empty() {
            let remedy = "write [[procedure.step]] under it, once for each step";
            section.reader.fault_at(section.at, &section.path, "has no step", remedy);
        }
        section.finish("a procedure");
        let mut previous = None;
        let mut steps = Vec::new();
        for section in &written {
            let step = self.step(section, &names, previous.as_ref());
            previous = step.as_ref().map(|step| step.id.clone());
            steps.extend(step);
        }
        let steps = in_order(section, steps);
        let id = id?;
        Some(Procedure { name: name.unwrap_or_else(|| id.to_string()), id, steps, concurrency })
    }

    fn step(&self, section: &Section<'a>, names: &Names, previous: Option<&StepId>) -> Option<Step> {
        let id: Option<StepId> = section.id("step");
        let name = section.words("name");
        let needs = section.references("needs", names);
        let needs = needs.unwrap_or_else(|| previous.into_iter().cloned().collect());
        let timeout = section.duration("timeout").unwrap_or(STEP_TIMEOUT);
        let retries = section.count("retries", 0, 100).unwrap_or(0);
        let on_failure = [("stop", OnFailure::Stop), ("continue", OnFailure::Continue)];
        let on_failure = section.word("on_failure", &on_failure).unwrap_or(OnFailure::Stop);
        let kind = one_of(section, &ACTIONS, "to do");
        let action = match kind? {
            "command" => self.run(section),
            "http" => request(section),
            "wait_for_probe" => self.wait(section),
            _ => section.words("manual").map(|instruction| {
                placeholders(section, "manual", &instruction);
                Action::Manual { instruction }
            }),
        };
        section.finish(&format!("{} step", article(kind?)));
        let id = id?;
        Some(Step {
            name: name.unwrap_or_else(|| id.to_string()),
            id,
            needs,
            action: action?,
            timeout,
            retries,
            on_failure,
        })
    }

    fn run(&self, section: &Section<'a>) -> Option<Action> {
        let argv = self.argv(section, "command");
        let env = section.text_map("env").unwrap_or_default();
        for argument in argv.iter().flatten().skip(1) {
            placeholders(section, "command", argument);
        }
        for (name, value) in &env {
            if name.is_empty() || name.contains(['=', '\0']) {
                let remedy = "write a name without \"=\", as in PGHOST";
                section.fault(&format!("env.{name}"), "is not a variable's name", remedy);
            }
            placeholders(section, &format!("env.{name}"), value);
        }
        Some(Action::Command { argv: argv?, env })
    }

    fn wait(&self, section: &Section<'a>) -> Option<Action> {
        if !section.is_flag("wait_for_probe") {
            let probe = section.reference("wait_for_probe", &self.probes)?;
            return Some(Action::WaitForProbe { probe: Some(probe) });
        }
        if section.flag("wait_for_probe") == Some(false) {
            let remedy = "write true for the service's own probes, or the id of a probe";
            section.fault("wait_for_probe", "false does not say what to do", remedy);
        }
        Some(Action::WaitForProbe { probe: None })
    }
}

fn request(section: &Section<'_>) -> Option<Action> {
    let url = section.text("http");
    if let Some(url) = &url {
        placeholders(section, "http", url);
        let mut filled = url.clone();
        for name in PLACEHOLDERS {
            filled = filled.replace(&format!("{{{name}}}"), "x");
        }
        check_url(section, "http", &filled);
    }
    let method = method(section, "POST");
    let headers = headers(section);
    for (name, value) in &headers {
        placeholders(section, &format!("headers.{name}"), value);
    }
    let body = section.text("body");
    if let Some(body) = &body {
        placeholders(section, "body", body);
    }
    let allow_private = section.flag("allow_private").unwrap_or(false);
    Some(Action::Http { method, url: url?, headers, body, allow_private })
}

/// Every `{word}` must be a known placeholder; other braces, as JSON has them, are left alone.
fn placeholders(section: &Section<'_>, key: &str, text: &str) {
    for rest in text.split('{').skip(1) {
        let Some((word, _)) = rest.split_once('}') else { continue };
        let looks_like_one = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if looks_like_one && !PLACEHOLDERS.contains(&word) {
            let remedy = suggest(word, PLACEHOLDERS.iter().copied());
            section.fault(key, format!("\"{{{word}}}\" is not a placeholder"), remedy);
        }
    }
}

/// The steps so that each comes after what it needs, as near as can be to the order written.
fn in_order(section: &Section<'_>, steps: Vec<Step>) -> Vec<Step> {
    let index = |id: &StepId| steps.iter().position(|step| step.id == *id);
    let needs: Vec<Vec<usize>> = steps.iter().map(|step| step.needs.iter().filter_map(index).collect()).collect();
    let sorted = order::sort(&needs);
    for cycle in &sorted.cycles {
        let names: Vec<&str> = cycle.iter().map(|n| steps[*n].id.as_str()).collect();
        let key = format!("{}.step.{}.needs", section.path, names[0]);
        section.reader.fault(&key, format!("a cycle: {}", order::arrows(&names)), "drop one of these needs");
    }
    let mut left: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    sorted.order.into_iter().filter_map(|n| left[n].take()).collect()
}
