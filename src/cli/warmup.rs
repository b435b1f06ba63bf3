//! `ckpt-fs warmup`: asks the mount to assemble files, and reads those that only reading warms.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;

use super::args::WarmupArgs;
use super::error::{CliError, Exit};
use super::{progress, table};
use crate::fuse::{status, warm};
use crate::vfs::{Status, Warmed};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

pub(super) fn run(args: &WarmupArgs) -> Result<Exit, CliError> {
    let stop = progress::stop_on_signal()?;
    let before = status(&args.mountpoint)?;
    refuse_whole_run(args, &before)?;
    let files = files(args)?;
    let bar = progress::bar(args.quiet);
    bar.set_length(files.iter().map(|file| file.bytes).sum());
    let mut too_large = Vec::new();
    let mut done = 0;
    for file in &files {
        let warmed = ask(file, &bar, done)?;
        if warmed == Warmed::Nothing {
            read(file, &bar, done, &stop)?;
            too_large.extend((file.bytes > before.cache.budget).then_some(file));
        }
        done += file.bytes;
        bar.set_position(done);
        if stop.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            return Ok(Exit::Interrupted);
        }
    }
    bar.finish_and_clear();
    if let [first, ..] = too_large.as_slice() {
        eprintln!(
            "ckpt-fs: note: {} of {} files are larger than the mount's --cache-size of {} (such as {}) and were only read once",
            too_large.len(),
            files.len(),
            table::bytes(before.cache.budget),
            super::error::harmless(&first.path.display().to_string()),
        );
    }
    Ok(Exit::Success)
}

/// Number of the root of a mount.
const ROOT: u64 = 1;

/// Every layout of every iteration is nothing that anybody wants in memory.
fn refuse_whole_run(args: &WarmupArgs, status: &Status) -> Result<(), CliError> {
    let is_root = || fs::metadata(&args.mountpoint).is_ok_and(|metadata| metadata.ino() == ROOT);
    if status.run.is_none() || !args.files.is_empty() || !is_root() {
        return Ok(());
    }
    let point = args.mountpoint.display();
    Err(CliError::Usage(format!(
        "{point}: it shows every iteration of a run; say what to warm, such as: ckpt-fs warmup {point} latest/hf"
    )))
}

struct Warming {
    path: PathBuf,
    inode: u64,
    bytes: u64,
}

/// The files that are asked for, in the order of their names.
fn files(args: &WarmupArgs) -> Result<Vec<Warming>, CliError> {
    let mut left: Vec<PathBuf> = args.files.iter().map(|file| args.mountpoint.join(file)).collect();
    if left.is_empty() {
        left.push(args.mountpoint.clone());
    }
    left.sort_by(|a, b| b.cmp(a));
    let mut files = Vec::new();
    while let Some(path) = left.pop() {
        let failed = |source| CliError::File { path: path.display().to_string(), source };
        let meta = fs::metadata(&path).map_err(failed)?;
        if meta.is_dir() {
            let entries = fs::read_dir(&path).map_err(failed)?;
            let mut inner: Vec<_> = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()
                .map_err(failed)?;
            inner.sort_by(|a, b| b.cmp(a));
            left.extend(inner);
        } else {
            files.push(Warming { path: path.clone(), inode: meta.ino(), bytes: meta.len() });
        }
    }
    Ok(files)
}

/// Has the mount warm a file, and shows how far it is meanwhile.
fn ask(file: &Warming, bar: &ProgressBar, done: u64) -> Result<Warmed, CliError> {
    let warmed = thread::scope(|scope| {
        let asking = scope.spawn(|| warm(&file.path));
        while !asking.is_finished() {
            thread::park_timeout(TICK);
            let under_way = status(&file.path).ok().map(|status| status.assembling).unwrap_or_default();
            if let Some(of_file) = under_way.iter().find(|work| work.inode == file.inode) {
                bar.set_position(done + of_file.done);
            }
        }
        asking.join()
    });
    let failed = || std::io::Error::other("a bug in ckpt-fs; the lines before say where");
    Ok(warmed.map_err(|_| CliError::System { what: "ask the mount", source: failed() })??)
}

/// Reads a file, so that the kernel keeps its pages.
fn read(file: &Warming, bar: &ProgressBar, done: u64, stop: &AtomicBool) -> Result<(), CliError> {
    const BLOCK: usize = 8 << 20;
    let failed = |source| CliError::File { path: file.path.display().to_string(), source };
    let mut opened = File::open(&file.path).map_err(failed)?;
    let mut block = vec![0; BLOCK];
    let mut at = done;
    while !stop.load(Ordering::Relaxed) {
        match opened.read(&mut block).map_err(failed)? {
            0 => break,
            read => at += read as u64,
        }
        bar.set_position(at);
    }
    Ok(())
}
