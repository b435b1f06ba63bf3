//! One safetensors file for each rank, with the names that the source's own family gives tensors: this tool's plain format.
//!
//! What else a rank needs to be a source again stands in the header's metadata: family, layout, rank and the args of training.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::target::tensors_at;
use super::{PlannedFile, Basis, View, ViewError, ViewFile, tensors};
use crate::format::megatron::keys::part_prefix;
use crate::format::megatron::{parse_rank_dir, rank_dir};
use crate::format::ranks::{ENDING, RankHeader};
use crate::layout::Format;
use crate::layout::{Layout, Rank};

/// The view.
#[derive(Debug)]
pub(super) struct RanksView {
    basis: Arc<Basis>,
    layout: Layout,
    files: Vec<ViewFile>,
}

impl RanksView {
    pub(super) fn new(basis: Arc<Basis>, layout: Layout) -> Self {
        let mut ranks: Vec<Rank> = layout.ranks().collect();
        ranks.sort_by_key(|rank| (rank.tp, rank.pp, rank.ep));
        let file = |rank: Rank| ViewFile {
            path: format!("{}{ENDING}", rank_dir(rank, layout.pp(), layout.ep())),
            rank: Some(rank),
            is_mapped: true,
            is_probe: rank.tp == 0,
        };
        let files = ranks.into_iter().map(file).collect();
        Self { basis, layout, files }
    }

    fn rank_file(&self, rank: Rank) -> Result<PlannedFile, ViewError> {
        let mut all = Vec::new();
        for place in self.layout.places(rank) {
            let part = part_prefix(place.chunk, self.layout.vpp);
            let tensors = tensors_at(&self.basis, &self.layout, place)?;
            all.extend(
                tensors.into_iter().map(|tensor| (Arc::from(format!("{part}{}", tensor.name)), tensor)),
            );
        }
        tensors::lay_out(&self.metadata(rank)?, &all)
    }

    fn metadata(&self, rank: Rank) -> Result<BTreeMap<String, String>, ViewError> {
        let source = self.basis.nearest(rank, &self.layout)?;
        let header = RankHeader {
            family: self.basis.model.family().name.clone(),
            layout: self.layout.to_string(),
            rank,
            iteration: self.basis.catalog.iteration.to_string(),
            checkpoint_version: source.run.checkpoint_version,
            args: super::megatron::rewrite_args(&source.run.args, &self.basis, &self.layout, rank)?,
        };
        Ok(header.encode())
    }
}

impl View for RanksView {
    fn format(&self) -> Format {
        Format::Safetensors
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn files(&self) -> &[ViewFile] {
        &self.files
    }

    fn plan(&self, number: usize) -> Result<PlannedFile, ViewError> {
        let rank = self.files.get(number).and_then(|file| file.rank);
        self.rank_file(rank.ok_or(ViewError::NoFile(number))?)
    }

    fn may_replace(&self, path: &str) -> bool {
        path.strip_suffix(ENDING).is_some_and(|name| parse_rank_dir(name).is_some())
    }
}
