//! A plan of three services, histories that the engine lives, and short words for what is told of them.

use std::sync::Arc;

use rebound_schemas::StepId;
use rebound_schemas::event::{
    IncidentCorrected, Outcome, ProbeCompleted, RecoveryFinished, RecoveryOutcome, RecoveryStarted, RecoveryTriggered,
    RecoveryVerified, StepFinished, StepOutcome, StepStarted,
};

use super::*;
use crate::engine::Engine;
use crate::testing;

pub(super) const PLAN: &str = r#"
allow = ["/bin/true"]
[[policy]]
id = "default"
failures = 3
recoveries = 2
silent_after = "60s"
intensity = 3
intensity_period = "1h"
backoff = "15s"
[[policy]]
id = "window"
failures = 3
of = 5
recoveries = 2
hold = "1m"
trigger = "off"
[[service]]
id = "db"
procedure = "restart"
[[service.probe]]
id = "db"
http = "http://127.0.0.1:1/"
[[service]]
id = "api"
depends_on = ["db"]
procedure = "restart"
[[service.probe]]
id = "api"
http = "http://127.0.0.1:2/"
[[service]]
id = "lone"
policy = "window"
[[service.probe]]
id = "lone"
http = "http://127.0.0.1:3/"
[[procedure]]
id = "restart"
[[procedure.step]]
id = "s"
command = ["/bin/true"]
"#;

pub(super) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

/// A history that the engine lives.
pub(super) struct Lived {
    engine: Engine,
    pub(super) plan: Arc<Plan>,
    pub(super) log: Vec<Event>,
    pub(super) second: i64,
}

impl Lived {
    pub(super) fn new() -> Self {
        let plan = testing::plan(PLAN);
        let mut engine = Engine::new(plan.clone());
        engine.own_where(|_| true);
        Self { engine, plan, log: Vec::new(), second: 0 }
    }

    fn say(&mut self, subject: &str, id: &str, data: impl Into<EventData>) {
        let event = testing::event("test", id, subject, at(self.second), data);
        let mut decided = self.engine.tick(at(self.second));
        decided.extend(self.engine.handle(&event, at(self.second)));
        self.log.push(event);
        self.log.extend(decided);
    }

    /// One result each ten seconds: F failed, S healthy, D degraded.
    pub(super) fn probes(mut self, service: &str, outcomes: &str) -> Self {
        for letter in outcomes.chars() {
            self.second += 10;
            let outcome = match letter {
                'F' => Outcome::Failed,
                'D' => Outcome::Degraded,
                _ => Outcome::Healthy,
            };
            let data = ProbeCompleted {
                reason: (letter == 'F').then(|| "connection refused".into()),
                ..testing::seen(service, outcome)
            };
            self.say(service, &format!("{service}@{}", self.second), data);
        }
        self
    }

    pub(super) fn then(mut self, subject: &str, id: &str, data: impl Into<EventData>) -> Self {
        self.second += 1;
        self.say(subject, id, data);
        self
    }

    pub(super) fn last<T>(&self, pick: impl Fn(&EventData) -> Option<T>) -> T {
        self.log.iter().rev().find_map(|event| pick(&event.data)).expect("no such event")
    }

    pub(super) fn incident(&self) -> IncidentId {
        self.last(|data| match data {
            EventData::IncidentOpened(data) => Some(data.incident.clone()),
            _ => None,
        })
    }

    pub(super) fn triggered(&self) -> RecoveryTriggered {
        self.last(|data| match data {
            EventData::RecoveryTriggered(data) => Some(data.clone()),
            _ => None,
        })
    }

    /// The newest recovery runs and ends so.
    pub(super) fn finish(self, outcome: RecoveryOutcome) -> Self {
        let RecoveryTriggered { recovery, incident, attempt, procedure, .. } = self.triggered();
        let (step, service) = (StepId::new("s").unwrap(), "db");
        let name = |what: &str| format!("{recovery}:{what}");
        let [started, began, ended, checked, over] = ["started", "began", "ended", "verified", "finished"].map(name);
        let succeeded = outcome == RecoveryOutcome::Succeeded;
        self.then(
            service,
            &started,
            RecoveryStarted {
                recovery: recovery.clone(),
                incident: incident.clone(),
                procedure: procedure.clone(),
                runner: "runner-1".into(),
            },
        )
        .then(
            service,
            &began,
            StepStarted {
                recovery: recovery.clone(),
                incident: incident.clone(),
                step: step.clone(),
                index: 0,
                attempt: 1,
                action: "run /bin/true".into(),
            },
        )
        .then(
            service,
            &ended,
            StepFinished {
                recovery: recovery.clone(),
                incident: incident.clone(),
                step,
                index: 0,
                attempt: 1,
                outcome: StepOutcome::Succeeded,
                duration_ms: 72_000,
                code: Some(0),
                output: None,
                error: None,
            },
        )
        .then(
            service,
            &checked,
            RecoveryVerified {
                recovery: recovery.clone(),
                incident: incident.clone(),
                passed: succeeded,
                checks: vec![],
                evidence: vec![],
            },
        )
        .then(
            service,
            &over,
            RecoveryFinished {
                recovery,
                incident,
                attempt,
                procedure,
                method: None,
                outcome,
                duration_ms: 4_200,
                error_class: None,
                reason: (!succeeded).then(|| "still refused".into()),
            },
        )
    }

    pub(super) fn told(&self, subject: &Subject) -> Explanation {
        let told = explain(subject, &self.log, Some(&self.plan), at(self.second)).expect("it is about something");
        for of in named_events(&told) {
            assert!(self.log.iter().any(|event| event.source == of.source && event.id == of.id), "{of:?}");
        }
        told
    }

    pub(super) fn of_incident(&self) -> Explanation {
        self.told(&Subject::Incident(self.incident()))
    }

    pub(super) fn of_service(&self, service: &str) -> Explanation {
        let service = ServiceId::new(service).unwrap();
        self.told(&Subject::Service { service, at: at(self.second), within: TimeDelta::hours(1) })
    }

    /// Of the recovery that was withheld last.
    pub(super) fn of_withheld(&self) -> Explanation {
        let recovery = self.last(|data| match data {
            EventData::RecoveryWithheld(data) => Some(data.recovery.clone()),
            _ => None,
        });
        self.told(&Subject::Recovery(recovery))
    }
}

/// The first failure was five seconds after eight.
pub(super) fn corrected(lived: &Lived, reason: &str, exclude: bool) -> IncidentCorrected {
    let first_failure_at = at(5);
    let data = serde_json::json!({
        "incident": lived.incident().as_str(), "by": "eve", "reason": reason,
        "first_failure_at": first_failure_at, "exclude": exclude,
    });
    serde_json::from_value(data).unwrap()
}

pub(super) fn named_events(told: &Explanation) -> Vec<&EventRef> {
    let facts = told.facts.iter().flat_map(|fact| std::iter::once(&fact.event).chain(&fact.evidence));
    told.answers.iter().flat_map(|answer| &answer.events).chain(facts).collect()
}

pub(super) fn answer<'a>(told: &'a Explanation, question: &str) -> &'a str {
    let found = told.answers.iter().find(|answer| answer.question == question);
    &found.unwrap_or_else(|| panic!("no {question:?} among {:#?}", told.answers)).text
}

pub(super) fn facts(told: &Explanation) -> Vec<&str> {
    told.facts.iter().map(|fact| fact.text.as_str()).collect()
}
