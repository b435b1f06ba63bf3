//! Values that reading and writing of a config share: sizes that are worked out of other keys, and fields of args of the wrong type.

use serde_json::Value as Json;

use super::{Config, ConfigError};

/// `a` or `a / b` of keys of the config, if they are numbers that divide.
pub(super) fn quotient(text: &str, config: &Config) -> Option<Json> {
    let number = |key: &str| config.get(key.trim()).and_then(Json::as_u64);
    match text.split_once('/') {
        None => number(text).map(Json::from),
        Some((a, b)) => {
            let (a, b) = (number(a)?, number(b)?);
            (b > 0 && a.is_multiple_of(b)).then(|| Json::from(a / b))
        }
    }
}

/// A field of args that holds something of another type.
pub(super) fn wrong_arg(field: &str, value: Json, expected: &'static str) -> ConfigError {
    ConfigError::Kind { key: format!("args.{field}"), value, expected }
}
