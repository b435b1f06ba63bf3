//! What is wrong with a model directory, in words of its format: files, tensors, keys of `config.json`; no rank files, stages or args.
//!
//! A directory is read as one rank that saved everything, so what finds the fault speaks of ranks. Not here: finding it.

use std::path::Path;

use crate::family::config::{Config, TIED};
use crate::family::{Family, Model, ModelError};
use crate::format::hf::CONFIG;
use crate::source::SourceError;

/// The key that says how many layers there are.
const LAYERS: &str = "num_hidden_layers";

/// An error of the model in `path`, which the config says to be `model`.
pub(in crate::source) fn of_model(error: SourceError, path: &Path, config: &Config, model: &Model) -> SourceError {
    let contents = |what: String| SourceError::Contents { file: path.display().to_string(), what };
    match error {
        SourceError::MissingTensor { tensors, .. } => {
            let because = because(&tensors, config, model.family()).unwrap_or_default();
            contents(format!("it has no {}{because}", tensors.join(" or ")))
        }
        SourceError::MissingParameter { tensors, other, .. } if !tensors.is_empty() => {
            contents(format!("it has no {}, the like of which layer {other} has", tensors.join(" or ")))
        }
        SourceError::Layers { sum, layers, .. } => {
            let key = model.family().key_of("num_layers").unwrap_or(LAYERS);
            let plural = if sum == 1 { "" } else { "s" };
            contents(format!("its files have {sum} layer{plural}, but {key} in {CONFIG} is {layers}"))
        }
        SourceError::LayerGap { last, gap, .. } => {
            contents(format!("its files have layer {last}, but no layer {gap}"))
        }
        other => other,
    }
}

/// Which key of the config asks for a tensor that not every model has.
fn because(tensors: &[String], config: &Config, family: &Family) -> Option<String> {
    let key = tensors.iter().find_map(|tensor| family.decided_by(tensor))?;
    let value = config.get(key).map_or_else(|| "not there".to_owned(), ToString::to_string);
    let way_on = if key == TIED { ". If the head is the embedding, set it to true" } else { "" };
    Some(format!(", which {CONFIG} asks for: {key} is {value}{way_on}"))
}

/// Why the family cannot describe what the config says.
pub(in crate::source) fn of_config(error: ModelError, family: &Family) -> ModelError {
    let key = |field: &String| family.key_of(field).map(str::to_owned);
    match error {
        ModelError::MissingArg { what, fields } => {
            ModelError::MissingKey { what, keys: fields.iter().filter_map(key).collect() }
        }
        ModelError::Refused { field, value, reason } => match key(&field) {
            Some(key) => ModelError::RefusedKey { key, value, reason },
            None => ModelError::Refused { field, value, reason },
        },
        other => other,
    }
}
