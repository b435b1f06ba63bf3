"""Memory limits for processes of a test, as a small node or a container has them. Needs root; version 1 and 2 of the kernel's interface."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def memory_root():
    """Where memory groups are made and what a limit is called; None where none can be."""
    version_1 = (ROOT / "memory", "memory.limit_in_bytes")
    version_2 = (ROOT, "memory.max")
    for home, name in (version_1, version_2):
        if not os.access(home, os.W_OK) or not (home / "cgroup.procs").exists():
            continue
        controllers = home / "cgroup.subtree_control"
        if not controllers.exists() or "memory" in controllers.read_text().split():
            return home, name
    return None


class Group:
    """A memory group; `add` puts a process into it."""

    def __init__(self, home, limit_name):
        self.home, self.limit_name = home, limit_name

    def limit(self, count):
        (self.home / self.limit_name).write_text(str(count))

    def add(self, pid):
        (self.home / "cgroup.procs").write_text(str(pid))

    def join(self):
        """Puts the process that calls it into the group."""
        self.add(os.getpid())


@contextlib.contextmanager
def memory_group(count):
    """A group of at most `count` bytes, page cache included; None where there can be none. Its processes must end before it does."""
    found = memory_root()
    if found is None:
        yield None
        return
    parent, limit_name = found
    group = Group(Path(tempfile.mkdtemp(prefix="ckpt-fs-", dir=parent)), limit_name)
    try:
        group.limit(count)
        yield group
    finally:
        remove(group.home)


def remove(home):
    """A group can be removed shortly after its last process is gone."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return home.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
