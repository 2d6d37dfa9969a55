//! What a recovery waits for while it runs, with the real program over Kafka: another program's answer, a person's
//! word; both in time, too late, twice, and meant for something else.

use std::path::Path;
use std::time::Duration;

use rebound_schemas::event::{RecoveryApproved, RecoveryOutcome, StepAnswered, StepOutcome};
use rebound_schemas::{Event, EventData, EventId, RecoveryId, ServiceId, Source, StepId, Topic};

use crate::kafka_bus::KafkaClient;
use crate::pipeline::{borrowed, kafka_environment, lines};
use crate::support::{Running, alone, free_port, kafka, script, succeeds, wait_for};

/// Four services that are up while their file is there, and what their recoveries wait for.
fn write_plan(folder: &Path) {
    let root = folder.display();
    let mend = format!("#!/bin/sh\necho \"$1 $2\" >> {root}/ledger\ntouch {root}/up/$1\n");
    script(&folder.join("mend.sh"), &mend);
    let mut plan = format!(
        r#"
name = "gates"
allow = ["{root}/mend.sh", "/usr/bin/test"]

[[policy]]
id = "default"
failures = 2
recoveries = 2
backoff = "10m"
backoff_max = "10m"
verify_within = "60s"

[[policy]]
id = "held"
failures = 2
recoveries = 2
trigger = "approve"
verify_within = "60s"

[[procedure]]
id = "asked"
[[procedure.step]]
id = "warm-up"
ask = "rundeck"
args = {{ job = "warm-up", service = "{{service}}" }}
timeout = "100s"
[[procedure.step]]
id = "gate"
approve = "Go on with {{service}}?"
timeout = "100s"
[[procedure.step]]
id = "mend"
command = ["{root}/mend.sh", "{{service}}", "{{steps.warm-up.output}}"]

[[procedure]]
id = "unanswered"
[[procedure.step]]
id = "warm-up"
ask = "rundeck"
timeout = "4s"
retries = 1
backoff = "100ms"
[[procedure.step]]
id = "mend"
command = ["{root}/mend.sh", "{{service}}", "{{steps.warm-up.output}}"]

[[procedure]]
id = "unapproved"
[[procedure.step]]
id = "gate"
approve = "Go on with {{service}}?"
timeout = "2s"
[[procedure.step]]
id = "mend"
command = ["{root}/mend.sh", "{{service}}", "approved"]

[[procedure]]
id = "held"
[[procedure.step]]
id = "mend"
command = ["{root}/mend.sh", "{{service}}", "approved"]
"#
    );
    std::fs::create_dir_all(folder.join("up")).expect("a folder");
    for name in ["asked", "unanswered", "unapproved", "held"] {
        std::fs::write(folder.join("up").join(name), "").expect("written");
        let policy = if name == "held" { "held" } else { "default" };
        plan += &format!(
            r#"
[[service]]
id = "{name}"
rto = "5m"
rpo = "1h"
policy = "{policy}"
procedure = "{name}"
[[service.probe]]
command = ["/usr/bin/test", "-e", "{root}/up/{name}"]
exit_codes = {{ 0 = "healthy", 1 = "failed" }}
every = "1s"
timeout = "1s"
"#
        );
    }
    std::fs::write(folder.join("plan.toml"), plan).expect("written");
}

/// A running Rebound, and the other program beside it.
struct Gates<'a> {
    folder: &'a Path,
    client: KafkaClient,
    url: String,
    said: u32,
}

impl Gates<'_> {
    fn breaks(&self, service: &str) {
        std::fs::remove_file(self.folder.join("up").join(service)).expect("removed");
    }

    /// What the recoveries topic says of a service, in order.
    fn told(&self, service: &str) -> Vec<EventData> {
        let all = self.client.read(Topic::Recoveries);
        all.into_iter().filter(|s| s.event.subject.as_str() == service).map(|s| s.event.data).collect()
    }

    fn wait<T>(&self, service: &str, name: &str, what: impl Fn(&EventData) -> Option<T>) -> T {
        wait_for(&format!("{name} of {service}"), || self.told(service).iter().find_map(&what))
    }

    fn triggered(&self, service: &str) -> RecoveryId {
        self.wait(service, "recovery.triggered", |data| match data {
            EventData::RecoveryTriggered(data) => Some(data.recovery.clone()),
            _ => None,
        })
    }

    fn started(&self, service: &str, step: &str) {
        self.wait(service, "step.started", |data| match data {
            EventData::StepStarted(data) if data.step.as_str() == step => Some(()),
            _ => None,
        });
    }

    /// How the `attempt`-th attempt at a step ended: how, with which output, with which error.
    fn ended(&self, service: &str, step: &str, attempt: u32) -> (StepOutcome, String, String) {
        self.wait(service, "step.finished", |data| match data {
            EventData::StepFinished(data) if data.step.as_str() == step && data.attempt == attempt => {
                Some((data.outcome, data.output.clone().unwrap_or_default(), data.error.clone().unwrap_or_default()))
            }
            _ => None,
        })
    }

    fn finished(&self, service: &str) -> RecoveryOutcome {
        self.wait(service, "recovery.finished", |data| match data {
            EventData::RecoveryFinished(data) => Some(data.outcome),
            _ => None,
        })
    }

    /// Another program says something; under another id each time, as a careless one does.
    fn says(&mut self, service: &str, data: impl Into<EventData>) {
        self.said += 1;
        self.client.append(&Event {
            id: EventId::new(&format!("said-{}", self.said)).expect("an id"),
            source: Source::new("rundeck").expect("a source"),
            subject: ServiceId::new(service).expect("an id"),
            occurred_at: chrono::Utc::now(),
            plan: None,
            data: data.into(),
        });
    }

    fn answers(&mut self, service: &str, recovery: &RecoveryId, step: &str, attempt: u32, output: Result<&str, &str>) {
        let data = StepAnswered {
            recovery: recovery.clone(),
            step: StepId::new(step).expect("an id"),
            attempt,
            succeeded: output.is_ok(),
            by: "rundeck".into(),
            output: output.ok().map(str::to_owned),
            error: output.err().map(str::to_owned),
        };
        self.says(service, data);
    }

    fn approve(&self, arguments: &[&str]) -> String {
        succeeds(&[&["recovery", "approve", "--url", &self.url, "--by", "ann"], arguments].concat(), self.folder)
    }

    /// Nothing more has come of it after a while in which it would have.
    fn nothing_comes(&self, service: &str) {
        let of_rebound = |told: Vec<EventData>| {
            told.into_iter()
                .filter(|data| !matches!(data, EventData::StepAnswered(_) | EventData::RecoveryApproved(_)))
                .collect::<Vec<_>>()
        };
        let before = of_rebound(self.told(service));
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(of_rebound(self.told(service)), before, "{service}");
    }
}

#[test]
fn answers_and_approvals_count_once_in_time_and_for_what_they_are_meant() {
    let Some(brokers) = kafka("answers and approvals on Kafka") else { return };
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    write_plan(folder.path());
    let prefix = format!("gates{}", free_port());
    let environment = kafka_environment(&brokers, &prefix);
    let client = KafkaClient::connect(&brokers, &prefix, 2);
    let arguments = ["up", "--plan", "plan.toml", "--data", "data"];
    let up = Running::start(folder.path(), "a", &arguments, &borrowed(&environment)).ready();
    let url = format!("http://127.0.0.1:{}", up.port);
    let mut gates = Gates { folder: folder.path(), client, url, said: 0 };
    wait_for("healthy services", || {
        (up.get("/api/v1/services")?.1.matches(r#""state":"healthy""#).count() == 4).then_some(())
    });
    let foreign = RecoveryId::new("rec-foreign").expect("an id");

    // An answer counts that names recovery, step and attempt; the first of two; and only while it is waited for.
    gates.breaks("asked");
    let (recovery, args) = gates.wait("asked", "step.requested", |data| match data {
        EventData::StepRequested(data) if data.worker == "rundeck" => Some((data.recovery.clone(), data.args.clone())),
        _ => None,
    });
    assert_eq!((args["job"].as_str(), args["service"].as_str()), ("warm-up", "asked"));
    gates.answers("asked", &foreign, "warm-up", 1, Ok("foreign"));
    gates.answers("asked", &recovery, "gate", 1, Ok("of another step"));
    gates.answers("asked", &recovery, "warm-up", 2, Err("of another attempt"));
    gates.nothing_comes("asked");
    gates.answers("asked", &recovery, "warm-up", 1, Ok("first"));
    gates.answers("asked", &recovery, "warm-up", 1, Err("second"));
    assert_eq!(gates.ended("asked", "warm-up", 1), (StepOutcome::Succeeded, "first".into(), String::new()));

    // A person's word: for this step of this recovery, and no other.
    gates.started("asked", "gate");
    let approved = |recovery: &RecoveryId, step| RecoveryApproved {
        recovery: recovery.clone(),
        by: "eve".into(),
        comment: None,
        step,
    };
    let step = |step: &str| Some(StepId::new(step).expect("an id"));
    gates.says("asked", approved(&foreign, step("gate")));
    gates.says("asked", approved(&recovery, step("warm-up")));
    gates.says("asked", approved(&recovery, None));
    gates.nothing_comes("asked");
    let said = gates.approve(&[recovery.as_str(), "--step", "gate"]);
    assert!(said.starts_with(&format!("{recovery}: step gate may go on")), "{said}");
    assert_eq!(gates.ended("asked", "gate", 1), (StepOutcome::Succeeded, "approved by ann".into(), String::new()));
    assert_eq!(gates.finished("asked"), RecoveryOutcome::Succeeded);
    gates.answers("asked", &recovery, "warm-up", 1, Err("long afterwards"));
    gates.says("asked", approved(&recovery, step("gate")));
    gates.nothing_comes("asked");

    // Nobody answers in time; what comes then is not taken for an answer to the second attempt.
    gates.breaks("unanswered");
    let recovery = gates.triggered("unanswered");
    let (outcome, _, error) = gates.ended("unanswered", "warm-up", 1);
    assert_eq!((outcome, error.as_str()), (StepOutcome::TimedOut, "rundeck did not answer within 4s"));
    gates.answers("unanswered", &recovery, "warm-up", 1, Ok("too late"));
    let (outcome, _, _) = gates.ended("unanswered", "warm-up", 2);
    assert_eq!(outcome, StepOutcome::TimedOut);
    assert_eq!(gates.finished("unanswered"), RecoveryOutcome::Failed);
    gates.answers("unanswered", &recovery, "warm-up", 2, Ok("too late"));
    gates.nothing_comes("unanswered");

    // Nobody approves in time.
    gates.breaks("unapproved");
    let recovery = gates.triggered("unapproved");
    let (outcome, _, error) = gates.ended("unapproved", "gate", 1);
    assert_eq!((outcome, error.as_str()), (StepOutcome::TimedOut, "nobody approved within 2s: Go on with unapproved?"));
    assert_eq!(gates.finished("unapproved"), RecoveryOutcome::Failed);
    gates.says("unapproved", approved(&recovery, step("gate")));
    gates.nothing_comes("unapproved");

    // A recovery that may not begin without a person's word.
    gates.breaks("held");
    let recovery = gates.triggered("held");
    gates.says("held", approved(&foreign, None));
    gates.says("held", approved(&recovery, step("mend")));
    gates.nothing_comes("held");
    gates.approve(&[recovery.as_str()]);
    gates.says("held", approved(&recovery, None));
    assert_eq!(gates.finished("held"), RecoveryOutcome::Succeeded);

    assert_eq!(lines(&folder.path().join("ledger")), ["asked first", "held approved"], "what was done, and how often");
    assert_eq!(up.stop(), Some(0));
    succeeds(&["log", "verify", "--data", "data"], folder.path());
}
