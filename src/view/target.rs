//! The tensors of one rank of a view, in the order in which training would save them.

use std::sync::Arc;

use super::vocabulary::fill;
use super::{Stock, ViewError};
use crate::catalog::Param;
use crate::family::{Entry, Stage};
use crate::layout::{Layout, Rank};
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
    /// Extra state only: an empty tensor instead of `None`.
    pub is_empty_tensor: bool,
}

/// Everything that `rank` of `layout` saves of the model.
///
/// # Errors
/// [`ViewError::Arrange`] where a tensor does not divide.
pub fn rank_tensors<'stock>(
    stock: &'stock Stock,
    layout: &Layout,
    rank: Rank,
) -> Result<Vec<TargetTensor<'stock>>, ViewError> {
    let entries = stock.model.entries();
    let first_layered = entries.iter().position(|e| e.stage == Stage::Layer).unwrap_or(entries.len());
    let after_layered =
        entries.iter().rposition(|e| e.stage == Stage::Layer).map_or(entries.len(), |last| last + 1);
    let (before, rest) = entries.split_at(first_layered);
    let (layered, after) = rest.split_at(after_layered - first_layered);
    let maker = Maker { stock, layout, rank };
    let mut tensors = Vec::new();
    for entry in before {
        tensors.extend(maker.make(entry, None)?);
    }
    for (local, layer) in layout.stages.layers_of(rank.pp).enumerate() {
        for entry in layered {
            tensors.extend(maker.make(entry, Some((local, layer)))?);
        }
    }
    for entry in after {
        tensors.extend(maker.make(entry, None)?);
    }
    Ok(tensors)
}

struct Maker<'stock, 'a> {
    stock: &'stock Stock,
    layout: &'a Layout,
    rank: Rank,
}

impl<'stock> Maker<'stock, '_> {
    /// The tensor of this entry, if the rank has it. `layer` is its number on the stage and in the model.
    fn make(
        &self,
        entry: &'stock Entry,
        layer: Option<(usize, u32)>,
    ) -> Result<Option<TargetTensor<'stock>>, ViewError> {
        if !self.is_here(entry) {
            return Ok(None);
        }
        let name = layer.map_or_else(|| entry.name.clone(), |(local, _)| numbered(&entry.name, local).into());
        if entry.holds.is_empty() {
            let is_empty_tensor = self.stock.catalog.empty_states.contains(&entry.name);
            return Ok(Some(TargetTensor { name, entry, target: None, is_empty_tensor }));
        }
        let params: Option<Vec<&Param>> = entry
            .holds
            .iter()
            .map(|holding| match layer {
                Some((_, global)) => self.stock.catalog.param(&numbered(&holding.param, global as usize)),
                None => self.stock.catalog.param(&holding.param),
            })
            .collect();
        // A source without biases has none of the parameters that a bias would hold.
        let Some(params) = params else { return Ok(None) };
        let target = self.target(entry, &params, &name)?;
        Ok(Some(TargetTensor { name, entry, target: Some(target), is_empty_tensor: false }))
    }

    /// Whether a rank here saves this entry at all: its stage, and the source's spelling of names.
    fn is_here(&self, entry: &Entry) -> bool {
        let staged = match entry.stage {
            Stage::First => self.rank.pp == 0,
            Stage::Last => self.layout.is_last(self.rank),
            Stage::Layer => true,
        };
        // A tied copy exists because of the layout, whether or not the source needed one.
        let named = entry.only_if_pipelined || self.stock.catalog.spellings.contains(&entry.name);
        staged && named && !(entry.only_if_pipelined && self.layout.pp() == 1)
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
        let bands = entry
            .arrangement
            .bands(&sizes, u64::from(self.layout.tp), u64::from(self.rank.tp))
            .map_err(|source| ViewError::Arrange { tensor: name.to_owned(), source })?;
        let positions: u64 = bands.iter().map(crate::tensor::Band::positions).sum();
        let first = params.first();
        let bands = bands.into_iter().flat_map(|band| {
            params.get(band.part).map_or_else(Vec::new, |param| fill(band, param, self.stock.fill))
        });
        Ok(Target {
            dtype: first.map_or(Dtype::Uint8, |param| param.dtype),
            shape: first.map_or_else(Shape::default, |param| param.shape.with(entry.axis, positions)),
            axis: entry.axis,
            bands: bands.collect(),
        })
    }
}

/// A name with its layer's number.
fn numbered(template: &str, layer: usize) -> String {
    template.replace("{layer}", &layer.to_string())
}
