//! Pickles of a run's files, each in an archive as torch writes it: what they say of tensors and args makes plans that read what is there.

use crate::archive::Archive;
use crate::bounded;
use crate::bundle;
use crate::checkpoint::{Directory, check_views};
use ckpt_fs::view::OptimizerChoice;

const FIRST: &str = "mp_rank_00/model_optim_rng.pt";

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let files = bundle::files(input, FIRST);
    let archives: Vec<_> =
        files.into_iter().filter_map(|(name, pickle)| Some((name, Archive::new(pickle)?))).collect();
    if archives.is_empty() {
        return;
    }
    let run = Directory::run();
    for (name, archive) in &archives {
        run.add(name, |file| archive.write(file));
    }
    use OptimizerChoice::{Distributed, Keep, Mixed};
    let optimizer = [Keep, Mixed, Distributed][input.len() % 3];
    bounded(input.len(), 4000, 64 << 20, || {
        let (source, store) = run.open();
        if let Ok(source) = source {
            check_views(source, &store, optimizer);
        }
    });
}
