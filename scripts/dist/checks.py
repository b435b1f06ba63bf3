#!/usr/bin/env python3
"""Check that real loaders take checkpoints, and views of them, for what they are; part `dist` of scripts/nightly.

usage: checks.py --environment NAME=PYTHON [--environment ...] [--work DIRECTORY] [--list] [WORD ...]

An environment is a Python with a torch, and with megatron-core or transformers, each of a version that its name says (environments/).
First the real libraries make the sources, then ckpt-fs makes views, then real libraries load them, and the tensors that they then hold
are compared with those of the run that was never stopped. With words only checks whose names have one of them. Exit 1 when one fails.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import common  # noqa: F401
import table
from support import ckpt_fs

HERE = Path(__file__).parent
TIMEOUT = 3600


def view(source, *flags, into):
    """What ckpt-fs makes of a directory, as a directory. Without flags it is the source itself, as the real library wrote it."""
    if not flags:
        return source
    ckpt_fs("materialize", source, into, *flags, timeout=TIMEOUT)
    return into


class Work:
    """Directories of sources, views and results, and who is to blame when one is not there."""

    def __init__(self, root, pythons):
        self.root, self.pythons, self.failed = root, pythons, {}

    def path(self, *parts):
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, jobs):
        """`jobs` are (name, environment, command line); those of one environment share a process."""
        by_environment = defaultdict(list)
        for name, environment, command in jobs:
            if name not in self.failed:
                by_environment[environment].append((name, [str(word) for word in command]))
        for environment, named in by_environment.items():
            print(f"\n{environment}: {len(named)} jobs", flush=True)
            failures = self.together(environment, [command for _, command in named])
            self.failed |= {name: failure for (name, _), failure in zip(named, failures) if failure}

    def together(self, environment, commands):
        jobs, results = self.path("jobs.json"), self.path("results.json")
        jobs.write_text(json.dumps(commands))
        results.unlink(missing_ok=True)
        log = self.path(f"{environment}.log")
        with log.open("a") as file:
            words = [*self.pythons[environment], HERE / "together.py", jobs, results]
            subprocess.run(["env", *map(str, words)], stdout=file, stderr=subprocess.STDOUT, timeout=TIMEOUT)
        if results.exists():
            return json.loads(results.read_text())
        return [f"the process ended before it was done\n{log.read_text()[-2000:]}"] * len(commands)


def make_sources(work, checks):
    names = dict.fromkeys(check.source for check in checks)
    made = [(name, *table.SOURCES[name]) for name in names]
    work.run((name, environment, [script, *words, "--out", work.path("sources", name)]) for name, environment, script, *words in made)


def make_views(work, checks):
    """{check's name: the directory to load}"""
    found = {}
    for check in checks:
        source = work.path("sources", check.source, check.part)
        if check.source in work.failed:
            work.failed[check.name] = f"no source: {work.failed[check.source]}"
            continue
        try:
            through = view(source, *check.through, into=work.path("through", check.name))
            # What FSDP saved does not say of what.
            template = ("--template", work.path("sources", check.source, "hf")) if check.view and check.part in table.OF_FSDP else ()
            found[check.name] = view(through, *check.view, *template, into=work.path("views", check.name))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            work.failed[check.name] = f"no view: {error}"
    return found


def load_views(work, checks, directories):
    jobs = []
    for check in checks:
        if check.name not in directories:
            continue
        directory = directories[check.name]
        # A view says itself of what model it is.
        described = directory if (directory / "config.json").exists() else work.path("sources", check.source, "hf")
        model = ["--model", described] if check.script == "fsdp2_load" else []
        loaded = work.path("loaded", f"{check.name}.safetensors")
        jobs.append((check.name, check.environment, [check.script, directory, *model, *check.options, "--out", loaded]))
    work.run(jobs)


def compare(work, checks):
    jobs = []
    for check in checks:
        loaded = work.path("loaded", f"{check.name}.safetensors")
        expected = work.path("sources", check.source, f"{check.expected}.safetensors")
        # Megatron has other names, which are changed by what the model's config says of its heads.
        names = ["--of-megatron", work.path("views", check.name, "config.json")] if check.renames else []
        jobs.append((check.name, check.environment, ["compare", loaded, expected, *names, *check.compare]))
    work.run(jobs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", action="append", default=[], metavar="NAME=PYTHON", help="may be preceded by VARIABLE=VALUE words")
    parser.add_argument("--work", type=Path, help="keep everything here (default: a temporary directory)")
    parser.add_argument("--list", action="store_true", help="say what would be checked")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    pythons = {name: command.split() for name, command in (pair.split("=", 1) for pair in options.environment)}
    checks = [check for check in table.CHECKS if not options.words or any(word in check.name for word in options.words)]
    if options.list:
        print("\n".join(f"{check.name}: {check.environment}" for check in checks))
        return
    needed = lambda check: {check.environment, table.SOURCES[check.source][0]}  # noqa: E731
    possible = [check for check in checks if needed(check) <= pythons.keys()]
    with tempfile.TemporaryDirectory(prefix="ckpt-fs-dist-") as scratch:
        work = Work(options.work or Path(scratch), pythons)
        begin = time.monotonic()
        make_sources(work, possible)
        load_views(work, possible, make_views(work, possible))
        compare(work, possible)
    report(work, possible, checks, time.monotonic() - begin)


def report(work, possible, checks, seconds):
    """One line a check; then why those failed that did."""
    print()
    for check in checks:
        state = "FAILED" if check.name in work.failed else "ok" if check in possible else "left out: an environment is missing"
        print(f"{check.name:50} {check.environment:9} {state}")
    failed = [check for check in possible if check.name in work.failed]
    for check in failed:
        print(f"\n{check.name}: {work.failed[check.name]}")
    print(f"\n{len(possible) - len(failed)} of {len(checks)} checks hold, {len(failed)} failed, {seconds / 60:.1f} minutes")
    sys.exit(1 if failed or not possible else 0)


if __name__ == "__main__":
    main()
