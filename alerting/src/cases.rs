//! How many cases the property tests try.

use proptest::prelude::ProptestConfig;

/// Ten thousand for each rule; `PROPTEST_CASES` says otherwise. Generators keep their histories short, so that all of
/// the crate's tests stay within minutes in a development build.
pub(crate) fn cheap() -> ProptestConfig {
    by_default(10_000)
}

fn by_default(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig { failure_persistence: None, cases: if asked { default.cases } else { cases }, ..default }
}
