//! Headers of safetensors files: what is read here the format's own library reads too, and what was read is written so that it reads the same.

use crate::bounded;
use ckpt_fs::format::ranks::RankHeader;
use ckpt_fs::format::safetensors::{Header, PREFIX, SafetensorsError, decode, encode, header_len};
use safetensors::SafeTensorError;

/// The header in a file that is as long as it says.
fn read(json: &[u8]) -> Option<(Header, u64)> {
    let bare = PREFIX + json.len() as u64;
    match bounded(json.len(), 100, 1 << 14, || decode(json, bare)) {
        Ok(header) => Some((header, bare)),
        Err(SafetensorsError::Length { expected, .. }) => {
            let len = bare.checked_add(expected)?;
            Some((decode(json, len).expect("as long as it says"), len))
        }
        Err(_) => None,
    }
}

fn check_written(header: &Header) {
    let tensors: Vec<_> = header.tensors.iter().map(|t| (t.name.clone(), t.dtype, t.shape.clone())).collect();
    let (bytes, order) = encode(&header.metadata, &tensors, 4096).expect("what was read is written");
    let (again, len) = read(&bytes[PREFIX as usize..]).expect("what was written is read");
    let prefix = *bytes.first_chunk().expect("a length");
    assert_eq!(header_len(prefix, len), Ok(bytes.len() as u64 - PREFIX));
    assert_eq!((bytes.len() % 4096, &again.metadata), (0, &header.metadata));
    assert_eq!(again.tensors.len(), order.len());
    // Tensors without bytes have no place of their own, and may come in any order.
    let full = |name: &str| again.tensors.iter().find(|t| *t.name == *name).expect("it is there");
    for (name, dtype, shape) in &tensors {
        assert_eq!((full(name).dtype, &full(name).shape), (*dtype, shape));
    }
}

/// What this tool adds to the metadata of its own files.
fn check_rank(header: &Header) {
    let Ok(rank) = RankHeader::decode(&header.metadata) else { return };
    let written = rank.encode();
    assert_eq!(RankHeader::decode(&written).expect("what was written is read").encode(), written);
}

/// The library wants the data too.
fn check_library(json: &[u8], len: u64) {
    const LARGEST: u64 = 1 << 16;
    if len > LARGEST {
        return;
    }
    let mut whole = (json.len() as u64).to_le_bytes().to_vec();
    whole.extend(json);
    whole.resize(len as usize, 0);
    match safetensors::SafeTensors::read_metadata(&whole) {
        Ok(_) => {}
        // What an entry has beside type, shape and place is skipped here; the library reads it, and has its limits.
        Err(SafeTensorError::InvalidHeaderDeserialization(error))
            if ["number out of range", "recursion limit"]
                .iter()
                .any(|limit| error.to_string().contains(limit)) => {}
        Err(error) => panic!("the library refuses it: {error:?}"),
    }
}

/// Holds one input against what must be so.
pub fn run(json: &[u8]) {
    let Some((header, len)) = read(json) else { return };
    check_library(json, len);
    check_written(&header);
    check_rank(&header);
}
