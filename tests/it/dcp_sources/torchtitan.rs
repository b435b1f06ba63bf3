//! torchtitan's names of both generations, its order of rows, and its directories of steps.

use std::fs;

use super::{Model, optimizer};
use crate::common::Array;
use crate::common::dcp_source::{Draft, grid, rows};
use crate::common::hf::Arch;
use crate::common::naive::{Config, Moe};

/// Rows of a head's halves, alternating: as the code of others makes such files, row by row.
fn paired(array: &Array, head: u64) -> Array {
    let rows = array.shape[0];
    let row = array.bytes.len() / rows as usize;
    let mut bytes = vec![0; array.bytes.len()];
    for from in 0..rows {
        let (number, within) = (from / head, from % head);
        let (half, place) = (within / (head / 2), within % (head / 2));
        let to = (number * head + 2 * place + half) as usize;
        bytes[to * row..][..row].copy_from_slice(&array.bytes[from as usize * row..][..row]);
    }
    Array { bytes, ..array.clone() }
}

/// The tensors as torchtitan has them; experts stacked.
fn titans(model: &Model, generation: u32) -> Vec<(String, Array)> {
    let new = generation > 0;
    let is_llama = model.arch == Arch::Llama;
    let mut out: Vec<(String, Array)> = Vec::new();
    for (name, array) in &model.tensors {
        let qkv = if new { "attention.qkv_linear" } else { "attention" };
        let renamed = name
            .replace("model.embed_tokens", "tok_embeddings")
            .replace("model.norm", "norm")
            .replace("model.layers", "layers")
            .replace("self_attn.q_proj", &format!("{qkv}.wq"))
            .replace("self_attn.k_proj", &format!("{qkv}.wk"))
            .replace("self_attn.v_proj", &format!("{qkv}.wv"))
            .replace("self_attn.o_proj", "attention.wo")
            .replace("self_attn.", "attention.")
            .replace("input_layernorm", "attention_norm")
            .replace("post_attention_layernorm", "ffn_norm")
            .replace("mlp.gate_proj", "feed_forward.w1")
            .replace("mlp.up_proj", "feed_forward.w3")
            .replace("mlp.down_proj", "feed_forward.w2")
            .replace("mlp.gate.weight", "moe.router.gate.weight");
        let renamed = if new { renamed } else { renamed.replace("lm_head", "output") };
        if let Some((layer, rest)) = renamed.split_once(".mlp.experts.") {
            let (_, part) = rest.split_once('.').unwrap();
            let part = part.strip_suffix("_proj.weight").unwrap();
            let (weight, axes) = [("gate", "w1", "EFD"), ("up", "w3", "EFD"), ("down", "w2", "EDF")]
                .into_iter()
                .find(|(own, ..)| *own == part)
                .map(|(_, weight, axes)| (weight, axes))
                .unwrap();
            let key = match generation {
                0 => format!("{layer}.moe.experts.{weight}"),
                1 => format!("{layer}.moe.experts.{weight}_{axes}"),
                _ => format!("{layer}.moe.routed_experts.inner_experts.{weight}_{axes}"),
            };
            match out.iter_mut().find(|(known, _)| *known == key) {
                Some((_, stacked)) => {
                    stacked.shape[0] += 1;
                    stacked.bytes.extend(&array.bytes);
                }
                None => out.push((key, Array { shape: [&[1][..], &array.shape].concat(), ..array.clone() })),
            }
            continue;
        }
        let turned = is_llama && (renamed.contains("wq.weight") || renamed.contains("wk.weight"));
        out.push((renamed, if turned { paired(array, model.config.head) } else { array.clone() }));
    }
    out
}

fn models() -> Vec<Model> {
    let qk_norm = Config { qk_norm: true, ..Config::default() };
    let moe = Some(Moe { experts: 4, ffn: 6, every: 1, ..Moe::default() });
    vec![
        Model::llama(),
        Model::of(Arch::Llama, Config { tied: true, ..Config::default() }),
        Model::of(Arch::Qwen3, qk_norm.clone()),
        Model::of(Arch::Qwen3Moe, Config { moe, ..qk_norm }),
    ]
}

// matrix: naive: llama qwen3 qwen3_moe: dcp -> read+optimizer
#[test]
fn both_generations_of_names_are_the_model() {
    for model in models() {
        for generation in 0..3 {
            let tensors = titans(&model, generation);
            let mut draft = Draft::of(4);
            for (name, array) in &tensors {
                draft.tensor(
                    name,
                    array,
                    |shape| if generation == 1 { grid(shape, 2, 2) } else { rows(shape, 3) },
                );
            }
            if model.config.tied {
                // torchtitan saves a tied head too.
                let name = if generation == 0 { "output.weight" } else { "lm_head.weight" };
                draft.tensor(name, &tensors[0].1, |shape| {
                    if generation == 1 { grid(shape, 2, 2) } else { rows(shape, 3) }
                });
            }
            optimizer(&mut draft, "optimizer", "", &tensors, |shape| rows(shape, 2));
            let path = model.path(&format!("{generation}"));
            draft.write(&path);
            model.is_in(&path);
            let said = ckpt!("inspect", &path, "--json", "--template", model.path("template")).ok().json();
            assert_eq!(said["family"], format!("torchtitan-{}", model.arch.model_type()));
            assert_eq!(said["optimizer"]["step"], 3.0);
            // The state of a tensor is in the order of its rows.
            let hf = model.path(&format!("{generation}-hf"));
            let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
            optimizer(&mut draft, "optim", "", &back(&model, &tensors), |shape| rows(shape, 1));
            draft.write(&hf);
        }
    }
}

/// The tensors of the model.
fn back(model: &Model, _: &[(String, Array)]) -> Vec<(String, Array)> {
    model.tensors.clone()
}

/// The state of q and k is in torchtitan's order of rows, like q and k.
#[test]
fn states_are_turned_with_their_tensors() {
    let model = Model::llama();
    let head = model.config.head;
    let mut draft = Draft::of(1);
    for (name, array) in titans(&model, 1) {
        let state = super::state_of(&array, 5);
        let turned = name.contains("wq.") || name.contains("wk.");
        let state = if turned { paired(&state, head) } else { state };
        draft.tensor(&name, &array, |shape| rows(shape, 1));
        draft.tensor(&format!("optimizer.state.{name}.exp_avg"), &state, |shape| rows(shape, 1));
    }
    draft.write(&model.path("titan"));
    let mut plain = model.draft("model.", 2, |shape| rows(shape, 2));
    for (name, array) in &model.tensors {
        plain.tensor(&format!("optim.state.{name}.exp_avg"), &super::state_of(array, 5), |shape| {
            rows(shape, 2)
        });
    }
    plain.write(&model.path("plain"));
    let digest = |name: &str| model.digest(&model.path(name)).ok().json()["optimizer_digest"].clone();
    assert!(digest("plain").is_string());
    assert_eq!(digest("titan"), digest("plain"));
}

#[test]
fn of_several_steps_the_newest_is_meant() {
    let model = Model::llama();
    let run = model.path("checkpoint");
    for number in [5, 10] {
        let mut draft = model.draft("", 1, |shape| rows(shape, 1));
        draft.tensors[0].1.bytes[0] ^= number;
        draft.write(&run.join(format!("step-{number}")));
    }
    let template = model.path("template");
    let iteration = |flags: &[&str]| {
        let mut words = vec![
            "inspect".into(),
            run.clone().into_os_string(),
            "--json".into(),
            "--template".into(),
            template.clone().into_os_string(),
        ];
        words.extend(flags.iter().map(Into::into));
        crate::common::run::program(&words).ok().json()["iteration"].clone()
    };
    assert_eq!((iteration(&[]), iteration(&["--iteration", "5"])), ("10".into(), "5".into()));
    ckpt!("inspect", &run, "--iteration", "7").refused(3, &["step 7", "step-5, step-10"]);
    ckpt!("inspect", run.join("step-5"), "--iteration", "10").refused(3, &["this is step 5, not 10"]);
    // The newest one was interrupted.
    fs::rename(run.join("step-10/.metadata"), run.join("step-10/.metadata.tmp")).unwrap();
    ckpt!("inspect", &run).refused(3, &["step-10", "an interrupted save"]);
}
