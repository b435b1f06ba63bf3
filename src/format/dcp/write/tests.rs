//! What is refused, and that a hole is told from an overlap. What is written is read back in `tests/it/dcp_write.rs`.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::tensor::{Dtype, Shape};
use crate::value::{TensorRef, Value};

type Box = (Vec<u64>, Vec<u64>);

fn tensor(shape: &[u64], boxes: &[Box]) -> Tensor {
    let mut chunks = Chunks::new(shape.len());
    boxes.iter().for_each(|(offsets, sizes)| chunks.push(offsets, sizes, 0).unwrap());
    Tensor { key: "w".into(), dtype: Dtype::Float32, shape: Shape(shape.to_vec()), chunks }
}

fn spec(tensors: Vec<Tensor>) -> Spec {
    Spec { files: vec![data_file(0, 0)], tensors, ..Spec::default() }
}

fn laid_out(spec: Spec) -> Result<Directory, WriteError> {
    Directory::new(spec)
}

fn refused(spec: Spec) -> WriteError {
    laid_out(spec).unwrap_err()
}

fn object(content: Content) -> Object {
    Object { key: "o".into(), content: Arc::new(content), file: 0 }
}

/// How often each position is in a box, row-major.
fn counts(shape: &[u64], boxes: &[Box]) -> Vec<i64> {
    let shape = Shape(shape.to_vec());
    let is_in = |at: &[u64], (offsets, sizes): &Box| {
        at.iter().zip(offsets).zip(sizes).all(|((at, offset), size)| (*offset..offset + size).contains(at))
    };
    let count = |element| {
        let at = shape.index_of(element);
        boxes.iter().filter(|one| is_in(&at, one)).count() as i64
    };
    (0..shape.elements().unwrap()).map(count).collect()
}

proptest! {
    #[test]
    fn the_first_position_that_is_covered_otherwise_is_named(
        (shape, boxes) in prop::collection::vec(1..4u64, 0..4).prop_flat_map(|shape| {
            let axis = |size: u64| (0..size).prop_flat_map(move |from| (Just(from), 1..=size - from));
            let one = shape.iter().map(|size| axis(*size)).collect::<Vec<_>>();
            let one = one.prop_map(|axes| axes.into_iter().unzip());
            (Just(shape), prop::collection::vec(one, 0..5))
        }),
    ) {
        let shape: Vec<u64> = shape;
        let boxes: Vec<Box> = boxes;
        let all = counts(&shape, &boxes);
        let first = all.iter().position(|count| *count != 1);
        let result = laid_out(spec(vec![tensor(&shape, &boxes)]));
        match first {
            None => prop_assert!(result.is_ok()),
            Some(element) => {
                let at = Shape(shape.clone()).index_of(element as u64);
                let (key, shape): (Arc<str>, _) = ("w".into(), Shape(shape));
                let expected = match all[element] {
                    0 => WriteError::Hole { key, at, shape },
                    times => WriteError::Overlap { key, at, times, shape },
                };
                prop_assert_eq!(result.unwrap_err(), expected);
            }
        }
    }
}

#[test]
fn chunks_that_fit_nowhere_are_refused() {
    let outside = [(vec![0, 2], vec![2, 2]), (vec![3, 0], vec![0, 3]), (vec![0, u64::MAX], vec![2, 2])];
    for one in outside {
        let error = refused(spec(vec![tensor(&[2, 3], &[(vec![0, 0], vec![2, 3]), one])]));
        assert!(matches!(error, WriteError::Outside { chunk: 1, .. }), "{error}");
    }
    // An empty chunk hides the other one, also where the tensor is empty.
    for (shape, sizes) in [([2, 3], [0, 3]), ([0, 3], [0, 3])] {
        let boxes = [(vec![0, 0], shape.to_vec()), (vec![0, 0], sizes.to_vec())];
        let error = refused(spec(vec![tensor(&shape, &boxes)]));
        assert_eq!(error, WriteError::SamePlace { key: "w".into(), at: vec![0, 0] });
    }
    let found = [1, 2];
    assert_eq!(Chunks::new(2).push(&[0], &[1, 1], 0), Err(WriteError::ChunkAxes { expected: 2, found }));
    let mut other = tensor(&[2], &[(vec![0], vec![2])]);
    other.shape = Shape(vec![2, 1]);
    assert_eq!(refused(spec(vec![other])), WriteError::ChunkAxes { expected: 2, found: [1, 1] });
}

#[test]
fn a_tensor_without_chunks_has_a_hole_unless_it_is_empty() {
    for shape in [vec![], vec![2, 3]] {
        let error = refused(spec(vec![tensor(&shape, &[])]));
        assert!(matches!(error, WriteError::Hole { .. }), "{error}");
    }
    laid_out(spec(vec![tensor(&[0], &[])])).unwrap();
}

#[test]
fn cuts_along_many_axes_are_bounded() {
    let halves = |axes: usize| {
        let mut boxes = vec![(vec![0; axes], vec![2; axes])];
        for axis in 0..axes {
            let (mut offsets, mut sizes) = boxes[axis].clone();
            boxes[axis].1[axis] = 1;
            offsets[axis] = 1;
            sizes[axis] = 1;
            boxes.push((offsets, sizes));
        }
        tensor(&vec![2; axes], &boxes)
    };
    laid_out(spec(vec![halves(16)])).unwrap();
    assert_eq!(refused(spec(vec![halves(17)])), WriteError::Axes { key: "w".into(), axes: 17, most: 16 });
}

#[test]
fn sizes_are_bounded() {
    let whole = |shape: &[u64], dtype| Tensor { dtype, ..tensor(shape, &[(vec![0], shape.to_vec())]) };
    let error = refused(spec(vec![whole(&[1 << 62], Dtype::Float32)]));
    assert_eq!(error, WriteError::TooLarge { what: "w".into() });
    let error = refused(spec(vec![whole(&[1 << 63], Dtype::Uint8)]));
    assert!(matches!(error, WriteError::Torch { .. }), "{error}");
    let error = refused(spec(vec![whole(&[(1 << 63) - 1], Dtype::Uint8)]));
    assert_eq!(error, WriteError::TooLarge { what: "data file 0".into() });
}

#[test]
fn names_are_told_apart() {
    let whole = || tensor(&[1], &[(vec![0], vec![1])]);
    assert_eq!(refused(spec(vec![whole(), whole()])), WriteError::DuplicateKey { key: "w".into() });
    for files in [vec![""], vec![".metadata"], vec!["a", "a"]] {
        let files: Vec<String> = files.into_iter().map(String::from).collect();
        let name = files.last().unwrap().clone();
        assert_eq!(refused(Spec { files, ..Spec::default() }), WriteError::FileName { name });
    }
    let nowhere = Spec { tensors: vec![whole()], ..Spec::default() };
    assert_eq!(refused(nowhere), WriteError::NoFile { key: "w".into(), file: 0, files: 0 });
    let path = |key: &str| Path { key: key.into(), steps: vec![Step::Index(0)] };
    let with = |paths| Spec { paths: Some(paths), ..spec(vec![whole()]) };
    assert_eq!(refused(with(vec![])), WriteError::Paths { key: "w".into(), paths: 0 });
    assert_eq!(refused(with(vec![path("w"), path("w")])), WriteError::Paths { key: "w".into(), paths: 2 });
    assert_eq!(refused(with(vec![path("w"), path("v")])), WriteError::UnknownPath { key: "v".into() });
    laid_out(with(vec![path("w")])).unwrap();
}

#[test]
fn storages_of_objects_are_given() {
    let reference = TensorRef::whole("s".into(), Dtype::Float32, Shape(vec![2]));
    let content = |bytes: Option<Option<&[u8]>>| Content {
        value: Value::Tensor(Arc::new(reference.clone())),
        storages: bytes.into_iter().map(|bytes| ("s".into(), bytes.map(Arc::from))).collect(),
    };
    let with = |bytes| Spec { objects: vec![object(content(bytes))], ..spec(vec![]) };
    assert_eq!(refused(with(None)), WriteError::NoStorage { key: "o".into(), storage: "s".into() });
    let (key, storage) = ("o".into(), "s".into());
    let error = WriteError::StorageSize { key, storage, expected: 8, found: 3 };
    assert_eq!(refused(with(Some(Some(&[1, 2, 3])))), error);
    let payloads = |directory: &Directory| {
        directory.parts(0).filter(|part| matches!(part, Part::Payload { .. })).count()
    };
    assert_eq!(payloads(&laid_out(with(Some(None))).unwrap()), 1);
    let known = laid_out(with(Some(Some(&[0; 8])))).unwrap();
    // All of it is known, its CRC too.
    assert_eq!((payloads(&known), known.parts(0).count()), (0, 1));
}

#[test]
fn pieces_of_one_kind_share_their_bytes() {
    let boxes: Vec<Box> = (0..100).map(|row| (vec![row, 0], vec![1, 4])).collect();
    let content = Arc::new(Content::plain(Value::None));
    let objects = (0..50).map(|index| Object {
        key: format!("x/shard_{index}_50").into(),
        content: Arc::clone(&content),
        file: 0,
    });
    let spec = Spec { objects: objects.collect(), ..spec(vec![tensor(&[100, 4], &boxes)]) };
    let directory = laid_out(spec).unwrap();
    let parts = directory.parts(0);
    let addresses = parts.filter_map(|part| match part {
        Part::Bytes(bytes) => Some(Arc::as_ptr(bytes).addr()),
        _ => None,
    });
    let distinct = addresses.collect::<std::collections::HashSet<_>>();
    // One of the object; before the payload, before its CRC, between both CRCs, and behind.
    assert_eq!(distinct.len(), 1 + 4);
}

#[test]
fn what_stands_beside_it_is_json() {
    let json: serde_json::Value = serde_json::from_str(metadata_json()).unwrap();
    assert_eq!((&json["sharded_backend"], &json["common_backend_version"]), (&"torch_dist".into(), &1.into()));
}
