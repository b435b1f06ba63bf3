//! `ckpt-fs mount`: checks everything while it can still say so, then serves in the background.

mod run;
mod words;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::args::{Iterations, MountArgs};
use super::error::{CliError, Exit};
use super::idle::Unasked;
use super::log::{Log, Warner};
use super::log_filter;
use super::open::Opened;
use super::served::answering;
use super::{exporter, handed, layout, notify, open, watch};
use crate::cache::Cache;
use crate::fuse::mounts::{self, Detach};
use crate::fuse::{Access, Connection, Modes, MountError, MountOptions, Mounted, Warn, mount, serve_handed};
use crate::layout::LayoutSpec;
use crate::reader::{CrcMode, Reader};
use crate::sys::daemon::{self, Role};
use crate::sys::memory;
use crate::sys::memory_file::MemoryFiles;
use crate::sys::memory_left;
use crate::sys::process;
use crate::sys::signals::Signals;
use crate::vfs::{Ino, Settings, Shape, Tree, Usage, Views};

pub(super) fn run(args: &MountArgs) -> Result<Exit, CliError> {
    let handed = handed::connection(args, watches(args))?;
    if handed.is_none() && args.fuse_fd.is_none() {
        // One that is handed over is silent until it is served.
        refuse_one_that_is_silent(args)?;
    }
    // Before the process goes to the background: what is wrong with the command line is said at once.
    let spec = layout::from_name(&args.mountpoint, &args.layout)?;
    if args.settle.is_some() && !is_of_run(args) {
        let what = "--settle has no effect here: it is for mounts of a run that saves (--iteration all); leave it out";
        return Err(CliError::Usage(what.into()));
    }
    let filter = log_filter::filter(args.log_level.as_deref())?;
    if args.dry_run {
        if is_of_run(args) {
            run::plan(args, spec.as_ref(), None).map(|_| ())?
        } else {
            plan(args, spec.as_ref(), None).map(|_| ())?
        }
        return Ok(Exit::Success);
    }
    if !process::has_proc() {
        return Err(MountError::NoProc.into());
    }
    let log_file = args.log_file.as_deref().map(std::path::absolute).transpose();
    let log_file = log_file.map_err(|source| CliError::System { what: "find the log file", source })?;
    // Opened now, so that a log that cannot be written is said while somebody listens.
    let log = Log::to(filter, args.log_format, log_file.as_deref(), !args.foreground)
        .map_err(|source| CliError::System { what: "write to the log file", source })?;
    log.listen().map_err(|source| CliError::System { what: "take messages", source })?;
    if args.foreground {
        let signals = block_signals()?;
        return serve(start(args, spec, handed, &log)?, signals, log);
    }
    match daemon::start().map_err(|source| CliError::System { what: "go to the background", source })? {
        Role::Parent(waiter) => {
            let outcome =
                waiter.wait().map_err(|source| CliError::System { what: "wait for the mount", source })?;
            if let daemon::Outcome::Killed(_) | daemon::Outcome::Exited(_) = outcome {
                eprintln!("ckpt-fs: {outcome}");
            }
            // The process that serves has already said on standard error what went wrong.
            std::process::exit(i32::from(outcome.exit_code()));
        }
        Role::Child(notifier) => {
            // Only here: an interrupt still ends the parent while it waits, and then nobody hears that the mount is ready.
            let signals = block_signals()?;
            let serving = match start(args, spec, handed, &log) {
                Ok(serving) => serving,
                Err(error) => {
                    eprintln!("ckpt-fs: {}", super::error::message(&error));
                    let exit = error.exit();
                    let told = notifier.failed(exit as u8);
                    told.map_err(|source| CliError::System { what: "report to the shell", source })?;
                    return Ok(exit);
                }
            };
            notifier
                .ready(log.file())
                .map_err(|source| CliError::System { what: "write to the log file", source })?;
            serve(serving, signals, log)
        }
    }
}

/// Whoever looks at a mount that does not answer waits with its readers, and it is looked at more than once before it is found to be in the way.
fn refuse_one_that_is_silent(args: &MountArgs) -> Result<(), CliError> {
    // Why these cannot be had is said where the mount is made.
    let (Ok(point), Ok(all)) = (std::path::absolute(&args.mountpoint), mounts::all()) else { return Ok(()) };
    let is_there = all.iter().any(|entry| entry.is_ours() && entry.point == point);
    if is_there { Ok(answering(&point)?) } else { Ok(()) }
}

fn block_signals() -> Result<Signals, CliError> {
    Signals::block().map_err(|source| CliError::System { what: "handle signals", source })
}

/// Whether all iterations of a run are asked for.
fn is_of_run(args: &MountArgs) -> bool {
    args.from.iteration == Some(Iterations::All)
}

/// Opens the source and lays out the root.
fn plan(
    args: &MountArgs,
    spec: Option<&LayoutSpec>,
    handed: Option<&Connection>,
) -> Result<(Opened, Shape), CliError> {
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format, unasked(spec))?;
    opened.crc(args.crc, CrcMode::Zero)?;
    if handed.is_none() {
        // What another program mounted hides what it hides, and cannot be looked at before it is served.
        refuse_to_hide(args, &opened.source.places())?;
    }
    let shape = shape(args, spec, &opened)?;
    Ok((opened, shape))
}

/// Without a layout and a format there are all.
fn unasked(spec: Option<&LayoutSpec>) -> Unasked {
    if spec.is_some() { Unasked::Own } else { Unasked::Every }
}

/// What a mount of this source shows.
fn shape(args: &MountArgs, spec: Option<&LayoutSpec>, opened: &Opened) -> Result<Shape, CliError> {
    Ok(match spec {
        Some(spec) => Shape::One(opened.format, opened.layout(spec)?),
        // A format that is asked for and has one layout is all that is asked for.
        None if args.format.format.is_some() && opened.format.is_single() => {
            Shape::One(opened.format, opened.layout(&LayoutSpec::default())?)
        }
        None => Shape::Many(args.format.format.map(|_| opened.format)),
    })
}

/// What all trees of one mount have in common.
struct Shared {
    cache: Arc<Cache>,
    usage: Arc<Usage>,
}

impl Shared {
    fn new(args: &MountArgs) -> Self {
        Self { cache: cache(args.cache_size), usage: Arc::default() }
    }
}

/// Who warns of what goes wrong in a tree.
const TREE: &str = "ckpt_fs::vfs";

/// The tree of a source.
fn tree(
    args: &MountArgs,
    opened: &Opened,
    shape: &Shape,
    (shared, root): (&Shared, Ino),
    (log, warn): (&Log, Warner),
) -> Result<Views, CliError> {
    let reader = Reader::with_cache(Arc::clone(opened.reader.store()), Arc::clone(&shared.cache));
    let settings = Settings {
        cache: Arc::clone(&shared.cache),
        crc: opened.crc(args.crc, CrcMode::Zero)?,
        io: args.io,
        modified: opened.modified(),
        log: warn,
        messages: Arc::clone(log.kept()),
        usage: Arc::clone(&shared.usage),
        root,
    };
    let reader = reader.counting(Arc::clone(shared.usage.source_bytes()));
    Ok(Views::new(opened.conversions.clone(), reader, shape, settings)?)
}

/// Mounts what was asked for.
fn start(
    args: &MountArgs,
    spec: Option<LayoutSpec>,
    handed: Option<Connection>,
    log: &Log,
) -> Result<Serving, CliError> {
    if is_of_run(args) {
        return run::start(args, spec, handed, log);
    }
    let began = Instant::now();
    let (opened, shape) = plan(args, spec.as_ref(), handed.as_ref())?;
    let shared = Shared::new(args);
    let views = tree(args, &opened, &shape, (&shared, Ino::ROOT), (log, log.warner(TREE)))?;
    let serving = serving(args, Arc::new(views), handed, log, words::what_is_served(args, &shape))?;
    words::say_what_is_shown(&opened, &shape, spec.as_ref(), args.quiet);
    words::say_who_may_use_it(args, &serving.mounted);
    if let Shape::One(_, layout) = &shape {
        opened.say_what_to_run_with(layout)?;
    }
    words::say_what_is_mounted(args, &serving.mounted, &shape, &opened, began);
    memory::give_back();
    Ok(serving)
}

/// Mounts a tree, or serves it where another program mounted.
fn serving(
    args: &MountArgs,
    tree: Arc<dyn Tree>,
    handed: Option<Connection>,
    log: &Log,
    service: String,
) -> Result<Serving, CliError> {
    let exporter = args.metrics_addr.as_deref().map(exporter::bind).transpose()?;
    let options = options(args, log);
    let (mounted, watcher) = match handed {
        Some(connection) => (serve_handed(tree, connection, &options)?, None),
        None => {
            let watcher = if watches(args) { watch::start(&args.mountpoint)? } else { None };
            (mount(tree, &args.mountpoint, &options).map_err(words::of_its_own)?, watcher)
        }
    };
    log.say(Level::Info, &format!("{}: mounted", mounted.point().display()));
    if let Some(exporter) = exporter {
        exporter::answer(exporter, mounted.figures(), args.quiet, log)?;
    }
    // A mount in the background is no service: one that it is told of would be that of whoever started it.
    Ok(Serving { mounted, watcher, service: args.foreground.then_some(service) })
}

/// A mount, and the process that watches it where there is one.
struct Serving {
    mounted: Mounted,
    watcher: Option<ChildStdin>,
    /// What it serves, where systemd is told.
    service: Option<String>,
}

/// What libfuse calls the same.
const AUTO_UNMOUNT: &str = "auto_unmount";

fn watches(args: &MountArgs) -> bool {
    args.auto_unmount || options_of(args).any(|option| option == AUTO_UNMOUNT)
}

/// Every option of every `-o`.
fn options_of(args: &MountArgs) -> impl Iterator<Item = &String> {
    args.options.iter().flat_map(|list| &list.0)
}

/// What was assembled is kept here, in at most half of the memory that there is for this process. Whole files only where there is a place for
/// them that the kernel can be handed.
fn cache(asked: u64) -> Arc<Cache> {
    let budget = memory_left::memory().map_or(asked, |memory| asked.min(memory.limit / 2));
    let files = if budget > 0 { MemoryFiles::new(budget).ok() } else { None };
    Arc::new(Cache::new(budget, files))
}

/// A mount over the source, or over a directory above it, would read itself.
fn refuse_to_hide(args: &MountArgs, places: &[PathBuf]) -> Result<(), CliError> {
    // What cannot be resolved is refused elsewhere, with a better reason.
    let Ok(point) = args.mountpoint.canonicalize() else { return Ok(()) };
    if places.iter().any(|place| place.starts_with(&point)) {
        return Err(CliError::HidesSource { point: args.mountpoint.display().to_string() });
    }
    if is_checkpoint(&point) {
        return Err(CliError::HidesCheckpoint { point: args.mountpoint.display().to_string() });
    }
    Ok(())
}

/// The file at the root of every checkpoint that a run writes.
const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// Files with the weights of a Hugging Face model, or where they are.
const MODELS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// Whether a checkpoint lies in the directory, and is not shown there by a mount: source and mount point are easily swapped.
fn is_checkpoint(point: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let is_mount = point.parent().is_some_and(|parent| device(parent) != device(point));
    let has = |name: &str| point.join(name).is_file();
    let is_model = has("config.json") && MODELS.iter().any(|name| has(name));
    !is_mount && (has(TRACKER) || is_model)
}

fn options(args: &MountArgs, log: &Log) -> MountOptions {
    let source = std::path::absolute(&args.source).unwrap_or_else(|_| PathBuf::from(&args.source));
    let access = match (args.allow_other, args.allow_root) {
        (true, _) => Access::All,
        (false, true) => Access::Root,
        (false, false) => Access::Owner,
    };
    MountOptions {
        fsname: source.display().to_string(),
        access,
        uid: args.uid,
        gid: args.gid,
        modes: Modes { file: args.file_mode, directory: args.dir_mode },
        threads: args.threads,
        extra: options_of(args).filter(|option| *option != AUTO_UNMOUNT).cloned().collect(),
        warn: Warn::new({
            let warn = log.warner("ckpt_fs::fuse");
            move |message| warn(message)
        }),
        ..MountOptions::default()
    }
}

/// Serves until the mount is taken away, by anybody or by a signal.
fn serve(serving: Serving, signals: Signals, log: Log) -> Result<Exit, CliError> {
    let Serving { mounted, watcher, service } = serving;
    let unmounter = mounted.unmounter();
    let point = mounted.point().display().to_string();
    if let Some(Err(error)) = service.as_deref().map(notify::ready) {
        log.say(Level::Warn, &format!("cannot tell systemd that the mount is live: {error}"));
    }
    let own = log.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let log = own;
            while let Ok(signal) = signals.wait() {
                log.say(Level::Info, &format!("{signal:?}: unmounting"));
                // It was told that the mount is live, or not, and that was said.
                let _ = service.as_ref().map(|_| notify::stopping());
                // Files that are open keep working until they are closed.
                if unmounter.unmount(Detach::WhenIdle).is_err()
                    && let Err(error) = unmounter.unmount(Detach::Lazily)
                    && unmounter.is_handed()
                {
                    // Nothing would end it otherwise: the mount point answers ENOTCONN until it is taken away.
                    log.say(Level::Warn, &format!("the process ends, and the mount is left: {error}"));
                    std::process::exit(Exit::Success as i32);
                }
            }
        })
        .map_err(|source| CliError::System { what: "handle signals", source })?;
    if let Err(error) = mounted.wait() {
        log.say(Level::Error, &error.to_string());
        return Err(error.into());
    }
    drop(watcher);
    log.say(Level::Info, &format!("{point}: unmounted"));
    Ok(Exit::Success)
}
