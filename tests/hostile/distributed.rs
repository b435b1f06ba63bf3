//! `.metadata` files that are large, and such that only stand for something large.

use ckpt_fs::format::dcp::metadata::decode;

use crate::bounds::{MB, alone, within};
use crate::common::dcp::{Doc, Stored, Style, Tensor};
use crate::pickles::Ops;

/// As many tensors in as many chunks each, cut along their rows.
fn large(tensors: i64, chunks: i64) -> Doc {
    let mut doc = Doc::default();
    for tensor in 0..tensors {
        let key = format!("decoder.layers.{tensor}.mlp.linear_fc1.weight");
        for chunk in 0..chunks {
            doc.stored.push(Stored {
                key: key.clone(),
                offsets: Some(vec![3 * chunk, 0]),
                path: format!("__{chunk}_{}.distcp", tensor % 2),
                offset: 10_000 * tensor,
                len: 10_000,
                transforms: None,
            });
        }
        let chunks = (0..chunks).map(|chunk| (vec![3 * chunk, 0], vec![3, 4096])).collect::<Vec<_>>();
        let size = vec![3 * chunks.len() as i64, 4096];
        doc.tensors.push(Tensor { key, dtype: "bfloat16".into(), size, chunks });
    }
    doc
}

#[test]
fn a_large_metadata_is_never_there_as_a_whole() {
    let _alone = alone();
    let doc = large(100, 300);
    let mut pickles = [2, 4].map(|protocol| doc.pickle(&Style { protocol, plans: true, ..Style::default() }));
    drop(doc);
    for pickle in &mut pickles {
        assert!(pickle.len() > 6 * MB, "{}", pickle.len());
        // What is kept of 30,000 chunks takes 2 MB; as a tree, the pickle would take more than 100.
        let count = within(12 * MB, || decode(pickle).map(|metadata| metadata.places().count()));
        assert_eq!(count, Ok(30_000));
        *pickle = Vec::new();
    }
}

const METADATA: &str = "torch.distributed.checkpoint.metadata";

fn class(name: &str) -> Ops {
    Ops::default().op(format!("c{METADATA}\n{name}\n").as_bytes())
}

#[test]
fn lists_and_texts_that_many_objects_share_are_not_copied_for_each() {
    let _alone = alone();
    let size = Ops::default().op(b"ctorch\nSize\n)\x85R");
    let chunk = class("ChunkStorageMetadata")
        .op(b")\x81}(")
        .text("offsets")
        .op(&size.0)
        .text("sizes")
        .op(&size.0)
        .op(b"ub");
    let layout = Ops::default().op(b"ctorch.serialization\n_get_layout\n").text("torch.strided").op(b"\x85R");
    let properties =
        class("TensorProperties").op(b")\x81(ctorch\nfloat32\n").op(&layout.0).op(b"\x89N\x89tb");
    let mut ops =
        Ops::default().op(b"\x80\x02").op(&size.0).put(0).op(&properties.0).put(1).op(&chunk.0).put(2);
    ops = ops.op(b"](").times(100_000, b"h\x02").op(b"e").put(3);
    let tensor = class("TensorStorageMetadata")
        .op(b")\x81}(")
        .text("properties")
        .get(1)
        .text("size")
        .get(0)
        .text("chunks")
        .get(3);
    let many = ops.clone().times(20_000, &tensor.op(b"ub0").0).op(b".");
    let error = within(60 * MB, || decode(&many.0)).unwrap_err();
    assert!(error.to_string().contains("refer to the same"), "{error}");

    let index = class("MetadataIndex").op(b")\x81}").text("fqn").get(0).op(b"sb0");
    let many =
        Ops::default().op(b"\x80\x02").text(&"k".repeat(1 << 20)).put(0).times(50_000, &index.0).op(b".");
    let error = within(20 * MB, || decode(&many.0)).unwrap_err();
    assert!(error.to_string().contains("refer to the same"), "{error}");
}

#[test]
fn a_metadata_of_single_bytes_takes_no_more_than_its_bound() {
    let _alone = alone();
    let ops = Ops::default;
    const COUNT: usize = 9_000_000;
    for (name, pickle) in [
        ("lists", ops().times(COUNT, b"]")),
        ("marks", ops().times(COUNT, b"(")),
        ("copies of the top", ops().op(b"N").times(COUNT, b"2")),
        ("memo entries", ops().op(b"N").times(COUNT, b"\x94")),
        ("objects", ops().op(b"NN").times(COUNT, b"R2")),
        ("texts", ops().times(COUNT / 2, b"\x8c\0")),
    ] {
        let bytes = ops().op(b"\x80\x04").op(&pickle.0).op(b".").0;
        let outcome = within(600 * MB, || decode(&bytes));
        assert!(outcome.is_err(), "{name}");
    }
    // What is dropped makes room: as many lists, none of which is left.
    let bytes = ops().op(b"\x80\x02").times(COUNT, b"]0").op(b"N.").0;
    let error = within(40 * MB, || decode(&bytes)).unwrap_err();
    assert!(error.to_string().contains("not the metadata"), "{error}");
}
