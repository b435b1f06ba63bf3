//! The tree that a pickle holds: numbers, strings, containers, tensor references and opaque objects.
//!
//! Values are data. Nothing here calls, imports or resolves what a [`Global`] names. Sharing is by `Arc`, so an object that a pickle
//! refers to twice is one node here too, and two nodes are "the same object" exactly when their `Arc` pointers are equal.
//!
//! Not here: pickle opcodes and torch's rebuild functions (`format`), what keys mean (`family`, `view`).

pub mod json;

use std::sync::Arc;

use crate::tensor::{Dtype, Shape};

/// One node of a decoded pickle.
#[derive(Debug, Clone)]
pub enum Value {
    /// `None`
    None,
    /// `True`, `False`
    Bool(bool),
    /// An `int` that fits 64 bits.
    Int(i64),
    /// A larger `int`: two's complement, little-endian, as short as pickle writes it.
    Long(Arc<[u8]>),
    /// `float`
    Float(f64),
    /// `str`
    Str(Arc<str>),
    /// A `str` with lone surrogates, in the bytes that pickle writes: UTF-8 in which those are encoded like any character (`surrogatepass`).
    Surrogates(Arc<[u8]>),
    /// `bytes` (only protocol 3 and later pickle bytes as such)
    Bytes(Arc<[u8]>),
    /// `list`
    List(Arc<[Value]>),
    /// `tuple`
    Tuple(Arc<[Value]>),
    /// `dict`, in insertion order.
    Dict(Arc<[(Value, Value)]>),
    /// `set`
    Set(Arc<[Value]>),
    /// `frozenset`
    FrozenSet(Arc<[Value]>),
    /// A class or function named by the pickle. A name only.
    Global(Arc<Global>),
    /// Whatever a callable would have made of its arguments, uncalled.
    Object(Arc<Object>),
    /// A persistent id that is not part of a tensor.
    Persistent(Arc<Value>),
    /// A tensor: metadata and the storage its bytes are in.
    Tensor(Arc<TensorRef>),
}

/// `module.name`, as a pickle spells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Global {
    /// Dotted module path.
    pub module: Arc<str>,
    /// Name within the module.
    pub name: Arc<str>,
}

impl Global {
    /// Whether this is `module.name`.
    #[must_use]
    pub fn is(&self, module: &str, name: &str) -> bool {
        &*self.module == module && &*self.name == name
    }
}

/// How an [`Object`] is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Construct {
    /// `callable(*args)`
    Call,
    /// `callable.__new__(callable, *args)`
    New,
}

/// An object described by the call that would rebuild it and what would be put into it afterwards.
#[derive(Debug, Clone)]
pub struct Object {
    /// How `callable` is applied.
    pub construct: Construct,
    /// What is called, usually a [`Value::Global`].
    pub callable: Value,
    /// Its arguments, usually a [`Value::Tuple`].
    pub args: Value,
    /// Items appended afterwards (objects that behave as lists).
    pub appended: Vec<Value>,
    /// Items set afterwards (objects that behave as dicts, such as `OrderedDict`).
    pub items: Vec<(Value, Value)>,
    /// State given to `__setstate__` or merged into `__dict__`.
    pub state: Option<Value>,
}

/// A tensor as a pickle refers to it.
#[derive(Debug, Clone)]
pub struct TensorRef {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Shape,
    /// Strides in elements, one per dimension.
    pub strides: Vec<u64>,
    /// First element within the storage.
    pub offset: u64,
    /// The storage that holds the elements.
    pub storage: Storage,
    /// `requires_grad`
    pub requires_grad: bool,
}

/// A storage: one record of bytes that any number of tensors look into.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Storage {
    /// Which record: the `N` of `data/N` in a file, a name of the writer's choice in a tree that is yet to be written.
    pub key: Arc<str>,
    /// Size in bytes.
    pub bytes: u64,
}

impl TensorRef {
    /// A row-major tensor that is all of its storage. Its size is that of something that exists, so it fits.
    #[must_use]
    pub fn whole(key: Arc<str>, dtype: Dtype, shape: Shape) -> Self {
        let bytes = shape.bytes(dtype).unwrap_or(u64::MAX);
        let strides = shape.contiguous_strides().unwrap_or_default();
        Self { dtype, shape, strides, offset: 0, storage: Storage { key, bytes }, requires_grad: false }
    }
}

impl Value {
    /// A `str` value.
    #[must_use]
    pub fn str(text: &str) -> Self {
        Self::Str(text.into())
    }

    /// An `argparse.Namespace` with these fields, as training saves its arguments.
    #[must_use]
    pub fn namespace(fields: Vec<(String, Value)>) -> Self {
        let class = Global { module: "argparse".into(), name: "Namespace".into() };
        let fields = fields.into_iter().map(|(name, value)| (Self::str(&name), value));
        Self::Object(Arc::new(Object {
            construct: Construct::New,
            callable: Self::Global(Arc::new(class)),
            args: Self::Tuple(Arc::new([])),
            appended: Vec::new(),
            items: Vec::new(),
            state: Some(Self::Dict(fields.collect())),
        }))
    }

    /// The text of a `str`.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The number of an `int`.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The number of an `int` or a `float`.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            // Numbers that settings hold are small, so nothing is lost.
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// The items of a `list` or `tuple`.
    #[must_use]
    pub fn elements(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// This value with `tensor` in the place of its own: bare, or wrapped as it is. `None` where it wraps none.
    #[must_use]
    pub fn with_tensor(&self, tensor: Value) -> Option<Value> {
        match self {
            Self::Tensor(_) => Some(tensor),
            Self::Object(object) => Some(Self::Object(Arc::new(object.with_tensor(tensor)?))),
            _ => None,
        }
    }

    /// Items of a `dict`, or of an object that items were set on (`OrderedDict`).
    #[must_use]
    pub fn items(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Dict(items) => Some(items),
            Self::Object(object) if object.is_dict() => Some(&object.items),
            _ => None,
        }
    }

    /// The item under a `str` key of a dict-like value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.items()?.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
    }

    /// The attribute `name` of an object whose state is a dict, such as `argparse.Namespace`, or the item of a dict that stands for one.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(object) if object.state.is_some() => object.state.as_ref()?.get(name),
            _ => self.get(name),
        }
    }

    /// The fields of an object whose state is a dict, such as `argparse.Namespace`, or the items of a dict that stands for one. What has both
    /// has none that could be told.
    #[must_use]
    pub fn fields(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Object(object) if object.items.is_empty() && object.state.is_some() => {
                object.state.as_ref()?.items()
            }
            Self::Object(object) if object.state.is_some() => None,
            _ => self.items(),
        }
    }

    /// The same with these fields in the place of its own. `None` where it has none.
    #[must_use]
    pub fn with_fields(&self, fields: Vec<(Value, Value)>) -> Option<Value> {
        self.fields()?;
        Some(match self {
            Self::Object(object) if object.state.is_some() => {
                let state = Some(Self::Dict(fields.into()));
                Self::Object(Arc::new(Object { state, ..Object::clone(object) }))
            }
            Self::Object(object) => Self::Object(Arc::new(Object { items: fields, ..Object::clone(object) })),
            _ => Self::Dict(fields.into()),
        })
    }

    /// The tensor of this value: itself, or what `torch` wraps around one (a `Parameter`, a tensor that carries Python attributes).
    #[must_use]
    pub fn tensor(&self) -> Option<&Arc<TensorRef>> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            Self::Object(object) => object.wrapped_tensor(),
            _ => None,
        }
    }

    /// Whether a tensor or a storage is anywhere in it. The decoder has bounded what is walked here.
    #[must_use]
    pub fn holds_tensor(&self) -> bool {
        let in_pairs =
            |pairs: &[(Value, Value)]| pairs.iter().any(|(k, v)| k.holds_tensor() || v.holds_tensor());
        match self {
            Self::Tensor(_) | Self::Persistent(_) => true,
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::FrozenSet(items) => {
                items.iter().any(Self::holds_tensor)
            }
            Self::Dict(items) => in_pairs(items),
            Self::Object(object) => {
                object.args.holds_tensor()
                    || object.appended.iter().any(Self::holds_tensor)
                    || in_pairs(&object.items)
                    || object.state.as_ref().is_some_and(Self::holds_tensor)
            }
            _ => false,
        }
    }

    /// Whether both are plain scalars (numbers, strings, `None`) and the same one; `None` where either is something else.
    #[must_use]
    pub fn same_scalar(&self, other: &Self) -> Option<bool> {
        let is_scalar = |value: &Self| {
            matches!(
                value,
                Self::Float(_)
                    | Self::Int(_)
                    | Self::Bool(_)
                    | Self::Str(_)
                    | Self::Surrogates(_)
                    | Self::None
            )
        };
        let same = match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Surrogates(a), Self::Surrogates(b)) => a == b,
            (Self::None, Self::None) => true,
            _ => false,
        };
        (is_scalar(self) && is_scalar(other)).then_some(same)
    }

    /// What this value is in Python, for errors.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Long(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) | Self::Surrogates(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Set(_) => "set",
            Self::FrozenSet(_) => "frozenset",
            Self::Global(_) => "global",
            Self::Object(_) => "object",
            Self::Persistent(_) => "persistent id",
            Self::Tensor(_) => "tensor",
        }
    }

    /// Whether Python would call this value true, as `args` fields are tested. Objects count as true.
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::Bytes(bytes) => !bytes.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::FrozenSet(items) => {
                !items.is_empty()
            }
            Self::Dict(items) => !items.is_empty(),
            _ => true,
        }
    }
}

impl Object {
    /// `collections.OrderedDict()`: the only callable whose items read as a dict. One that is given items as arguments has more than those
    /// that were set on it.
    fn is_dict(&self) -> bool {
        let is_empty = matches!(&self.args, Value::Tuple(args) if args.is_empty());
        is_empty
            && self.appended.is_empty()
            && matches!(&self.callable, Value::Global(g) if g.is("collections", "OrderedDict"))
    }

    /// See [`Value::tensor`]. Both wrappers hold the plain tensor somewhere in their arguments.
    fn wrapped_tensor(&self) -> Option<&Arc<TensorRef>> {
        let Value::Tuple(args) = &self.args else { return None };
        args.get(self.wraps_at()?)?.tensor()
    }

    /// See [`Value::with_tensor`].
    fn with_tensor(&self, tensor: Value) -> Option<Self> {
        let Value::Tuple(args) = &self.args else { return None };
        let at = self.wraps_at()?;
        let inner = args.get(at)?.with_tensor(tensor)?;
        let args =
            args.iter().enumerate().map(|(index, old)| if index == at { inner.clone() } else { old.clone() });
        Some(Self { args: Value::Tuple(args.collect()), ..self.clone() })
    }

    /// Which argument of a wrapper is the tensor.
    fn wraps_at(&self) -> Option<usize> {
        let Value::Global(callable) = &self.callable else { return None };
        match (&*callable.module, &*callable.name) {
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Some(0),
            // (rebuild function, type, its arguments, state): the decoder has replaced the inner arguments by the tensor.
            // Torch before 1.8 had the function in another module, torch before 1.12 had another version of it.
            ("torch._tensor" | "torch.tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => Some(2),
            _ => None,
        }
    }
}

/// Whether these bytes are the text of a `str` that is no UTF-8: with lone surrogates, encoded as any character would be, and otherwise sound.
#[must_use]
pub fn with_surrogates(mut bytes: &[u8]) -> bool {
    // What Rust calls an error is three bytes here, of which it takes the first for wrong.
    let mut found = false;
    while let Err(error) = std::str::from_utf8(bytes) {
        let rest = bytes.get(error.valid_up_to()..).unwrap_or_default();
        let [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] = rest else { return false };
        (bytes, found) = (after, true);
    }
    found
}
