"""What every benchmark needs: tables with medians and spreads, pairs measured one after the other, CPU seconds of reader and daemon."""

import contextlib
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from cgroups import memory_group, memory_root  # noqa: E402, F401
from support import Mount, binary, manifest  # noqa: E402, F401

LOADER = Path(__file__).with_name("loader.py")
LOADER_INPUT = threading.Lock()


def torch_python():
    """An interpreter that has torch: this one, or that of scripts/test."""
    named = os.environ.get("CKPT_FS_PYTHON", sys.executable)
    for python in filter(shutil.which, (named, str(ROOT / ".venv/bin/python"))):
        if subprocess.run([python, "-c", "import torch, safetensors"], capture_output=True).returncode == 0:
            return python
    sys.exit("bench: torch is missing; scripts/test --python makes .venv with it")


def run(*command, **options):
    """Runs a command that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def timed(*command):
    """Wall seconds of a command that must succeed."""
    begin = time.perf_counter()
    run(*command)
    return time.perf_counter() - begin


def size(path):
    return sum(p.stat().st_size for p in Path(path).rglob("*") if p.is_file())


def warm(*paths):
    """Brings files into the page cache."""
    for path in paths:
        for item in sorted(Path(path).rglob("*")):
            if item.is_file():
                with open(item, "rb", buffering=0) as file:
                    while file.read(8 << 20):
                        pass


def cool(*paths):
    """Takes files out of the page cache."""
    os.sync()
    for path in paths:
        for item in Path(path).rglob("*"):
            if item.is_file():
                with open(item, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def status(mount):
    return json.loads(run(binary(), "status", mount, "--json"))["status"]


def daemon_cpu(mount):
    """CPU seconds that the process of a mount has used."""
    fields = Path(f"/proc/{status(mount)['pid']}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def storage_reads(mount):
    """Bytes that the process of a mount has had fetched from storage."""
    lines = Path(f"/proc/{status(mount)['pid']}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def memory_fields(pid):
    """What the kernel tells of a process's memory, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("VmHWM", "Rss")))
    return {name.rstrip(":"): int(kb) / 1000 for name, kb, *_ in fields}


def peak_memory(mount):
    """Peak resident memory of a mount's process in MB."""
    return memory_fields(status(mount)["pid"])["VmHWM"]


class PeakOwn:
    """`with PeakOwn(mount) as peak:` samples the memory of a mount's process without pages of mapped files; `peak.mb` is the most seen."""

    def __init__(self, mount):
        self.pid, self.mb, self.over = status(mount)["pid"], 0, threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self):
        while not self.over.wait(0.01):
            fields = memory_fields(self.pid)
            self.mb = max(self.mb, fields["RssAnon"] + fields["RssShmem"])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Sample:
    """One measurement: seconds, CPU seconds of everybody, bytes."""

    def __init__(self, wall, cpu, count):
        self.wall, self.cpu, self.bytes = wall, cpu, count

    @property
    def cpu_per_gb(self):
        return self.cpu / self.bytes * 1e9


@functools.cache
def loader(python):
    """The process that loads; it ends with this one, when its input does."""
    return subprocess.Popen([python, LOADER], stdin=subprocess.PIPE, text=True)


def load(python, how, root, mount=None):
    """Loads everything below `root` in a process of its own, as loader.py knows `how`. `mount`: whose daemon's CPU time to add."""
    server = loader(python)
    with tempfile.TemporaryDirectory(prefix="ckpt-fs-bench-") as directory:
        fifo = Path(directory) / "answer"
        os.mkfifo(fifo)
        before = daemon_cpu(mount) if mount else 0.0
        with LOADER_INPUT:
            server.stdin.write(json.dumps([how, str(root), str(fifo)]) + "\n")
            server.stdin.flush()
        answer = fifo.read_text()
    if not answer:
        sys.exit(f"bench: cannot load {root} ({how})")
    wall, cpu, count = json.loads(answer)
    return Sample(wall, cpu + (daemon_cpu(mount) - before if mount else 0.0), count)


class Table:
    """Rows of median, spread and target; remembers whether any target was missed."""

    missed = False
    plotted = []

    def __init__(self, title):
        self.title = title
        print(f"\n### {title}\n\n| what | median | min .. max | runs | CPU s/GB | target | |\n|---|---|---|---|---|---|---|")

    def row(self, what, values, unit="s", limit=None, at_least=False, cpu=None):
        middle = statistics.median(values)
        verdict = target = ""
        if limit is not None:
            good = middle >= limit if at_least else middle <= limit
            verdict, target = ("ok" if good else "MISSED"), f"{'>=' if at_least else '<='} {limit:g} {unit}"
            Table.missed |= not good
        spread = f"{min(values):.3g} .. {max(values):.3g}"
        seconds = "" if cpu is None else f"{statistics.median(cpu):.2f}"
        cells = (what, f"{middle:.3g} {unit}", spread, str(len(values)), seconds, target, verdict)
        print("| " + " | ".join(cells) + " |", flush=True)

    def pairs(self, pairs, limit=None, native="native files", ours="mounted view"):
        """Rows for [(native Sample, our Sample)], and their ratio: native time / our time, more is better."""
        ratios = [a.wall / b.wall for a, b in pairs]
        for name, samples in ((native, [a for a, _ in pairs]), (ours, [b for _, b in pairs])):
            self.row(name, [s.wall for s in samples], cpu=[s.cpu_per_gb for s in samples])
        self.row(f"{native} / {ours}", ratios, "x", limit, at_least=True)
        Table.plotted.append((self.title, statistics.median(ratios), min(ratios), max(ratios), limit))


def alternate(repeats, first, second):
    """[(what `first` measured, what `second` did)], the order changing from turn to turn."""
    pairs = []
    for turn in range(repeats):
        done = {}
        for which in (first, second) if turn % 2 else (second, first):
            done[which] = which()
        pairs.append((done[first], done[second]))
    return pairs


@contextlib.contextmanager
def emptied(directory):
    """A directory that is not there, before and after."""
    shutil.rmtree(directory, ignore_errors=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def machine():
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    busy = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GB; Linux {platform.release()}; load at start {busy}"
