//! Zip archives that lie: about sizes, places, names, and about being what is read.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::bounds::{MB, Victim, alone};
use crate::ckpt;
use crate::common::pt_of;
use crate::common::source::Checkpoint;

const SOURCE: i32 = 3;

fn small() -> Vec<u8> {
    let mut checkpoint = Checkpoint::small_as(1, &[4]);
    let file = checkpoint.file("mp_rank_00").clone();
    checkpoint.bytes(&file)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Position of the directory entry of record `name`, and of its local header.
fn headers(bytes: &[u8], name: &str) -> (usize, usize) {
    let full = format!("archive/{name}");
    let is_it = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x01\x02")
            && bytes.get(at + 46..at + 46 + full.len()) == Some(full.as_bytes())
    };
    let at = (0..bytes.len() - 46).find(is_it).unwrap();
    (at, u32_at(bytes, at + 42) as usize)
}

/// Where the zip64 end record is, and the end record: torch writes both, without comment.
fn ends(bytes: &[u8]) -> (usize, usize) {
    (bytes.len() - 22 - 20 - 56, bytes.len() - 22)
}

#[test]
fn entries_that_overlap_or_lie_outside() {
    let _alone = alone();
    let bytes = small();
    let (second, _) = headers(&bytes, "data/2");
    let (_, first_local) = headers(&bytes, "data/0");
    // Two entries with one place: one tensor would have another's bytes.
    let mut same = bytes.clone();
    put32(&mut same, second + 42, first_local as u32);
    Victim::with_file(&same).refused(8 * MB, &["overlap"]);
    // A place within the data of another, where a local header was put.
    let (_, second_local) = headers(&bytes, "data/2");
    let header = bytes[second_local..second_local + 64].to_vec();
    let mut within = bytes.clone();
    let at = first_local + 128;
    within[at..at + 64].copy_from_slice(&header);
    put32(&mut within, second + 42, at as u32);
    Victim::with_file(&within).refused(8 * MB, &["overlap"]);
    // Behind the directory, in it, and at the end of the numbers.
    for place in [bytes.len() as u32 - 40, second as u32, u32::MAX - 1] {
        let mut outside = bytes.clone();
        put32(&mut outside, second + 42, place);
        Victim::with_file(&outside).refused(8 * MB, &["data/2", "beyond the start of the directory"]);
    }
    // Sizes that wrap around: the zip64 field says 2^64 - 1.
    let mut wide = bytes.clone();
    put32(&mut wide, second + 20, u32::MAX);
    put32(&mut wide, second + 24, u32::MAX);
    Victim::with_file(&wide).refused(8 * MB, &["data/2", "zip64 field is missing or too short"]);
}

#[test]
fn local_headers_that_contradict_the_directory() {
    let _alone = alone();
    let bytes = small();
    let (_, local) = headers(&bytes, "data.pkl");
    for (offset, value, word) in [
        (26, 7u16, "another name"),
        (28, 0xffff, "runs into what follows"),
        (8, 8, "compressed or encrypted"),
        (6, 1, "compressed or encrypted"),
        (6, 0x40, "compressed or encrypted"),
        (0, 0, "wrong signature"),
        (30, u16::from_le_bytes(*b"zz"), "another name"),
    ] {
        let mut lies = bytes.clone();
        lies[local + offset..local + offset + 2].copy_from_slice(&value.to_le_bytes());
        Victim::with_file(&lies).refused(8 * MB, &[word]);
    }
    // Another extra field moves the data, so that what is read is not what was summed.
    let mut moved = bytes.clone();
    let extra = u16::from_le_bytes([moved[local + 28], moved[local + 29]]);
    moved[local + 28..local + 30].copy_from_slice(&(extra - 1).to_le_bytes());
    Victim::with_file(&moved).refused(8 * MB, &["data.pkl", "damaged"]);
    // A size in front of the data, beside the one behind it.
    let mut two = bytes.clone();
    two[local + 6] &= !8;
    put32(&mut two, local + 22, 12);
    Victim::with_file(&two).refused(8 * MB, &["data.pkl", "another size"]);
}

#[test]
fn names_that_stand_twice() {
    let _alone = alone();
    let bytes = small();
    let (entry, local) = headers(&bytes, "data/2");
    let mut twice = bytes.clone();
    for at in [entry + 46, local + 30] {
        twice[at..at + 14].copy_from_slice(b"archive/data/1");
    }
    Victim::with_file(&twice).refused(8 * MB, &["data/1", "two entries have this name"]);
    // A second pickle under another prefix is none of torch's.
    let mut other = bytes.clone();
    for at in [entry + 46, local + 30] {
        other[at..at + 14].copy_from_slice(b"other00/data/1");
    }
    Victim::with_file(&other).refused(8 * MB, &["no record data/2"]);
}

#[test]
fn end_records_that_lead_elsewhere() {
    let _alone = alone();
    let bytes = small();
    let (end64, end) = ends(&bytes);
    // A comment that is another end record: readers differ in which they take.
    let mut inner = bytes[end..].to_vec();
    put32(&mut inner, 16, 0);
    let mut commented = bytes.clone();
    commented[end + 20..].copy_from_slice(&24u16.to_le_bytes());
    commented.extend([&inner[..], b"!!"].concat());
    Victim::with_file(&commented).refused(8 * MB, &["comment", "another end record"]);
    // A whole archive in the comment of another: the last end record counts, and its directory is not in front of it.
    let decoy = pt_of(b"\x80\x02}.", &[]);
    let mut nested = bytes.clone();
    nested[end + 20..].copy_from_slice(&u16::try_from(decoy.len()).unwrap().to_le_bytes());
    nested.extend(&decoy);
    let error = crate::bounds::opened_within(&Victim::with_file(&nested).src(), 8 * MB);
    assert!(error.unwrap_err().contains("zip"));
    // A comment that claims more or less than there is.
    for len in [1u16, 0xffff] {
        let mut claims = bytes.clone();
        claims[end + 20..].copy_from_slice(&len.to_le_bytes());
        Victim::with_file(&claims).refused(8 * MB, &["cut short"]);
    }
    // The zip64 record says other than the plain one; torch takes the former, and so do we: it must add up.
    for (field, value) in [(32, 1u64), (40, 46), (48, 0), (24, 1), (4, 45)] {
        let mut lies = bytes.clone();
        lies[end64 + field..end64 + field + 8].copy_from_slice(&value.to_le_bytes());
        let error = crate::bounds::opened_within(&Victim::with_file(&lies).src(), 8 * MB);
        // 24 is the number of entries on this disk, which nobody looks at.
        assert!(error.is_err() || field == 24, "{field}");
    }
    // A locator that leads to itself, and to nowhere.
    for place in [end as u64 - 20, u64::MAX, 0] {
        let mut lost = bytes.clone();
        lost[end - 12..end - 4].copy_from_slice(&place.to_le_bytes());
        Victim::with_file(&lost).refused(8 * MB, &["zip64 end record"]);
    }
    // Split over disks.
    let mut split = bytes;
    put32(&mut split, end64 + 16, 1);
    Victim::with_file(&split).refused(8 * MB, &["split over several files"]);
}

/// The end of an archive whose directory is `len` bytes from `offset` on.
fn tail(offset: u64, len: u64, entries: u64) -> Vec<u8> {
    let mut tail = b"PK\x06\x06".to_vec();
    tail.extend(44u64.to_le_bytes());
    tail.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [entries, entries, len, offset] {
        tail.extend(number.to_le_bytes());
    }
    tail.extend(b"PK\x06\x07\0\0\0\0");
    tail.extend((offset + len).to_le_bytes());
    tail.extend(1u32.to_le_bytes());
    tail.extend(b"PK\x05\x06\0\0\0\0");
    tail.extend([0xff; 12]);
    tail.extend([0, 0]);
    tail
}

#[test]
fn a_directory_of_a_terabyte_is_not_read() {
    let _alone = alone();
    let victim = Victim::new();
    let file = File::create(victim.file()).unwrap();
    // A hole, which costs nobody anything to send.
    let len = 1 << 40;
    file.write_all_at(b"PK\x03\x04", 0).unwrap();
    file.write_all_at(&tail(0, len, len / 60), len).unwrap();
    victim.refused(8 * MB, &["directory", "longer than that of any checkpoint"]);
    ckpt!("inspect", victim.src()).refused(SOURCE, &["longer than that of any checkpoint"]);
}

#[test]
fn a_directory_of_many_entries_is_bounded() {
    let _alone = alone();
    let count = 300_000;
    let mut bytes = b"PK\x03\x04".to_vec();
    // Each of them empty, one behind the other: the directory says where, and nobody has been there.
    let place = |number: u32| 64 + number * 64;
    bytes.resize(place(count) as usize, 0);
    let offset = bytes.len() as u64;
    for number in 0..count {
        let name = format!("a/{number:x}");
        let mut entry = b"PK\x01\x02".to_vec();
        entry.resize(46, 0);
        entry[28] = name.len() as u8;
        put32(&mut entry, 42, place(number));
        bytes.extend(entry);
        bytes.extend(name.as_bytes());
    }
    let len = bytes.len() as u64 - offset;
    bytes.extend(tail(offset, len, count.into()));
    let victim = Victim::with_file(&bytes);
    drop(bytes);
    victim.refused(200 * MB, &["no data.pkl"]);
}

#[test]
fn records_that_are_too_long_for_what_they_are() {
    let _alone = alone();
    // A pickle of a hundred megabytes is not even read, whatever is in it.
    let bytes = pt_of(&vec![b'N'; 100 << 20], &[]);
    let victim = Victim::with_file(&bytes);
    drop(bytes);
    victim.refused(8 * MB, &["data.pkl", "more than"]);
}
