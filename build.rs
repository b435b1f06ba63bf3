//! What `ckpt-fs --version` says of a build: the commit, the features, the target.
//!
//! Builds for development do not have the commit: with it every commit would compile everything once more.

#[path = "build/commit.rs"]
mod commit;

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/commit.rs");
    let said = |name: &str| env::var(name).unwrap_or_default();
    let commit = if said("PROFILE") == "debug" { "a development build".to_owned() } else { commit() };
    println!("cargo::rustc-env=CKPT_FS_BUILD={commit}, features: {}, {}", features(), said("TARGET"));
}

fn commit() -> String {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let found = commit::find(Path::new(&root));
    for path in &found.watch {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    found.commit.map_or_else(|| "no commit".to_owned(), |commit| format!("commit {commit}"))
}

/// The features of this crate that are on, as `Cargo.toml` spells them.
fn features() -> String {
    let on = env::vars().filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase));
    let mut on: Vec<String> =
        on.map(|name| name.replace('_', "-")).filter(|name| name != "default").collect();
    on.sort();
    if on.is_empty() { "none".to_owned() } else { on.join(" ") }
}
