//! Rotary embeddings: how fast angles turn, and how they are stretched for longer texts.
//!
//! transformers 4 reads `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters`; each ignores the other's without a word, so both
//! are written. Megatron's llama-3 scaling has all numbers but the factor fixed in its code.

use serde_json::{Value as Json, json};

use super::rule::RopeRule;
use super::value::wrong_arg;
use super::{Config, ConfigError, to_json};
use crate::value::Value;

/// What Megatron's code has, and every Llama 3.x.
const LLAMA3: [(&str, f64); 3] =
    [("low_freq_factor", 1.0), ("high_freq_factor", 4.0), ("original_max_position_embeddings", 8192.0)];

/// The keys in which a config may describe rotary embeddings.
const BLOCKS: [&str; 2] = ["rope_parameters", "rope_scaling"];

const THETA: &str = "rope_theta";
const PARTIAL: &str = "partial_rotary_factor";

/// How angles are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scaling {
    None,
    /// All positions are divided by this.
    Linear(f64),
    /// Slow angles are divided by this.
    Llama3(f64),
}

/// The fields of args that say what a config says.
pub(super) fn args(rule: &RopeRule, config: &Config) -> Result<Vec<(String, Value)>, ConfigError> {
    if let Some(value) = config.get(PARTIAL).filter(|value| !value.is_null() && value.as_f64() != Some(1.0)) {
        let reason = "this architecture turns all of a head".to_owned();
        return Err(ConfigError::Refused { key: PARTIAL.into(), value: value.clone(), reason });
    }
    let (theta, scaling) = (theta(rule, config)?, scaling(config)?);
    if rule.fixed {
        return if theta == rule.theta && scaling == Scaling::None {
            Ok(Vec::new())
        } else {
            Err(ConfigError::Refused {
                key: THETA.into(),
                value: theta.into(),
                reason: format!("the training code has {} fixed, without scaling", rule.theta),
            })
        };
    }
    // Whole numbers are what Megatron's flag takes.
    let base = if theta.fract() == 0.0 && theta.abs() < 9e15 {
        Value::Int(theta as i64)
    } else {
        Value::Float(theta)
    };
    let (llama3, linear) = match scaling {
        Scaling::None => (None, Value::None),
        // Megatron's flag takes whole numbers.
        Scaling::Linear(factor) => (None, Value::Int(factor as i64)),
        Scaling::Llama3(factor) => (Some(factor), Value::None),
    };
    Ok(vec![
        ("rotary_base".into(), base),
        ("use_rope_scaling".into(), Value::Bool(llama3.is_some())),
        // Megatron's own value where it is not used.
        ("rope_scaling_factor".into(), Value::Float(llama3.unwrap_or(8.0))),
        ("rotary_seq_len_interpolation_factor".into(), linear),
    ])
}

/// Both spellings of what args say.
pub(super) fn config(rule: &RopeRule, args: &Value, config: &mut Config) -> Result<(), ConfigError> {
    let number = |field: &str| match args.attribute(field) {
        None | Some(Value::None) => Ok(None),
        Some(value) => match value.as_number().filter(|number| *number > 0.0 && number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong_arg(field, to_json(value), "a number above 0")),
        },
    };
    let theta = if rule.fixed { Some(rule.theta) } else { number("rotary_base")? };
    // Versions before the flag had this fixed.
    let theta = theta.unwrap_or(10000.0);
    let llama3 = args.attribute("use_rope_scaling").is_some_and(Value::is_truthy);
    let linear = number("rotary_seq_len_interpolation_factor")?.filter(|factor| *factor != 1.0);
    let scaling = match (llama3, linear) {
        (true, None) => Scaling::Llama3(number("rope_scaling_factor")?.unwrap_or(8.0)),
        (false, Some(factor)) => Scaling::Linear(factor),
        (false, None) => Scaling::None,
        (true, Some(factor)) => {
            return Err(ConfigError::Refused {
                key: "args.rotary_seq_len_interpolation_factor".into(),
                value: factor.into(),
                reason: "a config cannot say this together with use_rope_scaling".into(),
            });
        }
    };
    let old = match scaling {
        Scaling::None => Json::Null,
        Scaling::Linear(factor) => json!({ "rope_type": "linear", "type": "linear", "factor": factor }),
        Scaling::Llama3(factor) => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }),
    };
    let mut new = old.as_object().cloned().unwrap_or_default();
    new.entry("rope_type").or_insert_with(|| "default".into());
    new.remove("type");
    new.insert(THETA.into(), theta.into());
    config.insert(THETA.into(), theta.into());
    config.insert("rope_scaling".into(), old);
    config.insert("rope_parameters".into(), new.into());
    Ok(())
}

/// The base of the angles, by whichever spelling.
fn theta(rule: &RopeRule, config: &Config) -> Result<f64, ConfigError> {
    let mut found: Option<(String, f64)> = None;
    let places = BLOCKS
        .iter()
        .map(|block| (format!("{block}.{THETA}"), config.get(*block).and_then(|block| block.get(THETA))));
    for (key, value) in std::iter::once((THETA.to_owned(), config.get(THETA))).chain(places) {
        let Some(value) = value.filter(|value| !value.is_null()) else { continue };
        let number = value.as_f64().filter(|theta| *theta > 0.0 && *theta < 1e15);
        let theta = number.ok_or_else(|| ConfigError::Kind {
            key: key.clone(),
            value: value.clone(),
            expected: "a number above 0",
        })?;
        match &found {
            Some((other, known)) if *known != theta => {
                return Err(ConfigError::Contradiction {
                    key,
                    value: value.clone(),
                    other: other.clone(),
                    other_value: (*known).into(),
                });
            }
            _ => found = Some((key, theta)),
        }
    }
    Ok(found.map_or(rule.theta, |(_, theta)| theta))
}

/// The scaling, by whichever spelling; two must agree.
fn scaling(config: &Config) -> Result<Scaling, ConfigError> {
    let mut found: Option<(&str, Scaling)> = None;
    for block in BLOCKS {
        let Some(value) = config.get(block).filter(|value| !value.is_null()) else { continue };
        let scaling = scaling_in(block, value)?;
        match found {
            Some((other, known)) if known != scaling => {
                return Err(ConfigError::Contradiction {
                    key: block.to_owned(),
                    value: value.clone(),
                    other: other.to_owned(),
                    other_value: config.get(other).cloned().unwrap_or_default(),
                });
            }
            _ => found = Some((block, scaling)),
        }
    }
    Ok(found.map_or(Scaling::None, |(_, scaling)| scaling))
}

fn scaling_in(key: &str, block: &Json) -> Result<Scaling, ConfigError> {
    let refused = |reason: &str| ConfigError::Refused {
        key: key.to_owned(),
        value: block.clone(),
        reason: reason.to_owned(),
    };
    let Some(block_of) = block.as_object() else {
        return Err(ConfigError::Kind { key: key.to_owned(), value: block.clone(), expected: "an object" });
    };
    if block_of.values().any(Json::is_object) {
        return Err(refused(
            "rotary embeddings that differ between layers cannot be shown in another format",
        ));
    }
    let number = |name: &str| block_of.get(name).and_then(Json::as_f64);
    if number(PARTIAL).is_some_and(|factor| factor != 1.0) {
        return Err(refused("this architecture turns all of a head"));
    }
    let factor = || {
        let key = format!("{key}.factor");
        let value = block_of.get("factor").ok_or_else(|| ConfigError::Missing { key: key.clone() })?;
        let factor = value.as_f64().filter(|factor| *factor > 0.0 && factor.is_finite());
        factor.ok_or_else(|| ConfigError::Kind { key, value: value.clone(), expected: "a number above 0" })
    };
    let mut kinds = ["rope_type", "type"]
        .into_iter()
        .filter_map(|name| block_of.get(name))
        .filter(|kind| !kind.is_null());
    let kind = match kinds.next() {
        None => "default",
        Some(kind) => match kind.as_str() {
            Some(kind) => kind,
            None => {
                return Err(ConfigError::Kind {
                    key: format!("{key}.rope_type"),
                    value: kind.clone(),
                    expected: "a name",
                });
            }
        },
    };
    match kind {
        "default" => Ok(Scaling::None),
        // A config made of such args does not say it.
        "linear" if factor()? == 1.0 => Ok(Scaling::None),
        "linear" if factor()?.fract() == 0.0 && factor()? < 1e9 => Ok(Scaling::Linear(factor()?)),
        "linear" => Err(refused("Megatron's flag for the factor takes whole numbers")),
        "llama3" if LLAMA3.iter().all(|(name, value)| number(name) == Some(*value)) => {
            Ok(Scaling::Llama3(factor()?))
        }
        "llama3" => Err(refused(
            "Megatron has low_freq_factor 1, high_freq_factor 4 and original_max_position_embeddings 8192 fixed in its code",
        )),
        _ => Err(refused("only the rope types default, linear and llama3 can be shown in another format")),
    }
}
