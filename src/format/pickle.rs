//! Python pickles as data: bytes to [`Value`] and back.
//!
//! Nothing a pickle names is imported and nothing it asks for is called: `REDUCE` and `NEWOBJ` become [`crate::value::Object`]s. The
//! decoder takes protocols 0 to 5 as far as torch and Megatron use them; the encoder writes protocol 2 as CPython's C pickler does.
//!
//! Not here: tensors (`torch` makes them from the objects found here).

mod consume;
mod cursor;
mod encode;
mod freeze;
mod integer;
mod lower;
mod machine;
mod memo;
mod node;
mod opcode;
#[cfg(test)]
mod tests;

pub use consume::{Consumer, Item, Made, Taken};
#[cfg(feature = "internals")]
pub use encode::encode;
pub use encode::encode_lowered;
pub use lower::Lower;

use crate::value::{Global, Value};

/// What a pickle names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Every class and function, and how often it is used.
    pub globals: Vec<(Global, u64)>,
    /// Bytes of the pickle, or up to where it could not be followed further.
    pub len: usize,
    /// Why it could not be followed further.
    pub problem: Option<PickleError>,
}

/// Lists what the pickle at the start of `bytes` names, also where [`decode`] refuses it. What follows it is left alone.
#[must_use]
pub fn survey(bytes: &[u8]) -> Survey {
    machine::survey(bytes)
}

/// How large a tree may become. What a pickle may cost in memory follows from its length alone; these bound what it may cost to walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes on the longest path from the root, the root included.
    pub depth: u32,
    /// Nodes of the tree when every shared node is counted each time it is referred to; 16 bytes of text count as a node too.
    pub expanded: u64,
}

impl Default for Limits {
    /// Real checkpoints reach a depth of about 20 and a few hundred thousand nodes.
    fn default() -> Self {
        Self { depth: 200, expanded: 50_000_000 }
    }
}

/// Why a pickle cannot be read or written. Offsets are bytes from the start of the pickle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle ends before what an opcode needs.
    #[error("the pickle is cut short: {need} bytes needed at byte {offset}, {have} left")]
    Truncated {
        /// Where the bytes were to be.
        offset: usize,
        /// Bytes needed.
        need: u64,
        /// Bytes there are.
        have: usize,
    },
    /// A text argument without its newline.
    #[error("the pickle is cut short: the text at byte {offset} has no end of line")]
    UnendedLine {
        /// Start of the text.
        offset: usize,
    },
    /// An opcode this decoder does not take.
    #[error("opcode {name} (0x{code:02x}) at byte {offset} is not supported")]
    UnsupportedOpcode {
        /// The byte found.
        code: u8,
        /// What `pickletools` calls it, or `unknown`.
        name: &'static str,
        /// Where it is.
        offset: usize,
    },
    /// A protocol newer than 5.
    #[error("pickle protocol {found} at byte {offset} is not supported (0 to 5 are)")]
    Protocol {
        /// The number found.
        found: u8,
        /// Where the opcode is.
        offset: usize,
    },
    /// An opcode takes more values than the stack has above its mark.
    #[error("opcode {name} at byte {offset} takes more values than there are")]
    StackUnderflow {
        /// The opcode.
        name: &'static str,
        /// Where it is.
        offset: usize,
    },
    /// An opcode that works up to a mark, without a mark.
    #[error("opcode {name} at byte {offset} needs a mark and there is none")]
    NoMark {
        /// The opcode.
        name: &'static str,
        /// Where it is.
        offset: usize,
    },
    /// An opcode refers to a memo entry that was never made.
    #[error("opcode {name} at byte {offset} refers to memo entry {index}, which does not exist")]
    UnknownMemo {
        /// The opcode.
        name: &'static str,
        /// Where it is.
        offset: usize,
        /// The entry asked for.
        index: u64,
    },
    /// An opcode is applied to something it does not apply to.
    #[error("opcode {name} at byte {offset} expects {expected}, found {found}")]
    Operand {
        /// The opcode.
        name: &'static str,
        /// Where it is.
        offset: usize,
        /// What it applies to.
        expected: &'static str,
        /// What was there.
        found: &'static str,
    },
    /// Text that is not UTF-8. Lone surrogates, which Python can pickle, are among it.
    #[error("the text at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// Start of the text.
        offset: usize,
    },
    /// A number that does not read as one.
    #[error("the text at byte {offset} is not a number that opcode {name} takes")]
    BadNumber {
        /// The opcode.
        name: &'static str,
        /// Start of the text.
        offset: usize,
    },
    /// Bytes after the end.
    #[error("{count} bytes follow the end of the pickle at byte {offset}")]
    TrailingBytes {
        /// The byte after `STOP`.
        offset: usize,
        /// How many follow.
        count: usize,
    },
    /// The pickle ends with other than one value.
    #[error("the pickle ends with {count} values on its stack and {marks} open marks instead of one value")]
    UnbalancedStop {
        /// Values left.
        count: usize,
        /// Marks left.
        marks: usize,
    },
    /// More values, marks or memo entries than any checkpoint's pickle has.
    #[error("the pickle holds more than 8 million values, which no checkpoint's does")]
    TooManyValues,
    /// A value that contains itself.
    #[error("a {kind} in the pickle contains itself")]
    Cycle {
        /// What it is.
        kind: &'static str,
    },
    /// Nested deeper than [`Limits::depth`] (decoder) or the encoder's bound.
    #[error("values are nested more than {limit} deep")]
    TooDeep {
        /// The bound.
        limit: u32,
    },
    /// Larger than [`Limits::expanded`].
    #[error("the pickle stands for more than {limit} values")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// A dict that sets a key twice. Python would keep the last value; no pickler writes this.
    #[error("key {key} occurs twice in a dict")]
    DuplicateKey {
        /// The key as text.
        key: String,
    },
    /// Encoder: text or bytes longer than 4 GiB, which protocol 2 cannot hold.
    #[error("{len} bytes of text are too long for pickle protocol 2")]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// Encoder: a tensor that was not lowered to the call that rebuilds it.
    #[error("a tensor cannot be pickled as such (storage {storage})")]
    Tensor {
        /// Key of its storage.
        storage: String,
    },
    /// Encoder: a module or name with a line break in it.
    #[error("{name:?} cannot be the name of a Python global")]
    GlobalName {
        /// The name.
        name: String,
    },
}

/// Decodes one pickle.
///
/// The input must end where the pickle ends. Memory is bounded by a small multiple of its length (under 200 bytes for each
/// one-byte opcode at worst), whatever lengths it declares, and by a number of values beyond which nothing more is read.
///
/// # Errors
/// Input that is cut short, malformed, cyclic, beyond `limits`, or that uses an opcode real checkpoints do not.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Value, PickleError> {
    let (nodes, root) = machine::run(bytes)?;
    freeze::freeze(nodes, root, limits)
}

/// Decodes one pickle whose objects `consumer` takes as they are finished; `finish` makes the answer of what it took and of the root.
///
/// Beside what the consumer keeps, memory is taken for what is left of the pickle at any time, and for a few bits of each of its values: a
/// pickle may be of any length, as long as it is never more than 4 million values of which nothing was taken (under 200 bytes for each of
/// its one-byte opcodes at worst).
///
/// # Errors
/// Input that is cut short or malformed, or that uses an opcode real checkpoints do not; those of `consumer` and `finish`. Dicts that set a
/// key twice are for them to refuse.
pub fn consume<C: Consumer, T>(
    bytes: &[u8],
    consumer: C,
    finish: impl FnOnce(C, Item<'_>) -> Result<T, C::Error>,
) -> Result<T, C::Error> {
    machine::consume(bytes, consumer, finish)
}
