//! A checkpoint's parameters, and the optimizer's state of them, as streams of bytes, whole and free of any layout: what `verify` and `digest` work on.
//!
//! Not here: what is done with the bytes.

#![deny(clippy::disallowed_methods)]

mod numbers;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::catalog::{Catalog, Chunk, Optimizer, Param, Params};
use crate::family::{Model, Vocabulary};
use crate::parallel::{Failed, Pool};
use crate::plan::{FilePlan, GatherError, whole};
use crate::reader::{BLOCK, Checksums, ReadError, Reader};
use crate::tensor::{Region, Shape};

pub use numbers::Numbers;

/// The parameters of one checkpoint.
#[derive(Debug, Clone)]
pub struct Weights {
    /// What it holds.
    pub catalog: Arc<Catalog>,
    /// Its vocabulary, where it has one.
    pub vocabulary: Option<Vocabulary>,
    /// Reads it.
    pub reader: Reader,
    padded: HashSet<String>,
}

/// Parameters in one state: the weights, or something that the optimizer keeps for each of them.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// The optimizer's name of the state; `None` for the weights.
    pub state: Option<&'a Arc<str>>,
    /// The parameters.
    pub params: &'a Params,
    /// Those of them that nothing computes with.
    unused: &'a BTreeSet<Arc<str>>,
}

impl Set<'_> {
    /// The parameters that the model is: what is saved and never computed with is no part of it, and not every layout has it.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        self.params.all().iter().filter(|param| !self.unused.contains(&param.name))
    }

    /// What messages call a parameter of this set.
    #[must_use]
    pub fn name_of(&self, param: &Param) -> Arc<str> {
        match self.state {
            Some(state) => format!("{state} of {}", param.name).into(),
            None => param.name.clone(),
        }
    }
}

/// Why a parameter cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Its chunks do not make it.
    #[error("{param}: {why}")]
    Gather {
        /// Canonical name.
        param: String,
        /// Why not.
        why: GatherError,
    },
    /// Its bytes cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Stopped from outside.
    #[error("stopped")]
    Stopped,
    /// Reading one panicked.
    #[error("reading failed by a bug in ckpt-fs; the lines before say where")]
    Bug,
}

impl Weights {
    /// The parameters of a checkpoint.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, model: &Model, vocabulary: Option<Vocabulary>, reader: Reader) -> Self {
        let padded = model.padded_parameters().map(ToOwned::to_owned).collect();
        Self { catalog, vocabulary, reader, padded }
    }

    /// Its weights, and then each state of its optimizer that has a number for every element.
    #[must_use]
    pub fn sets(&self) -> Vec<Set<'_>> {
        let unused = &self.catalog.unused;
        let weights = Set { state: None, params: &self.catalog.weights, unused };
        let states = self.catalog.optimizer.iter().flat_map(Optimizer::elements);
        let states = states.map(|(state, params)| Set { state: Some(state), params, unused });
        std::iter::once(weights).chain(states).collect()
    }

    /// Bytes of all its sets, without padding of the vocabulary.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // One whose bytes cannot be counted is no parameter of a file; who reads it is told.
        let bytes = |param| Self::shape(param, self.real_positions(param)).bytes(param.dtype);
        self.sets().iter().flat_map(Set::params).filter_map(bytes).fold(0, u64::saturating_add)
    }

    /// How many parameters the model is.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let unused = |param: &&Param| !self.catalog.unused.contains(&param.name);
        self.catalog.params().iter().filter(unused).count()
    }

    /// What messages call the place of a stored piece: the file, and the tensor where others of the same file may hold the same.
    #[must_use]
    pub fn name_of(&self, param: &Param, chunk: &Chunk) -> String {
        let file = self.reader.store().name(chunk.object);
        match self.catalog.copied.get(&param.name) {
            Some(names) if param.copies().contains(chunk) => format!("{} in {file}", names.copy),
            Some(names) => format!("{} in {file}", names.original),
            None => file,
        }
    }

    /// Whether the parameter's rows are the padded vocabulary.
    #[must_use]
    pub fn is_padded(&self, param: &Param) -> bool {
        self.padded.contains(&*param.name)
    }

    /// Rows that mean something: all of them, or those of the true vocabulary where that is known.
    #[must_use]
    pub fn real_positions(&self, param: &Param) -> u64 {
        match self.vocabulary.and_then(|vocabulary| vocabulary.true_size) {
            Some(known) if self.is_padded(param) => known,
            _ => param.size(),
        }
    }

    /// The parameter's shape with `positions` along its axis.
    #[must_use]
    pub fn shape(param: &Param, positions: u64) -> Shape {
        if param.shape.rank() == 0 { param.shape.clone() } else { param.shape.with(param.axis, positions) }
    }

    /// The plan of the parameter's first `positions`.
    ///
    /// # Errors
    /// [`WeightsError::Gather`]
    pub fn plan(param: &Param, positions: u64) -> Result<FilePlan, WeightsError> {
        whole(param, positions).map_err(|why| WeightsError::Gather { param: param.name.to_string(), why })
    }

    /// The plan of one stored piece of a parameter, whoever else stores the same.
    ///
    /// # Errors
    /// [`WeightsError::Gather`]
    pub fn plan_of_chunk(param: &Param, chunk: &Chunk) -> Result<FilePlan, WeightsError> {
        let shape = chunk.region.shape();
        let region = Region::whole(&shape);
        let mut alone = Param::new(param.name.clone(), param.dtype, shape, param.axis);
        alone.add(Chunk { region, ..chunk.clone() });
        Self::plan(&alone, alone.size())
    }

    /// Reads bytes of a plan, a block at a time, until `sink` answers false.
    ///
    /// # Errors
    /// [`WeightsError::Read`]
    pub fn stream(&self, plan: &FilePlan, sink: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), WeightsError> {
        let mut buffer = vec![0; plan.len().min(BLOCK as u64) as usize];
        let mut at = 0;
        while at < plan.len() {
            let read = self.reader.read(plan, &Checksums::default(), at, &mut buffer)?;
            let bytes = buffer.get(..read).filter(|bytes| !bytes.is_empty());
            if !sink(bytes.ok_or(ReadError::Plan(at..plan.len()))?) {
                return Ok(());
            }
            at += read as u64;
        }
        Ok(())
    }
}

/// Does `work` for every item on `jobs` threads and returns the results in the order of the items. The first error stops all.
///
/// # Errors
/// The first error that any of them met, or [`WeightsError::Stopped`] where `stop` was set.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    stop: &AtomicBool,
    work: impl Fn(&T) -> Result<R, WeightsError> + Sync,
) -> Result<Vec<R>, WeightsError> {
    Pool::new(jobs).stopped_by(stop).map(items, work).map_err(|failed| match failed {
        Failed::Work(error) => error,
        Failed::Stopped => WeightsError::Stopped,
        Failed::Panicked => WeightsError::Bug,
    })
}
