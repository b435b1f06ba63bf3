//! A checkpoint on disk, whose files are the input, and what is made of it.
//!
//! Sources are opened by path, so a target that opens one needs a directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ckpt_fs::layout::{Format, LayoutSpec};
use ckpt_fs::plan::{FilePlan, Read};
use ckpt_fs::source::{Options, Source, SourceError, open};
use ckpt_fs::store::{FileStore, Store};
use ckpt_fs::view::{
    ConversionOptions, Conversions, ModelFiles, OptimizerChoice, Origin, ViewError, ViewOptions,
};
use tempfile::TempDir;

use crate::FAMILIES;

/// The directory of a checkpoint that is being written; it goes when this is dropped.
#[derive(Debug)]
pub struct Directory {
    root: TempDir,
    /// Where its files go.
    files: PathBuf,
}

impl Directory {
    /// An empty one.
    #[must_use]
    pub fn plain() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        Self { files: root.path().to_owned(), root }
    }

    /// That of a run with one iteration, whose rank files are the ones to write.
    #[must_use]
    pub fn run() -> Self {
        let Self { root, .. } = Self::plain();
        let files = root.path().join("iter_0000001");
        fs::create_dir(&files).expect("an iteration");
        fs::write(root.path().join("latest_checkpointed_iteration.txt"), "1").expect("a tracker");
        Self { root, files }
    }

    /// Adds a file that `write` fills; one that is there already is written over. Does nothing where the name is that of a directory.
    pub fn add(&self, name: &Path, write: impl FnOnce(&File)) {
        let path = self.files.join(name);
        let above = path.parent().expect("below the directory");
        if fs::create_dir_all(above).is_ok()
            && let Ok(file) = File::create(path)
        {
            write(&file);
        }
    }

    /// Opens it.
    pub fn open(&self) -> (Result<Source, SourceError>, FileStore) {
        let options = Options { families: FAMILIES.clone(), ..Options::default() };
        let store = FileStore::new();
        let source = open(self.root.path(), &options, &store);
        (source, store)
    }
}

/// Everything that the source can be shown as.
fn conversions(source: Source, optimizer: OptimizerChoice) -> Result<Conversions, ViewError> {
    let origin = Origin {
        catalog: source.catalog,
        model: source.model,
        format: source.format,
        inexpressible: source.inexpressible,
        files: ModelFiles {
            name: "checkpoint".to_owned(),
            config: source.config,
            aux_files: source.aux_files,
        },
        template: None,
    };
    let conversion = ConversionOptions { divisible_by: 128, ..ConversionOptions::default() };
    let view_options = ViewOptions { optimizer, ..ViewOptions::default() };
    Conversions::new(origin, FAMILIES.clone(), view_options, conversion)
}

/// Every file of views in two layouts and all formats is laid out, and its plan read.
pub fn check_views(source: Source, store: &FileStore, optimizer: OptimizerChoice) {
    let Ok(all) = conversions(source, optimizer) else { return };
    for format in Format::ALL {
        for name in ["tp1pp1", "tp2pp2"] {
            let spec = LayoutSpec::parse(name).expect("a name");
            let Ok(view) = all.layout(format, &spec).and_then(|layout| all.view(format, &layout)) else {
                continue;
            };
            for number in 0..view.files().len() {
                if let Ok(file) = view.plan(number) {
                    check_plan(&file.plan, store);
                }
            }
        }
    }
}

/// The beginning and the end of the plan read bytes that their objects have, and give as many as asked for.
pub fn check_plan(plan: &FilePlan, store: &dyn Store) {
    const SOME: u64 = 1 << 14;
    for range in [0..plan.len().min(SOME), plan.len().saturating_sub(SOME)..plan.len()] {
        let mut at = 0;
        let wanted = range.end - range.start;
        plan.resolve(range, |read| {
            let (to, len) = match read {
                Read::Copy { object, from, to, len } => {
                    let size = store.len(object).expect("an object of the source");
                    assert!(from.checked_add(len).is_some_and(|end| end <= size), "{from} + {len} of {size}");
                    (to, len)
                }
                Read::Literal { bytes, to } => (to, bytes.len() as u64),
                Read::Zero { to, len } => (to, len),
                Read::Crc32 { part, to, .. } => (to, part.end - part.start),
            };
            assert_eq!(to, at);
            at += len;
        });
        assert_eq!(at, wanted);
    }
}
