//! Parameter groups of a rank of a view: the source's settings, the target's parameters.

#![expect(clippy::disallowed_methods, reason = "fields of Python objects: what they do not have is left out")]

use super::slots::Slot;
use super::{Chain, RankOptimizer};
use crate::catalog::RankFile;
use crate::family::Entry;
use crate::format::megatron::GroupKind;
use crate::format::megatron::keys::{PARAM_GROUPS, PARAMS, STEP};
use crate::value::Value;
use crate::view::megatron::verbatim::Verbatim;
use crate::view::megatron::contents::Contents;
use crate::view::optimizer::inner_of;
use crate::view::{Basis, ViewError};

/// A parameter group.
pub(super) struct Group<'s> {
    pub(super) kind: GroupKind,
    fields: Fields<'s>,
}

/// Fields of a parameter group in the source, and the rank file that has them: tensors in them are in that file.
#[derive(Clone, Copy)]
struct Fields<'s> {
    file: &'s RankFile,
    value: &'s Value,
}

/// An optimizer of the source, the rank file that has it, and all kinds of its groups.
struct Template<'s> {
    file: &'s RankFile,
    optimizer: &'s Value,
    groups: Vec<(GroupKind, Fields<'s>)>,
}

/// Where the number of steps is kept.
pub(super) struct Steps<'s> {
    /// With each parameter, as torch's own Adam does: the number, where the source kept it with its groups.
    pub(super) with_parameters: Option<f64>,
    /// With each group: the number, wherever the source kept it.
    with_groups: Option<(Value, Option<&'s RankFile>)>,
}

impl<'s> Steps<'s> {
    /// For a view that keeps states parameter by parameter (`elementwise`) or in buffers.
    pub(super) fn of(basis: &'s Basis, source: &'s RankFile, elementwise: bool) -> Self {
        let optimizer = basis.catalog.optimizer.as_ref();
        let with_each = optimizer.and_then(|optimizer| optimizer.state(STEP)).is_some();
        // One number in the whole run. A rank that had nothing to step does not say it, so any may.
        let templates = templates(basis, source);
        let groups = templates.iter().flat_map(|template| &template.groups);
        let in_groups = groups.filter_map(|(_, fields)| Some((fields.value.get(STEP)?, fields.file))).next();
        // A distributed optimizer of torch's own Adam notes the step as a float in its groups; others count with an int in them always.
        match (elementwise, with_each, in_groups) {
            (true, false, Some((Value::Float(step), _))) => {
                Self { with_parameters: Some(*step), with_groups: None }
            }
            (false, true, _) => {
                let step = optimizer.and_then(|optimizer| optimizer.step);
                Self { with_parameters: None, with_groups: step.map(|step| (Value::Float(step), None)) }
            }
            (_, _, in_groups) => {
                let step = in_groups.map(|(step, file)| (step.clone(), Some(file)));
                Self { with_parameters: None, with_groups: step }
            }
        }
    }

    /// The number in a group: one that counts does so when it has parameters, and a distributed optimizer then tells all its groups.
    fn in_group(&self, has_parameters: bool, contents: &mut Contents<'_>) -> Option<Value> {
        let (step, file) = self.with_groups.as_ref()?;
        let is_known = has_parameters || matches!(step, Value::Float(_));
        // Optimizers that run in CUDA graphs count in a tensor.
        let carry = |file: &RankFile| Verbatim::new(file, contents).value(step);
        is_known.then(|| file.map_or_else(|| step.clone(), carry))
    }
}

const EXPERT: &str = "is_expert_parallel";

/// The optimizers of a rank: one, or one for the dense part and one for the experts.
pub(super) fn chains<'s>(
    basis: &'s Basis,
    source: &'s RankFile,
    slots: &[Slot<'s>],
    experts_apart: bool,
) -> Result<Vec<Chain<'s>>, ViewError> {
    let sources = templates(basis, source);
    let mut chains = Vec::new();
    let kinds: &[bool] = if experts_apart { &[false, true] } else { &[false] };
    for expert in kinds {
        // Where the source does not tell experts apart, theirs is like the dense one.
        let of_kind = |kind: GroupKind| kind.expert == *expert;
        let own = sources.iter().find(|template| template.groups.iter().any(|(kind, _)| of_kind(*kind)));
        let Some(template) = own.or_else(|| sources.first()) else { continue };
        let groups = template
            .groups
            .iter()
            .map(|(kind, fields)| Group { kind: GroupKind { expert: *expert, ..*kind }, fields: *fields });
        let mut groups: Vec<Group<'s>> = groups.collect();
        groups.dedup_by_key(|group| group.kind);
        // A group without parameters is saved only by versions that keep groups alike on all ranks.
        let keeps_empty =
            basis.catalog.optimizer.as_ref().is_some_and(|optimizer| optimizer.keeps_empty_groups);
        groups.retain(|group| {
            slots.iter().any(|slot| slot.kind == group.kind)
                || (keeps_empty && (!expert || exists(basis, group.kind, experts_apart)))
        });
        // Versions that do not keep such groups have no optimizer for experts on a rank without any.
        if *expert && groups.is_empty() && !keeps_empty {
            continue;
        }
        // Those with this field and without the later one list groups as a rank's parameters come upon them.
        let has = |group: &Group<'_>, field: &str| group.fields.value.get(field).is_some();
        if groups.iter().all(|group| has(group, "is_decoupled_lr") && !has(group, "default_config")) {
            let first = |group: &Group<'_>| slots.iter().position(|slot| slot.kind == group.kind);
            groups.sort_by_key(|group| first(group).unwrap_or(usize::MAX));
        }
        chains.push(Chain { template: template.optimizer, file: template.file, groups });
    }
    let lost = slots
        .iter()
        .find(|slot| !chains.iter().flat_map(|chain| &chain.groups).any(|group| group.kind == slot.kind));
    match lost {
        None => Ok(chains),
        Some(slot) => Err(ViewError::NoGroup { tensor: slot.name.to_string(), file: source.name.clone() }),
    }
}

/// The optimizers of a source rank with their groups; where it lacks a kind of group, one of another rank stands in.
fn templates<'s>(basis: &'s Basis, source: &'s RankFile) -> Vec<Template<'s>> {
    let mut templates: Vec<Template<'s>> = Vec::new();
    for file in std::iter::once(source).chain(&basis.catalog.ranks) {
        for (index, optimizer) in file.run.optimizers().iter().enumerate() {
            let groups = inner_of(optimizer).0.get(PARAM_GROUPS).and_then(Value::elements).unwrap_or_default();
            let groups =
                groups.iter().filter_map(|value| Some((GroupKind::of(value).ok()?, Fields { file, value })));
            match templates.get_mut(index) {
                Some(Template { groups: known, .. }) => {
                    for (kind, fields) in groups {
                        if !known.iter().any(|(other, _)| *other == kind) {
                            known.push((kind, fields));
                        }
                    }
                }
                None => templates.push(Template { file, optimizer, groups: groups.collect() }),
            }
        }
        // Most often the first file has everything: looking on would make each rank of a view as costly as the whole source.
        let has = |kind: &GroupKind| {
            templates.iter().flat_map(|template| &template.groups).any(|(known, _)| known == kind)
        };
        if basis.group_kinds.iter().all(has) {
            break;
        }
    }
    templates
}

/// Whether any rank has parameters of this kind.
fn exists(basis: &Basis, kind: GroupKind, experts_apart: bool) -> bool {
    let is_of_kind = |entry: &Entry| {
        let rank = entry.holds.first().map_or(0, |holding| holding.dimensions.len());
        entry.is_trained()
            && basis.catalog.spellings.contains_key(&entry.name)
            && GroupKind::decays(basis.args(), &entry.name, rank) == kind.decays
            && (entry.is_expert() && experts_apart) == kind.expert
    };
    basis.model.entries().iter().any(is_of_kind)
}

/// Whether groups say which parameters are in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// By their numbers on the rank.
    Listed,
    /// What follows from the model alone is not said.
    LeftOut,
}

/// The parameter groups of one optimizer, numbering its parameters group by group.
pub(super) fn list(
    rank: &RankOptimizer<'_>,
    chain: &Chain<'_>,
    steps: &Steps<'_>,
    listed: Numbers,
    contents: &mut Contents<'_>,
) -> Value {
    let mut next = 0i64;
    let counts = chain.groups.iter().map(|group| rank.members(group).count());
    let counts: Vec<usize> = counts.collect();
    let has_any = counts.iter().any(|count| *count > 0);
    let groups = chain.groups.iter().zip(counts).map(|(group, count)| {
        let numbers = (listed == Numbers::Listed).then(|| {
            let first = next;
            next += i64::try_from(count).unwrap_or(i64::MAX);
            Value::List((first..next).map(Value::Int).collect())
        });
        let step = steps.in_group(if rank.has_buffers() { has_any } else { count > 0 }, contents);
        fields(group, numbers, step, contents)
    });
    Value::List(groups.collect())
}

fn fields(
    group: &Group<'_>,
    mut numbers: Option<Value>,
    mut step: Option<Value>,
    contents: &mut Contents<'_>,
) -> Value {
    let mut verbatim = Verbatim::new(group.fields.file, contents);
    let mut fields: Vec<(Value, Value)> = Vec::new();
    for (key, value) in group.fields.value.items().unwrap_or_default() {
        let value = match key.as_str() {
            Some(PARAMS) => match numbers.take() {
                Some(numbers) => numbers,
                None => continue,
            },
            Some(STEP) => match step.take() {
                Some(step) => step,
                None => continue,
            },
            Some(EXPERT) => Value::Bool(group.kind.expert),
            _ => verbatim.value(value),
        };
        fields.push((key.clone(), value));
    }
    // Before the parameters, which torch puts last.
    let end = fields
        .len()
        .saturating_sub(usize::from(fields.last().is_some_and(|(key, _)| key.as_str() == Some(PARAMS))));
    fields.splice(end..end, step.map(|step| (Value::str(STEP), step)));
    fields.extend(numbers.map(|numbers| (Value::str(PARAMS), numbers)));
    Value::Dict(fields.into())
}
