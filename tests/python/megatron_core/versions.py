"""What differs between versions of megatron-core: 0.12, 0.14, 0.16, and the one that is not released yet.

The rest of this package is written for 0.16. Here is what others call otherwise, lack, or have in addition.
"""

import inspect

from megatron.core import dist_checkpointing, parallel_state, tensor_parallel
from megatron.core.models.gpt import gpt_layer_specs


def accepted(function, arguments):
    """Those of `arguments` that `function` takes in this version.

    One that it does not know may ask for nothing: what it would do is lacking here.
    """
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    lost = [name for name, value in arguments.items() if name not in parameters and value]
    if lost:
        raise TypeError(f"{function.__qualname__} of this megatron-core has no {', '.join(lost)}")
    return {name: value for name, value in arguments.items() if name in parameters}


def staged(function, stage):
    """The argument that tells `function` the virtual stage; older versions keep it in parallel_state alone."""
    return {"vp_stage": stage} if "vp_stage" in inspect.signature(function).parameters else {}


def set_stage(stage):
    """The virtual stage that is built, or asked about, next."""
    if stage is not None:
        parallel_state.set_virtual_pipeline_model_parallel_rank(stage)


def is_first_stage(stage):
    is_first = parallel_state.is_pipeline_first_stage
    return is_first(ignore_virtual=False, **staged(is_first, stage))


def is_last_stage(stage):
    is_last = parallel_state.is_pipeline_last_stage
    return is_last(ignore_virtual=False, **staged(is_last, stage))


def seed_ranks(seed):
    """Set every rank's generators anew; before 0.13 that is what it does anyway."""
    function = tensor_parallel.model_parallel_cuda_manual_seed
    known = "force_reset_rng" in inspect.signature(function).parameters
    function(seed, **({"force_reset_rng": True} if known else {}))


def layer_spec(config, experts=None):
    """A layer of torch's modules, without experts or with."""
    return gpt_layer_specs.get_gpt_layer_local_spec(
        num_experts=experts,
        qk_layernorm=config.qk_layernorm,
        multi_latent_attention=config.multi_latent_attention,
        normalization=config.normalization,
    )


def last_layer_spec(config):
    """The layer that layers of multi-token prediction are like."""
    every = getattr(gpt_layer_specs, "get_gpt_decoder_layer_specs", None)
    if every:
        return every(config, use_transformer_engine=False, normalization=config.normalization)[-1]
    frequency = config.moe_layer_freq
    has_experts = frequency[-1] if isinstance(frequency, list) else (config.num_layers - 1) % frequency == 0
    return layer_spec(config, config.num_moe_experts if has_experts else None)


def optimizer_arguments(optimizer, metadata):
    """How `sharded_state_dict` of an optimizer is told what the checkpoint's `content_metadata` tells.

    Before 0.13 there is none; the distributed optimizer is told the kind of its state alone.
    """
    chained = getattr(optimizer, "chained_optimizers", [optimizer])
    if all("metadata" in inspect.signature(one.sharded_state_dict).parameters for one in chained):
        return {"metadata": metadata}
    kind = metadata.get("distrib_optim_sharding_type")
    return {"sharding_type": kind} if kind else {}


def content_arguments(content):
    """How `dist_checkpointing.save` is told what the checkpoint will say of itself; before 0.13 it says nothing."""
    known = "content_metadata" in inspect.signature(dist_checkpointing.save).parameters
    return {"content_metadata": content} if known else {}


def content_metadata(common):
    """The checkpoint's own word on how its state is laid out; None where there is none."""
    load = getattr(dist_checkpointing, "load_content_metadata", None)
    return load(preloaded_state_dict=common) if load else None
