//! A plan of four services, short words for what goes into an engine, and what came out.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use rebound_schemas::event::{
    AlertRaised, AlertResolved, AlertSuppressed, Outcome, ProbeCompleted, RecoveryFinished, RecoveryOutcome,
    RecoveryStarted, SilenceCreated,
};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventData, Kind, ServiceId, SiteId, Topic};

use crate::engine::{Engine, ServiceStatus};
use crate::testing;

/// `api` needs `db`; `lone` is watched from three places and fails by two of them; `window` by 3 of 5.
const PLAN: &str = r#"
name = "tests"
allow = ["/bin/true"]
[[site]]
id = "a"
[[site]]
id = "b"
[[site]]
id = "c"
[[channel]]
id = "ops"
kind = "log"
[[channel]]
id = "duty"
kind = "log"
[[policy]]
id = "default"
failures = 3
recoveries = 2
silent_after = "60s"
repeat = "5m"
intensity = 3
intensity_period = "1h"
backoff = "10s"
backoff_max = "300s"
backoff_reset = "10m"
[[policy]]
id = "quorum"
failures = 2
recoveries = 1
sites = 2
silent_after = "60s"
[[policy]]
id = "window"
failures = 3
of = 5
recoveries = 2
silent_after = "60s"
[[service]]
id = "db"
procedure = "restart"
[[service.probe]]
id = "db"
every = "10s"
http = "http://127.0.0.1:1/"
[[service]]
id = "api"
depends_on = ["db"]
procedure = "restart"
[[service.probe]]
id = "api"
every = "10s"
http = "http://127.0.0.1:2/"
[[service]]
id = "lone"
policy = "quorum"
[[service.probe]]
id = "pa"
site = "a"
every = "10s"
http = "http://127.0.0.1:3/"
[[service.probe]]
id = "pb"
site = "b"
every = "10s"
http = "http://127.0.0.1:3/"
[[service]]
id = "window"
policy = "window"
[[service.probe]]
id = "window"
every = "10s"
http = "http://127.0.0.1:4/"
[[procedure]]
id = "restart"
[[procedure.step]]
id = "restart"
command = ["/bin/true"]
"#;

pub(super) fn plan() -> Arc<Plan> {
    static PARSED: OnceLock<Arc<Plan>> = OnceLock::new();
    PARSED.get_or_init(|| testing::plan(PLAN)).clone()
}

/// The same with limits that are met often: one service may be down at once, and one failed attempt of three demotes.
pub(super) fn guarded_plan() -> Arc<Plan> {
    static PARSED: OnceLock<Arc<Plan>> = OnceLock::new();
    let parse = || {
        let text = PLAN.replace("id = \"restart\"\n[[", "id = \"restart\"\ndemote_below = 0.7\ndemote_over = 3\n[[");
        let text = format!("{text}[limits]\nstop_above = 1\n");
        testing::plan(&text)
    };
    PARSED.get_or_init(parse).clone()
}

pub(super) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

pub(super) fn service(text: &str) -> ServiceId {
    ServiceId::new(text).unwrap()
}

pub(super) fn outside(subject: &str, second: i64, id: &str, data: impl Into<EventData>) -> Event {
    testing::event("outside", id, subject, at(second), data)
}

pub(super) fn probe_from(subject: &str, probe: &str, site: Option<&str>, second: i64, outcome: Outcome) -> Event {
    let data = ProbeCompleted {
        latency_us: 1000,
        site: site.map(|site| SiteId::new(site).unwrap()),
        reason: (outcome == Outcome::Failed).then(|| "connection refused".into()),
        ..testing::seen(probe, outcome)
    };
    outside(subject, second, &format!("{probe}@{second}"), data)
}

/// An engine with everything that went through it, and short words for what goes in and comes out.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) log: Vec<Event>,
    pub(super) second: i64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::of(plan())
    }

    /// A world under another plan, seen from its beginning on.
    pub(super) fn under(text: &str) -> Self {
        let plan = Plan::parse(text, "plan.toml").unwrap_or_else(|faults| panic!("{faults}"));
        let mut world = Self::of(Arc::new(plan));
        world.engine.seen_since(at(0));
        world
    }

    pub(super) fn of(plan: Arc<Plan>) -> Self {
        let mut engine = Engine::new(plan);
        engine.own_where(|_| true);
        Self { engine, log: Vec::new(), second: 0 }
    }

    pub(super) fn handle(&mut self, event: Event) -> Vec<String> {
        let now = at(self.second);
        let decided = self.engine.handle(&event, now);
        self.log.push(event);
        self.log.extend(decided.iter().cloned());
        words(&decided)
    }

    pub(super) fn tick(&mut self, second: i64) -> Vec<String> {
        self.second = second;
        let decided = self.engine.tick(at(second));
        self.log.extend(decided.iter().cloned());
        words(&decided)
    }

    /// An observation from outside, ten seconds after the last.
    pub(super) fn seen(&mut self, subject: &str, data: impl Into<EventData>) -> Vec<String> {
        self.second += 10;
        self.handle(outside(subject, self.second, &format!("seen@{}", self.second), data))
    }

    /// An engine that has folded everything, topic by topic as a shell does it.
    pub(super) fn restarted(&self) -> Engine {
        let mut engine = Engine::new(self.engine.plan().clone());
        engine.own_where(|_| true);
        engine.seen_since(at(0));
        for topic in [Topic::Alerts, Topic::Recoveries, Topic::Observations] {
            self.log.iter().filter(|event| event.kind().topic() == topic).for_each(|event| engine.fold(event));
        }
        engine
    }

    /// One observation each ten seconds: F failed, S healthy, D degraded. Answers the decisions at the last.
    pub(super) fn probes(&mut self, subject: &str, outcomes: &str) -> Vec<String> {
        let mut last = Vec::new();
        for outcome in outcomes.chars() {
            self.second += 10;
            last = self.handle(probe_from(subject, subject, None, self.second, outcome_of(outcome)));
        }
        last
    }

    pub(super) fn finish(&mut self, outcome: RecoveryOutcome) -> Vec<String> {
        let Some(EventData::RecoveryTriggered(data)) =
            self.log.iter().rev().find(|e| e.kind() == Kind::RecoveryTriggered).map(|event| event.data.clone())
        else {
            panic!("nothing was triggered");
        };
        let subject = self.log.iter().rev().find(|e| e.kind() == Kind::RecoveryTriggered).unwrap().subject.clone();
        let (recovery, incident, procedure) = (data.recovery, data.incident, data.procedure);
        let started = RecoveryStarted {
            recovery: recovery.clone(),
            incident: incident.clone(),
            procedure: procedure.clone(),
            runner: "r".into(),
        };
        let id = format!("{recovery}:started");
        assert!(self.handle(outside(subject.as_str(), self.second, &id, started)).is_empty());
        let finished = RecoveryFinished {
            recovery: recovery.clone(),
            incident,
            attempt: data.attempt,
            procedure,
            method: None,
            outcome,
            duration_ms: 1,
            error_class: None,
            reason: None,
        };
        self.handle(outside(subject.as_str(), self.second, &format!("{recovery}:finished"), finished))
    }

    pub(super) fn silence(&mut self, subject: &str, from: i64, until: i64) -> Vec<String> {
        let data = SilenceCreated {
            silence: "s".into(),
            services: vec![service(subject)],
            matchers: vec![],
            from: at(from),
            until: at(until),
            by: "ann".into(),
            reason: "quiet".into(),
        };
        let id = format!("silence-{}-{until}", self.second);
        self.handle(outside(subject, self.second, &id, data))
    }

    pub(super) fn status(&self, subject: &str) -> ServiceStatus {
        self.engine.status(&service(subject), at(self.second)).unwrap()
    }

    pub(super) fn last<T>(&self, pick: impl Fn(&EventData) -> Option<T>) -> T {
        self.log.iter().rev().find_map(|event| pick(&event.data)).expect("no such event")
    }
}

pub(super) fn outcome_of(letter: char) -> Outcome {
    match letter {
        'F' => Outcome::Failed,
        'S' => Outcome::Healthy,
        'D' => Outcome::Degraded,
        other => panic!("{other:?} is no outcome"),
    }
}

/// `incident.opened`, `alert.suppressed-silence`, `recovery.triggered#2`: enough to tell decisions apart. What is
/// only said to be withheld is left out; see [`all_words`].
pub(super) fn words(events: &[Event]) -> Vec<String> {
    let mut words = all_words(events);
    words.retain(|word| !word.starts_with("recovery.withheld"));
    words
}

/// The same with `recovery.withheld#2-silence`.
pub(super) fn all_words(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| match &event.data {
        EventData::AlertSuppressed(AlertSuppressed { condition: Some(condition), cause, .. }) => {
            format!("{condition} suppressed-{cause}")
        }
        EventData::AlertRaised(AlertRaised { condition: Some(condition), .. }) => format!("{condition} raised"),
        EventData::AlertResolved(AlertResolved { condition: Some(condition), .. }) => format!("{condition} resolved"),
        EventData::AlertSuppressed(data) => format!("alert.suppressed-{}", data.cause),
        EventData::RecoveryTriggered(data) => format!("recovery.triggered#{}", data.attempt),
        EventData::RecoveryWithheld(data) => format!("recovery.withheld#{}-{}", data.attempt, data.reason),
        _ => event.kind().as_str().to_owned(),
    };
    events.iter().map(word).collect()
}
