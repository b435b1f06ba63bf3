"""Says in words how a rank's optimizer and buffers are laid out, for people who have to write the same layout."""

import os

import torch
from megatron.core import parallel_state as mpu


def write(run, directory):
    os.makedirs(directory, exist_ok=True)
    rank = torch.distributed.get_rank()
    with open(os.path.join(directory, f"rank{rank}.txt"), "w") as file:
        file.write("\n".join(lines(run)) + "\n")


def lines(run):
    yield (
        f"tp {mpu.get_tensor_model_parallel_rank()} pp {mpu.get_pipeline_model_parallel_rank()} "
        f"ep {mpu.get_expert_model_parallel_rank()} etp {mpu.get_expert_tensor_parallel_rank()} "
        f"dp {mpu.get_data_parallel_rank()} edp {mpu.get_expert_data_parallel_rank()}"
    )
    names = {}
    for at, chunk in enumerate(run.bare):
        for name, parameter in chunk.named_parameters():
            names[parameter] = f"{at}:{name}"
            attributes = {
                k: v for k, v in vars(parameter).items() if isinstance(v, (bool, int, str)) and not k.startswith("_")
            }
            yield f"parameter {at}:{name} {parameter.dtype} {tuple(parameter.shape)} {attributes}"
    for index, chained in enumerate(getattr(run.optimizer, "chained_optimizers", [])):
        yield f"optimizer {index}: {type(chained).__name__}"
        yield from _groups(chained, names)
        for at, buffer in enumerate(getattr(chained, "buffers", [])):
            sizes = f"numel {buffer.numel}, unpadded {buffer.numel_unpadded}"
            yield f"  buffer {at}: {buffer.param_dtype}, {buffer.grad_dtype}, {sizes}"
            saved = 0
            for bucket in buffer.buckets:
                yield (
                    f"    bucket {bucket.bucket_id}: offset {bucket.offset}, numel {bucket.grad_data.numel()}, "
                    f"unpadded {bucket.numel_unpadded}, saved at {saved}"
                )
                for parameter, (start, end, owner) in buffer.param_index_map.items():
                    if owner == bucket.bucket_id:
                        yield f"      {start - bucket.offset + saved}..{end - bucket.offset + saved} {names[parameter]}"
                saved += bucket.numel_unpadded


def _groups(optimizer, names):
    for kind in ("float16_groups", "fp32_from_fp32_groups", "model_float16_groups", "model_fp32_groups"):
        for at, group in enumerate(getattr(optimizer, kind, [])):
            yield f"  {kind}[{at}]: {' '.join(names[p] for p in group)}"
