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

    #[inline]
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

    #[inline]
    pub(super) fn get(&self, index: u64) -> Option<Id> {
        match self.slot(index) {
            Slot::None => None,
            Slot::Stray => self.stray.get(&index).copied(),
            Slot::At(slot) => self.slots.get(slot).copied().filter(|id| *id != EMPTY),
        }
    }

    #[inline]
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
    words: Vec<Word>,
}

/// Sixty-four numbers.
#[derive(Clone, Copy, Default)]
struct Word {
    /// A bit for each that is fetched.
    bits: u64,
    /// How many before these are.
    before: u32,
}

impl Fetched {
    /// Looks through a pickle. `None` where its entries cannot be counted beforehand, which no pickler's is: numbered in both ways, or with
    /// numbers greater than its length.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut found = Numbers { words: Vec::new(), most: bytes.len() as u64, counted: false, put: false };
        let mut rest = bytes;
        // It ends where running it will end.
        while let Some(after) = found.next(rest) {
            rest = after;
        }
        let Numbers { mut words, most, counted, put } = found;
        if counted && put || most == 0 {
            return None;
        }
        let mut sum = 0u32;
        for word in &mut words {
            word.before = sum;
            sum = sum.saturating_add(word.bits.count_ones());
        }
        Some(Self { words })
    }

    /// How many with smaller numbers are fetched; `None` for one that is not.
    #[inline]
    fn rank(&self, index: u64) -> Option<usize> {
        let (word, bit) = split(index)?;
        let word = self.words.get(word).filter(|word| word.bits & bit != 0)?;
        let within = (word.bits & bit.wrapping_sub(1)).count_ones();
        Some(word.before.saturating_add(within) as usize)
    }
}

/// What was met on the way through a pickle.
struct Numbers {
    words: Vec<Word>,
    /// Numbers are less than this; 0 where one was not.
    most: u64,
    /// Whether entries were numbered one after the other, and by the numbers that opcodes say.
    counted: bool,
    put: bool,
}

/// What has to be known of each opcode.
static OPERANDS: [Operand; 256] = op::operands();

impl Numbers {
    /// What is behind the next opcode; `None` at the end.
    #[inline]
    fn next<'a>(&mut self, rest: &'a [u8]) -> Option<&'a [u8]> {
        let (code, rest) = rest.split_first()?;
        match *OPERANDS.get(usize::from(*code))? {
            Operand::Bytes(count) => rest.get(usize::from(count)..),
            Operand::Memoize => {
                self.counted = true;
                Some(rest)
            }
            Operand::Get(width) => {
                let (number, rest) = number(rest, width)?;
                self.fetched(number)?;
                Some(rest)
            }
            Operand::Counted(width) => {
                let (count, rest) = number(rest, width)?;
                rest.get(usize::try_from(count).ok()?..)
            }
            Operand::Put(width) => {
                self.put = true;
                rest.get(usize::from(width)..)
            }
            Operand::PutLine => {
                self.put = true;
                lines(rest, 1).map(|(_, rest)| rest)
            }
            Operand::GetLine => {
                let (text, rest) = lines(rest, 1)?;
                self.fetched(text.parse().ok()?)?;
                Some(rest)
            }
            Operand::Lines(count) => lines(rest, count).map(|(_, rest)| rest),
            Operand::Stop => None,
        }
    }

    #[inline]
    fn fetched(&mut self, number: u64) -> Option<()> {
        if number >= self.most {
            self.most = 0;
            return None;
        }
        let (word, bit) = split(number)?;
        if word >= self.words.len() {
            self.words.resize(word.saturating_add(1), Word::default());
        }
        self.words.get_mut(word)?.bits |= bit;
        Some(())
    }
}

/// Which word, and which bit of it.
#[inline]
fn split(number: u64) -> Option<(usize, u64)> {
    Some((usize::try_from(number >> 6).ok()?, 1 << (number & 63)))
}

/// The number in the first `width` bytes, and what is behind it.
#[inline]
fn number(bytes: &[u8], width: u8) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(width.into())?;
    Some((number.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)), rest))
}

/// The last of `count` lines, and what is behind it.
fn lines(bytes: &[u8], count: u8) -> Option<(&str, &[u8])> {
    let mut input = Cursor::new(bytes);
    let mut last = "";
    for _ in 0..count {
        last = input.line().ok()?;
    }
    Some((last, bytes.get(input.at()..)?))
}
