//! Two spellings of one thing: rotary embeddings and the kind of weights, read as one and written as both.
//!
//! transformers 4 reads `rope_theta`, `rope_scaling`, `partial_rotary_factor` and `torch_dtype`. Version 5 reads `rope_parameters`, which
//! holds the first three, and `dtype`. Each takes its defaults without a word where only the other's keys stand, so both are written,
//! whatever the type of the embeddings; where a config has both, they must say the same.
//!
//! Not here: what of it args can say (`rope`).

use serde_json::{Map, Value as Json};

use super::{Config, ConfigError, is_truthy, same};

/// Every key that says something of rotary embeddings.
pub(super) const ROPE_KEYS: [&str; 5] = [THETA, OLD, NEW, PARTIAL, ORIGINAL];

pub(super) const THETA: &str = "rope_theta";
pub(super) const OLD: &str = "rope_scaling";
pub(super) const NEW: &str = "rope_parameters";
pub(super) const PARTIAL: &str = "partial_rotary_factor";
const ORIGINAL: &str = "original_max_position_embeddings";

/// Version 4 reads that key beside the block for the first of them, version 5 for all; within the block, version 4 reads it for the
/// others.
const BY_ORIGINAL: [&str; 3] = ["longrope", "yarn", "llama3"];

/// The types whose name old versions read under `type` alone.
const OLD_NAME: [&str; 2] = ["linear", "dynamic"];

/// Types that the common code of transformers knows, which every architecture shares.
const KINDS: [&str; 7] = ["default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional"];

/// What names the type within a block.
const NAMES: [&str; 2] = ["rope_type", "type"];

/// What that code reads within a block. With text alone, sections count for nothing.
const NUMBERS: [&str; 20] = [
    "rope_type",
    "type",
    THETA,
    PARTIAL,
    ORIGINAL,
    "factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "finetuned",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "max_position_embeddings",
    "mrope_interleaved",
    "mrope_section",
    "mscale",
    "mscale_all_dim",
    "short_factor",
    "truncate",
];

const DTYPES: [&str; 2] = ["dtype", "torch_dtype"];

/// The name of a type, and the numbers of it.
type Stretch = (String, Map<String, Json>);

/// A block of a config under its key.
type Block<'c> = (&'static str, &'c Map<String, Json>);

/// What a config says of rotary embeddings, in whichever spelling.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rope {
    /// The base of the angles.
    pub(super) theta: Option<Json>,
    /// The share of a head that is turned.
    pub(super) partial: Option<Json>,
    /// How angles are stretched: `default` where they are not.
    pub(super) kind: String,
    /// The numbers of it.
    pub(super) numbers: Map<String, Json>,
}

impl Rope {
    /// What `config` says; what two spellings say must be the same.
    pub(super) fn of(config: &Config) -> Result<Self, ConfigError> {
        let blocks = blocks(config)?;
        let numbers = |name: &str| {
            let inside = blocks.iter().map(|(key, block)| (format!("{key}.{name}"), block.get(name)));
            agreed(std::iter::once((name.to_owned(), config.get(name))).chain(inside))
        };
        let (theta, partial) = (numbers(THETA)?, numbers(PARTIAL)?);
        let mut found: Option<(&str, Stretch)> = None;
        for (key, block) in &blocks {
            let stretch = (kind(key, block)?, plain(block));
            match &found {
                Some((other, known)) if !are_same(known, &stretch) => {
                    return Err(contradiction(key, config, other));
                }
                Some(_) => {}
                None => found = Some((key, stretch)),
            }
        }
        let (kind, numbers) =
            found.map_or_else(|| ("default".to_owned(), Map::new()), |(_, stretch)| stretch);
        let mut rope = Self { theta, partial, kind, numbers };
        rope.take_original(config, &blocks)?;
        Ok(rope)
    }

    /// The length that the model was trained with, which may stand beside the block.
    fn take_original(&mut self, config: &Config, blocks: &[Block<'_>]) -> Result<(), ConfigError> {
        if !BY_ORIGINAL.contains(&self.kind.as_str()) {
            return Ok(());
        }
        let inside = blocks.iter().map(|(key, block)| (format!("{key}.{ORIGINAL}"), block.get(ORIGINAL)));
        let Some(original) =
            agreed(std::iter::once((ORIGINAL.to_owned(), config.get(ORIGINAL))).chain(inside))?
        else {
            return Ok(());
        };
        self.numbers.insert(ORIGINAL.to_owned(), original.clone());
        // With that key version 4 works the factor out, where version 5 takes the one that is said.
        let number = |json: Option<&Json>| json.and_then(Json::as_f64);
        let most = config.get("max_position_embeddings");
        let (Some(factor), Some(longest), Some(first)) =
            (self.numbers.get("factor"), number(most), number(Some(&original)))
        else {
            return Ok(());
        };
        let is_used = self.kind == "longrope" && !self.numbers.contains_key("attention_factor");
        if is_used && factor.as_f64() != Some(longest / first) {
            return Err(ConfigError::Contradiction {
                key: format!("{OLD}.factor"),
                value: factor.clone(),
                other: format!("max_position_embeddings / {ORIGINAL}"),
                other_value: (longest / first).into(),
            });
        }
        Ok(())
    }

    /// Whether a config says anything at all.
    fn is_said(&self) -> bool {
        self.theta.is_some() || self.partial.is_some() || self.kind != "default" || !self.numbers.is_empty()
    }

    /// Writes it in both spellings.
    pub(super) fn write(&self, config: &mut Config) {
        if !self.is_said() {
            return;
        }
        let mut new = self.numbers.clone();
        new.insert("rope_type".into(), self.kind.as_str().into());
        let mut old = new.clone();
        if OLD_NAME.contains(&self.kind.as_str()) {
            old.insert("type".into(), self.kind.as_str().into());
        }
        for (key, value) in [(THETA, &self.theta), (PARTIAL, &self.partial)] {
            if let Some(value) = value {
                new.insert(key.into(), value.clone());
                config.insert(key.into(), value.clone());
            }
        }
        if let Some(original) = self.numbers.get(ORIGINAL).filter(|_| self.kind == "longrope") {
            config.insert(ORIGINAL.into(), original.clone());
        }
        let is_stretched = self.kind != "default" || !self.numbers.is_empty();
        config.insert(OLD.into(), if is_stretched { old.into() } else { Json::Null });
        config.insert(NEW.into(), new.into());
    }
}

/// What stands within the blocks of a config and is nothing that every architecture reads alike: keys, and types by their name.
pub(super) fn foreign(config: &Config) -> Vec<(String, &Json)> {
    let blocks = [NEW, OLD].into_iter().filter_map(|key| Some((key, config.get(key)?.as_object()?)));
    let is_foreign = |name: &str, value: &Json| match name {
        name if NAMES.contains(&name) => value.as_str().is_some_and(|kind| !KINDS.contains(&kind)),
        name => !value.is_null() && !NUMBERS.contains(&name),
    };
    blocks
        .flat_map(|(key, block)| block.iter().map(move |(name, value)| (key, name, value)))
        // A block for each kind of layer is refused as such.
        .filter(|(_, name, value)| !value.is_object() && is_foreign(name, value))
        .map(|(key, name, value)| (format!("{key}.{name}"), value))
        .collect()
}

/// Puts what is foreign within the blocks of `base` into those of `config`, which args have said anew.
pub(super) fn pass_on(base: &Config, config: &mut Config) -> Result<(), ConfigError> {
    let mut rope = Rope::of(config)?;
    for (path, value) in foreign(base) {
        let name = path.split_once('.').map_or(path.as_str(), |(_, name)| name);
        if !NAMES.contains(&name) && !rope.numbers.contains_key(name) {
            rope.numbers.insert(name.to_owned(), value.clone());
        }
    }
    rope.write(config);
    Ok(())
}

/// Whether a config says the base of the angles.
pub(super) fn says_theta(config: &Config) -> bool {
    let blocks = [NEW, OLD].into_iter().filter_map(|key| config.get(key)?.get(THETA));
    config.get(THETA).into_iter().chain(blocks).any(|value| !value.is_null())
}

/// The two spellings of the kind of weights agree.
pub(super) fn check_dtype(config: &Config) -> Result<(), ConfigError> {
    agreed(DTYPES.into_iter().map(|key| (key.to_owned(), config.get(key)))).map(|_| ())
}

/// Writes the kind of weights under both names.
pub(super) fn write_dtype(config: &mut Config) {
    let said = DTYPES.into_iter().filter_map(|key| config.get(key)).find(|value| !value.is_null()).cloned();
    for key in DTYPES {
        if let Some(said) = &said {
            config.insert(key.to_owned(), said.clone());
        }
    }
}

/// What several places say, where they say the same.
fn agreed<'c>(places: impl Iterator<Item = (String, Option<&'c Json>)>) -> Result<Option<Json>, ConfigError> {
    let mut found: Option<(String, &Json)> = None;
    for (key, value) in places {
        let Some(value) = value.filter(|value| !value.is_null()) else { continue };
        match found {
            Some((other, known)) if !same(known, value) => {
                let (value, other_value) = (value.clone(), known.clone());
                return Err(ConfigError::Contradiction { key, value, other, other_value });
            }
            Some(_) => {}
            None => found = Some((key, value)),
        }
    }
    Ok(found.map(|(_, value)| value.clone()))
}

/// The blocks that are there, under the names of both versions.
fn blocks(config: &Config) -> Result<Vec<Block<'_>>, ConfigError> {
    let mut all = Vec::new();
    for key in [NEW, OLD] {
        let Some(value) = config.get(key).filter(|value| !value.is_null()) else { continue };
        let Some(block) = value.as_object() else {
            return Err(ConfigError::Kind {
                key: key.to_owned(),
                value: value.clone(),
                expected: "an object",
            });
        };
        if block.values().any(Json::is_object) {
            return Err(ConfigError::Refused {
                key: key.to_owned(),
                value: value.clone(),
                reason: "rotary embeddings that differ between layers cannot be shown in another format"
                    .to_owned(),
            });
        }
        if is_truthy(value) {
            all.push((key, block));
        }
    }
    Ok(all)
}

/// How the block says that angles are stretched.
fn kind(key: &str, block: &Map<String, Json>) -> Result<String, ConfigError> {
    let names = NAMES.map(|name| (format!("{key}.{name}"), block.get(name)));
    match agreed(names.into_iter())? {
        // Stretched by 1 is not stretched.
        Some(Json::String(kind))
            if kind == "linear" && block.get("factor").is_some_and(|by| same(by, &1.into())) =>
        {
            Ok("default".to_owned())
        }
        Some(Json::String(kind)) => Ok(kind),
        None => Ok("default".to_owned()),
        Some(other) => {
            Err(ConfigError::Kind { key: format!("{key}.rope_type"), value: other, expected: "a name" })
        }
    }
}

/// The numbers of a block that belong to its type.
fn plain(block: &Map<String, Json>) -> Map<String, Json> {
    const ELSEWHERE: [&str; 4] = ["rope_type", "type", THETA, PARTIAL];
    let is_unstretched = kind("", block).is_ok_and(|kind| kind == "default");
    let stays = |(key, value): &(&String, &Json)| {
        let is_elsewhere = ELSEWHERE.contains(&key.as_str()) || (is_unstretched && *key == "factor");
        !(value.is_null() || is_elsewhere)
    };
    block.iter().filter(stays).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn are_same(a: &Stretch, b: &Stretch) -> bool {
    let has = |(key, value): (&String, &Json)| b.1.get(key).is_some_and(|other| same(value, other));
    a.0 == b.0 && a.1.len() == b.1.len() && a.1.iter().all(has)
}

fn contradiction(key: &str, config: &Config, other: &str) -> ConfigError {
    let value = |key: &str| config.get(key).cloned().unwrap_or_default();
    ConfigError::Contradiction {
        key: key.to_owned(),
        value: value(key),
        other: other.to_owned(),
        other_value: value(other),
    }
}
