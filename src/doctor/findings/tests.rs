//! What is said of systems that are made up.

use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::doctor::FileSystem;
use crate::doctor::facts::Helper;
use crate::sys::memory_left::Memory;

const ROOT: User = User { is_root: true, is_root_of_all: true, may_mount: true, sees_foreign_mounts: false, no_new_privileges: false };
const NOBODY: User = User { is_root: false, is_root_of_all: false, may_mount: false, sees_foreign_mounts: false, no_new_privileges: false };

fn helper(path: Option<&str>, is_setuid_root: bool) -> Helper {
    Helper { program: "fusermount3".into(), path: path.map(PathBuf::from), is_setuid_root }
}

/// A machine where everything is as it should be, and nobody has root's rights.
fn facts() -> Facts {
    Facts {
        has_proc: true,
        user: NOBODY,
        container: None,
        device: Ok(()),
        helper: helper(Some("/usr/bin/fusermount3"), true),
        allows_others: true,
        kernel: "6.8.0-45-generic".into(),
        memory: Some(Memory { limit: 16_000_000_000, available: 8_000_000_000 }),
        cache_size: 1_000_000_000,
        open_files: Some(1 << 20),
        source: None,
        trial: Trial::Passed { took: Duration::from_millis(12), passes: false },
    }
}

fn refused(facts: Facts) -> Facts {
    Facts { trial: Trial::NotMounted(MountError::NotPermitted), ..facts }
}

/// Mark, words and remedy of what was found of `check`.
fn found(facts: &Facts, check: &str) -> (Mark, String, String) {
    let report = examine(facts);
    let found = report.findings.into_iter().find(|finding| finding.check == check).unwrap();
    (found.mark, found.said, found.remedy.unwrap_or_default())
}

#[track_caller]
fn says(facts: &Facts, check: &str, mark: Mark, words: &[&str]) {
    let (found, said, remedy) = found(facts, check);
    assert_eq!(found, mark, "{said}");
    assert!(words.iter().all(|word| said.contains(word) || remedy.contains(word)), "{said}\n{remedy}");
}

#[test]
fn all_is_well_where_it_is() {
    let report = examine(&facts());
    assert!(report.mount_possible);
    let marks: Vec<_> = report.findings.iter().filter(|finding| finding.mark != Mark::Ok).map(|finding| finding.check).collect();
    assert_eq!(marks, ["kernel"]);
    says(&facts(), "trial mount", Mark::Ok, &["12 ms"]);
}

#[test]
fn a_trial_that_passed_leaves_no_problems_and_one_that_did_not_decides() {
    let odd = Facts { helper: helper(None, false), device: Err(ErrorKind::NotFound.into()), ..facts() };
    assert!(examine(&odd).mount_possible);
    assert!(examine(&odd).findings.iter().all(|finding| finding.mark != Mark::Problem));
    let report = examine(&refused(facts()));
    assert!(!report.mount_possible);
    says(&refused(facts()), "trial mount", Mark::Problem, &["not permitted", "materialize", "ckpt-fs cat", "ckpt_fs.open"]);
    let unread = Facts { trial: Trial::NotRead("3 bytes".into()), ..facts() };
    assert!(!examine(&unread).mount_possible);
}

#[test]
fn facts_decide_where_no_trial_could_be_made() {
    let untried = |facts: Facts| Facts { trial: Trial::NoDirectory(Error::other("full")), ..facts };
    let verdict = |facts: Facts| (examine(&facts).mount_possible, examine(&facts).tried);
    says(&untried(facts()), "trial mount", Mark::Note, &["not tried", "full", "TMPDIR"]);
    assert_eq!(verdict(untried(facts())), (true, false));
    let closed = || Facts { device: Err(ErrorKind::NotFound.into()), ..facts() };
    assert_eq!(verdict(untried(closed())), (false, false));
    says(&untried(closed()), "/dev/fuse", Mark::Problem, &[]);
    assert_eq!(verdict(untried(Facts { user: User { may_mount: false, ..ROOT }, ..facts() })), (false, false));
    assert_eq!((verdict(facts()), verdict(refused(facts()))), ((true, true), (false, true)));
}

#[test]
fn without_proc_nothing_is_said_that_is_not_known() {
    let bare = |user| refused(Facts { has_proc: false, user, memory: None, kernel: "6.18.1".into(), ..facts() });
    // In which namespace it is root is told by a file that is not there.
    let root = bare(User { is_root_of_all: false, ..ROOT });
    says(&root, "/proc", Mark::Problem, &["is not there", "mount -t proc proc /proc"]);
    says(&root, "user", Mark::Note, &["CAP_SYS_ADMIN", "not known"]);
    says(&root, "kernel", Mark::Note, &["6.18.1", "not known"]);
    says(&bare(User { may_mount: false, ..ROOT }), "user", Mark::Problem, &["without the right to mount"]);
    assert!(examine(&facts()).findings.iter().all(|finding| finding.check != "/proc"));
}

#[test]
fn a_device_that_cannot_be_opened_has_a_cause_for_each_place() {
    let failed = |kind: ErrorKind, user, container| refused(Facts { device: Err(kind.into()), user, container, ..facts() });
    says(&failed(ErrorKind::NotFound, NOBODY, None), "/dev/fuse", Mark::Problem, &["modprobe fuse"]);
    says(&failed(ErrorKind::NotFound, ROOT, Some("Docker")), "/dev/fuse", Mark::Problem, &["--device /dev/fuse"]);
    says(&failed(ErrorKind::PermissionDenied, ROOT, None), "/dev/fuse", Mark::Problem, &["control group", "10:229"]);
    says(&failed(ErrorKind::PermissionDenied, NOBODY, None), "/dev/fuse", Mark::Problem, &["chmod 666"]);
    let no_driver = refused(Facts { device: Err(Error::from_raw_os_error(libc::ENODEV)), ..facts() });
    says(&no_driver, "/dev/fuse", Mark::Problem, &["modprobe fuse"]);
}

#[test]
fn the_helper_matters_to_those_who_need_it() {
    let with = |helper, user| refused(Facts { helper, user, ..facts() });
    says(&with(helper(None, false), NOBODY), "fusermount3", Mark::Problem, &["not found", "package fuse3"]);
    says(&with(helper(None, false), ROOT), "fusermount3", Mark::Note, &["only users other than root need it"]);
    says(&with(helper(Some("/a/fusermount3"), false), NOBODY), "fusermount3", Mark::Problem, &["chmod u+s /a/fusermount3"]);
    let bare = User { no_new_privileges: true, ..NOBODY };
    says(&with(facts().helper, bare), "fusermount3", Mark::Problem, &["no_new_privs", "allowPrivilegeEscalation"]);
    // Root's helper has nothing to gain.
    says(&with(facts().helper, User { no_new_privileges: true, ..ROOT }), "fusermount3", Mark::Ok, &[]);
    let powerless = User { may_mount: false, ..ROOT };
    says(&with(helper(None, false), powerless), "fusermount3", Mark::Problem, &[]);
}

#[test]
fn root_is_not_always_root() {
    let with = |user, container| refused(Facts { user, container, ..facts() });
    says(&with(ROOT, None), "user", Mark::Ok, &["root, which may mount"]);
    says(&with(User { may_mount: false, ..ROOT }, Some("Kubernetes")), "user", Mark::Problem, &["CAP_SYS_ADMIN", "in Kubernetes", "SYS_ADMIN"]);
    says(&with(User { is_root_of_all: false, ..ROOT }, None), "user", Mark::Note, &["namespace of users"]);
    let foreign = User { is_root_of_all: false, sees_foreign_mounts: true, ..ROOT };
    says(&with(foreign, None), "user", Mark::Problem, &["of another namespace", "unshare -Urm"]);
    says(&with(NOBODY, None), "user", Mark::Ok, &["fusermount3"]);
    says(&Facts { allows_others: false, ..facts() }, "allow_other", Mark::Note, &["user_allow_other"]);
    says(&Facts { allows_others: false, user: ROOT, ..facts() }, "allow_other", Mark::Ok, &["--allow-other"]);
}

#[test]
fn kernels_are_told_by_what_they_did_and_else_by_their_number() {
    let with = |kernel: &str, user, trial| Facts { kernel: kernel.into(), user, trial, ..facts() };
    let passed = |passes| Trial::Passed { took: Duration::ZERO, passes };
    let failed = || Trial::NotMounted(MountError::NotPermitted);
    says(&with("6.9.0", ROOT, passed(true)), "kernel", Mark::Ok, &["passthrough"]);
    says(&with("6.9.0", ROOT, passed(false)), "kernel", Mark::Note, &["6.9.0", "request"]);
    says(&with("6.8.12", ROOT, failed()), "kernel", Mark::Note, &["too old", "6.9"]);
    says(&with("6.10.1-x", ROOT, failed()), "kernel", Mark::Ok, &[]);
    says(&with("7.0", ROOT, failed()), "kernel", Mark::Ok, &[]);
    says(&with("6.18.1", NOBODY, passed(false)), "kernel", Mark::Note, &["only root of the machine"]);
    says(&with("", ROOT, failed()), "kernel", Mark::Note, &["unknown"]);
    assert_eq!(["6.18.44-fc", "5.15", "6", "", "x.y"].map(version), [Some((6, 18)), Some((5, 15)), None, None, None]);
}

#[test]
fn memory_is_as_a_mount_takes_it() {
    let with = |limit, available, cache_size| Facts { memory: Some(Memory { limit, available }), cache_size, ..facts() };
    says(&facts(), "memory", Mark::Ok, &["16.0 GB", "8.0 GB of it free", "a cache of 1.0 GB", "8.0 GB at most"]);
    // A mount takes half of what there is, however much was asked for.
    says(&with(4_000_000_000, 3_900_000_000, 64_000_000_000), "memory", Mark::Note, &["a cache of 2.0 GB", "--cache-size 0"]);
    says(&with(4_000_000_000, 500_000_000, 0), "memory", Mark::Ok, &["a cache of 0.0 GB"]);
    let silent = Facts { memory: None, ..facts() };
    assert!(examine(&silent).findings.iter().all(|finding| finding.check != "memory"));
}

#[test]
fn few_open_files_are_noted() {
    let with = |open_files| Facts { open_files, ..facts() };
    says(&with(Some(1024)), "open files", Mark::Note, &["1024", "ulimit"]);
    says(&with(Some(4096)), "open files", Mark::Ok, &["4096"]);
    says(&with(None), "open files", Mark::Ok, &["no limit"]);
}

#[test]
fn file_systems_have_their_ways() {
    let on = |kind: &str, is_direct| Facts { source: Some(FileSystem { path: "/data".into(), kind: kind.into(), is_direct }), ..facts() };
    says(&on("ext4", Some(true)), "source", Mark::Ok, &["/data is on ext4", "direct I/O is possible"]);
    says(&on("nfs4", Some(false)), "source", Mark::Note, &["over a network", "no direct I/O"]);
    says(&on("fuse.s3fs", None), "source", Mark::Note, &["itself a program's"]);
    says(&on("tmpfs", None), "source", Mark::Note, &["in memory"]);
}
