//! Python integers as pickle stores long ones: two's complement, little-endian, as short as possible.
//!
//! Zero has no bytes at all (`encode_long` in CPython's `pickle.py` describes the form).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Drops the high bytes that only repeat the sign.
pub(super) fn shortest(mut bytes: &[u8]) -> &[u8] {
    loop {
        match bytes {
            [0] => return &[],
            [rest @ .., 0] if rest.last().is_some_and(|top| *top < 0x80) => bytes = rest,
            [rest @ .., 0xff] if rest.last().is_some_and(|top| *top >= 0x80) => bytes = rest,
            _ => return bytes,
        }
    }
}

/// The number, where it fits 64 bits. `bytes` must be as short as possible.
pub(super) fn to_i64(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|top| *top >= 0x80);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn shortest_keeps_the_value() {
        for number in [0, 1, -1, 127, 128, -128, -129, 255, 256, 1 << 40, i64::MAX, i64::MIN] {
            let wide = number.to_le_bytes();
            let short = shortest(&wide);
            assert_eq!(to_i64(short), Some(number));
            assert!(short.len() <= 1 || to_i64(&short[..short.len() - 1]) != Some(number));
        }
        assert_eq!(shortest(&[0x80, 0x00]), [0x80, 0x00]);
        assert_eq!(shortest(&[0x80, 0xff]), [0x80]);
        assert_eq!(shortest(&[0xff, 0xff, 0xff]), [0xff]);
        assert!(shortest(&[]).is_empty());
        assert_eq!(to_i64(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0]), None);
    }
}
