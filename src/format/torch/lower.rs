//! From tensors back to the calls that rebuild them, and to a pickle.
//!
//! Not here: the bytes of storages. The caller supplies them by the keys it gave.

use std::collections::HashMap;
use std::sync::Arc;

use super::lift::StorageId;
use super::{CPU, STORAGE, TorchError, class, global};
use crate::format::pickle::{self, Lower};
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
    Ok(Encoded { pickle: pickle::encode_lowered(root, &mut lowerer)?, storages: lowerer.storages })
}

#[derive(Default)]
struct Lowerer {
    storages: Vec<Storage>,
    /// New key and size of each storage, by its key in the tree.
    keys: HashMap<Arc<str>, (Arc<str>, u64)>,
}

impl Lower for Lowerer {
    type Error = TorchError;

    fn lower(&mut self, value: &Value) -> Result<Option<Value>, TorchError> {
        Ok(match value {
            Value::Tensor(tensor) => Some(Value::Object(Arc::new(Self::tensor(tensor)?))),
            Value::Persistent(id) => match StorageId::of(id) {
                Some(id) => Some(self.persistent(&id)?),
                None => None,
            },
            Value::Object(object) => Self::with_type(object)?,
            _ => None,
        })
    }

    fn within(error: TorchError, key: &Value) -> TorchError {
        error.within(key)
    }
}

impl Lowerer {
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

    /// A storage, of a tensor or of something that stays as it is: only its number and its place change.
    fn persistent(&mut self, id: &StorageId<'_>) -> Result<Value, TorchError> {
        let (_, storage) = id.storage()?;
        Ok(storage_id(id.class.clone(), self.key(&storage)?, id.elements.clone()))
    }

    /// The call that rebuilds `tensor`, its storage still under the key of the tree.
    fn tensor(tensor: &TensorRef) -> Result<Object, TorchError> {
        let name = class::name_of(tensor.dtype);
        let (class, elements) = match name {
            Some(name) => (global("torch", name), elements(&tensor.storage, tensor.dtype)?),
            None => (global("torch.storage", "UntypedStorage"), tensor.storage.bytes),
        };
        let mut args = vec![
            storage_id(class, Arc::clone(&tensor.storage.key), int(elements)?),
            int(tensor.offset)?,
            ints(&tensor.shape.0)?,
            ints(&tensor.strides)?,
            Value::Bool(tensor.requires_grad),
            // Hooks: always a new, empty one.
            Value::Object(Arc::new(call(global("collections", "OrderedDict"), Vec::new()))),
        ];
        if name.is_none() {
            args.push(global("torch", tensor.dtype.name()));
        }
        let function = if name.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" };
        Ok(call(global("torch._utils", function), args))
    }

    /// `_rebuild_from_type_v2(function, type, arguments, state)` of a tensor: function and arguments are those of the call that it becomes.
    /// `None` for everything else.
    fn with_type(object: &Object) -> Result<Option<Value>, TorchError> {
        let (Value::Global(callable), Value::Tuple(args)) = (&object.callable, &object.args) else {
            return Ok(None);
        };
        let module = matches!(&*callable.module, "torch._tensor" | "torch.tensor");
        if !module || !matches!(&*callable.name, "_rebuild_from_type_v2" | "_rebuild_from_type") {
            return Ok(None);
        }
        let [_, class, Value::Tensor(tensor), state] = &**args else { return Ok(None) };
        let tensor = Self::tensor(tensor)?;
        let args = tuple(vec![tensor.callable, class.clone(), tensor.args, state.clone()]);
        Ok(Some(Value::Object(Arc::new(Object { args, ..object.clone() }))))
    }
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

fn call(callable: Value, args: Vec<Value>) -> Object {
    Object {
        construct: Construct::Call,
        callable,
        args: tuple(args),
        appended: Vec::new(),
        items: Vec::new(),
        state: None,
    }
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
