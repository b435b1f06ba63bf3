"""A model of many tensors in many files, all of them holes: for what depends on the number of tensors and not on their bytes."""

import json

LAYERS, EXPERTS, FILES = 254, 128, 1000
HIDDEN, HEAD, HEADS, GROUPS, FFN, VOCABULARY = 2048, 128, 32, 4, 768, 151936


def tensors():
    """Names and shapes of a Qwen3-MoE."""
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(LAYERS):
        of = f"model.layers.{layer}."
        yield of + "self_attn.q_proj.weight", [HEADS * HEAD, HIDDEN]
        yield of + "self_attn.k_proj.weight", [GROUPS * HEAD, HIDDEN]
        yield of + "self_attn.v_proj.weight", [GROUPS * HEAD, HIDDEN]
        yield of + "self_attn.o_proj.weight", [HIDDEN, HEADS * HEAD]
        yield of + "self_attn.q_norm.weight", [HEAD]
        yield of + "self_attn.k_norm.weight", [HEAD]
        yield of + "mlp.gate.weight", [EXPERTS, HIDDEN]
        for expert in range(EXPERTS):
            yield of + f"mlp.experts.{expert}.gate_proj.weight", [FFN, HIDDEN]
            yield of + f"mlp.experts.{expert}.up_proj.weight", [FFN, HIDDEN]
            yield of + f"mlp.experts.{expert}.down_proj.weight", [HIDDEN, FFN]
        yield of + "input_layernorm.weight", [HIDDEN]
        yield of + "post_attention_layernorm.weight", [HIDDEN]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


CONFIG = {
    "model_type": "qwen3_moe", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS, "head_dim": HEAD, "intermediate_size": 6144, "moe_intermediate_size": FFN,
    "num_experts": EXPERTS, "num_experts_per_tok": 8, "norm_topk_prob": True, "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False, "max_position_embeddings": 40960,
}


def make(root):
    """Writes it, and says how many files and tensors it has."""
    root.mkdir(parents=True)
    everything = list(tensors())
    each = -(-len(everything) // FILES)
    index, files = {}, 0
    for files, begin in enumerate(range(0, len(everything), each), 1):
        name, header, end = f"model-{files:05}-of-{FILES:05}.safetensors", {"__metadata__": {"format": "pt"}}, 0
        for tensor, shape in everything[begin : begin + each]:
            size = 2
            for length in shape:
                size *= length
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            index[tensor], end = name, end + size
        text = json.dumps(header, separators=(",", ":")).encode()
        with open(root / name, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": index}))
    (root / "config.json").write_text(json.dumps(CONFIG))
    return files, len(everything)
