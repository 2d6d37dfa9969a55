//! The invariants of ARCHITECTURE.md that a machine can check: who depends on whom, and what is pure.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Direct, non-development dependencies of each workspace crate.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let names = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        all.map(|d| d["name"].as_str().expect("a name").to_owned()).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().expect("a name").to_owned(), names(p))).collect()
}

#[test]
fn crates_depend_only_on_what_they_may() {
    let dependencies = dependencies();
    let uses = |package: &str, dependency: &str| dependencies[package].iter().any(|d| d == dependency);
    for service in ["rebound-ingest", "rebound-alerting", "rebound-analytics"] {
        assert!(uses(service, "rebound-schemas"));
        for other in ["rebound-ingest", "rebound-alerting", "rebound-analytics", "rebound"] {
            assert!(!uses(service, other), "{service} imports {other}: wire them in src/ instead");
        }
    }
    for package in dependencies.keys() {
        for (dependency, owner) in [
            ("rdkafka", "rebound-ingest"),
            ("fjall", "rebound-ingest"),
            ("polars", "rebound-analytics"),
            ("datafusion-postgres", "rebound-analytics"),
            ("lettre", "rebound-alerting"),
        ] {
            assert!(
                package == owner || !uses(package, dependency),
                "only {owner} may know {dependency}, not {package}"
            );
        }
    }
    for dependency in ["tokio", "reqwest", "axum", "rdkafka", "deltalake", "rand"] {
        assert!(!uses("rebound-schemas", dependency), "schemas is pure: no {dependency}");
    }
}

/// Modules that decide or compute and must not read a clock, the environment or randomness.
const PURE: &[&str] = &[
    "schemas/src",
    "alerting/src/threshold.rs",
    "alerting/src/flapping.rs",
    "alerting/src/hold.rs",
    "alerting/src/burn.rs",
    "alerting/src/condition.rs",
    "alerting/src/matcher.rs",
    "alerting/src/suppress.rs",
    "alerting/src/budget.rs",
    "alerting/src/desk.rs",
    "alerting/src/engine.rs",
    "alerting/src/explain.rs",
    "alerting/src/moves.rs",
    "alerting/src/notify.rs",
    "alerting/src/order.rs",
    "alerting/src/procedure.rs",
    "alerting/src/queue.rs",
    "alerting/src/sites.rs",
    "alerting/src/verification.rs",
    "ingest/src/import",
    "analytics/src/anomaly.rs",
    "analytics/src/forecast.rs",
    "analytics/src/stats.rs",
    "analytics/src/mttr.rs",
    "analytics/src/survival.rs",
    "analytics/src/series.rs",
    "analytics/src/comparison.rs",
    "analytics/src/spans.rs",
    "analytics/src/observed.rs",
    "analytics/src/surroundings.rs",
    "analytics/src/report.rs",
    "analytics/src/trend.rs",
];

#[test]
fn pure_modules_read_no_clock_no_environment_and_no_randomness() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut read = 0;
    for pure in PURE {
        let path = root.join(pure);
        // A module may have grown into a folder of the same name.
        let folder = path.with_extension("");
        assert!(path.exists() || folder.exists(), "{pure} is gone: update the list");
        for file in rust_files(&path).into_iter().chain(rust_files(&folder)) {
            // Modules of tests only (`tests.rs`, `tests_….rs`, what lies in `tests/`) may do as they like.
            if file
                .strip_prefix(root)
                .expect("within")
                .components()
                .any(|c| c.as_os_str().to_string_lossy().starts_with("tests"))
            {
                continue;
            }
            read += 1;
            let text = std::fs::read_to_string(&file).expect("a source file");
            // Tests at the end of a file may do as they like.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for forbidden in
                ["Utc::now", "SystemTime::now", "Instant::now", "std::env", "rand::rng", "thread_rng", "OsRng"]
            {
                assert!(!code.contains(forbidden), "{} uses {forbidden}: take it as an argument", file.display());
            }
        }
    }
    assert!(read > PURE.len(), "only {read} files were read");
}

fn rust_files(path: &Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    paths
        .flat_map(|p| if p.is_dir() { rust_files(&p) } else { vec![p] })
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "schemas/src", "ingest/src", "alerting/src", "analytics/src", "tests"] {
        for file in rust_files(&root.join(folder)) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
        }
    }
}
