//! Why a config and args cannot say the same.

use serde_json::Value as Json;

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
    #[error("its {key} is {value}; expected {expected}")]
    Kind {
        /// The key.
        key: String,
        /// What it has.
        value: Json,
        /// What it should have.
        expected: &'static str,
    },
    /// Two keys of a config say different things.
    #[error("its {key} is {value}, but its {other} says {other_value}")]
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
    #[error("its {key} is {value}: {reason}")]
    Refused {
        /// The key.
        key: String,
        /// Its value.
        value: Json,
        /// Why not.
        reason: String,
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
