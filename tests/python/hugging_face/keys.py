"""Every key of `config.json` that the config classes of this transformers know, and what they write by default.

    python -m hugging_face.keys MODEL_TYPE... > KEYS.json
"""

import dataclasses
import inspect
import json
import sys

from transformers import CONFIG_MAPPING

# What a class is told in Python and no config.json says.
OF_PYTHON = {"self", "args", "kwargs", "name_or_path"}


def keys(model_type):
    kind = CONFIG_MAPPING[model_type]
    known = set(kind().to_dict())
    for cls in kind.__mro__[:-1]:
        known |= set(inspect.signature(cls.__init__).parameters)
        if dataclasses.is_dataclass(cls):
            known |= {field.name for field in dataclasses.fields(cls)}
    return sorted(known - OF_PYTHON)


if __name__ == "__main__":
    json.dump({name: keys(name) for name in sys.argv[1:]}, sys.stdout)
