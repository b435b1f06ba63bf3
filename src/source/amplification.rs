//! That a source's tensors stand for about as many bytes as its files have.
//!
//! A tensor may show its storage more than once (a stride of 0), and a storage may be that of many tensors. So a file of a few
//! kilobytes can stand for more than anybody can read; whoever reads all of it (`digest`, `verify`, a loader) would never end.

use std::collections::BTreeSet;

use super::SourceError;
use crate::catalog::{Catalog, Param};
use crate::store::{FileStore, Store};

/// Bytes of tensors for each byte of files. Tied and replicated weights come to a few.
const MOST: u128 = 64;

/// Beside that: masks and the like are expanded in real models.
const ROOM: u128 = 1 << 30;

/// Looks at all weights of the source.
///
/// # Errors
/// [`SourceError::Contents`] naming the largest tensor.
pub(super) fn check(catalog: &Catalog, store: &FileStore) -> Result<(), SourceError> {
    let params = catalog.weights.all();
    let shown: u128 = params.iter().map(bytes).sum();
    if shown <= ROOM {
        return Ok(());
    }
    let objects = catalog.ranks.iter().flat_map(|rank| rank.files.keys().chain([&rank.object]));
    let mut stored = 0;
    for object in objects.collect::<BTreeSet<_>>() {
        stored += u128::from(store.len(*object)?);
    }
    let largest = params.iter().max_by_key(|param| bytes(param));
    match largest.and_then(|param| Some((param, *param.stored().first()?))) {
        Some((param, chunk)) if shown > MOST * stored + ROOM => Err(SourceError::Contents {
            file: store.name(chunk.object),
            what: format!(
                "parameter {}: its shape {:?} stands for {} bytes, all tensors for {shown}, and the files have {stored}; tensors that repeat \
                 what is stored so often (expanded, or many of one storage) are not read",
                param.name,
                param.shape.0,
                bytes(param),
            ),
        }),
        _ => Ok(()),
    }
}

fn bytes(param: &Param) -> u128 {
    // What does not fit 64 bits is far beyond any bound.
    param.shape.bytes(param.dtype).unwrap_or(u64::MAX).into()
}
