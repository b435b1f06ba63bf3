//! A pickler of `.metadata`, op by op as CPython writes it: protocol 4 as torch does, or protocol 2.

use std::collections::HashMap;

use super::{Doc, Step, Stored, Tensor};

const METADATA: &str = "torch.distributed.checkpoint.metadata";
const SHARDED: &str = "torch.distributed._shard.sharded_tensor.metadata";
const PLANNER: &str = "torch.distributed.checkpoint.planner";

/// What differs between versions, and what tests spoil.
#[derive(Debug, Clone)]
pub struct Style {
    /// 2 or 4.
    pub protocol: u8,
    /// Properties under the path of torch 2.2.
    pub old_classes: bool,
    /// Items of a tensor's properties.
    pub properties: usize,
    pub layout: &'static str,
    /// With the plans of ranks, which share chunks and properties with the rest; their class is Megatron's.
    pub plans: bool,
    /// Class of what describes an object.
    pub bytes_class: &'static str,
    /// Another field of each chunk.
    pub chunk_field: Option<&'static str>,
    /// Another field of the root.
    pub field: Option<&'static str>,
    /// Another name in `mcore_data`.
    pub original_field: Option<&'static str>,
    /// Class of the root.
    pub root: &'static str,
    /// A value in the place of `planner_data`.
    pub odd_paths: bool,
    /// The same key again.
    pub key_twice: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            protocol: 4,
            old_classes: false,
            properties: 6,
            layout: "torch.strided",
            plans: false,
            bytes_class: "BytesStorageMetadata",
            chunk_field: None,
            field: None,
            original_field: None,
            root: "Metadata",
            odd_paths: false,
            key_twice: false,
        }
    }
}

impl Doc {
    /// The bytes of the file.
    pub fn pickle(&self, style: &Style) -> Vec<u8> {
        let mut pickler = Pickler { out: Vec::new(), style: style.clone(), texts: HashMap::new(), next: 0 };
        pickler.metadata(self);
        pickler.out.push(b'.');
        let mut bytes = vec![0x80, style.protocol];
        if style.protocol >= 4 {
            bytes.push(0x95);
            bytes.extend((pickler.out.len() as u64).to_le_bytes());
        }
        bytes.extend(pickler.out);
        bytes
    }
}

struct Pickler {
    out: Vec<u8>,
    style: Style,
    /// Numbers of texts and globals that were written.
    texts: HashMap<(String, String), u32>,
    next: u32,
}

impl Pickler {
    fn op(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
    }

    fn memoize(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        match (self.style.protocol, u8::try_from(number)) {
            (4.., _) => self.op(b"\x94"),
            (_, Ok(small)) => self.op(&[b'q', small]),
            _ => {
                self.op(b"r");
                self.op(&number.to_le_bytes());
            }
        }
        number
    }

    fn get(&mut self, number: u32) {
        match u8::try_from(number) {
            Ok(small) => self.op(&[b'h', small]),
            Err(_) => {
                self.op(b"j");
                self.op(&number.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) {
        let key = (String::new(), text.to_owned());
        if let Some(number) = self.texts.get(&key) {
            return self.get(*number);
        }
        match u8::try_from(text.len()) {
            Ok(len) if self.style.protocol >= 4 => self.op(&[0x8c, len]),
            _ => {
                self.op(b"X");
                self.op(&u32::try_from(text.len()).unwrap().to_le_bytes());
            }
        }
        self.op(text.as_bytes());
        let number = self.memoize();
        self.texts.insert(key, number);
    }

    fn global(&mut self, module: &str, name: &str) {
        let key = (module.to_owned(), name.to_owned());
        if let Some(number) = self.texts.get(&key) {
            return self.get(*number);
        }
        if self.style.protocol >= 4 {
            self.text(module);
            self.text(name);
            self.op(b"\x93");
        } else {
            self.op(format!("c{module}\n{name}\n").as_bytes());
        }
        let number = self.memoize();
        self.texts.insert(key, number);
    }

    fn int(&mut self, number: i64) {
        if let Ok(small) = u8::try_from(number) {
            self.op(&[b'K', small]);
        } else if let Ok(small) = u16::try_from(number) {
            self.op(b"M");
            self.op(&small.to_le_bytes());
        } else if let Ok(small) = i32::try_from(number) {
            self.op(b"J");
            self.op(&small.to_le_bytes());
        } else {
            self.op(b"\x8a\x08");
            self.op(&number.to_le_bytes());
        }
    }

    fn ints(&mut self, numbers: &[i64]) {
        if numbers.is_empty() {
            return self.op(b")");
        }
        if numbers.len() > 3 {
            self.op(b"(");
        }
        numbers.iter().for_each(|number| self.int(*number));
        self.op(match numbers.len() {
            1 => b"\x85",
            2 => b"\x86",
            3 => b"\x87",
            _ => b"t",
        });
        self.memoize();
    }

    fn size(&mut self, numbers: &[i64]) {
        self.global("torch", "Size");
        self.ints(numbers);
        self.call();
    }

    /// Of one argument.
    fn call(&mut self) {
        self.op(b"\x85");
        self.memoize();
        self.op(b"R");
        self.memoize();
    }

    /// A new object and the start of its fields; the number that it is fetched by.
    fn object(&mut self, module: &str, class: &str) -> u32 {
        self.global(module, class);
        self.op(b")\x81");
        self.memoize()
    }

    fn dict(&mut self) {
        self.op(b"}");
        self.memoize();
        self.op(b"(");
    }

    fn properties(&mut self, dtype: &str) -> u32 {
        let module = if self.style.old_classes { SHARDED } else { METADATA };
        let number = self.object(module, "TensorProperties");
        self.op(b"(");
        let count = self.style.properties;
        if count > 0 {
            self.global("torch", dtype);
            self.global("torch.serialization", "_get_layout");
            self.text(self.style.layout);
            self.call();
            self.op(b"\x89");
            self.global(
                module,
                if self.style.old_classes { "MEM_FORMAT_ENCODING" } else { "_MEM_FORMAT_ENCODING" },
            );
            self.int(0);
            self.call();
            self.op(b"\x89");
            for extra in 5..count {
                self.ints(&[extra as i64, 1]);
            }
        }
        self.op(b"t");
        self.memoize();
        self.op(b"b");
        number
    }

    fn chunk(&mut self, offsets: &[i64], sizes: &[i64]) -> u32 {
        let number = self.object(METADATA, "ChunkStorageMetadata");
        self.dict();
        self.text("offsets");
        self.size(offsets);
        self.text("sizes");
        self.size(sizes);
        if let Some(field) = self.style.chunk_field {
            self.text(field);
            self.op(b"N");
        }
        self.op(b"ub");
        number
    }

    /// Numbers of its properties and chunks.
    fn tensor(&mut self, tensor: &Tensor) -> (u32, Vec<u32>) {
        self.object(METADATA, "TensorStorageMetadata");
        self.dict();
        self.text("properties");
        let properties = self.properties(&tensor.dtype);
        self.text("size");
        self.size(&tensor.size);
        self.text("chunks");
        self.op(b"]");
        self.memoize();
        self.op(b"(");
        let chunks = tensor.chunks.iter().map(|(offsets, sizes)| self.chunk(offsets, sizes)).collect();
        self.op(b"eub");
        (properties, chunks)
    }

    fn index(&mut self, key: &str, offsets: Option<&Vec<i64>>) {
        self.object(METADATA, "MetadataIndex");
        self.dict();
        self.text("fqn");
        self.text(key);
        self.text("index");
        self.op(b"N");
        if let Some(offsets) = offsets {
            self.text("offset");
            self.size(offsets);
        }
        self.op(b"ub");
    }

    fn stored(&mut self, stored: &Stored) {
        self.index(&stored.key, stored.offsets.as_ref());
        self.object("torch.distributed.checkpoint.filesystem", "_StorageInfo");
        self.dict();
        self.text("relative_path");
        self.text(&stored.path);
        self.text("offset");
        self.int(stored.offset);
        self.text("length");
        self.int(stored.len);
        if let Some(transforms) = &stored.transforms {
            self.text("transform_descriptors");
            self.op(b"](");
            transforms.iter().for_each(|name| self.text(name));
            self.op(b"e");
        }
        self.op(b"ub");
    }

    fn metadata(&mut self, doc: &Doc) {
        self.object(METADATA, self.style.root);
        self.dict();
        self.text("state_dict_metadata");
        self.dict();
        let mut shared = Vec::new();
        for tensor in &doc.tensors {
            for _ in 0..=u8::from(self.style.key_twice) {
                self.text(&tensor.key);
                shared.push(self.tensor(tensor));
            }
        }
        for key in &doc.objects {
            self.text(key);
            self.object(METADATA, self.style.bytes_class);
        }
        self.op(b"u");
        self.text("planner_data");
        match &doc.paths {
            None if self.style.odd_paths => self.op(b"](K\x01e"),
            None => self.op(b"N"),
            Some(paths) => self.paths(paths),
        }
        self.text("storage_data");
        self.dict();
        doc.stored.iter().for_each(|stored| self.stored(stored));
        self.op(b"u");
        self.text("storage_meta");
        self.global("pathlib", "PosixPath");
        self.text("/home/who/saved/it");
        self.call();
        if let Some(version) = &doc.version {
            self.text("version");
            self.text(version);
        }
        if !doc.originals.is_empty() {
            self.originals(&doc.originals);
        }
        if self.style.plans {
            self.plans(doc, &shared);
        }
        if let Some(field) = self.style.field {
            self.text(field);
            self.op(b"N");
        }
        self.op(b"ub");
    }

    fn paths(&mut self, paths: &[(String, Vec<Step>)]) {
        self.dict();
        for (key, steps) in paths {
            self.text(key);
            self.op(b"(");
            for step in steps {
                match step {
                    Step::Key(key) => self.text(key),
                    Step::Number(number) => self.int(*number),
                }
            }
            self.op(b"t");
            self.memoize();
        }
        self.op(b"u");
    }

    fn originals(&mut self, originals: &[(String, Option<Vec<i64>>)]) {
        self.text("mcore_data");
        self.dict();
        for (key, shape) in originals {
            self.text(key);
            self.dict();
            if let Some(shape) = shape {
                self.text("nd_reformulated_orig_global_shape");
                self.ints(shape);
            }
            if let Some(field) = self.style.original_field {
                self.text(field);
                self.op(b"N");
            }
            self.op(b"u");
        }
        self.op(b"u");
    }

    /// Every chunk once more, as the plan of one rank has it.
    fn plans(&mut self, doc: &Doc, shared: &[(u32, Vec<u32>)]) {
        self.text("all_local_plans");
        self.op(b"](");
        self.object("megatron.core.dist_checkpointing.strategies.torch", "MCoreSavePlan");
        self.dict();
        self.text("items");
        self.op(b"](");
        for (tensor, (properties, chunks)) in doc.tensors.iter().zip(shared) {
            for ((offsets, _), chunk) in tensor.chunks.iter().zip(chunks) {
                self.object(PLANNER, "WriteItem");
                self.dict();
                self.text("index");
                self.index(&tensor.key, Some(offsets));
                self.text("tensor_data");
                self.object(PLANNER, "TensorWriteData");
                self.dict();
                self.text("chunk");
                self.get(*chunk);
                self.text("properties");
                self.get(*properties);
                self.text("size");
                self.size(&tensor.size);
                self.op(b"ubub");
            }
        }
        self.op(b"eube");
    }
}
