//! `config.json`: reading it, and finding the family that it is of.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::family::Family;
use crate::family::config::{Config, ConfigError, MODEL_TYPE, explain as explain_all};
use crate::format::hf::{CONFIG, decode_object};
use crate::format::instead::Instead;
use crate::layout::Format;
use crate::source::aux_files::read_small_file;
use crate::source::{Options, SourceError};
use crate::store::OpenFile;
use crate::value::Value;

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

/// The config of the model in `path`, a directory with these names in it, and its name: that of a template where it has none of its own.
pub(super) fn find(path: &Path, names: &[String], options: &Options) -> Result<(String, Config), SourceError> {
    let is_there = names.iter().any(|name| name == CONFIG);
    match options.template.as_ref().filter(|_| !is_there) {
        Some(template) => {
            Ok((template.directory.join(CONFIG).display().to_string(), template.config.clone()))
        }
        None if is_there => Ok((path.join(CONFIG).display().to_string(), read(path)?)),
        None => {
            let what = format!("it has the weights of a model and no {CONFIG}; --template DIR says where there is one");
            Err(SourceError::NotACheckpoint { path: path.to_owned(), what })
        }
    }
}

/// The family that the config in `file`, or the user, says a model is of.
pub(in crate::source) fn family_of(
    file: &str,
    config: &Config,
    options: &Options,
    tensors: &dyn Fn() -> Result<Vec<Arc<str>>, SourceError>,
) -> Result<Arc<Family>, SourceError> {
    let stated = config.get(MODEL_TYPE).and_then(serde_json::Value::as_str);
    let file = file.to_owned();
    let Some(wanted) = options.model_type.as_deref().or(stated) else {
        let what = format!("it does not say {MODEL_TYPE}; say it with --hf-model-type");
        return Err(SourceError::Contents { file, what });
    };
    let known = |name: &str| options.families.of_model_type(name).is_some();
    if let Some(other) = stated.filter(|stated| *stated != wanted && known(stated) && known(wanted)) {
        let what = format!(
            "its {MODEL_TYPE} is {other}, which is known, so it is not read as {wanted}; leave --hf-model-type out"
        );
        return Err(SourceError::Contents { file, what });
    }
    let family = options.families.of_model_type(wanted);
    let explain = |source| SourceError::Config { file: file.clone(), source: Box::new(source) };
    let Some(family) = family else {
        let (known, advice) = others(config, options, &tensors()?).map_err(explain)?;
        return Err(SourceError::ModelType {
            file,
            found: wanted.to_owned(),
            known: known.join(", "),
            advice,
        });
    };
    let misfits =
        if stated == Some(wanted) { Vec::new() } else { family.misfits(config).map_err(explain)? };
    if misfits.is_empty() {
        return Ok(family.clone());
    }
    let (found, wanted, why) = (stated.map(ToOwned::to_owned), wanted.to_owned(), explain_all(&misfits));
    Err(SourceError::Override { file, found, wanted, why })
}

/// The architectures that are known, and what to do about a config of none of them: it is one under another name only if that one's rules
/// understand all that the config says, and it has the names of these tensors.
fn others(
    config: &Config,
    options: &Options,
    tensors: &[Arc<str>],
) -> Result<(Vec<String>, String), ConfigError> {
    const ELSE: &str = "describe it in a family file and pass --family FILE";
    let mut families: BTreeMap<&str, &Arc<Family>> = BTreeMap::new();
    for family in options.families.of(Format::Hf) {
        families.extend(family.model_type().filter(|name| !families.contains_key(name)).map(|name| (name, family)));
    }
    let mut fitting = Vec::new();
    let mut nearest: Option<(usize, String)> = None;
    for (name, family) in &families {
        match against(family, config, tensors)? {
            None => fitting.push(*name),
            Some((count, why)) if nearest.as_ref().is_none_or(|(least, _)| count < *least) => {
                nearest = Some((count, format!("as {name}, {why}")));
            }
            Some(_) => {}
        }
    }
    let advice = match (fitting.as_slice(), nearest) {
        ([], Some((_, why))) => format!("It is none of these under another name: {why}. So {ELSE}"),
        ([], None) => format!("So {ELSE}"),
        (fitting, _) => format!(
            "If it is one of these under another name, say which with --hf-model-type (by its config it could be {}); else {ELSE}",
            fitting.join(", ")
        ),
    };
    Ok((families.keys().map(|name| (*name).to_owned()).collect(), advice))
}

/// What stands against reading the config as one of `family`: how many of its keys, and what in words. `None` where nothing does.
fn against(
    family: &Arc<Family>,
    config: &Config,
    tensors: &[Arc<str>],
) -> Result<Option<(usize, String)>, ConfigError> {
    let misfits = family.misfits(config)?;
    if !misfits.is_empty() {
        return Ok(Some((misfits.len(), explain_all(&misfits))));
    }
    let model = match family.model(&Value::namespace(family.args_of(config)?.args), 0.0) {
        Ok(model) => model,
        Err(error) => return Ok(Some((1, error.to_string()))),
    };
    let foreign = tensors.iter().find(|name| model.find(name).is_none());
    Ok(foreign.map(|name| (0, format!("it has a tensor {name}, which no such model has"))))
}
