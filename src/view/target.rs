//! The tensors of one part of the model on one rank of a view, in the order in which training would save them.

#![deny(clippy::disallowed_methods)]

use std::ops::Range;
use std::sync::Arc;

use super::vocabulary::fill;
use super::{Basis, ViewError, VocabularyFill};
use crate::catalog::{ExtraState, Param, Params};
use crate::family::{DEPTH, EXPERT, Entry, Numbers, Stage};
use crate::layout::{Layout, Place};
use crate::plan::{Fill, GatherError, Part, Source, Target};
use crate::tensor::{Band, Dtype, Shape};

/// One entry of a rank's model: a tensor, or an extra state.
#[derive(Debug)]
pub struct TargetTensor<'basis> {
    /// Name in the rank file; `/` separates nested dicts.
    pub name: Arc<str>,
    /// The family's entry for it.
    pub entry: &'basis Entry,
    /// How it is made; `None` for extra state.
    pub target: Option<Target<'basis>>,
    /// The parameter that goes first in it, whether or not this rank holds some of that; `None` for extra state.
    pub first: Option<&'basis Param>,
    /// Extra state only: an empty tensor instead of `None`.
    pub is_empty_tensor: bool,
    /// Extra state only: that of the same module in the source.
    pub extra_state: Option<&'basis ExtraState>,
}

impl TargetTensor<'_> {
    /// The error for one whose size does not fit 64 bits: no source has so much.
    pub(super) fn too_large(&self) -> ViewError {
        let source = GatherError::Length { planned: 0, wanted: None };
        ViewError::Gather { tensor: self.name.to_string(), source }
    }
}

/// Which values tensors are made of: the weights, or a state of the optimizer that is cut like them.
#[derive(Clone, Copy)]
pub(super) struct Of<'basis> {
    pub(super) basis: &'basis Basis,
    pub(super) params: &'basis Params,
    /// What new vocabulary rows hold.
    pub(super) fill: VocabularyFill,
}

impl<'basis> Of<'basis> {
    /// The weights.
    pub(super) fn weights(basis: &'basis Basis) -> Self {
        Self { basis, params: &basis.catalog.weights, fill: basis.fill }
    }
}

/// Everything that the rank at `place` of `layout` saves of the part of the model there.
///
/// # Errors
/// [`ViewError::Arrange`] where a tensor does not divide.
pub fn tensors_at<'basis>(
    basis: &'basis Basis,
    layout: &Layout,
    place: Place,
) -> Result<Vec<TargetTensor<'basis>>, ViewError> {
    tensors_of(Of::weights(basis), layout, place)
}

/// As [`tensors_at`], of these values. Tensors that have none are left out.
pub(super) fn tensors_of<'basis>(
    of: Of<'basis>,
    layout: &Layout,
    place: Place,
) -> Result<Vec<TargetTensor<'basis>>, ViewError> {
    let maker = Maker { of, basis: of.basis, layout, place };
    let keys = keys(of.basis, layout, place);
    let mut tensors = Vec::with_capacity(keys.len());
    for key in keys {
        tensors.extend(maker.make_key(key)?);
    }
    Ok(tensors)
}

/// Which tensor of a rank: it may turn out that the rank has none there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Index of the family's entry.
    entry: usize,
    at: At,
}

/// Everything that the rank at `place` may save of the part of the model there, in order.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "without layers, all entries stand before where they would be")]
pub(super) fn keys(basis: &Basis, layout: &Layout, place: Place) -> Vec<Key> {
    let entries = basis.model.entries();
    let is_layered = |entry: &Entry| entry.stage == Stage::Layer;
    let first_layered = entries.iter().position(is_layered).unwrap_or(entries.len());
    let after_layered = entries.iter().rposition(is_layered).map_or(entries.len(), |last| last + 1);
    let mut lister =
        Lister { basis, per_rank: basis.model.experts_per_rank(layout), ep: place.rank.ep, keys: Vec::new() };
    lister.block(0..first_layered, At::default());
    for (local, layer) in (0..).zip(layout.layers_at(place)) {
        let of = |layer| Numbers { layer: Some(layer), ..Numbers::default() };
        let local = if basis.model.global_layers() { layer } else { local };
        lister.block(first_layered..after_layered, At { local: of(local), global: of(layer) });
    }
    lister.after(after_layered);
    lister.keys
}

/// The tensor of `key`, which [`keys`] gave for the same place.
///
/// # Errors
/// [`ViewError::Arrange`] where it does not divide.
pub(super) fn tensor_of<'basis>(
    basis: &'basis Basis,
    layout: &Layout,
    place: Place,
    key: Key,
) -> Result<Option<TargetTensor<'basis>>, ViewError> {
    Maker { of: Of::weights(basis), basis, layout, place }.make_key(key)
}

/// Lists what a rank may save.
struct Lister<'a> {
    basis: &'a Basis,
    /// Experts that each rank has.
    per_rank: u32,
    ep: u32,
    keys: Vec<Key>,
}

impl Lister<'_> {
    /// Entries that stand together, all of one layer or of none. Those of the same modules of experts: each expert has all of them before the
    /// next one.
    #[expect(clippy::indexing_slicing, reason = "ranges are of entries")]
    fn block(&mut self, range: Range<usize>, at: At) {
        let entries = self.basis.model.entries();
        let kind = self.basis.model.kind_of_layer(at.global.layer);
        let first = self.per_rank.saturating_mul(self.ep);
        let mut start = range.start;
        for block in entries[range].chunk_by(|a, b| experts_of(a).is_some() && experts_of(a) == experts_of(b))
        {
            let of_experts = block.first().is_some_and(|entry| experts_of(entry).is_some());
            for expert in 0..if of_experts { self.per_rank } else { 1 } {
                let of = |numbers, expert| Numbers { expert: of_experts.then_some(expert), ..numbers };
                let global = first.saturating_add(expert);
                let local = if self.basis.model.global_layers() { global } else { expert };
                let at = At { local: of(at.local, local), global: of(at.global, global) };
                let here = (start..).zip(block).filter(|(_, entry)| entry.fits(kind));
                self.keys.extend(here.map(|(entry, _)| Key { entry, at }));
            }
            start += block.len();
        }
    }

    /// What stands behind the layers, from this entry on: single tensors, or the layers that predict tokens beyond the next one.
    #[expect(clippy::indexing_slicing, reason = "it starts at an entry or behind the last one")]
    fn after(&mut self, mut start: usize) {
        let entries = self.basis.model.entries();
        let rest = &entries[start..];
        for block in rest.chunk_by(|a, b| a.name.contains(DEPTH) && b.name.contains(DEPTH)) {
            let range = start..start + block.len();
            start = range.end;
            if !block.first().is_some_and(|entry| entry.name.contains(DEPTH)) {
                self.block(range, At::default());
                continue;
            }
            for depth in 0..self.basis.model.predictions() {
                let numbers = Numbers { depth: Some(depth), ..Numbers::default() };
                self.block(range.clone(), At { local: numbers, global: numbers });
            }
        }
    }
}

/// In the names of modules that hold experts.
const EXPERTS: &str = ".experts.";

struct Maker<'basis, 'a> {
    of: Of<'basis>,
    basis: &'basis Basis,
    layout: &'a Layout,
    place: Place,
}

/// The numbers of a tensor: on its rank, as its name has them, and in the model.
#[derive(Debug, Clone, Copy, Default)]
struct At {
    local: Numbers,
    global: Numbers,
}

impl<'basis> Maker<'basis, '_> {
    #[expect(clippy::indexing_slicing, reason = "keys have numbers of entries")]
    fn make_key(&self, key: Key) -> Result<Option<TargetTensor<'basis>>, ViewError> {
        self.make(&self.basis.model.entries()[key.entry], key.at)
    }

    /// The tensor of this entry, if the rank has it.
    fn make(&self, entry: &'basis Entry, at: At) -> Result<Option<TargetTensor<'basis>>, ViewError> {
        if entry.ignored {
            return Ok(None);
        }
        let name: Arc<str> = at.local.fill(&entry.name).into();
        let made = |target, first| {
            Some(TargetTensor {
                name: name.clone(),
                entry,
                target: Some(target),
                first,
                is_empty_tensor: false,
                extra_state: None,
            })
        };
        if let Some(number) = entry.constant {
            return Ok(made(constant(number), None).filter(|_| self.is_staged(entry)));
        }
        if entry.holds.is_empty() {
            return Ok(self.extra_state(entry, at));
        }
        if !self.is_here(entry, at.global.layer) {
            return Ok(None);
        }
        let params_of = |numbers: Numbers| {
            let param = |name: &String| self.of.params.get(&numbers.fill(name));
            // A source of one stage does not have what is never computed with: anything will do.
            let like = entry.unused_like.as_ref().filter(|_| self.basis.catalog.layout.pp() == 1);
            let holds = entry.holds.iter();
            holds
                .map(|holding| param(&holding.param).or_else(|| like.and_then(param)))
                .collect::<Option<Vec<_>>>()
        };
        let experts = self.basis.model.experts_per_rank(self.layout);
        let first = experts.saturating_mul(self.place.rank.ep);
        let each = |expert| params_of(Numbers { expert: Some(first.saturating_add(expert)), ..at.global });
        let params = if entry.stacked {
            (0..experts).map(each).collect()
        } else {
            params_of(at.global).map(|params| vec![params])
        };
        // A source without biases has none of the parameters that a bias would hold.
        let Some(params): Option<Vec<Vec<&Param>>> = params else { return Ok(None) };
        // One list for each expert: without experts there is no tensor of them.
        let Some(first) = params.first().and_then(|params| params.first().copied()) else { return Ok(None) };
        let target = self.target(entry, &params, first.dtype, &name)?;
        Ok(made(target, Some(first)))
    }

    /// The extra state of this entry: that of the same module in the source, or one that holds nothing where the source's do.
    fn extra_state(&self, entry: &'basis Entry, at: At) -> Option<TargetTensor<'basis>> {
        let states = self.basis.catalog.extra_states.get(at.global.fill(&entry.name).as_str());
        let extra_state = states.into_iter().flatten().find(|state| self.is_same_module(entry, state));
        let is_empty = self.basis.catalog.spells(&entry.name, at.global.layer);
        if !self.is_staged(entry) || !(is_empty || extra_state.is_some()) {
            return None;
        }
        let name = at.local.fill(&entry.name).into();
        let is_empty_tensor = self.basis.catalog.empty_states.contains(&entry.name);
        Some(TargetTensor { name, entry, target: None, first: None, is_empty_tensor, extra_state })
    }

    /// Whether the rank here has the same part of the module as the source's rank that saved `state`.
    fn is_same_module(&self, entry: &Entry, state: &ExtraState) -> bool {
        let (source, target) = (&self.basis.catalog.layout, self.layout);
        let (from, to) = (state.rank, self.place.rank);
        if !entry.name.contains(EXPERTS) {
            return (source.tp, from.tp) == (target.tp, to.tp);
        }
        let same_cut = (source.etp(), source.etp_rank(from)) == (target.etp(), target.etp_rank(to));
        // A module of several experts is the same only where a rank has the same ones.
        let is_one_expert = entry.name.contains(EXPERT);
        same_cut && (is_one_expert || (source.ep(), from.ep) == (target.ep(), to.ep))
    }

    /// Whether a rank here saves this entry at all: its stage, and the source's spelling of names.
    fn is_here(&self, entry: &Entry, layer: Option<u32>) -> bool {
        // A copy exists because of the layout or the format, whether or not the source needed one.
        let is_made = (entry.only_if_pipelined || entry.copy) && entry.dialect.is_none();
        let named = is_made || entry.fixed_part.is_some() || self.basis.catalog.spells(&entry.name, layer);
        self.is_staged(entry) && named && !(entry.only_if_pipelined && self.layout.pp() == 1)
    }

    fn is_staged(&self, entry: &Entry) -> bool {
        entry.is_on(self.layout, self.place)
    }

    /// The tensor of this entry, of these parameters: of one list, or of one for each expert.
    #[expect(clippy::indexing_slicing, reason = "there is a list, and a part for each")]
    fn target(
        &self,
        entry: &Entry,
        params: &[Vec<&'basis Param>],
        dtype: Dtype,
        name: &str,
    ) -> Result<Target<'basis>, ViewError> {
        let mut parts: Vec<Part<'basis>> = Vec::with_capacity(params.len());
        for params in params {
            parts.push(self.part(entry, params, name)?);
        }
        let mut shape = parts[0].shape.clone();
        if entry.stacked {
            shape.0.insert(0, parts.len() as u64);
        }
        Ok(Target { dtype, shape, parts })
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "there is a parameter for each that the entry holds, and bands are of these"
    )]
    fn part(&self, entry: &Entry, params: &[&'basis Param], name: &str) -> Result<Part<'basis>, ViewError> {
        let mut sizes = Vec::with_capacity(params.len());
        let mut stored = Vec::with_capacity(params.len());
        for (holding, param) in entry.holds.iter().zip(params) {
            let padded = if holding.is_vocabulary(entry.axis) {
                self.basis.vocabulary_rows(self.layout.tp)?
            } else {
                None
            };
            let (size, rows) = match (padded, self.basis.real_rows()) {
                (Some(padded), Some(real)) => (padded, real.min(param.size())),
                (Some(padded), None) => (padded, param.size()),
                (None, _) => (param.size(), param.size()),
            };
            sizes.push(size);
            stored.push(rows);
        }
        let (ways, part) = entry.part(self.layout, self.place.rank);
        let most: Vec<Option<u64>> = entry.holds.iter().map(|holding| holding.most_parts).collect();
        let bands = entry
            .arrangement
            .bands_with_copies(&sizes, &most, ways, part)
            .map_err(|source| ViewError::Arrange { tensor: name.to_owned(), source })?;
        let positions: u64 = bands.iter().map(Band::positions).sum();
        // There are as many of these as tensors, and most have one band: room for no more than that.
        let mut filled = Vec::with_capacity(bands.len());
        for band in bands {
            filled.extend(fill(band, params[band.part], stored[band.part], self.of.fill));
        }
        Ok(Part { shape: params[0].shape.with(entry.axis, positions), axis: entry.axis, bands: filled })
    }
}

/// A tensor of this one number.
fn constant<'basis>(number: f32) -> Target<'basis> {
    let bands = vec![(Band::once(0, 0, 0, 1), Source::Fill(Fill::Float(number)))];
    Target::single(Dtype::Float32, Shape::default(), 0, bands)
}

/// The modules that stand once for each expert, if the entry is in them: what its name says before the part with the number.
fn experts_of(entry: &Entry) -> Option<&str> {
    let (before, _) = entry.name.split_once(EXPERT)?;
    match before.rsplit_once('.') {
        Some((modules, _)) => Some(modules),
        None => Some(""),
    }
}
