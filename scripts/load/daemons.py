"""What the process of a mount holds: memory, descriptors, threads; and whether that grows.

Not here: what makes it grow (`coming_and_going`).
"""

import os
import statistics
from pathlib import Path

# Plans (32 MB), what is read ahead (16 MiB), a buffer a thread, the little that the cache may keep, and the process itself.
MOST_OWN_MIB = 72


def figures(pid, kept):
    """Figures of a process at this moment; `kept` are the files in its cache, each of which has a descriptor."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "own MiB": int(lines["RssAnon"].split()[0]) / 1024,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")) - kept,
        "threads": int(lines["Threads"]),
    }


def growth(samples, is_long):
    """What of a row of figures grew, in words. Memory fills up to its bounds first: a short run only shows that it stays below them, and of a
    long one the first third does not count."""
    found, third = [], len(samples) // 3
    for name in samples[0]:
        middle, end = ([sample[name] for sample in part] for part in (samples[third:-third], samples[-third:]))
        if name == "own MiB":
            if end[-1] > MOST_OWN_MIB:
                found.append(f"memory grew to {end[-1]:.1f} MiB")
            # Where nothing leaks the last third is about the one before; what the allocator keeps goes up and down.
            elif is_long and statistics.mean(end) > statistics.mean(middle) * 1.15 + 4:
                found.append(f"memory grew from {statistics.mean(middle):.1f} to {statistics.mean(end):.1f} MiB")
        elif samples[-1][name] > samples[0][name]:
            found.append(f"{name} grew from {samples[0][name]} to {samples[-1][name]}")
    return found


def processes(work):
    """Processes that have a path below `work` in their command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.startswith(str(work)) for word in words):
            found[int(entry.name)] = " ".join(words).strip()
    return found


def mounts(work):
    with open("/proc/self/mounts") as table:
        return [line.split()[1] for line in table if line.split()[1].startswith(str(work))]
