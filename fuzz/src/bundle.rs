//! Several files in one input, each with its name: a checkpoint is files that must fit each other.
//!
//! A piece is what no text has, the name, the end of a line and the contents. What stands before the first piece is the contents of a file
//! whose name is known, so that a single file is an input too. `fuzz/seeds.py` writes such inputs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What stands before the name of a file.
const MARK: &[u8] = b"\xff\xfeF\xff";

/// Longer names are no file's.
const LONGEST_NAME: usize = 64;

/// The files of an input. Pieces with names that could lead out of a directory are left out.
#[must_use]
pub fn files<'a>(input: &'a [u8], first: &'static str) -> Vec<(&'a Path, &'a [u8])> {
    let mut pieces = split(input).into_iter();
    let first =
        pieces.next().filter(|contents| !contents.is_empty()).map(|contents| (Path::new(first), contents));
    let others = pieces.filter_map(|piece| {
        let end = piece.iter().position(|byte| *byte == b'\n')?;
        is_safe(&piece[..end]).then(|| (Path::new(OsStr::from_bytes(&piece[..end])), &piece[end + 1..]))
    });
    first.into_iter().chain(others).collect()
}

fn split(input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at + MARK.len() <= input.len() {
        if input[at..].starts_with(MARK) {
            pieces.push(&input[start..at]);
            at += MARK.len();
            start = at;
        } else {
            at += 1;
        }
    }
    pieces.push(&input[start..]);
    pieces
}

/// A file, or one in a directory.
fn is_safe(name: &[u8]) -> bool {
    let parts: Vec<_> = name.split(|byte| *byte == b'/').collect();
    let plain = |part: &&[u8]| !matches!(*part, b"" | b"." | b"..");
    name.len() <= LONGEST_NAME && !name.contains(&0) && parts.len() <= 2 && parts.iter().all(plain)
}
