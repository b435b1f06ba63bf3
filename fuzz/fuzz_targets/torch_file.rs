//! A `.pt` file as it lies on disk, opened as the only rank of a run.

#![no_main]

use std::path::Path;

use harness::bounded;
use harness::checkpoint::Directory;
use harness::holed::Holed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(file) = Holed::new(input) else { return };
    // Beside what the pickle takes: the end and the beginning of the file, and the directory.
    bounded(input.len(), 400, 2 << 20, || {
        let run = Directory::run();
        run.add(Path::new("mp_rank_00/model_optim_rng.pt"), |on_disk| file.write(on_disk).expect("written"));
        let _ = run.open();
    });
});
