//! Things going wrong on purpose: each has a clear error, and nothing is lost.

use std::net::TcpListener;
use std::path::Path;

use crate::support::{Running, fails, free_port, succeeds, wait_for};

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = format!("[http]\nlisten = \"{}\"\n", taken.local_addr().expect("an address"));
    std::fs::write(folder.path().join("rebound.toml"), listen).expect("written");
    let said = fails(&["up", "--config", "rebound.toml"], folder.path(), 1);
    assert!(said.contains("can't be listened on") && said.contains("choose another port"), "{said}");
}

#[test]
fn a_channel_without_its_secret_is_named_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = "[[service]]\nid = \"api\"\n[[service.probe]]\ntcp = \"127.0.0.1:1\"\n\
                [[channel]]\nid = \"pager\"\nkind = \"pagerduty\"\nkey = { file = \"./key\" }\n";
    std::fs::write(folder.path().join("plan.toml"), plan).expect("written");
    let said = fails(&["up", "--plan", "plan.toml", "--data", "data"], folder.path(), 1);
    assert!(said.starts_with("rebound: the plan's channels: channel pager: key: the file "), "{said}");
    assert!(said.contains("/key can't be read") && said.trim().lines().count() == 1, "{said}");
    assert!(!folder.path().join("data").exists(), "nothing was begun");
    // `check` warns: the secret may be on another machine.
    let said = succeeds(&["check", "plan.toml"], folder.path());
    assert!(said.contains("warning: channel pager: key: the file "), "{said}");
}

#[test]
fn unreachable_brokers_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let settings =
        format!("[bus]\nkind = \"kafka\"\n[kafka]\nbrokers = \"127.0.0.1:{port}\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
    std::fs::write(folder.path().join("rebound.toml"), settings).expect("written");
    let said = fails(&["up", "--config", "rebound.toml"], folder.path(), 1);
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("Connection refused"), "{said}");
    // Its clients say the same again and again: that is told once.
    assert!(said.trim().lines().count() <= 5, "{said}");
}

#[test]
fn a_second_process_on_one_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let rebound = Running::start(folder.path(), "a", &["up", "--data", "data"], &[]).ready();
    std::fs::write(folder.path().join("rebound.toml"), "[http]\nlisten = \"127.0.0.1:0\"\n").expect("written");
    let said = fails(&["up", "--data", "data", "--config", "rebound.toml"], folder.path(), 1);
    assert!(said.contains("data") && said.contains("another process"), "{said}");
    assert_eq!(rebound.stop(), Some(0));
}

#[test]
fn hostile_sql_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    with_an_event(folder.path());
    for (query, says) in [
        ("COPY (SELECT 1) TO '/tmp/stolen.csv'", "read"),
        ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'", "read"),
        ("DROP TABLE events", "read"),
        ("INSERT INTO events VALUES (1)", "read"),
        ("SELECT * FROM '/etc/passwd'", "table"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELEC 1", "SQL"),
    ] {
        let said = fails(&["sql", query, "--data", "data"], folder.path(), 1);
        assert!(said.to_lowercase().contains(&says.to_lowercase()), "{query}: {said}");
    }
    assert!(!Path::new("/tmp/stolen.csv").exists());
}

fn with_an_event(folder: &Path) {
    let rebound = Running::start(folder, "a", &["up", "--data", "data"], &[]).ready();
    let url = format!("http://127.0.0.1:{}", rebound.port);
    succeeds(
        &[
            "emit",
            "--url",
            &url,
            "--kind",
            "resource.measured",
            "--service",
            "api",
            "--payload",
            r#"{"resource":"cpu","utilization":0.5}"#,
        ],
        folder,
    );
    wait_for("the event in SQL", || {
        let rows = crate::pipeline::sql(folder, "SELECT count(*) AS n FROM events");
        (rows[0]["n"] == 1).then_some(())
    });
    assert_eq!(rebound.stop(), Some(0));
}

#[test]
fn a_query_before_there_is_a_log_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = fails(&["sql", "SELECT 1", "--data", "empty"], folder.path(), 1);
    assert!(said.starts_with("rebound: there is no event log at empty/log yet: start a log writer"), "{said}");
    // The same words, whoever needs it.
    for command in [&["mttr"][..], &["channels", "failed"], &["silence", "list"], &["log", "stats"], &["log", "verify"]]
    {
        let said = fails(&[command, &["--data", "empty"]].concat(), folder.path(), 1);
        assert!(said.contains("there is no event log at ") && said.trim().lines().count() == 1, "{command:?}: {said}");
    }
    std::fs::write(folder.path().join("file"), "").expect("written");
    let said = fails(&["mttr", "--data", "file"], folder.path(), 1);
    assert!(said.contains("file/log can't be opened: Not a directory") && !said.contains("Os {"), "{said}");
}

/// A power cut on a disk that lies, or a hand that slipped: which file, and what to do.
#[test]
fn a_damaged_log_of_commits_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    with_an_event(folder.path());
    let commit = folder.path().join("data/log/_delta_log/00000000000000000000.json");
    std::fs::write(&commit, "garbage").expect("written");
    // Backtraces are for developers, even where they are switched on.
    for command in [&["mttr"][..], &["sql", "SELECT 1"], &["log", "verify"]] {
        let output = std::process::Command::new(crate::support::program())
            .args(command)
            .args(["--data", "data"])
            .env("RUST_BACKTRACE", "1")
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.trim().lines().count()), (Some(1), 1), "{command:?}: {said}");
        assert!(said.contains("rebound log verify") || said.contains("00000000000000000000.json is"), "{said}");
    }
}

#[test]
fn a_corrupt_table_is_reported_by_verify() {
    let folder = tempfile::tempdir().expect("a folder");
    with_an_event(folder.path());
    let file = wait_for("a data file", || parquet(&folder.path().join("data/log")));
    let mut bytes = std::fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&file, bytes).expect("written");
    let name = file.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
    let output = crate::support::rebound(&["log", "verify", "--data", "data"], folder.path());
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(&name), "{said}");
    // And a query that needs the file says where to look, once.
    std::fs::write(&file, "garbage").expect("written");
    let said = fails(&["sql", "SELECT max(id) FROM events", "--data", "data"], folder.path(), 1);
    assert!(said.contains("rebound log verify") && said.matches(&name).count() == 1, "{said}");
}

fn parquet(folder: &Path) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            if let Some(found) = parquet(&path) {
                return Some(found);
            }
        } else if path.extension().is_some_and(|e| e == "parquet") {
            return Some(path);
        }
    }
    None
}

#[test]
fn oversized_and_broken_posts_are_refused_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let rebound = Running::start(folder.path(), "a", &["up", "--data", "data"], &[]).ready();
    let (status, body) =
        rebound.post("/v1/events", "application/cloudevents+json", "{\"specversion\":").expect("an answer");
    assert_eq!(status, 400, "{body}");
    let (status, _) = rebound.post("/v1/events", "text/html", "<p>").expect("an answer");
    assert_eq!(status, 415);
    // One event that is too large is a wrong event; a request that is too large is not even read.
    let post = |kib: usize| {
        let padding = "y".repeat(kib * 1024);
        let event = format!(
            r#"{{"specversion":"1.0","id":"1","source":"t","type":"dev.rebound.resource.measured.v1","subject":"api","time":"2026-01-01T00:00:00Z","data":{{"resource":"{padding}","utilization":0.5}}}}"#
        );
        rebound.post("/v1/events", "application/cloudevents+json", &event).expect("an answer")
    };
    let (status, body) = post(300);
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("a smaller event"), "{body}");
    let (status, body) = post(5 * 1024);
    assert_eq!(status, 413, "{body}");
    assert!(body.contains("larger than the 4194304 bytes"), "{body}");
    let (_, metrics) = rebound.get("/metrics").expect("metrics");
    assert!(metrics.contains("rebound_intake_events_total"), "{metrics}");
    assert_eq!(rebound.stop(), Some(0));
}

/// A small file system of its own, unmounted when dropped; `None` where this user may not mount.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(at).output();
        mounted.ok()?.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_refuses_events_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(_disk) = SmallDisk::mount(&folder.path().join("data")) else {
        eprintln!("NOT RUN: a full disk needs the right to mount a small file system");
        return;
    };
    let rebound = Running::start(folder.path(), "a", &["up", "--data", "data"], &[]).ready();
    let event = r#"{"specversion":"1.0","id":"1","source":"t","type":"dev.rebound.resource.measured.v1","subject":"api","time":"2026-01-01T00:00:00Z","data":{"resource":"cpu","utilization":0.5}}"#;
    let (status, body) = rebound.post("/v1/events", "application/cloudevents+json", event).expect("an answer");
    assert_eq!(status, 503, "what can't be made durable is not taken: {body}");
    assert!(body.contains("full"), "{body}");
    let (status, _) = rebound.get("/metrics").expect("an answer");
    assert_eq!(status, 200, "it stays up");
    assert_eq!(rebound.stop(), Some(0));
}

/// Storing waits for room; what was accepted meanwhile is on the bus.
#[test]
fn a_full_disk_of_the_event_log_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&folder.path().join("small")) else {
        eprintln!("NOT RUN: a full disk needs the right to mount a small file system");
        return;
    };
    let filler = disk.0.join("filler");
    let filled = std::fs::write(&filler, vec![0; 65 << 20]).expect_err("it is small");
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let settings = format!("data = \"data\"\n[log]\nlocation = \"{}\"\n", disk.0.join("log").display());
    std::fs::write(folder.path().join("rebound.toml"), settings).expect("written");
    let rebound = Running::start(folder.path(), "a", &["up", "--config", "rebound.toml"], &[]).ready();
    let event = r#"{"specversion":"1.0","id":"1","source":"t","type":"dev.rebound.resource.measured.v1","subject":"api","time":"2026-01-01T00:00:00Z","data":{"resource":"cpu","utilization":0.5}}"#;
    let (status, body) = rebound.post("/v1/events", "application/cloudevents+json", event).expect("an answer");
    assert_eq!(status, 202, "{body}");
    wait_for("the log writer to say why", || {
        rebound.log().contains("the disk that holds the event log is full").then_some(())
    });
    std::fs::remove_file(&filler).expect("room again");
    wait_for("the event in SQL", || {
        let query = ["sql", "SELECT id FROM events", "-o", "csv", "--config", "rebound.toml"];
        let output = crate::support::rebound(&query, folder.path());
        String::from_utf8_lossy(&output.stdout).contains('1').then_some(())
    });
    assert_eq!(rebound.stop(), Some(0));
    succeeds(&["log", "verify", "--config", "rebound.toml"], folder.path());
}

/// Whatever a stranger's producer wrote: nothing stops, nothing is dropped, and each can be looked at.
#[test]
fn what_can_not_be_read_is_put_aside() {
    use rebound_ingest::bus::embedded::{EmbeddedBus, EmbeddedSettings};
    use rebound_ingest::bus::{EventBus, Record, Stream};
    let folder = tempfile::tempdir().expect("a folder");
    let event = |kind: &str, id: &str, resource: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"t","type":"dev.rebound.{kind}","subject":"api","time":"2026-01-01T00:00:00Z","data":{{"resource":"{resource}","utilization":0.5}}}}"#
        )
    };
    let values = [
        "no JSON".to_owned(),
        event("resource.measured.v99", "newer", "cpu"),
        event("resource.measured.v1", "large", &"x".repeat(600 << 10)),
        event("resource.measured.v1", "good", "cpu"),
    ];
    let records = values.map(|value| Record { key: "api".into(), value: value.into(), headers: Vec::new() });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bus = EmbeddedBus::open(EmbeddedSettings::new(folder.path().join("data/bus"))).await.expect("a bus");
        let stream = Stream::Events(rebound_schemas::Topic::Observations);
        bus.append(stream, records.to_vec()).await.expect("durable");
        bus.close().await.expect("closed");
    });
    let rebound = Running::start(folder.path(), "a", &["up", "--data", "data"], &[]).ready();
    wait_for("the good one in SQL", || {
        let rows = crate::pipeline::sql(folder.path(), "SELECT id FROM events WHERE source = 't'");
        (rows.len() == 1 && rows[0]["id"] == "good").then_some(())
    });
    let (_, metrics) = rebound.get("/metrics").expect("metrics");
    assert_eq!(rebound.stop(), Some(0));
    let letters = succeeds(&["dlq", "list", "-o", "json", "--data", "data"], folder.path());
    let letters: Vec<serde_json::Value> = serde_json::from_str(&letters).expect("JSON");
    let classes: Vec<_> = letters.iter().map(|letter| letter["class"].as_str().expect("a class")).collect();
    assert_eq!(classes, ["json", "newer_version", "too_large"], "{letters:?}");
    // Taken in = stored + put aside.
    let count = |name: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("rebound_log_{name}_total{{")));
        lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a count")).sum::<u64>()
    };
    assert_eq!((count("taken"), count("stored"), count("dead_lettered")), (4, 1, 3), "{metrics}");
    let told = succeeds(&["dlq", "list", "--data", "data"], folder.path());
    assert!(told.contains("no JSON") && told.contains("3 dead letters"), "{told}");
    succeeds(&["log", "verify", "--data", "data"], folder.path());
}
