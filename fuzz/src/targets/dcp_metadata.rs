//! `.metadata` of a distributed checkpoint: memory follows from its length, and what is read is consistent in itself.

use crate::bounded;
use ckpt_fs::format::dcp::merge::merge;
use ckpt_fs::format::dcp::metadata::{Metadata, decode};

/// Sorted, without doubles.
fn check_order<'a, T: Ord + ?Sized + 'a>(mut keys: impl Iterator<Item = &'a T>) {
    let mut last = keys.next();
    for key in keys {
        assert!(last < Some(key), "out of order, or twice");
        last = Some(key);
    }
}

fn check(metadata: &Metadata) {
    check_order(metadata.tensors.iter().map(|tensor| &*tensor.key));
    check_order(metadata.objects.iter().map(|object| &*object.key));
    check_order(metadata.files.iter().map(|path| &**path));
    check_order(metadata.paths.iter().flatten().map(|(key, _)| &**key));
    for tensor in &metadata.tensors {
        assert!(metadata.object(&tensor.key).is_none(), "a tensor and an object");
        check_order(tensor.chunks.iter().map(|chunk| chunk.offsets));
        let sizes = &tensor.shape.0;
        assert!(tensor.shape.bytes(tensor.dtype).is_some(), "it cannot be counted");
        for chunk in tensor.chunks.iter() {
            assert_eq!((chunk.offsets.len(), chunk.sizes.len()), (sizes.len(), sizes.len()));
            let mut axes = chunk.offsets.iter().zip(chunk.sizes).zip(sizes);
            assert!(axes.all(|((offset, size), whole)| offset + size <= *whole), "outside of the tensor");
        }
    }
    for place in metadata.places() {
        let path = metadata.file(place).expect("a file");
        assert!(place.offset.checked_add(place.len).is_some(), "its end cannot be counted");
        assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
    }
}

/// Holds one input against what must be so.
pub fn run(bytes: &[u8]) {
    let Ok(metadata) = bounded(bytes.len(), 200, 1 << 17, || decode(bytes)) else { return };
    check(&metadata);
    let merged = merge(vec![(0, metadata.clone()), (1, metadata.clone())]).expect("it agrees with itself");
    assert!(merged == metadata, "merged with itself it is another");
}
