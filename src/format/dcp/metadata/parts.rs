//! What is taken out of a `.metadata` while it is decoded: each object of DCP becomes a few bytes here and a number in the pickle.
//!
//! What is wrong with one is said only where it is needed: Megatron's copies of its plans hold the same objects, and matter to nobody.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod entries;

use super::classes::Class;
use super::interned::{Lists, Texts};
use super::{DcpError, Encoding};
use crate::format::pickle::{Consumer, Item, Made, PickleError, Taken};
use crate::tensor::Dtype;

/// An object that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Number of a list of numbers.
    Size(u32),
    /// Position in [`Parts::chunks`].
    Chunk(u32),
    /// Position in [`Parts::indices`].
    Index(u32),
    /// Position in [`Parts::infos`].
    Info(u32),
    /// Position in the table of dtypes.
    Properties(u32),
    /// Position in [`Parts::tensors`].
    Tensor(u32),
    /// A `BytesStorageMetadata`, which says nothing.
    Bytes,
    /// `torch.strided`
    Strided,
    /// What nobody asks for.
    Skipped,
    /// Position in [`Parts::bad`].
    Bad(u32),
}

/// Bits of a number that say which; above them is what it is.
const BITS: u32 = 27;

impl Part {
    fn split(self) -> (u32, u32) {
        match self {
            Self::Size(number) => (0, number),
            Self::Chunk(number) => (1, number),
            Self::Index(number) => (2, number),
            Self::Info(number) => (3, number),
            Self::Properties(number) => (4, number),
            Self::Tensor(number) => (5, number),
            Self::Bytes => (6, 0),
            Self::Strided => (7, 0),
            Self::Skipped => (8, 0),
            Self::Bad(number) => (9, number),
        }
    }

    fn taken(self) -> Result<Taken, PickleError> {
        let (kind, number) = self.split();
        let taken = (number >> BITS == 0).then(|| Taken::new(kind << BITS | number)).flatten();
        taken.ok_or(PickleError::TooManyValues)
    }

    fn of(taken: Taken) -> Self {
        let number = taken.number() & ((1 << BITS) - 1);
        match taken.number() >> BITS {
            0 => Self::Size(number),
            1 => Self::Chunk(number),
            2 => Self::Index(number),
            3 => Self::Info(number),
            4 => Self::Properties(number),
            5 => Self::Tensor(number),
            6 => Self::Bytes,
            7 => Self::Strided,
            8 => Self::Skipped,
            _ => Self::Bad(number),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Size(_) => "a torch.Size",
            Self::Chunk(_) => "a ChunkStorageMetadata",
            Self::Index(_) => "a MetadataIndex",
            Self::Info(_) => "a _StorageInfo",
            Self::Properties(_) => "a TensorProperties",
            Self::Tensor(_) => "a TensorStorageMetadata",
            Self::Bytes => "a BytesStorageMetadata",
            Self::Strided => "a layout",
            Self::Skipped | Self::Bad(_) => "another object",
        }
    }
}

/// A chunk: numbers of its offsets and sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawChunk {
    pub(super) offsets: u32,
    pub(super) sizes: u32,
}

/// What a piece is of: number of the key, and of the offsets of its chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawIndex {
    pub(super) key: u32,
    pub(super) offsets: Option<u32>,
}

/// Where a piece is: [`super::Place`], with the number of a path that was met.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawInfo {
    pub(super) path: u32,
    pub(super) encoding: Encoding,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A tensor.
#[derive(Debug)]
pub(super) struct RawTensor {
    pub(super) dtype: Dtype,
    pub(super) size: u32,
    /// Positions in [`Parts::chunks`].
    pub(super) chunks: Box<[u32]>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) lists: Lists,
    pub(super) keys: Texts,
    pub(super) paths: Texts,
    pub(super) chunks: Vec<RawChunk>,
    pub(super) indices: Vec<RawIndex>,
    pub(super) infos: Vec<RawInfo>,
    pub(super) tensors: Vec<RawTensor>,
    bad: Vec<DcpError>,
    /// Bytes that may still be looked at or copied for what is taken.
    left: u64,
}

impl Parts {
    /// For a pickle of `len` bytes. A text or list that many objects refer to is in it once and looked at for each: in real ones, as much as
    /// their length at most.
    pub(super) fn new(len: u64) -> Self {
        /// For each byte of the pickle, and for those of small ones.
        const EACH: u64 = 16;
        const FIRST: u64 = 1 << 16;
        Self {
            lists: Lists::default(),
            keys: Texts::default(),
            paths: Texts::default(),
            chunks: Vec::new(),
            indices: Vec::new(),
            infos: Vec::new(),
            tensors: Vec::new(),
            bad: Vec::new(),
            left: len.saturating_mul(EACH).saturating_add(FIRST),
        }
    }

    /// Takes `bytes` off what may be looked at.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), DcpError> {
        self.left = self.left.checked_sub(bytes as u64).ok_or(DcpError::Shared)?;
        Ok(())
    }

    /// What `item` was taken for.
    pub(super) fn part(&self, item: Item<'_>, expected: &'static str) -> Result<Part, DcpError> {
        match item.taken().map(Part::of) {
            Some(Part::Bad(number)) => match self.bad.get(number as usize) {
                Some(error) => Err(error.clone()),
                None => Err(wrong(expected, "another object")),
            },
            Some(part) => Ok(part),
            None => Err(DcpError::Expected { expected, found: describe(item) }),
        }
    }

    /// Position of an object that was just pushed.
    pub(super) fn last<T>(list: &[T]) -> Result<u32, PickleError> {
        u32::try_from(list.len().saturating_sub(1)).map_err(|_| PickleError::TooManyValues)
    }

    fn take(&mut self, class: Class, made: Made<'_>) -> Result<Part, DcpError> {
        match (class, made.state) {
            (Class::Size, _) => self.size(made.args),
            (Class::Layout, _) => entries::layout(made.args),
            (Class::Properties, Some(state)) => self.properties(state),
            (Class::Chunk, Some(state)) => self.chunk(state),
            (Class::Tensor, Some(state)) => self.tensor(state),
            (Class::Index, Some(state)) => self.index(state),
            (Class::StorageInfo, Some(state)) => self.info(state),
            (Class::Bytes, _) => Ok(Part::Bytes),
            _ => Ok(Part::Skipped),
        }
    }
}

impl Consumer for Parts {
    type Error = DcpError;

    fn made(&mut self, made: Made<'_>) -> Result<Option<Taken>, DcpError> {
        /// As many errors wait for somebody to need the object; more of them end the decoding.
        const MOST: usize = 1 << 10;
        let Some(class) = Class::of(&made) else { return Ok(None) };
        let part = match self.take(class, made) {
            Ok(part) => part,
            Err(error @ (DcpError::Pickle(_) | DcpError::Shared)) => return Err(error),
            Err(error) if self.bad.len() >= MOST => return Err(error),
            Err(error) => {
                self.bad.push(error);
                Part::Bad(Self::last(&self.bad)?)
            }
        };
        Ok(Some(part.taken()?))
    }
}

/// An error about a part of another kind.
pub(super) fn unlike(expected: &'static str, found: Part) -> DcpError {
    wrong(expected, found.name())
}

fn wrong(expected: &'static str, found: &str) -> DcpError {
    DcpError::Expected { expected, found: found.to_owned() }
}

/// What a value is, by its class where it is an object.
pub(super) fn describe(item: Item<'_>) -> String {
    /// Names of classes are shorter.
    const MOST: usize = 200;
    if let Some(taken) = item.taken() {
        return Part::of(taken).name().to_owned();
    }
    match item.object() {
        Some(object) => format!("{}.{}", object.class.module, object.class.name).chars().take(MOST).collect(),
        None => item.kind().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_their_numbers() {
        for number in [0, 1, (1 << BITS) - 1] {
            let all = [
                Part::Size(number),
                Part::Chunk(number),
                Part::Index(number),
                Part::Info(number),
                Part::Properties(number),
                Part::Tensor(number),
                Part::Bytes,
                Part::Strided,
                Part::Skipped,
                Part::Bad(number),
            ];
            for part in all {
                assert_eq!(Part::of(part.taken().unwrap()), part);
            }
        }
        assert_eq!(Part::Chunk(1 << BITS).taken(), Err(PickleError::TooManyValues));
    }
}
