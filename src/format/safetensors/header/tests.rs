//! The header against the safetensors library.

use std::collections::HashMap;

use proptest::prelude::*;
use safetensors::tensor::{SafeTensors, TensorView, serialize};

use super::*;
use crate::format::safetensors::DTYPES;

/// A file by the library.
fn by_library(tensors: &[(Arc<str>, Dtype, Shape)], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, dtype, shape)| vec![7; shape.bytes(*dtype).unwrap() as usize]).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, dtype, shape), bytes)| {
        let shape = shape.0.iter().map(|size| *size as usize).collect();
        (name.to_string(), TensorView::new(to_stored(*dtype).unwrap(), shape, bytes).unwrap())
    });
    let metadata: HashMap<String, String> = metadata.clone().into_iter().collect();
    serialize(views, Some(metadata).filter(|map| !map.is_empty())).unwrap()
}

fn tensors() -> impl Strategy<Value = Vec<(Arc<str>, Dtype, Shape)>> {
    let dtype = proptest::sample::select(DTYPES.iter().map(|row| row.1).collect::<Vec<_>>());
    let shape = proptest::collection::vec(0u64..5, 0..4).prop_map(Shape);
    let name = "[a-z.\"\\\\\u{e9}0-9]{0,6}";
    proptest::collection::btree_map(name, (dtype, shape), 0..8)
        .prop_map(|map| map.into_iter().map(|(name, (dtype, shape))| (name.into(), dtype, shape)).collect())
}

proptest! {
    #[test]
    fn what_is_written_is_what_the_library_writes(tensors in tensors(), format in any::<bool>()) {
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = if format { metadata } else { BTreeMap::new() };
        let file = by_library(&tensors, &metadata);
        let (header, order) = encode(&metadata, &tensors, 8).unwrap();
        prop_assert_eq!(&file[..header.len()], &header[..]);
        prop_assert_eq!(order.len(), tensors.len());
        let read = decode(&header[8..], file.len() as u64).unwrap();
        prop_assert_eq!(read.metadata, metadata);
        // Empty tensors at one offset may stand in any order.
        let mut names: Vec<_> = order.iter().map(|index| tensors[*index].0.clone()).collect();
        let mut found: Vec<_> = read.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        names.sort();
        found.sort();
        prop_assert_eq!(names, found);
    }

    #[test]
    fn what_is_read_is_what_the_library_reads(
        tensors in tensors(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0usize..3,
    ) {
        // One byte of the header changed, or the end of the file: both must say the same of it.
        let mut file = by_library(&tensors, &BTreeMap::new());
        let end = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        file[8 + at.index(end - 8)] = byte;
        file.truncate(file.len() - cut.min(file.len() - end));
        let ours = decode(&file[8..end], file.len() as u64);
        match SafeTensors::deserialize(&file) {
            Err(_) => prop_assert!(ours.is_err()),
            Ok(theirs) => {
                // Stricter: names that stand twice, and element types that torch does not have.
                if let Ok(ours) = ours {
                    for tensor in &ours.tensors {
                        let view = theirs.tensor(&tensor.name).unwrap();
                        prop_assert_eq!(view.data().len() as u64, tensor.bytes.end - tensor.bytes.start);
                        prop_assert_eq!(to_torch(view.dtype()), Some(tensor.dtype));
                    }
                    prop_assert_eq!(ours.tensors.len(), theirs.len());
                }
            }
        }
    }
}

fn error(json: &str, data: u64) -> String {
    decode(json.as_bytes(), 8 + json.len() as u64 + data).unwrap_err().to_string()
}

#[test]
fn damage_is_named() {
    let tensor = |name: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{from},{to}]}}"#)
    };
    let two = |a: String, b: String| format!("{{{a},{b}}}");
    assert!(error(&two(tensor("a", 0, 8), tensor("b", 12, 20)), 20).contains("tensor b begins at byte 12"));
    assert!(error(&two(tensor("a", 0, 8), tensor("b", 12, 20)), 20).contains("a hole"));
    assert!(error(&two(tensor("a", 0, 8), tensor("b", 4, 12)), 12).contains("they overlap"));
    assert!(error(&two(tensor("a", 0, 8), tensor("a", 8, 16)), 16).contains("a stands in it twice"));
    assert!(
        error(&format!("{{{}}}", tensor("a", 0, 12)), 12).contains("has 12 bytes, but float32 [2] takes 8")
    );
    assert!(error(&format!("{{{}}}", tensor("a", 0, 8)), 9).contains("something appended"));
    assert!(error(&format!("{{{}}}", tensor("a", 0, 8)), 7).contains("cut short"));
    assert!(error(r#"{"__metadata__":{"a":1}}"#, 0).contains("__metadata__"));
    assert!(error(r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#, 1).contains("F4"));
    assert!(error(r#"{"a":{"dtype":"X","shape":[2],"data_offsets":[0,1]}}"#, 1).contains("a: "));
    let huge = format!(r#"{{"a":{{"dtype":"F32","shape":[{0},{0},0],"data_offsets":[0,0]}}}}"#, 1u64 << 40);
    assert!(error(&huge, 0).contains("beyond reason"));
    assert!(error("[]", 0).contains("an object with an entry"));
}

#[test]
fn lengths_are_checked_before_anything_is_read() {
    assert_eq!(header_len(16u64.to_le_bytes(), 24), Ok(16));
    assert!(matches!(header_len(17u64.to_le_bytes(), 24), Err(SafetensorsError::Short { needed: 25, .. })));
    assert!(matches!(header_len([0xff; 8], u64::MAX), Err(SafetensorsError::HeaderTooLarge { .. })));
}

#[test]
fn data_may_begin_at_a_page() {
    let tensors = [("a".into(), Dtype::Float32, Shape(vec![3]))];
    let (header, _) = encode(&BTreeMap::new(), &tensors, 4096).unwrap();
    assert_eq!(header.len(), 4096);
    assert_eq!(decode(&header[8..], 4096 + 12).unwrap().tensors[0].bytes, 4096..4108);
}
