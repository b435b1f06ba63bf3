//! Pieces of real files: of torch 2.2 to 2.15, and written by hand.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::extent::ObjectId;
use crate::format::dcp::metadata::{Encoding, Metadata, Place, Tensor, decode};
use crate::format::dcp::piece;
use crate::source::SourceError;
use crate::store::{MemoryStore, Reads, Store, consistent};
use crate::tensor::{Dtype, Shape};
use crate::value::Value;

/// A directory of DCP, in memory.
struct Opened {
    metadata: Metadata,
    store: MemoryStore,
    /// In the order of the metadata; `None` for a file that is not there.
    files: Vec<Option<ObjectId>>,
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dist-tiny").join(path)
}

impl Opened {
    fn new(path: &str) -> Self {
        let metadata = decode(&fs::read(fixture(path).join(".metadata")).unwrap()).unwrap();
        let store = MemoryStore::new();
        let file = |file: &std::sync::Arc<str>| {
            let bytes = fs::read(fixture(path).join(&**file)).ok()?;
            Some(store.add(file.to_string(), bytes).unwrap())
        };
        let files = metadata.files.iter().map(file).collect();
        Self { metadata, store, files }
    }

    fn with<T>(
        &self,
        place: Place,
        key: &str,
        work: impl FnOnce(Reads<'_>, PieceOf<'_>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let file = self.metadata.file(place).unwrap();
        let object = self.files[place.file as usize].unwrap();
        consistent(&self.store, object, |reads| work(reads, PieceOf { file, key, place }))
    }

    fn find(&self, tensor: &Tensor, place: Place, sizes: &[u64]) -> Result<Elements, SourceError> {
        let shape = Shape(sizes.to_vec());
        self.with(place, &tensor.key, |reads, piece| Elements::find(reads, piece, &shape, tensor.dtype))
    }

    fn bytes(&self, elements: &Elements) -> Vec<u8> {
        let mut bytes = vec![0; elements.extent.len as usize];
        self.store.read_exact_at(elements.extent.object, elements.extent.offset, &mut bytes).unwrap();
        bytes
    }

    fn object(&self, key: &str) -> Value {
        let object = self.metadata.object(key).unwrap();
        self.with(object.place, key, read_object).unwrap().tree
    }

    /// The elements of a tensor of one chunk as numbers, in the order in which they lie.
    fn floats(&self, key: &str) -> (Vec<u64>, Vec<f32>) {
        let tensor = self.metadata.tensor(key).unwrap();
        let chunk = tensor.chunks.iter().next().unwrap();
        let found = self.find(tensor, chunk.place, chunk.sizes).unwrap();
        let floats = self.bytes(&found).chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        (found.strides, floats)
    }
}

const ALL: [&str; 7] = [
    "dcp/kinds/torch22",
    "dcp/kinds/torch26",
    "dcp/kinds/torch29",
    "dcp/kinds/torch215",
    "dcp/llama_tied_bf16/fsdp2_n3",
    "hand/min",
    "megatron/optim/mcore0123_fsms_tp1dp2/iter_0000007",
];

#[test]
fn a_short_read_finds_what_the_whole_archive_says() {
    let mut count = 0;
    for folder in ALL {
        let opened = Opened::new(folder);
        for tensor in &opened.metadata.tensors {
            for chunk in tensor.chunks.iter().filter(|chunk| opened.files[chunk.place.file as usize].is_some()) {
                let shape = Shape(chunk.sizes.to_vec());
                let found = opened.find(tensor, chunk.place, chunk.sizes).unwrap();
                let read = opened.with(chunk.place, &tensor.key, |reads, piece| {
                    let part = reads.part(chunk.place.offset, chunk.place.len)?;
                    Elements::read(part, piece, &shape, tensor.dtype)
                });
                let read = read.unwrap();
                assert_eq!(Elements { crc: read.crc, ..found.clone() }, read, "{folder} {}", tensor.key);
                assert_eq!(found.extent.len, shape.bytes(tensor.dtype).unwrap(), "{folder} {}", tensor.key);
                if let Some(crc) = read.crc {
                    assert_eq!(crc32fast::hash(&opened.bytes(&found)), crc);
                }
                count += 1;
            }
        }
    }
    assert!(count > 150, "{count}");
}

#[test]
fn order_is_said_by_the_head_and_not_by_the_length() {
    for torch in ["22", "26", "29", "215"] {
        let opened = Opened::new(&format!("dcp/kinds/torch{torch}"));
        let strides = |tensor: &Tensor| {
            let chunk = tensor.chunks.iter().next().unwrap();
            let shape = Shape(chunk.sizes.to_vec());
            let found = opened.find(tensor, chunk.place, chunk.sizes).unwrap();
            (found.strides, shape, piece::expected(&Shape(chunk.sizes.to_vec()), tensor.dtype, chunk.place.len))
        };
        let all: Vec<_> = opened.metadata.tensors.iter().map(strides).collect();
        let columns = all.iter().find(|(strides, shape, _)| *strides == [1, 8] && shape.0 == [8, 6]).unwrap();
        assert!(columns.2.is_some(), "a piece in the other order is as long");
        assert!(all.iter().any(|(strides, shape, _)| Some(strides) == shape.contiguous_strides().as_ref()));
    }
}

#[test]
fn objects_are_read_with_the_tensors_in_them() {
    let opened = Opened::new("hand/min");
    assert!(matches!(opened.object("cfg.lr"), Value::Float(lr) if (lr - 1e-3).abs() < 1e-9));
    let (strides, step) = opened.floats("step");
    assert_eq!((strides, step), (vec![], vec![2.5]));
    let opened = Opened::new("megatron/optim/mcore0123_fsms_tp1dp2/iter_0000007");
    let there = |place: Place| opened.files[place.file as usize].is_some();
    for object in opened.metadata.objects.iter().filter(|object| there(object.place)) {
        let Value::List(items) = opened.object(&object.key) else { panic!("{}", object.key) };
        assert!(matches!(&items[..], [Value::None]), "{}", object.key);
    }
    for torch in ["22", "26", "29", "215"] {
        let opened = Opened::new(&format!("dcp/kinds/torch{torch}"));
        assert!(!opened.metadata.objects.is_empty());
        for object in &opened.metadata.objects {
            let file = opened.with(object.place, &object.key, read_object).unwrap();
            // Places are those in the file of pieces.
            for record in file.storages.values() {
                let Place { offset, len, .. } = object.place;
                assert!(record.extent.offset > offset && record.extent.offset + record.extent.len < offset + len);
                let mut bytes = vec![0; record.extent.len as usize];
                opened.store.read_exact_at(record.extent.object, record.extent.offset, &mut bytes).unwrap();
                assert_eq!(record.crc, Some(crc32fast::hash(&bytes)), "{}", object.key);
            }
        }
    }
}

#[test]
fn pieces_that_are_not_what_the_metadata_says() {
    let opened = Opened::new("hand/min");
    let tensor = opened.metadata.tensor("model.a").unwrap();
    let chunk = tensor.chunks.iter().next().unwrap();
    let place = chunk.place;
    let refused = |found: Result<Elements, SourceError>, words: &[&str]| {
        let error = found.unwrap_err().to_string();
        words.iter().chain(&["view.distcp", "model.a"]).for_each(|word| assert!(error.contains(word), "{word}: {error}"));
    };
    let find = |place, sizes: &[u64], dtype| {
        let shape = Shape(sizes.to_vec());
        opened.with(place, "model.a", |reads, piece| Elements::find(reads, piece, &shape, dtype))
    };
    refused(find(place, &[5, 3], Dtype::Float32), &["[3, 5]", "[5, 3]"]);
    refused(find(place, &[3, 5], Dtype::Int32), &["float32", "int32"]);
    refused(find(Place { len: 1 << 40, ..place }, &[3, 5], Dtype::Float32), &["cut short"]);
    refused(find(Place { offset: u64::MAX, ..place }, &[3, 5], Dtype::Float32), &["cut short"]);
    refused(find(Place { len: place.len - 8, ..place }, &[3, 5], Dtype::Float32), &["cut short"]);
    refused(find(Place { len: 60, ..place }, &[3, 5], Dtype::Float32), &["SAFETENSORS"]);
    refused(find(Place { encoding: Encoding::Zstd, ..place }, &[3, 5], Dtype::Float32), &["zstd"]);
    refused(find(Place { offset: 0, ..place }, &[3, 5], Dtype::Float32), &["what torch.save writes"]);
    let frame = [b"\x28\xb5\x2f\xfd".to_vec(), vec![7; 600]].concat();
    let object = opened.store.add("compressed", frame).unwrap();
    let place = Place { offset: 0, len: 604, ..place };
    let error = consistent(&opened.store, object, |reads| {
        read_object(reads, PieceOf { file: "compressed", key: "x", place })
    });
    assert!(error.unwrap_err().to_string().contains("zstd"));
}
