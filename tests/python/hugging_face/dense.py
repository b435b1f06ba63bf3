"""A Llama of any size, all of it holes: for what depends on sizes and not on bytes."""

import json

HIDDEN, HEAD, HEADS, GROUPS, FFN, VOCABULARY = 8192, 128, 64, 8, 28672, 128256


def tensors(layers, hidden=HIDDEN, ffn=FFN):
    """Names and shapes."""
    heads = hidden // HEAD
    yield "model.embed_tokens.weight", [VOCABULARY, hidden]
    for layer in range(layers):
        of = f"model.layers.{layer}."
        yield of + "self_attn.q_proj.weight", [heads * HEAD, hidden]
        yield of + "self_attn.k_proj.weight", [GROUPS * HEAD, hidden]
        yield of + "self_attn.v_proj.weight", [GROUPS * HEAD, hidden]
        yield of + "self_attn.o_proj.weight", [hidden, heads * HEAD]
        yield of + "mlp.gate_proj.weight", [ffn, hidden]
        yield of + "mlp.up_proj.weight", [ffn, hidden]
        yield of + "mlp.down_proj.weight", [hidden, ffn]
        yield of + "input_layernorm.weight", [hidden]
        yield of + "post_attention_layernorm.weight", [hidden]
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [VOCABULARY, hidden]


def make(root, layers, hidden=HIDDEN, ffn=FFN):
    """Writes it: config and one file."""
    root.mkdir(parents=True)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(layers, hidden, ffn):
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(root / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD, "num_key_value_heads": GROUPS, "head_dim": HEAD, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "tie_word_embeddings": False, "max_position_embeddings": 8192, "hidden_act": "silu",
    }
    (root / "config.json").write_text(json.dumps(config))
