//! The model of a rank file as a flat list: path and what stands there.

use super::SourceError;
use crate::value::Value;

/// A leaf of the model's dicts.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    /// Keys that lead to it, joined by `/`.
    pub(super) path: String,
    /// What stands there.
    pub(super) value: &'a Value,
}

/// Every leaf of `model`, in order. The decoder has bounded how deep dicts nest.
pub(super) fn leaves<'a>(model: &'a Value, file: &str) -> Result<Vec<Leaf<'a>>, SourceError> {
    let mut found = Vec::new();
    collect(model, "", file, &mut found)?;
    Ok(found)
}

fn collect<'a>(
    container: &'a Value,
    prefix: &str,
    file: &str,
    found: &mut Vec<Leaf<'a>>,
) -> Result<(), SourceError> {
    for (key, value) in container.items().unwrap_or_default() {
        let Some(key) = key.as_str() else {
            let what = format!("the dict '{prefix}' of its model has a key that is not a string");
            return Err(SourceError::Contents { file: file.to_owned(), what });
        };
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        // A module's extra state is one thing, whatever it is made of.
        if value.items().is_some() && !key.ends_with("_extra_state") {
            collect(value, &path, file, found)?;
        } else {
            found.push(Leaf { path, value });
        }
    }
    Ok(())
}
