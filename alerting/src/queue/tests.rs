//! Every row of `decide`'s table.

use rebound_schemas::event::{IncidentOpened, IncidentResolved, RecoveryApproved, RecoveryPaused, TriggerMode};
use rebound_schemas::plan::{Reach, StopAbove};
use rebound_schemas::{PlanVersion, SiteId, TierId};

use super::*;
use crate::testing;

/// web needs api, api needs db; cache stands alone. All but cache are at one site.
pub(super) struct Map {
    version: PlanVersion,
    sites: BTreeMap<ServiceId, SiteId>,
    needs: BTreeMap<ServiceId, Vec<ServiceId>>,
    concurrency: usize,
    reach: BTreeMap<Option<SiteId>, Reach>,
}

impl Topology for Map {
    fn version(&self) -> &PlanVersion {
        &self.version
    }
    fn site(&self, service: &ServiceId) -> Option<&SiteId> {
        self.sites.get(service)
    }
    fn tier(&self, _: &ServiceId) -> Option<&TierId> {
        None
    }
    fn depends_on(&self, service: &ServiceId) -> &[ServiceId] {
        self.needs.get(service).map_or(&[], Vec::as_slice)
    }
    fn concurrency(&self, _: &ProcedureId) -> usize {
        self.concurrency
    }
    fn reach(&self, site: Option<&SiteId>) -> Reach {
        self.reach.get(&site.cloned()).copied().unwrap_or_default()
    }
    fn services_at(&self, site: Option<&SiteId>) -> u32 {
        self.sites.values().filter(|of| site.is_none_or(|site| *of == site)).count() as u32
    }
}

fn service(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

pub(super) fn map() -> Map {
    let site = |name: &str| SiteId::new(name).unwrap();
    let sites = [("db", "one"), ("api", "one"), ("web", "one"), ("cache", "two")];
    Map {
        version: PlanVersion::of_text("plan"),
        sites: sites.iter().map(|(s, at)| (service(s), site(at))).collect(),
        needs: BTreeMap::from([(service("api"), vec![service("db")]), (service("web"), vec![service("api")])]),
        concurrency: 10,
        reach: BTreeMap::new(),
    }
}

pub(super) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_000_000 + second, 0).unwrap()
}

pub(super) fn recovery(name: &str, attempt: u32) -> RecoveryId {
    RecoveryId::new(&format!("rec-{name}-{attempt}")).unwrap()
}

fn incident(name: &str) -> IncidentId {
    IncidentId::new(&format!("inc-{name}")).unwrap()
}

pub(super) fn event(name: &str, id: String, second: i64, data: impl Into<EventData>) -> Event {
    testing::event("test", &id, name, at(second), data)
}

pub(super) fn trigger(name: &str, attempt: u32, second: i64, mode: TriggerMode, not_before: Option<i64>) -> Event {
    let data = RecoveryTriggered {
        recovery: recovery(name, attempt),
        incident: incident(name),
        attempt,
        procedure: ProcedureId::new("restart").unwrap(),
        method: None,
        mode,
        first_failure_at: at(0),
        not_before: not_before.map(at),
        by: None,
        reason: None,
        error_class: None,
        approve_until: None,
        asked: None,
    };
    event(name, format!("t-{name}-{attempt}"), second, data)
}

pub(super) fn auto(name: &str, second: i64) -> Event {
    trigger(name, 1, second, TriggerMode::Auto, None)
}

pub(super) fn started(name: &str, attempt: u32, second: i64) -> Event {
    let (recovery, incident) = (recovery(name, attempt), incident(name));
    let (procedure, runner) = (ProcedureId::new("restart").unwrap(), "r".into());
    event(name, format!("s-{name}-{attempt}"), second, RecoveryStarted { recovery, incident, procedure, runner })
}

pub(super) fn approved(name: &str, attempt: u32, second: i64) -> Event {
    let data = RecoveryApproved { recovery: recovery(name, attempt), by: "ann".into(), step: None, comment: None };
    event(name, format!("a-{name}-{attempt}-{second}"), second, data)
}

pub(super) fn resolved(name: &str, second: i64) -> Event {
    let data = IncidentResolved { incident: incident(name), recovered_at: at(second), recovery: None };
    event(name, format!("r-{name}"), second, data)
}

pub(super) fn paused(site: Option<&str>, second: i64, until: Option<i64>) -> Event {
    let site = site.map(|site| SiteId::new(site).unwrap());
    let (by, reason) = ("ann".into(), "a network change".into());
    let data = RecoveryPaused { site, service: None, tier: None, procedure: None, until: until.map(at), by, reason };
    event("automation", format!("p-{second}"), second, data)
}

fn opened(name: &str, second: i64) -> Event {
    let data = IncidentOpened {
        incident: incident(name),
        severity: rebound_schemas::event::Severity::Critical,
        first_failure_at: at(second),
        last_success_at: None,
        detected_at: at(second),
        policy: Some("default".parse().unwrap()),
        error_class: ErrorClass::Unknown,
        cause: None,
        reason: "down".into(),
    };
    event(name, format!("o-{name}"), second, data)
}

fn limited(site: Option<&str>, max_recovering: Option<u32>, stop_above: Option<StopAbove>) -> Map {
    let site = site.map(|site| SiteId::new(site).unwrap());
    Map { reach: BTreeMap::from([(site, Reach { max_recovering, stop_above })]), ..map() }
}

#[test]
fn as_many_recoveries_run_at_a_site_or_in_all_as_the_plan_allows() {
    let events = [auto("db", 0), auto("cache", 1)];
    let told_under = |map: &Map| told(&queue(&events).decide(map, at(2), |_| true));
    assert_eq!(told_under(&map()), ["start rec-db-1", "start rec-cache-1"]);
    assert_eq!(told_under(&limited(None, Some(1), None)), ["start rec-db-1"]);
    assert_eq!(told_under(&limited(Some("two"), Some(1), None)), ["start rec-db-1", "start rec-cache-1"]);
    let [said] = queue(&[auto("db", 0), started("db", 1, 1), auto("cache", 1)])
        .withheld(&limited(None, Some(1), None), at(2), |service| service.as_str() == "cache")
        .try_into()
        .unwrap();
    let EventData::RecoveryWithheld(data) = said.data else { panic!() };
    let words = (data.reason.as_str(), data.by.as_deref(), data.detail.as_deref());
    assert_eq!(words, ("blast_radius", Some("everything"), Some("1 of at most 1 recoveries run there")));
}

#[test]
fn what_was_triggered_does_not_begin_while_the_site_is_what_failed() {
    // db, api and web are at site one.
    let site = limited(Some("one"), None, Some(StopAbove::Services(1)));
    let down = [opened("db", 0), opened("api", 0), auto("db", 1)];
    assert!(queue(&down).decide(&site, at(2), |_| true).is_empty());
    assert_eq!(told(&queue(&down).decide(&map(), at(2), |_| true)), ["start rec-db-1"], "without a limit");
    let share = limited(Some("one"), None, Some(StopAbove::Share(0.7)));
    assert_eq!(told(&queue(&down).decide(&share, at(2), |_| true)), ["start rec-db-1"], "two of three are 67 %");
    let fewer = [opened("db", 0), opened("api", 0), auto("db", 1), resolved("api", 2), opened("api", 0)];
    assert_eq!(told(&queue(&fewer).decide(&site, at(3), |_| true)), ["start rec-db-1"], "also when told again");
    let person =
        [opened("db", 0), opened("api", 0), trigger("db", 1, 1, TriggerMode::Approve, None), approved("db", 1, 2)];
    assert_eq!(told(&queue(&person).decide(&site, at(3), |_| true)), ["start rec-db-1"], "a person decided");
    let all = limited(None, None, Some(StopAbove::Services(2)));
    let three = [opened("db", 0), opened("api", 0), opened("cache", 0), auto("cache", 1)];
    assert!(queue(&three).decide(&all, at(2), |_| true).is_empty());
}

pub(super) fn queue(events: &[Event]) -> Queue {
    let mut queue = Queue::new(QueueLimits::default());
    events.iter().for_each(|event| queue.evolve(event));
    queue
}

/// Commands in short: `start rec-db-1`, `interrupted rec-db-1`.
pub(super) fn told(commands: &[Command]) -> Vec<String> {
    let tell = |command: &Command| match command {
        Command::Start { triggered } => match &triggered.data {
            EventData::RecoveryTriggered(data) => format!("start {}", data.recovery),
            other => panic!("started by {}", other.kind().as_str()),
        },
        Command::Finish { finished } => match &finished.data {
            EventData::RecoveryFinished(data) => format!("{} {}", data.outcome, data.recovery),
            other => panic!("finished by {}", other.kind().as_str()),
        },
        Command::Expire { events } => {
            let kinds: Vec<_> = events.iter().map(|event| event.kind().as_str()).collect();
            assert_eq!(kinds, ["recovery.expired", "recovery.escalated", "recovery.finished"]);
            format!("expired {}", events[0].data.recovery().unwrap())
        }
    };
    commands.iter().map(tell).collect()
}

#[track_caller]
pub(super) fn check(queue: &Queue, now: i64, want: &[&str]) {
    assert_eq!(told(&queue.decide(&map(), at(now), |_| true)), want);
}

#[test]
fn what_is_triggered_starts_once() {
    let mut one = queue(&[auto("db", 0)]);
    check(&one, 1, &["start rec-db-1"]);
    one.begin(&recovery("db", 1));
    check(&one, 1, &[]);
    one.evolve(&started("db", 1, 1));
    one.evolve(&auto("db", 0));
    check(&one, 2, &[]);
    one.end(&recovery("db", 1), true);
    one.evolve(&started("db", 1, 1));
    one.evolve(&auto("db", 0));
    check(&one, 3, &[]);
}

#[test]
fn what_was_started_by_another_is_interrupted_once() {
    let mut one = queue(&[auto("db", 0), started("db", 1, 10)]);
    let commands = one.decide(&map(), at(25), |_| true);
    assert_eq!(told(&commands), ["interrupted rec-db-1"]);
    let Command::Finish { finished } = &commands[0] else { panic!() };
    assert_eq!(finished.id.as_str(), "rec-db-1:finished");
    let EventData::RecoveryFinished(data) = &finished.data else { panic!() };
    assert_eq!((data.duration_ms, data.attempt), (15_000, 1));
    one.evolve(finished);
    check(&one, 26, &[]);
    // Its trigger was no longer there to be read.
    check(&queue(&[started("db", 1, 10)]), 11, &["interrupted rec-db-1"]);
    // A runner that gave up without a journalled end.
    let mut ours = queue(&[auto("db", 0), started("db", 1, 10)]);
    ours.begin(&recovery("db", 1));
    check(&ours, 11, &[]);
    ours.end(&recovery("db", 1), false);
    check(&ours, 12, &["interrupted rec-db-1"]);
}

#[test]
fn approval_time_and_age_are_respected() {
    let approve = |mode| trigger("db", 1, 0, mode, None);
    check(&queue(&[approve(TriggerMode::Approve)]), 1, &[]);
    check(&queue(&[approve(TriggerMode::Off)]), 1, &[]);
    check(&queue(&[approve(TriggerMode::Approve), approved("db", 1, 1)]), 1, &["start rec-db-1"]);
    check(&queue(&[approved("db", 1, 1), approve(TriggerMode::Approve)]), 1, &["start rec-db-1"]);
    let later = queue(&[trigger("db", 1, 0, TriggerMode::Auto, Some(30))]);
    check(&later, 29, &[]);
    check(&later, 30, &["start rec-db-1"]);
    let day = 24 * 3600;
    check(&later, day, &["start rec-db-1"]);
    check(&later, day + 1, &["cancelled rec-db-1"]);
}

/// Each row of `decide`'s table that waits, and what is said of it, once; and that it rests on what was there.
#[test]
fn what_keeps_a_recovery_waiting_is_said_when_it_changes() {
    let say = |queue: &mut Queue, map: &Map, now: i64| -> Vec<String> {
        let mut words = Vec::new();
        for event in queue.withheld(map, at(now), |_| true) {
            let EventData::RecoveryWithheld(data) = &event.data else { panic!() };
            assert_eq!(event.id.as_str(), format!("{}:waits-{}", data.recovery, data.change));
            assert!(data.evidence[0].id.as_str().starts_with("t-"), "{data:?}");
            let by = data.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let until = data.until.map(|until| format!(" until {}", (until - at(0)).num_seconds())).unwrap_or_default();
            words.push(format!("{} {}{by}{until}", data.recovery, data.reason));
            queue.evolve(&event);
        }
        assert_eq!(queue.withheld(map, at(now), |_| true), vec![], "said once");
        words
    };
    let mut one = queue(&[trigger("db", 1, 0, TriggerMode::Approve, Some(30))]);
    assert_eq!(say(&mut one, &map(), 1), ["rec-db-1 approval"]);
    one.evolve(&approved("db", 1, 2));
    assert_eq!(say(&mut one, &map(), 3), ["rec-db-1 back_off until 30"]);
    one.evolve(&paused(Some("one"), 4, Some(60)));
    assert_eq!(say(&mut one, &map(), 31), ["rec-db-1 paused by ann until 60"]);
    assert_eq!(say(&mut one, &map(), 60), [""; 0], "it starts");
    let mut one = queue(&[auto("db", 0), trigger("db", 2, 5, TriggerMode::Auto, None), auto("web", 6)]);
    one.begin(&recovery("db", 1));
    assert_eq!(
        say(&mut one, &map(), 7),
        ["rec-db-2 other_recovery by rec-db-1", "rec-web-1 dependency_recovery by db"]
    );
    assert_eq!(one.withheld(&map(), at(7), |_| false), vec![], "nobody's but the owner's");
    let apart = Map { needs: BTreeMap::new(), ..map() };
    for (limits, concurrency, by) in [
        (QueueLimits { total: 1, ..QueueLimits::default() }, 9, "everywhere"),
        (QueueLimits { per_site: 1, ..QueueLimits::default() }, 9, "site one"),
        (QueueLimits::default(), 1, "procedure restart"),
    ] {
        let mut two = Queue { limits, ..queue(&[auto("db", 0), auto("api", 1)]) };
        two.begin(&recovery("db", 1));
        let map = Map { concurrency, ..Map { needs: BTreeMap::new(), ..map() } };
        assert_eq!(say(&mut two, &map, 2), [format!("rec-api-1 concurrency by {by}")]);
    }
    // To and fro: sixteen times, and no more.
    let mut one = queue(&[auto("db", 0)]);
    let told: usize = (1..100)
        .map(|n| {
            let (by, reason) = (n.to_string(), "work".into());
            let data =
                RecoveryPaused { site: None, service: None, tier: None, procedure: None, until: None, by, reason };
            one.evolve(&event("automation", format!("p-{n}"), n, data));
            say(&mut one, &apart, n).len()
        })
        .sum();
    assert_eq!(told, 16);
}

#[test]
fn a_resolved_incident_calls_off_what_has_not_begun() {
    check(&queue(&[auto("db", 0), resolved("db", 1)]), 2, &["cancelled rec-db-1"]);
    check(&queue(&[resolved("db", 1), auto("db", 0)]), 2, &["cancelled rec-db-1"]);
    let mut running = queue(&[auto("db", 0)]);
    running.begin(&recovery("db", 1));
    running.evolve(&started("db", 1, 1));
    running.evolve(&resolved("db", 2));
    check(&running, 3, &[]);
}

#[test]
fn dependencies_come_first_however_far_away_and_whoever_owns_them() {
    let mut all = queue(&[auto("web", 0), auto("api", 1), auto("db", 2)]);
    check(&all, 3, &["start rec-db-1"]);
    all.begin(&recovery("db", 1));
    all.evolve(&started("db", 1, 3));
    check(&all, 4, &[]);
    all.end(&recovery("db", 1), true);
    check(&all, 5, &["start rec-api-1"]);
    // Nothing is wrong with api itself, but db is being recovered.
    let mut two = queue(&[auto("web", 0), trigger("db", 1, 0, TriggerMode::Approve, None)]);
    check(&two, 1, &[]);
    let not_db = two.decide(&map(), at(1), |s| s.as_str() != "db");
    assert_eq!(told(&not_db), [""; 0]);
    // A dependency's recovery that will be called off holds nobody up.
    two.evolve(&resolved("db", 1));
    check(&two, 2, &["cancelled rec-db-1", "start rec-web-1"]);
}

#[test]
fn others_services_get_no_commands_but_count() {
    let own_cache = |s: &ServiceId| s.as_str() == "cache";
    let mut both = queue(&[auto("db", 0), started("db", 1, 1), auto("cache", 2)]);
    assert_eq!(told(&both.decide(&map(), at(3), own_cache)), ["start rec-cache-1"]);
    let narrow = Map { concurrency: 1, ..map() };
    assert_eq!(told(&both.decide(&narrow, at(3), own_cache)), [""; 0]);
    both.limits.total = 1;
    assert_eq!(told(&both.decide(&map(), at(3), own_cache)), [""; 0]);
}

#[test]
fn limits_hold_at_n_minus_one_n_and_n_plus_one() {
    let independent = || Map { needs: BTreeMap::new(), ..map() };
    let all = [auto("db", 0), auto("api", 1), auto("web", 2), auto("cache", 3)];
    let mut queue = queue(&all);
    let starts = |queue: &Queue, map: &Map| queue.decide(map, at(4), |_| true).len();
    for limit in 0..=5 {
        queue.limits = QueueLimits { total: limit, ..QueueLimits::default() };
        assert_eq!(starts(&queue, &independent()), limit.min(4), "total {limit}");
        queue.limits = QueueLimits { per_site: limit, ..QueueLimits::default() };
        assert_eq!(starts(&queue, &independent()), limit.min(3) + limit.min(1), "site {limit}");
        queue.limits = QueueLimits::default();
        let narrow = Map { concurrency: limit, ..independent() };
        assert_eq!(starts(&queue, &narrow), limit.min(4), "procedure {limit}");
    }
}

#[test]
fn one_recovery_of_a_service_at_a_time_and_in_order() {
    let second = trigger("db", 2, 5, TriggerMode::Auto, None);
    let first_later = trigger("db", 1, 0, TriggerMode::Auto, Some(60));
    check(&queue(&[second.clone(), first_later]), 10, &[]);
    let mut both = queue(&[second, auto("db", 0)]);
    check(&both, 10, &["start rec-db-1"]);
    both.begin(&recovery("db", 1));
    check(&both, 10, &[]);
    both.end(&recovery("db", 1), true);
    check(&both, 11, &["start rec-db-2"]);
}

#[test]
fn what_was_forgotten_does_not_come_back_to_life() {
    let mut one = queue(&[auto("db", 0), started("db", 1, 1)]);
    one.end(&recovery("db", 1), true);
    let day = 24 * 3600;
    one.prune(at(2 * day));
    one.evolve(&auto("db", 0));
    check(&one, 2 * day, &[]);
    one.prune(at(2 * day + 1));
    assert!(one.entries.is_empty());
    one.evolve(&auto("db", 0));
    check(&one, 2 * day + 1, &["cancelled rec-db-1"]);
}
