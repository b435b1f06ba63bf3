//! Opens a source the way the flags say.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::args::{LayoutArgs, OptimizerArg, RngArg, SourceArgs, VocabFill};
use super::error::CliError;
use crate::family::Family;
use crate::layout::{Layout, LayoutSpec};
use crate::reader::Reader;
use crate::source::{Options, Source, open};
use crate::store::{FileStore, Store};
use crate::sys::limits;
use crate::view::{Choices, OptimizerChoice, Stock, VocabularyFill};
use crate::weights::Weights;

/// An opened source and what views are made of it with.
pub(super) struct Opened {
    pub(super) source: Source,
    pub(super) stock: Arc<Stock>,
    pub(super) reader: Reader,
}

impl Opened {
    pub(super) fn weights(&self) -> Weights {
        let vocabulary = self.stock.vocabulary().copied();
        Weights::new(self.source.catalog.clone(), &self.source.model, vocabulary, self.reader.clone())
    }

    /// The newest time of its files.
    pub(super) fn modified(&self) -> SystemTime {
        let times = self
            .source
            .catalog
            .ranks
            .iter()
            .flat_map(|file| std::iter::once(file.object).chain(file.buffers.iter().map(|file| file.object)))
            .filter_map(|object| self.reader.store().modified(object).ok());
        times.max().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Experts follow `--tp` as in Megatron, which not everybody who says `--tp` thinks of.
    pub(super) fn say_how_experts_are_cut(&self, asked: &LayoutSpec, layout: &Layout) {
        let (before, now) = (self.source.catalog.layout.etp(), layout.etp());
        if layout.experts.is_some() && asked.etp.is_none() && before != now {
            eprintln!(
                "ckpt-fs: note: experts are cut {now} ways here, as many as the rest, and {before} in the source (--etp {before} keeps that)"
            );
        }
    }

    /// What views of this source leave out or cannot have exactly, said once on standard error.
    /// `layout` is `None` for a mount of many.
    pub(super) fn say_what_is_left_out(&self, layout: Option<&Layout>) {
        let source = &self.source.catalog.layout;
        let left_out = crate::inspect::left_out(&self.source, &self.stock, layout.unwrap_or(source));
        let same_layout = layout == Some(source);
        if !left_out.is_empty() {
            eprintln!("ckpt-fs: note: left out: {}", left_out.join(", "));
        }
        if !same_layout && self.stock.with_rng && crate::inspect::has_rng_state(&self.source) {
            eprintln!(
                "ckpt-fs: note: rng_state belongs to one rank of one layout; each rank has that of the nearest source rank (--rng omit leaves it out, for --no-load-rng)"
            );
        }
        if !self.source.missing.is_empty() {
            let missing = crate::source::some_of(&self.source.missing);
            eprintln!(
                "ckpt-fs: note: rank files are missing, but the others cover every parameter: {missing}"
            );
        }
    }
}

/// Opens `path`.
pub(super) fn source(
    path: &Path,
    args: &SourceArgs,
    layout: Option<&LayoutArgs>,
) -> Result<Opened, CliError> {
    // Thousands of rank files stay open at a time.
    limits::raise_open_files();
    let store = Arc::new(FileStore::new());
    let without_optimizer = args.optimizer == OptimizerArg::None;
    let options = Options { iteration: args.iteration, families: families(args)?, without_optimizer };
    let source = open(path, &options, &store)?;
    let choices = Choices {
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
    };
    let stock = Stock::new(source.catalog.clone(), source.model.clone(), &choices)?;
    let store: Arc<dyn Store> = store;
    Ok(Opened { source, stock: Arc::new(stock), reader: Reader::new(store) })
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
