//! Any pickle in an archive as torch writes it: what it says of tensors and args makes plans that read what is there.

#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ckpt_fs::format::pickle::Limits;
use ckpt_fs::format::torch::{decode_pickle, encode_pickle};
use ckpt_fs::format::zip::{Layout, Piece, RecordSpec};
use ckpt_fs::layout::LayoutSpec;
use ckpt_fs::store::FileStore;
use ckpt_fs::view::{Conversions, Format};
use harness::bounded;
use harness::checkpoint::{check_plan, conversions, opened};
use libfuzzer_sys::fuzz_target;

/// More bytes of data are not claimed: the file has to have them, if only as a hole.
const LARGEST: u64 = 1 << 40;

/// An archive of this pickle whose storages are holes, and the contents of the records before them.
fn archive(pickle: &[u8]) -> Option<(Layout, [(RecordSpec, Vec<u8>); 2], Vec<RecordSpec>)> {
    let limits = Limits { expanded: 1 << 20, ..Limits::default() };
    // Written anew, so that storages are numbered as torch numbers them.
    let encoded = encode_pickle(&decode_pickle(pickle, &limits).ok()?).ok()?;
    let spec = |name: String, size| RecordSpec { name, size };
    let small = |name: &str, content: Vec<u8>| (spec(name.to_owned(), content.len() as u64), content);
    let contents = [small("data.pkl", encoded.pickle), small("version", b"3\n".to_vec())];
    let storages = encoded.storages.iter().enumerate();
    let storages: Vec<_> = storages.map(|(n, storage)| spec(format!("data/{n}"), storage.bytes)).collect();
    let specs = contents.iter().map(|(spec, _)| spec).chain(&storages);
    let layout = Layout::new("archive", specs).ok()?;
    (layout.size < LARGEST).then_some((layout, contents, storages))
}

fn write(file: &File, layout: &Layout, contents: &[(RecordSpec, Vec<u8>)], storages: &[RecordSpec]) {
    file.set_len(layout.size).expect("long enough");
    let mut at = 0;
    let mut put = |bytes: &[u8], len: u64| {
        file.write_all_at(bytes, at).expect("written");
        at += len;
    };
    for piece in &layout.pieces {
        match piece {
            Piece::Bytes(bytes) => put(bytes, bytes.len() as u64),
            // Zero, as torch writes it where it was told not to sum.
            Piece::Crc(_) => put(&[], 4),
            Piece::Record(number) => match contents.get(*number) {
                Some((_, content)) => put(content, content.len() as u64),
                None => put(&[], storages[number - contents.len()].size),
            },
        }
    }
}

fn check_views(all: &Conversions, store: &FileStore) {
    for format in [Format::Megatron, Format::Safetensors, Format::Hf] {
        for name in ["tp1pp1", "tp2pp2"] {
            let spec = LayoutSpec::parse(name).expect("a name");
            let Ok(view) = all.layout(format, &spec).and_then(|layout| all.view(format, &layout)) else {
                continue;
            };
            for number in 0..view.files().len() {
                if let Ok(file) = view.plan(number) {
                    check_plan(&file.plan, store);
                }
            }
        }
    }
}

fuzz_target!(|pickle: &[u8]| {
    let Some((layout, contents, storages)) = archive(pickle) else { return };
    bounded(pickle.len(), 4000, 64 << 20, || {
        let (source, store) = opened(|file| write(file, &layout, &contents, &storages));
        if let Ok(source) = source
            && let Ok(all) = conversions(source, Path::new("run"))
        {
            check_views(&all, &store);
        }
    });
});
