//! What packages need of the program: its version, man pages and completions, and the name by which mount(8) calls it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::common::naive::{Config, Cut};
use crate::common::run::{PROGRAM, Said};
use crate::common::source::Checkpoint;

#[path = "../../build/commit.rs"]
mod commit;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn the_version_is_that_of_the_manifest() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(ckpt!("-V").ok().out, format!("ckpt-fs {version}\n"));
    let long = ckpt!("--version").ok().out;
    assert!(long.starts_with(&format!("ckpt-fs {version} (")) && long.contains("features: "), "{long}");
    assert!(long.contains(std::env::consts::ARCH), "{long}");
    // Everything else takes it from there.
    let python = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pyproject.toml")).unwrap();
    assert!(python.contains("dynamic = [\"version\"]") && !python.contains(version));
}

/// Names and texts.
type Files<'a> = &'a [(&'a str, &'a str)];

/// A tree with these files.
fn tree(files: Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn the_commit_is_found_without_git() {
    let branch = ("a/.git/HEAD", "ref: refs/heads/main\n");
    let line = format!("{COMMIT}\n");
    let packed =
        format!("# pack-refs with: peeled\n{} refs/heads/other\n{COMMIT} refs/heads/main\n", "f".repeat(40));
    let packaged =
        format!("{{\n  \"git\": {{\n    \"sha1\": \"{COMMIT}\"\n  }},\n  \"path_in_vcs\": \"\"\n}}");
    let beside = [
        ("a/.git", "gitdir: ../b/.git/worktrees/a\n"),
        ("b/.git/worktrees/a/HEAD", "ref: refs/heads/main\n"),
        ("b/.git/worktrees/a/commondir", "../..\n"),
        ("b/.git/refs/heads/main", &line),
    ];
    let table: [(&str, Files, usize); 5] = [
        ("on a branch", &[branch, ("a/.git/refs/heads/main", &line)], 2),
        ("packed", &[branch, ("a/.git/packed-refs", &packed)], 2),
        ("detached", &[("a/.git/HEAD", &line)], 1),
        ("in a second work tree", &beside, 2),
        ("packaged by cargo", &[("a/.cargo_vcs_info.json", &packaged)], 1),
    ];
    for (what, files, watched) in table {
        let dir = tree(files);
        let found = commit::find(&dir.path().join("a"));
        assert_eq!(found.commit.as_deref(), Some(&COMMIT[..12]), "{what}");
        assert_eq!(found.watch.len(), watched, "{what}");
        assert!(found.watch.iter().all(|path| path.exists()), "{what}");
    }
}

#[test]
fn no_commit_is_no_failure() {
    let table: [(&str, Files); 6] = [
        ("a tarball", &[("a/Cargo.toml", "")]),
        ("of somebody else", &[("a/Cargo.toml", ""), (".git/HEAD", COMMIT)]),
        ("without commits", &[("a/.git/HEAD", "ref: refs/heads/main\n")]),
        ("damaged", &[("a/.git/HEAD", "\0\n")]),
        ("gone", &[("a/.git", "gitdir: /nowhere\n")]),
        ("not of git", &[("a/.cargo_vcs_info.json", "{\"git\":{\"sha1\":\"\"}}")]),
    ];
    for (what, files) in table {
        let dir = tree(files);
        assert_eq!(commit::find(&dir.path().join("a")).commit, None, "{what}");
    }
}

/// Whether the shell, where there is one, reads the file without complaint.
fn reads(shell: &str, path: &Path) {
    match Command::new(shell).arg("-n").arg(path).output() {
        Ok(output) => {
            let said = Said::of(output).ok();
            assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""), "{shell}");
        }
        Err(error) => assert_ne!(shell, "bash", "{error}"),
    }
}

#[test]
fn man_pages_and_completions_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let share = dir.path().join("not/there/yet");
    ckpt!("generate", share).ok();
    let read = |name: &str| fs::read_to_string(share.join(name)).unwrap();
    let help = ckpt!("--help").ok().out;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    // The text of a command may go on in the next line, further in.
    let commands = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands = commands.filter(|name| !name.is_empty() && *name != "help");
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() >= 9, "{commands:?}");
    let mut pages: Vec<String> = commands.iter().map(|name| format!("ckpt-fs-{name}.1")).collect();
    pages.push("ckpt-fs.1".to_owned());
    pages.sort();
    let mut written: Vec<String> = fs::read_dir(share.join("man/man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    written.sort();
    assert_eq!(written, pages);
    assert!(read("man/man1/ckpt-fs.1").starts_with(".ie"), "not a man page");
    assert!(read("man/man1/ckpt-fs-mount.1").contains("Let every user in"));
    assert!(read("man/man8/mount.ckpt-fs.8").contains("tp=8,pp=4,as=hf,allow_other"));
    for (shell, name) in [
        ("bash", "bash-completion/completions/ckpt-fs"),
        ("zsh", "zsh/site-functions/_ckpt-fs"),
        ("fish", "fish/vendor_completions.d/ckpt-fs.fish"),
    ] {
        let text = read(name);
        assert!(commands.iter().all(|command| text.contains(command)), "{shell}");
        assert!(!text.contains("watch-mount") && !text.contains("generate"), "{shell}");
        reads(shell, &share.join(name));
    }
    fs::write(dir.path().join("file"), "").unwrap();
    ckpt!("generate", dir.path().join("file")).refused(6, &["cannot write", "file/"]);
}

#[test]
fn bash_completes() {
    let dir = tempfile::tempdir().unwrap();
    ckpt!("generate", dir.path()).ok();
    let script = r#"
        . "$1"
        complete_at() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ckpt__fs ckpt-fs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; echo "${COMPREPLY[*]}"; }
        complete_at ckpt-fs mat
        complete_at ckpt-fs mount --allow
        complete_at ckpt-fs mount --as ""
    "#;
    let name = dir.path().join("bash-completion/completions/ckpt-fs");
    let said = Said::of(Command::new("bash").args(["-c", script, "bash"]).arg(name).output().unwrap()).ok();
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines,
        ["materialize", "--allow-other --allow-root", "megatron safetensors hf vllm sglang torch_dist dcp"]
    );
}

/// Runs the program as mount(8) does.
fn helper(words: &[&str], dir: &Path) -> Said {
    Said::of(Command::new(PROGRAM).arg0("/sbin/mount.ckpt-fs").args(words).current_dir(dir).output().unwrap())
}

#[test]
fn mount_calls_it_by_another_name() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::new(&Config::default(), &Cut::new(2, &[2, 2])).write(&dir.path().join("a b"));
    fs::create_dir(dir.path().join("mnt")).unwrap();
    let run = |options: &str| helper(&["a b", "mnt", "-fv", "-o", options], dir.path());
    // Everything but the mount: the layout is worked out too.
    let said = run("rw,tp=4,pp=1,nofail").ok();
    assert_eq!(said.err, "ckpt-fs: ckpt-fs mount -o rw --tp=4 --pp=1 -o nofail --dry-run -- a b mnt\n");
    assert_eq!(fs::read_dir(dir.path().join("mnt")).unwrap().count(), 0);
    run(r"pp_layers=1\,3").ok();
    run("tp=3").refused(5, &["TP 3 does not divide"]);
    run("tp=many").refused(2, &["invalid value 'many' for '--tp <N>'"]);
    run("tp=4,nonsense").refused(2, &["unknown mount option nonsense", "--help"]);
    helper(&["a b", "mnt", "-fs", "-o", "tp=4,nonsense"], dir.path()).ok();
    helper(&["nothing", "mnt", "-f"], dir.path()).refused(3, &["nothing"]);
}
