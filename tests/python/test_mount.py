"""Views through the kernel: right in every layout, on demand, read-only."""

import errno
import os
import shutil
import unittest
import zipfile

from support import (
    FIXTURES, KINDS, Case, Mount, ckpt_fs, exact, expected, expected_names, is_mounted, layout_flags, layout_name, manifest,
    run, same_files, sources,
)

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
GPT = FIXTURES / "gpt-tiny" / "pp1_tp1_f16"
CORE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"


class Independence(Case):
    def test_every_source_shows_what_training_wrote_in_every_layout(self):
        for kind in KINDS:
            for name, directory in sources(kind).items():
                with Mount(directory) as path:
                    for target in expected_names(kind, name):
                        wanted = expected(kind, target)
                        with self.subTest(kind=kind, source=name, target=target):
                            self.assert_same(wanted, manifest.describe(path / layout_name(wanted)))

    def test_layout_from_the_name_of_the_mount_point(self):
        for target in expected_names("yuan-tiny", YUAN.name):
            wanted = expected("yuan-tiny", target)
            with self.subTest(target=target), Mount(YUAN, name=layout_name(wanted)) as path:
                self.assert_same(wanted, manifest.describe(path))

    def test_layout_from_flags(self):
        for source, kind, target in ((GPT, "gpt-tiny", "pp4_tp1_f16"), (CORE, "megatron-tiny/untied", "dist_tp4pp2")):
            wanted = expected(kind, target)
            with self.subTest(kind=kind), Mount(source, *layout_flags(wanted)) as path:
                self.assert_same(wanted, manifest.describe(path))

    def test_what_the_name_leaves_out_is_the_sources(self):
        with Mount(YUAN, name="tp4") as path:
            self.assertEqual(manifest.layout(manifest.describe(path)), (4, 2, [2, 4]))

    def test_one_iteration_directory_is_a_source_too(self):
        with Mount(YUAN / "iter_0000100", "--tp", 4, "--pp", 1) as path:
            self.assert_same(expected("yuan-tiny", "pp1_tp4_none"), manifest.describe(path))


class ExactCrc(Case):
    """With --crc exact a mounted file and a materialized one are the same bytes."""

    def test_mounted_and_materialized_files_are_equal(self):
        for source, cut in ((YUAN, "2,4"), (GPT, "3,1"), (CORE, "4,4")):
            flags = ["--tp", 2, "--pp", 2, "--pp-layers", cut]
            with self.subTest(source=source.name), Mount(source, *exact(*flags)) as path:
                real = self.materialize(source, *flags)
                self.assertEqual(same_files(real, path), [])

    def test_zip_tools_are_content(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1, "--crc", "exact") as path:
            for file in path.rglob("*.pt"):
                with zipfile.ZipFile(file) as archive:
                    self.assertIsNone(archive.testzip())
                if shutil.which("unzip"):
                    run("unzip", "-tq", file)

    def test_records_whose_sum_is_known_have_it_without(self):
        """Lazy readers open data.pkl, version and byteorder by zipfile, which checks sums, and tensors by their offsets."""
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            for file in path.rglob("*.pt"):
                bad = set()
                with zipfile.ZipFile(file) as archive:
                    for name in archive.namelist():
                        try:
                            archive.read(name)
                        except zipfile.BadZipFile:
                            bad.add(name.partition("/")[2])
                self.assertTrue(bad and all(name.startswith("data/") for name in bad), bad)
            same = self.materialize(YUAN, "--tp", 4, "--pp", 1, "--crc", "zero")
            self.assertEqual(same_files(same, path), [])

    def test_without_it_only_crc_fields_differ(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            real = self.materialize(YUAN, "--tp", 4, "--pp", 1)
            sizes = [{p.relative_to(root): p.stat().st_size for p in root.rglob("*.pt")} for root in (path, real)]
            self.assertEqual(sizes[0], sizes[1])
            self.assert_same(manifest.describe(real), manifest.describe(path), allowed=())


class Tree(Case):
    def test_names_sizes_modes_and_times(self):
        newest = max(p.stat().st_mtime_ns for p in YUAN.rglob("*.pt"))
        oldest = min(p.stat().st_mtime_ns for p in YUAN.rglob("*"))
        with Mount(YUAN, "--tp", 1, "--pp", 2, "--pp-layers", "3,3") as path:
            self.assertEqual(sorted(os.listdir(path)), ["iter_0000100", "latest_checkpointed_iteration.txt"])
            self.assertEqual(sorted(os.listdir(path / "iter_0000100")), ["mp_rank_00_000", "mp_rank_00_001"])
            for item in path.rglob("*"):
                status = item.stat()
                self.assertEqual(status.st_mode & 0o777, 0o755 if item.is_dir() else 0o644, item)
                if item.suffix == ".pt":
                    self.assertEqual(len(item.read_bytes()), status.st_size)
                    self.assertTrue(oldest <= status.st_mtime_ns <= newest, item)

    def test_inode_numbers_outlast_the_mount(self):
        """Re-exports and backup programs know files by their numbers."""
        seen = []
        for _ in range(2):
            with Mount(YUAN, "--tp", 2, "--pp", 3) as path:
                seen.append({str(item.relative_to(path)): item.stat().st_ino for item in path.rglob("*")})
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(len(set(seen[0].values())), len(seen[0]))

    def test_ls_lists_what_the_mount_shows(self):
        listing = ckpt_fs("ls", YUAN, "--tp", 4, "--pp", 1).stdout
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            for item in path.rglob("*.pt"):
                line = next(line for line in listing.splitlines() if str(item.relative_to(path)) in line)
                self.assertIn(str(item.stat().st_size), line.replace(",", "").replace("_", ""))

    def test_all_writes_answer_erofs(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            file = next(path.rglob("*.pt"))
            attempts = {
                "open for writing": lambda: os.open(file, os.O_WRONLY),
                "open for both": lambda: os.open(file, os.O_RDWR),
                "truncate": lambda: os.truncate(file, 0),
                "create": lambda: os.open(path / "new", os.O_CREAT | os.O_WRONLY),
                "unlink": lambda: os.unlink(file),
                "mkdir": lambda: os.mkdir(path / "new"),
                "rmdir": lambda: os.rmdir(path / "iter_0000100"),
                "rename": lambda: os.rename(file, path / "new"),
                "link": lambda: os.link(file, path / "new"),
                "symlink": lambda: os.symlink("x", path / "new"),
                "chmod": lambda: os.chmod(file, 0o600),
                "chown": lambda: os.chown(file, os.getuid(), os.getgid()),
                "utime": lambda: os.utime(file, (0, 0)),
                "setxattr": lambda: os.setxattr(file, "user.x", b"x"),
            }
            for name, attempt in attempts.items():
                with self.subTest(attempt=name), self.assertRaises(OSError) as caught:
                    attempt()
                self.assertEqual(caught.exception.errno, errno.EROFS, name)


def layouts(path):
    """What is listed beside the directories of other formats."""
    return sorted(set(os.listdir(path)) - {"dcp", "hf", "megatron", "safetensors", "sglang", "torch_dist", "vllm"})


class ManyLayouts(Case):
    def test_layouts_appear_on_demand(self):
        with Mount(YUAN) as path:
            self.assertEqual(layouts(path), ["tp2pp2@2,4"])
            self.assertTrue((path / "tp4pp1" / "iter_0000100").is_dir())
            self.assertEqual(layouts(path), ["tp2pp2@2,4", "tp4pp1"])
            self.assertEqual(len(list((path / "tp1pp6").rglob("*.pt"))), 6)

    def test_every_format_has_a_directory(self):
        """Formats that the source can be shown in stand beside its own layouts, and have layouts of their own."""
        with Mount(YUAN) as path:
            self.assertEqual(sorted(set(os.listdir(path)) - set(layouts(path))), ["dcp", "hf", "megatron", "safetensors"])
            self.assertEqual(sorted(os.listdir(path / "hf")), ["config.json", "model.safetensors"])
            self.assertEqual(sorted(os.listdir(path / "dcp")), [".metadata", "__0_0.distcp", "config.json"])
            self.assertEqual(os.listdir(path / "safetensors"), ["tp2pp2@2,4"])
            self.assertTrue((path / "safetensors" / "tp4pp1" / "mp_rank_03.safetensors").is_file())
            self.assertTrue((path / "megatron" / "tp1pp1" / "iter_0000100").is_dir())
            for name in ("vllm", "torch_dist", "hf/tp1pp1", "safetensors/tp3pp1", "tp4pp1/hf"):
                with self.subTest(name=name), self.assertRaises(FileNotFoundError):
                    os.stat(path / name)

    def test_other_spellings_are_links(self):
        """A layout has one directory. Another spelling is a link to it, in no listing: who copies a tree copies each layout once."""
        with Mount(YUAN) as path:
            for name, canonical in (
                ("tp4", "tp4pp2@2,4"), ("TP4PP1", "tp4pp1"), ("pp1tp4", "tp4pp1"), ("tp04pp1", "tp4pp1"), ("tp4-pp1", "tp4pp1"),
                ("tp4pp1@6", "tp4pp1"), ("tp4pp2@3,3", "tp4pp2"), ("Tp2_Pp2@2,4", "tp2pp2@2,4"),
            ):
                with self.subTest(name=name):
                    self.assertEqual(os.readlink(path / name), canonical)
                    self.assertTrue(os.path.samefile(path / name / "iter_0000100", path / canonical / "iter_0000100"))
            for name, canonical in (("HF", "hf"), ("SafeTensors", "safetensors"), ("Torch-Dist", None)):
                with self.subTest(name=name):
                    if canonical is None:
                        self.assertRaises(FileNotFoundError, os.lstat, path / name)
                    else:
                        self.assertEqual(os.readlink(path / name), canonical)
            self.assertFalse([name for name in os.listdir(path) if (path / name).is_symlink()])

    def test_what_is_no_layout_does_not_exist(self):
        with Mount(YUAN) as path:
            for name in (
                "tp2pp2@2,4,", "tp2pp2@02,4", "tp2pp2@ 2,4", "tp0pp1", "tp4pp0", "tp-1pp1", "tp4pp1 ", "tp4tp4", "4", "tp",
                "tp99999999999999999999pp1", "latest", "@2,4", "tp4pp1\n", "tp4pp1@", "iter_0000100",
            ):
                with self.subTest(name=name), self.assertRaises(FileNotFoundError):
                    os.stat(path / name)

    def test_impossible_layouts_are_errors(self):
        with Mount(YUAN) as path:
            for name in ("tp3pp1", "tp8pp1", "tp1pp7", "tp1pp5", "tp1pp2@3,4", "tp1pp2@6", "tp1pp3@2,4", "tp5pp1"):
                with self.subTest(name=name), self.assertRaises(OSError):
                    os.listdir(path / name)
            self.assertEqual(layouts(path), ["tp2pp2@2,4"])


class Refusals(Case):
    def refused(self, *arguments, directory="view"):
        """`mount` fails before it backgrounds, with a reason on stderr and nothing mounted."""
        point = self.scratch / directory
        point.mkdir(exist_ok=True)
        done = ckpt_fs("mount", arguments[0], point, *arguments[1:], check=False)
        self.addCleanup(lambda: is_mounted(point) and ckpt_fs("unmount", point, check=False))
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.strip())
        self.assertFalse(is_mounted(point))
        return done

    def test_impossible_layouts_come_with_the_possible_ones(self):
        done = self.refused(YUAN, "--tp", 3, "--pp", 1)
        for word in ("3", "4", "1, 2, 4"):
            self.assertIn(word, done.stderr)

    def test_uneven_layers_come_with_a_proposal(self):
        self.assertIn("tp1pp4@", self.refused(YUAN, "--tp", 1, "--pp", 4).stderr)

    def test_flags_against_the_name(self):
        self.assertEqual(self.refused(YUAN, "--tp", 2, directory="tp4pp1").returncode, 2)

    def test_sources_that_are_none(self):
        (self.scratch / "empty").mkdir()
        for source in (self.scratch / "nowhere", self.scratch / "empty", FIXTURES / "README.md"):
            with self.subTest(source=source.name):
                self.refused(source)

    def test_a_truncated_rank_file_is_named(self):
        shutil.copytree(YUAN, self.scratch / "source")
        victim = self.scratch / "source/iter_0000100/mp_rank_01_001/model_optim_rng.pt"
        os.truncate(victim, 5000)
        self.assertIn("mp_rank_01_001", self.refused(self.scratch / "source").stderr)

    def test_a_missing_rank_file_that_leaves_a_hole_is_named(self):
        shutil.copytree(YUAN, self.scratch / "source")
        shutil.rmtree(self.scratch / "source/iter_0000100/mp_rank_01_001")
        self.assertIn("mp_rank_01_001", self.refused(self.scratch / "source").stderr)


if __name__ == "__main__":
    unittest.main()
