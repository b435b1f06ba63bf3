//! A data file of a distributed checkpoint, of which a `.metadata` by hand says where pieces of tensors and objects are in it.

use std::io::Write;
use std::path::Path;

use crate::bounded;
use crate::checkpoint::{Directory, check_views};
use ckpt_fs::view::OptimizerChoice;

const METADATA: &[u8] = include_bytes!("../../../tests/fixtures/dist-tiny/hand/min/.metadata");
const OTHER: &[u8] = include_bytes!("../../../tests/fixtures/dist-tiny/hand/min/sub/other.bin");
/// Bytes that the metadata says are in the file: one that is shorter is refused before anything in it is looked at.
const LEN: usize = 5614;

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let mut data = input.to_vec();
    data.resize(LEN, 0);
    let directory = Directory::plain();
    for (name, bytes) in [(".metadata", METADATA), ("sub/other.bin", OTHER), ("view.distcp", &data)] {
        directory.add(Path::new(name), |mut file| file.write_all(bytes).expect("written"));
    }
    bounded(LEN, 4000, 64 << 20, || {
        let (source, store) = directory.open();
        if let Ok(source) = source {
            check_views(source, &store, OptimizerChoice::Keep);
        }
    });
}
