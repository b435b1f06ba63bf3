//! Regions: boxes of positions, a range on every axis of a tensor or parameter.
//!
//! Not here: where the bytes of a region are (`catalog`), and which bytes make a file (`plan`).

mod flat;
mod sweep;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

pub use sweep::{Slab, slabs};

use super::{Shape, product};

/// A range of positions on every axis, outermost first. That of a 0-d tensor has no axes and is its one element.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Region(Box<[Range<u64>]>);

impl Region {
    /// These ranges. One that ends before it starts is empty.
    #[must_use]
    pub fn new(ranges: Vec<Range<u64>>) -> Self {
        Self(ranges.into())
    }

    /// All of a tensor.
    #[must_use]
    pub fn whole(shape: &Shape) -> Self {
        Self(shape.0.iter().map(|size| 0..*size).collect())
    }

    /// So many positions from an offset on, on every axis; `None` where the two have not as many axes, or an end does not fit 64 bits.
    #[must_use]
    pub fn at(offsets: &[u64], sizes: &[u64]) -> Option<Self> {
        if offsets.len() != sizes.len() {
            return None;
        }
        let ranges = offsets.iter().zip(sizes).map(|(start, size)| Some(*start..start.checked_add(*size)?));
        ranges.collect::<Option<_>>().map(Self)
    }

    /// All of a tensor on every axis but `axis`, and these positions on it. A 0-d tensor has no axis to be cut along.
    #[must_use]
    pub fn slab(shape: &Shape, axis: usize, span: Range<u64>) -> Self {
        Self::whole(shape).with(axis, span)
    }

    /// The ranges, outermost axis first.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// Positions along `axis`: the only one for a 0-d tensor, none for an axis that there is not.
    #[must_use]
    pub fn along(&self, axis: usize) -> Range<u64> {
        match self.0.get(axis) {
            Some(range) => range.clone(),
            None if self.0.is_empty() && axis == 0 => 0..1,
            None => 0..0,
        }
    }

    /// The same region with other positions along `axis`, where it has that axis.
    #[must_use]
    pub fn with(mut self, axis: usize, span: Range<u64>) -> Self {
        if let Some(range) = self.0.get_mut(axis) {
            *range = span;
        }
        self
    }

    /// Sizes of the region.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape(self.0.iter().map(|range| range.end.saturating_sub(range.start)).collect())
    }

    /// Number of elements; `None` where it does not fit 64 bits.
    #[must_use]
    pub fn elements(&self) -> Option<u64> {
        product(&self.shape().0)
    }

    /// Whether it has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().any(Range::is_empty)
    }

    /// Whether it lies inside a tensor of this shape.
    #[must_use]
    pub fn is_inside(&self, shape: &Shape) -> bool {
        self.0.len() == shape.rank() && self.0.iter().zip(&shape.0).all(|(range, size)| range.end <= *size)
    }

    /// Whether it is all of a tensor of this shape on every axis but `axis`.
    #[must_use]
    pub fn is_whole_beside(&self, axis: usize, shape: &Shape) -> bool {
        self.0.len() == shape.rank()
            && self.0.iter().zip(&shape.0).enumerate().all(|(k, (range, size))| k == axis || *range == (0..*size))
    }

    /// Whether it has every element of `other`, which has as many axes.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(own, other)| own.start <= other.start && other.end <= own.end)
    }

    /// Whether it has the element at `index`.
    #[must_use]
    pub fn has(&self, index: &[u64]) -> bool {
        self.0.len() == index.len() && self.0.iter().zip(index).all(|(range, position)| range.contains(position))
    }
}

impl Ord for Region {
    /// By where they start, outermost axis first; of those that start alike, by where they end.
    fn cmp(&self, other: &Self) -> Ordering {
        let starts = self.0.iter().map(|range| range.start).cmp(other.0.iter().map(|range| range.start));
        starts.then_with(|| self.0.iter().map(|range| range.end).cmp(other.0.iter().map(|range| range.end)))
    }
}

impl PartialOrd for Region {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Region {
    /// `[0:4, 16:32]`, as one would slice it in Python.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}:{}", range.start, range.end)?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(ranges: &[Range<u64>]) -> Region {
        Region::new(ranges.to_vec())
    }

    #[test]
    fn a_region_of_no_axes_is_one_element() {
        let scalar = Region::whole(&Shape(vec![]));
        assert_eq!((scalar.elements(), scalar.is_empty(), scalar.along(0), scalar.along(1)), (Some(1), false, 0..1, 0..0));
        assert!(scalar.has(&[]) && scalar.is_inside(&Shape(vec![])) && scalar.is_whole_beside(0, &Shape(vec![])));
        assert_eq!(scalar.clone().with(0, 3..4), scalar);
    }

    #[test]
    fn regions_are_inside_beside_and_in_one_another() {
        let (shape, own) = (Shape(vec![8, 6]), region(&[2..4, 0..6]));
        assert!(own.is_inside(&shape) && own.is_whole_beside(0, &shape) && !own.is_whole_beside(1, &shape));
        assert!(!own.is_inside(&Shape(vec![8])) && !own.is_whole_beside(0, &Shape(vec![8])));
        assert!(!own.is_inside(&Shape(vec![3, 6])));
        assert!(Region::whole(&shape).contains(&own) && !own.contains(&Region::whole(&shape)));
        assert!(own.has(&[3, 5]) && !own.has(&[4, 5]) && !own.has(&[3]));
        assert_eq!((own.shape(), own.elements()), (Shape(vec![2, 6]), Some(12)));
        assert_eq!(own.to_string(), "[2:4, 0:6]");
    }

    #[test]
    fn offsets_and_sizes_are_checked() {
        assert_eq!(Region::at(&[2, 0], &[2, 6]), Some(region(&[2..4, 0..6])));
        assert_eq!(Region::at(&[2], &[2, 6]), None);
        assert_eq!(Region::at(&[2], &[u64::MAX]), None);
        assert!(Region::at(&[8, 0], &[0, 6]).is_some_and(|none| none.is_empty()));
    }

    #[test]
    fn regions_are_in_the_order_of_their_starts() {
        let mut all = [region(&[4..8, 0..2]), region(&[0..4, 2..4]), region(&[0..9, 0..1]), region(&[0..4, 0..2])];
        all.sort();
        let said: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["[0:4, 0:2]", "[0:9, 0:1]", "[0:4, 2:4]", "[4:8, 0:2]"]);
    }
}
