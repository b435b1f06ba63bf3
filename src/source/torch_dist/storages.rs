//! Values of several objects side by side: each object counts its storages from 0, so they get names of their own.

use std::sync::Arc;

use crate::value::{Storage, TensorRef, Value};

/// The same value with other keys of storages. `None` where a tensor lies within an object, which is not looked into.
pub(super) fn renamed(value: &Value, key: &dyn Fn(&str) -> Arc<str>) -> Option<Value> {
    if !value.holds_tensor() {
        return Some(value.clone());
    }
    let all = |items: &[Value]| items.iter().map(|item| renamed(item, key)).collect::<Option<Vec<_>>>();
    Some(match value {
        Value::Tensor(tensor) => {
            let storage = Storage { key: key(&tensor.storage.key), ..tensor.storage };
            Value::Tensor(Arc::new(TensorRef { storage, ..TensorRef::clone(tensor) }))
        }
        Value::List(items) => Value::List(all(items)?.into()),
        Value::Tuple(items) => Value::Tuple(all(items)?.into()),
        Value::Dict(items) => {
            let items = items.iter().map(|(name, value)| Some((name.clone(), renamed(value, key)?)));
            Value::Dict(items.collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Dtype, Shape};
    use crate::value::{Construct, Global, Object};

    fn tensor(key: &str) -> Value {
        Value::Tensor(Arc::new(TensorRef::whole(key.into(), Dtype::Uint8, Shape(vec![1]))))
    }

    #[test]
    fn every_storage_has_another_key() {
        let value = Value::List(
            [Value::Dict([(Value::str("a"), Value::Tuple([tensor("0"), Value::Int(1)].into()))].into()), tensor("1")].into(),
        );
        let found = renamed(&value, &|key| format!("x{key}").into()).unwrap();
        let wanted = Value::List(
            [Value::Dict([(Value::str("a"), Value::Tuple([tensor("x0"), Value::Int(1)].into()))].into()), tensor("x1")].into(),
        );
        assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
    }

    #[test]
    fn tensors_in_objects_are_not_looked_for() {
        let object = |inner| {
            let global = Global { module: "a".into(), name: "B".into() };
            let callable = Value::Global(Arc::new(global));
            let args = Value::Tuple([inner].into());
            let construct = Construct::Call;
            let object = Object { construct, callable, args, appended: [].into(), items: [].into(), state: None };
            Value::List([Value::Object(Arc::new(object))].into())
        };
        let same = |key: &str| Arc::from(key);
        assert!(renamed(&object(Value::Int(1)), &same).is_some());
        assert!(renamed(&object(tensor("0")), &same).is_none());
    }
}
