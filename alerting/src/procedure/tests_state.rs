//! Runs played to their end: every row of the fold's table, and what holds of any of them, also after crashes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rebound_schemas::event::{CheckResult, RecoveryOutcome, RecoveryVerified, StepFinished, StepOutcome, StepStarted};
use rebound_schemas::plan::{OnFailure, Procedure, Step};
use rebound_schemas::{EventData, IncidentId, RecoveryId};

use super::tests::{any_steps, placeholders, plan, procedure, step};
use super::*;

fn manual(id: &str, on_failure: OnFailure) -> Step {
    Step { action: Action::Manual { instruction: "pull the lever".into() }, on_failure, ..step(id, &[]) }
}

/// Runs a procedure in which attempts end as `script` says (in order; succeeded when it is used up) and verification
/// gives `verified`; tells what was done, and how it ended.
fn play(steps: Vec<Step>, script: &[StepOutcome], verified: bool) -> (Vec<String>, RecoveryOutcome) {
    play_all(&procedure(steps), script, verified)
}

fn play_all(procedure: &Procedure, script: &[StepOutcome], verified: bool) -> (Vec<String>, RecoveryOutcome) {
    let mut state = RunState::new(unfold(procedure, &plan(), &placeholders()).unwrap());
    let mut script = script.iter();
    let mut done = Vec::new();
    // Attempts that run: the oldest ends first.
    let mut running = std::collections::VecDeque::new();
    loop {
        match state.next() {
            Next::Run { index, attempt, wait, .. } => {
                assert_eq!(wait.is_zero(), attempt == 1);
                started(&mut state, index, attempt);
                running.push_back((index, attempt));
                assert!(running.len() <= procedure.parallel as usize, "too much at once: {running:?}");
            }
            Next::Wait => {
                let (index, attempt) = running.pop_front().expect("somebody is waited for");
                let outcome = *script.next().unwrap_or(&StepOutcome::Succeeded);
                done.push(format!("{} {attempt} {outcome}", state.steps()[index].step.id));
                ended(&mut state, index, attempt, outcome, (outcome != StepOutcome::Succeeded).then_some("x"));
            }
            Next::Settle { index, attempt, outcome, reason } => {
                let (Ok(text) | Err(text)) = &reason;
                done.push(format!("{}: {text}", state.steps()[index].step.id));
                ended(&mut state, index, attempt, outcome, reason.as_ref().err().map(String::as_str));
            }
            Next::Verify => {
                assert!(running.is_empty());
                done.push("verify".into());
                let checks = vec![CheckResult { name: "probe".into(), passed: verified, detail: None, category: None }];
                let (recovery, incident) = ids();
                let data = RecoveryVerified { recovery, incident, passed: verified, checks, evidence: vec![] };
                state.evolve(&data.into());
            }
            Next::Finish { outcome, reason, error_class, escalate } => {
                assert!(running.is_empty(), "it ended while something ran");
                assert_eq!(reason.is_some(), outcome != RecoveryOutcome::Succeeded);
                assert_eq!(error_class.is_some(), reason.is_some());
                done.extend(escalate.then(|| "escalated".to_owned()));
                done.extend(reason.filter(|r| r.contains("roll")).and_then(|r| Some(r.split_once("; ")?.1.to_owned())));
                return (done, outcome);
            }
            Next::Done => panic!("nobody said that it ended"),
        }
        assert!(done.len() < 1000, "it does not end: {done:?}");
    }
}

fn ids() -> (RecoveryId, IncidentId) {
    (placeholders().recovery, placeholders().incident)
}

fn started(state: &mut RunState, index: usize, attempt: u32) {
    let (recovery, incident) = ids();
    let step = state.steps()[index].step.id.clone();
    let data = StepStarted { recovery, incident, step, index: index as u32, attempt, action: String::new() };
    let data = EventData::from(data);
    state.evolve(&data);
    state.evolve(&data);
}

fn ended(state: &mut RunState, index: usize, attempt: u32, outcome: StepOutcome, error: Option<&str>) {
    let (recovery, incident) = ids();
    let step = state.steps()[index].step.id.clone();
    let (index, duration_ms) = (index as u32, 1);
    let (code, output) = (Some(0), Some(format!("{step} printed this\n")));
    let error = error.map(str::to_owned);
    let data =
        StepFinished { recovery, incident, step, index, attempt, outcome, duration_ms, code, output, error }.into();
    state.evolve(&data);
    let once = state.clone();
    state.evolve(&data);
    assert_eq!(*state, once, "a repeated event changed something");
}

#[test]
fn every_row_of_the_table() {
    use OnFailure::{Continue, Stop};
    use RecoveryOutcome as R;
    use StepOutcome::{Failed, Succeeded, TimedOut};
    let with = |id: &str, needs: &[&str], retries, on_failure| Step { retries, on_failure, ..step(id, needs) };
    let check = |steps: Vec<Step>, script: &[StepOutcome], verified, want: &[&str], outcome| {
        let (done, ended) = play(steps, script, verified);
        assert_eq!((done.iter().map(String::as_str).collect::<Vec<_>>(), ended), (want.to_vec(), outcome));
    };
    let two = || vec![with("a", &[], 1, Stop), with("b", &["a"], 0, Stop)];
    check(two(), &[], true, &["a 1 succeeded", "b 1 succeeded", "verify"], R::Succeeded);
    check(two(), &[], false, &["a 1 succeeded", "b 1 succeeded", "verify"], R::Failed);
    check(two(), &[Failed, Succeeded], true, &["a 1 failed", "a 2 succeeded", "b 1 succeeded", "verify"], R::Succeeded);
    let skipped = "b: step a failed before it";
    check(two(), &[TimedOut, Failed], true, &["a 1 timed_out", "a 2 failed", skipped], R::Failed);

    let lenient = || vec![with("a", &[], 0, Continue), with("b", &["a"], 0, Stop), with("c", &[], 0, Stop)];
    let needs = "b: it needs step a, which did not succeed";
    check(lenient(), &[Failed], true, &["a 1 failed", needs, "c 1 succeeded", "verify"], R::Succeeded);
    check(lenient(), &[Failed, Failed], true, &["a 1 failed", needs, "c 1 failed"], R::Failed);

    let people = "m: for people: pull the lever";
    let for_people = "b: step m failed before it";
    check(vec![manual("m", Stop), step("b", &[])], &[], true, &[people, for_people], R::Failed);
    check(vec![manual("m", Continue), step("b", &[])], &[], true, &[people, "b 1 succeeded", "verify"], R::Succeeded);
    check(vec![], &[], true, &["verify"], R::Succeeded);
}

#[test]
fn a_manual_step_whose_need_failed_does_not_stop_by_itself() {
    let mut first = step("a", &[]);
    first.on_failure = OnFailure::Continue;
    let lever = Step { needs: vec![StepId::new("a").unwrap()], ..manual("m", OnFailure::Stop) };
    let (done, outcome) = play(vec![first, lever], &[StepOutcome::Failed], true);
    assert_eq!(done, ["a 1 failed", "m: it needs step a, which did not succeed", "verify"]);
    assert_eq!(outcome, RecoveryOutcome::Succeeded);
}

fn after(id: &str, earlier: &str) -> Step {
    Step { after: vec![StepId::new(earlier).unwrap()], ..step(id, &[]) }
}

fn undo(of: &str) -> Step {
    Step { undoes: Some(StepId::new(of).unwrap()), ..step(&format!("undo-{of}"), &[]) }
}

#[test]
fn steps_run_side_by_side_as_far_as_allowed() {
    let steps = || vec![step("a", &[]), step("b", &[]), step("c", &[]), step("d", &["a", "b", "c"])];
    let wide = Procedure { parallel: 2, ..procedure(steps()) };
    let mut state = RunState::new(unfold(&wide, &plan(), &placeholders()).unwrap());
    for (index, want) in [(0, Some(0)), (1, Some(1)), (2, None)] {
        match (state.next(), want) {
            (Next::Run { index, .. }, Some(wanted)) if index == wanted => started(&mut state, index, 1),
            (Next::Wait, None) => {}
            (other, _) => panic!("{index}: {other:?}"),
        }
    }
    ended(&mut state, 1, 1, StepOutcome::Succeeded, None);
    assert!(matches!(state.next(), Next::Run { index: 2, .. }), "a place is free");
}

#[test]
fn conditions_pass_over_and_what_needs_such_a_step_goes_on() {
    let when = |text: &str| Some(rebound_schemas::plan::When::parse(text).unwrap());
    let lenient = Step { on_failure: OnFailure::Continue, ..step("a", &[]) };
    let on_failure = Step { when: when("steps.a.outcome == 'failed'"), ..after("b", "a") };
    let steps = || vec![lenient.clone(), on_failure.clone(), step("c", &["b"])];
    let (done, outcome) = play(steps(), &[], true);
    let passed = "b: passed over, since this does not hold: steps.a.outcome == 'failed'";
    assert_eq!(
        (done, outcome),
        (["a 1 succeeded", passed, "c 1 succeeded", "verify"].map(String::from).to_vec(), RecoveryOutcome::Succeeded)
    );
    let (done, _) = play(steps(), &[StepOutcome::Failed], true);
    assert_eq!(done, ["a 1 failed", "b 1 succeeded", "c 1 succeeded", "verify"]);
    let unknown = Step { when: when("steps.x.code == 0"), ..step("a", &[]) };
    let (done, outcome) = play(vec![unknown], &[], true);
    assert!(done[0].starts_with("a: its condition steps.x.code == 0 can't be judged"), "{done:?}");
    assert_eq!(outcome, RecoveryOutcome::Failed);
}

#[test]
fn what_succeeded_is_undone_backwards_and_people_are_asked_where_it_says_so() {
    let last = |on_failure| vec![step("a", &[]), step("b", &["a"]), Step { on_failure, ..step("c", &["b"]) }];
    let with =
        |on_failure| Procedure { rollback: vec![undo("a"), undo("b"), undo("c")], ..procedure(last(on_failure)) };
    use StepOutcome::{Failed, Succeeded};
    let tail = |on_failure, script: &[StepOutcome]| play_all(&with(on_failure), script, true).0.split_off(2);
    let script = [Succeeded, Succeeded, Failed];
    let undone = ["c 1 failed", "undo-b 1 succeeded", "undo-a 1 succeeded", "rolled back: a, b"];
    assert_eq!(tail(OnFailure::RollBack, &script), undone);
    assert_eq!(tail(OnFailure::Escalate, &script), ["c 1 failed", "escalated"]);
    assert_eq!(tail(OnFailure::Stop, &script), ["c 1 failed"]);
    let script = [Succeeded, Succeeded, Failed, Failed];
    let stuck = ["c 1 failed", "undo-b 1 failed", "the rollback failed, not undone: a, b"];
    assert_eq!(tail(OnFailure::RollBack, &script), stuck);
}

#[test]
fn procedures_nest_and_steps_repeat_in_the_start_order() {
    let nested = Action::Procedure { procedure: ProcedureId::new("inner").unwrap() };
    let each = |services, backwards| Some(rebound_schemas::plan::Each { services, backwards });
    let command = Action::Command { argv: vec!["/bin/true".into(), "{each}".into()], env: BTreeMap::new() };
    let repeated = |id: &str, needs: &[&str], services, backwards| Step {
        each: each(services, backwards),
        action: command.clone(),
        ..step(id, needs)
    };
    use rebound_schemas::plan::EachOf::{Dependants, Dependencies};
    let steps = vec![
        repeated("stop", &[], Dependants, true),
        Step { action: nested.clone(), ..step("restore", &["stop"]) },
        repeated("up", &["restore"], Dependencies, false),
        repeated("start", &["up"], Dependants, false),
    ];
    let (done, _) = play(steps, &[], true);
    let expected = [
        "stop/app 1 succeeded",
        "stop/web 1 succeeded",
        "restore/find 1 succeeded",
        "restore/use 1 succeeded",
        "up/db 1 succeeded",
        "start/web 1 succeeded",
        "start/app 1 succeeded",
        "verify",
    ];
    assert_eq!(done, expected);

    let script = unfold(&procedure(vec![Step { action: nested, ..step("r", &[]) }]), &plan(), &placeholders()).unwrap();
    let mut state = RunState::new(script);
    started(&mut state, 0, 1);
    ended(&mut state, 0, 1, StepOutcome::Succeeded, None);
    let Next::Run { index: 1, action, .. } = state.next() else { panic!("not the second") };
    let Action::Command { argv, .. } = *action else { panic!("not a command") };
    assert_eq!(argv, ["/bin/use", "r/find printed this"], "within the nested procedure, and without the line's end");
}

#[test]
fn back_off_doubles_up_to_its_limit() {
    let mut state = RunState::new(
        unfold(&procedure(vec![Step { retries: 4, ..step("a", &[]) }]), &plan(), &placeholders()).unwrap(),
    );
    let mut waits = Vec::new();
    while let Next::Run { index, attempt, wait, .. } = state.next() {
        waits.push(wait.as_secs());
        started(&mut state, index, attempt);
        ended(&mut state, index, attempt, StepOutcome::Failed, Some("x"));
    }
    assert_eq!(waits, [0, 1, 2, 3, 3]);
}

fn any_outcomes() -> impl Strategy<Value = Vec<StepOutcome>> {
    let outcome = prop_oneof![Just(StepOutcome::Succeeded), Just(StepOutcome::Failed), Just(StepOutcome::TimedOut)];
    proptest::collection::vec(outcome, 0..24)
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    #[test]
    fn every_run_ends_and_no_step_runs_more_often_than_allowed(
        steps in any_steps(), script in any_outcomes(), verified: bool,
    ) {
        let (done, outcome) = play(steps.clone(), &script, verified);
        for step in &steps {
            let runs = done.iter().filter(|line| line.starts_with(&format!("{} ", step.id))).count();
            let skips = done.iter().filter(|line| line.starts_with(&format!("{}: ", step.id))).count();
            prop_assert!(runs <= step.retries as usize + 1 && skips <= 1 && runs.min(skips) == 0);
            prop_assert!(runs + skips >= 1, "{} was forgotten", step.id);
        }
        let verifications = done.iter().filter(|line| *line == "verify").count();
        prop_assert!(verifications <= 1);
        prop_assert_eq!(outcome == RecoveryOutcome::Succeeded, verifications == 1 && verified);
    }

    /// With steps side by side, roll-back, and a crash at any point (at every one, or now and then): the events up to it, folded anew, are the state
    /// that was; no attempt is given out twice, nothing begins before what it needs, exactly what succeeded and can be
    /// undone is undone, backwards, and it ends.
    #[test]
    fn side_by_side_with_crashes(
        steps in any_steps(), kinds in proptest::collection::vec(0..4u8, 8), parallel in 1..5u32,
        script in any_outcomes(), order in proptest::collection::vec(any::<u8>(), 64), crash_every in 1..10_usize,
    ) {
        let steps: Vec<Step> = steps.into_iter().zip(&kinds).map(|(step, kind)| Step {
            on_failure: [OnFailure::Stop, OnFailure::Continue, OnFailure::RollBack, OnFailure::Escalate][*kind as usize],
            ..step
        }).collect();
        let rollback: Vec<Step> = steps.iter().map(|step| undo(step.id.as_str())).collect();
        let procedure = Procedure { parallel, rollback, ..procedure(steps) };
        let blank = RunState::new(unfold(&procedure, &plan(), &placeholders()).unwrap());
        let mut state = blank.clone();
        let (mut events, mut running, mut given) = (Vec::new(), Vec::new(), std::collections::BTreeSet::new());
        let (mut succeeded, mut undone) = (Vec::new(), Vec::new());
        let (mut script, mut order) = (script.into_iter(), order.into_iter().cycle());
        let outcome = loop {
            prop_assert!(events.len() < 2_000, "it does not end");
            let before = state.clone();
            match state.next() {
                Next::Run { index, attempt, .. } => {
                    let ready = &state.steps()[index];
                    prop_assert!(given.insert((index, attempt)), "given out twice");
                    prop_assert!(attempt <= ready.step.retries + 1);
                    for needed in &ready.needs {
                        prop_assert!(succeeded.contains(needed), "it began before what it needs");
                    }
                    if let Some(of) = ready.undoes {
                        prop_assert!(succeeded.contains(&of) && running.is_empty());
                    }
                    started(&mut state, index, attempt);
                    running.push((index, attempt));
                    prop_assert!(running.len() <= parallel as usize);
                    events.push((index, attempt, None));
                }
                Next::Wait => {
                    prop_assert!(!running.is_empty());
                    let at = order.next().unwrap_or_default() as usize % running.len();
                    let (index, attempt) = running.remove(at);
                    let outcome = script.next().unwrap_or(StepOutcome::Succeeded);
                    let error = (outcome != StepOutcome::Succeeded).then_some("x");
                    ended(&mut state, index, attempt, outcome, error);
                    if outcome == StepOutcome::Succeeded {
                        match state.steps()[index].undoes {
                            None => succeeded.push(index),
                            Some(of) => undone.push(of),
                        }
                    }
                    events.push((index, attempt, Some((outcome, error.map(str::to_owned)))));
                }
                Next::Settle { index, attempt, outcome, reason } => {
                    prop_assert!(!running.iter().any(|(at, _)| *at == index));
                    let error = reason.err();
                    ended(&mut state, index, attempt, outcome, error.as_deref());
                    events.push((index, attempt, Some((outcome, error))));
                }
                Next::Verify => break None,
                Next::Finish { outcome, reason, .. } => break Some((outcome, reason.unwrap_or_default())),
                Next::Done => prop_assert!(false, "nobody said that it ended"),
            }
            // A crash here: whoever folds what was journalled has the same state.
            prop_assert!(before != state);
            if !events.len().is_multiple_of(crash_every) {
                continue;
            }
            let mut again = blank.clone();
            for (index, attempt, end) in &events {
                match end {
                    None => started(&mut again, *index, *attempt),
                    Some((outcome, error)) => ended(&mut again, *index, *attempt, *outcome, error.as_deref()),
                }
            }
            prop_assert!(again == state, "folded anew, it is another state");
        };
        prop_assert!(running.is_empty());
        if let Some((outcome, reason)) = outcome {
            prop_assert_eq!(outcome, RecoveryOutcome::Failed);
            let backwards: Vec<usize> = succeeded.iter().rev().copied().collect();
            prop_assert!(backwards.starts_with(&undone), "undone {:?} of {:?}", undone, succeeded);
            prop_assert!(!reason.contains("rolled back") || undone.len() == succeeded.len());
        } else {
            prop_assert!(undone.is_empty());
        }
    }
}
