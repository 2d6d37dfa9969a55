//! Each row of the table, and that the order of delivery does not matter.

use proptest::prelude::*;
use rebound_schemas::event::{RecoveryPaused, RecoveryResumed};

use super::*;
use crate::testing;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

/// `site:one,service:db`; empty for everything.
fn scope(text: &str) -> Scope {
    let mut scope = Scope::default();
    for (what, name) in text.split(',').filter_map(|part| part.split_once(':')) {
        match what {
            "site" => scope.site = Some(name.parse().unwrap()),
            "service" => scope.service = Some(name.parse().unwrap()),
            "tier" => scope.tier = Some(name.parse().unwrap()),
            "procedure" => scope.procedure = Some(name.parse().unwrap()),
            other => panic!("{other}"),
        }
    }
    scope
}

fn word(second: i64, of: &str, paused: Option<Option<i64>>) -> Event {
    let Scope { site, service, tier, procedure } = scope(of);
    let (by, reason) = ("ann".to_owned(), "the network is being moved".to_owned());
    let data: EventData = match paused {
        Some(until) => RecoveryPaused { site, service, tier, procedure, until: until.map(at), by, reason }.into(),
        None => RecoveryResumed { site, service, tier, procedure, by, reason }.into(),
    };
    testing::event("test", &format!("{second}-{of}-{paused:?}"), "automation", at(second), data)
}

/// Whether a service of a site and `tier-1`, brought back by `restart`, is held back.
fn held(events: &[Event], service: &str, site: &str, second: i64) -> bool {
    fold(events).active(target(&(service.parse().unwrap(), site.parse().unwrap()), &fixed()), at(second)).is_some()
}

fn fold(events: &[Event]) -> Pauses {
    let mut pauses = Pauses::default();
    for event in events {
        pauses.evolve(event);
    }
    pauses
}

fn fixed() -> (TierId, ProcedureId) {
    ("tier-1".parse().unwrap(), "restart".parse().unwrap())
}

fn target<'a>((service, site): &'a (ServiceId, SiteId), (tier, procedure): &'a (TierId, ProcedureId)) -> Target<'a> {
    Target { service, site: Some(site), tier: Some(tier), procedure: Some(procedure) }
}

#[test]
fn a_pause_covers_what_it_names() {
    for (scope, expect) in [
        ("", [true, true, true]),
        ("site:one", [true, true, false]),
        ("service:db", [true, false, false]),
        ("site:two,service:db", [false, false, false]),
        ("tier:tier-1", [true, true, true]),
        ("tier:tier-2", [false, false, false]),
        ("procedure:restart", [true, true, true]),
        ("procedure:restore", [false, false, false]),
        ("site:one,tier:tier-1,procedure:restart", [true, true, false]),
    ] {
        let events = [word(0, scope, Some(None))];
        let found = [("db", "one"), ("api", "one"), ("cache", "two")].map(|(s, at)| held(&events, s, at, 1));
        assert_eq!(found, expect, "{scope:?}");
    }
}

#[test]
fn a_scope_that_names_something_covers_nothing_unknown() {
    let service = ServiceId::new("db").unwrap();
    let unknown = Target { service: &service, site: None, tier: None, procedure: None };
    for (text, covers) in [("", true), ("service:db", true), ("site:one", false), ("procedure:restart", false)] {
        assert_eq!(scope(text).covers(unknown), covers, "{text:?}");
    }
}

#[test]
fn a_pause_ends_by_itself_or_by_a_resume_of_its_scope() {
    let timed = [word(0, "", Some(Some(60)))];
    assert!(held(&timed, "db", "one", 59) && !held(&timed, "db", "one", 60));
    let other = [word(0, "", Some(None)), word(1, "site:one", None)];
    assert!(held(&other, "db", "one", 2), "another scope was resumed");
    let same = [word(0, "", Some(None)), word(1, "", None)];
    assert!(!held(&same, "db", "one", 2));
}

#[test]
fn the_end_of_a_pause_is_known_before_and_afterwards() {
    let (service, fixed) = (("db".parse().unwrap(), "one".parse().unwrap()), fixed());
    let ends = |events: &[Event], second| {
        let (pauses, target) = (fold(events), target(&service, &fixed));
        (pauses.next_end(target, at(second)), pauses.last_end(target, at(second)))
    };
    let timed = [word(0, "", Some(Some(60))), word(0, "site:two", Some(Some(30)))];
    assert_eq!(ends(&timed, 59), (Some(at(60)), None));
    assert_eq!(ends(&timed, 60), (None, Some(at(60))));
    let resumed = [word(0, "", Some(Some(60))), word(5, "", None)];
    assert_eq!((ends(&resumed, 4), ends(&resumed, 5)), ((None, None), (None, Some(at(5)))));
    assert_eq!(ends(&[word(0, "", Some(None))], 9), (None, None), "it waits for a word");
}

#[test]
fn what_the_plan_does_not_have_is_named_with_what_was_meant() {
    let text = "[[site]]\nid = \"one\"\n[[service]]\nid = \"database\"\n[[service]]\nid = \"api\"\n";
    let plan = Plan::parse(text, "plan.toml").unwrap();
    for (text, fault) in [
        ("", None),
        ("site:one,service:api,tier:tier-1", None),
        ("service:databse", Some("\"databse\" is not a service of the plan: did you mean \"database\"?")),
        ("site:two", Some("\"two\" is not a site of the plan: there is only one")),
        ("tier:tier-9", Some("\"tier-9\" is not a tier of the plan: did you mean \"tier-1\"?")),
        ("procedure:restart", Some("\"restart\" is not a procedure of the plan: the plan has none")),
    ] {
        let found = scope(text).fault(&plan).map(|(what, remedy)| format!("{what}: {remedy}"));
        assert_eq!(found.as_deref(), fault, "{text:?}");
    }
}

#[test]
fn a_scope_is_told_in_words_and_stands_while_it_is_paused() {
    for (text, words) in [
        ("", "everything"),
        ("site:one", "site one"),
        ("tier:tier-1,site:one,procedure:restart", "site one and tier tier-1 and procedure restart"),
        ("service:db", "service db"),
    ] {
        assert_eq!(scope(text).to_string(), words);
    }
    let pauses = fold(&[word(0, "", Some(Some(60))), word(1, "site:one", Some(None)), word(2, "site:two", None)]);
    let standing = |second| pauses.in_force(at(second)).map(|(s, since, _)| (s.to_string(), since)).collect::<Vec<_>>();
    assert_eq!(standing(59), [("everything".to_owned(), at(0)), ("site one".to_owned(), at(1))]);
    assert_eq!(standing(60), [("site one".to_owned(), at(1))]);
}

#[test]
fn what_is_remembered_is_bounded_and_no_pause_in_force_is_forgotten() {
    let mut pauses = Pauses::default();
    pauses.evolve(&word(0, "service:db", Some(None)));
    for n in 0..3000 {
        pauses.evolve(&word(n, &format!("service:s{n}"), None));
    }
    assert_eq!(pauses.scopes.len(), REMEMBERED);
    let service = ("db".parse().unwrap(), "one".parse().unwrap());
    assert!(pauses.active(target(&service, &fixed()), at(9)).is_some());
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    #[test]
    fn neither_order_nor_redelivery_matters(
        words in prop::collection::vec((0..20_i64, 0..3_usize, prop::option::of(prop::option::of(0..40_i64))), 0..12),
        seed in any::<prop::sample::Index>(),
    ) {
        let scopes = ["", "site:one", "procedure:restart"];
        let events: Vec<Event> = words.into_iter().map(|(at, of, paused)| word(at, scopes[of], paused)).collect();
        let mut turned = events.clone();
        if !turned.is_empty() {
            turned.rotate_left(seed.index(events.len()));
            turned.extend(events.iter().cloned());
        }
        prop_assert_eq!(fold(&events), fold(&turned));
        for second in [0, 10, 30, 50] {
            prop_assert_eq!(held(&events, "db", "one", second), held(&turned, "db", "one", second));
        }
    }
}
