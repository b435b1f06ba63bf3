//! Keys that no rule looks after: those that change nothing (`families/neutral.toml`), and those that are not understood.
//!
//! Not here: keys that a rule of the family names (`read`), and what is done with what is not understood (`source`, `view`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value as Json;

use super::rule::{ConfigFile, KeyRule};
use super::{ARCHITECTURES, Config, ConfigError, MODEL_TYPE, VOCAB_SIZE, is_truthy, same, spelling};

const TEXT: &str = include_str!("../../../families/neutral.toml");

/// `families/neutral.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NeutralFile {
    /// Keys that change nothing.
    neutral: BTreeSet<String>,
    /// Keys that code of every architecture looks at, and the value at which they change nothing.
    always: BTreeMap<String, Json>,
    /// The same of keys that only other architectures know.
    #[serde(rename = "override")]
    overriding: BTreeMap<String, Json>,
    /// Architectures that no key tells from another.
    another: BTreeMap<String, String>,
}

/// The file, read once.
fn file() -> Result<&'static NeutralFile, ConfigError> {
    static FILE: OnceLock<Result<NeutralFile, String>> = OnceLock::new();
    let read = FILE.get_or_init(|| toml::from_str(TEXT).map_err(|error| error.to_string()));
    read.as_ref().map_err(|what| ConfigError::Another { what: format!("families/neutral.toml: {what}") })
}

impl ConfigFile {
    /// Whether its rules were held against all keys that its architecture knows.
    pub(super) fn has_all_keys(&self) -> bool {
        self.all_keys_of.as_ref() == Some(&self.model_type)
    }

    /// Whether a rule looks after this key.
    fn names(&self, key: &str) -> bool {
        const EVERY: [&str; 5] = [MODEL_TYPE, VOCAB_SIZE, ARCHITECTURES, "dtype", "torch_dtype"];
        let by_rule = |(name, rule): (&String, &KeyRule)| {
            !rule.any && (name == key || rule.or_keys.iter().any(|other| other == key))
        };
        let layers = self.expert_layers.as_ref();
        EVERY.contains(&key)
            || self.refuse.contains_key(key)
            || (self.rope.is_some() && spelling::ROPE_KEYS.contains(&key))
            || layers.is_some_and(|layers| layers.step == key || layers.dense == key)
            || self.keys.iter().any(by_rule)
    }
}

/// Whether `value` changes nothing where `neutral` does not: not set is the same, and of a list every item counts.
fn fits(value: &Json, neutral: &Json) -> bool {
    match value {
        Json::Null => true,
        value if !is_truthy(neutral) => !is_truthy(value),
        Json::Array(items) => items.iter().all(|item| same(item, neutral)),
        value => same(value, neutral),
    }
}

/// A key that counts for nothing at this value alone.
pub(super) fn check(key: &str, value: Option<&Json>, neutral: &Json) -> Result<(), ConfigError> {
    match value.filter(|value| !fits(value, neutral)) {
        None => Ok(()),
        Some(value) => Err(ConfigError::Refused {
            key: key.to_owned(),
            value: value.clone(),
            reason: if is_truthy(neutral) {
                format!("only {neutral} can be shown in another format")
            } else {
                "only a model without it can be shown in another format".to_owned()
            },
        }),
    }
}

/// Keys that code of every architecture looks at, and that say something which args cannot.
pub(super) fn always(rules: &ConfigFile, config: &Config) -> Result<Vec<ConfigError>, ConfigError> {
    let looked_at = file()?.always.iter().filter(|(key, _)| !rules.names(key));
    Ok(looked_at.filter_map(|(key, neutral)| check(key, config.get(key), neutral).err()).collect())
}

/// Keys that nothing here knows and that say something.
pub(super) fn unknown(rules: &ConfigFile, config: &Config) -> Result<Vec<ConfigError>, ConfigError> {
    let NeutralFile { neutral, always, .. } = file()?;
    let is_known = |key: &str| rules.names(key) || neutral.contains(key) || always.contains_key(key);
    let unknown = config.iter().filter(|(key, value)| !value.is_null() && !is_known(key));
    let unknown = unknown.map(|(key, value)| (key.clone(), value));
    // Some architectures say there what their own code does with queries or angles.
    let in_rope = spelling::foreign(config).into_iter().filter(|_| rules.rope.is_some());
    let error = |(key, value): (String, &Json)| {
        let (family, value) = (rules.model_type.clone(), value.clone());
        ConfigError::Unknown { family, key, value }
    };
    Ok(unknown.chain(in_rope).map(error).collect())
}

/// The same where the config is of another architecture: keys of that one count for nothing at the value at which it is like this.
pub(super) fn foreign(rules: &ConfigFile, config: &Config) -> Result<Vec<ConfigError>, ConfigError> {
    let shared = &file()?.overriding;
    let is_neutral = |key: &String, value: &Json| {
        rules.overriding.get(key).or_else(|| shared.get(key)).is_some_and(|neutral| fits(value, neutral))
    };
    let mut all = unknown(rules, config)?;
    all.retain(|error| !matches!(error, ConfigError::Unknown { key, value, .. } if is_neutral(key, value)));
    Ok(all)
}

/// What makes this architecture one that no rule can read as another, in words; `None` of all others.
pub(super) fn another(model_type: &str) -> Result<Option<String>, ConfigError> {
    Ok(file()?.another.get(model_type).cloned())
}
