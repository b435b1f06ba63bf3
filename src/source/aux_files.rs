//! Files that lie beside the weights of a model and belong to it: tokenizer, chat template, generation config, code of its own, an adapter.
//!
//! What is not taken is said, but for hidden files: those are the affairs of git and of the hub.
//!
//! Views show them as they are. So a link among them must not lead out of the model's directory: a model that was downloaded could show any
//! file of the machine to whoever reads the view. Not here: files that are read and must parse as what they should be, whose links may
//! lead anywhere.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::SourceError;
use super::workers::in_parallel;
use crate::catalog::{AuxFile, AuxKind};
use crate::extent::Extent;
use crate::format::hf::{CHAT_TEMPLATES, CONFIG, is_adapter, is_cached_blob, is_model_weights, is_weights};
use crate::format::instead::{HEAD, Instead};
use crate::store::{FileStore, OpenFile, Reads, Store, consistent};

/// What lies beside weights.
#[derive(Debug, Default)]
pub(super) struct AuxFiles {
    pub(super) files: Vec<AuxFile>,
    /// Names of links that lead out of the directory, which are none of its files.
    pub(super) escaping_links: Vec<String>,
    /// Names of files that hold the weights once more, or those of another save.
    pub(super) other_weights: Vec<String>,
    /// Names of directories that are not looked into.
    pub(super) directories: Vec<String>,
    /// Names of files that were never fetched: a git-lfs pointer or a web page stands in their place.
    pub(super) unfetched: Vec<String>,
}

/// What a name in the directory stands for.
enum Named {
    File(OpenFile),
    Directory,
    EscapingLink,
}

/// What lies in `path`, a directory with these names in it, beside `own`: the config and the files of the model's weights.
pub(super) fn read(
    path: &Path,
    names: &[String],
    own: &[&str],
    store: &FileStore,
) -> Result<AuxFiles, SourceError> {
    let mut found = AuxFiles::default();
    let own: HashSet<&str> = own.iter().copied().chain([CONFIG]).collect();
    let is_one = |name: &&String| !name.starts_with('.') && !own.contains(name.as_str());
    let (other, mut wanted): (Vec<String>, Vec<String>) =
        names.iter().filter(is_one).cloned().partition(|name| is_model_weights(name));
    found.other_weights = other;
    if wanted.iter().any(|name| name == CHAT_TEMPLATES) && path.join(CHAT_TEMPLATES).is_dir() {
        wanted.retain(|name| name != CHAT_TEMPLATES);
        wanted.extend(chat_templates(path)?);
    }
    let opened = in_parallel(&wanted, |name| {
        let file = path.join(name);
        // A link to nowhere is an error when it is opened.
        if fs::metadata(&file).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(Named::Directory);
        }
        Ok(open_inside(path, name)?.map_or(Named::EscapingLink, Named::File))
    })?;
    for (name, named) in wanted.into_iter().zip(opened) {
        match named {
            Named::Directory => found.directories.push(format!("{name}/")),
            Named::EscapingLink => found.escaping_links.push(name),
            Named::File(file) => {
                let object = store.take(file)?;
                let extent = Extent { object, offset: 0, len: store.len(object)? };
                found.files.push(AuxFile { kind: kind_of(&name), name, extent });
            }
        }
    }
    let unfetched = in_parallel(&found.files, |file| is_unfetched(file, store))?;
    let mut unfetched = unfetched.into_iter();
    let is_unfetched = |_: &mut AuxFile| unfetched.next() == Some(true);
    found.unfetched = found.files.extract_if(.., is_unfetched).map(|file| file.name).collect();
    // Half of an adapter is worse than none.
    for not_shown in [&mut found.escaping_links, &mut found.unfetched] {
        if not_shown.iter().any(|name| is_adapter(name)) {
            let is_part = |file: &mut AuxFile| file.kind == AuxKind::Adapter;
            not_shown.extend(found.files.extract_if(.., is_part).map(|file| file.name));
        }
    }
    Ok(found)
}

/// What lies in the directory of chat templates, by its path in the model's.
fn chat_templates(model: &Path) -> Result<Vec<String>, SourceError> {
    let path = model.join(CHAT_TEMPLATES);
    let failed = |source| SourceError::Io { path: path.clone(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().into_string().ok();
        found.extend(
            name.filter(|name| !name.starts_with('.')).map(|name| format!("{CHAT_TEMPLATES}/{name}")),
        );
    }
    found.sort();
    Ok(found)
}

/// Whether something else stands in the place of this file, as it does where it was never fetched. A text may be any text, so of one only a
/// pointer tells.
fn is_unfetched(AuxFile { name, extent, .. }: &AuxFile, store: &FileStore) -> Result<bool, SourceError> {
    let start = consistent(store, extent.object, |reads| read_head(&reads, HEAD as u64))?;
    let is_no_text = is_weights(name) || [".json", ".model"].iter().any(|ending| name.ends_with(ending));
    Ok(match Instead::of_json(&start) {
        Some(Instead::Pointer) => true,
        Some(Instead::Page) => is_no_text,
        Some(Instead::Answer | Instead::Text) | None => false,
    })
}

/// What a file of this name is.
pub(super) fn kind_of(name: &str) -> AuxKind {
    match name {
        _ if is_adapter(name) => AuxKind::Adapter,
        _ if is_weights(name) => AuxKind::More,
        _ => AuxKind::Description,
    }
}

/// Opens `name` in `directory`; `None` where that is a link to a place that is neither in it nor a blob in a cache of Hugging Face models.
pub(super) fn open_inside(directory: &Path, name: &str) -> Result<Option<OpenFile>, SourceError> {
    let path = directory.join(name);
    let failed = |source| SourceError::Io { path: path.clone(), source };
    let inside = fs::canonicalize(directory).map_err(failed)?;
    // A link that leads nowhere shows nothing, and is an error when it is opened.
    if fs::symlink_metadata(&path).map_err(failed)?.is_symlink()
        && fs::canonicalize(&path).is_ok_and(|target| leads_out(&inside, &target))
    {
        return Ok(None);
    }
    let file = OpenFile::open(&path)?;
    // Who may write there may have put a link in its place meanwhile.
    let place = file.place().map_err(failed)?;
    Ok((!leads_out(&inside, &place)).then_some(file))
}

fn leads_out(inside: &Path, target: &Path) -> bool {
    let parts: Vec<_> = target.iter().map(|part| part.to_string_lossy()).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    !target.starts_with(inside) && !is_cached_blob(&parts)
}

/// The bytes of a file that must be small.
pub(super) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, SourceError> {
    read_small_file(OpenFile::open(path)?, path, most)
}

/// The same, of one that is open. `path` is for messages.
pub(super) fn read_small_file(file: OpenFile, path: &Path, most: u64) -> Result<Vec<u8>, SourceError> {
    /// Read at a time: what is longer is read in pieces of this, all at once.
    const PIECE: usize = 256 << 10;
    let store = FileStore::default();
    let object = store.take(file)?;
    consistent(&store, object, |reads| {
        let len = reads.len()?;
        if len > most {
            let what = format!("has more than {most} bytes, which no such file has");
            return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
        }
        let starts: Vec<u64> = (0..len).step_by(PIECE).collect();
        let pieces = in_parallel(&starts, |start| {
            let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(PIECE).min(PIECE)];
            reads.read_exact_at(*start, &mut bytes)?;
            Ok(bytes)
        })?;
        Ok(pieces.concat())
    })
}

/// The first bytes of a file, `most` of them.
pub(super) fn read_start(path: &Path, most: u64) -> Result<Vec<u8>, SourceError> {
    let store = FileStore::default();
    let object = store.add(path)?;
    consistent(&store, object, |reads| read_head(&reads, most))
}

fn read_head(reads: &Reads<'_>, most: u64) -> Result<Vec<u8>, SourceError> {
    let mut bytes = vec![0; usize::try_from(reads.len()?.min(most)).unwrap_or(0)];
    reads.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread;

    use super::*;

    /// A file and a link out take turns under one name, as fast as they can: whatever is opened lies inside.
    #[test]
    fn a_link_that_takes_a_file_s_place_meanwhile_is_not_followed_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (model, secret) = (root.join("model"), root.join("secret"));
        fs::create_dir(&model).unwrap();
        fs::write(&secret, "secret").unwrap();
        let name = |name: &str| model.join(name);
        let swap = || {
            fs::write(name("file"), "{}").unwrap();
            fs::rename(name("file"), name("tokenizer.json")).unwrap();
            symlink(&secret, name("link")).unwrap();
            fs::rename(name("link"), name("tokenizer.json")).unwrap();
        };
        swap();
        let done = AtomicBool::new(false);
        let (mut inside, mut out, mut wrong) = (0, 0, None);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    swap();
                }
            });
            // What is wrong is said when the other thread has ended.
            while wrong.is_none() && (inside < 1000 || out < 1000) {
                match open_inside(&model, "tokenizer.json").map(|file| file.map(|file| file.place().unwrap()))
                {
                    Ok(Some(place)) if place.starts_with(&model) => inside += 1,
                    Ok(None) => out += 1,
                    other => wrong = Some(format!("{other:?}")),
                }
            }
            done.store(true, Relaxed);
        });
        assert_eq!(wrong, None);
    }
}
