//! The `config.json` of a view: what args say, in both spellings, over what the source's or a template's says beside that.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Conversions, Given, ModelFiles};
use crate::family::config::{Config, MODEL_TYPE, VOCAB_SIZE};
use crate::family::{self, Family};
use crate::tensor::Dtype;
use crate::view::{Format, ViewError};

/// Rows of the vocabulary by a template, for a source that does not record them.
pub(super) fn vocab_size(given: &Given) -> Option<u64> {
    given.template.as_ref()?.config.as_ref()?.get(VOCAB_SIZE)?.as_u64()
}

impl Conversions {
    /// The family that the source would be as a Hugging Face model: its own, the user's, the template's, or the one that its args suit.
    pub(super) fn hf_family(&self) -> Result<Arc<Family>, ViewError> {
        let own = self.given.model.family();
        if own.format() == family::Format::Hf {
            return Ok(Arc::new(own.clone()));
        }
        let of_template = self.template_config().and_then(|(_, config)| config.get(MODEL_TYPE)?.as_str());
        let wanted = self.wishes.model_type.as_deref().or(of_template);
        let candidates = || {
            let all = self.families.of(family::Format::Hf);
            all.filter(|family| family.megatron() == Some(&own.name))
        };
        if let Some(wanted) = wanted {
            let found = candidates().find(|family| family.model_type() == Some(wanted));
            return found.cloned().ok_or_else(|| ViewError::NoModelType {
                wanted: wanted.to_owned(),
                title: own.title.clone(),
                known: candidates().filter_map(|family| family.model_type()).map(ToOwned::to_owned).collect(),
            });
        }
        let args = self.args()?;
        let suited = candidates().filter_map(|family| Some((family.suits(&args)?, family)));
        let best = suited.max_by_key(|(fields, _)| *fields).map(|(_, family)| family.clone());
        best.ok_or_else(|| ViewError::NoFamily { title: own.title.clone(), format: Format::Hf })
    }

    /// The architecture can say everything that args say.
    pub(super) fn check_expressible(&self, family: &Family) -> Result<(), ViewError> {
        self.written(family).map(|_| ())
    }

    /// The config by args alone.
    fn written(&self, family: &Family) -> Result<Config, ViewError> {
        let vocabulary = self.own.vocabulary();
        let rows = vocabulary.map_or(0, |own| own.true_size.unwrap_or(own.stored));
        family
            .config_of(&self.args()?, rows, self.main_dtype())
            .map_err(|source| ViewError::NotExpressible { source: Box::new(source) })
    }

    /// The element type of most bytes.
    fn main_dtype(&self) -> Dtype {
        let mut bytes: BTreeMap<Dtype, u64> = BTreeMap::new();
        for param in self.given.catalog.params() {
            *bytes.entry(param.dtype).or_default() += param.shape.bytes(param.dtype).unwrap_or(0);
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(Dtype::Float32, |(dtype, _)| dtype)
    }

    /// The template, with its config.
    fn template_config(&self) -> Option<(&ModelFiles, &Config)> {
        let template = self.given.template.as_ref()?;
        Some((template, template.config.as_ref()?))
    }

    /// The text of `config.json`.
    pub(super) fn config(&self) -> Result<Vec<u8>, ViewError> {
        let config = match (&self.given.files.config, self.template_config()) {
            // What args cannot say stands in it as the source has it, and no template can be held against it.
            (Some(own), _) if !self.given.inexpressible.is_empty() => own.clone(),
            (own, template) => {
                let family = self.hf_family()?;
                let written = self.written(&family)?;
                if let Some((template, config)) = template {
                    check_same(&family, &written, template, config)?;
                }
                let base = template.map(|(_, config)| config).or(own.as_ref());
                merged(&family, base, written)
            }
        };
        Ok(format!("{:#}\n", serde_json::Value::Object(config)).into_bytes())
    }
}

/// Both together: what is written wins, but for what changes nothing that a model computes.
fn merged(family: &Family, base: Option<&Config>, written: Config) -> Config {
    let mut config = base.cloned().unwrap_or_default();
    for (key, value) in written {
        if !(family.is_loose(&key) && config.contains_key(&key)) {
            config.insert(key, value);
        }
    }
    config
}

/// The template's config is that of a model that computes the same.
fn check_same(
    family: &Family,
    written: &Config,
    template: &ModelFiles,
    config: &Config,
) -> Result<(), ViewError> {
    let differs = |field: &str, template_says: String, args_say: String| ViewError::Template {
        template: template.name.clone(),
        field: field.to_owned(),
        template_says,
        args_say,
    };
    let explain =
        |source| ViewError::TemplateConfig { template: template.name.clone(), source: Box::new(source) };
    let theirs = family.args_of(config).map_err(explain)?;
    if let Some(error) = theirs.inexpressible.first() {
        return Err(explain(error.clone()));
    }
    let ours =
        family.args_of(written).map_err(|source| ViewError::NotExpressible { source: Box::new(source) })?;
    let theirs: BTreeMap<_, _> = theirs.args.into_iter().collect();
    for (field, value) in ours.args.iter().filter(|(field, _)| !family.is_loose_arg(field)) {
        let Some(other) = theirs.get(field) else { continue };
        if !family::config::same_value(value, other) {
            return Err(differs(field, family::config::text(other), family::config::text(value)));
        }
    }
    let rows = |config: &Config| config.get(VOCAB_SIZE).cloned().unwrap_or_default();
    if rows(written) != rows(config) {
        return Err(differs(VOCAB_SIZE, rows(config).to_string(), rows(written).to_string()));
    }
    Ok(())
}
