//! Turns the plain numbers that property tests draw into choices that a model allows.

/// One of them; any index is good.
pub fn pick<T: Clone>(list: &[T], index: usize) -> T {
    list[index % list.len()].clone()
}

/// Stages of `layers` layers, as a list of ends makes them.
pub fn stages(layers: u32, ends: &[u32]) -> Vec<u32> {
    let mut ends: Vec<u32> = ends.iter().map(|end| 1 + end % layers).filter(|end| *end < layers).collect();
    ends.extend([0, layers]);
    ends.sort_unstable();
    ends.dedup();
    ends.windows(2).map(|pair| pair[1] - pair[0]).collect()
}
