//! A family file that extends another: what it does not say itself it takes over.
//!
//! Tables are merged entry by entry, two levels deep (`[config.keys]` is the deepest); any other value replaces the one it has the name
//! of. Tensors are added, or replace those of the same name; those of layers go to the others of layers. With `own_tensors` none is taken
//! over.

use toml::{Table, Value};

use super::FamilyError;
use super::file::FamilyFile;

/// The whole table of a family that others may extend, by its name.
pub(super) type Base<'a> = &'a dyn Fn(&str) -> Option<Result<&'a Table, FamilyError>>;

/// The family that `text` describes, which may extend one of those that `base` knows.
pub(super) fn file(text: &str, base: Base<'_>) -> Result<FamilyFile, FamilyError> {
    // Read as it stands first where it stands alone: mistakes are then named with their line.
    let table = table(text)?;
    if !table.contains_key(EXTENDS) {
        return toml::from_str(text).map_err(|error| syntax(&error));
    }
    of_table(whole(table, base)?)
}

/// The family that a whole table describes.
pub(super) fn of_table(table: Table) -> Result<FamilyFile, FamilyError> {
    table.try_into().map_err(|error: toml::de::Error| syntax(&error))
}

const EXTENDS: &str = "extends";
const TENSOR: &str = "tensor";
const OWN_TENSORS: &str = "own_tensors";

fn syntax(error: &toml::de::Error) -> FamilyError {
    FamilyError::Syntax(error.to_string())
}

/// What the text says, as it stands.
pub(super) fn table(text: &str) -> Result<Table, FamilyError> {
    toml::from_str(text).map_err(|error| syntax(&error))
}

/// The table with everything that it takes over.
pub(super) fn whole(mut own: Table, base: Base<'_>) -> Result<Table, FamilyError> {
    let Some(extended) = own.remove(EXTENDS) else { return Ok(own) };
    let extended = extended.as_str().unwrap_or_default();
    let Some(found) = base(extended) else {
        return Err(FamilyError::Syntax(format!("it extends {extended:?}, which is no built-in family")));
    };
    let mut base = found?.clone();
    let own_alone = own.remove(OWN_TENSORS).and_then(|value| value.as_bool()).unwrap_or(false);
    let list = |value: Option<Value>| value.and_then(|value| value.as_array().cloned()).unwrap_or_default();
    let (of_base, of_own) = (list(base.remove(TENSOR)), list(own.remove(TENSOR)));
    merge(&mut base, own, 2);
    let of_base = if own_alone { Vec::new() } else { of_base };
    base.insert(TENSOR.into(), Value::Array(joined(of_base, of_own)));
    Ok(base)
}

fn merge(base: &mut Table, own: Table, levels: usize) {
    for (key, value) in own {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(own)) if levels > 0 => merge(base, own, levels - 1),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn joined(base: Vec<Value>, own: Vec<Value>) -> Vec<Value> {
    let name = |tensor: &Value| tensor.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_layered = |tensor: &Value| name(tensor).contains(super::LAYER);
    let replaced: Vec<String> = own.iter().map(name).collect();
    let kept: Vec<Value> = base.into_iter().filter(|tensor| !replaced.contains(&name(tensor))).collect();
    let after = kept.iter().rposition(is_layered).map_or(kept.len(), |last| last + 1);
    let (layered, other): (Vec<_>, Vec<_>) = own.into_iter().partition(is_layered);
    let mut kept = kept.into_iter();
    let mut all: Vec<Value> = kept.by_ref().take(after).collect();
    all.extend(layered);
    all.extend(kept);
    all.extend(other);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "name = 'base'\ntitle = 'Base'\n[vocabulary]\npadding = 'exact'\n[sizes]\na = [{ arg = 'x' }]\n\
        [[tensor]]\nname = 'first'\nstage = 'first'\nholds = ['embedding.weight']\n\
        [[tensor]]\nname = 'l.{layer}.norm'\nholds = ['layers.{layer}.mlp_norm.weight']\n\
        [[tensor]]\nname = 'last'\nstage = 'last'\nholds = ['final_norm.weight']\n";

    #[test]
    fn what_is_said_again_replaces_and_the_rest_is_taken_over() {
        let own = "name = 'own'\ntitle = 'Own'\nextends = 'base'\n[sizes]\nb = [{ arg = 'y' }]\n\
            [[tensor]]\nname = 'l.{layer}.other'\nholds = ['layers.{layer}.attention_norm.weight']\n\
            [[tensor]]\nname = 'last'\nstage = 'last'\nholds = ['output.weight']\n";
        let base = table(BASE).unwrap();
        let file = file(own, &|name| (name == "base").then_some(Ok(&base))).unwrap();
        let names: Vec<_> = file.tensor.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["first", "l.{layer}.norm", "l.{layer}.other", "last"]);
        assert_eq!(file.tensor[3].holds, ["output.weight"]);
        assert_eq!((file.title.as_str(), file.sizes.len()), ("Own", 2));
    }

    #[test]
    fn what_is_not_there_cannot_be_extended() {
        let error = file("name = 'a'\nextends = 'b'\n", &|_| None).unwrap_err().to_string();
        assert!(error.contains("\"b\""), "{error}");
    }
}
