//! Whole recoveries with real programs, a journal in memory that can fence and fail, and live observations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rebound_schemas::event::{ErrorClass, Outcome, RecoveryFinished, RecoveryMethod, RecoveryTriggered, TriggerMode};
use rebound_schemas::plan::{Action, OnCancel, OnFailure, Procedure, Step};
use rebound_schemas::{EventData, IncidentId, PlanVersion, ProbeId, ProcedureId, ServiceId, SiteId, StepId};

use super::*;
use crate::procedure::{self, Placeholders};
use crate::{action, testing};

pub(super) const LONG: Duration = Duration::from_secs(60);

/// Keeps what is recorded; from the `fence_at`-th record on it is fenced, and the first `failures` calls fail after
/// having appended, as a bus may.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) events: Vec<Event>,
    pub(super) fence_at: Option<usize>,
    pub(super) failures: usize,
    pub(super) calls: usize,
}

#[async_trait]
impl Journal for Memory {
    async fn record(&mut self, events: Vec<Event>) -> Result<(), JournalError> {
        self.calls += 1;
        if self.fence_at.is_some_and(|at| self.calls >= at) {
            return Err(JournalError::Fenced);
        }
        self.events.extend(events);
        if self.calls <= self.failures {
            return Err(JournalError::Unavailable("no leader".into()));
        }
        Ok(())
    }
}

impl Memory {
    pub(super) fn story(&self) -> Vec<String> {
        self.events
            .iter()
            .map(|event| match &event.data {
                EventData::StepStarted(data) => format!("{} {} started", data.step, data.attempt),
                EventData::StepFinished(data) => format!("{} {} {}", data.step, data.attempt, data.outcome),
                EventData::RecoveryVerified(data) => format!("verified {}", data.passed),
                EventData::RecoveryFinished(data) => format!("finished {}", data.outcome),
                other => other.kind().as_str().to_owned(),
            })
            .collect()
    }

    pub(super) fn finished(&self) -> &RecoveryFinished {
        match &self.events.last().unwrap().data {
            EventData::RecoveryFinished(data) => data,
            other => panic!("it ended with {}", other.kind().as_str()),
        }
    }
}

pub(super) fn shell_step(id: &str, script: &str) -> Step {
    Step {
        id: StepId::new(id).unwrap(),
        name: id.into(),
        needs: vec![],
        after: vec![],
        when: None,
        each: None,
        undoes: None,
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        action: Action::Command { argv: ["/bin/sh", "-c", script].map(String::from).to_vec(), env: BTreeMap::new() },
        timeout: LONG,
        retries: 0,
        on_failure: OnFailure::Stop,
    }
}

pub(super) fn probe() -> ProbeId {
    ProbeId::new("api-http").unwrap()
}

pub(super) fn task(steps: Vec<Step>) -> Task {
    let trigger = RecoveryTriggered {
        recovery: RecoveryId::new("rec-1").unwrap(),
        incident: IncidentId::new("inc-1").unwrap(),
        attempt: 1,
        procedure: ProcedureId::new("restart").unwrap(),
        method: None,
        mode: TriggerMode::Auto,
        first_failure_at: DateTime::from_timestamp(0, 0).unwrap(),
        not_before: None,
        by: None,
        reason: Some("connection refused".into()),
        error_class: Some(ErrorClass::Network),
        approve_until: None,
        asked: None,
    };
    let placeholders = Placeholders {
        service: ServiceId::new("api").unwrap(),
        site: SiteId::new("primary").unwrap(),
        incident: trigger.incident.clone(),
        recovery: trigger.recovery.clone(),
        attempt: 1,
        reason: "connection refused".into(),
        error_class: ErrorClass::Network,
        first_failure_at: trigger.first_failure_at,
        inputs: BTreeMap::new(),
    };
    let plan = Plan::parse(PLAN, "plan.toml").unwrap();
    let procedure = Procedure {
        id: trigger.procedure.clone(),
        name: "restart".into(),
        steps,
        rollback: vec![],
        concurrency: 1,
        parallel: 1,
        demotion: None,
        failover: None,
        inputs: BTreeMap::new(),
        on_cancel: OnCancel::Stop,
    };
    Task {
        trigger,
        service: placeholders.service.clone(),
        plan: PlanVersion::of_text("plan"),
        method: Some(RecoveryMethod::ActivePassive),
        steps: procedure::unfold(&procedure, &plan, &placeholders).map_err(|e| e.to_string()),
        probes: vec![probe()],
        successes: 2,
        verify_within: LONG,
        validations: vec![],
        moves: None,
        allow: vec!["/bin/sh".into()],
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        kill_grace: Duration::from_millis(200),
        drain: Duration::from_millis(100),
        journal_patience: Duration::from_millis(300),
    }
}

/// Sees the probe as healthy once `alive` is there, and as failed before, every 10 ms.
pub(super) struct Watching<'a> {
    pub(super) alive: &'a Path,
}

#[async_trait]
impl Observations for Watching<'_> {
    async fn next(&mut self) -> Option<Arc<Event>> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let outcome = if self.alive.exists() { Outcome::Healthy } else { Outcome::Failed };
        Some(Arc::new(observation(outcome)))
    }
}

pub(super) fn observation(outcome: Outcome) -> Event {
    let now = now();
    let data = testing::seen(probe().as_str(), outcome);
    testing::event("rebound/probe", &now.timestamp_micros().to_string(), "api", now, data)
}

pub(super) struct Scene {
    folder: tempfile::TempDir,
    pub(super) journal: Memory,
    pub(super) stop: Stop,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), journal: Memory::default(), stop: Stop::default() }
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(super) async fn run(&mut self, task: &Task) -> Result<RecoveryOutcome, RunnerError> {
        let alive = self.folder.path().join("alive");
        let mut watching = Watching { alive: &alive };
        run_task(task, "runner-1", &mut self.journal, &mut watching, &settings(), &self.stop).await
    }
}

#[tokio::test]
async fn a_recovery_that_works_is_journalled_step_by_step_and_verified() {
    let mut scene = Scene::new();
    let alive = scene.path("alive");
    let mut first = shell_step("stop", "echo stopped {service}");
    first.name = "Stop it".into();
    let second = Step { needs: vec![first.id.clone()], ..shell_step("start", &format!("echo > {}", alive.display())) };
    let task = task(vec![second, first]);
    assert_eq!(scene.run(&task).await, Ok(RecoveryOutcome::Succeeded));
    let want = [
        "recovery.started",
        "stop 1 started",
        "stop 1 succeeded",
        "start 1 started",
        "start 1 succeeded",
        "verified true",
        "finished succeeded",
    ];
    assert_eq!(scene.journal.story(), want);
    let EventData::StepFinished(stopped) = &scene.journal.events[2].data else { panic!() };
    assert_eq!((stopped.output.as_deref(), stopped.code), (Some("stopped api\n"), Some(0)));
    let EventData::RecoveryVerified(verified) = &scene.journal.events[5].data else { panic!() };
    assert_eq!((verified.evidence.len(), verified.checks.len()), (2, 1));
    assert_eq!(scene.journal.finished().method, Some(RecoveryMethod::ActivePassive));
    assert_eq!(scene.journal.events[6].id.as_str(), "rec-1:finished");
    for event in &scene.journal.events {
        assert_eq!((event.source.as_str(), event.subject.as_str()), (SOURCE, "api"));
        assert_eq!(rebound_schemas::decode(&rebound_schemas::encode(event)).as_ref(), Ok(event));
    }
    let ids: BTreeSet<_> = scene.journal.events.iter().map(|e| &e.id).collect();
    assert_eq!(ids.len(), want.len(), "two events have one id");
}

#[tokio::test]
async fn steps_that_succeed_are_not_enough() {
    let mut scene = Scene::new();
    let task = Task { verify_within: Duration::from_millis(300), ..task(vec![shell_step("start", "exit 0")]) };
    assert_eq!(scene.run(&task).await, Ok(RecoveryOutcome::Failed));
    assert_eq!(scene.journal.story()[3..], ["verified false", "finished failed"]);
    let reason = scene.journal.finished().reason.clone().unwrap();
    assert!(reason.contains("verification did not pass in time: probe api-http"), "{reason}");
}

#[tokio::test]
async fn observations_from_before_the_last_step_count_for_nothing() {
    let scene = &mut Scene::new();
    let (sender, mut receiver) = broadcast::channel(16);
    for _ in 0..10 {
        sender.send(Arc::new(observation(Outcome::Healthy))).unwrap();
    }
    let task = Task { verify_within: Duration::from_millis(300), ..task(vec![shell_step("start", "exit 0")]) };
    let ended = run_task(&task, "r", &mut scene.journal, &mut receiver, &settings(), &scene.stop).await;
    assert_eq!(ended, Ok(RecoveryOutcome::Failed));
    drop(sender);
    let mut journal = Memory::default();
    let ended = run_task(&task, "r", &mut journal, &mut receiver, &settings(), &scene.stop).await;
    assert_eq!(ended, Ok(RecoveryOutcome::Failed), "a stream that has ended is silence, not success");
}

#[tokio::test]
async fn a_failed_step_is_tried_again_and_then_stops_the_rest() {
    let mut scene = Scene::new();
    let tries = scene.path("tries");
    let script = format!("echo x >> {}; exit 3", tries.display());
    let task = task(vec![Step { retries: 2, ..shell_step("a", &script) }, shell_step("b", "exit 0")]);
    assert_eq!(scene.run(&task).await, Ok(RecoveryOutcome::Failed));
    assert_eq!(std::fs::read_to_string(tries).unwrap().lines().count(), 3);
    assert_eq!(scene.journal.story()[5..], ["a 3 started", "a 3 failed", "b 1 skipped", "finished failed"]);
    assert_eq!(scene.journal.finished().reason.as_deref(), Some("step a: /bin/sh exited with 3"));
}

#[tokio::test]
async fn a_manual_step_asks_for_people() {
    let mut scene = Scene::new();
    let lever = Action::Manual { instruction: "replace the {service} disk".into() };
    let task = task(vec![Step { action: lever, ..shell_step("disk", "") }]);
    assert_eq!(scene.run(&task).await, Ok(RecoveryOutcome::Failed));
    assert_eq!(scene.journal.story(), ["recovery.started", "disk 1 skipped", "finished failed"]);
    assert_eq!(scene.journal.finished().reason.as_deref(), Some("step disk: for people: replace the api disk"));
}

#[tokio::test]
async fn waiting_for_a_probe_takes_what_comes_or_times_out() {
    let mut scene = Scene::new();
    let wait = |timeout| Step { action: Action::WaitForProbe { probe: None }, timeout, ..shell_step("wait", "") };
    assert_eq!(scene.run(&task(vec![wait(Duration::from_millis(200))])).await, Ok(RecoveryOutcome::Failed));
    assert_eq!(scene.journal.story()[2], "wait 1 timed_out");
    assert_eq!(scene.journal.finished().error_class, Some(ErrorClass::Timeout));

    scene.journal = Memory::default();
    std::fs::write(scene.path("alive"), "").unwrap();
    assert_eq!(scene.run(&task(vec![wait(LONG)])).await, Ok(RecoveryOutcome::Succeeded));
}

pub(super) async fn written(file: &Path) -> String {
    loop {
        match std::fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

pub(super) async fn gone(pid: &str) -> bool {
    for _ in 0..600 {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Err(_) => return true,
            Ok(stat) if stat.contains(") Z ") => return true,
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    false
}

#[tokio::test]
async fn what_the_plan_no_longer_has_fails_without_acting() {
    let mut scene = Scene::new();
    let task = Task { steps: Err("procedure restart is no longer in the plan".into()), ..task(vec![]) };
    assert_eq!(scene.run(&task).await, Ok(RecoveryOutcome::Failed));
    assert_eq!(scene.journal.story(), ["finished failed"]);
    assert_eq!(scene.journal.finished().error_class, Some(ErrorClass::Configuration));
}

fn triggered(service: &str, procedure: &str) -> Event {
    let trigger = RecoveryTriggered { procedure: ProcedureId::new(procedure).unwrap(), ..task(vec![]).trigger };
    testing::event("rebound/alert", "t", service, now(), trigger)
}

const PLAN: &str = r#"
allow = ["/bin/sh"]
[[policy]]
id = "default"
recoveries = 3
verify_within = "7s"
[[service]]
id = "api"
procedure = "restart"
[[service.probe]]
id = "api-http"
tcp = "127.0.0.1:1"
[[service]]
id = "db"
[[service.probe]]
id = "db-tcp"
tcp = "127.0.0.1:1"
[[procedure]]
id = "restart"
[[procedure.step]]
id = "run"
command = ["/bin/sh", "-c", "echo {service} {attempt}"]
[[procedure.step]]
id = "wait"
wait_for_probe = "db-tcp"
"#;

#[tokio::test]
async fn a_task_takes_everything_from_the_plan() {
    let plan = Plan::parse(PLAN, "plan.toml").unwrap();
    let task = Task::new(&plan, &triggered("api", "restart")).unwrap();
    assert_eq!((task.successes, task.verify_within), (3, Duration::from_secs(7)));
    assert_eq!((&task.probes, &task.allow), (&vec![probe()], &vec!["/bin/sh".to_owned()]));
    assert_eq!(task.watched(), [probe(), ProbeId::new("db-tcp").unwrap()]);
    let Action::Command { argv, .. } = &task.steps.as_ref().unwrap().steps[0].step.action else { panic!() };
    assert_eq!(argv[2], "echo {service} {attempt}");

    let of = |service: &str, procedure: &str| Task::new(&plan, &triggered(service, procedure)).unwrap().steps;
    assert_eq!(
        of("gone", "restart"),
        Err::<crate::procedure::Script, String>("service gone is no longer in the plan".into())
    );
    assert_eq!(of("api", "gone"), Err("procedure gone is no longer in the plan".into()));
    let wrong = Task::new(&plan, &observation(Outcome::Healthy)).unwrap_err();
    assert_eq!(wrong.to_string(), "a recovery begins with recovery.triggered, not with probe.completed");

    let mut scene = Scene::new();
    let (_sender, mut receiver) = broadcast::channel(1);
    let gone = triggered("api", "gone");
    let ended = run_recovery(&plan, &gone, "r", &mut scene.journal, &mut receiver, &settings(), &scene.stop).await;
    assert_eq!((ended, scene.journal.story()), (Ok(RecoveryOutcome::Failed), vec!["finished failed".to_owned()]));
}

#[test]
fn every_procedure_of_the_standing_example_unfolds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/erlmcp").canonicalize().unwrap();
    let text = std::fs::read_to_string(folder.join("plan.toml")).unwrap();
    let plan = Plan::parse_in(&text, "plan.toml", folder.to_str().unwrap()).unwrap();
    for service in plan.services().keys() {
        for procedure in plan.procedures().keys() {
            let task = Task::new(&plan, &triggered(service.as_str(), procedure.as_str())).unwrap();
            let steps = task.steps.unwrap();
            assert!(!steps.steps.is_empty());
            for ready in &steps.steps {
                if let Action::Command { argv, .. } = &ready.step.action {
                    action::allowed_program(&argv[0], &task.allow).unwrap();
                }
            }
        }
    }
}

/// Says the same over and over, as answers that are delivered again.
struct Saying(EventData);

#[async_trait]
impl Observations for Saying {
    async fn next(&mut self) -> Option<Arc<Event>> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some(Arc::new(Event { data: self.0.clone(), ..observation(Outcome::Healthy) }))
    }
}

#[tokio::test]
async fn people_and_other_automation_are_waited_for() {
    use rebound_schemas::event::{RecoveryApproved, StepAnswered};
    let approve = Step { action: Action::Approve { question: "go on?".into() }, ..shell_step("gate", "") };
    let args = BTreeMap::from([("what".to_owned(), "{service}: {reason}".to_owned())]);
    let ask = Step { action: Action::Ask { worker: "rundeck".into(), args }, ..shell_step("job", "") };
    let recovery = RecoveryId::new("rec-1").unwrap();
    let approved = |step: Option<&str>| -> EventData {
        let step = step.map(|step| StepId::new(step).unwrap());
        RecoveryApproved { recovery: recovery.clone(), by: "ann".into(), step, comment: None }.into()
    };
    let answered = |attempt, succeeded| -> EventData {
        let (recovery, step, output, error) = (recovery.clone(), StepId::new("job").unwrap(), Some("42".into()), None);
        StepAnswered { recovery, step, attempt, succeeded, by: "rundeck-1".into(), output, error }.into()
    };
    let short = |step: &Step, timeout| Step { timeout, on_failure: OnFailure::Escalate, ..step.clone() };
    let blink = Duration::from_millis(200);
    let cases = [
        (short(&approve, LONG), approved(Some("gate")), "gate 1 succeeded", Some("approved by ann")),
        // The approval of the recovery, or of another step, is not this step's.
        (short(&approve, blink), approved(None), "gate 1 timed_out", None),
        (short(&approve, blink), approved(Some("other")), "gate 1 timed_out", None),
        (short(&ask, LONG), answered(1, true), "job 1 succeeded", Some("42")),
        (short(&ask, LONG), answered(1, false), "job 1 failed", Some("42")),
        (short(&ask, blink), answered(2, true), "job 1 timed_out", None),
    ];
    for (step, said, want, output) in cases {
        let mut scene = Scene::new();
        let asks = matches!(step.action, Action::Ask { .. });
        let task = Task { verify_within: Duration::from_millis(1), ..task(vec![step]) };
        let mut saying = Saying(said);
        let settings = settings();
        let run = run_task(&task, "r", &mut scene.journal, &mut saying, &settings, &scene.stop);
        assert_eq!(Box::pin(run).await, Ok(RecoveryOutcome::Failed), "nobody probes here");
        let story = scene.journal.story();
        assert_eq!(story[if asks { 3 } else { 2 }], want, "{story:?}");
        assert_eq!(story.contains(&"recovery.escalated".to_owned()), !want.ends_with("succeeded"));
        let ended = scene.journal.events.iter().find_map(|event| match &event.data {
            EventData::StepFinished(data) => Some(data.output.clone()),
            _ => None,
        });
        assert_eq!(ended.unwrap().as_deref(), output);
        if asks {
            let EventData::StepRequested(asked) = &scene.journal.events[2].data else { panic!("{story:?}") };
            assert_eq!((asked.worker.as_str(), asked.attempt), ("rundeck", 1));
            assert_eq!(asked.args["what"], "api: connection refused");
        }
    }
}
