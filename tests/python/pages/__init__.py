"""What runs the commands of the documentation: test_docs.py says what must hold.

`blocks` takes a page apart, `stage` is the directory in which its commands run, with everything they name, and `programs`
stands in for what cannot be here (vllm, torchrun, kubectl, srun, ...): it looks at what a command gives it as that program would.
"""
