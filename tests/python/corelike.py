"""Small megatron-core style checkpoints from torch itself, and torch's own slicing of them as the right answer.

Weights are made as integers of the dtype's width and sliced as integers: NaN patterns survive, and dtypes that torch
can neither add nor concatenate (fp8) need no special case.
"""

import argparse
import collections
import hashlib
import math

import torch

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
BLANK = {
    "virtual_pipeline_model_parallel_size": None, "num_layers_per_virtual_pipeline_stage": None, "num_experts": None,
    "decoder_first_pipeline_num_layers": None, "decoder_last_pipeline_num_layers": None,
    "pipeline_model_parallel_layout": None, "account_for_embedding_in_pipeline_split": False,
    "account_for_loss_in_pipeline_split": False, "expert_model_parallel_size": 1, "context_parallel_size": 1,
    "multi_latent_attention": False, "mtp_num_layers": None, "moe_mlp_glu_interleave_size": None,
    "sequence_parallel": False, "data_parallel_size": 1, "add_position_embedding": False,
    "position_embedding_type": "rope", "normalization": "RMSNorm", "transformer_impl": "local", "use_lf_gate": False,
}


class Model:
    """A tiny GPT: 4 layers, hidden 32, 8 heads in 4 groups, ffn 48, true vocabulary 50 padded to 8 x TP."""

    layers, hidden, heads, groups, ffn, vocabulary, divisor = 4, 32, 8, 4, 48, 50, 8

    def __init__(self, dtype=torch.bfloat16, tied=False, bias=False, te=False, gated=True, qk_norm=False):
        self.dtype, self.tied, self.bias, self.te, self.gated, self.qk_norm = dtype, tied, bias, te, gated, qk_norm
        self.weights = {name: self.random(name, shape) for name, shape, _ in self.parameters()}

    def random(self, name, shape):
        """Bits that depend on the name alone."""
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
        kind = BITS[torch.empty(0, dtype=self.dtype).element_size()]
        dice = torch.Generator().manual_seed(seed)
        info = torch.iinfo(kind)
        return torch.randint(info.min, info.max, shape, dtype=kind, generator=dice)

    def padded(self, tp):
        unit = self.divisor * tp
        return math.ceil(self.vocabulary / unit) * unit

    def layer(self, at):
        """(name, shape, cut) of one layer's tensors, in the model's order."""
        head = self.hidden // self.heads
        qkv, fc1 = (self.heads + 2 * self.groups) * head, self.ffn * (2 if self.gated else 1)
        norms = ["input_layernorm.weight", "pre_mlp_layernorm.weight"]
        if self.te:  # fused into the layer that follows; the unfused ones are then empty modules
            norms = ["self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight"]
        names = [
            ("self_attention.linear_proj.weight", (self.hidden, self.hidden), 1),
            ("self_attention.linear_proj.bias", (self.hidden,), None),
            ("self_attention.linear_qkv.weight", (qkv, self.hidden), 0),
            ("self_attention.linear_qkv.bias", (qkv,), 0),
            ("self_attention.q_layernorm.weight", (head,), None),
            ("self_attention.k_layernorm.weight", (head,), None),
            (norms[1], (self.hidden,), None),
            ("mlp.linear_fc1.weight", (fc1, self.hidden), "gated" if self.gated else 0),
            ("mlp.linear_fc1.bias", (fc1,), "gated" if self.gated else 0),
            ("mlp.linear_fc2.weight", (self.hidden, self.ffn), 1),
            ("mlp.linear_fc2.bias", (self.hidden,), None),
        ]
        names.insert(2 if self.te else 0, (norms[0], (self.hidden,), None))
        if not self.bias:
            names = [n for n in names if not n[0].endswith(".bias")]
        if not self.qk_norm:
            names = [n for n in names if not n[0].endswith(("q_layernorm.weight", "k_layernorm.weight"))]
        return [(f"decoder.layers.{at}.{name}", shape, cut) for name, shape, cut in names]

    def parameters(self):
        """Every parameter of the whole model, vocabulary rows at their true number."""
        yield "embedding.word_embeddings.weight", (self.padded(1), self.hidden), "vocabulary"
        for at in range(self.layers):
            yield from self.layer(at)
        yield "decoder.final_layernorm.weight", (self.hidden,), None
        if not self.tied:
            yield "output_layer.weight", (self.padded(1), self.hidden), "vocabulary"

    def stage(self, cut, at):
        """(name in the file, parameter, cut) of one pipeline stage, in order."""
        first = sum(cut[:at])
        last = at == len(cut) - 1
        rows = list(self.parameters())
        if at == 0:
            yield rows[0][0], rows[0][0], "vocabulary"
        for local in range(cut[at]):
            for (name, _, how), (source, _, _) in zip(self.layer(local), self.layer(first + local)):
                yield name, source, how
                if not self.te and "linear_" in name and name.endswith("bias" if self.bias else "weight"):
                    yield f"{name.rpartition('.')[0]}._extra_state", None, None
        if last:
            yield "decoder.final_layernorm.weight", "decoder.final_layernorm.weight", None
            if not self.tied:
                yield "output_layer.weight", "output_layer.weight", "vocabulary"
            elif len(cut) > 1:
                yield "output_layer.weight", rows[0][0], "vocabulary"

    def shard(self, name, how, tp, rank, rows=None):
        """One rank's part of a parameter, as bits; `rows` is the source's padded vocabulary."""
        whole = self.weights[name]
        if how == "vocabulary":
            padded = torch.zeros((self.padded(tp), self.hidden), dtype=whole.dtype)
            keep = min(len(whole), self.padded(tp), rows or len(whole))
            padded[:keep] = whole[:keep]
            return padded.chunk(tp, 0)[rank].clone()
        if how == "gated":
            return torch.cat([half.chunk(tp, 0)[rank] for half in whole.chunk(2, 0)])
        return whole.clone() if how is None else whole.chunk(tp, how)[rank].clone()

    def expected(self, tp, cut, rank, at):
        """{name in the file: bits or None} of one rank."""
        return {
            name: None if source is None else self.shard(source, how, tp, rank)
            for name, source, how in self.stage(cut, at)
        }

    def args(self, tp, cut, rank):
        return argparse.Namespace(
            **BLANK, num_layers=self.layers, hidden_size=self.hidden, num_attention_heads=self.heads,
            num_query_groups=self.groups, group_query_attention=True, ffn_hidden_size=self.ffn, swiglu=self.gated,
            kv_channels=self.hidden // self.heads, add_bias_linear=self.bias, qk_layernorm=self.qk_norm,
            vocab_size=self.vocabulary, padded_vocab_size=self.padded(tp), make_vocab_size_divisible_by=self.divisor,
            untie_embeddings_and_output_weights=not self.tied, tensor_model_parallel_size=tp,
            pipeline_model_parallel_size=len(cut), transformer_pipeline_model_parallel_size=len(cut),
            world_size=tp * len(cut), rank=rank, iteration=7, params_dtype=self.dtype,
        )

    def save(self, root, tp=1, cut=None, arrange=None, extra=None):
        """Write a checkpoint directory; `arrange` turns the list of a rank's weights into how they are stored."""
        cut = cut or [self.layers]
        for at in range(len(cut)):
            for rank in range(tp):
                bits = self.expected(tp, cut, rank, at)
                made = [None if b is None else b.view(self.dtype) for b in bits.values()]
                made = (arrange or (lambda tensors: tensors))(made)
                model = collections.OrderedDict(zip(bits, made))
                model._metadata = collections.OrderedDict({"": {"version": 1}})
                stage = f"_{at:03d}" if len(cut) > 1 else ""
                home = root / "iter_0000007" / f"mp_rank_{rank:02d}{stage}"
                home.mkdir(parents=True)
                state = {"args": self.args(tp, cut, at * tp + rank), "checkpoint_version": 3.0, "iteration": 7}
                torch.save({**state, "model": model, **(extra or {})}, home / "model_optim_rng.pt")
        (root / "latest_checkpointed_iteration.txt").write_text("7")
        return root


def plain(tensors):
    return tensors


def flat(tensors):
    """Views into one buffer with a gap before each, as a distributed optimizer leaves them."""
    real = [t for t in tensors if t is not None]
    buffer = torch.zeros(sum(t.numel() + 3 for t in real), dtype=real[0].dtype)
    at, made = 0, []
    for tensor in tensors:
        if tensor is None:
            made.append(None)
            continue
        at += 3
        window = buffer[at : at + tensor.numel()].view(tensor.shape)
        window.copy_(tensor)
        made.append(window)
        at += tensor.numel()
    return made


def transposed(tensors):
    """Matrices stored column by column."""
    return [t if t is None or t.dim() != 2 else bits(t).t().contiguous().view(t.dtype).t() for t in tensors]


def strided(tensors):
    """Every second row of something larger."""
    def spread(tensor):
        big = torch.zeros((2 * len(tensor), *tensor.shape[1:]), dtype=bits(tensor).dtype).view(tensor.dtype)
        big[::2].copy_(tensor)
        return big[::2]

    return [t if t is None else spread(t) for t in tensors]


def parameters(tensors):
    """Leaves that are nn.Parameter, as model.state_dict(keep_vars=True) has them."""
    return [t if t is None else torch.nn.Parameter(t, requires_grad=t.dtype.itemsize > 1) for t in tensors]


def bits(tensor):
    """A tensor as integers of its width."""
    return tensor.detach().contiguous().view(BITS[tensor.element_size()])
