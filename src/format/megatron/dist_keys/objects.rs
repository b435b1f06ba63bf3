//! What stands around keys: the parts that objects are cut into, and the states of an optimizer.
//!
//! Source: Megatron-LM's `dist_checkpointing/mapping.py` (`ShardedObject.unique_key`), `optimizer/optimizer.py`.

/// The key of a part of an object: a layer of so many, an expert of so many, or the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey<'a> {
    /// What all parts have in common.
    pub key: &'a str,
    /// Which part, on each axis.
    pub offsets: Vec<u32>,
    /// Of how many, on each axis.
    pub counts: Vec<u32>,
}

/// The key of a state of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateKey<'a> {
    /// Which of several optimizers, where keys tell them apart.
    pub optimizer: Option<u32>,
    /// The state: `exp_avg`.
    pub state: &'a str,
    /// The key of the weight that it is of.
    pub key: &'a str,
}

/// Between the key of an object and its parts.
const PARTS: &str = "/shard_";
/// Before keys of states.
const STATES: &str = "optimizer.state.";
/// Before the number of an optimizer.
const CHAINED: &str = "chained_";

/// The key of the part at `offsets` of an object that is cut into `counts` parts. The only part of one that is not cut is 0 of 1.
#[must_use]
pub fn object_key(key: &str, offsets: &[u32], counts: &[u32]) -> String {
    let joined = |numbers: &[u32], only: &str| match numbers {
        [] => only.to_owned(),
        numbers => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join("."),
    };
    format!("{key}{PARTS}{}_{}", joined(offsets, "0"), joined(counts, "1"))
}

/// The key of a state of the weight with this key.
#[must_use]
pub fn state_key(state: &str, key: &str) -> String {
    format!("{STATES}{state}.{key}")
}

impl<'a> ObjectKey<'a> {
    /// Takes the key of an object apart; `None` where it is not one.
    #[must_use]
    pub fn parse(key: &'a str) -> Option<Self> {
        let (key, parts) = key.rsplit_once(PARTS)?;
        let (offsets, counts) = parts.split_once('_')?;
        let numbers = |text: &str| text.split('.').map(super::super::digits).collect::<Option<Vec<u32>>>();
        let (offsets, counts) = (numbers(offsets)?, numbers(counts)?);
        let fits = offsets.len() == counts.len() && offsets.iter().zip(&counts).all(|(at, of)| at < of);
        fits.then_some(Self { key, offsets, counts })
    }
}

impl<'a> StateKey<'a> {
    /// Takes the key of a state apart; `None` where it is not one.
    #[must_use]
    pub fn parse(key: &'a str) -> Option<Self> {
        let (optimizer, key) = match key.strip_prefix(CHAINED) {
            Some(chained) => {
                let (number, key) = chained.split_once('.')?;
                (Some(super::super::digits(number)?), key)
            }
            None => (None, key),
        };
        let (state, key) = key.strip_prefix(STATES)?.split_once('.')?;
        Some(Self { optimizer, state, key })
    }
}
