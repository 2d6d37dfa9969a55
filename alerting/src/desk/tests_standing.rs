//! How things stand, and that what is remembered is bounded.

use chrono::TimeDelta;
use rebound_schemas::event::{
    ErrorClass, IncidentOpened, IncidentResolved, ProcedurePromoted, RecoveryDeclined, RecoveryPaused,
    RecoveryRejected, Restraint, Severity, TriggerMode,
};

use super::tests::{approve, at, desk, event, finished, judged, plan, rec, refuses, run, started, triggered};
use super::*;

fn opened(second: i64) -> Event {
    let data = IncidentOpened {
        incident: IncidentId::new("inc-1").unwrap(),
        severity: Severity::Critical,
        first_failure_at: at(0),
        detected_at: at(0),
        last_success_at: None,
        policy: None,
        error_class: ErrorClass::Network,
        cause: None,
        reason: "connection refused".into(),
    };
    event("o", second, data)
}

fn resolved(second: i64) -> Event {
    let incident = IncidentId::new("inc-1").unwrap();
    event("r", second, IncidentResolved { incident, recovered_at: at(second), recovery: None })
}

fn withheld(change: u32, reason: WithheldReason, second: i64) -> Event {
    let data = RecoveryWithheld {
        recovery: rec("rec-1"),
        incident: IncidentId::new("inc-1").unwrap(),
        attempt: 1,
        change,
        reason,
        by: Some("bob".into()),
        until: None,
        detail: Some("moving racks".into()),
        evidence: vec![],
    };
    event(&format!("w-{change}"), second, data)
}

#[test]
fn what_is_down_and_not_recovered_stands_with_its_reason() {
    use WithheldReason::{Concurrency, Hold, Paused};
    let state = |events: &[Event]| {
        let all = desk(events).standings(Some(&plan()), at(30));
        all.into_iter().map(|s| (s.state, s.reason.or(s.waits_for).unwrap_or_default())).collect::<Vec<_>>()
    };
    let words = "bob paused automation (moving racks)";
    let seen = [opened(1), withheld(1, Paused, 2)];
    assert_eq!(state(&seen), [(StandingState::Withheld, words.to_owned())]);
    assert!(state(&[withheld(1, Hold, 1)]).is_empty(), "it may never be an incident");
    // The topics have no common order: what is folded after the incident's end is known to be over.
    for events in [[opened(1), withheld(1, Paused, 2), resolved(9)], [opened(1), resolved(9), withheld(1, Paused, 2)]] {
        assert!(state(&events).is_empty());
    }
    assert!(state(&[resolved(9), opened(1), withheld(1, Paused, 2)]).is_empty());
    let held = desk(&seen);
    refuses(
        &held,
        approve(None),
        3,
        "rec-1 was not triggered: bob paused automation (moving racks): `rebound recovery run db`",
    );
    assert_eq!(held.detail(&rec("rec-1"), None, at(3)).unwrap().standing.state, StandingState::Withheld);
    // Once triggered, what keeps it from beginning is told.
    let auto = || triggered(TriggerMode::Auto);
    let waits = desk(&[opened(1), auto(), withheld(2, Concurrency, 5)]).standing(&rec("rec-1"), None, at(6)).unwrap();
    let ahead = "its turn: as many recoveries run as may: bob (moving racks)";
    assert_eq!((waits.state, waits.waits_for.as_deref()), (StandingState::Queued, Some(ahead)));
    assert_eq!(state(&[opened(1), withheld(1, Paused, 0), auto(), started(), finished()]).len(), 1);
}

#[test]
fn states_are_told_apart() {
    let (site, service, tier, procedure) = Default::default();
    let (by, reason) = ("bob".into(), "moving".into());
    let paused = RecoveryPaused { site, service, tier, procedure, until: None, by, reason };
    let paused = event("p", 1, paused);
    let auto = || triggered(TriggerMode::Auto);
    for (events, state, waits_for) in [
        (vec![triggered(TriggerMode::Approve)], StandingState::AwaitingApproval, Some("approval, until 2027-01-15")),
        (vec![auto()], StandingState::Queued, Some("its turn")),
        (vec![auto(), paused.clone()], StandingState::Paused, Some("the end of bob's pause: moving")),
        (vec![auto(), paused, started()], StandingState::Running, None),
        (vec![auto(), started(), finished()], StandingState::Finished, None),
    ] {
        let standing = desk(&events).standing(&rec("rec-1"), Some(&plan()), at(30)).unwrap();
        assert_eq!(standing.state, state);
        let waits = standing.waits_for.unwrap_or_default();
        assert!(waits.starts_with(waits_for.unwrap_or_default()) && waits.is_empty() == waits_for.is_none(), "{waits}");
    }
}

#[test]
fn requests_stand_until_they_become_recoveries() {
    let requested = judged(&desk(&[]), run("db"), 1).unwrap();
    let mut asked = desk(std::slice::from_ref(&requested));
    assert_eq!((asked.open_requests(at(2)).len(), asked.answer(&requested.id)), (1, None));
    let (request, by, reason) = (requested.id.clone(), "ann".to_owned(), "too often".to_owned());
    asked.evolve(&event("d", 2, RecoveryDeclined { request, by, reason, restraint: Some(Restraint::Intensity) }));
    assert_eq!(asked.open_requests(at(3))[0].declined.as_deref(), Some("too often"));
    assert!(asked.open_requests(at(3602)).is_empty(), "an old one is told no more");
    assert!(matches!(asked.answer(&requested.id), Some(Answered::Declined { .. })));
}

#[test]
fn what_ended_long_ago_is_forgotten_and_does_not_come_back() {
    let mut desk = Desk::default();
    let of = |n: usize, event: Event| {
        let mut event = Event { occurred_at: event.occurred_at + TimeDelta::seconds(n as i64), ..event };
        match &mut event.data {
            EventData::RecoveryTriggered(data) => data.recovery = rec(&format!("rec-{n}")),
            EventData::RecoveryFinished(data) => data.recovery = rec(&format!("rec-{n}")),
            _ => unreachable!("the two below"),
        }
        event
    };
    for n in 0..REMEMBERED + 500 {
        desk.evolve(&of(n, triggered(TriggerMode::Auto)));
        desk.evolve(&of(n, finished()));
    }
    assert_eq!(desk.standings(None, at(0)).len(), REMEMBERED);
    desk.evolve(&of(0, triggered(TriggerMode::Auto)));
    assert_eq!(desk.standings(None, at(0)).len(), REMEMBERED);
    assert_eq!(desk.standings(None, at(0))[0].recovery, rec(&format!("rec-{}", REMEMBERED + 499)), "the newest first");
}

#[test]
fn what_anybody_may_say_fills_no_memory() {
    let mut desk = desk(&[triggered(TriggerMode::Auto)]);
    for n in 0..3 * REMEMBERED {
        let (by, reason) = (|| "eve".to_owned(), || "because".to_owned());
        let recovery = rec(&format!("none-{n}"));
        desk.evolve(&event(&format!("x-{n}"), 1, RecoveryRejected { recovery, by: by(), reason: reason() }));
        let procedure = ProcedureId::new(&format!("p-{n}")).unwrap();
        desk.evolve(&event(&format!("p-{n}"), 1, ProcedurePromoted { procedure, by: by(), comment: reason() }));
        let request = EventId::new(&format!("q-{n}")).unwrap();
        desk.evolve(&event(
            &format!("e-{n}"),
            1,
            RecoveryDeclined { request, by: by(), reason: reason(), restraint: None },
        ));
        let incident = IncidentId::new(&format!("inc-{n}")).unwrap();
        desk.evolve(&event(&format!("r-{n}"), 1, IncidentResolved { incident, recovered_at: at(1), recovery: None }));
    }
    let most = REMEMBERED + 1;
    assert!(desk.entries.len() <= most && desk.rights.len() <= most && desk.requests.len() <= most);
    assert!(desk.over.len() <= most && desk.asked.len() <= most && desk.strangers.len() <= most);
    assert!(desk.standing(&rec("rec-1"), None, at(2)).is_some(), "what is real stays");
}
