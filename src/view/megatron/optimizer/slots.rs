//! The parameters of a rank in the order in which its optimizer counts them, each with how its states are made.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{MASTER, Param, Params, StateOf};
use crate::family::Entry;
use crate::format::megatron::GroupKind;
use crate::format::megatron::keys::part_prefix;
use crate::layout::{Layout, Place, Rank};
use crate::plan::{Source, Target};
use crate::tensor::{Band, Dtype};
use crate::value::Value;
use crate::view::target::{Of, tensors_of};
use crate::view::{Basis, ViewError, VocabularyFill};

/// One parameter of a rank.
pub(super) struct Slot<'s> {
    /// Which part of the model it is in.
    pub(super) chunk: u32,
    /// Its name there.
    pub(super) name: Arc<str>,
    pub(super) entry: &'s Entry,
    /// The kind of parameter group that it is in.
    pub(super) kind: GroupKind,
    /// Element type of the weight.
    pub(super) dtype: Dtype,
    /// Elements on this rank.
    pub(super) elements: u64,
    /// Whether it is an embedding that other stages have too.
    pub(super) shared_embedding: bool,
    /// Whether it is a copy of what another stage has, there because of the layout.
    pub(super) is_copy: bool,
    /// Its states, in the order of the catalog.
    pub(super) states: Vec<SlotState<'s>>,
}

/// One state of a parameter.
pub(super) struct SlotState<'s> {
    /// The catalog's name of it.
    pub(super) name: Arc<str>,
    pub(super) of: SlotOf<'s>,
}

/// What a state of a parameter is.
pub(super) enum SlotOf<'s> {
    /// A tensor like the weight.
    Elements(Target<'s>),
    /// A tensor of one number.
    Scalar(Target<'s>),
    /// One number, the same for all.
    Same(&'s Value),
}

impl Slot<'_> {
    /// Whether the weight has masters of its own.
    pub(super) fn is_half(&self) -> bool {
        matches!(self.dtype, Dtype::Float16 | Dtype::Bfloat16)
    }

    /// A name of one of its states that nothing else in the file has.
    pub(super) fn label(&self, state: &str, chunks: u32) -> String {
        format!("optimizer/{state}/{}{}", part_prefix(self.chunk, chunks), self.name)
    }
}

/// The parameters of `rank` with their states.
pub(super) fn slots<'s>(
    basis: &'s Basis,
    layout: &Layout,
    rank: Rank,
    experts_apart: bool,
) -> Result<Vec<Slot<'s>>, ViewError> {
    let mut slots = Vec::new();
    for place in layout.places(rank) {
        let first = slots.len();
        for tensor in tensors_of(Of::weights(basis), layout, place)? {
            if !tensor.entry.is_trained() {
                continue;
            }
            let elements = tensor.target.as_ref().map(|target| target.shape.elements());
            let elements = elements.map(|elements| elements.ok_or_else(|| tensor.too_large())).transpose()?;
            let (Some(target), Some(elements)) = (tensor.target, elements) else { continue };
            slots.push(Slot {
                chunk: place.chunk,
                kind: kind(basis, experts_apart, tensor.entry, &target),
                dtype: target.dtype,
                elements,
                shared_embedding: basis.model.shares_embedding(tensor.entry, layout),
                is_copy: tensor.entry.only_if_pipelined
                    || (tensor.entry.also_last && !layout.is_first(place)),
                name: tensor.name,
                entry: tensor.entry,
                states: Vec::new(),
            });
        }
        #[expect(clippy::indexing_slicing, reason = "there were as many before")]
        add_states(basis, layout, place, &mut slots[first..])?;
    }
    Ok(slots)
}

/// The kind of parameter group of a tensor.
fn kind(basis: &Basis, experts_apart: bool, entry: &Entry, target: &Target<'_>) -> GroupKind {
    GroupKind {
        decays: GroupKind::decays(basis.args(), &entry.name, target.shape.rank()),
        decoupled: entry.is_vocabulary() && basis.has_decoupled(),
        expert: entry.is_expert() && experts_apart,
    }
}

/// Adds every state to the parameters of one place.
fn add_states<'s>(
    basis: &'s Basis,
    layout: &Layout,
    place: Place,
    slots: &mut [Slot<'s>],
) -> Result<(), ViewError> {
    let by_name: HashMap<Arc<str>, usize> =
        slots.iter().enumerate().map(|(index, slot)| (slot.name.clone(), index)).collect();
    for state in basis.catalog.optimizer.iter().flat_map(|optimizer| &optimizer.states) {
        let mut add = |name: &str, of: SlotOf<'s>| {
            if let Some(slot) = by_name.get(name).and_then(|index| slots.get_mut(*index)) {
                slot.states.push(SlotState { name: state.name.clone(), of });
            }
        };
        match &state.of {
            StateOf::Elements(params) => {
                // New rows have no history, whatever they hold.
                let fill = if *state.name == *MASTER { basis.fill } else { VocabularyFill::Zero };
                for tensor in tensors_of(Of { basis, params, fill, with_copies: false }, layout, place)? {
                    if let Some(target) = tensor.target {
                        add(&tensor.name, SlotOf::Elements(target));
                    }
                }
            }
            StateOf::Scalar(params) => {
                for tensor in tensors_of(Of::weights(basis), layout, place)? {
                    if let Some(scalar) = tensor.first.and_then(|param| scalar(params, param)) {
                        add(&tensor.name, SlotOf::Scalar(scalar));
                    }
                }
            }
            StateOf::Same(value) => {
                let names: Vec<Arc<str>> = by_name.keys().cloned().collect();
                names.iter().for_each(|name| add(name, SlotOf::Same(value)));
            }
        }
    }
    Ok(())
}

/// The number that is kept for the tensor whose first parameter is `param`.
fn scalar<'s>(params: &'s Params, param: &Param) -> Option<Target<'s>> {
    let number = params.get(&param.name)?;
    let bands = vec![(Band::once(0, 0, 0, 1), Source::Param(number))];
    Some(Target::single(number.dtype, number.shape.clone(), 0, bands))
}
