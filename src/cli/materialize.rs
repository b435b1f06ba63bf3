//! `ckpt-fs materialize`

use std::time::Instant;

use super::args::MaterializeArgs;
use super::error::{CliError, Exit};
use super::idle::{self, Unasked};
use super::open::jobs;
use super::progress::{Progress, Shown, stop_on_signal};
use super::table::bytes;
use super::{layout, open};
use crate::materialize::{Hooks, Job, MaterializeError, Written};
use crate::reader::CrcMode;
use crate::vfs::Shape;

pub(super) fn run(args: &MaterializeArgs) -> Result<Exit, CliError> {
    let spec = layout::from_name(&args.destination, &args.layout)?.unwrap_or_default();
    let tp_ranks = args.tp_ranks.as_deref().map(layout::ranks).transpose()?;
    let pp_ranks = args.pp_ranks.as_deref().map(layout::ranks).transpose()?;
    let stop = stop_on_signal()?;
    let began = Instant::now();
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format, Unasked::Own)?;
    let crc = opened.crc(args.crc, CrcMode::Exact)?;
    idle::refuse_ranks("--tp-ranks", tp_ranks.is_some(), opened.format)?;
    idle::refuse_ranks("--pp-ranks", pp_ranks.is_some(), opened.format)?;
    let layout = opened.layout(&spec)?;
    let view = opened.conversions.view(opened.format, &layout)?;
    let shown = if args.quiet { Shown::None } else { args.progress };
    let progress = Progress::shown(shown);
    let job = Job {
        view: &*view,
        reader: &opened.reader,
        destination: &args.destination,
        overwrite: args.overwrite,
        resume: args.resume,
        tp_ranks,
        pp_ranks,
        jobs: jobs(args.jobs),
        crc,
    };
    let hooks = Hooks { total: &|n| progress.set_length(n), written: &|n| progress.inc(n), stop: &stop };
    let mut sources = opened.source.places();
    sources.push(args.source.clone());
    let result = job.run(&sources, &hooks);
    progress.finish();
    if args.resume && result.as_ref().is_err_and(is_midway) {
        eprintln!("ckpt-fs: what was written is kept beside the destination; --resume goes on with it");
    }
    let written = result?;
    if !args.quiet {
        say_what_was_written(args, &Shape::One(opened.format, view.layout().clone()), written, began);
    }
    opened.say_how_experts_are_cut(&spec, view.layout());
    opened.say_what_is_left_out(Some(view.layout()));
    opened.say_what_is_missed(args.quiet);
    opened.say_what_to_run_with(view.layout())?;
    Ok(Exit::Success)
}

/// What was written where, as what, how much and in what time.
fn say_what_was_written(args: &MaterializeArgs, shape: &Shape, written: Written, began: Instant) {
    let Written { files, bytes: count } = written;
    let seconds = began.elapsed().as_secs_f64();
    let rate = bytes((count as f64 / seconds.max(1e-3)) as u64);
    let (source, target) = (args.source.display(), args.destination.display());
    eprintln!(
        "ckpt-fs: {source} is written to {target} as {shape}: {files} files, {} in {seconds:.1} s ({rate}/s)",
        bytes(count)
    );
}

/// Whether something was written by then; what else can be wrong is found before.
fn is_midway(error: &MaterializeError) -> bool {
    use MaterializeError::{Disturbed, Io, Read, Stopped};
    matches!(error, Stopped | Read(_) | Io { .. } | Disturbed(_))
}
