//! Where each parameter is in the flat buffers of a distributed optimizer.
//!
//! Source: Megatron-LM's `distrib_optimizer.py` (`_compute_per_buffer_param_layout`, `get_parameter_state_dp_zero`), and what Yuan-2.0's
//! fork of an older version writes. Buffers are filled in reverse order, so that the gradients that are ready first come first.
//! Not here: which parameters share a buffer, and their order (`source`, `view`).

/// How a buffer strings its parameters together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlatRule {
    /// One after the other without gaps.
    Dense,
    /// Starts at multiples of [`ALIGNMENT`] within a bucket; the padding after a bucket is not saved.
    Aligned {
        /// A bucket is closed when it holds as many elements; `None` for a single bucket.
        bucket: Option<u64>,
    },
}

/// A parameter that is put into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatItem {
    /// Elements on this rank.
    pub elements: u64,
    /// Whether it is an embedding that other stages have too: such a one has a bucket of its own.
    pub shared_embedding: bool,
}

/// A buffer laid out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flat {
    /// First element of each parameter, in the order of the parameters.
    pub starts: Vec<u64>,
    /// Elements of the buffer.
    pub len: u64,
}

/// Elements that the start of a parameter is a multiple of.
pub(super) const ALIGNMENT: u64 = 64;

impl FlatRule {
    /// Lays out parameters, given in the model's order. `None` where sizes are beyond 64 bits.
    #[must_use]
    pub fn lay_out(self, items: &[FlatItem]) -> Option<Flat> {
        let mut starts = vec![0; items.len()];
        // `base`: where the bucket starts in what is saved. `at`: elements in it so far.
        let (mut base, mut at) = (0u64, 0u64);
        for (item, start) in items.iter().zip(starts.iter_mut()).rev() {
            if let Self::Aligned { .. } = self {
                at = at.checked_next_multiple_of(ALIGNMENT)?;
                if item.shared_embedding {
                    base = base.checked_add(at)?;
                    at = 0;
                }
            }
            *start = base.checked_add(at)?;
            at = at.checked_add(item.elements)?;
            if let Self::Aligned { bucket } = self
                && (item.shared_embedding || bucket.is_some_and(|full| at >= full))
            {
                base = base.checked_add(at)?;
                at = 0;
            }
        }
        Some(Flat { starts, len: base.checked_add(at)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(elements: u64) -> FlatItem {
        FlatItem { elements, shared_embedding: false }
    }

    #[test]
    fn the_last_parameter_comes_first() {
        let flat = FlatRule::Dense.lay_out(&[item(10), item(3), item(5)]).unwrap();
        assert_eq!((flat.starts, flat.len), (vec![8, 5, 0], 18));
    }

    #[test]
    fn starts_are_aligned_and_the_end_is_not() {
        let flat = FlatRule::Aligned { bucket: None }.lay_out(&[item(10), item(3), item(65)]).unwrap();
        assert_eq!((flat.starts, flat.len), (vec![192, 128, 0], 202));
    }

    #[test]
    fn padding_after_a_bucket_is_not_saved() {
        // The last parameter starts at 64 and fills the first bucket with 65 more; the next bucket is saved right behind them.
        let rule = FlatRule::Aligned { bucket: Some(66) };
        let flat = rule.lay_out(&[item(10), item(3), item(65), item(5)]).unwrap();
        assert_eq!((flat.starts, flat.len), (vec![193, 129, 64, 0], 203));
    }

    #[test]
    fn a_shared_embedding_has_a_bucket_of_its_own() {
        let shared = FlatItem { elements: 10, shared_embedding: true };
        let rule = FlatRule::Aligned { bucket: None };
        // Padding before its bucket is saved, padding after it is not.
        let first_stage = rule.lay_out(&[shared, item(3), item(5)]).unwrap();
        assert_eq!((first_stage.starts, first_stage.len), (vec![128, 64, 0], 138));
        let last_stage = rule.lay_out(&[item(3), item(5), shared]).unwrap();
        assert_eq!((last_stage.starts, last_stage.len), (vec![74, 10, 0], 77));
    }

    #[test]
    fn sizes_beyond_reason_are_none() {
        assert_eq!(FlatRule::Dense.lay_out(&[item(u64::MAX), item(1)]), None);
        assert_eq!(FlatRule::Aligned { bucket: None }.lay_out(&[item(1), item(u64::MAX)]), None);
    }

    /// Megatron's own way: absolute positions in the padded buffer, then every bucket moved to where it is saved.
    fn by_the_book(items: &[FlatItem], bucket: Option<u64>, dp: u64) -> Flat {
        let end_multiple = num_lcm(dp, 128);
        let pad = |at: u64, multiple: u64| at.div_ceil(multiple) * multiple;
        let (mut start, mut bucket_start, mut buckets) = (0, 0, Vec::<(u64, u64, Vec<(usize, u64)>)>::new());
        let mut in_bucket = Vec::new();
        for (index, item) in items.iter().enumerate().rev() {
            start = pad(start, 64);
            if item.shared_embedding && !in_bucket.is_empty() {
                buckets.push((bucket_start, start, std::mem::take(&mut in_bucket)));
                bucket_start = pad(start, end_multiple);
                start = bucket_start;
            }
            let end = start + item.elements;
            in_bucket.push((index, start));
            start = end;
            if bucket.is_some_and(|full| end - bucket_start >= full) || item.shared_embedding {
                buckets.push((bucket_start, end, std::mem::take(&mut in_bucket)));
                bucket_start = pad(end, end_multiple);
                start = bucket_start;
            }
        }
        if !in_bucket.is_empty() {
            buckets.push((bucket_start, start, in_bucket));
        }
        let mut flat = Flat { starts: vec![0; items.len()], len: 0 };
        for (from, to, params) in buckets {
            for (index, at) in params {
                flat.starts[index] = flat.len + at - from;
            }
            flat.len += to - from;
        }
        flat
    }

    fn num_lcm(a: u64, b: u64) -> u64 {
        (1..).map(|n| n * a).find(|n| n % b == 0).unwrap()
    }

    proptest! {
        #[test]
        fn positions_are_megatrons(
            sizes in proptest::collection::vec((1u64..300, prop::bool::weighted(0.1)), 0..30),
            bucket in prop::option::of(1u64..800), dp in 1u64..9,
        ) {
            let items: Vec<_> = sizes
                .iter()
                .map(|(elements, shared)| FlatItem { elements: *elements, shared_embedding: *shared })
                .collect();
            let flat = FlatRule::Aligned { bucket }.lay_out(&items).unwrap();
            prop_assert_eq!(flat, by_the_book(&items, bucket, dp));
        }
    }
}
