//! Checkpoints of many pieces: most are computed and not read, and those that are not where they would be are found all the same.

use super::Model;
use crate::common::dcp_source::rows;
use crate::common::hf::Arch;
use crate::common::naive::Config;

/// More pieces than are read: each tensor in one for every row.
#[test]
fn of_many_pieces_a_sample_is_read() {
    let config = Config { vocab: 20_000, ..Config::default() };
    let model = Model::of(Arch::Llama, config);
    let by_row = |shape: &[u64]| rows(shape, u32::try_from(shape.first().copied().unwrap_or(1)).unwrap());
    let draft = model.draft("model.", 3, by_row);
    assert!(draft.tensors.iter().map(|(_, _, cells)| cells.len()).sum::<usize>() > 40_000);
    draft.write(&model.path("src"));
    model.is_in(&model.path("src"));
}
