//! A fingerprint of the weights that does not depend on the layout they are stored in.
//!
//! Version 1: BLAKE3 over the line `ckpt-fs digest v1` and a line for each parameter, sorted by canonical name:
//! `name dtype [sizes] hash-of-its-bytes`. Sizes and bytes of the vocabulary are those of real rows, where their number is known. A tied
//! copy is no parameter of its own, so it counts once.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::tensor::{Dtype, Shape};
use crate::weights::{Weights, WeightsError, each};

/// The version of the definition above; it is part of the printed digest.
pub const VERSION: &str = "v1";

/// The fingerprint of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Of all weights: 64 hexadecimal digits.
    pub weights: String,
    /// Of each parameter, sorted by name.
    pub parameters: Vec<ParameterDigest>,
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
    let params = weights.catalog.params();
    let mut parameters = each(params, jobs, stop, |param| {
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
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = format!("ckpt-fs digest {VERSION}\n");
    for p in &parameters {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {} {}", p.name, p.dtype, p.shape, p.hash);
    }
    let vocabulary = weights.vocabulary.map(|vocabulary| match vocabulary.true_size {
        Some(size) => VocabularyRows::True(size),
        None => VocabularyRows::PaddedTo(vocabulary.stored),
    });
    Ok(Digest { weights: blake3::hash(text.as_bytes()).to_hex().to_string(), parameters, vocabulary })
}

/// Bytes that [`digest`] will read.
#[must_use]
pub fn bytes(weights: &Weights) -> u64 {
    let bytes = |param| Weights::shape(param, weights.real_positions(param)).bytes(param.dtype).unwrap_or(0);
    weights.catalog.params().iter().map(bytes).sum()
}
