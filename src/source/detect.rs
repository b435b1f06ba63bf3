//! What kind of checkpoint this is: its sizes, which rank each file is, and its family.

use std::collections::HashSet;
use std::sync::Arc;

use super::SourceError;
use super::leaves::leaves;
use super::locate::{Located, Sizes};
use super::rank_file::ReadFile;
use crate::catalog::RankFile;
use crate::family::{Family, Model, layer_templates};
use crate::layout::Rank;
use crate::value::Value;

/// Tensor- and pipeline-parallel sizes, and the files with their ranks.
///
/// `args` and the names of the directories must agree; a size beyond the directories that are there means that files are missing.
pub(super) fn sizes(located: &Located, files: Vec<ReadFile>) -> Result<(Sizes, Vec<RankFile>), SourceError> {
    let Some(first) = files.first() else {
        return Err(SourceError::NotACheckpoint {
            path: located.directory.clone(),
            what: "it has no rank file".into(),
        });
    };
    let problem = |what: String| SourceError::NotACheckpoint { path: located.directory.clone(), what };
    let stated = Stated::of(first)?;
    if stated.experts > 1 || files.iter().any(|file| file.dir.third.is_some()) {
        return Err(SourceError::Unsupported {
            path: located.directory.display().to_string(),
            what: "it has expert-parallel ranks, which this version cannot reshard yet",
        });
    }
    let found = Sizes {
        tp: files.iter().map(|file| file.dir.tp).max().unwrap_or(0).saturating_add(1),
        pp: files.iter().map(|file| file.dir.second.unwrap_or(0)).max().unwrap_or(0).saturating_add(1),
    };
    let said = Sizes { tp: stated.tp.unwrap_or(found.tp), pp: stated.pp.unwrap_or(found.pp) };
    if found.tp > said.tp || found.pp > said.pp {
        return Err(problem(format!(
            "its directories reach TP {} PP {}, but args in {} say TP {} PP {}; are there leftovers of another run in it?",
            found.tp, found.pp, first.name, said.tp, said.pp
        )));
    }
    // Far more ranks than files is a damaged or hostile number; listing them all would take forever.
    if u64::from(said.tp) * u64::from(said.pp) > 1 << 16 {
        return Err(problem(format!("args say TP {} PP {}, which no cluster has", said.tp, said.pp)));
    }
    if let Some(odd) = files.iter().find(|file| (said.pp > 1) != file.dir.second.is_some()) {
        return Err(problem(format!(
            "{} does not fit a checkpoint of {} pipeline stages",
            odd.name, said.pp
        )));
    }
    let ranked = files.into_iter().map(|file| {
        let rank = Rank { pp: file.dir.second.unwrap_or(0), tp: file.dir.tp };
        let ReadFile { object, name, tree, storages, left_out, .. } = file;
        RankFile { rank, object, name, tree, storages, left_out }
    });
    Ok((said, ranked.collect()))
}

const TP: &str = "tensor_model_parallel_size";
const PP: &str = "pipeline_model_parallel_size";

/// What the args of a rank file say of the layout.
#[derive(Debug, Clone, Copy)]
struct Stated {
    tp: Option<u32>,
    pp: Option<u32>,
    experts: u32,
}

impl Stated {
    fn of(file: &ReadFile) -> Result<Self, SourceError> {
        let args = args_of(&file.tree, &file.name)?;
        let size = |field: &str| match args.attribute(field) {
            None | Some(Value::None) => Ok(None),
            Some(value) => match value.as_int().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) {
                Some(size) => Ok(Some(size)),
                None => Err(SourceError::Contents {
                    file: file.name.clone(),
                    what: format!("its args.{field} is not a number of ranks"),
                }),
            },
        };
        Ok(Self { tp: size(TP)?, pp: size(PP)?, experts: size("expert_model_parallel_size")?.unwrap_or(1) })
    }
}

/// The first of `families` that describes the checkpoint, applied to its args.
pub(super) fn model(families: &[Arc<Family>], files: &[RankFile]) -> Result<Model, SourceError> {
    let mut names = HashSet::new();
    let mut example = String::new();
    let Some(first) = files.first() else { return Err(no_model(String::new(), "no rank file")) };
    let args = args_of(&first.tree, &first.name)?;
    for file in files {
        for leaf in leaves(model_of(file)?, &file.name)? {
            names.extend(layer_templates(&leaf.path).map(|(template, _)| template));
            if example.is_empty() && leaf.value.tensor().is_some() {
                example.clone_from(&leaf.path);
            }
            names.insert(leaf.path);
        }
    }
    let family = families.iter().find(|family| family.matches(args, &|name| names.contains(name)));
    let Some(family) = family else {
        let known = families.iter().map(|family| family.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(SourceError::UnknownFamily { file: first.name.clone(), example, known });
    };
    let version = match first.tree.get("checkpoint_version") {
        Some(Value::Float(version)) => *version,
        // Versions are small numbers, so nothing is lost.
        Some(Value::Int(version)) => *version as f64,
        _ => 0.0,
    };
    let model = family
        .model(args, version)
        .map_err(|source| SourceError::Model { file: first.name.clone(), source })?;
    for file in files {
        check_agreement(first, file, &model)?;
    }
    Ok(model)
}

/// Files of one checkpoint say the same of the training step and of everything that decides how they are read. A file that does not is a
/// leftover of another run or step, whose weights must not be mixed in.
fn check_agreement(first: &RankFile, file: &RankFile, model: &Model) -> Result<(), SourceError> {
    let args = (args_of(&first.tree, &first.name)?, args_of(&file.tree, &file.name)?);
    let entries =
        ["iteration", "checkpoint_version"].map(|name| (name, first.tree.get(name), file.tree.get(name)));
    let fields = model.deciding_args().map(|name| (name, args.0.attribute(name), args.1.attribute(name)));
    for (name, one, other) in entries.into_iter().chain(fields) {
        let same = match (one, other) {
            (Some(one), Some(other)) => one.same_scalar(other).unwrap_or(true),
            (one, other) => one.is_some() == other.is_some(),
        };
        if !same {
            let text = |value: Option<&Value>| value.map_or_else(|| "missing".to_owned(), text);
            let what = format!(
                "its {name} is {}, but {} in {}; is it left from another run or step?",
                text(other),
                text(one),
                first.name
            );
            return Err(SourceError::Contents { file: file.name.clone(), what });
        }
    }
    Ok(())
}

/// A value of a field that decides what a model is, short: such values are numbers, flags and words.
fn text(value: &Value) -> String {
    match value {
        Value::None => "None".to_owned(),
        Value::Bool(flag) => if *flag { "True" } else { "False" }.to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Str(text) => format!("'{}'", text.chars().take(40).collect::<String>()),
        other => format!("a {}", other.kind()),
    }
}

/// `model` of a rank file.
pub(super) fn model_of(file: &RankFile) -> Result<&Value, SourceError> {
    if let Some(model) = file.tree.get("model").filter(|model| model.items().is_some()) {
        return Ok(model);
    }
    if file.tree.get("model0").is_some() {
        return Err(SourceError::Unsupported {
            path: file.name.clone(),
            what: "it is stored in virtual pipeline stages, which this version cannot reshard yet",
        });
    }
    Err(no_model(file.name.clone(), "it has no 'model': this is not what Megatron saves"))
}

fn args_of<'a>(tree: &'a Value, file: &str) -> Result<&'a Value, SourceError> {
    tree.get("args")
        .filter(|args| matches!(args, Value::Object(object) if object.state.is_some()))
        .ok_or_else(|| no_model(file.to_owned(), "it has no 'args', which say how its tensors are cut"))
}

fn no_model(file: String, what: &str) -> SourceError {
    SourceError::Contents { file, what: what.to_owned() }
}
