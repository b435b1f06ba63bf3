//! Extra states: for every module that a loader asks one of, an object of its own for each layer and expert.
//!
//! A loader without fp8 wants nothing in them but that they are there. So every module has them that may ask for one in any version, with
//! Megatron's own layers or with Transformer Engine's; what nobody asks for is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::keys::Keys;
use super::tensors::DistTensor;
use crate::catalog::ExtraState;
use crate::family::Numbers;
use crate::format::dcp::write::{Content, Object, object_content};
use crate::format::megatron::dist_keys::{CORE_ATTENTION, DistName, Of, object_key};
use crate::layout::Layout;
use crate::value::Value;
use crate::view::ViewError;
use crate::view::hf::WHOLE;
use crate::view::megatron::{Contents, Verbatim};
use crate::view::target::tensor_of;

/// The extra states of a model that has these tensors. What states of the source refer to goes into `contents`. All are in the first file.
pub(super) fn extra_states(
    keys: &Keys<'_>,
    layout: &Layout,
    tensors: &[DistTensor],
    contents: &mut Contents<'_>,
) -> Result<Vec<Object>, ViewError> {
    let modules: BTreeSet<&str> = tensors.iter().filter_map(|tensor| module_of(&tensor.key)).collect();
    let nothing = Arc::new(Content::plain(object_content(Value::None)));
    let mut objects: BTreeMap<String, Arc<Content>> = BTreeMap::new();
    for saved in keys.basis.model.saved_at(layout, WHOLE) {
        let entry = keys.basis.model.entry_of(saved);
        let Some(name) = keys.known_name(entry).filter(DistName::is_extra_state) else { continue };
        let own = keys.own_layer(&name, saved.global);
        let key = name.key(own);
        let is_module = module_of(&key).is_some_and(|module| modules.contains(module) || is_core(module));
        if !is_module {
            continue;
        }
        let state = tensor_of(keys.basis, layout, WHOLE, saved)?.and_then(|tensor| tensor.extra_state);
        // That of a module of all experts is not one expert's.
        let state = state.filter(|_| !name.of_experts || saved.global.expert.is_some());
        for (offsets, counts) in parts(keys, &name, own, saved.global) {
            let key = object_key(&key, &offsets, &counts);
            match state {
                Some(state) => {
                    objects.insert(key, Arc::new(carried(keys, state, contents)?));
                }
                None => {
                    objects.entry(key).or_insert_with(|| nothing.clone());
                }
            }
        }
    }
    Ok(objects.into_iter().map(|(key, content)| Object { key: key.into(), content, file: 0 }).collect())
}

/// The module that a tensor or extra state is of. Parts of a name do not have dots.
fn module_of(key: &str) -> Option<&str> {
    key.rsplit_once('.').map(|(module, _)| module)
}

fn is_core(module: &str) -> bool {
    module.rsplit('.').next() == Some(CORE_ATTENTION)
}

/// Which parts of an object these numbers are, and of how many: one, or one for each expert where the source's module is of all.
fn parts(keys: &Keys<'_>, name: &DistName, own_layer: Option<u32>, numbers: Numbers) -> Vec<(Vec<u32>, Vec<u32>)> {
    let is_stacked = name.of == Of::Layers && own_layer.is_none();
    let layer = numbers.layer.filter(|_| is_stacked).map(|layer| (layer, keys.layers()));
    let experts = match (name.of_experts, numbers.expert) {
        (false, _) => vec![None],
        (true, Some(expert)) => vec![Some(expert)],
        (true, None) => (0..keys.experts()).map(Some).collect(),
    };
    let part = |expert: Option<u32>| layer.into_iter().chain(expert.map(|expert| (expert, keys.experts()))).unzip();
    experts.into_iter().map(part).collect()
}

/// The state that the source has of a module. Tensors in it are known as storages of the source.
fn carried(keys: &Keys<'_>, state: &ExtraState, contents: &mut Contents<'_>) -> Result<Content, ViewError> {
    let file = keys.basis.catalog.ranks.iter().find(|file| file.rank == state.rank).ok_or(ViewError::NoRank)?;
    let value = Verbatim::new(file, contents).value(&state.value);
    let mut storages = BTreeSet::new();
    storages_in(&value, &mut storages);
    let storages = storages.into_iter().map(|key| (key, None)).collect();
    Ok(Content { value: object_content(value), storages })
}

/// Keys of all storages in a value. The decoder has bounded what is walked here.
fn storages_in(value: &Value, found: &mut BTreeSet<Arc<str>>) {
    match value {
        Value::Tensor(tensor) => {
            found.insert(tensor.storage.key.clone());
        }
        Value::List(items) | Value::Tuple(items) => items.iter().for_each(|item| storages_in(item, found)),
        Value::Dict(items) => items.iter().for_each(|(_, item)| storages_in(item, found)),
        Value::Object(object) => {
            let items = object.items.iter().map(|(_, item)| item);
            let inner = object.appended.iter().chain(items).chain([&object.args]).chain(&object.state);
            inner.for_each(|item| storages_in(item, found));
        }
        _ => {}
    }
}
