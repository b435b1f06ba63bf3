//! Opens a directory of safetensors files as this tool writes them: one for each rank, with what the rank is in the header's metadata.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::hf::header;
use super::locate::{Located, RankPath};
use super::rank_file::ReadFile;
use super::workers::{in_parallel, open_all};
use super::{Options, Source, SourceError, contents, detect, entries, experts};
use crate::catalog::{Iteration, RankFile, Record, RunState};
use crate::extent::{Extent, ObjectId};
use crate::family::Family;
use crate::format::megatron::keys::{ITERATION, split_part};
use crate::format::megatron::{RELEASE, parse_rank_dir};
use crate::format::ranks::{ENDING, RankHeader};
use crate::format::safetensors::Header;
use crate::layout::{Format, Rank};
use crate::store::{FileStore, Store};
use crate::value::{TensorRef, Value};

/// Whether these names are those of such a directory.
pub(super) fn is_checkpoint(names: &[String]) -> bool {
    names.iter().any(|name| rank_of(name).is_some())
}

/// What stands for the rank in the name of its file.
fn rank_of(name: &str) -> Option<&str> {
    name.strip_suffix(ENDING).filter(|stem| parse_rank_dir(stem).is_some())
}

/// Opens the checkpoint in `path`, a directory with these names in it.
pub(super) fn open(
    path: &Path,
    names: &[String],
    options: &Options,
    store: &FileStore,
) -> Result<Source, SourceError> {
    let files = names.iter().filter_map(|name| {
        let stem = rank_of(name)?;
        let dir = parse_rank_dir(stem)?;
        Some(RankPath { dir, name: stem.to_owned(), path: path.join(name), buffers: None })
    });
    let files: Vec<RankPath> = files.collect();
    let paths: Vec<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    let objects: Vec<_> = files.iter().zip(open_all(&paths, store)?).collect();
    let read = in_parallel(&objects, |(file, object)| read(file, *object, store))?;
    let (headers, ranks): (Vec<RankHeader>, Vec<ReadFile>) = read.into_iter().unzip();
    let iteration = one_of_all(path, &headers)?;
    let located = Located { directory: path.to_owned(), iteration, files, ending: ENDING.to_owned() };
    let (sizes, ranks) = detect::sizes(&located, ranks)?;
    for (header, file) in headers.iter().zip(&ranks) {
        if header.rank != file.rank {
            let Rank { pp, tp, ep } = header.rank;
            let what =
                format!("by its metadata it is of rank tp {tp} pp {pp} ep {ep}, which its name does not say");
            return Err(SourceError::Contents { file: file.name.clone(), what });
        }
    }
    let family = family(path, &headers, options)?;
    let model = Arc::new(detect::model_of(&family, sizes.tp, &ranks)?);
    let shared_out = experts::shared_out(&model, sizes, &ranks)?;
    let missing = located.missing(sizes);
    let missing = experts::really_missing(missing, &model, sizes, shared_out, &ranks, &located.ending);
    let catalog =
        contents::catalog(&model, (sizes, shared_out), iteration, ranks, &missing, options.tied_head, store)?;
    let said = headers.first().map(|header| header.layout.as_str()).unwrap_or_default();
    if catalog.layout.to_string() != said {
        let what = format!("its files are {}, but by their metadata {said:?}", catalog.layout);
        return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
    }
    let files = located.files.into_iter().map(|file| file.path).collect();
    Ok(Source {
        catalog: Arc::new(catalog),
        model,
        format: Format::Safetensors,
        config: None,
        by_template: false,
        inexpressible: Vec::new(),
        aux_files: Vec::new(),
        escaping_links: Vec::new(),
        unfetched: Vec::new(),
        other_weights: Vec::new(),
        directories: Vec::new(),
        directory: located.directory,
        files,
        missing,
    })
}

fn iteration(header: &RankHeader) -> Option<Iteration> {
    match header.iteration.as_str() {
        RELEASE => Some(Iteration::Release),
        // Rank files keep it in an `int` of 64 bits.
        number => number.parse().ok().filter(|n| i64::try_from(*n).is_ok()).map(Iteration::Number),
    }
}

/// The iteration of all files, which are of one layout too.
fn one_of_all(path: &Path, headers: &[RankHeader]) -> Result<Iteration, SourceError> {
    let problem = |what: String| Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
    let Some(first) = headers.first() else { return problem("it has no rank file".into()) };
    for header in headers {
        let pairs =
            [(ITERATION, &first.iteration, &header.iteration), ("layout", &first.layout, &header.layout)];
        if let Some((what, a, b)) = pairs.into_iter().find(|(_, a, b)| a != b) {
            return problem(format!(
                "its files are of {what} {a:?} and of {what} {b:?}; are there leftovers of another one in it?"
            ));
        }
    }
    iteration(first)
        .map_or_else(|| problem(format!("the iteration of its files is {:?}", first.iteration)), Ok)
}

/// The family whose names the files have.
fn family(path: &Path, headers: &[RankHeader], options: &Options) -> Result<Arc<Family>, SourceError> {
    let name = headers.first().map(|header| header.family.as_str()).unwrap_or_default();
    let problem = |what: String| SourceError::NotACheckpoint { path: path.to_owned(), what };
    if let Some(other) = headers.iter().find(|header| header.family != name) {
        return Err(problem(format!("its files are of the families {name} and {}", other.family)));
    }
    let family = options.families.named(name);
    family.cloned().ok_or_else(|| {
        problem(format!("its files are of the family {name:?}, which is not built in; pass the file that describes it with --family"))
    })
}

/// The file of one rank.
fn read(file: &RankPath, object: ObjectId, store: &dyn Store) -> Result<(RankHeader, ReadFile), SourceError> {
    let name = store.name(object);
    let found = header(object, store)?;
    let problem = |what: String| SourceError::Contents { file: name.clone(), what };
    if !RankHeader::is_in(&found.metadata) {
        return Err(problem(
            "its metadata is not what ckpt-fs writes; which model it is a rank of is not known".into(),
        ));
    }
    let rank = RankHeader::decode(&found.metadata).map_err(problem)?;
    let storages = found.tensors.iter().map(|tensor| {
        let extent =
            Extent { object, offset: tensor.bytes.start, len: tensor.bytes.end - tensor.bytes.start };
        (tensor.name.clone(), Record { extent, crc: None })
    });
    let storages = storages.collect();
    let iteration = match iteration(&rank) {
        Some(Iteration::Number(number)) => Some(number),
        Some(Iteration::Release) | None => None,
    };
    let args = entries::args(Some(&rank.args), &name)?;
    let run = RunState { checkpoint_version: rank.checkpoint_version, iteration, ..RunState::of_args(args) };
    let models = models(&found, &name)?;
    let found = RankFile { rank: rank.rank, models, storages, ..RankFile::of_run(object, name, run) };
    Ok((rank, ReadFile { dir: file.dir, file: found }))
}

/// The parts of the model that the tensors make.
fn models(header: &Header, file: &str) -> Result<Vec<Value>, SourceError> {
    let mut parts: Vec<(&str, Vec<(Value, Value)>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for tensor in &header.tensors {
        let (part, name) = split_part(&tensor.name);
        let reference = TensorRef::whole(tensor.name.clone(), tensor.dtype, tensor.shape.clone());
        let place = *places.entry(part).or_insert(parts.len());
        if place == parts.len() {
            parts.push((part, Vec::new()));
        }
        if let Some((_, items)) = parts.get_mut(place) {
            items.push((Value::str(name), Value::Tensor(Arc::new(reference))));
        }
    }
    entries::models(parts.into_iter().map(|(part, items)| (part, Value::Dict(items.into()))).collect(), file)
}
