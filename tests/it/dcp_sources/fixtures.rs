//! Directories that torch, FSDP and transformers wrote: the view as a model has the bytes of the model.

use std::fs;
use std::path::{Path, PathBuf};

use ckpt_fs::catalog::{Chunk, Param, StateOf};
use ckpt_fs::extent::ObjectId;
use ckpt_fs::family::Families;
use ckpt_fs::source::{Options, TemplateConfig, open};
use ckpt_fs::store::{FileStore, Store};

use crate::common::Array;
use crate::common::hf::read;

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dist-tiny/dcp").join(name)
}

fn tensors(path: &Path) -> Vec<(String, Array)> {
    read(&fs::read(path).unwrap())
}

/// As a Hugging Face model the source has the bytes of the one beside it.
#[track_caller]
fn is_its_model(source: &str, template: &str) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let template = fixture(template);
    ckpt!("materialize", fixture(source), &out, "--as", "hf", "--template", &template, "--quiet").ok();
    let mut expected = tensors(&template.join("model.safetensors"));
    let found = tensors(&out.join("model.safetensors"));
    // transformers leaves a tied head out, and so does the view.
    expected.retain(|(name, _)| found.iter().any(|(known, _)| known == name) || name != "lm_head.weight");
    assert!(found == expected, "{source}: other tensors");
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "llama");
}

// matrix: training: llama: dcp -> hf
#[test]
fn models_of_fsdp_are_the_models_that_were_trained() {
    is_its_model("llama_tied_bf16/fsdp2_n3", "llama_tied_bf16/hf");
    is_its_model("llama_untied/nocoll_n2", "llama_untied/hf");
}

// matrix: training: llama: dcp -> hf
#[test]
fn rows_of_torchtitan_are_those_of_the_model_in_another_order() {
    is_its_model("titan_mini/titan_head_n2", "titan_mini/hf");
}

#[test]
fn files_of_the_hugging_face_writer_are_models() {
    is_its_model("llama_untied/hfw_sharded", "llama_untied/hf");
    is_its_model("llama_untied/hfw_consol", "llama_untied/hf");
}

/// What is beside the model is said, and the optimizer is counted.
#[test]
fn what_else_is_there_is_said() {
    let hf = fixture("titan_mini/hf");
    let said = ckpt!("inspect", fixture("titan_mini/titan_head_n2"), "--json", "--template", hf).ok().json();
    assert_eq!((&said["format"], &said["family"]), (&"dcp".into(), &"torchtitan-llama".into()));
    let left_out = said["left_out"].as_array().unwrap();
    for root in ["dataloader (3 entries)", "lr_scheduler", "train_state (2 entries)"] {
        assert!(left_out.iter().any(|what| what == root), "{root}: {left_out:?}");
    }
    let optimizer = &said["optimizer"];
    assert_eq!((&optimizer["encoding"], &optimizer["step"]), (&"named".into(), &1.0.into()));
    assert_eq!(optimizer["states"], serde_json::json!(["master", "exp_avg", "exp_avg_sq"]));
}

// matrix: training: llama: dcp -> read+optimizer
/// Every state has, element by element, the numbers that the state dict had.
#[test]
fn the_state_of_the_optimizer_is_that_of_the_run() {
    let store = FileStore::new();
    let template = fixture("llama_tied_bf16/hf");
    let config = serde_json::from_slice(&fs::read(template.join("config.json")).unwrap()).unwrap();
    let options = Options {
        template: Some(TemplateConfig { directory: template, config }),
        families: Families::default(),
        ..Options::default()
    };
    let source = open(&fixture("llama_tied_bf16/fsdp2_n3"), &options, &store).unwrap();
    let full = tensors(&fixture("llama_tied_bf16/full.safetensors"));
    let optimizer = source.catalog.optimizer.as_ref().unwrap();
    assert_eq!(optimizer.step, Some(2.0));
    let mut compared = 0;
    for state in ["exp_avg", "exp_avg_sq"] {
        let StateOf::Elements(params) = &optimizer.state(state).unwrap().of else { panic!() };
        for param in params.all() {
            let key = format!("optim.state.{}.{state}", published(&param.name));
            let (_, expected) = full.iter().find(|(name, _)| *name == key).unwrap_or_else(|| panic!("{key}"));
            assert_eq!((param.dtype, &param.shape.0), (expected.dtype, &expected.shape), "{key}");
            assert!(bytes(param, &store) == expected.bytes, "{key}");
            compared += 1;
        }
    }
    assert_eq!(compared, full.iter().filter(|(name, _)| name.contains(".exp_avg")).count());
    let run = &source.catalog.ranks[0].run;
    let lr = run.optimizer.as_ref().unwrap().get("param_groups").unwrap().elements().unwrap()[0].get("lr");
    assert_eq!(lr.unwrap().as_number(), Some(0.01));
}

/// The name that transformers has for a parameter.
fn published(param: &str) -> String {
    let names = [
        ("embedding.weight", "model.embed_tokens.weight"),
        ("final_norm.weight", "model.norm.weight"),
        (".attention_norm.", ".input_layernorm."),
        (".mlp_norm.", ".post_attention_layernorm."),
        (".attention.q.", ".self_attn.q_proj."),
        (".attention.k.", ".self_attn.k_proj."),
        (".attention.v.", ".self_attn.v_proj."),
        (".attention.output.", ".self_attn.o_proj."),
        (".mlp.gate.", ".mlp.gate_proj."),
        (".mlp.up.", ".mlp.up_proj."),
        (".mlp.down.", ".mlp.down_proj."),
    ];
    let name = names.iter().fold(param.to_owned(), |name, (own, theirs)| name.replace(own, theirs));
    if name.starts_with("layers.") { format!("model.{name}") } else { name }
}

/// All elements, one by one.
fn bytes(param: &Param, store: &dyn Store) -> Vec<u8> {
    let mut all = Vec::new();
    for element in 0..param.shape.elements().unwrap() {
        let index = param.shape.index_of(element);
        let chunk = param.chunk_of(&index).unwrap();
        let mut element = vec![0; param.dtype.size() as usize];
        store.read_exact_at(object(chunk), place(param, chunk, &index), &mut element).unwrap();
        all.extend(element);
    }
    all
}

fn object(chunk: &Chunk) -> ObjectId {
    chunk.object
}

fn place(param: &Param, chunk: &Chunk, index: &[u64]) -> u64 {
    let along = chunk.byte_of(index[param.axis], param.axis, chunk.strides[param.axis]);
    let axes = index.iter().zip(chunk.region.ranges()).zip(&chunk.strides).enumerate();
    let others = axes.filter(|(axis, _)| *axis != param.axis);
    along + others.map(|(_, ((index, range), stride))| (index - range.start) * stride).sum::<u64>()
}

/// Without a config, a tensor of any type, order and size is what it is called, whichever version of torch saved it: what is beside the
/// directories is what torch 2.15 loads from them.
#[test]
fn tensors_of_any_kind_go_by_their_names() {
    for torch in ["torch22", "torch26", "torch29", "torch215"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let source = fixture(&format!("kinds/{torch}"));
        ckpt!("inspect", &source).refused(3, &["under each of '' (no prefix), obj", "--root KEY"]);
        let said = ckpt!("materialize", &source, &out, "--as", "hf", "--root", "", "--quiet").ok();
        assert!(said.err.contains("(no elements)"), "{}", said.err);
        let (found, loaded) = (
            fs::read(out.join("model.safetensors")).unwrap(),
            fs::read(fixture(&format!("kinds/{torch}.safetensors"))).unwrap(),
        );
        let found = safetensors::SafeTensors::deserialize(&found).unwrap();
        let loaded = safetensors::SafeTensors::deserialize(&loaded).unwrap();
        assert!(loaded.len() > 14 && found.len() == loaded.len(), "{torch}: {:?}", found.names());
        for (name, tensor) in loaded.tensors() {
            assert!(found.tensor(&name).unwrap() == tensor, "{torch}: {name}");
        }
    }
}
