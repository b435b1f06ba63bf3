"""Models of every architecture, as transformers 5 saves them: in one file and in several, with the logits that they give."""

import json
import sys
from pathlib import Path

import torch
import transformers

VOCABULARY, TOKENS = 515, 48
COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=8,
    num_key_value_heads=4, max_position_embeddings=256, attention_dropout=0.0,
)
THETA = {"rope_type": "default", "rope_theta": 1e6}
EXPERTS = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=48, norm_topk_prob=True)

# The class of the config, and what of it differs from its defaults. Every number that changes the logits is none of theirs.
MODELS = {
    "llama": ("Llama", dict(rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 5e5})),
    "llama31": (
        "Llama",
        dict(
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            },
        ),
    ),
    "llama_linear": ("Llama", dict(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0})),
    "llama_bf16": ("Llama", dict(dtype="bfloat16")),
    # Sizes of heads that do not multiply to the hidden size, and a window shorter than the text.
    "mistral": ("Mistral", dict(head_dim=16, sliding_window=16, rms_norm_eps=1e-4)),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True, rope_parameters=THETA)),
    "qwen3": ("Qwen3", dict(head_dim=16, rope_parameters=THETA)),
    "mixtral": ("Mixtral", dict(intermediate_size=48, num_local_experts=8, num_experts_per_tok=2)),
    "qwen2_moe": (
        "Qwen2Moe",
        dict(**EXPERTS | dict(norm_topk_prob=False), shared_expert_intermediate_size=80, mlp_only_layers=[1]),
    ),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=16, decoder_sparse_step=2, rope_parameters=THETA, **EXPERTS)),
}


def make(name, out):
    kind, own = MODELS[name]
    own = dict(own)
    dtype = getattr(torch, own.pop("dtype", "float32"))
    config = getattr(transformers, f"{kind}Config")(**{**COMMON, **own})
    torch.manual_seed(sum(name.encode()))
    model = getattr(transformers, f"{kind}ForCausalLM")._from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        # Norms and biases too: ones and zeros would hide a mistake.
        torch.nn.init.normal_(parameter.data, mean=1.0 if parameter.dim() == 1 else 0.0, std=0.1)
    model.to(dtype)
    model.save_pretrained(out / "single")
    model.save_pretrained(out / "sharded", max_shard_size="100KB")
    # Names as version 5 has them in memory: all experts of a layer in one tensor.
    model.save_pretrained(out / "memory", max_shard_size="100KB", save_original_format=False)
    (out / "single" / "tokenizer.json").write_text(json.dumps({"made by": "tests"}))
    tokens = torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    torch.save(tokens, out / "tokens.pt")


def main():
    out = Path(sys.argv[1])
    for name in MODELS:
        make(name, out / name)


if __name__ == "__main__":
    main()
