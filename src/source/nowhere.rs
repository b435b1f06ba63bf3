//! What to say of a path where there is no directory: a model of the hub, an address, a link that leads nowhere, a file.
//!
//! Not here: directories that are no checkpoints (`below`).

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use super::kinds;
use super::locate::list;
use super::{SourceError, below};

/// Names in the directory `path`, which a user says is one.
pub(super) fn names(path: &Path) -> Result<Vec<String>, SourceError> {
    match list(path) {
        Err(SourceError::Io { source, .. }) => Err(explain(path, source)),
        listed => listed,
    }
}

/// Why `path` cannot be listed, as `error` says.
fn explain(path: &Path, error: io::Error) -> SourceError {
    let not_one = |what: String| SourceError::NotACheckpoint { path: path.into(), what };
    match error.kind() {
        io::ErrorKind::NotADirectory if path.is_file() => file(path),
        io::ErrorKind::NotFound => {
            let what = address(path).or_else(|| model_of_the_hub(path));
            not_one(what.unwrap_or_else(|| "no such directory".into()))
        }
        _ => SourceError::Io { path: path.into(), source: error },
    }
}

fn file(path: &Path) -> SourceError {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let of_kind = kinds::refusal(path, std::slice::from_ref(&name), false);
    of_kind.unwrap_or_else(|| {
        let what = if name.ends_with(".safetensors") || name.ends_with(".json") {
            "this is a file; pass the directory of the model that it lies in"
        } else {
            "this is a file; pass the directory of the run, or of one iteration"
        };
        SourceError::NotACheckpoint { path: path.into(), what: what.into() }
    })
}

/// What to say of an address. Paths lose nothing of it: `//` may stand in them.
fn address(path: &Path) -> Option<String> {
    let (scheme, rest) = path.to_str()?.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let on_hub = scheme == "hf" || rest.starts_with("huggingface.co/");
    let how = if on_hub { " (hf download)" } else { "" };
    is_scheme.then(|| format!("this is an address; download what is there{how}, and pass the directory"))
}

/// What to say of `ORG/NAME`, where neither is a directory here.
fn model_of_the_hub(path: &Path) -> Option<String> {
    let (org, name) = path.to_str()?.split_once('/')?;
    let is_name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(plain)
    };
    if !is_name(org) || !is_name(name) || Path::new(org).exists() {
        return None;
    }
    let cached = cache().map(|cache| cache.join(format!("models--{org}--{name}")));
    let snapshot = cached.as_deref().and_then(below::snapshot);
    Some(match snapshot {
        Some(snapshot) => format!(
            "no such directory; the model of that name in the cache of the Hugging Face hub is {}",
            snapshot.display()
        ),
        None => format!(
            "no such directory; if it is a model of the Hugging Face hub, pass what `hf download {org}/{name}` prints"
        ),
    })
}

/// Where the hub's library keeps what it downloads.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HF_HOME").or_else(|| Some(set("HOME")?.join(".cache/huggingface")));
    set("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub")))
}
