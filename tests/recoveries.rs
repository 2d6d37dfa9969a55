//! What people do about recoveries, with the real program: the commands, the API behind them, and who may do what.

mod roles;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::pipeline::sql;
use crate::support::{Running, alone, fails, free_port, kafka, program, script, succeeds, wait_for};

/// `gated` and `late` fail while their file is not there, and wait for approval (`late` for two seconds); `frail` does
/// too, and what its procedure does helps nothing; `steady` is always well. Every step that is executed leaves a line
/// in `executed`.
fn write_plan(folder: &Path) {
    let root = folder.display();
    for (name, text) in [
        ("do.sh", format!("#!/bin/sh\necho \"$*\" >> {root}/executed\ntouch {root}/$1\n")),
        ("slow.sh", format!("#!/bin/sh\necho slow >> {root}/executed\nexec /usr/bin/sleep \"$1\"\n")),
        ("check.sh", format!("#!/bin/sh\ntest -e {root}/$1\n")),
    ] {
        script(&folder.join(name), &text);
    }
    let service = |id: &str, policy: &str, procedure: &str| {
        format!(
            "[[service]]\nid = \"{id}\"\npolicy = \"{policy}\"\nprocedure = \"{procedure}\"\n\
             [[service.probe]]\nid = \"{id}-check\"\ncommand = [\"{root}/check.sh\", \"{id}\"]\n\
             exit_codes = {{ 0 = \"healthy\" }}\nevery = \"500ms\"\ntimeout = \"400ms\"\n"
        )
    };
    let policy = |id: &str, more: &str| {
        format!(
            "[[policy]]\nid = \"{id}\"\nfailures = 2\nrecoveries = 1\nsilent_after = \"30s\"\n\
             verify_within = \"20s\"\nbackoff = \"1s\"\n{more}\n"
        )
    };
    let text = [
        format!("name = \"people\"\nallow = [\"{root}/do.sh\", \"{root}/slow.sh\", \"{root}/check.sh\"]\n"),
        policy("asks", "trigger = \"approve\"\napprove_within = \"10m\""),
        policy("hurries", "trigger = \"approve\"\napprove_within = \"2s\""),
        policy("weak", "").replace("verify_within = \"20s\"", "verify_within = \"1s\""),
        policy("default", "intensity = 6\nintensity_period = \"1h\""),
        service("gated", "asks", "restore"),
        service("late", "hurries", "restore"),
        service("steady", "default", "long"),
        service("frail", "weak", "useless"),
        "[[procedure]]\nid = \"useless\"\ndemote_below = 0.6\ndemote_over = 2\n[[procedure.step]]\nid = \"try\"\n"
            .into(),
        format!("command = [\"{root}/do.sh\", \"nothing\"]\n"),
        "[[procedure]]\nid = \"restore\"\ninputs = { until = \"latest\" }\n[[procedure.step]]\nid = \"restore\"\n"
            .into(),
        format!("command = [\"{root}/do.sh\", \"{{service}}\", \"{{input.until}}\"]\n"),
        "[[procedure]]\nid = \"long\"\non_cancel = \"rollback\"\ninputs = { seconds = \"0\" }\n".into(),
        format!("[[procedure.step]]\nid = \"first\"\ncommand = [\"{root}/do.sh\", \"steady\", \"first\"]\n"),
        format!("[[procedure.step]]\nid = \"slow\"\ncommand = [\"{root}/slow.sh\", \"{{input.seconds}}\"]\n"),
        format!("[[procedure.step]]\nid = \"last\"\ncommand = [\"{root}/do.sh\", \"steady\", \"last\"]\n"),
        format!("[[procedure.rollback]]\nundoes = \"first\"\ncommand = [\"{root}/do.sh\", \"steady\", \"undone\"]\n"),
    ];
    std::fs::write(folder.join("plan.toml"), text.concat()).expect("written");
    for up in ["gated", "late", "steady", "frail"] {
        std::fs::write(folder.join(up), "").expect("written");
    }
}

fn executed(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("executed")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The commands against one running Rebound, as ann.
struct Ann<'a> {
    folder: &'a Path,
    url: String,
}

impl Ann<'_> {
    fn arguments<'b>(&'b self, words: &[&'b str]) -> Vec<&'b str> {
        [&["recovery", "--url", &self.url], words].concat()
    }

    /// What a word that is taken prints.
    fn says(&self, words: &[&str]) -> String {
        succeeds(&[&self.arguments(words)[..], &["--by", "ann"]].concat(), self.folder)
    }

    /// What a word that is refused prints.
    fn is_refused(&self, words: &[&str]) -> String {
        let by: &[&str] = if words[0] == "list" { &[] } else { &["--by", "ann"] };
        fails(&[&self.arguments(words)[..], by].concat(), self.folder, 1)
    }

    fn list(&self) -> Value {
        serde_json::from_str(&succeeds(&self.arguments(&["list", "-o", "json"]), self.folder)).expect("JSON")
    }

    fn show(&self, recovery: &str) -> Value {
        let said = succeeds(&self.arguments(&["show", recovery, "-o", "json"]), self.folder);
        serde_json::from_str(&said).expect("JSON")
    }

    /// The first recovery of a service in a state.
    fn in_state(&self, service: &str, state: &str) -> String {
        wait_for(&format!("{service} to be {state}"), || {
            let list = self.list();
            let found = list["recoveries"]
                .as_array()
                .expect("a list")
                .iter()
                .find(|row| row["service"] == service && row["state"] == state);
            found.map(|row| row["recovery"].as_str().expect("an id").to_owned())
        })
    }

    fn ended(&self, recovery: &str, outcome: &str) -> Value {
        let found = wait_for(&format!("the end of {recovery}"), || {
            Some(self.show(recovery)).filter(|found| found["state"] == "finished")
        });
        assert_eq!(found["outcome"], outcome, "{found:#}");
        found
    }

    /// Asks for a recovery of `steady`; answers its id.
    fn run(&self, more: &[&str]) -> String {
        let said = self.says(&[&["run", "steady", "--comment", "a test"], more].concat());
        said.split_once(" was triggered").unwrap_or_else(|| panic!("{said}")).0.to_owned()
    }
}

/// A running Rebound in `folder`, whose services are all well.
fn all_is_well<'a>(folder: &'a Path, environment: &[(&str, &str)]) -> (Running, Ann<'a>) {
    write_plan(folder);
    let up = Running::start(folder, "a", &["up", "--plan", "plan.toml", "--data", "data"], environment).ready();
    wait_for("healthy services", || {
        (up.get("/api/v1/services")?.1.matches(r#""state":"healthy""#).count() == 4).then_some(())
    });
    let url = format!("http://127.0.0.1:{}", up.port);
    (up, Ann { folder, url })
}

/// Approvals in time, twice and too late; a cancel that is said twice. Nothing is executed a second time.
fn approvals_act_once(environment: &[(&str, &str)]) {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (up, ann) = all_is_well(folder, environment);
    for down in ["gated", "late"] {
        std::fs::remove_file(folder.join(down)).expect("removed");
    }
    let recovery = ann.in_state("gated", "awaiting_approval");
    assert!(executed(folder).is_empty(), "it waits");
    let said = ann.says(&["approve", &recovery, "--comment", "go on", "--idempotency-key", "k-1"]);
    assert!(said.starts_with(&format!("{recovery} is approved (")), "{said}");
    let again = ann.says(&["approve", &recovery, "--comment", "go on", "--idempotency-key", "k-1"]);
    assert_eq!(again, said.replace("approved (", "approved, as it was before ("));
    let twice = ann.is_refused(&["approve", &recovery]);
    assert!(
        twice.contains(&format!("refused: ann approved {recovery} at "))
            || twice.contains("has begun")
            || twice.contains("has ended"),
        "{twice}"
    );
    let found = ann.ended(&recovery, "succeeded");
    assert_eq!((&found["approved_by"], &found["words"][0]["comment"]), (&json!("ann"), &json!("go on")));
    assert_eq!(executed(folder), ["gated latest"]);
    let over = ann.is_refused(&["approve", &recovery]);
    assert!(over.contains(&format!("refused: {recovery} has ended: succeeded\nwhat to do: ")), "{over}");

    // Nobody approved the other one: it expired, and people were asked.
    let late = ann.in_state("late", "finished");
    let found = ann.ended(&late, "cancelled");
    assert!(found["outcome_reason"].as_str().expect("why").starts_with("nobody approved it by 20"), "{found:#}");
    assert!(ann.is_refused(&["approve", &late]).contains("has ended: cancelled"), "too late");
    let told = wait_for("the expiry in SQL", || {
        let kinds = "'recovery.expired', 'recovery.escalated', 'recovery.started'";
        let rows = sql(
            folder,
            &format!("SELECT kind FROM events WHERE service = 'late' AND kind IN ({kinds}) ORDER BY kind DESC"),
        );
        (rows.len() >= 2).then_some(rows)
    });
    assert_eq!(told, [json!({"kind": "recovery.expired"}), json!({"kind": "recovery.escalated"})]);
    std::fs::write(folder.join("late"), "").expect("written");

    // Called off while it runs: its step ends, what it did is undone.
    let before = executed(folder).len();
    let running = ann.run(&["--input", "seconds=3"]);
    wait_for("its slow step", || executed(folder).contains(&"slow".to_owned()).then_some(()));
    let said = ann.says(&["cancel", &running, "--comment", "wrong one"]);
    assert!(said.starts_with(&format!("{running} is called off (")), "{said}");
    assert!(ann.is_refused(&["cancel", &running, "--comment", "wrong one"]).contains("was called off before"));
    let found = ann.ended(&running, "cancelled");
    assert_eq!(found["outcome_reason"], "ann called it off: wrong one; rolled back: first");
    assert_eq!(executed(folder)[before..], ["steady first", "slow", "steady undone"]);
    assert_eq!(up.stop(), Some(0));
    succeeds(&["log", "verify", "--data", "data"], folder);
}

#[test]
fn approvals_and_cancels_act_once_embedded() {
    approvals_act_once(&[]);
}

#[test]
fn approvals_and_cancels_act_once_on_kafka() {
    let Some(brokers) = kafka("approvals on Kafka") else { return };
    let prefix = format!("people{}", free_port());
    let environment = [
        ("REBOUND_BUS__KIND", "kafka"),
        ("REBOUND_BUS__PARTITIONS", "2"),
        ("REBOUND_KAFKA__BROKERS", &brokers),
        ("REBOUND_KAFKA__PREFIX", &prefix),
    ];
    approvals_act_once(&environment);
}

#[test]
fn what_is_asked_for_is_run_told_stopped_held_back_and_forced() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (up, ann) = all_is_well(folder, &[]);

    // A dry run tells everything and does nothing.
    let said = ann.says(&["run", "steady", "--dry-run", "--input", "seconds=42", "--comment", "what would it do?"]);
    assert!(said.contains("slow.sh 42") && said.contains("3 steps were told, none was executed"), "{said}");
    assert!(executed(folder).is_empty(), "it was executed");

    // A run is a recovery like any other, with who and why.
    let first = ann.run(&[]);
    let found = ann.ended(&first, "succeeded");
    assert_eq!((&found["by"], &found["reason"], &found["incident"]), (&json!("ann"), &json!("a test"), &Value::Null));
    assert_eq!(executed(folder), ["steady first", "slow", "steady last"]);

    // Killed at once, and undone.
    let killed = ann.run(&["--input", "seconds=600", "--force", "backoff"]);
    wait_for("its slow step", || (executed(folder).len() == 5).then_some(()));
    assert!(ann.is_refused(&["run", "steady", "--comment", "again"]).contains("already\nwhat to do: let it end"));
    ann.says(&["cancel", &killed, "--now", "--comment", "it hangs"]);
    let found = ann.ended(&killed, "cancelled");
    assert_eq!(found["outcome_reason"], "ann called it off: it hangs; rolled back: first");
    assert_eq!(found["overrides"], json!(["backoff"]));

    // A pause holds it back, unless it is forced.
    ann.says(&["pause", "--comment", "moving racks", "--for", "1h"]);
    let held = ann.run(&["--force", "backoff"]);
    assert_eq!(ann.in_state("steady", "paused"), held);
    assert_eq!(ann.list()["pauses"][0]["reason"], "moving racks");
    let table = succeeds(&ann.arguments(&["list", "--state", "paused"]), folder);
    assert!(table.starts_with("paused: everything, since 20") && table.contains("the end of ann's pause"), "{table}");
    ann.says(&["cancel", &held, "--comment", "by force then"]);
    ann.ended(&held, "cancelled");
    let forced = ann.run(&["--force", "pause", "--force", "backoff"]);
    ann.ended(&forced, "succeeded");
    assert!(
        ann.is_refused(&["resume", "--service", "gated", "--comment", "x"]).contains("what is paused is everything")
    );
    ann.says(&["resume", "--comment", "done"]);

    // The budget: six within the hour, of which four were.
    for _ in 0..2 {
        ann.ended(&ann.run(&["--force", "backoff"]), "succeeded");
    }
    let refused = ann.is_refused(&["run", "steady", "--force", "backoff", "--comment", "one more"]);
    assert!(refused.contains("6 recoveries within 1h are the most") && refused.contains("intensity"), "{refused}");
    let over = ann.run(&["--force", "backoff", "--force", "intensity"]);
    assert_eq!(ann.ended(&over, "succeeded")["overrides"], json!(["intensity", "backoff"]));

    // Words that make no sense say what would.
    for (words, expected) in [
        (
            &["run", "none", "--comment", "x"][..],
            "none is neither a service nor a procedure of the plan\nwhat to do: there are ",
        ),
        (
            &["run", "steady", "--input", "a=b", "--comment", "x"],
            "a is not an input of procedure long\nwhat to do: it has seconds",
        ),
        (&["run", "restore", "--comment", "x"], "say for which: --service NAME"),
        (&["approve", "rec-none"], "no recovery rec-none is known"),
        (&["reject", &first, "--comment", "x"], "has ended: succeeded"),
        (&["pause", "--site", "nowhere", "--comment", "x"], "\"nowhere\" is not a site of the plan"),
        (&["pause", "--for", "soon", "--comment", "x"], "\"soon\" is not how long a pause can be"),
        (&["promote", "lnog", "--comment", "x"], "did you mean \"long\"?"),
        (&["promote", "long", "--comment", "x"], "procedure long is not demoted"),
        (&["list", "--state", "wating_approval"], "did you mean \"awaiting_approval\"?"),
        (&["list", "--service", "stedy"], "did you mean \"steady\"?"),
    ] {
        let said = ann.is_refused(words);
        assert!(said.contains(expected), "{words:?}: {said}");
    }

    // Everything is in the log, and the dry run in no figure.
    wait_for("the requests in SQL", || {
        let kinds = ["requested", "declined", "triggered"].map(|kind| {
            let rows = sql(folder, &format!("SELECT count(*) AS n FROM events WHERE kind = 'recovery.{kind}'"));
            rows[0]["n"].as_u64().expect("a number")
        });
        (kinds == [9, 1, 8]).then_some(())
    });
    let recoveries = sql(
        folder,
        "SELECT recovery, triggered_by FROM recoveries WHERE recovery LIKE 'dry-%' OR triggered_by <> 'ann'",
    );
    assert!(recoveries.is_empty(), "{recoveries:?}");
    let told = sql(folder, "SELECT count(*) AS n FROM events WHERE recovery LIKE 'dry-%' AND kind = 'step.started'");
    assert_eq!(told[0]["n"], 3);
    assert_eq!(up.stop(), Some(0));
}

/// Of a service that is down while it is paused, whose procedure then fails, is demoted and promoted.
#[test]
fn what_automation_does_not_do_is_told_with_its_reason_until_a_person_speaks() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (up, ann) = all_is_well(folder, &[]);
    let said = ann.says(&["pause", "--service", "frail", "--comment", "moving racks"]);
    assert!(said.starts_with("paused: service frail, until somebody resumes; what runs goes on ("), "{said}");
    std::fs::remove_file(folder.join("frail")).expect("removed");
    let held = ann.in_state("frail", "withheld");
    let table = succeeds(&ann.arguments(&["list"]), folder);
    assert!(table.contains("paused: service frail, since 20") && table.contains("ann paused automation"), "{table}");
    let table = succeeds(&ann.arguments(&["show", &held]), folder);
    assert!(table.contains("all the same: rebound recovery run frail --comment WHY"), "{table}");
    let refused = ann.is_refused(&["approve", &held]);
    assert!(refused.contains(&format!("{held} was not triggered: ann paused automation")), "{refused}");
    assert!(executed(folder).is_empty(), "it is paused");
    ann.says(&["resume", "--service", "frail", "--comment", "done"]);
    let found = ann.ended(&held, "failed");
    assert!(found["outcome_reason"].as_str().expect("why").contains("verification did not pass"), "{found:#}");

    // One failure of one: the procedure is demoted, and what it would do next waits for a person.
    wait_for("the demotion", || (ann.list()["demoted"][0]["procedure"] == "useless").then_some(()));
    let asks = ann.in_state("frail", "awaiting_approval");
    let table = succeeds(&ann.arguments(&["list"]), folder);
    assert!(
        table.starts_with("demoted: procedure useless, since 20") && table.contains(": 0 of 1 recoveries worked"),
        "{table}"
    );
    let table = succeeds(&ann.arguments(&["show", &asks]), folder);
    assert!(table.contains(&format!("yes: rebound recovery approve {asks}")), "{table}");
    let said = ann.says(&["promote", "useless", "--comment", "the script was mended"]);
    assert!(said.starts_with("procedure useless runs by itself again ("), "{said}");
    assert!(ann.is_refused(&["promote", "useless", "--comment", "again"]).contains("procedure useless is not demoted"));
    assert_eq!(ann.list()["demoted"], json!([]));
    ann.says(&["reject", &asks, "--comment", "by hand, this time"]);
    ann.ended(&asks, "cancelled");
    ann.in_state("frail", "withheld");
    std::fs::write(folder.join("frail"), "").expect("written");
    wait_for("nothing withheld", || {
        let list = ann.list();
        list["recoveries"].as_array()?.iter().all(|row| row["state"] != "withheld").then_some(())
    });
    assert_eq!(executed(folder), ["nothing"]);
    // Whoever was told of the outage was told of the demotion.
    assert!(
        up.log().contains("frail at primary needs your yes from now on: its procedure was demoted"),
        "{}",
        up.log()
    );
    let told = wait_for("who promoted it in SQL", || {
        let rows = sql(folder, "SELECT data FROM events WHERE kind = 'procedure.promoted'");
        rows.first().and_then(|row| row["data"].as_str()).map(str::to_owned)
    });
    assert!(told.contains("\"by\":\"ann\"") && told.contains("the script was mended"), "{told}");
    assert_eq!(up.stop(), Some(0));
}
