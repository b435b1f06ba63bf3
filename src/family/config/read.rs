//! A config to fields of args.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::rule::{ConfigFile, ExpertLayers, KeyForm, KeyRule};
use super::value::quotient;
use super::{Config, ConfigError, FromConfig, from_json, is_truthy, neutral, rope, same, spelling};
use crate::value::Value;

/// No model has more layers; a list with one entry for each must not be made of a hostile number.
const MOST_LAYERS: i64 = 1 << 20;

/// The fields of args that say what `config` says.
pub(super) fn args(file: &ConfigFile, config: &Config) -> Result<FromConfig, ConfigError> {
    for (key, reason) in &file.refuse {
        if let Some(value) = config.get(key).filter(|value| is_truthy(value)) {
            let (key, reason) = (key.clone(), reason.clone());
            return Err(ConfigError::Refused { key, value: value.clone(), reason });
        }
    }
    let FromConfig { mut args, mut inexpressible } = FromConfig::default();
    for (key, rule) in file.keys.iter().filter(|(_, rule)| !rule.is_carried() && rule.write.is_none()) {
        let Some(value) = expressible(value(key, rule, config), &mut inexpressible)?.flatten() else {
            continue;
        };
        let fields = rule.arg.iter().chain(&rule.also);
        args.extend(fields.map(|field| (field.clone(), value.clone())));
    }
    if let Some(rule) = &file.rope {
        args.extend(expressible(rope::args(rule, config), &mut inexpressible)?.unwrap_or_default());
    }
    if let Some(layers) = &file.expert_layers {
        args.push((layers.arg.clone(), expert_layers(layers, config)?));
    }
    inexpressible.extend(neutral::always(file, config)?);
    if !file.has_all_keys() {
        inexpressible.extend(neutral::unknown(file, config)?);
    }
    spelling::check_dtype(config)?;
    for (field, rule) in file.args.iter().filter(|(_, rule)| !rule.unwritten) {
        let value = rule.write.clone().or_else(|| rule.needed());
        args.extend(value.map(|value| (field.clone(), from_json(&value))));
    }
    Ok(FromConfig { args, inexpressible })
}

/// Puts what is right and cannot be said aside; what is wrong stays an error.
fn expressible<T>(
    result: Result<T, ConfigError>,
    inexpressible: &mut Vec<ConfigError>,
) -> Result<Option<T>, ConfigError> {
    match result {
        Err(error @ ConfigError::Refused { .. }) => {
            inexpressible.push(error);
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// What the field of args for this key is; `None` where there is nothing to say.
fn value(key: &str, rule: &KeyRule, config: &Config) -> Result<Option<Value>, ConfigError> {
    let stated = stated(key, rule, config)?;
    if rule.unset || rule.each.is_some() {
        let needed = rule.each.clone().unwrap_or(Json::Bool(false));
        return neutral::check(key, stated, &needed).map(|()| None);
    }
    if let Some(needed) = &rule.is {
        return match stated {
            Some(value) if !same(value, needed) && !value.is_null() => Err(ConfigError::Refused {
                key: key.to_owned(),
                value: value.clone(),
                reason: format!("only {needed} can be shown in another format"),
            }),
            _ => Ok(None),
        };
    }
    if let (Some(Json::Null), Some(other)) = (stated, &rule.null) {
        let value = quotient(other, config).ok_or_else(|| ConfigError::Missing { key: key.to_owned() })?;
        return Ok(Some(from_json(&value)));
    }
    // A window that is null is none; anything else that is null is not said.
    let stated = stated.filter(|value| rule.form == KeyForm::Window || !value.is_null()).cloned();
    let unsaid = || rule.default.clone().or_else(|| quotient(rule.absent.as_deref()?, config));
    let value = match stated.or_else(unsaid) {
        Some(value) => value,
        None if rule.form == KeyForm::Window => Json::Null,
        None if rule.optional => return Ok(None),
        None => return Err(ConfigError::Missing { key: key.to_owned() }),
    };
    let wrong = |expected| ConfigError::Kind { key: key.to_owned(), value: value.clone(), expected };
    match rule.form {
        KeyForm::Same => {
            let value = rule.kind.check(&value).ok_or_else(|| wrong(rule.kind.name()))?;
            Ok(Some(from_json(&value)))
        }
        KeyForm::Not => {
            value.as_bool().map(|flag| Some(Value::Bool(!flag))).ok_or_else(|| wrong("true or false"))
        }
        KeyForm::Window if value.is_null() => Ok(Some(Value::None)),
        KeyForm::Window => {
            let window =
                value.as_i64().filter(|window| *window > 0).ok_or_else(|| wrong("a number of tokens"))?;
            Ok(Some(Value::Tuple([Value::Int(window - 1), Value::Int(0)].into())))
        }
    }
}

/// What the config says under any spelling of the key.
pub(super) fn stated<'c>(
    key: &str,
    rule: &KeyRule,
    config: &'c Config,
) -> Result<Option<&'c Json>, ConfigError> {
    let mut found: Option<(&str, &Json)> = None;
    for spelling in std::iter::once(key).chain(rule.or_keys.iter().map(String::as_str)) {
        let Some(value) = config.get(spelling) else { continue };
        match found {
            Some((other, other_value)) if !same(value, other_value) => {
                return Err(ConfigError::Contradiction {
                    key: spelling.to_owned(),
                    value: value.clone(),
                    other: other.to_owned(),
                    other_value: other_value.clone(),
                });
            }
            Some(_) => {}
            None => found = Some((spelling, value)),
        }
    }
    Ok(found.map(|(_, value)| value))
}

/// 1 where all layers have experts, else a list of flags.
fn expert_layers(rule: &ExpertLayers, config: &Config) -> Result<Value, ConfigError> {
    let wrong = |key: &str, value: &Json, expected| ConfigError::Kind {
        key: key.to_owned(),
        value: value.clone(),
        expected,
    };
    let layers =
        config.get("num_hidden_layers").and_then(Json::as_i64).filter(|n| (1..MOST_LAYERS).contains(n));
    let layers = layers.ok_or_else(|| ConfigError::Missing { key: "num_hidden_layers".into() })?;
    let step = match config.get(&rule.step) {
        None | Some(Json::Null) => 1,
        Some(value) => value
            .as_i64()
            .filter(|step| *step > 0)
            .ok_or_else(|| wrong(&rule.step, value, "a number above 0"))?,
    };
    let dense = match config.get(&rule.dense) {
        None | Some(Json::Null) => HashSet::new(),
        Some(value) => {
            let numbers = value
                .as_array()
                .and_then(|list| list.iter().map(Json::as_i64).collect::<Option<HashSet<_>>>());
            numbers.ok_or_else(|| wrong(&rule.dense, value, "a list of layers"))?
        }
    };
    let flags: Vec<bool> =
        (0..layers).map(|layer| (layer + 1) % step == 0 && !dense.contains(&layer)).collect();
    Ok(if flags.iter().all(|flag| *flag) {
        Value::Int(1)
    } else {
        Value::List(flags.into_iter().map(|flag| Value::Int(flag.into())).collect())
    })
}
