//! What becomes of pieces that go through several sections, byte by byte.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{Piece, Section};
use crate::inspect::Loop;
use crate::inspect::map::stored::Stored;

const FILE: &str = "a";

/// Every run of a piece, as bytes of the file and of the tensor.
fn bytes(piece: &Piece) -> Vec<(u64, u64)> {
    let mut runs = vec![(piece.offset, piece.at)];
    for of in &piece.loops {
        let turns = |(from, at): (u64, u64)| (0..of.count).map(move |turn| (from + turn * of.step, at + turn * of.to));
        runs = runs.into_iter().flat_map(turns).collect();
    }
    runs.into_iter().flat_map(|(from, at)| (0..piece.run).map(move |byte| (from + byte, at + byte))).collect()
}

/// A file whose sections begin at these bytes.
fn stored(begins: &[u64]) -> Stored {
    let begins = begins.iter().zip(0..).map(|(start, layer)| (*start, Section::Layer(layer))).collect();
    Stored::with_sections(HashMap::from([(FILE.to_owned(), begins)]))
}

/// Loops that stand within each other, as stripes have them.
fn pieces() -> impl Strategy<Value = Piece> {
    let loops = prop::collection::vec((1_u64..5, 0_u64..4), 0..3);
    (0_u64..40, 1_u64..6, loops).prop_map(|(offset, run, gaps)| {
        let (mut loops, mut step, mut to) = (Vec::new(), run, run);
        for (count, gap) in gaps {
            step += gap;
            loops.push(Loop { count, step, to });
            (step, to) = (step * count, to * count);
        }
        loops.reverse();
        loops.retain(|of| of.count > 1);
        Piece { file: Some(FILE.to_owned()), offset, at: 3, run, loops, literal: None }
    })
}

proptest! {
    #[test]
    fn cut_pieces_are_the_same_bytes_each_in_its_section(piece in pieces(), mut begins in prop::collection::btree_set(1_u64..200, 0..6)) {
        begins.insert(0);
        let begins: Vec<u64> = begins.into_iter().collect();
        let mut found = Vec::new();
        stored(&begins).split(piece.clone(), &mut |section, part| {
            found.extend(bytes(&part).into_iter().map(|(from, at)| (at, from, section)));
        });
        let layer = |from: u64| Section::Layer(begins.iter().filter(|start| **start <= from).count() as u32 - 1);
        let mut expected: Vec<_> = bytes(&piece).into_iter().map(|(from, at)| (at, from, layer(from))).collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_piece_of_many_rows_is_cut_into_few() {
    let rows = Loop { count: 1_000_000, step: 10, to: 4 };
    let piece = Piece { file: Some(FILE.to_owned()), offset: 0, at: 0, run: 4, loops: vec![rows], literal: None };
    let mut parts = Vec::new();
    stored(&[0, 5_000_000, 7_000_002]).split(piece, &mut |section, part| parts.push((section, part.bytes())));
    let layer = |number| Section::Layer(number);
    assert_eq!(parts, [(layer(0), 2_000_000), (layer(1), 800_000), (layer(1), 2), (layer(2), 2), (layer(2), 1_199_996)]);
}
