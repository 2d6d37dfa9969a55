//! Every procedure of the standing example, run by the real runner against its stand-ins: broken first, and looked at
//! afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rebound_schemas::event::{Outcome, RecoveryApproved, RecoveryTriggered, TriggerMode};
use rebound_schemas::plan::Check;
use rebound_schemas::{EventData, IncidentId, ProcedureId, RecoveryId, ServiceId, StepId};

use super::*;
use crate::testing;

/// A copy of the example in a folder of its own; its processes end when the folder goes.
struct Example {
    folder: tempfile::TempDir,
    plan: Plan,
}

impl Example {
    fn new() -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/erlmcp");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("bin")).unwrap();
        for entry in std::fs::read_dir(from.join("bin")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join("bin").join(path.file_name().unwrap())).unwrap();
        }
        let text = std::fs::read_to_string(from.join("plan.toml")).unwrap();
        let plan = Plan::parse_in(&text, "plan.toml", folder.path().to_str().unwrap()).unwrap();
        let example = Self { folder, plan };
        example.must("setup.sh");
        example
    }

    fn tool(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let program: PathBuf = self.folder.path().join("bin").join(words.next().unwrap());
        Command::new(program).args(words).env_clear().current_dir("/").output().unwrap()
    }

    fn must(&self, line: &str) -> String {
        let output = self.tool(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn holds(&self, line: &str) -> bool {
        self.tool(line).status.success()
    }

    fn query(&self, sql: &str) -> String {
        let program = self.folder.path().join("bin/data.sh");
        let output = Command::new(program).args(["query", sql]).env_clear().output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn recover(&self, procedure: &str, service: &str) -> (Vec<Event>, RecoveryOutcome) {
        let triggered = triggered(service, procedure);
        let mut journal = Kept::default();
        let mut watching = Looking { example: self, service: ServiceId::new(service).unwrap(), next: 0 };
        let (settings, stop) = (Settings::default(), Stop::default());
        let ended = run_recovery(&self.plan, &triggered, "runner", &mut journal, &mut watching, &settings, &stop);
        let outcome = Box::pin(ended).await.unwrap();
        (journal.0, outcome)
    }
}

fn event(service: &str, id: &str, data: EventData) -> Event {
    testing::event("test", id, service, now(), data)
}

fn triggered(service: &str, procedure: &str) -> Event {
    let data = RecoveryTriggered {
        recovery: RecoveryId::new("rec-1").unwrap(),
        incident: IncidentId::new("inc-1").unwrap(),
        attempt: 1,
        procedure: ProcedureId::new(procedure).unwrap(),
        method: None,
        mode: TriggerMode::Auto,
        first_failure_at: now(),
        not_before: None,
        by: None,
        reason: None,
        error_class: None,
        approve_until: None,
        asked: None,
    };
    event(service, "triggered", data.into())
}

#[derive(Default)]
struct Kept(Vec<Event>);

#[async_trait]
impl Journal for Kept {
    async fn record(&mut self, events: Vec<Event>) -> Result<(), JournalError> {
        self.0.extend(events);
        Ok(())
    }
}

/// Runs the service's own command probe for real, lets its other probes (which look at ports) agree with it, and is
/// the person who approves.
struct Looking<'a> {
    example: &'a Example,
    service: ServiceId,
    next: usize,
}

#[async_trait]
impl Observations for Looking<'_> {
    async fn next(&mut self) -> Option<Arc<Event>> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.next += 1;
        let id = format!("seen-{}", self.next);
        if self.next.is_multiple_of(5) {
            let step = Some(StepId::new("root-cause").unwrap());
            let data =
                RecoveryApproved { recovery: RecoveryId::new("rec-1").unwrap(), by: "ann".into(), step, comment: None };
            return Some(Arc::new(event(self.service.as_str(), &id, data.into())));
        }
        let probes: Vec<_> = self.example.plan.probes_of(&self.service).collect();
        let healthy = probes.iter().all(|probe| match &probe.check {
            Check::Command(command) => {
                Command::new(&command.argv[0]).args(&command.argv[1..]).env_clear().output().unwrap().status.success()
            }
            _ => true,
        });
        let outcome = if healthy { Outcome::Healthy } else { Outcome::Failed };
        let data = testing::seen(probes[self.next % probes.len()].id.as_str(), outcome);
        Some(Arc::new(event(self.service.as_str(), &id, data.into())))
    }
}

/// Procedure, service, what breaks it, and what holds again afterwards (and did not before).
const TABLE: [(&str, &str, &[&str], &str); 16] = [
    ("primary-site", "node", &["fact.sh set site.power=off"], "fact.sh is site.power=on site.security=armed"),
    (
        "network",
        "api-gateway",
        &["fact.sh set network.routing=lost"],
        "fact.sh is network.routing=converged network.load-balancers=up",
    ),
    ("cloud-failover", "database", &[], "data.sh same postgres cloud"),
    ("cloud-failback", "database", &["fact.sh set traffic=cloud"], "fact.sh is traffic=primary primary.state=running"),
    ("core-system", "node", &["component.sh stop node core registry"], "component.sh check node core registry"),
    ("database-full-restore", "database", &["data.sh corrupt postgres"], "data.sh verify postgres"),
    (
        "database-point-in-time",
        "resource-manager",
        &["data.sh corrupt postgres", "component.sh stop resource-manager"],
        "data.sh verify postgres",
    ),
    ("promote-replica", "database", &["component.sh stop database"], "component.sh check database"),
    (
        "session-restore",
        "session-manager",
        &["data.sh identify redis", "data.sh restore redis", "data.sh corrupt redis"],
        "data.sh verify redis",
    ),
    ("data-synchronisation", "database", &[], "data.sh same postgres secondary"),
    ("dns-and-load-balancer", "api-gateway", &["component.sh stop api-gateway"], "zone.sh is api standby"),
    ("virtual-ip-failover", "authentication", &["fact.sh set vip.holder=failed"], "fact.sh is vip.holder=passive"),
    ("security", "registry", &["fact.sh set erlmcp.credentials=stolen"], "fact.sh is erlmcp.credentials=rotated"),
    ("certificate-renewal", "api-gateway", &["certificate.sh expire"], "certificate.sh verify"),
    ("service-recovery", "reporting", &["component.sh stop reporting"], "component.sh check reporting"),
    (
        "configuration-restore",
        "monitoring",
        &["data.sh identify configuration", "data.sh restore configuration", "data.sh corrupt configuration"],
        "data.sh verify configuration",
    ),
];

#[tokio::test]
async fn every_procedure_brings_back_what_was_broken() {
    let example = Example::new();
    let covered: BTreeSet<&str> = TABLE.iter().map(|(procedure, ..)| *procedure).collect();
    let all: BTreeSet<&str> = example.plan.procedures().keys().map(ProcedureId::as_str).collect();
    assert_eq!(covered, all, "a procedure is not run here");
    for (procedure, service, faults, holds) in TABLE {
        faults.iter().for_each(|fault| drop(example.must(fault)));
        assert!(!example.holds(holds), "{procedure}: {holds} before anything was done");
        let (events, outcome) = example.recover(procedure, service).await;
        let told = events.iter().map(|event| format!("{:?}", event.data)).collect::<Vec<_>>().join("\n");
        assert_eq!(outcome, RecoveryOutcome::Succeeded, "{procedure}:\n{told}");
        assert!(example.holds(holds), "{procedure}: {holds} does not hold afterwards");
        match procedure {
            // What was committed after the backup is gone after a full restore, and back after one to a point in time.
            "database-full-restore" => {
                assert_eq!(example.query("SELECT name, balance FROM accounts"), "ann|100\nbob|50")
            }
            "database-point-in-time" => {
                assert_eq!(example.query("SELECT name, balance FROM accounts"), "ann|125\nbob|50\ncem|75");
                assert_eq!(example.query("SELECT count(*) FROM sessions"), "500");
            }
            _ => {}
        }
        let moved = events.iter().map(Event::kind).map(|kind| kind.as_str()).filter(|kind| kind.starts_with("fail"));
        let moved = moved.collect::<Vec<_>>();
        match procedure {
            "cloud-failover" => assert_eq!(moved, ["failover.started", "failover.finished"]),
            "cloud-failback" => assert_eq!(moved, ["failback.finished"]),
            _ => assert!(moved.is_empty(), "{procedure}: {moved:?}"),
        }
    }
}

#[tokio::test]
async fn a_failed_validation_fails_the_recovery() {
    let example = Example::new();
    example.must("data.sh corrupt postgres");
    // The service answers again, but its data is damaged.
    let (events, outcome) = example.recover("promote-replica", "database").await;
    assert_eq!(outcome, RecoveryOutcome::Failed);
    let verified = events.iter().find_map(|event| match &event.data {
        EventData::RecoveryVerified(data) => Some(data.clone()),
        _ => None,
    });
    let checks = verified.unwrap().checks;
    let found: Vec<_> =
        checks.iter().map(|check| (check.name.as_str(), check.category.unwrap().as_str(), check.passed)).collect();
    let expected = [
        ("probe database/command", "health", true),
        ("probe database/tcp", "health", true),
        ("backups-encrypted", "compliance", true),
        ("database-consistent", "data", false),
    ];
    assert_eq!(found, expected);
    let EventData::RecoveryFinished(finished) = &events.last().unwrap().data else { panic!("it did not end") };
    assert!(finished.reason.as_ref().unwrap().contains("database-consistent"), "{finished:?}");
}

#[tokio::test]
async fn a_failover_that_fails_is_rolled_back() {
    let example = Example::new();
    example.must("fact.sh set primary.state=running");
    example.must("zone.sh corrupt");
    let (events, outcome) = example.recover("cloud-failover", "database").await;
    assert_eq!(outcome, RecoveryOutcome::Failed);
    example.must("fact.sh is primary.state=running cloud.state=stopped");
    let EventData::RecoveryFinished(finished) = &events.last().unwrap().data else { panic!("it did not end") };
    let reason = finished.reason.as_ref().unwrap();
    assert!(
        reason.starts_with("step dns: ") && reason.ends_with("rolled back: stop-primary, start-target"),
        "{reason}"
    );
    let undone: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.data {
            EventData::StepStarted(data) if data.step.as_str().starts_with("undo-") => Some(data.step.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(undone, ["undo-start-target", "undo-stop-primary"]);
    assert!(events.iter().any(|event| matches!(&event.data, EventData::FailoverFinished(data) if !data.succeeded)));
}
