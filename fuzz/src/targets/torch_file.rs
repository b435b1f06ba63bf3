//! A `.pt` file as it lies on disk, opened as the only rank of a run.

use std::path::Path;

use crate::bounded;
use crate::checkpoint::Directory;
use crate::holed::Holed;

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let Some(file) = Holed::new(input) else { return };
    // Beside what the pickle takes: the end and the beginning of the file, and the directory.
    bounded(input.len(), 400, 2 << 20, || {
        let run = Directory::run();
        run.add(Path::new("mp_rank_00/model_optim_rng.pt"), |on_disk| file.write(on_disk).expect("written"));
        let _ = run.open();
    });
}
