//! The tensors of one part of the model on one rank of a view, in the order in which training would save them.

use std::sync::Arc;

use super::vocabulary::fill;
use super::{Stock, ViewError, VocabularyFill};
use crate::catalog::{ExtraState, Param, Params};
use crate::family::{DEPTH, EXPERT, Entry, Numbers, Stage};
use crate::layout::{Layout, Place};
use crate::plan::Target;
use crate::tensor::{Dtype, Shape};

/// One entry of a rank's model: a tensor, or an extra state.
#[derive(Debug)]
pub struct TargetTensor<'stock> {
    /// Name in the rank file; `/` separates nested dicts.
    pub name: Arc<str>,
    /// The family's entry for it.
    pub entry: &'stock Entry,
    /// How it is made; `None` for extra state.
    pub target: Option<Target<'stock>>,
    /// The parameter that goes first in it, whether or not this rank holds some of that; `None` for extra state.
    pub first: Option<&'stock Param>,
    /// Extra state only: an empty tensor instead of `None`.
    pub is_empty_tensor: bool,
    /// Extra state only: that of the same module in the source.
    pub extra_state: Option<&'stock ExtraState>,
}

/// Which values tensors are made of: the weights, or a state of the optimizer that is cut like them.
#[derive(Clone, Copy)]
pub(super) struct Of<'stock> {
    pub(super) stock: &'stock Stock,
    pub(super) params: &'stock Params,
    /// What new vocabulary rows hold.
    pub(super) fill: VocabularyFill,
}

impl<'stock> Of<'stock> {
    /// The weights.
    pub(super) fn weights(stock: &'stock Stock) -> Self {
        Self { stock, params: &stock.catalog.weights, fill: stock.fill }
    }
}

/// Everything that the rank at `place` of `layout` saves of the part of the model there.
///
/// # Errors
/// [`ViewError::Arrange`] where a tensor does not divide.
pub fn tensors_at<'stock>(
    stock: &'stock Stock,
    layout: &Layout,
    place: Place,
) -> Result<Vec<TargetTensor<'stock>>, ViewError> {
    tensors_of(Of::weights(stock), layout, place)
}

/// As [`tensors_at`], of these values. Tensors that have none are left out.
pub(super) fn tensors_of<'stock>(
    of: Of<'stock>,
    layout: &Layout,
    place: Place,
) -> Result<Vec<TargetTensor<'stock>>, ViewError> {
    let Of { stock, .. } = of;
    let entries = stock.model.entries();
    let first_layered = entries.iter().position(|e| e.stage == Stage::Layer).unwrap_or(entries.len());
    let after_layered =
        entries.iter().rposition(|e| e.stage == Stage::Layer).map_or(entries.len(), |last| last + 1);
    let (before, rest) = entries.split_at(first_layered);
    let (layered, after) = rest.split_at(after_layered - first_layered);
    let maker = Maker { of, stock, layout, place };
    let mut tensors = Vec::new();
    for entry in before {
        tensors.extend(maker.make(entry, At::default())?);
    }
    for (local, layer) in (0..).zip(layout.layers_at(place)) {
        let of = |layer| Numbers { layer: Some(layer), ..Numbers::default() };
        maker.layer(layered, At { local: of(local), global: of(layer) }, &mut tensors)?;
    }
    for block in after.chunk_by(|a, b| a.name.contains(DEPTH) && b.name.contains(DEPTH)) {
        maker.after(block, &mut tensors)?;
    }
    Ok(tensors)
}

/// In the names of modules that hold experts.
const EXPERTS: &str = ".experts.";

struct Maker<'stock, 'a> {
    of: Of<'stock>,
    stock: &'stock Stock,
    layout: &'a Layout,
    place: Place,
}

/// The numbers of a tensor: on its rank, as its name has them, and in the model.
#[derive(Debug, Clone, Copy, Default)]
struct At {
    local: Numbers,
    global: Numbers,
}

impl<'stock> Maker<'stock, '_> {
    /// Everything of one layer. Entries of the same modules of experts stand together: each expert has all of them before the next one.
    fn layer(
        &self,
        entries: &'stock [Entry],
        at: At,
        tensors: &mut Vec<TargetTensor<'stock>>,
    ) -> Result<(), ViewError> {
        let per_rank = self.stock.experts_per_rank(self.layout);
        let first = per_rank.saturating_mul(self.place.rank.ep);
        for block in entries.chunk_by(|a, b| experts_of(a).is_some() && experts_of(a) == experts_of(b)) {
            let of_experts = block.first().is_some_and(|entry| experts_of(entry).is_some());
            for expert in 0..if of_experts { per_rank } else { 1 } {
                let of = |numbers, expert| Numbers { expert: of_experts.then_some(expert), ..numbers };
                let at = At { local: of(at.local, expert), global: of(at.global, first + expert) };
                for entry in block {
                    tensors.extend(self.make(entry, at)?);
                }
            }
        }
        Ok(())
    }

    /// What stands behind the layers: single tensors, or the layers that predict tokens beyond the next one.
    fn after(
        &self,
        block: &'stock [Entry],
        tensors: &mut Vec<TargetTensor<'stock>>,
    ) -> Result<(), ViewError> {
        let of_depths = block.first().is_some_and(|entry| entry.name.contains(DEPTH));
        if !of_depths {
            return self.layer(block, At::default(), tensors);
        }
        for depth in 0..self.stock.model.predictions() {
            let numbers = Numbers { depth: Some(depth), ..Numbers::default() };
            self.layer(block, At { local: numbers, global: numbers }, tensors)?;
        }
        Ok(())
    }

    /// The tensor of this entry, if the rank has it.
    fn make(&self, entry: &'stock Entry, at: At) -> Result<Option<TargetTensor<'stock>>, ViewError> {
        if entry.holds.is_empty() {
            return Ok(self.extra_state(entry, at));
        }
        if !self.is_here(entry, at.global.layer) {
            return Ok(None);
        }
        let name: Arc<str> = at.local.fill(&entry.name).into();
        let holds = entry.holds.iter();
        let params: Option<Vec<&Param>> =
            holds.map(|holding| self.of.params.get(&at.global.fill(&holding.param))).collect();
        // A source without biases has none of the parameters that a bias would hold.
        let Some(params) = params else { return Ok(None) };
        let target = Some(self.target(entry, &params, &name)?);
        let first = params.first().copied();
        Ok(Some(TargetTensor { name, entry, target, first, is_empty_tensor: false, extra_state: None }))
    }

    /// The extra state of this entry: that of the same module in the source, or one that holds nothing where the source's do.
    fn extra_state(&self, entry: &'stock Entry, at: At) -> Option<TargetTensor<'stock>> {
        let states = self.stock.catalog.extra_states.get(at.global.fill(&entry.name).as_str());
        let extra_state = states.into_iter().flatten().find(|state| self.is_same_module(entry, state));
        let is_empty = self.stock.catalog.spells(&entry.name, at.global.layer);
        if !self.is_staged(entry) || !(is_empty || extra_state.is_some()) {
            return None;
        }
        let name = at.local.fill(&entry.name).into();
        let is_empty_tensor = self.stock.catalog.empty_states.contains(&entry.name);
        Some(TargetTensor { name, entry, target: None, first: None, is_empty_tensor, extra_state })
    }

    /// Whether the rank here has the same part of the module as the source's rank that saved `state`.
    fn is_same_module(&self, entry: &Entry, state: &ExtraState) -> bool {
        let (source, target) = (&self.stock.catalog.layout, self.layout);
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
        // A tied copy exists because of the layout, whether or not the source needed one.
        let named = entry.only_if_pipelined || self.stock.catalog.spells(&entry.name, layer);
        self.is_staged(entry) && named && !(entry.only_if_pipelined && self.layout.pp() == 1)
    }

    fn is_staged(&self, entry: &Entry) -> bool {
        match entry.stage {
            Stage::First => {
                self.layout.is_first(self.place) || (entry.also_last && self.layout.is_last(self.place))
            }
            Stage::Last => self.layout.is_last(self.place),
            Stage::Layer => true,
        }
    }

    fn target(
        &self,
        entry: &Entry,
        params: &[&'stock Param],
        name: &str,
    ) -> Result<Target<'stock>, ViewError> {
        let mut sizes = Vec::with_capacity(params.len());
        for (holding, param) in entry.holds.iter().zip(params) {
            let padded = if holding.is_vocabulary(entry.axis) {
                self.stock.vocabulary_rows(self.layout.tp)?
            } else {
                None
            };
            sizes.push(padded.unwrap_or_else(|| param.size()));
        }
        let (ways, part) = entry.part(self.layout, self.place.rank);
        let bands = entry
            .arrangement
            .bands(&sizes, ways, part)
            .map_err(|source| ViewError::Arrange { tensor: name.to_owned(), source })?;
        let positions: u64 = bands.iter().map(crate::tensor::Band::positions).sum();
        let first = params.first();
        let bands = bands.into_iter().flat_map(|band| {
            params.get(band.part).map_or_else(Vec::new, |param| fill(band, param, self.of.fill))
        });
        Ok(Target {
            dtype: first.map_or(Dtype::Uint8, |param| param.dtype),
            shape: first.map_or_else(Shape::default, |param| param.shape.with(entry.axis, positions)),
            axis: entry.axis,
            bands: bands.collect(),
        })
    }
}

/// The modules that stand once for each expert, if the entry is in them: what its name says before the part with the number.
fn experts_of(entry: &Entry) -> Option<&str> {
    let (before, _) = entry.name.split_once(EXPERT)?;
    Some(before.rsplit_once('.').map_or("", |(modules, _)| modules))
}
