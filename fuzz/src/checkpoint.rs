//! A run of one rank on disk, whose file is the input, and what is made of it.
//!
//! Sources are opened by path, so a target that opens one needs a directory; it is made once.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use ckpt_fs::plan::{FilePlan, Read};
use ckpt_fs::source::{Found, Options, Source, SourceError, open};
use ckpt_fs::store::{FileStore, Store};
use ckpt_fs::view::{Choices, Conversions, Format, Given, ModelFiles, ViewError, Wishes};
use tempfile::TempDir;

use crate::FAMILIES;

static RUN: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("iter_0000001/mp_rank_00")).expect("a rank");
    fs::write(dir.path().join("latest_checkpointed_iteration.txt"), "1").expect("a tracker");
    dir
});

/// Opens the run with a rank file that `write` fills.
pub fn opened(write: impl FnOnce(&File)) -> (Result<Source, SourceError>, FileStore) {
    let file = RUN.path().join("iter_0000001/mp_rank_00/model_optim_rng.pt");
    write(&File::create(file).expect("a file"));
    let options = Options { families: FAMILIES.clone(), ..Options::default() };
    let store = FileStore::new();
    let source = open(RUN.path(), &options, &store);
    (source, store)
}

/// Everything that the source can be shown as.
pub fn conversions(source: Source, root: &Path) -> Result<Conversions, ViewError> {
    let given = Given {
        catalog: source.catalog,
        model: source.model,
        format: match source.format {
            Found::Megatron => Format::Megatron,
            Found::HuggingFace => Format::Hf,
            Found::Ranks => Format::Safetensors,
        },
        inexpressible: source.inexpressible,
        files: ModelFiles { name: root.display().to_string(), config: source.config, beside: source.beside },
        template: None,
    };
    let wishes = Wishes { divisible_by: 128, ..Wishes::default() };
    Conversions::new(given, FAMILIES.iter().map(Arc::clone).collect(), Choices::default(), wishes)
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
