//! Names of the files that say what is in a directory.
//!
//! Source: `torch/distributed/checkpoint/filesystem.py`. Files of pieces may have any name; torch's own are `__<rank>_<n>.distcp`.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// What is in the directory.
pub const METADATA: &str = ".metadata";

/// What is in a directory that Megatron saved, beside that.
pub const METADATA_JSON: &str = "metadata.json";

/// What accelerate, and the Trainer that uses it, call the directory of a model and that of an optimizer, each before its number.
pub const ACCELERATE_MODEL: &str = "pytorch_model_fsdp_";
/// See [`ACCELERATE_MODEL`].
pub const ACCELERATE_OPTIMIZER: &str = "optimizer_";

/// What torch writes before the others are complete, and then renames: a directory that has it and not the other was not saved to the end.
#[must_use]
pub fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|name| name == METADATA || rank_of(name).is_some())
}

/// The rank that saved `__<rank>.metadata`: where ranks did not talk to each other (`use_collectives=False`), each says what it has itself.
#[must_use]
pub fn rank_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("__")?.strip_suffix(METADATA)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ranks() {
        assert_eq!(["__0.metadata", "__12.metadata"].map(rank_of), [Some(0), Some(12)]);
        for name in [".metadata", "__.metadata", "__01.metadata", "__+1.metadata", "__1_0.distcp", "__99999999999.metadata"] {
            assert_eq!(rank_of(name), None, "{name}");
        }
        assert!(is_unfinished(".metadata.tmp") && is_unfinished("__3.metadata.tmp"));
        assert!(!is_unfinished(".metadata") && !is_unfinished("other.tmp"));
    }
}
