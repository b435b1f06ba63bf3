#!/usr/bin/env python3
"""Run several scripts of this directory in one process, because importing takes longer than most of what they do.

usage: together.py JOBS RESULTS
JOBS is a JSON list of command lines, each a list that begins with a script's name; RESULTS a JSON list with null for each, or why it failed.
"""

import common

common.begin()
import importlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402


def main():
    jobs, results = map(Path, sys.argv[1:])
    failures = []
    for script, *arguments in json.loads(jobs.read_text()):
        begin, failure = time.monotonic(), None
        try:
            importlib.import_module(script).main(arguments)
        except (Exception, SystemExit):
            failure = traceback.format_exc()
        failures.append(failure)
        print(f"{time.monotonic() - begin:5.1f} s  {script} {' '.join(arguments)}{': FAILED' if failure else ''}", flush=True)
    results.write_text(json.dumps(failures))


if __name__ == "__main__":
    main()
