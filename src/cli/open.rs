//! Opens a source the way the flags say.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::args::{FormatArg, FormatArgs, LayoutArgs, OptimizerArg, RngArg, SourceArgs, SpecArg, VocabFill};
use super::error::{CliError, harmless};
use crate::family::{self, Family};
use crate::inspect::{has_rng_state, left_out};
use crate::layout::{Layout, LayoutSpec};
use crate::reader::Reader;
use crate::source::{Found, Options, Source, Template, open, some_of, template};
use crate::store::{FileStore, Store};
use crate::sys::{limits, memory};
use crate::view::megatron::training_run;
use crate::view::{Choices, Conversions, Format, Given, ModelFiles, OptimizerChoice, VocabularyFill, Wishes};
use crate::weights::Weights;

/// An opened source and what views are made of it with.
pub(super) struct Opened {
    pub(super) source: Source,
    pub(super) conversions: Arc<Conversions>,
    /// The format asked for, or the source's own.
    pub(super) format: Format,
    pub(super) reader: Reader,
}

impl Opened {
    pub(super) fn weights(&self) -> Weights {
        let vocabulary = self.conversions.own().vocabulary().copied();
        Weights::new(self.source.catalog.clone(), &self.source.model, vocabulary, self.reader.clone())
    }

    /// The newest time of its files.
    pub(super) fn modified(&self) -> SystemTime {
        let catalog = &self.source.catalog;
        let ranks = catalog.ranks.iter();
        let objects = ranks.flat_map(|file| {
            let buffers = file.buffers.iter().map(|file| file.object);
            std::iter::once(file.object).chain(buffers).chain(file.files.keys().copied())
        });
        let times = objects.filter_map(|object| self.reader.store().modified(object).ok());
        times.max().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The layout that `spec` means in the format asked for.
    pub(super) fn layout(&self, spec: &LayoutSpec) -> Result<Layout, CliError> {
        Ok(self.conversions.layout(self.format, spec)?)
    }

    /// Experts follow `--tp` as in Megatron, which not everybody who says `--tp` thinks of.
    pub(super) fn say_how_experts_are_cut(&self, asked: &LayoutSpec, layout: &Layout) {
        let (before, now) = (self.source.catalog.layout.etp(), layout.etp());
        // Where the source is no rank's, there is no way in which it cuts them.
        let of_ranks = self.source.format != Found::HuggingFace;
        let can_differ = of_ranks && matches!(self.format, Format::Megatron | Format::Safetensors);
        if can_differ && layout.experts.is_some() && asked.etp.is_none() && before != now {
            eprintln!(
                "ckpt-fs: note: experts are cut {now} ways here, as many as the rest, and {before} in the source (--etp {before} keeps that)"
            );
        }
    }

    /// What views of this source leave out or cannot have exactly, said once on standard error.
    /// `layout` is `None` for a mount of many.
    pub(super) fn say_what_is_left_out(&self, layout: Option<&Layout>) {
        let source = &self.source.catalog.layout;
        let stock = self.conversions.own();
        let left_out = left_out(&self.source, stock, self.format, layout.unwrap_or(source));
        let same_layout = layout == Some(source);
        if !left_out.is_empty() {
            note(&format!("left out: {}", left_out.join(", ")));
        }
        self.say_what_is_not_known();
        let shows_rng = self.format == Format::Megatron && stock.with_rng;
        if !same_layout && shows_rng && has_rng_state(&self.source) {
            eprintln!(
                "ckpt-fs: note: rng_state belongs to one rank of one layout; each rank has that of the nearest source rank (--rng omit leaves it out, for --no-load-rng)"
            );
        }
        if !self.source.missing.is_empty() {
            let missing = some_of(&self.source.missing);
            note(&format!("rank files are missing, but the others cover every parameter: {missing}"));
        }
    }

    /// Keys of the config that the architecture's own code does not know either.
    fn say_what_is_not_known(&self) {
        let Ok(Some((file, keys))) = self.conversions.unknown_keys() else { return };
        let what = match self.format {
            Format::Hf | Format::Vllm | Format::Sglang => "they are passed on as they are",
            Format::Megatron | Format::Safetensors => "they do not go along",
        };
        note(&format!("{file} has keys that are not known: {}; {what}", some_of(&keys)));
    }

    /// What a training run must be told that it does not take from a checkpoint made of another format.
    pub(super) fn say_what_to_run_with(&self, layout: &Layout) -> Result<(), CliError> {
        let of_megatron = self.source.model.family().format() == family::Format::Megatron;
        if self.format != Format::Megatron {
            // What is doubtful of a run's args is doubtful of a config that is made of them.
            let args =
                self.conversions.own().args().filter(|_| of_megatron && self.format != Format::Safetensors);
            let run = args.map(|args| self.source.model.family().run_flags(args)).unwrap_or_default();
            run.cautions.iter().for_each(|caution| note(caution));
            return Ok(());
        }
        if of_megatron {
            return Ok(());
        }
        let stock = self.conversions.stock(self.format)?;
        let run = training_run(&stock, layout);
        eprintln!("ckpt-fs: to train from it:\n  {}", harmless(&run.flags.join(" \\\n  ")));
        run.cautions.iter().for_each(|caution| note(caution));
        Ok(())
    }
}

/// Opens `path`, to be looked at in itself.
pub(super) fn source(path: &Path, args: &SourceArgs) -> Result<Opened, CliError> {
    opened(path, args, None, None)
}

/// Opens `path`, to make views of it.
pub(super) fn views(
    path: &Path,
    args: &SourceArgs,
    layout: &LayoutArgs,
    format: &FormatArgs,
) -> Result<Opened, CliError> {
    opened(path, args, Some(layout), Some(format))
}

fn opened(
    path: &Path,
    args: &SourceArgs,
    layout: Option<&LayoutArgs>,
    format: Option<&FormatArgs>,
) -> Result<Opened, CliError> {
    // Thousands of rank files stay open at a time.
    limits::raise_open_files();
    let store = Arc::new(FileStore::new());
    let families = families(args)?;
    let options = Options {
        iteration: args.iteration,
        families: families.clone(),
        without_optimizer: args.optimizer == OptimizerArg::None,
        model_type: format.and_then(|format| format.hf_model_type.clone()),
        divisible_by: format.map(|format| format.make_vocab_size_divisible_by),
    };
    let mut source = open(path, &options, &store)?;
    // What comes next would otherwise be added to what reading the metadata took.
    memory::give_back();
    let template = format.and_then(|format| format.template.as_deref());
    let template = template.map(|template| template_files(template, &store)).transpose()?;
    if template.is_some() {
        // Its files are shown in the place of the source's.
        source.led_out.clear();
    }
    let own = match source.format {
        Found::Megatron => Format::Megatron,
        Found::HuggingFace => Format::Hf,
        Found::Ranks => Format::Safetensors,
    };
    let given = Given {
        catalog: source.catalog.clone(),
        model: source.model.clone(),
        format: own,
        inexpressible: source.inexpressible.clone(),
        files: ModelFiles {
            name: source.directory.display().to_string(),
            config: source.config.clone(),
            beside: source.beside.clone(),
        },
        template,
    };
    let conversions = Conversions::new(given, families, choices(args, layout), wishes(format))?;
    let store: Arc<dyn Store> = store;
    let format = format.and_then(|format| format.format).map_or(own, wanted);
    Ok(Opened { source, conversions: Arc::new(conversions), format, reader: Reader::new(store) })
}

/// Says it, whatever the names in it hold.
fn note(text: &str) {
    eprintln!("ckpt-fs: note: {}", harmless(text));
}

fn template_files(path: &Path, store: &FileStore) -> Result<ModelFiles, CliError> {
    let Template { config, beside, led_out } = template(path, store)?;
    if !led_out.is_empty() {
        note(&format!(
            "left out of --template: {} (links that lead out of its directory)",
            some_of(&led_out)
        ));
    }
    if config.is_none() && beside.is_empty() {
        let path = path.display();
        return Err(CliError::Usage(format!(
            "--template {path}: there is neither a config.json nor a tokenizer in it"
        )));
    }
    Ok(ModelFiles { name: path.display().to_string(), config, beside })
}

fn choices(args: &SourceArgs, layout: Option<&LayoutArgs>) -> Choices {
    Choices {
        vocab_size: args.vocab_size,
        fill: match layout.map(|layout| layout.vocab_fill) {
            Some(VocabFill::LastRow) => VocabularyFill::LastRow,
            Some(VocabFill::Zero) | None => VocabularyFill::Zero,
        },
        optimizer: match args.optimizer {
            OptimizerArg::Keep => OptimizerChoice::Keep,
            OptimizerArg::Mixed => OptimizerChoice::Mixed,
            OptimizerArg::Distributed => OptimizerChoice::Distributed,
            OptimizerArg::None => OptimizerChoice::Nothing,
        },
        with_rng: layout.is_none_or(|layout| layout.rng == RngArg::Keep),
    }
}

fn wishes(format: Option<&FormatArgs>) -> Wishes {
    let Some(format) = format else { return Wishes::default() };
    Wishes {
        dialect: match format.megatron_spec {
            SpecArg::Te => "te".to_owned(),
            SpecArg::Local => "local".to_owned(),
        },
        divisible_by: format.make_vocab_size_divisible_by,
        model_type: format.hf_model_type.clone(),
        engine_version: format.engine_version.clone(),
        shard_size: format.shard_size,
    }
}

fn wanted(format: FormatArg) -> Format {
    match format {
        FormatArg::Megatron => Format::Megatron,
        FormatArg::Safetensors => Format::Safetensors,
        FormatArg::Hf => Format::Hf,
        FormatArg::Vllm => Format::Vllm,
        FormatArg::Sglang => Format::Sglang,
    }
}

/// The user's families, then the built-in ones.
fn families(args: &SourceArgs) -> Result<Vec<Arc<Family>>, CliError> {
    let mut families = Vec::new();
    for path in &args.family {
        let text = fs::read_to_string(path).map_err(|error| {
            CliError::Usage(format!("cannot read the family file {}: {error}", path.display()))
        })?;
        let family = Family::parse(&text)
            .map_err(|source| CliError::Family { file: path.display().to_string(), source })?;
        families.push(Arc::new(family));
    }
    let embedded =
        Family::embedded().map_err(|source| CliError::Family { file: "built-in family".into(), source })?;
    families.extend(embedded.into_iter().map(Arc::new));
    Ok(families)
}

/// As many threads as there are processors, but not so many that slow storage is asked for everything at once.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    let processors = || std::thread::available_parallelism().map_or(2, usize::from);
    asked.unwrap_or_else(|| processors().min(8)).max(1)
}
