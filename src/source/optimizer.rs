//! Adds the optimizer's state to the catalog: which of its tensors belongs to which parameter.
//!
//! The optimizer state of rank files has no names. Its parts are told by their place: parameter groups and flat buffers list the parameters of
//! a rank in the order in which the model saves them. So everything is counted and measured here before it is believed. Distributed
//! checkpoints save it by name: Megatron's with parameter groups beside it (`keyed`), others without them (`named`).

mod chain;
mod elementwise;
mod flat;
pub(super) mod keyed;
mod named;
mod slots;

use std::sync::Arc;

use super::SourceError;
use super::build::Builder;
use super::known::Known;
use crate::catalog::{Encoding, MASTER, Optimizer, RankFile, State, StateOf};
use crate::format::megatron::DISTRIBUTED_FILE;
use crate::format::megatron::keys::{BUFFER_MASTERS, OPTIMIZER, STEP};
use crate::store::Store;
use crate::tensor::Dtype;

use chain::{Chain, StateForm, Group};
use slots::{Slot, slots};

/// One rank's optimizer and the parameters it is for.
struct RankOptimizer<'a> {
    file: &'a RankFile,
    /// Its optimizers: one, or one for the dense part and one for the experts.
    chains: Vec<Chain<'a>>,
    /// The parameters of the rank, in their order.
    slots: Vec<Slot<'a>>,
}

/// Reads the optimizer's state of all rank files into the catalog, where there is one.
pub(super) fn read(
    builder: &mut Builder<'_>,
    files: &[RankFile],
    known: &[Known<'_>],
    store: &dyn Store,
) -> Result<(), SourceError> {
    if let Some(first) = files.iter().find(|file| !file.named_states.is_empty()) {
        named::add(builder, files, known)?;
        builder.state = None;
        check_coverage(builder)?;
        return note_step_of(builder, &first.name, None, store);
    }
    let Some(first) = files.iter().find(|file| file.run.optimizer.is_some()) else {
        if files.iter().any(|file| file.buffers.is_some()) {
            builder
                .catalog
                .left_out
                .insert(format!("{DISTRIBUTED_FILE} (its rank files have no parameter groups)"));
        }
        return Ok(());
    };
    let mut of_files = vec![Vec::new(); files.len()];
    for known in known {
        of_files.get_mut(known.file).into_iter().for_each(|of_file: &mut Vec<_>| of_file.push(known));
    }
    let mut ranks = Vec::with_capacity(files.len());
    for (file, of_file) in files.iter().zip(of_files) {
        if file.run.optimizer.is_none() {
            return Err(wrong(&file.name, format!("it has no entry '{OPTIMIZER}', which {} has", first.name)));
        }
        let chains = chain::chains(file.run.optimizers(), &file.name)?;
        let slots = slots(builder, file, of_file.into_iter(), &chains)?;
        ranks.push(RankOptimizer { file, chains, slots });
    }
    let form = common_form(&ranks)?;
    let encoding = match form {
        StateForm::Mixed => Encoding::Mixed,
        StateForm::Single => Encoding::Single,
        StateForm::Flat => Encoding::Distributed(flat::buffers(&ranks, builder)?),
    };
    let optimizer = Optimizer {
        encoding,
        states: Vec::new(),
        step: None,
        wrappers: Default::default(),
        keeps_empty_groups: groups_of(&ranks).any(|(rank, group)| is_kept_empty(rank, group)),
    };
    builder.catalog.optimizer = Some(optimizer);
    for rank in &ranks {
        match encoding {
            Encoding::Mixed | Encoding::Single => elementwise::add(builder, rank)?,
            Encoding::Distributed(buffers) => flat::add(builder, rank, buffers)?,
            // Those have no ranks here.
            Encoding::Named => {}
        }
    }
    builder.state = None;
    check_coverage(builder)?;
    note_step(builder, &ranks, store)
}

/// Every parameter group, with its rank.
fn groups_of<'r, 'a>(
    ranks: &'r [RankOptimizer<'a>],
) -> impl Iterator<Item = (&'r RankOptimizer<'a>, &'r Group<'a>)> {
    ranks.iter().flat_map(|rank| {
        rank.chains.iter().flat_map(move |chain| chain.groups.iter().map(move |group| (rank, group)))
    })
}

/// Whether the group shows that groups without parameters are saved: it is one, or it has a field of the versions that do so.
fn is_kept_empty(rank: &RankOptimizer<'_>, group: &Group<'_>) -> bool {
    group.fields.get("default_config").is_some() || !rank.slots.iter().any(|slot| slot.kind == group.kind)
}

/// Every state is there for every parameter that any state is there for, all of it.
fn check_coverage(builder: &Builder<'_>) -> Result<(), SourceError> {
    let Some(optimizer) = &builder.catalog.optimizer else { return Ok(()) };
    let file = builder.catalog.ranks.first().map_or("", |file| file.name.as_str());
    let of_masters = optimizer.elements().find(|(name, _)| ***name == *MASTER).map(|(_, params)| params);
    for (state, params) in optimizer.elements() {
        for param in params.all() {
            param.check().map_err(|error| wrong(file, format!("{state} of {}: {error}", param.name)))?;
        }
        let lacks =
            of_masters.and_then(|all| all.all().iter().find(|param| params.get(&param.name).is_none()));
        if let Some(param) = lacks {
            return Err(wrong(
                file,
                format!("there is no {state} for {}, which other parameters have", param.name),
            ));
        }
    }
    Ok(())
}

/// All ranks keep their state in the same form.
fn common_form(ranks: &[RankOptimizer<'_>]) -> Result<StateForm, SourceError> {
    let mut forms = ranks.iter().flat_map(|rank| rank.chains.iter().map(move |chain| (rank, chain.form)));
    let Some((first, form)) = forms.next() else { return Ok(StateForm::Flat) };
    match forms.find(|(_, other)| *other != form) {
        None => Ok(form),
        Some((rank, other)) => Err(wrong(
            &rank.file.name,
            format!("it is {}, but in {} it is {}", other.words(), first.file.name, form.words()),
        )),
    }
}

/// Notes how many steps were taken: kept with each parameter, or with each parameter group.
fn note_step(
    builder: &mut Builder<'_>,
    ranks: &[RankOptimizer<'_>],
    store: &dyn Store,
) -> Result<(), SourceError> {
    let groups = ranks.iter().flat_map(|rank| &rank.chains).flat_map(|chain| &chain.groups);
    let of_groups = groups.filter_map(|group| group.fields.get(STEP)?.as_number()).next();
    match ranks.first() {
        Some(rank) => note_step_of(builder, &rank.file.name, of_groups, store),
        None => Ok(()),
    }
}

/// As [`note_step`], where `of_groups` is what parameter groups say.
fn note_step_of(
    builder: &mut Builder<'_>,
    file: &str,
    of_groups: Option<f64>,
    store: &dyn Store,
) -> Result<(), SourceError> {
    let Some(optimizer) = builder.catalog.optimizer.as_mut() else { return Ok(()) };
    let step = match optimizer.state(STEP).map(|state| &state.of) {
        Some(StateOf::Same(value)) => value.as_number(),
        Some(StateOf::Scalar(params)) => {
            let first = params.all().first().filter(|param| param.dtype == Dtype::Float32);
            match first.and_then(|param| param.stored().first().copied()) {
                Some(chunk) => {
                    let mut bytes = [0; 4];
                    store.read_exact_at(chunk.object, chunk.start, &mut bytes)?;
                    Some(f64::from(f32::from_le_bytes(bytes)))
                }
                None => None,
            }
        }
        Some(StateOf::Elements(_)) => None,
        None => of_groups,
    };
    optimizer.step = step;
    match step.filter(|step| !step.is_finite() || *step < 0.0) {
        Some(step) => Err(wrong(file, format!("its step is {step}"))),
        None => Ok(()),
    }
}

/// The state called `name` as what parameters are added to. `None` where it is known as something else.
fn select(builder: &mut Builder<'_>, name: &str, new: impl FnOnce() -> StateOf) -> Option<()> {
    let optimizer = builder.catalog.optimizer.as_mut()?;
    let new = new();
    let index = match optimizer.states.iter().position(|state| &*state.name == name) {
        Some(index) => index,
        None => {
            optimizer.states.push(State { name: Arc::from(name), of: new.clone() });
            optimizer.states.len() - 1
        }
    };
    let known = &optimizer.states.get(index)?.of;
    builder.state = Some(index);
    (std::mem::discriminant(known) == std::mem::discriminant(&new)).then_some(())
}

fn elements() -> StateOf {
    StateOf::Elements(Default::default())
}

fn wrong(file: &str, what: String) -> SourceError {
    SourceError::Optimizer { file: file.to_owned(), what }
}

/// The catalog's name of a state that a file calls `name`.
fn canonical(name: &str) -> &str {
    // The masters among the buffers of a distributed optimizer.
    if name == BUFFER_MASTERS { MASTER } else { name }
}
