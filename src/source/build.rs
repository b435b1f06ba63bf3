//! Every tensor of a rank file becomes chunks of canonical parameters. Not here: which tensors there are (`contents`).

mod copies;
mod heads;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;

use super::known::Known;
use super::{SourceError, TiedHead};
use crate::catalog::{Catalog, Chunk, ExtraState, Param, Params, RankFile, StateOf};
use crate::extent::Extent;
use crate::family::{Entry, LayerKind, Model, Numbers, Stage, part_sizes};
use crate::format::hf::CONFIG;
use crate::format::megatron::keys::ARGS;
use crate::layout::{Place, Rank};
use crate::store::Store;
use crate::tensor::{Band, Shape};
use crate::value::{TensorRef, Value};
pub(super) use stored::pieces_at;
use stored::{chunks, expert_of};

/// A catalog on its way.
pub(super) struct Builder<'a> {
    pub(super) catalog: Catalog,
    pub(super) model: &'a Model,
    /// Sizes of the model's dimensions, and the tensor and file each was first seen in.
    dimensions: HashMap<String, (u64, String)>,
    /// The entry that saves each parameter, tied copies apart.
    names: HashMap<Arc<str>, Arc<str>>,
    /// Copies, and those of them that stand beside what they are copies of.
    copied: Vec<copies::Copied>,
    beside: Vec<copies::Beside>,
    tied_head: TiedHead,
    /// The optimizer's state that tensors are added to; `None` for the weights.
    pub(super) state: Option<usize>,
}

/// A tensor on its way into the catalog.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) rank: Rank,
    /// Name of the file for messages.
    pub(super) file: &'a str,
    pub(super) path: &'a str,
    pub(super) tensor: &'a TensorRef,
    /// Where it is stored.
    pub(super) bytes: Bytes<'a>,
}

/// Where a tensor is stored.
#[derive(Clone, Copy)]
pub(super) enum Bytes<'a> {
    /// In one storage.
    Storage(Extent),
    /// In these pieces of it.
    Pieces(&'a [Chunk]),
}

impl<'a> Bytes<'a> {
    /// Where a rank file says that a tensor is.
    pub(super) fn of(tensor: &TensorRef, file: &'a RankFile) -> Option<Self> {
        let key = &tensor.storage.key;
        let storage = file.storages.get(key).map(|record| Self::Storage(record.extent));
        storage.or_else(|| file.pieces.get(key).map(|pieces| Self::Pieces(pieces)))
    }
}

impl Stored<'_> {
    fn error(&self, what: String) -> SourceError {
        SourceError::Tensor { file: self.file.to_owned(), tensor: self.path.to_owned(), what }
    }
}

impl<'a> Builder<'a> {
    /// Adds to this catalog, which holds nothing yet.
    pub(super) fn new(catalog: Catalog, model: &'a Model, tied_head: TiedHead) -> Self {
        Self {
            catalog,
            model,
            dimensions: stated_dimensions(model),
            names: HashMap::new(),
            copied: Vec::new(),
            beside: Vec::new(),
            tied_head,
            state: None,
        }
    }

    /// Copies that stand beside what they should be copies of are that, or their bytes are not looked at.
    pub(super) fn compare_copies(&self, store: &dyn Store) -> Result<(), SourceError> {
        copies::compare(self, store)
    }
}

impl Builder<'_> {
    /// Adds what a leaf of the weights is.
    pub(super) fn leaf(&mut self, file: &RankFile, known: &Known<'_>) -> Result<(), SourceError> {
        let Known { leaf, entry, chunk, .. } = known;
        let file_name = file.name_of(leaf.value);
        if entry.ignored {
            let why = entry.why_ignored.as_deref().unwrap_or("the model computes it");
            self.catalog.left_out.insert(format!("{} ({why})", entry.name));
            return Ok(());
        }
        if entry.holds.is_empty() {
            let place = Place { rank: file.rank, chunk: *chunk };
            self.extra_state(file, known, self.in_model(known.numbers, place));
            return Ok(());
        }
        let (layout, place) = (&self.catalog.layout, Place { rank: file.rank, chunk: *chunk });
        if !entry.is_on(layout, place) {
            let which = if entry.stage == Stage::First { "first" } else { "last" };
            let (stage, stages) = (layout.stage(place), layout.stages.count());
            let what = format!("belongs to the {which} of {stages} pipeline stages, but is in stage {stage}");
            return Err(SourceError::Tensor { file: file_name.to_owned(), tensor: leaf.path.clone(), what });
        }
        let numbers = self.in_model(known.numbers, place);
        self.check_place(file, known, numbers)?;
        let Some(tensor) = leaf.value.tensor() else {
            let what = "expected a tensor here".to_owned();
            return Err(SourceError::Tensor { file: file.name.clone(), tensor: leaf.path.clone(), what });
        };
        let Some(bytes) = Bytes::of(tensor, file) else {
            let what = format!("its storage data/{} is not in the file", tensor.storage.key);
            return Err(SourceError::Tensor { file: file.name.clone(), tensor: leaf.path.clone(), what });
        };
        let stored = Stored { rank: file.rank, file: file_name, path: &leaf.path, tensor, bytes };
        if entry.is_copy() {
            return self.copy(&stored, entry, numbers);
        }
        self.spelling(&stored, entry, (numbers, known.numbers))?;
        self.tensor(&stored, entry, numbers)
    }

    /// The numbers in the model of what has these numbers at `place`.
    pub(super) fn in_model(&self, local: Numbers, place: Place) -> Numbers {
        if self.model.global_layers() {
            return local;
        }
        let layout = &self.catalog.layout;
        Numbers {
            layer: local.layer.map(|layer| layout.layers_at(place).start.saturating_add(layer)),
            depth: local.depth,
            expert: local.expert.map(|expert| {
                let first = self.experts_per_rank().saturating_mul(place.rank.ep);
                first.saturating_add(expert)
            }),
        }
    }

    fn experts_per_rank(&self) -> u32 {
        self.model.experts_per_rank(&self.catalog.layout)
    }

    /// A tensor is in a layer of its kind, and of an expert that its rank has.
    fn check_place(&self, file: &RankFile, known: &Known<'_>, numbers: Numbers) -> Result<(), SourceError> {
        let wrong = |what: String| {
            let file = file.name_of(known.leaf.value).to_owned();
            Err(SourceError::Tensor { file, tensor: known.leaf.path.clone(), what })
        };
        if let (Some(layer), Some(_)) = (numbers.layer, self.model.size("experts")) {
            let kind = self.model.kind_of(layer);
            if known.entry.layers != LayerKind::Any && known.entry.layers != kind {
                let has = if kind == LayerKind::Expert { "experts" } else { "no experts" };
                let by = stated_by(self.model);
                return wrong(format!("is in layer {layer} of the model, which by {by} has {has}"));
            }
        }
        match known.numbers.expert {
            Some(expert) if self.model.global_layers() => {
                let each = self.experts_per_rank();
                let first = each.saturating_mul(file.rank.ep);
                if (first..first.saturating_add(each)).contains(&expert) {
                    return Ok(());
                }
                wrong(if self.catalog.layout.ep() > 1 {
                    format!("is of expert {expert}, but its rank has {each} from {first} on")
                } else {
                    format!("is of expert {expert}, but by {} there are {each}", stated_by(self.model))
                })
            }
            Some(expert) if expert >= self.experts_per_rank() => {
                let each = self.experts_per_rank();
                wrong(format!("is of expert {expert} on its rank, but by its args each rank has {each}"))
            }
            _ => Ok(()),
        }
    }

    /// Extra state that holds nothing is the same in every layout. Anything else belongs to the module as this rank has it.
    fn extra_state(&mut self, file: &RankFile, known: &Known<'_>, numbers: Numbers) {
        let Known { leaf, entry, .. } = known;
        let is_empty_tensor = leaf.value.tensor().is_some_and(|tensor| tensor.shape.elements() == Some(0));
        if is_empty_tensor {
            self.catalog.empty_states.insert(entry.name.clone());
        }
        if is_empty_tensor || matches!(leaf.value, Value::None) {
            self.catalog.spell(&entry.name, numbers.layer);
        } else {
            let state = ExtraState { rank: file.rank, value: leaf.value.clone() };
            let name: Arc<str> = numbers.fill(&entry.name).into();
            self.catalog.extra_states.entry(name).or_default().push(state);
        }
    }

    /// Notes the name under which the model saves its parameters. Two names for one parameter would give every rank both, and one of two
    /// values would be lost. `local` are the numbers on its rank.
    fn spelling(
        &mut self,
        stored: &Stored<'_>,
        entry: &Entry,
        (numbers, local): (Numbers, Numbers),
    ) -> Result<(), SourceError> {
        if entry.unused_like.is_some() {
            let held = entry.holds.iter().map(|holding| numbers.fill(&holding.param).into());
            self.catalog.unused.extend(held);
            return Ok(());
        }
        self.catalog.spell(&entry.name, numbers.layer);
        if entry.fixed_part.is_some() {
            // Its other parts are under other names.
            return Ok(());
        }
        let (each, first) = (self.experts_per_rank(), self.experts_per_rank().saturating_mul(stored.rank.ep));
        let experts = (0..each).map(|expert| {
            let of = |numbers, expert| Numbers { expert: Some(expert), ..numbers };
            (of(numbers, first.saturating_add(expert)), of(local, expert))
        });
        let held = if entry.stacked { experts.collect() } else { vec![(numbers, local)] };
        for (holding, (numbers, local)) in entry.holds.iter().flat_map(|h| held.iter().map(move |n| (h, n))) {
            let param: Arc<str> = numbers.fill(&holding.param).into();
            let known = self.names.entry(param.clone()).or_insert_with(|| entry.name.clone());
            if *known != entry.name {
                let other = local.fill(known);
                return Err(stored.error(format!("{param} is also saved as {other}; which one counts?")));
            }
        }
        Ok(())
    }

    /// Adds a chunk for every band of the tensor.
    pub(super) fn tensor(
        &mut self,
        stored: &Stored<'_>,
        entry: &Entry,
        numbers: Numbers,
    ) -> Result<(), SourceError> {
        if !entry.stacked {
            return self.single(stored, entry, numbers);
        }
        let experts = self.experts_per_rank();
        let first = experts.saturating_mul(stored.rank.ep);
        if stored.tensor.shape.0.first() != Some(&experts.into()) {
            let shape = &stored.tensor.shape;
            let each = if self.catalog.ranks.len() > 1 { "each rank has" } else { "there are" };
            return Err(stored.error(format!("its shape is {shape}, but {each} {experts} experts")));
        }
        for expert in 0..experts {
            let tensor = expert_of(stored.tensor, expert)
                .ok_or_else(|| stored.error("its strides are beyond reason".into()))?;
            let numbers = Numbers { expert: Some(first.saturating_add(expert)), ..numbers };
            let pieces = match stored.bytes {
                Bytes::Storage(_) => None,
                Bytes::Pieces(all) => Some(pieces_at(all, expert.into()).ok_or_else(|| {
                    stored.error("its strides are beyond reason".into())
                })?),
            };
            let bytes = pieces.as_deref().map_or(stored.bytes, Bytes::Pieces);
            self.single(&Stored { tensor: &tensor, bytes, ..*stored }, entry, numbers)?;
        }
        Ok(())
    }

    /// A tensor of one layer or of one expert.
    fn single(&mut self, stored: &Stored<'_>, entry: &Entry, numbers: Numbers) -> Result<(), SourceError> {
        let shape = &stored.tensor.shape;
        if shape.elements() == Some(0) {
            return Err(stored.error(format!(
                "it has no elements (its shape is {shape}), as ZeRO-3 saves what it did not gather; save the model with its weights gathered"
            )));
        }
        for holding in &entry.holds {
            if holding.dimensions.len() != shape.rank() {
                let dimensions = holding.dimensions.join(", ");
                return Err(
                    stored.error(format!("its shape is {shape}, but {} is [{dimensions}]", holding.param))
                );
            }
        }
        let arrange = |source| SourceError::Arrange {
            file: stored.file.to_owned(),
            tensor: stored.path.to_owned(),
            source,
        };
        let (ways, part) = entry.part(&self.catalog.layout, stored.rank);
        let local = shape.0.get(entry.axis).copied().unwrap_or(1);
        let rows = local.checked_mul(ways).ok_or_else(|| stored.error("its size is beyond reason".into()))?;
        let shares: Vec<u64> = entry.holds.iter().map(|holding| holding.share).collect();
        let parts = part_sizes(rows, &shares).map_err(arrange)?;
        let bands = entry.arrangement.bands(&parts, ways, part).map_err(arrange)?;
        for (index, holding) in entry.holds.iter().enumerate() {
            let name: Arc<str> = numbers.fill(&holding.param).into();
            let global = shape.with(entry.axis, parts.get(index).copied().unwrap_or(0));
            if global.bytes(stored.tensor.dtype).is_none_or(|bytes| bytes > LARGEST) {
                return Err(stored.error("its size is beyond reason".into()));
            }
            self.check_dimensions(stored, entry, &holding.dimensions, &global)?;
            let param = self.param(stored, name, global, entry.axis)?;
            for band in bands.iter().filter(|band| band.part == index) {
                for chunk in chunks(stored, band, entry.axis)? {
                    if entry.is_copy() { param.add_copy(chunk) } else { param.add(chunk) }
                }
            }
        }
        Ok(())
    }

    /// Adds a tensor of one number that is kept for a whole tensor: it is that of each parameter which this one holds, because views may have
    /// those apart.
    pub(super) fn scalar(
        &mut self,
        stored: &Stored<'_>,
        entry: &Entry,
        numbers: Numbers,
    ) -> Result<(), SourceError> {
        let each = if entry.stacked { self.experts_per_rank() } else { 1 };
        let first = each.saturating_mul(stored.rank.ep);
        for at in 0..each {
            let expert = if entry.stacked { Some(first.saturating_add(at)) } else { numbers.expert };
            let numbers = Numbers { expert, ..numbers };
            for holding in &entry.holds {
                let name = numbers.fill(&holding.param).into();
                let param = self.param(stored, name, stored.tensor.shape.clone(), 0)?;
                for chunk in chunks(stored, &Band::once(0, 0, 0, 1), 0)? {
                    if entry.is_copy() { param.add_copy(chunk) } else { param.add(chunk) }
                }
            }
        }
        Ok(())
    }

    /// A dimension has one size in the whole model. This is what finds a plain feed-forward layer called gated, and the reverse.
    fn check_dimensions(
        &mut self,
        stored: &Stored<'_>,
        entry: &Entry,
        names: &[String],
        global: &Shape,
    ) -> Result<(), SourceError> {
        for (name, size) in names.iter().zip(&global.0) {
            let (known, where_seen) = self
                .dimensions
                .entry(name.clone())
                .or_insert_with(|| (*size, format!("{} in {}", stored.path, stored.file)));
            if known != size {
                heads::check_rows(stored, entry, name, (*size, *known))?;
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
        let fresh = Param::new(name, dtype, shape.clone(), axis);
        let Some(params) = self.params() else { return Err(stored.error("nothing is known of it".into())) };
        let param = params.get_or_insert(fresh);
        if (param.dtype, &param.shape, param.axis) == (dtype, &shape, axis) {
            return Ok(param);
        }
        let (known_dtype, known_shape) = (param.dtype, param.shape.clone());
        Err(stored.error(format!(
            "files disagree: {} is {dtype} {shape} by this file, {known_dtype} {known_shape} by another",
            param.name
        )))
    }

    /// The set that tensors are added to.
    fn params(&mut self) -> Option<&mut Params> {
        let Some(index) = self.state else { return Some(&mut self.catalog.weights) };
        match &mut self.catalog.optimizer.as_mut()?.states.get_mut(index)?.of {
            StateOf::Elements(params) | StateOf::Scalar(params) => Some(params),
            StateOf::Same(_) => None,
        }
    }
}

/// What says how a model is made, for messages.
fn stated_by(model: &Model) -> &'static str {
    if model.is_of_config() { CONFIG } else { ARGS }
}

/// Dimensions whose size args state.
fn stated_dimensions(model: &Model) -> HashMap<String, (u64, String)> {
    let by = stated_by(model);
    let of_args = ["experts", "expert_ffn"].into_iter().filter_map(|name| Some((name, model.size(name)?)));
    let all = of_args.chain(model.stated_dimensions());
    all.map(|(name, size)| (name.to_owned(), (size, by.to_owned()))).collect()
}

/// No parameter has as many bytes; sizes below this can be multiplied by ranks and element sizes without harm.
const LARGEST: u64 = 1 << 50;
