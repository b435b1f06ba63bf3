//! Finding the directory from the end of a file.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::ZipError;
use super::fields::{self, END, END_LEN, END64, END64_LEN, LOCATOR, LOCATOR_LEN, u16_at, u32_at, u64_at};

/// Bytes at the end of a file that hold all there is to find in all but contrived files: the longest comment and the three records.
pub const TAIL: u64 = 0xffff + 22 + 20 + 56;

/// Longest directory that is read. That of three hundred thousand tensors is shorter; a longer one is there to fill memory.
const MAX_DIRECTORY: u64 = 1 << 26;

/// Longest zip64 end-of-directory record that is looked at. Extensions of it are registered but not in use.
const MAX_END64: u64 = 0x1_0000;

/// Where the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Number of entries announced.
    pub entries: u64,
}

/// What [`find_directory`] found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    /// The directory.
    Found(Directory),
    /// Call again with the bytes from here to the end of the file.
    NeedMore {
        /// First byte, from the start of the file.
        offset: u64,
        /// Number of bytes: all that follow.
        len: u64,
    },
}

/// Finds the directory in `tail`, the last bytes of a file of `file_len` bytes. [`TAIL`] bytes (or the whole file) are a good choice.
///
/// # Errors
/// [`ZipError::NoDirectory`] where there is none, [`ZipError::Malformed`] where its records contradict each other or the file's length.
pub fn find_directory(tail: &[u8], file_len: u64) -> Result<Located, ZipError> {
    let Some(start) = file_len.checked_sub(tail.len() as u64) else {
        return Err(malformed("end record", file_len, "more bytes at hand than the file has"));
    };
    let Some(end) = find_end(tail) else {
        let wanted = TAIL.min(file_len);
        if (tail.len() as u64) < wanted {
            return Ok(Located::NeedMore { offset: file_len.saturating_sub(wanted), len: wanted });
        }
        return Err(ZipError::NoDirectory);
    };
    let end_offset = start.saturating_add(end as u64);
    let bytes = tail.get(end..).unwrap_or_default();
    // Readers that do not ask where the comment ends would begin at that one.
    let comment = bytes.get(END_LEN..).unwrap_or_default();
    if comment.windows(4).any(|window| u32_at(window, 0) == Some(END)) {
        return Err(malformed("end record", end_offset, "its comment holds another end record"));
    }
    let short = || malformed("end record", end_offset, "cut short");
    let disks = (u16_at(bytes, 4).ok_or_else(short)?, u16_at(bytes, 6).ok_or_else(short)?);
    let directory = Directory {
        entries: u16_at(bytes, 10).ok_or_else(short)?.into(),
        len: u32_at(bytes, 12).ok_or_else(short)?.into(),
        offset: u32_at(bytes, 16).ok_or_else(short)?.into(),
    };

    // Torch always writes the zip64 records, other writers where a field overflows; where they are, they are right.
    let saturated = directory.entries == 0xffff
        || directory.len == fields::SATURATED
        || directory.offset == fields::SATURATED;
    match find_locator(tail, end, start == 0) {
        Locator::Unknown => {
            let len = TAIL.min(file_len);
            Ok(Located::NeedMore { offset: file_len.saturating_sub(len), len })
        }
        Locator::None if saturated => {
            Err(malformed("end record", end_offset, "its zip64 locator is missing"))
        }
        Locator::None => {
            if disks != (0, 0) {
                return Err(malformed("end record", end_offset, "the archive is split over several files"));
            }
            check(directory, end_offset).map(Located::Found)
        }
        Locator::At { locator, end64 } => {
            let locator_offset = start.saturating_add(locator as u64);
            find_end64(tail, start, locator_offset, end64, file_len)
        }
    }
}

/// Position of the end record: the last place that has its signature and a comment that ends with the file.
fn find_end(tail: &[u8]) -> Option<usize> {
    let last = tail.len().checked_sub(END_LEN)?;
    let first = last.saturating_sub(0xffff);
    (first..=last).rev().find(|at| {
        let comment = u16_at(tail, at.saturating_add(20)).map(usize::from);
        u32_at(tail, *at) == Some(END) && comment == last.checked_sub(*at)
    })
}

enum Locator {
    /// It would be before the bytes at hand.
    Unknown,
    None,
    At {
        locator: usize,
        end64: u64,
    },
}

fn find_locator(tail: &[u8], end: usize, whole: bool) -> Locator {
    let Some(locator) = end.checked_sub(LOCATOR_LEN) else {
        return if whole { Locator::None } else { Locator::Unknown };
    };
    match (u32_at(tail, locator), u64_at(tail, locator.saturating_add(8))) {
        (Some(LOCATOR), Some(end64)) => Locator::At { locator, end64 },
        _ => Locator::None,
    }
}

fn find_end64(tail: &[u8], start: u64, locator: u64, end64: u64, file_len: u64) -> Result<Located, ZipError> {
    let bad = |problem| malformed("zip64 end record", end64, problem);
    let room = locator.checked_sub(end64).ok_or_else(|| bad("behind its locator"))?;
    if room < END64_LEN as u64 || room > MAX_END64 {
        return Err(bad("not in front of its locator"));
    }
    let Some(at) = end64.checked_sub(start) else {
        return Ok(Located::NeedMore { offset: end64, len: file_len.saturating_sub(end64) });
    };
    let bytes = usize::try_from(at).ok().and_then(|at| tail.get(at..)).unwrap_or_default();
    let short = || bad("cut short");
    if u32_at(bytes, 0) != Some(END64) {
        return Err(bad("wrong signature"));
    }
    // The size field does not count the signature and itself.
    if u64_at(bytes, 4).and_then(|size| size.checked_add(12)) != Some(room) {
        return Err(bad("its length does not lead to its locator"));
    }
    if (u32_at(bytes, 16), u32_at(bytes, 20)) != (Some(0), Some(0)) {
        return Err(bad("the archive is split over several files"));
    }
    let directory = Directory {
        entries: u64_at(bytes, 32).ok_or_else(short)?,
        len: u64_at(bytes, 40).ok_or_else(short)?,
        offset: u64_at(bytes, 48).ok_or_else(short)?,
    };
    check(directory, end64).map(Located::Found)
}

/// The directory must end where the records after it begin: then nothing lies between that we would not see.
fn check(directory: Directory, limit: u64) -> Result<Directory, ZipError> {
    if directory.len > MAX_DIRECTORY {
        return Err(malformed("directory", directory.offset, "it is longer than that of any checkpoint"));
    }
    if directory.offset.checked_add(directory.len) == Some(limit) {
        return Ok(directory);
    }
    Err(malformed("directory", directory.offset, "it does not end where its end record begins"))
}

fn malformed(what: &'static str, offset: u64, problem: &'static str) -> ZipError {
    ZipError::Malformed { what, offset, problem }
}
