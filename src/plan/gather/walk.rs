//! How the rows of a tensor are walked over the axes before the one that it is cut along.

/// Whether one step walks the axes `outer[from..]`: each steps exactly over the one inside it.
pub(super) fn walks_in_one_step(outer: &[u64], strides: &[u64], from: usize) -> bool {
    let axes: Vec<_> = outer.iter().zip(strides).skip(from).filter(|(size, _)| **size != 1).collect();
    axes.windows(2).all(|pair| match pair {
        [(_, stride), (inner_size, inner_stride)] => inner_stride.checked_mul(**inner_size) == Some(**stride),
        _ => true,
    })
}

/// Bytes from one row to the next along the innermost outer axis that has rows.
pub(super) fn innermost_step(outer: &[u64], strides: &[u64]) -> u64 {
    match outer.iter().zip(strides).rev().find(|(size, _)| **size != 1) {
        Some((_, stride)) => *stride,
        // There is one row.
        None => 0,
    }
}

/// Bytes from index 0 to index `round` of the axes `sizes`, counted row-major.
pub(super) fn shift(mut round: u64, sizes: &[u64], strides: &[u64]) -> u64 {
    let mut shift = 0;
    for (size, stride) in sizes.iter().zip(strides).rev() {
        shift += round % size * stride;
        round /= size;
    }
    shift
}
