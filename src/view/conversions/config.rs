//! The `config.json` of a view: what args say, in both spellings, over what the source's or a template's says beside that.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Conversions, Origin, ModelFiles};
use crate::family::config::{ARCHITECTURES, Config, ConfigError, MODEL_TYPE, VOCAB_SIZE, explain};
use crate::family::{self, Family, VocabularyError};
use crate::layout::Format;
use crate::tensor::Dtype;
use crate::value::json::{pretty, shown};
use crate::view::ViewError;

/// Rows of the vocabulary by a template, for a source that does not record them.
pub(super) fn vocab_size(origin: &Origin) -> Option<u64> {
    origin.template.as_ref()?.config.as_ref()?.get(VOCAB_SIZE)?.as_u64()
}

/// What is wrong with a template whose rows of the vocabulary cannot be those of the source.
pub(super) fn of_another(origin: &Origin, rows: u64, error: ViewError) -> ViewError {
    let args_say = match &error {
        ViewError::Vocabulary(VocabularyError::TooLarge { stored, .. }) => format!("at most {stored}"),
        ViewError::Vocabulary(VocabularyError::Contradiction { stored, .. }) => {
            format!("a number that is padded to {stored}")
        }
        _ => return error,
    };
    ViewError::Template {
        template: origin.template.as_ref().map(|template| template.name.clone()).unwrap_or_default(),
        field: VOCAB_SIZE.to_owned(),
        template_says: rows.to_string(),
        args_say,
    }
}

impl Conversions {
    /// Keys that nothing here knows, of the config that views have in this format: its name, and theirs.
    ///
    /// # Errors
    /// [`ConfigError`]: never for the files of this repository.
    pub fn unknown_keys(&self) -> Result<Option<(String, Vec<String>)>, ConfigError> {
        let Some((name, family, config)) = self.shown_config() else { return Ok(None) };
        let keys = family.unknown_keys(config)?;
        Ok((!keys.is_empty()).then_some((name, keys)))
    }

    /// What the config that views have says of the code that runs it and nothing here looks at, in words: its name, and each.
    #[must_use]
    pub fn foreign_code(&self) -> Option<(String, Vec<String>)> {
        let (name, family, config) = self.shown_config()?;
        Some((name, family.foreign_code(config)))
    }

    /// The config that views are made after, with its name and the family that reads it.
    fn shown_config(&self) -> Option<(String, Arc<Family>, &Config)> {
        let own = || Arc::new(self.origin.model.family().clone());
        if self.origin.model.family().is_undescribed() {
            return None;
        }
        let template = self.template_config().filter(|_| self.origin.inexpressible.is_empty());
        match (template, &self.origin.files.config) {
            (Some((template, config)), _) => {
                let family = self.hf_family().ok().unwrap_or_else(own);
                Some((format!("{}/config.json", template.name), family, config))
            }
            (None, Some(config)) => Some(("config.json".to_owned(), own(), config)),
            (None, None) => None,
        }
    }

    /// The family that the source would be as a Hugging Face model: its own, the user's, the template's, or the one that its args suit.
    pub(super) fn hf_family(&self) -> Result<Arc<Family>, ViewError> {
        let own = self.origin.model.family();
        if own.model_type().is_some() {
            return Ok(Arc::new(own.clone()));
        }
        let of_template = self.template_config().and_then(|(_, config)| config.get(MODEL_TYPE)?.as_str());
        let wanted = self.conversion.model_type.as_deref().or(of_template);
        let candidates = || self.architectures();
        if let Some(wanted) = wanted {
            let found = candidates().find(|family| family.model_type() == Some(wanted));
            let known =
                || candidates().filter_map(|family| family.model_type()).map(ToOwned::to_owned).collect();
            let (wanted, title) = (wanted.to_owned(), own.title.clone());
            return found.cloned().ok_or_else(|| match (&self.conversion.model_type, &self.origin.template) {
                (None, Some(template)) => ViewError::TemplateModelType {
                    template: template.name.clone(),
                    wanted,
                    title,
                    known: known(),
                },
                _ => ViewError::NoModelType { wanted, title, known: known() },
            });
        }
        let args = self.args()?;
        let suited = candidates().filter_map(|family| Some((family.suits(&args)?, family)));
        let best = suited.max_by_key(|(fields, _)| *fields).map(|(_, family)| family.clone());
        best.ok_or_else(|| ViewError::NoFamily { title: own.title.clone(), format: Format::Hf })
    }

    /// The architectures that a source of Megatron files may be.
    fn architectures(&self) -> impl Iterator<Item = &Arc<Family>> {
        let own = self.origin.model.family().name.as_str();
        self.families.of(Format::Hf).filter(move |family| family.megatron() == Some(own))
    }

    /// Why the model is none of `family`, with the architectures that can say what it is; other errors as they are.
    pub(super) fn or_another(&self, error: ViewError, family: &Family) -> ViewError {
        let of_architecture = matches!(
            error,
            ViewError::NotExpressible { .. } | ViewError::NoPlace { .. } | ViewError::Lacks { .. }
        );
        if !of_architecture || self.origin.model.family().model_type().is_some() {
            return error;
        }
        let others = self.architectures().filter(|other| other.name != family.name);
        let fitting = others.filter(|other| self.as_architecture(other).is_ok());
        let others = fitting.filter_map(|other| other.model_type()).map(ToOwned::to_owned).collect();
        ViewError::OtherArchitecture { why: Box::new(error), others }
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
        for param in self.origin.catalog.params() {
            *bytes.entry(param.dtype).or_default() += param.shape.bytes(param.dtype).unwrap_or(0);
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(Dtype::Float32, |(dtype, _)| dtype)
    }

    /// The template, with its config.
    fn template_config(&self) -> Option<(&ModelFiles, &Config)> {
        let template = self.origin.template.as_ref()?;
        Some((template, template.config.as_ref()?))
    }

    /// The text of `config.json`; none for a model of which there is no config.
    pub(super) fn config(&self) -> Result<Option<Vec<u8>>, ViewError> {
        let text = |config: Config| format!("{}\n", pretty(&serde_json::Value::Object(config))).into_bytes();
        if self.origin.model.family().is_undescribed() {
            // Nothing is known of what it says.
            return Ok(self.origin.files.config.clone().map(text));
        }
        let config = match (&self.origin.files.config, self.template_config()) {
            // What args cannot say stands in it as the source has it, and no template can be held against it.
            (Some(own), _) if !self.origin.inexpressible.is_empty() => {
                let mut config = own.clone();
                let spelled = self.origin.model.family().spell_out(&mut config);
                spelled.map_err(|source| ViewError::Spelling { source: Box::new(source) })?;
                config
            }
            (own, template) => {
                let family = self.hf_family()?;
                let written = self.written(&family)?;
                if let Some((template, config)) = template {
                    self.check_architecture(&family, template, config)?;
                    check_same(&family, &written, template, config)?;
                }
                let base = template.map(|(_, config)| config).or(own.as_ref());
                merged(&family, base, written)
                    .map_err(|source| ViewError::Spelling { source: Box::new(source) })?
            }
        };
        Ok(Some(text(config)))
    }

    /// The template is of the architecture that the view is of, or of one that the user says is the same and whose config says nothing else.
    fn check_architecture(
        &self,
        family: &Family,
        template: &ModelFiles,
        config: &Config,
    ) -> Result<(), ViewError> {
        let stated = config.get(MODEL_TYPE).and_then(serde_json::Value::as_str);
        let Some(stated) = stated.filter(|stated| Some(*stated) != family.model_type()) else {
            return Ok(());
        };
        if self.conversion.model_type.is_none() {
            return Err(ViewError::Template {
                template: template.name.clone(),
                field: MODEL_TYPE.to_owned(),
                template_says: stated.to_owned(),
                args_say: family.model_type().unwrap_or_default().to_owned(),
            });
        }
        let wrong =
            |source| ViewError::TemplateConfig { template: template.name.clone(), source: Box::new(source) };
        let misfits = family.misfits(config).map_err(wrong)?;
        if misfits.is_empty() { Ok(()) } else { Err(wrong(ConfigError::Another { what: explain(&misfits) })) }
    }
}

/// Both together: what is written wins, but for what changes nothing that a model computes.
fn merged(family: &Family, base: Option<&Config>, written: Config) -> Result<Config, ConfigError> {
    let Some(base) = base else { return Ok(written) };
    let mut config = base.clone();
    for (key, value) in written {
        // Engines choose code by the classes that a config names: those of the same architecture stay.
        let stated = base.get(MODEL_TYPE).and_then(serde_json::Value::as_str);
        let is_named = key == ARCHITECTURES && stated == family.model_type();
        if !((is_named || family.is_loose(&key)) && config.contains_key(&key)) {
            config.insert(key, value);
        }
    }
    family.pass_on(base, &mut config)?;
    Ok(config)
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
            // By the key of the config, and as it stands in it; what it does not say is a default.
            let key = family.key_of(field).unwrap_or(field);
            let says = |config: &Config, value| match config.get(key).filter(|value| !value.is_null()) {
                Some(json) => shown(json),
                None => family::config::text(value),
            };
            return Err(differs(key, says(config, other), says(written, value)));
        }
    }
    let rows = |config: &Config| config.get(VOCAB_SIZE).cloned().unwrap_or_default();
    if rows(written) != rows(config) {
        return Err(differs(VOCAB_SIZE, shown(&rows(config)), shown(&rows(written))));
    }
    Ok(())
}
