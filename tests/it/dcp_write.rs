//! DCP directories as they are written: read back by a reader that shares no code with the crate, and the same as those that
//! `tests/python/test_dcp_written.py` loads with torch.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

pub(crate) mod archive;
mod kinds;
pub(crate) mod read;
pub(crate) mod unpickle;

use std::collections::BTreeMap;
use std::sync::Arc;

use ckpt_fs::format::dcp::write::{Chunks, Content, Directory, Object, Part, Payload, Spec, Tensor};
use ckpt_fs::tensor::{Dtype, Shape};
use ckpt_fs::value::Value;
use proptest::prelude::*;

use read::Step as Read;

/// The files of a directory, payloads being what `payload` says, with all CRCs.
fn written(directory: &Directory, payload: impl Fn(Payload<'_>) -> Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (number, name) in directory.spec().files.iter().enumerate() {
        let mut file = Vec::new();
        for part in directory.parts(number) {
            match part {
                Part::Bytes(bytes) => file.extend_from_slice(bytes),
                Part::Payload { of, len } => {
                    let bytes = payload(of);
                    assert_eq!(bytes.len() as u64, len);
                    file.extend(bytes);
                }
                Part::Crc32(of) => {
                    let crc = crc32fast::hash(&file[of.start as usize..of.end as usize]);
                    file.extend(crc.to_le_bytes());
                }
            }
        }
        assert_eq!(Some(file.len() as u64), directory.file_len(number));
        files.insert(name.clone(), file);
    }
    let metadata = directory.metadata().unwrap();
    assert_eq!(metadata.len() as u64, directory.metadata_len().unwrap());
    files.insert(".metadata".into(), metadata);
    files
}

/// Bytes of a whole tensor, told apart by its key. The test with torch makes the same ones.
fn pattern(key: &str, dtype: Dtype, len: u64) -> Vec<u8> {
    let seed = key.bytes().map(u64::from).sum::<u64>();
    let byte = |at: u64| ((at * 37 + seed) % 120) as u8;
    (0..len).map(|at| if dtype == Dtype::Bool { byte(at) & 1 } else { byte(at) }).collect()
}

fn whole(tensor: &Tensor) -> Vec<u8> {
    pattern(&tensor.key, tensor.dtype, tensor.shape.bytes(tensor.dtype).unwrap())
}

/// The bytes of a chunk, element by element.
fn gathered(tensor: &Tensor, chunk: usize) -> Vec<u8> {
    let (bytes, width) = (whole(tensor), tensor.dtype.size() as usize);
    let chunk = tensor.chunks.get(chunk).unwrap();
    let elements = chunk.sizes.iter().product::<u64>();
    let place = |element: u64| {
        let (mut rest, mut at, mut step) = (element, 0, 1);
        for ((whole, offset), size) in tensor.shape.0.iter().zip(chunk.offsets).zip(chunk.sizes).rev() {
            at += (offset + rest % size) * step;
            rest /= size;
            step *= whole;
        }
        at as usize * width
    };
    (0..elements).flat_map(|element| bytes[place(element)..][..width].to_vec()).collect()
}

/// The payloads of a directory of patterns.
fn of_pattern<'d>(directory: &'d Directory) -> impl Fn(Payload<'_>) -> Vec<u8> + 'd {
    |payload| match payload {
        Payload::Chunk { tensor, chunk } => gathered(&directory.spec().tensors[tensor], chunk),
        Payload::Storage { object, key } => {
            let object = &directory.spec().objects[object];
            assert!(object.content.storages[key].is_none());
            pattern(key, Dtype::Uint8, kinds::STORAGE)
        }
    }
}

/// A tensor cut in two again and again, with its chunks in any order and any files.
fn tensor(key: Arc<str>) -> impl Strategy<Value = Tensor> {
    let dtype = prop::sample::select(vec![
        Dtype::Float32,
        Dtype::Bfloat16,
        Dtype::Int64,
        Dtype::Bool,
        Dtype::Float8E4m3fn,
        Dtype::Uint16,
    ]);
    let shape = prop::collection::vec(prop_oneof![20 => 1..7u64, 1 => Just(0)], 0..5);
    let cuts = prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index, u64)>(), 0..12);
    (dtype, shape, cuts, any::<u64>()).prop_map(move |(dtype, shape, cuts, order)| {
        let mut boxes = vec![(vec![0; shape.len()], shape.clone())];
        for (which, axis, at) in cuts {
            let which = which.index(boxes.len());
            let (offsets, sizes) = boxes[which].clone();
            let axis = axis.index(shape.len().max(1));
            if sizes.get(axis).is_none_or(|size| *size < 2) || sizes.contains(&0) {
                continue;
            }
            let low = 1 + at % (sizes[axis] - 1);
            let (mut far, mut rest) = (offsets.clone(), sizes.clone());
            far[axis] += low;
            rest[axis] -= low;
            boxes[which].1[axis] = low;
            boxes.push((far, rest));
        }
        let count = boxes.len();
        boxes.rotate_left(order as usize % count);
        // A rank beyond the end of the first axis saves an empty part of it.
        if let Some(first) = shape.first().filter(|_| order % 3 == 0 && !shape.contains(&0)) {
            let place = |at: u64| [&[at][..], &vec![0; shape.len() - 1]].concat();
            boxes.push((place(*first), [&[0][..], &shape[1..]].concat()));
        }
        let mut chunks = Chunks::new(shape.len());
        for (index, (offsets, sizes)) in boxes.iter().enumerate() {
            chunks.push(offsets, sizes, ((order >> (index % 60)) % 3) as u32).unwrap();
        }
        Tensor { key: key.clone(), dtype, shape: Shape(shape), chunks }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_written_reads_back(
        tensors in (0..4usize).prop_flat_map(|count| {
            (0..count).map(|number| tensor(format!("layer.{number}.weight").into())).collect::<Vec<_>>()
        }),
        numbers in prop::collection::vec((any::<i64>(), 0..3usize), 0..4),
    ) {
        let object = |(index, (number, file)): (usize, &(i64, usize))| Object {
            key: format!("object.{index}").into(),
            content: Arc::new(Content::plain(Value::Int(*number))),
            file: *file,
        };
        let objects = numbers.iter().enumerate().map(object).collect();
        let files = (0..3).map(|rank| ckpt_fs::format::dcp::write::data_file(rank, 0)).collect();
        let directory = Directory::new(Spec { files, tensors, objects, paths: None }).unwrap();
        let files = written(&directory, of_pattern(&directory));
        let loaded = read::load(&files);
        prop_assert_eq!(loaded.paths, None);
        prop_assert_eq!(loaded.tensors.len(), directory.spec().tensors.len());
        for tensor in &directory.spec().tensors {
            let dtype = format!("torch.{}", tensor.dtype);
            prop_assert_eq!(&loaded.tensors[&*tensor.key], &(dtype, tensor.shape.0.clone(), whole(tensor)));
        }
        prop_assert_eq!(loaded.objects.len(), numbers.len());
        for (index, (number, _)) in numbers.iter().enumerate() {
            let (file, start, len) = &loaded.objects[&format!("object.{index}")];
            let pickle = archive::Archive::of(&files[file], *start, *len).pickle();
            prop_assert_eq!(pickle.node(pickle.root), &unpickle::Node::Int(i128::from(*number)));
        }
    }
}

#[test]
fn paths_of_a_nested_state_are_kept() {
    let directory = Directory::new(kinds::spec()).unwrap();
    let loaded = read::load(&written(&directory, of_pattern(&directory)));
    let paths = loaded.paths.unwrap();
    assert_eq!(paths.len(), directory.spec().tensors.len() + directory.spec().objects.len());
    let key = |text: &str| Read::Key(text.into());
    assert_eq!(
        paths["optim.param_groups.1.lr"],
        [key("optim"), key("param_groups"), Read::Index(1), key("lr")]
    );
    assert_eq!(paths["model.a.b.weight"], [key("model"), key("a.b.weight")]);
}

#[test]
fn tensors_within_objects_are_there() {
    let directory = Directory::new(kinds::spec()).unwrap();
    let files = written(&directory, of_pattern(&directory));
    let (file, start, len) = &read::load(&files).objects["state"];
    let archive = archive::Archive::of(&files[file], *start, *len);
    let pickle = archive.pickle();
    let step = archive.tensor(&pickle, pickle.field(pickle.root, "step"));
    assert_eq!(
        (step.dtype.as_str(), step.shape.len(), step.bytes),
        ("torch.float32", 0, 7f32.to_le_bytes().to_vec())
    );
    let rng = archive.tensor(&pickle, pickle.field(pickle.root, "rng"));
    assert_eq!(rng.bytes, pattern("rng", Dtype::Uint8, kinds::STORAGE));
}

/// The directory that torch loads in the Python tests. With `CKPT_FS_BLESS` in the environment it is written anew.
#[test]
fn the_directory_that_torch_loads_is_what_is_written() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dcp-written");
    let directory = Directory::new(kinds::spec()).unwrap();
    for (name, bytes) in written(&directory, of_pattern(&directory)) {
        let path = folder.join(&name);
        if std::env::var_os("CKPT_FS_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{name} is written otherwise");
    }
}
