//! Zip archives of `torch.save`, read from their central directory by code that shares nothing with the crate's.

use std::collections::BTreeMap;

use super::unpickle::{Id, Node, Pickle};

/// Records by name, as bytes of the file they are in.
pub(crate) struct Archive<'a> {
    pub(crate) records: BTreeMap<String, (usize, &'a [u8])>,
}

/// A tensor of an archive.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
    /// Where its bytes are in the file.
    pub(crate) at: usize,
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |all, byte| all << 8 | *byte as usize)
}

impl<'a> Archive<'a> {
    /// The archive that bytes `start..start + len` of a file are, with real CRCs.
    pub(crate) fn of(file: &'a [u8], start: usize, len: usize) -> Self {
        let bytes = &file[start..start + len];
        let end = &bytes[len - 22..];
        assert_eq!(&end[..4], b"PK\x05\x06");
        let (count, mut at) = (number(&end[10..12]), number(&end[16..20]));
        let mut records = BTreeMap::new();
        for _ in 0..count {
            let entry = &bytes[at..];
            assert_eq!(&entry[..4], b"PK\x01\x02");
            assert_eq!(number(&entry[10..12]), 0, "compressed");
            let (crc, size, name) = (number(&entry[16..20]), number(&entry[24..28]), number(&entry[28..30]));
            let header = number(&entry[42..46]);
            let local = &bytes[header..];
            assert_eq!(&local[..4], b"PK\x03\x04");
            let data = header + 30 + number(&local[26..28]) + number(&local[28..30]);
            let content = &bytes[data..data + size];
            assert_eq!(crc32fast::hash(content) as usize, crc);
            if size > 0 {
                let descriptor = &bytes[data + size..];
                assert_eq!((&descriptor[..4], number(&descriptor[4..8])), (b"PK\x07\x08".as_slice(), crc));
            }
            let text = String::from_utf8(entry[46..46 + name].to_vec()).unwrap();
            records.insert(text, (start + data, content));
            at += 46 + name + number(&entry[30..32]) + number(&entry[32..34]);
        }
        assert_eq!(records.len(), count);
        assert_eq!(records["archive/version"].1, b"3\n");
        assert_eq!(records["archive/byteorder"].1, b"little");
        Self { records }
    }

    pub(crate) fn pickle(&self) -> Pickle {
        Pickle::of(self.records["archive/data.pkl"].1)
    }

    /// The contiguous tensor that a call of torch's rebuilds.
    pub(crate) fn tensor(&self, pickle: &Pickle, id: Id) -> Tensor {
        let (function, args) = pickle.made_by(id);
        let Node::Persistent(storage) = pickle.node(args[0]) else { panic!("no storage") };
        let [word, class, key, place, elements] = pickle.elements(*storage) else { panic!("no storage") };
        assert_eq!((pickle.str(*word), pickle.str(*place)), ("storage", "cpu"));
        let Node::Global(class) = pickle.node(*class) else { panic!("no class") };
        let dtype = match (function, class.as_str()) {
            ("torch._utils._rebuild_tensor_v2", class) => match class {
                "torch.FloatStorage" => "torch.float32",
                "torch.BFloat16Storage" => "torch.bfloat16",
                "torch.LongStorage" => "torch.int64",
                "torch.BoolStorage" => "torch.bool",
                "torch.ByteStorage" => "torch.uint8",
                "torch.ComplexFloatStorage" => "torch.complex64",
                other => panic!("{other}"),
            },
            ("torch._utils._rebuild_tensor_v3", "torch.storage.UntypedStorage") => {
                let Node::Global(dtype) = pickle.node(args[6]) else { panic!("no dtype") };
                dtype
            }
            other => panic!("{other:?}"),
        };
        let (at, bytes) = self.records[&format!("archive/data/{}", pickle.str(*key))];
        let (shape, strides) = (pickle.ints(args[2]), pickle.ints(args[3]));
        let elements = pickle.int(*elements);
        assert_eq!(pickle.int(args[1]), 0, "offset");
        assert_eq!(*pickle.node(args[4]), Node::Bool(false), "requires_grad");
        let mut step = 1;
        for (size, stride) in shape.iter().zip(&strides).rev() {
            assert_eq!(*stride, step, "{shape:?} {strides:?}");
            step *= size.max(&1);
        }
        let width = size(dtype);
        let counted = if function.ends_with("v3") { elements } else { elements * width };
        assert_eq!(bytes.len() as u64, counted);
        assert_eq!(bytes.len() as u64, shape.iter().product::<u64>() * width);
        Tensor { dtype: dtype.to_owned(), shape, bytes: bytes.to_vec(), at }
    }
}

/// Bytes of an element.
pub(crate) fn size(dtype: &str) -> u64 {
    match dtype {
        "torch.complex64" | "torch.int64" => 8,
        "torch.float32" => 4,
        "torch.bfloat16" | "torch.uint16" => 2,
        "torch.bool" | "torch.uint8" | "torch.float8_e4m3fn" => 1,
        other => panic!("{other}"),
    }
}
