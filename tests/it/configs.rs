//! Keys of `config.json` that are not understood, spellings of one thing, and templates of something else: refused or carried and said,
//! never ignored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut};
use crate::common::run::Said;
use crate::common::source::Checkpoint;
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;

const USAGE: i32 = 2;
const UNSUPPORTED: i32 = 4;

/// A small model in a directory of its own, with these keys beside or in the place of those that it has; `null` takes one away.
struct Model {
    dir: TempDir,
}

fn small(arch: Arch) -> Config {
    Config { qk_norm: arch == Arch::Qwen3, qkv_bias: arch == Arch::Qwen2, ..Config::default() }
}

impl Model {
    fn of(arch: Arch, keys: Json) -> Self {
        let model = Self { dir: tempfile::tempdir().unwrap() };
        let config = small(arch);
        let mut said = hf::config(arch, &config);
        for (key, value) in keys.as_object().unwrap() {
            said.insert(key.clone(), value.clone());
            if value.is_null() {
                said.remove(key);
            }
        }
        hf::write(&model.path(), &said, &hf::tensors(arch, &config), 1);
        model
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    fn run(&self, more: &[&str]) -> Said {
        let out = self.dir.path().join("out");
        let _ = fs::remove_dir_all(&out);
        let paths = [Path::new("materialize"), &self.path(), &out].map(|path| path.as_os_str().to_owned());
        crate::common::run::program(&paths.into_iter().chain(more.iter().map(Into::into)).collect::<Vec<_>>())
    }

    /// The config of the view that was made last.
    fn shown(&self) -> Map<String, Json> {
        serde_json::from_str(&self.text()).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join("out/config.json")).unwrap()
    }

    /// Refused as what it calls itself, with the key that matters and without the flag that would make it something else; and refused with
    /// the flag.
    #[track_caller]
    fn is_not(&self, other: &str, words: &[&str]) {
        let said =
            ckpt!("inspect", self.path()).refused(UNSUPPORTED, &["model_type is", "--family FILE"]).err;
        assert!(!said.contains("--hf-model-type"), "{said}");
        assert!(words.iter().any(|word| said.contains(word)), "{said}");
        self.run(&["--as", "hf", "--hf-model-type", other]).refused(
            UNSUPPORTED,
            &[&[&format!("so it is not read as {other}"), "--family FILE"], words].concat(),
        );
    }
}

/// Configs as transformers writes them: what is of their own class changes what they compute.
#[test]
fn an_architecture_is_not_read_as_one_that_does_not_know_its_keys() {
    let granite = json!({
        "model_type": "granite", "architectures": ["GraniteForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attention_multiplier": 0.0078125, "embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22,
        "mlp_bias": false, "pretraining_tp": 1, "use_cache": true, "initializer_range": 0.02, "bos_token_id": 1,
    });
    Model::of(Arch::Llama, granite).is_not(
        "llama",
        &["attention_multiplier (0.0078125), embedding_multiplier (12.0), logits_scaling (8.0)"],
    );
    let smollm3 = json!({
        "model_type": "smollm3", "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0], "use_sliding_window": false,
        "layer_types": ["full_attention", "full_attention", "full_attention", "full_attention"], "sliding_window": null,
    });
    Model::of(Arch::Llama, smollm3)
        .is_not("llama", &["no_rope_layer_interval (4), no_rope_layers ([1,1,1,0])"]);
    let ernie = json!({ "model_type": "ernie4_5", "use_bias": false });
    Model::of(Arch::Llama, ernie).is_not("llama", &["use_bias (false)"]);
    // Not one key says it.
    for (name, words) in [
        ("ernie4_5", "pairs of neighbours"),
        ("helium", "pairs of neighbours"),
        ("granite", "multiplies scores"),
        ("smollm3", "layers without rotary embeddings"),
    ] {
        Model::of(Arch::Llama, json!({ "model_type": name })).is_not("llama", &[words]);
    }
    let partly = json!({ "model_type": "glm4", "partial_rotary_factor": 0.5 });
    Model::of(Arch::Llama, partly).is_not("llama", &["partial_rotary_factor is 0.5"]);
    let ministral = json!({ "model_type": "ministral", "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] });
    Model::of(Arch::Llama, ministral).is_not(
        "llama",
        &["sliding_window is 16", "layer_types is [\"sliding_attention\",\"full_attention\"]"],
    );
    let gelu = json!({ "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh" });
    Model::of(Arch::Llama, gelu).is_not("llama", &["hidden_act is \"gelu_pytorch_tanh\""]);
    // A window that is only switched off by a key that is not there may be none that is off.
    let window = json!({ "model_type": "windowed", "sliding_window": 16 });
    Model::of(Arch::Qwen2, window)
        .run(&["--as", "hf", "--hf-model-type", "qwen2"])
        .refused(UNSUPPORTED, &["so it is not read as qwen2: it does not say use_sliding_window"]);
}

/// Some architectures say within the block of rotary embeddings what their own code does.
#[test]
fn keys_within_rope_parameters_are_held_against_what_is_known_too() {
    let block = json!({ "rope_type": "default", "rope_theta": 20000.0, "llama_4_scaling_beta": 0.1 });
    for key in ["rope_parameters", "rope_scaling"] {
        let mut keys = json!({ "model_type": "ministral3", "rope_scaling": null });
        keys[key] = block.clone();
        let words = format!("{key}.llama_4_scaling_beta (0.1)");
        Model::of(Arch::Llama, keys.clone()).is_not("llama", &[&words]);
        // Its own class does not know it either.
        keys["model_type"] = json!("llama");
        let model = Model::of(Arch::Llama, keys);
        for format in ["hf", "megatron"] {
            let said = model.run(&["--as", format]).ok().err;
            assert!(said.contains(&format!("{key}.llama_4_scaling_beta")), "{said}");
            if format == "hf" {
                let blocks = ["rope_parameters", "rope_scaling"].map(|key| model.shown()[key].clone());
                assert!(blocks.iter().all(|block| block["llama_4_scaling_beta"] == json!(0.1)), "{blocks:?}");
            }
        }
    }
    let own = json!({ "model_type": "my_llama", "rope_parameters": { "rope_type": "axial", "rope_theta": 20000.0 } });
    Model::of(Arch::Llama, own).is_not("llama", &["rope_parameters.rope_type (\"axial\")"]);
}

/// What a config leaves out is what its own class takes, and who knows what that is.
#[test]
fn what_another_architecture_takes_by_default_is_not_known() {
    for key in ["rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings"] {
        let mut keys = json!({ "model_type": "my_llama" });
        keys[key] = Json::Null;
        Model::of(Arch::Llama, keys.clone()).is_not("llama", &[&format!("does not say {key}")]);
        keys["model_type"] = json!("llama");
        Model::of(Arch::Llama, keys).run(&["--as", "hf"]).ok();
    }
}

/// Loaders act on both keys, and no weight shows it.
#[test]
fn code_that_is_not_the_architecture_s_own_is_said_and_stays() {
    let keys = json!({
        "auto_map": { "AutoModelForCausalLM": "modeling.MineForCausalLM" }, "architectures": ["MineForCausalLM"],
    });
    let model = Model::of(Arch::Llama, keys.clone());
    for format in ["megatron", "hf"] {
        let said = model.run(&["--as", format]).ok().err;
        for words in ["names code of its own (auto_map)", "its architectures are [\"MineForCausalLM\"]"] {
            assert!(said.contains(words), "{format}: {said}");
        }
    }
    let shown = model.shown();
    assert_eq!((&shown["auto_map"], &shown["architectures"]), (&keys["auto_map"], &keys["architectures"]));
    let said = Model::of(Arch::Llama, json!({})).run(&["--as", "hf"]).ok().err;
    assert!(!said.contains("its architectures") && !said.contains("auto_map"), "{said}");
}

/// A config whose every key is understood, of a model whose tensors are not: the flag would only lead to the next refusal.
#[test]
fn tensors_tell_an_architecture_from_another_too() {
    let model = Model::of(Arch::Llama, json!({ "model_type": "my_llama" }));
    let config = small(Arch::Llama);
    let mut tensors = hf::tensors(Arch::Llama, &config);
    for (name, _) in &mut tensors {
        *name = name.replace("self_attn.o_proj", "self_attn.out_proj");
    }
    let mut said = hf::config(Arch::Llama, &config);
    said.insert("model_type".into(), json!("my_llama"));
    hf::write(&model.path(), &said, &tensors, 1);
    let said = ckpt!("inspect", model.path())
        .refused(
            UNSUPPORTED,
            &["as llama, it has a tensor model.layers.0.self_attn.out_proj.weight, which no such model has"],
        )
        .err;
    assert!(!said.contains("--hf-model-type"), "{said}");
}

/// Every key is understood: the same model under another name.
#[test]
fn an_architecture_under_another_name_stays_possible() {
    let seed = json!({
        "model_type": "seed_oss", "architectures": ["SeedOssForCausalLM"], "attention_bias": true, "attention_out_bias": false,
        "attention_dropout": 0.1, "residual_dropout": 0.1, "mlp_bias": false, "pretraining_tp": 1, "bos_token_id": 0, "pad_token_id": 1,
        "eos_token_id": 2, "use_cache": true, "initializer_range": 0.02, "torch_dtype": "float32", "transformers_version": "4.57.6",
    });
    let model = Model::of(Arch::Qwen2, seed);
    let said = ckpt!("inspect", model.path())
        .refused(UNSUPPORTED, &["--hf-model-type (by its config it could be"])
        .err;
    assert!(said.contains("qwen2") && !said.contains("be llama"), "{said}");
    let said = model.run(&["--as", "hf", "--hf-model-type", "qwen2"]).ok().err;
    assert!(!said.contains("not known"), "{said}");
    assert_eq!(model.shown()["model_type"], "qwen2");
    model.run(&["--as", "megatron", "--hf-model-type", "qwen2"]).ok();
    let internlm3 = json!({ "model_type": "internlm3", "bias": false, "qkv_bias": false, "auto_map": { "AutoConfig": "a.B" } });
    let model = Model::of(Arch::Llama, internlm3);
    model.run(&["--as", "hf", "--hf-model-type", "llama"]).ok();
    let stretched =
        json!({ "model_type": "internlm3", "rope_scaling": { "rope_type": "dynamic", "factor": 6.0 } });
    let model = Model::of(Arch::Llama, stretched);
    model.run(&["--as", "hf", "--hf-model-type", "llama"]).ok();
    assert_eq!(model.shown()["rope_parameters"]["rope_type"], "dynamic");
    assert_eq!(
        (&model.shown()["model_type"], &model.shown()["architectures"]),
        (&json!("llama"), &json!(["LlamaForCausalLM"]))
    );
    // A switch that is on is none that is off.
    let on = json!({ "model_type": "internlm3", "qkv_bias": true });
    Model::of(Arch::Llama, on).is_not("llama", &["qkv_bias (true)"]);
}

#[test]
fn keys_that_the_architecture_does_not_know_either_are_passed_on_and_said() {
    let model = Model::of(Arch::Llama, json!({ "my_own": [1, { "deep": "x" }], "initializer_range": 0.01 }));
    let said = model.run(&["--as", "hf"]).ok().err;
    assert!(
        said.contains("config.json has keys that are not known: my_own; they are passed on as they are"),
        "{said}"
    );
    assert_eq!(
        (&model.shown()["my_own"], &model.shown()["initializer_range"]),
        (&json!([1, { "deep": "x" }]), &json!(0.01))
    );
    let said = model.run(&["--as", "megatron"]).ok().err;
    assert!(said.contains("not known: my_own; they do not go along"), "{said}");
    let said = Model::of(Arch::Llama, json!({ "initializer_range": 0.01 })).run(&["--as", "hf"]).ok().err;
    assert!(!said.contains("not known"), "{said}");
}

/// The family of a user's file was held against nobody's keys: what it does not name is not passed over.
#[test]
fn a_family_file_names_what_changes_something() {
    let family = |more: &str| {
        format!("name = 'own'\ntitle = 'Own'\nextends = 'llama'\n[config]\nmodel_type = 'own'\n{more}")
    };
    let model = Model::of(Arch::Llama, json!({ "model_type": "own", "my_scale": 2.0 }));
    let file = model.dir.path().join("own.toml");
    let run = |more: &str, format: &str| {
        fs::write(&file, family(more)).unwrap();
        model.run(&["--as", format, "--family", file.to_str().unwrap()])
    };
    run("", "hf").ok();
    assert_eq!(model.shown()["my_scale"], 2.0);
    run("", "megatron").refused(UNSUPPORTED, &["no rule of own names its my_scale (2.0)"]);
    run("[config.keys]\nmy_scale = { is = 1.0 }", "megatron")
        .refused(UNSUPPORTED, &["my_scale is 2.0: only 1.0"]);
    run("[config.keys]\nmy_scale = { is = 2.0 }", "megatron").ok();
    run("[config.keys]\nmy_scale = { neutral = true }", "megatron").ok();
    run("all_keys_of = 'own'", "megatron").ok();
    run("all_keys_of = 'llama'", "megatron").refused(UNSUPPORTED, &["my_scale"]);
}

/// Keys that no class has and the code of every architecture looks at.
#[test]
fn what_common_code_looks_at_is_looked_at_here() {
    for (arch, key, value) in [
        (Arch::Llama, "is_causal", json!(false)),
        (Arch::Llama, "sliding_window", json!(16)),
        (Arch::Qwen3, "layer_types", json!(["full_attention", "sliding_attention"])),
        (Arch::Mistral, "layer_types", json!(["full_attention"])),
        (Arch::Qwen2, "use_bidirectional_attention", json!(true)),
        (Arch::Llama, "mlp_bias", json!(true)),
    ] {
        let mut keys = json!({});
        keys[key] = value.clone();
        let model = Model::of(arch, keys);
        model.run(&["--as", "megatron"]).refused(UNSUPPORTED, &[&format!("its {key} is {value}")]);
        model.run(&["--as", "hf"]).ok();
        assert_eq!(model.shown()[key], value);
    }
    for (arch, keys) in [
        (
            Arch::Llama,
            json!({ "is_causal": true, "sliding_window": null, "attention_chunk_size": null, "is_decoder": true }),
        ),
        (
            Arch::Qwen2,
            json!({ "sliding_window": 4096, "max_window_layers": 28, "layer_types": ["full_attention", "full_attention"] }),
        ),
        (Arch::Mistral, json!({ "layer_types": ["sliding_attention"] })),
    ] {
        let said = Model::of(arch, keys).run(&["--as", "megatron"]).ok().err;
        assert!(!said.contains("not known"), "{said}");
    }
    Model::of(Arch::Llama, json!({ "transformers_weights": "other.safetensors" }))
        .run(&["--as", "hf"])
        .refused(UNSUPPORTED, &["transformers_weights is \"other.safetensors\"", "another name"]);
}

/// Version 4 of transformers reads one spelling and version 5 the other: a view has both, whatever the type.
#[test]
fn every_type_of_rotary_embeddings_is_spelled_twice() {
    let numbers = [
        json!({ "rope_type": "default" }),
        json!({ "rope_type": "linear", "factor": 2.5 }),
        json!({ "rope_type": "linear", "factor": 4.0 }),
        json!({ "rope_type": "dynamic", "factor": 4.0 }),
        json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0, "truncate": false }),
        json!({ "rope_type": "longrope", "factor": 4.0, "short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0], "original_max_position_embeddings": 16 }),
        json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 }),
        json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32 }),
        json!({ "rope_type": "proportional", "factor": 1.0, "partial_rotary_factor": 0.5 }),
    ];
    for block in numbers {
        let mut new = block.clone();
        new["rope_theta"] = json!(50000.0);
        let mut old = block.clone();
        let partial = old.as_object_mut().unwrap().remove("partial_rotary_factor");
        let mut by_old = json!({ "rope_theta": 50000.0, "rope_scaling": old, "torch_dtype": "float32" });
        if let Some(partial) = &partial {
            by_old["partial_rotary_factor"] = partial.clone();
        }
        let by_new = json!({ "rope_theta": null, "rope_parameters": new, "dtype": "float32" });
        for keys in [by_old, by_new] {
            let model = Model::of(Arch::Llama, keys);
            model.run(&["--as", "hf"]).ok();
            let shown = model.shown();
            let mut scaling = shown["rope_scaling"].clone();
            if let Some(scaling) = scaling.as_object_mut() {
                let name = scaling.remove("type");
                assert!(name.is_none_or(|name| name == block["rope_type"]));
            }
            assert_eq!(scaling, if block["rope_type"] == "default" { Json::Null } else { old.clone() });
            assert_eq!((&shown["rope_parameters"], &shown["rope_theta"]), (&new, &json!(50000.0)));
            assert_eq!(shown.get("partial_rotary_factor"), partial.as_ref());
            assert_eq!((&shown["dtype"], &shown["torch_dtype"]), (&json!("float32"), &json!("float32")));
            // Version 4 looks for it beside the block.
            let aux_files = (block["rope_type"] == "longrope").then_some(&json!(16)).cloned();
            assert_eq!(shown.get("original_max_position_embeddings"), aux_files.as_ref());
        }
    }
}

#[test]
fn spellings_that_contradict_each_other_are_refused() {
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 });
    let with = |key: &str, value: Json| {
        let mut changed = yarn.clone();
        changed[key] = value;
        changed
    };
    for (keys, words) in [
        (
            json!({ "rope_scaling": yarn, "rope_parameters": with("factor", json!(2.0)) }),
            ["rope_scaling is", "rope_parameters says"],
        ),
        (
            json!({ "rope_scaling": yarn, "rope_parameters": { "rope_type": "dynamic", "factor": 4.0 } }),
            ["rope_scaling", "dynamic"],
        ),
        (
            json!({ "rope_parameters": with("rope_theta", json!(7.0)) }),
            ["rope_parameters.rope_theta is 7.0", "rope_theta says 20000"],
        ),
        (
            json!({ "rope_scaling": with("type", json!("linear")) }),
            ["rope_scaling.type is \"linear\"", "yarn"],
        ),
        (
            json!({ "rope_scaling": yarn, "original_max_position_embeddings": 8 }),
            ["original_max_position_embeddings", "says 8"],
        ),
        (
            json!({ "partial_rotary_factor": 0.5, "rope_parameters": with("partial_rotary_factor", json!(0.25)) }),
            ["0.25", "says 0.5"],
        ),
        (
            json!({ "dtype": "float32", "torch_dtype": "bfloat16" }),
            ["torch_dtype is \"bfloat16\"", "dtype says \"float32\""],
        ),
        (
            json!({ "rope_scaling": { "rope_type": "longrope", "factor": 9.0, "short_factor": [1], "long_factor": [1], "original_max_position_embeddings": 16 } }),
            ["rope_scaling.factor is 9.0", "says 4.0"],
        ),
    ] {
        Model::of(Arch::Llama, keys).run(&["--as", "hf"]).refused(UNSUPPORTED, &words);
    }
    // What differs between layers has no other spelling.
    let layers =
        json!({ "rope_parameters": { "full_attention": { "rope_type": "default", "rope_theta": 5.0 } } });
    Model::of(Arch::Llama, layers)
        .run(&["--as", "hf"])
        .refused(UNSUPPORTED, &["rope_parameters", "differ between layers"]);
}

/// Python's `json` writes and reads numbers that JSON has no word for.
#[test]
fn numbers_that_json_does_not_have_are_passed_through() {
    let model = Model::of(Arch::Llama, json!({}));
    let config = model.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let odd = "\"a\": [0.0, Infinity], \"b\": {\"c\": NaN}, \"d\": -Infinity, \"e\": 1000000000000000019884624838656, \"f\": \"NaN\", \"g\": 1e-7";
    fs::write(&config, text.replacen('{', &format!("{{ {odd},"), 1)).unwrap();
    model.run(&["--as", "hf"]).ok();
    let shown = model.text().split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "\"a\": [ 0.0, Infinity ]",
        "\"c\": NaN",
        "\"d\": -Infinity",
        "\"e\": 1000000000000000019884624838656",
        "\"f\": \"NaN\"",
        "\"g\": 1e-7",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // As a template too.
    let (dir, trained) = trained();
    let out = dir.path().join("out");
    ckpt!("materialize", trained, out, "--as", "hf", "--template", model.path()).ok();
    assert!(fs::read_to_string(out.join("config.json")).unwrap().contains("-Infinity"));
    // Where a number counts, it is none.
    fs::write(&config, text.replace("2e-6", "Infinity")).unwrap();
    model.run(&["--as", "hf"]).refused(UNSUPPORTED, &["rms_norm_eps is Infinity; expected a number above 0"]);
}

/// A run of Megatron with the weights of the small Llama.
fn trained() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::new(&small(Arch::Llama), &Cut::new(1, &[4]));
    for (field, value) in hf::args(Arch::Llama, &small(Arch::Llama)) {
        checkpoint = checkpoint.arg(field, &value);
    }
    let path = dir.path().join("run");
    checkpoint.write(&path);
    (dir, path)
}

#[test]
fn a_template_of_something_else_is_said_by_its_key() {
    let (_dir, run) = trained();
    let refused = |keys: Json, more: &[&str], words: &[&str]| {
        let template = Model::of(Arch::Llama, keys);
        let mut args =
            vec!["ls".into(), run.clone(), "--as".into(), "hf".into(), "--template".into(), template.path()];
        args.extend(more.iter().map(PathBuf::from));
        let said = crate::common::run::program(&args).refused(USAGE, words).err;
        assert!(more.contains(&"--hf-model-type") || !said.contains("--vocab-size"), "{said}");
    };
    let of_another = "model/config.json is of another model: ";
    refused(
        json!({ "vocab_size": 515 }),
        &[],
        &[of_another, "vocab_size is 515 by it, 11 by the checkpoint"],
    );
    refused(
        json!({ "model_type": "gemma" }),
        &[],
        &[of_another, "its model_type is gemma", "llama, mistral"],
    );
    refused(
        json!({ "rms_norm_eps": 1e-5 }),
        &[],
        &[of_another, "rms_norm_eps is 0.00001 by it, 2e-6 by the checkpoint"],
    );
    refused(
        json!({ "model_type": "granite", "logits_scaling": 8.0 }),
        &["--hf-model-type", "llama"],
        &["no rule of llama names its logits_scaling (8.0)"],
    );
    // A model directory, whose architecture is stated.
    let llama = Model::of(Arch::Llama, json!({}));
    let template = Model::of(Arch::Mistral, json!({}));
    let template = template.path();
    llama
        .run(&["--as", "hf", "--template", template.to_str().unwrap()])
        .refused(USAGE, &[of_another, "model_type is mistral by it, llama by the checkpoint"]);
}

/// Nobody gave a number of tokens: the template has it, and the run has other rows.
#[test]
fn a_template_with_other_rows_than_are_stored() {
    let config = Config { vocab_in_args: false, ..small(Arch::Llama) };
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::new(&config, &Cut::new(1, &[4]));
    for (field, value) in hf::args(Arch::Llama, &config) {
        checkpoint = checkpoint.arg(field, &value);
    }
    checkpoint.write(dir.path());
    for (rows, words) in [
        (515, "vocab_size is 515 by it, at most 12 by the checkpoint"),
        (3, "vocab_size is 3 by it, a number that is padded to 12"),
    ] {
        let template = Model::of(Arch::Llama, json!({ "vocab_size": rows }));
        let said = ckpt!("ls", dir.path(), "--as", "hf", "--template", template.path());
        let said = said.refused(USAGE, &["model/config.json is of another model", words]).err;
        assert!(!said.contains("--vocab-size"), "{said}");
    }
}
