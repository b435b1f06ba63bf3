//! Calls with one answer each: what a node is, what is refused, what a mount says of itself.

use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use fuser::InitFlags;

use super::super::CAPABILITIES;
use crate::fuse::kept::KEEP;
use super::kernel::{Answer, Body, Kernel, OWNER, Setup, call, part};
use super::tree::{CACHED, DIRECT, Fake, GROWS, MODIFIED, Outcome, SIZE};

const DIRECTORY: u32 = 0o040_555;
const FILE: u32 = 0o100_444;

/// Size, mode, links and owner of the attributes that begin at `at`, which also have the right times.
fn attributes(answer: &Answer, at: usize) -> (u64, u32, u32, (u32, u32)) {
    for (seconds, nanoseconds) in [(24, 48), (32, 52), (40, 56)] {
        let time = Duration::new(answer.u64(at + seconds), answer.u32(at + nanoseconds));
        assert_eq!(time, MODIFIED);
    }
    assert_eq!(answer.u64(at + 16), answer.u64(at + 8).div_ceil(512), "blocks");
    assert_eq!(answer.u32(at + 80), 4096, "size of reads");
    let owner = (answer.u32(at + 68), answer.u32(at + 72));
    (answer.u64(at + 8), answer.u32(at + 60), answer.u32(at + 64), owner)
}

#[test]
fn the_first_answer_asks_for_what_the_kernel_has() {
    let flags = |answer: &Answer| u64::from(answer.u32(12)) | u64::from(answer.u32(32)) << 32;
    let all = Kernel::new(&Fake::new());
    for capability in CAPABILITIES {
        assert!(flags(&all.granted) & capability.bits() != 0, "{capability:?}");
    }
    assert_eq!((all.granted.u32(0), all.granted.u16(16), all.granted.u32(20)), (7, 64, 1 << 20));
    assert_eq!(flags(&all.granted) & InitFlags::FUSE_PASSTHROUGH.bits(), 0, "was not offered");
    let few = InitFlags::FUSE_ASYNC_READ;
    let few = Kernel::with(&Fake::new(), Setup { offered: few, ..Setup::default() });
    assert_eq!(flags(&few.granted) & !InitFlags::FUSE_ASYNC_READ.bits(), 0);
}

#[test]
fn names_are_looked_up() {
    let mut kernel = Kernel::new(&Fake::new());
    let mut look = |parent, name: &str| kernel.ask(call::LOOKUP, parent, Body::default().name(name));
    let owner = (OWNER.uid, OWNER.gid);
    for (parent, name, ino, kept, expected) in [
        (1, "direct", DIRECT, KEEP, (SIZE, FILE, 1, owner)),
        (1, "grows", GROWS, Duration::ZERO, (0, DIRECTORY, 3, owner)),
        (1, ".", 1, KEEP, (0, DIRECTORY, 3, owner)),
        (GROWS, "..", 1, KEEP, (0, DIRECTORY, 3, owner)),
    ] {
        let entry = look(parent, name).unwrap();
        assert_eq!((entry.u64(0), entry.u64(8), entry.u64(40)), (ino, 0, ino), "{name}");
        assert_eq!((entry.u64(16), entry.u64(24)), (kept.as_secs(), kept.as_secs()), "{name}");
        assert_eq!(attributes(&entry, 40), expected, "{name}");
    }
    for (parent, name, error) in [
        (1, "nothing", libc::ENOENT),
        (1, "Direct", libc::ENOENT),
        (99, "direct", libc::ENOENT),
        (99, "..", libc::ENOENT),
        (DIRECT, "x", libc::ENOTDIR),
        (1, &"x".repeat(255), libc::ENOENT),
        (1, &"x".repeat(256), libc::ENAMETOOLONG),
    ] {
        assert_eq!(look(parent, name), Err(error), "{name}");
    }
}

#[test]
fn attributes_are_those_of_the_tree() {
    let mut kernel = Kernel::new(&Fake::new());
    let mut stat = |node| kernel.ask(call::GETATTR, node, Body::default().zeros(16));
    let file = stat(CACHED).unwrap();
    assert_eq!((file.u64(0), file.u64(16)), (KEEP.as_secs(), CACHED));
    assert_eq!(attributes(&file, 16), (SIZE, FILE, 1, (OWNER.uid, OWNER.gid)));
    assert_eq!(stat(GROWS).unwrap().u64(0), 0, "kept, and it grows");
    assert_eq!(stat(99), Err(libc::ENOENT));
}

#[test]
fn nobody_may_write() {
    let mut kernel = Kernel::new(&Fake::new());
    let mut access =
        |node, mask: i32| kernel.ask(call::ACCESS, node, Body::default().u32(mask as u32).zeros(4));
    assert!(
        access(DIRECT, libc::R_OK).is_ok() && access(1, libc::X_OK).is_ok() && access(1, libc::F_OK).is_ok()
    );
    for node in [1, DIRECT] {
        assert_eq!(access(node, libc::W_OK), Err(libc::EROFS));
        assert_eq!(access(node, libc::R_OK | libc::W_OK), Err(libc::EROFS));
    }
    assert_eq!((access(99, libc::R_OK), access(99, libc::W_OK)), (Err(libc::ENOENT), Err(libc::ENOENT)));
}

#[test]
fn whatever_would_change_something_is_refused_and_reaches_nobody() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let body = Body::default;
    for (call, body) in [
        (call::MKNOD, body().zeros(16).name("a")),
        (call::MKDIR, body().zeros(8).name("a")),
        (call::UNLINK, body().name("direct")),
        (call::RMDIR, body().name("grows")),
        (call::SYMLINK, body().name("a").name("direct")),
        (call::RENAME, body().u64(1).name("direct").name("a")),
        (call::RENAME2, body().u64(1).zeros(8).name("direct").name("a")),
        (call::LINK, body().u64(DIRECT).name("a")),
        (call::CREATE, body().zeros(16).name("a")),
        (call::SETATTR, body().zeros(88)),
        (call::WRITE, body().u64(1).u64(0).u32(1).zeros(20).zeros(1)),
        (call::FALLOCATE, body().zeros(32)),
        (call::COPY_FILE_RANGE, body().u64(1).u64(0).u64(CACHED).zeros(32)),
        (call::SETXATTR, body().u32(1).u32(0).name("user.a").zeros(1)),
        (call::REMOVEXATTR, body().name("user.a")),
    ] {
        assert_eq!(kernel.ask(call, DIRECT, body), Err(libc::EROFS), "call {call}");
    }
    assert_eq!(tree.asked(""), [""; 0]);
}

#[test]
fn what_is_not_there_is_said_to_be_missing() {
    let mut kernel = Kernel::new(&Fake::new());
    assert_eq!(kernel.ask(call::READLINK, DIRECT, Body::default()), Err(libc::EINVAL));
    assert_eq!(kernel.ask(call::IOCTL, DIRECT, Body::default().zeros(32)), Err(libc::ENOTTY));
    for (call, len) in [(call::GETLK, 48), (call::BMAP, 16), (999, 64)] {
        assert_eq!(kernel.ask(call, DIRECT, Body::default().zeros(len)), Err(libc::ENOSYS), "call {call}");
    }
}

#[test]
fn nothing_is_ever_waiting_to_be_written() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    for (call, len) in [(call::FLUSH, 24), (call::FSYNC, 16), (call::FSYNCDIR, 16)] {
        assert_eq!(
            kernel.ask(call, DIRECT, Body::default().zeros(len)),
            Ok(Answer(Vec::new())),
            "call {call}"
        );
    }
    assert_eq!(tree.asked(""), [""; 0]);
}

#[test]
fn files_have_no_holes() {
    let mut kernel = Kernel::new(&Fake::new());
    let mut seek = |node, offset: i64, whence: i32| {
        let body = Body::default().u64(1).u64(offset as u64).u32(whence as u32).zeros(4);
        kernel.ask(call::LSEEK, node, body).map(|answer| answer.u64(0))
    };
    for (offset, data, hole) in [
        (0, Ok(0), Ok(SIZE)),
        (SIZE as i64 - 1, Ok(SIZE - 1), Ok(SIZE)),
        (SIZE as i64, Err(libc::ENXIO), Err(libc::ENXIO)),
        (-1, Err(libc::ENXIO), Err(libc::ENXIO)),
        (i64::MIN, Err(libc::ENXIO), Err(libc::ENXIO)),
    ] {
        assert_eq!(seek(DIRECT, offset, libc::SEEK_DATA), data, "{offset}");
        assert_eq!(seek(DIRECT, offset, libc::SEEK_HOLE), hole, "{offset}");
    }
    assert_eq!(seek(DIRECT, 0, libc::SEEK_END), Err(libc::EINVAL));
    assert_eq!(seek(99, 0, libc::SEEK_DATA), Err(libc::ENOENT));
}

#[test]
fn a_mount_is_as_large_as_its_files_and_full() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let said = kernel.ask(call::STATFS, 1, Body::default()).unwrap();
    assert_eq!(said.u64(0), (3 * SIZE).div_ceil(4096));
    assert_eq!([8, 16, 24, 32].map(|at| said.u64(at)), [0; 4]);
    assert_eq!([40, 44, 48].map(|at| said.u32(at)), [4096, 255, 4096]);
    tree.make("total_bytes", Outcome::Panic);
    assert_eq!(kernel.ask(call::STATFS, 1, Body::default()).err(), Some(libc::EIO));
}

/// A failure of each kind, at every question that can fail, is an errno; the words go where warnings go; and the thread serves on.
#[test]
fn failures_are_errors_and_not_the_end() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let body = Body::default;
    for outcome in [Outcome::Io, Outcome::Stale, Outcome::Panic, Outcome::NotFound] {
        let errno = match outcome {
            Outcome::Stale => libc::ESTALE,
            Outcome::NotFound => libc::ENOENT,
            _ => libc::EIO,
        };
        for (question, call, node, body) in [
            ("lookup 1 direct", call::LOOKUP, 1, body().name("direct")),
            ("attr 3", call::GETATTR, DIRECT, body().zeros(16)),
            ("attr 3", call::ACCESS, DIRECT, body().zeros(8)),
            ("attr 3", call::LSEEK, DIRECT, body().u64(1).u64(0).u32(libc::SEEK_DATA as u32).zeros(4)),
            ("parent 2", call::LOOKUP, GROWS, body().name("..")),
            ("list 1", call::OPENDIR, 1, body().zeros(8)),
            ("io_mode 3", call::OPEN, DIRECT, body().zeros(8)),
            ("open 4 false", call::OPEN, CACHED, body().zeros(8)),
            ("read 3 0", call::READ, DIRECT, part(16, 0, 4096)),
            ("warm 3 false", call::GETXATTR, DIRECT, body().u32(1 << 16).u32(0).name("user.ckpt-fs.warm")),
        ] {
            tree.make(question, outcome);
            assert_eq!(kernel.ask(call, node, body), Err(errno), "{question}: {outcome:?}");
            let said = kernel.said();
            match outcome {
                Outcome::Panic => assert!(said.last().unwrap().contains("bug in ckpt-fs"), "{said:?}"),
                Outcome::NotFound => assert!(!said.iter().any(|said| said.contains("no such")), "{said:?}"),
                _ => assert!(said.last().unwrap().starts_with(question), "{said:?}"),
            }
        }
    }
    assert!(kernel.ask(call::STATFS, 1, body()).is_ok());
}

#[test]
fn the_end_is_told_to_the_outside() {
    let mut kernel = Kernel::new(&Fake::new());
    assert!(!kernel.over.load(Acquire));
    kernel.ask(call::DESTROY, 0, Body::default()).unwrap();
    kernel.hang_up();
    // Also where the other end just goes.
    Kernel::with(&Fake::new(), Setup { threads: 3, ..Setup::default() }).hang_up();
}
