//! Where torch puts the data of an entry, from what the directory says of it.
//!
//! Local headers lie all over a file of many GB, and reading each of them is what opening it would take longest for. Torch computes these
//! places too (`calculate_storage_offsets`). Not here: reading them from local headers (`entry`), which holds for any writer.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Entry;
use super::fields::{LOCAL_LEN, SATURATED};
use super::layout::ALIGNMENT;

/// First byte of the data, if this entry fills the room up to its limit exactly as torch would have filled it. `None` for any other:
/// its local header must be read.
#[must_use]
pub fn torch_start(entry: &Entry) -> Option<u64> {
    // A zip64 field holds both sizes and the offset, those of them that do not fit.
    let wide_size = if entry.size >= SATURATED { 16 } else { 0 };
    let wide_offset = if entry.header_offset >= SATURATED { 8 } else { 0 };
    let zip64 = if wide_size | wide_offset == 0 { 0 } else { 4 | wide_size | wide_offset };
    // Then comes the padding, a field of its own even where it pads nothing.
    let fields = [LOCAL_LEN as u64, entry.name.len() as u64, zip64, 4];
    let before = fields.into_iter().try_fold(entry.header_offset, u64::checked_add)?;
    let start = before.checked_next_multiple_of(ALIGNMENT)?;
    // What follows the data: a signature, the CRC and both sizes.
    let descriptor = match (entry.size, zip64) {
        (0, _) => 0,
        (_, 0) => 4 + 4 + 8,
        _ => 4 + 4 + 16,
    };
    let end = start.checked_add(entry.size)?.checked_add(descriptor)?;
    (end == entry.limit && entry.described == (entry.size > 0)).then_some(start)
}
