//! A stretch of the elements of a tensor, row-major, as regions: what a flat buffer, or a partition of it, holds of a tensor.

use std::ops::Range;

use super::Region;
use crate::tensor::{Shape, product};

impl Region {
    /// The elements `elements` of a tensor, counted row-major, as regions that follow each other: at most one before and one behind the
    /// whole rows on every axis but the last, so three for a matrix. `None` for elements that a tensor of this shape does not have.
    #[must_use]
    pub fn of_flat(shape: &Shape, elements: Range<u64>) -> Option<Vec<Self>> {
        if elements.is_empty() {
            return Some(Vec::new());
        }
        if elements.end > shape.elements()? {
            return None;
        }
        let mut found = Vec::new();
        cut(&shape.0, elements, &[], &mut found)?;
        Some(found)
    }
}

/// Elements of what stands at the index `outer` of the outer axes; `sizes` are those of the axes left.
fn cut(sizes: &[u64], elements: Range<u64>, outer: &[Range<u64>], found: &mut Vec<Region>) -> Option<()> {
    let Some((_, inner)) = sizes.split_first() else {
        found.push(Region::new(outer.to_vec()));
        return Some(());
    };
    let row = product(inner)?;
    let (mut first, last) = (elements.start.checked_div(row)?, elements.end.checked_div(row)?);
    let (head, tail) = (elements.start % row, elements.end % row);
    let in_row = |index: u64, part: Range<u64>, found: &mut Vec<Region>| {
        let outer: Vec<_> = outer.iter().cloned().chain(std::iter::once(index..index.checked_add(1)?)).collect();
        cut(inner, part, &outer, found)
    };
    if first == last {
        return in_row(first, head..tail, found);
    }
    if head > 0 {
        in_row(first, head..row, found)?;
        first += 1;
    }
    if first < last {
        let rows = std::iter::once(first..last);
        let whole = outer.iter().cloned().chain(rows).chain(inner.iter().map(|size| 0..*size));
        found.push(Region::new(whole.collect()));
    }
    if tail > 0 {
        in_row(last, 0..tail, found)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(sizes: &[u64], elements: Range<u64>) -> Vec<String> {
        let regions = Region::of_flat(&Shape(sizes.to_vec()), elements).unwrap();
        regions.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stretch_is_a_broken_row_whole_rows_and_a_broken_row() {
        assert_eq!(flat(&[4, 6], 8..20), ["[1:2, 2:6]", "[2:3, 0:6]", "[3:4, 0:2]"]);
        assert_eq!(flat(&[4, 6], 0..24), ["[0:4, 0:6]"]);
        assert_eq!(flat(&[4, 6], 7..9), ["[1:2, 1:3]"]);
        assert_eq!(flat(&[4, 6], 6..18), ["[1:3, 0:6]"]);
        assert_eq!(flat(&[10], 3..7), ["[3:7]"]);
        assert_eq!(flat(&[], 0..1), ["[]"]);
        assert_eq!(flat(&[2, 3, 4], 5..23), ["[0:1, 1:2, 1:4]", "[0:1, 2:3, 0:4]", "[1:2, 0:2, 0:4]", "[1:2, 2:3, 0:3]"]);
        assert!(flat(&[0, 6], 0..0).is_empty() && flat(&[4, 6], 5..5).is_empty());
    }

    #[test]
    fn elements_that_are_not_there_are_nothing() {
        let of = |sizes: &[u64], elements| Region::of_flat(&Shape(sizes.to_vec()), elements);
        assert_eq!(of(&[4, 6], 0..25), None);
        assert_eq!(of(&[0, 6], 0..1), None);
        assert_eq!(of(&[u64::MAX, 6], 0..1), None);
    }

    /// Every stretch of every small tensor: the elements of its regions, one after the other, are those of the stretch.
    #[test]
    fn regions_of_a_stretch_are_its_elements_in_order() {
        for sizes in [vec![5], vec![3, 4], vec![2, 3, 2], vec![3, 1, 2], vec![2, 2, 2, 2]] {
            let shape = Shape(sizes.clone());
            let count = shape.elements().unwrap();
            for (start, end) in (0..=count).flat_map(|start| (start..=count).map(move |end| (start, end))) {
                let regions = Region::of_flat(&shape, start..end).unwrap();
                assert!(regions.len() <= (2 * sizes.len()).saturating_sub(1));
                let has = |element: &u64| regions.iter().position(|region| region.has(&shape.index_of(*element)));
                let held: Vec<_> = (0..count).filter_map(|element| Some((element, has(&element)?))).collect();
                assert_eq!(held.iter().map(|(element, _)| *element).collect::<Vec<_>>(), (start..end).collect::<Vec<_>>());
                assert!(held.is_sorted_by_key(|(_, region)| *region));
                assert_eq!(regions.iter().filter_map(Region::elements).sum::<u64>(), end - start);
            }
        }
    }
}
