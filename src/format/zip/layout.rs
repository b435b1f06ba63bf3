//! Laying out an archive as `torch.save` does, without the payloads.
//!
//! The rules are those of torch's `PyTorchStreamWriter` (`caffe2/serialize/inline_container.cc`) and its copy of miniz, checked against
//! files written by torch 2.15: a file laid out here and filled with the payloads and their CRCs is the same, byte for byte. With 0 for
//! every CRC it is what torch writes after `torch.serialization.set_crc32_options(False)`.

use super::ZipError;
use super::fields::{
    CENTRAL, DESCRIPTOR, END, END64, END64_LEN, FOLLOWS, LOCAL, LOCAL_LEN, LOCATOR, SATURATED, ZIP64_EXTRA,
};

/// Payloads begin at a multiple of this. Torch maps files and counts on it.
pub const ALIGNMENT: u64 = 64;

/// Bit 11: names are UTF-8.
const UTF8: u16 = 0x0800;

/// A record to be laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSpec {
    /// Its name without the prefix, e.g. `data/0`.
    pub name: String,
    /// Bytes of payload.
    pub size: u64,
}

/// A stretch of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The payload of record `.0`.
    Record(usize),
    /// The CRC-32 of the payload of record `.0`, or zeros: four bytes, little-endian.
    Crc(usize),
}

/// An archive: its pieces in order, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The pieces. Each record has one [`Piece::Record`] (also when it is empty) and a [`Piece::Crc`] in the directory, and another one
    /// behind its payload unless it is empty.
    pub pieces: Vec<Piece>,
    /// Bytes in total.
    pub size: u64,
    /// First byte of each record's payload.
    pub data: Vec<u64>,
}

impl Layout {
    /// Lays out `records` in this order, under `prefix/`.
    ///
    /// # Errors
    /// [`ZipError::NameTooLong`], [`ZipError::TooLarge`].
    pub fn new<'a>(
        prefix: &str,
        records: impl IntoIterator<Item = &'a RecordSpec>,
    ) -> Result<Self, ZipError> {
        let mut writer = Writer { pieces: Vec::new(), at: 0 };
        let mut headers = Vec::new();
        let mut data = Vec::new();
        for (index, record) in records.into_iter().enumerate() {
            let header = Header::new(prefix, record, writer.at)?;
            writer.bytes(&header.local())?;
            data.push(writer.at);
            writer.piece(Piece::Record(index), record.size)?;
            if record.size > 0 {
                writer.bytes(&DESCRIPTOR.to_le_bytes())?;
                writer.piece(Piece::Crc(index), 4)?;
                writer.bytes(&header.descriptor_sizes())?;
            }
            headers.push(header);
        }
        let directory = writer.at;
        for (index, header) in headers.iter().enumerate() {
            writer.bytes(&header.central_before_crc())?;
            writer.piece(Piece::Crc(index), 4)?;
            writer.bytes(&header.central_after_crc())?;
        }
        let end = end_records(directory, writer.at, headers.len() as u64);
        writer.bytes(&end)?;
        Ok(Self { pieces: writer.pieces, size: writer.at, data })
    }
}

struct Writer {
    pieces: Vec<Piece>,
    at: u64,
}

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ZipError> {
        self.advance(bytes.len() as u64)?;
        // Neighbours are joined, so that a plan has as few pieces as can be.
        if let Some(Piece::Bytes(last)) = self.pieces.last_mut() {
            last.extend(bytes);
        } else {
            self.pieces.push(Piece::Bytes(bytes.to_vec()));
        }
        Ok(())
    }

    fn piece(&mut self, piece: Piece, len: u64) -> Result<(), ZipError> {
        self.pieces.push(piece);
        self.advance(len)
    }

    fn advance(&mut self, len: u64) -> Result<(), ZipError> {
        self.at = self.at.checked_add(len).ok_or(ZipError::TooLarge)?;
        Ok(())
    }
}

/// What the local header, the descriptor and the directory say about a record.
struct Header {
    name: String,
    name_len: u16,
    size: u64,
    offset: u64,
}

impl Header {
    fn new(prefix: &str, record: &RecordSpec, offset: u64) -> Result<Self, ZipError> {
        let name = format!("{prefix}/{}", record.name);
        let name_len = u16::try_from(name.len()).map_err(|_| ZipError::NameTooLong { len: name.len() })?;
        Ok(Self { name, name_len, size: record.size, offset })
    }

    fn flags(&self) -> u16 {
        // An empty record has nothing behind it.
        if self.size == 0 { UTF8 } else { UTF8 | FOLLOWS }
    }

    fn has_zip64(&self) -> bool {
        self.size >= SATURATED || self.offset >= SATURATED
    }

    /// The zip64 extra field, or nothing. `stored` is the second size: not known yet (0) in the local header.
    fn zip64(&self, stored: u64) -> Vec<u8> {
        let mut fields = Vec::new();
        if self.size >= SATURATED {
            fields.extend(self.size.to_le_bytes());
            fields.extend(stored.to_le_bytes());
        }
        if self.offset >= SATURATED {
            fields.extend(self.offset.to_le_bytes());
        }
        if fields.is_empty() {
            return fields;
        }
        let mut extra = Bytes::default();
        // Three fields of eight bytes at most.
        extra.u16(ZIP64_EXTRA).u16(fields.len() as u16).raw(&fields);
        extra.0
    }

    /// The local header up to the payload.
    fn local(&self) -> Vec<u8> {
        let zip64 = self.zip64(0);
        // The padding is an extra field of its own, `FB`, which is there even where it pads nothing.
        let before = self.offset.wrapping_add((LOCAL_LEN + self.name.len() + zip64.len() + 4) as u64);
        let padding = (ALIGNMENT - before % ALIGNMENT) % ALIGNMENT;
        let mut bytes = Bytes::default();
        bytes.u32(LOCAL).u16(0).u16(self.flags()).u16(0);
        // No time, no date; CRC and sizes follow the data.
        bytes.u32(0).u32(0).u32(0).u32(0);
        bytes.u16(self.name_len).u16(zip64.len() as u16 + 4 + padding as u16);
        bytes.raw(self.name.as_bytes()).raw(&zip64);
        bytes.raw(b"FB").u16(padding as u16).raw(&vec![b'Z'; padding as usize]);
        bytes.0
    }

    /// The end of the data descriptor: both sizes, wide where the header has a zip64 field for whatever reason.
    fn descriptor_sizes(&self) -> Vec<u8> {
        let mut bytes = Bytes::default();
        if self.has_zip64() {
            bytes.u64(self.size).u64(self.size);
        } else {
            bytes.u32(self.size as u32).u32(self.size as u32);
        }
        bytes.0
    }

    fn central_before_crc(&self) -> Vec<u8> {
        let mut bytes = Bytes::default();
        bytes.u32(CENTRAL).u16(0).u16(0).u16(self.flags()).u16(0).u32(0);
        bytes.0
    }

    fn central_after_crc(&self) -> Vec<u8> {
        let zip64 = self.zip64(self.size);
        let mut bytes = Bytes::default();
        bytes.u32(saturate(self.size)).u32(saturate(self.size));
        bytes.u16(self.name_len).u16(zip64.len() as u16).u16(0);
        // Disk, internal and external attributes.
        bytes.u16(0).u16(0).u32(0);
        bytes.u32(saturate(self.offset)).raw(self.name.as_bytes()).raw(&zip64);
        bytes.0
    }
}

/// The three records behind a directory that reaches from `directory` to `end`. Torch writes the zip64 ones always.
fn end_records(directory: u64, end: u64, entries: u64) -> Vec<u8> {
    let len = end - directory;
    let mut bytes = Bytes::default();
    // Made by version 3.0 on Unix, 4.5 needed; the length leaves out the signature and itself.
    bytes.u32(END64).u64(END64_LEN as u64 - 12).u16(0x031e).u16(45).u32(0).u32(0);
    bytes.u64(entries).u64(entries).u64(len).u64(directory);
    bytes.u32(LOCATOR).u32(0).u64(end).u32(1);
    let few = entries.min(0xffff) as u16;
    bytes.u32(END).u16(0).u16(0).u16(few).u16(few).u32(saturate(len)).u32(saturate(directory)).u16(0);
    bytes.0
}

fn saturate(number: u64) -> u32 {
    number.min(SATURATED) as u32
}

/// Little-endian fields, one after the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, number: u16) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }
}
