//! The optimizer's state by the names of the model, and the settings of its parameter groups.

use std::sync::Arc;

use super::keys::{Key, Keys};
use super::tensors::{Content, DcpTensor, Named, all_bytes, named, of_values};
use crate::catalog::{MASTER, Optimizer, Param, StateOf};
use crate::format::dcp::write::{self, Object, Step};
use crate::format::megatron::keys::{PARAM_GROUPS, STEP};
use crate::layout::Layout;
use crate::tensor::Dtype;
use crate::value::Value;
use crate::view::dcp_files::pieces;
use crate::view::dcp_files::values::Values;
use crate::view::{Basis, ViewError};

/// An object that is no tensor, and the way to it in nested dicts.
pub(super) type Plain = (Object, Vec<Step>);

/// The tensors and objects of the optimizer; none where it is not shown. `groups` are settings whose names are those of the view.
pub(super) fn all(
    basis: &Basis,
    layout: &Layout,
    keys: Keys,
    groups: Option<&Value>,
    piece: u64,
) -> Result<(Vec<DcpTensor>, Vec<Plain>), ViewError> {
    let optimizer = basis.catalog.optimizer.as_ref().filter(|_| basis.optimizer.is_some());
    let Some(optimizer) = optimizer else { return Ok((Vec::new(), Vec::new())) };
    let least = pieces::least_bytes(all_bytes(basis), piece);
    let (mut tensors, mut objects) = (Vec::new(), Vec::new());
    for (number, state) in optimizer.states.iter().enumerate() {
        match &state.of {
            StateOf::Elements(_) => {
                for named in named(basis, layout, Values::State(number))? {
                    if *state.name == *MASTER && is_its_own_master(basis, &named) {
                        continue;
                    }
                    let key = keys.state(&named.tensor.name, &state.name);
                    tensors.push(of_values(&named, key, Values::State(number), least)?);
                }
            }
            StateOf::Scalar(params) => {
                for named in trained(basis, layout, optimizer)? {
                    let first = named.tensor.first.and_then(|first| params.get(&first.name));
                    let Some(param) = first else { continue };
                    let content = Content::Scalar { state: number, param: param.name.clone() };
                    let key = keys.state(&named.tensor.name, &state.name);
                    tensors.push(DcpTensor::scalar(key, param.dtype, content));
                }
            }
            StateOf::Same(value) if &*state.name == STEP && value.as_number().is_some() => {}
            StateOf::Same(value) => {
                for named in trained(basis, layout, optimizer)? {
                    objects.push(plain(keys.state(&named.tensor.name, &state.name), value.clone()));
                }
            }
        }
    }
    tensors.extend(steps(basis, layout, keys, optimizer)?);
    objects.extend(settings(keys, groups));
    Ok((tensors, objects))
}

/// The number of a state that the source has of this parameter.
pub(super) fn scalar<'basis>(basis: &'basis Basis, state: usize, param: &str) -> Option<&'basis Param> {
    match &basis.catalog.optimizer.as_ref()?.states.get(state)?.of {
        StateOf::Scalar(params) => params.get(param),
        StateOf::Elements(_) | StateOf::Same(_) => None,
    }
}

/// Whether a tensor is trained as it is saved, in 32 bits: the model has its master.
fn is_its_own_master(basis: &Basis, named: &Named<'_>) -> bool {
    let weight = named.tensor.first.and_then(|first| basis.catalog.weights.get(&first.name));
    weight.is_some_and(|weight| weight.dtype == Dtype::Float32)
}

/// Tensors of which the optimizer has state.
fn trained<'basis>(
    basis: &'basis Basis,
    layout: &Layout,
    optimizer: &Optimizer,
) -> Result<Vec<Named<'basis>>, ViewError> {
    let first = optimizer.states.iter().position(|state| matches!(state.of, StateOf::Elements(_)));
    match first {
        Some(number) => named(basis, layout, Values::State(number)),
        None => Ok(Vec::new()),
    }
}

/// How many steps were taken: a tensor for each, as torch's own Adam has it, where the source has one number for all.
fn steps(
    basis: &Basis,
    layout: &Layout,
    keys: Keys,
    optimizer: &Optimizer,
) -> Result<Vec<DcpTensor>, ViewError> {
    let is_said = optimizer.state(STEP).is_some_and(|state| matches!(state.of, StateOf::Scalar(_)));
    let Some(step) = optimizer.step.filter(|_| !is_said) else { return Ok(Vec::new()) };
    let trained = trained(basis, layout, optimizer)?;
    let of = |named: Named<'_>| {
        let key = keys.state(&named.tensor.name, STEP);
        DcpTensor::scalar(key, Dtype::Float32, Content::Number(step as f32))
    };
    Ok(trained.into_iter().map(of).collect())
}

/// The settings of parameter groups, each an object.
fn settings(keys: Keys, groups: Option<&Value>) -> Vec<Plain> {
    let Some(groups) = groups.and_then(|groups| groups.get(PARAM_GROUPS)) else { return Vec::new() };
    let numbered = (0..).zip(groups.elements().into_iter().flatten());
    let numbered =
        numbered.flat_map(|(number, group)| fields(group).map(move |field| (keys.setting(number, field.0), field.1)));
    // A flattened optimizer has those of each tensor instead.
    let of_tensors = fields(groups).flat_map(|(tensor, settings)| {
        fields(settings).map(move |field| (keys.setting_of(tensor, field.0), field.1))
    });
    numbered.chain(of_tensors).map(|(key, value)| plain(key, value.clone())).collect()
}

fn fields(of: &Value) -> impl Iterator<Item = (&str, &Value)> {
    of.items().into_iter().flatten().filter_map(|(name, value)| Some((name.as_str()?, value)))
}

fn plain((key, steps): Key, value: Value) -> Plain {
    (Object { key: key.into(), content: Arc::new(write::Content::plain(value)), file: 0 }, steps)
}
