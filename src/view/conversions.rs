//! Everything that one source can be shown as: for each format the basis that its views are made of.
//!
//! A source is its own family's; a view in another format is made of the same parameters under the names of that format's family
//! (`rename`). What the model is passes through the args of Megatron, which every family reads.

mod config;
mod distributed;
mod engine;
mod layouts;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::rename::{Renaming, plainly_spelled};
pub use distributed::keeps_parameter_groups;

use super::dcp::{Choices, DcpLayout, DcpNames, DcpView};
use super::engine::EngineView;
use super::hf::HfView;
use super::megatron::{self, MegatronView};
use super::ranks::RanksView;
use super::torch_dist::{self, Sizes, TorchDistView};
use super::{ViewOptions, OptimizerChoice, Basis, View, ViewError};
use crate::catalog::{AuxFile, AuxKind, Catalog, RunState};
use crate::family::config::{Config, ConfigError};
use crate::family::{Families, Family, Model, Padding, Vocabulary};
use crate::layout::Format;
use crate::layout::{Layout, LayoutSpec};
use crate::value::Value;

/// A source, as views see it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What it holds.
    pub catalog: Arc<Catalog>,
    /// What its tensors are.
    pub model: Arc<Model>,
    /// The format it is in.
    pub format: Format,
    /// What its `config.json` says and args cannot.
    pub inexpressible: Vec<ConfigError>,
    /// The files of a model directory beside its weights.
    pub files: ModelFiles,
    /// Those of another directory, which take their place.
    pub template: Option<ModelFiles>,
}

/// What lies beside the weights in a Hugging Face model directory.
#[derive(Debug, Clone, Default)]
pub struct ModelFiles {
    /// The directory, for messages.
    pub name: String,
    /// Its `config.json`, where it has one.
    pub config: Option<Config>,
    /// All others.
    pub aux_files: Vec<AuxFile>,
}

/// What the user wants of formats other than the source's.
#[derive(Debug, Clone)]
pub struct ConversionOptions {
    /// Which of the spellings of names that the family of Megatron files has.
    pub dialect: String,
    /// What the rows of the vocabulary are a multiple of, before tensor parallelism.
    pub divisible_by: u64,
    /// `model_type` of the config, where it is not to be inferred.
    pub model_type: Option<String>,
    /// The version of the inference engine; the newest known where it is not said.
    pub engine_version: Option<String>,
    /// Bytes of data in each file of a Hugging Face model or a distributed checkpoint.
    pub shard_size: u64,
    /// Bytes below which a distributed checkpoint does not cut a tensor of a layer.
    pub piece_size: u64,
    /// In which directories a distributed checkpoint of torch is.
    pub dcp_layout: DcpLayout,
    /// What its tensors are called.
    pub dcp_names: DcpNames,
}

impl Default for ConversionOptions {
    fn default() -> Self {
        Self {
            dialect: "te".into(),
            divisible_by: 128,
            model_type: None,
            engine_version: None,
            shard_size: 5_000_000_000,
            piece_size: 1 << 20,
            dcp_layout: DcpLayout::default(),
            dcp_names: DcpNames::default(),
        }
    }
}

/// Everything that one source can be shown as.
#[derive(Debug)]
pub struct Conversions {
    origin: Origin,
    families: Families,
    view_options: ViewOptions,
    conversion: ConversionOptions,
    /// The source as its own family's.
    own: Arc<Basis>,
    made: Mutex<HashMap<Format, Arc<Basis>>>,
}

impl Conversions {
    /// Everything that `given` can be shown as with these families.
    ///
    /// # Errors
    /// [`ViewError`] where a choice cannot be.
    pub fn new(
        origin: Origin,
        families: Families,
        view_options: ViewOptions,
        conversion: ConversionOptions,
    ) -> Result<Self, ViewError> {
        let mut view_options = view_options;
        let basis = |view_options: &ViewOptions| megatron::basis(origin.catalog.clone(), origin.model.clone(), view_options);
        let mut own = basis(&view_options)?;
        let is_unknown = own.vocabulary().is_some_and(|own| own.true_size.is_none());
        if let Some(rows) = config::vocab_size(&origin).filter(|_| is_unknown) {
            view_options.vocab_size = Some(rows);
            own = basis(&view_options).map_err(|error| config::of_another(&origin, rows, error))?;
        }
        let own = Arc::new(own);
        Ok(Self { origin, families, view_options, conversion, own, made: Mutex::default() })
    }

    /// The source's own format.
    #[must_use]
    pub fn own_format(&self) -> Format {
        self.origin.format
    }

    /// The format of views where none is asked for: the source's own, or of a distributed checkpoint what one makes of it, rank files of
    /// Megatron's and a model directory of others.
    #[must_use]
    pub fn usual_format(&self) -> Format {
        match self.origin.format {
            Format::TorchDist => Format::Megatron,
            Format::Dcp => Format::Hf,
            own => own,
        }
    }

    /// The source as its own family's, in its own format.
    #[must_use]
    pub fn own(&self) -> &Arc<Basis> {
        &self.own
    }

    /// What views in this format are made of.
    ///
    /// # Errors
    /// [`ViewError`] saying why the source cannot be shown so.
    pub fn basis(&self, format: Format) -> Result<Arc<Basis>, ViewError> {
        if let Some(basis) = self.made.lock().get(&format) {
            return Ok(basis.clone());
        }
        let basis = self.make(format)?;
        self.made.lock().insert(format, basis.clone());
        Ok(basis)
    }

    fn make(&self, format: Format) -> Result<Arc<Basis>, ViewError> {
        if self.origin.model.family().is_undescribed() && !matches!(format, Format::Hf | Format::Dcp) {
            return Err(ViewError::Undescribed { format });
        }
        match format {
            Format::Safetensors if self.origin.format == Format::Megatron => self.weights_alone(),
            // Its files have args in the place of a config.
            Format::Safetensors if !self.origin.inexpressible.is_empty() => Err(self.inexpressible()),
            Format::Safetensors if self.origin.catalog.optimizer.is_some() => self.weights_alone(),
            Format::Safetensors => Ok(self.own.clone()),
            Format::Megatron if self.is_of(Format::Megatron) => Ok(self.own.clone()),
            Format::Megatron => self.megatron(),
            Format::Hf if matches!(self.origin.format, Format::Hf | Format::Dcp) => {
                self.own_whole(OptimizerChoice::Nothing)
            }
            Format::Hf => self.hf(),
            Format::Vllm | Format::Sglang => self.engine(format),
            Format::TorchDist => {
                let basis = self.basis(Format::Megatron)?;
                torch_dist::check_keys(&basis)?;
                Ok(basis)
            }
            Format::Dcp => self.distributed(),
        }
    }

    /// Whether the source's names are those of such files.
    fn is_of(&self, format: Format) -> bool {
        self.origin.model.family().format() == format
    }

    /// The source without its optimizer.
    fn weights_alone(&self) -> Result<Arc<Basis>, ViewError> {
        let view_options = ViewOptions { optimizer: OptimizerChoice::Nothing, ..self.view_options };
        Ok(Arc::new(Basis::new(self.origin.catalog.clone(), self.origin.model.clone(), &view_options)?))
    }

    /// The source's own names, with a vocabulary that is not padded. Of several spellings the one that every loader reads.
    fn own_whole(&self, optimizer: OptimizerChoice) -> Result<Arc<Basis>, ViewError> {
        let model = self.origin.model.clone();
        let catalog = plainly_spelled(&self.origin.catalog, &model);
        let vocabulary = self.vocabulary(Padding::Exact, None);
        let view_options = ViewOptions { optimizer, ..self.view_options };
        Ok(Arc::new(Basis::with_vocabulary(catalog, model, &view_options, vocabulary)?))
    }

    /// Rank files of Megatron, for a source that is none.
    fn megatron(&self) -> Result<Arc<Basis>, ViewError> {
        if !self.origin.inexpressible.is_empty() {
            return Err(self.inexpressible());
        }
        let source = self.origin.model.family();
        let wanted = source.megatron().unwrap_or_default();
        let family = self.families.named(wanted);
        let Some(family) = family.filter(|family| family.fresh_version().is_some()) else {
            return Err(ViewError::NoFamily { title: source.title.clone(), format: Format::Megatron });
        };
        let has_dialects = family.dialects().next().is_some();
        let dialect = Some(self.conversion.dialect.as_str()).filter(|_| has_dialects);
        if let Some(dialect) = dialect.filter(|dialect| !family.dialects().any(|known| known == *dialect)) {
            return Err(ViewError::Dialect {
                dialect: dialect.to_owned(),
                known: family.dialects().map(ToOwned::to_owned).collect(),
            });
        }
        let model = fields_of(self.own.args());
        let mut args = family.fresh_args(dialect, &model);
        args.extend(model);
        let divisible_by = i64::try_from(self.conversion.divisible_by).unwrap_or(i64::MAX);
        args.push(("make_vocab_size_divisible_by".into(), Value::Int(divisible_by)));
        let run = RunState {
            checkpoint_version: family.fresh_version(),
            iteration: Some(0),
            ..RunState::of_args(Value::namespace(last_of_each(args)))
        };
        let names = Names { dialect, ..Names::WEIGHTS };
        self.rename(family, run, names, |padding| (padding, Some(self.conversion.divisible_by)))
    }

    /// What the source's config says and args cannot.
    fn inexpressible(&self) -> ViewError {
        let first = self.origin.inexpressible.first().cloned();
        first.map_or(ViewError::NoRank, |source| ViewError::Inexpressible { source: Box::new(source) })
    }

    /// A Hugging Face model, for a source that is none.
    fn hf(&self) -> Result<Arc<Basis>, ViewError> {
        let family = self.hf_family()?;
        self.as_architecture(&family).map_err(|error| self.or_another(error, &family))
    }

    /// The basis as a model of this architecture.
    fn as_architecture(&self, family: &Arc<Family>) -> Result<Arc<Basis>, ViewError> {
        self.check_expressible(family)?;
        self.rename(family, RunState::of_args(self.args()?), Names::WEIGHTS, |_| (Padding::Exact, None))
    }

    /// The args of the source's first rank.
    fn args(&self) -> Result<Value, ViewError> {
        self.own.args().cloned().ok_or(ViewError::NoRank)
    }

    /// The basis of another family, with its own rule for the vocabulary.
    fn rename(
        &self,
        family: &Arc<Family>,
        run: RunState,
        names: Names<'_>,
        rule: impl FnOnce(Padding) -> (Padding, Option<u64>),
    ) -> Result<Arc<Basis>, ViewError> {
        let adoption = Renaming { catalog: &self.origin.catalog, family, run, dialect: names.dialect };
        let (mut catalog, model) = adoption.carry_out()?;
        if names.optimizer != OptimizerChoice::Nothing {
            catalog.optimizer = self.origin.catalog.optimizer.clone();
        }
        let (padding, multiple) = rule(family.padding());
        let vocabulary = self.vocabulary(padding, multiple.or_else(|| family.padded_to()));
        let view_options = ViewOptions { vocab_size: None, optimizer: names.optimizer, ..self.view_options };
        let basis = Basis::with_vocabulary(Arc::new(catalog), Arc::new(model), &view_options, vocabulary)?;
        Ok(Arc::new(basis))
    }

    /// The source's vocabulary under another rule of padding.
    fn vocabulary(&self, padding: Padding, multiple: Option<u64>) -> Option<Vocabulary> {
        self.own.vocabulary().map(|own| Vocabulary { padding, multiple, stored_tp: None, ..*own })
    }

    /// The layout that `spec` means in this format.
    ///
    /// # Errors
    /// [`ViewError`] with the reason and what is possible.
    pub fn layout(&self, format: Format, spec: &LayoutSpec) -> Result<Layout, ViewError> {
        let basis = self.basis(format)?;
        if format.is_single() {
            let whole = basis.catalog.layout.undivided();
            // Said before what does not divide: nothing would.
            return match spec.resolve(&whole)? {
                layout if layout == whole => Ok(whole),
                layout => Err(ViewError::NoSuchLayout { format, layout }),
            };
        }
        let layout = basis.layout(spec)?;
        let fits = match format {
            Format::Megatron | Format::Safetensors | Format::Hf | Format::TorchDist | Format::Dcp => true,
            Format::Vllm | Format::Sglang => {
                let version = self.conversion.engine_version.as_deref();
                let pipelined = layout.pp() == 1 || basis.model.family().has_pipelines(version);
                pipelined && layout.vpp == 1 && layout.ep() == 1 && layout.etp() == layout.tp
            }
        };
        if fits { Ok(layout) } else { Err(ViewError::NoSuchLayout { format, layout }) }
    }

    /// The view in this format and layout, which [`Conversions::layout`] has checked.
    ///
    /// # Errors
    /// [`ViewError`] saying why the source cannot be shown so.
    pub fn view(&self, format: Format, layout: &Layout) -> Result<Arc<dyn View>, ViewError> {
        let basis = self.basis(format)?;
        let layout = layout.clone();
        Ok(match format {
            Format::Megatron => Arc::new(MegatronView::new(basis, layout)),
            Format::Safetensors => Arc::new(RanksView::new(basis, layout)),
            Format::Hf => {
                let config = self.config()?;
                let aux_files: Vec<&AuxFile> = self.descriptions().chain(self.with_weights()).collect();
                Arc::new(HfView::new(basis, layout, config, &aux_files, self.conversion.shard_size)?)
            }
            Format::Vllm | Format::Sglang => {
                let aux_files: Vec<&AuxFile> = self.descriptions().collect();
                Arc::new(EngineView::new(basis, layout, format, self.config()?, &aux_files))
            }
            Format::TorchDist => {
                let sizes = Sizes { file: self.conversion.shard_size, piece: self.conversion.piece_size };
                Arc::new(TorchDistView::new(basis, sizes)?)
            }
            Format::Dcp => {
                let aux_files: Vec<&AuxFile> = self.descriptions().collect();
                let choices = Choices {
                    config: self.config()?,
                    aux_files: &aux_files,
                    layout: self.conversion.dcp_layout,
                    names: self.conversion.dcp_names,
                    groups: self.groups_of(&basis),
                    sizes: (self.conversion.shard_size, self.conversion.piece_size),
                };
                Arc::new(DcpView::new(basis, choices)?)
            }
        })
    }

    /// Files that say how the model is used: the template's, where there is one.
    fn descriptions(&self) -> impl Iterator<Item = &AuxFile> {
        let files = self.origin.template.as_ref().unwrap_or(&self.origin.files);
        files.aux_files.iter().filter(|file| file.kind == AuxKind::Description)
    }

    /// Files that belong to the source's weights, whatever a template says: an adapter, weights that no index names.
    fn with_weights(&self) -> impl Iterator<Item = &AuxFile> {
        self.origin.files.aux_files.iter().filter(|file| file.kind != AuxKind::Description)
    }
}

/// How a basis has the names of another family.
struct Names<'a> {
    /// Which of its spellings.
    dialect: Option<&'a str>,
    /// Whether the optimizer goes along.
    optimizer: OptimizerChoice,
}

impl Names<'_> {
    /// Its plain spelling, and the weights alone.
    const WEIGHTS: Self = Self { dialect: None, optimizer: OptimizerChoice::Nothing };
}

/// The fields of args.
fn fields_of(args: Option<&Value>) -> Vec<(String, Value)> {
    let fields = args.and_then(Value::fields).unwrap_or_default();
    fields.iter().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.clone()))).collect()
}

/// Of fields that are said several times the last, in the order in which they are first said.
fn last_of_each(fields: Vec<(String, Value)>) -> Vec<(String, Value)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<(String, Value)> = Vec::new();
    for (name, value) in fields {
        match places.get(&name).and_then(|at| kept.get_mut(*at)) {
            Some(known) => known.1 = value,
            None => {
                places.insert(name.clone(), kept.len());
                kept.push((name, value));
            }
        }
    }
    kept
}
