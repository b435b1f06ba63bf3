//! The model of a rank file as a flat list: path and what stands there.

use super::SourceError;
use crate::value::Value;

/// No model's parameter has a longer name. Paths are joined from keys that a pickle says once and may use a million times.
const LONGEST: usize = 2000;

/// A leaf of the model's dicts.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    /// Keys that lead to it, joined by `/`.
    pub(super) path: String,
    /// What stands there.
    pub(super) value: &'a Value,
}

/// What the leaves of one rank file may take: those of half a million tensors fit. The length of a pickle bounds neither their number nor their
/// paths, because it may refer to one dict and to one text many times.
pub(super) const ROOM: usize = 1 << 26;

/// Every leaf of `model`, in order. The decoder has bounded how deep dicts nest; `room` is what is left for all that is found, in bytes.
pub(super) fn leaves<'a>(
    model: &'a Value,
    file: &str,
    room: &mut usize,
) -> Result<Vec<Leaf<'a>>, SourceError> {
    let mut found = Vec::new();
    collect(model, "", file, room, &mut found)?;
    Ok(found)
}

fn collect<'a>(
    container: &'a Value,
    prefix: &str,
    file: &str,
    room: &mut usize,
    found: &mut Vec<Leaf<'a>>,
) -> Result<(), SourceError> {
    let wrong = |what: String| SourceError::Contents { file: file.to_owned(), what };
    for (key, value) in container.items().unwrap_or_default() {
        let Some(key) = key.as_str() else {
            return Err(wrong(format!("the dict '{prefix}' of its model has a key that is not a string")));
        };
        if prefix.len() + key.len() > LONGEST {
            let start: String = prefix.chars().chain(key.chars()).take(80).collect();
            return Err(wrong(format!("its model has a name of more than {LONGEST} bytes: {start}...")));
        }
        let takes = prefix.len().saturating_add(key.len()).saturating_add(size_of::<Leaf<'_>>());
        let Some(rest) = room.checked_sub(takes) else {
            return Err(wrong(format!("the names in its model take more than {ROOM} bytes")));
        };
        *room = rest;
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        // A module's extra state is one thing, whatever it is made of.
        if value.items().is_some() && !key.ends_with("_extra_state") {
            collect(value, &path, file, room, found)?;
        } else {
            found.push(Leaf { path, value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn dict(items: Vec<(Arc<str>, Value)>) -> Value {
        Value::Dict(items.into_iter().map(|(key, value)| (Value::Str(key), value)).collect())
    }

    fn error(model: &Value) -> String {
        leaves(model, "f", &mut ROOM.clone()).unwrap_err().to_string()
    }

    /// Texts and dicts are there once and referred to often: a pickle of some KB stands for terabytes of paths.
    #[test]
    fn names_that_would_take_all_memory_are_refused() {
        let long: Arc<str> = "k".repeat(1 << 20).into();
        let flat = dict((0..1 << 16).map(|n| (n.to_string().into(), Value::None)).collect());
        let deep = (0..150).fold(flat, |inner, _| dict(vec![(long.clone(), inner)]));
        assert!(error(&deep).contains("more than"));
        let double = |inner: Value| dict(vec![("a".into(), inner.clone()), ("b".into(), inner)]);
        let wide = (0..24).fold(Value::None, |inner, _| double(inner));
        assert!(error(&wide).contains("more than"));
        let state = dict(vec![("x._extra_state".into(), wide)]);
        assert_eq!(leaves(&state, "f", &mut ROOM.clone()).unwrap().len(), 1);
    }
}
