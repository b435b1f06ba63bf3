"""The documentation: every command on every page runs and prints what the page says, links lead somewhere, prose fits 100 columns.

A block of a page has a language. `sh` is run; `console` is a session, whose commands begin with `$ ` and whose output is compared
(`...` stands for anything; times and rates are not compared); `python` is run; others are data. Blocks of a page run in its order, in one
directory, in which everything is that pages name (`pages/stage.py`). Programs that cannot be here are stand-ins (`pages/programs.py`).
A new page is found by itself. What is not run is named below, with the reason.
"""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path

from pages.blocks import DATA, PYTHON, SESSION, SHELL, blocks, commands, differs
from pages.stage import LLAMA, Stage
from support import ROOT, Case, Mount, binary, ckpt_fs, need, run

PAGES = ["README.md", "CONTRIBUTING.md", "deploy/README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

# Pages whose blocks are run by another test.
ELSEWHERE = {"docs/python.md": "test_module_docs.py runs it, in one Python"}

# Commands that are not run here, by their beginning, and why.
NOT_RUN = {
    "scripts/test": "it runs this test",
    "scripts/bench": "it takes minutes and 20 GB",
    "CKPT_FS_BIN=$CARGO_TARGET_DIR/debug/ckpt-fs .venv/bin/python": "it runs a test of this directory",
    "CKPT_FS_REQUIRE_ALL=1 scripts/package": "it builds for two architectures, for minutes",
}


def text_of(page):
    return (ROOT / page).read_text()


def not_run(line):
    return next((start for start in NOT_RUN if line.strip().startswith(start)), None)


def imports(code):
    """The packages that a program imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


class Page(Case):
    """Every block of one page."""

    page = None

    def run_shell(self, stage, block):
        text = "\n".join(line for line in block.text.splitlines() if not not_run(line))
        code, output = stage.shell(text)
        self.assertEqual(code, 0, f"{block}\n{text}\n{output}")

    def run_session(self, stage, block):
        wanted = commands(block)
        done = stage.session(wanted)
        self.assertEqual(len(done), len(wanted), f"{block}: {done}")
        for command, after, (code, printed) in zip(wanted, [*wanted[1:], None], done):
            asked = after is not None and after.text == "echo $?"
            self.assertTrue(code == 0 or asked, f"{block}: exit code {code}: {command.text}\n" + "\n".join(printed))
            problem = differs(command.output, printed)
            self.assertIsNone(problem, f"{block}: {command.text}\n{problem}")

    def run_python(self, stage, block):
        for name in imports(block.text):
            need(name == "ckpt_fs" or importlib.util.find_spec(name), f"the Python package {name}")
        code, output = stage.python(block.text)
        self.assertEqual(code, 0, f"{block}\n{output}")

    def read_data(self, block):
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)

    def run_page(self):
        with Mount(LLAMA):  # skips where FUSE is missing
            pass
        with Stage() as stage:
            for block in blocks(self.page, text_of(self.page)):
                with self.subTest(block=str(block)):
                    if block.language == SHELL:
                        self.run_shell(stage, block)
                    elif block.language == SESSION:
                        self.run_session(stage, block)
                    elif block.language == PYTHON:
                        self.run_python(stage, block)
                    else:
                        self.assertIn(block.language, DATA, f"{block}: say what language it is in")
                        self.read_data(block)


def page_class(page):
    """A class for each page, because tests are shared out among processors by class."""
    name = "Page_" + re.sub(r"\W", "_", page)
    return type(name, (Page,), {"page": page, "test_every_block_runs": Page.run_page, "__qualname__": name, "__module__": __name__})


for _page in PAGES:
    if _page not in ELSEWHERE:
        _class = page_class(_page)
        globals()[_class.__name__] = _class
del _class


class Harness(Case):
    """What this test is worth: pages with mistakes fail."""

    def check(self, text, said=None):
        """Runs a page; `said` is in the message of its failure."""
        (self.scratch / "page.md").write_text(text)
        kind = type("Check", (Page,), {"page": str(self.scratch / "page.md"), "runTest": Page.run_page})
        result = unittest.TestResult()
        kind().run(result)
        problems = [message for _, message in [*result.failures, *result.errors]]
        self.assertEqual(len(result.skipped), 0)
        self.assertEqual(len(problems), 0 if said is None else 1, problems)
        if said is not None:
            self.assertIn(said, problems[0])

    def setUp(self):
        super().setUp()
        with Mount(LLAMA):  # skips where FUSE is missing
            pass

    def test_commands_that_fail(self):
        self.check("```sh\nckpt-fs inspect src/ >/dev/null\n```\n")
        self.check("```sh\nckpt-fs inspect src/ --tp 3 | cat\n```\n", "TP 3 does not divide")
        self.check("```console\n$ false\n```\n", "exit code 1: false")
        self.check("```console\n$ false\n$ echo $?\n1\n```\n")
        self.check("```python\nassert False\n```\n", "AssertionError")
        self.check("<!-- sh\nmkdir /mnt/x\n-->\n```sh\nls /mnt/x\n```\n")

    def test_output_that_is_not_printed(self):
        session = "```console\n$ ckpt-fs digest src/ | cut -c1-3\n%s\n```\n"
        for right in ("v1:", "...", "v..."):
            self.check(session % right)
        for wrong in ("v2:", "", "v1:\nmore", "more\n...\nv1:"):
            self.check(session % wrong, "the page says")

    def test_what_a_program_does_not_take(self):
        for command, said in (
            ("vllm serve src/", "config.json"),
            ("vllm serve Llama-3.1-8B --no-such-option", "no test knows"),
            ("vllm serve Llama-3.1-8B --tensor-parallel-size 2 --load-format sharded_state", "not ['model-rank-0"),
            ("torchrun pretrain_gpt.py --load src/ --tensor-model-parallel-size 2", "a run with these flags loads"),
            ("pip install something-else", "not understood"),
            ("kubectl create -f x", "not understood"),
        ):
            self.check(f"```sh\n{command}\n```\n", said)

    def test_blocks_in_no_language_or_without_an_end(self):
        self.check("```\nls\n```\n", "say what language it is in")
        self.check("```fish\nls\n```\n", "say what language it is in")
        self.check("```toml\n= 1\n```\n", "TOMLDecodeError")
        self.check("```sh\nls\n", "a block without an end")

    def test_a_page_writes_into_no_clone(self):
        self.check("```sh\ntest -f docs/index.md && echo x >docs/index.md\n```\n")
        self.assertNotEqual(text_of("docs/index.md"), "x\n")


class Rules(unittest.TestCase):
    def test_what_is_not_run_is_on_a_page(self):
        lines = [line for page in PAGES for block in blocks(page, text_of(page)) for line in block.text.splitlines()]
        self.assertEqual({not_run(line) for line in lines} - {None}, set(NOT_RUN))
        self.assertEqual([page for page in ELSEWHERE if page not in PAGES], [])

    def test_scripts_that_pages_name_are_there(self):
        for page in PAGES:
            for name in re.findall(r"\bscripts/[\w./-]*\w", text_of(page)):
                self.assertTrue((ROOT / name).exists() or "github.com" in name or name == "scripts/checkpoint_converters", f"{page}: {name}")

    def test_prose_fits_100_columns(self):
        done = subprocess.run([sys.executable, ROOT / "scripts" / "wrap", "--check"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), "scripts/wrap wraps it")

    def test_the_first_page_is_short(self):
        self.assertLess(len(text_of("README.md").splitlines()), 160)

    def test_the_matrix_is_what_the_tests_say(self):
        done = subprocess.run([sys.executable, ROOT / "scripts" / "matrix", "--check"], env={**os.environ, "CKPT_FS_BIN": binary()}, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_every_page_is_in_the_index(self):
        index = text_of("docs/index.md")
        links = {f"({Path(page).name})" if page.startswith("docs/") else f"(../{page})": page for page in PAGES if page != "docs/index.md"}
        self.assertEqual([page for link, page in links.items() if link not in index], [])

    def test_every_exit_code_is_explained(self):
        said = " ".join(ckpt_fs("--help").stdout.partition("Exit codes:")[2].split()).rstrip(".")
        codes = dict(re.match(r"(\d+) (.*)", part).groups() for part in re.split(r", (?=\d)", said))
        self.assertGreater(len(codes), 9)
        rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", text_of("docs/commands.md"), re.M))
        self.assertEqual(set(rows), set(codes))

    def test_messages_of_troubleshooting_are_the_programs_own(self):
        texts = [*sorted((ROOT / "src").rglob("*.rs")), *sorted((ROOT / "families").rglob("*.toml"))]
        # A string may go on in the next line, and what stands in braces is a name or a number.
        source = re.sub(r"\\\n\s*", "", "\n".join(path.read_text() for path in texts))
        source = re.sub(r"\{[^{}]*\}", "\0", source).replace('\\"', '"')
        entries = re.findall(r"^\*\*(`.*?`.*?)\*\*", text_of("docs/troubleshooting.md"), re.M | re.S)
        messages = [" ".join(text.split()) for entry in entries for text in re.findall(r"`([^`]*)`", entry)]
        ours = [message for message in messages if "..." in message or len(message) > 40]
        self.assertGreater(len(ours), 20)
        parts = [part.strip(" :;()") for message in ours for part in message.split("...")]
        self.assertEqual([part for part in parts if len(part) > 8 and part not in source], [])


def anchors(text):
    """Anchors of headings, as GitHub makes them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found


class Links(unittest.TestCase):
    def test_links_lead_somewhere(self):
        listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md", cwd=ROOT)
        for page in filter(None, listed.stdout.split("\0")):
            text = re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.M | re.S)
            for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
                if re.match(r"https?://", link):
                    continue
                path, _, anchor = link.partition("#")
                target = (ROOT / page).parent / path if path else ROOT / page
                self.assertTrue(target.exists(), f"{page}: {link}")
                if anchor:
                    self.assertIn(anchor, anchors(target.read_text()), f"{page}: {link}")


if __name__ == "__main__":
    unittest.main()
