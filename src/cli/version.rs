//! What the program says of itself: `-V` the version, `--version` also what it was built of and for (`build.rs`).

/// The version, as `Cargo.toml` has it and nothing else.
pub(super) const SHORT: &str = env!("CARGO_PKG_VERSION");

/// With the commit, the features and the target.
pub(super) const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("CKPT_FS_BUILD"), ")");
