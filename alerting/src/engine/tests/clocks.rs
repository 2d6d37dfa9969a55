//! Clocks that are set, of probers and of this instance, and processes that stand still.

use chrono::TimeDelta;
use rebound_schemas::event::RecoveryOutcome;
use rebound_schemas::{Event, EventData, EventId, Kind, Source};

use super::world::{World, at, outcome_of, probe_from};
use super::{HARD, RESOLVED};
use crate::threshold::Health;

/// One prober, one result each ten seconds, its clock and this instance's set by `set`.
struct Prober {
    world: World,
    number: u64,
    run: &'static str,
}

impl Prober {
    fn new() -> Self {
        let mut world = World::new();
        world.second = 10_000;
        Self { world, number: 0, run: "a" }
    }

    fn event(&mut self, subject: &str, outcome: char) -> Event {
        self.number += 1;
        let event = probe_from(subject, subject, None, self.world.second, outcome_of(outcome));
        let source = Source::of_probe_run("host", self.run).unwrap();
        Event { id: EventId::new(&self.number.to_string()).unwrap(), source, ..event }
    }

    fn probes(&mut self, subject: &str, outcomes: &str) -> Vec<String> {
        let mut last = Vec::new();
        for outcome in outcomes.chars() {
            self.world.second += 10;
            let event = self.event(subject, outcome);
            last = self.world.handle(event);
        }
        last
    }

    fn set(&mut self, by: i64) {
        self.world.second += by;
        self.world.engine.stood_still(TimeDelta::seconds(by));
    }
}

#[test]
fn a_clock_set_back_stops_no_detection_and_no_resolve() {
    for back in [-1, -25, -3600] {
        let mut prober = Prober::new();
        prober.probes("db", "SSF");
        prober.set(back);
        assert!(prober.probes("db", "F").is_empty(), "{back}: the second failure");
        assert_eq!(prober.probes("db", "F"), HARD, "{back}: the third");
        prober.set(back);
        assert!(prober.probes("db", "S").is_empty());
        assert_eq!(prober.probes("db", "S"), RESOLVED, "{back}");
        let (opened, resolved) = prober.world.log.iter().fold((None, None), |(opened, resolved), e| match &e.data {
            EventData::IncidentOpened(data) => (Some(data.first_failure_at), resolved),
            EventData::IncidentResolved(data) => (opened, Some(data.recovered_at)),
            _ => (opened, resolved),
        });
        assert!(resolved >= opened, "{back}: no outage of negative length");
        assert_eq!(prober.probes("db", "FFF")[0], "incident.opened", "{back}: the next one");
    }
}

#[test]
fn a_prober_started_anew_with_its_clock_set_back_is_believed_at_its_second_word() {
    let mut prober = Prober::new();
    prober.probes("db", "SSSS");
    prober.set(-3600);
    (prober.run, prober.number) = ("b", 0);
    assert!(prober.probes("db", "FFF").is_empty(), "the first is passed over, as a straggler would be");
    assert_eq!(prober.probes("db", "F"), HARD);
}

#[test]
fn what_comes_late_corrupts_no_streak() {
    let mut prober = Prober::new();
    prober.probes("db", "SFF");
    // Results of a run before this one, and an earlier one of this run: redelivered, or long under way.
    let mut old = prober.event("db", 'S');
    old.source = Source::of_probe_run("host", "before").unwrap();
    old.occurred_at = at(500);
    assert!(prober.world.handle(old.clone()).is_empty());
    assert!(prober.world.handle(old).is_empty());
    let mut early = prober.event("db", 'S');
    early.id = EventId::new("1").unwrap();
    assert!(prober.world.handle(early).is_empty());
    assert_eq!(prober.world.status("db").failures, 2);
    assert_eq!(prober.probes("db", "F"), HARD);
}

#[test]
fn a_clock_set_forward_makes_nothing_unobserved_and_fires_nothing() {
    let mut prober = Prober::new();
    assert_eq!(prober.probes("db", "FFF"), HARD);
    assert_eq!(prober.probes("api", "FFF"), ["incident.opened", "alert.suppressed-dependency"]);
    prober.set(3600);
    let now = prober.world.second;
    assert!(prober.world.tick(now).is_empty(), "the dependency is observed: its dependant stays suppressed");
    assert_eq!(prober.world.status("db").health, Health::Hard);
    assert!(prober.probes("db", "F").is_empty());
    assert!(prober.probes("api", "F").is_empty());
    // And back: silence is noticed as soon as ever.
    prober.set(-3600);
    assert!(prober.probes("db", "F").is_empty());
    let silent = prober.world.second + 60;
    assert_eq!(prober.world.tick(silent), ["alert.raised", "recovery.triggered#1"]);
    assert_eq!(prober.world.status("db").health, Health::Unobserved);
}

#[test]
fn what_is_remembered_of_a_later_time_holds_nothing_up() {
    // The dependency recovered an hour ahead: its dependant's failures are told of all the same.
    let mut prober = Prober::new();
    prober.probes("db", "FFFSS");
    prober.set(-3600);
    assert_eq!(prober.probes("api", "FFF"), HARD);
    // The last recovery ended an hour ahead: the next one waits for no hour, and a relapse is one.
    let mut prober = Prober::new();
    assert_eq!(prober.probes("db", "FFF"), HARD);
    prober.world.finish(RecoveryOutcome::Succeeded);
    prober.probes("db", "S");
    prober.set(-3600);
    let again = prober.probes("db", "FFF");
    assert_eq!(again, ["recovery.triggered#2"]);
    assert_eq!(prober.world.log.iter().filter(|e| e.kind() == Kind::IncidentOpened).count(), 1);
}
