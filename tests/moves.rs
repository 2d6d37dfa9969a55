//! The load of a site moved to another and back, by a person's word and the example's own procedures, with the real
//! program: what is refused, what is only told, what is done, and that it is done in the start order.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::erlmcp::Example;
use crate::pipeline::sql;
use crate::support::{Running, alone, rebound, succeeds, wait_for};

/// The example's node and what stands on it, all at the primary site.
fn example() -> Example {
    Example::new(&[
        ("node", "core-system", "component.sh check node"),
        ("database:node", "database-full-restore", "component.sh check database"),
        ("api-gateway:database", "certificate-renewal", "certificate.sh verify"),
        ("resource-manager:database api-gateway", "service-recovery", "component.sh check resource-manager"),
    ])
}

struct Operator<'a> {
    folder: &'a Path,
    url: String,
}

impl Operator<'_> {
    fn run(&self, what: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let words: Vec<&str> = what.split(' ').collect();
        let all = [&words, arguments, &["--url", &self.url]].concat();
        let Output { status, stdout, stderr } = rebound(&all, self.folder);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (status.code(), text(stdout) + &text(stderr))
    }

    /// A move for which ann gives a reason.
    fn moves(&self, what: &str, more: &[&str]) -> (Option<i32>, String) {
        self.run(what, &[&["--by", "ann", "--comment", "the river rises"], more].concat())
    }

    /// Says that a move was made by hand.
    fn moved_by_hand(&self, kind: &str, from: &str, to: &str) {
        let payload =
            json!({ "failover": "hand", "from_site": from, "to_site": to, "succeeded": true, "duration_ms": 1 });
        let payload = payload.to_string();
        succeeds(
            &["emit", "--url", &self.url, "--kind", kind, "--service", "node", "--payload", &payload],
            self.folder,
        );
    }

    fn waits_for_site(&self, up: &Running, site: &str, load_at: &str) {
        wait_for(&format!("the load of {site} at {load_at}"), || {
            let rows: Vec<Value> = serde_json::from_str(&up.get("/api/v1/sites")?.1).ok()?;
            rows.iter()
                .any(|row| row["site"] == site && row["load_at"] == load_at && row["moving"] == false)
                .then_some(())
        });
    }

    fn kinds(&self, kinds: &str) -> Vec<Value> {
        let query = format!(
            "SELECT kind, source, data FROM events WHERE kind IN ({kinds}) AND source <> 'rebound-emit' ORDER BY ingested_at, \"offset\""
        );
        sql(self.folder, &query)
    }
}

#[test]
fn a_site_is_left_and_come_back_to_by_a_persons_word() {
    let _alone = alone();
    let example = example();
    let up = example.up();
    let operator = Operator { folder: example.path(), url: format!("http://127.0.0.1:{}", up.port) };
    let (there, back) = ("failover primary --to cloud-standby", "failback cloud-standby --to primary");

    // What there is not.
    for (what, says) in [
        (
            "failover nowhere --to cloud-standby",
            "nowhere is neither a site nor a service of the plan: its sites are cloud-",
        ),
        (
            "failover primary --to secondary",
            "no procedure of the plan moves the load from primary to secondary: cloud-",
        ),
        ("failover primary --to primary", "the load of primary is to be moved to primary, where it belongs"),
        (back, "the load of primary was not moved away: if it was by hand, say so with failover.finished"),
    ] {
        let (code, said) = operator.moves(what, &[]);
        assert!(code == Some(1) && said.contains(says), "{what}: {code:?} {said}");
    }

    // A dry run tells every step, in the start order, and does none.
    let (code, said) = operator.moves(there, &["--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("it moves, in start order: node, database, api-gateway, resource-manager"), "{said}");
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text}: {said}"));
    assert!(at("services/node ") < at("services/database ") && at("services/database ") < at("services/api-gateway "));
    assert!(at("readiness ") < at("pre-checks ") && at("traffic ") < at("post-verification "), "{said}");
    assert!(said.contains("none was executed"), "{said}");
    example.tool("zone.sh is erlmcp 127.0.0.1");

    // Not while automation is paused.
    let (code, said) = operator.run("recovery pause", &["--by", "bob", "--reason", "the switch is replaced"]);
    assert_eq!(code, Some(0), "{said}");
    let said = wait_for("the pause to be known", || {
        let (code, said) = operator.moves(there, &["--dry-run"]);
        (code == Some(3)).then_some(said)
    });
    assert!(said.contains("NO  automation  bob paused it: the switch is replaced"), "{said}");
    let (code, said) = operator.moves(there, &[]);
    assert!(code == Some(1) && said.contains("refused: bob paused it: the switch is replaced"), "{code:?} {said}");
    operator.run("recovery resume", &["--by", "bob", "--reason", "done"]);
    wait_for("the end of the pause", || (operator.moves(there, &["--dry-run"]).0 == Some(0)).then_some(()));

    // Not when it would leave fewer sites than the procedure says.
    for site in ["secondary", "tertiary", "quaternary"] {
        operator.moved_by_hand("failover.finished", site, "primary");
        operator.waits_for_site(&up, site, "primary");
    }
    let (code, said) = operator.moves(there, &[]);
    let says = "refused: the move from primary to cloud-standby was not begun: 2 healthy sites must be left, and there are 1 (cloud-standby)";
    assert!(code == Some(1) && said.contains(says), "{code:?} {said}");
    for site in ["secondary", "tertiary", "quaternary"] {
        operator.moved_by_hand("failback.finished", "primary", site);
        operator.waits_for_site(&up, site, site);
    }
    assert!(operator.kinds("'failover.started', 'failover.finished'").is_empty(), "nothing was begun so far");

    // There.
    let (code, said) = operator.moves(there, &[]);
    assert_eq!(code, Some(0), "{said}");
    example.tool("zone.sh is erlmcp cloud");
    example.tool("data.sh same postgres cloud");
    example.tool("fact.sh is traffic=cloud primary.state=stopped");
    operator.waits_for_site(&up, "primary", "cloud-standby");
    let (code, said) = operator.moves(there, &[]);
    assert!(code == Some(1) && said.contains("refused: the load of primary is at cloud-standby"), "{code:?} {said}");

    // And back.
    let (code, said) = operator.moves(back, &[]);
    assert_eq!(code, Some(0), "{said}");
    example.tool("zone.sh is erlmcp primary");
    example.tool("fact.sh is traffic=primary primary.state=running cloud.state=stopped");
    operator.waits_for_site(&up, "primary", "primary");

    // What fails is rolled back, and the load stays.
    example.tool("zone.sh corrupt");
    let (code, said) = operator.moves(there, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("rolled back: stop-primary, start-target"), "{said}");
    example.tool("fact.sh is primary.state=running cloud.state=stopped");
    operator.waits_for_site(&up, "primary", "primary");

    // Everything is an event, with who and why.
    let moves = wait_for("the moves in SQL", || {
        let moves = operator.kinds("'failover.started', 'failover.finished', 'failback.finished'");
        (moves.len() == 5).then_some(moves)
    });
    let told: Vec<_> = moves.iter().map(|row| row["kind"].as_str().expect("a kind")).collect();
    let expected =
        ["failover.started", "failover.finished", "failback.finished", "failover.started", "failover.finished"];
    assert_eq!(told, expected);
    let asked = operator.kinds("'recovery.requested'");
    let data = |row: &Value| -> Value { serde_json::from_str(row["data"].as_str().expect("a payload")).expect("JSON") };
    assert!(asked.iter().all(|row| data(row)["by"] == "ann" && data(row)["comment"] == "the river rises"), "{asked:?}");
    let declined: Vec<Value> = operator.kinds("'recovery.declined'").iter().map(data).collect();
    assert!(declined.iter().all(|data| data["by"] == "ann"), "{declined:?}");
    for why in ["was not moved away", "bob paused it", "2 healthy sites must be left", "is at cloud-standby"] {
        let told = declined.iter().filter(|data| data["reason"].as_str().is_some_and(|reason| reason.contains(why)));
        assert_eq!(told.count(), 1, "{why}: {declined:?}");
    }
    let order = sql(
        example.path(),
        "SELECT step FROM recovery_steps WHERE recovery IN (SELECT recovery FROM recoveries WHERE outcome = 'succeeded') AND step LIKE 'services/%' ORDER BY started_at",
    );
    let order: Vec<_> = order.iter().map(|row| row["step"].as_str().expect("a step")).collect();
    assert_eq!(order, ["services/node", "services/database", "services/api-gateway", "services/resource-manager"]);
    example.end(up);
}
