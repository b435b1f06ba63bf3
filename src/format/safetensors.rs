//! The safetensors format: a JSON header that says what each tensor is and where its bytes are, then the bytes.
//!
//! Source: safetensors 0.8.0 (`tensor.rs`) and files written by it. Reading is as strict as that library, and stricter where it looks away:
//! a name that stands twice is an error. Writing gives what the library would write, but that the header may be padded further.
//!
//! Not here: bytes of tensors, which tensors a model has (`family`).

mod error;
mod header;

pub use error::SafetensorsError;
pub use header::{Header, PREFIX, Tensor, decode, encode, header_len};

use safetensors::Dtype as Stored;

use crate::tensor::Dtype;

/// Every element type that both sides have.
const DTYPES: &[(Stored, Dtype)] = &[
    (Stored::BOOL, Dtype::Bool),
    (Stored::U8, Dtype::Uint8),
    (Stored::I8, Dtype::Int8),
    (Stored::I16, Dtype::Int16),
    (Stored::I32, Dtype::Int32),
    (Stored::I64, Dtype::Int64),
    (Stored::U16, Dtype::Uint16),
    (Stored::U32, Dtype::Uint32),
    (Stored::U64, Dtype::Uint64),
    (Stored::F16, Dtype::Float16),
    (Stored::BF16, Dtype::Bfloat16),
    (Stored::F32, Dtype::Float32),
    (Stored::F64, Dtype::Float64),
    (Stored::C64, Dtype::Complex64),
    (Stored::F8_E4M3, Dtype::Float8E4m3fn),
    (Stored::F8_E5M2, Dtype::Float8E5m2),
    (Stored::F8_E8M0, Dtype::Float8E8m0fnu),
];

fn to_torch(stored: Stored) -> Option<Dtype> {
    DTYPES.iter().find(|row| row.0 == stored).map(|row| row.1)
}

fn to_stored(dtype: Dtype) -> Option<Stored> {
    DTYPES.iter().find(|row| row.1 == dtype).map(|row| row.0)
}
