//! Every row of `decide`'s table, and a small world of instances that crash, take over and read things again.

use proptest::prelude::*;
use rebound_schemas::event::{
    IncidentOpened, IncidentResolved, RecoveryApproved, RecoveryCancelled, RecoveryPaused, RecoveryRejected,
    RecoveryResumed, TriggerMode,
};
use rebound_schemas::plan::{Reach, StopAbove};
use rebound_schemas::{EventId, PlanVersion, SiteId, Source, TierId};

use super::*;

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
    Event {
        id: EventId::new(&id).unwrap(),
        source: Source::new("test").unwrap(),
        subject: service(name),
        occurred_at: at(second),
        plan: None,
        data: data.into(),
    }
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

fn approved(name: &str, second: i64) -> Event {
    let data = RecoveryApproved { recovery: recovery(name, 1), by: "ann".into(), step: None, comment: None };
    event(name, format!("a-{name}"), second, data)
}

pub(super) fn resolved(name: &str, second: i64) -> Event {
    let data = IncidentResolved { incident: incident(name), recovered_at: at(second), recovery: None };
    event(name, format!("r-{name}"), second, data)
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

pub(super) fn paused(site: Option<&str>, second: i64, until: Option<i64>) -> Event {
    let site = site.map(|site| SiteId::new(site).unwrap());
    let (by, reason) = ("ann".into(), "a network change".into());
    let data = RecoveryPaused { site, service: None, tier: None, procedure: None, until: until.map(at), by, reason };
    event("automation", format!("p-{second}"), second, data)
}

pub(super) fn resumed(second: i64) -> Event {
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
        (vec![waits.clone(), rejected("db", 1), approved("db", 2)], "cancelled rec-db-1"),
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
        [opened("db", 0), opened("api", 0), trigger("db", 1, 1, TriggerMode::Approve, None), approved("db", 2)];
    assert_eq!(told(&queue(&person).decide(&site, at(3), |_| true)), ["start rec-db-1"], "a person decided");
    let all = limited(None, None, Some(StopAbove::Services(2)));
    let three = [opened("db", 0), opened("api", 0), opened("cache", 0), auto("cache", 1)];
    assert!(queue(&three).decide(&all, at(2), |_| true).is_empty());
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
    check(&queue(&[approve(TriggerMode::Approve), approved("db", 1)]), 1, &["start rec-db-1"]);
    check(&queue(&[approved("db", 1), approve(TriggerMode::Approve)]), 1, &["start rec-db-1"]);
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
    one.evolve(&approved("db", 2));
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

#[derive(Debug, Clone)]
enum Op {
    Trigger(usize),
    Resolve(usize),
    /// Decide and act on every command; crash after so many journal records, if that many are made.
    Work(Option<usize>),
    /// The oldest running recovery ends; its end is journalled, or not, as the runner died.
    End(bool),
    /// The owner dies, another takes over.
    Crash,
    /// Another takes over while the old owner still believes that it owns, and acts on what it decides.
    Pause,
    /// The bus delivers a stretch of the log again.
    Redeliver(usize, usize),
}

const NAMES: [&str; 4] = ["db", "api", "web", "cache"];

/// One partition's log, its owner, and what was executed.
#[derive(Debug)]
struct World {
    log: Vec<Event>,
    owner: Queue,
    executed: BTreeMap<RecoveryId, u32>,
    attempts: [u32; 4],
    clock: i64,
}

impl World {
    fn append(&mut self, event: Event) {
        self.owner.evolve(&event);
        self.log.push(event);
    }

    fn take_over(&mut self) {
        self.owner = queue(&self.log);
    }

    /// Acts on what the owner decides; false if it crashed on the way.
    fn work(&mut self, mut records: usize) -> bool {
        let mut crash = || {
            records = records.saturating_sub(1);
            records == 0
        };
        for command in self.owner.decide(&map(), at(self.clock), |_| true) {
            match command {
                Command::Start { triggered } => {
                    let EventData::RecoveryTriggered(data) = &triggered.data else { panic!() };
                    let id = data.recovery.clone();
                    self.owner.begin(&id);
                    self.append(started(triggered.subject.as_str(), data.attempt, self.clock));
                    if crash() {
                        return false;
                    }
                    *self.executed.entry(id).or_default() += 1;
                }
                Command::Expire { events } => {
                    events.into_iter().for_each(|event| self.append(event));
                    if crash() {
                        return false;
                    }
                }
                Command::Finish { finished } => {
                    self.append(*finished);
                    if crash() {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn end(&mut self, journalled: bool) {
        let Some(id) = self.owner.running().next().cloned() else { return };
        if journalled {
            let entry = &self.owner.entries[&id];
            let outcome = RecoveryOutcome::Succeeded;
            let finished = self.owner.finished(&id, entry, outcome, "", &map(), at(self.clock));
            self.append(finished);
        }
        self.owner.end(&id, journalled);
    }

    fn step(&mut self, op: &Op) {
        self.clock += 1;
        match op {
            Op::Trigger(which) => {
                self.attempts[*which] += 1;
                let event = trigger(NAMES[*which], self.attempts[*which], self.clock, TriggerMode::Auto, None);
                self.append(event);
            }
            Op::Resolve(which) => self.append(resolved(NAMES[*which], self.clock)),
            Op::Work(crash_after) => {
                if !self.work(crash_after.map_or(usize::MAX, |n| n + 1)) {
                    self.take_over();
                }
            }
            Op::End(journalled) => self.end(*journalled),
            Op::Crash => self.take_over(),
            Op::Pause => {
                // What the old owner decides from now on is refused by the journal, so it executes nothing; what it
                // decided may not change what the new owner sees.
                let mut old = self.owner.clone();
                self.take_over();
                for command in old.decide(&map(), at(self.clock), |_| true) {
                    if let Command::Start { triggered } = command
                        && let EventData::RecoveryTriggered(data) = &triggered.data
                    {
                        old.begin(&data.recovery);
                        old.end(&data.recovery, false);
                    }
                }
                // It rejoins later and reads what happened meanwhile: it becomes the owner again.
                self.log.iter().for_each(|event| old.evolve(event));
                let running: Vec<_> = old.running().cloned().collect();
                running.iter().for_each(|id| old.end(id, false));
                self.owner = old;
            }
            Op::Redeliver(from, count) => {
                let from = from % self.log.len().max(1);
                let stretch: Vec<Event> = self.log.iter().skip(from).take(*count).cloned().collect();
                stretch.iter().for_each(|event| self.owner.evolve(event));
            }
        }
    }

    fn ends(&self, id: &RecoveryId) -> Vec<RecoveryOutcome> {
        let outcome = |event: &Event| match &event.data {
            EventData::RecoveryFinished(data) if data.recovery == *id => Some(data.outcome),
            _ => None,
        };
        self.log.iter().filter_map(outcome).collect()
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4usize).prop_map(Op::Trigger),
        1 => (0..4usize).prop_map(Op::Resolve),
        6 => proptest::option::of(0..3usize).prop_map(Op::Work),
        4 => any::<bool>().prop_map(Op::End),
        1 => Just(Op::Crash),
        1 => Just(Op::Pause),
        2 => (any::<usize>(), 0..20usize).prop_map(|(from, count)| Op::Redeliver(from, count)),
    ]
}

proptest! {
    #[test]
    fn every_recovery_runs_at_most_once_and_ends_exactly_once(ops in proptest::collection::vec(any_op(), 0..80)) {
        let mut world = World {
            log: vec![], owner: queue(&[]), executed: BTreeMap::new(), attempts: [0; 4], clock: 0,
        };
        for op in &ops {
            world.step(op);
            prop_assert!(world.executed.values().all(|n| *n <= 1), "{:?} after {op:?}", world.executed);
        }
        // Left alone, everything comes to an end: nothing is forgotten, and nothing ends twice.
        for _ in 0..1000 {
            world.step(&Op::Work(None));
            world.step(&Op::End(true));
        }
        prop_assert_eq!(world.owner.pending(), 0);
        for (name, attempts) in NAMES.iter().zip(world.attempts) {
            for attempt in 1..=attempts {
                let id = recovery(name, attempt);
                let ends = world.ends(&id);
                prop_assert_eq!(ends.len(), 1, "{} ended as {:?}", id, ends);
                let ran = world.executed.get(&id).copied().unwrap_or_default();
                prop_assert!(ran <= 1 && (ends[0] != RecoveryOutcome::Succeeded || ran == 1));
                prop_assert!(ends[0] != RecoveryOutcome::Cancelled || ran == 0);
            }
        }
    }

    #[test]
    fn a_queue_rebuilt_from_the_log_decides_the_same(ops in proptest::collection::vec(any_op(), 0..60)) {
        let mut world = World {
            log: vec![], owner: queue(&[]), executed: BTreeMap::new(), attempts: [0; 4], clock: 0,
        };
        ops.iter().for_each(|op| world.step(op));
        // Only what is running here is known to this instance alone.
        while world.owner.running().next().is_some() {
            world.end(true);
        }
        let rebuilt = queue(&world.log);
        let decide = |queue: &Queue| told(&queue.decide(&map(), at(world.clock), |_| true));
        prop_assert_eq!(decide(&rebuilt), decide(&world.owner));
    }
}
