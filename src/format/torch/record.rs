//! The records of a checkpoint in torch's order, with the contents of the small ones.
//!
//! As written by torch 2.15. Its reader counts on this order and on the alignment when it computes where a storage is (with
//! `calculate_storage_offsets`), so nothing may be left out or moved.

use crate::format::zip::RecordSpec;

/// A record and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name without the prefix, and size.
    pub spec: RecordSpec,
    /// Where its bytes come from.
    pub content: Content,
}

/// Where the bytes of a record come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The pickle.
    Pickle,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Storage number `.0`.
    Storage(usize),
}

/// The records of a checkpoint with a pickle of `pickle_len` bytes and storages of these sizes in bytes.
#[must_use]
pub fn records(pickle_len: u64, storages: &[u64]) -> Vec<Record> {
    let mut records = vec![
        Record { spec: RecordSpec { name: "data.pkl".into(), size: pickle_len }, content: Content::Pickle },
        small(".format_version", b"1"),
        small(".storage_alignment", b"64"),
        small("byteorder", b"little"),
    ];
    for (index, size) in storages.iter().enumerate() {
        let spec = RecordSpec { name: format!("data/{index}"), size: *size };
        records.push(Record { spec, content: Content::Storage(index) });
    }
    records.push(small("version", b"3\n"));
    let id = serialization_id(&records);
    records.push(small(".data/serialization_id", id.as_bytes()));
    records
}

fn small(name: &str, content: &[u8]) -> Record {
    let spec = RecordSpec { name: name.into(), size: content.len() as u64 };
    Record { spec, content: Content::Bytes(content.to_vec()) }
}

/// Forty digits. Torch makes twenty of a hash of the names and twenty of the CRCs of the contents; nothing reads them. Contents are not
/// known here, so sizes take their place: the same layout always has the same id.
fn serialization_id(records: &[Record]) -> String {
    let mut names = Fnv::new();
    let mut sizes = Fnv::new();
    for record in records {
        names.add(record.spec.name.as_bytes());
        names.add(&[0]);
        sizes.add(&record.spec.size.to_le_bytes());
    }
    format!("{:020}{:020}", names.0, sizes.0)
}

/// FNV-1a with 64 bits: its results never change with a version of something.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
