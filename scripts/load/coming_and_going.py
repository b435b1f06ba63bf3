"""What a soak does at random: one function each, called from several threads at once. Each checks what it got.

Not here: how long, and whether anything grew or was left behind (`scripts/soak`).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from . import daemons, model, modes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from support import TIMEOUT, binary, ckpt_fs, daemon_pid, detach, is_mounted, same_files, until  # noqa: E402

LAYOUTS = [(tp, pp) for tp in (1, 2, 4) for pp in (1, 2, 4)]
FORMATS = ("megatron", "safetensors", "hf", "vllm")


class Wrong(Exception):
    """Something came out otherwise than it should."""


class World:
    """Two sources, copies of their views, and the mounts that live all the time."""

    def __init__(self, work):
        self.work, self.numbers, self.lock = work, iter(range(1 << 62)), threading.Lock()
        self.counts, self.temporary = Counter(), work / "tmp"
        self.temporary.mkdir()
        self.environment = {**os.environ, "TMPDIR": str(self.temporary)}
        self.model = model.make(work / "model", layers=4)
        self.megatron = work / "megatron"
        ckpt_fs("materialize", self.model, self.megatron, "--as", "megatron", "--tp", 1, "--pp", 2)
        self.digest = ckpt_fs("digest", self.megatron).stdout.split()[0]
        self.copies = {}
        for layout in (modes.PT, modes.SAFETENSORS):
            self.copies[layout] = work / f"copy-{layout[1]}"
            ckpt_fs("materialize", self.model, self.copies[layout], *layout)
        self.lasting = {}

    def mount_lasting(self):
        """Mounts that serve readers until the end. Little is kept, so that it gives way all the time."""
        self.lasting["every layout"] = self.mount(self.megatron, "--cache-size", "4MiB")
        for mode in ("pt-direct", "pt-cached-little-kept", "safetensors-cached-little-kept"):
            self.lasting[mode] = self.mount(self.model, *self.mode(mode))

    def mode(self, mode):
        copy = self.copies[modes.MODES[mode][0]]
        return modes.flags(mode, sum(path.stat().st_size for path in copy.rglob("*") if path.is_file()))

    def mount(self, source, *flags):
        point = self.fresh("mount")
        point.mkdir()
        ckpt_fs("mount", source, point, *flags, env=self.environment)
        return point

    def figures(self, name, pid):
        """What the process of a lasting mount holds."""
        status = json.loads(ckpt_fs("status", self.lasting[name], "--json").stdout)["status"]
        return daemons.figures(pid, status["cache"]["files"])

    def fresh(self, name):
        with self.lock:
            return self.work / f"{name}-{next(self.numbers)}"

    def reader(self, view, mode, dice, count, *, threads=4):
        """The read fuzzer on a view; its processes are a group of their own."""
        command = [ROOT / "scripts/read-fuzzer", view, self.copies[modes.MODES[mode][0]], "--seed", dice.randrange(1 << 30)]
        command += ["--operations", count, "--threads", threads, "--processes", dice.choice((1, 2)), "--timeout", TIMEOUT]
        words = [sys.executable, *map(str, command)]
        return subprocess.Popen(words, env=self.environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def must_succeed(reader):
    said, _ = reader.communicate(timeout=2 * TIMEOUT)
    if reader.returncode != 0:
        raise Wrong(f"readers: exit {reader.returncode}\n{said}")


def kill(reader):
    """All processes of a reader at once, whatever they are in the middle of."""
    os.killpg(reader.pid, signal.SIGKILL)
    reader.communicate(timeout=TIMEOUT)


def read_a_lasting_mount(world, dice):
    mode = dice.choice([name for name in world.lasting if name in modes.MODES])
    must_succeed(world.reader(world.lasting[mode], mode, dice, 400))


def kill_readers(world, dice):
    mode = dice.choice([name for name in world.lasting if name in modes.MODES])
    reader = world.reader(world.lasting[mode], mode, dice, 1_000_000, threads=8)
    until(lambda: children(reader.pid) or reader.poll() is not None, "readers to start")
    threading.Event().wait(dice.random() * 0.5)  # in the middle of whatever they do
    kill(reader)


def children(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def come_and_go(world, dice):
    """A mount in some mode, read, and taken away in one of the ways there are."""
    mode = dice.choice(list(modes.MODES))
    point = world.mount(world.model, *world.mode(mode))
    try:
        pid = daemon_pid(point)
        must_succeed(world.reader(point, mode, dice, 200))
        ends = {
            "unmount": lambda: ckpt_fs("unmount", point),
            "lazily": lambda: lazily(world, point, mode, dice),
            "umount": lambda: subprocess.run(["umount", str(point)], check=True, timeout=TIMEOUT),
            "SIGTERM": lambda: os.kill(pid, signal.SIGTERM),
            "SIGKILL": lambda: killed(point, pid),
        }
        ends[dice.choice(list(ends))]()
        until(lambda: not is_mounted(point), "the mount to go")
        until(lambda: daemon_pid(point) is None, "its process to end")
    finally:
        if is_mounted(point):
            detach(point)
    point.rmdir()


def lazily(world, point, mode, dice):
    """Under readers, who then see it end, and are killed."""
    reader = world.reader(point, mode, dice, 1_000_000)
    until(lambda: children(reader.pid) or reader.poll() is not None, "readers to start")
    ckpt_fs("unmount", point, "--lazy")
    kill(reader)


def killed(point, pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemon_pid(point) is None, "the killed process to end")
    ckpt_fs("unmount", point, check=False)


def visit_a_layout(world, dice):
    """One that is made when it is looked at; its weights are those of the source."""
    tp, pp = dice.choice(LAYOUTS)
    where = world.lasting["every layout"]
    where = where if dice.random() < 0.5 else where / "safetensors"
    found = ckpt_fs("digest", where / f"tp{tp}pp{pp}").stdout.split()[0]
    if found != world.digest:
        raise Wrong(f"tp{tp}pp{pp}: digest {found} instead of {world.digest}")


def materialize(world, dice):
    """A copy; now and then killed and begun again, which clears away what was left."""
    tp, pp = dice.choice(LAYOUTS)
    home = world.fresh("copies")
    home.mkdir()
    flags = ("--as", dice.choice(("megatron", "safetensors")), "--tp", tp, "--pp", pp)
    if dice.random() < 0.5:
        command = [binary(), "materialize", str(world.model), str(home / "copy"), *map(str, flags)]
        job = subprocess.Popen(command, env=world.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        threading.Event().wait(dice.random() * 0.05)
        job.send_signal(dice.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
        job.wait(TIMEOUT)
        shutil.rmtree(home / "copy", ignore_errors=True)
    ckpt_fs("materialize", world.model, home / "copy", *flags, env=world.environment)
    if flags == modes.PT and same_files(home / "copy", world.copies[modes.PT]):
        raise Wrong("a copy differs from another")
    if (left := [name for name in os.listdir(home) if name != "copy"]):
        raise Wrong(f"materialize left {left}")
    shutil.rmtree(home)


def warm_up(world, dice):
    ckpt_fs("warmup", dice.choice(list(world.lasting.values())))


def ask(world, dice):
    if dice.random() < 0.5:
        ckpt_fs("status", "--json")
    else:
        ckpt_fs("status", dice.choice(list(world.lasting.values())))


def look_around(world, dice):
    """Every name and size of every mount, as find and ls do."""
    for root in world.lasting.values():
        for directory, _, names in os.walk(root):
            for name in names:
                os.stat(os.path.join(directory, name))


KINDS = {
    read_a_lasting_mount: 4, kill_readers: 3, come_and_go: 5, visit_a_layout: 3, materialize: 3, warm_up: 1, ask: 1, look_around: 1,
}


def act(world, seed, keep_on):
    """One thread's share: things at random as long as `keep_on()` says so."""
    dice = random.Random(seed)
    while keep_on():
        kind = dice.choices(list(KINDS), KINDS.values())[0]
        kind(world, dice)
        with world.lock:
            world.counts[kind.__name__.replace("_", " ")] += 1
