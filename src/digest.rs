//! Fingerprints of the weights and of the optimizer's state that do not depend on how they are stored.
//!
//! Version 1 of the weights: BLAKE3 over the line `ckpt-fs digest v1` and a line for each parameter, sorted by canonical name:
//! `name dtype [sizes] hash-of-its-bytes`. Sizes and bytes of the vocabulary are those of real rows, where their number is known. A tied
//! copy is no parameter of its own, so it counts once; a head that is saved and never computed with (`unused_output.weight`) does not count.
//!
//! Version 1 of the optimizer: the same over the line `ckpt-fs optimizer digest v1`, a line `step N` where the source says how many steps were
//! taken, a line `step name N` for each parameter with which another number of them was taken, and lines `state name dtype [sizes] hash-of-its-bytes` for `master`, `exp_avg` and so on, sorted by state and name.

#![deny(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::tensor::{Dtype, Shape};
use crate::weights::{Numbers, Set, Weights, WeightsError, each};

/// The version of the definition above; it is part of the printed digest.
pub const VERSION: &str = "v1";

/// The fingerprint of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Of all weights: 64 hexadecimal digits.
    pub weights: String,
    /// Of the optimizer's state, where there is one: 64 hexadecimal digits.
    pub optimizer: Option<String>,
    /// Of each parameter, sorted by name.
    pub parameters: Vec<ParameterDigest>,
    /// Of each state of the optimizer: its name, and that of each parameter.
    pub states: Vec<(Arc<str>, Vec<ParameterDigest>)>,
    /// Rows of the vocabulary that went into it, and whether padding is among them because the true size is unknown.
    pub vocabulary: Option<VocabularyRows>,
}

/// The fingerprint of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterDigest {
    /// Canonical name.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, real rows only.
    pub shape: Shape,
    /// BLAKE3 of its bytes, row-major.
    pub hash: String,
}

/// Rows of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabularyRows {
    /// The true size.
    True(u64),
    /// The true size is unknown: padding is included.
    PaddedTo(u64),
}

/// Computes the fingerprint, on `jobs` threads. `done` is told of bytes as they are read.
///
/// # Errors
/// [`WeightsError`]
pub fn digest(
    weights: &Weights,
    jobs: usize,
    stop: &AtomicBool,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Digest, WeightsError> {
    let mut parameters = Vec::new();
    let mut states = Vec::new();
    for set in weights.sets() {
        let digests = of_set(weights, &set, jobs, stop, done)?;
        match set.state {
            None => parameters = digests,
            Some(state) => states.push((state.clone(), digests)),
        }
    }
    states.sort_by(|a, b| a.0.cmp(&b.0));
    let vocabulary = weights.vocabulary.map(|vocabulary| match vocabulary.true_size {
        Some(size) => VocabularyRows::True(size),
        None => VocabularyRows::PaddedTo(vocabulary.stored),
    });
    let numbers = weights.numbers()?;
    let optimizer = weights.catalog.optimizer.as_ref().map(|_| of_optimizer(&numbers, &states));
    Ok(Digest { weights: of_weights(&parameters), optimizer, parameters, states, vocabulary })
}

/// The fingerprint of each parameter of a set, sorted by name.
fn of_set(
    weights: &Weights,
    set: &Set<'_>,
    jobs: usize,
    stop: &AtomicBool,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Vec<ParameterDigest>, WeightsError> {
    let params: Vec<_> = set.params().collect();
    let mut digests = each(&params, jobs, stop, |param| {
        let positions = weights.real_positions(param);
        let mut hasher = blake3::Hasher::new();
        weights.stream(&Weights::plan(param, positions)?, &mut |bytes| {
            hasher.update(bytes);
            done(bytes.len() as u64);
            true
        })?;
        Ok(ParameterDigest {
            name: param.name.clone(),
            dtype: param.dtype,
            shape: Weights::shape(param, positions),
            hash: hasher.finalize().to_hex().to_string(),
        })
    })?;
    digests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(digests)
}

// Writing to a string cannot fail, so what it returns is not looked at in these two.

fn of_weights(parameters: &[ParameterDigest]) -> String {
    let mut text = format!("ckpt-fs digest {VERSION}\n");
    for p in parameters {
        let _ = writeln!(text, "{} {} {} {}", p.name, p.dtype, p.shape, p.hash);
    }
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn of_optimizer(numbers: &[Numbers], states: &[(Arc<str>, Vec<ParameterDigest>)]) -> String {
    let mut text = format!("ckpt-fs optimizer digest {VERSION}\n");
    for Numbers { state, common, own, .. } in numbers {
        if let Some(number) = common {
            let _ = writeln!(text, "{state} {number}");
        }
        for (name, number) in own {
            let _ = writeln!(text, "{state} {name} {number}");
        }
    }
    for (state, parameters) in states {
        for p in parameters {
            let _ = writeln!(text, "{state} {} {} {} {}", p.name, p.dtype, p.shape, p.hash);
        }
    }
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
