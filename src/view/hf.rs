//! A Hugging Face model directory: config, weights in one safetensors file or in several with an index, and what lies beside them.

#![deny(clippy::disallowed_methods)]

mod shards;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::target::tensor_of;
use super::{PlannedFile, Basis, View, ViewError, ViewFile, tensors};
use crate::catalog::AuxFile;
use crate::extent::Extent;
use crate::format::hf::{CONFIG, INDEX, SINGLE, encode_index, is_weights, shard};
use crate::layout::Format;
use crate::layout::{Layout, Place, Rank};
use crate::plan::{Builder, Stripe};
use shards::Shards;

/// The view.
#[derive(Debug)]
pub(super) struct HfView {
    basis: Arc<Basis>,
    layout: Layout,
    shards: Shards,
    files: Vec<ViewFile>,
    contents: Vec<FileContent>,
}

/// What a file holds.
#[derive(Debug, Clone)]
pub(super) enum FileContent {
    /// These bytes.
    Text(Arc<[u8]>),
    /// A file of the source or the template.
    Passed(Extent),
    /// Some of the weights.
    Weights(usize),
}

/// Where everything is.
pub(super) const WHOLE: Place = Place { rank: Rank { pp: 0, tp: 0, ep: 0 }, chunk: 0 };

impl HfView {
    /// The view of `basis` with this config, where there is one, and these files beside the weights.
    pub(super) fn new(
        basis: Arc<Basis>,
        layout: Layout,
        config: Option<Vec<u8>>,
        aux_files: &[&AuxFile],
        shard_size: u64,
    ) -> Result<Self, ViewError> {
        let shards = Shards::of(&basis, &layout, shard_size)?;
        let mut all = described(config, aux_files);
        let count = shards.count();
        let indexed = count > 1 || needs_index(&basis, aux_files);
        let name = |number| if indexed { shard(number, count) } else { SINGLE.to_owned() };
        all.extend((0..count).map(|number| (name(number), FileContent::Weights(number))));
        if indexed {
            let text = encode_index(&shards.index(), shards.bytes, shards.elements);
            all.push((INDEX.to_owned(), FileContent::Text(text.into())));
        }
        let (files, contents) = listed(all);
        Ok(Self { basis, layout, shards, files, contents })
    }

    fn weights(&self, number: usize) -> Result<PlannedFile, ViewError> {
        let mut all = Vec::new();
        for key in self.shards.keys(number).ok_or(ViewError::NoFile(number))? {
            let tensor = tensor_of(&self.basis, &self.layout, WHOLE, *key)?;
            all.extend(tensor.map(|tensor| (tensor.name.clone(), tensor)));
        }
        // Loaders of transformers 4 refuse files that do not say so.
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        tensors::lay_out(&metadata, &all)
    }
}

/// Whether one file needs an index too: engines take every safetensors file of a directory without one for weights, so what no index of the
/// source named must not be named by the lack of it.
fn needs_index(basis: &Basis, aux_files: &[&AuxFile]) -> bool {
    let is_single = |file: &String| file.rsplit('/').next() == Some(SINGLE);
    let had_index = !basis.catalog.ranks.iter().flat_map(|rank| rank.files.values()).any(is_single);
    had_index && aux_files.iter().any(|file| file.name.ends_with(".safetensors"))
}

/// The files beside weights: config, and what is passed through.
pub(super) fn described(config: Option<Vec<u8>>, aux_files: &[&AuxFile]) -> Vec<(String, FileContent)> {
    let passed = aux_files.iter().filter(|file| file.name != CONFIG);
    let passed = passed.map(|file| (file.name.clone(), FileContent::Passed(file.extent)));
    let config = config.map(|config| (CONFIG.to_owned(), FileContent::Text(config.into())));
    config.into_iter().chain(passed).collect()
}

/// Files in the order of a listing, and what each holds.
pub(super) fn listed(mut all: Vec<(String, FileContent)>) -> (Vec<ViewFile>, Vec<FileContent>) {
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let file = |(path, content): (String, FileContent)| {
        let is_mapped = path.ends_with(".safetensors");
        (ViewFile { path, rank: None, is_mapped, is_probe: false }, content)
    };
    all.into_iter().map(file).unzip()
}

/// A file that holds no weights.
pub(super) fn plain(content: &FileContent) -> PlannedFile {
    let mut builder = Builder::new();
    match content {
        FileContent::Text(bytes) => builder.literal(bytes.clone()),
        FileContent::Passed(extent) if extent.len > 0 => {
            builder.stripe(Stripe::contiguous(extent.object, extent.offset, extent.len));
        }
        FileContent::Passed(_) | FileContent::Weights(_) => {}
    }
    PlannedFile { plan: builder.finish(), tensors: Vec::new() }
}

impl View for HfView {
    fn format(&self) -> Format {
        Format::Hf
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn files(&self) -> &[ViewFile] {
        &self.files
    }

    fn plan(&self, number: usize) -> Result<PlannedFile, ViewError> {
        match self.contents.get(number) {
            Some(FileContent::Weights(shard)) => self.weights(*shard),
            Some(content) => Ok(plain(content)),
            None => Err(ViewError::NoFile(number)),
        }
    }

    /// Weights in any number of files.
    fn may_replace(&self, path: &str) -> bool {
        !path.contains('/') && path.starts_with("model") && is_weights(path)
    }
}
