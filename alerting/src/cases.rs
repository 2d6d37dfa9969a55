//! How many cases the property tests try.

use proptest::prelude::ProptestConfig;

/// Ten thousand, for rules that cost microseconds; `PROPTEST_CASES` says otherwise.
pub(crate) fn cheap() -> ProptestConfig {
    by_default(10_000)
}

/// A thousand, for whole histories with restarts; `PROPTEST_CASES` says otherwise.
pub(crate) fn histories() -> ProptestConfig {
    by_default(1_000)
}

/// Three hundred, where each case restarts after every step; `PROPTEST_CASES` says otherwise.
pub(crate) fn restarts() -> ProptestConfig {
    by_default(300)
}

fn by_default(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig { failure_persistence: None, cases: if asked { default.cases } else { cases }, ..default }
}
