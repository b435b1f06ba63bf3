//! What kind of checkpoint this is: its sizes, which rank each file is, and its family.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::SourceError;
use super::state_dict::{Leaf, ROOM, leaves};
use super::locate::{Located, Sizes};
use super::rank_file::ReadFile;
use crate::catalog::RankFile;
use crate::family::{Copies, Families, Family, Model, layer_templates, undescribed};
use crate::format::megatron::RankDir;
use crate::format::megatron::keys::{CHECKPOINT_VERSION, ITERATION};
use crate::layout::{Format, Rank};
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
    let found = Sizes {
        tp: size_of(files.iter().map(|file| file.dir.tp)),
        pp: size_of(files.iter().filter_map(|file| stated.pp_of(file.dir))),
        ep: size_of(files.iter().filter_map(|file| stated.ep_of(file.dir))),
    };
    let said = Sizes { tp: stated.tp.unwrap_or(found.tp), pp: stated.pp.unwrap_or(found.pp), ep: stated.ep };
    if found.tp > said.tp || found.pp > said.pp || found.ep > said.ep {
        let name = |sizes: Sizes| match sizes {
            Sizes { tp, pp, ep: 1 } => format!("TP {tp} PP {pp}"),
            Sizes { tp, pp, ep } => format!("TP {tp} PP {pp} EP {ep}"),
        };
        return Err(problem(format!(
            "its directories reach {}, but args in {} say {}; are there leftovers of another run in it?",
            name(found),
            first.file.name,
            name(said)
        )));
    }
    // Far more ranks than files is a damaged or hostile number; listing them all would take forever.
    let ranks = u64::from(said.tp).saturating_mul(u64::from(said.pp)).saturating_mul(u64::from(said.ep));
    if ranks > 1 << 16 {
        return Err(problem(format!(
            "args say TP {} PP {} EP {}, which no cluster has",
            said.tp, said.pp, said.ep
        )));
    }
    let fits = |dir: RankDir| {
        let numbers = usize::from(dir.second.is_some()) + usize::from(dir.third.is_some());
        numbers == usize::from(said.pp > 1) + usize::from(said.ep > 1)
    };
    if let Some(odd) = files.iter().find(|file| !fits(file.dir)) {
        let experts = if said.ep > 1 { format!(" and {} expert ranks", said.ep) } else { String::new() };
        return Err(problem(format!(
            "{} does not fit a checkpoint of {} pipeline stages{experts}",
            odd.file.name, said.pp
        )));
    }
    let ranked = files.into_iter().map(|file| {
        let rank = Rank {
            pp: stated.pp_of(file.dir).unwrap_or(0),
            tp: file.dir.tp,
            ep: stated.ep_of(file.dir).unwrap_or(0),
        };
        RankFile { rank, ..file.file }
    });
    Ok((said, ranked.collect()))
}

/// The size that these ranks reach.
fn size_of(ranks: impl Iterator<Item = u32>) -> u32 {
    ranks.max().unwrap_or(0).saturating_add(1)
}

const TP: &str = "tensor_model_parallel_size";
const PP: &str = "pipeline_model_parallel_size";
const EP: &str = "expert_model_parallel_size";

/// What the args of a rank file say of the layout.
#[derive(Debug, Clone, Copy)]
struct Stated {
    tp: Option<u32>,
    pp: Option<u32>,
    ep: u32,
}

impl Stated {
    fn of(file: &ReadFile) -> Result<Self, SourceError> {
        let RankFile { run, name, .. } = &file.file;
        let size = |field: &str| match run.args.attribute(field) {
            None | Some(Value::None) => Ok(None),
            Some(value) => match value.as_int().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) {
                Some(size) => Ok(Some(size)),
                None => Err(SourceError::Contents {
                    file: name.clone(),
                    what: format!("its args.{field} is not a number of ranks"),
                }),
            },
        };
        Ok(Self { tp: size(TP)?, pp: size(PP)?, ep: size(EP)?.unwrap_or(1) })
    }

    /// The pipeline rank in a directory's name. Its second number is that of the expert rank where there is only one stage.
    fn pp_of(&self, dir: RankDir) -> Option<u32> {
        dir.second.filter(|_| dir.third.is_some() || !self.second_is_expert())
    }

    /// The expert rank in a directory's name.
    fn ep_of(&self, dir: RankDir) -> Option<u32> {
        if dir.third.is_some() { dir.third } else { dir.second.filter(|_| self.second_is_expert()) }
    }

    fn second_is_expert(&self) -> bool {
        self.ep > 1 && self.pp.is_none_or(|pp| pp == 1)
    }
}

/// The first of `families` that describes the checkpoint, applied to its args.
pub(super) fn model(families: &Families, tp: u32, files: &[RankFile]) -> Result<Model, SourceError> {
    model_of(&family(families, files)?, tp, files)
}

/// The first of `families` that describes the checkpoint.
fn family(families: &Families, files: &[RankFile]) -> Result<Arc<Family>, SourceError> {
    let mut names = HashSet::new();
    let mut example = String::new();
    let Some(first) = files.first() else { return Err(no_model(String::new(), "no rank file")) };
    for file in files {
        for (_, leaf) in leaves_of(file)? {
            names.extend(layer_templates(&leaf.path).map(|(template, _)| template));
            if example.is_empty() && leaf.value.tensor().is_some() {
                example.clone_from(&leaf.path);
            }
            names.insert(leaf.path);
        }
    }
    let has = |name: &str| names.contains(name);
    let family = families.of(Format::Megatron).find(|family| family.matches(&first.run.args, &has));
    let Some(family) = family else {
        if let Some(known) = known_all_the_same(files)? {
            return Err(known);
        }
        let known =
            families.of(Format::Megatron).map(|family| family.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(SourceError::UnknownFamily { file: first.name.clone(), example, known });
    };
    Ok(family.clone())
}

/// What a checkpoint of no family is, where one of its tensors says it.
fn known_all_the_same(files: &[RankFile]) -> Result<Option<SourceError>, SourceError> {
    for file in files {
        let leaves = leaves_of(file)?;
        let names = leaves.iter().map(|(_, leaf)| leaf.path.as_str());
        if let Some((tensor, what)) = undescribed(names, Format::Megatron) {
            let (file, tensor) = (file.name.clone(), tensor.to_owned());
            return Ok(Some(SourceError::Undescribed { file, tensor, what }));
        }
    }
    Ok(None)
}

/// A family applied to the args of the files, which must agree.
pub(super) fn model_of(family: &Arc<Family>, tp: u32, files: &[RankFile]) -> Result<Model, SourceError> {
    let Some(first) = files.first() else { return Err(no_model(String::new(), "no rank file")) };
    let args = &first.run.args;
    let version = first.run.checkpoint_version.unwrap_or(0.0);
    let mut model = family
        .model(args, version)
        .map_err(|source| SourceError::Model { file: first.name.clone(), source })?;
    settle(&mut model, tp, args, files)?;
    for file in files {
        check_agreement(first, file, &model)?;
    }
    Ok(model)
}

/// Looks at the rows of tensors that may be cut or copied.
fn settle(model: &mut Model, tp: u32, args: &Value, files: &[RankFile]) -> Result<(), SourceError> {
    let mut rows = HashMap::new();
    for file in files {
        for (_, leaf) in leaves_of(file)? {
            let Some((entry, _)) = model.find(&leaf.path) else { continue };
            let local = leaf.value.tensor().and_then(|tensor| tensor.shape.0.first().copied());
            if let (Copies::Ask { .. }, Some(local)) = (entry.copies, local) {
                rows.entry(entry.name.to_string()).or_insert(local);
            }
        }
    }
    model.settle(tp, args, &rows);
    Ok(())
}

/// Files of one checkpoint say the same of the training step and of everything that decides how they are read. A file that does not is a
/// leftover of another run or step, whose weights must not be mixed in.
fn check_agreement(first: &RankFile, file: &RankFile, model: &Model) -> Result<(), SourceError> {
    let differs = |name: &str, one: Option<String>, other: Option<String>| {
        let text = |text: Option<String>| text.unwrap_or_else(|| "missing".to_owned());
        let (one, other) = (text(one), text(other));
        let what = format!("its {name} is {other}, but {one} in {}; is it left from another run or step?", first.name);
        Err(SourceError::Contents { file: file.name.clone(), what })
    };
    let (run, other) = (&first.run, &file.run);
    if run.iteration != other.iteration {
        let text = |iteration: Option<u64>| iteration.map(|number| number.to_string());
        return differs(ITERATION, text(run.iteration), text(other.iteration));
    }
    if run.checkpoint_version.map(f64::to_bits) != other.checkpoint_version.map(f64::to_bits) {
        let text = |version: Option<f64>| version.map(|number| number.to_string());
        return differs(CHECKPOINT_VERSION, text(run.checkpoint_version), text(other.checkpoint_version));
    }
    for name in model.deciding_args() {
        let (one, other) = (run.args.attribute(name), other.args.attribute(name));
        let same = match (one, other) {
            (Some(one), Some(other)) => one.same_scalar(other).unwrap_or(true),
            (one, other) => one.is_some() == other.is_some(),
        };
        if !same {
            return differs(name, one.map(text), other.map(text));
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

/// Every leaf of the model in a rank file, with the part of the model (virtual stage) it is in.
pub(super) fn leaves_of(file: &RankFile) -> Result<Vec<(u32, Leaf<'_>)>, SourceError> {
    let (mut found, mut room) = (Vec::new(), ROOM);
    if file.models.is_empty() || file.models.iter().any(|model| model.items().is_none()) {
        return Err(no_model(file.name.clone(), "it has no 'model': this is not what Megatron saves"));
    }
    for (chunk, model) in (0..).zip(&file.models) {
        found.extend(leaves(model, &file.name, &mut room)?.into_iter().map(|leaf| (chunk, leaf)));
    }
    Ok(found)
}

fn no_model(file: String, what: &str) -> SourceError {
    SourceError::Contents { file, what: what.to_owned() }
}
