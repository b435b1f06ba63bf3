//! `config.json` of a Hugging Face model and the `args` of Megatron that say the same, by the rules of a family file.
//!
//! Every field that changes what a model computes is carried or refused: one that is silently wrong loads without a word. Values that
//! neither side states are what transformers and Megatron take then.
//!
//! Not here: files, and which family a config is of (`source`).

mod error;
mod misfits;
mod neutral;
mod read;
mod rope;
mod rule;
mod spelling;
mod value;
mod write;

use serde_json::{Map, Value as Json};

pub use error::{ConfigError, explain};
pub(super) use rule::ConfigFile;

use crate::tensor::Dtype;
use crate::value::{Global, Value};

/// A `config.json`.
pub type Config = Map<String, Json>;

/// The key that says what a config is of.
pub const MODEL_TYPE: &str = "model_type";

/// The key that says which classes loaders make of it.
pub const ARCHITECTURES: &str = "architectures";

/// The key that names code of the model's own.
const AUTO_MAP: &str = "auto_map";

/// The key that says how many rows the vocabulary has.
pub const VOCAB_SIZE: &str = "vocab_size";

/// The key that says whether the head is the embedding.
pub const TIED: &str = "tie_word_embeddings";

/// What a config says, in fields of `args`.
#[derive(Debug, Clone, Default)]
pub struct FromConfig {
    /// The fields.
    pub args: Vec<(String, Value)>,
    /// What it also says, and no field of args can: such a model cannot be shown to Megatron.
    pub inexpressible: Vec<ConfigError>,
}

impl super::Family {
    /// What `model_type` its configs have; `None` for a family without configs.
    #[must_use]
    pub fn model_type(&self) -> Option<&str> {
        self.file.config.as_ref().map(|file| file.model_type.as_str())
    }

    /// The key of a config that says what this field of `args` says.
    #[must_use]
    pub fn key_of(&self, field: &str) -> Option<&str> {
        let file = self.file.config.as_ref()?;
        let find = |says: &dyn Fn(&rule::KeyRule) -> bool| {
            file.keys.iter().find(|(_, rule)| says(rule)).map(|(key, _)| key.as_str())
        };
        let is = |arg: &String| arg == field;
        let by_value = find(&|rule| rule.arg.iter().any(is));
        let by_another = || find(&|rule| rule.or_args.iter().chain(&rule.also).chain(&rule.arg_if).any(is));
        by_value.or_else(by_another).or_else(|| rope::key_of(field))
    }

    /// The key of a config by which a model has the tensor of this name or not; `None` of one that every model has.
    #[must_use]
    pub fn decided_by(&self, tensor: &str) -> Option<&str> {
        let files = self.file.tensor.iter().filter(|file| file.name == tensor);
        files.flat_map(|file| file.when.iter().chain(&file.unless)).find_map(|field| self.key_of(field))
    }

    /// Name of the family of Megatron files that hold the same models.
    #[must_use]
    pub fn megatron(&self) -> Option<&str> {
        self.file.config.as_ref().map(|file| file.megatron.as_str())
    }

    /// How well a family suits a model that says so much of itself: how many of the fields that tell it from others are set, `None` where
    /// one is not.
    #[must_use]
    pub fn suits(&self, args: &Value) -> Option<usize> {
        let infer = self.file.config.as_ref()?.infer.clone().unwrap_or_default();
        let holds = |field: &String| args.attribute(field).is_some_and(Value::is_truthy);
        infer.when.iter().all(holds).then_some(infer.when.len())
    }

    /// The fields of `args` that say what `config` says.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that is missing or wrong.
    pub fn args_of(&self, config: &Config) -> Result<FromConfig, ConfigError> {
        self.file.config.as_ref().map_or_else(|| Ok(FromConfig::default()), |file| read::args(file, config))
    }

    /// Writes what `config` says in one spelling in all of them: versions of transformers read one each, and take their defaults without a
    /// word where it is not there. A config of another `model_type`, which was read as one of this family, becomes one.
    ///
    /// # Errors
    /// [`ConfigError`] where two spellings say different things, or one says what no other can.
    pub fn spell_out(&self, config: &mut Config) -> Result<(), ConfigError> {
        let Some(file) = &self.file.config else { return Ok(()) };
        if config.get(MODEL_TYPE).and_then(Json::as_str) != Some(&file.model_type) {
            write::kind(file, config);
        }
        if file.rope.is_some() {
            spelling::Rope::of(config)?.write(config);
        }
        spelling::check_dtype(config)?;
        spelling::write_dtype(config);
        for (key, rule) in file.keys.iter().filter(|(_, rule)| !rule.or_keys.is_empty()) {
            let Some(value) = read::stated(key, rule, config)?.cloned() else { continue };
            write::put(config, key, rule, value);
        }
        Ok(())
    }

    /// Puts what nothing here knows within a key of `base` into that key of `config`, which was written of args.
    ///
    /// # Errors
    /// [`ConfigError`]: never for a config that was written of args.
    pub fn pass_on(&self, base: &Config, config: &mut Config) -> Result<(), ConfigError> {
        let has_rope = self.file.config.as_ref().is_some_and(|file| file.rope.is_some());
        if has_rope { spelling::pass_on(base, config) } else { Ok(()) }
    }

    /// The keys of `config` that say something and that nothing here knows.
    ///
    /// # Errors
    /// [`ConfigError`]: never for the files of this repository.
    pub fn unknown_keys(&self, config: &Config) -> Result<Vec<String>, ConfigError> {
        let Some(file) = &self.file.config else { return Ok(Vec::new()) };
        let is_own = config.get(MODEL_TYPE).and_then(Json::as_str) == Some(&file.model_type);
        let unknown = if is_own { neutral::unknown(file, config)? } else { neutral::foreign(file, config)? };
        let keys = unknown.into_iter().filter_map(|error| match error {
            ConfigError::Unknown { key, .. } => Some(key),
            _ => None,
        });
        Ok(keys.collect())
    }

    /// What a config of this architecture says of the code that runs it and this family does not look at, in words.
    #[must_use]
    pub fn foreign_code(&self, config: &Config) -> Vec<String> {
        let Some(file) = &self.file.config else { return Vec::new() };
        let mut found = Vec::new();
        // A family whose architecture is code of its own describes just that.
        if file.has_all_keys() && config.get(AUTO_MAP).is_some_and(is_truthy) {
            found.push(format!(
                "it names code of its own ({AUTO_MAP}), which may compute something else than {} does",
                self.title
            ));
        }
        let is_own = config.get(MODEL_TYPE).and_then(Json::as_str) == Some(&file.model_type);
        let classes = config.get(ARCHITECTURES).filter(|classes| is_own && is_truthy(classes));
        if let Some(classes) = classes.filter(|classes| **classes != Json::from(file.architectures.clone())) {
            found.push(format!(
                "its {ARCHITECTURES} are {classes}, and it is read as its {MODEL_TYPE} says, {}",
                file.architectures.join(", ")
            ));
        }
        found
    }

    /// Why a config with another `model_type` cannot be read as one of this family; nothing where all that it says is understood.
    ///
    /// # Errors
    /// [`ConfigError`]: never for the files of this repository.
    pub fn misfits(&self, config: &Config) -> Result<Vec<ConfigError>, ConfigError> {
        self.file.config.as_ref().map_or_else(|| Ok(Vec::new()), |file| misfits::misfits(file, config))
    }

    /// Whether a key changes nothing that a model computes.
    #[must_use]
    pub fn is_loose(&self, key: &str) -> bool {
        let rule = self.file.config.as_ref().and_then(|file| file.keys.get(key));
        rule.is_some_and(|rule| rule.loose || rule.optional || rule.write.is_some())
    }

    /// Whether a field of args changes nothing that a model computes.
    #[must_use]
    pub fn is_loose_arg(&self, field: &str) -> bool {
        let rules = self.file.config.iter().flat_map(|file| file.keys.values());
        let says = |rule: &&rule::KeyRule| rule.arg.iter().chain(&rule.also).any(|arg| arg == field);
        rules.filter(|rule| rule.loose || rule.optional).any(|rule| says(&rule))
    }

    /// The config that says what `args` say, for a model with this many rows of vocabulary and weights of this kind.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field of args that the architecture cannot express.
    pub fn config_of(&self, args: &Value, rows: u64, dtype: Dtype) -> Result<Config, ConfigError> {
        let Some(file) = &self.file.config else { return Ok(Config::new()) };
        let mut config = write::config(file, &self.title, args)?;
        config.insert(VOCAB_SIZE.into(), rows.into());
        // What version 4 of transformers reads, and what version 5 writes.
        for key in ["dtype", "torch_dtype"] {
            config.insert(key.into(), dtype.name().into());
        }
        Ok(config)
    }
}

/// The fields of `args` that say what kind of numbers weights are.
#[must_use]
pub fn dtype_args(dtype: Dtype) -> Vec<(String, Value)> {
    let name = Global { module: "torch".into(), name: dtype.name().into() };
    vec![
        ("params_dtype".into(), Value::Global(std::sync::Arc::new(name))),
        ("bf16".into(), Value::Bool(dtype == Dtype::Bfloat16)),
        ("fp16".into(), Value::Bool(dtype == Dtype::Float16)),
    ]
}

/// Whether two values of `args` are the same, `1` and `1.0` included.
#[must_use]
pub fn same_value(a: &Value, b: &Value) -> bool {
    same(&to_json(a), &to_json(b))
}

/// A value of `args` for people.
#[must_use]
pub fn text(value: &Value) -> String {
    to_json(value).to_string()
}

/// A value of `args` for people, and for comparison with what a family file says.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Str(text) => (**text).into(),
        Value::List(items) | Value::Tuple(items) => items.iter().map(to_json).collect(),
        Value::None => Json::Null,
        other => format!("a {}", other.kind()).into(),
    }
}

/// The value of `args` that is this of a config.
pub(super) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        Json::String(text) => Value::str(text),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(items) => {
            Value::Dict(items.iter().map(|(key, item)| (Value::str(key), from_json(item))).collect())
        }
    }
}

/// Whether two values are the same, `1` and `1.0` included.
pub(super) fn same(a: &Json, b: &Json) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// As Python has it: nothing, false, zero and empty are not.
fn is_truthy(json: &Json) -> bool {
    match json {
        Json::Null => false,
        Json::Bool(flag) => *flag,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(items) => !items.is_empty(),
    }
}

#[cfg(test)]
mod tests;
