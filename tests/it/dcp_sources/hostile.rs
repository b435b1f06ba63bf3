//! Checkpoints that are damaged, incomplete or made to do harm: each is named for what it is, and nothing panics.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use ckpt_fs::source::{Options, TemplateConfig, open};
use ckpt_fs::store::FileStore;
use proptest::prelude::*;

use super::{Model, optimizer, step};
use crate::common::dcp_source::{Draft, rows};

const SOURCE: i32 = 3;
const UNSUPPORTED: i32 = 4;

/// The writer ends a file with up to so many zeros, which are no part of a piece.
const PADDING: usize = 64;

fn written(model: &Model) -> std::path::PathBuf {
    let path = model.path("src");
    model.draft("model.", 3, |shape| rows(shape, 3)).write(&path);
    path
}

#[test]
fn files_that_are_missing_or_short_are_named() {
    let model = Model::llama();
    let src = written(&model);
    let file = src.join("__1_0.distcp");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - PADDING]).unwrap();
    model.digest(&src).refused(SOURCE, &["__1_0.distcp", "by the metadata it holds", "cut short"]);
    fs::remove_file(&file).unwrap();
    model.digest(&src).refused(SOURCE, &["names 3 data files, of which 1 are not there: __1_0.distcp"]);
    fs::remove_file(src.join(".metadata")).unwrap();
    model.digest(&src).refused(SOURCE, &["no .metadata", "`cp dir/*` leaves it out"]);
    fs::write(src.join(".metadata.tmp"), "x").unwrap();
    model.digest(&src).refused(SOURCE, &["an interrupted save", ".metadata.tmp"]);
    fs::write(src.join(".metadata"), "x").unwrap();
    model.digest(&src).refused(SOURCE, &[".metadata"]);
}

#[test]
fn pieces_that_do_not_cover_or_say_otherwise_are_named() {
    let model = Model::llama();
    // The writer refuses what is not covered: so two checkpoints are put together.
    let src = written(&model);
    let mut other = model.draft("model.", 3, |shape| rows(shape, 3));
    let (_, array, _) = &mut other.tensors[0];
    array.dtype = ckpt_fs::tensor::Dtype::Bfloat16;
    array.bytes.truncate(array.bytes.len() / 2);
    let wrong = model.path("wrong");
    other.write(&wrong);
    fs::copy(src.join(".metadata"), wrong.join(".metadata")).unwrap();
    // Its pieces are elsewhere and others than the metadata says.
    let said = model.digest(&wrong);
    assert!(said.code == SOURCE || said.code == UNSUPPORTED, "{}", said.err);
    assert!(said.err.contains(".distcp"), "{}", said.err);
}

#[test]
fn what_is_no_archive_is_refused_with_the_reason() {
    let model = Model::llama();
    let src = written(&model);
    let len = fs::metadata(src.join("__0_0.distcp")).unwrap().len();
    fs::write(src.join("__0_0.distcp"), vec![7; len as usize]).unwrap();
    model.digest(&src).refused(SOURCE, &["__0_0.distcp", "model.", "torch.save"]);
}

#[test]
fn a_model_that_the_template_is_not_of_is_refused() {
    let model = Model::llama();
    let mut draft = Draft::of(1);
    for (name, array) in &model.tensors {
        draft.tensor(
            &format!("model.{}", name.replace("self_attn", "attn").replace("model.", "m.")),
            array,
            |shape| rows(shape, 1),
        );
    }
    draft.tensors.retain(|(key, ..)| !key.contains("lm_head"));
    draft.write(&model.path("src"));
    model.digest(&model.path("src")).refused(UNSUPPORTED, &["called as in a model of Llama"]);
    // One tensor too few, one too many.
    let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
    let lost = draft.tensors.pop().unwrap();
    draft.write(&model.path("few"));
    model.digest(&model.path("few")).refused(SOURCE, &[lost.0.strip_prefix("model.").unwrap()]);
    draft.tensors.push(lost);
    draft.tensor("model.extra.weight", &step(1.0), |shape| rows(shape, 1));
    draft.write(&model.path("many"));
    model.digest(&model.path("many")).refused(UNSUPPORTED, &["extra.weight", "unknown to the family llama"]);
}

fn opens(path: &Path, config: &serde_json::Map<String, serde_json::Value>) -> Result<(), String> {
    let template = Some(TemplateConfig { directory: path.into(), config: config.clone() });
    let options = Options { template, ..Options::default() };
    open(path, &options, &FileStore::new()).map(|_| ()).map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// A byte that is another one anywhere: it opens, or an error says why not.
    #[test]
    fn no_byte_makes_it_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..), 1..4),
    ) {
        let model = Model::llama();
        let mut draft = model.draft("model.", 2, |shape| rows(shape, 2));
        optimizer(&mut draft, "optim", "", &model.tensors, |shape| rows(shape, 2));
        let src = model.path("src");
        draft.write(&src);
        for (file, at, with) in flips {
            let names = [".metadata", ".metadata", "__0_0.distcp", "__1_0.distcp"];
            let path = src.join(names[file.index(names.len())]);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            fs::write(&path, bytes).unwrap();
        }
        let config = crate::common::hf::config(model.arch, &model.config);
        let outcome = catch_unwind(|| opens(&src, &config));
        prop_assert!(outcome.is_ok(), "it panicked");
        if let Ok(Err(error)) = outcome {
            prop_assert!(!error.contains("bug in ckpt-fs"), "{}", error);
        }
    }

    /// Files cut anywhere.
    #[test]
    fn no_end_makes_it_panic(file in 0usize..3, at in any::<prop::sample::Index>()) {
        let model = Model::llama();
        let src = model.path("src");
        model.draft("model.", 2, |shape| rows(shape, 2)).write(&src);
        let path = src.join([".metadata", "__0_0.distcp", "__1_0.distcp"][file]);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..at.index(bytes.len() - PADDING)]).unwrap();
        let config = crate::common::hf::config(model.arch, &model.config);
        let outcome = catch_unwind(|| opens(&src, &config));
        prop_assert!(matches!(outcome, Ok(Err(_))), "{:?}", outcome);
    }
}
