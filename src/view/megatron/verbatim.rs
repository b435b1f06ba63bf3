//! Values that a view takes over from a source rank as they are; tensors in them keep their storages.

use std::collections::HashMap;
use std::sync::Arc;

use super::contents::Contents;
use crate::catalog::RankFile;
use crate::value::{Object, Storage, TensorRef, Value};

/// Takes over values of one source rank.
pub(in crate::view) struct Verbatim<'a, 'contents> {
    source: &'a RankFile,
    contents: &'a mut Contents<'contents>,
    /// Objects and tensors done before, by identity, so that what is shared in the source stays shared.
    done: HashMap<usize, Value>,
}

impl<'a, 'contents> Verbatim<'a, 'contents> {
    pub(in crate::view) fn new(source: &'a RankFile, contents: &'a mut Contents<'contents>) -> Self {
        Self { source, contents, done: HashMap::new() }
    }

    /// The same value for the view's tree. The decoder has bounded depth and size of what is walked here.
    pub(in crate::view) fn value(&mut self, value: &Value) -> Value {
        // What holds no tensor is taken over as the same object.
        if !value.holds_tensor() {
            return value.clone();
        }
        match value {
            Value::List(items) => Value::List(self.values(items)),
            Value::Tuple(items) => Value::Tuple(self.values(items)),
            Value::Dict(items) => {
                Value::Dict(items.iter().map(|(k, v)| (k.clone(), self.value(v))).collect())
            }
            Value::Tensor(tensor) => {
                self.shared(Arc::as_ptr(tensor) as usize, |verbatim| verbatim.tensor(tensor))
            }
            Value::Object(object) => {
                self.shared(Arc::as_ptr(object) as usize, |verbatim| verbatim.object(object))
            }
            other => other.clone(),
        }
    }

    fn values(&mut self, items: &[Value]) -> Arc<[Value]> {
        items.iter().map(|item| self.value(item)).collect()
    }

    fn shared(&mut self, identity: usize, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if let Some(done) = self.done.get(&identity) {
            return done.clone();
        }
        let made = make(self);
        self.done.insert(identity, made.clone());
        made
    }

    fn object(&mut self, object: &Object) -> Value {
        Value::Object(Arc::new(Object {
            construct: object.construct,
            callable: object.callable.clone(),
            args: self.value(&object.args),
            appended: object.appended.iter().map(|item| self.value(item)).collect(),
            items: object.items.iter().map(|(k, v)| (k.clone(), self.value(v))).collect(),
            state: object.state.as_ref().map(|state| self.value(state)),
        }))
    }

    fn tensor(&mut self, tensor: &TensorRef) -> Value {
        let key: Arc<str> = format!("carried {} {}", self.source.object.0, tensor.storage.key).into();
        if let Some(record) = self.source.storages.get(&tensor.storage.key) {
            self.contents.carry(key.clone(), record.extent);
        }
        let storage = Storage { key, bytes: tensor.storage.bytes };
        Value::Tensor(Arc::new(TensorRef { storage, ..tensor.clone() }))
    }
}
