//! Mounting, unmounting, and what happens when the process in between dies.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ckpt_fs::fuse::mounts::{self, Detach};
use ckpt_fs::fuse::{MountError, MountOptions, UnmountError, Warn, mount};

use super::fixture::{can_mount, mount_at, mounted, unmount};
use super::tree::{FakeTree, bytes};

#[test]
fn a_mount_is_seen_as_ours_and_read_only() {
    let Some(fixture) = mounted() else { return };
    let entry = mounts::at(fixture.dir.path()).unwrap().unwrap();
    assert_eq!(entry.kind, "fuse.ckpt-fs");
    assert_eq!(entry.source, "/data/run 1, \\odd");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = fixture.dir.path().to_str().unwrap();
    let line = table.lines().find(|line| line.contains(point)).unwrap();
    assert!(line.contains(" ro,nosuid,nodev,noatime"), "{line}");
    assert!(line.contains("default_permissions"), "{line}");
    if rustix::process::geteuid().is_root() {
        let (major, minor) = entry.device;
        let ahead = std::fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).unwrap();
        assert_eq!(ahead.trim(), "1024");
    }
}

#[test]
fn unmounting_ends_the_wait() {
    let Some(mut fixture) = mounted() else { return };
    let mounted = fixture.mounted.take().unwrap();
    let unmounter = mounted.unmounter();
    let waiting = std::thread::spawn(move || mounted.wait());
    unmounter.unmount(Detach::WhenIdle).unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!(mounts::at(fixture.dir.path()).unwrap(), None);
    // Once more does nothing, also when something else is mounted there by now.
    let second = mount_at(fixture.dir.path()).unwrap();
    unmounter.unmount(Detach::Lazily).unwrap();
    assert!(mounts::at(fixture.dir.path()).unwrap().is_some());
    unmount(second);
    assert!(!fixture.path("one").exists());
}

#[test]
fn a_busy_mount_stays_until_it_is_detached() {
    let Some(mut fixture) = mounted() else { return };
    let file = File::open(fixture.path("page")).unwrap();
    let error = mounts::unmount(fixture.dir.path(), Detach::WhenIdle).unwrap_err();
    assert!(matches!(error, UnmountError::Busy { .. }) && error.to_string().contains("--lazy"), "{error}");
    mounts::unmount(fixture.dir.path(), Detach::Lazily).unwrap();
    assert_eq!(mounts::at(fixture.dir.path()).unwrap(), None);
    let mut out = [0; 100];
    file.read_exact_at(&mut out, 7).unwrap();
    assert_eq!(out[..], bytes(8, 7, 100));
    drop(file);
    fixture.mounted.take().unwrap().wait().unwrap();
    let error = mounts::unmount(fixture.dir.path(), Detach::WhenIdle).unwrap_err();
    assert!(matches!(error, UnmountError::NotOurs { .. }), "{error}");
}

#[test]
fn dropping_a_mount_takes_it_away() {
    let Some(mut fixture) = mounted() else { return };
    let file = File::open(fixture.path("page")).unwrap();
    drop(fixture.mounted.take());
    assert_eq!(mounts::at(fixture.dir.path()).unwrap(), None);
    drop(file);
}

#[test]
fn bad_mount_points_are_refused() {
    let Some(fixture) = mounted() else { return };
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path| mount_at(path).unwrap_err();
    let error = refused(&dir.path().join("missing"));
    assert!(matches!(error, MountError::NoMountPoint { .. }), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    assert!(matches!(refused(&file), MountError::NotADirectory { .. }));
    let error = refused(fixture.dir.path());
    assert!(
        matches!(error, MountError::AlreadyMounted { .. }) && error.to_string().contains("/data/run"),
        "{error}"
    );
    // Not empty is fine, as for any mount; what is below comes back afterwards.
    let mounted = mount_at(dir.path()).unwrap();
    assert!(!file.exists() && dir.path().join("one").exists());
    unmount(mounted);
    assert!(file.exists());
}

#[test]
fn links_to_mount_points_work() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("a b"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mounted = mount_at(&link).unwrap();
    assert_eq!(mounted.point(), real);
    mounts::unmount(&link, Detach::WhenIdle).unwrap();
    mounted.wait().unwrap();
}

/// Runs as a process of its own when started by the tests below.
#[test]
fn child_serves_until_killed() {
    let Some(point) = std::env::var_os("CKPT_FS_TEST_SERVE") else { return };
    let mounted = mount_at(Path::new(&point)).unwrap();
    println!("\nserving");
    mounted.wait().unwrap();
}

pub(crate) fn serve_in_child(command: &mut Command, point: &Path) -> Child {
    let mut child = command
        .args(["--exact", "fuse_mount::lifecycle::child_serves_until_killed", "--nocapture"])
        .env("CKPT_FS_TEST_SERVE", point)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "serving"), "the child did not mount");
    child
}

#[test]
fn a_dead_mount_is_replaced() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = serve_in_child(&mut Command::new(std::env::current_exe().unwrap()), dir.path());
    let mut file = File::open(dir.path().join("one")).unwrap();
    assert!(!mounts::is_dead(dir.path()));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(|| mounts::is_dead(dir.path()));
    assert!(file.read(&mut [0]).is_err());

    let warnings = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&warnings);
    let warn = Warn::new(move |message| sink.lock().unwrap().push(message.to_owned()));
    let options = MountOptions { warn, ..MountOptions::default() };
    let mounted = mount(std::sync::Arc::new(FakeTree::new()), dir.path(), &options).unwrap();
    assert!(warnings.lock().unwrap()[0].contains("process is gone"), "{warnings:?}");
    assert_eq!(std::fs::read(dir.path().join("one")).unwrap(), bytes(7, 0, 1));
    let here = mounts::all().unwrap().iter().filter(|entry| entry.point == dir.path()).count();
    assert_eq!(here, 1, "the dead mount is still below");
    unmount(mounted);
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = serve_in_child(&mut Command::new(std::env::current_exe().unwrap()), dir.path());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(|| mounts::is_dead(dir.path()));
    mounts::unmount(dir.path(), Detach::WhenIdle).unwrap();
    assert_eq!(mounts::at(dir.path()).unwrap(), None);
}

fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(10), "waited for too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn options_reach_the_files() {
    use std::os::unix::fs::MetadataExt;
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let extra = ["rw", "_netdev", "uid=1234", "gid=77", "noexec"].map(str::to_owned).to_vec();
    let options = MountOptions { extra, threads: 1, ..MountOptions::default() };
    let mounted = mount(std::sync::Arc::new(FakeTree::new()), dir.path(), &options).unwrap();
    let meta = std::fs::metadata(dir.path().join("one")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 77));
    unmount(mounted);
    let bad = MountOptions { extra: vec!["nonsense".into()], ..MountOptions::default() };
    let error = mount(std::sync::Arc::new(FakeTree::new()), dir.path(), &bad).unwrap_err();
    assert!(matches!(error, MountError::Option { .. }), "{error}");
}
