"""What the program says: of success in a line, of failure to whoever asks the mount; and how files are shown to those who copy them."""

import errno
import json
import os
import shutil
import stat
import subprocess
import unittest
from pathlib import Path

from support import FIXTURES, Case, ForegroundMount, Mount, binary, ckpt_fs, need, need_program, unmount

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
RANK = "iter_0000100/mp_rank_00/model_optim_rng.pt"


class Success(Case):
    def test_a_mount_says_what_where_and_how_to_go_on(self):
        point = self.scratch / "view"
        point.mkdir()
        said = ckpt_fs("mount", YUAN, point, "--tp", 4, "--pp", 1)
        try:
            self.assertIn(f"{YUAN} is at {point} as megatron tp4pp1", said.stderr)
            self.assertIn(f"ckpt-fs unmount {point}", said.stderr)
        finally:
            unmount(point)
        said = ckpt_fs("mount", YUAN, point, "--quiet", "--rng", "omit")
        unmount(point)
        self.assertEqual(said.stderr, "")

    def test_a_copy_says_how_much_in_what_time(self):
        target = self.scratch / "copy"
        said = ckpt_fs("materialize", YUAN, target, "--tp", 1, "--pp", 1)
        count = sum(1 for item in target.rglob("*") if item.is_file())
        self.assertRegex(said.stderr, rf"is written to {target} as megatron tp1pp1: {count} files, [0-9.]+ kB in [0-9.]+ s")
        said = ckpt_fs("materialize", YUAN, self.scratch / "again", "--quiet", "--rng", "omit")
        self.assertEqual(said.stderr, "")


class Notes(Case):
    def test_a_model_without_a_tokenizer_is_said(self):
        llama = FIXTURES / "dist-tiny" / "dcp" / "llama_untied" / "hf"
        words = "no tokenizer is beside the weights: --template DIR"
        said = ckpt_fs("materialize", llama, self.scratch / "without", "--as", "hf", "--quiet")
        self.assertIn(words, said.stderr)
        template = shutil.copytree(llama, self.scratch / "template", ignore=shutil.ignore_patterns("*.safetensors"))
        (template / "tokenizer.json").write_text("{}")
        said = ckpt_fs("materialize", llama, self.scratch / "with", "--as", "hf", "--quiet", "--template", template)
        self.assertNotIn(words, said.stderr)
        self.assertTrue((self.scratch / "with" / "tokenizer.json").is_file())

    @unittest.skipUnless(os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"], "needs root")
    def test_who_loads_rank_files_is_told_how(self):
        words = "torch.load takes weights_only=False for these files"
        said = ckpt_fs("materialize", YUAN, self.scratch / "ranks", "--tp", 1, "--pp", 1)
        self.assertIn(words, said.stderr)
        said = ckpt_fs("materialize", YUAN, self.scratch / "model", "--as", "hf")
        self.assertNotIn(words, said.stderr)

    def test_root_is_told_that_nobody_else_can_use_its_mount(self):
        for flags, is_said in (((), True), (("--allow-other",), False), (("-o", "allow_other"), False), (("--quiet",), False)):
            point = self.scratch / "view"
            point.mkdir(exist_ok=True)
            said = ckpt_fs("mount", YUAN, point, "--tp", 4, *flags)
            unmount(point)
            self.assertEqual("only root can use this mount (--allow-other" in said.stderr, is_said, said.stderr)


class Reasons(Case):
    def test_why_a_layout_is_not_there_is_said_to_whoever_asks(self):
        with Mount(YUAN) as path:
            self.assertRaises(FileNotFoundError, os.stat, path / "tp3pp1")
            log = ckpt_fs("log", path).stdout
            self.assertIn("warning: tp3pp1: TP 3 does not divide 4 heads; possible: 1, 2, 4", log)
            messages = json.loads(ckpt_fs("log", path, "--json").stdout)
            self.assertEqual([message["level"] for message in messages], ["info", "warning"])
            told = json.loads(ckpt_fs("status", path, "--json").stdout)["status"]
            self.assertEqual((told["errors"] > 0, told["view"], told["source_problem"]), (True, "every layout and format", None))
            verbose = ckpt_fs("status", path, "--verbose").stdout
            for words in ("tp3pp1: TP 3 does not divide", "every layout and format", "as it was when mounted", str(YUAN)):
                self.assertIn(words, verbose)
            table = ckpt_fs("status", path).stdout.splitlines()
            self.assertTrue(table[0].endswith("ERRORS") and "every layout and format" in table[1], table)

    def test_a_source_that_changed_is_not_as_it_was(self):
        source = shutil.copytree(YUAN, self.scratch / "source")
        with Mount(source, "--tp", 4, "--pp", 1) as path:
            changed = source / "iter_0000100" / "mp_rank_00_000" / "model_optim_rng.pt"
            os.utime(changed, (1, 1))
            with self.assertRaises(OSError) as raised:
                (path / RANK).read_bytes()
            self.assertEqual(raised.exception.errno, errno.ESTALE)
            self.assertIn(str(changed), ckpt_fs("log", path).stdout)
            told = json.loads(ckpt_fs("status", path, "--json").stdout)["status"]
            self.assertIn(str(changed), told["source_problem"])
            self.assertIn("NOT AS IT WAS", ckpt_fs("status", path, "-v").stdout)

    def test_messages_are_json_where_that_is_asked_for(self):
        with ForegroundMount(YUAN, "--log-format", "json", "--log-level", "info") as mount:
            self.assertRaises(FileNotFoundError, os.stat, mount.path / "tp3pp1")
            unmount(mount.path)
            mount.process.wait(timeout=20)
            mount.log.seek(0)
            lines = [json.loads(line) for line in mount.log if line.startswith("{")]
        # Whoever finds the mount by itself may be there before it says so.
        self.assertTrue(any("mounted" in line["message"] and line["level"] == "info" for line in lines), lines)
        self.assertTrue(any("tp3pp1" in line["message"] and line["level"] == "warning" for line in lines), lines)


class Names(Case):
    def test_a_mount_point_may_be_no_text(self):
        """In a namespace of its own: other tests read the names of all mounts as text."""
        need(os.geteuid() == 0, "root")
        need_program("unshare")
        script = """
            mkdir "$2"; "$0" mount "$1" "$2" --quiet --tp 4 --pp 1; "$0" status --json; "$0" unmount "$2"
        """
        point = os.fsencode(self.scratch) + b"/odd\xff"
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, binary(), str(YUAN), point]
        done = subprocess.run(words, check=True, timeout=60, capture_output=True)
        rows = json.loads(done.stdout)
        self.assertIn(f"{self.scratch}/odd\N{REPLACEMENT CHARACTER}", [row["mount"] for row in rows])

    def test_a_name_makes_no_lines_of_a_log(self):
        source, log = self.scratch / "a\n2026-01-01T00:00:00Z ckpt-fs: error: forged", self.scratch / "log"
        shutil.copytree(YUAN, source)
        with Mount(source, "--tp", 4, "--pp", 1, "--log-file", log) as path:
            os.utime(next(source.rglob("*.pt")))
            self.assertRaises(OSError, next(path.rglob("*.pt")).read_bytes)
            said = ckpt_fs("log", path).stdout
        for text in (log.read_text(), said):
            self.assertIn("error: forged", text)
            self.assertNotRegex(text, "(?m)^2026-01-01T00:00:00Z ckpt-fs: error: forged")


class Compared(Case):
    def test_what_nothing_describes_is_compared_with_no_model(self):
        saved = FIXTURES / "dist-tiny" / "dcp" / "llama_tied_bf16"
        done = ckpt_fs("verify", saved / "fsdp2_n3", saved / "hf", "--optimizer", "none", check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("nothing says what its tensors are", done.stderr)
        ckpt_fs("verify", saved / "fsdp2_n3", saved / "hf", "--optimizer", "none", "--template", saved / "hf")


class Modes(Case):
    def test_copies_belong_to_their_owner(self):
        """`cp -r` gives a copy the modes of what it copied: without write permission its owner could not delete what is in it."""
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            shutil.copytree(path, self.scratch / "copy")
        for item in (self.scratch / "copy", *(self.scratch / "copy").rglob("*")):
            self.assertTrue(item.stat().st_mode & stat.S_IWUSR, item)

    def test_modes_can_be_asked_for_and_nobody_can_write(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1, "--file-mode", "640", "--dir-mode", "0750") as path:
            self.assertEqual((path / RANK).stat().st_mode, stat.S_IFREG | 0o640)
            self.assertEqual(path.stat().st_mode, stat.S_IFDIR | 0o750)
        with Mount(YUAN, "--tp", 4, "--pp", 1, "--file-mode", "666") as path:
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
                with self.assertRaises(OSError) as raised:
                    os.open(path / RANK, flags)
                self.assertEqual(raised.exception.errno, errno.EROFS)
        said = ckpt_fs("mount", YUAN, self.scratch, "--file-mode", "rw", check=False)
        self.assertEqual(said.returncode, 2)
        self.assertIn("three octal digits such as 644", said.stderr)
