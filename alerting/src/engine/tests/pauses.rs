//! Pauses: nothing is triggered and no budget is spent, and what is still down afterwards is triggered once.

use rebound_schemas::event::{RecoveryPaused, RecoveryResumed};

use super::*;
use crate::pause::Scope;

fn pause(world: &mut World, scope: Scope, until: Option<i64>) -> Vec<String> {
    let Scope { site, service, tier, procedure } = scope;
    let (by, reason) = ("ann".into(), "the network is being moved".into());
    let data = RecoveryPaused { site, service, tier, procedure, until: until.map(at), by, reason };
    world.handle(outside("automation", world.second, &format!("pause-{}", world.second), data))
}

fn resume(world: &mut World, scope: Scope) -> Vec<String> {
    let Scope { site, service, tier, procedure } = scope;
    let data = RecoveryResumed { site, service, tier, procedure, by: "ann".into(), reason: "done".into() };
    world.handle(outside("automation", world.second, &format!("resume-{}", world.second), data))
}

const TOLD: [&str; 2] = ["incident.opened", "alert.raised"];

#[test]
fn what_is_still_down_after_a_pause_is_triggered_once() {
    let mut world = World::new();
    assert!(pause(&mut world, Scope::default(), None).is_empty());
    assert_eq!(world.probes("db", "FFF"), TOLD, "people are told all the same");
    assert!(world.probes("db", "FFF").is_empty());
    assert_eq!(resume(&mut world, Scope::default()), ["recovery.triggered#1"]);
    assert!(resume(&mut world, Scope::default()).is_empty(), "resumed is resumed");
    assert!(world.probes("db", "FF").is_empty());
    // What came up by itself meanwhile is not.
    let mut world = World::new();
    pause(&mut world, Scope::default(), None);
    world.probes("db", "FFFSS");
    assert!(resume(&mut world, Scope::default()).is_empty());
}

#[test]
fn a_pause_covers_by_service_site_tier_and_procedure() {
    let named = |scope: &dyn Fn(&mut Scope)| {
        let mut all = Scope::default();
        scope(&mut all);
        all
    };
    let rows: [(Scope, bool); 8] = [
        (named(&|s| s.service = Some(service("db"))), true),
        (named(&|s| s.service = Some(service("api"))), false),
        (named(&|s| s.site = Some("a".parse().unwrap())), true),
        (named(&|s| s.site = Some("b".parse().unwrap())), false),
        (named(&|s| s.tier = Some("tier-1".parse().unwrap())), true),
        (named(&|s| s.tier = Some("tier-9".parse().unwrap())), false),
        (named(&|s| s.procedure = Some("restart".parse().unwrap())), true),
        (named(&|s| s.procedure = Some("other".parse().unwrap())), false),
    ];
    for (scope, held) in rows {
        let mut world = World::new();
        pause(&mut world, scope.clone(), None);
        let expected = if held { TOLD.to_vec() } else { HARD.to_vec() };
        assert_eq!(world.probes("db", "FFF"), expected, "{scope:?}");
        let expected = if held { vec!["recovery.triggered#1"] } else { vec![] };
        assert_eq!(resume(&mut world, scope.clone()), expected, "{scope:?}");
    }
}

#[test]
fn a_pause_ends_by_itself_at_its_time_and_not_before() {
    let mut world = World::new();
    pause(&mut world, Scope::default(), Some(100));
    assert_eq!(world.probes("db", "FFFFFF"), Vec::<String>::new());
    assert_eq!(world.engine.next_deadline().map(|due| due <= at(100)), Some(true));
    assert!(world.tick(99).is_empty());
    assert_eq!(world.tick(100), ["recovery.triggered#1"]);
    assert!(world.tick(101).is_empty());
}

#[test]
fn no_budget_is_spent_in_a_pause_and_none_is_given_back() {
    let mut world = World::new();
    world.probes("db", "FFF");
    world.finish(RecoveryOutcome::Failed); // at 30: not before 40
    pause(&mut world, Scope::default(), None);
    assert!(world.probes("db", "FFFFFFFF").is_empty(), "back-off is over at 40, and it is paused");
    assert_eq!(resume(&mut world, Scope::default()), ["recovery.triggered#2"], "the second of three, once");
    world.finish(RecoveryOutcome::Failed);
    assert_eq!(world.probes("db", "FF"), ["recovery.triggered#3"]);
    assert_eq!(world.finish(RecoveryOutcome::Failed), ["recovery.escalated"]);
    // An intensity that is spent when a pause begins may be free again when it ends: nothing is given up in it.
    let mut world = World::new();
    world.probes("db", "FFF");
    world.finish(RecoveryOutcome::Failed);
    world.probes("db", "F");
    world.finish(RecoveryOutcome::Failed);
    world.probes("db", "FF");
    pause(&mut world, Scope::default(), None);
    assert!(world.finish(RecoveryOutcome::Failed).is_empty());
    world.second += 3600;
    assert!(world.probes("db", "F").is_empty());
    assert_eq!(resume(&mut world, Scope::default()), ["recovery.triggered#4"]);
}

#[test]
fn a_pause_of_days_is_known_to_whoever_starts_meanwhile() {
    let mut world = World::new();
    pause(&mut world, Scope::default(), None);
    world.second = 3 * 24 * 3600;
    assert_eq!(world.probes("db", "FFF"), TOLD);
    let mut engine = world.restarted();
    assert!(engine.tick(at(world.second)).is_empty(), "folded, and held back");
    world.engine = engine;
    assert!(world.probes("db", "F").is_empty());
    assert_eq!(resume(&mut world, Scope::default()), ["recovery.triggered#1"]);
    assert!(world.restarted().tick(at(world.second)).is_empty());
}

#[test]
fn an_interrupted_recovery_asks_for_people_also_in_a_pause() {
    let mut world = World::new();
    world.probes("db", "FFF");
    pause(&mut world, Scope::default(), None);
    assert_eq!(world.finish(RecoveryOutcome::Interrupted), ["recovery.escalated"]);
}

#[test]
fn a_pause_is_said_to_stand_in_the_way_with_who_and_why() {
    let mut world = World::new();
    pause(&mut world, Scope::default(), Some(500));
    world.probes("db", "FFFF");
    let withheld: Vec<_> = world.log.iter().filter(|event| event.kind() == Kind::RecoveryWithheld).collect();
    let [Event { data: EventData::RecoveryWithheld(data), .. }] = withheld.as_slice() else { panic!("{withheld:?}") };
    assert_eq!((data.reason.as_str(), data.by.as_deref(), data.until), ("paused", Some("ann"), Some(at(500))));
    assert_eq!(data.detail.as_deref(), Some("the network is being moved"));
    assert_eq!(data.evidence[0].id.as_str(), "pause-0");
    assert!(world.restarted().tick(at(world.second)).is_empty());
    // One that begins while its back-off runs is said at once.
    let mut world = World::new();
    world.probes("db", "FFF");
    world.finish(RecoveryOutcome::Failed);
    let before = world.log.len();
    pause(&mut world, Scope::default(), None);
    assert_eq!(world::all_words(&world.log[before + 1..]), ["recovery.withheld#2-paused"]);
}
