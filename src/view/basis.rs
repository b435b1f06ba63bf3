//! Everything a view is made of: what the source holds, what its family says of it, and the user's choices.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::optimizer::{self, OptimizerChoice};
use super::{ViewError, VocabularyFill};
use crate::catalog::{Catalog, Encoding, Param, RankFile};
use crate::family::{
    ArgRole, Arrangement, Copies, CutBy, Entry, Holding, Limit, Model, Numbers, Padding, VOCABULARY,
    Vocabulary, check_limits, possible_sizes,
};
use crate::format::megatron::GroupKind;
use crate::layout::{Experts, Layout, LayoutError, LayoutSpec};
use crate::value::Value;

/// What the user chooses of a view, beside its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ViewOptions {
    /// The true vocabulary size, where the checkpoint does not record it.
    pub vocab_size: Option<u64>,
    /// What new vocabulary rows hold.
    pub fill: VocabularyFill,
    /// How the optimizer's state is shown.
    pub optimizer: OptimizerChoice,
    /// Whether random-number state is carried over.
    pub rng: RngChoice,
}

/// Random-number state, which belongs to one rank of one layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RngChoice {
    /// That of the nearest source rank; the same state in the same layout.
    #[default]
    Keep,
    /// None.
    Omit,
}

/// What views are made of. One of these serves every layout.
#[derive(Debug, Clone)]
pub struct Basis {
    /// What the source holds.
    pub catalog: Arc<Catalog>,
    /// What its tensors are.
    pub model: Arc<Model>,
    /// What new vocabulary rows hold.
    pub fill: VocabularyFill,
    /// How the optimizer's state is shown; `None` where it is not.
    pub optimizer: Option<Encoding>,
    /// Whether random-number state is carried over.
    pub with_rng: bool,
    /// Whether it was made of a source in another family's names.
    pub renamed: bool,
    vocabulary: Option<Vocabulary>,
    limits: Vec<Limit>,
    expert_limits: Vec<Limit>,
    /// Kinds of parameter groups that any rank of the source has.
    pub(super) group_kinds: BTreeSet<GroupKind>,
}

impl Basis {
    /// Views of this source.
    ///
    /// # Errors
    /// [`ViewError`] where a choice cannot be.
    pub(super) fn new(
        catalog: Arc<Catalog>,
        model: Arc<Model>,
        view_options: &ViewOptions,
    ) -> Result<Self, ViewError> {
        Self::make(catalog, model, view_options, None)
    }

    /// As [`Basis::new`], with a vocabulary that args do not say.
    ///
    /// # Errors
    /// As [`Basis::new`].
    pub(super) fn with_vocabulary(
        catalog: Arc<Catalog>,
        model: Arc<Model>,
        view_options: &ViewOptions,
        vocabulary: Option<Vocabulary>,
    ) -> Result<Self, ViewError> {
        Self::make(catalog, model, view_options, Some(vocabulary))
    }

    fn make(
        catalog: Arc<Catalog>,
        model: Arc<Model>,
        view_options: &ViewOptions,
        vocabulary: Option<Option<Vocabulary>>,
    ) -> Result<Self, ViewError> {
        let mut basis = Self {
            catalog,
            model,
            fill: view_options.fill,
            optimizer: None,
            with_rng: view_options.rng == RngChoice::Keep,
            renamed: vocabulary.is_some(),
            vocabulary: None,
            limits: Vec::new(),
            expert_limits: Vec::new(),
            group_kinds: BTreeSet::new(),
        };
        let rows = basis.dimensions().find(|(name, _)| *name == VOCABULARY).map(|(_, size)| size);
        if let Some(vocabulary) = vocabulary {
            basis.vocabulary = vocabulary;
        } else if let (Some(rows), Some(args)) = (rows, basis.args()) {
            let mut vocabulary = basis.model.vocabulary(args, rows, basis.catalog.vocabulary_tp);
            if let Some(origin) = view_options.vocab_size {
                vocabulary.state(origin)?;
            }
            basis.vocabulary = Some(vocabulary);
        }
        basis.limits = basis.find_limits(CutBy::Tp);
        basis.expert_limits = basis.find_limits(CutBy::Etp);
        let trained = optimizer::Trained { catalog: &basis.catalog, model: &basis.model, args: basis.args() };
        basis.optimizer = optimizer::choose(trained, view_options.optimizer)?;
        if basis.optimizer.is_some() {
            basis.group_kinds = optimizer::group_kinds(&basis.catalog);
        }
        Ok(basis)
    }

    /// `args` of the source's first rank.
    #[must_use]
    pub fn args(&self) -> Option<&Value> {
        Some(&self.catalog.ranks.first()?.run.args)
    }

    /// The field of `args` with this role, where the source's args have one.
    #[must_use]
    pub fn arg_of(&self, role: ArgRole) -> Option<&Value> {
        let field = self.model.field_of(role)?;
        self.args()?.attribute(field)
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

    /// Expert-parallel sizes that the model allows; none for a model without experts.
    #[must_use]
    pub fn possible_ep(&self) -> Vec<u64> {
        let experts = self.model.size("experts").unwrap_or(0);
        (1..=experts).filter(|ep| experts.is_multiple_of(*ep)).collect()
    }

    /// The layout that `spec` means for this source, checked against what the model allows.
    ///
    /// # Errors
    /// [`ViewError`] with the reason and what is possible.
    pub fn layout(&self, spec: &LayoutSpec) -> Result<Layout, ViewError> {
        let layout = spec.resolve(&self.catalog.layout)?;
        check_limits(&self.limits, "TP", u64::from(layout.tp))?;
        self.check_experts(&layout)?;
        self.check_copies(&layout)?;
        self.check_stages(&layout, spec.in_text)?;
        self.vocabulary_rows(layout.tp)?;
        Ok(layout)
    }

    fn check_experts(&self, layout: &Layout) -> Result<(), ViewError> {
        let (Some(Experts { ep, etp }), Some(experts)) = (layout.experts, self.model.size("experts")) else {
            return Ok(());
        };
        if !experts.is_multiple_of(u64::from(ep)) {
            return Err(LayoutError::Experts { ep, experts }.into());
        }
        check_limits(&self.expert_limits, "ETP", u64::from(etp)).map_err(|mut error| {
            error.possible.retain(|etp| u64::from(layout.tp).is_multiple_of(*etp));
            error.into()
        })
    }

    /// What ranks hold of every tensor is known, or makes no difference.
    fn check_copies(&self, layout: &Layout) -> Result<(), ViewError> {
        let open = |entry: &&Entry| entry.copies != Copies::Settled && self.catalog.spells(&entry.name, None);
        match self.model.entries().iter().find(open) {
            Some(entry) if layout.tp > 1 => {
                Err(ViewError::Copies { tensor: Numbers::of_layer(0).fill(&entry.name), tp: layout.tp })
            }
            _ => Ok(()),
        }
    }

    /// Whether the family's training code can say these stages. The source's own are whatever they are.
    fn check_stages(&self, layout: &Layout, said: Option<u32>) -> Result<(), ViewError> {
        let (source, stages) = (&self.catalog.layout, &layout.stages);
        let known = self.model.predictions();
        if let Some(said) = said.filter(|said| *said != known) {
            return Err(ViewError::Predictions { said, known });
        }
        if (stages, layout.vpp) == (&source.stages, source.vpp) {
            return Ok(());
        }
        if layout.vpp > 1 && !stages.is_even() && self.model.even_virtual_stages() {
            return Err(ViewError::VirtualStages { vpp: layout.vpp, stages: stages.clone() });
        }
        if stages.layers().contains(&0) && self.model.field_of(ArgRole::StagesLayout).is_none() {
            return Err(ViewError::EmptyStage { stages: stages.clone() });
        }
        Ok(())
    }

    /// Rows of the vocabulary at this tensor-parallel size; `None` for a model without one.
    ///
    /// # Errors
    /// [`ViewError::Vocabulary`] where that depends on an unknown true size.
    pub fn vocabulary_rows(&self, tp: u32) -> Result<Option<u64>, ViewError> {
        Ok(self.vocabulary.map(|vocabulary| vocabulary.rows(u64::from(tp))).transpose()?)
    }

    /// The same with the rows of the vocabulary that the source has, whatever the layout.
    pub(super) fn with_stored_rows(self) -> Self {
        Self { vocabulary: None, ..self }
    }

    /// Rows of a vocabulary that is padded anew, without regard to the layout.
    fn new_rows(&self) -> Option<u64> {
        self.vocabulary
            .filter(|vocabulary| vocabulary.stored_tp.is_none())
            .and_then(|vocabulary| vocabulary.rows(1).ok())
    }

    /// Rows of the vocabulary that are carried over where others are made anew: in another format those of the source's padding are not.
    #[must_use]
    pub(super) fn real_rows(&self) -> Option<u64> {
        self.vocabulary
            .filter(|vocabulary| vocabulary.stored_tp.is_none())
            .and_then(|vocabulary| vocabulary.true_size)
    }

    /// Whether modules have extra state that a view in this layout leaves out, because they are cut in another way.
    #[must_use]
    pub fn drops_extra_state(&self, layout: &Layout) -> bool {
        let source = &self.catalog.layout;
        let differs = (source.tp, source.experts) != (layout.tp, layout.experts);
        differs && !self.catalog.extra_states.is_empty()
    }

    /// Whether experts have an optimizer of their own. A layout that shares them out as the source does is like the source.
    pub(super) fn has_expert_optimizer(&self, layout: &Layout) -> bool {
        let source = &self.catalog.layout;
        if (layout.tp, layout.experts) == (source.tp, source.experts) {
            return self.has_group(|kind| kind.expert);
        }
        self.args().is_some_and(|args| self.model.optimizes_experts_apart(args, layout))
    }

    /// Whether embedding and head have a learning rate of their own.
    pub(super) fn has_decoupled(&self) -> bool {
        self.has_group(|kind| kind.decoupled)
    }

    fn has_group(&self, test: fn(&GroupKind) -> bool) -> bool {
        self.group_kinds.iter().any(test)
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
        // One layer of a kind stands for all: a dimension has one size in the whole model.
        // What is copied to every rank limits nothing.
        let cut = |entry: &&Entry| entry.arrangement != Arrangement::Replicated;
        self.model.entries().iter().filter(cut).flat_map(|entry| &entry.holds).flat_map(|holding| {
            let param = self.sample(holding);
            let sizes = param.map_or(&[][..], |param| param.shape.0.as_slice());
            holding.dimensions.iter().map(String::as_str).zip(sizes.iter().copied())
        })
    }

    /// A parameter that stands for all that are held so.
    fn sample(&self, holding: &Holding) -> Option<&Param> {
        self.catalog.sample(|layer| Numbers::of_layer(layer).fill(&holding.param))
    }

    /// What a size that cuts tensors must divide.
    fn find_limits(&self, by: CutBy) -> Vec<Limit> {
        // Rows that are padded as the layout needs them limit nothing.
        let per_tp = self.vocabulary.is_some_and(|vocabulary| vocabulary.padding == Padding::PerTp);
        let mut limits: Vec<Limit> = self
            .dimensions()
            .filter(|(name, _)| !(per_tp && *name == VOCABULARY))
            .filter_map(|(name, size)| {
                let size = self.new_rows().filter(|_| name == VOCABULARY).unwrap_or(size);
                Some(self.model.limit(self.model.cut(name, by)?, size))
            })
            .chain(self.fused_limits(by))
            .collect();
        // Heads first: it is what people think of, so it should be what a refusal names.
        limits.sort_by_key(|limit| (limit.what != "heads", limit.what.clone()));
        limits.dedup();
        limits
    }

    /// Rows of tensors that hold several parameters group by group. Where ranks share a query group, its sizes divide heads and
    /// groups and still not these.
    fn fused_limits(&self, by: CutBy) -> impl Iterator<Item = Limit> {
        let fused = move |entry: &&Entry| {
            entry.by == by && matches!(entry.arrangement, Arrangement::Interleaved { .. })
        };
        self.model.entries().iter().filter(fused).filter_map(|entry| {
            let rows = entry.holds.iter().map(|holding| self.sample(holding).map(Param::size));
            // Every part lies in files, so the sum fits.
            let size = rows.sum::<Option<u64>>().filter(|rows| *rows > 0)?;
            Some(Limit { what: format!("rows of {}", entry.name.replace("{layer}", "0")), size, heads: None })
        })
    }
}
