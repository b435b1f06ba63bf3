//! Which tensors go into which file of a model: filled in the order of the model's modules up to a size, as transformers does it.

use super::WHOLE;
use crate::format::hf::{Index, shard};
use crate::layout::Layout;
use crate::family::Saved;
use crate::view::target::tensor_of;
use crate::view::{Basis, ViewError};

/// The files of a model.
#[derive(Debug)]
pub(super) struct Shards {
    shards: Vec<Shard>,
    /// Bytes of all tensors.
    pub(super) bytes: u64,
    /// Numbers in all tensors.
    pub(super) elements: u64,
}

#[derive(Debug, Default)]
struct Shard {
    keys: Vec<Saved>,
    names: Vec<String>,
    bytes: u64,
}

impl Shards {
    /// Files of at most `most` bytes of data; a tensor larger than that has one of its own.
    pub(super) fn of(basis: &Basis, layout: &Layout, most: u64) -> Result<Self, ViewError> {
        let mut all = Self { shards: Vec::new(), bytes: 0, elements: 0 };
        let mut open = Shard::default();
        for key in basis.model.saved_at(layout, WHOLE) {
            let Some(tensor) = tensor_of(basis, layout, WHOLE, key)? else { continue };
            let Some(target) = &tensor.target else { continue };
            let sizes = target.shape.elements().zip(target.shape.bytes(target.dtype));
            let (elements, bytes) = sizes.ok_or_else(|| tensor.too_large())?;
            all.bytes = all.bytes.saturating_add(bytes);
            all.elements = all.elements.saturating_add(elements);
            if bytes > most {
                let (keys, names) = (vec![key], vec![tensor.name.to_string()]);
                all.shards.push(Shard { keys, names, bytes });
                continue;
            }
            if open.bytes.saturating_add(bytes) > most {
                all.shards.push(std::mem::take(&mut open));
            }
            open.keys.push(key);
            open.names.push(tensor.name.to_string());
            open.bytes += bytes;
        }
        if !open.keys.is_empty() || all.shards.is_empty() {
            all.shards.push(open);
        }
        Ok(all)
    }

    pub(super) fn count(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn keys(&self, number: usize) -> Option<&[Saved]> {
        self.shards.get(number).map(|shard| shard.keys.as_slice())
    }

    /// The file of each tensor.
    pub(super) fn index(&self) -> Index {
        let files = self.shards.iter().enumerate();
        let named = files.flat_map(|(number, of)| {
            let file = shard(number, self.shards.len());
            of.names.iter().map(move |name| (name.clone(), file.clone()))
        });
        Index { weight_map: named.collect() }
    }
}
