//! Extra state of modules, such as fp8 scales: it goes along where a rank of the view has the same module, and nowhere else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use crate::common::Array;
use crate::common::naive::{Cut, Fill};
use crate::common::run::{View, program};
use crate::common::source::Checkpoint;
use ckpt_fs::tensor::Dtype;

const QKV: &str = "self_attention.linear_qkv._extra_state";

/// A blob that says whose it is.
fn blob(tp: u64, layer: u32) -> Array {
    Array { dtype: Dtype::Uint8, shape: vec![3], bytes: vec![tp as u8, layer as u8, 0xe5] }
}

/// Four layers at TP 2, PP 2, each rank of each layer with a blob of its own, and one of the head.
fn checkpoint() -> Checkpoint {
    let cut = Cut::new(2, &[2, 2]);
    let mut checkpoint = Checkpoint::small_as(2, &[2, 2]);
    for (tp, pp) in cut.ranks() {
        let file = checkpoint.file(&cut.rank_dir(tp, pp));
        for local in 0..2 {
            file.tensors.push((format!("decoder.layers.{local}.{QKV}"), blob(tp, pp * 2 + local)));
        }
        if pp == 1 {
            file.tensors.push(("output_layer._extra_state".into(), blob(tp, 99)));
        }
    }
    checkpoint
}

/// The blobs of each rank file of a view.
fn blobs(cut: &Cut) -> Vec<(String, BTreeMap<String, Vec<u8>>)> {
    let root = tempfile::tempdir().unwrap();
    checkpoint().write(root.path());
    let view = View::of(root.path(), cut, Fill::Zero, None).unwrap();
    let of_file = |tensors: Vec<(String, Array)>| {
        let states = tensors.into_iter().filter(|(name, _)| name.ends_with("_extra_state"));
        states.map(|(name, array)| (name, array.bytes)).collect()
    };
    view.ranks().into_iter().map(|(path, found)| (path, of_file(found.tensors))).collect()
}

#[test]
fn it_follows_its_layer_through_the_pipeline() {
    for stages in [&[2, 2][..], &[4], &[1, 3], &[1, 1, 1, 1]] {
        let cut = Cut::new(2, stages);
        let found = blobs(&cut);
        for (tp, pp) in cut.ranks() {
            let (_, states) = found.iter().find(|(path, _)| path.contains(&cut.rank_dir(tp, pp))).unwrap();
            let first: u32 = stages[..pp as usize].iter().sum();
            let mut wanted: BTreeMap<String, Vec<u8>> = (0..stages[pp as usize])
                .map(|local| (format!("decoder.layers.{local}.{QKV}"), blob(tp, first + local).bytes))
                .collect();
            if pp as usize + 1 == stages.len() {
                wanted.insert("output_layer._extra_state".into(), blob(tp, 99).bytes);
            }
            assert_eq!(*states, wanted, "{stages:?}: rank {tp} of stage {pp}");
        }
    }
}

#[test]
fn it_is_left_out_where_modules_are_cut_in_another_way_and_that_is_said() {
    assert!(blobs(&Cut::new(1, &[4])).iter().all(|(_, states)| states.is_empty()));
    assert!(blobs(&Cut::new(4, &[2, 2])).iter().all(|(_, states)| states.is_empty()));
    let here = tempfile::tempdir().unwrap();
    let (source, view) = (here.path().join("src"), here.path().join("view"));
    checkpoint().write(&source);
    let run = |flags: &[&str]| {
        let mut all =
            vec!["materialize".into(), source.clone().into_os_string(), view.clone().into_os_string()];
        all.extend(flags.iter().map(Into::into));
        program(&all).ok().err
    };
    assert!(run(&["--tp", "1"]).contains("left out: extra state (fp8 scales)"));
    assert!(!run(&["--pp", "1", "--overwrite"]).contains("extra state"));
}
