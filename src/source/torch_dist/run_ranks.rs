//! The ranks of the run that saved the checkpoint, as rank files would have them: which weights each had, in which order and of which sizes.
//!
//! Flat buffers of a distributed optimizer are laid out by that, for each rank apart. Their bytes are another's matter (`buffers`).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::{Catalog, Param, RankFile, RunState};
use crate::extent::ObjectId;
use crate::family::{ArgRole, Entry, Model, Numbers, Saved};
use crate::layout::{Experts, Layout, PipelineLayout, Place, Rank, Stages};
use crate::tensor::{Band, Shape};
use crate::value::{Storage, TensorRef, Value};

use super::args::size;
use super::buffers::Owner;

/// The layout that args say the run had. `None` where they say stages in a way that is not known here.
pub(super) fn layout(args: &Value, model: &Model, whole: &Layout) -> Option<Layout> {
    let role = |role| size(args, model, role);
    let number = |role: ArgRole| {
        let stated = model.fields_of(role).filter_map(|field| args.attribute(field)?.as_int());
        stated.filter_map(|number| u32::try_from(number).ok()).find(|number| *number > 0)
    };
    let (tp, pp, vpp) = (role(ArgRole::Tp), role(ArgRole::Pp), role(ArgRole::Vpp));
    let text = model.fields_of(ArgRole::StagesLayout).find_map(|field| args.attribute(field)?.as_str());
    let layers = u32::try_from(whole.stages.total()).ok()?;
    let stages = match (text, number(ArgRole::FirstStage), number(ArgRole::LastStage)) {
        (Some(text), _, _) => text.parse::<PipelineLayout>().ok()?.stages,
        (None, None, None) => {
            let count = pp.checked_mul(vpp)?;
            layers.is_multiple_of(count).then(|| Stages::nearly_even(layers, count))?
        }
        (None, first, last) if vpp == 1 => Stages::new(uneven(layers, pp, first, last)?)?,
        _ => return None,
    };
    let fits = stages.total() == u64::from(layers) && Some(stages.count()) == pp.checked_mul(vpp);
    let experts = whole.experts.map(|_| Experts {
        ep: role(ArgRole::Ep),
        etp: match number(ArgRole::Etp) {
            Some(etp) => etp,
            None => tp,
        },
    });
    let are_shared_out = match (experts, model.size("experts")) {
        (Some(Experts { ep, etp }), Some(experts)) => tp.is_multiple_of(etp) && experts.is_multiple_of(ep.into()),
        (experts, _) => experts.is_none(),
    };
    (fits && are_shared_out).then_some(Layout { tp, stages, vpp, experts })
}

/// Layers of each stage where the first and the last differ from those between them.
fn uneven(layers: u32, pp: u32, first: Option<u32>, last: Option<u32>) -> Option<Vec<u32>> {
    let said = u32::from(first.is_some()) + u32::from(last.is_some());
    let rest = layers.checked_sub(first.into_iter().chain(last).try_fold(0u32, u32::checked_add)?)?;
    let others = pp.checked_sub(said)?;
    let each = if others == 0 { 0 } else { rest.checked_div(others)? };
    let is_whole = each.checked_mul(others)? == rest;
    let middle = (0..others).map(|_| each);
    is_whole.then(|| first.into_iter().chain(middle).chain(last).collect())
}

/// The rank files of a run in this layout: with weights that have sizes and are stored nowhere.
pub(super) fn files(catalog: &Catalog, model: &Model, layout: &Layout, args: &Value, name: &str) -> Vec<RankFile> {
    let lister = Lister { catalog, model, layout };
    let object = catalog.ranks.first().map_or(ObjectId(0), |file| file.object);
    let files = layout.ranks().map(|rank| {
        let parts = (0..layout.vpp).map(|chunk| lister.part(Place { rank, chunk }));
        let run = RunState::of_args(args.clone());
        let models = parts.collect();
        RankFile { rank, models, ..RankFile::of_run(object, name.to_owned(), run) }
    });
    files.collect()
}

/// Who keeps the state of a rank's optimizers, each with whether the rank is the first with that: one for everything, or one for the dense
/// parameters and one for experts, where `known` has such of it.
pub(super) fn owners(rank: Rank, layout: &Layout, known: &BTreeSet<Owner>) -> Vec<(Owner, bool)> {
    let group = dense_group(rank, layout);
    let dense = |chain| (Owner { chain, group }, rank.ep == 0);
    let several = dense(Some(0));
    if !known.contains(&several.0) {
        return vec![dense(None)];
    }
    let experts = Owner { chain: Some(1), group: expert_group(rank, layout) };
    vec![several, (experts, rank.tp == layout.etp_rank(rank))]
}

/// Which group of data-parallel ranks keeps the buffers of a rank's dense parameters: its number among those that share out the model
/// (`get_model_parallel_group` of megatron-core).
fn dense_group(rank: Rank, layout: &Layout) -> u32 {
    rank.pp.saturating_mul(layout.tp).saturating_add(rank.tp)
}

/// Which group keeps those of its experts: its number among those that share these out (`get_expert_tensor_model_pipeline_parallel_group`).
fn expert_group(rank: Rank, layout: &Layout) -> u32 {
    let of_stage = rank.ep.saturating_mul(layout.etp()).saturating_add(layout.etp_rank(rank));
    rank.pp.saturating_mul(layout.ep()).saturating_mul(layout.etp()).saturating_add(of_stage)
}

struct Lister<'a> {
    catalog: &'a Catalog,
    model: &'a Model,
    layout: &'a Layout,
}

impl Lister<'_> {
    /// What a part of the model on a rank is.
    fn part(&self, place: Place) -> Value {
        let saved = self.model.saved_at(self.layout, place).into_iter();
        let leaves = saved.filter_map(|saved| {
            let entry = self.model.entry_of(saved);
            let weight = self.weight(entry, saved, place)?;
            Some((Value::str(&saved.local.fill(&entry.name)), Value::Tensor(Arc::new(weight))))
        });
        Value::Dict(leaves.collect())
    }

    /// The tensor of an entry, if the rank has it.
    fn weight(&self, entry: &Entry, saved: Saved, place: Place) -> Option<TensorRef> {
        let is_made = entry.only_if_pipelined || entry.copy;
        let is_spelled = is_made || self.catalog.spells(&entry.name, saved.global.layer);
        let is_here = entry.is_on(self.layout, place) && !(entry.only_if_pipelined && self.layout.pp() == 1);
        if entry.holds.is_empty() || !is_spelled || !is_here {
            return None;
        }
        let params = self.params(entry, saved.global)?;
        let first = params.first()?;
        let sizes: Vec<u64> = params.iter().map(|param| param.size()).collect();
        let most: Vec<Option<u64>> = entry.holds.iter().map(|holding| holding.most_parts).collect();
        let (ways, part) = entry.part(self.layout, place.rank);
        let bands = entry.arrangement.bands_with_copies(&sizes, &most, ways, part).ok()?;
        let rows = bands.iter().map(Band::positions).sum();
        let shape = if first.shape.rank() == 0 { Shape::default() } else { first.shape.with(entry.axis, rows) };
        let key: Arc<str> = saved.local.fill(&entry.name).into();
        Some(TensorRef {
            dtype: first.dtype,
            strides: shape.contiguous_strides()?,
            storage: Storage { key, bytes: shape.bytes(first.dtype)? },
            shape,
            offset: 0,
            requires_grad: false,
        })
    }

    fn params(&self, entry: &Entry, numbers: Numbers) -> Option<Vec<&Param>> {
        entry.holds.iter().map(|holding| self.catalog.param(&numbers.fill(&holding.param))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_at_the_ends_may_differ() {
        assert_eq!(uneven(10, 3, Some(2), Some(4)), Some(vec![2, 4, 4]));
        assert_eq!(uneven(10, 3, Some(2), None), Some(vec![2, 4, 4]));
        assert_eq!(uneven(10, 3, None, Some(2)), Some(vec![4, 4, 2]));
        assert_eq!(uneven(6, 2, Some(2), Some(4)), Some(vec![2, 4]));
        assert_eq!(uneven(7, 2, Some(2), Some(4)), None);
        assert_eq!(uneven(10, 4, Some(2), Some(3)), None);
        assert_eq!(uneven(10, 1, Some(2), Some(3)), None);
    }

    #[test]
    fn groups_are_counted_as_megatron_counts_them() {
        let layout = Layout::dense(2, Stages::nearly_even(4, 2));
        let found: Vec<_> = layout.ranks().map(|rank| owners(rank, &layout, &BTreeSet::new())).collect();
        let only = |group| vec![(Owner { chain: None, group }, true)];
        assert_eq!(found, [only(0), only(1), only(2), only(3)]);
    }

    #[test]
    fn groups_of_experts_are_counted_apart() {
        let with = |ep, etp| Layout { experts: Some(Experts { ep, etp }), ..Layout::dense(2, Stages::nearly_even(4, 2)) };
        let known = (0..4).map(|group| Owner { chain: Some(0), group }).collect();
        let firsts = |layout: &Layout| -> Vec<_> {
            let all = layout.ranks().flat_map(|rank| owners(rank, layout, &known));
            all.filter(|(_, is_first)| *is_first).map(|(owner, _)| (owner.chain.unwrap(), owner.group)).collect()
        };
        // Everybody once, whatever the experts are cut into: tensor ranks count fastest.
        assert_eq!(firsts(&with(2, 1)), [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2), (1, 3), (0, 3)]);
        assert_eq!(
            firsts(&with(2, 2)),
            [(0, 0), (1, 0), (1, 2), (0, 1), (1, 1), (1, 3), (0, 2), (1, 4), (1, 6), (0, 3), (1, 5), (1, 7)]
        );
    }
}
