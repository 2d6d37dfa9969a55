//! The README does what it says: its commands are run, or it is known here why one is not.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{alone, program, rebound, succeeds};

/// What a command of the README is to this test.
#[derive(Debug, PartialEq)]
enum Use {
    /// Run, with these arguments.
    Run(Vec<String>),
    /// Not run, and why.
    Known(&'static str),
    /// Nobody thought of it.
    Unknown,
}

/// Commands that are not run here, by what they begin with.
const NOT_RUN: &[(&str, &str)] = &[
    ("sudo apt-get install ", "packages are installed by .ci/run"),
    ("cargo test ", "this is that command"),
    ("export REBOUND_TEST_KAFKA=", ".ci/run does it"),
    ("tests/kafka/kafka.sh ", ".ci/run does it"),
    ("rebound up ", "does not end; tests/pipeline.rs runs it"),
    ("rebound run ", "needs a Kafka; tests/pipeline.rs runs it"),
    ("rebound serve ", "does not end; tests/sql.rs runs it"),
    ("psql ", "needs a listener; tests/sql.rs runs it"),
    ("rebound bench ", "takes minutes"),
    ("rebound bench-probes ", "takes minutes"),
    ("rebound explain inc-", "needs an incident of one's own; tests/pipeline.rs explains the demo's"),
    ("rebound channels ", "needs a channel of one's own; alerting's tests deliver to each kind"),
    ("curl ", "needs a listener; tests/pipeline.rs and tests/recoveries.rs post to one"),
];

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(name), None) => open = Some((name.trim() == language, String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block)),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

/// The words of a command line, quotes taken off.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is never closed: {line}");
    words.extend(word);
    words
}

fn use_of(line: &str) -> Use {
    // Settings in front of a command say nothing of what it is.
    let mut line = line;
    while let Some((first, rest)) = line.split_once(' ').filter(|(first, _)| {
        first.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    }) {
        // A value that is itself a command may hold spaces: go on behind it.
        line = if first.contains("$(") { rest.split_once(") ").map_or("", |(_, rest)| rest) } else { rest };
    }
    let line = line.replacen("cargo run --release -- ", "rebound ", 1);
    if let Some((_, why)) = NOT_RUN.iter().find(|(begin, _)| line.starts_with(begin)) {
        return Use::Known(why);
    }
    match words(&line).split_first() {
        Some((program, arguments)) if program == "rebound" => Use::Run(arguments.to_vec()),
        _ => Use::Unknown,
    }
}

#[test]
fn commands_are_told_apart() {
    let run = |words: &[&str]| Use::Run(words.iter().map(|w| (*w).to_owned()).collect());
    for (line, expected) in [
        ("cargo run --release -- demo --for 60s", run(&["demo", "--for", "60s"])),
        ("rebound sql \"SELECT 'a b'\"", run(&["sql", "SELECT 'a b'"])),
        ("REBOUND_BUS__KIND=kafka rebound run alert", Use::Known("needs a Kafka; tests/pipeline.rs runs it")),
        ("A=$(x | tail -n 1) B=2 cargo run --release -- bench --events 1", Use::Known("takes minutes")),
        ("rm -rf /", Use::Unknown),
        ("rebounder", Use::Unknown),
    ] {
        assert_eq!(use_of(line), expected, "{line}");
    }
}

/// In their order, in one folder, so that what one leaves the next finds: the demo's log is asked by those after it.
#[test]
fn the_readmes_commands_work() {
    let lines: Vec<String> = blocks(&readme(), "sh").iter().flat_map(|block| block.lines().map(Into::into)).collect();
    let lines = lines.iter().map(|line: &String| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let uses: Vec<(&str, Use)> = lines.map(|line| (line, use_of(line))).collect();
    for (line, known) in &uses {
        assert_ne!(*known, Use::Unknown, "run it here, or say in NOT_RUN why not: {line}");
    }
    for (begin, _) in NOT_RUN {
        let stands = |(line, _): &(&str, Use)| line.replacen("cargo run --release -- ", "rebound ", 1).contains(begin);
        assert!(uses.iter().any(stands), "nothing in the README begins with {begin:?} any more: take it off the list");
    }
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).expect("a link");
    let mut ran = 0;
    for (line, known) in uses {
        let Use::Run(mut arguments) = known else { continue };
        // What stands behind a command for the reader.
        if let Some(at) = arguments.iter().position(|word| word == "#") {
            arguments.truncate(at);
        }
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if arguments[0] == "demo"
            && let Some(at) = arguments.iter().position(|a| *a == "--for")
        {
            // As long as the demo takes at least.
            arguments[at + 1] = "30s";
        }
        let output = Command::new(program())
            .args(&arguments)
            .current_dir(folder.path())
            .env_remove("REBOUND_LOG")
            .env("REBOUND_URL", "http://127.0.0.1:1")
            .output()
            .expect("rebound runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let sends = match arguments[..] {
            ["emit" | "recovery" | "failover" | "failback", ..] => true,
            ["silence" | "maintenance", word, ..] => word != "list",
            _ => false,
        };
        if sends {
            // There is nobody to send to; that the command line is understood is what is shown.
            assert!(output.status.code() == Some(1) && said.contains("127.0.0.1:1"), "{line}: {said}");
        } else {
            assert!(output.status.success(), "{line}: {said}");
        }
        ran += 1;
    }
    assert!(ran >= 6, "only {ran} commands were run");
}

#[test]
fn the_readmes_settings_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let blocks = blocks(&readme(), "toml");
    assert!(!blocks.is_empty());
    let mut settings = 0;
    let minimal = root().join("examples/minimal/plan.toml");
    std::fs::copy(minimal, folder.path().join("plan.toml")).expect("copied");
    for block in blocks.iter().filter(|block| block.starts_with("# rebound.toml")) {
        std::fs::write(folder.path().join("rebound.toml"), block).expect("written");
        let said = succeeds(&["check", "--config", "rebound.toml", "--print"], folder.path());
        assert!(said.contains("[bus]") && said.contains("plan.toml: good"), "{said}");
        settings += 1;
    }
    assert!(settings >= 1, "the README shows no rebound.toml");
    let output = rebound(&["check", "--config", "rebound.toml", "plan.toml"], folder.path());
    assert!(output.status.success());
}
