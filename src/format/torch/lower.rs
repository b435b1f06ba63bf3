//! From tensors back to the calls that rebuild them, and to a pickle.
//!
//! Not here: the bytes of storages. The caller supplies them by the keys it gave.

use std::collections::HashMap;
use std::sync::Arc;

use super::lift::StorageId;
use super::rewrite::rewrite;
use super::{CPU, STORAGE, TorchError, class, global};
use crate::format::pickle;
use crate::tensor::Dtype;
use crate::value::{Construct, Object, Storage, TensorRef, Value};

/// A pickle, and the storages it refers to.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Content of `data.pkl`.
    pub pickle: Vec<u8>,
    /// The storage of record `data/N` at position N, with the key it has in the tree.
    pub storages: Vec<Storage>,
}

/// Encodes `root` as `torch.save` would: storages are numbered in the order in which the pickle first refers to them, and are on the CPU.
///
/// # Errors
/// What `pickle::encode` refuses, storages of which tensors say different sizes, and storage classes of unknown element size.
pub fn encode_pickle(root: &Value) -> Result<Encoded, TorchError> {
    let mut lowerer = Lowerer::default();
    let lowered = rewrite(root, &mut |value| lowerer.value(value))?;
    Ok(Encoded { pickle: pickle::encode(&lowered)?, storages: lowerer.storages })
}

#[derive(Default)]
struct Lowerer {
    storages: Vec<Storage>,
    /// New key and size of each storage, by its key in the tree.
    keys: HashMap<Arc<str>, (Arc<str>, u64)>,
}

impl Lowerer {
    fn value(&mut self, value: Value) -> Result<Value, TorchError> {
        match &value {
            Value::Tensor(tensor) => self.tensor(tensor),
            Value::Persistent(id) => match StorageId::of(id) {
                Some(id) => self.persistent(&id),
                None => Ok(value),
            },
            Value::Object(object) => Ok(with_type(object).unwrap_or(value)),
            _ => Ok(value),
        }
    }

    /// The number of `storage` as text, which it gets when it is met first.
    fn key(&mut self, storage: &Storage) -> Result<Arc<str>, TorchError> {
        if let Some((key, bytes)) = self.keys.get(&storage.key) {
            if *bytes == storage.bytes {
                return Ok(Arc::clone(key));
            }
            let (first, second) = (*bytes, storage.bytes);
            return Err(TorchError::StorageDisagrees { key: storage.key.to_string(), first, second });
        }
        let number = self.storages.len().to_string();
        // The tree may share the text of its key with something else; if it can stay, so does that.
        let key = if *storage.key == *number { Arc::clone(&storage.key) } else { number.into() };
        self.keys.insert(Arc::clone(&storage.key), (Arc::clone(&key), storage.bytes));
        self.storages.push(storage.clone());
        Ok(key)
    }

    /// A storage that belongs to something we left as it was: only its number and its place change.
    fn persistent(&mut self, id: &StorageId<'_>) -> Result<Value, TorchError> {
        let (_, storage) = id.storage()?;
        Ok(storage_id(id.class.clone(), self.key(&storage)?, id.elements.clone()))
    }

    fn tensor(&mut self, tensor: &TensorRef) -> Result<Value, TorchError> {
        let name = class::name_of(tensor.dtype);
        let (class, elements) = match name {
            Some(name) => (global("torch", name), elements(&tensor.storage, tensor.dtype)?),
            None => (global("torch.storage", "UntypedStorage"), tensor.storage.bytes),
        };
        let mut args = vec![
            storage_id(class, self.key(&tensor.storage)?, int(elements)?),
            int(tensor.offset)?,
            ints(&tensor.shape.0)?,
            ints(&tensor.strides)?,
            Value::Bool(tensor.requires_grad),
            // Hooks: always a new, empty one.
            call(global("collections", "OrderedDict"), Vec::new()),
        ];
        if name.is_none() {
            args.push(global("torch", tensor.dtype.name()));
        }
        let function = if name.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" };
        Ok(call(global("torch._utils", function), args))
    }
}

/// `_rebuild_from_type_v2(function, type, arguments, state)` of a tensor that has become a call: its function and arguments are taken
/// over. `None` for everything else.
fn with_type(object: &Object) -> Option<Value> {
    let (Value::Global(callable), Value::Tuple(args)) = (&object.callable, &object.args) else { return None };
    let module = matches!(&*callable.module, "torch._tensor" | "torch.tensor");
    if !module || !matches!(&*callable.name, "_rebuild_from_type_v2" | "_rebuild_from_type") {
        return None;
    }
    let [_, class, Value::Object(tensor), state] = &**args else { return None };
    let args = vec![tensor.callable.clone(), class.clone(), tensor.args.clone(), state.clone()];
    Some(Value::Object(Arc::new(Object { args: Value::Tuple(args.into()), ..object.clone() })))
}

/// Size of a storage in elements.
fn elements(storage: &Storage, dtype: Dtype) -> Result<u64, TorchError> {
    if storage.bytes.is_multiple_of(dtype.size()) {
        return Ok(storage.bytes / dtype.size());
    }
    Err(TorchError::NotWhole { key: storage.key.to_string(), bytes: storage.bytes, dtype: dtype.name() })
}

fn storage_id(class: Value, key: Arc<str>, elements: Value) -> Value {
    let word = Value::Str(Arc::clone(&STORAGE));
    let location = Value::Str(Arc::clone(&CPU));
    Value::Persistent(Arc::new(tuple(vec![word, class, Value::Str(key), location, elements])))
}

fn call(callable: Value, args: Vec<Value>) -> Value {
    Value::Object(Arc::new(Object {
        construct: Construct::Call,
        callable,
        args: tuple(args),
        appended: Vec::new(),
        items: Vec::new(),
        state: None,
    }))
}

fn tuple(items: Vec<Value>) -> Value {
    Value::Tuple(items.into())
}

fn int(number: u64) -> Result<Value, TorchError> {
    i64::try_from(number).map(Value::Int).map_err(|_| TorchError::Number { number })
}

fn ints(numbers: &[u64]) -> Result<Value, TorchError> {
    Ok(tuple(numbers.iter().map(|number| int(*number)).collect::<Result<_, _>>()?))
}
