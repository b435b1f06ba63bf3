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

from . import seeded
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
    tensor_parallel.model_parallel_cuda_manual_seed(seed, force_reset_rng=True)


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
    return kind(
        **kwargs,
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


def gpt(config, model, layout, stage):
    """gpt_builders.py, gpt_builder, for --transformer-impl local."""
    layer = gpt_layer_specs.get_gpt_layer_local_spec(
        qk_layernorm=config.qk_layernorm,
        multi_latent_attention=config.multi_latent_attention,
        normalization=config.normalization,
    )
    if config.num_moe_experts:
        layer = gpt_layer_specs.get_gpt_decoder_block_spec(
            config, use_transformer_engine=False, normalization=config.normalization, vp_stage=stage
        )
    mtp = None
    if config.mtp_num_layers:
        last = gpt_layer_specs.get_gpt_decoder_layer_specs(
            config, use_transformer_engine=False, normalization=config.normalization
        )
        mtp = gpt_layer_specs.get_gpt_mtp_block_spec(config, last[-1], use_transformer_engine=False, vp_stage=stage)
    first = parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage)
    final = parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage)
    return GPTModel(
        config=config,
        transformer_layer_spec=layer,
        vocab_size=padded_vocabulary(model, layout.tp),
        max_sequence_length=model["max_positions"],
        pre_process=first,
        post_process=final,
        parallel_output=True,
        share_embeddings_and_output_weights=model["tied"],
        position_embedding_type=model["positions"],
        mtp_block_spec=mtp,
        vp_stage=stage,
    )


class Run:
    """What training holds: model chunks (`bare`, and `chunks` in training's wrappers), optimizer and scheduler."""

    def __init__(self, model, layout, optimizer):
        self.model, self.layout, self.spec = model, layout, optimizer
        self.config = transformer_config(model, layout, optimizer)
        self.bare = [gpt(self.config, model, layout, stage if layout.vpp > 1 else None) for stage in range(layout.vpp)]
        for chunk in self.bare:
            # training.py, get_model
            for parameter in chunk.parameters():
                tensor_parallel.set_defaults_if_not_set_tensor_model_parallel_attributes(parameter)
            self._fill_weights(chunk)
        # On a GPU weights are initialised by the GPU's generators; here that used up numbers of the CPU's.
        set_random_seed()
        self.chunks = self._wrap(self.bare)
        self.optimizer, self.scheduler = (None, None) if optimizer.kind == "none" else self._optimizer()

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
            lr=LEARNING_RATE,
            min_lr=LEARNING_RATE / 10,
            weight_decay=0.1,
            bf16=self.spec.dtype == "bf16",
            fp16=self.spec.dtype == "fp16",
            params_dtype=DTYPES[self.spec.dtype],
            use_distributed_optimizer=self.spec.distributed,
            initial_loss_scale=256.0,  # made gradients are larger than real ones, and float16 ends at 65504
            clip_grad=0.0,  # the norm is a sum over ranks, and sums depend on their order
        )
        optimizer = get_megatron_optimizer(config, self.chunks)
        scheduler = OptimizerParamScheduler(
            optimizer,
            init_lr=0.0,
            max_lr=LEARNING_RATE,
            min_lr=LEARNING_RATE / 10,
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
        self.scheduler.step(increment=BATCH)
