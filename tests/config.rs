//! Settings and plans as a user writes them: what is wrong is said with file, line and remedy.

use std::path::Path;

use crate::support::{fails, rebound, succeeds};

fn data(folder: &str) -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    files
}

/// Each bad file's exact message stands beside it; `REBOUND_BLESS=1` writes them anew.
#[test]
fn bad_settings_are_refused_with_their_message() {
    let files = data("bad");
    assert!(files.len() >= 10);
    for file in files {
        let folder = file.parent().expect("a folder");
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
        let said = fails(&["check", "--config", name], folder, 1);
        let expected = file.with_extension("txt");
        if std::env::var_os("REBOUND_BLESS").is_some() {
            std::fs::write(&expected, &said).expect("written");
        }
        assert_eq!(said, std::fs::read_to_string(&expected).unwrap_or_default(), "{name}");
    }
}

#[test]
fn good_settings_and_the_examples_pass() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in data("good") {
        let file = file.to_str().expect("a path");
        let output = rebound(&["check", "--config", file, "--print"], folder.path());
        // kafka.toml names a plan that is not there: the settings themselves are fine, and printed.
        assert!(String::from_utf8_lossy(&output.stdout).contains("[bus]"), "{file}: {output:?}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for example in ["minimal", "policies", "erlmcp"] {
        let plan = root.join("examples").join(example).join("plan.toml");
        let said = succeeds(&["check", plan.to_str().expect("a path")], folder.path());
        assert!(said.contains("services"), "{said}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = fails(&["check", "--config", "nowhere.toml"], folder.path(), 1);
    assert!(said.contains("nowhere.toml") && said.contains("can't be read"), "{said}");
    std::fs::create_dir(folder.path().join("folder.toml")).expect("a folder");
    std::fs::write(folder.path().join("bytes.toml"), [0xff, 0xfe]).expect("written");
    for (file, says) in [("folder.toml", "directory"), ("bytes.toml", "UTF-8")] {
        let said = fails(&["check", "--config", file], folder.path(), 1);
        assert!(said.contains(file) && said.contains("can't be read") && said.contains(says), "{said}");
    }
    let said = fails(&["up", "--plan", "nowhere-plan.toml"], folder.path(), 1);
    assert!(said.contains("nowhere-plan.toml"), "{said}");
}
