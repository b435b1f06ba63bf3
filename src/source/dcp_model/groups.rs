//! The settings of an optimizer's parameter groups, put together again: `param_groups.0.lr` is the `lr` of the first one.
//!
//! Where the optimizer was flattened there are no groups any more, and each tensor has settings of its own: then they are a dict by name.

use std::collections::BTreeMap;

use crate::format::megatron::keys::PARAMS;
use crate::value::Value;

/// The groups of these settings, each with what it is called below `param_groups`; none where there are none.
///
/// # Errors
/// The first setting that has no place: one within another, one of a tensor among those of numbered groups, or a group behind one that is not
/// there.
pub(super) fn of(settings: Vec<(&str, Value)>) -> Result<Option<Value>, String> {
    let mut numbered: BTreeMap<u32, Vec<(Value, Value)>> = BTreeMap::new();
    let mut named: BTreeMap<&str, Vec<(Value, Value)>> = BTreeMap::new();
    for (key, value) in settings {
        if key.is_empty() {
            // All of them in one object, as versions before 2.4 saved them.
            return Ok(Some(value));
        }
        let first = key.split_once('.').and_then(|(number, name)| Some((number.parse::<u32>().ok()?, name)));
        match (first, key.rsplit_once('.')) {
            // Names of settings have no dots, names of tensors do.
            (Some((number, name)), _) if !name.contains('.') => {
                numbered.entry(number).or_default().push((Value::str(name), value));
            }
            (None, Some((tensor, name))) => {
                named.entry(tensor).or_default().push((Value::str(name), value));
            }
            _ => return Err(key.to_owned()),
        }
    }
    if let Some((_, number)) = (0..).zip(numbered.keys()).find(|(at, number)| at != *number) {
        return Err(number.to_string());
    }
    let dict = |items: Vec<(Value, Value)>| Value::Dict(items.into());
    match (numbered.is_empty(), named.keys().next()) {
        (false, Some(tensor)) => Err((*tensor).to_owned()),
        (false, None) => Ok(Some(Value::List(numbered.into_values().map(dict).collect()))),
        (true, None) => Ok(None),
        (true, Some(_)) => {
            let named = named.into_iter().map(|(tensor, items)| (Value::str(tensor), dict(items)));
            Ok(Some(Value::Dict(named.collect())))
        }
    }
}

/// The groups with the model's own names of tensors, which `own` gives; `None` where one of them is no tensor of the model.
pub(super) fn renamed(groups: &Value, own: impl Fn(&str) -> Option<String>) -> Option<Value> {
    let name = |value: &Value| match value.as_str() {
        Some(name) => own(name).map(|name| Value::str(&name)),
        // Numbers are no names.
        None => Some(value.clone()),
    };
    if let Some(groups) = groups.elements() {
        let each = groups.iter().map(|group| {
            let fields = group.items()?.iter().map(|(key, value)| match value.elements() {
                Some(all) if key.as_str() == Some(PARAMS) => {
                    Some((key.clone(), Value::List(all.iter().map(name).collect::<Option<Vec<_>>>()?.into())))
                }
                _ => Some((key.clone(), value.clone())),
            });
            Some(Value::Dict(fields.collect::<Option<Vec<_>>>()?.into()))
        });
        return Some(Value::List(each.collect::<Option<Vec<_>>>()?.into()));
    }
    let each = groups.items()?.iter().map(|(key, value)| Some((name(key)?, value.clone())));
    Some(Value::Dict(each.collect::<Option<Vec<_>>>()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_in_their_order() {
        let groups = of(vec![("1.lr", Value::Float(2.0)), ("0.lr", Value::Float(1.0)), ("0.eps", Value::Float(0.5))]);
        let groups = groups.unwrap().unwrap();
        let all = groups.elements().unwrap();
        let number = |group: usize, name: &str| all.get(group)?.get(name)?.as_number();
        assert_eq!((number(0, "lr"), number(0, "eps"), number(1, "lr")), (Some(1.0), Some(0.5), Some(2.0)));
    }

    #[test]
    fn flattened_settings_are_by_tensor() {
        let groups = of(vec![("layers.0.norm.weight.lr", Value::Float(1.0)), ("norm.weight.lr", Value::Float(2.0))]);
        let groups = groups.unwrap().unwrap();
        let number = |tensor: &str| groups.get(tensor)?.get("lr")?.as_number();
        assert_eq!((number("layers.0.norm.weight"), number("norm.weight")), (Some(1.0), Some(2.0)));
        assert!(of(Vec::new()).unwrap().is_none());
    }

    #[test]
    fn settings_without_a_place_are_named() {
        let value = || Value::Float(1.0);
        for (settings, odd) in [
            (vec![("0.lr", value()), ("0.nested.x", value())], "0.nested.x"),
            (vec![("0.lr", value()), ("2.lr", value())], "2"),
            (vec![("0.lr", value()), ("norm.weight.lr", value())], "norm.weight"),
            (vec![("lr", value())], "lr"),
        ] {
            assert_eq!(of(settings).unwrap_err(), odd);
        }
    }
}
