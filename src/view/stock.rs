//! Everything a view is made of: what the source holds, what its family says of it, and the user's choices.

use std::sync::Arc;

use super::{ViewError, VocabularyFill};
use crate::catalog::{Catalog, RankFile};
use crate::family::{
    Arrangement, Entry, Limit, Model, Padding, VOCABULARY, Vocabulary, check_limits, possible_sizes,
};
use crate::layout::{Layout, LayoutSpec};
use crate::value::Value;

/// What views are made of. One of these serves every layout.
#[derive(Debug, Clone)]
pub struct Stock {
    /// What the source holds.
    pub catalog: Arc<Catalog>,
    /// What its tensors are.
    pub model: Arc<Model>,
    /// What new vocabulary rows hold.
    pub fill: VocabularyFill,
    vocabulary: Option<Vocabulary>,
    limits: Vec<Limit>,
}

impl Stock {
    /// Views of this source. `vocab_size` is the true vocabulary size, where the user says it.
    ///
    /// # Errors
    /// [`ViewError`] where `vocab_size` cannot be.
    pub fn new(
        catalog: Arc<Catalog>,
        model: Arc<Model>,
        vocab_size: Option<u64>,
        fill: VocabularyFill,
    ) -> Result<Self, ViewError> {
        let mut stock = Self { catalog, model, fill, vocabulary: None, limits: Vec::new() };
        let rows = stock.dimensions().find(|(name, _)| *name == VOCABULARY).map(|(_, size)| size);
        if let (Some(rows), Some(args)) = (rows, stock.args()) {
            let mut vocabulary = stock.model.vocabulary(args, rows, stock.catalog.layout.tp);
            if let Some(given) = vocab_size {
                vocabulary.state(given)?;
            }
            stock.vocabulary = Some(vocabulary);
        }
        stock.limits = stock.find_limits();
        Ok(stock)
    }

    /// `args` of the source's first rank.
    #[must_use]
    pub fn args(&self) -> Option<&Value> {
        self.catalog.ranks.first()?.tree.get("args")
    }

    /// The vocabulary, where the model has one.
    #[must_use]
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    /// Tensor-parallel sizes that the model allows.
    #[must_use]
    pub fn possible_tp(&self) -> Vec<u64> {
        possible_sizes(&self.limits)
    }

    /// The layout that `spec` means for this source, checked against what the model allows.
    ///
    /// # Errors
    /// [`ViewError`] with the reason and what is possible.
    pub fn layout(&self, spec: &LayoutSpec) -> Result<Layout, ViewError> {
        let layout = spec.resolve(&self.catalog.layout)?;
        check_limits(&self.limits, u64::from(layout.tp))?;
        self.vocabulary_rows(layout.tp)?;
        Ok(layout)
    }

    /// Rows of the vocabulary at this tensor-parallel size; `None` for a model without one.
    ///
    /// # Errors
    /// [`ViewError::Vocabulary`] where that depends on an unknown true size.
    pub fn vocabulary_rows(&self, tp: u32) -> Result<Option<u64>, ViewError> {
        Ok(self.vocabulary.map(|vocabulary| vocabulary.rows(u64::from(tp))).transpose()?)
    }

    /// The source rank whose private state goes to `target`.
    pub(super) fn nearest(
        &self,
        target: crate::layout::Rank,
        layout: &Layout,
    ) -> Result<&RankFile, ViewError> {
        self.catalog.nearest_rank(target, layout).ok_or(ViewError::NoRank)
    }

    /// Every dimension of every parameter the source has, with its size.
    fn dimensions(&self) -> impl Iterator<Item = (&str, u64)> {
        // One layer stands for all: a dimension has one size in the whole model.
        self.model.entries().iter().flat_map(|entry| &entry.holds).flat_map(|holding| {
            let param = self.catalog.param(&holding.param.replace("{layer}", "0"));
            let sizes = param.map_or(&[][..], |param| param.shape.0.as_slice());
            holding.dimensions.iter().map(String::as_str).zip(sizes.iter().copied())
        })
    }

    fn find_limits(&self) -> Vec<Limit> {
        let per_tp = self.vocabulary.is_some_and(|vocabulary| vocabulary.padding == Padding::PerTp);
        let mut limits: Vec<Limit> = self
            .dimensions()
            .filter(|(name, _)| !(per_tp && *name == VOCABULARY))
            .filter_map(|(name, size)| Some(self.model.limit(self.model.cut(name)?, size)))
            .chain(self.fused_limits())
            .collect();
        // Heads first: it is what people think of, so it should be what a refusal names.
        limits.sort_by_key(|limit| (limit.what != "heads", limit.what.clone()));
        limits.dedup();
        limits
    }

    /// Rows of tensors that hold several parameters group by group. Where ranks share a query group, its sizes divide heads and
    /// groups and still not these.
    fn fused_limits(&self) -> impl Iterator<Item = Limit> {
        let fused = |entry: &&Entry| matches!(entry.arrangement, Arrangement::Interleaved { .. });
        self.model.entries().iter().filter(fused).filter_map(|entry| {
            let rows = entry.holds.iter().map(|holding| {
                let param = self.catalog.param(&holding.param.replace("{layer}", "0"));
                param.map(crate::catalog::Param::size)
            });
            // Every part lies in files, so the sum fits.
            let size = rows.sum::<Option<u64>>().filter(|rows| *rows > 0)?;
            Some(Limit { what: format!("rows of {}", entry.name.replace("{layer}", "0")), size, heads: None })
        })
    }
}
