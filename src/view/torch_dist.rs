//! A distributed checkpoint of megatron-core (`torch_dist`): one directory that runs of any layout load.
//!
//! Its tensors are a TP1 rank file's of the whole model, stacked; a torch DCP directory holds them in pieces. Not here: how that directory is
//! laid out (`format::dcp::write`), what keys are called (`format::megatron::dist_keys`).

#![deny(clippy::disallowed_methods)]

mod common;
mod files;
mod keys;
mod objects;
mod tensors;

use std::sync::Arc;

use super::dcp_files::values::Values;
use super::dcp_files::{DcpFiles, Piece, is_data_file, pieces};
use super::hf::WHOLE;
use super::megatron::Contents;
use super::target::tensor_of_values;
use super::{Basis, PlannedFile, View, ViewError, ViewFile};
use crate::catalog::{Iteration, StateOf};
use crate::format::dcp::names::{METADATA, METADATA_JSON};
use crate::format::dcp::write::{Directory, Spec, metadata_json};
use crate::format::megatron::dist_keys::COMMON_FILE;
use crate::format::megatron::keys::STEP;
use crate::format::megatron::{RELEASE, TRACKER, iteration_dir};
use crate::layout::{Format, Layout};
use crate::plan::Target;
use keys::Keys;
use tensors::DistTensor;

/// How a checkpoint is cut into pieces and files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Bytes of data in each file.
    pub(super) file: u64,
    /// Bytes below which a tensor of a layer is not cut.
    pub(super) piece: u64,
}

/// The view.
#[derive(Debug)]
pub(super) struct TorchDistView {
    basis: Arc<Basis>,
    layout: Layout,
    tensors: Vec<DistTensor>,
    data: DcpFiles,
    files: Vec<ViewFile>,
    kinds: Vec<FileKind>,
}

/// What a file of the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// The file that names the latest iteration.
    Tracker,
    /// What all ranks save alike.
    Common,
    /// What makes a directory one of Megatron's.
    Json,
    /// Where everything is.
    Metadata,
    /// The data file with this number.
    Data(usize),
}

impl TorchDistView {
    /// The view of `basis`, which has the names of Megatron's rank files.
    pub(super) fn new(basis: Arc<Basis>, sizes: Sizes) -> Result<Self, ViewError> {
        let basis = with_rows(basis);
        let layout = basis.catalog.layout.undivided();
        let mut contents = Contents::default();
        let (spec, tensors) = {
            let keys = Keys::new(&basis);
            let tensors = all_tensors(&keys, &layout, sizes.piece)?;
            let objects = objects::extra_states(&keys, &layout, &tensors, &mut contents)?;
            let (written, count) = files::share_out(&tensors, sizes.file)?;
            (Spec { files: files::names(count), tensors: written, objects, paths: None }, tensors)
        };
        let data = DcpFiles::new(Directory::new(spec)?, contents.carried());
        let mut view = Self { basis, layout, tensors, data, files: Vec::new(), kinds: Vec::new() };
        view.list();
        Ok(view)
    }

    fn list(&mut self) {
        let iteration = match self.basis.catalog.iteration {
            Iteration::Number(number) => iteration_dir(number),
            Iteration::Release => RELEASE.to_owned(),
        };
        let mut file = |path: String, kind, is_probe| {
            self.files.push(ViewFile { path, rank: None, is_mapped: false, is_probe });
            self.kinds.push(kind);
        };
        file(format!("{iteration}/{METADATA}"), FileKind::Metadata, false);
        for (number, name) in self.data.names().iter().enumerate() {
            file(format!("{iteration}/{name}"), FileKind::Data(number), number == 0);
        }
        file(format!("{iteration}/{COMMON_FILE}"), FileKind::Common, true);
        file(format!("{iteration}/{METADATA_JSON}"), FileKind::Json, false);
        file(TRACKER.to_owned(), FileKind::Tracker, false);
    }

    /// A piece of a tensor.
    fn piece(&self, tensor: usize, chunk: usize) -> Result<Piece<'_>, ViewError> {
        let lost = || ViewError::NoFile(chunk);
        let tensor = self.tensors.get(tensor).ok_or_else(lost)?;
        let (cell, piece) = (chunk / tensor.pieces.len().max(1), chunk % tensor.pieces.len().max(1));
        let (saved, range) = tensor.cells.get(cell).zip(tensor.pieces.get(piece)).ok_or_else(lost)?;
        let of = tensor.values.of(&self.basis).ok_or_else(lost)?;
        let whole = tensor_of_values(of, &self.layout, WHOLE, *saved)?.and_then(|tensor| tensor.target);
        let part = whole.as_ref().and_then(|target| target.parts.first()).ok_or_else(lost)?;
        let part = pieces::window(part, range);
        let target = Target { dtype: tensor.dtype, shape: part.shape.clone(), parts: vec![part] };
        let (offsets, sizes) = tensor.place(cell, range);
        Ok(Piece { key: tensor.key.clone(), target, offsets, sizes })
    }
}

/// The weights, and the states of an optimizer that is shown.
fn all_tensors(keys: &Keys<'_>, layout: &Layout, least: u64) -> Result<Vec<DistTensor>, ViewError> {
    let optimizer = keys.basis.catalog.optimizer.as_ref().filter(|_| keys.basis.optimizer.is_some());
    let states = match optimizer {
        Some(optimizer) => optimizer.states.as_slice(),
        None => &[],
    };
    let mut all = vec![Values::Weights];
    for (number, state) in states.iter().enumerate() {
        match &state.of {
            StateOf::Elements(_) => all.push(Values::State(number)),
            // Kept once for all of them, in what ranks have in common.
            StateOf::Scalar(_) | StateOf::Same(_) if &*state.name == STEP => {}
            StateOf::Scalar(_) | StateOf::Same(_) => {
                return Err(ViewError::NotForTorchDist { state: state.name.to_string() });
            }
        }
    }
    let params = keys.basis.catalog.params().iter();
    let states = states.iter().filter_map(|state| state.elements()).flat_map(|(_, params)| params.all());
    let bytes = params.chain(states).filter_map(|param| param.shape.bytes(param.dtype)).fold(0, u64::saturating_add);
    let least = pieces::least_bytes(bytes, least);
    let mut tensors = Vec::new();
    for values in all {
        tensors.extend(tensors::of(keys, layout, values, least)?);
    }
    Ok(tensors)
}

/// Whether everything that the source's files have has a key.
///
/// # Errors
/// [`ViewError::NoKey`]
pub(super) fn check_keys(basis: &Basis) -> Result<(), ViewError> {
    let keys = Keys::new(basis);
    let entries = basis.model.entries().iter();
    let mut spelled = entries.filter(|entry| !entry.holds.is_empty() && basis.catalog.spells(&entry.name, None));
    spelled.try_for_each(|entry| keys.name(entry).map(|_| ()))
}

/// The basis with as many rows of the vocabulary as the rules say for a run without tensor parallelism; where they do not say it, with those of
/// the source. Loaders want what is common to theirs and these.
fn with_rows(basis: Arc<Basis>) -> Arc<Basis> {
    if basis.vocabulary_rows(1).is_ok() { basis } else { Arc::new(Basis::clone(&basis).with_stored_rows()) }
}

impl View for TorchDistView {
    fn format(&self) -> Format {
        Format::TorchDist
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn files(&self) -> &[ViewFile] {
        &self.files
    }

    fn plan(&self, number: usize) -> Result<PlannedFile, ViewError> {
        match *self.kinds.get(number).ok_or(ViewError::NoFile(number))? {
            FileKind::Tracker => {
                Ok(PlannedFile::of_bytes(self.basis.catalog.iteration.to_string().into_bytes()))
            }
            FileKind::Common => common::file(&self.basis, &self.layout),
            FileKind::Json => Ok(PlannedFile::of_bytes(metadata_json().as_bytes().to_vec())),
            FileKind::Metadata => self.data.metadata(),
            FileKind::Data(number) => self.data.data(number, |tensor, chunk| self.piece(tensor, chunk)),
        }
    }

    /// Data files of this iteration, of which there may be any number.
    fn may_replace(&self, path: &str) -> bool {
        let own = self.files.first().and_then(|file| file.path.split_once('/'));
        match (own, path.split_once('/')) {
            (Some((own, _)), Some((iteration, file))) => own == iteration && is_data_file(file),
            _ => false,
        }
    }
}
