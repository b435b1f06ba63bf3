//! Rank files as the `sharded_state` loaders of vLLM and SGLang take them, with config and tokenizer beside them.
//!
//! Source: the loaders of vLLM 0.33 and SGLang 0.5, and files that vLLM's own saver wrote.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hf::{FileContent, described, listed, plain};
use super::target::tensors_at;
use super::{PlannedFile, Basis, View, ViewError, ViewFile, tensors};
use crate::catalog::AuxFile;
use crate::layout::Format;
use crate::layout::{Layout, Place, Rank};

/// The view.
#[derive(Debug)]
pub(super) struct EngineView {
    basis: Arc<Basis>,
    layout: Layout,
    format: Format,
    files: Vec<ViewFile>,
    contents: Vec<FileContent>,
}

/// What stands in front of the names of rank files.
const STARTS: [&str; 2] = ["model-rank-", "model-pp-"];

impl EngineView {
    pub(super) fn new(
        basis: Arc<Basis>,
        layout: Layout,
        format: Format,
        config: Option<Vec<u8>>,
        aux_files: &[&AuxFile],
    ) -> Self {
        let (mut files, mut contents) = listed(described(config, aux_files));
        for (number, rank) in layout.ranks().enumerate() {
            let path = file_name(rank, layout.pp());
            files.push(ViewFile { path, rank: Some(rank), is_mapped: true, is_probe: rank.tp == 0 });
            contents.push(FileContent::Weights(number));
        }
        Self { basis, layout, format, files, contents }
    }

    fn rank_file(&self, rank: Rank) -> Result<PlannedFile, ViewError> {
        let tensors = tensors_at(&self.basis, &self.layout, Place { rank, chunk: 0 })?;
        let named: Vec<_> = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        tensors::lay_out(&BTreeMap::new(), &named)
    }
}

/// One part holds everything of a rank: loaders take any number of them.
fn file_name(rank: Rank, pp: u32) -> String {
    if pp > 1 {
        format!("model-pp-{}-tp-{}-part-0.safetensors", rank.pp, rank.tp)
    } else {
        format!("model-rank-{}-part-0.safetensors", rank.tp)
    }
}

impl View for EngineView {
    fn format(&self) -> Format {
        self.format
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn files(&self) -> &[ViewFile] {
        &self.files
    }

    fn plan(&self, number: usize) -> Result<PlannedFile, ViewError> {
        match (self.contents.get(number), self.files.get(number).and_then(|file| file.rank)) {
            (Some(FileContent::Weights(_)), Some(rank)) => self.rank_file(rank),
            (Some(content), _) => Ok(plain(content)),
            (None, _) => Err(ViewError::NoFile(number)),
        }
    }

    fn may_replace(&self, path: &str) -> bool {
        path.ends_with(".safetensors") && STARTS.iter().any(|start| path.starts_with(start))
    }
}
