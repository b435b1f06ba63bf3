//! Builds the catalog: every tensor of every rank file becomes chunks of canonical parameters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::SourceError;
use super::detect::model_of;
use super::leaves::{Leaf, leaves};
use super::locate::Sizes;
use crate::catalog::{Catalog, Chunk, Iteration, Param, Period, RankFile};
use crate::extent::Extent;
use crate::family::{Arrangement, Entry, Model, Stage, part_sizes};
use crate::layout::{Layout, Stages};
use crate::tensor::{Band, Shape};
use crate::value::{TensorRef, Value};

/// The catalog of these rank files.
pub(super) fn catalog(
    model: &Model,
    sizes: Sizes,
    iteration: Iteration,
    files: Vec<RankFile>,
    missing: &[String],
) -> Result<Catalog, SourceError> {
    let mut known: Vec<(usize, Leaf<'_>, &Entry, Option<u32>)> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for leaf in leaves(model_of(file)?, &file.name)? {
            let Some((entry, layer)) = model.find(&leaf.path) else {
                let family = model.family().name.clone();
                return Err(SourceError::UnknownTensor {
                    file: file.name.clone(),
                    tensor: leaf.path,
                    family,
                });
            };
            known.push((index, leaf, entry, layer));
        }
    }
    let stages = stages(model, sizes, &files, &known, missing)?;
    let layout = Layout { tp: sizes.tp, stages };
    let mut builder = Builder {
        catalog: Catalog::new(layout, iteration, files.clone()),
        dimensions: HashMap::new(),
        names: HashMap::new(),
    };
    for (index, leaf, entry, layer) in &known {
        if let Some(file) = files.get(*index) {
            builder.leaf(file, leaf, entry, *layer)?;
        }
    }
    builder.finish(model, missing)
}

/// Layers per stage: the highest layer that a file of the stage names.
fn stages(
    model: &Model,
    sizes: Sizes,
    files: &[RankFile],
    known: &[(usize, Leaf<'_>, &Entry, Option<u32>)],
    missing: &[String],
) -> Result<Stages, SourceError> {
    let mut seen: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for (index, _, _, layer) in known {
        if let (Some(file), Some(layer)) = (files.get(*index), layer) {
            seen.entry(file.rank.pp).or_default().insert(*layer);
        }
    }
    let mut counts = Vec::new();
    for pp in 0..sizes.pp {
        let layers = seen.remove(&pp).unwrap_or_default();
        let count = layers.last().map_or(0, |last| last.saturating_add(1));
        if let Some(gap) = (0..count).find(|layer| !layers.contains(layer)) {
            let file = files
                .iter()
                .find(|file| file.rank.pp == pp)
                .map_or_else(String::new, |file| file.name.clone());
            let what = format!("stage {pp} has a layer {} but no layer {gap}", count - 1);
            return Err(SourceError::Contents { file, what });
        }
        counts.push(count);
    }
    let stages = Stages::new(counts).unwrap_or_else(|| Stages::nearly_even(0, 1));
    let layers = model.size("layers").unwrap_or_else(|| stages.total());
    if stages.total() != layers {
        let sum = stages.total();
        let path = files.first().map_or_else(Default::default, |file| std::path::PathBuf::from(&file.name));
        return Err(SourceError::Layers { path, stages, sum, layers, missing: missing.to_vec() });
    }
    Ok(stages)
}

struct Builder {
    catalog: Catalog,
    /// Sizes of the model's dimensions, and the tensor and file each was first seen in.
    dimensions: HashMap<String, (u64, String)>,
    /// The entry that saves each parameter (with `{layer}`), tied copies apart.
    names: HashMap<String, Arc<str>>,
}

/// A tensor on its way into the catalog.
struct Stored<'a> {
    file: &'a RankFile,
    path: &'a str,
    tensor: &'a TensorRef,
    /// Where its storage is.
    storage: Extent,
}

impl Stored<'_> {
    fn error(&self, what: String) -> SourceError {
        SourceError::Tensor { file: self.file.name.clone(), tensor: self.path.to_owned(), what }
    }
}

impl Builder {
    fn leaf(
        &mut self,
        file: &RankFile,
        leaf: &Leaf<'_>,
        entry: &Entry,
        layer: Option<u32>,
    ) -> Result<(), SourceError> {
        if entry.holds.is_empty() {
            self.extra_state(leaf, entry);
            return Ok(());
        }
        let (stage, stages) = (file.rank.pp, self.catalog.layout.pp());
        let belongs = match entry.stage {
            Stage::First => stage == 0,
            Stage::Last => stage + 1 == stages,
            Stage::Layer => true,
        };
        if !belongs {
            let place = if entry.stage == Stage::First { "first" } else { "last" };
            let what = format!("belongs to the {place} of {stages} pipeline stages, but is in stage {stage}");
            return Err(SourceError::Tensor { file: file.name.clone(), tensor: leaf.path.clone(), what });
        }
        let Some(tensor) = leaf.value.tensor() else {
            let what = "expected a tensor here".to_owned();
            return Err(SourceError::Tensor { file: file.name.clone(), tensor: leaf.path.clone(), what });
        };
        let Some(storage) = file.storages.get(&tensor.storage.key) else {
            let what = format!("its storage data/{} is not in the file", tensor.storage.key);
            return Err(SourceError::Tensor { file: file.name.clone(), tensor: leaf.path.clone(), what });
        };
        let stored = Stored { file, path: &leaf.path, tensor, storage: storage.extent };
        self.spelling(&stored, entry)?;
        let layer = layer.map(|local| self.catalog.layout.stages.layers_of(file.rank.pp).start + local);
        self.tensor(&stored, entry, layer)
    }

    /// Extra state that holds nothing is the same in every layout. Anything else belongs to one layer of one; Megatron loads without it.
    fn extra_state(&mut self, leaf: &Leaf<'_>, entry: &Entry) {
        let is_empty_tensor = leaf.value.tensor().is_some_and(|tensor| tensor.shape.elements() == Some(0));
        if is_empty_tensor {
            self.catalog.empty_states.insert(entry.name.clone());
        }
        if is_empty_tensor || matches!(leaf.value, Value::None) {
            self.catalog.spellings.insert(entry.name.clone());
        } else {
            self.catalog.left_out.insert("_extra_state".to_owned());
        }
    }

    /// Notes the name under which the model saves its parameters. Two names for one parameter would give every rank both, and one of two
    /// values would be lost.
    fn spelling(&mut self, stored: &Stored<'_>, entry: &Entry) -> Result<(), SourceError> {
        if entry.only_if_pipelined {
            if self.catalog.layout.pp() == 1 {
                self.catalog.left_out.insert(format!(
                    "{} (a copy of the embedding, which one stage does not need)",
                    entry.name
                ));
            }
            return Ok(());
        }
        self.catalog.spellings.insert(entry.name.clone());
        for holding in &entry.holds {
            let known = self.names.entry(holding.param.clone()).or_insert_with(|| entry.name.clone());
            if *known != entry.name {
                return Err(
                    stored.error(format!("{} is also saved as {known}; which one counts?", holding.param))
                );
            }
        }
        Ok(())
    }

    /// Adds a chunk for every band of the tensor.
    fn tensor(&mut self, stored: &Stored<'_>, entry: &Entry, layer: Option<u32>) -> Result<(), SourceError> {
        let shape = &stored.tensor.shape;
        for holding in &entry.holds {
            if holding.dimensions.len() != shape.rank() {
                let dimensions = holding.dimensions.join(", ");
                return Err(
                    stored.error(format!("its shape is {shape}, but {} is [{dimensions}]", holding.param))
                );
            }
        }
        let arrange = |source| SourceError::Arrange {
            file: stored.file.name.clone(),
            tensor: stored.path.to_owned(),
            source,
        };
        let tp = match entry.arrangement {
            Arrangement::Replicated => 1,
            _ => u64::from(self.catalog.layout.tp),
        };
        let local = shape.0.get(entry.axis).copied().unwrap_or(1);
        let rows = local.checked_mul(tp).ok_or_else(|| stored.error("its size is beyond reason".into()))?;
        let shares: Vec<u64> = entry.holds.iter().map(|holding| holding.share).collect();
        let parts = part_sizes(rows, &shares).map_err(arrange)?;
        let rank = if tp == 1 { 0 } else { u64::from(stored.file.rank.tp) };
        let bands = entry.arrangement.bands(&parts, tp, rank).map_err(arrange)?;
        for (index, holding) in entry.holds.iter().enumerate() {
            let name: Arc<str> = match layer {
                Some(layer) => holding.param.replace("{layer}", &layer.to_string()).into(),
                None => holding.param.as_str().into(),
            };
            let global = shape.with(entry.axis, parts.get(index).copied().unwrap_or(0));
            if global.bytes(stored.tensor.dtype).is_none_or(|bytes| bytes > LARGEST) {
                return Err(stored.error("its size is beyond reason".into()));
            }
            self.check_dimensions(stored, &holding.dimensions, &global)?;
            let param = self.param(stored, name, global, entry.axis)?;
            for band in bands.iter().filter(|band| band.part == index) {
                let chunk = chunk(stored, band, entry.axis);
                param.add(chunk.ok_or_else(|| stored.error("its strides are beyond reason".into()))?);
            }
        }
        Ok(())
    }

    /// A dimension has one size in the whole model. This is what finds a plain feed-forward layer called gated, and the reverse.
    fn check_dimensions(
        &mut self,
        stored: &Stored<'_>,
        names: &[String],
        global: &Shape,
    ) -> Result<(), SourceError> {
        for (name, size) in names.iter().zip(&global.0) {
            let (known, where_seen) = self
                .dimensions
                .entry(name.clone())
                .or_insert_with(|| (*size, format!("{} in {}", stored.path, stored.file.name)));
            if known != size {
                return Err(stored
                    .error(format!("its {name} dimension is {size}, but it is {known} by {where_seen}")));
            }
        }
        Ok(())
    }

    fn param(
        &mut self,
        stored: &Stored<'_>,
        name: Arc<str>,
        shape: Shape,
        axis: usize,
    ) -> Result<&mut Param, SourceError> {
        let dtype = stored.tensor.dtype;
        let param = self.catalog.param_or_insert(Param::new(name, dtype, shape.clone(), axis));
        if (param.dtype, &param.shape, param.axis) == (dtype, &shape, axis) {
            return Ok(param);
        }
        let (known_dtype, known_shape) = (param.dtype, param.shape.clone());
        Err(stored.error(format!(
            "ranks disagree: {} is {dtype} {shape} by this file, {known_dtype} {known_shape} by another",
            param.name
        )))
    }

    fn finish(self, model: &Model, missing: &[String]) -> Result<Catalog, SourceError> {
        for param in self.catalog.params() {
            param.check().map_err(|source| SourceError::Uncovered {
                param: param.name.to_string(),
                source,
                lacking: lacking(&self.catalog, param),
                missing: missing.to_vec(),
            })?;
        }
        check_required(&self.catalog, model, missing)?;
        check_layers(&self.catalog, model, missing)?;
        Ok(self.catalog)
    }
}

/// Rank files without any of the parameter, on stages where other files have some.
fn lacking(catalog: &Catalog, param: &Param) -> Vec<String> {
    let chunks = param.chunks();
    let lacks = |file: &&RankFile| {
        chunks.iter().any(|chunk| chunk.rank.pp == file.rank.pp)
            && !chunks.iter().any(|chunk| chunk.rank == file.rank)
    };
    catalog.ranks.iter().filter(lacks).map(|file| file.name.clone()).collect()
}

/// A model has what every model of its family has.
fn check_required(catalog: &Catalog, model: &Model, missing: &[String]) -> Result<(), SourceError> {
    for param in model.required_parameters() {
        // That all layers are alike is checked apart.
        if catalog.param(&param.replace("{layer}", "0")).is_none() {
            let holds = |entry: &&Entry| entry.holds.iter().any(|held| held.param == param);
            let tensors = model.entries().iter().filter(holds).map(|entry| entry.name.to_string()).collect();
            return Err(SourceError::MissingTensor { tensors, missing: missing.to_vec() });
        }
    }
    Ok(())
}

/// Every layer has the parameters that any layer has.
fn check_layers(catalog: &Catalog, model: &Model, missing: &[String]) -> Result<(), SourceError> {
    let layers = u32::try_from(catalog.layout.stages.total()).unwrap_or(u32::MAX);
    let layered: BTreeSet<&str> = model
        .entries()
        .iter()
        .flat_map(|entry| &entry.holds)
        .map(|holding| holding.param.as_str())
        .filter(|param| param.contains("{layer}"))
        .collect();
    for template in layered {
        let has = |layer: u32| catalog.param(&template.replace("{layer}", &layer.to_string())).is_some();
        let Some(other) = (0..layers).find(|layer| has(*layer)) else { continue };
        if let Some(layer) = (0..layers).find(|layer| !has(*layer)) {
            let param = template.replace("layers.{layer}.", "");
            let stages = &catalog.layout.stages;
            let of_layer =
                catalog.ranks.iter().filter(|file| stages.layers_of(file.rank.pp).contains(&layer));
            return Err(SourceError::MissingParameter {
                layer,
                param,
                other,
                lacking: of_layer.map(|file| file.name.clone()).collect(),
                missing: missing.to_vec(),
            });
        }
    }
    Ok(())
}

/// No parameter has as many bytes; sizes below this can be multiplied by ranks and element sizes without harm.
const LARGEST: u64 = 1 << 50;

/// Where the positions of a band are stored; `None` where that is beyond 64 bits (strides of axes with one element may be anything).
fn chunk(stored: &Stored<'_>, band: &Band, axis: usize) -> Option<Chunk> {
    let element = stored.tensor.dtype.size();
    let sizes = &stored.tensor.shape.0;
    let strides = stored.tensor.strides.iter().zip(sizes).map(|(stride, size)| {
        // The stride of an axis with one element leads nowhere.
        if *size <= 1 { Some(0) } else { stride.checked_mul(element) }
    });
    let strides: Vec<u64> = strides.collect::<Option<_>>()?;
    let stride = strides.get(axis).copied().unwrap_or(element);
    let offset = stored.tensor.offset.checked_mul(element)?.checked_add(band.at.checked_mul(stride)?)?;
    let period = match band.repeat {
        1 => None,
        _ => Some(Period { len: band.len, step: band.at_step.checked_mul(stride)? }),
    };
    Some(Chunk {
        span: band.from..band.from.checked_add(band.positions())?,
        rank: stored.file.rank,
        object: stored.file.object,
        start: stored.storage.offset.checked_add(offset)?,
        strides,
        period,
    })
}
