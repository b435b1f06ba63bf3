//! Archives made here, taken apart again, and spoiled. That the layout is torch's own is tested on files written by torch
//! (`tests/it/torch_files.rs`); places at and beyond 4 GiB are pinned here as torch 2.15 wrote them.

mod edges;

use super::*;

fn spec(name: &str, size: u64) -> RecordSpec {
    RecordSpec { name: name.into(), size }
}

/// The layout as bytes: every payload is zeros, every CRC is 0.
fn bytes(layout: &Layout, records: &[RecordSpec]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in &layout.pieces {
        match piece {
            Piece::Bytes(piece) => bytes.extend(piece),
            Piece::Record(index) => bytes.extend(vec![0; usize::try_from(records[*index].size).unwrap()]),
            Piece::Crc(_) => bytes.extend([0; 4]),
        }
    }
    assert_eq!(bytes.len() as u64, layout.size);
    bytes
}

fn small() -> Vec<u8> {
    let records = [spec("data.pkl", 10), spec("data/0", 0), spec("data/1", 100)];
    bytes(&Layout::new("x", &records).unwrap(), &records)
}

fn read(file: &[u8]) -> Result<Vec<Entry>, ZipError> {
    let len = file.len() as u64;
    let Located::Found(directory) = find_directory(file, len)? else { panic!("all bytes are there") };
    let start = usize::try_from(directory.offset).unwrap();
    let end = start + usize::try_from(directory.len).unwrap();
    parse_directory(&file[start..end], &directory, len)
}

fn position(file: &[u8], signature: &[u8], nth: usize) -> usize {
    file.windows(4).enumerate().filter(|(_, window)| *window == signature).nth(nth).unwrap().0
}

#[test]
fn reads_what_it_lays_out() {
    let file = small();
    let entries = read(&file).unwrap();
    let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.size)).collect();
    assert_eq!(names, [("x/data.pkl", 10), ("x/data/0", 0), ("x/data/1", 100)]);
    for entry in &entries {
        let header = &file[usize::try_from(entry.header_offset).unwrap()..];
        assert_eq!(data_start(&header[..30], entry).unwrap() % 64, 0);
        assert_eq!(torch_start(entry), data_start(header, entry).ok());
        assert_eq!(data_start(header, entry), data_start(&header[..30], entry));
        assert!(matches!(data_start(&header[..29], entry), Err(ZipError::Malformed { .. })));
    }
    // The header of another entry is not taken for this one's.
    let other = &file[usize::try_from(entries[2].header_offset).unwrap()..];
    assert!(matches!(data_start(other, &entries[1]), Err(ZipError::Entry { .. })));
}

#[test]
fn asks_for_what_it_needs() {
    let file = small();
    let len = file.len() as u64;
    let whole = find_directory(&file, len).unwrap();
    assert_eq!(find_directory(&[], len).unwrap(), Located::NeedMore { offset: 0, len });
    for tail in 1..=file.len() {
        match find_directory(&file[file.len() - tail..], len).unwrap() {
            Located::NeedMore { offset, len: more } => {
                assert_eq!(offset + more, len);
                assert!(more > tail as u64);
                let start = usize::try_from(offset).unwrap();
                assert_eq!(find_directory(&file[start..], len).unwrap(), whole);
            }
            found @ Located::Found(_) => assert_eq!(found, whole),
        }
    }
}

#[test]
fn archives_of_other_writers() {
    // Without zip64 records, with a comment: as Python's zipfile writes a small one.
    let mut file = small();
    let end64 = position(&file, b"PK\x06\x06", 0);
    file.drain(end64..end64 + 76);
    let len = file.len();
    file[len - 2..].copy_from_slice(&[3, 0]);
    file.extend(b"abc");
    assert_eq!(read(&file).unwrap().len(), 3);
    // A file that is nothing but an end record.
    let mut empty = b"PK\x05\x06".to_vec();
    empty.extend([0; 18]);
    assert_eq!(
        read(&[b"....", &*empty].concat()).unwrap_err().to_string(),
        "bad zip directory at byte 0: it does not end where its end record begins"
    );
}

#[test]
fn spoiled_archives_are_named() {
    // (structure, which one, byte within it, new value, what the error says)
    let cases: &[(&[u8], usize, usize, u8, &str)] = &[
        (b"PK\x01\x02", 2, 10, 8, "compressed"),
        (b"PK\x01\x02", 0, 8, 9, "encrypted"),
        (b"PK\x01\x02", 2, 20, 99, "two sizes disagree"),
        (b"PK\x01\x02", 2, 34, 1, "another file"),
        (b"PK\x01\x02", 2, 46 + 7, b'0', "two entries have this name"),
        (b"PK\x01\x02", 2, 46, 0xff, "not UTF-8"),
        (b"PK\x01\x02", 1, 0, b'Q', "wrong signature"),
        (b"PK\x01\x02", 2, 32, 200, "cut short"),
        (b"PK\x01\x02", 2, 43, 0xff, "beyond the start of the directory"),
        (b"PK\x01\x02", 2, 42, 0, "overlap"),
        (b"PK\x06\x06", 0, 32, 4, "announces 4 entries and holds 3"),
        (b"PK\x06\x06", 0, 0, b'Q', "wrong signature"),
        (b"PK\x06\x06", 0, 4, 45, "does not lead to its locator"),
        (b"PK\x06\x06", 0, 16, 1, "split"),
        (b"PK\x06\x06", 0, 40, 1, "does not end where its end record begins"),
        (b"PK\x06\x06", 0, 55, 0xff, "does not end where its end record begins"),
        (b"PK\x06\x07", 0, 15, 0xff, "behind its locator"),
        (b"PK\x06\x07", 0, 8, 0, "zip64 end record"),
    ];
    for (signature, nth, at, value, expected) in cases {
        let mut file = small();
        let start = position(&file, signature, *nth);
        assert_ne!(file[start + at], *value);
        file[start + at] = *value;
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} instead of {expected}");
    }
}

#[test]
fn local_headers_are_checked() {
    let file = small();
    let entry = &read(&file).unwrap()[2];
    let header = &file[usize::try_from(entry.header_offset).unwrap()..];
    // (byte, new value, what the error says)
    for (at, value, expected) in [
        (0, b'Q', "wrong signature"),
        (8, 8, "compressed"),
        (26, 3, "another name"),
        (30, b'y', "another name"),
        (6, 0, "another size"),
        (29, 0xff, "runs into what follows"),
    ] {
        let mut header = header.to_vec();
        header[at] = value;
        let error = data_start(&header, entry).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} instead of {expected}");
    }
}

/// What another writer leaves more or less room for is not where torch would have put it.
#[test]
fn places_of_torch_are_told_from_those_of_others() {
    let entries = read(&small()).unwrap();
    for entry in &entries {
        for by in [1, 4, 8, 12, 64] {
            assert_eq!(torch_start(&Entry { limit: entry.limit + by, ..entry.clone() }), None);
            assert_eq!(torch_start(&Entry { limit: entry.limit - by, ..entry.clone() }), None);
            assert_eq!(torch_start(&Entry { size: entry.size + by, ..entry.clone() }), None);
        }
        assert_eq!(torch_start(&Entry { described: !entry.described, ..entry.clone() }), None);
    }
    let beyond = Entry { header_offset: u64::MAX - 40, ..entries[2].clone() };
    assert_eq!(torch_start(&beyond), None);
}

/// Where the data of each record is, by the directory of a layout whose payloads are not there.
fn computed(layout: &Layout, prefix: &str, records: &[RecordSpec]) -> Vec<u64> {
    let mut directory = Vec::new();
    let payloads = layout.pieces.iter().rposition(|piece| matches!(piece, Piece::Record(_))).unwrap();
    for piece in &layout.pieces[payloads + 1..] {
        match piece {
            Piece::Bytes(bytes) => directory.extend(bytes),
            _ => directory.extend([0; 4]),
        }
    }
    let Located::Found(found) = find_directory(&directory, layout.size).unwrap() else {
        panic!("it is there")
    };
    let at = usize::try_from(found.offset - (layout.size - directory.len() as u64)).unwrap();
    let bytes = &directory[at..at + usize::try_from(found.len).unwrap()];
    let entries = parse_directory(bytes, &found, layout.size).unwrap();
    assert_eq!(entries.len(), records.len());
    assert_eq!(entries[0].name, format!("{prefix}/{}", records[0].name));
    entries.iter().map(|entry| torch_start(entry).unwrap()).collect()
}

/// Sizes of files that torch 2.15 wrote sparsely (`torch.serialization.skip_data`).
#[test]
fn places_beyond_four_gib() {
    let size = |prefix: &str, pickle: u64, storages: &[u64]| -> u64 {
        let mut records = vec![spec("data.pkl", pickle), spec(".format_version", 1)];
        records.extend([spec(".storage_alignment", 2), spec("byteorder", 6)]);
        records.extend(storages.iter().enumerate().map(|(i, size)| spec(&format!("data/{i}"), *size)));
        records.extend([spec("version", 2), spec(".data/serialization_id", 40)]);
        let layout = Layout::new(prefix, &records).unwrap();
        assert!(layout.data.iter().all(|start| start % 64 == 0));
        assert_eq!(computed(&layout, prefix, &records), layout.data);
        layout.size
    };
    assert_eq!(size("a", 105, &[0xffff_fffe, 5]), 4_294_968_865);
    assert_eq!(size("b", 105, &[0xffff_ffff, 5]), 4_294_968_949);
    assert_eq!(size("c", 126, &[0x1_0000_0000, 0, 5]), 4_294_969_143);
    // The header of data/2, which is empty, is at 0xffff_ffd3 and that of data/3 at 4 GiB.
    assert_eq!(size("p", 147, &[0xfffffd2c, 3, 0, 5]), 4_294_968_397);
    let many = [0xffff_fffe, 0xffff_ffff, 0x1_0000_0000, 4_400_000_000, 0, 1];
    assert_eq!(size("q", 204, &many), 17_284_904_345);
}
