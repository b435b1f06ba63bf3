//! What a tensor is apart from its bytes: element type, shape and checked size arithmetic.
//!
//! Not here: where bytes live (`extent`), what a tensor is called or how it is cut (`family`).

mod band;

use std::fmt;

pub use band::Band;

/// Element type of a tensor, named as `torch` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each variant is the torch dtype of that name")]
pub enum Dtype {
    Bool,
    Uint8,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint16,
    Uint32,
    Uint64,
    Float16,
    Bfloat16,
    Float32,
    Float64,
    Complex32,
    Complex64,
    Complex128,
    Float8E4m3fn,
    Float8E5m2,
    Float8E4m3fnuz,
    Float8E5m2fnuz,
    Float8E8m0fnu,
    Float4E2m1fnX2,
}

/// Every dtype with its torch name and its size in bytes. One table, so that names and sizes cannot drift apart.
const DTYPES: &[(Dtype, &str, u64)] = &[
    (Dtype::Bool, "bool", 1),
    (Dtype::Uint8, "uint8", 1),
    (Dtype::Int8, "int8", 1),
    (Dtype::Int16, "int16", 2),
    (Dtype::Int32, "int32", 4),
    (Dtype::Int64, "int64", 8),
    (Dtype::Uint16, "uint16", 2),
    (Dtype::Uint32, "uint32", 4),
    (Dtype::Uint64, "uint64", 8),
    (Dtype::Float16, "float16", 2),
    (Dtype::Bfloat16, "bfloat16", 2),
    (Dtype::Float32, "float32", 4),
    (Dtype::Float64, "float64", 8),
    (Dtype::Complex32, "complex32", 4),
    (Dtype::Complex64, "complex64", 8),
    (Dtype::Complex128, "complex128", 16),
    (Dtype::Float8E4m3fn, "float8_e4m3fn", 1),
    (Dtype::Float8E5m2, "float8_e5m2", 1),
    (Dtype::Float8E4m3fnuz, "float8_e4m3fnuz", 1),
    (Dtype::Float8E5m2fnuz, "float8_e5m2fnuz", 1),
    (Dtype::Float8E8m0fnu, "float8_e8m0fnu", 1),
    (Dtype::Float4E2m1fnX2, "float4_e2m1fn_x2", 1),
];

impl Dtype {
    /// All dtypes, in the order of the table.
    #[cfg(feature = "internals")]
    pub fn all() -> impl Iterator<Item = Self> {
        DTYPES.iter().map(|row| row.0)
    }

    /// The name after `torch.`, e.g. `bfloat16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes per element.
    #[must_use]
    pub fn size(self) -> u64 {
        self.row().2
    }

    /// The dtype called `torch.NAME`, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        // Torch keeps a second name for these; both may stand in a pickle.
        let name = match name {
            "half" => "float16",
            "float" => "float32",
            "double" => "float64",
            "short" => "int16",
            "int" => "int32",
            "long" => "int64",
            "cfloat" => "complex64",
            "cdouble" => "complex128",
            "chalf" => "complex32",
            other => other,
        };
        DTYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, u64) {
        // The table lists every variant (tested), so the fallback row is never taken.
        DTYPES.iter().find(|row| row.0 == self).unwrap_or(&DTYPES[0])
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Sizes of a tensor's dimensions, outermost first. Empty for a 0-d tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<u64>);

impl Shape {
    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; `None` where it does not fit 64 bits.
    #[must_use]
    pub fn elements(&self) -> Option<u64> {
        product(&self.0)
    }

    /// Number of bytes at `dtype`; `None` where it does not fit 64 bits.
    #[must_use]
    pub fn bytes(&self, dtype: Dtype) -> Option<u64> {
        self.elements()?.checked_mul(dtype.size())
    }

    /// Row-major strides in elements; `None` where they do not fit 64 bits.
    /// A dimension of size zero counts as one, as torch counts it.
    #[must_use]
    pub fn contiguous_strides(&self) -> Option<Vec<u64>> {
        let mut strides = vec![1; self.0.len()];
        let mut step: u64 = 1;
        for (stride, size) in strides.iter_mut().zip(&self.0).rev() {
            *stride = step;
            step = step.checked_mul((*size).max(1))?;
        }
        Some(strides)
    }

    /// The index along each axis of the element that is at `element`, row-major.
    #[must_use]
    pub fn index_of(&self, element: u64) -> Vec<u64> {
        let mut rest = element;
        let mut index: Vec<u64> = Vec::with_capacity(self.0.len());
        for size in self.0.iter().rev() {
            index.push(rest % (*size).max(1));
            rest /= (*size).max(1);
        }
        index.reverse();
        index
    }

    /// The same shape with dimension `axis` set to `size`.
    #[must_use]
    pub fn with(&self, axis: usize, size: u64) -> Self {
        let mut sizes = self.0.clone();
        if let Some(slot) = sizes.get_mut(axis) {
            *slot = size;
        }
        Self(sizes)
    }
}

impl fmt::Display for Shape {
    /// `[512, 64]`, as torch prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, size) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}

/// Product of `sizes`; `None` where it does not fit 64 bits. A zero makes it zero whatever else is in there.
#[must_use]
pub fn product(sizes: &[u64]) -> Option<u64> {
    if sizes.contains(&0) {
        return Some(0);
    }
    sizes.iter().try_fold(1u64, |acc, size| acc.checked_mul(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_is_in_the_table_and_reads_back_by_name() {
        for dtype in Dtype::all() {
            assert_eq!(dtype.row().0, dtype);
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::Float4E2m1fnX2.size(), 1);
        assert_eq!(Dtype::from_name("qint8"), None);
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(Shape(vec![]).bytes(Dtype::Float32), Some(4));
        assert_eq!(Shape(vec![3, 0, u64::MAX, u64::MAX]).bytes(Dtype::Float32), Some(0));
        assert_eq!(Shape(vec![u64::MAX, 2]).elements(), None);
        assert_eq!(Shape(vec![u64::MAX]).bytes(Dtype::Float32), None);
    }

    #[test]
    fn strides_are_row_major() {
        assert_eq!(Shape(vec![4, 3, 2]).contiguous_strides(), Some(vec![6, 2, 1]));
        assert_eq!(Shape(vec![4, 0, 2]).contiguous_strides(), Some(vec![2, 2, 1]));
        assert_eq!(Shape(vec![]).contiguous_strides(), Some(vec![]));
    }
}
