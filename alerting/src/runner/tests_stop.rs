//! What ends a recovery from outside: a fence, a partition that goes, a shutdown, a journal that takes nothing.

use rebound_schemas::plan::Step;

use super::tests::{LONG, Memory, Scene, Watching, gone, settings, shell_step, task, written};
use super::*;

#[tokio::test]
async fn fenced_at_any_record_nothing_more_is_done() {
    // Each step leaves a mark; a mark may be there only if the step's start was journalled.
    for fence_at in 1..=7 {
        let mut scene = Scene::new();
        let mark = |name: &str| shell_step(name, &format!("echo > {}", scene.path(name).display()));
        let task = task(vec![mark("first"), mark("alive")]);
        scene.journal.fence_at = Some(fence_at);
        assert_eq!(scene.run(&task).await, Err(RunnerError::Fenced(task.trigger.recovery.clone())), "{fence_at}");
        let story = scene.journal.story();
        assert_eq!(story.len(), fence_at - 1);
        for name in ["first", "alive"] {
            let journalled = story.contains(&format!("{name} 1 started"));
            assert_eq!(scene.path(name).exists(), journalled, "fenced at {fence_at}: {story:?}");
        }
    }
}

#[tokio::test]
async fn losing_the_partition_kills_the_running_step_and_journals_nothing() {
    let mut scene = Scene::new();
    let (pid, stop) = (scene.path("pid"), scene.stop.clone());
    let task = task(vec![shell_step("a", &format!("trap '' TERM; echo $$ > {}; while :; do :; done", pid.display()))]);
    let pid = tokio::select! {
        ended = scene.run(&task) => panic!("it ended: {ended:?}"),
        pid = written(&pid) => pid,
    };
    assert!(gone(&pid).await, "dropped, but the step lives on");

    let mut scene = Scene::new();
    let file = scene.path("pid");
    let task = self::task(vec![shell_step("a", &format!("echo $$ > {}; exec /usr/bin/sleep 600", file.display()))]);
    scene.stop = stop.clone();
    let (ended, pid) = tokio::join!(scene.run(&task), async {
        let pid = written(&file).await;
        stop.fenced.cancel();
        pid
    });
    assert!(matches!(ended, Err(RunnerError::Fenced(_))));
    assert!(gone(&pid).await, "fenced, but the step lives on");
    assert_eq!(scene.journal.story(), ["recovery.started", "a 1 started"]);
}

#[tokio::test]
async fn a_shutdown_drains_and_says_that_it_was_interrupted() {
    let mut scene = Scene::new();
    let (file, stop) = (scene.path("pid"), scene.stop.clone());
    let long = shell_step("a", &format!("echo $$ > {}; exec /usr/bin/sleep 600", file.display()));
    let task = task(vec![Step { retries: 5, ..long }, shell_step("b", "exit 0")]);
    let (ended, pid) = tokio::join!(scene.run(&task), async {
        let pid = written(&file).await;
        stop.shutdown.cancel();
        pid
    });
    assert_eq!(ended, Ok(RecoveryOutcome::Interrupted));
    assert!(gone(&pid).await);
    assert_eq!(scene.journal.story()[1..], ["a 1 started", "a 1 failed", "finished interrupted"]);
    assert_eq!(scene.journal.finished().reason.as_deref(), Some("Rebound was stopped during step a"));
}

#[tokio::test]
async fn what_is_overdue_is_ended_at_once_and_journalled() {
    let mut scene = Scene::new();
    let (file, stop) = (scene.path("pid"), scene.stop.clone());
    let long = shell_step("a", &format!("echo $$ > {}; exec /usr/bin/sleep 600", file.display()));
    let task = task(vec![long, shell_step("b", "exit 0")]);
    let patient = Settings { drain: LONG * 10, ..settings() };
    let mut watching = Watching { alive: &scene.path("alive") };
    let run = run_task(&task, "me", &mut scene.journal, &mut watching, &patient, &scene.stop);
    let (ended, pid) = tokio::join!(Box::pin(run), async {
        let pid = written(&file).await;
        stop.shutdown.cancel();
        stop.overdue.cancel();
        pid
    });
    assert_eq!(ended, Ok(RecoveryOutcome::Interrupted));
    assert!(gone(&pid).await);
    let reason = "its partition went to another instance during step a";
    assert_eq!(scene.journal.finished().reason.as_deref(), Some(reason));
}

#[tokio::test]
async fn an_unavailable_journal_is_tried_again_with_the_same_ids_and_given_up_in_the_end() {
    let mut scene = Scene::new();
    scene.journal.failures = 2;
    std::fs::write(scene.path("alive"), "").unwrap();
    let task = task(vec![shell_step("a", "exit 0")]);
    assert_eq!(scene.run(&task).await, Ok(RecoveryOutcome::Succeeded));
    let started: Vec<_> = scene.journal.events.iter().filter(|e| e.id.as_str() == "rec-1:started").collect();
    assert_eq!(started.len(), 3);
    assert!(started.iter().all(|event| *event == started[0]), "a repeated event differs");

    scene.journal = Memory { failures: usize::MAX, ..Memory::default() };
    let mark = scene.path("mark");
    let task = self::task(vec![shell_step("a", &format!("echo > {}", mark.display()))]);
    assert!(matches!(scene.run(&task).await, Err(RunnerError::Journal { .. })));
    assert!(!mark.exists(), "it acted though nothing could be journalled");
}
