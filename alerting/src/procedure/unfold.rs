//! From a procedure to the steps of one recovery: nested procedures put in place, repetitions written out, an order
//! found, every text checked. Texts are filled in when a step begins, since they may name what earlier steps printed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};
use rebound_schemas::event::ErrorClass;
use rebound_schemas::plan::{Action, Each, EachOf, MOST_STEPS, OnCancel, Plan, Procedure, Step, When};
use rebound_schemas::{IncidentId, ProcedureId, RecoveryId, ServiceId, SiteId, StepId};

use super::ProcedureError;

/// The inputs of a recovery: what `{…}` in texts and names in conditions stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholders {
    /// `{service}`: the service that is recovered.
    pub service: ServiceId,
    /// `{site}`: where it runs.
    pub site: SiteId,
    /// `{incident}`: what it is recovered from.
    pub incident: IncidentId,
    /// `{recovery}`: this recovery.
    pub recovery: RecoveryId,
    /// `{attempt}`: which attempt at the incident, from 1.
    pub attempt: u32,
    /// `{reason}`: what was seen, in words; empty when nobody said.
    pub reason: String,
    /// `{error_class}`: what was seen, coarsely.
    pub error_class: ErrorClass,
    /// `{first_failure_at}`: t0 of the incident, as RFC 3339 in UTC.
    pub first_failure_at: DateTime<Utc>,
    /// `{input.…}`: what a person handed to the procedure. What nobody handed is filled in by [`unfold`], from the
    /// procedure's own defaults; a nested procedure's input of the same name has the outer's value.
    pub inputs: BTreeMap<String, String>,
}

impl Placeholders {
    /// The value of an input.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "service" => self.service.to_string(),
            "site" => self.site.to_string(),
            "incident" => self.incident.to_string(),
            "recovery" => self.recovery.to_string(),
            "attempt" => self.attempt.to_string(),
            "reason" => self.reason.clone(),
            "error_class" => self.error_class.to_string(),
            "first_failure_at" => self.first_failure_at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            other => return self.inputs.get(other.strip_prefix("input.")?).cloned(),
        })
    }
}

/// Fills in a text in one pass, so that what is filled in is never read again. A name that `value` does not know is
/// given back as the error.
///
/// | written | becomes |
/// |---|---|
/// | `{service}` | the service |
/// | `{steps.find.output}` | what the step `find` printed |
/// | `{servise}` | an error: a lower-case name in braces must be a placeholder |
/// | `{{service}}` | the text `{service}` |
/// | `{"a": {}}`, `${HOME}` | itself: braces around anything else are plain text, so that JSON can be written |
pub fn fill(text: &str, value: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        rest = &rest[open..];
        if let Some(name) = rest.strip_prefix('{').and_then(quoted_name) {
            filled.push_str(name);
            rest = &rest[name.len() + 2..];
        } else if let Some(name) = plain_name(rest) {
            filled.push_str(&value(name)?);
            rest = &rest[name.len() + 2..];
        } else {
            filled.push('{');
            rest = &rest[1..];
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// `{name}…` gives `name`.
fn plain_name(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
    let path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':' | b'/');
    let dotted = name.starts_with("steps.") || name.starts_with("input.");
    let is_name = !name.is_empty() && (name.bytes().all(plain) || dotted && name.bytes().all(path));
    is_name.then_some(name)
}

/// `{name}}…`, which is what follows the first brace of a doubled one, gives `{name}`.
fn quoted_name(text: &str) -> Option<&str> {
    let name = plain_name(text)?;
    text[name.len() + 2..].starts_with('}').then(|| &text[..name.len() + 2])
}

/// An action with its texts filled in. The names of variables and headers, the program and the probe are as written.
pub(crate) fn fill_action(action: &Action, value: &dyn Fn(&str) -> Result<String, String>) -> Result<Action, String> {
    let text = |text: &String| fill(text, value);
    let texts = |map: &BTreeMap<String, String>| -> Result<BTreeMap<String, String>, String> {
        map.iter().map(|(key, value)| Ok((key.clone(), text(value)?))).collect()
    };
    Ok(match action {
        Action::Command { argv, env } => {
            let mut filled = Vec::with_capacity(argv.len());
            for (n, argument) in argv.iter().enumerate() {
                filled.push(if n == 0 { argument.clone() } else { text(argument)? });
            }
            Action::Command { argv: filled, env: texts(env)? }
        }
        Action::Http { method, url, headers, body, allow_private } => Action::Http {
            method: method.clone(),
            url: text(url)?,
            headers: texts(headers)?,
            body: body.as_ref().map(text).transpose()?,
            allow_private: *allow_private,
        },
        Action::Manual { instruction } => Action::Manual { instruction: text(instruction)? },
        Action::Approve { question } => Action::Approve { question: text(question)? },
        Action::Ask { worker, args } => Action::Ask { worker: worker.clone(), args: texts(args)? },
        Action::WaitForProbe { .. } | Action::Procedure { .. } => action.clone(),
    })
}

/// A step in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyStep {
    /// The step as the plan has it; its id is the path to it (`outer/inner`).
    pub step: Step,
    /// Places, in the order of execution, of the steps that must have succeeded.
    pub needs: Vec<usize>,
    /// Places of the steps that must have ended.
    pub after: Vec<usize>,
    /// Conditions, each with the path within which it names steps: its own, and those of the steps it is nested in.
    pub when: Vec<(String, When)>,
    /// The path within which its texts name steps: empty, or `outer/`.
    pub scope: String,
    /// The service that a repetition is for.
    pub each: Option<ServiceId>,
    /// The place of the step that it undoes.
    pub undoes: Option<usize>,
}

/// What one recovery is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// The steps in the order of execution, then those that undo.
    pub steps: Vec<ReadyStep>,
    /// Steps at the same time, at most.
    pub parallel: usize,
    /// The inputs.
    pub inputs: Placeholders,
    /// What is done about the steps that succeeded when a person stops it.
    pub on_cancel: OnCancel,
    /// Steps that became several: their places.
    pub(super) groups: BTreeMap<String, Vec<usize>>,
}

/// A procedure's steps in the order of execution (what a step needs comes first; otherwise as written), with nested
/// procedures in place. A wrong step fails the whole procedure, so that nothing is found out half-way.
///
/// | step | becomes |
/// |---|---|
/// | `procedure = "p"` | the steps of p, as `step/…`: the first of them need what it needed, who needed it needs all of them |
/// | `each = "…"` | one step a service, as `step/service`, each after those of the services it depends on |
/// | anything else | itself |
///
/// A nested step that fails and says `stop` does what the step says that it is nested in.
pub fn unfold(procedure: &Procedure, plan: &Plan, inputs: &Placeholders) -> Result<Script, ProcedureError> {
    let inputs = inputs.clone();
    let mut flat =
        Flat { plan, inputs, nodes: Vec::new(), undoing: Vec::new(), groups: BTreeMap::new(), within: vec![] };
    flat.add(procedure, &Outer::default())?;
    let Flat { nodes, undoing, groups, inputs, .. } = flat;
    let script = order(procedure, nodes, undoing, &groups, inputs)?;
    for ready in &script.steps {
        let check = |name: &str| script.check(ready, name);
        fill_action(&ready.step.action, &check).map_err(|name| ProcedureError::UnknownPlaceholder {
            procedure: procedure.id.clone(),
            step: ready.step.id.clone(),
            name,
        })?;
    }
    Ok(script)
}

impl Script {
    /// Whether a name could have a value for this step; the error is the name.
    fn check(&self, ready: &ReadyStep, name: &str) -> Result<String, String> {
        let known = match name.strip_prefix("steps.").and_then(|rest| rest.rsplit_once('.')) {
            Some((step, field)) => {
                let path = format!("{}{step}", ready.scope);
                let there = self.groups.contains_key(&path) || self.steps.iter().any(|s| s.step.id.as_str() == path);
                there && ["outcome", "output", "code"].contains(&field)
            }
            None if name == "each" => ready.each.is_some(),
            None => self.inputs.value(name).is_some(),
        };
        if known { Ok(String::new()) } else { Err(name.to_owned()) }
    }
}

/// What steps inherit from the step that they are nested in.
#[derive(Debug, Clone, Default)]
struct Outer {
    scope: String,
    needs: Vec<String>,
    after: Vec<String>,
    when: Vec<(String, When)>,
    on_failure: Option<rebound_schemas::plan::OnFailure>,
}

struct Node {
    ready: ReadyStep,
    needs: Vec<String>,
    after: Vec<String>,
}

struct Flat<'p> {
    plan: &'p Plan,
    inputs: Placeholders,
    nodes: Vec<Node>,
    undoing: Vec<(ReadyStep, String)>,
    /// Paths of steps that became several, with the paths they became; with what they needed when they became none.
    groups: BTreeMap<String, Vec<String>>,
    within: Vec<ProcedureId>,
}

impl Flat<'_> {
    fn add(&mut self, procedure: &Procedure, outer: &Outer) -> Result<(), ProcedureError> {
        self.within.push(procedure.id.clone());
        for (name, value) in &procedure.inputs {
            self.inputs.inputs.entry(name.clone()).or_insert_with(|| value.clone());
        }
        for step in &procedure.steps {
            if let Some(needed) =
                step.needs.iter().chain(&step.after).find(|n| !procedure.steps.iter().any(|s| s.id == **n))
            {
                let (step, needed) = (step.id.clone(), needed.clone());
                return Err(ProcedureError::UnknownNeed { procedure: procedure.id.clone(), step, needed });
            }
            self.step(procedure, step, outer)?;
            if self.nodes.len() + self.undoing.len() > MOST_STEPS {
                return Err(ProcedureError::TooLong { procedure: self.within[0].clone() });
            }
        }
        for step in &procedure.rollback {
            let Some(undoes) = &step.undoes else { continue };
            let id = path(procedure, &outer.scope, step.id.as_str())?;
            let undone = format!("{}{undoes}", outer.scope);
            let ready = ReadyStep { step: Step { id, ..step.clone() }, ..blank(step, &outer.scope) };
            self.undoing.push((ready, undone));
        }
        self.within.pop();
        Ok(())
    }

    fn step(&mut self, procedure: &Procedure, step: &Step, outer: &Outer) -> Result<(), ProcedureError> {
        let scoped = |ids: &[StepId]| ids.iter().map(|id| format!("{}{id}", outer.scope)).collect::<Vec<_>>();
        let mut needs = scoped(&step.needs);
        let mut after = scoped(&step.after);
        needs.extend(outer.needs.iter().cloned());
        after.extend(outer.after.iter().cloned());
        let mut when = outer.when.clone();
        when.extend(step.when.iter().map(|when| (outer.scope.clone(), when.clone())));
        let own = format!("{}{}", outer.scope, step.id);
        let on_failure = match (step.on_failure, outer.on_failure) {
            (rebound_schemas::plan::OnFailure::Stop, Some(outer)) => outer,
            (own, _) => own,
        };
        if let Action::Procedure { procedure: inner } = &step.action {
            if self.within.contains(inner) {
                let mut path = self.within.clone();
                path.push(inner.clone());
                return Err(ProcedureError::Nesting { path });
            }
            let Some(nested) = self.plan.procedures().get(inner) else {
                return Err(ProcedureError::UnknownProcedure { step: step.id.clone(), procedure: inner.clone() });
            };
            let from = self.nodes.len();
            let inside =
                Outer { scope: format!("{own}/"), needs: needs.clone(), after, when, on_failure: Some(on_failure) };
            self.add(nested, &inside)?;
            let became: Vec<String> = self.nodes[from..].iter().map(|node| node.ready.step.id.to_string()).collect();
            self.groups.insert(own, if became.is_empty() { needs } else { became });
            return Ok(());
        }
        let base = ReadyStep { when, ..blank(&Step { on_failure, ..step.clone() }, &outer.scope) };
        let Some(each) = step.each else {
            let id = path(procedure, "", &own)?;
            let ready = ReadyStep { step: Step { id, ..base.step.clone() }, ..base };
            self.nodes.push(Node { ready, needs, after });
            return Ok(());
        };
        let services = self.services(each);
        let name = |service: &ServiceId| format!("{own}/{service}");
        for service in &services {
            let before = services.iter().filter(|other| self.comes_before(other, service, each.backwards));
            let needs = needs.iter().cloned().chain(before.map(name)).collect();
            let id = path(procedure, "", &name(service))?;
            let step = Step { id, ..base.step.clone() };
            let ready = ReadyStep { step, each: Some(service.clone()), ..base.clone() };
            self.nodes.push(Node { ready, needs, after: after.clone() });
        }
        let became = if services.is_empty() { needs } else { services.iter().map(name).collect() };
        self.groups.insert(own, became);
        Ok(())
    }

    /// The services that a step is repeated for, in the order in which it is.
    fn services(&self, each: Each) -> Vec<ServiceId> {
        let wanted: BTreeSet<ServiceId> = match each.services {
            EachOf::All => self.plan.services().keys().cloned().collect(),
            EachOf::Dependencies => self
                .reach(|service| self.plan.services().get(service).map(|s| s.depends_on.clone()).unwrap_or_default()),
            EachOf::Dependants => {
                self.reach(|service| self.plan.dependants_of(service).map(|other| other.id.clone()).collect())
            }
        };
        let mut services: Vec<ServiceId> =
            self.plan.start_order().iter().filter(|id| wanted.contains(*id)).cloned().collect();
        if each.backwards {
            services.reverse();
        }
        services
    }

    /// What is reached from the recovered service, itself left out.
    fn reach(&self, next: impl Fn(&ServiceId) -> Vec<ServiceId>) -> BTreeSet<ServiceId> {
        let mut seen = BTreeSet::new();
        let mut open = next(&self.inputs.service);
        while let Some(service) = open.pop() {
            if seen.insert(service.clone()) {
                open.extend(next(&service));
            }
        }
        seen.remove(&self.inputs.service);
        seen
    }

    fn comes_before(&self, other: &ServiceId, service: &ServiceId, backwards: bool) -> bool {
        let (needing, needed) = if backwards { (other, service) } else { (service, other) };
        self.plan.services().get(needing).is_some_and(|s| s.depends_on.contains(needed))
    }
}

fn blank(step: &Step, scope: &str) -> ReadyStep {
    let (needs, after, when, each, undoes) = (Vec::new(), Vec::new(), Vec::new(), None, None);
    ReadyStep { step: step.clone(), needs, after, when, scope: scope.to_owned(), each, undoes }
}

fn path(procedure: &Procedure, scope: &str, id: &str) -> Result<StepId, ProcedureError> {
    let path = format!("{scope}{id}");
    StepId::new(&path).map_err(|_| ProcedureError::LongPath { procedure: procedure.id.clone(), path })
}

/// A node that has no place yet, with the paths of the nodes that come before it.
struct Slot {
    ready: ReadyStep,
    needs: BTreeSet<String>,
    after: BTreeSet<String>,
}

/// Puts nodes in order, and turns paths into places.
fn order(
    procedure: &Procedure,
    nodes: Vec<Node>,
    undoing: Vec<(ReadyStep, String)>,
    groups: &BTreeMap<String, Vec<String>>,
    inputs: Placeholders,
) -> Result<Script, ProcedureError> {
    let resolve = |path: &str| {
        let (mut found, mut open) = (Vec::new(), vec![path.to_owned()]);
        while let Some(path) = open.pop() {
            match groups.get(&path) {
                Some(became) => open.extend(became.iter().cloned()),
                None => found.push(path),
            }
        }
        found
    };
    let all = |paths: &[String]| paths.iter().flat_map(|path| resolve(path)).collect::<BTreeSet<String>>();
    let slot = |node: Node| Some(Slot { needs: all(&node.needs), after: all(&node.after), ready: node.ready });
    let mut left: Vec<Option<Slot>> = nodes.into_iter().map(slot).collect();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut steps: Vec<ReadyStep> = Vec::with_capacity(left.len() + undoing.len());
    while steps.len() < left.len() {
        let first = left.iter_mut().find(|slot| {
            slot.as_ref().is_some_and(|slot| slot.needs.iter().chain(&slot.after).all(|path| places.contains_key(path)))
        });
        let Some(Slot { mut ready, needs, after }) = first.and_then(Option::take) else {
            let steps = left.into_iter().flatten().map(|slot| slot.ready.step.id).collect();
            return Err(ProcedureError::Cycle { procedure: procedure.id.clone(), steps });
        };
        ready.needs = needs.iter().map(|path| places[path]).collect();
        ready.needs.sort_unstable();
        ready.after = after.iter().map(|path| places[path]).collect();
        ready.after.sort_unstable();
        places.insert(ready.step.id.to_string(), steps.len());
        steps.push(ready);
    }
    for (ready, undone) in undoing {
        // A step that became several is undone once, when the last of them in the order succeeded.
        let at = resolve(&undone).iter().filter_map(|path| places.get(path)).max().copied();
        steps.extend(at.map(|at| ReadyStep { undoes: Some(at), ..ready }));
    }
    let groups = groups
        .keys()
        .map(|path| (path.clone(), resolve(path).iter().filter_map(|inner| places.get(inner)).copied().collect()))
        .collect();
    let (parallel, on_cancel) = (procedure.parallel.max(1) as usize, procedure.on_cancel);
    Ok(Script { steps, parallel, inputs, on_cancel, groups })
}
