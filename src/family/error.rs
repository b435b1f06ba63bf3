//! Why a family cannot describe a checkpoint.

/// A checkpoint that the family cannot describe.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// `args` lacks something that is needed, or has a number there that cannot be.
    #[error("args do not say the {what} (looked for: {})", .fields.join(", "))]
    MissingArg {
        /// What it would say.
        what: String,
        /// Names of the fields that could say it.
        fields: Vec<String>,
    },
    /// The same of a model with a `config.json`.
    #[error("it does not say the {what}{}", looked_for(.keys))]
    MissingKey {
        /// What it would say.
        what: String,
        /// Keys that could say it.
        keys: Vec<String>,
    },
    /// The family says that such a checkpoint cannot be resharded.
    #[error("{reason} (args.{field} is {value})")]
    Refused {
        /// The telling field.
        field: String,
        /// Its value.
        value: String,
        /// Why.
        reason: String,
    },
    /// The same of a model with a `config.json`.
    #[error("{reason} (its {key} is {value})")]
    RefusedKey {
        /// The telling key.
        key: String,
        /// Its value.
        value: String,
        /// Why.
        reason: String,
    },
    /// An old checkpoint.
    #[error(
        "checkpoint_version is {found}, files below {needed} keep the rows of fused tensors in another order"
    )]
    Version {
        /// What the file says; 0 where it says nothing.
        found: f64,
        /// What the family needs.
        needed: f64,
    },
    /// A mistake in the family file that only shows with sizes.
    #[error("family {family}: {what}")]
    Family {
        /// Name of the family.
        family: String,
        /// What is wrong.
        what: String,
    },
}

fn looked_for(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(" (looked for: {})", keys.join(", ")) }
}
