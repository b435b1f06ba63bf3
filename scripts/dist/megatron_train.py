#!/usr/bin/env python3
"""Load a torch_dist checkpoint or rank files with the real megatron-core, take one step of its optimizer, and write what the model then holds.

Options and result are those of megatron_load.py. Gradients are made from the names of whole parameters and the number of the step
(tests/python/megatron_core/seeded.py), so that the step is the same in every layout, and the same bits as in make_megatron.py.
"""

import common

common.begin()
import megatron_run  # noqa: E402


def main(arguments=None):
    parser = megatron_run.parser(__doc__)
    parser.set_defaults(optimizer="saved")
    options = parser.parse_args(arguments)
    tensors, said = megatron_run.run_all(options, lambda run, said: run.step(said["iteration"]))
    common.write(options.out, tensors, said)


if __name__ == "__main__":
    main()
