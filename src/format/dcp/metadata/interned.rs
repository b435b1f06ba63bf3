//! Texts and lists of numbers, each kept once and called by number: a checkpoint of a million chunks has a few thousand keys and shapes.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use crate::format::pickle::PickleError;

/// Texts.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Texts {
    pub(super) fn number(&mut self, text: &Arc<str>) -> Result<u32, PickleError> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        let number = u32::try_from(self.texts.len()).map_err(|_| PickleError::TooManyValues)?;
        self.texts.push(Arc::clone(text));
        self.numbers.insert(Arc::clone(text), number);
        Ok(number)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Arc<str>> {
        self.texts.get(number as usize)
    }

    /// How many there are: the number of the next one.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }
}

/// Lists of numbers.
#[derive(Debug, Default)]
pub(super) struct Lists {
    numbers: Vec<u64>,
    /// Where each list ends.
    ends: Vec<u32>,
    /// By hash; one whose hash is taken stands under the next one that is not.
    by_hash: HashMap<u64, u32, BuildHasherDefault<Folded>>,
    seed: Seed,
}

/// What nobody who writes a file can know.
#[derive(Debug)]
struct Seed(u64, u64);

impl Default for Seed {
    fn default() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(0), random.hash_one(1) | 1)
    }
}

impl Seed {
    fn hash(&self, list: &[u64]) -> u64 {
        list.iter().fold(self.0.wrapping_add(list.len() as u64), |hash, number| fold(hash ^ number, self.1))
    }
}

/// Both halves of the product of two numbers.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(b.into());
    product as u64 ^ (product >> 64) as u64
}

/// For keys that are hashes already.
#[derive(Debug, Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = fold(self.0 ^ u64::from(*byte), u64::MAX >> 1));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Lists {
    pub(super) fn number(&mut self, list: &[u64]) -> Result<u32, PickleError> {
        let mut hash = self.seed.hash(list);
        while let Some(number) = self.by_hash.get(&hash) {
            if self.get(*number) == list {
                return Ok(*number);
            }
            hash = hash.wrapping_add(1);
        }
        let number = u32::try_from(self.ends.len()).map_err(|_| PickleError::TooManyValues)?;
        self.numbers.extend(list);
        self.ends.push(u32::try_from(self.numbers.len()).map_err(|_| PickleError::TooManyValues)?);
        self.by_hash.insert(hash, number);
        Ok(number)
    }

    pub(super) fn get(&self, number: u32) -> &[u64] {
        let number = number as usize;
        let before = number.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.map_or(0, |start| *start as usize);
        let end = self.ends.get(number).map_or(start, |end| *end as usize);
        self.numbers.get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_has_one_number() {
        let mut lists = Lists::default();
        let made: Vec<Vec<u64>> = (0..3).flat_map(|n| (0..4).map(move |len| vec![n; len])).collect();
        let numbers: Vec<u32> = made.iter().map(|list| lists.number(list).unwrap()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]);
        for (list, number) in made.iter().zip(&numbers) {
            assert_eq!(lists.number(list), Ok(*number));
            assert_eq!(lists.get(*number), list);
        }
        let mut texts = Texts::default();
        let numbers = ["a", "b", "a"].map(|text| texts.number(&text.into()).unwrap());
        assert_eq!((numbers, texts.len(), texts.get(1).map(|text| &**text)), ([0, 1, 0], 2, Some("b")));
    }
}
