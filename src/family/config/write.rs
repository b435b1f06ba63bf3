//! Fields of args to a config.

use serde_json::{Value as Json, json};

use super::rule::{ArgRule, ConfigFile, ExpertLayers, KeyForm, KeyRule};
use super::value::{quotient, wrong_arg};
use super::{ARCHITECTURES, Config, ConfigError, MODEL_TYPE, is_truthy, rope, same, to_json};
use crate::value::Value;

/// The config that says what `args` say, but for the vocabulary and the kind of weights.
pub(super) fn config(file: &ConfigFile, title: &str, args: &Value) -> Result<Config, ConfigError> {
    for (field, rule) in &file.args {
        check(field, rule, title, args)?;
    }
    let mut config = Config::new();
    kind(file, &mut config);
    // What args do not say may follow from what they do.
    let (mut said, mut unsaid) = (Vec::new(), Vec::new());
    for (key, rule) in file.keys.iter().filter(|(_, rule)| !rule.is_only_read()) {
        match value(key, rule, args)? {
            Some(value) => said.push((key, rule, value)),
            None => unsaid.push((key, rule)),
        }
    }
    for (key, rule, value) in said {
        put(&mut config, key, rule, value);
    }
    for (key, rule) in unsaid {
        let worked_out =
            rule.arg_absent.as_ref().or(rule.absent.as_ref()).and_then(|text| quotient(text, &config));
        match worked_out {
            Some(value) => put(&mut config, key, rule, value),
            None if rule.optional => {}
            None => {
                let fields = rule.arg.iter().chain(&rule.or_args).cloned().collect();
                return Err(ConfigError::MissingArg { fields, key: key.clone() });
            }
        }
    }
    if let Some(rule) = &file.rope {
        rope::config(rule, args, &mut config)?;
    }
    if let Some(layers) = &file.expert_layers {
        expert_layers(layers, args, &mut config)?;
    }
    Ok(config)
}

/// What the model is.
pub(super) fn kind(file: &ConfigFile, config: &mut Config) {
    config.insert(MODEL_TYPE.into(), file.model_type.as_str().into());
    config.insert(ARCHITECTURES.into(), json!(file.architectures));
}

pub(super) fn put(config: &mut Config, key: &str, rule: &KeyRule, value: Json) {
    for spelling in std::iter::once(key).chain(rule.or_keys.iter().map(String::as_str)) {
        config.insert(spelling.to_owned(), value.clone());
    }
}

/// A field that must have one value has it.
fn check(field: &str, rule: &ArgRule, title: &str, args: &Value) -> Result<(), ConfigError> {
    let found = args.attribute(field).map_or(Json::Null, to_json);
    if !rule.one_of.is_empty() {
        let is_one = |found: &Json| {
            rule.one_of.iter().any(|one| if found.is_null() { is_none(one) } else { same(found, one) })
        };
        let each = found.as_array().map_or_else(|| vec![&found], |list| list.iter().collect());
        let fits = each.into_iter().all(|found| (found.is_null() && rule.unstated) || is_one(found));
        let needed = Json::from(rule.one_of.clone());
        return if fits { Ok(()) } else { Err(unlike(title, field, found, needed)) };
    }
    let Some(needed) = rule.needed() else { return Ok(()) };
    let fits = match &found {
        Json::Null => rule.unstated || !is_truthy(&needed),
        // None, False and 0 all switch something off, and so does a window without an end.
        found if !is_truthy(&needed) => !is_truthy(found) || is_endless(found),
        // True may be said as 1, and every layer as a list of them.
        found if needed.is_boolean() => is_truthy(found) && !found.is_string(),
        Json::Array(list) if !list.is_empty() => list.iter().all(|item| same(item, &needed)),
        found => same(found, &needed),
    };
    if fits { Ok(()) } else { Err(unlike(title, field, found, needed)) }
}

fn unlike(title: &str, field: &str, value: Json, needed: Json) -> ConfigError {
    ConfigError::Unlike { title: title.to_owned(), field: field.to_owned(), value, needed }
}

fn is_none(json: &Json) -> bool {
    json.as_str() == Some("none")
}

/// A window of which neither side ends.
fn is_endless(json: &Json) -> bool {
    let sides = json.as_array().map(|sides| sides.iter().map(Json::as_i64).collect::<Vec<_>>());
    matches!(sides.as_deref(), Some([Some(back), Some(ahead)]) if *back < 0 && *ahead <= 0)
}

/// What the key is by args; `None` where they do not say it.
fn value(key: &str, rule: &KeyRule, args: &Value) -> Result<Option<Json>, ConfigError> {
    if let Some(is) = rule.is.as_ref().or(rule.write.as_ref()) {
        return Ok(Some(is.clone()));
    }
    let counts = rule.arg_if.as_ref().is_none_or(|field| args.attribute(field).is_some_and(Value::is_truthy));
    let fields = rule.arg.iter().filter(|_| counts).chain(&rule.or_args);
    let mut stated = fields.filter_map(|field| Some((field, args.attribute(field)?)));
    let stated = stated.find(|(_, value)| !matches!(value, Value::None));
    match (rule.form, stated) {
        (KeyForm::Not, stated) => Ok(Some((!stated.is_some_and(|(_, value)| value.is_truthy())).into())),
        (KeyForm::Window, None) => Ok(Some(Json::Null)),
        (KeyForm::Window, Some((field, value))) => window(key, field, value).map(Some),
        (KeyForm::Same, None) => Ok(None),
        // Lists of coefficients and the like: nothing that a config could say.
        (KeyForm::Same, Some((_, value))) if rule.optional && value.as_number().is_none() => Ok(None),
        (KeyForm::Same, Some((field, value))) => {
            let json = to_json(value);
            let of_kind = rule.kind.check(&json);
            of_kind.map(Some).ok_or_else(|| wrong_arg(field, json, rule.kind.name()))
        }
    }
}

/// `(w - 1, 0)` as w.
fn window(key: &str, field: &str, value: &Value) -> Result<Json, ConfigError> {
    // A side that is below 0 has no end.
    if value.elements().and_then(|sides| sides.first()).and_then(Value::as_int).is_some_and(|back| back < 0) {
        return Ok(Json::Null);
    }
    let sides = value.elements().map(|sides| sides.iter().map(Value::as_int).collect::<Vec<_>>());
    match sides.as_deref() {
        Some([Some(back), Some(0)]) if *back >= 0 => Ok((back + 1).into()),
        _ => Err(ConfigError::Refused {
            key: format!("args.{field}"),
            value: to_json(value),
            reason: format!("{key} of config.json is a window that looks back only"),
        }),
    }
}

/// Flags of layers as a step, or as a list of the layers without experts.
fn expert_layers(rule: &ExpertLayers, args: &Value, config: &mut Config) -> Result<(), ConfigError> {
    let layers = config.get("num_hidden_layers").and_then(Json::as_u64).unwrap_or(0);
    let dense: Option<Vec<u64>> = match args.attribute(&rule.arg) {
        None | Some(Value::None | Value::Int(1)) => Some(Vec::new()),
        Some(Value::Int(step)) => u64::try_from(*step)
            .ok()
            .filter(|step| *step > 0)
            .map(|step| (0..layers).filter(|layer| layer % step != 0).collect()),
        Some(Value::List(flags) | Value::Tuple(flags)) if flags.len() as u64 == layers => Some(
            (0..layers)
                .zip(flags.iter())
                .filter(|(_, flag)| !flag.is_truthy())
                .map(|(layer, _)| layer)
                .collect(),
        ),
        Some(_) => None,
    };
    let Some(dense) = dense else {
        return Err(ConfigError::MissingArg { fields: vec![rule.arg.clone()], key: rule.dense.clone() });
    };
    config.insert(rule.step.clone(), 1.into());
    config.insert(rule.dense.clone(), json!(dense));
    Ok(())
}
