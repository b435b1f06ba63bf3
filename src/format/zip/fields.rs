//! Little-endian numbers at fixed places, and the numbers that zip gives its structures (PKWARE APPNOTE 4.3).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Starts a local header.
pub(super) const LOCAL: u32 = 0x0403_4b50;
/// Starts a data descriptor.
pub(super) const DESCRIPTOR: u32 = 0x0807_4b50;
/// Starts an entry of the directory.
pub(super) const CENTRAL: u32 = 0x0201_4b50;
/// Starts the end-of-directory record.
pub(super) const END: u32 = 0x0605_4b50;
/// Starts the zip64 end-of-directory record.
pub(super) const END64: u32 = 0x0606_4b50;
/// Starts the locator of the zip64 end-of-directory record.
pub(super) const LOCATOR: u32 = 0x0706_4b50;

/// Bytes of a local header before its name.
pub(super) const LOCAL_LEN: usize = 30;
/// Bytes of a directory entry before its name.
pub(super) const CENTRAL_LEN: usize = 46;
/// Bytes of an end-of-directory record without its comment.
pub(super) const END_LEN: usize = 22;
/// Bytes of a zip64 end-of-directory record without extensions.
pub(super) const END64_LEN: usize = 56;
/// Bytes of a locator.
pub(super) const LOCATOR_LEN: usize = 20;

/// Bit 3 of the flags: sizes and CRC follow the data.
pub(super) const FOLLOWS: u16 = 0x0008;

/// Extra field that holds what does not fit 32 bits.
pub(super) const ZIP64_EXTRA: u16 = 1;
/// A 32-bit field with this value has its true value in the zip64 extra field.
pub(super) const SATURATED: u64 = 0xffff_ffff;

/// Two bytes at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

/// Four bytes at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

/// Eight bytes at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
