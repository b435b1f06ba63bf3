//! The memo: values that later opcodes fetch by number.
//!
//! Picklers memoize nearly every value and fetch few of them. What is taken apart while it is read can only be let go of if the memo does not
//! hold it, so [`Fetched`] looks ahead for the numbers that are fetched, and the others are not kept.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;

use super::cursor::Cursor;
use super::node::Id;
use super::opcode::{self as op, Operand};

/// A slot that holds nothing. No value has this number.
const EMPTY: Id = Id::MAX;

/// Where the value of a number is.
enum Slot {
    /// Nobody asks for it.
    None,
    At(usize),
    Stray,
}

/// Values by number.
pub(super) struct Memo {
    /// Which are worth keeping; all where it is not known.
    fetched: Option<Fetched>,
    /// By number, or by rank among those that are fetched.
    slots: Vec<Id>,
    /// Numbers from here on are in `stray`: they come from the input and may be as large as it likes.
    dense: usize,
    stray: HashMap<u64, Id>,
    /// Entries made, those included that were not kept.
    made: u64,
    kept: usize,
}

impl Memo {
    /// For a pickle of `len` bytes.
    pub(super) fn new(len: usize, fetched: Option<Fetched>) -> Self {
        Self { fetched, slots: Vec::new(), dense: len, stray: HashMap::new(), made: 0, kept: 0 }
    }

    /// The number that `MEMOIZE` gives.
    pub(super) fn next(&self) -> u64 {
        self.made
    }

    /// Entries that are kept.
    pub(super) fn len(&self) -> usize {
        self.kept
    }

    pub(super) fn put(&mut self, index: u64, id: Id) {
        let is_new = match self.slot(index) {
            Slot::None => true,
            Slot::Stray => {
                let is_new = self.stray.insert(index, id).is_none();
                self.kept = self.kept.saturating_add(is_new.into());
                is_new
            }
            Slot::At(slot) => {
                if slot >= self.slots.len() {
                    self.slots.resize(slot.saturating_add(1), EMPTY);
                }
                let Some(place) = self.slots.get_mut(slot) else { return };
                let is_new = std::mem::replace(place, id) == EMPTY;
                self.kept = self.kept.saturating_add(is_new.into());
                is_new
            }
        };
        self.made = self.made.saturating_add(is_new.into());
    }

    pub(super) fn get(&self, index: u64) -> Option<Id> {
        match self.slot(index) {
            Slot::None => None,
            Slot::Stray => self.stray.get(&index).copied(),
            Slot::At(slot) => self.slots.get(slot).copied().filter(|id| *id != EMPTY),
        }
    }

    fn slot(&self, index: u64) -> Slot {
        match (&self.fetched, usize::try_from(index)) {
            (Some(fetched), _) => fetched.rank(index).map_or(Slot::None, Slot::At),
            (None, Ok(slot)) if slot < self.dense => Slot::At(slot),
            (None, _) => Slot::Stray,
        }
    }

    /// Every value that is kept.
    pub(super) fn ids(&mut self) -> impl Iterator<Item = &mut Id> {
        self.slots.iter_mut().filter(|id| **id != EMPTY).chain(self.stray.values_mut())
    }
}

/// Numbers of memo entries that some opcode of a pickle fetches.
pub(super) struct Fetched {
    /// A bit for each.
    words: Vec<u64>,
    /// How many are fetched before each word.
    before: Vec<u32>,
}

impl Fetched {
    /// Looks through a pickle. `None` where its entries cannot be counted beforehand, which no pickler's is: numbered in both ways, or with
    /// numbers greater than its length.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut input = Cursor::new(bytes);
        let mut words: Vec<u64> = Vec::new();
        let (mut numbered, mut counted) = (false, false);
        // It ends where running it will end.
        while let Ok(code) = input.u8() {
            let index = match code {
                op::STOP => break,
                op::BINGET => input.u8().ok().map(u64::from),
                op::LONG_BINGET => input.u32().ok().map(u64::from),
                op::GET => input.line().ok().and_then(|text| text.parse().ok()),
                _ => {
                    counted |= code == op::MEMOIZE;
                    numbered |= matches!(code, op::PUT | op::BINPUT | op::LONG_BINPUT);
                    if skip(&mut input, code).is_none() {
                        break;
                    }
                    continue;
                }
            };
            let Some(index) = index else { break };
            if index >= bytes.len() as u64 {
                return None;
            }
            let (word, bit) = split(index)?;
            if word >= words.len() {
                words.resize(word.saturating_add(1), 0);
            }
            *words.get_mut(word)? |= bit;
        }
        let ranks = words.iter().scan(0u32, |sum, word| {
            let before = *sum;
            *sum = sum.saturating_add(word.count_ones());
            Some(before)
        });
        let before = ranks.collect();
        (!(numbered && counted)).then_some(Self { words, before })
    }

    /// How many with smaller numbers are fetched; `None` for one that is not.
    fn rank(&self, index: u64) -> Option<usize> {
        let (word, bit) = split(index)?;
        let bits = self.words.get(word)?;
        let within = (bits & bit.wrapping_sub(1)).count_ones();
        (bits & bit != 0).then_some(self.before.get(word)?.saturating_add(within) as usize)
    }
}

/// Which word, and which bit of it.
fn split(index: u64) -> Option<(usize, u64)> {
    Some((usize::try_from(index >> 6).ok()?, 1 << (index & 63)))
}

/// Goes over what follows the opcode `code`; `None` where it is cut short.
fn skip(input: &mut Cursor<'_>, code: u8) -> Option<()> {
    match op::operand(code) {
        Operand::Bytes(count) => input.take(count).ok().map(drop),
        Operand::Counted(width) => {
            let count = input.take(width).ok()?;
            let count = count.iter().rev().fold(0u64, |count, byte| count << 8 | u64::from(*byte));
            input.take(count).ok().map(drop)
        }
        Operand::Lines(count) => (0..count).try_for_each(|_| input.line().ok().map(drop)),
    }
}
