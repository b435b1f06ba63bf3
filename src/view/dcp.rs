//! A distributed checkpoint as `torch.distributed.checkpoint` saves one: the names of a published model, and the optimizer's state by the
//! same names, for FSDP and whatever else loads by key.
//!
//! Not here: how the directory is laid out (`format::dcp::write`), Megatron's own (`torch_dist`).

#![deny(clippy::disallowed_methods)]

mod keys;
mod optimizer;
mod tensors;

use std::collections::HashMap;
use std::sync::Arc;

use super::dcp_files::{DcpFiles, Piece, is_data_file, pieces};
use super::hf::{FileContent, WHOLE, described, plain};
use super::target::tensor_of_values;
use super::{Basis, PlannedFile, View, ViewError, ViewFile};
use crate::catalog::AuxFile;
use crate::format::dcp::names::METADATA;
use crate::format::dcp::write::{Chunks, Directory, Path, Spec, Tensor, data_file};
use crate::layout::{Format, Layout};
use crate::plan::{Part, Source, Target};
use crate::tensor::Band;
use crate::value::Value;
use keys::Keys;
use tensors::{Content, DcpTensor};

pub use keys::{DcpLayout, DcpNames};

/// The view.
#[derive(Debug)]
pub(super) struct DcpView {
    basis: Arc<Basis>,
    layout: Layout,
    parts: Vec<Directories>,
    files: Vec<ViewFile>,
    contents: Vec<Held>,
}

/// One directory with a `.metadata`.
#[derive(Debug)]
struct Directories {
    /// Its name with a slash; nothing for the view's own.
    prefix: String,
    tensors: Vec<DcpTensor>,
    data: DcpFiles,
}

/// What a file is.
#[derive(Debug)]
enum Held {
    /// What lies beside the data.
    Beside(FileContent),
    /// The metadata of a directory.
    Metadata(usize),
    /// A data file of a directory.
    Data(usize, usize),
}

/// What is beside the weights, and how everything is called and cut.
pub(super) struct Choices<'a> {
    pub(super) config: Option<Vec<u8>>,
    pub(super) aux_files: &'a [&'a AuxFile],
    pub(super) layout: DcpLayout,
    pub(super) names: DcpNames,
    /// What the source has of the optimizer's parameter groups, where the names in it are those of the view.
    pub(super) groups: Option<&'a Value>,
    /// Bytes of data in each file, and those below which a tensor is not cut.
    pub(super) sizes: (u64, u64),
}

impl DcpView {
    /// The view of `basis`, which has the names that keys have.
    pub(super) fn new(basis: Arc<Basis>, choices: Choices<'_>) -> Result<Self, ViewError> {
        let layout = basis.catalog.layout.undivided();
        let keys = Keys { layout: choices.layout, names: choices.names };
        let (file, piece) = choices.sizes;
        let mut of_model = tensors::weights(&basis, &layout, keys, piece)?;
        let (of_optimizer, objects) = optimizer::all(&basis, &layout, keys, choices.groups, piece)?;
        let mut parts = Vec::new();
        match keys.directories() {
            None => {
                of_model.extend(of_optimizer);
                parts.push(Directories::new(String::new(), of_model, objects, file)?);
            }
            Some([model, optimizer]) => {
                parts.push(Directories::new(model, of_model, Vec::new(), file)?);
                if !of_optimizer.is_empty() {
                    parts.push(Directories::new(optimizer, of_optimizer, objects, file)?);
                }
            }
        }
        let mut view = Self { basis, layout, parts, files: Vec::new(), contents: Vec::new() };
        view.list(described(choices.config, choices.aux_files));
        Ok(view)
    }

    fn list(&mut self, beside: Vec<(String, FileContent)>) {
        let mut all: Vec<(String, Held)> =
            beside.into_iter().map(|(path, content)| (path, Held::Beside(content))).collect();
        for (number, part) in self.parts.iter().enumerate() {
            all.push((format!("{}{METADATA}", part.prefix), Held::Metadata(number)));
            let names = part.data.names().iter().enumerate();
            all.extend(names.map(|(file, name)| (format!("{}{name}", part.prefix), Held::Data(number, file))));
        }
        all.sort_by(|one, other| one.0.cmp(&other.0));
        let file = |(path, held): (String, Held)| {
            let is_probe = matches!(held, Held::Data(_, 0));
            (ViewFile { path, rank: None, is_mapped: false, is_probe }, held)
        };
        (self.files, self.contents) = all.into_iter().map(file).unzip();
    }

    /// A piece of a tensor.
    fn piece(&self, part: &Directories, tensor: usize, chunk: usize) -> Result<Piece<'_>, ViewError> {
        let lost = || ViewError::NoFile(chunk);
        let tensor = part.tensors.get(tensor).ok_or_else(lost)?;
        let range = tensor.pieces.get(chunk).ok_or_else(lost)?;
        let target = match &tensor.content {
            Content::Values { values, saved } => {
                let of = values.of(&self.basis).ok_or_else(lost)?.with_copies();
                let whole = tensor_of_values(of, &self.layout, WHOLE, *saved)?.and_then(|tensor| tensor.target);
                let whole = whole.ok_or_else(lost)?;
                match (tensor.pieces.len(), whole.parts.first()) {
                    (2.., Some(part)) => {
                        let part = pieces::window(part, range);
                        Target { dtype: tensor.dtype, shape: part.shape.clone(), parts: vec![part] }
                    }
                    _ => whole,
                }
            }
            Content::Scalar { state, param } => {
                let param = optimizer::scalar(&self.basis, *state, param).ok_or_else(lost)?;
                let bands = vec![(Band::once(0, 0, 0, 1), Source::Param(param))];
                let part = Part { shape: tensor.shape.clone(), axis: param.axis, bands };
                Target { dtype: tensor.dtype, shape: tensor.shape.clone(), parts: vec![part] }
            }
            Content::Number(number) => super::target::constant(*number),
        };
        let (offsets, sizes) = tensor.place(range);
        Ok(Piece { key: tensor.key.clone(), target, offsets, sizes })
    }
}

impl Directories {
    /// The directory of these tensors and objects, in files of at most `most` bytes of data.
    fn new(
        prefix: String,
        tensors: Vec<DcpTensor>,
        objects: Vec<optimizer::Plain>,
        most: u64,
    ) -> Result<Self, ViewError> {
        let (mut file, mut open) = (0u32, 0u64);
        let mut written = Vec::with_capacity(tensors.len());
        for tensor in &tensors {
            let mut chunks = Chunks::new(tensor.shape.rank());
            for piece in tensor.pieces.iter() {
                let bytes = tensor.bytes(piece);
                if open > 0 && open.saturating_add(bytes) > most {
                    (file, open) = (file + 1, 0);
                }
                open = open.saturating_add(bytes);
                let (offsets, sizes) = tensor.place(piece);
                chunks.push(&offsets, &sizes, file)?;
            }
            let (key, shape) = (tensor.key.clone(), tensor.shape.clone());
            written.push(Tensor { key, dtype: tensor.dtype, shape, chunks });
        }
        let of_tensors = tensors.iter().map(|tensor| (&tensor.key, &tensor.path));
        let of_objects = objects.iter().map(|(object, path)| (&object.key, path));
        let path = |(key, steps): (&Arc<str>, &Vec<_>)| Path { key: key.clone(), steps: steps.clone() };
        let paths = of_tensors.chain(of_objects).map(path).collect();
        let files = (0..=file as usize).map(|rank| data_file(rank, 0)).collect();
        let objects = objects.into_iter().map(|(object, _)| object).collect();
        let spec = Spec { files, tensors: written, objects, paths: Some(paths) };
        Ok(Self { prefix, tensors, data: DcpFiles::new(Directory::new(spec)?, HashMap::new()) })
    }
}

impl View for DcpView {
    fn format(&self) -> Format {
        Format::Dcp
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn files(&self) -> &[ViewFile] {
        &self.files
    }

    fn plan(&self, number: usize) -> Result<PlannedFile, ViewError> {
        let part = |number: usize| self.parts.get(number).ok_or(ViewError::NoFile(number));
        match self.contents.get(number).ok_or(ViewError::NoFile(number))? {
            Held::Beside(content) => Ok(plain(content)),
            Held::Metadata(of) => part(*of)?.data.metadata(),
            Held::Data(of, file) => {
                let part = part(*of)?;
                part.data.data(*file, |tensor, chunk| self.piece(part, tensor, chunk))
            }
        }
    }

    /// Data files of one of the directories, of which there may be any number.
    fn may_replace(&self, path: &str) -> bool {
        let is_of = |part: &Directories| path.strip_prefix(&part.prefix).is_some_and(is_data_file);
        self.parts.iter().any(is_of)
    }
}
