//! Figures as people ask for them: an improvement compared, causes told apart, the plan's history, and clear answers
//! where there is little or nothing to say.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Running, alone, fails, succeeds, wait_for};

const PLAN: &str = "[[service]]\nid = \"db\"\nrto = \"30m\"\n[[service.probe]]\ntcp = \"127.0.0.1:1\"\nevery = \"8m\"\n\
    [[policy]]\nid = \"default\"\nfailures = 3\nverify_within = \"1m\"\n";

/// Twelve outages of db that took 61 to 72 minutes, and as many from April on that took 11 to 22; of api always 5.
fn incidents() -> String {
    let mut text = "id,service,cause,opened,resolved\n".to_owned();
    for n in 1..=12 {
        let cause = if n % 3 == 0 { "" } else { "disk full" };
        writeln!(text, "B{n},db,{cause},2025-03-{n:02}T10:00:00Z,2025-03-{n:02}T11:{n:02}:00Z").expect("a text");
        writeln!(text, "A{n},db,{cause},2025-04-{n:02}T10:00:00Z,2025-04-{n:02}T10:{:02}:00Z", n + 10).expect("a text");
        writeln!(text, "C{n},api,,2025-04-{n:02}T12:00:00Z,2025-04-{n:02}T12:05:00Z").expect("a text");
    }
    text
}

fn told(rebound: &Running, id: &str, kind: &str, time: &str, data: &Value) {
    let event = json!({
        "specversion": "1.0", "id": id, "source": "wiki", "type": format!("dev.rebound.{kind}.v1"),
        "subject": "db", "time": time, "data": data,
    });
    let answer = rebound.post("/v1/events", "application/cloudevents+json", &event.to_string());
    assert_eq!(answer.as_ref().map(|(status, _)| *status), Some(202), "{answer:?}");
}

fn json(arguments: &[&str], folder: &Path) -> Value {
    serde_json::from_str(&succeeds(arguments, folder)).expect("JSON")
}

#[test]
fn an_improvement_is_compared_and_causes_are_told_apart() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("plan.toml"), PLAN).expect("a plan");
    std::fs::write(path.join("i.csv"), incidents()).expect("a file");
    let rebound = Running::start(path, "a", &["up", "--data", "data", "--plan", "plan.toml"], &[]).ready();
    let url = format!("http://127.0.0.1:{}", rebound.port);
    succeeds(&["import", "incidents", "i.csv", "--url", &url, "--data", "data"], path);
    let opened = json!({ "improvement": "bigger-disks", "title": "Bigger disks" });
    told(&rebound, "opened", "improvement.opened", "2025-03-20T00:00:00Z", &opened);
    let done = json!({ "improvement": "bigger-disks", "done": true });
    told(&rebound, "closed", "improvement.closed", "2025-04-01T00:00:00Z", &done);
    let open = json!({ "improvement": "faster-network", "title": "Faster network" });
    told(&rebound, "open", "improvement.opened", "2025-04-01T00:00:00Z", &open);
    let asks = |sql: &str| json(&["sql", sql, "-o", "json", "--data", "data", "--plan", "plan.toml"], path);
    wait_for("everything in SQL", || {
        let rows = asks(
            "SELECT (SELECT count(*) FROM incidents WHERE NOT open) AS i, (SELECT count(*) FROM improvements) AS m, \
             (SELECT count(*) FROM plan_objectives) AS p",
        );
        (rows[0] == json!({ "i": 36, "m": 2, "p": 1 })).then_some(())
    });
    assert_eq!(rebound.stop(), Some(0));

    let plan = ["--data", "data", "--plan", "plan.toml"];
    let with = |more: &[&'static str]| [more, &plan].concat();
    let compared = json(&with(&["compare", "--improvement", "bigger-disks", "-o", "json"]), path);
    assert_eq!((&compared["service"], &compared["verdict"]), (&json!("db"), &json!("shorter")), "{compared}");
    assert_eq!((&compared["before"]["n"], &compared["after"]["n"]), (&json!(12), &json!(12)), "only of db");
    // Each pair differs by −50 minutes and what their numbers differ by, whose median is nothing.
    assert_eq!(compared["shift_seconds"]["shift"], json!(-3000.0));
    // U = 144 of 12 × 12: Z = (72 − ½) ÷ √(12 × 12 × 25 ÷ 12), twice the tail beyond.
    let p = compared["p"].as_f64().expect("a number");
    assert!((p - 3.659e-5).abs() < 1e-7, "{p}");
    let told = succeeds(&with(&["compare", "--improvement", "bigger-disks"]), path);
    assert!(
        told.starts_with("bigger-disks: Bigger disks\n") && told.contains("Verdict: shorter than before"),
        "{told}"
    );
    let said = fails(&with(&["compare", "--improvement", "bigger-disk"]), path, 1);
    assert!(said.contains("no improvement is called \"bigger-disk\": did you mean \"bigger-disks\"?"), "{said}");
    let said = fails(&with(&["compare", "--improvement", "faster-network"]), path, 1);
    assert!(said.contains("is not done"), "{said}");

    let by_cause = json(&with(&["stats", "--by", "cause", "-o", "json"]), path);
    let of = |cause: &str| by_cause["groups"][cause]["incidents"].clone();
    assert_eq!((of("disk full"), of("unknown")), (json!(16), json!(20)), "{by_cause}");
    let only = json(&with(&["stats", "--only", "cause=disk full", "-o", "json"]), path);
    assert_eq!(only["all"]["incidents"], json!(16));
    let said = fails(&with(&["stats", "--only", "service=dbb"]), path, 1);
    assert!(said.contains("nothing has service=dbb: did you mean \"db\"?"), "{said}");
    let said = fails(&with(&["stats", "--only", "tier=tier-9"]), path, 1);
    assert!(said.contains("did you mean \"tier-1\"?"), "{said}");

    // As wide as a terminal, notes aside, whatever it is grouped by.
    for by in ["service", "cause", "automation"] {
        let told = succeeds(&[&["stats", "--by", by][..], &plan].concat(), path);
        let wide: Vec<_> = told.lines().filter(|line| !line.starts_with('·') && line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{told}");
    }
    assert_eq!(
        asks("SELECT rto_seconds, valid_to_at FROM plan_objectives"),
        json!([{ "rto_seconds": 1800.0, "valid_to_at": null }])
    );
    let missed = "SELECT count(*) AS n FROM attainment WHERE service = 'db' AND NOT rto_met";
    assert_eq!(asks(missed), json!([{ "n": 12 }]));
    let said = fails(&["sql", "SELECT * FROM incident", "--data", "data"], path, 1);
    assert!(said.contains("did you mean incidents?"), "{said}");
    let page = include_str!("../docs/sql.md");
    assert_eq!(succeeds(&["sql", "--reference"], path), page);
}

#[test]
fn little_or_nothing_to_say_is_said_in_words() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let data = ["--data", "data"];
    let ask = |arguments: &[&str]| succeeds(&[arguments, &data].concat(), path);
    let commands: [&[&str]; 12] = [
        &["stats"],
        &["stats", "--by", "service"],
        &["stats", "--by", "cause", "-o", "json"],
        &["stats", "-o", "csv"],
        &["trend"],
        &["trend", "--by", "service"],
        &["trend", "-o", "json"],
        &["trend", "-o", "csv"],
        &["compare", "--after", "2025-03-15"],
        &["compare", "--after", "2025-03-15", "-o", "json"],
        &["compare", "--after", "2025-03-15", "-o", "csv"],
        &[
            "sql",
            "SELECT km_median(lasted_seconds, true), geo_mean(mttr_seconds), max(data_loss_seconds) FROM attainment",
        ],
    ];
    // A log without an event, with one incident, and with times that can't be.
    let rebound = Running::start(path, "a", &["up", "--data", "data"], &[]).ready();
    assert_eq!(rebound.stop(), Some(0));
    let files = [
        None,
        Some("id,service,opened,resolved\nT1,db,2025-03-01T10:00:00Z,2025-03-01T10:30:00Z\n"),
        Some("id,service,opened,resolved\nT2,db,2025-03-02T10:00:00Z,2025-03-02T10:00:00Z\n"),
    ];
    for file in files {
        if let Some(text) = file {
            std::fs::write(path.join("i.csv"), text).expect("a file");
            ask(&["import", "incidents", "i.csv"]);
        }
        for command in commands {
            let told = ask(command);
            let bad = ["NaN", "inf", "-0 "].into_iter().find(|bad| told.split_whitespace().any(|word| word == *bad));
            assert_eq!(bad, None, "{command:?} of {file:?}: {told}");
        }
        assert!(ask(&["stats"]).contains("not enough data"), "{file:?}");
    }
    std::fs::write(path.join("i.csv"), "id,service,opened,resolved\nT3,db,2025-03-02T10:00:00Z,2025-03-01T10:00:00Z\n")
        .expect("a file");
    let output = crate::support::rebound(&["import", "incidents", "i.csv", "--data", "data"], path);
    assert_eq!(output.status.code(), Some(3), "resolved before it was opened is refused");
    let said = fails(&["stats", "--only", "service=nobody", "--data", "data"], path, 1);
    assert!(said.contains("nothing has service=nobody: there is only db"), "{said}");
}
