//! A pickle of protocol 2 written part by part, where the tree of it would be many times its size: one call is one value or one opcode.
//!
//! Texts and globals are written once and fetched from the memo afterwards; nothing else is memoized. Not here: trees (`encode`), and
//! whether the calls make one value: who calls them knows what is on the stack.

use std::collections::HashMap;

use super::PickleError;
use super::emit::{self, BATCH, Sink};
use super::opcode as op;

/// Writes to `S`. Texts live as long as `'t`.
#[derive(Debug)]
pub struct Writer<'t, S> {
    out: S,
    texts: HashMap<&'t str, u32>,
    globals: HashMap<(&'t str, &'t str), u32>,
    /// Number of values memoized so far.
    next: u32,
}

impl<'t, S: Sink> Writer<'t, S> {
    /// Begins a pickle.
    pub fn new(mut out: S) -> Self {
        out.put(&[op::PROTO, 2]);
        Self { out, texts: HashMap::new(), globals: HashMap::new(), next: 0 }
    }

    /// Ends the pickle. What is left on the stack is its value.
    pub fn finish(mut self) -> S {
        self.out.put(&[op::STOP]);
        self.out
    }

    /// `None`
    pub fn none(&mut self) {
        self.out.put(&[op::NONE]);
    }

    /// `True` or `False`
    pub fn bool(&mut self, flag: bool) {
        self.out.put(&[if flag { op::NEWTRUE } else { op::NEWFALSE }]);
    }

    /// An `int`.
    pub fn int(&mut self, number: i64) {
        emit::int(&mut self.out, number);
    }

    /// An `int` that is a size or a place.
    pub fn unsigned(&mut self, number: u64) {
        emit::unsigned(&mut self.out, number);
    }

    /// A `str`.
    ///
    /// # Errors
    /// [`PickleError::TooLong`]
    pub fn text(&mut self, text: &'t str) -> Result<(), PickleError> {
        if let Some(index) = self.texts.get(text) {
            emit::get(&mut self.out, *index);
            return Ok(());
        }
        emit::text(&mut self.out, text.as_bytes())?;
        let index = self.memoize();
        self.texts.insert(text, index);
        Ok(())
    }

    /// The class or function `module.name`.
    ///
    /// # Errors
    /// [`PickleError::GlobalName`]
    pub fn global(&mut self, module: &'t str, name: &'t str) -> Result<(), PickleError> {
        if let Some(index) = self.globals.get(&(module, name)) {
            emit::get(&mut self.out, *index);
            return Ok(());
        }
        emit::global(&mut self.out, module, name)?;
        let index = self.memoize();
        self.globals.insert((module, name), index);
        Ok(())
    }

    /// A `tuple` of what `items` writes.
    ///
    /// # Errors
    /// Those of `items`.
    pub fn tuple<E>(&mut self, items: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.out.put(&[op::MARK]);
        items(self)?;
        self.out.put(&[op::TUPLE]);
        Ok(())
    }

    /// A `list` with a value for each of `items`.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn list<I, E>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        write: impl FnMut(&mut Self, I) -> Result<(), E>,
    ) -> Result<(), E> {
        self.out.put(&[op::EMPTY_LIST]);
        self.batches(items, op::APPENDS, write)
    }

    /// A `dict` with a key and a value for each of `items`.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn dict<I, E>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        write: impl FnMut(&mut Self, I) -> Result<(), E>,
    ) -> Result<(), E> {
        self.out.put(&[op::EMPTY_DICT]);
        self.batches(items, op::SETITEMS, write)
    }

    /// A `dict` of a few keys and values, which `items` writes in turn.
    ///
    /// # Errors
    /// Those of `items`.
    pub fn fields<E>(&mut self, items: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.out.put(&[op::EMPTY_DICT, op::MARK]);
        items(self)?;
        self.out.put(&[op::SETITEMS]);
        Ok(())
    }

    /// An instance of the class `module.name` on which no `__init__` was called.
    ///
    /// # Errors
    /// [`PickleError::GlobalName`]
    pub fn instance(&mut self, module: &'t str, name: &'t str) -> Result<(), PickleError> {
        self.global(module, name)?;
        self.out.put(&[op::EMPTY_TUPLE, op::NEWOBJ]);
        Ok(())
    }

    /// Gives the state on the stack to the instance under it.
    pub fn build(&mut self) {
        self.out.put(&[op::BUILD]);
    }

    /// Calls the function with the tuple of arguments that lies on it.
    pub fn reduce(&mut self) {
        self.out.put(&[op::REDUCE]);
    }

    fn batches<I, E>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        code: u8,
        mut write: impl FnMut(&mut Self, I) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut open = 0;
        for item in items {
            if open == BATCH {
                self.out.put(&[code]);
                open = 0;
            }
            if open == 0 {
                self.out.put(&[op::MARK]);
            }
            write(self, item)?;
            open += 1;
        }
        if open > 0 {
            self.out.put(&[code]);
        }
        Ok(())
    }

    fn memoize(&mut self) -> u32 {
        let index = self.next;
        emit::put(&mut self.out, index);
        // Each takes bytes of the pickle: a pickle with so many is never written.
        self.next = self.next.wrapping_add(1);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pickle::{Count, Limits, decode, encode};
    use crate::value::Value;

    /// The same through the writer, part by part, and through the tree.
    #[test]
    fn what_is_written_part_by_part_is_a_pickle_too() {
        let many: Vec<u64> = (0..2500).collect();
        let write = |writer: &mut Writer<'_, Vec<u8>>| -> Result<(), PickleError> {
            writer.instance("m", "C")?;
            writer.fields(|writer| {
                writer.text("many")?;
                writer.list(&many, |writer, number| {
                    writer.unsigned(*number);
                    Ok::<_, PickleError>(())
                })?;
                writer.text("dict")?;
                writer.dict(["many", "dict", "m"], |writer, key| {
                    writer.text(key)?;
                    writer.tuple(|writer| writer.text("m"))
                })?;
                writer.text("others")?;
                writer.global("m", "f")?;
                writer.tuple(|writer| {
                    writer.none();
                    writer.bool(true);
                    writer.int(-3);
                    writer.unsigned(u64::MAX);
                    writer.global("m", "C")
                })?;
                writer.reduce();
                Ok::<_, PickleError>(())
            })?;
            writer.build();
            Ok(())
        };
        let mut writer = Writer::new(Vec::new());
        write(&mut writer).unwrap();
        let bytes = writer.finish();
        let value = decode(&bytes, &Limits::default()).unwrap();
        let Value::Object(object) = &value else { panic!("{value:?}") };
        let items = value.attribute("many").unwrap().elements().unwrap();
        assert!(items.iter().map(|item| item.as_int().unwrap() as u64).eq(many.iter().copied()));
        let state = object.state.as_ref().unwrap();
        let dict = state.get("dict").unwrap();
        assert_eq!(format!("{:?}", dict.get("dict").unwrap()), r#"Tuple([Str("m")])"#);
        let others = format!("{:?}", state.get("others").unwrap());
        for part in ["None, Bool(true), Int(-3)", "Long([255, 255, 255, 255, 255, 255, 255, 255, 0])"] {
            assert!(others.contains(part), "{others}");
        }
        // A text is written once, a class as well, and containers are closed every thousand items.
        let count = |what: &[u8]| bytes.windows(what.len()).filter(|window| *window == what).count();
        assert_eq!((count(b"X\x04\x00\x00\x00many"), count(b"cm\nC\n")), (1, 1));
        assert_eq!(count(&[op::APPENDS, op::MARK]), 2);
        // Encoding the tree names the same things, so it holds the same.
        assert_eq!(format!("{:?}", decode(&encode(&value).unwrap(), &Limits::default()).unwrap()), format!("{value:?}"));
    }

    #[test]
    fn counting_is_writing_without_the_bytes() {
        fn write<S: Sink>(out: S) -> S {
            let mut writer = Writer::new(out);
            writer.dict(["a", "b"], |writer, key| {
                writer.text(key)?;
                writer.global("torch", "Size")
            }).unwrap();
            writer.finish()
        }
        assert_eq!(write(Count::default()).0, write(Vec::new()).len() as u64);
        assert!(matches!(Writer::new(Count::default()).global("a\nb", "c"), Err(PickleError::GlobalName { .. })));
    }
}
