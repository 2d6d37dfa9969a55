//! Procedures and validations in words.

use super::model::{Action, Demotion, EachOf, OnCancel, OnFailure, Procedure, Step, Validation, ValidationCheck};
use super::reader::{percent, words};

impl Procedure {
    /// What it does, as one sentence a step.
    #[must_use]
    pub fn explain(&self) -> String {
        let side = match self.parallel {
            1 => "one step after the other".to_owned(),
            n => format!("up to {n} steps at once"),
        };
        let mut lines = vec![format!("{} ({}): {side}", self.id, self.name)];
        if let Some(moved) = &self.failover {
            let from = moved.from.as_ref().map_or("where the service runs".to_owned(), ToString::to_string);
            let back = if moved.back { "moves the load back" } else { "moves the load" };
            let sites = moved.healthy_sites_at_least;
            let plural = if sites == 1 { "site is" } else { "sites are" };
            lines.push(format!("{back} from {from} to {}, if {sites} healthy {plural} left then", moved.to));
        }
        if let Some(Demotion { below, over }) = &self.demotion {
            let share = percent(*below);
            lines.push(format!(
                "waits for a person's approval from when fewer than {share} of its last {over} attempts can be verified \
                 successes, until a person promotes it"
            ));
        }
        if !self.inputs.is_empty() {
            let inputs: Vec<_> = self.inputs.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
            lines.push(format!("may be handed: {} where nobody says otherwise", inputs.join(", ")));
        }
        lines.extend(self.steps.iter().map(Step::explain));
        let undone: Vec<&str> = self.rollback.iter().filter_map(|step| Some(step.undoes.as_ref()?.as_str())).collect();
        if !undone.is_empty() {
            let stopped = match self.on_cancel {
                OnCancel::Stop => "",
                OnCancel::RollBack => "; also when a person stops it",
            };
            lines.push(format!("can be rolled back, the last first: {}{stopped}", undone.join(", ")));
        }
        lines.join("\n  ")
    }
}

impl Action {
    fn explain(&self) -> String {
        match self {
            Self::Command { argv, .. } => format!("run {}", argv.join(" ")),
            Self::Http { method, url, .. } => format!("{method} {}", url.split('?').next().unwrap_or_default()),
            Self::WaitForProbe { probe: Some(probe) } => format!("wait until probe {probe} is healthy"),
            Self::WaitForProbe { probe: None } => "wait until the service's probes are healthy".to_owned(),
            Self::Manual { instruction } => format!("for people: {instruction}"),
            Self::Approve { question } => format!("wait until a person approves: {question}"),
            Self::Procedure { procedure } => format!("run procedure {procedure}"),
            Self::Ask { worker, .. } => format!("ask {worker} and wait for its answer"),
        }
    }
}

impl Step {
    fn explain(&self) -> String {
        let mut text = format!("{}: {}", self.id, self.action.explain());
        if let Some(each) = &self.each {
            let whose = match each.services {
                EachOf::All => "every service",
                EachOf::Dependencies => "everything that the service needs",
                EachOf::Dependants => "everything that needs the service",
            };
            let order = if each.backwards { "against" } else { "in" };
            text.push_str(&format!(", for {whose} {order} the start order"));
        }
        if let Some(when) = &self.when {
            text.push_str(&format!(", when {when}"));
        }
        match self.retries {
            0 => {}
            n => text.push_str(&format!(", tried {} times", n + 1)),
        }
        text.push_str(match self.on_failure {
            OnFailure::Stop => "",
            OnFailure::Continue => "; the rest goes on if it fails",
            OnFailure::RollBack => "; rolls back if it fails",
            OnFailure::Escalate => "; people are asked if it fails",
        });
        if matches!(self.action, Action::Approve { .. }) {
            text.push_str(&format!(" within {}", words(self.timeout)));
        }
        text
    }
}

impl Validation {
    /// What it looks at, and when.
    #[must_use]
    pub fn explain(&self) -> String {
        let looks = match &self.check {
            ValidationCheck::Act(action) => action.explain(),
            ValidationCheck::ServiceLevel(level) => format!("the service level {} is kept", level.id),
        };
        let of = |what: &str, ids: Vec<&str>| (!ids.is_empty()).then(|| format!("{what} {}", ids.join(", ")));
        let after: Vec<String> = [
            of("service", self.services.iter().map(AsRef::as_ref).collect()),
            of("tier", self.tiers.iter().map(AsRef::as_ref).collect()),
            of("procedure", self.procedures.iter().map(AsRef::as_ref).collect()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let after =
            if after.is_empty() { "every recovery".to_owned() } else { format!("recoveries of {}", after.join(", ")) };
        format!("{} ({}): after {after}, {looks}, or the recovery failed", self.id, self.category)
    }
}
