//! Storage classes: how torch spells the element type of a storage in a pickle.
//!
//! Torch keeps these names for compatibility (`_dtype_to_storage_type_map` in torch/storage.py); later element types are saved as
//! untyped storages beside a dtype.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::tensor::Dtype;
use crate::value::Global;

/// Class name, element type, bytes per element. Quantized elements have no dtype here: their bytes mean nothing without a scale.
const CLASSES: &[(&str, Option<Dtype>, u64)] = &[
    ("DoubleStorage", Some(Dtype::Float64), 8),
    ("FloatStorage", Some(Dtype::Float32), 4),
    ("HalfStorage", Some(Dtype::Float16), 2),
    ("BFloat16Storage", Some(Dtype::Bfloat16), 2),
    ("LongStorage", Some(Dtype::Int64), 8),
    ("IntStorage", Some(Dtype::Int32), 4),
    ("ShortStorage", Some(Dtype::Int16), 2),
    ("CharStorage", Some(Dtype::Int8), 1),
    ("ByteStorage", Some(Dtype::Uint8), 1),
    ("BoolStorage", Some(Dtype::Bool), 1),
    ("ComplexDoubleStorage", Some(Dtype::Complex128), 16),
    ("ComplexFloatStorage", Some(Dtype::Complex64), 8),
    ("QInt8Storage", None, 1),
    ("QInt32Storage", None, 4),
    ("QUInt8Storage", None, 1),
    ("QUInt4x2Storage", None, 1),
    ("QUInt2x4Storage", None, 1),
    // Bytes; torch 1.11 and 1.12 had the underscore. Where a tensor has no dtype of its own, torch reads these as uint8.
    ("UntypedStorage", Some(Dtype::Uint8), 1),
    ("_UntypedStorage", Some(Dtype::Uint8), 1),
];

/// Element type and size of the class `global`, if it is a storage class.
pub(super) fn lookup(global: &Global) -> Option<(Option<Dtype>, u64)> {
    // Torch writes `torch.X`, for untyped ones `torch.storage.UntypedStorage`; GPU classes are mapped before they are written, but old
    // files may have them.
    if !matches!(&*global.module, "torch" | "torch.storage" | "torch.cuda") {
        return None;
    }
    CLASSES.iter().find(|row| row.0 == &*global.name).map(|row| (row.1, row.2))
}

/// The class that torch saves storages of `dtype` as. `None`: as an untyped one, beside the dtype.
pub(super) fn name_of(dtype: Dtype) -> Option<&'static str> {
    CLASSES.iter().find(|row| row.1 == Some(dtype)).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_dtypes() {
        for (name, dtype, size) in CLASSES {
            assert!(dtype.is_none_or(|dtype| dtype.size() == *size), "{name}");
        }
        assert_eq!(name_of(Dtype::Uint8), Some("ByteStorage"));
        // Checked with torch 2.15, as are the names above.
        let untyped: Vec<_> =
            Dtype::all().filter(|dtype| name_of(*dtype).is_none()).map(Dtype::name).collect();
        assert_eq!(
            untyped,
            [
                "uint16",
                "uint32",
                "uint64",
                "complex32",
                "float8_e4m3fn",
                "float8_e5m2",
                "float8_e4m3fnuz",
                "float8_e5m2fnuz",
                "float8_e8m0fnu",
                "float4_e2m1fn_x2"
            ]
        );
    }
}
