//! People stop recoveries, approve steps in time and out of it, and look at dry runs.

use rebound_schemas::event::{Outcome, RecoveryApproved, RecoveryCancelled, StepOutcome, TriggerMode};
use rebound_schemas::plan::{Action, OnCancel, OnFailure, Step};
use rebound_schemas::{EventData, StepId};

use super::tests::{LONG, Scene, gone, observation, settings, shell_step, task, written};
use super::*;

fn cancelled(now: bool) -> EventData {
    let (recovery, by, reason) = (RecoveryId::new("rec-1").unwrap(), "ann".into(), "wrong disk".into());
    RecoveryCancelled { recovery, by, reason, now }.into()
}

fn approved(step: &str, at: DateTime<Utc>) -> Event {
    let (recovery, step) = (RecoveryId::new("rec-1").unwrap(), StepId::new(step).ok());
    let data = RecoveryApproved { recovery, by: "ann".into(), step, comment: None };
    said(data.into(), at)
}

fn said(data: EventData, at: DateTime<Utc>) -> Event {
    Event { data, occurred_at: at, ..observation(Outcome::Failed) }
}

/// Runs a task while `people` do what they do; answers how it ended and what they found.
async fn run<T>(
    scene: &mut Scene,
    task: &Task,
    people: impl AsyncFnOnce(broadcast::Sender<Arc<Event>>) -> T,
) -> (Result<RecoveryOutcome, RunnerError>, T) {
    let (sender, mut heard) = broadcast::channel(64);
    let settings = settings();
    let stop = scene.stop.clone();
    let running = run_task(task, "r", &mut scene.journal, &mut heard, &settings, &stop);
    tokio::join!(Box::pin(running), people(sender))
}

fn stop_and_undo(scene: &Scene, on_cancel: OnCancel) -> Task {
    let mark = |id: &str, what: &str| shell_step(id, &format!("echo {what} >> {}", scene.path("done").display()));
    let long = shell_step("long", &format!("echo $$ > {}; exec /usr/bin/sleep 1", scene.path("pid").display()));
    let mut task = task(vec![mark("first", "first"), Step { retries: 3, ..long }, mark("last", "last")]);
    let script = task.steps.as_mut().unwrap();
    script.on_cancel = on_cancel;
    let mut undo = script.steps[0].clone();
    undo.step = Step { undoes: Some(StepId::new("first").unwrap()), ..mark("undo-first", "undone") };
    undo.undoes = Some(0);
    script.steps.push(undo);
    task
}

#[tokio::test]
async fn a_cancelled_recovery_ends_after_its_step_and_rolls_back_if_its_procedure_says_so() {
    for (on_cancel, now) in
        [(OnCancel::Stop, false), (OnCancel::RollBack, false), (OnCancel::Stop, true), (OnCancel::RollBack, true)]
    {
        let mut scene = Scene::new();
        let task = stop_and_undo(&scene, on_cancel);
        let file = scene.path("pid");
        let (ended, pid) = run(&mut scene, &task, async |people| {
            let pid = written(&file).await;
            people.send(Arc::new(said(cancelled(now), super::now()))).unwrap();
            // Said again, it changes nothing.
            people.send(Arc::new(said(cancelled(now), super::now()))).unwrap();
            (pid, people)
        })
        .await;
        assert_eq!(ended, Ok(RecoveryOutcome::Cancelled));
        assert!(gone(&pid.0).await);
        let back = on_cancel == OnCancel::RollBack;
        let mut want = vec!["recovery.started", "first 1 started", "first 1 succeeded", "long 1 started"];
        want.extend(if now { &["long 1 failed", "long 2 skipped"][..] } else { &["long 1 succeeded"] });
        want.push("last 1 skipped");
        want.extend(if back { &["undo-first 1 started", "undo-first 1 succeeded"][..] } else { &[] });
        want.push("finished cancelled");
        assert_eq!(scene.journal.story(), want, "{on_cancel:?}, now: {now}");
        let reason = scene.journal.finished().reason.clone().unwrap();
        let rest = if back { "; rolled back: first" } else { "" };
        assert_eq!(reason, format!("ann called it off: wrong disk{rest}"));
        let done = std::fs::read_to_string(scene.path("done")).unwrap();
        assert_eq!(done, if back { "first\nundone\n" } else { "first\n" });
    }
}

#[tokio::test]
async fn what_only_waits_is_waited_for_no_more() {
    let gate = Step { action: Action::Approve { question: "go on?".into() }, ..shell_step("gate", "") };
    let wait = Step { action: Action::WaitForProbe { probe: None }, ..shell_step("wait", "") };
    let again = Step { retries: 1, backoff: LONG, backoff_max: LONG, ..shell_step("again", "exit 1") };
    for (step, ended) in [(gate, "gate 1 failed"), (wait, "wait 1 failed"), (again, "again 1 failed")] {
        let mut scene = Scene::new();
        let task = task(vec![Step { on_failure: OnFailure::Escalate, ..step }]);
        let (outcome, _people) = run(&mut scene, &task, async |people| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            people.send(Arc::new(said(cancelled(false), now()))).unwrap();
            people
        })
        .await;
        assert_eq!(outcome, Ok(RecoveryOutcome::Cancelled));
        let story = scene.journal.story();
        assert_eq!(story[2], ended, "{story:?}");
        assert!(!story.contains(&"recovery.escalated".to_owned()), "a person stopped it: {story:?}");
    }
}

#[tokio::test]
async fn a_cancel_during_the_verification_ends_it() {
    let mut scene = Scene::new();
    let file = scene.path("pid");
    let task = task(vec![shell_step("a", &format!("echo 1 > {}", file.display()))]);
    let (outcome, _people) = run(&mut scene, &task, async |people| {
        written(&file).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        people.send(Arc::new(said(cancelled(false), now()))).unwrap();
        people
    })
    .await;
    assert_eq!(outcome, Ok(RecoveryOutcome::Cancelled));
    assert_eq!(scene.journal.story()[2..], ["a 1 succeeded", "finished cancelled"]);
}

#[tokio::test]
async fn said_before_the_first_step_nothing_is_done() {
    let mut scene = Scene::new();
    let task = stop_and_undo(&scene, OnCancel::RollBack);
    let (sender, mut heard) = broadcast::channel(4);
    sender.send(Arc::new(said(cancelled(false), now()))).unwrap();
    let outcome = run_task(&task, "r", &mut scene.journal, &mut heard, &settings(), &scene.stop).await;
    assert_eq!(outcome, Ok(RecoveryOutcome::Cancelled));
    assert!(!scene.path("done").exists());
    let reason = scene.journal.finished().reason.clone().unwrap();
    assert_eq!(reason, "ann called it off: wrong disk; there was nothing to roll back");
}

#[tokio::test]
async fn a_step_is_approved_while_it_waits_and_at_no_other_time() {
    let gate = |id: &str, timeout| Step {
        action: Action::Approve { question: "go on?".into() },
        timeout,
        ..shell_step(id, "")
    };
    let blink = Duration::from_millis(400);
    for (name, early, late, want) in [
        ("in time", false, true, "second 1 succeeded"),
        ("before the step began", true, false, "second 1 timed_out"),
        ("never", false, false, "second 1 timed_out"),
    ] {
        let mut scene = Scene::new();
        let file = scene.path("first");
        let first = shell_step("first", &format!("echo 1 > {}; exec /usr/bin/sleep 0.3", file.display()));
        let task = Task {
            verify_within: Duration::from_millis(1),
            ..task(vec![first, gate("second", if late { LONG } else { blink })])
        };
        let (_, _people) = run(&mut scene, &task, async |people| {
            written(&file).await;
            if early {
                people.send(Arc::new(approved("second", now()))).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            if late {
                // Delivered again, one from before the step is still from before it.
                let before = DateTime::from_timestamp(0, 0).unwrap();
                people.send(Arc::new(approved("second", before))).unwrap();
                people.send(Arc::new(approved("second", now()))).unwrap();
            }
            people
        })
        .await;
        let story = scene.journal.story();
        assert!(story.contains(&want.to_owned()), "{name}: {story:?}");
    }
}

#[tokio::test]
async fn a_dry_run_tells_every_step_and_executes_none() {
    let mut scene = Scene::new();
    let mark = scene.path("mark");
    let find = shell_step("find", &format!("echo > {}", mark.display()));
    let mut used = shell_step("use", "");
    let argv = ["/bin/sh", "-c", "restore \"$1\" at {service}", "-", "{steps.find.output}"];
    used.action = Action::Command { argv: argv.map(String::from).to_vec(), env: Default::default() };
    let lever = Step { action: Action::Manual { instruction: "pull the lever".into() }, ..shell_step("lever", "") };
    let gate = Step { action: Action::Approve { question: "sure?".into() }, ..shell_step("gate", "") };
    let mut task = task(vec![find, lever, gate, used]);
    task.trigger.mode = TriggerMode::DryRun;
    let ended = run(&mut scene, &task, async |_| ()).await.0;
    assert_eq!(ended, Ok(RecoveryOutcome::DryRun));
    assert!(!mark.exists(), "it was executed");
    let finished: Vec<_> = scene
        .journal
        .events
        .iter()
        .filter_map(|event| match &event.data {
            EventData::StepFinished(data) => Some((data.step.as_str(), data.outcome, data.output.as_deref().unwrap())),
            _ => None,
        })
        .collect();
    let none = |step| (step, StepOutcome::Skipped, "dry run: not executed");
    assert_eq!(finished, ["find", "lever", "gate", "use"].map(none));
    let told: Vec<_> = scene
        .journal
        .events
        .iter()
        .filter_map(|event| match &event.data {
            EventData::StepStarted(data) => Some(data.action.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(told[1..3], ["for people: pull the lever", "wait for approval: sure?"]);
    assert_eq!(told[3], "run /bin/sh -c restore \"$1\" at api - <output of find>");
    assert_eq!(scene.journal.finished().reason.as_deref(), Some("4 steps were told, none was executed"));

    let mut scene = Scene::new();
    let gone = Task { steps: Err("procedure restart is no longer in the plan".into()), ..task };
    let ended = run(&mut scene, &gone, async |_| ()).await.0;
    assert_eq!(ended, Ok(RecoveryOutcome::DryRun));
    assert!(scene.journal.finished().reason.as_deref().unwrap().starts_with("it would have failed: procedure"));
}
