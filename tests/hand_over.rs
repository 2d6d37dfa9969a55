//! Partitions that move to another instance while recoveries run on them, on a real Kafka.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::pipeline::{borrowed, kafka_environment, lines, sql};
use crate::support::{Running, alone, free_port, kafka, script, succeeds, wait_for};

/// Enough for both partitions to have some.
const SERVICES: usize = 8;

/// A plan of services that are down while there is the file `down`, until their recovery makes the file `up-<service>`.
/// A recovery takes `seconds`.
fn write_plan(folder: &Path, seconds: &str) {
    let root = folder.display();
    let recover = format!("#!/bin/sh\necho \"$1\" >> {root}/executed\nsleep {seconds}\ntouch {root}/up-$2\n");
    script(&folder.join("recover.sh"), &recover);
    script(&folder.join("check.sh"), &format!("#!/bin/sh\ntest ! -e {root}/down -o -e {root}/up-$1\n"));
    let mut plan = format!(
        r#"
allow = ["{root}/recover.sh", "{root}/check.sh"]
[[policy]]
id = "default"
failures = 2
recoveries = 2
silent_after = "30s"
trigger = "auto"
intensity = 1000
intensity_period = "1h"
backoff = "1s"
verify_within = "20s"
[[procedure]]
id = "restore"
concurrency = {SERVICES}
[[procedure.step]]
id = "restore"
command = ["{root}/recover.sh", "{{recovery}}", "{{service}}"]
timeout = "60s"
"#
    );
    for n in 0..SERVICES {
        plan += &format!(
            r#"
[[service]]
id = "s{n}"
rto = "10m"
rpo = "1h"
procedure = "restore"
[[service.probe]]
command = ["{root}/check.sh", "s{n}"]
exit_codes = {{ 0 = "healthy", 1 = "failed" }}
every = "1s"
timeout = "900ms"
"#
        );
    }
    std::fs::write(folder.join("plan.toml"), plan).expect("written");
}

/// Recoveries that take `seconds` run on both partitions of one instance when another joins, that gets one of them.
/// Gives the first recoveries of all services once each has ended.
fn while_a_partition_moves(name: &str, seconds: &str, drain_within: &'static str) -> Vec<Value> {
    let Some(brokers) = kafka(name) else { return Vec::new() };
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    write_plan(folder.path(), seconds);
    let mut environment = kafka_environment(&brokers, &format!("move{}", free_port()));
    environment.push(("REBOUND_RECOVER__SITE_CONCURRENCY", "16".into()));
    environment.push(("REBOUND_RECOVER__DRAIN_WITHIN", drain_within.into()));
    let environment = borrowed(&environment);
    let run = |name: &str, roles: &[&str], data: &str| {
        let arguments = [&["run"], roles, &["--plan", "plan.toml", "--data", data]].concat();
        Running::start(folder.path(), name, &arguments, &environment).ready()
    };
    let log = run("l", &["probe", "log"], "data");
    let first = run("a", &["alert", "recover"], "data-a");
    wait_for("the first to own everything", || {
        first.log().contains("deciding for partitions group=\"recover\" partitions=[0, 1]").then_some(())
    });
    std::fs::write(folder.path().join("down"), "").expect("written");
    wait_for("a recovery of every service", || {
        (lines(&folder.path().join("executed")).len() == SERVICES).then_some(())
    });
    let second = run("b", &["recover"], "data-b");
    wait_for("the second to own a partition", || {
        second.log().contains("deciding for partitions group=\"recover\"").then_some(())
    });
    assert!(first.log().contains("another instance asks for partitions"), "it was not asked");
    // Whatever the second finds of the first's is over: it closes nothing that it did not run.
    let ended = wait_for("the end of every first recovery", || {
        let query = "SELECT r.service, r.outcome, r.reason, r.runner, e.partition FROM recoveries r JOIN events e \
                     ON e.recovery = r.recovery AND e.kind = 'recovery.started' WHERE r.attempt = 1 AND r.outcome IS NOT NULL";
        let rows = sql(folder.path(), query);
        (rows.len() == SERVICES).then_some(rows)
    });
    assert_eq!(first.stop(), Some(0));
    assert_eq!(second.stop(), Some(0));
    assert_eq!(log.stop(), Some(0));
    succeeds(&["log", "verify", "--data", "data"], folder.path());
    let executed = lines(&folder.path().join("executed"));
    let distinct: BTreeSet<_> = executed.iter().collect();
    assert_eq!(executed.len(), distinct.len(), "a recovery ran twice: {executed:?}");
    let partitions: BTreeSet<_> = ended.iter().map(|row| row["partition"].to_string()).collect();
    assert_eq!(partitions.len(), 2, "only one partition had recoveries: {ended:?}");
    assert!(ended.iter().all(|row| row["runner"].as_str().is_some_and(|runner| runner.starts_with("a/"))), "{ended:?}");
    ended
}

/// Longer than the session's time-out (6 s): the member is alive though it does not give up its partition.
#[test]
fn a_recovery_ends_before_its_partition_moves() {
    let ended = while_a_partition_moves("recoveries while a partition moves", "12", "40s");
    assert!(ended.iter().all(|row| row["outcome"] == "succeeded"), "{ended:?}");
}

#[test]
fn a_recovery_that_takes_too_long_is_ended_before_its_partition_moves() {
    let ended = while_a_partition_moves("long recoveries while a partition moves", "25", "1s");
    let of = |outcome: &str| ended.iter().filter(|row| row["outcome"] == outcome).collect::<Vec<_>>();
    let (interrupted, succeeded) = (of("interrupted"), of("succeeded"));
    assert_eq!(interrupted.len() + succeeded.len(), ended.len(), "{ended:?}");
    let why = "its partition went to another instance during step restore";
    assert!(interrupted.iter().all(|row| row["reason"] == why), "{ended:?}");
    assert!(ended.is_empty() || (!interrupted.is_empty() && !succeeded.is_empty()), "{ended:?}");
    // All of one partition, and none of the other.
    let moved: BTreeSet<_> = interrupted.iter().map(|row| row["partition"].to_string()).collect();
    assert!(succeeded.iter().all(|row| !moved.contains(&row["partition"].to_string())), "{ended:?}");
}
