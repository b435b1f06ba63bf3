//! The form of the rules in a family file: what serde reads, nothing more.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

/// `[config]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::family) struct ConfigFile {
    /// Its `model_type`.
    pub(in crate::family) model_type: String,
    pub(super) architectures: Vec<String>,
    /// The family of Megatron files that hold the same models.
    pub(in crate::family) megatron: String,
    /// The `model_type` whose own config class knows no key that is not named here. Said of another, it counts for nothing: what extends a
    /// family has its own keys.
    #[serde(default)]
    pub(super) all_keys_of: Option<String>,
    pub(super) keys: BTreeMap<String, KeyRule>,
    /// Keys that the architecture does not know and others do, with the value at which they change nothing: for configs of another
    /// `model_type` that are to be read as this one.
    #[serde(default, rename = "override")]
    pub(super) overriding: BTreeMap<String, Json>,
    /// Keys that must not be set, and why.
    #[serde(default)]
    pub(super) refuse: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) rope: Option<RopeRule>,
    #[serde(default)]
    pub(super) expert_layers: Option<ExpertLayers>,
    #[serde(default)]
    pub(super) args: BTreeMap<String, ArgRule>,
    #[serde(default)]
    pub(in crate::family) infer: Option<Infer>,
}

/// What one key of a config is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRule {
    /// The field of args that says the same.
    #[serde(default)]
    pub(super) arg: Option<String>,
    /// The field counts only where this one is true.
    #[serde(default)]
    pub(super) arg_if: Option<String>,
    /// Fields that say it where that one does not.
    #[serde(default)]
    pub(super) or_args: Vec<String>,
    /// Fields that are set to the same.
    #[serde(default)]
    pub(super) also: Vec<String>,
    /// Other spellings of the key; all are written.
    #[serde(default)]
    pub(super) or_keys: Vec<String>,
    /// What values are.
    #[serde(default, rename = "type")]
    pub(super) kind: Kind,
    /// Another key, whose value stands for a null.
    #[serde(default)]
    pub(super) null: Option<String>,
    /// How the two say it differently.
    #[serde(default, rename = "as")]
    pub(super) form: KeyForm,
    /// What transformers takes where a config does not say it.
    #[serde(default)]
    pub(super) default: Option<Json>,
    /// `a` or `a / b` of other keys, where a config (or args) does not say it.
    #[serde(default)]
    pub(super) absent: Option<String>,
    /// The same, where args do not say it.
    #[serde(default)]
    pub(super) arg_absent: Option<String>,
    /// Carried where it is there, and not missed where it is not: it changes nothing that a model computes.
    #[serde(default)]
    pub(super) optional: bool,
    /// It changes nothing that a model computes: a template may say something else, and then that counts.
    #[serde(default)]
    pub(super) loose: bool,
    /// It must be this where a config has it, and is written as this.
    #[serde(default)]
    pub(super) is: Option<Json>,
    /// Written where nothing else says it, and not looked at.
    #[serde(default)]
    pub(super) write: Option<Json>,
    /// It is as if no rule named it: takes a rule of the extended family away.
    #[serde(default)]
    pub(super) any: bool,
    /// It changes nothing that a model computes, and is carried as it is.
    #[serde(default)]
    pub(super) neutral: bool,
    /// It must not be set, and is not written.
    #[serde(default)]
    pub(super) unset: bool,
    /// Every item of the list must be this; not written.
    #[serde(default)]
    pub(super) each: Option<Json>,
    /// It counts only where this key, which another rule looks after, is true; carried as it is.
    #[serde(default)]
    pub(super) only_if: Option<String>,
}

impl KeyRule {
    /// Whether args and this key have nothing to do with each other.
    pub(super) fn is_carried(&self) -> bool {
        self.any || self.neutral || self.only_if.is_some()
    }

    /// Whether it only says what a config may have.
    pub(super) fn is_only_read(&self) -> bool {
        self.is_carried() || self.unset || self.each.is_some()
    }
}

/// What the values of a key are. What is of another type is refused: it would silently be a default elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A whole number above 0.
    #[default]
    Count,
    /// A number above 0, which is always written with a fraction.
    Positive,
    /// Any number, or true or false.
    Any,
}

impl Kind {
    /// The value, if it is one of these.
    pub(super) fn check(self, value: &Json) -> Option<Json> {
        match self {
            Self::Count => value.as_i64().filter(|number| *number > 0).map(Json::from),
            Self::Positive => {
                value.as_f64().filter(|number| *number > 0.0 && number.is_finite()).map(Json::from)
            }
            Self::Any => (value.is_number() || value.is_boolean()).then(|| value.clone()),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Count => "a whole number above 0",
            Self::Positive => "a number above 0",
            Self::Any => "a number, true or false",
        }
    }
}

/// How a key and a field of args say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyForm {
    /// By the same value.
    #[default]
    Same,
    /// By opposite truths.
    Not,
    /// A window of w tokens, its own included, is `(w - 1, 0)` to Megatron.
    Window,
}

/// Rotary embeddings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RopeRule {
    /// What transformers takes where a config does not say it, in all its versions.
    pub(super) theta: f64,
    /// Fixed in the training code, whose args do not say it.
    #[serde(default)]
    pub(super) fixed: bool,
}

/// Which layers have experts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpertLayers {
    /// The field of args.
    pub(super) arg: String,
    /// Every Nth layer, counted from 1.
    pub(super) step: String,
    /// But for these, counted from 0.
    pub(super) dense: String,
}

/// What one field of args must be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgRule {
    /// Its value; `"none"` is `None`.
    #[serde(default)]
    pub(super) is: Option<Json>,
    /// Args that do not have the field mean this value.
    #[serde(default)]
    pub(super) unstated: bool,
    /// Args made of a config go without it.
    #[serde(default)]
    pub(super) unwritten: bool,
    /// It must be one of these; `"none"` is `None`.
    #[serde(default)]
    pub(super) one_of: Vec<Json>,
    /// Written and not looked at.
    #[serde(default)]
    pub(super) write: Option<Json>,
    /// It may be anything: another rule looks after it.
    #[serde(default)]
    pub(super) any: bool,
}

impl ArgRule {
    /// The value it must have, where there is one.
    pub(super) fn needed(&self) -> Option<Json> {
        let none = |json: &Json| json.as_str() == Some("none");
        self.is.as_ref().filter(|_| !self.any).map(|json| if none(json) { Json::Null } else { json.clone() })
    }
}

/// What tells this architecture from the others by args alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::family) struct Infer {
    /// Fields that are true or set.
    pub(in crate::family) when: Vec<String>,
}
