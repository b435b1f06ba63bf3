//! The rules of docs/architecture.md that a machine can check: which module may use which, what the pure core must not touch, where
//! `unsafe` may be, and that every file says what it is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cycles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Left may use right, nothing else. The four at the bottom may be used by all, and use each other only as said here.
const EDGES: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "doctor",
            "fuse",
            "metrics",
            "picture",
            "inspect",
            "materialize",
            "serve",
            "verify",
            "digest",
            "weights",
            "vfs",
            "cache",
            "reader",
            "source",
            "store",
            "view",
            "family",
            "catalog",
            "plan",
            "parallel",
            "sys",
        ],
    ),
    ("doctor", &["fuse", "vfs", "sys"]),
    ("fuse", &["vfs", "sys", "aligned"]),
    ("metrics", &["vfs"]),
    ("vfs", &["cache", "reader", "view", "catalog", "plan", "store", "sys", "parallel"]),
    ("materialize", &["reader", "view", "plan", "store", "aligned", "parallel"]),
    ("serve", &["reader", "view", "plan"]),
    ("picture", &["inspect"]),
    ("inspect", &["source", "view", "store", "catalog", "plan", "family"]),
    ("verify", &["weights", "reader", "view", "catalog", "plan", "family", "parallel"]),
    ("digest", &["weights", "reader", "catalog", "plan", "family"]),
    ("weights", &["reader", "catalog", "plan", "family", "parallel"]),
    ("reader", &["cache", "plan", "store"]),
    ("cache", &["sys"]),
    ("source", &["store", "format", "family", "catalog", "parallel"]),
    ("view", &["plan", "format", "family", "catalog"]),
    ("plan", &["catalog"]),
    ("store", &["sys"]),
    ("family", &[]),
    ("catalog", &[]),
    ("format", &[]),
    ("sys", &[]),
    ("aligned", &[]),
    ("parallel", &[]),
    ("value", &[]),
    ("layout", &[]),
    ("extent", &[]),
    ("tensor", &[]),
];

/// May be used by every module above them.
const BOTTOM: &[&str] = &["tensor", "extent", "layout", "value"];

/// No file system, clock, thread, path or network in these.
const PURE: &[&str] = &[
    "tensor", "extent", "layout", "value", "family", "catalog", "plan", "format", "view", "aligned",
    "picture",
];

const IMPURE: &[&str] = &[
    "std::fs",
    "std::path",
    "std::thread",
    "std::time",
    "std::net",
    "std::process",
    "std::env",
    "std::io",
    "rustix",
    "libc",
];

/// Modules on the way of a read, with all below them: where a value that must be there is not, a read fails. They deny the defaults that
/// `clippy.toml` lists, and so does the whole crate indexing that does not say why it is right.
const LOUD: &[&str] = &[
    "aligned",
    "cache",
    "catalog",
    "digest",
    "extent",
    "fuse",
    "materialize",
    "parallel",
    "plan",
    "reader",
    "serve",
    "store",
    "tensor",
    "verify",
    "vfs",
    "view/dcp_files",
    "view/engine",
    "view/hf",
    "view/megatron",
    "view/ranks",
    "view/target",
    "view/tensors",
    "view/torch_dist",
    "view/vocabulary",
    "weights",
];

/// Files of these that may have defaults throughout; each says why in its `#![expect]`. None of them decides where a byte of a tensor comes
/// from: how a mount is made, and the values of Python objects beside the tensors.
const WITH_DEFAULTS: &[&str] = &[
    "fuse/device.rs",
    "fuse/handed.rs",
    "fuse/mount.rs",
    "fuse/options.rs",
    "fuse/passthrough.rs",
    "view/megatron/args.rs",
    "view/megatron/modules.rs",
    "view/megatron/optimizer/common.rs",
    "view/megatron/optimizer/elementwise.rs",
    "view/megatron/optimizer/groups.rs",
];

/// Lines without tests; more than this holds two concepts.
const LONGEST_FILE: usize = 420;

fn sources() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // What pages are made of lies beside the code that makes them.
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let relative = path.strip_prefix(&root).unwrap().to_owned();
            let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            modules.entry(module).or_default().push((relative, text));
        }
    }
    assert!(modules.len() > 20, "the sources were not found");
    modules
}

/// The file without comments, and without its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn uses(text: &str) -> BTreeSet<String> {
    let names = code(text);
    let names = names.split("crate::").skip(1);
    names.map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()).collect()
}

#[test]
fn modules_use_only_what_is_to_their_right() {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for (module, files) in sources() {
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let right = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no row in EDGES"));
        // Tests of a module may make what it is handed.
        let is_test = |path: &Path| path.iter().any(|part| part == "tests" || part == "tests.rs");
        for (path, text) in files.into_iter().filter(|(path, _)| !is_test(path)) {
            let fine = |used: &String| {
                *used == module || right.contains(&used.as_str()) || BOTTOM.contains(&used.as_str())
            };
            wrong.extend(
                uses(&text)
                    .into_iter()
                    .filter(|used| !fine(used))
                    .map(|used| format!("{} uses {used}", path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn edges_go_one_way() {
    let order: Vec<&str> = EDGES.iter().map(|(module, _)| *module).collect();
    for (index, (module, right)) in EDGES.iter().enumerate() {
        for used in *right {
            let at = order.iter().position(|name| name == used).unwrap();
            assert!(at > index, "{module} may use {used}, which stands above it");
        }
    }
}

#[test]
fn the_core_does_no_io() {
    let mut wrong = Vec::new();
    for (_, files) in sources().into_iter().filter(|(module, _)| PURE.contains(&module.as_str())) {
        for (path, text) in files {
            let found = IMPURE.iter().filter(|name| code(&text).contains(*name));
            wrong.extend(found.map(|name| format!("{} uses {name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (module, files) in sources() {
        for (path, text) in files {
            assert!(module == "sys" || !code(&text).contains("unsafe "), "{}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_holds_one_concept() {
    for (path, text) in sources().into_values().flatten() {
        assert!(text.starts_with("//!"), "{} does not open with what it is", path.display());
        let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
    }
}

#[test]
fn what_cannot_happen_fails_loudly() {
    const DEFAULTS: &str = "clippy::disallowed_methods";
    const INDEXING: &str = "clippy::indexing_slicing";
    let files: BTreeMap<PathBuf, String> = sources().into_values().flatten().collect();
    let has = |path: &str, line: &str| files[Path::new(path)].lines().any(|other| other == line);
    for module in LOUD {
        let path = format!("{module}.rs");
        assert!(has(&path, &format!("#![deny({DEFAULTS})]")), "{path} does not deny defaults");
    }
    assert!(has("lib.rs", &format!("#![deny({INDEXING})]")), "indexing without a reason is not denied");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let denied = fs::read_to_string(root.join("clippy.toml")).unwrap();
    for method in ["unwrap_or", "unwrap_or_default", "unwrap_or_else", "map_or", "map_or_else"] {
        for of in ["option::Option", "result::Result"] {
            assert!(denied.contains(&format!("\"core::{of}::{method}\"")), "{of}::{method} is not denied");
        }
    }
    for (path, text) in &files {
        let throughout = format!("#![expect({DEFAULTS}, reason = \"");
        assert!(
            !text.contains(&throughout) || WITH_DEFAULTS.contains(&path.to_str().unwrap()),
            "{} has defaults throughout",
            path.display()
        );
        // An exception is one that is needed, says why, and is for one function or statement.
        for lint in [DEFAULTS, INDEXING] {
            let allowed =
                |line: &str| line.contains(&format!("allow({lint}")) && !line.contains("a test may panic");
            assert!(!text.lines().any(allowed), "{} allows {lint}", path.display());
            for rest in text.split(&format!("expect({lint}")).skip(1) {
                let reason = rest.trim_start_matches(',').trim_start().strip_prefix("reason = \"");
                assert!(
                    reason.is_some_and(|reason| !reason.starts_with('"')),
                    "{}: no reason",
                    path.display()
                );
            }
        }
        assert!(!text.contains(&format!("#![expect({INDEXING}")), "{} indexes throughout", path.display());
    }
}

/// A source need not be a pickle: what rank files call their entries is known where they are read and written, and everything else asks the
/// catalog.
#[test]
fn keys_of_rank_files_are_spelled_once() {
    const SPELLED: &str = "format/megatron/keys.rs";
    // Words in tables for people, the catalog's own names, keys of this tool's own metadata, names of a model's files, sections of another file.
    const OTHERS: &[&str] =
        &["cli/", "catalog/optimizer.rs", "format/megatron/run_config", "format/ranks", "view/hf.rs"];
    let files: BTreeMap<PathBuf, String> = sources().into_values().flatten().collect();
    let spelled = code(&files[Path::new(SPELLED)]);
    let is_key = |text: &&str| text.len() > 2 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let keys: BTreeSet<&str> = spelled.split('"').skip(1).step_by(2).filter(is_key).collect();
    assert!(["args", "model", "optimizer", "rng_state", "param_groups"].iter().all(|key| keys.contains(key)));
    for (path, text) in &files {
        let name = path.to_str().unwrap();
        let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
        if is_test || name == SPELLED || OTHERS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let code = code(text);
        let again: Vec<&str> = code
            .split('"')
            .skip(1)
            .filter(|text| keys.contains(text) || text.starts_with("model{"))
            .collect();
        assert!(again.is_empty(), "{name} spells {again:?}: see {SPELLED}");
    }
}

#[test]
fn threads_that_share_work_are_those_of_the_pool() {
    // One beside another that hands it what to write, or asks a mount, is no pool.
    const SCOPES: &[&str] = &["parallel.rs", "materialize/write.rs", "cli/warmup.rs"];
    let tests = |path: &Path| path.iter().any(|part| part == "tests" || part == "tests.rs");
    for (path, text) in sources().into_values().flatten().filter(|(path, _)| !tests(path)) {
        let text = text.split("#[cfg(test)]").next().unwrap();
        assert!(
            !text.contains("thread::scope") || SCOPES.contains(&path.to_str().unwrap()),
            "{}",
            path.display()
        );
    }
}
