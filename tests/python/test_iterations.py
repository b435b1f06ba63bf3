"""All iterations of a run in one mount: those that are whole, and no other, while training saves, removes and saves again."""

import errno
import json
import os
import random
import re
import shutil
import threading
import unittest

from support import (
    FIXTURES, ROOT, Case, ForegroundMount, Mount, binary, ckpt_fs, expected, layout_name, manifest, module, run, same_files, unmount, until,
)

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
DIST = FIXTURES / "dist-tiny" / "megatron" / "optim"
DCP = FIXTURES / "dist-tiny" / "dcp"
TRACKER = "latest_checkpointed_iteration.txt"
ALL = ("--iteration", "all")


class Run(Case):
    """A run that saves what the fixture has, under whatever number."""

    def setUp(self):
        super().setUp()
        self.directory = self.scratch / "run"
        self.directory.mkdir()

    def name(self, number):
        return f"iter_{number:07}"

    def save(self, number, tracked=True, source=YUAN / "iter_0000100"):
        """As Megatron saves: directories, files, and at last the tracker."""
        where = self.directory / self.name(number)
        shutil.copytree(source, where, copy_function=shutil.copyfile, dirs_exist_ok=True)
        if tracked:
            self.track(number)
        return where

    def track(self, number):
        (self.directory / TRACKER).write_text(str(number))

    def mount(self, *options, kind=Mount, **more):
        return kind(self.directory, *ALL, *options, **more)

    def shown(self, path):
        return sorted(set(os.listdir(path)) - {"latest"})

    def until_shown(self, path, *numbers):
        wanted = [number if isinstance(number, str) else self.name(number) for number in numbers]
        until(lambda: self.shown(path) == wanted, f"{wanted} in {path}")

    def why(self, path, name):
        """Why an iteration is not shown, as status says it."""
        status = json.loads(ckpt_fs("status", "--json", path).stdout)["status"]["run"]
        return {one["name"]: one["why"] for one in status["not_shown"]}.get(name)


class Saving(Run):
    def test_each_is_what_a_mount_of_it_alone_is(self):
        self.save(100), self.save(200)
        with self.mount() as path, Mount(self.directory, "--iteration", 200) as alone:
            self.assertEqual(self.shown(path), [self.name(100), self.name(200)])
            self.assertEqual(sorted(os.listdir(path / self.name(200))), sorted(os.listdir(alone)))
            for name in ("tp4pp2", "hf", "safetensors/tp1pp1"):
                self.assertEqual(same_files(alone / name, path / self.name(200) / name), [], name)
            self.assertEqual(os.readlink(path / self.name(100) / "PP2TP4"), os.readlink(alone / "PP2TP4"))
            wanted = expected("yuan-tiny", "pp4b1221_tp4_none")
            self.assert_same(wanted, manifest.describe(path / self.name(100) / layout_name(wanted)))

    def test_a_fixed_view_is_the_directory_itself(self):
        self.save(100), self.save(200)
        with self.mount("--tp", 4, "--pp", 1) as path, Mount(self.directory, "--tp", 4, "--pp", 1) as alone:
            self.assertEqual(same_files(alone, path / self.name(200)), [])
        with self.mount("--as", "hf") as path:
            self.assertIn("config.json", os.listdir(path / self.name(100)))
        with self.mount(name="tp1pp1") as path:
            self.assertEqual(sorted(os.listdir(path / "latest")), [self.name(200), TRACKER])

    def test_half_of_a_save_is_not_there(self):
        self.save(100)
        with self.mount() as path:
            ranks = sorted(directory.name for directory in (YUAN / "iter_0000100").iterdir())
            where = self.directory / self.name(200)
            where.mkdir()
            until(lambda: self.why(path, where.name) == "it is empty", "the new directory to be seen")
            for rank in ranks:
                (where / rank).mkdir()
            for rank in ranks[:-1]:
                shutil.copyfile(YUAN / "iter_0000100" / rank / "model_optim_rng.pt", where / rank / "model_optim_rng.pt")
            until(lambda: "the tracker says 100" in (self.why(path, where.name) or ""), "the reason")
            self.assertEqual(self.shown(path), [self.name(100)])
            self.assertEqual(os.readlink(path / "latest"), self.name(100))
            with self.assertRaises(FileNotFoundError):
                os.listdir(path / where.name)
            self.save(200)
            self.until_shown(path, 100, 200)
            self.assertEqual(os.readlink(path / "latest"), self.name(200))
            self.assertTrue((path / "latest" / "tp1pp1" / TRACKER).exists())
            # Said once, however often it was looked at.
            log = ckpt_fs("log", path).stdout
            self.assertEqual(log.count(f"{where.name}: not shown: it is empty"), 1, log)
            self.assertEqual(log.count(f"{where.name}: shown"), 1, log)
            self.assertNotIn("times)", log)

    def test_a_tracker_that_is_ahead_of_the_files_does_not_help(self):
        self.save(100)
        shutil.rmtree(self.save(200) / "mp_rank_01_001")
        with self.mount() as path:
            self.assertEqual(self.shown(path), [self.name(100)])
            self.assertIn("mp_rank_01_001", self.why(path, self.name(200)))
            self.save(200)
            self.until_shown(path, 100, 200)

    def test_what_no_tracker_speaks_for_must_be_left_alone(self):
        where = self.save(100, tracked=False)
        with self.mount("--settle", 2) as path:
            self.assertEqual(self.shown(path), [])
            self.assertIn("not changed for 2 s", self.why(path, where.name))
            self.until_shown(path, 100)
        with self.mount() as path:
            self.assertEqual(self.shown(path), [])

    def test_a_run_that_has_saved_nothing(self):
        with self.mount() as path:
            self.assertEqual(os.listdir(path), [])
            self.save(100)
            self.until_shown(path, 100)

    def test_a_tracker_that_is_being_written_says_what_it_said(self):
        self.save(100)
        with self.mount() as path:
            self.assertEqual(self.shown(path), [self.name(100)])
            (self.directory / TRACKER).write_text("")
            self.save(200, tracked=False)
            until(lambda: self.why(path, self.name(200)), "the new one to be seen")
            self.assertEqual(self.shown(path), [self.name(100)])
            self.track(200)
            self.until_shown(path, 100, 200)

    def test_names_that_are_none(self):
        self.save(100)
        (self.directory / "iter_0000100.tmp").mkdir()
        (self.directory / "iter_0000005").write_text("a file")
        (self.directory / "iter_7").symlink_to(self.name(100))
        (self.directory / "iter_0000008").symlink_to("nowhere")
        (self.directory / os.fsdecode(b"iter_\xff")).mkdir()
        elsewhere = self.scratch / "other-disk"
        shutil.move(self.save(50, tracked=False), elsewhere)
        (self.directory / self.name(50)).symlink_to(elsewhere)
        self.track(100)
        with self.mount() as path:
            self.assertEqual(self.shown(path), [self.name(50), self.name(100)])
            self.assertIn("no directory", self.why(path, "iter_0000005"))
            self.assertIn("iter_0000007", self.why(path, "iter_7"))
            self.assertIn("nowhere", self.why(path, "iter_0000008"))
            self.assertTrue((path / self.name(50) / "tp1pp1" / TRACKER).exists())
            for name in ("iter_0000100.tmp", "latest_checkpointed_iteration.txt", "x" * 255, "tp1pp1"):
                self.assertFalse((path / name).exists(), name)

    def test_links_to_everywhere_hang_nobody(self):
        self.save(100)
        with self.mount("--settle", 0) as path:
            os.mkfifo(self.directory / "iter_0000001")
            for number, target in ((2, "."), (3, "/"), (4, path), (5, path / "latest" / "megatron" / "tp1pp1" / self.name(100))):
                (self.directory / self.name(number)).symlink_to(target)
            (self.directory / "checkpoint-6").symlink_to(path / "checkpoint-6")
            (self.directory / "checkpoint-7").symlink_to(path / self.name(100) / "hf")
            (self.directory / self.name(8)).symlink_to(self.name(8))
            until(lambda: "no directory" in (self.why(path, self.name(1)) or ""), "the reason")
            self.assertEqual(self.shown(path), [self.name(100)])
            for number in (2, 3, 4):
                self.assertIn("neither directories of ranks", self.why(path, self.name(number)))
            for name in (self.name(5), "checkpoint-7"):
                self.assertIn("a link into this mount", self.why(path, name))
            self.assertIsNotNone(self.why(path, "checkpoint-6"))
            ckpt_fs("unmount", path)

    def test_thousands_of_directories_with_nothing_in_them(self):
        for number in range(1, 4001):
            (self.directory / self.name(number)).mkdir()
        self.save(5000)
        with self.mount() as path:
            self.assertEqual(self.shown(path), [self.name(5000)])
            log = ckpt_fs("log", path).stdout
            self.assertIn("and 3992 more: not shown: it is empty", log)
            status = json.loads(ckpt_fs("status", "--json", path).stdout)["status"]["run"]
            self.assertEqual((status["hidden"], len(status["not_shown"])), (4000, 20))
            self.assertIn("not shown 3980 more", ckpt_fs("status", "-v", path).stdout)


class Changing(Run):
    def test_one_that_is_removed_goes_and_what_is_open_of_it_is_stale(self):
        self.save(100), self.save(200)
        with self.mount() as path:
            file = next((path / self.name(100) / "tp1pp1").rglob("*.pt"))
            with open(file, "rb", buffering=0) as opened:
                first = opened.read(4096)
                shutil.rmtree(self.directory / self.name(100))
                self.until_shown(path, 200)
                until(lambda: not (path / self.name(100)).exists(), "the kernel to forget the name")
                with self.assertRaises(OSError) as caught:
                    os.pread(opened.fileno(), 4096, 0)
                self.assertEqual(caught.exception.errno, errno.ESTALE)
            self.assertEqual(len(first), 4096)
            self.assertIn(f"{self.name(100)}: gone", ckpt_fs("log", path).stdout)
            self.assertTrue((path / "latest" / "tp1pp1" / TRACKER).exists())

    def test_one_that_is_saved_again_is_never_mixed(self):
        self.save(100)
        where = self.save(200)
        with self.mount() as path:
            view = next((path / self.name(200) / "tp1pp1").rglob("*.pt"))
            before = view.read_bytes()
            with open(view, "rb", buffering=0) as opened:
                opened.read(1)
                # In place, as Megatron does: the directories stay, and one rank is done before the next.
                first, *others = sorted(where.rglob("*.pt"))
                self.train(first)
                until(lambda: self.shown(path) == [self.name(100)], "the iteration to go")
                self.assertIn("newer than the tracker", self.why(path, self.name(200)))
                until(lambda: not (path / self.name(200)).exists(), "the kernel to forget the name")
                for file in others:
                    self.train(file)
                self.assertEqual(self.shown(path), [self.name(100)])
                self.track(200)
                self.until_shown(path, 100, 200)
                with self.assertRaises(OSError) as caught:
                    os.pread(opened.fileno(), 4096, 1 << 16)
                self.assertEqual(caught.exception.errno, errno.ESTALE)
            after = next((path / self.name(200) / "tp1pp1").rglob("*.pt")).read_bytes()
            self.assertNotEqual(after, before)
            real = self.materialize(self.directory, "--tp", 1, "--pp", 1, "--crc", "zero")
            self.assertEqual(same_files(real, path / self.name(200) / "tp1pp1"), [])
            self.assertIn(f"{self.name(200)}: ", ckpt_fs("log", path).stdout)

    def train(self, file):
        """Other numbers in the middle of a tensor."""
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(byte ^ 0x3F for byte in data[middle : middle + 64])
        file.write_bytes(data)

    def test_a_save_over_an_older_one_that_was_cut_short(self):
        where = self.save(200)
        first, *others = sorted(where.rglob("*.pt"))
        for file in others:
            os.utime(file, (1, 1))
        self.track(100)
        with self.mount("--settle", 0) as path:
            self.assertEqual(self.shown(path), [])
            self.assertIn("as those of two saves", self.why(path, where.name))

    def test_a_directory_that_takes_the_place_of_another(self):
        self.save(100)
        with self.mount("--as", "hf") as path:
            number = os.stat(path / self.name(100)).st_ino
            old = os.open(path / self.name(100) / "config.json", os.O_RDONLY)
            self.addCleanup(os.close, old)
            shutil.move(self.directory / self.name(100), self.scratch / "aside")
            self.until_shown(path)
            self.save(100)
            self.until_shown(path, 100)
            self.assertNotEqual(os.stat(path / self.name(100)).st_ino, number)
            self.assertIn("config.json", os.listdir(path / self.name(100)))
            shutil.rmtree(self.scratch / "aside")

    def test_a_damaged_one_takes_nothing_down(self):
        self.save(100)
        damaged = next(self.save(200).rglob("*.pt"))
        self.save(300)
        os.truncate(damaged, 1000)
        self.track(300)
        with self.mount() as path:
            self.assertEqual(self.shown(path), [self.name(100), self.name(300)])
            self.assertIn(str(damaged), self.why(path, self.name(200)))
            log = ckpt_fs("log", path).stdout
            self.assertEqual(log.count(f"warning: {self.name(200)}: not shown"), 1, log)
            # Mended, it is there.
            shutil.copyfile(YUAN / "iter_0000100" / damaged.parent.name / damaged.name, damaged)
            self.track(300)
            self.until_shown(path, 100, 200, 300)

    def test_the_newest_is_damaged(self):
        self.save(100)
        os.truncate(next(self.save(200).rglob("*.pt")), 1000)
        self.track(200)
        with self.mount() as path:
            self.assertEqual(os.readlink(path / "latest"), self.name(100))

    def test_the_run_goes_and_comes_back(self):
        self.save(100)
        with self.mount() as path:
            self.assertEqual(self.shown(path), [self.name(100)])
            os.rename(self.directory, self.scratch / "away")
            self.until_shown(path)
            os.rename(self.scratch / "away", self.directory)
            self.until_shown(path, 100)
            self.assertTrue((path / self.name(100) / "tp2pp3" / TRACKER).exists())


class Racing(Run):
    """A run that saves the same few numbers over and over, in place and anew, and removes them, while others list and read."""

    SECONDS = 8

    def variants(self):
        """Rank files of several saves, and what a view of each is, whole."""
        made = {}
        for number in range(3):
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir()
            for file in sorted(self.save(100).rglob("*.pt")):
                data = bytearray(file.read_bytes())
                middle = len(data) // 2
                data[middle : middle + 256] = bytes(byte ^ number for byte in data[middle : middle + 256])
                file.write_bytes(data)
            saved = {file.relative_to(self.directory / self.name(100)): file.read_bytes() for file in self.directory.rglob("*.pt")}
            view = self.materialize(self.directory, "--tp", 1, "--pp", 1, "--crc", "zero")
            made[next(view.rglob("*.pt")).read_bytes()] = saved
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        self.assertEqual(len(made), 3)
        return made

    def write(self, saves, stop):
        choose = random.Random(1)
        last = 0
        while not stop.is_set():
            number = choose.choice((100, 200))
            where, how = self.directory / self.name(number), choose.choice("ooonr")
            if how == "r":
                shutil.rmtree(where, ignore_errors=True)
                continue
            if how == "n":
                shutil.rmtree(where, ignore_errors=True)
            for path, data in choose.choice(saves).items():
                (where / path).parent.mkdir(parents=True, exist_ok=True)
                (where / path).write_bytes(data)
                # Within one tick of its clock a file system says of two writes that they are one.
                stop.wait(0.02)
            last = max(last, number)
            self.track(last)
            stop.wait(choose.choice((0.1, 1.5)))

    def read(self, path, whole, seen, stop):
        while not stop.is_set():
            for name in self.shown(path):
                try:
                    file = next((path / name / "tp1pp1" / name).rglob("*.pt"))
                    seen.append(file.read_bytes() in whole)
                except StopIteration:
                    pass
                except OSError as error:
                    if error.errno not in (errno.ESTALE, errno.ENOENT):
                        seen.append(error)

    def test_every_answer_is_of_one_save(self):
        made = self.variants()
        stop, seen = threading.Event(), []
        with self.mount() as path:
            threads = [threading.Thread(target=self.write, args=(list(made.values()), stop))]
            threads += [threading.Thread(target=self.read, args=(path, set(made), seen, stop)) for _ in range(3)]
            for thread in threads:
                thread.start()
            stop.wait(self.SECONDS)
            stop.set()
            for thread in threads:
                thread.join(60)
                self.assertFalse(thread.is_alive())
            self.assertGreater(len(seen), 10)
            self.assertEqual([one for one in seen if one is not True], [])
            # The last save is there when all is quiet.
            self.save(300)
            until(lambda: os.readlink(path / "latest") == self.name(300) if os.path.lexists(path / "latest") else False, "the last save")


class Many(Run):
    def test_few_are_open_at_a_time_and_the_others_come_back(self):
        numbers = list(range(1, 16))
        for number in numbers:
            self.save(number)
        with self.mount(kind=ForegroundMount) as mount:
            path = mount.path
            # A process that stands in one, and a number that somebody still has.
            inside = os.open(path / self.name(1) / "tp1pp1" / self.name(1), os.O_RDONLY | os.O_PATH)
            self.addCleanup(os.close, inside)
            held = open(next((path / self.name(2) / "tp1pp1").rglob("*.pt")), "rb", buffering=0)
            self.addCleanup(held.close)
            seen = {}
            for number in numbers:
                file = next((path / self.name(number) / "tp1pp1").rglob("*.pt"))
                seen[file] = (file.stat().st_ino, file.read_bytes())
            status = json.loads(ckpt_fs("status", "--json", path).stdout)["status"]["run"]
            self.assertEqual((status["shown"], status["open"] <= 9), (15, True), status)
            descriptors = len(os.listdir(f"/proc/{mount.process.pid}/fd"))
            self.assertLess(descriptors, 9 * 4 + 40)
            self.assertEqual(os.listdir(f"/proc/self/fd/{inside}"), ["mp_rank_00"])
            self.assertEqual(len(held.read(100)), 100)
            for file, (number, data) in seen.items():
                self.assertEqual((file.stat().st_ino, file.read_bytes() == data), (number, True), file)
            self.assertEqual(len({number for number, _ in seen.values()}), 15)

    def test_attributes_of_what_was_not_opened(self):
        """A mount opens the newest alone: the others are as large as that, and nobody counted their directories."""
        self.save(100), self.save(200)
        with self.mount() as path, Mount(self.directory, "--iteration", 200) as alone:
            self.assertEqual(os.stat(path / self.name(100)).st_nlink, 1)
            self.assertEqual(os.stat(path / self.name(200)).st_nlink, os.stat(alone).st_nlink)
            blocks = os.statvfs(alone).f_blocks
            self.assertIn(os.statvfs(path).f_blocks - 2 * blocks, (-1, 0))
            self.assertEqual(json.loads(ckpt_fs("status", "--json", path).stdout)["status"]["run"]["open"], 1)

    def test_numbers_outlast_the_mount(self):
        self.save(100), self.save(200)
        seen = []
        for _ in range(2):
            with self.mount("--tp", 2) as path:
                seen.append({str(item.relative_to(path)): item.lstat().st_ino for item in path.rglob("*")})
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(len(set(seen[0].values())), len(seen[0]))


class Kinds(Run):
    def test_torch_dist(self):
        source = next(DIST.glob("*/iter_*"))
        where = self.save(8, source=source)
        with self.mount() as path:
            self.until_shown(path, 8)
            self.assertTrue(os.listdir(path / self.name(8) / "tp1pp1"))
            half = self.directory / self.name(9)
            shutil.copytree(where, half, ignore=shutil.ignore_patterns(".metadata", "metadata.json"))
            (half / ".metadata.tmp").write_bytes((where / ".metadata").read_bytes()[:100])
            self.track(9)
            until(lambda: ".metadata is not there" in (self.why(path, half.name) or ""), "the reason")
            os.remove(half / ".metadata.tmp")
            shutil.copyfile(where / ".metadata", half / ".metadata")
            until(lambda: "metadata.json is not there" in (self.why(path, half.name) or ""), "the next reason")
            shutil.copyfile(where / "metadata.json", half / "metadata.json")
            self.track(9)
            self.until_shown(path, 8, 9)

    def test_the_last_step_may_be_a_model(self):
        """As torchtitan leaves it; then the newest iteration, which a mount of the run opens first, is of another kind than the others."""
        titan = DCP / "titan_mini"
        run = self.scratch / "titan"
        shutil.copytree(titan / "titan_head_n2", run / "step-10")
        shutil.copytree(titan / "hf", run / "step-20")
        with Mount(run, "--iteration", "all", "--settle", 0, "--template", titan / "hf") as path:
            self.assertEqual(sorted(os.listdir(path)), ["latest", "step-10", "step-20"])
            for step in ("step-10", "step-20"):
                self.assertTrue((path / step / "hf" / "model.safetensors").read_bytes())
        self.assertIn("model.safetensors", ckpt_fs("ls", run, "--iteration", 20).stdout)

    def test_steps_of_the_trainer_and_of_torchtitan(self):
        model = DCP / "llama_untied" / "hf"
        titan = DCP / "titan_mini" / "titan_head_n2"
        shutil.copytree(model, self.directory / "checkpoint-500")
        shutil.copytree(model, self.directory / "tmp-checkpoint-1000")
        with self.mount("--settle", 1) as path:
            self.until_shown(path, "checkpoint-500")
            self.assertIn("model.safetensors", "".join(os.listdir(path / "checkpoint-500" / "hf")))
            os.rename(self.directory / "tmp-checkpoint-1000", self.directory / "checkpoint-1000")
            self.until_shown(path, "checkpoint-1000", "checkpoint-500")
            self.assertEqual(os.readlink(path / "latest"), "checkpoint-1000")
            (self.directory / "checkpoint-500" / "eval_results.json").write_text("{}")
            self.assertTrue((path / "checkpoint-500" / "hf" / "config.json").read_bytes())
            self.assertEqual(self.shown(path), ["checkpoint-1000", "checkpoint-500"])
            shutil.copytree(titan, self.directory / "step-10")
            self.until_shown(path, "checkpoint-1000", "checkpoint-500", "step-10")


class Commands(Run):
    def test_status_log_warmup_and_unmount(self):
        self.save(100), self.save(200)
        with self.mount() as path:
            self.assertIn("every iteration, each as every layout and format", ckpt_fs("status", path).stdout)
            verbose = ckpt_fs("status", "-v", path / "latest" / "tp1pp1").stdout
            self.assertRegex(verbose, f"2 iterations, [12] of them open; the newest is {self.name(200)}")
            refused = ckpt_fs("warmup", path, check=False)
            self.assertEqual((refused.returncode, "latest/hf" in refused.stderr), (2, True), refused.stderr)
            ckpt_fs("warmup", "-q", path, "latest/tp1pp1")
            ckpt_fs("warmup", "-q", path / self.name(100) / "tp2pp1")
            ckpt_fs("unmount", path)

    def test_what_works_on_one_checkpoint_says_so(self):
        self.save(100)
        for command in (["materialize", self.directory, self.scratch / "out"], ["ls", self.directory],
                        ["inspect", self.directory, "--globals"], ["verify", self.directory], ["digest", self.directory], ["serve", self.directory]):
            done = ckpt_fs(*command, *ALL, check=False)
            self.assertEqual(done.returncode, 2, command)
            self.assertIn("choose one with --iteration N", done.stderr)

    def test_inspect_lists_them(self):
        self.save(100)
        os.truncate(next(self.save(200).rglob("*.pt")), 1000)
        (self.directory / self.name(400)).mkdir()
        self.save(300)
        lines = ckpt_fs("inspect", self.directory, *ALL).stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["ITERATION", *map(self.name, (100, 200, 300, 400))])
        self.assertRegex(lines[1], r"megatron +tp2pp2@2,4 .* whole$")
        self.assertRegex(lines[2], r"not whole: .*model_optim_rng.pt")
        self.assertRegex(lines[3], r"whole, the latest$")
        self.assertRegex(lines[4], r"not whole: it is empty$")
        found = json.loads(ckpt_fs("inspect", self.directory, *ALL, "--json").stdout)["iterations"]
        self.assertEqual([(one["number"], one["is_whole"]) for one in found], [(100, True), (200, False), (300, True), (400, False)])
        done = ckpt_fs("inspect", self.directory, *ALL, "--tensors", check=False)
        self.assertEqual((done.returncode, "choose it with --iteration N" in done.stderr), (2, True))

    def test_a_mount_of_a_run_is_no_run(self):
        self.save(100)
        with self.mount() as path:
            for command, words in (
                (["inspect", path], "choose one of iter_0000100 with --iteration"),
                (["inspect", path, "--iteration", 100], "looks like a mount of many layouts"),
                (["inspect", path / "latest"], "looks like a mount of many layouts"),
            ):
                done = ckpt_fs(*command, check=False)
                self.assertEqual((done.returncode, words in done.stderr), (3, True), done.stderr)
            self.assertIn("tp2pp1", ckpt_fs("inspect", path / "latest" / "tp2pp1").stdout)

    def test_the_log_says_of_which_iteration_it_speaks(self):
        self.save(100)
        with self.mount() as path:
            self.assertFalse((path / self.name(100) / "tp3").exists())
            self.assertIn(f"{self.name(100)}/tp3: ", ckpt_fs("log", path).stdout)

    def test_what_is_no_run_is_refused(self):
        where = self.save(100)
        point = self.scratch / "point"
        point.mkdir()
        inside = where / "point"
        inside.mkdir()
        for source, mountpoint, code, words in (
            (where, point, 3, "this is one checkpoint"), (DCP / "llama_untied" / "hf", point, 3, "this is one checkpoint"),
            (self.scratch / "nowhere", point, 3, "no such directory"), (self.directory, self.directory, 7, "would be hidden"),
            (self.directory, inside, 7, "lies in an iteration"),
        ):
            done = ckpt_fs("mount", source, mountpoint, *ALL, check=False)
            self.assertEqual((done.returncode, words in done.stderr), (code, True), done.stderr)
        done = ckpt_fs("mount", self.directory, point, *ALL, "--tp", 3, check=False)
        self.assertEqual(done.returncode, 5, done.stderr)

    def test_python_and_fstab(self):
        self.save(100)
        package = module()
        with package.mount(self.directory, iteration="all") as path:
            self.assertEqual(self.shown(path), [self.name(100)])
        helper = self.scratch / "mount.ckpt-fs"
        helper.symlink_to(binary())
        point = self.scratch / "point"
        point.mkdir()
        self.addCleanup(unmount, point)
        run(helper, self.directory, point, "-o", "iteration=all,tp=2,ro")
        self.assertEqual(self.shown(point), [self.name(100)])
        self.assertEqual(sorted(os.listdir(point / "latest")), [self.name(100), TRACKER])


class Document(Run):
    """docs/runs.md does what it says."""

    EVALUATE = """#!/bin/sh
    for word in "$@"; do case $word in pretrained=*) test -f "${word#pretrained=}/config.json" || exit 1; cat "${word#pretrained=}"/*.safetensors > /dev/null;; esac; done
    for last in "$@"; do :; done
    touch "$last"
    """
    SERVE = """#!/bin/sh
    test "$1" = serve && cat "$2"/*.safetensors > /dev/null
    """

    def test_every_block_runs(self):
        core = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"
        source = next(core.glob("iter_*"))
        for number in (1000, 2000, 3000):
            self.save(number, source=source)
        programs = self.scratch / "bin"
        programs.mkdir()
        (programs / "ckpt-fs").symlink_to(binary())
        for name, script in (("lm_eval", self.EVALUATE), ("vllm", self.SERVE)):
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        point = self.scratch / "mnt" / "run"
        point.mkdir(parents=True)
        self.addCleanup(unmount, point)
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        text = (ROOT / "docs" / "runs.md").read_text().replace("/ckpt/", f"{self.scratch}/").replace("/mnt/", f"{self.scratch}/mnt/")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
        self.assertGreater(len(blocks), 6)
        for kind, block in blocks:
            with self.subTest(block=block):
                commands = block if kind == "sh" else "\n".join(line[2:] for line in block.splitlines() if line.startswith("$ "))
                done = run("bash", "-eo", "pipefail", "-c", commands, env=environment)
                answers = [line for line in block.splitlines() if kind == "console" and not line.startswith("$ ")]
                if answers:
                    self.assertEqual(done.stdout.splitlines(), answers)
        self.assertEqual(sorted(os.listdir(self.scratch / "results")), [self.name(number) for number in (1000, 2000, 3000)])
        self.assertFalse(os.path.ismount(point))

    def test_it_is_no_wider_than_a_page(self):
        lines = (ROOT / "docs" / "runs.md").read_text().splitlines()
        self.assertEqual([line for line in lines if len(line) > 100], [])


if __name__ == "__main__":
    unittest.main()
