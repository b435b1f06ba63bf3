//! Whether a config of one architecture can be read as one of another: only where all that it says is understood, and what it leaves to its
//! own architecture makes no difference.

use serde_json::Value as Json;

use super::rule::{ConfigFile, KeyRule};
use super::{Config, ConfigError, MODEL_TYPE, is_truthy, neutral, read, spelling};

/// Why a config of another architecture cannot be read as one of this; nothing where every key of it is understood.
///
/// What a config does not say means what its own architecture takes then, which is not known: only what tensors show may be left out.
pub(super) fn misfits(rules: &ConfigFile, config: &Config) -> Result<Vec<ConfigError>, ConfigError> {
    let mut all = neutral::foreign(rules, config)?;
    match read::args(rules, config) {
        Err(error) => all.push(error),
        // Every version of transformers stretches rotary embeddings alike in all architectures; what it does not know is foreign.
        Ok(read) => all.extend(read.inexpressible.into_iter().filter(|error| {
            // How much of a head is turned is an architecture's own affair.
            let stretches = |key: &str| key != spelling::PARTIAL && spelling::ROPE_KEYS.contains(&key);
            !matches!(error, ConfigError::Refused { key, .. } if stretches(key))
                && !matches!(error, ConfigError::Unknown { .. })
        })),
    }
    all.extend(
        rules
            .keys
            .iter()
            .filter_map(|(key, rule)| unsaid(key, rule, config))
            .map(|key| ConfigError::Unsaid { key }),
    );
    if rules.rope.as_ref().is_some_and(|rope| !rope.fixed) && !spelling::says_theta(config) {
        all.push(ConfigError::Unsaid { key: spelling::THETA.to_owned() });
    }
    let stated = config.get(MODEL_TYPE).and_then(Json::as_str);
    if let Some(what) = stated.map(neutral::another).transpose()?.flatten() {
        all.push(ConfigError::Another { what });
    }
    Ok(all)
}

/// The key that the config of another architecture would have to say, because what is taken otherwise differs between architectures and
/// no tensor shows it.
fn unsaid(key: &str, rule: &KeyRule, config: &Config) -> Option<String> {
    if let Some(switch) = &rule.only_if {
        let is_set = config.get(key).is_some_and(is_truthy);
        return (is_set && !config.contains_key(switch)).then(|| switch.clone());
    }
    let is_name = rule.is.as_ref().is_some_and(|is| !is.is_boolean());
    let changes = !(rule.is_only_read() || rule.loose || rule.optional);
    let mut spellings = std::iter::once(key).chain(rule.or_keys.iter().map(String::as_str));
    let is_said = spellings.any(|key| config.contains_key(key));
    (changes && (rule.default.is_some() || is_name) && !is_said).then(|| key.to_owned())
}
