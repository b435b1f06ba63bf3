//! `.metadata` files of torch DCP, written down a second time: what one says, as plain lists; a naive pickler of it; and a naive reader, which
//! walks the tree that the pickle codec makes of a small one.

mod pickler;
mod reader;

use std::collections::BTreeSet;

use ckpt_fs::format::dcp::metadata::{Encoding, Metadata, PathItem, Place};

pub use pickler::Style;
#[allow(unused_imports, reason = "each test file uses its own part of this")]
pub use reader::read;

/// What a `.metadata` says, right or wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Doc {
    pub tensors: Vec<Tensor>,
    pub objects: Vec<String>,
    pub stored: Vec<Stored>,
    pub version: Option<String>,
    pub paths: Option<Vec<(String, Vec<Step>)>>,
    /// `mcore_data`: key, and the shape in the model where there is one.
    pub originals: Vec<(String, Option<Vec<i64>>)>,
}

/// A `TensorStorageMetadata`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub key: String,
    /// Without `torch.`
    pub dtype: String,
    pub size: Vec<i64>,
    /// Offsets and sizes.
    pub chunks: Vec<(Vec<i64>, Vec<i64>)>,
}

/// A `MetadataIndex` and its `_StorageInfo`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub key: String,
    pub offsets: Option<Vec<i64>>,
    pub path: String,
    pub offset: i64,
    pub len: i64,
    pub transforms: Option<Vec<String>>,
}

/// A step of a path in a state dict.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Key(String),
    Number(i64),
}

/// Panics where `metadata` is not exactly what `doc` says.
#[track_caller]
pub fn check_same(doc: &Doc, metadata: &Metadata) {
    let place = |place: Place| {
        let transforms = (place.encoding == Encoding::Zstd).then(|| vec!["stream.zstd/1".to_owned()]);
        (metadata.file(place).unwrap().to_owned(), place.offset as i64, place.len as i64, transforms)
    };
    let stored = |key: &str, offsets: Option<&Vec<i64>>| {
        let mut all =
            doc.stored.iter().filter(|stored| stored.key == key && stored.offsets.as_ref() == offsets);
        let stored = all.next().unwrap();
        assert!(all.next().is_none());
        let transforms = stored.transforms.clone().filter(|names| !names.is_empty());
        (stored.path.clone(), stored.offset, stored.len, transforms)
    };
    let ints = |numbers: &[u64]| -> Vec<i64> { numbers.iter().map(|number| *number as i64).collect() };

    let mut tensors: Vec<&Tensor> = doc.tensors.iter().collect();
    tensors.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(metadata.tensors.len(), tensors.len());
    for (found, tensor) in metadata.tensors.iter().zip(tensors) {
        let key = &tensor.key;
        assert_eq!((&*found.key, found.dtype.name()), (key.as_str(), tensor.dtype.as_str()));
        assert_eq!(ints(&found.shape.0), tensor.size, "{key}");
        let original =
            doc.originals.iter().find(|(other, _)| other == key).and_then(|(_, shape)| shape.clone());
        assert_eq!(found.original_shape.as_ref().map(|shape| ints(&shape.0)), original, "{key}");
        let mut chunks = tensor.chunks.clone();
        chunks.sort();
        assert_eq!(found.chunks.len(), chunks.len(), "{key}");
        for (chunk, (offsets, sizes)) in found.chunks.iter().zip(&chunks) {
            assert_eq!((&ints(chunk.offsets), &ints(chunk.sizes)), (offsets, sizes), "{key}");
            assert_eq!(place(chunk.place), stored(key, Some(offsets)), "{key}");
        }
        assert_eq!(metadata.tensor(key), Some(found));
    }
    let mut objects = doc.objects.clone();
    objects.sort();
    assert_eq!(metadata.objects.iter().map(|object| object.key.to_string()).collect::<Vec<_>>(), objects);
    for object in &metadata.objects {
        assert_eq!(place(object.place), stored(&object.key, None));
        assert_eq!(metadata.object(&object.key), Some(object));
    }
    assert_eq!(metadata.version.as_deref(), doc.version.as_deref());
    let files: BTreeSet<&str> = doc.stored.iter().map(|stored| stored.path.as_str()).collect();
    assert_eq!(
        metadata.files.iter().map(|path| &**path).collect::<Vec<_>>(),
        files.into_iter().collect::<Vec<_>>()
    );
    let step = |item: &PathItem| match item {
        PathItem::Key(key) => Step::Key(key.to_string()),
        PathItem::Number(number) => Step::Number(*number),
    };
    let paths = metadata.paths.as_ref().map(|paths| {
        paths.iter().map(|(key, path)| (key.to_string(), path.iter().map(step).collect())).collect::<Vec<_>>()
    });
    let mut expected = doc.paths.clone();
    expected.iter_mut().for_each(|paths| paths.sort_by(|a, b| a.0.cmp(&b.0)));
    assert_eq!(paths, expected);
    assert_eq!(metadata.places().count(), doc.stored.len());
}
