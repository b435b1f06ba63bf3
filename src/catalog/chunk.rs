//! A stored piece of a parameter, or of a tensor that is stored in several.
//!
//! Not here: which pieces make it whole (`coverage`), how they become bytes of a target file (`plan`).

use crate::extent::ObjectId;
use crate::layout::Rank;
use crate::tensor::Region;

/// The elements of a region, as one rank stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which of the parameter's elements; never empty.
    pub region: Region,
    /// The rank that stores it.
    pub rank: Rank,
    /// The file it is in.
    pub object: ObjectId,
    /// Byte in the file of the element where the region starts on every axis.
    pub start: u64,
    /// Bytes from one position to the next, for every axis.
    pub strides: Vec<u64>,
    /// Set where positions along the parameter's axis lie in groups with other parameters between them.
    pub period: Option<Period>,
}

/// Groups of `len` positions, `step` bytes from the start of one to the start of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Positions per group.
    pub len: u64,
    /// Bytes between groups.
    pub step: u64,
}

impl Chunk {
    /// Bytes from one position along `axis` to the next: none for a 0-d tensor, which has one, and `None` for an axis that is not there.
    #[must_use]
    pub fn stride(&self, axis: usize) -> Option<u64> {
        if self.strides.is_empty() && axis == 0 { Some(0) } else { self.strides.get(axis).copied() }
    }

    /// Byte of the element at `position`, which lies in the region, along the parameter's axis, and where the region starts on every other one.
    #[must_use]
    pub fn byte_of(&self, position: u64, axis: usize, stride: u64) -> u64 {
        let within = position - self.region.along(axis).start;
        match self.period {
            None => self.start + within * stride,
            Some(period) => self.start + within / period.len * period.step + within % period.len * stride,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_skip_what_lies_between_groups() {
        let chunk = Chunk {
            region: Region::new(vec![10..16]),
            rank: Rank { pp: 0, tp: 0, ep: 0 },
            object: ObjectId(0),
            start: 100,
            strides: vec![4],
            period: Some(Period { len: 2, step: 50 }),
        };
        let bytes: Vec<_> = (10..16).map(|position| chunk.byte_of(position, 0, 4)).collect();
        assert_eq!(bytes, [100, 104, 150, 154, 200, 204]);
    }
}
