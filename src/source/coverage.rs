//! Whether a catalog is a whole model: every parameter covered, every layer and every expert with what its kind has.

use std::collections::BTreeSet;

use super::SourceError;
use crate::catalog::{Catalog, Param, RankFile};
use crate::family::{DEPTH, Entry, LAYER, Model, Numbers};

/// Checks that nothing is missing.
pub(super) fn check(catalog: &Catalog, model: &Model, missing: &[String]) -> Result<(), SourceError> {
    for param in catalog.params() {
        param.check().map_err(|source| SourceError::Uncovered {
            param: param.name.to_string(),
            source: Box::new(source),
            lacking: lacking(catalog, param),
            missing: missing.to_vec(),
        })?;
    }
    let checker = Checker { catalog, model, missing };
    checker.required()?;
    checker.layers()
}

/// Rank files without any of the parameter, on stages where other files have some.
fn lacking(catalog: &Catalog, param: &Param) -> Vec<String> {
    let chunks = param.stored();
    let lacks = |file: &&RankFile| {
        chunks.iter().any(|chunk| (chunk.rank.pp, chunk.rank.ep) == (file.rank.pp, file.rank.ep))
            && !chunks.iter().any(|chunk| chunk.rank == file.rank)
    };
    catalog.ranks.iter().filter(lacks).map(|file| file.name.clone()).collect()
}

struct Checker<'a> {
    catalog: &'a Catalog,
    model: &'a Model,
    missing: &'a [String],
}

impl Checker<'_> {
    /// A model has what every model of its family has.
    fn required(&self) -> Result<(), SourceError> {
        for param in self.model.required_parameters() {
            let param = param.as_str();
            // That all layers of a kind are alike is checked apart.
            let needed = !is_counted(param) || self.numbers(param).next().is_some();
            if needed && self.catalog.sample(|layer| Numbers::of_layer(layer).fill(param)).is_none() {
                let holds = |entry: &&Entry| entry.holds.iter().any(|held| held.param == param);
                let entries = self.model.entries().iter().filter(holds);
                let tensors = entries.map(|entry| entry.name.to_string()).collect();
                return Err(SourceError::MissingTensor { tensors, missing: self.missing.to_vec() });
            }
        }
        Ok(())
    }

    /// Every layer has the parameters that any layer of its kind has, and every expert those that any expert has.
    fn layers(&self) -> Result<(), SourceError> {
        let held = self.model.entries().iter().flat_map(|entry| &entry.holds);
        let layered: BTreeSet<&str> =
            held.map(|holding| holding.param.as_str()).filter(|param| is_counted(param)).collect();
        // What no file has need not be looked for in every layer and expert that args speak of.
        let layered = layered.into_iter().filter(|param| self.is_seen(param));
        for template in layered {
            let has = |numbers: &Numbers| self.catalog.param(&numbers.fill(template)).is_some();
            let Some(other) = self.numbers(template).find(has) else { continue };
            if let Some(lost) = self.numbers(template).find(|numbers| !has(numbers)) {
                return Err(self.missing_parameter(template, lost, other));
            }
        }
        Ok(())
    }

    /// Whether any file has a tensor that holds some of these parameters.
    fn is_seen(&self, param: &str) -> bool {
        let entries = self.model.entries().iter();
        let mut holding = entries.filter(|entry| entry.holds.iter().any(|held| held.param == param));
        holding.any(|entry| self.catalog.spells(&entry.name, None))
    }

    fn missing_parameter(&self, template: &str, lost: Numbers, other: Numbers) -> SourceError {
        if lost.layer.is_none() {
            return SourceError::MissingTensor {
                tensors: vec![lost.fill(template)],
                missing: self.missing.to_vec(),
            };
        }
        let (layer, layout) = (lost.layer.unwrap_or(0), &self.catalog.layout);
        let of_layer =
            self.catalog.ranks.iter().filter(|file| {
                layout.places(file.rank).any(|place| layout.layers_at(place).contains(&layer))
            });
        let holding = self.model.entries().iter().filter(|entry| {
            entry.holds.iter().any(|held| held.param == template) && self.catalog.spells(&entry.name, None)
        });
        SourceError::MissingParameter {
            layer,
            tensors: holding.map(|entry| lost.fill(&entry.name)).collect(),
            param: Numbers { layer: None, ..lost }.fill(&template.replace("layers.{layer}.", "")),
            other: other.layer.unwrap_or(0),
            lacking: of_layer.map(|file| file.name.clone()).collect(),
            missing: self.missing.to_vec(),
        }
    }

    /// Every layer (and expert in it) that must have `param` if any has.
    fn numbers<'p>(&self, param: &'p str) -> impl Iterator<Item = Numbers> + use<'_, 'p> {
        let layers = u32::try_from(self.catalog.layout.stages.total()).unwrap_or(u32::MAX);
        self.model.numbers_of(param, layers)
    }
}

/// Whether there is one such parameter for each layer or prediction.
fn is_counted(param: &str) -> bool {
    param.contains(LAYER) || param.contains(DEPTH)
}
