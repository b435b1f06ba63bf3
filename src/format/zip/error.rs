//! Why an archive cannot be read or laid out, and what a file that is no archive is instead.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::format::instead::Instead;

/// Why an archive cannot be read or laid out. Offsets are bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// No end-of-directory record: not a zip archive, or one that is cut short. [`explain`] tells which.
    #[error("no zip directory at the end of the file: it is cut short or not a zip archive")]
    NoDirectory,
    /// A file in the format torch used before 1.6.
    #[error(
        "a file in torch's old format, saved by torch < 1.6 or with _use_new_zipfile_serialization=False: \
         load and save it again with torch.save"
    )]
    OldTorch,
    /// A tar archive, which torch wrote before 0.2.
    #[error("a tar archive, as torch wrote before 0.2: load and save it again with torch.save")]
    Tar,
    /// An empty file.
    #[error("the file is empty")]
    Empty,
    /// Starts like a zip archive and has no directory.
    #[error("a zip archive without its directory: the file is cut short")]
    CutShort,
    /// Text, which is no file of torch's.
    #[error("{0}")]
    Instead(Instead),
    /// Something else.
    #[error("not a zip archive: it starts with {start:02x?}")]
    NotZip {
        /// The first bytes, at most eight.
        start: Vec<u8>,
    },
    /// A structure that does not read as what it should be.
    #[error("bad zip {what} at byte {offset}: {problem}")]
    Malformed {
        /// The structure.
        what: &'static str,
        /// Where it is.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The directory holds another number of entries than announced.
    #[error("the zip directory announces {announced} entries and holds {found}")]
    EntryCount {
        /// Number in the end-of-directory record.
        announced: u64,
        /// Number read.
        found: u64,
    },
    /// Fewer or more bytes were handed in than the directory has.
    #[error("the zip directory has {expected} bytes, {found} were read")]
    DirectoryLength {
        /// Length of the directory.
        expected: u64,
        /// Bytes handed in.
        found: u64,
    },
    /// An entry that cannot be used.
    #[error("zip entry {name:?}: {problem}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two entries whose bytes overlap.
    #[error("zip entries {first:?} and {second:?} overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other, or the directory.
        second: String,
    },
    /// Layout: a name that zip cannot hold.
    #[error("{len} bytes are too long for the name of a zip entry")]
    NameTooLong {
        /// Length in bytes.
        len: usize,
    },
    /// Layout: an archive larger than 64 bits can address.
    #[error("the archive would be larger than 2^64 bytes")]
    TooLarge,
}

/// Says what a file without a zip directory is. `head` is its start; 512 bytes tell everything apart.
#[must_use]
pub fn explain(head: &[u8]) -> ZipError {
    // The pickle of 0x1950a86a20f9469cfc6c, torch's magic number (`MAGIC_NUMBER` in torch/serialization.py), after `PROTO n`.
    const OLD_TORCH: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    if head.is_empty() {
        return ZipError::Empty;
    }
    if head.first() == Some(&0x80) && head.get(2..).is_some_and(|rest| rest.starts_with(OLD_TORCH)) {
        return ZipError::OldTorch;
    }
    if head.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return ZipError::Tar;
    }
    if head.starts_with(b"PK\x03\x04") {
        return ZipError::CutShort;
    }
    let start = || ZipError::NotZip { start: head.iter().take(8).copied().collect() };
    Instead::of_binary(head).map_or_else(start, ZipError::Instead)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_file_is_instead() {
        let told: Vec<_> = (0..4).map(|len| explain(&b"\x80\x02}!"[..len])).collect();
        let other = |start: &[u8]| ZipError::NotZip { start: start.to_vec() };
        assert_eq!(told, [ZipError::Empty, other(b"\x80"), other(b"\x80\x02"), other(b"\x80\x02}")]);
        let old = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
        assert_eq!(explain(old), ZipError::OldTorch);
        assert!(explain(old).to_string().contains("torch < 1.6"));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(explain(&tar), ZipError::Tar);
        assert_eq!(explain(b"version https://git-lfs.github.com"), ZipError::Instead(Instead::Pointer));
        assert_eq!(explain(b"PK\x03\x04rest"), ZipError::CutShort);
        assert_eq!(explain(b"\x80123456789"), ZipError::NotZip { start: b"\x801234567".to_vec() });
    }
}
