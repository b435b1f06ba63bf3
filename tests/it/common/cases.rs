//! How many cases a property is tried with, and where those that fail are kept.
//!
//! proptest keeps the seed of a failing case in `tests/proptest-regressions` (`proptest-regressions` for tests beside the modules), by
//! the name of the file, and tries it first from then on: commit it with the fix. A seed means a case only as long as the strategy stays;
//! a case that should outlive it is an ordinary test.

use proptest::prelude::ProptestConfig;

/// What proptest tries where nothing is said.
const USUAL: u32 = 256;

/// `few` cases in the quick tests, in proportion more where `PROPTEST_CASES` asks for more than usual (`scripts/nightly`).
pub(crate) fn cases(few: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = u64::from(few) * u64::from(config.cases) / u64::from(USUAL);
    ProptestConfig { cases: u32::try_from(cases).unwrap_or(u32::MAX).max(1), ..config }
}
