#!/usr/bin/env python3
"""Writes the seeds of every target: what is small of the files in tests/fixtures, and a few texts.

usage: fuzz/seeds.py FOLDER     one folder of files for each target is made in it
"""

import argparse
import collections
import hashlib
import json
import math
import pickle
import struct
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What is longer is no seed: -max_len of scripts/fuzz would cut it.
LARGEST = {"pickle": 4096, "zip_directory": 8192}
LARGEST_OTHER = 1 << 16

LAYOUTS = """tp8 tp8pp4 tp1pp2@10,32 tp2pp2@5,3 tp2pp4vpp2 tp4pp2vpp2ep2etp1@2,1,3,2 ep2 pp2@1,7 tp4ep4etp4
Et*2|t*3|tL E|t|L Et*8L Ettt|(tt|)*29,m|L E(t|t*2|)*2,tL Et(|tt)*2,L Et|tmmL""".split()

CONFIG = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8,
    "intermediate_size": 176, "vocab_size": 128, "rms_norm_eps": 2e-6, "tie_word_embeddings": False,
    "max_position_embeddings": 64, "hidden_act": "silu", "rope_theta": 20000.0,
}
MORE = [
    {},
    {"num_local_experts": 8, "num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [1], "norm_topk_prob": True,
     "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48, "sliding_window": 7, "decoder_sparse_step": 2},
    {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0}},
    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 8192}, "attention_bias": True, "torch_dtype": "bfloat16"},
]
MODEL_TYPES = ["llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe", "yuan"]

# One of each kind that a pickle may hold, some of it twice.
SHARED = ["shared", 1.5]
VALUES = [None, True, 7, -300, 1 << 40, 1 << 90, 0.5, "text", "\xe9" * 300, b"bytes", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], SHARED, SHARED,
          {}, {"a": 1, 2: SHARED}, set(), {1, 2}, frozenset([3]), collections.OrderedDict(a=1), argparse.Namespace(layers=2)]

INDEX = {"metadata": {"total_size": 6, "total_parameters": 3},
         "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}

ARGS = {"num_layers": 2, "eps": 1e-5, "dtype": {"$global": ["torch", "bfloat16"]}, "pair": {"$tuple": [1, None, True]},
        "large": {"$long": "ffffffffffffffff7f"}, "infinite": {"$float": "inf"}, "odd": {"$dict": [[1, "one"]]},
        "raw": {"$bytes": "00ff"}, "set": {"$set": [1]}}
NAMESPACE = {"$object": {"construct": "new", "callable": ["argparse", "Namespace"], "args": {"$tuple": []}, "appended": [],
                         "items": [], "state": [ARGS]}}
METADATA = {"ckpt-fs.family": "megatron-core", "ckpt-fs.layout": "tp1pp1", "ckpt-fs.rank": "tp 0 pp 0 ep 0", "format": "pt",
            "ckpt-fs.iteration": "100", "ckpt-fs.checkpoint_version": "3", "ckpt-fs.args": json.dumps(NAMESPACE)}


def tensor(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS = [
    {"w": tensor("F32", [2, 3], 0, 24), "b": tensor("BF16", [3], 24, 30), "none": tensor("I64", [0, 4], 30, 30)},
    {"__metadata__": METADATA, "m": tensor("F8_E4M3", [1], 0, 1), "s": tensor("BOOL", [], 1, 2)},
    {"__metadata__": {"format": "pt"}},
]

# What stands before each name in an input of several files (fuzz/src/bundle.rs).
MARK = b"\xff\xfeF\xff"


def bundle(files):
    """The input of several files, by name."""
    return b"".join(MARK + name.encode() + b"\n" + contents for name, contents in files.items())


def header(shapes, metadata=None):
    """The header of a file of these tensors."""
    entries, end = {"__metadata__": metadata} if metadata else {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        entries[name] = tensor("BF16", shape, start, end)
    return json.dumps(entries).encode()


def llama(config):
    """The shapes of a model, by the names that models of this kind share."""
    hidden, inner, vocabulary = (config[name] for name in ("hidden_size", "intermediate_size", "vocab_size"))
    query, key = (config["head_dim"] * config[name] for name in ("num_attention_heads", "num_key_value_heads"))
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden], "lm_head.weight": [vocabulary, hidden]}
    for layer in range(config["num_hidden_layers"]):
        parts = {"self_attn.q_proj": [query, hidden], "self_attn.k_proj": [key, hidden], "self_attn.v_proj": [key, hidden],
                 "self_attn.o_proj": [hidden, query], "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden],
                 "mlp.down_proj": [hidden, inner], "input_layernorm": [hidden], "post_attention_layernorm": [hidden]}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()}
    return shapes


def model_directories():
    """Hugging Face models in one file and in two, and a rank of a view."""
    config = CONFIG | {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 2,
                       "intermediate_size": 6, "vocab_size": 16}
    shapes = llama(config)
    for kind, more in (("llama", {}), ("mistral", {"sliding_window": None}), ("qwen2", {"attention_bias": True}), ("qwen3", {})):
        extra = {"qwen2": {f"self_attn.{name}_proj.bias": [size] for name, size in (("q", 8), ("k", 4), ("v", 4))},
                 "qwen3": {f"self_attn.{name}_norm.weight": [2] for name in "qk"}}.get(kind, {})
        every = shapes | {f"model.layers.{layer}.{name}": shape for layer in range(2) for name, shape in extra.items()}
        said = json.dumps({"model_type": kind, "torch_dtype": "bfloat16", **config, **more}).encode()
        yield {"config.json": said, "model.safetensors": header(every), "tokenizer.json": b"{}"}
        names = sorted(every)
        files = {f"model-0000{number + 1}-of-00002.safetensors": names[number::2] for number in range(2)}
        index = {"metadata": {}, "weight_map": {name: file for file, inside in files.items() for name in inside}}
        yield {"config.json": said, "model.safetensors.index.json": json.dumps(index).encode(),
               **{file: header({name: every[name] for name in inside}) for file, inside in files.items()}}
    experts = {f"block_sparse_moe.experts.{expert}.{name}.weight": shape
               for expert in range(2) for name, shape in (("w1", [6, 8]), ("w2", [8, 6]), ("w3", [6, 8]))}
    every = {name: shape for name, shape in shapes.items() if ".mlp." not in name}
    every |= {f"model.layers.{layer}.{name}": shape for layer in range(2)
              for name, shape in {**experts, "block_sparse_moe.gate.weight": [2, 8]}.items()}
    said = {"model_type": "mixtral", "torch_dtype": "bfloat16", **config, "num_local_experts": 2, "num_experts_per_tok": 1}
    yield {"config.json": json.dumps(said).encode(), "model.safetensors": header(every)}
    for tp in (1, 2):
        yield {f"mp_rank_{rank:02}.safetensors": rank_header(rank, tp) for rank in range(tp)}


def rank_header(rank, tp):
    """The header of a rank of a small megatron-core model."""
    shapes = {"embedding.word_embeddings.weight": [16 // tp, 8], "decoder.final_layernorm.weight": [8], "output_layer.weight": [16 // tp, 8]}
    for layer in range(2):
        parts = {"self_attention.linear_qkv.layer_norm_weight": [8], "self_attention.linear_qkv.weight": [16 // tp, 8],
                 "self_attention.linear_proj.weight": [8, 8 // tp], "mlp.linear_fc1.layer_norm_weight": [8],
                 "mlp.linear_fc1.weight": [12 // tp, 8], "mlp.linear_fc2.weight": [8, 6 // tp]}
        shapes |= {f"decoder.layers.{layer}.{name}": shape for name, shape in parts.items()}
    args = {"num_layers": 2, "hidden_size": 8, "num_attention_heads": 4, "group_query_attention": True, "num_query_groups": 2,
            "kv_channels": 2, "ffn_hidden_size": 6, "padded_vocab_size": 16, "tensor_model_parallel_size": tp,
            "pipeline_model_parallel_size": 1, "swiglu": True, "normalization": "RMSNorm", "add_bias_linear": False,
            "position_embedding_type": "rope", "untie_embeddings_and_output_weights": True, "make_vocab_size_divisible_by": 16,
            "max_position_embeddings": 32, "norm_epsilon": 1e-5, "rotary_base": 10000, "iteration": 100, "params_dtype": {"$global": ["torch", "bfloat16"]}, "bf16": True, "fp16": False}
    namespace = json.dumps({"$object": {**NAMESPACE["$object"], "state": [args]}})
    return header(shapes, METADATA | {"ckpt-fs.args": namespace, "ckpt-fs.layout": f"tp{tp}pp1", "ckpt-fs.rank": f"tp {rank} pp 0 ep 0"})


def runs():
    """The pickles of small runs of several files, one of them with its optimizer in a file of its own."""
    for tracker in sorted((ROOT / "tests/fixtures").rglob("latest_checkpointed_iteration.txt")):
        files = {}
        for path in sorted(tracker.parent.glob("iter_*/*/*.pt")):
            with zipfile.ZipFile(path) as archive:
                pickled = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
                files[f"{path.parent.name}/{path.name}"] = record(path, pickled)
        if len(files) > 1:
            yield files
    pickles = ROOT / "tests/fixtures/pickles"
    yield {"mp_rank_00/model_optim_rng.pt": (pickles / "yuan_none.pkl").read_bytes(),
           "mp_rank_00/distrib_optim.pt": (pickles / "yuan_distrib_optim.pkl").read_bytes()}


def record(path, entry):
    """The bytes of an entry, whatever sum is stated: zipfile refuses files that were written without."""
    raw = path.read_bytes()[entry.header_offset:]
    name, extra = struct.unpack_from("<HH", raw, 26)
    return raw[30 + name + extra:][:entry.file_size]


def holed(path, archive):
    """The file without its data: what stands before and after it, and how much is missing."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    data = [n for n, entry in enumerate(entries) if "/data/" in entry.filename]
    raw = bytearray(path.read_bytes())
    # A pickle is held against its sum; zero means that there is none, so that a changed one is read.
    for name in (entry.filename.encode() for entry in entries if entry.filename.endswith("/data.pkl")):
        raw[raw.rindex(name) - 30:raw.rindex(name) - 26] = bytes(4)
    start = end = 0
    if data and len(raw) > 8192:
        start = entries[data[0]].header_offset
        end = entries[data[-1] + 1].header_offset if data[-1] + 1 < len(entries) else archive.start_dir
    return struct.pack("<IQ", start, end - start) + raw[:start] + raw[end:]


def seeds():
    """Pairs of target and content."""
    for path in sorted((ROOT / "tests/fixtures/pickles").glob("*.pkl")):
        yield "pickle", path.read_bytes()
        yield "checkpoint", path.read_bytes()
    for path in sorted((ROOT / "tests/fixtures").rglob("*.pt")):
        if not zipfile.is_zipfile(path):
            yield "torch_file", bytes(12) + path.read_bytes()
            continue
        with zipfile.ZipFile(path) as archive:
            file = holed(path, archive)
            tree = record(path, next(e for e in archive.infolist() if e.filename.endswith("/data.pkl")))
        yield from (("torch_file", file), ("zip_directory", file), ("pickle", tree), ("checkpoint", tree))
        # The directory alone: what stands before it is a hole.
        size = path.stat().st_size
        raw = path.read_bytes()[archive.start_dir:]
        yield "zip_directory", struct.pack("<IQ", 0, size - len(raw)) + raw
    for path in sorted((ROOT / "tests/fixtures/dist-tiny").rglob("*.metadata")):
        yield "dcp_metadata", path.read_bytes()
    yield "dcp_pieces", (ROOT / "tests/fixtures/dist-tiny/hand/min/view.distcp").read_bytes()
    for protocol in range(6):
        for value in [*VALUES, VALUES]:
            yield "pickle", pickle.dumps(value, protocol)
    for name in LAYOUTS:
        yield "layout_name", name.encode()
    for kind in MODEL_TYPES:
        for more in MORE:
            yield "config_json", json.dumps({"model_type": kind, **CONFIG, **more}).encode()
    for path in sorted((ROOT / "families").rglob("*.toml")):
        yield "family_file", path.read_bytes()
    yield "index_json", json.dumps(INDEX).encode()
    for entries in HEADERS:
        yield "safetensors_header", json.dumps(entries).encode()
    yield from (("model_directory", bundle(files)) for files in model_directories())
    yield from (("checkpoint", bundle(files)) for files in runs())
    # Plans are made of any bytes.
    for number in range(8):
        yield "plan_resolve", b"".join(hashlib.sha256(bytes([number, n])).digest() for n in range(6))


def main(folder):
    for target, content in seeds():
        if len(content) <= LARGEST.get(target, LARGEST_OTHER):
            place = folder / target / f"seed-{hashlib.sha256(content).hexdigest()[:16]}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


if len(sys.argv) != 2:
    sys.exit(__doc__)
main(Path(sys.argv[1]))
