//! What is to be written.

use std::collections::HashMap;
use std::sync::Arc;

use super::WriteError;
use crate::tensor::{Dtype, Shape};
use crate::value::Value;

/// A checkpoint: its data files, and what they hold.
#[derive(Debug, Default)]
pub struct Spec {
    /// Names of the data files, relative to the directory.
    pub files: Vec<String>,
    /// Tensors, in the order in which `.metadata` names them.
    pub tensors: Vec<Tensor>,
    /// Python objects, which are named behind the tensors.
    pub objects: Vec<Object>,
    /// Where each key stands in the nested dict that was flattened into keys. With it `dcp_to_torch_save` makes that dict again; there is then
    /// one path for every key. Megatron has none.
    pub paths: Option<Vec<Path>>,
}

/// A tensor and the boxes that it is stored in.
#[derive(Debug)]
pub struct Tensor {
    /// Its key.
    pub key: Arc<str>,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of the whole.
    pub shape: Shape,
    /// Boxes that tile the whole.
    pub chunks: Chunks,
}

/// The boxes of a tensor. All are in a few vectors, because there may be a million of them.
#[derive(Debug, Default, Clone)]
pub struct Chunks {
    axes: usize,
    /// For each chunk, offsets and then sizes.
    bounds: Vec<u64>,
    files: Vec<u32>,
}

/// A box of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// First position on each axis.
    pub offsets: &'a [u64],
    /// Positions on each axis.
    pub sizes: &'a [u64],
    /// Number of the data file that it is in.
    pub file: usize,
}

/// A Python object that is saved whole.
#[derive(Debug)]
pub struct Object {
    /// Its key.
    pub key: Arc<str>,
    /// What is saved. Objects that share it are laid out once.
    pub content: Arc<Content>,
    /// Number of the data file that it is in.
    pub file: usize,
}

/// What `torch.save` is given.
#[derive(Debug)]
pub struct Content {
    /// The value. Tensors in it refer to storages by their keys.
    pub value: Value,
    /// Bytes of those storages, such as the four of an optimizer's step. `None`: they are known as little as those of a tensor, and become a
    /// [`super::Part::Payload`].
    pub storages: HashMap<Arc<str>, Option<Arc<[u8]>>>,
}

impl Content {
    /// A value without tensors.
    #[must_use]
    pub fn plain(value: Value) -> Self {
        Self { value, storages: HashMap::new() }
    }
}

/// Where a key stands in a nested dict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The flat key.
    pub key: Arc<str>,
    /// The way to it.
    pub steps: Vec<Step>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Under this key of a dict.
    Key(Arc<str>),
    /// At this place of a list.
    Index(u32),
}

impl Chunks {
    /// No chunk yet of a tensor with so many axes.
    #[must_use]
    pub fn new(axes: usize) -> Self {
        Self { axes, ..Self::default() }
    }

    /// The one chunk that a tensor of this shape is.
    #[must_use]
    pub fn whole(shape: &Shape, file: u32) -> Self {
        let bounds = std::iter::repeat_n(0, shape.rank()).chain(shape.0.iter().copied()).collect();
        Self { axes: shape.rank(), bounds, files: vec![file] }
    }

    /// Adds the box at `offsets` of these `sizes`, in data file number `file`.
    ///
    /// # Errors
    /// [`WriteError::ChunkAxes`]
    pub fn push(&mut self, offsets: &[u64], sizes: &[u64], file: u32) -> Result<(), WriteError> {
        if offsets.len() != self.axes || sizes.len() != self.axes {
            let found = [offsets.len(), sizes.len()];
            return Err(WriteError::ChunkAxes { expected: self.axes, found });
        }
        self.bounds.extend_from_slice(offsets);
        self.bounds.extend_from_slice(sizes);
        self.files.push(file);
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Axes of the tensor.
    #[must_use]
    pub fn axes(&self) -> usize {
        self.axes
    }

    /// Chunk number `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Chunk<'_>> {
        let start = index.checked_mul(2)?.checked_mul(self.axes)?;
        let bounds = self.bounds.get(start..)?.get(..2 * self.axes)?;
        let (offsets, sizes) = bounds.split_at_checked(self.axes)?;
        Some(Chunk { offsets, sizes, file: *self.files.get(index)? as usize })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Chunk<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}
