//! The safetensors files of a model: which there are, and what their headers say.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::extent::{Extent, ObjectId};
use crate::format::hf::{INDEX, Index, SINGLE, decode_index};
use crate::format::instead::{HEAD, Instead};
use crate::format::safetensors::{Header, PREFIX, SafetensorsError, decode, header_len};
use crate::source::aux_files::read_small;
use crate::source::workers::{Turn, in_parallel, open_all};
use crate::source::{SourceError, some_of};
use crate::store::{FileStore, Store, consistent};
use crate::tensor::{Dtype, Shape};

/// Larger is no index: one of a hundred thousand tensors has 10 MB. Read, it takes ten times as much memory.
const LARGEST_INDEX: u64 = 64 << 20;

/// The files of a model.
pub(super) struct Files {
    /// Name and place of each.
    pub(super) paths: Vec<(String, PathBuf)>,
    /// Which tensor is in which, where there are several.
    index: Option<Index>,
    /// The index's name for messages.
    index_name: String,
}

/// A tensor of the model.
pub(super) struct Tensor {
    pub(super) name: Arc<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) extent: Extent,
    /// Name of its file for messages.
    pub(super) file: Arc<str>,
}

/// The files of the model in `path`, a directory with these names in it.
pub(super) fn files(path: &Path, names: &[String]) -> Result<Files, SourceError> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let problem = |what: String| Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
    let index_name = path.join(INDEX).display().to_string();
    match (has(SINGLE), has(INDEX)) {
        (true, true) => problem(format!(
            "it has both {SINGLE} and {INDEX}; loaders take the former and never look at the latter, so one of them is left from something else: move it away"
        )),
        (true, false) => {
            Ok(Files { paths: vec![(SINGLE.to_owned(), path.join(SINGLE))], index: None, index_name })
        }
        (false, true) => {
            let text = read_small(&path.join(INDEX), LARGEST_INDEX)?;
            let index = decode_index(&text).map_err(|what| {
                let what = Instead::of_json(&text).map_or(what, |instead| instead.to_string());
                SourceError::Contents { file: index_name.clone(), what }
            })?;
            let paths = shards(path, names, &index, &index_name)?;
            Ok(Files { paths, index: Some(index), index_name })
        }
        (false, false) => problem(super::without_weights()),
    }
}

/// The files that an index names: each must be there.
fn shards(
    path: &Path,
    names: &[String],
    index: &Index,
    index_name: &str,
) -> Result<Vec<(String, PathBuf)>, SourceError> {
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    let wrong = |what: String| Err(SourceError::Contents { file: index_name.to_owned(), what });
    if files.is_empty() {
        return wrong("it names no tensor".into());
    }
    // A path that leads elsewhere is not one of this model's files.
    if let Some(odd) = files.iter().find(|name| name.contains('/') || name.starts_with('.')) {
        return wrong(format!("it names the file {odd:?}, which is not in this directory"));
    }
    // A link to nowhere is an error when it is opened.
    let there: HashSet<&String> = names.iter().collect();
    let lacking: Vec<String> =
        files.iter().filter(|name| !there.contains(*name)).map(|name| (*name).clone()).collect();
    if !lacking.is_empty() {
        return wrong(format!("it names files that are not there: {}", some_of(&lacking)));
    }
    Ok(files.into_iter().map(|name| (name.clone(), path.join(name))).collect())
}

/// The tensors of all files, whose headers are read at the same time.
pub(super) fn read(files: &Files, store: &FileStore) -> Result<Vec<Tensor>, SourceError> {
    let paths: Vec<&Path> = files.paths.iter().map(|(_, path)| path.as_path()).collect();
    let objects = open_all(&paths, store)?;
    let headers = in_parallel(&objects, |object| header(*object, store))?;
    let mut tensors = Vec::new();
    let mut seen: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for ((name, _), (object, header)) in files.paths.iter().zip(objects.iter().zip(headers)) {
        let file: Arc<str> = store.name(*object).into();
        for tensor in header.tensors {
            check_index(files, &tensor.name, name, &file)?;
            if let Some(other) = seen.insert(tensor.name.clone(), file.clone()) {
                let what = format!("is also in {other}");
                return Err(SourceError::Tensor {
                    file: file.to_string(),
                    tensor: tensor.name.to_string(),
                    what,
                });
            }
            let extent = Extent {
                object: *object,
                offset: tensor.bytes.start,
                len: tensor.bytes.end - tensor.bytes.start,
            };
            tensors.push(Tensor {
                name: tensor.name,
                dtype: tensor.dtype,
                shape: tensor.shape,
                extent,
                file: file.clone(),
            });
        }
    }
    let named = files.index.iter().flat_map(|index| &index.weight_map);
    match named.into_iter().find(|(name, _)| !seen.contains_key(name.as_str())) {
        Some((tensor, file)) => Err(SourceError::Contents {
            file: files.index_name.clone(),
            what: format!("it says that {tensor} is in {file}, which does not have it"),
        }),
        None => Ok(tensors),
    }
}

/// The index says of a tensor that it is where it is.
fn check_index(files: &Files, tensor: &str, name: &str, file: &str) -> Result<(), SourceError> {
    let Some(index) = &files.index else { return Ok(()) };
    let what = match index.weight_map.get(tensor) {
        Some(said) if said == name => return Ok(()),
        Some(said) => format!("it says that {tensor} is in {said}, but it is in {file}"),
        None => format!("it does not name {tensor}, which is in {file}"),
    };
    Err(SourceError::Contents { file: files.index_name.clone(), what })
}

/// The header of a file: its beginning is read, and what is longer than that too.
pub(in crate::source) fn header(object: ObjectId, store: &dyn Store) -> Result<Header, SourceError> {
    /// Most headers fit.
    const FIRST: u64 = 64 << 10;
    let explain = |source| SourceError::Safetensors { file: store.name(object), source };
    consistent(store, object, |reads| {
        let len = reads.len()?;
        let mut bytes = vec![0; usize::try_from(len.min(FIRST)).unwrap_or(0)];
        reads.read_exact_at(0, &mut bytes)?;
        let prefix = bytes.first_chunk::<8>().copied().unwrap_or_default();
        // Text in its place would be a header beyond all bounds.
        let head = || Instead::of_binary(bytes.get(..HEAD).unwrap_or(&bytes));
        let json = header_len(prefix, len)
            .map_err(|error| explain(head().map_or(error, SafetensorsError::Instead)))?;
        // The header is no longer than the file.
        let end = usize::try_from(PREFIX + json).unwrap_or(usize::MAX);
        let _turn = Turn::for_bytes(json);
        if let Some(rest) = end.checked_sub(bytes.len()) {
            let first = bytes.len();
            bytes.resize(first + rest, 0);
            reads.read_exact_at(first as u64, bytes.get_mut(first..).unwrap_or_default())?;
        }
        decode(bytes.get(PREFIX as usize..end).unwrap_or_default(), len).map_err(explain)
    })
}

/// The element type of most bytes.
pub(super) fn main_dtype(tensors: &[Tensor]) -> Dtype {
    let mut bytes: BTreeMap<Dtype, u64> = BTreeMap::new();
    for tensor in tensors {
        *bytes.entry(tensor.dtype).or_default() += tensor.extent.len;
    }
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(Dtype::Float32, |(dtype, _)| dtype)
}
