//! Files as PyYAML writes them, and others.

use super::*;

/// Values are compared as they are shown.
fn shown(value: &Value) -> String {
    format!("{value:?}")
}

/// What Megatron-Bridge dumps of a small model, shortened: fields in the order of the alphabet, functions as objects.
const TEXT: &str = "\
_target_: megatron.bridge.training.config.ConfigContainer
ddp:
  use_distributed_optimizer: true
model:
  _target_: megatron.bridge.models.gpt_provider.GPTModelProvider
  activation_func:
    _call_: false
    _target_: torch.nn.functional.silu
  add_bias_linear: false
  bf16: true
  ffn_hidden_size: 96
  gated_linear_unit: true
  hidden_size: 32
  init_method:
    _args_: []
    _partial_: true
    _target_: torch.nn.init.normal_
    std: 0.02
  layernorm_epsilon: 1.0e-05
  moe_layer_freq: &id001
  - 0
  - 1
  normalization: RMSNorm
  num_attention_heads: 4
  num_layers: 2
  num_moe_experts: null
  num_query_groups: 2
  odd_thing:
    a: 1
  other_list: *id001
  pipeline_dtype:
    _call_: false
    _target_: torch.bfloat16
  share_embeddings_and_output_weights: false
  should_pad_vocab: false
  tensor_model_parallel_size: 2
  vocab_size: 128
tokenizer:
  vocab_size: 100
";

fn args(text: &str) -> Value {
    decode(text).unwrap().args
}

#[test]
fn fields_are_arguments_under_the_names_that_those_have() {
    let RunConfig { args, objects } = decode(TEXT).unwrap();
    let field = |name: &str| shown(args.attribute(name).unwrap_or_else(|| panic!("{name}")));
    for (name, number) in [
        ("num_layers", 2),
        ("hidden_size", 32),
        ("tensor_model_parallel_size", 2),
        ("padded_vocab_size", 128),
        ("vocab_size", 100),
    ] {
        assert_eq!(field(name), shown(&Value::Int(number)), "{name}");
    }
    for (name, truth) in [
        ("swiglu", true),
        ("squared_relu", false),
        ("group_query_attention", true),
        ("untie_embeddings_and_output_weights", true),
        ("use_distributed_optimizer", true),
        ("add_bias_linear", false),
    ] {
        assert_eq!(field(name), shown(&Value::Bool(truth)), "{name}");
    }
    assert_eq!((field("norm_epsilon"), field("num_experts")), (shown(&Value::Float(1e-5)), shown(&Value::None)));
    assert_eq!(field("transformer_impl"), shown(&Value::str("transformer_engine")));
    assert_eq!(field("other_list"), shown(&Value::List([Value::Int(0), Value::Int(1)].into())));
    assert_eq!(objects, ["odd_thing"]);
}

#[test]
fn a_padded_table_is_as_large_as_it_is() {
    let args = args(&TEXT.replace("should_pad_vocab: false", "should_pad_vocab: true"));
    assert_eq!(args.attribute("vocab_size").and_then(Value::as_int), Some(128));
    assert!(args.attribute("padded_vocab_size").is_none());
}

#[test]
fn activations_that_arguments_cannot_say_are_refused() {
    let with = |function: &str, gated: bool| {
        let text = TEXT.replace("torch.nn.functional.silu", function);
        decode(&text.replace("gated_linear_unit: true", &format!("gated_linear_unit: {gated}"))).map(|found| found.args)
    };
    let flags = |args: Value| {
        ["swiglu", "squared_relu", "quick_geglu"].map(|name| args.attribute(name).is_some_and(Value::is_truthy))
    };
    assert_eq!(flags(with("torch.nn.functional.silu", true).unwrap()), [true, false, false]);
    assert_eq!(flags(with("megatron.core.activations.squared_relu", false).unwrap()), [false, true, false]);
    assert_eq!(flags(with("megatron.core.activations.quick_gelu", true).unwrap()), [false, false, true]);
    assert_eq!(flags(with("torch.nn.functional.gelu", false).unwrap()), [false; 3]);
    for (function, gated) in [("torch.nn.functional.gelu", true), ("torch.nn.functional.silu", false), ("a.b", false)] {
        let error = with(function, gated).unwrap_err().to_string();
        assert!(error.contains("activation_func") && error.contains(function.rsplit('.').next().unwrap()), "{error}");
    }
}

/// What only Bridge's own models compute is no model of Megatron-LM.
#[test]
fn what_arguments_have_no_place_for_is_refused() {
    let with = |line: &str| decode(&TEXT.replace("  bf16: true\n", &format!("  bf16: true\n  {line}\n"))).map(|found| found.args);
    for line in ["final_logit_softcapping: 30.0", "embedding_multiplier: 12", "attn_logit_softcapping: 50.0", "<<: {a: 1}"] {
        assert!(with(line).is_err(), "{line}");
    }
    assert!(with("final_logit_softcapping: null").is_ok() && with("embedding_multiplier: 1.0").is_ok());
    let partial = TEXT.replace("    _call_: false\n    _target_: torch.nn.functional.silu", "    _partial_: true\n    _target_: torch.nn.functional.silu");
    assert!(decode(&partial).is_err());
    // Llama 3.1.
    let scaled = |low: f64| with(&format!("scale_factor: 8.0\n  low_freq_factor: {low}\n  high_freq_factor: 4.0\n  old_context_len: 8192"));
    let args = scaled(1.0).unwrap();
    let number = |name: &str| args.attribute(name).and_then(Value::as_number);
    assert!(args.attribute("use_rope_scaling").is_some_and(Value::is_truthy));
    assert_eq!(number("rope_scaling_factor"), Some(8.0));
    assert!(scaled(2.0).unwrap_err().to_string().contains("low_freq_factor"));
}

#[test]
fn what_is_no_such_file_is_said() {
    for text in ["", "a: 1", "model: 3", "model: {}", "- model"] {
        assert!(decode(text).is_err(), "{text}");
    }
    let shared = TEXT.replace("share_embeddings_and_output_weights: false", "share_embeddings_and_output_weights: 7");
    assert!(decode(&shared).unwrap_err().to_string().contains("share_embeddings_and_output_weights"));
}

/// Neither a deep text nor one whose aliases multiply takes more than it has bytes for.
#[test]
fn hostile_texts_are_bounded() {
    for text in ["[".repeat(1 << 16), "- ".repeat(1 << 16), "{a: ".repeat(1 << 14), "a: &a [*a]".to_owned()] {
        assert!(decode(&text).is_err());
    }
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert!(decode(&laughs).unwrap_err().to_string().contains("alias of a large value"));
}
