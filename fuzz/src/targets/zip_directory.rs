//! Zip directories: entries lie apart and inside the file, and an archive laid out for them reads as them.

use crate::bounded;
use crate::holed::Holed;
use ckpt_fs::format::zip::{
    Entry, Layout, Located, Piece, RecordSpec, TAIL, data_start, find_directory, parse_directory, torch_start,
};

/// A directory longer than that is not read here: it would mostly be zeros of the hole.
const LONGEST: u64 = 1 << 20;

/// Steps as a source takes them, from little of the end to as much as is asked for.
fn entries(file: &Holed<'_>) -> Option<Vec<Entry>> {
    let mut start = file.size().saturating_sub(64);
    let directory = loop {
        match find_directory(&file.read(start, file.size() - start), file.size()).ok()? {
            Located::Found(directory) => break directory,
            Located::NeedMore { offset, len } => {
                assert!(offset < start && len <= 2 * TAIL, "asks for what it has, or for everything");
                start = offset;
            }
        }
    };
    assert!(directory.offset + directory.len <= file.size());
    let bytes = (directory.len <= LONGEST).then(|| file.read(directory.offset, directory.len))?;
    bounded(bytes.len(), 64, 1 << 14, || parse_directory(&bytes, &directory, file.size())).ok()
}

fn check_places(entries: &[Entry], file: &Holed<'_>) {
    for entry in entries {
        let starts = [data_start(&file.read(entry.header_offset, 256), entry).ok(), torch_start(entry)];
        for start in starts.into_iter().flatten() {
            assert!(start > entry.header_offset && start + entry.size <= entry.limit);
        }
        let inside =
            entries.iter().filter(|other| (entry.header_offset..entry.limit).contains(&other.header_offset));
        assert_eq!(inside.count(), 1, "{} holds another", entry.name);
    }
}

fn check_written(entries: &[Entry]) {
    let spec = |entry: &Entry| RecordSpec { name: entry.name.clone(), size: entry.size };
    let specs: Vec<_> = entries.iter().map(spec).collect();
    let Ok(layout) = Layout::new("p", &specs) else { return };
    // Everything behind the last payload, which is where the directory is.
    let mut end: Vec<u8> = Vec::new();
    for piece in &layout.pieces {
        match piece {
            Piece::Bytes(bytes) => end.extend(bytes),
            Piece::Crc(_) => end.extend([0; 4]),
            Piece::Record(_) => end.clear(),
        }
    }
    let Ok(Located::Found(found)) = find_directory(&end, layout.size) else { panic!("no directory") };
    let from = end.len() - (layout.size - found.offset) as usize;
    let again = parse_directory(&end[from..][..found.len as usize], &found, layout.size).expect("its own");
    let described: Vec<_> = again.iter().map(|entry| (entry.name.clone(), entry.size)).collect();
    let wanted: Vec<_> = specs.iter().map(|spec| (format!("p/{}", spec.name), spec.size)).collect();
    assert_eq!(described, wanted);
    let starts: Vec<_> = again.iter().map(torch_start).collect();
    assert_eq!(starts, layout.data.iter().map(|start| Some(*start)).collect::<Vec<_>>());
}

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let Some(file) = Holed::new(input) else { return };
    if let Some(entries) = entries(&file) {
        check_places(&entries, &file);
        check_written(&entries);
    }
}
