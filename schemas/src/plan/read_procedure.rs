//! Procedures as the plan writes them: steps from top to bottom, each with the one key that says what it does.
//!
//! A step needs the one written before it unless it says `needs = […]` or `after = […]`; `needs = []` needs nothing.
//! What `{…}` may name in its texts is judged in `inputs`, nesting of procedures in `relations`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::inputs::{self, Safe};
use super::model::{Action, Demotion, Each, EachOf, Failover, OnCancel, OnFailure, Procedure, Step};
use super::order;
use super::read::Reading;
use super::read_probe::{check_url, headers, method, one_of};
use super::reader::{Names, article};
use super::section::{Bounds, Section};
use super::when::When;
use crate::ids::{ProcedureId, StepId};

const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// People are slower than programs.
const APPROVAL_TIMEOUT: Duration = Duration::from_secs(3600);
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Attempts by which a procedure is judged, unless the plan says otherwise.
const DEMOTE_OVER: u32 = 10;
/// The keys of which a step has exactly one.
const ACTIONS: [&str; 7] = ["command", "http", "wait_for_probe", "manual", "approve", "procedure", "ask"];
/// Those of a step that undoes another.
const UNDOING: [&str; 3] = ["command", "http", "ask"];

/// A procedure's inputs: name and default.
type Inputs = BTreeMap<String, String>;

impl<'a> Reading<'a> {
    /// A procedure with its steps, in an order that respects what they need.
    pub(super) fn procedure(&self, section: &Section<'a>) -> Option<Procedure> {
        let id: Option<ProcedureId> = section.id("procedure");
        let name = section.words("name");
        let concurrency = section.count("concurrency", 1, 1000).unwrap_or(1);
        let parallel = section.count("parallel", 1, 64).unwrap_or(1);
        let demotion = demotion(section);
        let failover = section.section("failover").and_then(|section| self.moved(&section));
        let inputs = inputs::declared(section);
        let words = [("stop", OnCancel::Stop), ("rollback", OnCancel::RollBack)];
        let on_cancel = section.word("on_cancel", &words).unwrap_or_default();
        let names = section.names("step", "step");
        let written = section.sections("step");
        if written.is_empty() {
            let remedy = "write [[procedure.step]] under it, once for each step";
            section.reader.fault_at(section.at, &section.path, "has no step", remedy);
        }
        let undoing = section.sections("rollback");
        section.finish("a procedure");
        let mut previous = None;
        let mut steps = Vec::new();
        for section in &written {
            let step = self.step(section, &names, previous.as_ref(), &inputs);
            previous = step.as_ref().map(|step| step.id.clone());
            steps.extend(step);
        }
        let steps = in_order(section, steps);
        inputs::check_order(section, &steps);
        let rollback: Vec<Step> = undoing.iter().filter_map(|section| self.undo(section, &names, &inputs)).collect();
        for (n, undo) in rollback.iter().enumerate() {
            if rollback[..n].iter().any(|other| other.undoes == undo.undoes) {
                let message = format!("{:?} is undone by another step already", undo.undoes.as_ref()?.as_str());
                section.fault("rollback", message, "write one [[procedure.rollback]] for each step");
            }
        }
        for step in steps.iter().filter(|step| step.on_failure == OnFailure::RollBack && rollback.is_empty()) {
            let remedy = "write [[procedure.rollback]] with undoes = \"…\", or on_failure = \"stop\"";
            let key = format!("step.{}.on_failure", step.id);
            section.fault(&key, "there is nothing to roll back with", remedy);
        }
        if on_cancel == OnCancel::RollBack && rollback.is_empty() {
            let remedy = "write [[procedure.rollback]] with undoes = \"…\", or on_cancel = \"stop\"";
            section.fault("on_cancel", "there is nothing to roll back with", remedy);
        }
        let id = id?;
        let name = name.unwrap_or_else(|| id.to_string());
        Some(Procedure { name, id, steps, rollback, concurrency, parallel, failover, inputs, on_cancel, demotion })
    }

    fn moved(&self, section: &Section<'a>) -> Option<Failover> {
        let from = section.reference("from", &self.sites);
        section.required("to", "to = \"…\", the site that takes over");
        let to: Option<crate::ids::SiteId> = section.reference("to", &self.sites);
        let back = section.flag("back").unwrap_or(false);
        let healthy_sites_at_least = section.count("healthy_sites_at_least", 0, 1000).unwrap_or(1);
        if from.is_some() && from == to {
            section.fault("to", "is the site that is left", "write another site");
        }
        section.finish("a failover");
        Some(Failover { from, to: to?, back, healthy_sites_at_least })
    }

    fn step(&self, section: &Section<'a>, names: &Names, previous: Option<&StepId>, inputs: &Inputs) -> Option<Step> {
        let id: Option<StepId> = section.id("step");
        let name = section.words("name");
        let needs = section.references("needs", names);
        let after = section.references("after", names);
        let needs = match (needs, &after) {
            (Some(needs), _) => needs,
            (None, Some(_)) => Vec::new(),
            (None, None) => previous.into_iter().cloned().collect(),
        };
        let when = section.words("when").and_then(|text| match When::parse(&text) {
            Ok(when) => {
                inputs::check_condition(section, &when, names, inputs);
                Some(when)
            }
            Err(why) => {
                let remedy = "write a comparison, as in when = 'steps.find.outcome == \"succeeded\"'";
                section.fault("when", format!("is not a condition: {why}"), remedy);
                None
            }
        });
        let each = [("all", EachOf::All), ("dependencies", EachOf::Dependencies), ("dependants", EachOf::Dependants)];
        let services = section.word("each", &each);
        let backwards = section.flag("backwards").unwrap_or(false);
        if !section.has("each") && section.has("backwards") {
            section.fault("backwards", "says in which order, but not of what", "write each = \"all\" with it");
        }
        let each = services.map(|services| Each { services, backwards });
        let kind = one_of(section, &ACTIONS, "to do")?;
        let timeout = if kind == "approve" { APPROVAL_TIMEOUT } else { STEP_TIMEOUT };
        let on_failure = if kind == "approve" { OnFailure::Escalate } else { OnFailure::Stop };
        if kind == "procedure" {
            for key in ["timeout", "retries", "backoff", "backoff_max"] {
                if section.has(key) {
                    section.fault(key, "is of its steps, not of a procedure", "write it at the procedure's own steps");
                }
            }
        }
        let known = inputs::Known { steps: Some(names), each: each.is_some(), inputs: Some(inputs) };
        let step = self.execution(section, kind, &known, timeout, on_failure);
        section.finish(&format!("{} step", article(kind)));
        let id = id?;
        let name = name.unwrap_or_else(|| id.to_string());
        Some(Step { name, id, needs, after: after.unwrap_or_default(), when, each, ..step? })
    }

    /// A step of the rollback.
    fn undo(&self, section: &Section<'a>, names: &Names, inputs: &Inputs) -> Option<Step> {
        section.required("undoes", "undoes = \"…\", the step that it undoes");
        let undoes: Option<StepId> = section.reference("undoes", names);
        let name = section.words("name");
        let kind = one_of(section, &UNDOING, "to do")?;
        let known = inputs::Known { steps: Some(names), each: false, inputs: Some(inputs) };
        let step = self.execution(section, kind, &known, STEP_TIMEOUT, OnFailure::Stop);
        section.finish("a step that undoes another");
        let undoes = undoes?;
        if let Some(step) = &step
            && !matches!(step.on_failure, OnFailure::Stop | OnFailure::Continue)
        {
            let remedy = "write stop (the rollback ends here) or continue";
            section.fault("on_failure", "a rollback is not rolled back", remedy);
        }
        let id = StepId::new(&format!("undo-{undoes}")).ok()?;
        let name = name.unwrap_or_else(|| format!("undo {undoes}"));
        Some(Step { id, name, undoes: Some(undoes), ..step? })
    }

    /// What a step does, and how often, how long and with what consequence.
    fn execution(
        &self,
        section: &Section<'a>,
        kind: &str,
        all: &inputs::Known<'_>,
        timeout: Duration,
        on_failure: OnFailure,
    ) -> Option<Step> {
        let timeout = section.duration("timeout").unwrap_or(timeout);
        let retries = section.count("retries", 0, 100).unwrap_or(0);
        let backoff = section.duration("backoff").unwrap_or(BACKOFF);
        let backoff_max = section.duration("backoff_max").unwrap_or(BACKOFF_MAX.max(backoff));
        if backoff_max < backoff {
            section.fault("backoff_max", "is shorter than backoff", "write it as long as backoff or longer");
        }
        let words = [
            ("stop", OnFailure::Stop),
            ("continue", OnFailure::Continue),
            ("rollback", OnFailure::RollBack),
            ("escalate", OnFailure::Escalate),
        ];
        let on_failure = section.word("on_failure", &words).unwrap_or(on_failure);
        let text = |key: &str| section.words(key).inspect(|text| inputs::check(section, key, text, all, Safe::Texts));
        let action = match kind {
            "command" => self.run_with(section, all),
            "http" => request_with(section, all),
            "wait_for_probe" => self.wait(section),
            "approve" => text("approve").map(|question| Action::Approve { question }),
            "procedure" => {
                section.reference("procedure", &self.procedures).map(|procedure| Action::Procedure { procedure })
            }
            "ask" => {
                let worker = section.words("ask");
                let args = section.text_map("args").unwrap_or_default();
                for (name, value) in &args {
                    inputs::check(section, &format!("args.{name}"), value, all, Safe::Texts);
                }
                worker.map(|worker| Action::Ask { worker, args })
            }
            _ => text("manual").map(|instruction| Action::Manual { instruction }),
        };
        Some(Step {
            id: super::read::literal("step"),
            name: String::new(),
            needs: Vec::new(),
            after: Vec::new(),
            when: None,
            each: None,
            action: action?,
            timeout,
            retries,
            backoff,
            backoff_max,
            on_failure,
            undoes: None,
        })
    }

    /// A command whose texts may name the recovery's inputs.
    pub(super) fn run(&self, section: &Section<'a>) -> Option<Action> {
        self.run_with(section, &inputs::Known::default())
    }

    fn run_with(&self, section: &Section<'a>, known: &inputs::Known<'_>) -> Option<Action> {
        let argv = self.argv(section, "command");
        let env = section.text_map("env").unwrap_or_default();
        for argument in argv.iter().flatten().skip(1) {
            inputs::check(section, "command", argument, known, Safe::Texts);
        }
        for (name, value) in &env {
            if name.is_empty() || name.contains(['=', '\0']) {
                let remedy = "write a name without \"=\", as in PGHOST";
                section.fault(&format!("env.{name}"), "is not a variable's name", remedy);
            }
            inputs::check(section, &format!("env.{name}"), value, known, Safe::Texts);
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

/// A request whose texts may name the recovery's inputs.
pub(super) fn request(section: &Section<'_>) -> Option<Action> {
    request_with(section, &inputs::Known::default())
}

fn request_with(section: &Section<'_>, known: &inputs::Known<'_>) -> Option<Action> {
    let url = section.text("http");
    if let Some(url) = &url {
        inputs::check(section, "http", url, known, Safe::Ids);
        check_url(section, "http", &inputs::without(url));
    }
    let method = method(section, "POST");
    let headers = headers(section);
    for (name, value) in &headers {
        inputs::check(section, &format!("headers.{name}"), value, known, Safe::Ids);
    }
    let body = section.text("body");
    if let Some(body) = &body {
        inputs::check(section, "body", body, known, Safe::Ids);
    }
    let allow_private = section.flag("allow_private").unwrap_or(false);
    Some(Action::Http { method, url: url?, headers, body, allow_private })
}

/// When the procedure may no longer run by itself.
fn demotion(section: &Section<'_>) -> Option<Demotion> {
    let below = section.number("demote_below", Bounds { least: 0.0, open: true, most: 1.0, example: 0.8 });
    let over = section.count("demote_over", 2, 1000);
    if section.has("demote_over") && !section.has("demote_below") {
        let remedy = "write demote_below = 0.8 with it, the share of verified successes that it must keep";
        section.fault("demote_over", "says over how many attempts, but not below what", remedy);
    }
    let (below, over) = (below?, over.unwrap_or(DEMOTE_OVER));
    // Every attempt but one failing is still at or above the bound.
    if 1.0 / f64::from(over) >= below {
        let message = format!("{below} over {over} attempts: it is demoted only when none of them succeeded");
        let remedy = format!("write more than {}, or a larger demote_over", (100.0 / f64::from(over)).ceil() / 100.0);
        section.fault("demote_below", message, remedy);
    }
    Some(Demotion { below, over })
}

/// The steps so that each comes after what it needs, as near as can be to the order written.
fn in_order(section: &Section<'_>, steps: Vec<Step>) -> Vec<Step> {
    let index = |id: &StepId| steps.iter().position(|step| step.id == *id);
    let before = |step: &Step| step.needs.iter().chain(&step.after).filter_map(index).collect();
    let needs: Vec<Vec<usize>> = steps.iter().map(before).collect();
    let sorted = order::sort(&needs);
    for cycle in &sorted.cycles {
        let names: Vec<&str> = cycle.iter().map(|n| steps[*n].id.as_str()).collect();
        let key = format!("{}.step.{}.needs", section.path, names[0]);
        section.reader.fault(&key, format!("a cycle: {}", order::arrows(&names)), "drop one of these needs");
    }
    let mut left: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    sorted.order.into_iter().filter_map(|n| left[n].take()).collect()
}
