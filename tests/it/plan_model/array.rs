//! Dense arrays, and how a source may keep one in its file.

use ckpt_fs::tensor::{Dtype, Region, Shape};

/// A dense row-major array.
#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// Its bytes, in order.
    pub(super) data: Vec<u8>,
}

/// What stands at one position of an axis.
#[derive(Clone, Copy, Debug)]
pub(super) enum Position {
    /// That position of the array of this number.
    Of(usize, u64),
    /// This in each element.
    Filled([u8; 4]),
    /// Zeros.
    Zero,
}

impl Array {
    pub(super) fn filled(dtype: Dtype, shape: Vec<u64>, mut value: impl FnMut() -> u8) -> Self {
        let len = shape.iter().product::<u64>() * dtype.size();
        Self { dtype, shape, data: (0..len).map(|_| value()).collect() }
    }

    /// A part of it.
    pub(super) fn part(&self, region: &Region) -> Self {
        let (whole, part) = (Shape(self.shape.clone()), region.shape());
        let element = self.dtype.size() as usize;
        let mut data = Vec::new();
        for index in 0..whole.elements().unwrap() {
            if region.has(&whole.index_of(index)) {
                data.extend_from_slice(&self.data[index as usize * element..][..element]);
            }
        }
        Self { dtype: self.dtype, shape: part.0, data }
    }

    /// These positions along `axis`, in this order. Arrays differ along that axis alone.
    pub(super) fn pick(arrays: &[Self], axis: usize, positions: &[Position]) -> Self {
        let dtype = arrays[0].dtype;
        let mut shape = arrays[0].shape.clone();
        shape[axis] = positions.len() as u64;
        let outer: u64 = shape[..axis].iter().product();
        let inner = shape[axis + 1..].iter().product::<u64>() * dtype.size();
        let mut data = Vec::new();
        for o in 0..outer {
            for position in positions {
                match position {
                    Position::Of(part, at) => {
                        let start = (o * arrays[*part].shape[axis] + at) * inner;
                        data.extend_from_slice(&arrays[*part].data[start as usize..(start + inner) as usize]);
                    }
                    Position::Filled(bytes) => data.extend(bytes.iter().cycle().take(inner as usize)),
                    Position::Zero => data.extend(vec![0; inner as usize]),
                }
            }
        }
        Self { dtype, shape, data }
    }
}

/// How a source keeps a rank's tensor in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    Contiguous,
    /// A view into a storage whose rows are longer.
    Padded,
    /// Axes in reverse order.
    Transposed,
    /// The axes turned by one: the first is the innermost.
    Turned,
}

impl Storage {
    /// Axes from the outermost to the innermost in the file.
    fn order(self, rank: usize) -> Vec<usize> {
        match self {
            Self::Contiguous | Self::Padded => (0..rank).collect(),
            Self::Transposed => (0..rank).rev().collect(),
            Self::Turned => (0..rank).map(|axis| (axis + 1) % rank).collect(),
        }
    }

    /// Writes `array` into `file` and returns where it starts and its strides, both in bytes.
    pub(super) fn write(self, array: &Array, file: &mut Vec<u8>) -> (u64, Vec<u64>) {
        let rank = array.shape.len();
        let element = array.dtype.size();
        let mut sizes = array.shape.clone();
        if let (Self::Padded, Some(last)) = (self, sizes.last_mut()) {
            *last += 3;
        }
        let mut strides = vec![0; rank];
        let mut step = element;
        for axis in self.order(rank).into_iter().rev() {
            strides[axis] = step;
            step *= sizes[axis];
        }
        file.extend_from_slice(&[0xEE; 7]);
        let start = file.len() as u64;
        file.resize(file.len() + step as usize, 0xEE);
        for (index, bytes) in array.data.chunks(element as usize).enumerate() {
            let mut rest = index as u64;
            let mut at = start;
            for axis in (0..rank).rev() {
                at += rest % array.shape[axis] * strides[axis];
                rest /= array.shape[axis];
            }
            file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        }
        (start, strides)
    }
}
