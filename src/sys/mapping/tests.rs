//! A file that shrinks under its mapping: errors, never zeros, never a signal.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;

const SIZE: usize = 8 << 20;

/// A file of `len` bytes, none of them zero.
fn file_of(len: usize) -> File {
    let file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8 + 1).collect();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file
}

#[test]
fn copies_are_exact() {
    let file = file_of(10_000);
    let mapping = Mapping::new(&file, 10_000).unwrap();
    let mut out = [0; 7];
    mapping.copy(4093, &mut out).unwrap();
    let expected: Vec<u8> = (4093..4100).map(|at: usize| (at % 251) as u8 + 1).collect();
    assert_eq!(out, expected[..]);
    let pieces = [Piece { from: 9_999, to: 1, len: 1 }, Piece { from: 0, to: 0, len: 1 }];
    mapping.copy_pieces(pieces, &mut out[..2]).unwrap();
    assert_eq!(out[..2], [1, (9_999 % 251) as u8 + 1]);
}

#[test]
fn ranges_outside_are_errors() {
    let mapping = Mapping::new(&file_of(100), 100).unwrap();
    let mut out = [0; 8];
    for from in [93, 100, 101, u64::MAX, u64::MAX - 7] {
        assert_eq!(mapping.copy(from, &mut out), Err(CopyError::OutOfRange), "from {from}");
    }
    let outside = Piece { from: 0, to: 7, len: 2 };
    assert_eq!(mapping.copy_pieces([outside], &mut out), Err(CopyError::OutOfRange));
    let overflow = Piece { from: 0, to: usize::MAX, len: 2 };
    assert_eq!(mapping.copy_pieces([overflow], &mut out), Err(CopyError::OutOfRange));
}

#[test]
fn nothing_to_map() {
    let mapping = Mapping::new(&tempfile::tempfile().unwrap(), 0).unwrap();
    assert!(mapping.is_empty());
    assert_eq!(mapping.copy(0, &mut []), Ok(()));
    assert_eq!(mapping.copy(0, &mut [0]), Err(CopyError::OutOfRange));
}

#[test]
fn a_truncated_file_poisons_for_good() {
    let file = file_of(SIZE);
    let mapping = Mapping::new(&file, SIZE as u64).unwrap();
    file.set_len(4096).unwrap();
    let mut out = vec![0; 100];
    assert_eq!(mapping.copy(SIZE as u64 - 100, &mut out), Err(CopyError::Poisoned));
    assert!(mapping.is_poisoned());
    // Also where the file still has bytes, and after it got its size back.
    assert_eq!(mapping.copy(0, &mut out), Err(CopyError::Poisoned));
    file.set_len(SIZE as u64).unwrap();
    assert_eq!(mapping.copy(0, &mut out), Err(CopyError::Poisoned));
    // Its slot serves the next mapping, which starts healthy.
    drop(mapping);
    let file = file_of(4096);
    let mapping = Mapping::new(&file, 4096).unwrap();
    assert_eq!(mapping.copy(0, &mut out), Ok(()));
}

#[test]
fn other_mappings_stay_healthy() {
    let files: Vec<File> = (0..50).map(|_| file_of(8192)).collect();
    let mappings: Vec<Mapping> = files.iter().map(|file| Mapping::new(file, 8192).unwrap()).collect();
    files[20].set_len(0).unwrap();
    let mut out = vec![0; 8192];
    for (at, mapping) in mappings.iter().enumerate() {
        assert_eq!(mapping.copy(0, &mut out).is_err(), at == 20, "mapping {at}");
    }
}

/// Four threads copy while the file is cut; others map and unmap at the same time to move slots around.
#[test]
fn truncation_while_copying_never_shows_zeros() {
    for _ in 0..20 {
        let file = file_of(SIZE);
        let mapping = Mapping::new(&file, SIZE as u64).unwrap();
        let (stop, good) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for seed in 0..4 {
                let (mapping, good) = (&mapping, &good);
                scope.spawn(move || copy_until_error(mapping, seed, good));
            }
            scope.spawn(|| churn(&stop));
            while good.load(Ordering::Relaxed) < 40 {
                thread::yield_now();
            }
            file.set_len(1000).unwrap();
            // The copying threads end by themselves: each must meet the error.
            while !mapping.is_poisoned() {
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(mapping.copy(0, &mut [0]), Err(CopyError::Poisoned));
    }
}

fn copy_until_error(mapping: &Mapping, seed: usize, good: &AtomicUsize) {
    let mut out = vec![0; 256 << 10];
    for round in 0.. {
        let from = (seed * 7919 + round * 104_729) % (SIZE - out.len());
        match mapping.copy(from as u64, &mut out) {
            Ok(()) => {
                assert!(!out.contains(&0), "zeros were handed out as data");
                good.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return assert_eq!(error, CopyError::Poisoned),
        }
    }
}

fn churn(stop: &AtomicBool) {
    let file = file_of(4096);
    while !stop.load(Ordering::Relaxed) {
        let mapping = Mapping::new(&file, 4096).unwrap();
        mapping.copy(0, &mut [0; 4096]).unwrap();
    }
}
