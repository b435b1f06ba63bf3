//! Compares two checkpoints in any two layouts, parameter by parameter, bit for bit; or one with itself, replica by replica.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::catalog::{Chunk, Param};
use crate::plan::{Builder, FilePlan, Stripe};
use crate::reader::{BLOCK, Checksums};
use crate::tensor::Shape;
use crate::weights::{Weights, WeightsError, each};

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Parameters looked at.
    pub parameters: usize,
    /// Bytes compared.
    pub bytes: u64,
    /// What differs, in the order of the first checkpoint's parameters.
    pub differences: Vec<Difference>,
    /// Rows of the vocabulary that were left out of the comparison, where sizes differ because of padding.
    pub padding_ignored: Option<u64>,
}

/// One parameter that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Canonical name; for damage, the record.
    pub parameter: Arc<str>,
    /// In what.
    pub what: What,
}

/// In what a parameter differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Only the first checkpoint has it.
    OnlyInFirst,
    /// Only the second checkpoint has it.
    OnlyInSecond,
    /// Element type or shape.
    Kind {
        /// By the first.
        first: String,
        /// By the second.
        second: String,
    },
    /// Its bytes.
    Bytes {
        /// Index of the first element that differs.
        index: Vec<u64>,
        /// Where the first value is stored.
        first: String,
        /// Where the second value is stored.
        second: String,
    },
    /// A record whose bytes are not those that were summed when it was written.
    Damaged {
        /// The rank file.
        file: String,
        /// CRC-32 that the file states.
        stated: u32,
        /// CRC-32 of its bytes.
        found: u32,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.parameter;
        match &self.what {
            What::OnlyInFirst => write!(f, "{name} is only in the first checkpoint"),
            What::OnlyInSecond => write!(f, "{name} is only in the second checkpoint"),
            What::Kind { first, second } => {
                write!(f, "{name} is {first} in the first checkpoint, {second} in the second")
            }
            What::Damaged { file, stated, found } => {
                write!(
                    f,
                    "{name} of {file} is damaged: its CRC-32 is {found:08x}, the file states {stated:08x}"
                )
            }
            What::Bytes { index, first, second } => {
                write!(f, "{name} differs from element {} on: {first} and {second}", Shape(index.clone()))
            }
        }
    }
}

/// What is followed while a comparison runs.
pub struct Hooks<'a> {
    /// Threads.
    pub jobs: usize,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
    /// Told of bytes as they are compared.
    pub done: &'a (dyn Fn(u64) + Sync),
}

impl fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// Compares two checkpoints. Rows of the vocabulary are compared up to its true size where either knows it, else up to the shorter one.
///
/// # Errors
/// [`WeightsError`] where one cannot be read.
pub fn compare(first: &Weights, second: &Weights, hooks: &Hooks<'_>) -> Result<Report, WeightsError> {
    let mut differences = Vec::new();
    let mut pairs = Vec::new();
    let mut ignored = 0;
    for param in first.catalog.params() {
        let Some(other) = second.catalog.param(&param.name) else {
            differences.push(Difference { parameter: param.name.clone(), what: What::OnlyInFirst });
            continue;
        };
        let positions = if first.is_padded(param) && second.is_padded(other) {
            // Where one lacks rows that are real in the other, that is no matter of padding.
            let shared = shared_rows((first, param), (second, other));
            ignored = shared.map_or(ignored, |rows| param.size().max(other.size()) - rows);
            shared
        } else {
            Some(param.size()).filter(|_| param.shape == other.shape)
        };
        let same_rows = |rows: &u64| Weights::shape(param, *rows) == Weights::shape(other, *rows);
        let positions = positions.filter(same_rows).filter(|_| param.dtype == other.dtype);
        if let Some(positions) = positions {
            pairs.push((param, other, positions));
        } else {
            let kind = |param: &Param| format!("{} {}", param.dtype, param.shape);
            let what = What::Kind { first: kind(param), second: kind(other) };
            differences.push(Difference { parameter: param.name.clone(), what });
        }
    }
    let extra = second.catalog.params().iter().filter(|param| first.catalog.param(&param.name).is_none());
    differences
        .extend(extra.map(|param| Difference { parameter: param.name.clone(), what: What::OnlyInSecond }));
    let results = each(&pairs, hooks.jobs, hooks.stop, |(param, other, positions)| {
        let plans = (Weights::plan(param, *positions)?, Weights::plan(other, *positions)?);
        let at = first_difference((first, &plans.0), (second, &plans.1), hooks.done)?;
        Ok((plans.0.len(), at))
    })?;
    let bytes = results.iter().map(|(bytes, _)| bytes).sum();
    for ((param, other, positions), (_, at)) in pairs.iter().zip(results) {
        if let Some(byte) = at {
            let index = index_of(byte, param, *positions);
            let position = index.get(param.axis).copied().unwrap_or(0);
            let place = |weights: &Weights, param: &Param| {
                param
                    .chunk_at(position)
                    .map_or_else(String::new, |chunk| weights.reader.store().name(chunk.object))
            };
            let (first, second) = (place(first, param), place(second, other));
            differences.push(Difference {
                parameter: param.name.clone(),
                what: What::Bytes { index, first, second },
            });
        }
    }
    let parameters = first.catalog.params().len();
    Ok(Report { parameters, bytes, differences, padding_ignored: (ignored > 0).then_some(ignored) })
}

/// Rows of the vocabulary to compare: those that are real, where either knows how many are, else all that both have. `None` where one
/// has fewer than are real.
fn shared_rows(first: (&Weights, &Param), second: (&Weights, &Param)) -> Option<u64> {
    let known = |weights: &Weights| weights.vocabulary.and_then(|vocabulary| vocabulary.true_size);
    let least = first.1.size().min(second.1.size());
    let real = known(first.0).max(known(second.0)).unwrap_or(least);
    (real <= least).then_some(real)
}

/// Checks that ranks which store the same positions of a parameter store the same bytes: replicated tensors and tied copies.
///
/// # Errors
/// [`WeightsError`] where the checkpoint cannot be read.
pub fn check_replicas(weights: &Weights, hooks: &Hooks<'_>) -> Result<Report, WeightsError> {
    let mut pairs: Vec<(&Param, &Chunk, &Chunk)> = Vec::new();
    for param in weights.catalog.params() {
        for (before, chunk) in param.chunks().iter().zip(param.chunks().iter().skip(1)) {
            // Each replica against the one before it: equality passes along.
            if before.span == chunk.span {
                pairs.push((param, before, chunk));
            }
        }
    }
    let results = each(&pairs, hooks.jobs, hooks.stop, |(param, one, other)| {
        let plans = (Weights::plan_of_chunk(param, one)?, Weights::plan_of_chunk(param, other)?);
        let at = first_difference((weights, &plans.0), (weights, &plans.1), hooks.done)?;
        Ok((plans.0.len(), at))
    })?;
    let bytes = results.iter().map(|(bytes, _)| bytes).sum();
    let mut differences = Vec::new();
    for ((param, one, other), (_, at)) in pairs.iter().zip(results) {
        if let Some(byte) = at {
            let mut index = index_of(byte, param, one.span.end - one.span.start);
            if let Some(position) = index.get_mut(param.axis) {
                *position += one.span.start;
            }
            let name = |chunk: &Chunk| weights.reader.store().name(chunk.object);
            let what = What::Bytes { index, first: name(one), second: name(other) };
            differences.push(Difference { parameter: param.name.clone(), what });
        }
    }
    Ok(Report { parameters: weights.catalog.params().len(), bytes, differences, padding_ignored: None })
}

/// Checks the records that hold tensors against the CRC-32s that their files state. Files that state none are not read.
///
/// # Errors
/// [`WeightsError`] where the checkpoint cannot be read.
pub fn check_records(weights: &Weights, hooks: &Hooks<'_>) -> Result<Report, WeightsError> {
    let mut records: Vec<_> = weights
        .catalog
        .ranks
        .iter()
        .flat_map(|file| {
            file.storages.iter().filter_map(move |(key, record)| Some((file, key, record, record.crc?)))
        })
        .collect();
    records.sort_by_key(|(file, _, record, _)| (file.rank, record.extent.offset));
    let results = each(&records, hooks.jobs, hooks.stop, |(_, _, record, _)| {
        let mut builder = Builder::new();
        builder.stripe(Stripe::contiguous(record.extent.object, record.extent.offset, record.extent.len));
        let mut hasher = crc32fast::Hasher::new();
        weights.stream(&builder.finish(), &mut |bytes| {
            hasher.update(bytes);
            (hooks.done)(bytes.len() as u64);
            true
        })?;
        Ok(hasher.finalize())
    })?;
    let bytes = records.iter().map(|(_, _, record, _)| record.extent.len).sum();
    let damaged = records.iter().zip(results).filter(|((_, _, _, stated), found)| stated != found);
    let differences = damaged.map(|((file, key, _, stated), found)| Difference {
        parameter: format!("record data/{key}").into(),
        what: What::Damaged { file: file.name.clone(), stated: *stated, found },
    });
    let differences = differences.collect();
    Ok(Report { parameters: weights.catalog.params().len(), bytes, differences, padding_ignored: None })
}

impl Report {
    /// What both found, of the same checkpoint or of the same two.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.bytes += other.bytes;
        self.differences.extend(other.differences);
        self.padding_ignored = self.padding_ignored.or(other.padding_ignored);
        self
    }
}

/// First byte in which two plans of the same length differ.
fn first_difference(
    first: (&Weights, &FilePlan),
    second: (&Weights, &FilePlan),
    done: &(dyn Fn(u64) + Sync),
) -> Result<Option<u64>, WeightsError> {
    let block = usize::try_from(second.1.len()).unwrap_or(BLOCK).min(BLOCK);
    let mut other = vec![0; block];
    let mut at = 0;
    let mut failed = None;
    let mut found = None;
    first.0.stream(first.1, &mut |bytes| {
        let slot = other.get_mut(..bytes.len()).unwrap_or_default();
        match second.0.reader.read(second.1, &Checksums::default(), at, slot) {
            Ok(read) if read == bytes.len() && slot == bytes => {
                at += read as u64;
                done(read as u64);
                true
            }
            Ok(_) => {
                let same = bytes.iter().zip(slot.iter()).take_while(|(a, b)| a == b).count();
                found = Some(at + same as u64);
                false
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    })?;
    failed.map_or(Ok(found), |error| Err(error.into()))
}

/// Index of the element that holds byte `byte` of the parameter's first `positions`.
fn index_of(byte: u64, param: &Param, positions: u64) -> Vec<u64> {
    let mut element = byte / param.dtype.size();
    let mut index: Vec<u64> = Vec::new();
    for size in Weights::shape(param, positions).0.iter().rev() {
        index.push(element % (*size).max(1));
        element /= (*size).max(1);
    }
    index.reverse();
    index
}
