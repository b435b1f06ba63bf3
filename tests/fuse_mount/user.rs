//! Mounting as a user who is not root, through `fusermount3`.
//!
//! Run as root: in a mount namespace of its own, where `/dev/fuse` is open to all, as user 65534.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use ckpt_fs::fuse::mounts::{self, Detach};
use ckpt_fs::fuse::{Access, MountError, MountOptions, mount};

use crate::fixture::{can_mount, mount_at};
use crate::tree::{FakeTree, bytes};

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
    mounted.unmount().unwrap();

    let options = MountOptions { access: Access::All, ..MountOptions::default() };
    match mount(std::sync::Arc::new(FakeTree::new()), point, &options) {
        Err(error) => assert!(matches!(error, MountError::AllowOther), "{error}"),
        Ok(mounted) => mounted.unmount().unwrap(),
    }
    println!("\nuser mount works");
}

#[test]
fn users_mount_through_the_helper() {
    if !can_mount() {
        return;
    }
    if Command::new("fusermount3").arg("-V").output().is_err() {
        eprintln!("skipped: no fusermount3 (package fuse3)");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root (the other tests mount through fusermount3 then)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&point, Some(NOBODY), Some(NOBODY)).unwrap();
    let output = as_user(dir.path(), "CKPT_FS_TEST_USER", "user::child_mounts_as_a_user");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("user mount works"), "{output:#?}");
}

/// Without the device being open to them, users are told what to do instead.
#[test]
fn users_without_the_device_are_told() {
    let Some(point) = std::env::var_os("CKPT_FS_TEST_NO_HELPER") else { return };
    let error = mount_at(Path::new(&point)).unwrap_err();
    assert!(matches!(error, MountError::HelperMissing { .. }), "{error}");
    assert!(error.to_string().contains("fuse3") && error.to_string().contains("materialize"), "{error}");
    println!("\ntold");
}

#[test]
fn users_without_the_helper_are_told() {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(dir.path().join("mnt")).unwrap();
    let output = as_user(dir.path(), "CKPT_FS_TEST_NO_HELPER", "user::users_without_the_device_are_told");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("told"), "{output:#?}");
}

/// Runs one test of this program as user 65534; `variable` tells it about `dir/mnt`.
fn as_user(dir: &Path, variable: &str, test: &str) -> Output {
    let program = dir.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let helper = if variable.ends_with("NO_HELPER") { "/nonexistent/fusermount3" } else { "fusermount3" };
    let script = r#"
        mknod "$1/fuse" c 10 229 && chmod 0666 "$1/fuse" && mount --bind "$1/fuse" /dev/fuse &&
        cd / && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$1/program" --exact "$2" --nocapture
    "#;
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(dir)
        .arg(test)
        .env(variable, dir.join("mnt"))
        .env("FUSERMOUNT_PATH", helper)
        .output()
        .unwrap()
}
