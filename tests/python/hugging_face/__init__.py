"""Real models of transformers, tiny, and the judges of what becomes of them.

    python -m hugging_face.make OUT             models of every architecture as transformers saves them, with their logits
    python -m hugging_face.logits JOBS          logits of model directories, by whichever transformers is on the path
    python -m hugging_face.megatron JOBS        logits of Megatron rank files, by megatron-core on the CPU

JOBS is a JSON list of [directory, file with tokens, file for logits].
"""
