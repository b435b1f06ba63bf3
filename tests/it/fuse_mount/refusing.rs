//! Everything that must fail: changes, missing names, and files whose source is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat};
use rustix::io::Errno;

use super::fixture::mounted;
use crate::common::skip::skip;

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw_os_error)
}

#[test]
fn nothing_can_be_changed() {
    let Some(fixture) = mounted() else { return };
    every_change_is_refused(fixture.dir.path());
}

/// Also where root lifts the kernel's own protection: then each call comes to the adapter.
#[test]
fn nothing_can_be_changed_after_a_remount() {
    let Some(fixture) = mounted() else { return };
    let remount = Command::new("mount").args(["-i", "-o", "remount,rw"]).arg(fixture.dir.path()).output();
    match remount {
        Ok(output) if output.status.success() => every_change_is_refused(fixture.dir.path()),
        other => skip(&format!("cannot remount ({other:?})")),
    }
}

fn every_change_is_refused(root: &Path) {
    let path = |name: &str| root.join(name);
    let (file, directory, new) = (path("page"), path("iter_0000100"), path("new"));
    let open = |options: &mut OpenOptions, path: &Path| errno(options.open(path));
    let now = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: now, last_modification: now };
    let changes: [(&str, Option<Errno>); 20] = [
        ("open for write", open(OpenOptions::new().write(true), &file)),
        ("open for both", open(OpenOptions::new().read(true).write(true), &file)),
        ("append", open(OpenOptions::new().append(true), &file)),
        ("open and truncate", open(OpenOptions::new().write(true).truncate(true), &file)),
        ("create", errno(File::create(&new))),
        ("create anew", errno(File::create_new(&new))),
        ("truncate", errno(rustix_truncate(&file))),
        ("mkdir", errno(std::fs::create_dir(&new))),
        ("mknod", mknodat(CWD, &new, rustix::fs::FileType::Fifo, 0o600.into(), 0).err()),
        ("unlink", errno(std::fs::remove_file(&file))),
        ("rmdir", errno(std::fs::remove_dir(path("many")))),
        ("rename", errno(std::fs::rename(&file, &new))),
        ("rename over", errno(std::fs::rename(&file, path("one")))),
        ("chmod", errno(std::fs::set_permissions(&file, PermissionsExt::from_mode(0o777)))),
        ("chmod directory", errno(std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)))),
        ("chown", errno(std::os::unix::fs::chown(&file, Some(0), Some(0)))),
        ("utimens", utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()).err()),
        ("symlink", errno(std::os::unix::fs::symlink("page", &new))),
        ("link", errno(std::fs::hard_link(&file, &new))),
        ("setxattr", setxattr(&file, "user.x", b"1", XattrFlags::empty()).err()),
    ];
    for (change, answer) in changes {
        assert_eq!(answer, Some(Errno::ROFS), "{change}");
    }
    let removed = rustix::fs::removexattr(&file, "user.x").err();
    assert_eq!(removed, Some(Errno::ROFS), "removexattr");
    let write = rustix::fs::access(&file, rustix::fs::Access::WRITE_OK).err();
    assert!(matches!(write, Some(Errno::ROFS | Errno::ACCESS) | None), "access: {write:?}");
}

fn rustix_truncate(path: &Path) -> io::Result<()> {
    // The standard library has no truncate by path; coreutils' opens for writing, which is one more way to be refused.
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0))
}

#[test]
fn missing_names_and_wrong_kinds() {
    let Some(fixture) = mounted() else { return };
    let stat = |name: &str| errno(std::fs::metadata(fixture.path(name)));
    assert_eq!(stat("nothing"), Some(Errno::NOENT));
    assert_eq!(stat("iter_0000100/nothing/deeper"), Some(Errno::NOENT));
    assert_eq!(stat("page/below"), Some(Errno::NOTDIR));
    assert_eq!(stat(&"x".repeat(256)), Some(Errno::NAMETOOLONG));
    assert_eq!(errno(std::fs::read(fixture.path("many"))), Some(Errno::ISDIR));
    assert_eq!(errno(std::fs::read_dir(fixture.path("page"))), Some(Errno::NOTDIR));
    assert_eq!(errno(std::fs::read_link(fixture.path("page"))), Some(Errno::INVAL));
}

#[test]
fn what_the_storage_of_the_source_answers_reaches_the_reader() {
    let Some(fixture) = mounted() else { return };
    for (path, expected) in
        [("bad/denied", Errno::ACCESS), ("bad/full", Errno::NOSPC), ("bad/crowded", Errno::MFILE)]
    {
        let file = File::open(fixture.path(path)).unwrap();
        assert_eq!(errno(file.read_at(&mut [0; 100], 0)), Some(expected), "{path}");
    }
    let warnings = fixture.warnings.lock().unwrap().clone();
    assert!(warnings[0].starts_with("source/mp_rank_00: cannot read: Permission denied"), "{warnings:?}");
}

#[test]
fn a_changed_source_is_stale_and_a_broken_one_an_io_error() {
    let Some(fixture) = mounted() else { return };
    let read =
        |name: &str| errno(File::open(fixture.path(name)).and_then(|file| file.read_at(&mut [0; 100], 0)));
    assert_eq!(read("bad/stale"), Some(Errno::STALE));
    assert_eq!(read("bad/stale"), Some(Errno::STALE));
    assert_eq!(read("bad/fails"), Some(Errno::IO));
    assert_eq!(read("bad/short"), Some(Errno::IO));
    assert_eq!(read("bad/panics"), Some(Errno::IO));
    assert_eq!(read("bad/panics"), Some(Errno::IO));
    let warnings = fixture.warnings.lock().unwrap().clone();
    assert_eq!(
        warnings[..2],
        [
            "source/mp_rank_00: changed since it was opened (it is another file); restore it, or unmount and mount again",
            "source/mp_rank_00: broken disk"
        ]
    );
    assert!(warnings[2].contains("short read") && warnings[3].contains("bug"), "{warnings:?}");
    assert_eq!(warnings.len(), 4, "said more than once: {warnings:?}");
    // The threads that answered are all still there.
    assert_eq!(std::fs::read(fixture.path("one")).unwrap().len(), 1);
}

#[test]
fn a_file_that_cannot_be_laid_out_hides_no_other() {
    let Some(fixture) = mounted() else { return };
    for _ in 0..2 {
        let listed: Vec<_> =
            std::fs::read_dir(fixture.path("bad")).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(listed.len(), 9);
        for entry in listed {
            let expected = if entry.file_name() == "broken" { Some(Errno::IO) } else { None };
            assert_eq!(errno(entry.metadata()), expected, "{entry:?}");
        }
    }
    assert_eq!(errno(File::open(fixture.path("bad/broken"))), Some(Errno::IO));
}
