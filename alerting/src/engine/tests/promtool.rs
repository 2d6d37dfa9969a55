//! `hold` and `keep_firing` against Prometheus' `for` and `keep_firing_for`: seeded series, evaluated each minute by
//! the engine, and the minutes at which it fires expected of `promtool test rules`.

use std::fmt::Write as _;
use std::process::Command;

use super::*;

const MINUTES: i64 = 60;
const SERIES: u64 = 40;

/// A small generator, so that the same series come on every machine.
fn series(seed: u64) -> Vec<bool> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut failing = false;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 33
    };
    let stay = 2 + seed % 4;
    (0..MINUTES)
        .map(|_| {
            failing ^= next() % stay == 0;
            failing
        })
        .collect()
}

/// The minutes after which an incident is open.
fn fires(hold: u64, keep: u64, series: &[bool]) -> Vec<bool> {
    let mut world = World::under(&format!(
        "[[service]]\nid = \"s\"\nrto = \"2h\"\n[[service.probe]]\nid = \"s\"\nevery = \"60s\"\nhttp = \"http://127.0.0.1:1/\"\n\
         [[policy]]\nid = \"default\"\nfailures = 1\nrecoveries = 1\ntrigger = \"off\"\nhold = \"{hold}m\"\nkeep_firing = \"{keep}m\"\n"
    ));
    let minute = |(n, failing): (usize, &bool)| {
        world.second = n as i64 * 60;
        let outcome = if *failing { Outcome::Failed } else { Outcome::Healthy };
        // Of the same moment, what was seen comes before what time brings.
        world.handle(probe_from("s", "s", None, world.second, outcome));
        world.tick(world.second);
        let before = world.status("s").incident;
        let engine = world.restarted().status(&service("s"), at(world.second)).unwrap();
        assert_eq!(engine.incident, before, "a restart changes nothing");
        before.is_some()
    };
    series.iter().enumerate().map(minute).collect()
}

#[test]
fn durations_agree_with_promtool_minute_by_minute() {
    let rules: Vec<(u64, u64)> = [0, 1, 2, 5].into_iter().flat_map(|hold| [0, 1, 3].map(|keep| (hold, keep))).collect();
    let mut text = "groups:\n- name: rebound\n  rules:\n".to_owned();
    for (hold, keep) in &rules {
        writeln!(text, "  - alert: hold{hold}keep{keep}\n    expr: max(failing) == 1\n    for: {hold}m\n    keep_firing_for: {keep}m").unwrap();
    }
    let mut tests = "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n".to_owned();
    let mut fired = 0;
    for seed in 0..SERIES {
        let series = series(seed);
        let values: Vec<&str> = series.iter().map(|failing| if *failing { "1" } else { "0" }).collect();
        writeln!(
            tests,
            "- interval: 1m\n  input_series:\n  - series: failing\n    values: '{}'\n  alert_rule_test:",
            values.join(" ")
        )
        .unwrap();
        for (hold, keep) in &rules {
            for (minute, fires) in fires(*hold, *keep, &series).into_iter().enumerate() {
                fired += u32::from(fires);
                let expected = if fires { "[{exp_labels: {}}]" } else { "[]" };
                writeln!(
                    tests,
                    "  - {{eval_time: {minute}m, alertname: hold{hold}keep{keep}, exp_alerts: {expected}}}"
                )
                .unwrap();
            }
        }
    }
    assert!(fired > 5_000, "only {fired} minutes of {}: nothing is compared", SERIES * 12 * MINUTES as u64);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yml"), text).unwrap();
    std::fs::write(folder.path().join("tests.yml"), tests).unwrap();
    let run = Command::new("promtool").args(["test", "rules", "tests.yml"]).current_dir(folder.path()).output();
    let output = match run {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "SKIPPED: promtool is not installed (Debian: apt-get install prometheus), so hold and keep_firing are not compared with Prometheus"
            );
            return;
        }
        Err(error) => panic!("promtool can't be run: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", said.chars().take(3000).collect::<String>());
}
