//! What a checkpoint of a family has that is made of a model in another format: args beside those that say what the model is, and the
//! flags that a run needs because it does not take them from a checkpoint.

use super::Family;
use super::config::{from_json, same, to_json};
use crate::value::Value;

/// Flags for a training run, and what to know of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFlags {
    /// Ready to paste, each with its value.
    pub flags: Vec<String>,
    /// Words of caution.
    pub cautions: Vec<String>,
}

impl Family {
    /// The version of the order of rows that a fresh checkpoint states; `None` where the family cannot be made of another.
    #[must_use]
    pub fn fresh_version(&self) -> Option<f64> {
        self.file.fresh.as_ref().map(|fresh| fresh.checkpoint_version)
    }

    /// Names of the family's spellings of names.
    pub fn dialects(&self) -> impl Iterator<Item = &str> {
        self.file.fresh.iter().flat_map(|fresh| fresh.dialects.keys().map(String::as_str))
    }

    /// Fields of args of a fresh checkpoint that spells names like `dialect`, but for those that say what the model is: these are `model`.
    #[must_use]
    pub fn fresh_args(&self, dialect: Option<&str>, model: &[(String, Value)]) -> Vec<(String, Value)> {
        let Some(fresh) = &self.file.fresh else { return Vec::new() };
        let is_true = |field: &str| model.iter().any(|(name, value)| name == field && value.is_truthy());
        let of_such = fresh.args_if.iter().filter(|(field, _)| is_true(field)).flat_map(|(_, args)| args);
        let spelled = dialect.and_then(|name| fresh.dialects.get(name));
        let spelled = spelled.into_iter().flat_map(|dialect| &dialect.args);
        let stated = fresh.args.iter().chain(of_such).chain(spelled);
        let stated = stated.map(|(field, value)| (field.clone(), from_json(value)));
        stated.chain(fresh.none.iter().map(|field| (field.clone(), Value::None))).collect()
    }

    /// The flags that a run needs because it does not take these `args` from a checkpoint.
    #[must_use]
    pub fn run_flags(&self, args: &Value) -> RunFlags {
        let mut found = RunFlags::default();
        for rule in self.file.fresh.iter().flat_map(|fresh| &fresh.flag) {
            let applies = |field: &String| args.attribute(field).is_some_and(Value::is_truthy);
            let Some(value) = args.attribute(&rule.arg).filter(|value| value.is_truthy()) else { continue };
            if rule.when.as_ref().is_some_and(|field| !applies(field)) {
                continue;
            }
            let value = to_json(value);
            let is_usual = rule.usual.as_ref().is_some_and(|usual| same(usual, &value));
            if is_usual {
                continue;
            }
            found.flags.push(rule.flag.replace("{}", &text(&value)));
            let doubtful = rule
                .caution_if
                .as_ref()
                .is_none_or(|(field, value)| args.attribute(field).and_then(Value::as_str) == Some(value));
            found.cautions.extend(rule.caution.clone().filter(|_| doubtful));
        }
        found
    }
}

/// A value as a flag takes it: a list with commas, a word without quotes.
fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
