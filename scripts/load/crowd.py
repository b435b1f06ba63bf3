"""Many readers at once: threads in several processes, what each is at, and what became of them.

A process that dies of a page that could not be had, and one that never comes to an end, are found here; what each thread was doing stands in
memory that all processes share. Not here: what a reader does (`reader`).
"""

import json
import mmap
import os
import resource
import signal
import struct
import sys
import threading
import time
import traceback
from collections import Counter

from .reader import Reader, Shared
from .subject import subjects

SLOT = struct.Struct("q")


class Result:
    def __init__(self):
        self.counts, self.refused, self.failures, self.problems = Counter(), Counter(), 0, []

    def ok(self):
        return not self.failures and not self.problems


def run(view, real, seed=1, operations=10000, threads=1, processes=1, only=(), drop_caches=False, timeout=60, say=print, enter=None):
    """Reads the files of `view` in `operations` ways at random, shared among all threads, and compares with `real`. `enter` is called
    first in each process."""
    each = max(operations // (threads * processes), 1)
    repeat = f"--seed {seed} --operations {operations} --threads {threads} --processes {processes}"
    slots = mmap.mmap(-1, SLOT.size * threads * processes)
    children = {}
    sys.stdout.flush()
    for process in range(processes):
        source, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(source)
            child(sink, view, real, process, threads, each, (seed, repeat), only, drop_caches, slots, enter)
        os.close(sink)
        children[pid] = (process, source)
    return gather(children, timeout, threads, slots, repeat, say)


def child(sink, view, real, process, threads, each, names, only, drop_caches, slots, enter):
    """A process of readers; never returns."""
    code = 1
    try:
        if enter:
            enter()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        seed, repeat = names
        shared = Shared(subjects(view, real), threads)
        answers, lines = [], []

        def work(thread):
            reader = Reader(shared, f"{seed}/{process}/{thread}", only, drop_caches)
            at = SLOT.size * (process * threads + thread)

            def say(number, name, error):
                lines.append(f"{repeat}: process {process} thread {thread} operation {number}: {name}: {error}")

            failures = reader.run(each, lambda number: SLOT.pack_into(slots, at, number + 1), say)
            SLOT.pack_into(slots, at, 0)
            answers.append((reader.counts, reader.refused, failures))

        crew = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        if len(answers) == threads:
            with os.fdopen(sink, "w") as file:
                json.dump([answers, lines], file)
            code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def gather(children, timeout, threads, slots, repeat, say):
    """Waits for all of them; those that do not end are said to hang and killed."""
    result, deadline = Result(), time.monotonic() + timeout
    texts = {pid: read_all(source) for pid, (_, source) in children.items()}
    waiting = dict(children)
    while waiting:
        ended = {pid: status for pid in waiting for found, status in [os.waitpid(pid, os.WNOHANG)] if found}
        for pid, status in ended.items():
            process, _ = waiting.pop(pid)
            if status == 0:
                collect(result, texts[pid](), say)
                continue
            what = f"died of signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "failed"
            problem(result, f"{repeat}: process {process} {what}", process, threads, slots, say)
        if waiting and time.monotonic() > deadline:
            for pid, (process, _) in waiting.items():
                problem(result, f"{repeat}: process {process} did not end in {timeout} s", process, threads, slots, say)
                os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    return result


def problem(result, line, process, threads, slots, say):
    at = [SLOT.unpack_from(slots, SLOT.size * (process * threads + thread))[0] for thread in range(threads)]
    busy = [f"thread {thread} operation {number - 1}" for thread, number in enumerate(at) if number]
    result.problems.append(f"{line}; at that time: {', '.join(busy)}")
    say(result.problems[-1])


def read_all(source):
    """Reads a pipe on a thread, so that nobody who writes to it waits; returns a function that gives what came."""
    found = []

    def work():
        with os.fdopen(source) as file:
            found.append(file.read())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def answer():
        thread.join()
        return found[0]

    return answer


def collect(result, text, say):
    answers, lines = json.loads(text)
    for counts, refused, failures in answers:
        result.counts.update(counts)
        result.refused.update(refused)
        result.failures += failures
    for line in lines:
        result.problems.append(line)
        say(line)
