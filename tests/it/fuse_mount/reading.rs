//! Listing, examining and reading: every byte through every door.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use ckpt_fs::aligned::Aligned;

use super::fixture::mounted;
use super::tree::{BIG, MANY, MODIFIED, bytes};

/// Path, number and size of files with real contents, opened either way.
const FILES: [(&str, u64, u64); 5] = [
    ("iter_0000100/mp_rank_00/model_optim_rng.pt", 4, 1_234_567),
    ("iter_0000100/mp_rank_00/model.safetensors", 5, 3_145_745),
    ("empty", 6, 0),
    ("one", 7, 1),
    ("page", 8, 4096),
];

#[test]
fn directories_list_everything_once() {
    let Some(fixture) = mounted() else { return };
    let listed: Vec<String> = rustix::fs::Dir::new(File::open(fixture.path("")).unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let expected = ["bad", "big.bin", "big.cached", "empty", "iter_0000100", "many", "one", "page"];
    assert_eq!(listed[..2], [".", ".."]);
    let names: BTreeSet<&str> = listed[2..].iter().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(expected));

    // Twice: the second answer comes from the kernel's cache.
    for _ in 0..2 {
        let many: Vec<_> =
            std::fs::read_dir(fixture.path("many")).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(many.len() as u64, MANY);
        let inodes: BTreeSet<u64> = many.iter().map(std::os::unix::fs::DirEntryExt::ino).collect();
        assert_eq!(inodes.len() as u64, MANY);
        for entry in many.iter().step_by(97) {
            let size: u64 = entry.file_name().to_str().unwrap()[5..].parse().unwrap();
            assert_eq!(entry.metadata().unwrap().len(), size);
        }
    }
}

#[test]
fn attributes_are_those_of_the_tree() {
    let Some(fixture) = mounted() else { return };
    let uid = rustix::process::getuid().as_raw();
    for (name, ino, size) in FILES {
        let meta = std::fs::metadata(fixture.path(name)).unwrap();
        assert_eq!((meta.ino(), meta.len(), meta.blocks()), (ino, size, size.div_ceil(512)), "{name}");
        assert_eq!((meta.mode(), meta.nlink(), meta.uid()), (0o100_644, 1, uid), "{name}");
        assert_eq!(meta.modified().unwrap(), SystemTime::UNIX_EPOCH + MODIFIED);
    }
    let meta = std::fs::metadata(fixture.path("iter_0000100")).unwrap();
    assert_eq!((meta.mode(), meta.nlink(), meta.ino()), (0o040_755, 3, 2));
    // Loaders open files with a buffer of this size and look at 4 KiB in front of every tensor.
    assert_eq!(rustix::fs::stat(fixture.dir.path()).unwrap().st_blksize, 4096);
    let root = rustix::fs::statvfs(fixture.dir.path()).unwrap();
    assert!(root.f_blocks * root.f_frsize >= 2 * BIG && root.f_bfree == 0 && root.f_bavail == 0);
    assert!(root.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

#[test]
fn odd_reads_are_exact() {
    let Some(fixture) = mounted() else { return };
    for (name, ino, size) in FILES {
        let file = File::open(fixture.path(name)).unwrap();
        for len in [1, 3, 511, 4097, 65_537, 1_048_577, 2_500_001] {
            for from in [0, 1, 4095, size / 2 + 1, size.saturating_sub(1), size, size + 5] {
                let mut out = vec![0; len];
                let got = read_full(&file, &mut out, from);
                let expected = (size.saturating_sub(from) as usize).min(len);
                assert_eq!(got, expected, "{name}: {len} at {from}");
                assert!(out[..got] == bytes(ino, from, got), "{name}: {len} at {from}");
            }
        }
        assert!(std::fs::read(fixture.path(name)).unwrap() == bytes(ino, 0, size as usize), "{name}");
    }
}

fn read_full(file: &File, out: &mut [u8], from: u64) -> usize {
    let mut got = 0;
    while got < out.len() {
        match file.read_at(&mut out[got..], from + got as u64).unwrap() {
            0 => break,
            n => got += n,
        }
    }
    got
}

#[test]
fn far_offsets_are_exact() {
    let Some(fixture) = mounted() else { return };
    for (name, ino) in [("big.bin", 9), ("big.cached", 10)] {
        let mut file = File::open(fixture.path(name)).unwrap();
        for from in [BIG / 2 - 3, BIG - 70_001] {
            file.seek(SeekFrom::Start(from)).unwrap();
            let mut out = vec![0; 70_001];
            file.read_exact(&mut out).unwrap();
            assert!(out == bytes(ino, from, out.len()), "{name} at {from}");
        }
        assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), BIG);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(5)).unwrap(), 5);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(5)).unwrap(), BIG);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(BIG)), Err(rustix::io::Errno::NXIO));
    }
}

#[test]
fn mappings_are_exact() {
    let Some(fixture) = mounted() else { return };
    for (name, ino, size) in FILES {
        let file = File::open(fixture.path(name)).unwrap();
        if size == 0 {
            continue;
        }
        // SAFETY: nothing writes to this file system.
        let shared = unsafe { memmap2::Mmap::map(&file).unwrap() };
        // SAFETY: as above.
        let private = unsafe { memmap2::MmapOptions::new().map_copy(&file).unwrap() };
        let expected = bytes(ino, 0, size as usize);
        assert!(shared[..] == expected[..], "{name} shared");
        assert!(private[..] == expected[..], "{name} private");
        // Reading while it is mapped.
        assert!(std::fs::read(fixture.path(name)).unwrap() == expected, "{name} read while mapped");
    }
}

#[test]
fn direct_reads_are_exact() {
    let Some(fixture) = mounted() else { return };
    for (name, ino, size) in FILES {
        let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(fixture.path(name)).unwrap();
        let mut memory = vec![0; (1 << 20) + 4096];
        let start = memory.as_ptr().align_offset(4096);
        let aligned = &mut memory[start..start + (1 << 20)];
        for from in (0..=size).step_by(1 << 20) {
            let got = read_full(&file, aligned, from);
            assert_eq!(got as u64, (size - from).min(1 << 20), "{name} at {from}");
            assert!(aligned[..got] == bytes(ino, from, got), "{name} at {from}");
        }
    }
}

#[test]
fn eight_threads_read_at_once() {
    let Some(fixture) = mounted() else { return };
    std::thread::scope(|scope| {
        for seed in 0..8_u64 {
            let fixture = &fixture;
            scope.spawn(move || {
                let (name, ino, size) = FILES[(seed % 2) as usize];
                let file = File::open(fixture.path(name)).unwrap();
                for round in 0..200_u64 {
                    let from = (seed * 7_654_321 + round * 104_729) % size;
                    let mut out = vec![0; 1 + (round as usize * 977) % 200_000];
                    let got = read_full(&file, &mut out, from);
                    assert!(got > 0 && out[..got] == bytes(ino, from, got), "{name} at {from}");
                    if round % 20 == 0 {
                        assert_eq!(std::fs::read_dir(fixture.path("many")).unwrap().count() as u64, MANY);
                    }
                }
            });
        }
    });
}

/// Programs that ask for more than bytes: attributes that do not exist, ownership, times.
#[test]
fn everyday_tools_work() {
    let Some(fixture) = mounted() else { return };
    let copy = tempfile::tempdir().unwrap();
    let source = fixture.path("iter_0000100");
    run(Command::new("cp").arg("-a").arg(&source).arg(copy.path()));
    run(Command::new("diff").arg("-r").arg(&source).arg(copy.path().join("iter_0000100")));
    run(Command::new("ls").arg("-laR").arg(&source));
    run(Command::new("df").arg(&source));
    run(Command::new("tar").arg("-cf").arg("/dev/null").arg("-C").arg(&source).arg("."));
    let copied = std::fs::metadata(copy.path().join("iter_0000100/mp_rank_00/model.safetensors")).unwrap();
    assert_eq!(copied.modified().unwrap(), SystemTime::UNIX_EPOCH + MODIFIED);
    let mut names = [0_u8; 100];
    assert_eq!(rustix::fs::listxattr(&source, &mut names[..]), Ok(0));
    let missing = rustix::fs::getxattr(&source, "user.x", &mut names[..]);
    assert_eq!(missing, Err(rustix::io::Errno::NODATA));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
}

/// Not a test of anything: prints how fast the adapter is with a tree that only copies memory.
#[test]
#[ignore = "measures"]
fn throughput() {
    let Some(fixture) = mounted() else { return };
    let mut buffer = vec![0; 1 << 20];
    for (name, label) in
        [("big.bin", "direct"), ("big.cached", "cached, cold"), ("big.cached", "cached, warm")]
    {
        for _ in 0..if label == "direct" { 3 } else { 1 } {
            print_rate(label, &mut buffer, &fixture.path(name));
        }
    }
    drop(fixture);
    let Some(fixture) = mounted() else { return };
    let file = File::open(fixture.path("big.cached")).unwrap();
    // SAFETY: nothing writes to this file system.
    let mapped = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let started = std::time::Instant::now();
    mapped.chunks(buffer.len()).for_each(|chunk| buffer.copy_from_slice(chunk));
    println!("mapped, cold: {:.2} GB/s", BIG as f64 / started.elapsed().as_secs_f64() / 1e9);
}

fn print_rate(label: &str, buffer: &mut [u8], path: &Path) {
    let mut file = File::open(path).unwrap();
    let started = std::time::Instant::now();
    while file.read(buffer).unwrap() > 0 {}
    println!("{label}: {:.2} GB/s", BIG as f64 / started.elapsed().as_secs_f64() / 1e9);
}

#[test]
fn long_reads_are_the_same_whoever_reads_beside_them() {
    let Some(fixture) = mounted() else { return };
    let shared = File::open(fixture.path("big.bin")).unwrap();
    std::thread::scope(|scope| {
        for reader in 0..8u64 {
            let (fixture, shared) = (&fixture, &shared);
            scope.spawn(move || {
                let own = File::open(fixture.path("big.bin")).unwrap();
                let file = if reader % 2 == 0 { &own } else { shared };
                let mut at = reader * 3_333_333;
                // What stands before a tensor, then the tensor: whole, and in pieces that are no parts of it.
                for len in [4096, 16 << 20, 1 << 20, 1 << 20, 1 << 20, 777, 3 << 20, (2 << 20) + 5] {
                    let mut out = vec![0; len];
                    file.read_exact_at(&mut out, at).unwrap();
                    assert!(out == bytes(9, at, len), "reader {reader}, {len} bytes at {at}");
                    at += len as u64;
                }
            });
        }
    });
    // At the end of the file too.
    let mut out = vec![0; 4 << 20];
    let (whole, from) = ((4 << 20) - 100, BIG - (4 << 20) + 100);
    assert_eq!(shared.read_at(&mut out, from).unwrap(), whole);
    assert!(out[..whole] == bytes(9, from, whole));
}

#[test]
fn what_was_read_ahead_is_not_served_when_the_source_changed_since() {
    let Some(fixture) = mounted() else { return };
    let file = File::open(fixture.path("bad/changes")).unwrap();
    let part = 1 << 20;
    // Into memory that starts off a page the kernel would ask for it in two pieces.
    let mut out = Aligned::new(part);
    for at in [0, part as u64] {
        file.read_exact_at(&mut out, at).unwrap();
        assert!(*out == bytes(26, at, part));
    }
    let mut at = 2 * part as u64;
    let error = loop {
        // A part that was asked for before it was ready is fresh; one that lay ready is not.
        match file.read_exact_at(&mut out, at) {
            Ok(()) => assert!(*out == bytes(26, at, part)),
            Err(error) => break error,
        }
        at += part as u64;
        assert!(at < 64 << 20, "nothing was read ahead");
    };
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
}
