//! Single opcodes with what follows them, for both ways of writing a pickle of protocol 2.
//!
//! Not here: which opcodes a value takes (`encode`, `writer`).

use super::opcode as op;
use super::{PickleError, integer};

/// Items between a mark and the opcode that consumes them, in CPython.
pub(super) const BATCH: usize = 1000;

/// Takes the bytes of a pickle as they are made.
pub trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts the bytes and keeps none.
#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "a length without its content is asked for by tests alone so far"))]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u64);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }
}

/// An `int` that fits 64 bits.
pub(super) fn int(out: &mut impl Sink, number: i64) {
    if let Ok(small) = u8::try_from(number) {
        out.put(&[op::BININT1, small]);
    } else if let Ok(small) = u16::try_from(number) {
        out.put(&[op::BININT2]);
        out.put(&small.to_le_bytes());
    } else if let Ok(small) = i32::try_from(number) {
        out.put(&[op::BININT]);
        out.put(&small.to_le_bytes());
    } else {
        let wide = number.to_le_bytes();
        let short = integer::shortest(&wide);
        // At most eight bytes, so the length fits.
        out.put(&[op::LONG1, short.len() as u8]);
        out.put(short);
    }
}

/// An `int` that is a size or a place.
pub(super) fn unsigned(out: &mut impl Sink, number: u64) {
    match i64::try_from(number) {
        Ok(number) => int(out, number),
        Err(_) => {
            // One more byte keeps it positive.
            out.put(&[op::LONG1, 9]);
            out.put(&number.to_le_bytes());
            out.put(&[0]);
        }
    }
}

/// An `int` of any size: two's complement, little-endian.
pub(super) fn long(out: &mut impl Sink, bytes: &[u8]) -> Result<(), PickleError> {
    let bytes = integer::shortest(bytes);
    if let Some(number) = integer::to_i64(bytes) {
        int(out, number);
        return Ok(());
    }
    if let Ok(len) = u8::try_from(bytes.len()) {
        out.put(&[op::LONG1, len]);
    } else {
        let len = i32::try_from(bytes.len()).map_err(|_| PickleError::TooLong { len: bytes.len() })?;
        out.put(&[op::LONG4]);
        out.put(&len.to_le_bytes());
    }
    out.put(bytes);
    Ok(())
}

pub(super) fn float(out: &mut impl Sink, number: f64) {
    out.put(&[op::BINFLOAT]);
    out.put(&number.to_be_bytes());
}

/// A `str` of these bytes, which are UTF-8 but for lone surrogates.
pub(super) fn text(out: &mut impl Sink, text: &[u8]) -> Result<(), PickleError> {
    let len = u32::try_from(text.len()).map_err(|_| PickleError::TooLong { len: text.len() })?;
    out.put(&[op::BINUNICODE]);
    out.put(&len.to_le_bytes());
    out.put(text);
    Ok(())
}

/// The class or function `module.name`.
pub(super) fn global(out: &mut impl Sink, module: &str, name: &str) -> Result<(), PickleError> {
    for part in [module, name] {
        if part.contains('\n') {
            return Err(PickleError::GlobalName { name: part.to_owned() });
        }
    }
    out.put(&[op::GLOBAL]);
    for part in [module, name] {
        out.put(part.as_bytes());
        out.put(b"\n");
    }
    Ok(())
}

/// Memoizes what was just written.
pub(super) fn put(out: &mut impl Sink, index: u32) {
    indexed(out, index, op::BINPUT, op::LONG_BINPUT);
}

/// Fetches from the memo.
pub(super) fn get(out: &mut impl Sink, index: u32) {
    indexed(out, index, op::BINGET, op::LONG_BINGET);
}

fn indexed(out: &mut impl Sink, index: u32, short: u8, long: u8) {
    if let Ok(index) = u8::try_from(index) {
        out.put(&[short, index]);
    } else {
        out.put(&[long]);
        out.put(&index.to_le_bytes());
    }
}
