//! Why bytes are not a safetensors header, or tensors cannot be written as one.

use crate::format::instead::Instead;
use crate::tensor::{Dtype, Shape};

/// Why bytes are not a safetensors header, or tensors cannot be written as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SafetensorsError {
    /// A file that is too short for its own header.
    #[error(
        "it has {len} bytes, its header alone would take {needed}; the file is cut short, or no safetensors file"
    )]
    Short {
        /// Bytes of the file.
        len: u64,
        /// Bytes that the header takes.
        needed: u64,
    },
    /// A header beyond the format's limit.
    #[error(
        "its header would have {len} bytes, more than the {most} that the format allows; this is no safetensors file"
    )]
    HeaderTooLarge {
        /// Bytes of the header.
        len: u64,
        /// The limit.
        most: u64,
    },
    /// Text in place of the file.
    #[error("{0}")]
    Instead(Instead),
    /// A header that is not the JSON that it should be.
    #[error("its header is not that of a safetensors file: {0}")]
    Json(String),
    /// An element type that torch has no name for.
    #[error("tensor {tensor} has the element type {dtype}, which this version does not read")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type, as the file spells it.
        dtype: String,
    },
    /// An element type that the format has no name for.
    #[error("tensor {tensor} has the element type {dtype}, which safetensors files cannot hold")]
    NoDtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
    },
    /// Bytes that do not begin where those of the tensor before them end.
    #[error("tensor {tensor} begins at byte {start} of the data, the tensors before it end at {expected}: {}", if .start > .expected { "a hole" } else { "they overlap" })]
    Offset {
        /// The tensor.
        tensor: String,
        /// Where its bytes begin.
        start: u64,
        /// Where they should.
        expected: u64,
    },
    /// As many bytes as a tensor of this kind does not have.
    #[error("tensor {tensor} has {found} bytes, but {dtype} {shape} takes {expected}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Shape,
        /// Bytes that the header gives it.
        found: u64,
        /// Bytes that it takes.
        expected: u64,
    },
    /// Sizes beyond 64 bits.
    #[error("tensor {tensor} has a size beyond reason")]
    Overflow {
        /// The tensor.
        tensor: String,
    },
    /// Data that is longer or shorter than the tensors.
    #[error(
        "its tensors take {expected} bytes, but {found} follow the header; the file is cut short or has something appended"
    )]
    Length {
        /// Bytes of all tensors.
        expected: u64,
        /// Bytes behind the header.
        found: u64,
    },
}
