//! Random-number states, which ranks save as objects of their own: for views of rank files, each of which has one.
//!
//! Source: `get_rng_state` of Megatron-LM's `checkpointing.py`: objects over pipeline and tensor ranks.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::Named;
use super::storages::renamed;
use crate::catalog::{Record, RngStates};
use crate::format::dcp::metadata::Object;
use crate::format::megatron::dist_keys::ObjectKey;
use crate::format::megatron::keys::RNG_STATE;
use crate::layout::Rank;
use crate::source::SourceError;
use crate::source::dcp::Opened;
use crate::source::workers::in_parallel;
use crate::store::Store;

/// What ranks saved, and where the tensors in it are.
pub(super) struct Rng {
    pub(super) states: RngStates,
    pub(super) storages: HashMap<Arc<str>, Record>,
}

/// Whether an object is such a state.
pub(super) fn is_state(key: &ObjectKey<'_>) -> bool {
    key.key == RNG_STATE && key.counts.len() == 2
}

/// Reads them. `None` where there are none, or one is not to be read or not as expected: no model is another one for that, and whoever
/// converts weights must not be kept from them. They are then left out, and said.
pub(super) fn read(opened: &Opened, named: &Named<'_>, store: &dyn Store) -> Result<Option<Rng>, SourceError> {
    let saved: Vec<(&Object, Rank, (u32, u32))> = named
        .objects
        .iter()
        .filter(|(_, key)| is_state(key))
        .filter_map(|(object, key)| match (key.offsets.as_slice(), key.counts.as_slice()) {
            (&[pp, tp], &[pps, tps]) => Some((*object, Rank { pp, tp, ep: 0 }, (pps, tps))),
            _ => None,
        })
        .collect();
    let Some((_, _, (pp, tp))) = saved.first().copied() else { return Ok(None) };
    let files = in_parallel(&saved, |(object, _, _)| match opened.object(object, store) {
        Ok(file) => Ok(Some(file)),
        // That the source cannot be read at all, or changed, is no matter of this object.
        Err(error @ SourceError::Store(_)) => Err(error),
        Err(_) => Ok(None),
    })?;
    let mut rng = Rng { states: RngStates { tp, pp, of: Vec::new() }, storages: HashMap::new() };
    for ((_, rank, sizes), file) in saved.into_iter().zip(files) {
        let Some(file) = file else { return Ok(None) };
        let key = |key: &str| -> Arc<str> { format!("{RNG_STATE} {}.{} {key}", rank.pp, rank.tp).into() };
        // An object is saved in a list of its own.
        let saved = match file.tree.elements() {
            Some([only]) if sizes == (pp, tp) => only,
            _ => return Ok(None),
        };
        let Some(state) = renamed(saved, &key) else { return Ok(None) };
        rng.states.of.push((rank, state));
        rng.storages.extend(file.storages.into_iter().map(|(name, record)| (key(&name), record)));
    }
    Ok(Some(rng))
}
