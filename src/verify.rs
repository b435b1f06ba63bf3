//! Compares two checkpoints in any two layouts, parameter by parameter, bit for bit; one with itself, replica by replica; or files with a view
//! that they are copies of.

#![deny(clippy::disallowed_methods)]

mod copies;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::catalog::{Chunk, Optimizer, Param};
use crate::plan::{Builder, FilePlan, Stripe};
use crate::reader::{BLOCK, Checksums};
use crate::tensor::Shape;
use crate::weights::{Numbers, Set, Weights, WeightsError, each};

pub use copies::{Copies, CopyDifference, CopyError, CopyProblem, compare_copies};

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Parameters looked at.
    pub parameters: usize,
    /// States of the optimizer looked at.
    pub states: usize,
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
        // Whoever compares with a copy of the weights alone can say so.
        let advice = if **name == *OPTIMIZER { " (--optimizer none compares the weights alone)" } else { "" };
        match &self.what {
            What::OnlyInFirst => write!(f, "{name} is only in the first checkpoint{advice}"),
            What::OnlyInSecond => write!(f, "{name} is only in the second checkpoint{advice}"),
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

/// Compares two checkpoints: weights, and the optimizer's state however each keeps it. Rows of the vocabulary are compared up to its true
/// size where either knows it, else up to the shorter one.
///
/// # Errors
/// [`WeightsError`] where one cannot be read.
pub fn compare(first: &Weights, second: &Weights, hooks: &Hooks<'_>) -> Result<Report, WeightsError> {
    let (sets, others) = (first.sets(), second.sets());
    let mut report = Report { parameters: first.parameters(), ..Report::default() };
    report.differences.extend(optimizers_differ(first, second)?);
    for set in &sets {
        if let Some(other) = others.iter().find(|other| other.state == set.state) {
            compare_sets((first, set), (second, other), hooks, &mut report)?;
            report.states += usize::from(set.state.is_some());
        }
    }
    Ok(report)
}

/// What only one of the optimizers has, and where numbers of parameters, such as steps taken, differ.
fn optimizers_differ(first: &Weights, second: &Weights) -> Result<Vec<Difference>, WeightsError> {
    let differs = |name: &str, what| Difference { parameter: Arc::from(name), what };
    let (one, other) = match (&first.catalog.optimizer, &second.catalog.optimizer) {
        (Some(one), Some(other)) => (one, other),
        (None, None) => return Ok(Vec::new()),
        (Some(_), None) => return Ok(vec![differs(OPTIMIZER, What::OnlyInFirst)]),
        (None, Some(_)) => return Ok(vec![differs(OPTIMIZER, What::OnlyInSecond)]),
    };
    let mut differences = Vec::new();
    let (numbers, others) = (first.numbers()?, second.numbers()?);
    for ours in &numbers {
        match others.iter().find(|theirs| theirs.state == ours.state) {
            Some(theirs) => differences.extend(numbers_differ(ours, theirs)),
            None => differences.push(differs(&format!("the optimizer's {}", ours.state), What::OnlyInFirst)),
        }
    }
    let only = others.iter().filter(|theirs| !numbers.iter().any(|ours| ours.state == theirs.state));
    differences.extend(only.map(|theirs| differs(&format!("the optimizer's {}", theirs.state), What::OnlyInSecond)));
    let lacks = |name: &str, optimizer: &Optimizer| !optimizer.elements().any(|(state, _)| **state == *name);
    for (from, against, what) in [(one, other, What::OnlyInFirst), (other, one, What::OnlyInSecond)] {
        let only = from.elements().filter(|(state, _)| lacks(state, against));
        differences.extend(only.map(|(state, _)| differs(&format!("the optimizer's {state}"), what.clone())));
    }
    Ok(differences)
}

/// Numbers of a state that is one for each parameter: the one that most have, and those of each that has another.
fn numbers_differ(first: &Numbers, second: &Numbers) -> Vec<Difference> {
    let said = |number: Option<&str>| match number {
        Some(number) => number.to_owned(),
        None => "not known".to_owned(),
    };
    let kind = |one, other| What::Kind { first: said(one), second: said(other) };
    let mut differences = Vec::new();
    if first.common != second.common {
        let parameter = format!("the optimizer's {}", first.state).into();
        differences.push(Difference { parameter, what: kind(first.common.as_deref(), second.common.as_deref()) });
    }
    let said_of = |one: &Numbers| one.said_of.clone().into_iter().flatten();
    // Where one says it once, of all, it is said of what the other says it of.
    let lacking = match (&first.said_of, &second.said_of) {
        (Some(_), Some(_)) => said_of(first).collect::<BTreeSet<_>>().symmetric_difference(&said_of(second).collect()).cloned().collect(),
        _ => Vec::new(),
    };
    let own = first.own.keys().chain(second.own.keys()).cloned();
    for name in &own.chain(lacking).collect::<BTreeSet<_>>() {
        let (one, other) = (first.of(name), second.of(name));
        if one != other {
            let parameter = format!("{} of {name}", first.state).into();
            differences.push(Difference { parameter, what: kind(one, other) });
        }
    }
    differences
}

const OPTIMIZER: &str = "the optimizer's state";

/// Compares the parameters of one set of each checkpoint.
fn compare_sets(
    (first, set): (&Weights, &Set<'_>),
    (second, others): (&Weights, &Set<'_>),
    hooks: &Hooks<'_>,
    report: &mut Report,
) -> Result<(), WeightsError> {
    let mut pairs = Vec::new();
    let mut ignored = 0;
    for param in set.params() {
        let Some(other) = others.params.get(&param.name) else {
            report.differs(set.name_of(param), What::OnlyInFirst);
            continue;
        };
        let positions = if first.is_padded(param) && second.is_padded(other) {
            // Where one lacks rows that are real in the other, that is no matter of padding.
            let shared = shared_rows((first, param), (second, other));
            if let Some(rows) = shared {
                ignored = param.size().max(other.size()) - rows;
            }
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
            report.differs(set.name_of(param), What::Kind { first: kind(param), second: kind(other) });
        }
    }
    for param in others.params().filter(|param| set.params.get(&param.name).is_none()) {
        report.differs(set.name_of(param), What::OnlyInSecond);
    }
    let results = each(&pairs, hooks.jobs, hooks.stop, |(param, other, positions)| {
        let plans = (Weights::plan(param, *positions)?, Weights::plan(other, *positions)?);
        let at = first_difference((first, &plans.0), (second, &plans.1), hooks.done)?;
        Ok((plans.0.len(), at))
    })?;
    report.bytes += results.iter().map(|(bytes, _)| bytes).sum::<u64>();
    for ((param, other, positions), (_, at)) in pairs.iter().zip(results) {
        if let Some(byte) = at {
            let index = index_of(byte, param, *positions);
            let place = |weights: &Weights, param: &Param| holder(weights, param, &index);
            let (first, second) = (place(first, param), place(second, other));
            report.differs(set.name_of(param), What::Bytes { index, first, second });
        }
    }
    report.padding_ignored = report.padding_ignored.or((ignored > 0).then_some(ignored));
    Ok(())
}

/// Where the element at `index` is stored, for people.
fn holder(weights: &Weights, param: &Param, index: &[u64]) -> String {
    match param.chunk_of(index) {
        Some(chunk) => weights.name_of(param, chunk),
        None => "a file that is not known".to_owned(),
    }
}

/// Rows of the vocabulary to compare: those that are real, where either knows how many are, else all that both have. `None` where one
/// has fewer than are real.
fn shared_rows(first: (&Weights, &Param), second: (&Weights, &Param)) -> Option<u64> {
    let known = |weights: &Weights| weights.vocabulary.and_then(|vocabulary| vocabulary.true_size);
    let least = first.1.size().min(second.1.size());
    match known(first.0).max(known(second.0)) {
        Some(real) => (real <= least).then_some(real),
        None => Some(least),
    }
}

/// Checks that ranks which store the same positions of a parameter store the same bytes: replicated tensors and tied copies.
///
/// # Errors
/// [`WeightsError`] where the checkpoint cannot be read.
pub fn check_replicas(weights: &Weights, hooks: &Hooks<'_>) -> Result<Report, WeightsError> {
    let (sets, scalars) = (weights.sets(), weights.scalar_sets().collect::<Vec<_>>());
    let mut pairs: Vec<(&Set<'_>, &Param, &Chunk, &Chunk)> = Vec::new();
    for (set, param) in sets.iter().chain(&scalars).flat_map(|set| set.params().map(move |param| (set, param))) {
        let stored = param.stored();
        for (before, chunk) in stored.iter().zip(stored.iter().skip(1)) {
            // Each replica against the one before it: equality passes along.
            if before.region == chunk.region {
                pairs.push((set, param, before, chunk));
            }
        }
    }
    let results = each(&pairs, hooks.jobs, hooks.stop, |(_, param, one, other)| {
        let plans = (Weights::plan_of_chunk(param, one)?, Weights::plan_of_chunk(param, other)?);
        let at = first_difference((weights, &plans.0), (weights, &plans.1), hooks.done)?;
        Ok((plans.0.len(), at))
    })?;
    let bytes = results.iter().map(|(bytes, _)| bytes).sum();
    let mut report = Report { parameters: weights.parameters(), bytes, ..Report::default() };
    report.states = sets.len() - 1;
    for ((set, param, one, other), (_, at)) in pairs.iter().zip(results) {
        if let Some(byte) = at {
            let within = one.region.shape().index_of(byte / param.dtype.size());
            let index = within.iter().zip(one.region.ranges()).map(|(index, range)| range.start + index).collect();
            let name = |chunk: &Chunk| weights.name_of(param, chunk);
            report.differs(set.name_of(param), What::Bytes { index, first: name(one), second: name(other) });
        }
    }
    Ok(report)
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
            let buffers = file.buffers.iter().map(|buffers| (&buffers.name, &buffers.storages));
            std::iter::once((&file.name, &file.storages)).chain(buffers)
        })
        .flat_map(|(name, storages)| {
            storages.iter().filter_map(move |(key, record)| Some((name, key, record, record.crc?)))
        })
        .collect();
    records.sort_by_key(|(_, _, record, _)| (record.extent.object, record.extent.offset));
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
    let mut report = Report { parameters: weights.parameters(), bytes, ..Report::default() };
    for ((file, key, _, stated), found) in damaged {
        let what = What::Damaged { file: String::clone(file), stated: *stated, found };
        report.differs(format!("record data/{key}").into(), what);
    }
    Ok(report)
}

impl Report {
    fn differs(&mut self, parameter: Arc<str>, what: What) {
        self.differences.push(Difference { parameter, what });
    }

    /// What both found, of the same checkpoint or of the same two.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.bytes += other.bytes;
        self.states = self.states.max(other.states);
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
    let mut other = vec![0; second.1.len().min(BLOCK as u64) as usize];
    let mut at = 0;
    let mut failed = None;
    let mut found = None;
    first.0.stream(first.1, &mut |bytes| {
        let Some(slot) = other.get_mut(..bytes.len()) else {
            // The first is longer.
            found = Some(second.1.len());
            return false;
        };
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
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(found),
    }
}

/// Index of the element that holds byte `byte` of the parameter's first `positions`.
fn index_of(byte: u64, param: &Param, positions: u64) -> Vec<u64> {
    Weights::shape(param, positions).index_of(byte / param.dtype.size())
}
