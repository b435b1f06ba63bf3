"""The process behind ckpt_fs.open: threads, forks, interrupts, deaths on either side, sources that change."""

import multiprocessing
import os
import signal
import shutil
import subprocess
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import FIXTURES, ROOT, TIMEOUT, Case, module, need_torch, until

ckpt_fs = module()
SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"


def opened(**keywords):
    return ckpt_fs.open(SOURCE, as_="hf", framework="bytes", **keywords)


def pid(model):
    return model._client._process._popen.pid


def is_running(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def python(code, *arguments, **options):
    """A fresh Python with the package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


class Sharing(Case):
    def test_threads(self):
        """Many threads, one process: every one gets what it asked for."""
        with opened() as model:
            names = model.keys()
            wanted = {name: model.get_bytes(name) for name in names}
            with ThreadPoolExecutor(8) as pool:
                asked = names * 6
                self.assertEqual(list(pool.map(model.get_bytes, asked)), [wanted[name] for name in asked])

    def test_forked_workers(self):
        """Each has a process of its own, even if a thread of the parent is in the middle of a read."""
        with opened() as model:
            wanted = {name: model.get_bytes(name) for name in model.keys()}
            parent = pid(model)
            stop = threading.Event()

            def busy():
                while not stop.is_set():
                    assert model.get_bytes("lm_head.weight") == wanted["lm_head.weight"]

            thread = threading.Thread(target=busy)
            thread.start()
            try:
                for _ in range(5):
                    child = os.fork()
                    if child == 0:
                        good = all(model.get_bytes(name) == wanted[name] for name in wanted) and pid(model) != parent
                        os._exit(0 if good else 1)
                    self.assertEqual(os.waitpid(child, 0)[1], 0)
            finally:
                stop.set()
                thread.join()
            self.assertEqual(pid(model), parent)
            self.assertEqual(model.get_bytes("lm_head.weight"), wanted["lm_head.weight"])

    def test_a_worker_that_exits_ends_nothing_of_its_parent(self):
        code = """if True:
            import ckpt_fs, os, sys
            model = ckpt_fs.open(sys.argv[1], as_="hf", framework="bytes")
            if os.fork() == 0:
                model.get_bytes("lm_head.weight")
                sys.exit()
            assert os.wait()[1] == 0
            number = model._client._process._popen.pid
            model.get_bytes("lm_head.weight")
            assert model._client._process._popen.pid == number
        """
        process = python(code, SOURCE)
        self.assertEqual((process.communicate(timeout=TIMEOUT), process.returncode), (("", ""), 0))

    def test_workers_of_a_data_loader(self):
        torch = need_torch()

        class Rows(torch.utils.data.Dataset):
            model = ckpt_fs.open(SOURCE, as_="hf")

            def __len__(self):
                return 503

            def __getitem__(self, number):
                return self.model.get_slice("lm_head.weight")[number]

        with Rows.model as model:
            loader = torch.utils.data.DataLoader(Rows(), batch_size=50, num_workers=2, multiprocessing_context="fork")
            self.assertTrue(torch.equal(torch.cat(list(loader)), model.get_tensor("lm_head.weight")))

    def test_spawned_workers(self):
        with opened() as model, multiprocessing.get_context("spawn").Pool(2) as pool:
            names = model.keys()[:4]
            self.assertEqual(pool.map(model.get_bytes, names), [model.get_bytes(name) for name in names])


class Ends(Case):
    def test_with_the_with(self):
        with opened() as model:
            number = pid(model)
            self.assertTrue(is_running(number))
        self.assertFalse(is_running(number))
        model.close()

    def test_with_the_last_reference(self):
        model = opened()
        number = pid(model)
        del model
        until(lambda: not is_running(number), "the end of the process")

    def test_with_python(self):
        """Also when it is killed, while forked workers of it live on."""
        for last, code in (("pass", 0), ("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)):
            with self.subTest(last):
                process = python(
                    "import ckpt_fs, os, sys, time; m = ckpt_fs.open(sys.argv[1], as_='hf', framework='bytes')\n"
                    "print(m._client._process._popen.pid, flush=True)\n"
                    f"worker = os.fork()\nif worker == 0: os.closerange(0, 3); time.sleep(20); os._exit(0)\nprint(worker, flush=True)\n{last}",
                    SOURCE,
                )
                out, err = process.communicate(timeout=TIMEOUT)
                number, worker = map(int, out.split())
                self.assertEqual((process.returncode, err), (code, ""))
                until(lambda: not is_running(number), "the end of the process")
                self.assertTrue(is_running(worker))
                os.kill(worker, signal.SIGKILL)

    def test_killed_it_is_an_error_and_the_next_read_starts_another(self):
        with opened() as model:
            wanted = model.get_bytes("lm_head.weight")
            os.kill(pid(model), signal.SIGKILL)
            with self.assertRaisesRegex(ckpt_fs.ProcessDiedError, "SIGKILL"):
                model.get_bytes("lm_head.weight")
            self.assertEqual(model.get_bytes("lm_head.weight"), wanted)

    def test_killed_while_it_is_waited_for(self):
        with opened() as model:
            number = pid(model)
            wanted = model.get_bytes("lm_head.weight")
            os.kill(number, signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (number, signal.SIGKILL)).start()
            self.assertRaises(ckpt_fs.ProcessDiedError, model.get_bytes, "lm_head.weight")
            self.assertEqual(model.get_bytes("lm_head.weight"), wanted)

    def test_an_interrupt_leaves_no_half_answers(self):
        """Ctrl-C reaches all processes of a terminal; the one that reads goes on, and what was in the pipe is not taken for another answer."""
        with opened() as model:
            wanted = {name: model.get_bytes(name) for name in model.keys()}
            number = pid(model)
            self.assertNotEqual(os.getpgid(number), os.getpgid(0))
            for delay in (0.0, 0.001, 0.003):
                os.kill(pid(model), signal.SIGSTOP)
                timer = threading.Timer(0.1 + delay, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
                timer.start()
                with self.assertRaises(KeyboardInterrupt):
                    model.get_bytes("lm_head.weight")
                timer.join()
                self.assertTrue(all(model.get_bytes(name) == wanted[name] for name in wanted))
            self.assertFalse(is_running(number))


class Changes(Case):
    def setUp(self):
        super().setUp()
        self.source = self.scratch / "src"
        shutil.copytree(SOURCE, self.source)

    def test_a_source_that_changes_fails_the_read(self):
        with ckpt_fs.open(self.source, as_="hf", framework="bytes") as model:
            number = pid(model)
            model.get_bytes("lm_head.weight")
            for file in self.source.rglob("*.pt"):
                with open(file, "ab") as more:
                    more.write(b"more")
            with self.assertRaisesRegex(ckpt_fs.SourceError, "changed"):
                model.get_bytes("lm_head.weight")
            # The process goes on: other files may be as they were.
            self.assertEqual(pid(model), number)
            self.assertTrue(is_running(number))

    def test_another_process_sees_the_same_source_or_says_so(self):
        with ckpt_fs.open(self.source, as_="hf", framework="bytes") as model:
            model.get_bytes("lm_head.weight")
            for file in self.source.rglob("*.pt"):
                os.utime(file, (time.time() + 9, time.time() + 9))
            os.kill(pid(model), signal.SIGKILL)
            self.assertRaises(ckpt_fs.ProcessDiedError, model.get_bytes, "lm_head.weight")
            with self.assertRaisesRegex(ckpt_fs.SourceChangedError, "open it again"):
                model.get_bytes("lm_head.weight")

    def test_errors_of_opening_are_those_of_the_program(self):
        shutil.rmtree(self.source)
        with self.assertRaisesRegex(ckpt_fs.SourceError, "no such directory"):
            ckpt_fs.open(self.source)


if __name__ == "__main__":
    unittest.main()
