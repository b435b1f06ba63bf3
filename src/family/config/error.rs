//! Why a config and args cannot say the same.

use serde_json::Value as Json;

use crate::value::json::shown;

/// Why a config and args cannot say the same.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The config lacks a key.
    #[error("it does not say {key}")]
    Missing {
        /// The key.
        key: String,
    },
    /// The config has something else there.
    #[error("its {key} is {}; expected {expected}", shown(.value))]
    Kind {
        /// The key.
        key: String,
        /// What it has.
        value: Json,
        /// What it should have.
        expected: &'static str,
    },
    /// Two keys of a config say different things.
    #[error("its {key} is {}, but its {other} says {}", shown(.value), shown(.other_value))]
    Contradiction {
        /// A key.
        key: String,
        /// What it says.
        value: Json,
        /// Another that should say the same.
        other: String,
        /// What that says.
        other_value: Json,
    },
    /// The config asks for something that other formats cannot say.
    #[error("its {key} is {}: {reason}", shown(.value))]
    Refused {
        /// The key.
        key: String,
        /// Its value.
        value: Json,
        /// Why not.
        reason: String,
    },
    /// The config has a key that the family does not know.
    #[error("no rule of {family} names its {key} ({}), so what it changes is not known", brief(.value))]
    Unknown {
        /// The family.
        family: String,
        /// The key.
        key: String,
        /// Its value.
        value: Json,
    },
    /// A config of another architecture lacks a key, and what that architecture takes then is not known.
    #[error("it does not say {key}, and what it means by that is not known")]
    Unsaid {
        /// The key.
        key: String,
    },
    /// An architecture with the same names that is known to compute something else.
    #[error("{what}")]
    Another {
        /// What it does otherwise.
        what: String,
    },
    /// Args lack a field.
    #[error("args do not say {}, which {key} of config.json would be", .fields.join(" or "))]
    MissingArg {
        /// Fields that could say it.
        fields: Vec<String>,
        /// The key that needs it.
        key: String,
    },
    /// Args of a model that the architecture cannot express.
    #[error("a {title} model cannot have args.{field} {value} (it has {needed})")]
    Unlike {
        /// The architecture.
        title: String,
        /// The field.
        field: String,
        /// Its value.
        value: Json,
        /// What it would have to be.
        needed: Json,
    },
}

/// A value that fits into a sentence.
fn brief(value: &Json) -> String {
    const MOST: usize = 48;
    let whole = shown(value);
    match whole.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", whole.get(..end).unwrap_or_default()),
        None => whole,
    }
}

/// All of them in one sentence; keys that are not known stand together.
#[must_use]
pub fn explain(errors: &[ConfigError]) -> String {
    let (mut keys, mut others, mut of) = (Vec::new(), Vec::new(), "");
    for error in errors {
        match error {
            ConfigError::Unknown { family, key, value } => {
                of = family;
                keys.push(format!("{key} ({})", brief(value)));
            }
            other => others.push(other.to_string()),
        }
    }
    let known = match keys.len() {
        0 => None,
        1 => Some(format!("no rule of {of} names its {}, so what it changes is not known", keys.concat())),
        _ => Some(format!("no rule of {of} names its {}, so what they change is not known", keys.join(", "))),
    };
    known.into_iter().chain(others).collect::<Vec<_>>().join("; ")
}
