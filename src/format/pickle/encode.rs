//! Trees to pickles, protocol 2, byte for byte as CPython's C pickler (`Modules/_pickle.c`, 3.11) writes the same objects.
//!
//! What decides the bytes is which objects are *the same*: those are written once and fetched from the memo afterwards. Here containers,
//! objects, text and bytes are the same when their `Arc` pointers are equal, globals when their names are equal. There is one empty `str`
//! and one empty `bytes`, as in CPython. Texts of one character are not always one object there (`str(4)` makes a new one in 3.11).
//!
//! Empty containers that must stay distinct need `Arc`s of their own: `Arc::from(vec![])`, not `Arc::default()`.
//!
//! Not here: tensors (`torch` lowers them to objects, see [`Lower`]).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

#[cfg(feature = "internals")]
use super::lower::AsIs;
use super::lower::Lower;
use super::opcode as op;
use super::{PickleError, emit};
use crate::value::{Construct, Global, Object, Value};

/// Deepest nesting: more than any decoded tree has, little enough for a thread's stack.
const MAX_DEPTH: u32 = 400;

/// CPython interns this name, so one tree never holds two of them.
static LATIN1: LazyLock<Arc<str>> = LazyLock::new(|| "latin1".into());

/// Writes `root` as a pickle of protocol 2.
///
/// # Errors
/// [`PickleError::Tensor`], [`PickleError::TooDeep`], [`PickleError::TooLong`], [`PickleError::GlobalName`].
#[cfg(feature = "internals")]
pub fn encode(root: &Value) -> Result<Vec<u8>, PickleError> {
    encode_lowered(root, &mut AsIs)
}

/// As [`encode`], with values replaced by `lower`.
///
/// # Errors
/// As [`encode`], a tensor only where it was not replaced, and those of `lower`.
pub fn encode_lowered<L: Lower>(root: &Value, lower: &mut L) -> Result<Vec<u8>, L::Error> {
    let mut encoder = Encoder {
        lower,
        lowered: HashMap::new(),
        out: vec![op::PROTO, 2],
        memo: HashMap::new(),
        globals: HashMap::new(),
        in_repeated: false,
        next: 0,
    };
    encoder.value(root, MAX_DEPTH)?;
    encoder.out.push(op::STOP);
    Ok(encoder.out)
}

/// What makes two values the same object: the address of the `Arc`'s content. The tree is borrowed meanwhile, so no address is used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Address(usize);

/// The one empty `str` and the one empty `bytes`. Nothing lies at these addresses.
const EMPTY_STR: Address = Address(0);
const EMPTY_BYTES: Address = Address(1);

struct Encoder<'a, L> {
    lower: &'a mut L,
    /// What stands for values that may be met again.
    lowered: HashMap<Address, Value>,
    out: Vec<u8>,
    /// Objects that may be met again, and their numbers.
    memo: HashMap<Address, u32>,
    globals: HashMap<(Arc<str>, Arc<str>), u32>,
    /// Whether what is being written belongs to a persistent id that is met again: it is written again each time, except for what is in it.
    in_repeated: bool,
    /// Number of objects memoized so far, including those that nothing can refer to again.
    next: u32,
}

impl<L: Lower> Encoder<'_, L> {
    fn value(&mut self, value: &Value, depth: u32) -> Result<(), L::Error> {
        let depth = depth.checked_sub(1).ok_or(PickleError::TooDeep { limit: MAX_DEPTH })?;
        let identity = match value {
            Value::Tensor(tensor) => self.address(tensor),
            Value::Object(object) => self.address(object),
            Value::Persistent(id) => self.address(id),
            _ => return self.plain(value, depth),
        };
        if let Some(known) = identity.and_then(|identity| self.lowered.get(&identity)) {
            let known = known.clone();
            return self.plain(&known, depth);
        }
        let Some(lowered) = self.lower.lower(value)? else { return self.plain(value, depth) };
        if let Some(identity) = identity {
            self.lowered.insert(identity, lowered.clone());
        }
        self.plain(&lowered, depth)
    }

    fn plain(&mut self, value: &Value, depth: u32) -> Result<(), L::Error> {
        match value {
            Value::None => self.out.push(op::NONE),
            Value::Bool(true) => self.out.push(op::NEWTRUE),
            Value::Bool(false) => self.out.push(op::NEWFALSE),
            Value::Int(number) => emit::int(&mut self.out, *number),
            Value::Long(bytes) => emit::long(&mut self.out, bytes)?,
            Value::Float(number) => emit::float(&mut self.out, *number),
            Value::Str(text) => self.str(text)?,
            Value::Surrogates(bytes) => self.surrogates(bytes)?,
            Value::Bytes(bytes) => self.bytes(bytes)?,
            Value::List(items) => {
                let identity = self.address(items);
                if !self.fetch(identity) {
                    self.list(identity, items, depth)?;
                }
            }
            Value::Tuple(items) => self.tuple(items, depth)?,
            Value::Dict(items) => self.dict(items, depth)?,
            Value::Set(items) => self.set("set", items, depth)?,
            Value::FrozenSet(items) => self.set("frozenset", items, depth)?,
            Value::Global(global) => self.global(global)?,
            Value::Object(object) => self.object(object, depth)?,
            Value::Persistent(id) => {
                let around = self.in_repeated;
                self.in_repeated |= Arc::strong_count(id) > 1;
                self.value(id, depth)?;
                self.in_repeated = around;
                self.out.push(op::BINPERSID);
            }
            Value::Tensor(tensor) => {
                return Err(PickleError::Tensor { storage: tensor.storage.key.to_string() }.into());
            }
        }
        Ok(())
    }

    fn str(&mut self, text: &Arc<str>) -> Result<(), PickleError> {
        let identity = if text.is_empty() { Some(EMPTY_STR) } else { self.address(text) };
        if self.fetch(identity) {
            return Ok(());
        }
        emit::text(&mut self.out, text.as_bytes())?;
        self.put(identity);
        Ok(())
    }

    /// Text that is no UTF-8 is written like any other.
    fn surrogates(&mut self, bytes: &Arc<[u8]>) -> Result<(), PickleError> {
        let identity = self.address(bytes);
        if self.fetch(identity) {
            return Ok(());
        }
        emit::text(&mut self.out, bytes)?;
        self.put(identity);
        Ok(())
    }

    /// Protocol 2 has no bytes: they are text, to be encoded back.
    fn bytes(&mut self, bytes: &Arc<[u8]>) -> Result<(), PickleError> {
        let identity = if bytes.is_empty() { Some(EMPTY_BYTES) } else { self.address(bytes) };
        if self.fetch(identity) {
            return Ok(());
        }
        if bytes.is_empty() {
            self.global(&global("__builtin__", "bytes"))?;
            self.out.push(op::EMPTY_TUPLE);
        } else {
            self.global(&global("_codecs", "encode"))?;
            let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            emit::text(&mut self.out, text.as_bytes())?;
            self.put(None);
            // A second reference, so that it counts as shared.
            self.str(&Arc::clone(&LATIN1))?;
            self.out.push(op::TUPLE2);
            self.put(None);
        }
        self.out.push(op::REDUCE);
        self.put(identity);
        Ok(())
    }

    fn list(&mut self, identity: Option<Address>, items: &[Value], depth: u32) -> Result<(), L::Error> {
        self.out.push(op::EMPTY_LIST);
        self.put(identity);
        if let [item] = items {
            self.value(item, depth)?;
            self.out.push(op::APPEND);
            return Ok(());
        }
        for batch in items.chunks(emit::BATCH) {
            self.out.push(op::MARK);
            batch.iter().try_for_each(|item| self.value(item, depth))?;
            self.out.push(op::APPENDS);
        }
        Ok(())
    }

    fn tuple(&mut self, items: &Arc<[Value]>, depth: u32) -> Result<(), L::Error> {
        if items.is_empty() {
            self.out.push(op::EMPTY_TUPLE);
            return Ok(());
        }
        let identity = self.address(items);
        if self.fetch(identity) {
            return Ok(());
        }
        let code = match items.len() {
            1 => op::TUPLE1,
            2 => op::TUPLE2,
            3 => op::TUPLE3,
            _ => {
                self.out.push(op::MARK);
                op::TUPLE
            }
        };
        items.iter().try_for_each(|item| self.value(item, depth))?;
        self.out.push(code);
        self.put(identity);
        Ok(())
    }

    fn dict(&mut self, items: &Arc<[(Value, Value)]>, depth: u32) -> Result<(), L::Error> {
        let identity = self.address(items);
        if self.fetch(identity) {
            return Ok(());
        }
        self.out.push(op::EMPTY_DICT);
        self.put(identity);
        if let [item] = &**items {
            self.pair(item, depth)?;
            self.out.push(op::SETITEM);
            return Ok(());
        }
        for batch in items.chunks(emit::BATCH) {
            self.out.push(op::MARK);
            batch.iter().try_for_each(|item| self.pair(item, depth))?;
            self.out.push(op::SETITEMS);
        }
        // CPython's loop only ends with a batch that is not full.
        if !items.is_empty() && items.len().is_multiple_of(emit::BATCH) {
            self.out.extend([op::MARK, op::SETITEMS]);
        }
        Ok(())
    }

    /// Protocol 2 has no sets: they are a call of `set` with a list.
    fn set(&mut self, name: &str, items: &Arc<[Value]>, depth: u32) -> Result<(), L::Error> {
        let identity = self.address(items);
        if self.fetch(identity) {
            return Ok(());
        }
        self.global(&global("__builtin__", name))?;
        self.list(None, items, depth)?;
        self.out.push(op::TUPLE1);
        self.put(None);
        self.out.push(op::REDUCE);
        self.put(identity);
        Ok(())
    }

    fn global(&mut self, global: &Global) -> Result<(), PickleError> {
        let identity = (Arc::clone(&global.module), Arc::clone(&global.name));
        if let Some(index) = self.globals.get(&identity) {
            emit::get(&mut self.out, *index);
            return Ok(());
        }
        emit::global(&mut self.out, &global.module, &global.name)?;
        self.globals.insert(identity, self.next);
        self.put(None);
        Ok(())
    }

    fn object(&mut self, object: &Arc<Object>, depth: u32) -> Result<(), L::Error> {
        let identity = self.address(object);
        if self.fetch(identity) {
            return Ok(());
        }
        self.value(&object.callable, depth)?;
        self.value(&object.args, depth)?;
        self.out.push(match object.construct {
            Construct::Call => op::REDUCE,
            Construct::New => op::NEWOBJ,
        });
        self.put(identity);
        self.batches(&object.appended, op::APPEND, op::APPENDS, |this, item| this.value(item, depth))?;
        self.batches(&object.items, op::SETITEM, op::SETITEMS, |this, item| this.pair(item, depth))?;
        if let Some(state) = &object.state {
            self.value(state, depth)?;
            self.out.push(op::BUILD);
        }
        Ok(())
    }

    /// Items of an object. CPython takes these from an iterator, so that a last batch of one item is written without a mark, which it
    /// does not do for plain lists and dicts.
    fn batches<T>(
        &mut self,
        items: &[T],
        one: u8,
        many: u8,
        mut write: impl FnMut(&mut Self, &T) -> Result<(), L::Error>,
    ) -> Result<(), L::Error> {
        for batch in items.chunks(emit::BATCH) {
            if let [item] = batch {
                write(self, item)?;
                self.out.push(one);
                continue;
            }
            self.out.push(op::MARK);
            batch.iter().try_for_each(|item| write(self, item))?;
            self.out.push(many);
        }
        Ok(())
    }

    fn pair(&mut self, (key, value): &(Value, Value), depth: u32) -> Result<(), L::Error> {
        self.value(key, depth)?;
        self.value(value, depth).map_err(|error| L::within(error, key))
    }

    /// What `content` is met again as; `None` where nothing else refers to it, so that this is the only time. Most of a checkpoint's values
    /// are such, and remembering them all would take more memory than the pickle.
    fn address<T: ?Sized>(&self, content: &Arc<T>) -> Option<Address> {
        let is_shared = self.in_repeated || Arc::strong_count(content) > 1;
        is_shared.then(|| Address(Arc::as_ptr(content).addr()))
    }

    /// Refers to the object if it was written before.
    fn fetch(&mut self, identity: Option<Address>) -> bool {
        let Some(index) = identity.and_then(|identity| self.memo.get(&identity)) else { return false };
        emit::get(&mut self.out, *index);
        true
    }

    /// Memoizes what was just written. `None` is for an object that is never met again, such as those that exist in CPython's pickler only.
    fn put(&mut self, identity: Option<Address>) {
        emit::put(&mut self.out, self.next);
        if let Some(identity) = identity {
            self.memo.insert(identity, self.next);
        }
        self.next = self.next.wrapping_add(1);
    }
}

fn global(module: &str, name: &str) -> Global {
    Global { module: module.into(), name: name.into() }
}
