"""Pictures of views: well formed whatever names hold, as docs/map.md shows them, and coloured on terminals alone."""

import html.parser
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

from support import FIXTURES, ROOT, Case, binary, ckpt_fs

YUAN = FIXTURES / "yuan-tiny" / "pp4b1221_tp4_none"
MOE = FIXTURES / "mcore-tiny" / "moe" / "tp1pp2vpp2ep2_dist"
SVG = "{http://www.w3.org/2000/svg}"
LLAMA = FIXTURES / "dist-tiny" / "dcp" / "llama_untied" / "hf"
EVIL = "</script><script>alert('1')</script>&\u001b[2J\"\u2028.weight"
# The fixture's tensors, the first of them under a name that would do harm.
FAMILY = """
name = "evil"
title = "Evil"
extends = "llama"
own_tensors = true
[config]
model_type = "evil"
architectures = ["Evil"]
all_keys_of = "llama"
"""
HOLDS = {
    "self_attn.q_proj": "attention.q", "self_attn.k_proj": "attention.k", "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.output", "mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down", "input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm",
}


def drawn(kind, *words):
    return ckpt_fs("map", *words, "--format", kind).stdout


def evil_model(directory):
    """A model with a tensor and a directory of names that would do harm, and the family that describes it."""
    tensors = [(EVIL, "embedding.weight", 'stage = "first"')]
    tensors += [(f"model.layers.{{layer}}.{name}.weight", f"layers.{{layer}}.{holds}.weight", "") for name, holds in HOLDS.items()]
    tensors += [("model.norm.weight", "final_norm.weight", 'stage = "last"'), ("lm_head.weight", "output.weight", 'stage = "last"')]
    family = FAMILY + "".join(f"[[tensor]]\nname = {json.dumps(name)}\nholds = [{json.dumps(param)}]\n{stage}\n" for name, param, stage in tensors)
    directory.mkdir()
    (directory.parent / "evil.toml").write_text(family)
    stored = (LLAMA / "model.safetensors").read_bytes()
    length = int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8 : 8 + length])
    header = {EVIL if name == "model.embed_tokens.weight" else name: entry for name, entry in header.items()}
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + stored[8 + length :])
    config = {**json.loads((LLAMA / "config.json").read_text()), "model_type": "evil", "architectures": ["Evil"]}
    (directory / "config.json").write_text(json.dumps(config))
    return directory, "--family", directory.parent / "evil.toml", "--as", "hf"


def on_terminal(words, **environment):
    """What the program prints on a terminal."""
    ours, theirs = pty.openpty()
    base = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen([binary(), *map(str, words)], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env={**base, **environment})
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            text += chunk
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert process.wait() == 0
    return text.decode().replace("\r\n", "\n")


class Wellformed(Case):
    VIEWS = (
        (YUAN, "--tp", 2, "--pp", 3),
        (YUAN, "--as", "hf", "--shard-size", "90KB"),
        (MOE, "--tp", 2, "--pp", 2, "--ep", 4, "--optimizer", "none"),
        (MOE, "--as", "torch_dist"),
    )

    def test_svg_and_html_are_xml(self):
        for words in self.VIEWS:
            with self.subTest(words=words):
                root = xml.fromstring(drawn("svg", *words))
                self.assertEqual(root.tag, SVG + "svg")
                width, height = float(root.get("width")), float(root.get("height"))
                for rect in root.iter(SVG + "rect"):
                    x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
                    self.assertTrue(0 <= x and x + w <= width and 0 <= y and y + h <= height, rect.attrib)
                page = drawn("html", *words)
                xml.fromstring(page)
                self.assertEqual([tag for tag in tags(page) if tag == "script"], ["script"] * 2)

    def test_a_page_loads_nothing(self):
        page = drawn("html", *self.VIEWS[0])
        links = re.findall(r"""(?:src|href|action)=|url\((?!#)|@import|https?://[^"'\s<]*""", page)
        self.assertEqual(set(links), {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"})
        self.assertIn("default-src 'none'", page)

    def test_the_page_has_what_ls_says(self):
        page = drawn("html", *self.VIEWS[0])
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))
        told = {}
        for unit in data["sides"][1]["units"]:
            for cell in unit["cells"].values():
                for name, kind, file, offset, size, *_ in cell[5]:
                    told[unit["files"][file], data["words"][name]] = (data["words"][kind], offset, size)
        listing = json.loads(ckpt_fs("ls", *self.VIEWS[0], "--tensors", "--json").stdout)
        kind = lambda tensor: f"{tensor['dtype']} [{', '.join(map(str, tensor['shape']))}]"
        said = {(f["path"], t["name"]): (kind(t), t["offset"], t["bytes"]) for f in listing["files"] for t in f["tensors"]}
        self.assertEqual(told, said)

    def test_names_of_tensors_are_text(self):
        model = evil_model(self.scratch / "<b>evil")
        page = drawn("html", *model)
        xml.fromstring(page)
        self.assertEqual(tags(page).count("script"), 2)
        self.assertNotIn("b", tags(page))
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))
        self.assertTrue(any(word == EVIL for word in data["words"]), data["words"])
        for kind in ("svg", "text"):
            self.assertNotIn("\u001b", drawn(kind, *model))


def tags(page):
    """The elements that a browser sees in a page."""
    found = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append(tag)

    Parser().feed(page)
    return found


class Documented(Case):
    def test_the_drawing_of_the_docs_is_what_the_program_draws(self):
        text = (ROOT / "docs" / "map.md").read_text()
        command = next(line for line in text.splitlines() if line.endswith(" -o docs/map.svg"))
        program, *words = shlex.split(command)
        self.assertEqual(program, "ckpt-fs")
        words[words.index("docs/map.svg")] = str(self.scratch / "map.svg")
        words[1] = str(ROOT / words[1])
        ckpt_fs(*words)
        made, kept = (self.scratch / "map.svg").read_text(), (ROOT / "docs" / "map.svg").read_text()
        self.assertTrue(made == kept, f"docs/map.svg is of another time: run {command}")
        self.assertLess(len(kept), 60_000)


class Terminals(Case):
    WORDS = ("map", YUAN, "--tp", 2, "--pp", 3)

    def test_colours_are_for_terminals_that_want_them(self):
        self.assertIn("\u001b[48;5;", on_terminal(self.WORDS))
        for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            self.assertNotIn("\u001b", on_terminal(self.WORDS, **plain))
        self.assertNotIn("\u001b", ckpt_fs(*self.WORDS).stdout)
        self.assertIn("\u001b", on_terminal(self.WORDS, NO_COLOR=""))

    def test_letters_say_all_that_colours_do(self):
        coloured = re.sub("\u001b\\[[0-9;]*m", "", on_terminal(self.WORDS))
        self.assertEqual(coloured, on_terminal(self.WORDS, NO_COLOR="1"))

    def test_a_locale_without_utf_8_gets_ascii(self):
        said = on_terminal(self.WORDS, LC_ALL="C", NO_COLOR="1")
        self.assertTrue(said.isascii(), said)
        self.assertIn("megatron tp4pp4@1,2,2,1 -> megatron tp2pp3", said)
        self.assertIn("\u2192", on_terminal(self.WORDS, NO_COLOR="1"))

    def test_lines_are_as_wide_as_the_terminal_is(self):
        # The picture goes on below where layers find no room; sixteen letters are explained in lines of that width.
        for columns in (28, 40, 200):
            said = on_terminal(self.WORDS, COLUMNS=str(columns), NO_COLOR="1").split("\nrank ")[0]
            longest = max(map(len, said.splitlines()[2:]))
            self.assertLessEqual(longest, columns, said)


def content(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


class Written(Case):
    """Where it is written: never over what is read, whole, and to files alone."""

    def refused(self, words, *said):
        done = ckpt_fs("map", *words, check=False)
        self.assertEqual((done.returncode, done.stdout), (6, ""), done.stderr)
        for word in said:
            self.assertIn(word, done.stderr)

    def test_the_source_is_never_written(self):
        model, run, template = (self.scratch / name for name in ("model", "run", "template"))
        shutil.copytree(LLAMA, model)
        shutil.copytree(LLAMA, template)
        shutil.copytree(YUAN, run)
        before = content(self.scratch)
        (self.scratch / "link.json").symlink_to(model / "config.json")
        (self.scratch / "other").symlink_to(model)
        rank = next(run.rglob("*.pt"))
        for words in (
            (model, "-o", model / "config.json"),
            (model, "-o", model / "new.html"),
            (model, "-o", self.scratch / "link.json"),
            (model, "-o", self.scratch / "other" / "new.svg"),
            (self.scratch / "other", "-o", model / "config.json"),
            (run, "--format", "svg", "-o", rank),
            (run, "-o", rank.parent / "map.svg"),
            (run, "-o", run / "map.svg"),
            (model, "--template", template, "--as", "hf", "-o", template / "config.json"),
        ):
            with self.subTest(words=words):
                self.refused(words, "never written")
        (self.scratch / "link.json").unlink()
        (self.scratch / "other").unlink()
        self.assertEqual(content(self.scratch), before)

    def test_rank_files_that_are_links_are_the_source_where_they_lead(self):
        run, away = self.scratch / "run", self.scratch / "away"
        shutil.copytree(YUAN, run)
        rank = next(run.rglob("*.pt"))
        away.mkdir()
        rank.rename(away / "rank.pt")
        rank.symlink_to(away / "rank.pt")
        before = (away / "rank.pt").read_bytes()
        self.refused((run, "--format", "svg", "-o", away / "rank.pt"), "never written")
        self.assertEqual((away / "rank.pt").read_bytes(), before)

    def test_a_file_is_replaced_by_a_whole_one_or_stays(self):
        target = self.scratch / "map.svg"
        target.write_text("former")
        other = self.scratch / "hard.svg"
        os.link(target, other)
        target.chmod(0o640)
        link = self.scratch / "link.svg"
        link.symlink_to("map.svg")
        ckpt_fs("map", YUAN, "-o", link)
        self.assertEqual(target.read_text(), drawn("svg", YUAN))
        # It was put in place of the former one, whose content another name still has; a link stays one.
        self.assertEqual((other.read_text(), target.stat().st_mode & 0o777, link.is_symlink()), ("former", 0o640, True))

        limited = ["bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$0" "$@"', binary(), "map", YUAN, "-o", target]
        before = target.read_bytes()
        done = subprocess.run(limited, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, target.read_bytes()), (6, before), done.stderr)
        self.assertEqual({path.name for path in self.scratch.iterdir()}, {"map.svg", "hard.svg", "link.svg"})

    def test_what_is_no_file_is_refused(self):
        os.mkfifo(self.scratch / "pipe.svg")
        (self.scratch / "dir.svg").mkdir()
        (self.scratch / "dangling.svg").symlink_to("nowhere/x.svg")
        for name, said in (("pipe.svg", "not a regular file"), ("dir.svg", "a directory"), ("dangling.svg", "No such file"), ("no/map.svg", "No such file")):
            self.refused((YUAN, "-o", self.scratch / name), name, said)

    def test_standard_output_has_names(self):
        svg = drawn("svg", YUAN)
        self.assertEqual(ckpt_fs("map", YUAN, "-o", "-").stdout, ckpt_fs("map", YUAN).stdout)
        for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            self.assertEqual(ckpt_fs("map", YUAN, "--format", "svg", "-o", name).stdout, svg, name)
        ckpt_fs("map", YUAN, "--format", "svg", "-o", "/dev/null")
        # What a shell appends to is appended to.
        log = self.scratch / "log"
        log.write_text("before\n")
        for name in ("/dev/stdout", "/dev/fd/1"):
            with log.open("a") as out:
                subprocess.run([binary(), "map", YUAN, "--format", "svg", "-o", name], stdout=out, check=True, timeout=60)
        self.assertEqual(log.read_text(), "before\n" + svg * 2)
        self.assertFalse((Path.cwd() / "-").exists())

    def test_suffixes_are_of_any_case(self):
        for name, kind in (("x.HTML", "html"), ("x.Svg", "svg"), ("x.TXT", "text")):
            ckpt_fs("map", YUAN, "-o", self.scratch / name)
            self.assertEqual((self.scratch / name).read_text(), drawn(kind, YUAN))
        self.assertEqual(ckpt_fs("map", YUAN, "-o", self.scratch / "x.png", check=False).returncode, 2)


if __name__ == "__main__":
    unittest.main()
