//! Synthetic Megatron checkpoints, and the naive answer to what they are in any layout: load everything, join it, cut it.
//!
//! Nothing here uses the crate's families, plans or views: names, cuts and padding are written down a second time, from the formats
//! themselves. Only the codecs (pickle, zip) are the crate's; `tests/it/torch_files.rs` holds those against torch's own files.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

pub mod cases;
pub mod choose;
pub mod dcp;
pub mod dcp_source;
pub mod hf;
pub mod manifest;
pub mod naive;
pub mod optimizer;
#[macro_use]
pub mod run;
pub mod skip;
pub mod source;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ckpt_fs::format::pickle::{self, Limits};
use ckpt_fs::format::torch::{Archive, Content, decode_pickle, records};
use ckpt_fs::format::zip::{Layout, Located, Piece, data_start, find_directory, parse_directory};
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::{Construct, Global, Object, TensorRef, Value};

/// A tensor with its bytes, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// How a tensor is stored in a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Row-major in a storage of its own.
    #[default]
    Own,
    /// All tensors of the file are views into one storage, last tensor first.
    Shared,
    /// Column-major.
    Transposed,
    /// Row-major with room before it, behind it and between its rows.
    Loose,
}

pub fn global(module: &str, name: &str) -> Value {
    Value::Global(Arc::new(Global { module: module.into(), name: name.into() }))
}

pub fn tuple(items: Vec<Value>) -> Value {
    Value::Tuple(items.into())
}

pub fn dict(items: Vec<(String, Value)>) -> Value {
    Value::Dict(items.into_iter().map(|(key, value)| (Value::str(&key), value)).collect())
}

pub fn object(construct: Construct, callable: Value, args: Vec<Value>, state: Option<Value>) -> Value {
    let args = tuple(args);
    Value::Object(Arc::new(Object {
        construct,
        callable,
        args,
        appended: Vec::new(),
        items: Vec::new(),
        state,
    }))
}

pub fn call(module: &str, name: &str, args: Vec<Value>) -> Value {
    object(Construct::Call, global(module, name), args, None)
}

/// `argparse.Namespace(**fields)`
pub fn namespace(fields: &[(String, Value)]) -> Value {
    object(Construct::New, global("argparse", "Namespace"), Vec::new(), Some(dict(fields.to_vec())))
}

/// `collections.OrderedDict` with a `_metadata`.
pub fn ordered_dict(items: Vec<(String, Value)>) -> Value {
    let items = items.into_iter().map(|(key, value)| (Value::str(&key), value)).collect();
    Value::Object(Arc::new(Object {
        construct: Construct::Call,
        callable: global("collections", "OrderedDict"),
        args: tuple(Vec::new()),
        appended: Vec::new(),
        items,
        state: None,
    }))
}

/// The storages of a `.pt` file on its way to disk.
#[derive(Debug, Default)]
pub struct Storages {
    pub contents: Vec<Vec<u8>>,
    /// Where the storages say they are; `cpu` where empty.
    pub location: String,
}

impl Storages {
    pub fn add(&mut self, bytes: Vec<u8>) -> usize {
        self.contents.push(bytes);
        self.contents.len() - 1
    }

    /// The pickled form of a tensor in storage `number` of `bytes` bytes, spelled out as torch does.
    pub fn tensor_at(
        &self,
        dtype: Dtype,
        number: usize,
        bytes: u64,
        offset: u64,
        shape: &[u64],
        strides: &[u64],
    ) -> Value {
        let ints = |numbers: &[u64]| tuple(numbers.iter().map(|n| Value::Int(*n as i64)).collect());
        let class = match dtype {
            Dtype::Float64 => "DoubleStorage",
            Dtype::Float32 => "FloatStorage",
            Dtype::Float16 => "HalfStorage",
            Dtype::Bfloat16 => "BFloat16Storage",
            Dtype::Int64 => "LongStorage",
            Dtype::Int32 => "IntStorage",
            Dtype::Int16 => "ShortStorage",
            Dtype::Int8 => "CharStorage",
            Dtype::Uint8 => "ByteStorage",
            Dtype::Bool => "BoolStorage",
            Dtype::Complex64 => "ComplexFloatStorage",
            Dtype::Complex128 => "ComplexDoubleStorage",
            _ => "",
        };
        let (class, elements) = if class.is_empty() {
            (global("torch.storage", "UntypedStorage"), bytes)
        } else {
            (global("torch", class), bytes / dtype.size())
        };
        let location = if self.location.is_empty() { "cpu" } else { &self.location };
        let id = tuple(vec![
            Value::str("storage"),
            class.clone(),
            Value::str(&number.to_string()),
            Value::str(location),
            Value::Int(elements as i64),
        ]);
        let mut args = vec![
            Value::Persistent(Arc::new(id)),
            Value::Int(offset as i64),
            ints(shape),
            ints(strides),
            Value::Bool(false),
            call("collections", "OrderedDict", Vec::new()),
        ];
        let untyped = matches!(&class, Value::Global(g) if &*g.name == "UntypedStorage");
        if untyped {
            args.push(global("torch", dtype.name()));
        }
        call("torch._utils", if untyped { "_rebuild_tensor_v3" } else { "_rebuild_tensor_v2" }, args)
    }

    /// The pickled form of `array`, stored as `keep` says. (`Shared` is the caller's: see [`Storages::shared`].)
    pub fn tensor(&mut self, array: &Array, keep: Keep) -> Value {
        let (bytes, offset, strides) = array.kept(keep);
        let len = bytes.len() as u64;
        let number = self.add(bytes);
        self.tensor_at(array.dtype, number, len, offset, &array.shape, &strides)
    }

    /// Every array as a view into one storage, the last array first.
    pub fn shared(&mut self, arrays: &[Array]) -> Vec<Value> {
        let element = arrays.iter().map(|array| array.dtype.size()).max().unwrap_or(1) as usize;
        let mut all = vec![0xEE; element * 3];
        let mut starts = vec![0; arrays.len()];
        for (index, array) in arrays.iter().enumerate().rev() {
            starts[index] = all.len() as u64;
            all.extend(&array.bytes);
            all.resize(all.len().next_multiple_of(element), 0xEE);
        }
        let len = all.len() as u64;
        let number = self.add(all);
        let view = |(array, start): (&Array, u64)| {
            let (offset, strides) = (start / array.dtype.size(), array.strides());
            self.tensor_at(array.dtype, number, len, offset, &array.shape, &strides)
        };
        arrays.iter().zip(starts).map(view).collect()
    }
}

impl Array {
    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<u64> {
        (0..self.shape.len()).map(|axis| self.shape[axis + 1..].iter().product()).collect()
    }

    /// Bytes of a storage that holds this array, the element it begins at, and its strides.
    fn kept(&self, keep: Keep) -> (Vec<u8>, u64, Vec<u64>) {
        let size = self.dtype.size() as usize;
        let own = (self.bytes.clone(), 0, self.strides());
        let [rows, columns] = self.shape[..] else { return own };
        let (offset, strides, elements) = match keep {
            Keep::Own | Keep::Shared => return own,
            Keep::Transposed => (0, vec![1, rows], rows * columns),
            Keep::Loose => (5, vec![columns + 3, 1], 5 + rows * (columns + 3)),
        };
        let mut bytes = vec![0xEE; elements as usize * size];
        for (index, element) in self.bytes.chunks(size).enumerate() {
            let (row, column) = (index as u64 / columns, index as u64 % columns);
            let at = (offset + row * strides[0] + column * strides[1]) as usize * size;
            bytes[at..at + size].copy_from_slice(element);
        }
        (bytes, offset, strides)
    }
}

/// The bytes of a `.pt` file.
pub fn pt(tree: &Value, storages: &[Vec<u8>]) -> Vec<u8> {
    pt_of(&pickle::encode(tree).unwrap(), storages)
}

/// The bytes of a `.pt` file with this `data.pkl`.
pub fn pt_of(pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let sizes: Vec<u64> = storages.iter().map(|storage| storage.len() as u64).collect();
    let records = records(pickle.len() as u64, &sizes);
    let contents: Vec<&[u8]> = records
        .iter()
        .map(|record| match &record.content {
            Content::Pickle => pickle,
            Content::Bytes(bytes) => bytes,
            Content::Storage(number) => &storages[*number],
        })
        .collect();
    let specs: Vec<_> = records.iter().map(|record| record.spec.clone()).collect();
    let mut file = Vec::new();
    for piece in Layout::new("archive", &specs).unwrap().pieces {
        match piece {
            Piece::Bytes(bytes) => file.extend(bytes),
            Piece::Record(index) => file.extend(contents[index]),
            Piece::Crc(index) => file.extend(crc32fast::hash(contents[index]).to_le_bytes()),
        }
    }
    file
}

/// A `.pt` file as read.
#[derive(Debug)]
pub struct Pt {
    pub tree: Value,
    /// Path, dtype, shape and bytes of every tensor of the model, in order; `model0/` stands before those of virtual stages.
    pub tensors: Vec<(String, Array)>,
    /// Paths of the model's entries that are not tensors, with what they are.
    pub others: Vec<(String, Value)>,
}

/// The tree in a `.pt` file, and its storages by their keys.
pub fn open_pt(bytes: &[u8]) -> (Value, HashMap<String, Vec<u8>>) {
    let len = bytes.len() as u64;
    let Located::Found(directory) = find_directory(bytes, len).unwrap() else { panic!("no directory") };
    let start = directory.offset as usize;
    let entries = parse_directory(&bytes[start..start + directory.len as usize], &directory, len).unwrap();
    let content = |entry: &ckpt_fs::format::zip::Entry| {
        let at = data_start(&bytes[entry.header_offset as usize..], entry).unwrap() as usize;
        &bytes[at..at + entry.size as usize]
    };
    let archive = Archive::new(entries).unwrap();
    let tree = decode_pickle(content(&archive.pickle), &Limits::default()).unwrap();
    let storages = archive.storages().map(|(key, e)| (key.to_owned(), content(e).to_vec())).collect();
    (tree, storages)
}

/// Reads a rank file from its bytes.
pub fn read_pt(bytes: &[u8]) -> Pt {
    let (tree, storages) = open_pt(bytes);
    let (mut tensors, mut others) = (Vec::new(), Vec::new());
    for (prefix, model) in models(&tree) {
        walk(model, &prefix, &mut |path, value| match value.tensor() {
            Some(tensor) => tensors.push((path, cut_out(tensor, &storages[&*tensor.storage.key]))),
            None => others.push((path, value.clone())),
        });
    }
    Pt { tree, tensors, others }
}

/// The parts of the model in a rank file, with what their paths begin with: nothing, or `model0` and so on.
pub fn models(tree: &Value) -> Vec<(String, &Value)> {
    let numbered = (0..).map_while(|chunk| {
        let key = format!("model{chunk}");
        tree.get(&key).map(|model| (key, model))
    });
    tree.get("model").map(|model| (String::new(), model)).into_iter().chain(numbered).collect()
}

pub fn read_pt_file(path: &Path) -> Pt {
    read_pt(&fs::read(path).unwrap())
}

/// Every leaf of nested dicts with its path.
pub fn walk(value: &Value, prefix: &str, leaf: &mut dyn FnMut(String, &Value)) {
    for (key, value) in value.items().unwrap() {
        let key = key.as_str().unwrap();
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        if value.items().is_some() { walk(value, &path, leaf) } else { leaf(path, value) }
    }
}

/// The elements of a tensor, row-major, one by one.
pub fn cut_out(tensor: &TensorRef, storage: &[u8]) -> Array {
    let size = tensor.dtype.size() as usize;
    let count: u64 = tensor.shape.0.iter().product();
    let mut bytes = Vec::with_capacity(count as usize * size);
    for index in 0..count {
        let (mut rest, mut at) = (index, tensor.offset);
        for (size, stride) in tensor.shape.0.iter().zip(&tensor.strides).rev() {
            at += rest % size * stride;
            rest /= size;
        }
        bytes.extend(&storage[at as usize * size..(at as usize + 1) * size]);
    }
    Array { dtype: tensor.dtype, shape: tensor.shape.0.clone(), bytes }
}

/// Writes a `.pt` file whose storage N has `sizes(N)` bytes; where `storages` has none of them, they are a hole.
pub fn write_sparse(file: &fs::File, tree: &Value, storages: &[Vec<u8>], sizes: &dyn Fn(usize) -> u64) {
    let pickle = pickle::encode(tree).unwrap();
    let lengths: Vec<u64> = (0..storages.len()).map(sizes).collect();
    let records = records(pickle.len() as u64, &lengths);
    let specs: Vec<_> = records.iter().map(|record| record.spec.clone()).collect();
    let layout = Layout::new("archive", &specs).unwrap();
    let mut at = 0;
    for piece in layout.pieces {
        let (bytes, len) = match &piece {
            Piece::Bytes(bytes) => (bytes.as_slice(), bytes.len() as u64),
            Piece::Crc(_) => (&[0; 4][..], 4),
            Piece::Record(index) => {
                let bytes = match &records[*index].content {
                    Content::Pickle => pickle.as_slice(),
                    Content::Bytes(bytes) => bytes,
                    Content::Storage(number) => &storages[*number],
                };
                (bytes, records[*index].spec.size)
            }
        };
        std::os::unix::fs::FileExt::write_all_at(file, bytes, at).unwrap();
        at += len;
    }
    file.set_len(at).unwrap();
}
