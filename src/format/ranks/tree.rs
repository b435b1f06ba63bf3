//! A value tree as JSON: plain values as themselves, all others as an object with one key that begins with `$`.
//!
//! Files in this format must stay inert, also when a pickle is made of them: of classes and functions only torch's dtypes, the namespace of
//! arguments and Megatron's enumerations are written and read. Anything else is written as `None`, and not read.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::tensor::Dtype;
use crate::value::{Construct, Global, Object, Value, with_surrogates};

/// The JSON of a value.
#[must_use]
pub fn encode(value: &Value) -> Json {
    match value {
        Value::None | Value::Tensor(_) | Value::Persistent(_) => Json::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) if number.is_finite() => (*number).into(),
        Value::Float(number) => json!({ "$float": number.to_string() }),
        Value::Long(bytes) => json!({ "$long": hex(bytes) }),
        Value::Bytes(bytes) => json!({ "$bytes": hex(bytes) }),
        Value::Str(text) => (**text).into(),
        Value::Surrogates(bytes) => json!({ "$surrogates": hex(bytes) }),
        Value::List(items) => items.iter().map(encode).collect(),
        Value::Tuple(items) => json!({ "$tuple": list(items) }),
        Value::Set(items) => json!({ "$set": list(items) }),
        Value::FrozenSet(items) => json!({ "$frozenset": list(items) }),
        Value::Dict(items) => plain_dict(items).unwrap_or_else(|| json!({ "$dict": pairs(items) })),
        Value::Global(global) if is_dtype(global) => json!({ "$global": [&*global.module, &*global.name] }),
        Value::Global(_) => Json::Null,
        Value::Object(object) if !is_inert(object) => Json::Null,
        Value::Object(object) => json!({ "$object": {
            "construct": if object.construct == Construct::Call { "call" } else { "new" },
            "callable": name_of(&object.callable),
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
        "$surrogates" => {
            Value::Surrogates(unhex(content.as_str()?).filter(|bytes| with_surrogates(bytes))?.into())
        }
        "$tuple" => Value::Tuple(items()?),
        "$set" => Value::Set(items()?),
        "$frozenset" => Value::FrozenSet(items()?),
        "$dict" => Value::Dict(unpairs(content)?.into()),
        "$global" => Value::Global(Arc::new(global(content).filter(is_dtype)?)),
        "$object" => {
            let get = |key: &str| content.get(key);
            let object = Object {
                construct: if get("construct")?.as_str()? == "call" {
                    Construct::Call
                } else {
                    Construct::New
                },
                callable: Value::Global(Arc::new(global(get("callable")?)?)),
                args: decode(get("args")?)?,
                appended: values(get("appended")?.as_array()?)?,
                items: unpairs(get("items")?)?,
                state: match get("state")? {
                    Json::Null => None,
                    state => Some(decode(state.get(0)?)?),
                },
            };
            Value::Object(Arc::new(Some(object).filter(is_inert)?))
        }
        _ => return None,
    })
}

/// A dtype is a name that torch has, and nothing that can be called.
fn is_dtype(global: &Global) -> bool {
    &*global.module == "torch" && Dtype::from_name(&global.name).is_some()
}

/// Whether rebuilding the object runs nothing: a namespace with fields, an ordered dict, or a member of an enumeration of Megatron by its number.
fn is_inert(object: &Object) -> bool {
    let Value::Global(class) = &object.callable else { return false };
    let arguments = object.args.elements().unwrap_or_default();
    let is_bare = object.appended.is_empty() && object.items.is_empty();
    if class.is("collections", "OrderedDict") {
        let is_filled = object.appended.is_empty() && object.state.is_none();
        return object.construct == Construct::Call && arguments.is_empty() && is_filled;
    }
    match object.construct {
        Construct::New => class.is("argparse", "Namespace") && is_bare && arguments.is_empty(),
        Construct::Call => {
            let is_class = class.name.starts_with(|c: char| c.is_ascii_uppercase());
            let of_megatron = class.module.starts_with("megatron.") && is_class;
            of_megatron && is_bare && object.state.is_none() && matches!(arguments, [Value::Int(_)])
        }
    }
}

fn name_of(callable: &Value) -> Json {
    match callable {
        Value::Global(global) => json!([&*global.module, &*global.name]),
        _ => Json::Null,
    }
}

fn global(json: &Json) -> Option<Global> {
    match json.as_array()?.as_slice() {
        [Json::String(module), Json::String(name)] => {
            Some(Global { module: module.as_str().into(), name: name.as_str().into() })
        }
        _ => None,
    }
}

/// The one entry of a map whose key begins with `$`.
fn single(map: &Map<String, Json>) -> Option<(&str, &Json)> {
    let (key, value) = map.iter().next().filter(|_| map.len() == 1)?;
    key.starts_with('$').then_some((key.as_str(), value))
}

/// A dict whose keys are all text, none of it to be mistaken for a mark of ours, each once and in the order in which a map of JSON keeps
/// them: a dict of Python has its order, and it must come back.
fn plain_dict(items: &[(Value, Value)]) -> Option<Json> {
    let keys = items.iter().map(|(key, _)| key.as_str().filter(|key| !key.starts_with('$')));
    let keys = keys.collect::<Option<Vec<_>>>()?;
    let map: Map<String, Json> =
        keys.iter().zip(items).map(|(key, (_, item))| ((*key).to_owned(), encode(item))).collect();
    // A key that stands twice has made the map shorter.
    map.keys().eq(keys).then_some(Json::Object(map))
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

    fn object(construct: Construct, class: (&str, &str), args: Vec<Value>, state: Option<Value>) -> Value {
        let callable = Value::Global(Arc::new(Global { module: class.0.into(), name: class.1.into() }));
        let args = Value::Tuple(args.into());
        Value::Object(Arc::new(Object { construct, callable, args, appended: vec![], items: vec![], state }))
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            "[a-z$\"]{0,4}".prop_map(|text| Value::str(&text)),
            ("[a-z\u{e9}\u{10ffff}]{0,2}", 0xd800u16..=0xdfff, "[a-z]{0,2}").prop_map(
                |(before, code, after)| {
                    let [high, low] = code.to_be_bytes();
                    let surrogate = [0xed, 0x80 | (high & 0x0f) << 2 | low >> 6, 0x80 | low & 0x3f];
                    Value::Surrogates([before.as_bytes(), &surrogate, after.as_bytes()].concat().into())
                }
            ),
            prop::collection::vec(("[a-z]{0,3}", any::<i64>()), 0..3).prop_map(|items| {
                let Value::Object(dict) =
                    object(Construct::Call, ("collections", "OrderedDict"), vec![], None)
                else {
                    unreachable!()
                };
                let items =
                    items.into_iter().map(|(key, number)| (Value::str(&key), Value::Int(number))).collect();
                Value::Object(Arc::new(Object { items, ..Object::clone(&dict) }))
            }),
            prop::collection::vec(any::<u8>(), 0..5).prop_map(|bytes| Value::Bytes(bytes.into())),
            prop::collection::vec(any::<u8>(), 9..12).prop_map(|bytes| Value::Long(bytes.into())),
            Just(Value::Global(Arc::new(Global { module: "torch".into(), name: "bfloat16".into() }))),
            ("megatron[.][a-z]{1,5}", "[A-Z][a-z]{1,3}", any::<i64>()).prop_map(|(module, name, number)| {
                object(Construct::Call, (&module, &name), vec![Value::Int(number)], None)
            }),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let items = prop::collection::vec(inner.clone(), 0..4);
            let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..3);
            prop_oneof![
                items.clone().prop_map(|items| Value::List(items.into())),
                items.clone().prop_map(|items| Value::Tuple(items.into())),
                items.prop_map(|items| Value::Set(items.into())),
                pairs.prop_map(|items| Value::Dict(items.into())),
                prop::collection::btree_map("[a-z$]{0,3}", inner.clone(), 0..4).prop_map(|map| {
                    Value::Dict(map.into_iter().map(|(key, value)| (Value::str(&key), value)).collect())
                }),
                inner.prop_map(|state| object(
                    Construct::New,
                    ("argparse", "Namespace"),
                    vec![],
                    Some(state)
                )),
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

    /// A file of tensors must not become a pickle that runs something.
    #[test]
    fn nothing_that_could_run_is_written_or_read() {
        let system = object(Construct::Call, ("os", "system"), vec![Value::str("true")], None);
        let path = object(Construct::Call, ("megatron.core", "Load"), vec![Value::str("/etc")], None);
        let posix = Value::Global(Arc::new(Global { module: "posix".into(), name: "system".into() }));
        for value in [system, path, posix, object(Construct::New, ("subprocess", "Popen"), vec![], None)] {
            assert_eq!(encode(&value), Json::Null);
        }
        for text in [
            r#"{"$global":["os","system"]}"#,
            r#"{"$global":["torch","load"]}"#,
            r#"{"$object":{"construct":"call","callable":["os","system"],"args":{"$tuple":["true"]},"appended":[],"items":[],"state":null}}"#,
            r#"{"$object":{"construct":"call","callable":["megatron.core","Load"],"args":{"$tuple":["/"]},"appended":[],"items":[],"state":null}}"#,
            r#"{"$persistent":1}"#,
        ] {
            assert!(decode(&serde_json::from_str(text).unwrap()).is_none(), "{text}");
        }
    }

    #[test]
    fn what_nobody_wrote_is_no_value() {
        for text in [
            r#"{"$what":1}"#,
            r#"{"$bytes":"0g"}"#,
            r#"{"$surrogates":"61"}"#,
            r#"{"$surrogates":"ff"}"#,
            r#"{"$object":{}}"#,
            r#"{"$global":["a"]}"#,
            r#"{"$tuple":1}"#,
        ] {
            assert!(decode(&serde_json::from_str(text).unwrap()).is_none(), "{text}");
        }
    }
}
