//! What a tensor is apart from its bytes: element type, shape and checked size arithmetic.
//!
//! Not here: where bytes live (`extent`), what a tensor is called or how it is cut (`family`).

#![deny(clippy::disallowed_methods)]

mod band;
mod region;

use std::fmt;

pub use band::Band;
pub use region::{Region, Slab, slabs};

/// Makes the element types out of one table, so that names and sizes cannot drift apart and none can be left out.
macro_rules! dtypes {
    ($($variant:ident = $name:literal of $size:literal,)*) => {
        /// Element type of a tensor, named as `torch` names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each variant is the torch dtype of that name")]
        pub enum Dtype {
            $($variant,)*
        }

        impl Dtype {
            const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name after `torch.`, e.g. `bfloat16`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Bytes per element.
            #[must_use]
            pub fn size(self) -> u64 {
                match self {
                    $(Self::$variant => $size,)*
                }
            }
        }
    };
}

dtypes! {
    Bool = "bool" of 1,
    Uint8 = "uint8" of 1,
    Int8 = "int8" of 1,
    Int16 = "int16" of 2,
    Int32 = "int32" of 4,
    Int64 = "int64" of 8,
    Uint16 = "uint16" of 2,
    Uint32 = "uint32" of 4,
    Uint64 = "uint64" of 8,
    Float16 = "float16" of 2,
    Bfloat16 = "bfloat16" of 2,
    Float32 = "float32" of 4,
    Float64 = "float64" of 8,
    Complex32 = "complex32" of 4,
    Complex64 = "complex64" of 8,
    Complex128 = "complex128" of 16,
    Float8E4m3fn = "float8_e4m3fn" of 1,
    Float8E5m2 = "float8_e5m2" of 1,
    Float8E4m3fnuz = "float8_e4m3fnuz" of 1,
    Float8E5m2fnuz = "float8_e5m2fnuz" of 1,
    Float8E8m0fnu = "float8_e8m0fnu" of 1,
    Float4E2m1fnX2 = "float4_e2m1fn_x2" of 1,
}

impl Dtype {
    /// All dtypes, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied()
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
        Self::all().find(|dtype| dtype.name() == name)
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

    /// Positions along `axis`: one for a 0-d tensor, `None` for an axis that the tensor does not have.
    #[must_use]
    pub fn along(&self, axis: usize) -> Option<u64> {
        if self.0.is_empty() && axis == 0 { Some(1) } else { self.0.get(axis).copied() }
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
    fn every_dtype_reads_back_by_name() {
        for dtype in Dtype::all() {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::Float4E2m1fnX2.size(), 1);
        assert_eq!(Dtype::from_name("qint8"), None);
    }

    #[test]
    fn an_axis_that_is_not_there_has_no_size() {
        let sizes = |sizes: &[u64]| [0, 1, 2].map(|axis| Shape(sizes.to_vec()).along(axis));
        assert_eq!(sizes(&[5, 7]), [Some(5), Some(7), None]);
        assert_eq!(sizes(&[]), [Some(1), None, None]);
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
