//! What people read, situation by situation: `texts.txt` beside this file. `REBOUND_BLESS=1` writes it anew; it is
//! then to be read by eye, as somebody would who was woken by it.

use std::fmt::Write;

use chrono::TimeDelta;
use rebound_schemas::event::{
    AlertRaised, AlertResolved, AlertSuppressed, IncidentAcknowledged, IncidentCorrected, ProcedureDemoted,
    RecoveryEscalated, RecoveryFinished, RecoveryOutcome, RecoveryStarted, RecoveryTriggered, SuppressionCause,
    TriggerMode,
};
use rebound_schemas::{ProcedureId, RecoveryId};

use super::*;
use crate::SOURCE;
use crate::testing;

const PLAN: &str = r#"
[[site]]
id = "primary"
[[site]]
id = "cloud"
[[tier]]
id = "tier-1"
[[channel]]
id = "ops"
kind = "pagerduty"
key = { env = "KEY" }
[[policy]]
id = "default"
repeat = "2h"
[[policy]]
id = "careful"
trigger = "approve"
[[policy]]
id = "hands-off"
trigger = "off"
[[route]]
services = ["s1", "s2", "s3"]
sites = ["primary"]
channels = ["ops"]
group_by = ["site"]
group_wait = "0s"
[[route]]
channels = ["ops"]
[[route.escalation]]
after = "15m"
channels = ["ops"]
[[procedure]]
id = "restore"
[[procedure.step]]
id = "a"
manual = "x"
[[service]]
id = "db"
name = "Database cluster"
tier = "tier-1"
site = "primary"
procedure = "restore"
[[service]]
id = "web"
site = "cloud"
policy = "careful"
procedure = "restore"
[[service]]
id = "archive"
site = "cloud"
policy = "hands-off"
"#;

fn plan() -> Arc<Plan> {
    let mut text = PLAN.to_owned();
    for n in 1..=50 {
        text += &format!("[[service]]\nid = \"s{n}\"\nsite = \"primary\"\nprocedure = \"restore\"\n");
    }
    Arc::new(
        Plan::parse(&text.replace("\"s1\", \"s2\", \"s3\"", &many(50)), "plan.toml").unwrap_or_else(|e| panic!("{e}")),
    )
}

fn many(n: u32) -> String {
    (1..=n).map(|n| format!("\"s{n}\"")).collect::<Vec<_>>().join(", ")
}

/// 03:00 UTC of some night.
fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_420_400 + second, 0).unwrap()
}

struct World {
    notifier: Notifier,
    number: u32,
}

impl World {
    fn new() -> Self {
        Self { notifier: Notifier::new(plan()), number: 0 }
    }

    fn event(&mut self, service: &str, second: i64, data: impl Into<EventData>) {
        self.number += 1;
        self.notifier.fold(&testing::event(SOURCE, &format!("e{}", self.number), service, at(second), data));
    }

    fn raise(&mut self, service: &str, second: i64, condition: Option<&str>) {
        let reason = match condition {
            Some(_) => "the newest good backup is 2h old",
            None => "db-check: connect to 10.1.0.7:5432: connection refused",
        };
        let data = AlertRaised {
            alert: AlertId::new(&format!("alr-{service}")).unwrap(),
            incident: IncidentId::new(&format!("inc-{service}")).unwrap(),
            policy: policy(service),
            condition: condition.map(str::to_owned),
            severity: if condition.is_some() { Severity::Warning } else { Severity::Critical },
            failures: 3,
            first_failure_at: at(second - 30),
            reason: reason.into(),
            evidence: Vec::new(),
        };
        self.event(service, second, data);
    }

    fn resolve(&mut self, service: &str, second: i64, condition: Option<&str>) {
        let data = AlertResolved {
            alert: AlertId::new(&format!("alr-{service}")).unwrap(),
            incident: IncidentId::new(&format!("inc-{service}")).unwrap(),
            policy: policy(service),
            condition: condition.map(str::to_owned),
            recovered_at: at(second - 10),
            successes: 2,
        };
        self.event(service, second, data);
    }

    fn trigger(&mut self, service: &str, second: i64, attempt: u32, mode: TriggerMode, wait: Option<i64>) {
        let data = RecoveryTriggered {
            recovery: RecoveryId::new(&format!("rec-{service}-{attempt}")).unwrap(),
            incident: IncidentId::new(&format!("inc-{service}")).unwrap(),
            attempt,
            procedure: ProcedureId::new("restore").unwrap(),
            method: None,
            approve_until: None,
            asked: None,
            mode,
            first_failure_at: at(second - 30),
            not_before: wait.map(|wait| at(second + wait)),
            by: None,
            reason: None,
            error_class: None,
        };
        self.event(service, second, data);
    }

    fn finish(&mut self, service: &str, second: i64, attempt: u32, outcome: RecoveryOutcome) {
        let recovery = RecoveryId::new(&format!("rec-{service}-{attempt}")).unwrap();
        let incident = IncidentId::new(&format!("inc-{service}")).unwrap();
        let procedure = ProcedureId::new("restore").unwrap();
        let started = RecoveryStarted {
            recovery: recovery.clone(),
            incident: incident.clone(),
            procedure: procedure.clone(),
            runner: "a".into(),
        };
        self.event(service, second - 1, started);
        let data = RecoveryFinished {
            recovery,
            incident,
            attempt,
            procedure,
            method: None,
            outcome,
            duration_ms: 1000,
            error_class: None,
            reason: None,
        };
        self.event(service, second, data);
    }

    /// What is told now; it is taken.
    fn tell(&mut self, second: i64) -> Vec<Notice> {
        let planned = self.notifier.plan(at(second), &|_| false, &|_| true);
        planned.events.iter().for_each(|event| self.notifier.fold(event));
        let due = self.notifier.due();
        due.iter().for_each(|notice| self.notifier.fold(&notice.sent(1, at(second))));
        due
    }
}

fn policy(service: &str) -> PolicyId {
    let policy = match service {
        "web" => "careful",
        "archive" => "hands-off",
        _ => "default",
    };
    PolicyId::new(policy).unwrap()
}

/// Every situation, with what is told in it.
fn texts() -> String {
    let mut out = String::new();
    let mut say = |situation: &str, told: Vec<Notice>| {
        let _ = write!(out, "=== {situation}\n\n");
        if told.is_empty() {
            out += "(nothing is told)\n\n";
        }
        for notice in told {
            let _ = write!(out, "[{}] {}\n\n{}\n\n", notice.severity(), notice.title(), notice.body());
        }
    };

    let mut world = World::new();
    world.raise("db", 0, None);
    world.trigger("db", 0, 1, TriggerMode::Auto, None);
    say("an outage, recovered at once", world.tell(0));
    world.finish("db", 60, 1, RecoveryOutcome::Failed);
    world.trigger("db", 61, 2, TriggerMode::Auto, Some(20));
    say("nobody took it in 15 minutes, the second attempt waits", world.tell(900));
    world.finish("db", 100, 2, RecoveryOutcome::Succeeded);
    say("the same, two hours later", world.tell(7200));
    let ack = IncidentAcknowledged {
        incident: IncidentId::new("inc-db").unwrap(),
        by: "ann".into(),
        automated: false,
        comment: None,
    };
    world.event("db", 7300, ack);
    say("somebody takes it", world.tell(7300));
    world.resolve("db", 7400, None);
    say("it is over, by a procedure", world.tell(7400));
    let correction = IncidentCorrected {
        incident: IncidentId::new("inc-db").unwrap(),
        by: "ann".into(),
        reason: "a drill".into(),
        first_failure_at: None,
        recovered_at: None,
        error_class: None,
        cause: None,
        exclude: true,
    };
    world.event("db", 9000, correction);
    say("the incident is corrected: figures change, nobody is woken", world.tell(9000));

    let mut world = World::new();
    world.raise("db", 0, None);
    world.trigger("db", 0, 1, TriggerMode::Auto, None);
    world.tell(0);
    world.finish("db", 60, 1, RecoveryOutcome::Failed);
    let (procedure, newest) = (ProcedureId::new("restore").unwrap(), RecoveryId::new("rec-db-1").unwrap());
    let (succeeded, attempts, below, over, failed) = (1, 3, 0.8, 5, vec![newest.clone()]);
    world.event("db", 60, ProcedureDemoted { procedure, succeeded, attempts, below, over, failed, newest });
    say("its procedure is demoted", world.tell(61));

    let mut world = World::new();
    world.raise("web", 0, None);
    world.trigger("web", 0, 1, TriggerMode::Approve, None);
    say("a recovery waits for approval", world.tell(0));
    world.resolve("web", 200, None);
    say("it is over, by itself", world.tell(200));

    let mut world = World::new();
    world.raise("archive", 0, None);
    say("an outage that Rebound does nothing about", world.tell(0));

    let mut world = World::new();
    world.raise("db", 0, None);
    say("an outage whose recovery is held back", world.tell(0));
    world.trigger("db", 10, 1, TriggerMode::Auto, None);
    world.finish("db", 50, 1, RecoveryOutcome::Interrupted);
    let escalated = RecoveryEscalated {
        incident: IncidentId::new("inc-db").unwrap(),
        recovery: None,
        attempts: 1,
        stopped: None,
        reason: "the recovery was interrupted".into(),
    };
    world.event("db", 60, escalated);
    say("Rebound gives up", world.tell(60));

    let mut world = World::new();
    world.raise("db", 0, Some("backup"));
    say("a condition warns", world.tell(0));
    say("it warns still", world.tell(7200));
    world.resolve("db", 7300, Some("backup"));
    say("the warning is over", world.tell(7300));

    let mut world = World::new();
    let suppressed = AlertSuppressed {
        alert: AlertId::new("alr-db").unwrap(),
        incident: IncidentId::new("inc-db").unwrap(),
        policy: policy("db"),
        condition: None,
        cause: SuppressionCause::Maintenance,
        by: "mnt-1".into(),
    };
    world.event("db", 0, suppressed);
    world.resolve("db", 100, None);
    say("suppressed, and over before that ended", world.tell(100));
    let mut world = World::new();
    world.raise("db", 0, None);
    drop(world.tell(0));
    world.resolve("db", 100, None);
    say("told, then suppressed, and over: the end is told", world.tell(100));

    for n in [1, 3, 50_u32] {
        let mut world = World::new();
        for service in 1..=n {
            world.raise(&format!("s{service}"), i64::from(service), None);
            world.trigger(&format!("s{service}"), i64::from(service), 1, TriggerMode::Auto, None);
        }
        say(&format!("a group of {n}"), world.tell(60));
        if n > 1 {
            world.resolve("s1", 400, None);
            world.resolve("s2", 401, None);
            say(&format!("of the group of {n}, two are over"), world.tell(500));
        }
    }
    out
}

#[test]
fn texts_are_as_they_were_read_and_found_good() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/notify/texts.txt");
    let found = texts();
    if std::env::var_os("REBOUND_BLESS").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(expected == found, "other texts than in {} (REBOUND_BLESS=1 accepts them):\n{found}", file.display());
}

#[test]
fn lengths_of_time_are_told_in_two_units() {
    for (seconds, want) in [
        (-5, "0s"),
        (0, "0s"),
        (59, "59s"),
        (200, "3m 20s"),
        (3600, "1h"),
        (3605, "1h"),
        (7260, "2h 1m"),
        (90_000, "1d 1h"),
        (86_460, "1d"),
    ] {
        assert_eq!(wording::lasting(TimeDelta::seconds(seconds)), want, "{seconds}");
    }
}

#[test]
fn a_message_that_is_told_again_says_the_same() {
    let mut world = World::new();
    world.raise("db", 0, None);
    world.trigger("db", 0, 1, TriggerMode::Auto, None);
    let planned = world.notifier.plan(at(0), &|_| false, &|_| true);
    planned.events.iter().for_each(|event| world.notifier.fold(event));
    let before = world.notifier.due();
    world.finish("db", 60, 1, RecoveryOutcome::Failed);
    assert_eq!(world.notifier.due(), before, "what became of the recovery since is another message's");
}
