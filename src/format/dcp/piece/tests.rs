//! What is expected of pieces; real ones are held against it in `tests/it/dcp_pieces.rs`.

use super::*;

fn shape(sizes: &[u64]) -> Shape {
    Shape(sizes.to_vec())
}

#[test]
fn lengths_and_places_are_those_that_were_counted() {
    let place = |sizes: &[u64], dtype, len| {
        expected(&shape(sizes), dtype, len).map(|expected| (expected.generation, expected.data))
    };
    // Counted in files of torch 2.2.2 and 2.15.0.
    assert_eq!(place(&[7, 5], Dtype::Float32, 1308), Some((Generation::Torch22, 448)));
    assert_eq!(place(&[7, 5], Dtype::Float32, 1705), Some((Generation::Torch29, 704)));
    for len in [0, 140, 1307, 1309, 1704, 1706, u64::MAX] {
        assert_eq!(place(&[7, 5], Dtype::Float32, len), None, "{len}");
    }
    assert_eq!(place(&[7, 5], Dtype::Int32, 1705), Some((Generation::Torch29, 704)));
    assert_eq!(place(&[u64::MAX, 2], Dtype::Float32, 1705), None);
}

#[test]
fn a_head_ends_where_elements_begin() {
    for generation in [Generation::Torch22, Generation::Torch29] {
        for sizes in [&[][..], &[0], &[3, 0, 2], &[1 << 40], &[300, 70_000, 5], &[1; 20], &[1 << 31, 1 << 20]] {
            for dtype in Dtype::all() {
                let head = head(&shape(sizes), dtype, generation).unwrap();
                let pickle = pickle(&shape(sizes), dtype).unwrap();
                let payload = shape(sizes).bytes(dtype).unwrap();
                let piece = Piece::new(pickle.len() as u64, payload, generation).unwrap();
                assert_eq!((head.len(), head.len() % 64), (piece.data, 0));
                assert_eq!(expected(&shape(sizes), dtype, piece.size), Some(Expected { generation, data: piece.data }));
                assert!(head.begins(&head.bytes));
                assert!(!head.begins(&head.bytes[1..]) && !head.begins(&head.bytes[..head.bytes.len() - 1]));
            }
        }
    }
}

#[test]
fn a_head_with_any_other_byte_is_another_one() {
    let head = head(&shape(&[8, 6]), Dtype::Float32, Generation::Torch29).unwrap();
    let mut masked = 0;
    for at in 0..head.bytes.len() {
        let mut other = head.bytes.clone();
        other[at] ^= 1;
        masked += usize::from(head.begins(&other));
    }
    // Sums of the pickle and of three small records.
    assert_eq!(masked, 16);
}

#[test]
fn what_is_no_archive_is_told() {
    let place = Place { file: 0, encoding: Encoding::Plain, offset: 0, len: 100 };
    assert_eq!(check(place, Some(40), b"PK\x03\x04rest"), Ok(()));
    assert_eq!(check(place, None, b"PK\x03\x04"), Ok(()));
    assert_eq!(check(place, Some(100), b"PK\x03\x04rest"), Err(PieceError::Raw));
    assert_eq!(check(place, Some(40), b"\x28\xb5\x2f\xfd"), Err(PieceError::Zstd));
    assert_eq!(check(Place { encoding: Encoding::Zstd, ..place }, None, b"PK\x03\x04"), Err(PieceError::Zstd));
    let other = check(place, Some(40), b"\x10\0\0\0\0\0\0\0{}").unwrap_err();
    assert!(matches!(other, PieceError::Zip(ZipError::NotZip { .. })), "{other}");
    assert_eq!(check(place, None, b""), Err(PieceError::Zip(ZipError::Empty)));
}
