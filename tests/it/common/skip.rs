//! Skips that cannot be taken for passes.

/// Says that a test is not run here, which is a failure where nothing may be skipped: with `CI=true` or `CKPT_FS_REQUIRE_ALL=1`.
pub(crate) fn skip(why: &str) {
    let is = |name, value| std::env::var_os(name).is_some_and(|set| set == value);
    assert!(!is("CI", "true") && !is("CKPT_FS_REQUIRE_ALL", "1"), "{why}, and nothing may be skipped here");
    eprintln!("skipped: {why}");
}
