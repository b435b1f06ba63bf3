//! Distributed checkpoints as torch would save them, of arrays cut into any boxes. The crate writes the container, whose bytes other tests hold
//! against torch's; keys and cuts are written down here.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ckpt_fs::format::dcp::write::Path as KeyPath;
use ckpt_fs::format::dcp::write::{Chunks, Content, Directory, Object, Part, Payload, Spec, Step, Tensor};
use ckpt_fs::tensor::Shape;
use ckpt_fs::value::Value;

use super::Array;

/// A box: offsets, sizes, and the data file that it is in.
pub type Cell = (Vec<u64>, Vec<u64>, u32);

/// What is saved.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub tensors: Vec<(String, Array, Vec<Cell>)>,
    pub objects: Vec<(String, Value)>,
    /// Where each key stands in nested dicts, where that is saved.
    pub paths: Option<Vec<(String, Vec<String>)>>,
    pub files: u32,
}

/// How FSDP cuts the first axis for so many ranks; ranks beyond the end have empty parts.
pub fn rows(shape: &[u64], ranks: u32) -> Vec<Cell> {
    let Some(size) = shape.first().copied() else { return vec![(Vec::new(), Vec::new(), 0)] };
    let each = size.div_ceil(u64::from(ranks));
    let part = |rank: u32| {
        let start = (u64::from(rank) * each).min(size);
        let mut offsets = vec![0; shape.len()];
        let mut sizes = shape.to_vec();
        (offsets[0], sizes[0]) = (start, (start + each).min(size) - start);
        (offsets, sizes, rank)
    };
    (0..ranks).map(part).collect()
}

/// Rows for FSDP, and the last axis for tensor parallelism.
pub fn grid(shape: &[u64], fsdp: u32, tp: u32) -> Vec<Cell> {
    let [.., columns] = *shape else { return rows(shape, fsdp) };
    if shape.len() < 2 || columns < u64::from(tp) {
        return rows(shape, fsdp);
    }
    let each = columns.div_ceil(u64::from(tp));
    let mut cells = Vec::new();
    for (offsets, sizes, rank) in rows(shape, fsdp) {
        for part in 0..tp {
            let start = (u64::from(part) * each).min(columns);
            let (mut offsets, mut sizes) = (offsets.clone(), sizes.clone());
            let last = shape.len() - 1;
            (offsets[last], sizes[last]) = (start, (start + each).min(columns) - start);
            cells.push((offsets, sizes, rank * tp + part));
        }
    }
    cells
}

/// The elements of a box, row-major.
fn gathered(array: &Array, offsets: &[u64], sizes: &[u64]) -> Vec<u8> {
    let (width, strides) = (array.dtype.size() as usize, array.strides());
    let elements: u64 = sizes.iter().product();
    let place = |element: u64| {
        let mut rest = element;
        let mut at = 0;
        for ((offset, size), stride) in offsets.iter().zip(sizes).zip(&strides).rev() {
            at += (offset + rest % size) * stride;
            rest /= size;
        }
        at as usize * width
    };
    (0..elements).flat_map(|element| array.bytes[place(element)..][..width].to_vec()).collect()
}

impl Draft {
    pub fn of(files: u32) -> Self {
        Self { files, ..Self::default() }
    }

    /// Adds a tensor that is cut like this.
    pub fn tensor(&mut self, key: &str, array: &Array, cut: impl Fn(&[u64]) -> Vec<Cell>) {
        self.tensors.push((key.into(), array.clone(), cut(&array.shape)));
    }

    /// The directory.
    pub fn directory(&self) -> Directory {
        let tensors = self.tensors.iter().map(|(key, array, cells)| {
            let mut chunks = Chunks::new(array.shape.len());
            for (offsets, sizes, file) in cells {
                chunks.push(offsets, sizes, file % self.files.max(1)).unwrap();
            }
            Tensor { key: key.as_str().into(), dtype: array.dtype, shape: Shape(array.shape.clone()), chunks }
        });
        let objects = self.objects.iter().map(|(key, value)| Object {
            key: key.as_str().into(),
            content: Arc::new(Content::plain(value.clone())),
            file: 0,
        });
        let path = |(key, steps): &(String, Vec<String>)| KeyPath {
            key: key.as_str().into(),
            steps: steps.iter().map(|step| Step::Key(step.as_str().into())).collect(),
        };
        let files = (0..self.files.max(1)).map(|rank| format!("__{rank}_0.distcp"));
        Directory::new(Spec {
            files: files.collect(),
            tensors: tensors.collect(),
            objects: objects.collect(),
            paths: self.paths.as_ref().map(|paths| paths.iter().map(path).collect()),
        })
        .unwrap()
    }

    /// Writes it, without checksums of elements, as a view does.
    pub fn write(&self, root: &Path) {
        fs::create_dir_all(root).unwrap();
        let directory = self.directory();
        for (number, name) in directory.spec().files.iter().enumerate() {
            let mut file = Vec::new();
            for part in directory.parts(number) {
                match part {
                    Part::Bytes(bytes) => file.extend_from_slice(bytes),
                    Part::Payload { of: Payload::Chunk { tensor, chunk }, .. } => {
                        let (_, array, cells) = &self.tensors[tensor];
                        file.extend(gathered(array, &cells[chunk].0, &cells[chunk].1));
                    }
                    Part::Payload { .. } => panic!("objects here have no tensors"),
                    Part::Crc32(_) => file.extend([0; 4]),
                }
            }
            fs::write(root.join(name), file).unwrap();
        }
        fs::write(root.join(".metadata"), directory.metadata().unwrap()).unwrap();
    }
}
