//! Whether the family lists tensors in the order in which the source's model does: optimizers count parameters in that order.

use std::collections::HashSet;

use crate::catalog::RankFile;
use crate::value::Value;
use crate::view::target::{Of, tensors_of};
use crate::view::{Basis, ViewError};

/// Compares the order of every source file's tensors with the family's.
pub(in crate::view) fn check_order(basis: &Basis) -> Result<(), ViewError> {
    let layout = &basis.catalog.layout;
    for file in &basis.catalog.ranks {
        for place in layout.places(file.rank) {
            let listed = tensors_of(Of::weights(basis), layout, place)?;
            let listed = listed.iter().filter(|tensor| tensor.target.is_some() && tensor.entry.is_trained());
            let listed: Vec<&str> = listed.map(|tensor| &*tensor.name).collect();
            let known: HashSet<&str> = listed.iter().copied().collect();
            let mut saved = Vec::new();
            if let Some(model) = file.model(place.chunk) {
                names(model, "", &mut saved);
            }
            let saved = saved.iter().map(String::as_str).filter(|name| known.contains(name));
            compare(file, &listed, saved)?;
        }
    }
    Ok(())
}

fn compare<'a>(
    file: &RankFile,
    listed: &[&str],
    saved: impl Iterator<Item = &'a str>,
) -> Result<(), ViewError> {
    match listed.iter().zip(saved).find(|(listed, saved)| *listed != saved) {
        None => Ok(()),
        Some((listed, saved)) => Err(ViewError::Order {
            file: file.name.clone(),
            tensor: saved.to_owned(),
            other: (*listed).to_owned(),
        }),
    }
}

/// Names of everything in a model's dicts, in order. The source has bounded how many there are; what is within an extra state it did not
/// look at.
#[expect(clippy::disallowed_methods, reason = "what is no dict has no entries")]
fn names(container: &Value, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in container.items().unwrap_or_default() {
        let Some(key) = key.as_str() else { continue };
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        let is_dict = value.items().is_some() && !key.ends_with("_extra_state");
        if is_dict { names(value, &path, found) } else { found.push(path) }
    }
}
