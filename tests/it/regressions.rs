//! Saved failures of properties are tried again, or they are not there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned()
}

/// proptest puts the file beside the nearest folder that holds a `lib.rs` or `main.rs`, under the path of the source.
#[test]
fn every_saved_failure_belongs_to_a_property() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places = vec![];
    for (sources, saved) in [("src", "proptest-regressions"), ("tests/it", "tests/proptest-regressions")] {
        assert!(
            ["lib.rs", "main.rs"].iter().any(|name| root.join(sources).join(name).is_file()),
            "{sources}"
        );
        for path in files(&root.join(sources)) {
            let text = fs::read_to_string(&path).unwrap();
            if text.contains("\nproptest! {") || text.contains("    proptest! {") {
                let within = path.strip_prefix(root.join(sources)).unwrap().with_extension("txt");
                places.push(Path::new(saved).join(within).to_str().unwrap().to_owned());
            }
            let forbidden = ["failure_", "persistence"].concat();
            assert!(!text.contains(&forbidden), "{} keeps failures elsewhere, or not at all", path.display());
        }
    }
    assert!(places.len() > 8, "the properties were not found: {places:?}");
    let all = ["proptest-regressions", "src", "tests"].map(|folder| files(&root.join(folder))).concat();
    let saved: Vec<String> =
        all.iter().map(|path| relative(path)).filter(|path| path.contains("proptest-regressions")).collect();
    for path in saved {
        assert!(places.contains(&path), "{path} is read by no property");
    }
}
