//! `config.json`: reading it, and finding the family that it is of.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::family::Family;
use crate::family::config::{Config, MODEL_TYPE};
use crate::format::hf::{CONFIG, decode_object};
use crate::format::instead::Instead;
use crate::source::beside::read_small_file;
use crate::source::{Options, SourceError};
use crate::store::OpenFile;

/// Larger is no config: the largest, with a line for every layer, have 100 kB. Read, it takes a hundred times as much memory.
const MOST: u64 = 4 << 20;

/// The config in the directory `path`.
pub(in crate::source) fn read(path: &Path) -> Result<Config, SourceError> {
    read_file(OpenFile::open(&path.join(CONFIG))?, path)
}

/// The same, of a file that is open.
pub(in crate::source) fn read_file(file: OpenFile, path: &Path) -> Result<Config, SourceError> {
    let name = path.join(CONFIG);
    let text = read_small_file(file, &name, MOST)?;
    let wrong = |what| SourceError::Contents { file: name.display().to_string(), what };
    let instead = || Instead::of_json(&text).map(|instead| instead.to_string());
    let config = decode_object(&text)
        .map_err(|error| wrong(instead().unwrap_or_else(|| format!("not a JSON object: {error}"))))?;
    match instead().filter(|_| !config.contains_key(MODEL_TYPE)) {
        Some(what) => Err(wrong(what)),
        None => Ok(config),
    }
}

/// The family that the config, or the user, says the model in `path` is of.
pub(in crate::source) fn family_of(
    path: &Path,
    config: &Config,
    options: &Options,
) -> Result<Arc<Family>, SourceError> {
    let stated = config.get(MODEL_TYPE).and_then(serde_json::Value::as_str);
    let file = path.join(CONFIG).display().to_string();
    let Some(wanted) = options.model_type.as_deref().or(stated) else {
        let what = format!("it does not say {MODEL_TYPE}; say it with --hf-model-type");
        return Err(SourceError::Contents { file, what });
    };
    let known = |name: &str| options.families.iter().any(|family| family.model_type() == Some(name));
    if let Some(other) = stated.filter(|stated| *stated != wanted && known(stated) && known(wanted)) {
        let what = format!(
            "its {MODEL_TYPE} is {other}, which is known, so it is not read as {wanted}; leave --hf-model-type out"
        );
        return Err(SourceError::Contents { file, what });
    }
    let family = options.families.iter().find(|family| family.model_type() == Some(wanted));
    family.cloned().ok_or_else(|| {
        let known: BTreeSet<&str> = options.families.iter().filter_map(|family| family.model_type()).collect();
        SourceError::ModelType {
            file,
            found: wanted.to_owned(),
            known: known.into_iter().collect::<Vec<_>>().join(", "),
            advice: "If it is one of these under another name, say which with --hf-model-type; else describe it in a family file and pass --family FILE",
        }
    })
}
