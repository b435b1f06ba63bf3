//! The last value that is taken and the first that is not, and fields that stand beside others.

use super::super::fields::{CENTRAL, END, END64, LOCATOR};
use super::*;

/// An end record, and what it says.
fn end(disks: [u8; 4], entries: u16, len: u32, offset: u32, comment: &[u8]) -> Vec<u8> {
    let mut bytes = END.to_le_bytes().to_vec();
    bytes.extend(disks);
    bytes.extend([entries.to_le_bytes(), entries.to_le_bytes()].concat());
    bytes.extend([len.to_le_bytes(), offset.to_le_bytes()].concat());
    bytes.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
    [bytes, comment.to_vec()].concat()
}

/// The three records behind a directory of `len` bytes at `offset`, the first of them `room` bytes long.
fn end64(len: u64, offset: u64, room: usize) -> Vec<u8> {
    let mut bytes = END64.to_le_bytes().to_vec();
    bytes.extend((room as u64 - 12).to_le_bytes());
    bytes.extend([0x1e, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [0, 0, len, offset] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.resize(room, 0);
    bytes.extend(LOCATOR.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((offset + len).to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    [bytes, end([0; 4], 0xffff, 0xffff_ffff, 0xffff_ffff, b"")].concat()
}

/// Finds the directory whose records are the end of a file that has `before` bytes in front of them.
fn found(records: &[u8], before: u64) -> Result<Located, String> {
    let buffered = vec![0; usize::try_from(before.min(100)).unwrap()];
    let tail = [&buffered, records].concat();
    find_directory(&tail, before + records.len() as u64).map_err(|error| error.to_string())
}

/// An entry of the directory.
fn central(name: &str, size: u32, offset: u32, extra: &[u8], comment: &[u8]) -> Vec<u8> {
    let half = |len: usize| u16::try_from(len).unwrap().to_le_bytes();
    let mut bytes = CENTRAL.to_le_bytes().to_vec();
    bytes.extend([0; 12]);
    bytes.extend(0x0102_0304u32.to_le_bytes());
    bytes.extend([size.to_le_bytes(), size.to_le_bytes()].concat());
    bytes.extend([half(name.len()), half(extra.len()), half(comment.len())].concat());
    bytes.extend([0; 8]);
    bytes.extend(offset.to_le_bytes());
    [&bytes, name.as_bytes(), extra, comment].concat()
}

/// Reads these entries as a directory at `offset` that is the end of its file.
fn parsed(entries: &[Vec<u8>], offset: u64) -> Result<Vec<Entry>, String> {
    let bytes = entries.concat();
    let directory = Directory { offset, len: bytes.len() as u64, entries: entries.len() as u64 };
    parse_directory(&bytes, &directory, offset + directory.len).map_err(|error| error.to_string())
}

#[test]
fn comments_of_an_archive_may_be_anything_but_another_end() {
    let with = |comment: &[u8]| found(&end([0; 4], 0, 0, 9, comment), 9);
    let empty = Ok(Located::Found(Directory { offset: 9, len: 0, entries: 0 }));
    for comment in
        [&b""[..], b"abc", b"abcd", b"abcdefgh", b"a comment that ends with nothing\0\0", b"PK\x05\x07"]
    {
        assert_eq!(with(comment), empty, "{comment:?}");
    }
    assert_eq!(with(&[b'c'; 0xffff]), empty);
    for comment in [&b"PK\x05\x06"[..], b"xPK\x05\x06", b"PK\x05\x06x", b"xyPK\x05\x06z"] {
        let error = with(comment).unwrap_err();
        assert!(error.contains("its comment holds another end record"), "{comment:?}: {error}");
    }
}

#[test]
fn archives_in_several_files_are_refused_whichever_byte_says_so() {
    for byte in 0..4 {
        let mut disks = [0; 4];
        disks[byte] = 1;
        let error = found(&end(disks, 0, 0, 9, b""), 9).unwrap_err();
        assert!(error.contains("split over several files"), "{byte}: {error}");
    }
    for byte in 16..24 {
        let mut records = end64(0, 9, 56);
        records[byte] = 1;
        let error = found(&records, 9).unwrap_err();
        assert!(error.contains("split over several files"), "{byte}: {error}");
    }
}

#[test]
fn a_field_that_overflows_needs_the_wide_records() {
    for (entries, len, offset) in [(0xffff, 0, 9), (0, 0xffff_ffff, 9), (0, 0, 0xffff_ffff)] {
        let error = found(&end([0; 4], entries, len, offset, b""), 9).unwrap_err();
        assert!(error.contains("its zip64 locator is missing"), "{error}");
    }
    let most = Directory { offset: 9, len: 0, entries: 0xfffe };
    assert_eq!(found(&end([0; 4], 0xfffe, 0, 9, b""), 9), Ok(Located::Found(most)));
    // Both records of an archive say how many entries it has, as far as they can.
    for count in [0xffff, 0x1_0000] {
        let records: Vec<_> = (0..count).map(|n| spec(&n.to_string(), 0)).collect();
        let file = bytes(&Layout::new("x", &records).unwrap(), &records);
        assert_eq!(file[file.len() - 14..file.len() - 10], [0xff; 4]);
        assert_eq!(read(&file).unwrap().len(), count);
    }
}

#[test]
fn records_and_directories_have_a_longest() {
    let at = |room| found(&end64(0, 9, room), 9);
    let empty = Ok(Located::Found(Directory { offset: 9, len: 0, entries: 0 }));
    assert_eq!((at(56), at(57), at(0x1_0000)), (empty.clone(), empty.clone(), empty));
    for room in [55, 0x1_0001] {
        let error = at(room).unwrap_err();
        assert!(error.contains("not in front of its locator"), "{room}: {error}");
    }
    let longest = Directory { offset: 9, len: 1 << 26, entries: 0 };
    assert_eq!(found(&end64(1 << 26, 9, 56), 9 + (1 << 26)), Ok(Located::Found(longest)));
    let error = found(&end64((1 << 26) + 1, 9, 56), 10 + (1 << 26)).unwrap_err();
    assert!(error.contains("longer than that of any checkpoint"), "{error}");
}

#[test]
fn a_directory_is_the_bytes_that_were_announced() {
    let bytes = central("a", 5, 0, b"", b"");
    let directory = Directory { offset: 40, len: bytes.len() as u64, entries: 1 };
    let end = directory.offset + directory.len;
    let read = |bytes: &[u8], directory: Directory, file_len| {
        parse_directory(bytes, &directory, file_len).map_err(|error| error.to_string())
    };
    assert_eq!(read(&bytes, directory, end).unwrap()[0].crc, 0x0102_0304);
    let short = read(&bytes[1..], directory, end).unwrap_err();
    assert_eq!(short, "the zip directory has 47 bytes, 46 were read");
    assert!(read(&bytes, directory, end - 1).unwrap_err().contains("outside the file"));
    let beyond = Directory { offset: u64::MAX - 3, ..directory };
    assert!(read(&bytes, beyond, u64::MAX).unwrap_err().contains("outside the file"));
    // What is wrong is said with its place in the file.
    let two = [central("a", 5, 0, b"", b""), b"Q".repeat(50)];
    assert_eq!(parsed(&two, 40).unwrap_err(), "bad zip directory entry at byte 87: wrong signature");
}

#[test]
fn entries_may_have_comments_and_any_order() {
    let first = central("a", 5, 0, b"", b"said of it");
    let second = central("bb", 7, 36, b"", b"");
    let limits = |entries: &[Vec<u8>]| -> Vec<(String, u64)> {
        parsed(entries, 75).unwrap().into_iter().map(|entry| (entry.name, entry.limit)).collect()
    };
    assert_eq!(limits(&[first.clone(), second.clone()]), [("a".into(), 36), ("bb".into(), 75)]);
    assert_eq!(limits(&[second.clone(), first]), [("bb".into(), 75), ("a".into(), 36)]);
    // A disk is a number of two bytes, and all ones say that it stands elsewhere.
    let disk = |bytes: [u8; 2]| {
        let mut entry = second.clone();
        entry[34..36].copy_from_slice(&bytes);
        parsed(&[entry], 75)
    };
    assert!(disk([0xff, 0xff]).is_ok());
    for other in [[1, 0], [0, 1], [0xfe, 0xff]] {
        assert!(disk(other).unwrap_err().contains("it is in another file"));
    }
}

#[test]
fn entries_touch_and_do_not_overlap() {
    // 30 bytes of header, one of a name, five of data.
    let one = |offset, end| parsed(&[central("a", 5, offset, b"", b"")], end);
    assert_eq!(one(0, 36).unwrap()[0].limit, 36);
    assert!(one(0, 35).unwrap_err().contains("beyond the start of the directory"));
    let two = |second| parsed(&[central("a", 5, 0, b"", b""), central("b", 5, second, b"", b"")], 100);
    assert_eq!(two(36).unwrap()[0].limit, 36);
    assert_eq!(two(35).unwrap_err(), "zip entries \"a\" and \"b\" overlap");
    // A place that no number holds is beyond the directory.
    let wide = [&[1, 0, 8, 0][..], &(u64::MAX - 3).to_le_bytes()].concat();
    let beyond = parsed(&[central("a", 5, u32::MAX, &wide, b"")], 100).unwrap_err();
    assert!(beyond.contains("beyond the start of the directory"), "{beyond}");
}

#[test]
fn local_headers_without_a_descriptor_hold_the_size() {
    let file = small();
    let entry = &read(&file).unwrap()[2];
    let header = file[usize::try_from(entry.header_offset).unwrap()..].to_vec();
    let with = |flags: u8, size: u32| {
        let mut header = header.clone();
        header[6] = flags;
        header[22..26].copy_from_slice(&size.to_le_bytes());
        data_start(&header, entry).map_err(|error| error.to_string())
    };
    let place = data_start(&header, entry).unwrap();
    assert_eq!((with(0, 100), with(0, u32::MAX), with(8, 7)), (Ok(place), Ok(place), Ok(place)));
    assert!(with(0, 101).unwrap_err().contains("another size"));
    for encrypted in [1, 0x40, 0x41] {
        assert!(with(8 | encrypted, 0).unwrap_err().contains("compressed or encrypted"));
    }
}

/// Padding hides most of what could be wrong about the bytes before it, but not for every length of a name.
#[test]
fn places_beyond_four_gib_for_every_padding() {
    for len in 1..=64 {
        let prefix = "p".repeat(len);
        // Wide sizes; wide sizes and offset; a wide offset; an empty one there.
        let records = [spec("0", 5), spec("1", 1 << 32), spec("2", 0xffff_ffff), spec("3", 7), spec("4", 0)];
        let layout = Layout::new(&prefix, &records).unwrap();
        assert_eq!(computed(&layout, &prefix, &records), layout.data, "{len}");
        assert!(layout.data.iter().all(|start| start % 64 == 0));
    }
}

/// The one header that is exactly where 32 bits end has its offset in a wide field.
#[test]
fn a_header_at_the_end_of_what_32_bits_hold() {
    let with = |size| [spec("0", size), spec("1", 3)];
    // A descriptor of 16 bytes stands between the data and the next header.
    let start = Layout::new("x", &with(1)).unwrap().data[0];
    for (beyond, is_wide) in [(0, false), (1, true), (2, true)] {
        let records = with(0xffff_fffe + beyond - 16 - start);
        let layout = Layout::new("x", &records).unwrap();
        assert_eq!(computed(&layout, "x", &records), layout.data);
        let Some(Piece::Bytes(last)) = layout.pieces.last() else { panic!("it ends with its records") };
        // The last entry's extra field stands right before the records.
        let records = last.windows(4).position(|window| window == END64.to_le_bytes()).unwrap();
        assert_eq!(last[records - 12..records - 8] == [1, 0, 8, 0], is_wide, "{beyond}");
    }
}

/// A local header of a large record has the size, and nothing where the stored size would be: it is not known yet.
#[test]
fn a_large_record_has_one_of_its_sizes_in_its_local_header() {
    let layout = Layout::new("x", &[spec("0", 1 << 32)]).unwrap();
    let Some(Piece::Bytes(header)) = layout.pieces.first() else { panic!("it begins with a header") };
    let mut wide = vec![1, 0, 16, 0];
    wide.extend((1u64 << 32).to_le_bytes());
    wide.extend([0; 8]);
    assert_eq!(header[30 + 3..30 + 3 + 20], wide);
}
