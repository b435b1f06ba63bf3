//! What a small `.metadata` says, from the tree that the pickle codec makes of it.

use ckpt_fs::format::pickle::{Limits, decode};
use ckpt_fs::value::Value;

use super::{Doc, Step, Stored, Tensor};

/// Name of the class that a value is of.
fn class(value: &Value) -> String {
    let Value::Object(object) = value else { panic!("{value:?}") };
    let Value::Global(class) = &object.callable else { panic!("{value:?}") };
    class.name.to_string()
}

fn numbers(value: &Value) -> Vec<i64> {
    let items = match value {
        Value::Object(object) => object.args.elements().unwrap()[0].elements().unwrap(),
        value => value.elements().unwrap(),
    };
    items.iter().map(|item| item.as_int().unwrap()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Reads it.
pub fn read(bytes: &[u8]) -> Doc {
    let root = decode(bytes, &Limits::default()).unwrap();
    assert_eq!(class(&root), "Metadata");
    let mut doc = Doc::default();
    for (key, value) in root.attribute("state_dict_metadata").unwrap().items().unwrap() {
        match class(value).as_str() {
            "BytesStorageMetadata" => doc.objects.push(text(key)),
            "TensorStorageMetadata" => doc.tensors.push(tensor(text(key), value)),
            other => panic!("{other}"),
        }
    }
    for (index, info) in root.attribute("storage_data").unwrap().items().unwrap() {
        let offsets = index.attribute("offset").filter(|offset| !matches!(offset, Value::None));
        let transforms = info.attribute("transform_descriptors");
        doc.stored.push(Stored {
            key: text(index.attribute("fqn").unwrap()),
            offsets: offsets.map(numbers),
            path: text(info.attribute("relative_path").unwrap()),
            offset: info.attribute("offset").unwrap().as_int().unwrap(),
            len: info.attribute("length").unwrap().as_int().unwrap(),
            transforms: transforms.map(|names| names.elements().unwrap().iter().map(text).collect()),
        });
    }
    doc.version = root.attribute("version").map(text);
    doc.paths =
        root.attribute("planner_data").and_then(Value::items).map(|items| items.iter().map(path).collect());
    let originals = root.attribute("mcore_data").and_then(Value::items).unwrap_or_default();
    doc.originals = originals
        .iter()
        .map(|(key, said)| (text(key), said.get("nd_reformulated_orig_global_shape").map(numbers)))
        .collect();
    doc
}

fn tensor(key: String, value: &Value) -> Tensor {
    let Some(Value::Object(properties)) = value.attribute("properties") else { panic!("{value:?}") };
    let Some(Value::Global(dtype)) = properties.state.as_ref().and_then(|state| state.elements()?.first())
    else {
        panic!("{properties:?}")
    };
    let chunks = value.attribute("chunks").unwrap().elements().unwrap().iter();
    let chunks = chunks.map(|chunk| {
        (numbers(chunk.attribute("offsets").unwrap()), numbers(chunk.attribute("sizes").unwrap()))
    });
    Tensor {
        key,
        dtype: dtype.name.to_string(),
        size: numbers(value.attribute("size").unwrap()),
        chunks: chunks.collect(),
    }
}

fn path((key, steps): &(Value, Value)) -> (String, Vec<Step>) {
    let steps = steps.elements().unwrap().iter().map(|step| match step.as_int() {
        Some(number) => Step::Number(number),
        None => Step::Key(text(step)),
    });
    (text(key), steps.collect())
}
