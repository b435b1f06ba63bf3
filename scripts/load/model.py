"""A published model of any size with random weights, in plain Python: a source for load that needs neither torch nor a download.

Not here: models that compute something (`tests/python/hugging_face`).
"""

import json
import random
from pathlib import Path

BLOCK = 2_345_678 + 1


def shapes(hidden, layers, vocabulary, heads):
    """Names and sizes as Llama has them."""
    inner = hidden * 5 // 2
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name in ("q", "k", "v", "o"):
            rows = hidden // 2 if name in "kv" else hidden
            yield f"{at}.self_attn.{name}_proj.weight", (rows, hidden)
        for name in ("gate", "up"):
            yield f"{at}.mlp.{name}_proj.weight", (inner, hidden)
        yield f"{at}.mlp.down_proj.weight", (hidden, inner)
        yield f"{at}.input_layernorm.weight", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def make(directory, hidden=256, layers=4, vocabulary=6000, heads=8, files=3, seed=1):
    """Writes it; the default has 11 MB in three files."""
    directory, dice = Path(directory), random.Random(seed)
    directory.mkdir(parents=True)
    tensors = list(shapes(hidden, layers, vocabulary, heads))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden,
        "intermediate_size": hidden * 5 // 2, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads // 2, "head_dim": hidden // heads, "hidden_act": "silu", "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    where, total = {}, 0
    for number in range(files):
        name = f"model-{number + 1:05}-of-{files:05}.safetensors"
        mine = tensors[number * len(tensors) // files : (number + 1) * len(tensors) // files]
        where.update((tensor, name) for tensor, _ in mine)
        total += write(directory / name, mine, dice)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def write(path, tensors, dice):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, sizes in tensors:
        count = 2
        for size in sizes:
            count *= size
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        # One block over and over, of a length that no offset in a file is likely to be off by.
        block, left = dice.randbytes(min(BLOCK, end)), end
        while left:
            left -= file.write(block[:left])
    return end
