//! Every row of what may be said, by a story told up to a point and a word said there.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rebound_schemas::event::{RecoveryCancelled, RecoveryOutcome, RecoveryRejected, RecoveryStarted, TriggerMode};
use rebound_schemas::plan::Plan;
use rebound_schemas::{IncidentId, ProcedureId, SiteId, TierId};

use super::*;
use crate::pause::Scope;
use crate::testing;

const PLAN: &str = r#"
allow = ["/bin/true"]
[[site]]
id = "one"
[[service]]
id = "db"
procedure = "restore"
[[service]]
id = "api"
[[service]]
id = "web"
procedure = "restart"
[[service]]
id = "app"
procedure = "restart"
[[procedure]]
id = "restore"
inputs = { until = "latest" }
[[procedure.step]]
id = "run"
command = ["/bin/true", "{input.until}"]
[[procedure]]
id = "restart"
[[procedure.step]]
id = "run"
command = ["/bin/true"]
[[procedure]]
id = "spare"
[[procedure.step]]
id = "run"
command = ["/bin/true"]
"#;

pub(super) fn plan() -> Plan {
    Plan::parse(PLAN, "plan.toml").unwrap()
}

pub(super) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

pub(super) fn rec(text: &str) -> RecoveryId {
    RecoveryId::new(text).unwrap()
}

pub(super) fn event(id: &str, second: i64, data: impl Into<EventData>) -> Event {
    testing::event("test", id, "db", at(second), data)
}

pub(super) fn triggered(mode: TriggerMode) -> Event {
    let data = RecoveryTriggered {
        recovery: rec("rec-1"),
        incident: IncidentId::new("inc-1").unwrap(),
        attempt: 1,
        procedure: ProcedureId::new("restore").unwrap(),
        method: None,
        mode,
        first_failure_at: at(0),
        not_before: None,
        by: None,
        reason: Some("connection refused".into()),
        error_class: None,
        approve_until: (mode == TriggerMode::Approve).then(|| at(60)),
        asked: None,
    };
    event("t", 0, data)
}

pub(super) fn started() -> Event {
    let (recovery, incident) = (rec("rec-1"), IncidentId::new("inc-1").unwrap());
    let procedure = ProcedureId::new("restore").unwrap();
    event("s", 5, RecoveryStarted { recovery, incident, procedure, runner: "r".into() })
}

fn gate(step: &str, second: i64) -> Event {
    let (recovery, incident) = (rec("rec-1"), IncidentId::new("inc-1").unwrap());
    let (step, action) = (StepId::new(step).unwrap(), "wait for approval: really?".to_owned());
    let id = format!("{step}@{second}");
    event(&id, second, StepStarted { recovery, incident, step, index: 0, attempt: 1, action })
}

pub(super) fn finished() -> Event {
    let (recovery, incident) = (rec("rec-1"), IncidentId::new("inc-1").unwrap());
    let data = RecoveryFinished {
        recovery,
        incident,
        attempt: 1,
        procedure: ProcedureId::new("restore").unwrap(),
        method: None,
        outcome: RecoveryOutcome::Failed,
        duration_ms: 1,
        error_class: None,
        reason: Some("step run: exited with 1".into()),
    };
    event("f", 20, data)
}

fn said(word: Word) -> Said {
    Said { word, by: "ann".into(), comment: Some("because".into()), key: None }
}

pub(super) fn approve(step: Option<&str>) -> Word {
    Word::Approve { recovery: rec("rec-1"), step: step.map(|step| StepId::new(step).unwrap()) }
}

fn reject() -> Word {
    Word::Reject { recovery: rec("rec-1") }
}

fn cancel(now: bool) -> Word {
    Word::Cancel { recovery: rec("rec-1"), now }
}

pub(super) fn run(name: &str) -> Word {
    let target = Target { name: Some(name.into()), ..Target::default() };
    Word::Run { target, inputs: BTreeMap::new(), dry_run: false, overrides: vec![] }
}

pub(super) fn desk(events: &[Event]) -> Desk {
    let mut desk = Desk::default();
    events.iter().for_each(|event| desk.evolve(event));
    desk
}

/// The kind that says it, or the refusal's words.
pub(super) fn judged(desk: &Desk, word: Word, second: i64) -> Result<Event, String> {
    desk.judge(Some(&plan()), &said(word), at(second)).map_err(|refusal| refusal.to_string())
}

#[track_caller]
fn takes(desk: &mut Desk, word: Word, second: i64) {
    let event = judged(desk, word, second).unwrap();
    assert_eq!((event.source.as_str(), event.subject.as_str()), (SOURCE, "db"));
    assert_eq!(rebound_schemas::decode(&rebound_schemas::encode(&event)).as_ref(), Ok(&event));
    desk.evolve(&event);
}

#[track_caller]
pub(super) fn refuses(desk: &Desk, word: Word, second: i64, begins: &str) {
    let words = judged(desk, word, second).expect_err("it is taken");
    assert!(words.starts_with(begins), "{words}");
}

#[test]
fn a_recovery_is_approved_once_and_in_its_time() {
    let mut waits = desk(&[triggered(TriggerMode::Approve)]);
    refuses(&desk(&[]), approve(None), 1, "no recovery rec-1 is known: `rebound recovery list`");
    refuses(&waits, approve(None), 60, "rec-1 could be approved until 2027-01-15T08:01:00");
    refuses(&waits, approve(Some("gate")), 1, "rec-1 has not begun: approve step gate when it waits");
    takes(&mut waits, approve(None), 59);
    refuses(&waits, approve(None), 59, "ann approved rec-1 at 2027-01-15T08:00:59");
    refuses(&waits, reject(), 59, "ann approved rec-1");
    waits.evolve(&started());
    refuses(&waits, approve(None), 10, "rec-1 has begun: `rebound recovery cancel` stops it");
    waits.evolve(&finished());
    refuses(&waits, approve(None), 21, "rec-1 has ended: failed (step run: exited with 1): nothing more");
    refuses(&desk(&[triggered(TriggerMode::Auto)]), approve(None), 1, "rec-1 needs no approval: it begins when");
}

#[test]
fn an_approval_for_another_attempt_names_the_right_one() {
    let mut second = triggered(TriggerMode::Approve);
    let EventData::RecoveryTriggered(data) = &mut second.data else { unreachable!("a trigger") };
    (data.recovery, data.attempt) = (rec("rec-2"), 2);
    let both = desk(&[triggered(TriggerMode::Approve), finished(), second]);
    let words = judged(&both, approve(None), 30).unwrap_err();
    assert!(words.ends_with("the attempt at its incident that has not ended is rec-2: name that one"), "{words}");
}

#[test]
fn an_approvers_slow_clock_is_no_early_approval() {
    let waits = desk(&[triggered(TriggerMode::Approve)]);
    assert_eq!(judged(&waits, approve(None), -30).unwrap().occurred_at, at(0));
    let gated = desk(&[triggered(TriggerMode::Auto), started(), gate("sure", 10)]);
    assert_eq!(judged(&gated, approve(Some("sure")), -30).unwrap().occurred_at, at(10));
}

#[test]
fn a_step_is_approved_while_it_waits() {
    let mut runs = desk(&[triggered(TriggerMode::Auto), started()]);
    refuses(&runs, approve(Some("sure")), 6, "step sure of rec-1 does not wait for approval: no step of it waits now");
    runs.evolve(&gate("sure", 10));
    refuses(&runs, approve(Some("later")), 11, "step later of rec-1 does not wait for approval: what waits is sure");
    refuses(&runs, approve(None), 11, "rec-1 has begun: its step sure waits for approval: name that with --step sure");
    let standing = runs.standing(&rec("rec-1"), None, at(11)).unwrap();
    assert_eq!((standing.state, standing.gates[0].question.as_str()), (StandingState::AwaitingStep, "really?"));
    takes(&mut runs, approve(Some("sure")), 12);
    refuses(&runs, approve(Some("sure")), 13, "ann approved step sure of rec-1");
    assert_eq!(runs.standing(&rec("rec-1"), None, at(13)).unwrap().state, StandingState::Running);
}

#[test]
fn what_was_refused_or_called_off_is_so_once() {
    let mut waits = desk(&[triggered(TriggerMode::Approve)]);
    takes(&mut waits, reject(), 1);
    refuses(&waits, approve(None), 2, "rec-1 does not run: ann rejected it: because");
    refuses(&waits, cancel(false), 2, "rec-1 does not run: ann rejected it: because: nothing need be done");

    let mut runs = desk(&[triggered(TriggerMode::Auto), started()]);
    refuses(&runs, reject(), 6, "rec-1 has begun");
    takes(&mut runs, cancel(false), 6);
    assert_eq!(runs.standing(&rec("rec-1"), None, at(7)).unwrap().state, StandingState::Stopping);
    refuses(&runs, cancel(false), 7, "rec-1 was called off before: ann called it off: because: wait for the end");
    takes(&mut runs, cancel(true), 8);
    refuses(&runs, cancel(true), 9, "rec-1 was called off before");
    runs.evolve(&finished());
    refuses(&runs, cancel(true), 30, "rec-1 has ended");
}

#[test]
fn pauses_are_of_what_is_there_and_resumed_as_they_were_paused() {
    let one = || Scope { site: SiteId::new("one").ok(), ..Scope::default() };
    let pause = |scope, until: Option<i64>| Word::Pause { scope, until: until.map(at) };
    let resume = |scope| Word::Resume { scope };
    let mut desk = desk(&[]);
    let two = Scope { site: SiteId::new("two").ok(), ..Scope::default() };
    refuses(&desk, pause(two, None), 1, "\"two\" is not a site of the plan: there is only one");
    let none = Scope { service: ServiceId::new("wbe").ok(), ..Scope::default() };
    refuses(&desk, pause(none, None), 1, "\"wbe\" is not a service of the plan: did you mean \"web\"?");
    let nine = Scope { tier: TierId::new("tier-9").ok(), ..Scope::default() };
    refuses(&desk, pause(nine, None), 1, "\"tier-9\" is not a tier of the plan");
    refuses(&desk, pause(Scope::default(), Some(1)), 1, "the pause would be over already");
    refuses(&desk, resume(Scope::default()), 1, "everything is not paused: nothing is paused");
    let event = judged(&desk, pause(one(), Some(10)), 1).unwrap();
    assert_eq!(event.subject.as_str(), "automation");
    desk.evolve(&event);
    let words = "everything is not paused: what is paused is site one: resume that, as it was paused";
    refuses(&desk, resume(Scope::default()), 2, words);
    assert_eq!(desk.pauses(at(2))[0].covers, "site one");
    desk.evolve(&judged(&desk, resume(one()), 3).unwrap());
    refuses(&desk, resume(one()), 4, "site one is not paused");
    let narrow = Scope { service: ServiceId::new("db").ok(), procedure: ProcedureId::new("restore").ok(), ..one() };
    assert_eq!(judged(&desk, pause(narrow, None), 5).unwrap().subject.as_str(), "db");
}

fn demoted(second: i64) -> Event {
    let data = ProcedureDemoted {
        procedure: ProcedureId::new("restore").unwrap(),
        succeeded: 1,
        attempts: 3,
        below: 0.8,
        over: 5,
        failed: vec![rec("rec-1")],
        newest: rec("rec-1"),
    };
    event(&format!("d-{second}"), second, data)
}

#[test]
fn a_procedure_is_promoted_while_it_is_demoted() {
    let promote = |name: &str| Word::Promote { procedure: ProcedureId::new(name).unwrap() };
    let mut all = desk(&[]);
    refuses(&all, promote("restroe"), 1, "\"restroe\" is not a procedure of the plan: did you mean \"restore\"?");
    refuses(&all, promote("restore"), 1, "procedure restore is not demoted: nothing need be done");
    all.evolve(&demoted(5));
    assert_eq!(all.demoted_procedures().iter().map(|d| d.procedure.as_str()).collect::<Vec<_>>(), ["restore"]);
    let said = judged(&all, promote("restore"), 6).unwrap();
    assert_eq!((said.subject.as_str(), said.occurred_at), ("automation", at(6)));
    all.evolve(&said);
    assert!(all.demoted_procedures().is_empty());
    refuses(&all, promote("restore"), 7, "procedure restore is not demoted");
    all.evolve(&demoted(5));
    assert!(all.demoted_procedures().is_empty(), "an old word, delivered again");
    all.evolve(&demoted(8));
    assert_eq!(all.demoted_procedures().len(), 1, "it failed again");
}

#[test]
fn what_is_asked_for_is_in_the_plan() {
    let fresh = desk(&[]);
    let asked = |word| match judged(&fresh, word, 1).unwrap() {
        Event { subject, data: EventData::RecoveryRequested(data), .. } => (subject.to_string(), data),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(run("db")).0, "db");
    let (service, data) = asked(run("restore"));
    assert_eq!((service.as_str(), data.procedure.unwrap().as_str()), ("db", "restore"));
    let with = |name: &str, change: &dyn Fn(&mut Target, &mut BTreeMap<String, String>)| {
        let Word::Run { mut target, mut inputs, dry_run, overrides } = run(name) else { unreachable!("as made") };
        change(&mut target, &mut inputs);
        Word::Run { target, inputs, dry_run, overrides }
    };
    let handed = |name: &'static str, value: &'static str| {
        with("db", &move |_, inputs| drop(inputs.insert(name.to_owned(), value.to_owned())))
    };
    assert_eq!(asked(handed("until", "10:00")).1.inputs["until"], "10:00");
    assert_eq!(asked(with("spare", &|target, _| target.service = ServiceId::new("api").ok())).0, "api");
    refuses(&fresh, handed("til", "x"), 1, "til is not an input of procedure restore: it has until");
    refuses(&fresh, handed("until", "--all"), 1, "the input until can't be \"--all\": write it without");
    refuses(&fresh, run("restart"), 1, "procedure restart is that of app, web and perhaps others: say for which");
    refuses(&fresh, run("spare"), 1, "no service is recovered by procedure spare of its own: say for which");
    refuses(&fresh, run("api"), 1, "api has no procedure: name one: --procedure NAME");
    refuses(&fresh, run("none"), 1, "none is neither a service nor a procedure of the plan: there are api, app");
    refuses(&desk(&[triggered(TriggerMode::Auto)]), run("db"), 1, "rec-1 of db waits already: let it end");
    let no_plan = fresh.judge(None, &said(run("db")), at(1)).unwrap_err();
    assert_eq!(no_plan.kind, RefusalKind::Conflict);
}

#[test]
fn who_and_why_are_told() {
    let waits = desk(&[triggered(TriggerMode::Approve)]);
    let judge = |said: Said| waits.judge(Some(&plan()), &said, at(1)).map_err(|refusal| refusal.detail);
    assert_eq!(judge(Said { comment: None, ..said(reject()) }).unwrap_err(), "why is not told");
    assert!(judge(Said { comment: None, ..said(approve(None)) }).is_ok());
    for by in ["", " ", "a\nb", &"x".repeat(201)] {
        assert_eq!(judge(Said { by: by.into(), ..said(reject()) }).unwrap_err(), "who says so is not told", "{by:?}");
    }
}

#[test]
fn a_word_is_repeated_under_its_key_and_no_other_is() {
    let of = |owner: &str, key: &str, asked: &str| Key { owner: owner.into(), key: key.into(), asked: asked.into() };
    let key = |key: &str, asked: &str| Some(of("ann", key, asked));
    let mut desk = desk(&[triggered(TriggerMode::Approve)]);
    let first = Said { key: key("k", "approve"), ..said(approve(None)) };
    assert_eq!(desk.repeated(&first), Ok(None));
    let event = desk.judge(Some(&plan()), &first, at(1)).unwrap();
    desk.evolve(&event);
    assert_eq!(desk.repeated(&first), Ok(Some(event.id)));
    let other = Said { key: key("k", "reject"), ..said(reject()) };
    assert_eq!(desk.repeated(&other).unwrap_err().kind, RefusalKind::Invalid);
    assert_eq!(
        desk.repeated(&Said { key: Some(of("bob", "k", "approve")), ..first }),
        Ok(None),
        "another's key is another key"
    );
}

fn any_event() -> impl Strategy<Value = Event> {
    let (by, reason) = (|| "ann".to_owned(), || "because".to_owned());
    (0..9_u8, 0..4_u8, 0..80_i64).prop_map(move |(what, n, second)| {
        let recovery = rec(&format!("rec-{}", n % 2));
        let mut event = match what {
            0 | 1 => triggered(if n < 2 { TriggerMode::Approve } else { TriggerMode::Auto }),
            2 => started(),
            3 => gate("sure", second),
            4 => finished(),
            5 => event("x", second, RecoveryRejected { recovery, by: by(), reason: reason() }),
            6 => event("c", second, RecoveryCancelled { recovery, by: by(), reason: reason(), now: n > 2 }),
            7 => event(
                "a",
                second,
                rebound_schemas::event::RecoveryApproved { recovery, by: by(), step: None, comment: None },
            ),
            _ => {
                let step = StepId::new("sure").ok();
                event("g", second, rebound_schemas::event::RecoveryApproved { recovery, by: by(), step, comment: None })
            }
        };
        event.id = EventId::new(&format!("{what}-{n}-{second}")).unwrap();
        event
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// Whatever was folded: what is taken once is refused when it is said again, redelivery changes nothing, and
    /// what has ended takes no word.
    #[test]
    fn no_word_about_a_recovery_is_taken_twice(events in prop::collection::vec(any_event(), 0..30), second in 0..90_i64) {
        let before = desk(&events);
        let again: Vec<Event> = events.iter().chain(&events).cloned().collect();
        prop_assert_eq!(before.standings(None, at(second)), desk(&again).standings(None, at(second)));
        for word in [approve(None), approve(Some("sure")), reject(), cancel(false), cancel(true)] {
            let mut desk = before.clone();
            let Ok(event) = judged(&desk, word.clone(), second) else { continue };
            let standing = desk.standing(&rec("rec-1"), None, at(second)).unwrap();
            prop_assert!(standing.state != StandingState::Finished, "{word:?} of {standing:?}");
            desk.evolve(&event);
            prop_assert!(judged(&desk, word.clone(), second).is_err(), "{word:?} twice");
        }
    }
}
