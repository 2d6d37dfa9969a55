//! What people say: approvals in time and out of it, and recoveries that a person asked for.

use rebound_schemas::EventId;
use rebound_schemas::event::{Asked, RecoveryApproved, Restraint};

use super::tests::{at, auto, check, event, map, paused, queue, recovery, resolved, started, told, trigger};
use super::*;

/// It waits for approval from second 0 until second 60.
fn waiting(name: &str) -> Event {
    let mut waits = trigger(name, 1, 0, TriggerMode::Approve, None);
    let EventData::RecoveryTriggered(data) = &mut waits.data else { unreachable!("a trigger") };
    data.approve_until = Some(at(60));
    waits
}

fn approved(name: &str, attempt: u32, second: i64) -> Event {
    let data = RecoveryApproved { recovery: recovery(name, attempt), by: "ann".into(), step: None, comment: None };
    event(name, format!("a-{name}-{attempt}-{second}"), second, data)
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
    queue.evolve(&super::tests::resumed(10));
    queue.evolve(&auto("api", 11));
    check(&queue, 12, &["start rec-api-1"]);
}
