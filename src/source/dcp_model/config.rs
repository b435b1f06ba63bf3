//! The config of a checkpoint that has none of its own: that of a template, or the one beside it.

use std::path::Path;

use crate::family::config::{Config, MODEL_TYPE};
use crate::format::hf::CONFIG;
use crate::source::hf::read_config;
use crate::source::{Options, SourceError};

/// A config, and where it is from.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The file, for messages.
    pub(super) file: String,
    pub(super) config: Config,
    /// Whether it lies in the directory of the checkpoint.
    pub(super) is_own: bool,
}

/// The config for the checkpoint in `path`, a directory with these names in it.
pub(super) fn find(path: &Path, names: &[String], options: &Options) -> Result<Option<Found>, SourceError> {
    if let Some(template) = &options.template {
        let file = template.directory.join(CONFIG).display().to_string();
        return Ok(Some(Found { file, config: template.config.clone(), is_own: false }));
    }
    if !names.iter().any(|name| name == CONFIG) {
        return Ok(None);
    }
    let (config, file) = (read_config(path)?, path.join(CONFIG).display().to_string());
    Ok(Some(Found { file, config, is_own: true }))
}

impl Found {
    /// The architecture that is asked for or said, where a family describes it. Without one, tensors go by the names that they have.
    pub(super) fn is_described(&self, options: &Options) -> bool {
        let stated = self.config.get(MODEL_TYPE).and_then(serde_json::Value::as_str);
        let known = |name: &str| options.families.of_model_type(name).is_some();
        // What the user says must be known; what is wrong with it is said where it is looked up.
        options.model_type.is_some() || stated.is_some_and(known)
    }
}
