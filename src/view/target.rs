//! The tensors of one part of the model on one rank of a view, in the order in which training would save them.

#![deny(clippy::disallowed_methods)]

use std::sync::Arc;

use super::vocabulary::fill;
use super::{Basis, ViewError, VocabularyFill};
use crate::catalog::{ExtraState, Param, Params};
use crate::family::{EXPERT, Entry, Numbers, Saved};
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
    /// Whether the copies of the embedding that stages have beside one another are tensors of one stage too.
    pub(super) with_copies: bool,
}

impl<'basis> Of<'basis> {
    /// The weights.
    pub(super) fn weights(basis: &'basis Basis) -> Self {
        Self { basis, params: &basis.catalog.weights, fill: basis.fill, with_copies: false }
    }

    /// The same with the copies that only stages beside one another have elsewhere.
    pub(super) fn with_copies(self) -> Self {
        Self { with_copies: true, ..self }
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
    let all = of.basis.model.saved_at(layout, place);
    let mut tensors = Vec::with_capacity(all.len());
    for saved in all {
        tensors.extend(maker.make(saved)?);
    }
    Ok(tensors)
}

/// The tensor of `saved`, which the model lists for the same place.
///
/// # Errors
/// [`ViewError::Arrange`] where it does not divide.
pub(super) fn tensor_of<'basis>(
    basis: &'basis Basis,
    layout: &Layout,
    place: Place,
    saved: Saved,
) -> Result<Option<TargetTensor<'basis>>, ViewError> {
    tensor_of_values(Of::weights(basis), layout, place, saved)
}

/// As [`tensor_of`], of these values.
///
/// # Errors
/// As [`tensor_of`].
pub(super) fn tensor_of_values<'basis>(
    of: Of<'basis>,
    layout: &Layout,
    place: Place,
    saved: Saved,
) -> Result<Option<TargetTensor<'basis>>, ViewError> {
    Maker { of, basis: of.basis, layout, place }.make(saved)
}

/// In the names of modules that hold experts.
const EXPERTS: &str = ".experts.";

struct Maker<'basis, 'a> {
    of: Of<'basis>,
    basis: &'basis Basis,
    layout: &'a Layout,
    place: Place,
}

impl<'basis> Maker<'basis, '_> {
    /// The tensor of this entry, if the rank has it.
    fn make(&self, at: Saved) -> Result<Option<TargetTensor<'basis>>, ViewError> {
        let entry = self.basis.model.entry_of(at);
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
    fn extra_state(&self, entry: &'basis Entry, at: Saved) -> Option<TargetTensor<'basis>> {
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
        let is_needed = !entry.only_if_pipelined || self.layout.pp() > 1 || self.of.with_copies;
        self.is_staged(entry) && named && is_needed
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
pub(super) fn constant<'basis>(number: f32) -> Target<'basis> {
    let bands = vec![(Band::once(0, 0, 0, 1), Source::Fill(Fill::Float(number)))];
    Target::single(Dtype::Float32, Shape::default(), 0, bands)
}

