"""What `checks` makes, and what it checks: the only place to change for one more.

A torch cannot read the .metadata of a newer one (2.15 writes six properties of a tensor where 2.9 expects five), so each has its own sources.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """That a loader takes `part` of a source, or a view of it, for what the run held (`whole`), or holds one step later (`next`)."""

    source: str
    part: str
    environment: str
    script: str
    options: tuple = ()
    view: tuple = ()  # flags of `ckpt-fs materialize`; none for what the real library wrote
    through: tuple = ()  # those of a view that the view is made of
    expected: str = "whole"
    compare: tuple = ()
    renames: bool = False  # whether the view has the names of transformers where the source has Megatron's
    label: str = ""

    @property
    def name(self):
        words = "".join(word.removeprefix("--") if word.startswith("--") else f"{word}," for word in map(str, (*self.through, *self.view, *self.options)))
        return "-".join(filter(None, (self.environment, self.source, self.part, self.script, words.strip(","), self.label)))


# Name: the environment that makes it, and how.
SOURCES = {
    # 0.16, which every kind of state and of names is made with.
    "dense-plain": ("mcore016", "make_megatron", "dense_tp2pp2_plain", "--rank-files"),
    "dense": ("mcore016", "make_megatron", "dense_tp2pp2_none", "--rank-files"),
    "dense-fused": ("mcore016", "make_megatron", "dense_tp1pp2_plainfused", "--rank-files"),
    "tied-virtual": ("mcore016", "make_megatron", "tied_tp1pp2vpp2_plain", "--rank-files"),
    "qknorm": ("mcore016", "make_megatron", "qknorm_tp2pp1_none", "--rank-files"),
    "moe": ("mcore016", "make_megatron", "moe_tp1pp1ep2_none", "--rank-files"),
    "moe-experts": ("mcore016", "make_megatron", "moe_tp1pp2ep2_plain", "--rank-files"),
    "moe-one": ("mcore016", "make_megatron", "moe_tp1pp1_plain", "--rank-files"),
    "moe-mixed": ("mcore016", "make_megatron", "moe8_tp1pp2ep2_none", "--rank-files"),
    "mla": ("mcore016", "make_megatron", "mla_tp1pp1_none", "--rank-files"),
    "mtp": ("mcore016", "make_megatron", "mtp_tp1pp1_none", "--rank-files"),
    # Under the names of Transformer Engine's modules.
    "dense-te": ("mcore016", "make_megatron", "qknorm_tp2pp1_plain", "--spec", "te-names"),
    "moe-te": ("mcore016", "make_megatron", "moe8_tp1pp2ep2_none", "--spec", "te-names"),
    "mla-te": ("mcore016", "make_megatron", "mla_tp1pp1_none", "--spec", "te-names"),
    "fully-reshardable": ("mcore016", "make_megatron", "dense_tp1pp1dp2_distfused", "--sharding", "fully_reshardable", "--rank-files"),
    "dp-reshardable": ("mcore016", "make_megatron", "dense_tp1pp1dp2_distfused", "--sharding", "dp_reshardable"),
    # Of models that transformers computes with as well.
    "as-llama": ("mcore016", "make_megatron", "llama_tp2pp2_plain", "--rank-files"),
    "as-llama-reshardable": ("mcore016", "make_megatron", "llama_tp1pp1dp2_distfused", "--sharding", "fully_reshardable"),
    "as-llama-buckets": ("mcore016", "make_megatron", "llama_tp1pp1dp2_distfused", "--sharding", "dp_reshardable"),
    "as-qwen3": ("mcore016", "make_megatron", "qwen3_tp2pp1_plain"),
    "dp-zero": ("mcore016", "make_megatron", "moe_tp1pp1ep2_distfused", "--sharding", "dp_zero_gather_scatter"),
    "moe-buckets": ("mcore016", "make_megatron", "moe_tp1pp1ep2_distfused", "--sharding", "dp_reshardable"),
    # Older ones and what only they write.
    "plain-014": ("mcore014", "make_megatron", "dense_tp2pp1_plainfused"),
    "plain-012": ("mcore012", "make_megatron", "dense_tp2pp1_plain"),
    "model-space": ("mcore012", "make_megatron", "dense_tp1pp1dp2_distfused", "--sharding", "fully_sharded_model_space"),
    "plain-head": ("head", "make_megatron", "dense_tp2pp1_plainfused"),
    # FSDP2 and accelerate.
    "llama": ("mcore016", "make_fsdp2", "llama"),
    "llama-tied-bf16": ("mcore016", "make_fsdp2", "llama-tied-bf16"),
    "llama-26": ("mcore012", "make_fsdp2", "llama"),
}


# Every version of megatron-core, and of torch.
VERSIONS = ("mcore012", "mcore014", "mcore016", "head")
TORCHES = VERSIONS[:3]

# Sources that FSDP2 saved.
FSDP_RUNS = ("llama", "llama-tied-bf16", "llama-26")

# Parts that FSDP2 saved, of which a view has to be told what model they are.
OF_FSDP = ("dcp", "accelerate")

# Runs of Megatron that FSDP2 goes on with.
OF_MEGATRON = (
    ("as-llama", "torch_dist"),
    ("as-llama", "rank_files"),
    ("as-llama-reshardable", "torch_dist"),
    ("as-llama-buckets", "torch_dist"),
    ("as-qwen3", "torch_dist"),
)

# As a distributed checkpoint of Megatron's.
DIST = ("--as", "torch_dist")

# Of a model that has been a directory of Hugging Face's meanwhile. Its config does not say what the vocabulary was padded to.
OF_HF = (*DIST, "--make-vocab-size-divisible-by", 2)


def loads(source, *options, environment=None, part="torch_dist", view=(), through=()):
    return Check(source, part, environment or SOURCES[source][0], "megatron_load", options, view, through)


def trains(source, *options, environment=None, part="torch_dist", view=()):
    return Check(source, part, environment or SOURCES[source][0], "megatron_train", options, view, expected="next")


# As one of FSDP's, in either layout.
DCP = ("--as", "dcp")
ACCELERATE = (*DCP, "--dcp-layout", "accelerate")

# The weights alone, where a source has no more.
WEIGHTS = ("--only", "model.")


def fsdp(source, part, *options, environment=None, view=(), expected="whole", compare=()):
    """That FSDP2 loads it."""
    return Check(source, part, environment or SOURCES[source][0], "fsdp2_load", options, view, expected=expected, compare=compare)


def resumes(source, part, environment=None, view=()):
    """That FSDP2 loads it in one layout, and in another takes the step that the run would have taken."""
    yield fsdp(source, part, "--nproc", 2, environment=environment, view=view)
    yield fsdp(source, part, "--nproc", 3, "--train-step", 2, environment=environment, view=view, expected="next")


def of_megatron(source, part, environment, script, *options, view=DCP, compare=()):
    """That a view of a run of Megatron, as a model of transformers, is loaded for it."""
    return Check(source, part, environment, script, options, view, compare=compare, renames=True)


CHECKS = [
    # What the real libraries wrote, in layouts that it was not written in: without this no check of a view means anything.
    loads("dense-plain", "--optimizer", "--pp", 4),
    trains("dense-plain", "--tp", 4),
    trains("dense-fused", "--tp", 2, "--adam", "fused"),
    trains("tied-virtual", "--tp", 2, "--pp", 2),
    loads("qknorm", "--pp", 2, "--vpp", 2),
    trains("moe-experts", "--ep", 4),
    trains("moe-one", "--pp", 2),
    loads("moe-mixed", "--tp", 2, "--ep", 2, "--etp", 1),
    loads("mla", "--tp", 2),
    loads("mtp", "--tp", 2),
    trains("dense-te", "--spec", "te-names", "--pp", 2),
    loads("moe-te", "--spec", "te-names", "--tp", 2, "--ep", 2, "--etp", 1),
    loads("mla-te", "--spec", "te-names", "--tp", 2),
    trains("fully-reshardable", "--tp", 2, "--pp", 2),
    trains("fully-reshardable", "--dp", 3, "--fully-parallel"),
    trains("dp-reshardable", "--dp", 4),
    trains("dp-zero", "--ep", 2),
    trains("moe-buckets", "--ep", 2),
    trains("moe-buckets", "--ep", 2, "--dp", 4),
    trains("plain-014", "--pp", 2, "--adam", "fused"),
    # With --pp 2 the later stage of 0.12 takes the weight decay of the other group: it has the groups in another order, and goes by number.
    trains("plain-012", "--tp", 1),
    trains("model-space", "--tp", 2),
    loads("dense-plain", "--optimizer", "--tp", 2, environment="head"),
    trains("plain-head", "--pp", 2, "--adam", "fused"),
    *(check for source in FSDP_RUNS for part in OF_FSDP for check in resumes(source, part)),
    *(Check(source, "dcp", SOURCES[source][0], "dcp_load", compare=("--part",)) for source in ("llama", "llama-26")),
    # Views.
    trains("dense-plain", "--pp", 4, part="rank_files", view=("--tp", 1, "--pp", 4)),
    *(trains("dense-plain", "--tp", 4, environment=version, part="rank_files", view=DIST) for version in ("mcore016", "head")),
    # These two have no more ranks than query groups. Of stages in 0.12 see plain-012.
    *(trains("dense-plain", "--tp", 1, environment=version, part="rank_files", view=DIST) for version in ("mcore012", "mcore014")),
    *(
        trains("tied-virtual", "--tp", 2, "--pp", 1 if version == "mcore012" else 2, environment=version, part="rank_files", view=DIST)
        for version in VERSIONS
    ),
    # 0.12 is left out where there are experts: it takes the bias of routers in 16 bits, and asks for an optimizer of each kind under a key of
    # its own, which later versions do only if the checkpoint says so.
    *(loads("moe", "--pp", 2, "--ep", 2, environment=version, part="rank_files", view=DIST) for version in VERSIONS[1:]),
    *(loads("moe", "--ep", 4, "--spec", "te-names", environment=version, part="rank_files", view=DIST) for version in VERSIONS[1:]),
    # Before 0.16 experts have no biases.
    *(
        loads("moe-mixed", "--tp", 2, "--ep", 2, "--etp", 1, environment=version, part="rank_files", view=DIST)
        for version in ("mcore016", "head")
    ),
    *(loads("mla", "--tp", 2, "--spec", "te-names", environment=version, part="rank_files", view=DIST) for version in VERSIONS),
    *(loads("mla", "--tp", 2, environment=version, part="rank_files", view=DIST) for version in VERSIONS),
    *(loads("mtp", "--tp", 2, environment=version, part="rank_files", view=DIST) for version in VERSIONS),
    loads("qknorm", "--pp", 2, "--vpp", 2, part="rank_files", view=DIST),
    trains("dense-fused", "--tp", 2, "--adam", "fused", part="rank_files", view=DIST),
    # Under both spellings of names, of models that have been a directory of Hugging Face's.
    *(
        loads(source, "--tp", 2, "--pp", pp, "--spec", spec, environment=version, part="rank_files", through=("--as", "hf"),
              view=(*OF_HF, "--megatron-spec", "te" if spec == "te-names" else "local"))
        for source in ("dense", "qknorm")
        for spec, pp in (("local", 1), ("te-names", 2))
        for version in VERSIONS
    ),
    # Experts with an optimizer of their own, and without.
    *(trains("moe-experts", "--ep", 4, environment=version, part="rank_files", view=DIST) for version in VERSIONS[1:]),
    trains("moe-one", "--pp", 2, part="rank_files", view=DIST),
    # A distributed optimizer, and as one that is not for versions that cannot reshard it.
    trains("fully-reshardable", "--tp", 2, "--pp", 2, part="rank_files", view=DIST),
    trains("fully-reshardable", "--tp", 2, "--dp", 2, environment="head", part="rank_files", view=DIST),
    *(
        trains("fully-reshardable", "--tp", 2, "--adam", "fused", environment=version, part="rank_files", view=(*DIST, "--optimizer", "mixed"))
        for version in VERSIONS
    ),
    loads("dense-plain", "--optimizer", "--tp", 2, "--dp", 2, part="rank_files", view=(*DIST, "--optimizer", "distributed")),
    # Flat buffers of two optimizers, one of them the experts'.
    *(trains(source, "--ep", 2, view=DIST) for source in ("dp-zero", "moe-buckets")),
    *(trains(source, "--ep", 4, view=("--ep", 4)) for source in ("dp-zero", "moe-buckets")),
    # What was one already: whatever form its optimizer had, and with the names of Transformer Engine's modules.
    *(trains(source, "--tp", 2, "--pp", 2, view=DIST) for source in ("dense-plain", "fully-reshardable", "dp-reshardable")),
    trains("plain-014", "--pp", 2, "--adam", "fused", view=DIST),
    trains("model-space", "--tp", 2, "--adam", "fused", environment="mcore014", view=(*DIST, "--optimizer", "mixed")),
    trains("dense-te", "--spec", "te-names", "--pp", 2, view=DIST),
    loads("moe-te", "--spec", "te-names", "--tp", 2, "--ep", 2, "--etp", 1, view=DIST),
    loads("mla-te", "--spec", "te-names", "--tp", 2, view=DIST),
    # For FSDP2, and for accelerate's own functions: of what they saved, with a step of the optimizer.
    *(check for source in FSDP_RUNS for part in OF_FSDP for view in (DCP, ACCELERATE) for check in resumes(source, part, view=view)),
    *resumes("llama", "dcp", view=(*DCP, "--shard-size", "20kB")),
    # A torch takes views of what a newer one saved, which it cannot read itself.
    fsdp("llama", "dcp", "--nproc", 2, environment="mcore012", view=DCP),
    *(Check("llama", "dcp", version, "dcp_load", view=DCP, compare=("--part",)) for version in TORCHES),
    *(Check("llama-tied-bf16", "accelerate", version, "dcp_load", view=DCP, compare=("--part",)) for version in TORCHES),
    # Of a directory of Hugging Face's.
    *(
        fsdp(source, "hf", "--nproc", 2, "--weights", environment=version, view=view, compare=WEIGHTS)
        for source in ("llama", "llama-tied-bf16")
        for view in (DCP, ACCELERATE)
        for version in ("mcore012", "mcore016")
    ),
    *(Check("llama", "hf", version, "dcp_load", view=DCP, compare=WEIGHTS) for version in TORCHES),
    *(Check("llama", part, "mcore016", "accelerate_merge", view=ACCELERATE, compare=WEIGHTS) for part in ("hf", "dcp")),
    # Of runs of Megatron: weights as they are, and with the optimizer in 32 bits.
    *(
        check
        for source, part in OF_MEGATRON
        for version in ("mcore012", "mcore016")
        for check in (
            of_megatron(source, part, version, "fsdp2_load", "--nproc", 2, "--weights", compare=WEIGHTS),
            of_megatron(source, part, version, "fsdp2_load", "--nproc", 2, "--of-megatron", compare=("--masters",)),
        )
    ),
    of_megatron("as-llama", "torch_dist", "mcore016", "fsdp2_load", "--nproc", 2, "--weights", view=ACCELERATE, compare=WEIGHTS),
    *(of_megatron(source, "torch_dist", version, "dcp_load") for source in ("as-llama", "as-llama-buckets") for version in TORCHES),
]
