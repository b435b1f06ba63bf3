//! A value tree as JSON: plain values as themselves, all others as an object with one key that begins with `$`.
//!
//! Tensors have no bytes here and become `None`.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::value::{Construct, Global, Object, Value};

/// The JSON of a value.
#[must_use]
pub fn encode(value: &Value) -> Json {
    match value {
        Value::None | Value::Tensor(_) => Json::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) if number.is_finite() => (*number).into(),
        Value::Float(number) => json!({ "$float": number.to_string() }),
        Value::Long(bytes) => json!({ "$long": hex(bytes) }),
        Value::Bytes(bytes) => json!({ "$bytes": hex(bytes) }),
        Value::Str(text) => (**text).into(),
        Value::List(items) => items.iter().map(encode).collect(),
        Value::Tuple(items) => json!({ "$tuple": list(items) }),
        Value::Set(items) => json!({ "$set": list(items) }),
        Value::FrozenSet(items) => json!({ "$frozenset": list(items) }),
        Value::Dict(items) => plain_dict(items).unwrap_or_else(|| json!({ "$dict": pairs(items) })),
        Value::Global(global) => json!({ "$global": [&*global.module, &*global.name] }),
        Value::Persistent(id) => json!({ "$persistent": encode(id) }),
        Value::Object(object) => json!({ "$object": {
            "construct": if object.construct == Construct::Call { "call" } else { "new" },
            "callable": encode(&object.callable),
            "args": encode(&object.args),
            "appended": list(&object.appended),
            "items": pairs(&object.items),
            "state": object.state.as_ref().map(|state| vec![encode(state)]),
        } }),
    }
}

/// The value of a JSON that [`encode`] made; `None` for any other. The parser has bounded its depth.
#[must_use]
pub fn decode(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::None,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::str(text),
        Json::Array(items) => Value::List(values(items)?.into()),
        Json::Object(map) => match single(map) {
            Some((kind, content)) => tagged(kind, content)?,
            None => {
                let items = map.iter().map(|(key, item)| Some((Value::str(key), decode(item)?)));
                Value::Dict(items.collect::<Option<Vec<_>>>()?.into())
            }
        },
    })
}

fn tagged(kind: &str, content: &Json) -> Option<Value> {
    let items = || Some(values(content.as_array()?)?.into());
    Some(match kind {
        "$float" => Value::Float(content.as_str()?.parse().ok()?),
        "$long" => Value::Long(unhex(content.as_str()?)?.into()),
        "$bytes" => Value::Bytes(unhex(content.as_str()?)?.into()),
        "$tuple" => Value::Tuple(items()?),
        "$set" => Value::Set(items()?),
        "$frozenset" => Value::FrozenSet(items()?),
        "$dict" => Value::Dict(unpairs(content)?.into()),
        "$global" => match content.as_array()?.as_slice() {
            [Json::String(module), Json::String(name)] => {
                Value::Global(Arc::new(Global { module: module.as_str().into(), name: name.as_str().into() }))
            }
            _ => return None,
        },
        "$persistent" => Value::Persistent(Arc::new(decode(content)?)),
        "$object" => {
            let get = |key: &str| content.get(key);
            Value::Object(Arc::new(Object {
                construct: if get("construct")?.as_str()? == "call" {
                    Construct::Call
                } else {
                    Construct::New
                },
                callable: decode(get("callable")?)?,
                args: decode(get("args")?)?,
                appended: values(get("appended")?.as_array()?)?,
                items: unpairs(get("items")?)?,
                state: match get("state")? {
                    Json::Null => None,
                    state => Some(decode(state.get(0)?)?),
                },
            }))
        }
        _ => return None,
    })
}

/// The one entry of a map whose key begins with `$`.
fn single(map: &Map<String, Json>) -> Option<(&str, &Json)> {
    let (key, value) = map.iter().next().filter(|_| map.len() == 1)?;
    key.starts_with('$').then_some((key.as_str(), value))
}

/// A dict whose keys are all text, none of it to be mistaken for a mark of ours or lost because it stands twice.
fn plain_dict(items: &[(Value, Value)]) -> Option<Json> {
    let mut map = Map::new();
    for (key, item) in items {
        let key = key.as_str().filter(|key| !key.starts_with('$'))?;
        if map.insert(key.to_owned(), encode(item)).is_some() {
            return None;
        }
    }
    Some(Json::Object(map))
}

fn list(items: &[Value]) -> Vec<Json> {
    items.iter().map(encode).collect()
}

fn values(items: &[Json]) -> Option<Vec<Value>> {
    items.iter().map(decode).collect()
}

fn pairs(items: &[(Value, Value)]) -> Vec<Json> {
    items.iter().map(|(key, item)| json!([encode(key), encode(item)])).collect()
}

fn unpairs(json: &Json) -> Option<Vec<(Value, Value)>> {
    json.as_array()?.iter().map(|pair| Some((decode(pair.get(0)?)?, decode(pair.get(1)?)?))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            "[a-z$\"]{0,4}".prop_map(|text| Value::str(&text)),
            prop::collection::vec(any::<u8>(), 0..5).prop_map(|bytes| Value::Bytes(bytes.into())),
            prop::collection::vec(any::<u8>(), 9..12).prop_map(|bytes| Value::Long(bytes.into())),
            ("[a-z.]{1,5}", "[A-Z]{1,3}").prop_map(|(module, name)| {
                Value::Global(Arc::new(Global { module: module.as_str().into(), name: name.as_str().into() }))
            }),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let items = prop::collection::vec(inner.clone(), 0..4);
            let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..3);
            prop_oneof![
                items.clone().prop_map(|items| Value::List(items.into())),
                items.clone().prop_map(|items| Value::Tuple(items.into())),
                items.clone().prop_map(|items| Value::Set(items.into())),
                pairs.clone().prop_map(|items| Value::Dict(items.into())),
                prop::collection::btree_map("[a-z$]{0,3}", inner.clone(), 0..4).prop_map(|map| {
                    Value::Dict(map.into_iter().map(|(key, value)| (Value::str(&key), value)).collect())
                }),
                (inner.clone(), items, pairs, prop::option::of(inner), any::<bool>()).prop_map(
                    |(callable, appended, items, state, call)| {
                        let construct = if call { Construct::Call } else { Construct::New };
                        let args = Value::Tuple(Arc::new([]));
                        Value::Object(Arc::new(Object { construct, callable, args, appended, items, state }))
                    }
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in any_value()) {
            let text = encode(&value).to_string();
            let back = decode(&serde_json::from_str(&text).unwrap()).unwrap();
            // Debug text tells apart all that matters, and takes a NaN for itself.
            prop_assert_eq!(format!("{:?}", back), format!("{:?}", value));
        }
    }

    #[test]
    fn what_nobody_wrote_is_no_value() {
        for text in [
            r#"{"$what":1}"#,
            r#"{"$bytes":"0g"}"#,
            r#"{"$object":{}}"#,
            r#"{"$global":["a"]}"#,
            r#"{"$tuple":1}"#,
        ] {
            assert!(decode(&serde_json::from_str(text).unwrap()).is_none(), "{text}");
        }
    }
}
