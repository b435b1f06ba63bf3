//! Stripes against loops written out: every byte one by one.

use ckpt_fs::extent::ObjectId;
use ckpt_fs::plan::{Dim, Piece, Stripe};
use proptest::prelude::*;
use proptest::sample::Index;

/// Where each byte of a stripe comes from, as the words of `Piece` and `Stripe` say.
fn bytes(repeat: u64, pieces: &[Piece]) -> Vec<(ObjectId, u64)> {
    let mut all = Vec::new();
    for row in 0..repeat {
        for piece in pieces {
            let mut starts = vec![piece.start + row * piece.step];
            for dim in &piece.dims {
                starts = starts
                    .iter()
                    .flat_map(|start| (0..dim.count).map(move |n| start + n * dim.step))
                    .collect();
            }
            all.extend(
                starts.iter().flat_map(|start| (0..piece.run).map(move |n| (piece.object, start + n))),
            );
        }
    }
    all
}

/// What a stripe resolves a range to, byte by byte. No run is empty, and each starts where the one before ended.
fn resolved(stripe: &Stripe, range: std::ops::Range<u64>) -> Vec<(ObjectId, u64)> {
    let mut all = Vec::new();
    stripe.resolve(range, |object, from, to, len| {
        assert!(len > 0 && to == all.len() as u64);
        all.extend((from..from + len).map(|at| (object, at)));
    });
    all
}

fn dims() -> impl Strategy<Value = Vec<Dim>> {
    proptest::collection::vec((0u64..4, 0u64..13).prop_map(|(count, step)| Dim { count, step }), 0..4)
}

fn piece() -> impl Strategy<Value = Piece> {
    (0u32..2, 0u64..30, 0u64..13, dims(), 0u64..4).prop_map(|(object, start, step, dims, run)| Piece {
        object: ObjectId(object),
        start,
        step,
        dims,
        run,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn stripes_are_their_loops(repeat in 0u64..5, pieces in proptest::collection::vec(piece(), 0..4), ends in any::<[Index; 2]>()) {
        let wanted = bytes(repeat, &pieces);
        let stripe = Stripe::new(repeat, pieces);
        let len = wanted.len();
        prop_assert_eq!((stripe.bytes(), stripe.repeat() * stripe.row_bytes()), (len as u64, len as u64));
        prop_assert_eq!(&resolved(&stripe, 0..len as u64), &wanted);
        prop_assert_eq!(&resolved(&stripe, 0..len as u64 + 9), &wanted);
        let mut ends = ends.map(|end| end.index(len + 1));
        ends.sort_unstable();
        prop_assert_eq!(&resolved(&stripe, ends[0] as u64..ends[1] as u64), &wanted[ends[0]..ends[1]]);
        // Nothing in it is for nothing.
        prop_assert!(repeat == 0 || stripe.pieces().iter().all(|piece| piece.bytes() > 0));
        prop_assert_eq!(stripe.objects().collect::<Vec<_>>(), stripe.pieces().iter().map(|piece| piece.object).collect::<Vec<_>>());
    }

    #[test]
    fn loops_that_are_reduced_are_the_same_bytes(dims in dims(), element in 1u64..4, row in 0u64..3) {
        let plain = Piece { object: ObjectId(1), start: 5, step: 7, dims: dims.clone(), run: element };
        let reduced = Piece::new(ObjectId(1), 5, 7, &dims, element);
        prop_assert_eq!(bytes(row, std::slice::from_ref(&reduced)), bytes(row, std::slice::from_ref(&plain)));
        prop_assert_eq!(reduced.bytes(), plain.bytes());
        prop_assert!(reduced.dims.iter().all(|dim| dim.count != 1));
        prop_assert!(reduced.dims.last().is_none_or(|inner| inner.step != reduced.run));
        let mut pairs = reduced.dims.windows(2);
        prop_assert!(pairs.all(|pair| pair[0].step != pair[1].step * pair[1].count));
    }

    /// Joined where that is the same bytes, and only there.
    #[test]
    fn stripes_that_are_joined_are_both(first in piece(), second in piece(), repeats in (1u64..3, 1u64..3), follows in any::<bool>()) {
        let mut second = second;
        if follows {
            (second.object, second.start) = (first.object, first.start + first.run);
        }
        let (a, b) = (Stripe::new(repeats.0, vec![first]), Stripe::new(repeats.1, vec![second]));
        let both = [resolved(&a, 0..a.bytes()), resolved(&b, 0..b.bytes())].concat();
        let run = |stripe: &Stripe| stripe.repeat() == 1 && stripe.pieces().iter().all(|piece| piece.dims.is_empty());
        let reads_on = both.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 + 1 == pair[1].1);
        match a.join(&b) {
            Some(joined) => prop_assert_eq!(resolved(&joined, 0..joined.bytes()), both),
            None => prop_assert!(!(reads_on && run(&a) && run(&b) && a.bytes() > 0 && b.bytes() > 0)),
        }
    }
}

#[test]
fn pieces_that_read_on_in_every_row_are_one() {
    let piece =
        |object, start, step, run| Piece { object: ObjectId(object), start, step, dims: Vec::new(), run };
    let number = |repeat, pieces: [Piece; 2]| Stripe::new(repeat, pieces.into()).pieces().len();
    assert_eq!(number(2, [piece(0, 0, 10, 3), piece(0, 3, 10, 2)]), 1);
    assert_eq!(number(2, [piece(0, 0, 10, 3), piece(0, 3, 11, 2)]), 2);
    // With one row, how far it is to the next says nothing.
    assert_eq!(number(1, [piece(0, 0, 10, 3), piece(0, 3, 11, 2)]), 1);
    assert_eq!(number(2, [piece(0, 0, 10, 3), piece(1, 3, 10, 2)]), 2);
    assert_eq!(number(2, [piece(0, 0, 10, 3), piece(0, 4, 10, 2)]), 2);
    // Runs of different lengths: their mean, and nothing where there are none.
    assert_eq!(
        Stripe::new(2, vec![piece(0, 0, 90, 10), piece(1, 0, 90, 5), piece(0, 50, 90, 6)]).mean_run(),
        7
    );
    assert_eq!(Stripe::new(2, (0..3).map(|n| piece(n, 0, 9, 1)).collect()).mean_run(), 1);
    let empty = Stripe::new(3, vec![piece(0, 0, 1, 0)]);
    assert_eq!(
        (empty.mean_run(), empty.bytes(), empty.row_bytes(), resolved(&empty, 0..9).len()),
        (0, 0, 0, 0)
    );
}

#[test]
fn stripes_are_told_apart_by_all_that_they_read() {
    let piece = |step| Piece { object: ObjectId(0), start: 0, step, dims: Vec::new(), run: 3 };
    // How a single run is said makes no difference.
    assert_eq!(Stripe::new(1, vec![piece(10)]), Stripe::contiguous(ObjectId(0), 0, 3));
    let rows = |repeat| Stripe::new(repeat, vec![piece(10)]).fingerprint();
    assert_eq!(rows(2), rows(2));
    assert_ne!(rows(2), rows(3));
}
