//! Legacy Megatron directories as Megatron would have written them at another layout.
//!
//! One rank file is: the source's own tree with `args` rewritten and the model's tensors replaced, pickled, in torch's zip layout.

mod args;
mod carried;
mod containers;
mod modules;
mod pipeline;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{PlacedTensor, PlannedFile, Stock, TargetTensor, ViewError, rank_tensors};
use crate::catalog::Iteration;
use crate::extent::Extent;
use crate::format::megatron::{MODEL_FILE, RELEASE, TRACKER, iteration_dir, parse_rank_dir, rank_dir};
use crate::format::{torch, zip};
use crate::layout::{Layout, Rank};
use crate::plan::{Builder, Stripe, Target, gather};
use crate::tensor::{Dtype, Shape};
use crate::value::{Storage, TensorRef, Value};

pub use pipeline::training_flags;

/// A legacy Megatron checkpoint directory in one layout.
#[derive(Debug, Clone)]
pub struct MegatronView {
    stock: Arc<Stock>,
    layout: Layout,
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFile {
    /// Path within the directory, `/`-separated.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
}

/// What a file of the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The file that names the latest iteration.
    Tracker,
    /// What one rank saves.
    Rank(Rank),
}

impl MegatronView {
    /// The view of `stock` in `layout`, which [`Stock::layout`] has checked.
    #[must_use]
    pub fn new(stock: Arc<Stock>, layout: Layout) -> Self {
        Self { stock, layout }
    }

    /// Its layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Every file, in the order of a listing.
    #[must_use]
    pub fn files(&self) -> Vec<ViewFile> {
        let iteration = self.iteration();
        let mut ranks: Vec<Rank> = self.layout.ranks().collect();
        ranks.sort_by_key(|rank| (rank.tp, rank.pp));
        let rank_file = |rank: Rank| ViewFile {
            path: format!("{iteration}/{}/{MODEL_FILE}", rank_dir(rank, self.layout.pp())),
            kind: FileKind::Rank(rank),
        };
        let tracker = ViewFile { path: TRACKER.to_owned(), kind: FileKind::Tracker };
        ranks.into_iter().map(rank_file).chain([tracker]).collect()
    }

    /// Whether `path` is a rank file of this iteration in whatever layout.
    #[must_use]
    pub fn is_rank_file(&self, path: &str) -> bool {
        match path.split('/').collect::<Vec<_>>()[..] {
            [iteration, rank, file] => {
                iteration == self.iteration() && parse_rank_dir(rank).is_some() && file == MODEL_FILE
            }
            _ => false,
        }
    }

    fn iteration(&self) -> String {
        match self.stock.catalog.iteration {
            Iteration::Number(number) => iteration_dir(number),
            Iteration::Release => RELEASE.to_owned(),
        }
    }

    /// Lays out one file. Grows with its tensors, not with their bytes.
    ///
    /// # Errors
    /// [`ViewError`] where a tensor cannot be made of what the source has.
    pub fn plan(&self, kind: FileKind) -> Result<PlannedFile, ViewError> {
        match kind {
            FileKind::Tracker => {
                let mut builder = Builder::new();
                builder.literal(self.stock.catalog.iteration.to_string().into_bytes());
                Ok(PlannedFile { plan: builder.finish(), tensors: Vec::new() })
            }
            FileKind::Rank(rank) => self.rank_file(rank),
        }
    }

    fn rank_file(&self, rank: Rank) -> Result<PlannedFile, ViewError> {
        let source = self.stock.nearest(rank, &self.layout)?;
        let tensors = rank_tensors(&self.stock, &self.layout, rank)?;
        let mut contents = Contents::default();
        let leaves = tensors.iter().map(|tensor| (tensor.name.clone(), contents.leaf(tensor))).collect();
        let model = containers::Containers::new(&self.stock, &self.layout, rank, &tensors).fill(leaves);
        let mut carried = carried::Carried::new(source, &mut contents);
        let mut entries = Vec::new();
        for (key, value) in source.tree.items().unwrap_or_default() {
            let value = match key.as_str() {
                Some("args") => carried.value(&args::rewrite(value, &self.stock, &self.layout, rank)?),
                Some("model") => model.clone(),
                _ => carried.value(value),
            };
            entries.push((key.clone(), value));
        }
        let encoded = torch::encode_pickle(&Value::Dict(entries.into()))
            .map_err(|error| ViewError::Pickle { file: source.name.clone(), source: error })?;
        contents.lay_out(&encoded, &source.name)
    }
}

/// What the storages of a file hold, by the key its tree refers to them with.
#[derive(Default)]
struct Contents<'a> {
    by_key: HashMap<Arc<str>, Content<'a>>,
}

/// The bytes of one storage.
enum Content<'a> {
    /// A tensor of the model.
    Tensor { name: Arc<str>, target: &'a Target<'a> },
    /// A storage of the source, as it is.
    Carried(Extent),
    /// No bytes.
    Nothing,
}

impl<'a> Contents<'a> {
    /// The value that stands for a tensor (or an extra state, which is `None`) in the tree.
    fn leaf(&mut self, tensor: &'a TargetTensor<'_>) -> Value {
        let Some(target) = &tensor.target else { return self.extra_state(tensor) };
        let key: Arc<str> = format!("tensor {}", tensor.name).into();
        self.by_key.insert(key.clone(), Content::Tensor { name: tensor.name.clone(), target });
        // Sizes were computed from files of at most 2^63 bytes, so they fit.
        let bytes = target.shape.bytes(target.dtype).unwrap_or(u64::MAX);
        Value::Tensor(Arc::new(TensorRef {
            dtype: target.dtype,
            shape: target.shape.clone(),
            strides: target.shape.contiguous_strides().unwrap_or_default(),
            offset: 0,
            storage: Storage { key, bytes },
            requires_grad: false,
        }))
    }

    /// Extra state that a view has holds nothing: `None`, or an empty tensor of bytes where the source has such.
    fn extra_state(&mut self, tensor: &TargetTensor<'_>) -> Value {
        if !tensor.is_empty_tensor {
            return Value::None;
        }
        let key: Arc<str> = format!("state {}", tensor.name).into();
        self.by_key.insert(key.clone(), Content::Nothing);
        Value::Tensor(Arc::new(TensorRef {
            dtype: Dtype::Uint8,
            shape: Shape(vec![0]),
            strides: vec![1],
            offset: 0,
            storage: Storage { key, bytes: 0 },
            requires_grad: false,
        }))
    }

    fn carry(&mut self, key: Arc<str>, extent: Extent) {
        self.by_key.insert(key, Content::Carried(extent));
    }

    /// The file: pickle and storages as records of a zip archive.
    /// `source` is the name of the file that it takes values from.
    fn lay_out(&self, encoded: &torch::Encoded, source: &str) -> Result<PlannedFile, ViewError> {
        let sizes: Vec<u64> = encoded.storages.iter().map(|storage| storage.bytes).collect();
        let records = torch::records(encoded.pickle.len() as u64, &sizes);
        let specs: Vec<_> = records.iter().map(|record| record.spec.clone()).collect();
        let mut file =
            FileBuilder { builder: Builder::new(), at: vec![0..0; records.len()], tensors: Vec::new() };
        for piece in zip::Layout::new(RECORD_PREFIX, &specs)?.pieces {
            match piece {
                zip::Piece::Bytes(bytes) => file.builder.literal(bytes),
                zip::Piece::Crc(index) => file.builder.crc32(file.at.get(index).cloned().unwrap_or(0..0)),
                zip::Piece::Record(index) => {
                    let start = file.builder.position();
                    match records.get(index).map(|record| &record.content) {
                        Some(torch::Content::Pickle) => file.builder.literal(encoded.pickle.as_slice()),
                        Some(torch::Content::Bytes(bytes)) => file.builder.literal(bytes.as_slice()),
                        Some(torch::Content::Storage(number)) => {
                            self.storage(encoded.storages.get(*number), source, &mut file)?;
                        }
                        None => {}
                    }
                    let end = file.builder.position();
                    // Every later offset counts on it.
                    let wanted = records.get(index).map_or(0, |record| record.spec.size);
                    if end - start != wanted {
                        let record =
                            records.get(index).map_or_else(String::new, |record| record.spec.name.clone());
                        return Err(ViewError::RecordSize { record, wanted, planned: end - start });
                    }
                    if let Some(range) = file.at.get_mut(index) {
                        *range = start..end;
                    }
                }
            }
        }
        Ok(PlannedFile { plan: file.builder.finish(), tensors: file.tensors })
    }

    fn storage(
        &self,
        storage: Option<&Storage>,
        source: &str,
        file: &mut FileBuilder,
    ) -> Result<(), ViewError> {
        let Some(content) = storage.and_then(|storage| self.by_key.get(&storage.key)) else {
            let key = storage.map_or_else(String::new, |storage| storage.key.to_string());
            return Err(ViewError::Storage { file: source.to_owned(), key });
        };
        match content {
            Content::Nothing => {}
            Content::Carried(extent) => {
                file.builder.stripe(Stripe::contiguous(extent.object, extent.offset, extent.len));
            }
            Content::Tensor { name, target } => {
                let start = file.builder.position();
                gather(target, &mut file.builder)
                    .map_err(|source| ViewError::Gather { tensor: name.to_string(), source })?;
                file.tensors.push(PlacedTensor {
                    name: name.clone(),
                    dtype: target.dtype,
                    shape: target.shape.clone(),
                    bytes: start..file.builder.position(),
                });
            }
        }
        Ok(())
    }
}

struct FileBuilder {
    builder: Builder,
    /// Bytes of the file that each record is.
    at: Vec<Range<u64>>,
    tensors: Vec<PlacedTensor>,
}

/// Torch names records after the file's stem.
const RECORD_PREFIX: &str = "model_optim_rng";
