"""What every test needs: the binary, the fixtures, mounts that always go away, and skips that cannot be overlooked."""

import contextlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
EXPECTED = FIXTURES / "expected"
KINDS = (
    "yuan-tiny",
    "gpt-tiny",
    "megatron-tiny/untied",
    "megatron-tiny/tied_padvocab",
    "megatron-tiny/moe",
    "mcore-tiny/tied",
    "mcore-tiny/moe",
)
TIMEOUT = 60
NO_FUSE = 8  # exit code of `ckpt-fs mount` where the machine cannot mount

sys.dont_write_bytecode = True


def _load_manifest_reader():
    """scripts/fixture-manifest as a module: the reader that shares no code with ckpt-fs."""
    path = str(ROOT / "scripts" / "fixture-manifest")
    loader = importlib.machinery.SourceFileLoader("fixture_manifest", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


manifest = _load_manifest_reader()


def must_run():
    """CI may not skip: a skipped test there is a test that nobody runs."""
    return os.environ.get("CKPT_FS_REQUIRE_ALL") == "1" or os.environ.get("CI") == "true"


def need(condition, what):
    """Skip loudly when something is missing on this machine, or fail where skipping is not allowed."""
    if condition:
        return
    if must_run():
        raise AssertionError(f"{what} is missing, and nothing may be skipped here")
    print(f"\nSKIPPED, {what} is missing", file=sys.stderr, flush=True)
    raise unittest.SkipTest(f"{what} is missing")


def need_program(name):
    need(shutil.which(name), f"the program {name}")


def need_torch():
    """torch, with the classes that real checkpoints mention."""
    need(importlib.util.find_spec("torch"), "the Python package torch")
    import standins
    import torch

    standins.install()
    return torch


def module():
    """The Python package of this clone, over the binary that the tests run."""
    where = str(ROOT / "python")
    if where not in sys.path:
        sys.path.insert(0, where)
    os.environ["CKPT_FS_BIN"] = binary()
    import ckpt_fs as package

    return package


def binary():
    """The release binary: CKPT_FS_BIN, or where cargo put it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = Path(os.environ.get("CKPT_FS_BIN", target / "release" / "ckpt-fs"))
    if not path.exists():
        raise AssertionError(f"{path} does not exist; build it with cargo build --release")
    return str(path.absolute())


def ckpt_fs(*arguments, check=True, **options):
    """Run the binary to its end."""
    options = {"timeout": TIMEOUT, "text": True, "capture_output": True, **options}
    done = subprocess.run([binary(), *map(str, arguments)], **options)
    if check and done.returncode != 0:
        raise AssertionError(f"ckpt-fs {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
    return done


def exact(*flags):
    """The flags, with sums that are those of copies, where the files have any."""
    has_sums = not {"safetensors", "hf", "vllm", "sglang"} & set(flags)
    return (*flags, "--crc", "exact") if has_sums else flags


def digest(source, *flags):
    """The fingerprint alone; the line also says of what."""
    return ckpt_fs("digest", source, *flags).stdout.split()[0]


def run(*command, **options):
    """Run another program and insist that it succeeds."""
    options = {"timeout": TIMEOUT, "text": True, "capture_output": True, **options}
    done = subprocess.run([str(part) for part in command], **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def until(condition, what, seconds=20):
    """Poll, because the kernel and other processes tell nobody when they are done."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


def is_mounted(path):
    """True also for a dead mount, which os.path.ismount cannot stat."""
    with open("/proc/self/mounts") as mounts:
        points = (re.sub(r"\\([0-3][0-7]{2})", lambda octal: chr(int(octal[1], 8)), line.split()[1]) for line in mounts)
        return any(point == str(path) for point in points)


def detach(path):
    """Take a mount away even when its daemon is gone."""
    command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*command, str(path)], capture_output=True, timeout=TIMEOUT)


def unmount(path):
    """Unmount politely, then by force; never leave a mount behind."""
    if not is_mounted(path):
        return
    with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
        ckpt_fs("unmount", path, check=False, timeout=20)
    if is_mounted(path):
        detach(path)


def daemon_pid(mount_point):
    """The process that serves a mount: our binary, with this (unique, temporary) path among its arguments, and not its watcher."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if str(mount_point) in words and "watch-mount" not in words and os.readlink(entry / "exe").startswith(os.path.realpath(binary())):
                return int(entry.name)
    return None


class Mount:
    """`with Mount(source, "--tp", 2) as path:` — a mount through the kernel that always goes away. `started` is how its process is started."""

    def __init__(self, source, *options, name="view", **started):
        self.source, self.options, self.name, self.started = source, options, name, started

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="ckpt-fs-test-")
        self.path = Path(self.directory) / self.name
        self.path.mkdir()
        try:
            done = ckpt_fs("mount", self.source, self.path, *self.options, check=False, **self.started)
            need(done.returncode != NO_FUSE, f"FUSE ({done.stderr.strip()})")
            if done.returncode != 0:
                raise AssertionError(f"mount {self.source} {self.options}: exit {done.returncode}\n{done.stderr}")
            if not is_mounted(self.path):
                raise AssertionError("mount returned before the mount was live")
        except BaseException:
            self.__exit__()
            raise
        return self.path

    def __exit__(self, *_):
        unmount(self.path)
        if not is_mounted(self.path):
            shutil.rmtree(self.directory, ignore_errors=True)


class ForegroundMount(Mount):
    """The same with `-f`: the daemon is a child of the test, whose process id and exit code are known."""

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="ckpt-fs-test-")
        self.path = Path(self.directory) / self.name
        self.path.mkdir()
        command = [binary(), "mount", str(self.source), str(self.path), "-f", *map(str, self.options)]
        self.log = open(Path(self.directory) / "stderr", "w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, **self.started)
        try:
            until(lambda: os.path.ismount(self.path) or self.process.poll() is not None, "the mount")
            if self.process.poll() is not None:
                self.log.seek(0)
                need(self.process.returncode != NO_FUSE, "FUSE")
                raise AssertionError(f"mount -f ended: {self.log.read()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        unmount(self.path)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(20)
        self.log.close()
        if is_mounted(self.path):
            detach(self.path)
        shutil.rmtree(self.directory, ignore_errors=True)


def expected(kind, name):
    """The manifest of the checkpoint that training wrote."""
    return manifest.read(EXPECTED / kind / f"{name}.json")


def expected_names(kind, source=None):
    """Manifests of a kind; of a `source`, those that keep the optimizer's state as it does."""
    names = sorted(path.stem for path in (EXPECTED / kind).glob("*.json"))
    return [name for name in names if source is None or encoding(name) == encoding(source)]


def encoding(name):
    """How a checkpoint keeps the optimizer's state, by the end of its name; nothing where it keeps none."""
    end = name.rpartition("_")[2]
    return end if end in ("f16", "plain", "dist", "distb1000") else ""


def fixture_roots():
    """The committed fixtures, and the full set when CKPT_FS_FIXTURES names it."""
    more = os.environ.get("CKPT_FS_FIXTURES")
    return [FIXTURES] + ([Path(more)] if more else [])


def sources(kind):
    """{name: directory} of every checkpoint of a kind that is at hand and has a manifest."""
    return {
        name: root / kind / name
        for root in reversed(fixture_roots())
        for name in expected_names(kind)
        if (root / kind / name).is_dir()
    }


def pairs():
    """Every (kind, source name, source directory, target name) of one encoding."""
    for kind in KINDS:
        for name, directory in sorted(sources(kind).items()):
            for target in expected_names(kind, name):
                yield kind, name, directory, target


def layout_flags(wanted):
    """Command-line flags for the layout of a manifest."""
    tp, pp, layers = manifest.layout(wanted)
    experts = manifest.experts(wanted)
    more = ["--ep", experts[0], "--etp", experts[1]] if experts else []
    more += ["--vpp", len(layers) // pp]
    return ["--tp", tp, "--pp", pp, "--pp-layers", ",".join(map(str, layers)), *more]


def layout_name(wanted):
    """The canonical name of the layout of a manifest, as a directory name: tp4pp2@1,3; no cut where it is even."""
    tp, pp, layers = manifest.layout(wanted)
    cut = "" if len(set(layers)) == 1 else "@" + ",".join(map(str, layers))
    experts = manifest.experts(wanted)
    more = "" if not experts else f"ep{experts[0]}" if experts[1] == tp else "ep{}etp{}".format(*experts)
    turns = "" if len(layers) == pp else f"vpp{len(layers) // pp}"
    return f"tp{tp}pp{pp}{turns}{more}{cut}"


def same_files(left, right):
    """Names of files that differ between two directory trees, or exist in one only."""
    def tree(root):
        return {str(p.relative_to(root)): p for p in Path(root).rglob("*") if p.is_file()}

    a, b = tree(left), tree(right)
    return sorted(n for n in a.keys() | b.keys() if n not in a or n not in b or a[n].read_bytes() != b[n].read_bytes())


class Case(unittest.TestCase):
    """A test with a scratch directory."""

    def setUp(self):
        self._scratch = tempfile.TemporaryDirectory(prefix="ckpt-fs-test-")
        self.addCleanup(self._scratch.cleanup)
        self.scratch = Path(self._scratch.name)

    def materialize(self, source, *options, name="out", afresh=True):
        """Materialize into the scratch directory, in place of an earlier copy of that name; returns the path."""
        target = self.scratch / name
        if afresh:
            shutil.rmtree(target, ignore_errors=True)
        ckpt_fs("materialize", source, target, *options)
        return target

    def assert_same(self, wanted, found, allowed=None):
        """Two manifests agree, up to fields that belong to one run."""
        allowed = manifest.RUN_FIELDS if allowed is None else allowed
        problems = list(manifest.differences(wanted, found, allowed))
        self.assertFalse(problems, "\n".join(problems[:20]))
