//! What a receiver sees of a pipeline that dies, is stopped and changes hands while it tells: every transition, and
//! each once, if the receiver drops repeats by the key.
//!
//! The receiver is as bad as real ones are: it refuses, it takes a message and answers with an error, it takes one
//! and never answers. Some messages are in its hands when the process that sent them is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::pipeline::{borrowed, kafka_environment, sql};
use crate::receiver::request;
use crate::support::{Running, alone, free_port, kafka, script, succeeds, wait_for};

/// What an alert went through, as told or as decided: alert and transition.
type Transitions = BTreeSet<(String, String)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    Refuses,
    TakesAndFails,
    TakesAndHangs,
}

/// A receiver that drops repeats.
#[derive(Debug, Default)]
struct Receiver {
    /// Moods to come; afterwards it takes everything.
    moods: Vec<Mood>,
    /// Every message by its key, as it came first, and how often it came.
    messages: BTreeMap<String, (Value, u32)>,
    /// By the keys of the changes.
    changes: BTreeMap<String, (String, String)>,
    requests: usize,
}

impl Receiver {
    fn serve() -> (u16, Arc<Mutex<Self>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let receiver = Arc::new(Mutex::new(Self::default()));
        let shared = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let receiver = shared.clone();
                std::thread::spawn(move || answer(stream, &receiver));
            }
        });
        (port, receiver)
    }

    fn take(&mut self, body: &Value) {
        let text = |value: &Value, key: &str| value[key].as_str().expect("a text").to_owned();
        let mut told = Transitions::new();
        let only = vec![body.clone()];
        for change in body["members"].as_array().unwrap_or(&only) {
            let what = (text(change, "alert"), text(change, "transition"));
            // A message of one change has that change's key.
            let known = self.changes.entry(text(change, "dedup_key")).or_insert_with(|| what.clone());
            assert_eq!(*known, what, "one key, two changes");
            told.insert(what);
        }
        let (first, times) = self.messages.entry(text(body, "dedup_key")).or_insert_with(|| (body.clone(), 0));
        *times += 1;
        let members = |body: &Value| body["members"].as_array().map_or(1, Vec::len);
        assert_eq!(members(first), members(body), "one key, two messages");
    }

    /// What it knows, each change once: a second key of one change is a change told twice.
    fn told(&self) -> Transitions {
        let all: Transitions = self.changes.values().cloned().collect();
        assert_eq!(all.len(), self.changes.len(), "a change was told under two keys: {:?}", self.changes);
        all
    }
}

fn answer(mut stream: TcpStream, receiver: &Mutex<Receiver>) {
    while let Some((_, body)) = request(&mut stream) {
        let mood = {
            let mut receiver = receiver.lock().expect("no panic");
            receiver.requests += 1;
            let mood = receiver.moods.pop().unwrap_or(Mood::Takes);
            if mood != Mood::Refuses {
                receiver.take(&body);
            }
            mood
        };
        let status = match mood {
            Mood::Takes => "200 OK",
            Mood::Refuses => "503 Service Unavailable",
            Mood::TakesAndFails => "500 Internal Server Error",
            Mood::TakesAndHangs => {
                // Longer than the channel waits.
                std::thread::sleep(Duration::from_secs(3));
                return;
            }
        };
        if write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

const SERVICES: [&str; 4] = ["api", "database", "web", "search"];

/// Services that fail while their file is away. Three are told in groups, over partitions; `search` by itself.
fn write_plan(folder: &Path, port: u16) {
    let root = folder.display();
    script(&folder.join("check.sh"), "#!/bin/sh\ntest -e \"$1\"\n");
    let mut plan = format!(
        r#"
name = "notify"
allow = ["{root}/check.sh"]
[[channel]]
id = "receiver"
kind = "webhook"
url = "http://127.0.0.1:{port}/"
allow_private = true
timeout = "1s"
attempts = 20
[[route]]
services = ["search"]
channels = ["receiver"]
[[route]]
channels = ["receiver"]
group_by = ["site"]
group_wait = "200ms"
group_interval = "1s"
[[policy]]
id = "default"
failures = 2
recoveries = 2
trigger = "off"
verify_within = "20s"
silent_after = "60s"
"#
    );
    for service in SERVICES {
        plan += &format!(
            "[[service]]\nid = \"{service}\"\nrto = \"5m\"\n[[service.probe]]\nid = \"{service}-check\"\n\
             command = [\"{root}/check.sh\", \"{root}/{service}.up\"]\nexit_codes = {{ 0 = \"healthy\", 1 = \"failed\" }}\n\
             every = \"300ms\"\ntimeout = \"250ms\"\n"
        );
    }
    std::fs::write(folder.join("plan.toml"), plan).expect("written");
    set(folder, true);
}

/// All services well, or none.
fn set(folder: &Path, up: bool) {
    for service in SERVICES {
        let file = folder.join(format!("{service}.up"));
        if up {
            std::fs::write(file, "").expect("written");
        } else {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Between two turns of the services: as long as ten probes, so that none is taken to be flapping.
const TURN: Duration = Duration::from_secs(3);

/// What was decided and is to be told, from the event log: of what was suppressed, also the end is not told.
fn decided(folder: &Path) -> Transitions {
    let rows = sql(folder, "SELECT kind, data FROM events WHERE kind IN ('alert.raised', 'alert.resolved')");
    let mut decided: Transitions = rows
        .iter()
        .map(|row| {
            let data: Value = serde_json::from_str(row["data"].as_str().expect("a text")).expect("JSON");
            let transition = row["kind"].as_str().expect("a text").trim_start_matches("alert.").to_owned();
            (data["alert"].as_str().expect("an alert").to_owned(), transition)
        })
        .collect();
    let raised: BTreeSet<String> =
        decided.iter().filter(|(_, what)| what == "raised").map(|(alert, _)| alert.clone()).collect();
    decided.retain(|(alert, _)| raised.contains(alert));
    decided
}

/// Everything that was decided is told, each change once.
fn all_is_told(folder: &Path, receiver: &Mutex<Receiver>, at_least: usize) {
    wait_for("every change to be told", || {
        let decided = decided(folder);
        let told = receiver.lock().expect("no panic").told();
        let open = decided.iter().filter(|(_, what)| what == "raised").count() * 2 != decided.len();
        (!open && decided.len() >= at_least && told == decided).then_some(())
    });
    let receiver = receiver.lock().expect("no panic");
    let repeated = receiver.messages.values().filter(|(_, times)| *times > 1).count();
    let grouped = receiver.messages.values().filter(|(body, _)| body["members"].is_array()).count();
    eprintln!(
        "{} changes in {} messages, {grouped} of them groups; {repeated} messages came more than once; {} requests",
        receiver.changes.len(),
        receiver.messages.len(),
        receiver.requests
    );
    assert!(repeated > 0, "nothing was ever repeated: the receiver was too good to show anything");
}

fn rounds(usual: usize) -> usize {
    std::env::var("REBOUND_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

/// The process dies while messages are in the receiver's hands: planned, taken, and not known to be.
#[test]
fn a_receiver_that_drops_repeats_sees_each_change_once_through_kill_9() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (port, receiver) = Receiver::serve();
    write_plan(folder.path(), port);
    let start = || Running::start(folder.path(), "a", &["up", "--plan", "plan.toml", "--data", "data"], &[]).ready();
    let mut rebound = start();
    for round in 0..rounds(3) {
        for up in [false, true] {
            {
                let mut receiver = receiver.lock().expect("no panic");
                // Popped from the end: a refusal, then one that is taken and hangs, in which the process dies.
                receiver.moods = vec![Mood::TakesAndFails, Mood::TakesAndHangs, Mood::TakesAndHangs, Mood::Refuses];
                receiver.requests = 0;
            }
            set(folder.path(), up);
            wait_for("a message to be taken", || (receiver.lock().expect("no panic").requests >= 2).then_some(()));
            if round % 2 == 0 || up {
                rebound.kill();
                rebound = start();
            }
            std::thread::sleep(TURN);
            wait_for("the receiver to be itself", || receiver.lock().expect("no panic").moods.is_empty().then_some(()));
        }
    }
    all_is_told(folder.path(), &receiver, 2 * SERVICES.len());
    assert_eq!(rebound.stop(), Some(0));
    succeeds(&["log", "verify", "--data", "data"], folder.path());
}

/// Two instances tell; one is killed or stopped while it does, and comes back.
#[test]
fn a_receiver_that_drops_repeats_sees_each_change_once_through_rebalances() {
    let Some(brokers) = kafka("notifications through rebalances") else { return };
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (port, receiver) = Receiver::serve();
    write_plan(folder.path(), port);
    let environment = borrowed(&kafka_environment(&brokers, &format!("tell{}", free_port())));
    let log = ["run", "probe", "log", "--plan", "plan.toml", "--data", "data"];
    let log = Running::start(folder.path(), "l", &log, &environment).ready();
    let start = |name: &str| {
        let data = format!("data-{name}");
        let arguments = ["run", "alert", "--plan", "plan.toml", "--data", &data];
        Running::start(folder.path(), name, &arguments, &environment).ready()
    };
    let mut two = [("a", start("a")), ("b", start("b"))];
    for _ in 0..rounds(2) {
        for up in [false, true] {
            {
                let mut receiver = receiver.lock().expect("no panic");
                receiver.moods = vec![Mood::TakesAndFails, Mood::TakesAndHangs, Mood::Refuses, Mood::TakesAndHangs];
                receiver.requests = 0;
            }
            set(folder.path(), up);
            wait_for("a message to be taken", || (receiver.lock().expect("no panic").requests >= 1).then_some(()));
            let [(name, first), second] = two;
            if up {
                // Longer than its session: the other takes over, and it learns of it when it wakes.
                first.signal(Signal::SIGSTOP);
                std::thread::sleep(Duration::from_secs(8));
                first.signal(Signal::SIGCONT);
                two = [second, (name, first)];
            } else {
                first.kill();
                two = [second, (name, start(name))];
            }
            std::thread::sleep(TURN);
            wait_for("the receiver to be itself", || receiver.lock().expect("no panic").moods.is_empty().then_some(()));
        }
    }
    all_is_told(folder.path(), &receiver, 2 * SERVICES.len());
    for (_, instance) in two {
        assert_eq!(instance.stop(), Some(0));
    }
    assert_eq!(log.stop(), Some(0));
    succeeds(&["log", "verify", "--data", "data"], folder.path());
}
