//! The fold against tables of histories, and against itself under every order, redelivery and chunking.

mod refusals;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::event::*;
use crate::ids::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
}

fn inc(n: u32) -> IncidentId {
    IncidentId::new(&format!("inc-{n}")).unwrap()
}

fn rec(n: u32) -> RecoveryId {
    RecoveryId::new(&format!("rec-{n}")).unwrap()
}

fn event(id: &str, seconds: i64, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(id).unwrap(),
        source: Source::new("rebound/alerting").unwrap(),
        subject: ServiceId::new("api").unwrap(),
        occurred_at: at(seconds),
        plan: None,
        data: data.into(),
    }
}

fn opened(n: u32, t0: i64, t1: i64) -> Event {
    let data = IncidentOpened {
        incident: inc(n),
        severity: Severity::Critical,
        first_failure_at: at(t0),
        last_success_at: Some(at(t0 - 10)),
        detected_at: at(t1),
        policy: None,
        error_class: ErrorClass::Timeout,
        cause: None,
        reason: "no answer".into(),
    };
    event(&format!("inc-{n}:opened"), t1, data)
}

fn resolved(n: u32, t3: i64, t4: i64) -> Event {
    let data = IncidentResolved { incident: inc(n), recovered_at: at(t3), recovery: Some(rec(1)) };
    event(&format!("inc-{n}:resolved:{t4}"), t4, data)
}

fn acknowledged(n: u32, t2: i64, by: &str, automated: bool) -> Event {
    let data = IncidentAcknowledged { incident: inc(n), by: by.into(), automated, comment: None };
    event(&format!("inc-{n}:ack:{by}:{t2}"), t2, data)
}

fn triggered(n: u32, r: u32, seconds: i64, by: Option<&str>) -> Event {
    let data = RecoveryTriggered {
        recovery: rec(r),
        incident: inc(n),
        attempt: r,
        procedure: ProcedureId::new("restart").unwrap(),
        method: Some(RecoveryMethod::WarmStandby),
        mode: TriggerMode::Approve,
        first_failure_at: at(0),
        not_before: None,
        by: by.map(Into::into),
        reason: None,
        error_class: None,
        approve_until: None,
        asked: None,
    };
    event(&format!("rec-{r}:triggered"), seconds, data)
}

fn started(n: u32, r: u32, seconds: i64) -> Event {
    let procedure = ProcedureId::new("restart").unwrap();
    let data = RecoveryStarted { recovery: rec(r), incident: inc(n), procedure, runner: "runner-1".into() };
    event(&format!("rec-{r}:started"), seconds, data)
}

fn approved(r: u32, seconds: i64) -> Event {
    event(
        &format!("rec-{r}:approved"),
        seconds,
        RecoveryApproved { recovery: rec(r), by: "kim".into(), step: None, comment: None },
    )
}

fn finished(n: u32, r: u32, seconds: i64, outcome: RecoveryOutcome) -> Event {
    let data = RecoveryFinished {
        recovery: rec(r),
        incident: inc(n),
        attempt: r,
        procedure: ProcedureId::new("restart").unwrap(),
        method: None,
        outcome,
        duration_ms: 5000,
        error_class: None,
        reason: None,
    };
    event(&format!("rec-{r}:finished:{seconds}"), seconds, data)
}

fn rejected(r: u32, seconds: i64) -> Event {
    let data = RecoveryRejected { recovery: rec(r), by: "lee".into(), reason: "the disk is being replaced".into() };
    event(&format!("rec-{r}:rejected"), seconds, data)
}

fn cancelled(r: u32, seconds: i64) -> Event {
    let data = RecoveryCancelled { recovery: rec(r), by: "kim".into(), reason: "by hand".into(), now: false };
    event(&format!("rec-{r}:cancelled"), seconds, data)
}

fn expired(n: u32, r: u32, seconds: i64) -> Event {
    let data = RecoveryExpired { recovery: rec(r), incident: inc(n), approve_until: at(seconds - 2) };
    event(&format!("rec-{r}:expired"), seconds, data)
}

fn step(n: u32, r: u32, index: u32, attempt: u32, seconds: i64, outcome: StepOutcome) -> [Event; 2] {
    let (step, action) = (StepId::new(&format!("step-{index}")).unwrap(), "run it".to_owned());
    let begun =
        StepStarted { recovery: rec(r), incident: inc(n), step: step.clone(), index, attempt, action: action.clone() };
    let ended = StepFinished {
        recovery: rec(r),
        incident: inc(n),
        step,
        index,
        attempt,
        outcome,
        duration_ms: 1500,
        code: Some(1),
        output: None,
        error: None,
    };
    let id = format!("rec-{r}:{index}:{attempt}");
    [event(&format!("{id}:started"), seconds, begun), event(&format!("{id}:finished"), seconds + 2, ended)]
}

fn corrected(n: u32, seconds: i64, t0: Option<i64>, t3: Option<i64>, exclude: bool) -> Event {
    let data = IncidentCorrected {
        incident: inc(n),
        by: "kim".into(),
        reason: "the log was wrong".into(),
        first_failure_at: t0.map(at),
        recovered_at: t3.map(at),
        error_class: None,
        cause: None,
        exclude,
    };
    event(&format!("inc-{n}:corrected:{seconds}"), seconds, data)
}

fn raised(n: u32, seconds: i64) -> Event {
    let data = AlertRaised {
        alert: AlertId::new("alr-1").unwrap(),
        incident: inc(n),
        policy: PolicyId::new("default").unwrap(),
        condition: None,
        severity: Severity::Critical,
        failures: 3,
        first_failure_at: at(0),
        reason: "no answer".into(),
        evidence: vec![],
    };
    event("alr-1:raised", seconds, data)
}

fn sent(attempt: u32, seconds: i64) -> Event {
    let data = NotificationSent {
        dedup_key: format!("k{attempt}"),
        alert: AlertId::new("alr-1").unwrap(),
        incident: inc(1),
        channel: ChannelId::new("ops").unwrap(),
        transition: Transition::Raised,
        attempt,
        members: Vec::new(),
    };
    event(&format!("alr-1:sent:{attempt}"), seconds, data)
}

fn seconds(span: Option<TimeDelta>) -> Option<i64> {
    span.map(|span| span.num_seconds())
}

/// The recovery of one incident, as it should go: t0 = 0, t1 = 20, t2 = 25 (runner) and 90 (person), t3 = 100,
/// t4 = 120.
fn history() -> Vec<Event> {
    let mut events = vec![opened(1, 0, 20), raised(1, 20), sent(1, 21), triggered(1, 1, 22, None), started(1, 1, 25)];
    events.extend(step(1, 1, 0, 1, 26, StepOutcome::Failed));
    events.extend(step(1, 1, 0, 2, 30, StepOutcome::Succeeded));
    events.extend(step(1, 1, 1, 1, 40, StepOutcome::Succeeded));
    events.extend([
        acknowledged(1, 90, "kim", false),
        finished(1, 1, 110, RecoveryOutcome::Succeeded),
        resolved(1, 100, 120),
    ]);
    events
}

#[test]
fn a_dry_run_is_in_no_figure_and_one_without_an_incident_opens_none() {
    let dry = RecoveryId::dry_run(&ServiceId::new("api").unwrap(), &inc(1), 1);
    let mut events = vec![opened(1, 0, 5), triggered(1, 1, 10, Some("ann")), started(1, 1, 11)];
    for event in &mut events[1..] {
        match &mut event.data {
            EventData::RecoveryTriggered(data) => data.recovery = dry.clone(),
            EventData::RecoveryStarted(data) => data.recovery = dry.clone(),
            _ => unreachable!("the two above"),
        }
    }
    let record = fold(&events);
    assert_eq!(record.recoveries().count(), 0);
    let incident = record.incident_of(&inc(1)).unwrap();
    assert!(incident.recoveries.is_empty() && incident.acknowledged.is_none(), "{incident:?}");

    let mut asked = triggered(1, 1, 10, Some("ann"));
    let EventData::RecoveryTriggered(data) = &mut asked.data else { unreachable!("as made") };
    data.incident = IncidentId::of_request(&asked.subject, &EventId::new("r-1").unwrap());
    let record = fold(&[asked]);
    assert_eq!((record.recoveries().count(), record.orphans(), record.incidents().count()), (1, 0, 0));
}

#[test]
fn times_are_those_of_the_definitions() {
    let record = fold(&history());
    let incident = record.incident_of(&inc(1)).unwrap();
    assert_eq!(seconds(incident.time_to_detect()), Some(20), "t1 − t0");
    assert_eq!(seconds(incident.time_to_acknowledge()), Some(5), "t2 − t1");
    assert_eq!(seconds(incident.time_to_acknowledge_automated()), Some(5));
    assert_eq!(seconds(incident.time_to_acknowledge_human()), Some(70));
    assert_eq!(seconds(incident.time_to_recover()), Some(100), "t3 − t0");
    assert_eq!(seconds(incident.time_to_recover_from_detection()), Some(80), "t3 − t1");
    assert_eq!(seconds(incident.time_to_close()), Some(100), "t4 − t1");
    assert!(!incident.is_open() && !incident.is_excluded());
    assert_eq!(incident.recoveries, [rec(1)]);
    assert_eq!(incident.alerts.len(), 1);

    let recovery = record.recoveries().next().unwrap();
    assert_eq!((recovery.attempt, recovery.outcome), (Some(1), Some(RecoveryOutcome::Succeeded)));
    assert_eq!(seconds(recovery.duration()), Some(85));
    let steps: Vec<_> = recovery.steps.iter().map(|s| (s.index, s.attempt, s.outcome.unwrap())).collect();
    use StepOutcome::{Failed, Succeeded};
    assert_eq!(steps, [(0, 1, Failed), (0, 2, Succeeded), (1, 1, Succeeded)]);

    let alert = record.alerts().next().unwrap();
    assert_eq!((alert.raised_at, alert.notified_at, alert.notifications_sent), (at(20), Some(at(21)), 1));
}

#[test]
fn an_open_incident_is_censored_not_dropped() {
    let record = fold(&[opened(1, 0, 20)]);
    let incident = record.incident_of(&inc(1)).unwrap();
    assert!(incident.is_open());
    assert_eq!(incident.time_to_recover(), None);
    assert_eq!(seconds(incident.lasted(at(500))), Some(500));
}

#[test]
fn whoever_acts_first_acknowledges() {
    // (events beside the opening at t1 = 20, t2 by anybody, by a person, by automation), all from t1
    type Times = Option<i64>;
    let table: &[(Vec<Event>, Times, Times, Times)] = &[
        (vec![], None, None, None),
        (vec![acknowledged(1, 50, "kim", false)], Some(30), Some(30), None),
        (vec![acknowledged(1, 50, "kim", false), acknowledged(1, 40, "ana", false)], Some(20), Some(20), None),
        (vec![acknowledged(1, 50, "bot", true)], Some(30), None, Some(30)),
        // A trigger by automation is t1, not an action; its start is.
        (vec![triggered(1, 1, 21, None)], None, None, None),
        (vec![triggered(1, 1, 21, None), started(1, 1, 30)], Some(10), None, Some(10)),
        // A person who approves, or asks for it, has taken it on.
        (vec![triggered(1, 1, 21, None), approved(1, 60), started(1, 1, 62)], Some(40), Some(40), Some(42)),
        (vec![triggered(1, 1, 33, Some("kim")), started(1, 1, 34)], Some(13), Some(13), Some(14)),
    ];
    for (events, anybody, person, automation) in table {
        let mut events = events.clone();
        events.insert(0, opened(1, 0, 20));
        let incident = fold(&events).incident_of(&inc(1)).unwrap();
        let found = (
            seconds(incident.time_to_acknowledge()),
            seconds(incident.time_to_acknowledge_human()),
            seconds(incident.time_to_acknowledge_automated()),
        );
        assert_eq!(found, (*anybody, *person, *automation), "{events:#?}");
    }
}

#[test]
fn corrections_restate_and_keep_the_original() {
    let check = |corrections: &[Event], mttr: Option<i64>, excluded: bool| {
        let mut events = history();
        events.extend_from_slice(corrections);
        let incident = fold(&events).incident_of(&inc(1)).unwrap();
        assert_eq!((seconds(incident.time_to_recover()), incident.is_excluded()), (mttr, excluded));
        incident
    };
    check(&[], Some(100), false);
    let incident = check(&[corrected(1, 500, Some(-20), None, false)], Some(120), false);
    let correction = incident.correction.unwrap();
    assert_eq!((correction.original_first_failure_at, correction.original_recovered_at), (at(0), Some(at(100))));
    // Fields that a later correction leaves out stand as the earlier one restated them.
    check(&[corrected(1, 500, Some(-20), None, false), corrected(1, 600, None, Some(80), false)], Some(100), false);
    check(&[corrected(1, 500, None, None, true)], Some(100), true);
    check(&[corrected(1, 500, None, None, true), corrected(1, 600, None, None, false)], Some(100), false);
    // Restated to end before it began: no figure, and it says so.
    assert!(check(&[corrected(1, 500, None, Some(-5), false)], None, false).is_impossible());
}

#[test]
fn a_correction_closes_what_nothing_resolved() {
    let incident = fold(&[opened(1, 0, 20), corrected(1, 900, None, Some(60), false)]).incident_of(&inc(1)).unwrap();
    assert_eq!((incident.is_open(), incident.resolved_at), (false, Some(at(900))));
    assert_eq!(seconds(incident.time_to_recover()), Some(60));
    assert_eq!(incident.correction.unwrap().original_recovered_at, None);
}

fn maintenance(said: i64, from: i64, until: i64) -> Event {
    let data = MaintenanceScheduled {
        maintenance: "window".into(),
        services: vec![ServiceId::new("api").unwrap()],
        from: at(from),
        until: at(until),
        by: "kim".into(),
        reason: "planned work".into(),
    };
    event(&format!("window:{said}:{from}"), said, data)
}

fn called_off(said: i64) -> Event {
    let data = MaintenanceCancelled { maintenance: "window".into(), by: "kim".into(), reason: None };
    event(&format!("window:{said}:cancelled"), said, data)
}

/// t0 = 0, t3 = 100; told of long after, the window restates the figures and what was recorded stays beside them.
#[test]
fn maintenance_told_of_afterwards_restates_and_keeps_the_original() {
    let check = |more: &[Event], mttr: Option<i64>, excluded: bool| {
        let mut events = history();
        events.extend_from_slice(more);
        let incident = fold(&events).incident_of(&inc(1)).unwrap();
        assert_eq!((seconds(incident.time_to_recover()), incident.is_excluded()), (mttr, excluded), "{more:?}");
        incident
    };
    check(&[maintenance(9_000, 1, 500)], Some(100), false);
    check(&[maintenance(9_000, -50, 0)], Some(100), false);
    let incident = check(&[maintenance(9_000, 0, 100)], Some(100), true);
    assert_eq!(incident.maintenance.unwrap().maintenance, "window");
    let incident = check(&[maintenance(9_000, -50, 40)], Some(60), false);
    assert_eq!((incident.first_failure_at, incident.maintenance.unwrap().original_first_failure_at), (at(40), at(0)));
    // The newest telling counts; a cancellation ends it at its own time.
    check(&[maintenance(9_000, 0, 100), maintenance(9_500, 1, 100)], Some(100), false);
    check(&[maintenance(-90, 0, 500), called_off(70)], Some(30), false);
    check(&[maintenance(9_000, 0, 500), called_off(-10)], Some(100), true);
    // What a person restates comes after it, and still knows what was recorded first.
    let incident = check(&[maintenance(9_000, -50, 40), corrected(1, 9_900, Some(20), None, false)], Some(80), false);
    assert_eq!(incident.correction.unwrap().original_first_failure_at, at(0));
    // Open incidents are never hidden.
    let incident = fold(&[opened(1, 0, 20), maintenance(-90, -50, 500)]).incident_of(&inc(1)).unwrap();
    assert_eq!((incident.is_open(), incident.is_excluded()), (true, false));
}

#[test]
fn the_first_ending_stands() {
    let mut events = history();
    events.push(finished(1, 1, 300, RecoveryOutcome::Interrupted));
    events.push(resolved(1, 200, 400));
    let record = fold(&events);
    assert_eq!(record.recoveries().next().unwrap().outcome, Some(RecoveryOutcome::Succeeded));
    assert_eq!(seconds(record.incident_of(&inc(1)).unwrap().time_to_recover()), Some(100));
}

#[test]
fn what_never_opened_is_counted_apart() {
    let record = fold(&[resolved(7, 10, 20), approved(3, 5)]);
    assert_eq!((record.incidents().count(), record.recoveries().count(), record.orphans()), (0, 0, 1));
}

#[test]
fn an_event_counts_once_whatever_it_says_the_second_time() {
    let first = sent(1, 21);
    let mut again = first.clone();
    again.occurred_at = at(3);
    let record = fold(&[raised(1, 20), first.clone(), again, first]);
    let alert = record.alerts().next().unwrap();
    assert_eq!((alert.notifications_sent, alert.notified_at), (1, Some(at(21))));
    assert_eq!(record.events(), 2);
}

#[test]
fn windows_that_meet_are_one_maintenance() {
    let named = |name: &str, from: i64, until: i64| {
        let mut window = maintenance(9_000, from, until);
        window.id = EventId::new(name).unwrap();
        if let EventData::MaintenanceScheduled(data) = &mut window.data {
            data.maintenance = name.into();
        }
        window
    };
    // t0 = 0. Each row: windows, t3, whether it is excluded, and t0 as it counts.
    for (windows, t3, excluded, t0) in [
        (vec![(-50, 40), (40, 100)], 90, true, 0),
        (vec![(-50, 40), (40, 100)], 120, false, 100),
        (vec![(-50, 40), (30, 100)], 90, true, 0),
        (vec![(-50, 40), (41, 100)], 90, false, 40),
        (vec![(-50, 40), (40, 60), (60, 80)], 100, false, 80),
    ] {
        let mut history = vec![opened(1, 0, 20), resolved(1, t3, t3 + 1)];
        history.extend((0..).zip(&windows).map(|(n, (from, until))| named(&format!("w{n}"), *from, *until)));
        let incident = fold(&history).incident_of(&inc(1)).unwrap();
        assert_eq!((incident.is_excluded(), incident.first_failure_at), (excluded, at(t0)), "{windows:?}, {t3}");
        let maintained = incident.maintenance.unwrap();
        assert_eq!((maintained.maintenance.as_str(), maintained.original_first_failure_at), ("w0", at(0)));
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let (n, r, t) = (1..4u32, 1..4u32, 0..200i64);
    prop_oneof![
        (n.clone(), t.clone(), t.clone()).prop_map(|(n, t0, t1)| opened(n, t0, t1)),
        (n.clone(), t.clone(), t.clone()).prop_map(|(n, t3, t4)| resolved(n, t3, t4)),
        (n.clone(), t.clone(), any::<bool>()).prop_map(|(n, t2, auto)| acknowledged(n, t2, "kim", auto)),
        (n.clone(), r.clone(), t.clone()).prop_map(|(n, r, t)| triggered(n, r, t, (t % 3 == 0).then_some("kim"))),
        (n.clone(), r.clone(), t.clone()).prop_map(|(n, r, t)| started(n, r, t)),
        (r.clone(), t.clone()).prop_map(|(r, t)| approved(r, t)),
        (r.clone(), t.clone()).prop_map(|(r, t)| if t % 2 == 0 { rejected(r, t) } else { cancelled(r, t) }),
        (n.clone(), r.clone(), t.clone()).prop_map(|(n, r, t)| expired(n, r, t)),
        (n.clone(), r.clone(), t.clone()).prop_map(|(n, r, t)| finished(n, r, t, RecoveryOutcome::Failed)),
        (n.clone(), r.clone(), 0..3u32, t.clone())
            .prop_map(|(n, r, i, t)| step(n, r, i, 1, t, StepOutcome::Succeeded)[(t % 2) as usize].clone()),
        (n.clone(), t.clone(), prop::option::of(t.clone()), any::<bool>())
            .prop_map(|(n, t, t3, exclude)| corrected(n, t, None, t3, exclude)),
        (t.clone(), t.clone(), 1..200i64).prop_map(|(said, from, length)| maintenance(said, from, from + length)),
        t.clone().prop_map(called_off),
        (n, t.clone()).prop_map(|(n, t)| raised(n, t)),
        (r, t).prop_map(|(attempt, t)| sent(attempt, t)),
    ]
}

/// A history whose events differ in `(source, id)`: what happens to two with the same is another test.
fn any_history() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(any_event(), 0..60).prop_map(|mut events| {
        for (n, event) in events.iter_mut().enumerate() {
            event.id = EventId::new(&format!("{}#{n}", event.id)).unwrap();
        }
        events
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn order_redelivery_and_chunks_change_nothing(
        (events, shuffled, cut) in any_history().prop_flat_map(|events| {
            let mut twice = events.clone();
            twice.extend(events.iter().step_by(2).cloned());
            let cut = 0..=twice.len();
            (Just(events), Just(twice).prop_shuffle(), cut)
        })
    ) {
        let once = fold(&events);
        let mut chunked = fold(&shuffled[..cut]);
        for event in &shuffled[cut..] {
            chunked.evolve(event);
        }
        prop_assert_eq!(&once, &chunked);
        prop_assert_eq!(once.incidents().collect::<Vec<_>>(), chunked.incidents().collect::<Vec<_>>());
        prop_assert_eq!(once.recoveries().collect::<Vec<_>>(), chunked.recoveries().collect::<Vec<_>>());
    }

    #[test]
    fn no_duration_is_negative(events in any_history()) {
        for incident in fold(&events).incidents() {
            let spans = [
                incident.time_to_detect(), incident.time_to_acknowledge(), incident.time_to_recover(),
                incident.time_to_recover_from_detection(), incident.time_to_close(), incident.lasted(at(300)),
            ];
            prop_assert!(spans.into_iter().flatten().all(|span| span >= TimeDelta::zero()));
        }
    }
}
