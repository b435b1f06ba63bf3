//! Names and keys as real models have them. That every entry of the family comes back is in `tests/it/dist_keys.rs`.

use super::*;
use crate::value::Value;

const LOCAL: Spec =
    Spec { transformer_engine: false, grouped_experts: false, latent: false, mtp_model_layer: false };
const ENGINE: Spec = Spec { transformer_engine: true, grouped_experts: true, ..LOCAL };

fn stacked(template: &str, spec: Spec) -> String {
    DistName::of_rank(template, spec).unwrap().key(None)
}

#[test]
fn norms_have_the_names_of_fused_layers() {
    let names = |norm: &str| format!("decoder.layers.{{layer}}.{norm}");
    let key = |norm: &str, spec| stacked(&names(norm), spec);
    assert_eq!(key("input_layernorm.weight", LOCAL), "decoder.layers.self_attention.linear_qkv.layer_norm_weight");
    assert_eq!(key("pre_mlp_layernorm.bias", LOCAL), "decoder.layers.mlp.linear_fc1.layer_norm_bias");
    assert_eq!(key("pre_mlp_layernorm.weight", ENGINE), "decoder.layers.pre_mlp_layernorm.weight");
    let latent = Spec { latent: true, ..LOCAL };
    assert_eq!(key("input_layernorm.weight", latent), "decoder.layers.input_layernorm.weight");
    assert_eq!(key("pre_mlp_layernorm._extra_state", LOCAL), "decoder.layers.pre_mlp_layernorm._extra_state");
    let back = |key: &str, spec, has_experts| DistKey::parse(key).name.rank_template(spec, has_experts);
    let fused = "decoder.layers.mlp.linear_fc1.layer_norm_weight";
    assert_eq!(back(fused, LOCAL, true), names("pre_mlp_layernorm.weight"));
    assert_eq!(back(fused, ENGINE, false), names("mlp.linear_fc1.layer_norm_weight"));
    // Saved by a model of Megatron's own layers.
    assert_eq!(back(fused, ENGINE, true), names("pre_mlp_layernorm.weight"));
}

#[test]
fn experts_have_one_key_however_they_are_built() {
    let key = "decoder.layers.mlp.experts.experts.linear_fc1.weight";
    let own = "decoder.layers.{layer}.mlp.experts.local_experts.{expert}.linear_fc1.weight";
    let grouped = "decoder.layers.{layer}.mlp.experts.linear_fc1.weight{expert}";
    assert_eq!((stacked(own, LOCAL), stacked(grouped, ENGINE)), (key.to_owned(), key.to_owned()));
    let state = "decoder.layers.{layer}.mlp.experts.linear_fc1._extra_state";
    let state = DistName::of_rank(state, ENGINE).unwrap();
    assert!(state.of_experts && state.is_extra_state());
    assert_eq!(state.rank_template(LOCAL, true), own.replace("weight", "_extra_state"));
    let shared = DistName::of_rank("decoder.layers.{layer}.mlp.shared_experts.linear_fc1.weight", LOCAL).unwrap();
    assert!(!shared.of_experts && shared.rest == "mlp.shared_experts.linear_fc1.weight");
}

#[test]
fn predictions_are_never_stacked() {
    let name = |layer: &str| format!("mtp.layers.{{depth}}.{layer}.pre_mlp_layernorm.weight");
    let of = |template: &str, spec| DistName::of_rank(template, spec).unwrap();
    let key = of(&name("mtp_model_layer"), LOCAL);
    assert_eq!(key, of(&name("transformer_layer"), LOCAL));
    let text = key.key(Some(1));
    assert_eq!(text, "mtp.layers.1.transformer_layer.mlp.linear_fc1.layer_norm_weight");
    let parsed = DistKey::parse(&text);
    assert_eq!((&parsed.name, parsed.layer), (&key, Some(1)));
    assert_eq!(key.rank_template(LOCAL, true), name("transformer_layer"));
    assert_eq!(key.rank_template(Spec { mtp_model_layer: true, ..LOCAL }, true), name("mtp_model_layer"));
}

#[test]
fn numbers_and_halves_in_keys_are_found() {
    let parsed = |key: &str| {
        let DistKey { name, layer, expert, half } = DistKey::parse(key);
        (name.key(None), layer, expert, half)
    };
    let name = "decoder.layers.mlp.experts.experts.linear_fc1.weight".to_owned();
    assert_eq!(parsed(&name), (name.clone(), None, None, None));
    let apart = "decoder.layers.12.mlp.experts.experts.3.linear_fc1.weight_v";
    assert_eq!(parsed(apart), (name.clone(), Some(12), Some(3), Some(Half::Up)));
    let stacked = "decoder.layers.2.mlp.experts.experts.linear_fc1.weight_w";
    assert_eq!(parsed(stacked), (name, Some(2), None, Some(Half::Gate)));
    // Neither a half nor a layer.
    for key in ["decoder.layers.self_attention.weight_w", "embedding.word_embeddings.weight", "players.0.x"] {
        assert_eq!(parsed(key), (key.to_owned(), None, None, None));
    }
    // A number that is written otherwise is no number.
    assert_eq!(parsed("decoder.layers.01.x").1, None);
    assert_eq!(DistKey::parse("decoder.final_layernorm.weight").name.of, Of::Model);
}

#[test]
fn what_is_in_no_key_has_none() {
    for template in ["output_layer._extra_state", "language_model/embedding/weight", "a.{layer}.b.{depth}.c", "a.{expert}"] {
        assert_eq!(DistName::of_rank(template, LOCAL), None, "{template}");
    }
}

#[test]
fn objects_and_states_are_taken_apart() {
    let key = object_key("a._extra_state", &[1, 0], &[4, 16]);
    assert_eq!(key, "a._extra_state/shard_1.0_4.16");
    assert_eq!(
        ObjectKey::parse(&key),
        Some(ObjectKey { key: "a._extra_state", offsets: vec![1, 0], counts: vec![4, 16] })
    );
    assert_eq!(object_key("a", &[], &[]), "a/shard_0_1");
    for bad in ["a", "a/shard_", "a/shard_1", "a/shard_4_4", "a/shard_0.0_4", "a/shard_x_4", "a/shard_0_4.4"] {
        assert_eq!(ObjectKey::parse(bad), None, "{bad}");
    }
    let key = state_key("exp_avg", "decoder.x");
    let state = |optimizer| Some(StateKey { optimizer, state: "exp_avg", key: "decoder.x" });
    assert_eq!((StateKey::parse(&key), StateKey::parse(&format!("chained_1.{key}"))), (state(None), state(Some(1))));
    assert_eq!(StateKey::parse("decoder.x"), None);
}

#[test]
fn names_show_of_what_a_model_is_built() {
    let spec = |names: &[&str]| Spec::of_names(false, names.iter().copied());
    let own = ["decoder.layers.{layer}.input_layernorm.weight", "a.experts.local_experts.{expert}.linear_fc1.weight"];
    assert_eq!(spec(&own), LOCAL);
    assert_eq!(spec(&["decoder.layers.{layer}.self_attention.linear_qkv.layer_norm_weight"]), ENGINE);
    assert!(spec(&["mtp.layers.{depth}.mtp_model_layer.pre_mlp_layernorm.weight"]).mtp_model_layer);
}

#[test]
fn layers_have_own_keys_where_args_list_them() {
    let args = |value| Value::namespace(vec![("moe_layer_freq".into(), value)]);
    let all_alike = Value::List([Value::Int(1), Value::Int(1)].into());
    assert!(layers_have_own_keys(&args(all_alike)) && layers_have_own_keys(&args(Value::Int(2))));
    assert!(!layers_have_own_keys(&args(Value::Int(1))) && !layers_have_own_keys(&args(Value::None)));
    let differ = Value::namespace(vec![("hetereogenous_dist_checkpoint".into(), Value::Bool(true))]);
    assert!(layers_have_own_keys(&differ) && !layers_have_own_keys(&Value::namespace(vec![])));
}

#[test]
fn norms_have_two_names_where_layers_do_not_agree() {
    let other = |key: &str, latent, has_experts| {
        let DistKey { name, layer, .. } = DistKey::parse(key);
        let other = name.other_norm(latent, has_experts)?;
        assert_ne!(name.is_fused_norm(), other.is_fused_norm(), "{key}");
        assert_eq!(other.other_norm(latent, has_experts).as_ref(), Some(&name), "{key}");
        Some(other.key(layer))
    };
    let (apart, fused) = ("decoder.layers.pre_mlp_layernorm.weight", "decoder.layers.mlp.linear_fc1.layer_norm_weight");
    assert_eq!(other(apart, false, true).as_deref(), Some(fused));
    assert_eq!(other(apart, true, false).as_deref(), Some(fused));
    assert_eq!((other(fused, false, false), other(apart, true, true)), (None, None));
    let (apart, fused) = ("mtp.layers.0.transformer_layer.self_attention.q_layernorm.bias", "mtp.layers.0.transformer_layer.self_attention.linear_q_up_proj.layer_norm_bias");
    assert_eq!(other(apart, true, true).as_deref(), Some(fused));
    assert_eq!(other(apart, false, false), None);
    // A state is of a module, which a norm that is fused is not.
    assert_eq!(other("decoder.layers.3.pre_mlp_layernorm._extra_state", false, true), None);
    assert_eq!(other("decoder.layers.3.mlp.linear_fc1.weight", false, true), None);
}

#[test]
fn linear_layers_have_states_of_their_own() {
    let is = |key: &str| DistKey::parse(key).name.is_state_of_linear();
    for key in ["decoder.layers.self_attention.linear_qkv._extra_state", "mtp.layers.0.eh_proj._extra_state"] {
        assert!(is(key), "{key}");
    }
    for key in [
        "decoder.layers.self_attention.core_attention._extra_state",
        "decoder.layers.0.pre_mlp_layernorm._extra_state",
        "decoder.final_layernorm._extra_state",
        "mtp.layers.0.enorm._extra_state",
        "decoder.layers.self_attention.linear_qkv.weight",
    ] {
        assert!(!is(key), "{key}");
    }
}
