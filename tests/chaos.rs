//! Everything at once, round after round, on a real Kafka: instances are killed, stopped and woken, join and leave;
//! events come twice and late; the receiver of notifications refuses, hangs, and takes what it does not acknowledge.
//!
//! Afterwards, from the bus itself, the log, the recoveries' own ledger and the receiver:
//!
//! | promise | proof |
//! |---|---|
//! | one trigger an (incident, attempt) | the recoveries topic, where what this test redelivered is known |
//! | one execution a recovery | the ledger that the procedure's program appends to |
//! | one effect a transition | the receiver, which drops repeats by key |
//! | every acknowledged event exactly once | the log, counted and by `rebound log verify` |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rebound_schemas::event::Transition;
use rebound_schemas::{AlertId, EventData, Topic};
use serde_json::Value;

use crate::kafka_bus::{KafkaClient, Stored};
use crate::pipeline::{borrowed, lines, measurement, sql};
use crate::receiver::Receiver;
use crate::support::{Random, Running, alone, free_port, kafka, rounds, script, seed, succeeds, wait_for};

const PARTITIONS: i32 = 4;
const SERVICES: usize = 6;
/// A member that is silent for so long is taken for dead.
const SESSION: Duration = Duration::from_secs(6);

/// What is done to the instances in a round. Every one once before any comes again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Blow {
    /// kill -9 of an instance that decides and recovers; it is started anew.
    KillDecider,
    /// SIGSTOP for longer than its session lasts, then SIGCONT: it does not know that it was replaced.
    StopDecider,
    /// A further instance joins, or leaves.
    Rebalance,
    /// kill -9 of the log writer and the intake, and of the probes.
    KillSources,
    /// SIGSTOP and SIGCONT of the same: the log writer does not know that its session is over.
    StopSources,
    /// What stands on the bus is delivered again, decisions too, and old observations come late.
    Redeliver,
}

const BLOWS: [Blow; 6] =
    [Blow::KillDecider, Blow::Redeliver, Blow::StopDecider, Blow::KillSources, Blow::StopSources, Blow::Rebalance];

/// Six services that are up while their file is there, on a policy that never tires.
///
/// A recovery's first step writes a line into the ledger, its second makes the file.
fn write_plan(folder: &Path, hook: &str) {
    let root = folder.display();
    for (name, text) in [
        ("work.sh", format!("#!/bin/sh\necho \"$1 $2 $3\" >> {root}/ledger\nsleep 0.3\n")),
        ("mend.sh", format!("#!/bin/sh\nsleep 0.1\ntouch {root}/up/$1\n")),
    ] {
        script(&folder.join(name), &text);
    }
    let mut plan = format!(
        r#"
name = "chaos"
allow = ["{root}/work.sh", "{root}/mend.sh", "/usr/bin/test"]

[[policy]]
id = "default"
failures = 2
recoveries = 2
silent_after = "60s"
intensity = 1000
intensity_period = "1h"
backoff = "100ms"
backoff_max = "500ms"
verify_within = "20s"

[[channel]]
id = "pager"
kind = "webhook"
url = "{hook}"
allow_private = true
timeout = "1s"
attempts = 6

[[channel]]
id = "chat"
kind = "webhook"
url = "{hook}"
allow_private = true
timeout = "1s"
attempts = 6

[[route]]
channels = ["pager"]
continue = true

[[route]]
channels = ["chat"]
group_by = ["site"]
group_wait = "500ms"
group_interval = "2s"

[[procedure]]
id = "restore"
concurrency = 10
[[procedure.step]]
id = "work"
command = ["{root}/work.sh", "{{recovery}}", "{{incident}}", "{{attempt}}"]
[[procedure.step]]
id = "mend"
command = ["{root}/mend.sh", "{{service}}"]
"#
    );
    std::fs::create_dir_all(folder.join("up")).expect("a folder");
    for n in 0..SERVICES {
        plan += &format!(
            r#"
[[service]]
id = "svc-{n}"
rto = "5m"
rpo = "1h"
procedure = "restore"
[[service.probe]]
command = ["/usr/bin/test", "-e", "{root}/up/svc-{n}"]
exit_codes = {{ 0 = "healthy", 1 = "failed" }}
every = "500ms"
timeout = "400ms"
"#
        );
    }
    std::fs::write(folder.join("plan.toml"), plan).expect("written");
    mend_all(folder);
}

fn mend_all(folder: &Path) {
    (0..SERVICES).for_each(|n| std::fs::write(folder.join(format!("up/svc-{n}")), "").expect("written"));
}

/// The instances, and what is known of the events that were posted.
struct World<'a> {
    folder: &'a Path,
    environment: Vec<(&'static str, &'static str)>,
    client: KafkaClient,
    random: Random,
    /// `None` only while one is being replaced.
    sources: Vec<Option<Running>>,
    deciders: Vec<Option<Running>>,
    /// Posts of each measurement that were acknowledged, and those of which nothing was heard.
    acknowledged: BTreeMap<String, usize>,
    unheard: BTreeMap<String, usize>,
    /// How often each decision was redelivered by (source, id).
    redelivered: BTreeMap<(String, String), usize>,
}

const SOURCES: [(&str, &[&str]); 2] = [("l", &["log", "intake"]), ("p", &["probe"])];
const DECIDERS: [&str; 3] = ["a", "b", "c"];

impl World<'_> {
    fn source(&self, n: usize) -> Running {
        self.start(SOURCES[n].0, SOURCES[n].1)
    }

    fn decider(&self, n: usize) -> Running {
        self.start(DECIDERS[n], &["alert", "recover", "serve"])
    }

    fn start(&self, name: &str, roles: &[&str]) -> Running {
        let data = if name == "l" { "data".to_owned() } else { format!("data-{name}") };
        let mut arguments = vec!["run"];
        arguments.extend(roles);
        arguments.extend(["--plan", "plan.toml", "--data", &data]);
        Running::start(self.folder, name, &arguments, &self.environment)
    }

    /// Posts measurements for a while; some of them twice.
    fn post_for(&mut self, time: Duration, round: usize) {
        let until = Instant::now() + time;
        let mut batch = 0;
        while Instant::now() < until {
            let ids: Vec<_> = (0..20).map(|i| format!("{round}-{batch}-{i}")).collect();
            let twice = self.random.below(20) == 0;
            let body: Vec<_> = ids.iter().map(|id| measurement(id)).collect();
            for _ in 0..=usize::from(twice) {
                let log = self.sources[0].as_ref().expect("the intake");
                let answer = log.post("/v1/events", "application/x-ndjson", &body.join("\n"));
                let count = match answer {
                    Some((202, _)) => &mut self.acknowledged,
                    _ => &mut self.unheard,
                };
                ids.iter().for_each(|id| *count.entry(id.clone()).or_default() += 1);
            }
            batch += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn strike(&mut self, blow: Blow, round: usize) {
        match blow {
            Blow::KillDecider => {
                let n = self.random.below(2);
                self.deciders[n].take().expect("an instance").kill();
                let pause = Duration::from_millis(self.random.below(2000) as u64);
                self.post_for(pause, round * 10 + 1);
                self.deciders[n] = Some(self.decider(n));
            }
            Blow::StopDecider => {
                let n = self.random.below(2);
                self.deciders[n].as_ref().expect("an instance").signal(Signal::SIGSTOP);
                self.post_for(SESSION + Duration::from_secs(3), round * 10 + 2);
                self.deciders[n].as_ref().expect("an instance").signal(Signal::SIGCONT);
            }
            Blow::Rebalance => match self.deciders[2].take() {
                // Every other time it leaves in order.
                Some(third) if self.random.below(2) == 0 => assert_eq!(third.stop(), Some(0)),
                Some(third) => third.kill(),
                None => self.deciders[2] = Some(self.decider(2)),
            },
            Blow::KillSources => {
                for n in 0..SOURCES.len() {
                    self.sources[n].take().expect("a source").kill();
                    self.sources[n] = Some(self.source(n));
                }
                self.wait_for_intake();
            }
            Blow::StopSources => {
                let signal = |signal| {
                    self.sources.iter().for_each(|source| source.as_ref().expect("a source").signal(signal));
                };
                signal(Signal::SIGSTOP);
                std::thread::sleep(SESSION + Duration::from_secs(3));
                signal(Signal::SIGCONT);
                self.wait_for_intake();
            }
            Blow::Redeliver => {
                let mut again = Vec::new();
                for topic in Topic::ALL {
                    let all: Vec<Stored> = self.client.read(topic);
                    // All decisions of late, and some of any age: late ones, most of them.
                    let from = all.len().saturating_sub(20);
                    let old = (0..all.len().min(20)).map(|_| all[self.random.below(all.len())].clone());
                    again.extend(old.collect::<Vec<_>>());
                    again.extend(all[from..].iter().cloned());
                }
                for stored in &again {
                    let of = (stored.event.source.to_string(), stored.event.id.to_string());
                    *self.redelivered.entry(of).or_default() += 1;
                }
                self.client.redeliver(&again);
            }
        }
    }

    fn wait_for_intake(&self) {
        let log = self.sources[0].as_ref().expect("the intake");
        wait_for("the intake", || matches!(log.get("/readyz"), Some((200, _))).then_some(()));
    }

    /// Numbers of the services that an instance knows to be in this state.
    fn states(&self, state: &str) -> usize {
        let body = self.deciders[0].as_ref().and_then(|decider| decider.get("/api/v1/services"));
        body.map_or(0, |(_, body)| body.matches(&format!(r#""state":"{state}""#)).count())
    }
}

#[test]
fn no_blow_makes_it_lose_or_repeat_anything() {
    let Some(brokers) = kafka("chaos on Kafka") else { return };
    let _alone = alone();
    let began = Instant::now();
    let (seed, rounds) = (seed(), rounds(BLOWS.len()));
    eprintln!("seed {seed}, {rounds} rounds: repeat with REBOUND_TEST_SEED={seed} REBOUND_TEST_ROUNDS={rounds}");
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(Duration::from_secs(3));
    write_plan(folder.path(), &receiver.url);
    let prefix = format!("chaos{}", free_port());
    let environment = vec![
        ("REBOUND_BUS__KIND", "kafka".to_owned()),
        ("REBOUND_BUS__PARTITIONS", PARTITIONS.to_string()),
        ("REBOUND_KAFKA__BROKERS", brokers.clone()),
        ("REBOUND_KAFKA__PREFIX", prefix.clone()),
        ("REBOUND_KAFKA__SESSION_TIMEOUT", format!("{}s", SESSION.as_secs())),
    ];
    let mut world = World {
        folder: folder.path(),
        environment: borrowed(&environment),
        client: KafkaClient::connect(&brokers, &prefix, PARTITIONS),
        random: Random::new(seed),
        sources: vec![None, None],
        deciders: vec![None, None, None],
        acknowledged: BTreeMap::new(),
        unheard: BTreeMap::new(),
        redelivered: BTreeMap::new(),
    };
    world.sources = vec![Some(world.source(0).ready()), Some(world.source(1).ready())];
    world.deciders = vec![Some(world.decider(0).ready()), Some(world.decider(1).ready()), None];
    wait_for("healthy services", || (world.states("healthy") == SERVICES).then_some(()));

    let mut blows = Vec::new();
    for round in 0..rounds {
        if blows.is_empty() {
            blows = BLOWS.to_vec();
            world.random.shuffle(&mut blows);
        }
        let Some(blow) = blows.pop() else { continue };
        for _ in 0..=world.random.below(3) {
            let down = world.random.below(SERVICES);
            let _ = std::fs::remove_file(folder.path().join(format!("up/svc-{down}")));
        }
        // From before the failure is seen until the recovery is over: the blow may fall anywhere between.
        let pause = Duration::from_millis(200 + world.random.below(3000) as u64);
        world.post_for(pause, round * 10);
        if rounds > 10 {
            eprintln!("{:4} s: round {round}, {blow:?}", began.elapsed().as_secs());
        }
        world.strike(blow, round);
        let pause = Duration::from_millis(500 + world.random.below(3000) as u64);
        world.post_for(pause, round * 10 + 3);
        // What was interrupted is not run again: people mend it.
        mend_all(folder.path());
    }

    // Everybody is well again, and whatever is under way comes to its end.
    for n in 0..2 {
        let decider = world.deciders[n].take().expect("an instance");
        world.deciders[n] = Some(decider.ready());
    }
    for n in 0..2 {
        let source = world.sources[n].take().expect("a source");
        world.sources[n] = Some(source.ready());
    }
    mend_all(folder.path());
    wait_for("every service to be healthy", || (world.states("healthy") == SERVICES).then_some(()));
    wait_for("an end of everything that was begun", || {
        let query = "SELECT (SELECT count(*) FROM incidents WHERE open) + (SELECT count(*) FROM recoveries WHERE outcome IS NULL) AS n";
        (sql(folder.path(), query)[0]["n"] == 0).then_some(())
    });
    let settled = wait_for("every message to be settled", || {
        let alerts = world.client.read(Topic::Alerts);
        let keys = |kinds: fn(&EventData) -> Option<&String>| {
            alerts.iter().filter_map(|s| kinds(&s.event.data).cloned()).collect::<BTreeSet<_>>()
        };
        let planned = keys(|data| match data {
            EventData::NotificationPlanned(data) => Some(&data.dedup_key),
            _ => None,
        });
        let settled = keys(|data| match data {
            EventData::NotificationSent(data) => Some(&data.dedup_key),
            EventData::NotificationFailed(data) => Some(&data.dedup_key),
            _ => None,
        });
        planned.is_subset(&settled).then_some(planned)
    });
    wait_for("every acknowledged event in SQL", || {
        let rows = sql(folder.path(), "SELECT count(DISTINCT id) AS n FROM events WHERE source = 'load'");
        (rows[0]["n"].as_u64()? >= world.acknowledged.len() as u64).then_some(())
    });
    // The log last: it writes down what the others said at their end.
    for process in world.deciders.iter_mut().chain(world.sources.iter_mut().rev()) {
        if let Some(process) = process.take() {
            assert_eq!(process.stop(), Some(0));
        }
    }
    succeeds(&["log", "verify", "--data", "data"], folder.path());

    let bus: Vec<Stored> = Topic::ALL.into_iter().flat_map(|topic| world.client.read(topic)).collect();
    everything_is_there_once(&world, &bus);
    let (triggered, executed) = triggered_and_executed_once(&world, &bus);
    let (effects, repeats) = told_once(&receiver, &bus, &settled);
    eprintln!(
        "{rounds} rounds in {} s, seed {seed}: {} events acknowledged, {triggered} triggers, {executed} executions, {effects} transitions told, {repeats} repeated messages dropped by the receiver",
        began.elapsed().as_secs(),
        world.acknowledged.len(),
    );
}

/// Each event stands on the bus as often as it was put there, and each (source, id) once in the log.
fn everything_is_there_once(world: &World<'_>, bus: &[Stored]) {
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    for stored in bus {
        *found.entry((stored.event.source.to_string(), stored.event.id.to_string())).or_default() += 1;
    }
    assert!(!world.acknowledged.is_empty());
    for (id, posts) in &world.acknowledged {
        let of = ("load".to_owned(), id.clone());
        let times = found.get(&of).copied().unwrap_or_default();
        let least = posts + world.redelivered.get(&of).copied().unwrap_or_default();
        let most = least + world.unheard.get(id).copied().unwrap_or_default();
        assert!((least..=most).contains(&times), "{id} was posted {least} to {most} times and is there {times} times");
    }
    // What Rebound says itself: once, however often it was decided.
    for (of, times) in found.iter().filter(|(of, _)| of.0.starts_with("rebound/")) {
        let again = world.redelivered.get(of).copied().unwrap_or_default();
        assert_eq!(*times, 1 + again, "{of:?} was redelivered {again} times");
    }
    let rows = sql(world.folder, "SELECT count(*) AS n FROM events");
    assert_eq!(rows[0]["n"], Value::from(found.len()), "each event once in SQL, however often it was delivered");
    let rows = sql(world.folder, "SELECT id FROM events WHERE source = 'load'");
    let logged: BTreeSet<&str> = rows.iter().map(|row| row["id"].as_str().expect("an id")).collect();
    assert_eq!(logged.len(), rows.len(), "an event is there twice");
    let lost: Vec<_> = world.acknowledged.keys().filter(|id| !logged.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

/// One trigger an (incident, attempt), one execution a recovery, and none that the bus does not know.
fn triggered_and_executed_once(world: &World<'_>, bus: &[Stored]) -> (usize, usize) {
    let mut triggers: BTreeMap<(String, u32), BTreeSet<String>> = BTreeMap::new();
    let (mut claimed, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut incidents = BTreeSet::new();
    for stored in bus {
        match &stored.event.data {
            EventData::IncidentOpened(data) => drop(incidents.insert(data.incident.to_string())),
            EventData::RecoveryTriggered(data) => {
                let of = triggers.entry((data.incident.to_string(), data.attempt)).or_default();
                of.insert(data.recovery.to_string());
            }
            EventData::StepStarted(data) if data.step.as_str() == "work" => {
                assert_eq!(data.attempt, 1, "{stored:?}");
                claimed.insert(data.recovery.to_string());
            }
            EventData::StepFinished(data) if data.step.as_str() == "work" => {
                done.insert(data.recovery.to_string());
            }
            _ => {}
        }
    }
    assert!(!triggers.is_empty(), "nothing was ever triggered");
    for (of, recoveries) in &triggers {
        assert_eq!(recoveries.len(), 1, "{of:?} was triggered as {recoveries:?}");
        assert!(incidents.contains(&of.0), "{of:?} is of no incident");
        assert!(of.1 == 1 || triggers.contains_key(&(of.0.clone(), of.1 - 1)), "{of:?} has none before it");
    }
    let ledger = lines(&world.folder.join("ledger"));
    let executed: BTreeSet<String> =
        ledger.iter().map(|line| line.split(' ').next().expect("a recovery").to_owned()).collect();
    assert_eq!(ledger.len(), executed.len(), "a recovery ran twice: {ledger:#?}");
    assert!(!executed.is_empty(), "no recovery ran at all");
    assert!(executed.is_subset(&claimed), "a recovery ran that nobody had claimed");
    assert!(done.is_subset(&executed), "a recovery is said to have run that did not");
    for line in &ledger {
        let mut words = line.split(' ').skip(1);
        let (incident, attempt) = (words.next().expect("an incident"), words.next().expect("an attempt"));
        let of = (incident.to_owned(), attempt.parse().expect("a number"));
        assert!(triggers.contains_key(&of), "{line} was never triggered");
    }
    (triggers.len(), executed.len())
}

/// Each transition by one message, each message with one text, none that was not planned, and none left out.
fn told_once(receiver: &Receiver, bus: &[Stored], planned: &BTreeSet<String>) -> (usize, usize) {
    let messages = receiver.messages();
    let mut effects: BTreeMap<(String, String, String, u64), Vec<&String>> = BTreeMap::new();
    for (key, message) in messages.iter() {
        assert!(planned.contains(key), "{key} was sent and never planned");
        assert!(message.bodies.len() <= 1, "{key} changed: {:#?}", message.bodies);
        for body in &message.bodies {
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let members = body["members"].as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
            for told in members {
                let repeat = told["repeat"].as_u64().expect("a number");
                let of = (text(&body["channel"]), text(&told["alert"]), text(&told["transition"]), repeat);
                effects.entry(of).or_default().push(key);
            }
        }
    }
    for (of, keys) in &effects {
        assert_eq!(keys.len(), 1, "{of:?} was told by {keys:?}");
    }
    let mut raised: BTreeSet<&AlertId> = BTreeSet::new();
    // What could not be delivered is said to be so.
    let mut given_up = BTreeSet::new();
    for stored in bus {
        match &stored.event.data {
            EventData::AlertRaised(data) => drop(raised.insert(&data.alert)),
            EventData::NotificationFailed(data) => {
                let channel = data.channel.to_string();
                let members = data.members.iter().map(|told| (&told.alert, told.transition));
                let all = members.chain([(&data.alert, data.transition)]);
                given_up.extend(all.map(|(alert, told)| (channel.clone(), alert.to_string(), told.to_string(), 0)));
            }
            _ => {}
        }
    }
    assert!(!raised.is_empty(), "nothing was ever raised");
    for alert in raised {
        for channel in ["pager", "chat"] {
            for transition in [Transition::Raised, Transition::Resolved] {
                let of = (channel.to_owned(), alert.to_string(), transition.to_string(), 0);
                assert!(effects.contains_key(&of) || given_up.contains(&of), "{of:?} was told to nobody");
            }
        }
    }
    let repeats = messages.values().map(|message| message.requests - 1).sum();
    assert!(messages.len() < 5 || repeats > 0, "the receiver never misbehaved");
    (effects.len(), repeats)
}
