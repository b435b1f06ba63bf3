//! A small interpreter of pickles of protocol 2 that shares no code with the crate's.

use std::collections::HashMap;

/// A value by its number: values are filled after others refer to them.
pub(crate) type Id = usize;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`
    Global(String),
    /// What `class` or function makes of these arguments, with this state.
    Object {
        callable: Id,
        args: Id,
        is_called: bool,
        state: Option<Id>,
    },
    Persistent(Id),
}

#[derive(Debug, Default)]
pub(crate) struct Pickle {
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    pub(crate) root: Id,
}

impl Pickle {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut this = Self::default();
        let mut at = 0;
        while !this.step(bytes, &mut at) {}
        assert_eq!(at, bytes.len(), "bytes follow the pickle");
        assert_eq!((this.stack.len(), this.marks.len()), (1, 0));
        this.root = this.stack[0];
        this
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(crate) fn items(&self, id: Id) -> &[(Id, Id)] {
        let Node::Dict(items) = self.node(id) else { panic!("{:?} is no dict", self.node(id)) };
        items
    }

    /// The value under a key of a dict, or in the state of an object.
    pub(crate) fn get(&self, id: Id, key: &str) -> Option<Id> {
        let dict = match self.node(id) {
            Node::Object { state: Some(state), .. } => *state,
            _ => id,
        };
        self.items(dict).iter().find(|(k, _)| self.str(*k) == key).map(|(_, value)| *value)
    }

    pub(crate) fn field(&self, id: Id, key: &str) -> Id {
        self.get(id, key).unwrap_or_else(|| panic!("no {key} in {:?}", self.node(id)))
    }

    /// Names of the fields of an object.
    pub(crate) fn fields(&self, id: Id) -> Vec<&str> {
        let Node::Object { state: Some(state), .. } = self.node(id) else { panic!("no state") };
        self.items(*state).iter().map(|(key, _)| self.str(*key)).collect()
    }

    pub(crate) fn str(&self, id: Id) -> &str {
        let Node::Str(text) = self.node(id) else { panic!("{:?} is no str", self.node(id)) };
        text
    }

    pub(crate) fn int(&self, id: Id) -> u64 {
        let Node::Int(number) = self.node(id) else { panic!("{:?} is no int", self.node(id)) };
        u64::try_from(*number).unwrap()
    }

    pub(crate) fn elements(&self, id: Id) -> &[Id] {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => items,
            other => panic!("{other:?} is no list"),
        }
    }

    /// The class of an instance or the function of a call, and its arguments.
    pub(crate) fn made_by(&self, id: Id) -> (&str, &[Id]) {
        let Node::Object { callable, args, .. } = self.node(id) else { panic!("{:?}", self.node(id)) };
        let Node::Global(name) = self.node(*callable) else { panic!("{:?}", self.node(*callable)) };
        (name, self.elements(*args))
    }

    /// A `torch.Size`.
    pub(crate) fn size(&self, id: Id) -> Vec<u64> {
        let (name, args) = self.made_by(id);
        assert_eq!((name, args.len()), ("torch.Size", 1));
        self.ints(args[0])
    }

    pub(crate) fn ints(&self, id: Id) -> Vec<u64> {
        self.elements(id).iter().map(|id| self.int(*id)).collect()
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    fn pop(&mut self) -> Id {
        assert!(self.marks.last().is_none_or(|mark| *mark < self.stack.len()), "a mark is popped");
        self.stack.pop().unwrap()
    }

    fn popped_to_mark(&mut self) -> Vec<Id> {
        let mark = self.marks.pop().unwrap();
        self.stack.split_off(mark)
    }

    fn tuple(&mut self, len: usize) {
        let items = self.stack.split_off(self.stack.len() - len);
        self.push(Node::Tuple(items));
    }

    fn append(&mut self, items: Vec<Id>) {
        let Node::List(list) = &mut self.nodes[*self.stack.last().unwrap()] else { panic!("no list") };
        list.extend(items);
    }

    fn set(&mut self, items: &[Id]) {
        let Node::Dict(dict) = &mut self.nodes[*self.stack.last().unwrap()] else { panic!("no dict") };
        dict.extend(items.chunks(2).map(|pair| (pair[0], pair[1])));
    }

    fn make(&mut self, is_called: bool) {
        let args = self.pop();
        let callable = self.pop();
        self.push(Node::Object { callable, args, is_called, state: None });
    }

    /// One opcode; whether it was the last.
    fn step(&mut self, bytes: &[u8], at: &mut usize) -> bool {
        let mut take = |count: usize| {
            *at += count;
            &bytes[*at - count..*at]
        };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        match take(1)[0] {
            0x80 => assert_eq!(take(1), [2], "protocol"),
            b'.' => return true,
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' => self.push(Node::Int(i128::from(number(take(1))))),
            b'M' => self.push(Node::Int(i128::from(number(take(2))))),
            b'J' => self.push(Node::Int(i128::from(number(take(4)) as i32))),
            0x8a => {
                let len = take(1)[0] as usize;
                let digits = take(len);
                let wide = digits.iter().rev().fold(0i128, |all, byte| all << 8 | i128::from(*byte));
                let negative = digits.last().is_some_and(|top| *top >= 0x80);
                self.push(Node::Int(if negative { wide - (1 << (8 * len)) } else { wide }));
            }
            b'G' => self.push(Node::Float(f64::from_be_bytes(take(8).try_into().unwrap()))),
            b'X' => {
                let len = number(take(4)) as usize;
                self.push(Node::Str(String::from_utf8(take(len).to_vec()).unwrap()));
            }
            b'c' => {
                let mut line = || {
                    let len = bytes[*at..].iter().position(|byte| *byte == b'\n').unwrap();
                    *at += len + 1;
                    String::from_utf8(bytes[*at - len - 1..*at - 1].to_vec()).unwrap()
                };
                let (module, name) = (line(), line());
                self.push(Node::Global(format!("{module}.{name}")));
            }
            b'q' => drop(self.memo.insert(number(take(1)), *self.stack.last().unwrap())),
            b'r' => drop(self.memo.insert(number(take(4)), *self.stack.last().unwrap())),
            b'h' => self.stack.push(self.memo[&number(take(1))]),
            b'j' => self.stack.push(self.memo[&number(take(4))]),
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85 => self.tuple(1),
            0x86 => self.tuple(2),
            0x87 => self.tuple(3),
            b't' => {
                let items = self.popped_to_mark();
                self.push(Node::Tuple(items));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'a' => {
                let item = self.pop();
                self.append(vec![item]);
            }
            b'e' => {
                let items = self.popped_to_mark();
                self.append(items);
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b's' => {
                let (value, key) = (self.pop(), self.pop());
                self.set(&[key, value]);
            }
            b'u' => {
                let items = self.popped_to_mark();
                self.set(&items);
            }
            0x81 => self.make(false),
            b'R' => self.make(true),
            b'b' => {
                let given = self.pop();
                let Node::Object { state, .. } = &mut self.nodes[*self.stack.last().unwrap()] else {
                    panic!("a state for no object");
                };
                assert!(state.replace(given).is_none());
            }
            b'Q' => {
                let id = self.pop();
                self.push(Node::Persistent(id));
            }
            other => panic!("opcode {other:02x} at {at}"),
        }
        false
    }
}
