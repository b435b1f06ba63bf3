"""Programs that pages name and a test cannot run: each looks at what it is given as the real one would, and refuses the rest.

usage: programs.py NAME ARGUMENT...

What is not known here fails: a page cannot name an option that nobody has looked at.
"""

import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Places of a machine that pages name; they are directories of the stage (`stage`).
PLACES = "mnt|data|models|ckpt|scratch|view|sbin|etc/ckpt-fs|etc/slurm|run/ckpt-fs|var/lib/ckpt-fs|var/lib/prometheus"
PLACE = re.compile(rf"(?<![\w.~)}}/-])/(?:{PLACES})(?=[/\s\"'):,;]|$)", re.M)


def fail(message):
    sys.exit(f"{sys.argv[1]} (a stand-in of the tests): {message}")


def stage():
    return os.environ["CKPT_FS_STAGE"]


def here(text):
    """Places of a page as they are in the stage."""
    return PLACE.sub(lambda place: f"{stage()}{place[0]}", text)


def options(words, values="", flags=""):
    """({option: value}, other words); an option in none of the two lists fails."""
    values, flags, found, rest = values.split(), flags.split(), {}, []
    words = list(words)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in values:
            found[name] = value if equals else words.pop(0)
        elif word in flags:
            found[word] = True
        elif word.startswith("-"):
            fail(f"no test knows the option {word}")
        else:
            rest.append(word)
    return found, rest


def read_whole(path):
    """Every byte, as a loader reads them."""
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass


def safetensors(path):
    """The names of the tensors of a file that safetensors opens."""
    from safetensors import safe_open

    read_whole(path)
    with safe_open(path, "np") as file:
        return set(file.keys())


def model(directory):
    """A directory that from_pretrained and vLLM take."""
    config = json.loads((directory / "config.json").read_text())
    index = directory / "model.safetensors.index.json"
    files = sorted(directory.glob("model*.safetensors"))
    names = set().union(*map(safetensors, files)) if files else fail(f"{directory} has no weights")
    if index.exists() and set(json.loads(index.read_text())["weight_map"]) != names:
        fail(f"{index} names other tensors than the files have")
    if not any("embed" in name for name in names) or not config["architectures"]:
        fail(f"{directory} is no model")


def engine_ranks(directory, ranks):
    """A directory for --load-format sharded_state: a file for each process."""
    json.loads((directory / "config.json").read_text())
    files = {path.name for path in directory.glob("model-rank-*.safetensors")}
    wanted = {f"model-rank-{rank}-part-0.safetensors" for rank in range(ranks)}
    if files != wanted:
        fail(f"{directory} has {sorted(files)}, not {sorted(wanted)}")
    for name in files:
        safetensors(directory / name)


def distributed(directory):
    """A directory of torch.distributed.checkpoint."""
    if not (directory / ".metadata").stat().st_size or not list(directory.glob("*.distcp")):
        fail(f"{directory} is no distributed checkpoint")
    for path in directory.iterdir():
        read_whole(path)


def megatron(directory, given):
    """A directory that Megatron loads with these flags."""
    tracker = (directory / "latest_checkpointed_iteration.txt").read_text().strip()
    iteration = directory / ("release" if tracker == "release" else f"iter_{int(tracker):07}")
    if given.get("--ckpt-format") == "torch_dist":
        distributed(iteration)
        return
    tp = int(given.get("--tensor-model-parallel-size", 1))
    pp = int(given.get("--pipeline-model-parallel-size", 1))
    ranks = {f"mp_rank_{t:02}" + (f"_{p:03}" if pp > 1 else "") for t in range(tp) for p in range(pp)}
    found = {path.name for path in iteration.iterdir()}
    if found != ranks:
        fail(f"{iteration} has {sorted(found)}, and a run with these flags loads {sorted(ranks)}")
    for rank in ranks:
        with zipfile.ZipFile(iteration / rank / "model_optim_rng.pt") as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                fail(f"{rank} is no torch file")
        read_whole(iteration / rank / "model_optim_rng.pt")


LAUNCH = "--nproc-per-node --nnodes --rdzv-backend --rdzv-endpoint"
MEGATRON = """--load --save --tensor-model-parallel-size --pipeline-model-parallel-size --ckpt-format --transformer-impl --norm-epsilon
    --decoder-first-pipeline-num-layers"""
MEGATRON_FLAGS = "--use-checkpoint-args --no-load-optim --no-load-rng --finetune --bf16 --use-distributed-optimizer --exit-on-missing-checkpoint"


def torchrun(words):
    given, rest = options(words, f"{LAUNCH} {MEGATRON} --checkpoint --model", MEGATRON_FLAGS)
    if not rest or not rest[0].endswith(".py"):
        fail(f"a program is missing: {words}")
    if "--load" in given:
        megatron(Path(given["--load"]), given)
    elif "--checkpoint" in given:
        distributed(Path(given["--checkpoint"]))
    else:
        model(Path(given["--model"]))


def engine(given, path, size, name="--load-format"):
    ranks = int(given.get(size, 1))
    if given.get(name) == "sharded_state":
        engine_ranks(Path(path), ranks)
    else:
        model(Path(path))


def vllm(words):
    values = "--tensor-parallel-size --load-format --port --served-model-name --safetensors-load-strategy"
    given, rest = options(words, values, "")
    if len(rest) != 2 or rest[0] != "serve":
        fail(f"not 'serve' and a model: {rest}")
    engine(given, rest[1], "--tensor-parallel-size")


def lm_eval(words):
    given, rest = options(words, "--model --model_args --tasks --output_path", "")
    arguments = dict(pair.split("=") for pair in given["--model_args"].split(","))
    if rest or given["--model"] not in ("hf", "vllm"):
        fail(f"not understood: {words}")
    model(Path(arguments["pretrained"]))


def python(words):
    if words[:2] == ["-m", "sglang.launch_server"]:
        given, rest = options(words[2:], "--model-path --tp-size --load-format --port", "")
        if rest:
            fail(f"not understood: {rest}")
        engine(given, given["--model-path"], "--tp-size")
    elif words[:2] == ["-m", "twine"]:
        if words[2:3] != ["upload"]:
            fail(f"not understood: {words}")
    else:
        os.execv(sys.executable, [sys.executable, *words])


def as_root(name, words):
    """The program itself, for what only root can do; others do nothing."""
    if os.geteuid() == 0:
        others = [place for place in os.environ["PATH"].split(":") if place != f"{stage()}/bin"]
        program = shutil.which(name, path=":".join([*others, "/usr/sbin", "/sbin"])) or fail("it is not here")
        os.execv(program, [name, *words])


def mount(words):
    """mount(8), of the type that the helper is for; without a helper the real one, for a descriptor."""
    if words[:1] == ["-i"]:
        as_root("mount", words)
        return
    given, rest = options(words, "-t -o", "")
    if given["-t"] != "ckpt-fs" or len(rest) != 2:
        fail(f"not understood: {words}")
    subprocess.run([f"{stage()}/sbin/mount.ckpt-fs", *rest, *(["-o", given["-o"]] if "-o" in given else [])], check=True)


def mount_fuse3(words):
    as_root("mount.fuse3", words)


def setpriv(words):
    """The user stays: nobody else may look into the stage."""
    while words and words[0].startswith("--"):
        if not re.fullmatch(r"--(reuid|regid)=\d+|--clear-groups", words[0]):
            fail(f"no test knows the option {words[0]}")
        words = words[1:]
    if os.geteuid() == 0:
        os.execvp(words[0], words)


def systemctl(words):
    """The unit in deploy/, with the configuration that it names."""
    given, rest = options(words, "", "--now")
    action, unit = rest
    name = re.fullmatch(r"ckpt-fs@([\w-]+)", unit)[1]
    lines = (ROOT / "deploy" / "ckpt-fs@.service").read_text().splitlines()
    start = shlex.split(next(line for line in lines if line.startswith("ExecStart=")).partition("=")[2])
    text = here(Path(f"{stage()}/etc/ckpt-fs/{name}.conf").read_text())
    variables = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    if action in ("start", "enable"):
        command = [variables[word[2:-1]] if word.startswith("${") else word for word in start]
        at = command.index("$OPTIONS")
        command[at : at + 1] = shlex.split(variables.get("OPTIONS", ""))
        command = ["ckpt-fs", *(word for word in command[1:] if word != "--foreground")]
        Path(variables["MOUNTPOINT"]).mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True)
    elif action in ("stop", "disable"):
        subprocess.run(["ckpt-fs", "unmount", variables["MOUNTPOINT"]], check=True)
    else:
        fail(f"not understood: {words}")


def job():
    """What Slurm tells a job, its prolog and its epilog."""
    user = {"SLURM_JOB_USER": pwd.getpwuid(os.getuid()).pw_name, "SLURM_JOB_UID": str(os.getuid())}
    return {**os.environ, **user, "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2"}


def srun(words):
    """One task, as on one node."""
    while words and words[0].startswith("--"):
        if not re.fullmatch(r"--(overlap|label|kill-on-bad-exit=1|(ntasks|ntasks-per-node|nodes|gpus-per-node|cpus-per-task)=\d+)", words[0]):
            fail(f"no test knows the option {words[0]}")
        words = words[1:]
    # In its place, so that a signal reaches the task, as Slurm hands it on.
    os.execvpe(words[0], words, {**os.environ, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"})


def sbatch(words):
    """The prolog of the node, the job, the epilog, as slurmd runs them."""
    given, rest = options(words, "--comment", "")
    lines = Path(rest[0]).read_text().splitlines()
    if not lines[0].startswith("#!"):
        fail(f"{rest[0]} has no interpreter")
    for line in lines:
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line, comments=False)[1:]
            name, _, value = word.partition("=")
            if name not in ("--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--comment"):
                fail(f"no test knows {line}")
            given.setdefault(name, value)
    environment = {**job(), "CKPT_FS_MOUNTS": f"{stage()}/run/ckpt-fs"}
    if comment := given.get("--comment"):
        environment["SLURM_JOB_COMMENT"] = here(comment)
    slurm = ROOT / "deploy" / "slurm"
    codes = []
    for script in (slurm / "prolog.sh", rest[0], slurm / "epilog.sh"):
        text = here(Path(script).read_text())
        codes.append(subprocess.run(["bash", "-c", text, str(script), *rest[1:]], env=environment).returncode)
    sys.exit(max(codes))


def scontrol(words):
    if words != ["show", "hostnames", "node[1-2]"]:
        fail(f"not understood: {words}")
    print("node1\nnode2")


def kubectl(words):
    """What is applied must be what Kubernetes takes, as far as its schemas say it."""
    if words[0] in ("get", "logs", "exec", "delete"):
        return
    given, rest = options(words, "-f", "")
    if rest != ["apply"]:
        fail(f"not understood: {words}")
    import yaml

    for document in yaml.safe_load_all(Path(given["-f"]).read_text()):
        if not document.get("kind") or not document["metadata"]["name"]:
            fail(f"{given['-f']} is no manifest")


def curl(words):
    """Of this machine alone."""
    given, rest = options(words, "", "-s -f --silent --fail")
    if len(rest) != 1 or not re.match(r"http://(localhost|127\.0\.0\.1):", rest[0]):
        fail(f"not understood: {words}")
    with urllib.request.urlopen(rest[0], timeout=20) as answer:
        sys.stdout.buffer.write(answer.read())


def pip(words):
    given, rest = options(words, "", "--upgrade")
    if rest not in (["install", "ckpt-fs"], ["install", "ckpt-fs[fsspec]"]):
        fail(f"not understood: {words}")


def cargo(words):
    if words[0] not in ("install", "build", "test", "clippy", "fmt", "publish"):
        fail(f"not understood: {words}")
    options(words[1:], "--path --test", "--locked --quiet --release --all-targets --lib --no-run --check")


PROGRAMS = {
    "torchrun": torchrun,
    "vllm": vllm,
    "lm_eval": lm_eval,
    "python": python,
    "python3": python,
    "mount": mount,
    "mount.fuse3": mount_fuse3,
    "setpriv": setpriv,
    "systemctl": systemctl,
    "srun": srun,
    "sbatch": sbatch,
    "scontrol": scontrol,
    "kubectl": kubectl,
    "curl": curl,
    "pip": pip,
    "cargo": cargo,
}
NAMES = tuple(PROGRAMS)

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2:])
