#!/usr/bin/env python3
"""Load a torch_dist checkpoint (or rank files) with the real megatron-core in a layout, and write what the model then holds.

The model is built from the checkpoint's args, by as many gloo processes as the layout has ranks; keys are strict. Whole tensors are
written under the names of torch_dist, without the vocabulary's padding; optimizer state as optimizer.state.{fp32_param,exp_avg,exp_avg_sq}.
"""

import common

common.begin()
import megatron_run  # noqa: E402


def main(arguments=None):
    options = megatron_run.parser(__doc__).parse_args(arguments)
    tensors, said = megatron_run.run_all(options, lambda run, said: None)
    common.write(options.out, tensors, said)


if __name__ == "__main__":
    main()
