"""Models whose config says what the args of Megatron cannot, and models of architectures that are nearly one of the known ones.

    python -m hugging_face.variants OUT         each as transformers 5 saves it, with tokens; `old` has its config as version 4 would

Only hf views are made of them.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers

from hugging_face.make import COMMON, EXPERTS, TOKENS, VOCABULARY

YARN = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 64}
# Texts are longer than what a model was trained for, where a type looks at that.
SHORT = dict(max_position_embeddings=32)

# Rotary embeddings of every type that both versions know.
STRETCHED = {
    "yarn": ("Llama", dict(rope_parameters=YARN)),
    "yarn_more": (
        "Llama",
        dict(rope_parameters={**YARN, "attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False}),
    ),
    "yarn_qwen3_moe": ("Qwen3Moe", dict(head_dim=16, rope_parameters=YARN, **EXPERTS)),
    "dynamic": ("Llama", dict(rope_parameters={"rope_type": "dynamic", "rope_theta": 5e5, "factor": 4.0}, **SHORT)),
    "linear": ("Qwen2", dict(rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 2.5})),
    "longrope": (
        "Llama",
        dict(
            rope_parameters={
                "rope_type": "longrope", "rope_theta": 5e5, "factor": 8.0, "original_max_position_embeddings": 32,
                "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0],
            },
        ),
    ),
    "llama3": (
        "Llama",
        dict(
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 5e5, "factor": 4.0, "low_freq_factor": 2.0, "high_freq_factor": 3.0,
                "original_max_position_embeddings": 16,
            },
        ),
    ),
    "default": ("Mistral", dict(head_dim=16, sliding_window=16, rope_parameters={"rope_type": "default", "rope_theta": 3e4})),
}

# Architectures with the names of Llama or Qwen2. None of them computes what those do, but for the last.
NEARLY = {
    "granite": ("Granite", dict(embedding_multiplier=12.0, attention_multiplier=0.1, logits_scaling=8.0, residual_multiplier=0.22)),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=4, pad_token_id=None)),
    "ernie4_5": ("Ernie4_5", dict()),
    "helium": ("Helium", dict(head_dim=8)),
    "arcee": ("Arcee", dict()),
    "gemma": ("Gemma", dict(head_dim=8)),
    "olmo": ("Olmo", dict()),
    "stablelm": ("StableLm", dict()),
    "ministral": ("Ministral", dict(head_dim=8, sliding_window=16)),
    "seed_oss": ("SeedOss", dict(head_dim=8, attention_dropout=0.0, residual_dropout=0.0)),
}


def old_spelling(config):
    """As version 4 writes it."""
    block = config.pop("rope_parameters")
    config["rope_theta"] = block.pop("rope_theta")
    config["rope_scaling"] = None if block["rope_type"] == "default" else block
    config["torch_dtype"] = config.pop("dtype")
    if block["rope_type"] == "longrope":
        config["original_max_position_embeddings"] = block["original_max_position_embeddings"]
    return config


def make(name, out):
    kind, own = {**STRETCHED, **NEARLY}[name]
    config = getattr(transformers, f"{kind}Config")(**{**COMMON, "tie_word_embeddings": False, **own})
    torch.manual_seed(sum(name.encode()))
    model = getattr(transformers, f"{kind}ForCausalLM")._from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, mean=1.0 if parameter.dim() == 1 else 0.0, std=0.1)
    model.save_pretrained(out / "new")
    if name in STRETCHED:
        shutil.copytree(out / "new", out / "old")
        path = out / "old" / "config.json"
        path.write_text(json.dumps(old_spelling(json.loads(path.read_text()))))
    torch.save(torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(1)), out / "tokens.pt")


def main():
    transformers.logging.set_verbosity_error()
    for name in (*STRETCHED, *NEARLY):
        make(name, Path(sys.argv[1]) / name)


if __name__ == "__main__":
    main()
