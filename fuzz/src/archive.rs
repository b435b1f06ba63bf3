//! A `.pt` file around a pickle, as torch writes it, whose storages are holes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ckpt_fs::format::pickle::Limits;
use ckpt_fs::format::torch::{decode_pickle, encode_pickle};
use ckpt_fs::format::zip::{Layout, Piece, RecordSpec};

/// More bytes of data are not claimed: the file has to have them, if only as a hole.
const LARGEST: u64 = 1 << 40;

/// An archive that can be written.
#[derive(Debug)]
pub struct Archive {
    layout: Layout,
    /// The records before the storages.
    contents: [Vec<u8>; 2],
    /// Sizes of the storages in bytes.
    storages: Vec<u64>,
}

impl Archive {
    /// That of a pickle, written anew so that storages are numbered as torch numbers them; `None` where it cannot be read.
    #[must_use]
    pub fn new(pickle: &[u8]) -> Option<Self> {
        let limits = Limits { expanded: 1 << 20, ..Limits::default() };
        let encoded = encode_pickle(&decode_pickle(pickle, &limits).ok()?).ok()?;
        let contents = [encoded.pickle, b"3\n".to_vec()];
        let storages: Vec<u64> = encoded.storages.iter().map(|storage| storage.bytes).collect();
        let small = ["data.pkl", "version"].into_iter().map(str::to_owned);
        let sizes = contents.iter().map(|content| content.len() as u64).chain(storages.iter().copied());
        let names = small.chain((0..storages.len()).map(|n| format!("data/{n}")));
        let specs: Vec<_> = names.zip(sizes).map(|(name, size)| RecordSpec { name, size }).collect();
        let layout = Layout::new("archive", &specs).ok()?;
        (layout.size < LARGEST).then_some(Self { layout, contents, storages })
    }

    /// Writes it into an empty file.
    pub fn write(&self, file: &File) {
        file.set_len(self.layout.size).expect("long enough");
        let mut at = 0;
        let mut put = |bytes: &[u8], len: u64| {
            file.write_all_at(bytes, at).expect("written");
            at += len;
        };
        for piece in &self.layout.pieces {
            match piece {
                Piece::Bytes(bytes) => put(bytes, bytes.len() as u64),
                // Zero, as torch writes it where it was told not to sum.
                Piece::Crc(_) => put(&[], 4),
                Piece::Record(number) => match self.contents.get(*number) {
                    Some(content) => put(content, content.len() as u64),
                    None => put(&[], self.storages[number - self.contents.len()]),
                },
            }
        }
    }
}
