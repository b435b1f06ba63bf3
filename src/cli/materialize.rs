//! `ckpt-fs materialize`

use super::args::MaterializeArgs;
use super::error::{CliError, Exit};
use super::open::jobs;
use super::{layout, open, progress};
use crate::materialize::{Hooks, Job};
use crate::view::megatron::MegatronView;

pub(super) fn run(args: &MaterializeArgs) -> Result<Exit, CliError> {
    let spec = layout::from_name(&args.destination, &args.layout)?.unwrap_or_default();
    let tp_ranks = args.tp_ranks.as_deref().map(layout::ranks).transpose()?;
    let pp_ranks = args.pp_ranks.as_deref().map(layout::ranks).transpose()?;
    let stop = progress::stop_on_signal()?;
    let opened = open::source(&args.source, &args.from, Some(&args.layout))?;
    let layout = opened.stock.layout(&spec)?;
    let view = MegatronView::new(opened.stock.clone(), layout);
    let bar = progress::bar(args.quiet);
    let job = Job {
        view: &view,
        reader: &opened.reader,
        destination: &args.destination,
        overwrite: args.overwrite,
        tp_ranks,
        pp_ranks,
        jobs: jobs(args.jobs),
    };
    let hooks = Hooks { total: &|n| bar.set_length(n), written: &|n| bar.inc(n), stop: &stop };
    let mut sources = opened.source.places();
    sources.push(args.source.clone());
    let result = job.run(&sources, &hooks);
    bar.finish_and_clear();
    result?;
    opened.say_how_experts_are_cut(&spec, view.layout());
    opened.say_what_is_left_out(Some(view.layout()));
    Ok(Exit::Success)
}
