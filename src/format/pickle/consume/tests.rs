//! Objects that are taken out of a pickle: what is left is what the tree has, whatever was dropped meanwhile.

use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Limits, consume, decode, encode};
use super::*;
use crate::value::{Object, Value};

const DEPTH: u32 = 150;
const EXPANDED: u64 = 20_000;

/// Takes objects of the class `a.Taken`, and keeps what they were as text.
#[derive(Default)]
struct Keeper {
    kept: Vec<String>,
    shown: usize,
    /// The values around the one that is written, and those that are written of an object. A damaged pickle has lists in themselves, and
    /// throws away what `is_small` never sees.
    depth: Cell<u32>,
    written: Cell<u64>,
}

impl Consumer for Keeper {
    type Error = PickleError;

    fn made(&mut self, made: Made<'_>) -> Result<Option<Taken>, PickleError> {
        self.shown += 1;
        let takes = made.class.is("a", "Taken") && (made.construct == Construct::Call || made.state.is_some());
        if !takes {
            return Ok(None);
        }
        self.written.set(0);
        self.kept.push(self.object(made));
        Ok(Taken::new(self.kept.len() as u32 - 1))
    }
}

impl Keeper {
    fn text(&self, item: Item<'_>) -> String {
        self.written.set(self.written.get() + 1);
        if self.depth.get() > 2 * DEPTH || self.written.get() > 2 * EXPANDED {
            return "much".into();
        }
        self.depth.set(self.depth.get() + 1);
        let text = self.text_within(item);
        self.depth.set(self.depth.get() - 1);
        text
    }

    fn text_within(&self, item: Item<'_>) -> String {
        let all = |items: &mut dyn Iterator<Item = Item<'_>>| items.map(|item| self.text(item)).collect::<Vec<_>>().join(",");
        if let Some(taken) = item.taken() {
            return self.kept[taken.number() as usize].clone();
        }
        if let Some(mut items) = item.list() {
            return format!("[{}]", all(&mut items));
        }
        if let Some(mut items) = item.tuple() {
            return format!("({})", all(&mut items));
        }
        if let Some(items) = item.dict() {
            let items = items.map(|(key, value)| format!("{}:{}", self.text(key), self.text(value)));
            return format!("{{{}}}", items.collect::<Vec<_>>().join(","));
        }
        if let Some(object) = item.object() {
            return self.object(object);
        }
        match (item.int(), item.text(), item.is_none()) {
            (Some(number), ..) => number.to_string(),
            (_, Some(text), _) => format!("{text:?}"),
            (_, _, true) => "None".into(),
            _ => item.kind().into(),
        }
    }

    fn object(&self, made: Made<'_>) -> String {
        let state = made.state.map_or(String::new(), |state| self.text(state));
        format!("{}{:?}{}<{state}>", made.class.name, made.construct, self.text(made.args))
    }
}

/// The same of a tree.
fn text(value: &Value) -> String {
    let all = |items: &[Value]| items.iter().map(text).collect::<Vec<_>>().join(",");
    match value {
        Value::List(items) => format!("[{}]", all(items)),
        Value::Tuple(items) => format!("({})", all(items)),
        Value::Dict(items) => {
            let items = items.iter().map(|(key, value)| format!("{}:{}", text(key), text(value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
        Value::Object(object) => {
            let Value::Global(class) = &object.callable else { return "object".into() };
            if !object.appended.is_empty() || !object.items.is_empty() {
                return "object".into();
            }
            let state = object.state.as_ref().map_or(String::new(), text);
            format!("{}{:?}{}<{state}>", class.name, object.construct, text(&object.args))
        }
        Value::Int(number) => number.to_string(),
        Value::Str(text) => format!("{text:?}"),
        Value::None => "None".into(),
        other => other.kind().into(),
    }
}

/// A tree of `size` values or so, many of them in several places.
fn tree(numbers: &mut impl Iterator<Item = u32>, size: usize) -> Value {
    let mut pool = vec![Value::None, Value::Int(7), Value::str("shared")];
    let mut next = |end: usize| numbers.next().unwrap_or(0) as usize % end.max(1);
    for step in 0..size {
        let mut some = |most: usize, pool: &[Value]| -> Vec<Value> {
            // The latest ones most, so that trees are deep.
            (0..next(most)).map(|_| pool[pool.len() - 1 - next(pool.len()).min(next(pool.len()))].clone()).collect()
        };
        let inner = some(4, &pool);
        let fields = some(3, &pool);
        let dict = |items: Vec<Value>| {
            let items = items.into_iter().enumerate().map(|(n, item)| (Value::str(&format!("field{n}")), item));
            Value::Dict(items.collect())
        };
        let object = |construct, name: &str, appended| {
            let class = Global { module: "a".into(), name: name.into() };
            let state = (construct == Construct::New).then(|| dict(fields.clone()));
            Value::Object(Arc::new(Object {
                construct,
                callable: Value::Global(Arc::new(class)),
                args: Value::Tuple(inner.clone().into()),
                appended,
                items: Vec::new(),
                state,
            }))
        };
        pool.push(match next(9) {
            0 => Value::List(inner.into()),
            1 => Value::Tuple(inner.into()),
            2 => dict(inner),
            3 => Value::Int([3, 300, -5, 1 << 29, 1 << 30, 1 << 31, 1 << 40][next(7)]),
            4 => Value::str(&format!("text{step}")),
            5 => object(Construct::New, "Taken", Vec::new()),
            6 => object(Construct::Call, "Taken", Vec::new()),
            7 => object([Construct::New, Construct::Call][next(2)], "Left", Vec::new()),
            _ => object(Construct::Call, "List", vec![Value::Bool(true)]),
        });
    }
    Value::List(pool.split_off(pool.len().saturating_sub(5)).into())
}

/// A tree that is walked without regard to sharing must not be vast.
fn is_small(bytes: &[u8]) -> bool {
    decode(bytes, &Limits { depth: DEPTH, expanded: EXPANDED }).is_ok()
}

proptest! {
    #[test]
    fn what_was_taken_and_what_is_left_are_the_tree(numbers in proptest::collection::vec(any::<u32>(), 50..600), size in 0usize..60) {
        let tree = tree(&mut numbers.into_iter(), size);
        let bytes = encode(&tree).unwrap();
        prop_assume!(is_small(&bytes));
        let left = consume(&bytes, Keeper::default(), |keeper, root| Ok::<_, PickleError>(keeper.text(root))).unwrap();
        prop_assert_eq!(left, text(&decode(&bytes, &Limits::default()).unwrap()));
    }

    #[test]
    fn what_is_damaged_is_refused_alike(
        numbers in proptest::collection::vec(any::<u32>(), 50..300),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&tree(&mut numbers.into_iter(), 20)).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let consumed = consume(&bytes, Keeper::default(), |keeper, root| {
            Ok::<_, PickleError>(if is_small(&bytes) { keeper.text(root) } else { String::new() })
        });
        match (decode(&bytes, &Limits::default()), consumed) {
            (Ok(tree), Ok(left)) if is_small(&bytes) => prop_assert_eq!(left, text(&tree)),
            // What is done to an object after it was taken is refused; that a tree is deep, or a key in it twice, is nothing to the machine.
            (Ok(_), _) | (Err(_), Err(_)) => {}
            (Err(PickleError::TooDeep { .. } | PickleError::TooLarge { .. } | PickleError::Cycle { .. } | PickleError::DuplicateKey { .. }), Ok(_)) => {}
            (Err(error), Ok(left)) => prop_assert!(false, "{error}: {left}"),
        }
    }
}

#[test]
fn an_object_that_is_memoized_before_it_is_taken_is_the_same_afterwards() {
    // [x, x, (x,)], x = a.Taken.__new__(); x.__setstate__({}), in both protocols.
    for bytes in [&b"\x80\x02](ca\nTaken\n)\x81q\x00}bh\x00h\x00\x85e."[..], b"\x80\x04](\x8c\x01a\x8c\x05Taken\x93)\x81\x94}bh\x00h\x00\x85e."] {
        let left = consume(bytes, Keeper::default(), |keeper, root| {
            let items: Vec<Option<Taken>> = root.list().unwrap().map(Item::taken).collect();
            assert_eq!(items, [Taken::new(0), Taken::new(0), None]);
            // It was shown when it was made, and with its state.
            assert_eq!((keeper.shown, keeper.kept.len()), (2, 1));
            Ok::<_, PickleError>(keeper.text(root))
        });
        assert_eq!(left.unwrap(), "[TakenNew()<{}>,TakenNew()<{}>,(TakenNew()<{}>)]");
    }
}

#[test]
fn what_was_taken_is_finished() {
    for (bytes, found) in [
        (&b"\x80\x02ca\nTaken\n)RN\x62."[..], "an object without state, found finished object"),
        (b"\x80\x02ca\nTaken\n)RNa.", "a list or a new object, found finished object"),
        (b"\x80\x02ca\nTaken\n)RNNs.", "found finished object"),
        (b"\x80\x02K\x07Na.", "found int"),
        (b"\x80\x04K\x07\x8c\x01a\x93.", "a str, found int"),
    ] {
        let error = consume(bytes, Keeper::default(), |_, _| Ok::<_, PickleError>(())).unwrap_err().to_string();
        assert!(error.contains(found), "{error}");
    }
}

#[test]
fn numbers_of_entries_are_those_of_all_of_them() {
    // Both ways of numbering: then every entry is kept.
    for bytes in [
        &b"\x80\x04]\x94(K\x01\x94K\x02\x94h\x02h\x01e."[..],
        b"\x80\x04]\x94(K\x01q\x05K\x02\x94h\x05h\x02e.",
        b"\x80\x02]q\x00(K\x01q\x01K\x02r\xff\x00\x00\x00h\x01j\xff\x00\x00\x00e.",
        b"\x80\x02](K\x01p7\nK\x02r\xff\xff\xff\xffg7\nj\xff\xff\xff\xffe.",
        b"\x80\x02](K\x01q\x00K\x02q\x00h\x00e.",
    ] {
        let left = consume(bytes, Keeper::default(), |keeper, root| Ok::<_, PickleError>(keeper.text(root)));
        assert_eq!(left, decode(bytes, &Limits::default()).map(|tree| text(&tree)));
    }
    let unknown = consume(b"\x80\x02h\x07.", Keeper::default(), |_, _| Ok::<_, PickleError>(()));
    assert!(matches!(unknown, Err(PickleError::UnknownMemo { index: 7, .. })));
}

#[test]
fn what_was_taken_stands_in_the_order_of_the_pickle() {
    // A thousand objects of a hundred numbers each.
    let object = [&b"ca\nTaken\n)\x81}X\x01\0\0\0x]("[..], &b"M\x00\x01".repeat(100), b"esb"].concat();
    let bytes = [&b"\x80\x02]("[..], &object.repeat(1000), b"e."].concat();
    struct Counter(u32);
    impl Consumer for Counter {
        type Error = PickleError;
        fn made(&mut self, made: Made<'_>) -> Result<Option<Taken>, PickleError> {
            let taken = made.state.and_then(|_| Taken::new(self.0));
            self.0 += u32::from(taken.is_some());
            Ok(taken)
        }
    }
    let numbers = consume(&bytes, Counter(0), |_, root| {
        Ok::<_, PickleError>(root.list().unwrap().map(|item| item.taken().unwrap().number()).collect::<Vec<_>>())
    });
    assert_eq!(numbers.unwrap(), (0..1000).collect::<Vec<_>>());
    assert_eq!((Taken::new(u32::MAX), Taken::new(1 << 31)), (None, None));
}
