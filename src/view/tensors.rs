//! Tensors as a safetensors file.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{PlacedTensor, PlannedFile, TargetTensor, ViewError};
use crate::format::safetensors;
use crate::plan::{Builder, gather};

/// Data begins at a page: mapped and direct reads are then of whole pages.
const PAGE: usize = 4096;

/// The file that the safetensors library would write for these tensors, but for spaces behind its header. Extra state is no tensor.
pub(super) fn lay_out(
    metadata: &BTreeMap<String, String>,
    tensors: &[(Arc<str>, TargetTensor<'_>)],
) -> Result<PlannedFile, ViewError> {
    let targets = tensors.iter().filter_map(|(name, tensor)| Some((name, tensor.target.as_ref()?)));
    let targets: Vec<_> = targets.collect();
    let kinds: Vec<_> =
        targets.iter().map(|(name, target)| ((*name).clone(), target.dtype, target.shape.clone())).collect();
    let (header, order) = safetensors::encode(metadata, &kinds, PAGE)?;
    let mut builder = Builder::new();
    builder.literal(header);
    let mut placed = Vec::with_capacity(order.len());
    for index in order {
        #[expect(clippy::indexing_slicing, reason = "the order is one of these tensors")]
        let (name, target) = targets[index];
        let start = builder.position();
        builder.cut();
        gather(target, &mut builder)
            .map_err(|source| ViewError::Gather { tensor: name.to_string(), source })?;
        let (dtype, shape) = (target.dtype, target.shape.clone());
        let bytes = start..builder.position();
        placed.push(PlacedTensor { name: name.clone(), dtype, shape, bytes });
    }
    Ok(PlannedFile { plan: builder.finish(), tensors: placed })
}
