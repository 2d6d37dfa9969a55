//! Each row of the table, and that the order of delivery does not matter.

use proptest::prelude::*;
use rebound_schemas::event::{RecoveryPaused, RecoveryResumed};

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn word(second: i64, site: Option<&str>, service: Option<&str>, paused: Option<Option<i64>>) -> Event {
    let site = site.map(|site| SiteId::new(site).unwrap());
    let service = service.map(|service| ServiceId::new(service).unwrap());
    let (by, reason) = ("ann".to_owned(), "the network is being moved".to_owned());
    let data: EventData = match paused {
        Some(until) => RecoveryPaused { site, service, until: until.map(at), by, reason }.into(),
        None => RecoveryResumed { site, service, by, reason }.into(),
    };
    Event {
        id: EventId::new(&format!("{second}-{paused:?}")).unwrap(),
        source: Source::new("test").unwrap(),
        subject: ServiceId::new("automation").unwrap(),
        occurred_at: at(second),
        plan: None,
        data,
    }
}

fn held(events: &[Event], service: &str, site: &str, second: i64) -> bool {
    let mut pauses = Pauses::default();
    events.iter().for_each(|event| pauses.evolve(event));
    let (service, site) = (ServiceId::new(service).unwrap(), SiteId::new(site).unwrap());
    pauses.active(&service, Some(&site), at(second)).is_some()
}

#[test]
fn a_pause_covers_what_it_names() {
    for (site, service, expect) in [
        (None, None, [true, true, true]),
        (Some("one"), None, [true, true, false]),
        (None, Some("db"), [true, false, false]),
        (Some("two"), Some("db"), [false, false, false]),
    ] {
        let events = [word(0, site, service, Some(None))];
        let found = [("db", "one"), ("api", "one"), ("cache", "two")].map(|(s, at)| held(&events, s, at, 1));
        assert_eq!(found, expect, "site {site:?}, service {service:?}");
    }
}

#[test]
fn a_pause_ends_by_itself_or_by_a_resume_of_its_scope() {
    let timed = [word(0, None, None, Some(Some(60)))];
    assert!(held(&timed, "db", "one", 59) && !held(&timed, "db", "one", 60));
    let other = [word(0, None, None, Some(None)), word(1, Some("one"), None, None)];
    assert!(held(&other, "db", "one", 2), "another scope was resumed");
    let same = [word(0, None, None, Some(None)), word(1, None, None, None)];
    assert!(!held(&same, "db", "one", 2));
}

proptest! {
    #[test]
    fn neither_order_nor_redelivery_matters(
        words in prop::collection::vec((0..20_i64, 0..2_usize, prop::option::of(prop::option::of(0..40_i64))), 0..12),
        seed in any::<prop::sample::Index>(),
    ) {
        let events: Vec<Event> =
            words.into_iter().map(|(at, scope, paused)| word(at, [None, Some("one")][scope], None, paused)).collect();
        let mut turned = events.clone();
        if !turned.is_empty() {
            turned.rotate_left(seed.index(events.len()));
            turned.extend(events.iter().cloned());
        }
        for second in [0, 10, 30, 50] {
            prop_assert_eq!(held(&events, "db", "one", second), held(&turned, "db", "one", second));
        }
    }
}
