//! `rebound import` as people use it: a file in, the figures in SQL, the file again, and the mended rejects.

use std::fmt::Write as _;

use crate::support::{Running, alone, fails, rebound, succeeds, wait_for};

const INCIDENTS: [&str; 13] = [
    "import",
    "incidents",
    "i.csv",
    "--id",
    "ticket",
    "--service",
    "system",
    "--cause",
    "impact",
    "--opened",
    "from",
    "--resolved",
    "to",
];

/// 40 incidents of 1 to 40 minutes, so that the median is 20.5 minutes.
fn file() -> String {
    let mut text = "ticket,system,impact,from,to\n".to_owned();
    for n in 1..=40 {
        let cause = if n % 2 == 0 { "minor" } else { "major" };
        writeln!(
            text,
            "T{n},Git Operations,{cause},2025-03-{:02} 10:00,2025-03-{:02} 10:{:02}",
            n % 28 + 1,
            n % 28 + 1,
            n
        )
        .expect("a text");
    }
    text
}

fn figure(folder: &std::path::Path, sql: &str) -> String {
    succeeds(&["sql", sql, "-o", "csv"], folder).lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn imported_incidents_are_in_the_figures_once_however_often_they_are_imported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("i.csv"), file()).expect("a file");
    let told = succeeds(&INCIDENTS, path);
    assert!(told.contains("40 new, 0 known already, 0 restated, 0 rejected"), "{told}");
    assert!(told.contains("\"Git Operations\" is Git-Operations"), "{told}");
    let of = "FROM incidents WHERE service = 'Git-Operations'";
    assert_eq!(figure(path, &format!("SELECT count(*), median(mttr_seconds) {of}")), "40,1230.0");
    assert_eq!(figure(path, &format!("SELECT count(*) {of} AND cause = 'minor'")), "20");

    let told = succeeds(&INCIDENTS, path);
    assert!(told.contains("0 new, 40 known already, 0 restated, 0 rejected"), "{told}");
    assert_eq!(figure(path, "SELECT count(*) FROM events"), "80");

    // One grew by an hour, one is new, one is wrong.
    let text = file().replace("2025-03-02 10:01", "2025-03-02 11:01")
        + "T41,api,minor,2025-04-01 10:00,2025-04-01 10:10\nT42,api,minor,2025-04-01 10:00,2025-03-01 10:10\n";
    std::fs::write(path.join("i.csv"), text).expect("a file");
    let output = rebound(&INCIDENTS, path);
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("i.csv:43: resolved 2025-03-01T10:10:00"), "{stderr}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("1 new, 39 known already, 1 restated, 1 rejected"), "{told}");
    let restated = figure(
        path,
        "SELECT mttr_seconds, date_part('minute', original_recovered_at - first_failure_at) FROM incidents \
         WHERE corrected_at IS NOT NULL",
    );
    assert_eq!(restated, "3660.0,1");

    let mended =
        std::fs::read_to_string(path.join("i.csv.rejects.csv")).expect("rejects").replace("2025-03-01", "2025-04-01");
    std::fs::write(path.join("i.csv"), mended).expect("a file");
    let told = succeeds(&INCIDENTS, path);
    assert!(told.contains("1 new, 0 known already"), "{told}");
    assert!(succeeds(&["log", "verify"], path).contains("none"));
}

#[test]
fn a_running_rebound_takes_a_file_in_and_decides_nothing_about_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/minimal/plan.toml");
    let running = Running::start(path, "one", &["up", "--plan", plan], &[]).ready();
    let text: String = (0..60).map(|n| format!("2025-03-01T10:{n:02}:00Z,web,down\n")).collect();
    std::fs::write(path.join("p.csv"), format!("time,service,outcome\n{text}")).expect("a file");
    let refused = fails(&["import", "probes", "p.csv"], path, 1);
    assert!(refused.contains("--url http://127.0.0.1:9464"), "{refused}");
    let url = format!("http://127.0.0.1:{}", running.port);
    let told = succeeds(&["import", "probes", "p.csv", "--url", &url], path);
    assert!(told.contains("60 new"), "{told}");
    wait_for("the log", || {
        (figure(path, "SELECT count(*) FROM probes WHERE outcome = 'failed' AND service = 'web'") == "60").then_some(())
    });
    assert_eq!(figure(path, "SELECT count(*) FROM incidents WHERE service = 'web'"), "0");
    assert!(succeeds(&["import", "probes", "p.csv", "--url", &url], path).contains("0 new, 60 known already"));
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn bad_files_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("i.csv"), "ticket,from\n1,2025-03-01\n").expect("a file");
    std::fs::write(path.join("header.csv"), "id,service,opened\n").expect("a file");
    std::fs::write(path.join("i.dat"), "x").expect("a file");
    let table: [(&[&str], &str); 6] = [
        (&["import", "incidents", "no.csv"], "no.csv can't be read: No such file"),
        (&["import", "incidents", "i.dat"], "what kind of file is it? give --format"),
        (&["import", "incidents", "i.csv"], "has no column for id: say which by --id COLUMN (it has ticket, from)"),
        (&["import", "incidents", "i.csv", "--id", "tiket"], "did you mean \"ticket\"?"),
        (&["import", "incidents", "header.csv"], "header.csv holds no rows under its header"),
        (&["import", "incidents", "i.csv", "--tz", "Berlin"], "the time zone \"Berlin\" is unknown"),
    ];
    for (arguments, part) in table {
        let stderr = fails(arguments, path, 1);
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
    }
}
