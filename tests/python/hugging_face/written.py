"""Configs as this transformers writes them.

    python -m hugging_face.written '{"NAME": ["CLASS", {"KEY": VALUE}]}' > CONFIGS.json
"""

import json
import sys

import transformers

if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    configs = {name: getattr(transformers, f"{kind}Config")(**keys) for name, (kind, keys) in wanted.items()}
    json.dump({name: json.loads(config.to_json_string()) for name, config in configs.items()}, sys.stdout)
