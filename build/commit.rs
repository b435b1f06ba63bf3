//! The commit that a source tree is of, read from the files of git, which need not be installed.
//!
//! Of use to `build.rs` alone. A tree that is of no commit, or of one that cannot be found out, has none: that fails no build.

use std::fs;
use std::path::{Path, PathBuf};

/// Letters of a commit that are shown. Twelve are unique in every repository that there is.
const SHOWN: usize = 12;

/// The commit, and the files that change when another one is checked out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Abbreviated.
    pub(crate) commit: Option<String>,
    /// All of them are there: cargo runs a build script every time that watches a file that is not.
    pub(crate) watch: Vec<PathBuf>,
}

/// The commit of the tree at `root`. A repository further up is somebody else's.
pub(crate) fn find(root: &Path) -> Found {
    let packaged = root.join(".cargo_vcs_info.json");
    if let Ok(text) = fs::read_to_string(&packaged) {
        return Found { commit: packaged_commit(&text), watch: vec![packaged] };
    }
    from_git(root).unwrap_or_default()
}

/// `cargo package` notes the commit in JSON of one known form.
fn packaged_commit(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("\"sha1\"")?;
    abbreviated(rest.split('"').nth(1)?)
}

fn from_git(root: &Path) -> Option<Found> {
    let git = git_directory(root)?;
    // A work tree beside the first one has a HEAD of its own, and branches in common with it.
    let common = fs::read_to_string(git.join("commondir")).map(|path| git.join(path.trim()));
    let common = common.unwrap_or_else(|_| git.clone());
    let head = git.join("HEAD");
    let text = fs::read_to_string(&head).ok()?;
    let Some(name) = text.trim().strip_prefix("ref: ") else {
        return Some(Found { commit: abbreviated(text.trim()), watch: vec![head] });
    };
    let loose = common.join(name);
    let packed = common.join("packed-refs");
    let commit = fs::read_to_string(&loose).ok().or_else(|| in_packed(&packed, name));
    let watch = [head, loose, packed].into_iter().filter(|path| path.exists()).collect();
    Some(Found { commit: commit.and_then(|commit| abbreviated(commit.trim())), watch })
}

/// `.git`, or where a file in its place says that it is.
fn git_directory(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = fs::read_to_string(git).ok()?;
    Some(root.join(text.trim().strip_prefix("gitdir: ")?))
}

fn in_packed(packed: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(packed).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(_, other)| *other == name).map(|(commit, _)| commit.to_owned())
}

fn abbreviated(commit: &str) -> Option<String> {
    let is_commit = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    commit.get(..SHOWN).filter(|_| is_commit).map(str::to_owned)
}
