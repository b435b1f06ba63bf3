//! What a model cannot be without: which parameters, and in which of its layers and experts.

use std::collections::BTreeSet;

use super::names::{DEPTH, EXPERT, LAYER};
use super::mtp::of_layer;
use super::{Entry, LayerKind, Model, Numbers};

impl Model {
    /// Canonical names (with `{layer}`) of the parameters that a checkpoint of this model cannot be without.
    pub fn required_parameters(&self) -> impl Iterator<Item = String> {
        let holds = |entry: &Entry, param: &str| entry.holds.iter().any(|held| held.param == param);
        let described = move |param: &String| self.entries.iter().any(|entry| holds(entry, param));
        // A prediction's layer is dense or has experts, and nothing says which.
        let of_every_layer = move |param: &&String| {
            let mut entries = self.entries.iter().filter(|entry| holds(entry, param));
            self.experts.is_none() || entries.all(|entry| entry.layers == LayerKind::Any)
        };
        let required = self.family.parameters.required.iter().chain(&self.family.file.required);
        let layered = required.clone().filter(|param| param.contains("{layer}"));
        let of_predictions = layered.filter(of_every_layer).map(|param| of_layer(param));
        required.cloned().chain(of_predictions).filter(described)
    }

    /// Every layer (and expert in it, or prediction) that a parameter of this name with `{layer}`, `{expert}` or `{depth}` is of, in a model of
    /// so many layers; once without numbers for one that has none.
    pub fn numbers_of<'p>(&self, param: &'p str, layers: u32) -> impl Iterator<Item = Numbers> + use<'_, 'p> {
        let holds = |entry: &&Entry| entry.holds.iter().any(|held| held.param == param);
        let kinds: BTreeSet<LayerKind> =
            self.entries.iter().filter(holds).map(|entry| entry.layers).collect();
        let experts = if param.contains(EXPERT) { self.size("experts").unwrap_or(0) } else { 1 };
        let experts = u32::try_from(experts).unwrap_or(u32::MAX);
        let of_kind =
            move |layer: &u32| kinds.contains(&LayerKind::Any) || kinds.contains(&self.kind_of(*layer));
        let depths = if param.contains(DEPTH) { self.predictions() } else { 0 };
        let depths = (0..depths).map(|depth| Numbers { depth: Some(depth), ..Numbers::default() });
        let once = (!param.contains(LAYER) && !param.contains(DEPTH)).then(Numbers::default);
        let layers = if param.contains(LAYER) { 0..layers } else { 0..0 };
        let of_layer = |layer| Numbers { layer: Some(layer), ..Numbers::default() };
        layers.filter(of_kind).map(of_layer).chain(depths).chain(once).flat_map(move |numbers| {
            let expert = |expert| param.contains(EXPERT).then_some(expert);
            (0..experts).map(move |number| Numbers { expert: expert(number), ..numbers })
        })
    }
}
