//! A mount of every iteration of a run.
//!
//! Not here: which iterations are whole (`source`), how they are kept (`vfs`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use super::super::args::{Iterations as Asked, MountArgs, SETTLE};
use super::super::error::{CliError, message};
use super::super::log::Log;
use super::super::open::{self, Opened};
use super::{Serving, Shared, TREE, words};
use crate::fuse::{Connection, Mounted};
use crate::layout::LayoutSpec;
use crate::reader::CrcMode;
use crate::source::{Iteration, IterationChoice, Run, Saved as State};
use crate::sys::memory;
use crate::vfs::{Found, Ino, Iterations, Saved, Severity, Shape, Supply, Views};

/// Iterations that are tried, newest first, to see what a mount of the run would show.
const TRIED: usize = 4;

/// A run, and the newest of its iterations that can be opened.
pub(super) struct Planned {
    args: MountArgs,
    run: Run,
    newest: Option<(Opened, Shape)>,
}

/// Sees that the run can be shown, as far as there is something of it.
pub(super) fn plan(
    args: &MountArgs,
    spec: Option<&LayoutSpec>,
    handed: Option<&Connection>,
) -> Result<Planned, CliError> {
    let args = absolute(args)?;
    let run = Run::open(&args.source, Duration::from_secs(args.settle.unwrap_or(SETTLE)))?;
    let found =
        run.look().map_err(|source| CliError::File { path: args.source.display().to_string(), source })?;
    if handed.is_none() {
        refuse_to_hide(&args, &found)?;
    }
    let mut newest = None;
    let may_be = found.iter().rev().filter(|found| !matches!(found.state, State::Waiting(_)));
    let may_be = may_be.filter(|found| run.examine(&found.name).is_ok());
    for (tried, found) in may_be.take(TRIED).enumerate() {
        match opened(&run, &args, (&found.name, spec), tried == 0) {
            Ok(opened) => {
                opened.crc(args.crc, CrcMode::Zero)?;
                // What the layout is wrong for it is wrong for all.
                let shape = super::shape(&args, spec, &opened)?;
                newest = Some((opened, shape));
                break;
            }
            // It is for the tree to say; a run is not all bad.
            Err(CliError::Source(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Planned { args, run, newest })
}

/// Mounts it.
pub(super) fn start(
    args: &MountArgs,
    spec: Option<LayoutSpec>,
    handed: Option<Connection>,
    log: &Log,
) -> Result<Serving, CliError> {
    let began = Instant::now();
    let Planned { args, run, newest } = plan(args, spec.as_ref(), handed.as_ref())?;
    let shared = Shared::new(&args);
    if let Some((opened, shape)) = &newest {
        super::tree(&args, opened, shape, (&shared, Ino::ROOT), (log, log.warner(TREE)))?;
    }
    let words = newest.as_ref().map_or_else(|| asked(&args, spec.as_ref()), |(_, shape)| shape.to_string());
    let say = log.clone();
    let say = Arc::new(move |severity, text: &str| say.say(level(severity), text));
    let (kept, cache, usage) = (Arc::clone(log.kept()), Arc::clone(&shared.cache), Arc::clone(&shared.usage));
    // What cannot be resolved is refused when it is mounted, with a better reason.
    let point = args.mountpoint.canonicalize().unwrap_or_else(|_| args.mountpoint.clone());
    let own = MountArgs { mountpoint: point, ..args.clone() };
    let supply = Supplied { run, args: own, spec: spec.clone(), shared, log: log.clone() };
    let tree = Arc::new(Iterations::new(Box::new(supply), words.clone(), say, (cache, usage), kept));
    // Before anybody can ask: whoever comes while it is looked is told what was known before.
    let shown = tree.shown();
    let (source, point) = (args.source.display(), args.mountpoint.display());
    let service = format!("every iteration of {source} at {point}, each as {words}");
    let serving = super::serving(&args, tree, handed, log, service)?;
    if let Some((opened, shape)) = &newest {
        words::say_what_is_shown(opened, shape, spec.as_ref(), args.quiet);
        if let Shape::One(_, layout) = shape {
            opened.say_what_to_run_with(layout)?;
        }
    }
    drop(newest);
    words::say_who_may_use_it(&args, &serving.mounted);
    if !args.quiet {
        say_what_is_mounted(&args, &serving.mounted, shown, &words, began);
    }
    memory::give_back();
    Ok(serving)
}

/// What was mounted, and how to go on.
fn say_what_is_mounted(
    args: &MountArgs,
    mounted: &Mounted,
    (shown, latest): (u64, Option<String>),
    words: &str,
    began: Instant,
) {
    let (point, way_out) = words::way_out(args, mounted);
    let source = args.source.display();
    let took = began.elapsed().as_secs_f64();
    let count = match shown {
        1 => "1 iteration".to_owned(),
        more => format!("{more} iterations"),
    };
    eprintln!("ckpt-fs: {source} is at {point}, {count}, each as {words} ({took:.2} s); {way_out}");
    match latest {
        Some(latest) => eprintln!(
            "ckpt-fs: the newest is {point}/{latest}, and {point}/latest leads to it; others appear there when they are saved"
        ),
        None => eprintln!(
            "ckpt-fs: iterations appear there when they are saved; ckpt-fs log {point} says why one is not there"
        ),
    }
}

/// What is asked for, in words, where nothing says what that is.
fn asked(args: &MountArgs, spec: Option<&LayoutSpec>) -> String {
    match (args.format.format, spec) {
        (Some(format), Some(spec)) => format!("{format} {spec}"),
        (None, Some(spec)) => spec.to_string(),
        (Some(format), None) => Shape::Many(Some(format)).to_string(),
        (None, None) => Shape::Many(None).to_string(),
    }
}

/// The same arguments with paths that are good in the background, where iterations are opened.
fn absolute(args: &MountArgs) -> Result<MountArgs, CliError> {
    let mut args = args.clone();
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map_err(|source| CliError::System { what: "find the working directory", source })
    };
    args.source = absolute(&args.source)?;
    args.from.template = args.from.template.as_deref().map(absolute).transpose()?;
    args.from.family = args.from.family.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    Ok(args)
}

/// A mount over an iteration or in one would have it read itself.
fn refuse_to_hide(args: &MountArgs, found: &[Iteration]) -> Result<(), CliError> {
    let own = found.iter().map(|found| args.source.join(&found.name));
    let places: Vec<_> =
        own.chain([args.source.clone()]).filter_map(|place| place.canonicalize().ok()).collect();
    super::refuse_to_hide(args, &places)?;
    let Ok(point) = args.mountpoint.canonicalize() else { return Ok(()) };
    let root = args.source.canonicalize().ok();
    let is_within = places.iter().any(|place| Some(place) != root.as_ref() && point.starts_with(place));
    if is_within {
        return Err(CliError::InsideSource { point: args.mountpoint.display().to_string() });
    }
    Ok(())
}

fn opened(
    run: &Run,
    args: &MountArgs,
    (name, spec): (&str, Option<&LayoutSpec>),
    is_first: bool,
) -> Result<Opened, CliError> {
    let unasked = super::unasked(spec);
    let Some((path, choice)) = run.source_of(name) else {
        return Err(CliError::Usage(format!("{name} is no iteration")));
    };
    let mut from = args.from.clone();
    from.iteration = Some(Asked::One(choice));
    if is_first {
        open::views(&path, &from, &args.layout, &args.format, unasked)
    } else {
        open::another(&path, &from, &args.layout, &args.format, unasked)
    }
}

fn level(severity: Severity) -> Level {
    match severity {
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warn,
        Severity::Info => Level::Info,
    }
}

/// What the tree of a run asks for.
struct Supplied {
    run: Run,
    args: MountArgs,
    spec: Option<LayoutSpec>,
    shared: Shared,
    log: Log,
}

impl Supplied {
    /// A mount that has itself open would never end.
    fn unless_it_is_ours(&self, found: Found) -> Found {
        let place = self.args.source.join(&found.name);
        let leads_here = || place.canonicalize().is_ok_and(|place| place.starts_with(&self.args.mountpoint));
        if place.is_symlink() && !matches!(found.state, Saved::Waiting(_)) && leads_here() {
            return Found { state: Saved::Waiting("it is a link into this mount".to_owned()), ..found };
        }
        found
    }
}

impl Supply for Supplied {
    fn look(&self) -> io::Result<Vec<Found>> {
        let found = self.run.look()?.into_iter().map(found);
        Ok(found.map(|found| self.unless_it_is_ours(found)).collect())
    }

    fn examine(&self, name: &str) -> Result<u64, String> {
        self.run.examine(name)
    }

    fn doubt(&self, name: &str) {
        self.run.doubt(name);
    }

    fn open(&self, name: &str, root: Ino) -> Result<Views, String> {
        let opened = opened(&self.run, &self.args, (name, self.spec.as_ref()), false);
        // Which iteration a layout is impossible in is said too.
        let (warn, prefix) = (self.log.warner(TREE), name.to_owned());
        let warn = Arc::new(move |text: &str| warn(&format!("{prefix}/{text}")));
        let views = opened.and_then(|opened| {
            let shape = super::shape(&self.args, self.spec.as_ref(), &opened)?;
            super::tree(&self.args, &opened, &shape, (&self.shared, root), (&self.log, warn))
        });
        views.map_err(|error| message(&error))
    }
}

fn found(iteration: Iteration) -> Found {
    let Iteration { name, choice, is_tracked, place, modified, state } = iteration;
    let number = match choice {
        IterationChoice::Number(number) => Some(number),
        IterationChoice::Release => None,
    };
    let state = match state {
        State::Whole => Saved::Whole,
        State::Quiet => Saved::Quiet,
        State::Waiting(why) => Saved::Waiting(why),
    };
    Found { name, number, is_tracked, place, modified, state }
}
