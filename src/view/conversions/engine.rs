//! Rank files for inference engines: which family of names a version of an engine has for a model.

use std::sync::Arc;

use super::{Conversions, Names};
use crate::catalog::RunState;
use crate::family::Family;
use crate::layout::Format;
use crate::view::{Basis, ViewError};

impl Conversions {
    /// What the engine's rank files are made of.
    pub(super) fn engine(&self, format: Format) -> Result<Arc<Basis>, ViewError> {
        let model = self.hf_family()?;
        self.check_engine_model(&model).map_err(|error| self.or_another(error, &model))?;
        let family = self.engine_family(format, &model)?;
        self.rename(&family, RunState::of_args(self.args()?), Names::WEIGHTS, |padding| (padding, None))
    }

    /// A config must go beside the files: what it cannot say, an engine cannot know.
    fn check_engine_model(&self, model: &Family) -> Result<(), ViewError> {
        let has_config = self.origin.files.config.is_some() && !self.origin.inexpressible.is_empty();
        if has_config { Ok(()) } else { self.check_expressible(model) }
    }

    fn engine_family(&self, format: Format, model: &Family) -> Result<Arc<Family>, ViewError> {
        let model_type = model.model_type().unwrap_or_default();
        let Some(family) = self.families.of(format).find(|family| family.serves(model_type)) else {
            return Err(ViewError::NoFamily { title: model.title.clone(), format });
        };
        let version = self.conversion.engine_version.as_deref();
        family.at_version(model_type, version).map(Arc::new).ok_or_else(|| ViewError::EngineVersion {
            format,
            version: version.unwrap_or_default().to_owned(),
            known: family.versions(model_type),
        })
    }
}
