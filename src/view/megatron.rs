//! Legacy Megatron directories as Megatron would have written them at another layout.
//!
//! One rank file is: the source's own tree with `args` rewritten and the model's tensors replaced, pickled, in torch's zip layout.

#![deny(clippy::disallowed_methods)]

mod args;
mod verbatim;
mod containers;
mod contents;
mod entries;
mod modules;
mod optimizer;
mod pipeline;

use std::sync::Arc;

use super::{ViewOptions, PlannedFile, Basis, TargetTensor, View, ViewError, ViewFile, tensors_at};
use crate::catalog::{Catalog, Encoding, EntryKind, ExtraState, Iteration, SavedEntry};
use crate::family::Model;
use crate::format::megatron::keys::{model_entry, part_prefix};
use crate::format::megatron::{
    DISTRIBUTED_FILE, MODEL_FILE, RELEASE, TRACKER, iteration_dir, parse_rank_dir, rank_dir,
};
use crate::layout::Format;
use crate::layout::{Layout, Place, Rank};
use crate::tensor::{Dtype, Shape};
use crate::value::Value;

pub(super) use args::rewrite as rewrite_args;
pub(super) use contents::Contents;
pub(super) use entries::of as entries_of;
pub(super) use optimizer::RankOptimizer;
pub(super) use verbatim::Verbatim;
pub use pipeline::{distributed_run, training_run};

/// A legacy Megatron checkpoint directory in one layout.
#[derive(Debug, Clone)]
pub struct MegatronView {
    basis: Arc<Basis>,
    layout: Layout,
    files: Vec<ViewFile>,
    kinds: Vec<FileKind>,
}

/// What a file of the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// The file that names the latest iteration.
    Tracker,
    /// What one rank saves of the model and what belongs to it.
    Rank(Rank),
    /// What one rank saves of a distributed optimizer.
    Buffers(Rank),
}

impl View for MegatronView {
    fn format(&self) -> Format {
        Format::Megatron
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
            FileKind::Rank(rank) => self.rank_file(rank),
            FileKind::Buffers(rank) => self.buffer_file(rank),
        }
    }

    /// A file that a rank of this iteration saves in whatever layout: buffers of an optimizer count only where the view shows one, for
    /// otherwise their contents would be nowhere.
    fn may_replace(&self, path: &str) -> bool {
        match path.split('/').collect::<Vec<_>>()[..] {
            [iteration, rank, file] => {
                let is_saved =
                    file == MODEL_FILE || (file == DISTRIBUTED_FILE && self.basis.optimizer.is_some());
                iteration == self.iteration() && parse_rank_dir(rank).is_some() && is_saved
            }
            _ => false,
        }
    }
}

/// What views of this source are made of; where they show its optimizer, its parameters have been held against the family's order.
///
/// # Errors
/// [`ViewError`] where a choice cannot be, or the order is another one.
pub fn basis(catalog: Arc<Catalog>, model: Arc<Model>, view_options: &ViewOptions) -> Result<Basis, ViewError> {
    let basis = Basis::new(catalog, model, view_options)?;
    if basis.optimizer.is_some() {
        optimizer::check_order(&basis)?;
    }
    Ok(basis)
}

impl MegatronView {
    /// The view of `basis` in `layout`, which [`Basis::layout`] has checked.
    #[must_use]
    pub fn new(basis: Arc<Basis>, layout: Layout) -> Self {
        let mut view = Self { basis, layout, files: Vec::new(), kinds: Vec::new() };
        view.list();
        view
    }

    /// With experts, some pairs of tensor and expert rank may be no process's: a process opens only the files of its own rank, so theirs do no
    /// harm.
    fn list(&mut self) {
        let iteration = self.iteration();
        let mut ranks: Vec<Rank> = self.layout.ranks().collect();
        ranks.sort_by_key(|rank| (rank.tp, rank.pp, rank.ep));
        let has_buffers = matches!(self.basis.optimizer, Some(Encoding::Distributed(_)));
        for (index, rank) in ranks.into_iter().enumerate() {
            let directory = rank_dir(rank, self.layout.pp(), self.layout.ep());
            let mut file = |name: &str, kind, is_probe| {
                let path = format!("{iteration}/{directory}/{name}");
                self.files.push(ViewFile { path, rank: Some(rank), is_mapped: false, is_probe });
                self.kinds.push(kind);
            };
            if has_buffers {
                file(DISTRIBUTED_FILE, FileKind::Buffers(rank), index == 0);
            }
            // Ranks of one stage are alike.
            file(MODEL_FILE, FileKind::Rank(rank), rank.tp == 0);
        }
        let path = TRACKER.to_owned();
        self.files.push(ViewFile { path, rank: None, is_mapped: false, is_probe: false });
        self.kinds.push(FileKind::Tracker);
    }

    fn iteration(&self) -> String {
        match self.basis.catalog.iteration {
            Iteration::Number(number) => iteration_dir(number),
            Iteration::Release => RELEASE.to_owned(),
        }
    }

    /// The file with a rank's model and what belongs to it.
    fn rank_file(&self, rank: Rank) -> Result<PlannedFile, ViewError> {
        let source = self.basis.nearest(rank, &self.layout)?;
        let places: Vec<Place> = self.layout.places(rank).collect();
        let tensors: Vec<Vec<TargetTensor<'_>>> = places
            .iter()
            .map(|place| tensors_at(&self.basis, &self.layout, *place))
            .collect::<Result<_, _>>()?;
        let optimizer = RankOptimizer::new(&self.basis, &self.layout, rank)?;
        let mut contents = Contents::default();
        let mut models = Vec::with_capacity(places.len());
        for (place, tensors) in places.iter().zip(&tensors) {
            let mut leaves = Vec::with_capacity(tensors.len());
            for tensor in tensors {
                leaves.push((tensor.name.clone(), self.leaf(*place, tensor, &mut contents)?));
            }
            models.push(containers::Containers::new(&self.basis, &self.layout, *place, tensors).fill(leaves));
        }
        let mut entries = Vec::new();
        for SavedEntry { key, kind, value } in entries::of(source).iter() {
            match kind {
                EntryKind::Args => {
                    let args = args::rewrite(value, &self.basis, &self.layout, rank)?;
                    entries.push((key.clone(), Verbatim::new(source, &mut contents).value(&args)));
                }
                // Where the source has its first part of the model, the view has all of its own.
                EntryKind::Model(0) => {
                    let key = |place: &Place| Value::str(&model_entry(place.chunk, self.layout.vpp));
                    entries.extend(places.iter().map(key).zip(models.drain(..)));
                }
                EntryKind::Model(_) => {}
                EntryKind::Optimizer => {
                    let entry = optimizer.as_ref().map(|optimizer| optimizer.entry(&mut contents));
                    entries.extend(entry.map(|entry| (key.clone(), entry)));
                }
                EntryKind::Schedule if self.basis.optimizer.is_none() => {}
                EntryKind::Rng if !self.basis.with_rng => {}
                EntryKind::Rng => {
                    let states = self.basis.catalog.rng_states.as_ref();
                    let state = match states.and_then(|states| states.nearest(rank, &self.layout)) {
                        Some(nearest) => nearest,
                        None => value,
                    };
                    entries.push((key.clone(), Verbatim::new(source, &mut contents).value(state)));
                }
                _ => entries.push((key.clone(), Verbatim::new(source, &mut contents).value(value))),
            }
        }
        contents.lay_out(Value::Dict(entries.into()), MODEL_FILE, &source.name)
    }

    /// The file with a rank's flat buffers.
    fn buffer_file(&self, rank: Rank) -> Result<PlannedFile, ViewError> {
        let source = self.basis.nearest(rank, &self.layout)?;
        let optimizer = RankOptimizer::new(&self.basis, &self.layout, rank)?.ok_or(ViewError::NoOptimizer)?;
        let mut contents = Contents::default();
        let tree = optimizer.buffers(&mut contents)?;
        contents.lay_out(tree, DISTRIBUTED_FILE, &source.name)
    }

    /// The value that stands for a tensor, or for an extra state, in the tree. Extra state is that of the same module in the source, or
    /// `None` or an empty tensor of bytes where the source has such.
    fn leaf<'a>(
        &self,
        place: Place,
        tensor: &'a TargetTensor<'_>,
        contents: &mut Contents<'a>,
    ) -> Result<Value, ViewError> {
        let name = format!("{}{}", part_prefix(place.chunk, self.layout.vpp), tensor.name);
        let saved_by =
            |state: &ExtraState| self.basis.catalog.ranks.iter().find(|file| file.rank == state.rank);
        Ok(match (&tensor.target, tensor.extra_state) {
            (Some(target), _) => contents.tensor(&name, target),
            (None, Some(state)) => {
                let lost = || ViewError::Lost { file: name.clone(), what: "the rank that saved it".into() };
                Verbatim::new(saved_by(state).ok_or_else(lost)?, contents).value(&state.value)
            }
            (None, None) if tensor.is_empty_tensor => {
                contents.bytes(&name, Dtype::Uint8, Shape(vec![0]), Vec::new())
            }
            (None, None) => Value::None,
        })
    }
}
