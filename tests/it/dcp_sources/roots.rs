//! Where in a checkpoint the model is, under whatever prefix, and what belongs to it.

use std::ffi::OsStr;
use std::fs;

use super::{Model, int, optimizer, step};
use crate::common::dcp_source::{Draft, grid, rows};
use crate::common::hf::{Arch, read};
use crate::common::naive::{Config, Moe};

#[test]
fn the_model_is_found_under_any_prefix_and_cut() {
    for arch in [Arch::Llama, Arch::Qwen2, Arch::Qwen3, Arch::Mixtral, Arch::Qwen3Moe] {
        let moe = arch.has_experts().then_some(Moe { experts: 4, ffn: 6, every: 1, ..Moe::default() });
        let config = Config {
            qkv_bias: arch == Arch::Qwen2,
            qk_norm: matches!(arch, Arch::Qwen3 | Arch::Qwen3Moe),
            moe,
            ..Config::default()
        };
        let model = Model::of(arch, config);
        for (number, prefix) in
            ["model.", "", "module.", "state_dict.model.", "model.model."].into_iter().enumerate()
        {
            let path = model.path(&format!("{number}"));
            let draft = if number % 2 == 0 {
                model.draft(prefix, 3, |shape| rows(shape, 3))
            } else {
                model.draft(prefix, 4, |shape| grid(shape, 2, 2))
            };
            draft.write(&path);
            model.is_in(&path);
        }
    }
}

#[test]
fn wrappers_are_no_part_of_names() {
    let model = Model::llama();
    let mut draft = Draft::of(2);
    for (name, array) in &model.tensors {
        let key = name
            .replace("layers.0.", "layers.0._checkpoint_wrapped_module.")
            .replace("model.norm", "model._orig_mod.norm");
        draft.tensor(&format!("model._fsdp_wrapped_module.{key}"), array, |shape| rows(shape, 2));
    }
    draft.write(&model.path("src"));
    model.is_in(&model.path("src"));
}

// matrix: same: llama: dcp -> megatron vllm hf
#[test]
fn views_of_every_format_are_those_of_the_model() {
    let model = Model::llama();
    model.draft("model.", 4, |shape| grid(shape, 2, 2)).write(&model.path("src"));
    let template = model.path("template");
    for (format, flags) in [
        ("megatron", ["--tp", "2", "--pp", "2"]),
        ("vllm", ["--tp", "2", "--pp", "1"]),
        ("hf", ["--tp", "1", "--pp", "1"]),
    ] {
        let out = |name: &str| model.path(&format!("{format}-{name}"));
        for name in ["src", "hf"] {
            let (source, out) = (model.path(name), out(name));
            let mut words: Vec<&OsStr> = vec!["materialize".as_ref(), source.as_ref(), out.as_ref()];
            words.extend(["--as", format, "--quiet"].map(OsStr::new).iter().chain(&flags.map(OsStr::new)));
            // A model directory says itself what it is.
            if name == "src" || format != "megatron" {
                words.extend([OsStr::new("--template"), template.as_ref()]);
            }
            crate::common::run::program(&words).ok();
        }
        let mut compared = 0;
        for (path, _) in
            crate::common::run::snapshot(&out("src")).into_iter().filter(|(path, _)| path.is_file())
        {
            let other = out("hf").join(path.strip_prefix(out("src")).unwrap());
            assert!(fs::read(&path).unwrap() == fs::read(other).unwrap(), "{}", path.display());
            compared += 1;
        }
        assert!(compared > 1, "{format}");
    }
}

#[test]
fn of_several_models_one_must_be_chosen() {
    let model = Model::llama();
    let mut draft = model.draft("model.", 2, |shape| rows(shape, 2));
    for (name, array) in &model.tensors {
        let mut other = array.clone();
        other.bytes.iter_mut().for_each(|byte| *byte ^= 1);
        draft.tensor(&format!("ema.{name}"), &other, |shape| rows(shape, 2));
    }
    draft.write(&model.path("src"));
    let (src, template) = (model.path("src"), model.path("template"));
    let said = model.digest(&src).refused(3, &["under each of ema, model", "--root KEY"]);
    assert!(!said.err.contains("optim"));
    let digest = |root: &str| {
        ckpt!("digest", &src, "--json", "--template", &template, "--root", root).ok().json()["digest"].clone()
    };
    assert_eq!(digest("model"), model.digest(&model.path("hf")).json()["digest"]);
    assert_ne!(digest("ema."), digest("model"));
    ckpt!("digest", &src, "--template", &template, "--root", "nope").refused(4, &["no tensors below nope"]);
}

/// accelerate and the Trainer save model and optimizer in directories of their own; Lightning's module has a prefix in both.
#[test]
fn optimizers_are_found_wherever_they_are() {
    let model = Model::llama();
    let cut = |shape: &[u64]| rows(shape, 2);
    let mut together = model.draft("model.", 2, cut);
    optimizer(&mut together, "optim", "", &model.tensors, cut);
    together.objects.push(("train.step".into(), int(7)));
    together.write(&model.path("together"));
    let trainer = model.path("checkpoint-20");
    model.draft("model.", 2, cut).write(&trainer.join("pytorch_model_fsdp_0"));
    let mut alone = Draft::of(3);
    optimizer(&mut alone, "optimizer", "", &model.tensors, |shape| rows(shape, 3));
    alone.write(&trainer.join("optimizer_0"));
    fs::write(trainer.join("trainer_state.json"), "{}").unwrap();
    let mut lightning = model.draft("model.net.", 2, cut);
    optimizer(&mut lightning, "optimizer_0", "net.", &model.tensors, cut);
    lightning.write(&model.path("lightning"));
    let digest = |name: &str| {
        let said = model.digest(&model.path(name)).ok().json();
        (said["digest"].clone(), said["optimizer_digest"].clone())
    };
    let (weights, state) = digest("together");
    assert!(state.is_string());
    assert_eq!(weights, model.digest(&model.path("hf")).json()["digest"]);
    for name in ["checkpoint-20", "lightning"] {
        assert_eq!(digest(name), (weights.clone(), state.clone()), "{name}");
    }
    let said = ckpt!("inspect", &trainer, "--json", "--template", model.path("template")).ok().json();
    assert_eq!(said["iteration"], "20");
    let without =
        ckpt!("digest", &trainer, "--json", "--optimizer", "none", "--template", model.path("template"));
    assert!(without.ok().json()["optimizer_digest"].is_null());
    // Only what `--optimizer none` does not want may be missing.
    fs::remove_file(trainer.join("optimizer_0/__1_0.distcp")).unwrap();
    model.digest(&trainer).refused(3, &["__1_0.distcp", "--optimizer none"]);
    ckpt!("digest", &trainer, "--optimizer", "none", "--template", model.path("template")).ok();
}

/// State that is not one number for each element belongs to optimizers that nobody here knows.
#[test]
fn state_of_another_shape_is_left_out_and_said() {
    let model = Model::llama();
    let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
    let (name, _) = &model.tensors[0];
    let (_, of_rows) = model.tensors.iter().find(|(name, _)| name == "model.norm.weight").unwrap();
    draft.tensor(&format!("optim.state.{name}.exp_avg_sq_row"), &super::state_of(of_rows, 1), |shape| {
        rows(shape, 1)
    });
    draft.tensor(&format!("optim.state.{name}.step"), &step(1.0), |shape| rows(shape, 1));
    draft.write(&model.path("src"));
    let said =
        ckpt!("inspect", model.path("src"), "--json", "--template", model.path("template")).ok().json();
    let said = said["left_out"].to_string();
    assert!(
        said.contains("exp_avg_sq_row (optimizer state that is not one number for each element)"),
        "{said}"
    );
}

#[test]
fn a_tied_copy_must_be_one() {
    let model = Model::of(Arch::Llama, Config { tied: true, ..Config::default() });
    let embedding = &model.tensors[0].1;
    for (name, differs) in [("same", false), ("other", true)] {
        let mut head = embedding.clone();
        *head.bytes.last_mut().unwrap() ^= u8::from(differs);
        let mut draft = model.draft("model.", 3, |shape| rows(shape, 3));
        draft.tensor("model.lm_head.weight", &head, |shape| rows(shape, 3));
        draft.write(&model.path(name));
    }
    model.is_in(&model.path("same"));
    model
        .digest(&model.path("other"))
        .refused(3, &["lm_head.weight", "should be a copy", "--tied-head ignore"]);
    ckpt!("digest", model.path("other"), "--template", model.path("template"), "--tied-head", "ignore").ok();
}

/// A model of which nothing is known still has its tensors.
#[test]
fn without_a_config_tensors_go_by_their_names() {
    let model = Model::llama();
    let mut draft = model.draft("model.", 3, |shape| rows(shape, 3));
    draft.objects.push(("train.step".into(), int(7)));
    draft.write(&model.path("src"));
    let out = model.path("out");
    let said = ckpt!("materialize", model.path("src"), &out, "--as", "hf", "--quiet").ok();
    assert!(said.err.contains("config.json (there is none") && said.err.contains("train"), "{}", said.err);
    assert!(!out.join("config.json").exists());
    let found = read(&fs::read(out.join("model.safetensors")).unwrap());
    assert!(found == crate::common::hf::sorted(model.tensors.clone()));
    ckpt!("ls", model.path("src"), "--as", "megatron")
        .refused(4, &["nothing says what its tensors are", "--template"]);
    // So has one of an architecture that no family describes, with its config.
    fs::write(model.path("template/config.json"), r#"{"model_type": "unheard-of", "hidden_size": 3}"#)
        .unwrap();
    let out = model.path("with");
    ckpt!(
        "materialize",
        model.path("src"),
        &out,
        "--as",
        "hf",
        "--template",
        model.path("template"),
        "--quiet"
    )
    .ok();
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    assert!(config.contains("unheard-of"), "{config}");
    assert!(read(&fs::read(out.join("model.safetensors")).unwrap()) == found);
}

/// Of several optimizers nobody says which is the model's: one that overwrote another would be neither.
#[test]
fn of_several_optimizers_none_is_taken() {
    let model = Model::llama();
    let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
    for root in ["one", "two"] {
        optimizer(&mut draft, root, "", &model.tensors, |shape| rows(shape, 1));
    }
    draft.write(&model.path("src"));
    model.digest(&model.path("src")).refused(3, &["under one and under two", "--optimizer none"]);
    let template = model.path("template");
    ckpt!("digest", model.path("src"), "--optimizer", "none", "--template", template).ok();
    let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
    optimizer(&mut draft, "optim", "", &model.tensors, |shape| rows(shape, 1));
    let (name, _) = &model.tensors[0];
    draft.tensor(&format!("optim.state._orig_mod.{name}.step"), &step(9.0), |shape| rows(shape, 1));
    draft.write(&model.path("twice"));
    model.digest(&model.path("twice")).refused(3, &[&format!("two of its keys are the step of {name}")]);
}

/// State beside `model` and `ema` is of the one that is trained.
#[test]
fn averaged_weights_have_no_state() {
    let model = Model::llama();
    let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
    for (name, array) in &model.tensors {
        draft.tensor(&format!("ema.{name}"), array, |shape| rows(shape, 1));
    }
    optimizer(&mut draft, "optim", "", &model.tensors, |shape| rows(shape, 1));
    draft.write(&model.path("src"));
    let said = |root: &str| {
        ckpt!("inspect", model.path("src"), "--json", "--template", model.path("template"), "--root", root)
            .ok()
            .json()
    };
    assert!(said("model")["optimizer"].is_object());
    let ema = said("ema");
    assert!(ema["optimizer"].is_null());
    assert!(ema["left_out"].to_string().contains("it need not be that of the one chosen"), "{ema}");
}

#[test]
fn a_model_beside_a_checkpoint_may_be_another_one() {
    let model = Model::llama();
    model.draft("model.", 1, |shape| rows(shape, 1)).write(&model.path("hf"));
    model.digest(&model.path("hf")).refused(3, &["safetensors", ".metadata", "need not be the same model"]);
}

/// A head that is the embedding has its state there; another one beside it is said.
#[test]
fn state_of_a_tied_copy_is_said() {
    let model = Model::of(Arch::Llama, Config { tied: true, ..Config::default() });
    let embedding = model.tensors[0].1.clone();
    let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
    draft.tensor("model.lm_head.weight", &embedding, |shape| rows(shape, 1));
    let head = ("lm_head.weight".to_owned(), embedding);
    let all: Vec<_> = model.tensors.iter().cloned().chain([head]).collect();
    optimizer(&mut draft, "optim", "", &all, |shape| rows(shape, 1));
    draft.write(&model.path("src"));
    let said =
        ckpt!("inspect", model.path("src"), "--json", "--template", model.path("template")).ok().json();
    assert!(
        said["left_out"].to_string().contains("exp_avg of lm_head.weight (the state of a copy)"),
        "{said}"
    );
}
