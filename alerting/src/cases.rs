//! How many cases the property tests try.

use proptest::prelude::ProptestConfig;

/// Ten thousand, for rules that cost microseconds; `PROPTEST_CASES` says otherwise.
pub(crate) fn cheap() -> ProptestConfig {
    at_least(10_000)
}

/// A thousand, for whole histories with restarts; `PROPTEST_CASES` says otherwise.
pub(crate) fn histories() -> ProptestConfig {
    at_least(1_000)
}

fn at_least(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig { failure_persistence: None, cases: if asked { default.cases } else { cases }, ..default }
}
