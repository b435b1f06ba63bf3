//! From the calls that rebuild tensors to tensors.
//!
//! Torch pickles a tensor as a call of `torch._utils._rebuild_tensor_v2` (or `_v3`, for element types without a storage class) on a
//! storage, which is a persistent id `('storage', class, key, location, number of elements)`.
//!
//! Not here: the way back (`lower`).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::sync::Arc;

use super::rewrite::rewrite;
use super::{CPU, STORAGE, TorchError, class};
use crate::tensor::{Dtype, Shape};
use crate::value::{Construct, Object, Storage, TensorRef, Value};

/// Replaces in `root` what rebuilds a tensor by the tensor.
pub(super) fn lift(root: &Value) -> Result<Value, TorchError> {
    let mut lifter = Lifter::default();
    let lifted = rewrite(root, &mut |value| lifter.value(value))?;
    // The texts within persistent ids are gone now, but the tree may share them elsewhere.
    rewrite(&lifted, &mut |value| Ok(lifter.interned(value)))
}

/// The parts of a storage's persistent id.
pub(super) struct StorageId<'a> {
    /// `storage`
    pub(super) word: &'a Arc<str>,
    /// Storage class.
    pub(super) class: &'a Value,
    /// Which record.
    pub(super) key: &'a Arc<str>,
    /// Device.
    pub(super) location: &'a Arc<str>,
    /// Size in elements of the class.
    pub(super) elements: &'a Value,
}

impl<'a> StorageId<'a> {
    /// Takes apart a persistent id, if it is one of a storage.
    pub(super) fn of(id: &'a Value) -> Option<Self> {
        let Value::Tuple(parts) = id else { return None };
        match &**parts {
            [Value::Str(word), class, Value::Str(key), Value::Str(location), elements]
                if **word == *"storage" =>
            {
                Some(Self { word, class, key, location, elements })
            }
            _ => None,
        }
    }

    /// Element type of its class, and the storage.
    pub(super) fn storage(&self) -> Result<(Option<Dtype>, Storage), TorchError> {
        let Value::Global(global) = self.class else {
            return Err(bad_storage("a class", self.class));
        };
        let (dtype, size) = class::lookup(global).ok_or_else(|| TorchError::StorageClass {
            class: format!("{}.{}", global.module, global.name),
        })?;
        let elements = self.elements.as_int().and_then(|number| u64::try_from(number).ok());
        let bytes = elements.and_then(|elements| elements.checked_mul(size));
        let bytes = bytes.ok_or_else(|| bad_storage("a number of elements", self.elements))?;
        Ok((dtype, Storage { key: Arc::clone(self.key), bytes }))
    }
}

#[derive(Default)]
struct Lifter {
    /// Size in bytes of each storage, by key.
    sizes: HashMap<Arc<str>, u64>,
    /// Texts of persistent ids by address, each with the text that stands for it here. The first one is kept, so that its address is not
    /// given to another one meanwhile.
    texts: HashMap<usize, (Arc<str>, &'static Arc<str>)>,
}

impl Lifter {
    fn value(&mut self, value: Value) -> Result<Value, TorchError> {
        match &value {
            Value::Object(object) => Ok(self.object(object)?.unwrap_or(value)),
            Value::Persistent(id) => {
                if let Some(id) = StorageId::of(id) {
                    self.remember(&id)?;
                }
                Ok(value)
            }
            _ => Ok(value),
        }
    }

    fn remember(&mut self, id: &StorageId<'_>) -> Result<(), TorchError> {
        for (text, stands_for) in [(id.word, &*STORAGE), (id.location, &*CPU)] {
            if **text == **stands_for {
                self.texts.insert(text.as_ptr().addr(), (Arc::clone(text), stands_for));
            }
        }
        // An unknown class is no error as long as nothing is asked of the storage.
        let Ok((_, storage)) = id.storage() else { return Ok(()) };
        let first = *self.sizes.entry(Arc::clone(&storage.key)).or_insert(storage.bytes);
        if first != storage.bytes {
            let (key, second) = (storage.key.to_string(), storage.bytes);
            return Err(TorchError::StorageDisagrees { key, first, second });
        }
        Ok(())
    }

    /// The same text, as the `Arc` that stands for it.
    fn interned(&self, value: Value) -> Value {
        match &value {
            Value::Str(text) => match self.texts.get(&text.as_ptr().addr()) {
                Some((_, stands_for)) => Value::Str(Arc::clone(stands_for)),
                None => value,
            },
            _ => value,
        }
    }

    /// What `object` becomes, if it does not stay as it is.
    fn object(&self, object: &Object) -> Result<Option<Value>, TorchError> {
        let (Value::Tuple(args), Some(rebuild)) = (&object.args, Rebuild::of(object)) else {
            return Ok(None);
        };
        let tensor = match rebuild {
            Rebuild::Tensor(version) => return Ok(tensor(version, args)?.map(Value::Tensor)),
            Rebuild::WithType => {
                // Attributes change nothing about the bytes of a plain tensor; of other classes we know nothing.
                let [Value::Global(function), Value::Global(class), Value::Tuple(inner), _] = &**args else {
                    return Ok(None);
                };
                let plain = class.is("torch", "Tensor")
                    || class.is("torch.nn.parameter", "Parameter")
                    || class.is("torch.nn.parameter", "Buffer");
                match Version::of(&function.module, &function.name) {
                    Some(version) if plain => tensor(version, inner)?,
                    _ => None,
                }
            }
        };
        let Some(tensor) = tensor else { return Ok(None) };
        let mut args = args.to_vec();
        if let Some(inner) = args.get_mut(2) {
            *inner = Value::Tensor(tensor);
        }
        Ok(Some(Value::Object(Arc::new(Object { args: Value::Tuple(args.into()), ..object.clone() }))))
    }
}

/// A call that concerns us.
enum Rebuild {
    Tensor(Version),
    /// `_rebuild_from_type`: a tensor that carries attributes.
    WithType,
}

impl Rebuild {
    fn of(object: &Object) -> Option<Self> {
        let Value::Global(callable) = &object.callable else { return None };
        let plain = object.construct == Construct::Call
            && object.appended.is_empty()
            && object.items.is_empty()
            && object.state.is_none();
        if !plain {
            return None;
        }
        match (&*callable.module, &*callable.name) {
            ("torch._tensor" | "torch.tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => {
                Some(Self::WithType)
            }
            (module, name) => Version::of(module, name).map(Self::Tensor),
        }
    }
}

/// Which of torch's functions rebuilds a tensor.
#[derive(Clone, Copy)]
enum Version {
    /// `(storage, offset, size, stride)`
    V1,
    /// `(storage, offset, size, stride, requires_grad, hooks[, metadata])`
    V2,
    /// `(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])`
    V3,
}

impl Version {
    fn of(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("torch._utils", "_rebuild_tensor") => Some(Self::V1),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::V2),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::V3),
            _ => None,
        }
    }
}

/// The tensor that `version` would make of `args`; `None` where its bytes are not plain elements.
fn tensor(version: Version, args: &[Value]) -> Result<Option<Arc<TensorRef>>, TorchError> {
    let no = Value::Bool(false);
    let (storage, offset, sizes, strides, requires_grad, rest) = match (version, args) {
        (Version::V1, [storage, offset, sizes, strides]) => {
            (storage, offset, sizes, strides, &no, [].as_slice())
        }
        (Version::V2 | Version::V3, [storage, offset, sizes, strides, requires_grad, rest @ ..]) => {
            (storage, offset, sizes, strides, requires_grad, rest)
        }
        _ => return Err(bad_tensor("its arguments", format!("{} of them", args.len()))),
    };
    let (dtype, hooks, metadata) = match (version, rest) {
        (Version::V1, []) => (None, None, None),
        (Version::V2, [hooks]) => (None, Some(hooks), None),
        (Version::V2, [hooks, metadata]) => (None, Some(hooks), Some(metadata)),
        (Version::V3, [hooks, dtype]) => (Some(dtype), Some(hooks), None),
        (Version::V3, [hooks, dtype, metadata]) => (Some(dtype), Some(hooks), Some(metadata)),
        _ => return Err(bad_tensor("its arguments", format!("{} of them", args.len()))),
    };
    // Hooks are code, and metadata says that the bytes are to be conjugated or negated.
    if !hooks.is_none_or(is_empty) || !metadata.is_none_or(is_empty) {
        return Ok(None);
    }
    let Value::Persistent(id) = storage else { return Err(bad_tensor("a storage", storage.kind())) };
    let Some(id) = StorageId::of(id) else { return Err(bad_tensor("a storage", "another persistent id")) };
    let (class_dtype, storage) = id.storage()?;
    let dtype = match dtype {
        None => class_dtype,
        Some(Value::Global(dtype)) if &*dtype.module == "torch" => Dtype::from_name(&dtype.name),
        Some(other) => return Err(bad_tensor("a dtype", other.kind())),
    };
    let Some(dtype) = dtype else { return Ok(None) };
    let Value::Bool(requires_grad) = requires_grad else {
        return Err(bad_tensor("requires_grad as a bool", requires_grad.kind()));
    };
    let tensor = TensorRef {
        dtype,
        shape: Shape(numbers("sizes", sizes)?),
        strides: numbers("strides", strides)?,
        offset: number("an offset", offset)?,
        storage,
        requires_grad: *requires_grad,
    };
    check(&tensor)?;
    Ok(Some(Arc::new(tensor)))
}

/// Whether a value is `None` or an empty dict.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::None => true,
        Value::Object(object) => {
            object.appended.is_empty()
                && object.state.is_none()
                && matches!(&object.args, Value::Tuple(args) if args.is_empty())
                && value.items().is_some_and(<[_]>::is_empty)
        }
        Value::Dict(items) => items.is_empty(),
        _ => false,
    }
}

fn number(what: &'static str, value: &Value) -> Result<u64, TorchError> {
    let number = value.as_int().and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| bad_tensor(what, describe(value)))
}

fn numbers(what: &'static str, value: &Value) -> Result<Vec<u64>, TorchError> {
    match value {
        Value::Tuple(items) => items.iter().map(|item| number(what, item)).collect(),
        // `torch.Size((..))`, which old files have.
        Value::Object(object) if matches!(&object.callable, Value::Global(g) if g.is("torch", "Size")) => {
            match &object.args {
                Value::Tuple(args) if args.len() == 1 => match args.first() {
                    Some(Value::Tuple(items)) => items.iter().map(|item| number(what, item)).collect(),
                    _ => Err(bad_tensor(what, "torch.Size of something else")),
                },
                _ => Err(bad_tensor(what, "torch.Size of something else")),
            }
        }
        other => Err(bad_tensor(what, other.kind())),
    }
}

/// Every element must lie within the storage. A tensor without elements may say what it likes.
fn check(tensor: &TensorRef) -> Result<(), TorchError> {
    let (sizes, strides) = (&tensor.shape.0, &tensor.strides);
    if sizes.len() != strides.len() {
        return Err(bad_tensor("one stride per dimension", format!("{} for {}", strides.len(), sizes.len())));
    }
    if sizes.contains(&0) {
        return Ok(());
    }
    // Dtypes are at least one byte wide.
    let elements = tensor.storage.bytes.checked_div(tensor.dtype.size()).unwrap_or(0);
    let mut last = Some(tensor.offset);
    for (size, stride) in sizes.iter().zip(strides) {
        let span = size.saturating_sub(1).checked_mul(*stride);
        last = last.zip(span).and_then(|(last, span)| last.checked_add(span));
    }
    // Overlapping elements (stride 0, as of an expanded tensor) make a number of elements that no storage bounds; their bytes must at
    // least be countable.
    let countable = tensor.shape.bytes(tensor.dtype).is_some();
    if countable && last.is_some_and(|last| last < elements) {
        return Ok(());
    }
    Err(TorchError::OutsideStorage {
        shape: tensor.shape.to_string(),
        strides: strides.clone(),
        offset: tensor.offset,
        key: tensor.storage.key.to_string(),
        elements,
    })
}

fn bad_tensor(expected: &'static str, found: impl Into<String>) -> TorchError {
    TorchError::Tensor { expected, found: found.into() }
}

fn bad_storage(expected: &'static str, found: &Value) -> TorchError {
    TorchError::Storage { expected, found: describe(found) }
}

/// A number, or what else it is. Not the value itself: that may be as large as the whole tree.
fn describe(value: &Value) -> String {
    value.as_int().map_or_else(|| value.kind().to_owned(), |number| number.to_string())
}
