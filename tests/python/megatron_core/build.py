"""A rank's model chunks, optimizer and scheduler, put together as megatron/training/training.py does.

That file is not on PyPI; every function here says which of its functions it repeats, and leaves out what needs a GPU
or a data set.
"""

import random

import numpy
import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.models.gpt import GPTModel, gpt_layer_specs
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

from . import seeded, versions
from .specs import padded_vocabulary

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LEARNING_RATE, SEED, BATCH = 0.01, 1234, 4


def initialize(layout):
    """initialize.py, _initialize_distributed; the process group exists already."""
    parallel_state.initialize_model_parallel(
        layout.tp,
        layout.pp,
        layout.vpp if layout.vpp > 1 else None,
        expert_model_parallel_size=layout.ep,
        expert_tensor_parallel_size=layout.etp,
    )
    set_random_seed()


def set_random_seed():
    """initialize.py, _set_random_seed"""
    seed = SEED + 100 * parallel_state.get_pipeline_model_parallel_rank()
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    versions.seed_ranks(seed)


def transformer_config(model, layout, optimizer):
    """arguments.py, core_transformer_config_from_args."""
    own = {"swiglu", "tied", "vocab_size", "divisible_by", "positions", "max_positions"}
    kwargs = {name: value for name, value in model.items() if name not in own}
    kwargs |= {"gated_linear_unit": model["swiglu"]}
    if model["swiglu"]:
        kwargs |= {"activation_func": torch.nn.functional.silu, "bias_activation_fusion": False}
    if kwargs.pop("multi_latent_attention", False):
        kind, kwargs["multi_latent_attention"] = MLATransformerConfig, True
    else:
        kind = TransformerConfig
    kwargs |= dict(
        tensor_model_parallel_size=layout.tp,
        pipeline_model_parallel_size=layout.pp,
        virtual_pipeline_model_parallel_size=layout.vpp if layout.vpp > 1 else None,
        expert_model_parallel_size=layout.ep,
        expert_tensor_parallel_size=layout.etp,
        num_layers_in_first_pipeline_stage=layout.first or None,
        num_layers_in_last_pipeline_stage=layout.last or None,
        pipeline_model_parallel_layout=layout.stages or None,
        pipeline_dtype=DTYPES[optimizer.dtype],
        params_dtype=DTYPES[optimizer.dtype],
        bf16=optimizer.dtype == "bf16",
        fp16=optimizer.dtype == "fp16",
    )
    return kind(**versions.accepted(kind, kwargs))


def gpt(config, model, layout, stage):
    """gpt_builders.py, gpt_builder, for --transformer-impl local."""
    layer = versions.layer_spec(config)
    if config.num_moe_experts:
        block = gpt_layer_specs.get_gpt_decoder_block_spec
        layer = block(
            config, use_transformer_engine=False, normalization=config.normalization, **versions.staged(block, stage)
        )
    mtp = None
    if config.mtp_num_layers:
        block, last = gpt_layer_specs.get_gpt_mtp_block_spec, versions.last_layer_spec(config)
        mtp = block(config, last, use_transformer_engine=False, **versions.staged(block, stage))
    return GPTModel(
        config=config,
        transformer_layer_spec=layer,
        vocab_size=padded_vocabulary(model, layout.tp),
        max_sequence_length=model["max_positions"],
        pre_process=versions.is_first_stage(stage),
        post_process=versions.is_last_stage(stage),
        parallel_output=True,
        share_embeddings_and_output_weights=model["tied"],
        position_embedding_type=model["positions"],
        mtp_block_spec=mtp,
        **versions.staged(GPTModel.__init__, stage),
    )


class Run:
    """What training holds: model chunks (`bare`, and `chunks` in training's wrappers), optimizer and scheduler."""

    def __init__(self, model, layout, optimizer, rates=(LEARNING_RATE, LEARNING_RATE / 10)):
        self.model, self.layout, self.spec = model, layout, optimizer
        self.rates = rates
        self.te_names = False  # whether torch_dist is saved and loaded under the names of Transformer Engine's modules
        self.config = transformer_config(model, layout, optimizer)
        self.bare = [self._chunk(stage if layout.vpp > 1 else None) for stage in range(layout.vpp)]
        for chunk in self.bare:
            # training.py, get_model
            for parameter in chunk.parameters():
                tensor_parallel.set_defaults_if_not_set_tensor_model_parallel_attributes(parameter)
            self._fill_weights(chunk)
        # On a GPU weights are initialised by the GPU's generators; here that used up numbers of the CPU's.
        set_random_seed()
        self.chunks = self._wrap(self.bare)
        self.optimizer, self.scheduler = (None, None) if optimizer.kind == "none" else self._optimizer()

    def _chunk(self, stage):
        versions.set_stage(stage)
        chunk = gpt(self.config, self.model, self.layout, stage)
        chunk.vp_stage = stage  # as newer versions do themselves
        return chunk

    def groups(self):
        """The ranks that hold the same; sharded_state_dict wants to know."""
        return parallel_state.get_data_parallel_group(with_context_parallel=True)

    def _fill_weights(self, chunk):
        for entry in seeded.entries(chunk, self.groups()):
            if isinstance(getattr(entry, "data", None), torch.Tensor):
                seeded.fill(entry, entry.data, "weight", self.model["vocab_size"])

    def _wrap(self, chunks):
        """training.py, get_model."""
        if self.spec.dtype != "fp32":
            chunks = [Float16Module(self.config, chunk) for chunk in chunks]
        if self.spec.kind == "none":
            return chunks
        ddp = DistributedDataParallelConfig(
            grad_reduce_in_fp32=self.spec.dtype != "fp16",
            overlap_grad_reduce=self.spec.bucket > 0,
            use_distributed_optimizer=self.spec.distributed,
            bucket_size=self.spec.bucket or None,
        )
        return [
            DistributedDataParallel(self.config, ddp, chunk, disable_bucketing=at > 0)
            for at, chunk in enumerate(chunks)
        ]

    def _optimizer(self):
        """training.py, setup_model_and_optimizer and get_optimizer_param_scheduler."""
        config = OptimizerConfig(
            optimizer="adam",
            lr=self.rates[0],
            min_lr=self.rates[1],
            weight_decay=0.1,
            bf16=self.spec.dtype == "bf16",
            fp16=self.spec.dtype == "fp16",
            params_dtype=DTYPES[self.spec.dtype],
            use_distributed_optimizer=self.spec.distributed,
            initial_loss_scale=256.0,  # made gradients are larger than real ones, and float16 ends at 65504
            clip_grad=0.0,  # the norm is a sum over ranks, and sums depend on their order
        )
        optimizer = get_megatron_optimizer(config, self.chunks)
        if self.rates[1] is None:
            return optimizer, None  # as who uses megatron.core alone does it
        scheduler = OptimizerParamScheduler(
            optimizer,
            init_lr=0.0,
            max_lr=self.rates[0],
            min_lr=self.rates[1],
            lr_warmup_steps=0,
            lr_decay_steps=10 * BATCH,
            lr_decay_style="linear",
            start_wd=0.1,
            end_wd=0.1,
            wd_incr_steps=10 * BATCH,
            wd_incr_style="constant",
            use_checkpoint_opt_param_scheduler=True,
            override_opt_param_scheduler=False,
        )
        return optimizer, scheduler

    def step(self, number):
        """training.py, train_step, with gradients that were made instead of computed."""
        scale = float(self.optimizer.get_loss_scale())
        for chunk in self.bare:
            places = {id(entry.data): entry for entry in seeded.entries(chunk, self.groups())}
            for parameter in chunk.parameters():
                seeded.fill(places[id(parameter)], parameter.main_grad, f"gradient{number}", self.model["vocab_size"])
                parameter.main_grad.mul_(scale)
        done, _, _ = self.optimizer.step()
        assert done, "the optimizer skipped a step"
        if self.scheduler is not None:
            self.scheduler.step(increment=BATCH)
