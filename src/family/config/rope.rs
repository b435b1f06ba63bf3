//! Rotary embeddings: how fast angles turn, and how they are stretched for longer texts, as args of Megatron say it.
//!
//! Megatron's llama-3 scaling has all numbers but the factor fixed in its code. Not here: how a config spells it (`spelling`).

use serde_json::{Map, Value as Json, json};

use super::rule::RopeRule;
use super::spelling::{NEW, OLD, PARTIAL, Rope, THETA};
use super::value::wrong_arg;
use super::{Config, ConfigError, to_json};
use crate::value::Value;

/// What Megatron's code has, and every Llama 3.x.
const LLAMA3: [(&str, f64); 3] =
    [("low_freq_factor", 1.0), ("high_freq_factor", 4.0), ("original_max_position_embeddings", 8192.0)];

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
    let rope = Rope::of(config)?;
    if let Some(value) = rope.partial.as_ref().filter(|value| value.as_f64() != Some(1.0)) {
        let reason = "this architecture turns all of a head".to_owned();
        return Err(ConfigError::Refused { key: PARTIAL.into(), value: value.clone(), reason });
    }
    let theta = rope.theta.as_ref().map_or(Ok(rule.theta), |value| {
        let number = value.as_f64().filter(|theta| *theta > 0.0 && *theta < 1e15);
        number.ok_or_else(|| ConfigError::Kind {
            key: THETA.into(),
            value: value.clone(),
            expected: "a number above 0",
        })
    })?;
    let scaling = scaling(&rope, config)?;
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
    let (kind, numbers) = match scaling {
        Scaling::None => ("default", Map::new()),
        Scaling::Linear(factor) => ("linear", Map::from_iter([("factor".to_owned(), factor.into())])),
        Scaling::Llama3(factor) => {
            let fixed = LLAMA3.map(|(name, value)| (name.to_owned(), number_of(value)));
            ("llama3", fixed.into_iter().chain([("factor".to_owned(), factor.into())]).collect())
        }
    };
    Rope { theta: Some(theta.into()), partial: None, kind: kind.to_owned(), numbers }.write(config);
    Ok(())
}

/// A length as the whole number that loaders want it to be.
fn number_of(value: f64) -> Json {
    if value > 1000.0 { json!(value as i64) } else { value.into() }
}

/// The key that says what a field of args does.
pub(super) fn key_of(field: &str) -> Option<&'static str> {
    match field {
        "rotary_base" => Some(THETA),
        "use_rope_scaling" | "rope_scaling_factor" | "rotary_seq_len_interpolation_factor" => Some(OLD),
        _ => None,
    }
}

/// How args would say that the angles are stretched.
fn scaling(rope: &Rope, config: &Config) -> Result<Scaling, ConfigError> {
    let key = if config.get(OLD).is_some_and(Json::is_object) { OLD } else { NEW };
    let refused = |reason: &str| ConfigError::Refused {
        key: key.to_owned(),
        value: config.get(key).cloned().unwrap_or_default(),
        reason: reason.to_owned(),
    };
    let number = |name: &str| rope.numbers.get(name).and_then(Json::as_f64);
    let factor = || {
        let key = format!("{key}.factor");
        let value = rope.numbers.get("factor").ok_or_else(|| ConfigError::Missing { key: key.clone() })?;
        let factor = value.as_f64().filter(|factor| *factor > 0.0 && factor.is_finite());
        factor.ok_or_else(|| ConfigError::Kind { key, value: value.clone(), expected: "a number above 0" })
    };
    match rope.kind.as_str() {
        "default" => Ok(Scaling::None),
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
