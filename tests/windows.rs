//! Silences and maintenance windows by hand: added, listed from the log, ended.

use crate::support::{Running, alone, fails, rebound, succeeds, wait_for};

#[test]
fn silences_and_maintenance_are_added_listed_and_ended() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let plan = "[[service]]\nid = \"web\"\n[[service.probe]]\nhttp = \"http://127.0.0.1:1/\"\nevery = \"1s\"\n";
    std::fs::write(folder.join("plan.toml"), plan).expect("written");
    let up = Running::start(folder, "up", &["up", "--plan", "plan.toml", "--data", "data"], &[]).ready();
    let url = format!("http://127.0.0.1:{}", up.port);
    let run = |arguments: &[&str]| succeeds(&[arguments, &["--by", "ann", "--url", &url]].concat(), folder);
    let list = |what| succeeds(&[what, "list", "--data", "data"], folder);
    let line = |what: &'static str, name: &'static str| {
        wait_for("the list to show it", || {
            list(what)
                .lines()
                .find(|line| line.contains(name))
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        })
    };

    let matchers = ["--match", "service~w.*", "--match", "severity=critical"];
    let said =
        run(&[&["silence", "add"], &matchers[..], &["--for", "2h", "--reason", "quiet", "--name", "s"]].concat());
    assert!(said.starts_with("s until 20"), "{said}");
    let shown = line("silence", "service~w.*");
    assert!(shown.starts_with("s service~w.* severity=critical 20") && shown.ends_with("ann quiet"), "{shown}");
    let state = wait_for("the service to be suppressed", || {
        let (_, body) = up.get("/api/v1/services")?;
        body.contains("\"silence\"").then_some(body)
    });
    assert!(state.contains("\"failed\""), "tracked all the same: {state}");
    let told = wait_for("the silence to be explained", || {
        let output = rebound(&["explain", "--service", "web", "--plan", "plan.toml", "--data", "data"], folder);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        told.contains("why it is quiet").then_some(told)
    });
    assert!(told.starts_with("service web · failed (HARD) at 20"), "{told}");
    for words in
        ["by ann: quiet", "told nobody: silence s", "why no recovery", "the plan gives the service no procedure"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(run(&["silence", "expire", "s"]), "s ended\n");
    wait_for("the silence to end", || list("silence").starts_with("none").then_some(()));
    wait_for("what it held back to be told", || {
        let (_, body) = up.get("/api/v1/services")?;
        (!body.contains("\"silence\"")).then_some(())
    });

    let past =
        ["--from", "2026-01-01T00:00:00Z", "--until", "2026-01-01T01:00:00Z", "--reason", "told late", "--name", "m"];
    let said = run(&[&["maintenance", "add", "--service", "web"], &past[..]].concat());
    assert!(said.ends_with("it restates the figures of what began in it\n"), "{said}");
    run(&["maintenance", "add", "--service", "web", "--for", "1h", "--reason", "work", "--name", "n"]);
    assert!(line("maintenance", "work").starts_with("n web 20"), "only what is not over");
    assert_eq!(run(&["maintenance", "cancel", "n"]), "n cancelled\n");
    wait_for("the window to end", || list("maintenance").starts_with("none").then_some(()));
    assert_eq!(succeeds(&["maintenance", "list", "--all", "--data", "data"], folder).lines().count(), 3);

    let none = fails(&["silence", "add", "--for", "1h", "--reason", "x", "--by", "ann", "--url", &url], folder, 1);
    assert_eq!(none, "rebound: say what is to be quiet: --service NAME, or --match tier=tier-1\n");
    let endless =
        fails(&["silence", "add", "--service", "web", "--reason", "x", "--by", "ann", "--url", &url], folder, 1);
    assert!(endless.starts_with("rebound: say when it ends: --for 2h, or --until 20"), "{endless}");
    assert_eq!(up.stop(), Some(0));
}
