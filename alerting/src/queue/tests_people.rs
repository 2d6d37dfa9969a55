//! What people say: refusals, pauses, approvals in time and out of it, and recoveries that a person asked for.

use rebound_schemas::EventId;
use rebound_schemas::event::{Asked, RecoveryCancelled, RecoveryRejected, RecoveryResumed, Restraint};

use super::tests::{approved, at, auto, check, event, map, paused, queue, recovery, resolved, started, told, trigger};
use super::*;

/// It waits for approval from second 0 until second 60.
fn waiting(name: &str) -> Event {
    let mut waits = trigger(name, 1, 0, TriggerMode::Approve, None);
    let EventData::RecoveryTriggered(data) = &mut waits.data else { unreachable!("a trigger") };
    data.approve_until = Some(at(60));
    waits
}

fn asked(name: &str, mode: TriggerMode, overrides: &[Restraint]) -> Event {
    let mut asked = trigger(name, 1, 5, mode, None);
    let EventData::RecoveryTriggered(data) = &mut asked.data else { unreachable!("a trigger") };
    data.asked = Some(Asked {
        request: EventId::new("r").unwrap(),
        comment: "by hand".into(),
        inputs: BTreeMap::new(),
        overrides: overrides.to_vec(),
    });
    asked
}

fn rejected(name: &str, second: i64) -> Event {
    let data = RecoveryRejected { recovery: recovery(name, 1), by: "ann".into(), reason: "not now".into() };
    event(name, format!("x-{name}"), second, data)
}

fn cancelled(name: &str, second: i64) -> Event {
    let data =
        RecoveryCancelled { recovery: recovery(name, 1), by: "bob".into(), reason: "by hand".into(), now: false };
    event(name, format!("c-{name}"), second, data)
}

fn resumed(second: i64) -> Event {
    let (site, service, tier, procedure) = Default::default();
    let data = RecoveryResumed { site, service, tier, procedure, by: "ann".into(), reason: "done".into() };
    event("automation", format!("q-{second}"), second, data)
}

#[test]
fn what_a_person_refused_never_runs() {
    let waits = trigger("db", 1, 0, TriggerMode::Approve, None);
    for (events, expect) in [
        (vec![waits.clone(), rejected("db", 1)], "cancelled rec-db-1"),
        (vec![rejected("db", 1), waits.clone()], "cancelled rec-db-1"),
        (vec![waits.clone(), rejected("db", 1), approved("db", 1, 2)], "cancelled rec-db-1"),
        (vec![auto("db", 0), cancelled("db", 1)], "cancelled rec-db-1"),
    ] {
        let commands = queue(&events).decide(&map(), at(3), |_| true);
        assert_eq!(told(&commands), [expect]);
    }
    let mut running = queue(&[auto("db", 0), started("db", 1, 1), cancelled("db", 2)]);
    running.begin(&recovery("db", 1));
    assert!(running.decide(&map(), at(3), |_| true).is_empty(), "what has begun goes on");
}

#[test]
fn a_refusal_is_told_in_the_persons_words() {
    let commands = queue(&[auto("db", 0), cancelled("db", 2), rejected("db", 1)]).decide(&map(), at(3), |_| true);
    let [Command::Finish { finished }] = commands.as_slice() else { panic!("{commands:?}") };
    let EventData::RecoveryFinished(data) = &finished.data else { panic!() };
    assert_eq!(data.reason.as_deref(), Some("ann rejected it: not now"), "the first of two");
}

#[test]
fn a_pause_holds_triggers_and_loses_none() {
    let fixed = [auto("db", 0), auto("cache", 1), paused(None, 2, None)];
    assert!(queue(&fixed).decide(&map(), at(3), |_| true).is_empty());
    let site = [auto("db", 0), auto("cache", 1), paused(Some("one"), 2, None)];
    assert_eq!(told(&queue(&site).decide(&map(), at(3), |_| true)), ["start rec-cache-1"]);
    let timed = [auto("db", 0), paused(None, 2, Some(60))];
    assert!(queue(&timed).decide(&map(), at(59), |_| true).is_empty());
    assert_eq!(told(&queue(&timed).decide(&map(), at(60), |_| true)), ["start rec-db-1"]);
}

#[test]
fn after_a_pause_what_then_is_so_decides() {
    let events = [auto("db", 0), auto("cache", 1), paused(None, 2, None), resolved("db", 3)];
    assert_eq!(told(&queue(&events).decide(&map(), at(4), |_| true)), ["cancelled rec-db-1"], "paused or not");
    let events = [auto("db", 0), auto("cache", 1), paused(None, 2, None), resolved("db", 3), resumed(4)];
    assert_eq!(told(&queue(&events).decide(&map(), at(5), |_| true)), ["cancelled rec-db-1", "start rec-cache-1"]);
}

#[test]
fn a_pause_of_days_makes_no_trigger_old() {
    let day = 24 * 3600;
    let events = [auto("db", 0), paused(None, 3600, None)];
    for second in [day - 1, day + 1, 30 * day] {
        assert!(queue(&events).decide(&map(), at(second), |_| true).is_empty(), "held at {second}");
    }
    let resumed = [auto("db", 0), paused(None, 3600, None), resumed(30 * day)];
    for (second, expect) in [(30 * day, "start rec-db-1"), (31 * day + 1, "cancelled rec-db-1")] {
        assert_eq!(told(&queue(&resumed).decide(&map(), at(second), |_| true)), [expect], "at {second}");
    }
    // One that ends by itself is no different; nor is the order in which it is folded.
    let timed = [paused(None, 3600, Some(3 * day)), auto("db", 0)];
    assert!(queue(&timed).decide(&map(), at(3 * day - 1), |_| true).is_empty());
    assert_eq!(told(&queue(&timed).decide(&map(), at(3 * day), |_| true)), ["start rec-db-1"]);
    // A pause of another scope keeps nothing young.
    let other = [auto("db", 0), paused(Some("two"), 3600, None)];
    assert_eq!(told(&queue(&other).decide(&map(), at(day + 1), |_| true)), ["cancelled rec-db-1"]);
}

#[test]
fn an_approval_counts_while_it_is_waited_for_and_at_no_other_time() {
    let cases: [(&str, Vec<Event>, &[&str]); 7] = [
        ("in time", vec![waiting("db"), approved("db", 1, 59)], &["start rec-db-1"]),
        ("in time, seen first", vec![approved("db", 1, 1), waiting("db")], &["start rec-db-1"]),
        ("late", vec![waiting("db"), approved("db", 1, 60)], &["expired rec-db-1"]),
        ("early", vec![waiting("db"), approved("db", 1, -1)], &["expired rec-db-1"]),
        ("early, seen first", vec![approved("db", 1, -1), waiting("db")], &["expired rec-db-1"]),
        ("for another attempt", vec![waiting("db"), approved("db", 2, 1)], &["expired rec-db-1"]),
        ("twice", vec![waiting("db"), approved("db", 1, 1), approved("db", 1, 2)], &["start rec-db-1"]),
    ];
    for (name, events, want) in cases {
        assert_eq!(told(&queue(&events).decide(&map(), at(62), |_| true)), want, "{name}");
    }
}

#[test]
fn what_nobody_approves_expires_once_and_asks_people() {
    let mut queue = queue(&[waiting("db")]);
    check(&queue, 61, &[]);
    let commands = queue.decide(&map(), at(62), |_| true);
    let [Command::Expire { events }] = commands.as_slice() else { panic!("{commands:?}") };
    let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["rec-db-1:expired", "rec-db-1:escalated", "rec-db-1:finished"]);
    let EventData::RecoveryFinished(finished) = &events[2].data else { panic!() };
    assert_eq!(finished.outcome, RecoveryOutcome::Cancelled);
    assert!(finished.reason.as_deref().unwrap().starts_with("nobody approved it by 2026-"), "{finished:?}");
    events.iter().for_each(|event| queue.evolve(event));
    // An approval that was given in time and came too late to be heard acts no more.
    queue.evolve(&approved("db", 1, 59));
    queue.evolve(&waiting("db"));
    check(&queue, 70, &[]);
}

#[test]
fn what_expires_holds_nobody_up_and_is_not_what_was_resolved() {
    let dependant = trigger("api", 1, 1, TriggerMode::Auto, None);
    let held = queue(&[waiting("db"), dependant]);
    check(&held, 10, &[]);
    check(&held, 62, &["expired rec-db-1", "start rec-api-1"]);
    check(&queue(&[waiting("db"), resolved("db", 5)]), 100, &["cancelled rec-db-1"]);
}

#[test]
fn each_override_passes_over_what_it_names() {
    let held_by: [(Restraint, Vec<Event>, QueueLimits); 3] = [
        (Restraint::Pause, vec![paused(None, 1, None)], QueueLimits::default()),
        (Restraint::Dependencies, vec![waiting("db")], QueueLimits::default()),
        (Restraint::Concurrency, vec![], QueueLimits { total: 0, ..QueueLimits::default() }),
    ];
    for (restraint, before, limits) in held_by {
        for other in Restraint::ALL {
            let mut queue = Queue::new(limits.clone());
            before.iter().chain([&asked("api", TriggerMode::Auto, &[*other])]).for_each(|event| queue.evolve(event));
            let want: &[&str] = if *other == restraint { &["start rec-api-1"] } else { &[] };
            assert_eq!(told(&queue.decide(&map(), at(9), |_| true)), want, "{restraint} by {other}");
        }
    }
    // Two recoveries of one service at the same time are never let be.
    let mut busy = queue(&[auto("db", 0), started("db", 1, 1)]);
    busy.begin(&recovery("db", 1));
    let mut second = asked("db", TriggerMode::Auto, Restraint::ALL);
    let EventData::RecoveryTriggered(data) = &mut second.data else { unreachable!("a trigger") };
    data.recovery = recovery("db", 2);
    busy.evolve(&second);
    check(&busy, 9, &[]);
}

#[test]
fn a_dry_run_waits_for_nothing_and_holds_up_nothing() {
    let dry = asked("db", TriggerMode::DryRun, &[]);
    let mut queue = Queue::new(QueueLimits { total: 1, ..QueueLimits::default() });
    [paused(None, 1, None), dry].iter().for_each(|event| queue.evolve(event));
    check(&queue, 9, &["start rec-db-1"]);
    queue.begin(&recovery("db", 1));
    queue.evolve(&resumed(10));
    queue.evolve(&auto("api", 11));
    check(&queue, 12, &["start rec-api-1"]);
}
