//! Opens a source the way the flags say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::args::{FormatArgs, Iterations, LayoutArgs, SourceArgs};
use super::error::{CliError, harmless};
use super::idle::{self, Unasked};
use crate::catalog::AuxFile;
use crate::family::{Families, Family};
use crate::inspect::{UNFETCHED, added_to_weights, has_rng_state, left_out};
use crate::layout::{Format, Layout, LayoutSpec};
use crate::reader::{CrcMode, Reader};
use crate::source::{Options, Source, Template, TemplateConfig, open, some_of, template};
use crate::store::{FileStore, Store};
use crate::sys::{limits, memory};
use crate::view::megatron::{distributed_run, training_run};
use crate::view::{ConversionOptions, Conversions, ModelFiles, OptimizerChoice, Origin, ViewOptions};
use crate::weights::Weights;

/// An opened source and what views are made of it with.
pub(super) struct Opened {
    pub(super) source: Source,
    pub(super) conversions: Arc<Conversions>,
    /// The format asked for, or the source's own.
    pub(super) format: Format,
    pub(super) reader: Reader,
    /// The formats of the views that are shown: that one, or every one.
    shown: Vec<Format>,
    /// Whether a tokenizer is beside the weights, in the source or in a template.
    has_tokenizer: bool,
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

    /// What checksum fields hold. Asking for it is refused where there are none.
    pub(super) fn crc(&self, asked: Option<CrcMode>, default: CrcMode) -> Result<CrcMode, CliError> {
        idle::refuse_sums(asked.is_some(), &self.shown)?;
        Ok(asked.unwrap_or(default))
    }

    /// The layout that `spec` means in the format asked for.
    pub(super) fn layout(&self, spec: &LayoutSpec) -> Result<Layout, CliError> {
        Ok(self.conversions.layout(self.format, spec)?)
    }

    /// Experts follow `--tp` as in Megatron, which not everybody who says `--tp` thinks of.
    pub(super) fn say_how_experts_are_cut(&self, asked: &LayoutSpec, layout: &Layout) {
        let (before, now) = (self.source.catalog.layout.etp(), layout.etp());
        // Where the source is no rank's, there is no way in which it cuts them.
        let of_ranks = !matches!(self.source.format, Format::Hf | Format::Dcp);
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
        let basis = self.conversions.own();
        // What of the optimizer goes along depends on the names that tensors get.
        let shown = if self.format == Format::Dcp { self.conversions.basis(self.format).ok() } else { None };
        let shown = shown.as_ref().map_or(basis, |shown| shown);
        let left_out = left_out(&self.source, shown, self.format, layout.unwrap_or(source));
        let rng = self.source.catalog.rng_states.as_ref();
        let same_ranks = |layout: &Layout| rng.is_none_or(|run| (run.tp, run.pp) == (layout.tp, layout.pp()));
        // A source in no layout has the states of the run's ranks.
        let same_layout =
            layout.is_some_and(|layout| (rng.is_some() || layout == source) && same_ranks(layout));
        if !left_out.is_empty() {
            note(&format!("left out: {}", left_out.join(", ")));
        }
        let added = added_to_weights(&self.source);
        if layout.is_none() && self.format == Format::Hf && !added.is_empty() {
            note(&format!("left out in formats other than hf: {}", added.join(", ")));
        }
        self.say_what_is_not_known();
        let shows_rng = self.format == Format::Megatron && basis.with_rng;
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

    /// What whoever loads such a view looks for and does not find.
    pub(super) fn say_what_is_missed(&self, is_quiet: bool) {
        // Megatron does so by itself; others have read since torch 2.6 that a file which is not of tensors alone is not loaded.
        if self.format == Format::Megatron && !is_quiet {
            note(
                "torch.load takes weights_only=False for these files, as for those of training (inspect --globals)",
            );
        }
        let is_model = matches!(self.format, Format::Hf | Format::Vllm | Format::Sglang);
        if is_model && !self.has_tokenizer {
            note(
                "no tokenizer is beside the weights: --template DIR shows that of a model directory, with its chat template and code",
            );
        }
    }

    /// What lies beside the weights and may be added to them, where only the weights are looked at.
    pub(super) fn say_what_is_not_looked_at(&self) {
        // Of the rest that was left out, copies were compared, and an optimizer is none of the weights.
        let is_ignored = |what: &&String| what.contains("(--tied-head ignore: ");
        let heads = self.source.catalog.left_out.iter().filter(is_ignored).cloned();
        let all: Vec<String> = heads.chain(added_to_weights(&self.source)).collect();
        if !all.is_empty() {
            note(&format!("not looked at: {}", all.join(", ")));
        }
    }

    /// Keys of the config that the architecture's own code does not know either, and code that is not its own.
    fn say_what_is_not_known(&self) {
        if let Some((file, all)) = self.conversions.foreign_code() {
            all.iter().for_each(|what| note(&format!("{file}: {what}")));
        }
        let (file, keys) = match self.conversions.unknown_keys() {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => return note(&error.to_string()),
        };
        let what = match self.format {
            Format::Hf | Format::Vllm | Format::Sglang => "they are passed on as they are",
            Format::Megatron | Format::Safetensors | Format::TorchDist | Format::Dcp => {
                "they do not go along"
            }
        };
        note(&format!("{file} has keys that are not known: {}; {what}", some_of(&keys)));
    }

    /// What a training run must be told that it does not take from a checkpoint made of another format.
    pub(super) fn say_what_to_run_with(&self, layout: &Layout) -> Result<(), CliError> {
        let of_megatron = self.source.model.family().format() == Format::Megatron;
        let is_run = matches!(self.format, Format::Megatron | Format::TorchDist);
        if !is_run {
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
        let basis = self.conversions.basis(self.format)?;
        let run = match self.format {
            Format::TorchDist => distributed_run(&basis),
            _ => training_run(&basis, layout),
        };
        eprintln!("ckpt-fs: to train from it:\n  {}", harmless(&run.flags.join(" \\\n  ")));
        run.cautions.iter().for_each(|caution| note(caution));
        Ok(())
    }
}

/// Opens `path`, to be looked at in itself. Whether every option does something is for `idle::refuse_for_sources`.
pub(super) fn source(path: &Path, args: &SourceArgs) -> Result<Opened, CliError> {
    opened(path, args, None, None, (Unasked::Own, true))
}

/// Opens `path`, to make views of it; an option that does nothing for those is refused.
pub(super) fn views(
    path: &Path,
    args: &SourceArgs,
    layout: &LayoutArgs,
    format: &FormatArgs,
    unasked: Unasked,
) -> Result<Opened, CliError> {
    let opened = opened(path, args, Some(layout), Some(format), (unasked, true))?;
    idle::refuse(format, layout, args, &opened.source, &opened.shown)?;
    idle::refuse_of_source(args, &[&opened.source])?;
    Ok(opened)
}

/// The same for another one of several with one template, of which everything was said, and of whose options everything was found good.
pub(super) fn another(
    path: &Path,
    args: &SourceArgs,
    layout: &LayoutArgs,
    format: &FormatArgs,
    unasked: Unasked,
) -> Result<Opened, CliError> {
    opened(path, args, Some(layout), Some(format), (unasked, false))
}

fn opened(
    path: &Path,
    args: &SourceArgs,
    layout: Option<&LayoutArgs>,
    format: Option<&FormatArgs>,
    (unasked, says): (Unasked, bool),
) -> Result<Opened, CliError> {
    // Thousands of rank files stay open at a time.
    limits::raise_open_files();
    let store = Arc::new(FileStore::new());
    let families = families(args)?;
    let template =
        args.template.as_deref().map(|template| template_files(template, &store, says)).transpose()?;
    let options = Options {
        iteration: args.iteration.map(Iterations::one).transpose()?,
        families: families.clone(),
        without_optimizer: args.optimizer == OptimizerChoice::Nothing,
        model_type: format.and_then(|format| format.hf_model_type.clone()),
        divisible_by: format.and_then(|format| format.make_vocab_size_divisible_by),
        tied_head: args.tied_head,
        megatron_spec: format.and_then(|format| format.megatron_spec.clone()),
        template: template.as_ref().and_then(template_config),
        root: args.root.clone(),
    };
    let mut source = open(path, &options, &store)?;
    // What comes next would otherwise be added to what reading the metadata took.
    memory::give_back();
    if template.is_some() {
        // Its files are shown in the place of the source's.
        source.give_way_to_template();
    }
    let own = source.format;
    let of_template = template.iter().flat_map(|template| &template.aux_files);
    let has_tokenizer = source.aux_files.iter().chain(of_template).any(is_of_tokenizer);
    let origin = Origin {
        catalog: source.catalog.clone(),
        model: source.model.clone(),
        format: own,
        inexpressible: source.inexpressible.clone(),
        files: ModelFiles {
            name: source.directory.display().to_string(),
            config: source.config.clone(),
            aux_files: source.aux_files.clone(),
        },
        template,
    };
    let conversions = Conversions::new(origin, families, view_options(args, layout), conversion(format))?;
    let store: Arc<dyn Store> = store;
    let (asked, usual) = (format.and_then(|format| format.format), conversions.usual_format());
    let format = asked.unwrap_or(usual);
    let shown = idle::shown(asked, usual, unasked);
    if says {
        say_which_families_fit_nothing(args, &conversions, &shown)?;
    }
    Ok(Opened {
        source,
        shown,
        conversions: Arc::new(conversions),
        format,
        reader: Reader::new(store),
        has_tokenizer,
    })
}

/// Whether a file is, by its name, one that tokenizers are made of.
fn is_of_tokenizer(file: &AuxFile) -> bool {
    let known = ["tokenizer", "vocab.", "merges.", "tekken", "spiece", "sentencepiece"];
    known.iter().any(|start| file.name.starts_with(start))
        || file.name.ends_with(".model")
        || file.name.ends_with(".tiktoken")
}

/// Says it, whatever the names in it hold.
fn note(text: &str) {
    eprintln!("ckpt-fs: note: {}", harmless(text));
}

fn template_files(path: &Path, store: &FileStore, says: bool) -> Result<ModelFiles, CliError> {
    let note = |text: &str| {
        if says {
            note(text)
        }
    };
    let Template { config, aux_files, escaping_links, unfetched, left_out } = template(path, store)?;
    if !left_out.is_empty() {
        let names = some_of(&left_out);
        note(&format!(
            "left out of --template: {names} (an adapter or a directory: a template gives neither)"
        ));
    }
    if !escaping_links.is_empty() {
        note(&format!(
            "left out of --template: {} (links that lead out of its directory)",
            some_of(&escaping_links)
        ));
    }
    if !unfetched.is_empty() {
        note(&format!("left out of --template: {} ({UNFETCHED})", some_of(&unfetched)));
    }
    if config.is_none() && !aux_files.iter().any(is_of_tokenizer) {
        let path = path.display();
        return Err(CliError::Usage(format!(
            "--template {path}: there is neither a config.json nor a tokenizer in it"
        )));
    }
    Ok(ModelFiles { name: path.display().to_string(), config, aux_files })
}

/// Its config, for a source that has none.
fn template_config(template: &ModelFiles) -> Option<TemplateConfig> {
    let config = template.config.clone()?;
    Some(TemplateConfig { directory: PathBuf::from(&template.name), config })
}

fn view_options(args: &SourceArgs, layout: Option<&LayoutArgs>) -> ViewOptions {
    ViewOptions {
        vocab_size: args.vocab_size,
        fill: layout.and_then(|layout| layout.vocab_fill).unwrap_or_default(),
        optimizer: args.optimizer,
        rng: layout.and_then(|layout| layout.rng).unwrap_or_default(),
    }
}

fn conversion(format: Option<&FormatArgs>) -> ConversionOptions {
    let default = ConversionOptions::default();
    let Some(format) = format else { return default };
    ConversionOptions {
        dialect: format.megatron_spec.clone().unwrap_or(default.dialect),
        divisible_by: format.make_vocab_size_divisible_by.unwrap_or(default.divisible_by),
        model_type: format.hf_model_type.clone(),
        engine_version: format.engine_version.clone(),
        shard_size: format.shard_size.unwrap_or(default.shard_size),
        dcp_layout: format.dcp_layout.unwrap_or(default.dcp_layout),
        dcp_names: format.dcp_names.unwrap_or(default.dcp_names),
        ..default
    }
}

/// The user's families, in front of the built-in ones.
fn families(args: &SourceArgs) -> Result<Families, CliError> {
    Ok(Families::with(args.family.iter().map(|path| family(path)).collect::<Result<_, _>>()?))
}

fn family(path: &Path) -> Result<Family, CliError> {
    let failed = |error| CliError::Usage(format!("cannot read the family file {}: {error}", path.display()));
    // Looked at before it is opened: opening a pipe waits for somebody who writes.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Family::parse(&text).map_err(|source| CliError::Family { file: path.display().to_string(), source })
}

/// A family that the user describes is tried before the built-in ones. Where it fits nothing, the names that were meant are other ones.
fn say_which_families_fit_nothing(
    args: &SourceArgs,
    conversions: &Conversions,
    shown: &[Format],
) -> Result<(), CliError> {
    if args.family.is_empty() {
        return Ok(());
    }
    let shown = shown.iter().filter_map(|format| conversions.basis(*format).ok());
    let used: Vec<_> = shown.chain(std::iter::once(Arc::clone(conversions.own()))).collect();
    for path in &args.family {
        let Family { name, title, .. } = family(path)?;
        if !used.iter().any(|basis| basis.model.family().name == name) {
            let own = &conversions.own().model.family().title;
            note(&format!(
                "--family {} was not needed: the checkpoint is a {own}, and nothing that is shown is a {title}",
                path.display()
            ));
        }
    }
    Ok(())
}

/// As many threads as there are processors, but not so many that slow storage is asked for everything at once.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    let processors = || std::thread::available_parallelism().map_or(2, usize::from);
    asked.unwrap_or_else(|| processors().min(8)).max(1)
}
