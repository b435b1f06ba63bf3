//! Faults of storage met by the program, through a real mount: what is affected fails, nothing is wrong, and all is well again afterwards.
//!
//! The source lies on a file system that fails when told to (`faults/faulty.rs`). Needs `/dev/fuse`; `CKPT_FS_SKIP_FUSE=1` says that there is
//! none. What happens to sources that people change is in tests/python/test_faults.py.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod faulty;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::common::naive::{Config, Cut};
use crate::common::run::{PROGRAM, Said};
use crate::common::source::{Checkpoint, ITERATION, rank_file};
use faulty::Faulty;

/// A checkpoint whose row-parallel weights are a megabyte each, its view in other ranks as it should be, and where mounts go.
struct Here {
    dir: tempfile::TempDir,
}

/// The directory of the source's second file.
const SECOND: &str = "mp_rank_00_001";

/// Bytes of a read.
const BLOCK: usize = 100_000;

impl Here {
    fn new() -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            assert_eq!(std::env::var("CKPT_FS_SKIP_FUSE").as_deref(), Ok("1"), "no /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = Config { hidden: 256, heads: 8, groups: 8, head: 32, ffn: 1024, ..Config::default() };
        Checkpoint::new(&config, &Cut::new(1, &[2, 2])).write(&dir.path().join("src"));
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let here = Self { dir };
        here.run(&["materialize", &here.name("src"), &here.name("wanted"), "--tp", "4", "--pp", "1"]).ok();
        Some(here)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn run(&self, args: &[&str]) -> Said {
        Said::of(Command::new("timeout").args(["-s", "KILL", "60", PROGRAM]).args(args).output().unwrap())
    }

    /// Mounts the source seen through `faulty` as TP4 PP1; `more` arguments.
    fn mount(&self, faulty: &Faulty, more: &[&str]) -> Mount<'_> {
        let (source, point) = (faulty.path().display().to_string(), self.name("mnt"));
        let args = ["mount", &source, &point, "--tp", "4", "--pp", "1", "--crc", "exact"];
        self.run(&[&args, more].concat()).ok();
        Mount { here: self }
    }
}

struct Mount<'a> {
    here: &'a Here,
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = self.here.run(&["unmount", "--lazy", &self.here.name("mnt")]);
    }
}

impl Mount<'_> {
    /// Reads all of a rank file block by block; returns how many blocks were not to be had. Those that were had must be right.
    fn read(&self, tp: u32) -> usize {
        let inner = PathBuf::from(ITERATION).join(format!("mp_rank_{tp:02}")).join("model_optim_rng.pt");
        let wanted = fs::read(self.here.path("wanted").join(&inner)).unwrap();
        let file = File::open(self.here.path("mnt").join(&inner)).unwrap();
        let mut failed = 0;
        for (number, wanted) in wanted.chunks(BLOCK).enumerate() {
            let mut found = vec![0xEE; wanted.len()];
            match file.read_exact_at(&mut found, (number * BLOCK) as u64) {
                Ok(()) => assert!(found == wanted, "block {number} is wrong"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                    failed += 1;
                }
            }
        }
        failed
    }
}

/// A megabyte in the middle of one of the two source files, row-parallel weights among it.
fn middle(here: &Here) -> (String, std::ops::Range<u64>) {
    let size = fs::metadata(rank_file(&here.path("src"), SECOND)).unwrap().len();
    (SECOND.to_owned(), size / 2..size / 2 + (1 << 20))
}

/// Also of pages that are mapped: the fault is caught, no zeros come of it, and the file is read in another way from then on.
#[test]
fn a_disk_error_fails_what_needs_it_and_nothing_afterwards() {
    let Some(here) = Here::new() else { return };
    for more in [&["--io", "direct"][..], &["--io", "cached"], &["--io", "cached", "--cache-size", "0"]] {
        let faulty = Faulty::mount(&here.path("src"), false);
        let mount = here.mount(&faulty, more);
        faulty.rule(|rules| rules.broken = Some(middle(&here)));
        let failed = mount.read(0);
        assert!((1..20).contains(&failed), "{failed} blocks failed {more:?}");
        assert!((1..20).contains(&mount.read(0)), "a page that failed once is no page of zeros {more:?}");
        faulty.rule(|rules| rules.broken = None);
        for tp in 0..4 {
            assert_eq!(mount.read(tp), 0, "rank {tp} {more:?}");
        }
    }
}

/// On a file system that cannot map, too.
#[test]
fn short_and_interrupted_reads_are_gone_on_with() {
    let Some(here) = Here::new() else { return };
    let faulty = Faulty::mount(&here.path("src"), true);
    faulty.rule(|rules| (rules.most, rules.interrupts) = (Some(7777), Some(3)));
    let mount = here.mount(&faulty, &[]);
    for tp in 0..4 {
        assert_eq!(mount.read(tp), 0);
    }
    assert!(faulty.rules.lock().unwrap().reads > 100);
}

#[test]
fn metadata_that_cannot_be_read_is_an_error_that_names_the_file() {
    let Some(here) = Here::new() else { return };
    let faulty = Faulty::mount(&here.path("src"), true);
    let source = faulty.path().display().to_string();
    faulty.rule(|rules| rules.broken = Some((SECOND.to_owned(), 0..u64::MAX)));
    for command in [&["inspect"][..], &["digest"], &["ls", "--tp", "4"]] {
        let said = here.run(&[&command[..1], &[&source], &command[1..]].concat());
        said.refused(3, &[SECOND, "Input/output error"]);
    }
    let said = here.run(&["mount", &source, &here.name("mnt"), "--tp", "2", "--pp", "1"]);
    said.refused(3, &[SECOND, "Input/output error"]);
}

/// What `materialize` leaves where it writes, but for what was there before.
fn left(here: &Here) -> Vec<String> {
    let names = fs::read_dir(here.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !["src", "mnt", "wanted"].contains(&&**name));
    names.sort();
    names
}

fn same(left: &Path, right: &Path) -> io::Result<bool> {
    let output = Command::new("diff").arg("-r").arg(left).arg(right).output()?;
    Ok(output.status.success())
}

#[test]
fn a_copy_of_a_source_that_fails_is_no_copy() {
    let Some(here) = Here::new() else { return };
    let faulty = Faulty::mount(&here.path("src"), true);
    let (source, out) = (faulty.path().display().to_string(), here.name("out"));
    let args = ["materialize", &source, &out, "--tp", "4", "--pp", "1"];
    faulty.rule(|rules| rules.broken = Some(middle(&here)));
    here.run(&args).refused(3, &[SECOND, "Input/output error"]);
    assert_eq!(left(&here), [""; 0]);
    // The same again, but what was written is kept, and the next run goes on with it.
    here.run(&[&args[..], &["--resume"]].concat()).refused(3, &[SECOND]);
    let kept = left(&here);
    assert!(kept.len() == 1 && kept[0].starts_with(".out.ckpt-fs-"), "{kept:?}");
    faulty.rule(|rules| rules.broken = None);
    here.run(&[&args[..], &["--resume"]].concat()).ok();
    assert_eq!(left(&here), ["out"]);
    assert!(same(&here.path("out"), &here.path("wanted")).unwrap());
}

#[test]
fn a_copy_of_a_source_that_changes_midway_is_no_copy() {
    let Some(here) = Here::new() else { return };
    let (out, args) = (here.name("out"), ["--tp", "4", "--pp", "1"]);
    // How many reads a whole copy takes, metadata included.
    let faulty = Faulty::mount(&here.path("src"), true);
    let source = faulty.path().display().to_string();
    here.run(&[&["materialize", &source, &out][..], &args].concat()).ok();
    let reads = faulty.rules.lock().unwrap().reads;
    fs::remove_dir_all(&out).unwrap();
    for part in 1..8 {
        let faulty = Faulty::mount(&here.path("src"), true);
        let source = faulty.path().display().to_string();
        faulty.rule(|rules| rules.modified_after = Some(reads * part / 8));
        here.run(&[&["materialize", &source, &out][..], &args].concat()).refused(3, &["modified"]);
        assert_eq!(left(&here), [""; 0]);
    }
}

/// Somebody clears away the directory that the copy is made in, or puts something else in its place.
#[test]
fn a_copy_whose_place_is_taken_away_is_no_copy() {
    let Some(here) = Here::new() else { return };
    for replaced in [false, true] {
        let faulty = Faulty::mount(&here.path("src"), true);
        faulty.rule(|rules| rules.held_after = Some(reads_of_metadata(&here) + 3));
        let (source, out) = (faulty.path().display().to_string(), here.name("out"));
        let mut command = Command::new(PROGRAM);
        command.args(["materialize", &source, &out, "--tp", "4", "--pp", "1"]).stderr(Stdio::piped());
        let copying = command.spawn().unwrap();
        while !faulty.rules.lock().unwrap().is_held() || left(&here).is_empty() {
            thread::yield_now();
        }
        let staging = here.path(&left(&here)[0]);
        fs::remove_dir_all(&staging).unwrap();
        if replaced {
            fs::create_dir(&staging).unwrap();
        }
        faulty.rule(|rules| rules.held_after = None);
        Said::of(copying.wait_with_output().unwrap()).refused(6, &[".out.ckpt-fs-"]);
        assert_eq!(left(&here), [""; 0]);
    }
}

/// Reads that a view takes before any of its bytes are read.
fn reads_of_metadata(here: &Here) -> u64 {
    let faulty = Faulty::mount(&here.path("src"), true);
    here.run(&["ls", &faulty.path().display().to_string(), "--tp", "4", "--pp", "1"]).ok();
    faulty.rules.lock().unwrap().reads
}
