//! Entries of the directory, and where the data of one begins.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashSet;

use super::fields::{
    self, CENTRAL, CENTRAL_LEN, FOLLOWS, LOCAL, LOCAL_LEN, SATURATED, ZIP64_EXTRA, u16_at, u32_at,
};
use super::{Directory, ZipError};

/// Bytes of a local header that [`data_start`] needs.
pub const LOCAL_HEADER: u64 = LOCAL_LEN as u64;

/// A stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, prefix included.
    pub name: String,
    /// First byte of its local header, from the start of the file.
    pub header_offset: u64,
    /// Bytes of data.
    pub size: u64,
    /// CRC-32 of the data as the directory has it: 0 where the writer did not compute it.
    pub crc: u32,
    /// Whether its sizes and CRC follow the data once more.
    pub described: bool,
    /// First byte after it that belongs to something else: the next entry or the directory.
    pub limit: u64,
}

/// Reads the directory: `bytes` are exactly those that `directory` names, in a file of `file_len` bytes.
///
/// Entries come in the order of the directory.
///
/// # Errors
/// Whatever makes an entry unusable: compression, encryption, sizes that disagree, places outside the file, overlaps, equal names, names
/// that are not UTF-8, a number of entries other than announced.
pub fn parse_directory(bytes: &[u8], directory: &Directory, file_len: u64) -> Result<Vec<Entry>, ZipError> {
    if bytes.len() as u64 != directory.len {
        return Err(ZipError::DirectoryLength { expected: directory.len, found: bytes.len() as u64 });
    }
    if directory.offset.checked_add(directory.len).is_none_or(|end| end > file_len) {
        return Err(malformed(directory.offset, "outside the file"));
    }
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let used = (bytes.len() as u64).saturating_sub(rest.len() as u64);
        let offset = directory.offset.saturating_add(used);
        let (entry, len) = parse_entry(rest, offset)?;
        entries.push(entry);
        rest = rest.get(len..).ok_or_else(|| malformed(offset, "cut short"))?;
    }
    let found = entries.len() as u64;
    if found != directory.entries {
        return Err(ZipError::EntryCount { announced: directory.entries, found });
    }
    check_names(&entries)?;
    set_limits(&mut entries, directory.offset)?;
    Ok(entries)
}

/// One entry and its length in the directory.
fn parse_entry(bytes: &[u8], offset: u64) -> Result<(Entry, usize), ZipError> {
    let short = || malformed(offset, "cut short");
    let half = |at| u16_at(bytes, at).ok_or_else(short);
    let word = |at| u32_at(bytes, at).map(u64::from).ok_or_else(short);
    if u32_at(bytes, 0) != Some(CENTRAL) {
        return Err(malformed(offset, "wrong signature"));
    }
    let (name_len, extra_len, comment_len) = (half(28)?.into(), half(30)?.into(), half(32)?.into());
    let name_end = CENTRAL_LEN.checked_add(name_len).ok_or_else(short)?;
    let extra_end = name_end.checked_add(extra_len).ok_or_else(short)?;
    let end = extra_end.checked_add(comment_len).filter(|end| *end <= bytes.len()).ok_or_else(short)?;
    let name = bytes.get(CENTRAL_LEN..name_end).ok_or_else(short)?;
    let name = std::str::from_utf8(name).map_err(|_| malformed(offset, "its name is not UTF-8"))?.to_owned();
    let extra = bytes.get(name_end..extra_end).ok_or_else(short)?;

    let problem = match (half(8)?, half(10)?, half(34)?) {
        (flags, _, _) if flags & 0x0041 != 0 => Some("it is encrypted"),
        (_, method, _) if method != 0 => Some("it is compressed; torch stores without compression"),
        (_, _, disk) if disk != 0 && disk != 0xffff => Some("it is in another file"),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(ZipError::Entry { name, problem });
    }
    let mut zip64 = Zip64 { rest: find_extra(extra, ZIP64_EXTRA) };
    // The order of these three is the order of the fields in the extra field (APPNOTE 4.5.3).
    let wide = [word(24)?, word(20)?, word(42)?].map(|field| zip64.widen(field));
    let [Some(size), Some(stored), Some(header_offset)] = wide else {
        return Err(ZipError::Entry { name, problem: "its zip64 field is missing or too short" });
    };
    if size != stored {
        return Err(ZipError::Entry { name, problem: "its two sizes disagree" });
    }
    let crc = u32_at(bytes, 16).ok_or_else(short)?;
    let described = half(8)? & FOLLOWS != 0;
    Ok((Entry { name, header_offset, size, crc, described, limit: 0 }, end))
}

/// The zip64 extra field: eight bytes for each saturated field, in order.
struct Zip64<'a> {
    rest: Option<&'a [u8]>,
}

impl Zip64<'_> {
    fn widen(&mut self, field: u64) -> Option<u64> {
        if field != SATURATED {
            return Some(field);
        }
        let (value, rest) = self.rest?.split_first_chunk()?;
        self.rest = Some(rest);
        Some(u64::from_le_bytes(*value))
    }
}

/// The content of the extra field with this id.
fn find_extra(mut extra: &[u8], id: u16) -> Option<&[u8]> {
    loop {
        let len = u16_at(extra, 2)?.into();
        let content = extra.get(4..)?.get(..len)?;
        if u16_at(extra, 0)? == id {
            return Some(content);
        }
        extra = extra.get(4..)?.get(len..)?;
    }
}

fn check_names(entries: &[Entry]) -> Result<(), ZipError> {
    let mut names = HashSet::new();
    match entries.iter().find(|entry| !names.insert(entry.name.as_str())) {
        Some(entry) => {
            Err(ZipError::Entry { name: entry.name.clone(), problem: "two entries have this name" })
        }
        None => Ok(()),
    }
}

/// Gives each entry the room up to what follows it, and refuses those that do not fit.
fn set_limits(entries: &mut [Entry], directory: u64) -> Result<(), ZipError> {
    let mut order: Vec<&mut Entry> = entries.iter_mut().collect();
    order.sort_by_key(|entry| entry.header_offset);
    let (mut next, mut next_name) = (directory, "the directory".to_owned());
    for entry in order.into_iter().rev() {
        // Extra fields of the local header are unknown yet; `data_start` checks again with them.
        let least = LOCAL_HEADER.checked_add(entry.name.len() as u64);
        let end = least.and_then(|least| least.checked_add(entry.size)?.checked_add(entry.header_offset));
        if end.is_none_or(|end| end > directory) {
            return Err(ZipError::Entry {
                name: entry.name.clone(),
                problem: "it reaches beyond the start of the directory",
            });
        }
        if end.is_none_or(|end| end > next) {
            return Err(ZipError::Overlap { first: entry.name.clone(), second: next_name });
        }
        entry.limit = next;
        (next, next_name) = (entry.header_offset, entry.name.clone());
    }
    Ok(())
}

/// First byte of the data of `entry`, from the start of the file. `local_header` are bytes from [`Entry::header_offset`] on:
/// [`LOCAL_HEADER`] of them at least; the name is compared as far as it is there.
///
/// # Errors
/// [`ZipError::Malformed`] and [`ZipError::Entry`] where the header is not this entry's or its data would run into what follows.
pub fn data_start(local_header: &[u8], entry: &Entry) -> Result<u64, ZipError> {
    let bad = |problem| ZipError::Malformed { what: "local header", offset: entry.header_offset, problem };
    let short = || bad("cut short");
    let half = |at| u16_at(local_header, at).ok_or_else(short);
    if u32_at(local_header, 0) != Some(LOCAL) {
        return Err(bad("wrong signature"));
    }
    let (flags, method, name_len, extra_len) = (half(6)?, half(8)?, half(26)?, half(28)?);
    let problem = if flags & 0x0041 != 0 || method != 0 {
        Some("the local header says compressed or encrypted, the directory does not")
    } else if usize::from(name_len) != entry.name.len() || !starts_alike(local_header, &entry.name) {
        Some("the local header has another name")
    } else if flags & FOLLOWS == 0 && !size_agrees(local_header, entry.size) {
        Some("the local header has another size")
    } else {
        None
    };
    if let Some(problem) = problem {
        return Err(ZipError::Entry { name: entry.name.clone(), problem });
    }
    let before = LOCAL_HEADER.saturating_add(name_len.into()).saturating_add(extra_len.into());
    let start = entry.header_offset.checked_add(before);
    let end = start.and_then(|start| start.checked_add(entry.size));
    match (start, end) {
        (Some(start), Some(end)) if end <= entry.limit => Ok(start),
        _ => Err(ZipError::Entry { name: entry.name.clone(), problem: "its data runs into what follows" }),
    }
}

/// Whether the name in a local header is `name`, as far as the bytes are there.
fn starts_alike(local_header: &[u8], name: &str) -> bool {
    let there = local_header.get(LOCAL_LEN..).unwrap_or_default();
    there.iter().zip(name.as_bytes()).all(|(a, b)| a == b)
}

/// Without a data descriptor the local header holds the size, or says that its zip64 field does.
fn size_agrees(local_header: &[u8], size: u64) -> bool {
    match u32_at(local_header, 22).map(u64::from) {
        Some(fields::SATURATED) => true,
        found => found == Some(size),
    }
}

fn malformed(offset: u64, problem: &'static str) -> ZipError {
    ZipError::Malformed { what: "directory entry", offset, problem }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::super::fields::u64_at;
    use super::*;

    #[test]
    fn extra_fields_are_searched_without_running_over() {
        let extra = b"FB\x02\x00ZZ\x01\x00\x08\x00\x01\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(find_extra(extra, 1).and_then(|field| u64_at(field, 0)), Some(1));
        for len in 0..extra.len() {
            assert_eq!(find_extra(&extra[..len], 1), None);
        }
    }
}
