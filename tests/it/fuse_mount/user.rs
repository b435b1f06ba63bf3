//! Mounting as a user who is not root, through `fusermount3`.
//!
//! Run as root: in a mount namespace of its own, where `/dev/fuse` is open to all, as user 65534.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use ckpt_fs::fuse::mounts::{self, Detach};
use ckpt_fs::fuse::{Access, MountError, MountOptions, mount};

use super::fixture::{can_mount, mount_at, unmount};
use super::tree::{FakeTree, bytes};
use crate::common::skip::skip;

const NOBODY: u32 = 65534;

/// Runs as user 65534 when started by the test below.
#[test]
fn child_mounts_as_a_user() {
    let Some(point) = std::env::var_os("CKPT_FS_TEST_USER") else { return };
    let point = Path::new(&point);
    let mounted = mount_at(point).unwrap();
    let one = point.join("one");
    assert_eq!(std::fs::metadata(&one).unwrap().uid(), NOBODY);
    assert_eq!(std::fs::read(&one).unwrap(), bytes(7, 0, 1));
    let entry = mounts::at(point).unwrap().unwrap();
    assert!(entry.is_ours(), "{entry:?}");

    let file = std::fs::File::open(&one).unwrap();
    let error = mounts::unmount(point, Detach::WhenIdle).unwrap_err();
    assert!(matches!(error, ckpt_fs::fuse::UnmountError::Busy { .. }), "{error}");
    mounts::unmount(point, Detach::Lazily).unwrap();
    drop(file);
    mounted.wait().unwrap();

    let fsname = r"/data/a,b \c".to_owned();
    let options = MountOptions { fsname, ..MountOptions::default() };
    let mounted = mount(std::sync::Arc::new(FakeTree::new()), point, &options).unwrap();
    assert_eq!(mounts::at(point).unwrap().unwrap().source, r"/data/a,b \c");
    unmount(mounted);

    let options = MountOptions { access: Access::All, ..MountOptions::default() };
    match mount(std::sync::Arc::new(FakeTree::new()), point, &options) {
        Err(error) => assert!(matches!(error, MountError::AllowOther), "{error}"),
        Ok(mounted) => unmount(mounted),
    }
    println!("\nuser mount works");
}

#[test]
fn users_mount_through_the_helper() {
    if !can_mount() {
        return;
    }
    if Command::new("fusermount3").arg("-V").output().is_err() {
        return skip("no fusermount3 (package fuse3)");
    }
    if !rustix::process::geteuid().is_root() {
        return skip("not root (the other tests mount through fusermount3 then)");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = as_user(&dir, "CKPT_FS_TEST_USER", "fuse_mount::user::child_mounts_as_a_user", OPEN_DEVICE);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("user mount works"), "{output:#?}");
}

/// Shell words that make `/dev/fuse` open to all, in this mount namespace only.
const OPEN_DEVICE: &str =
    r#"mknod "$1/fuse" c 10 229 && chmod 0666 "$1/fuse" && mount --bind "$1/fuse" /dev/fuse"#;
/// Shell words that close it.
const CLOSE_DEVICE: &str =
    r#"mknod "$1/fuse" c 10 229 && chmod 0600 "$1/fuse" && mount --bind "$1/fuse" /dev/fuse"#;
/// Shell words for a helper that is not there.
const NO_HELPER: &str = "export FUSERMOUNT_PATH=/nonexistent/fusermount3";

/// Prints why it cannot mount; runs as user 65534 when started by the tests below.
#[test]
fn child_is_refused() {
    let Some(point) = std::env::var_os("CKPT_FS_TEST_REFUSED") else { return };
    let error = mount_at(Path::new(&point)).unwrap_err();
    println!("\n{error:?}\n{error}");
}

/// What a user is told who cannot mount.
fn refusal(setup: &str) -> Option<String> {
    if !can_mount() {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        skip("not root, so there is no other user");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = as_user(&dir, "CKPT_FS_TEST_REFUSED", "fuse_mount::user::child_is_refused", setup);
    assert!(output.status.success(), "{output:#?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn users_without_the_helper_are_told() {
    let Some(text) = refusal(NO_HELPER) else { return };
    for words in
        ["HelperMissing", "/nonexistent/fusermount3 not found", "package fuse3", "ckpt-fs materialize"]
    {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn users_without_the_device_are_told() {
    if Command::new("fusermount3").arg("-V").output().is_err() {
        return skip("no fusermount3 (package fuse3)");
    }
    let Some(text) = refusal(CLOSE_DEVICE) else { return };
    for words in ["NoDevice", "cannot open /dev/fuse: permission denied", "ckpt-fs materialize"] {
        assert!(text.contains(words), "{text}");
    }
}

/// Runs one test of this program as user 65534, after `setup`; `variable` tells it about `dir/mnt`, which is the user's.
fn as_user(dir: &tempfile::TempDir, variable: &str, test: &str, setup: &str) -> Output {
    let (program, point) = (dir.path().join("program"), dir.path().join("mnt"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(&point).unwrap();
    std::os::unix::fs::chown(&point, Some(NOBODY), Some(NOBODY)).unwrap();
    let run = r#"setpriv --reuid 65534 --regid 65534 --clear-groups "$1/program" --exact "$2" --nocapture"#;
    Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &format!("{setup} && cd / && exec {run}"),
            "sh",
        ])
        .arg(dir.path())
        .arg(test)
        .env(variable, point)
        .output()
        .unwrap()
}
