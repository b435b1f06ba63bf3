"""Figures for Prometheus: what they are called, that they are true, and that nobody who asks for them gets in a reader's way."""

import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import socket
import threading
import unittest
import urllib.request
from pathlib import Path

from exposition import parse, value, values
from support import FIXTURES, ROOT, Case, ForegroundMount, Mount, ckpt_fs, is_mounted, need, until

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
RANK = "iter_0000100/mp_rank_00/model_optim_rng.pt"
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"


def of(mount_point):
    return parse(ckpt_fs("status", "--prometheus", mount_point).stdout)


def url(mount_point):
    """Where the mount said that it answers."""
    return re.search(r"http://\S+/metrics", ckpt_fs("log", mount_point).stdout)[0]


def scrape(mount_point):
    with urllib.request.urlopen(url(mount_point), timeout=20) as answer:
        return answer.read().decode()


def talk(address, request, end=False):
    """All that is answered to these bytes until the other side hangs up."""
    with socket.create_connection(address, timeout=20) as connection:
        # Whoever was hung up on is told at the first write or read.
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        return b""


def address(mount_point):
    host, port = url(mount_point).removeprefix("http://").removesuffix("/metrics").rsplit(":", 1)
    return host, int(port)


def cuts(layers):
    """Every way to share out this many layers."""
    return [()] if not layers else [(first, *rest) for first in range(1, layers + 1) for rest in cuts(layers - first)]


class Figures(Case):
    def test_what_readers_do_is_counted(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            size = len((path / RANK).read_bytes())
            with self.assertRaises(FileNotFoundError):
                os.stat(path / "nothing")
            with self.assertRaises(OSError):
                os.mkdir(path / "new")
            with self.assertRaises(OSError):
                os.getxattr(path / RANK, "user.nothing")
            with open(path / RANK, "rb"), open(path / RANK, "rb"):
                now = of(path)
            self.assertEqual(value(now, "ckpt_fs_up"), 1)
            self.assertEqual(values(now, "ckpt_fs_read_bytes_total"), {("megatron tp4pp1",): size})
            self.assertEqual(value(now, "ckpt_fs_open_files"), 2)
            self.assertEqual(value(now, "ckpt_fs_opens_total"), 3)
            reads = value(now, "ckpt_fs_reads_total")
            self.assertGreater(reads, 0)
            self.assertEqual(value(now, "ckpt_fs_requests_total", operation="read"), reads)
            self.assertEqual(value(now, "ckpt_fs_requests_total", operation="open"), 3)
            self.assertEqual(now["ckpt_fs_read_duration_seconds"][1][("ckpt_fs_read_duration_seconds_count", self.labels(path))], reads)
            self.assertGreater(now["ckpt_fs_read_duration_seconds"][1][("ckpt_fs_read_duration_seconds_sum", self.labels(path))], 0)
            self.assertGreater(value(now, "ckpt_fs_source_read_bytes_total"), size / 2)
            errors = values(now, "ckpt_fs_request_errors_total")
            self.assertGreaterEqual(errors[("ENOENT", "lookup")], 1)
            self.assertEqual(errors[("ENODATA", "getxattr")], 1)
            self.assertEqual(value(now, "ckpt_fs_source_changed"), 0)
            self.assertEqual(value(now, "ckpt_fs_messages_total", level="info"), 1)
            closed = of(path)
            # The kernel tells of a close without waiting for it to be heard.
            until(lambda: value(of(path), "ckpt_fs_open_files") == 0, "the files to be closed")
            status = json.loads(ckpt_fs("status", path, "--json").stdout)["status"]
        self.assertEqual(value(closed, "ckpt_fs_read_bytes_total"), status["read_bytes"])
        self.assertEqual(status["read_latency"]["reads"], reads)
        self.assertEqual([view["view"] for view in status["views"]], ["megatron tp4pp1"])

    def labels(self, path):
        return (("mount", str(path)), ("source", str(YUAN)))

    def test_errors_of_a_source_that_changed_are_told(self):
        source = shutil.copytree(YUAN, self.scratch / "source")
        with Mount(source, "--tp", 4, "--pp", 1) as path:
            os.utime(source / "iter_0000100" / "mp_rank_00_000" / "model_optim_rng.pt", (1, 1))
            with self.assertRaises(OSError) as raised:
                (path / RANK).read_bytes()
            self.assertEqual(raised.exception.errno, errno.ESTALE)
            now = of(path)
            self.assertEqual(value(now, "ckpt_fs_source_changed"), 1)
            self.assertGreaterEqual(value(now, "ckpt_fs_request_errors_total", operation="read", errno="ESTALE"), 1)
            self.assertGreaterEqual(value(now, "ckpt_fs_messages_total", level="warning"), 1)

    def test_views_are_told_apart_and_only_those_that_were_opened(self):
        with Mount(YUAN) as path:
            sizes = {}
            for name in ("tp4pp1", "tp1pp1", "megatron/tp4pp1"):
                os.stat(path / "tp2pp1" / "iter_0000100")
                rank = path / name / RANK
                sizes[name] = len(rank.read_bytes())
            now = of(path)
            told = values(now, "ckpt_fs_read_bytes_total")
            # A layout of the source's own format is in two places, and one view.
            expected = {("megatron tp4pp1",): sizes["tp4pp1"] * 2, ("megatron tp1pp1",): sizes["tp1pp1"]}
            self.assertEqual(told, expected)

    def test_there_are_never_many_views(self):
        with Mount(YUAN) as path:
            layouts = [f"tp{tp}pp{len(cut)}@{','.join(map(str, cut))}" for tp in (1, 2, 4) for cut in cuts(6)]
            for name in layouts:
                next((path / name).glob("iter_*/*/*.pt")).open("rb").close()
            told = values(of(path), "ckpt_fs_opens_total")
        self.assertGreater(len(layouts), 90)
        self.assertEqual((len(told), told[("other",)]), (65, len(layouts) - 64))
        self.assertEqual(sum(told.values()), len(layouts))

    def test_names_of_places_may_hold_anything(self):
        name = 'a "quoted"\\path\nof é'
        source = shutil.copytree(YUAN, self.scratch / name)
        with Mount(source, "--tp", 4, "--pp", 1, name=name) as path:
            now = of(path)
            (labels,) = [dict(labels) for _, labels in now["ckpt_fs_up"][1]]
            self.assertEqual(labels, {"mount": str(path), "source": str(source)})

    def test_all_mounts_are_in_one_text_and_one_that_is_dead_is_down(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1) as first, ForegroundMount(YUAN, "--tp", 1, "--pp", 1) as second:
            (first / RANK).read_bytes()
            second.process.kill()
            second.process.wait(20)
            now = parse(ckpt_fs("status", "--prometheus").stdout)
            up = {dict(labels)["mount"]: up for (_, labels), up in now["ckpt_fs_up"][1].items()}
            self.assertEqual((up[str(first)], up[str(second.path)]), (1, 0))
            self.assertNotIn(str(second.path), {dict(labels)["mount"] for _, labels in now["ckpt_fs_open_files"][1]})

    def test_other_parsers_agree(self):
        need(importlib.util.find_spec("prometheus_client"), "the Python package prometheus_client")
        from prometheus_client.parser import text_string_to_metric_families

        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            (path / RANK).read_bytes()
            text = ckpt_fs("status", "--prometheus", path).stdout
        theirs = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        ours = {key: value for _, samples in parse(text).values() for key, value in samples.items()}
        self.assertEqual(theirs, ours)

    def test_json_and_prometheus_are_not_asked_for_at_once(self):
        self.assertEqual(ckpt_fs("status", "--prometheus", "--json", check=False).returncode, 2)


class Scrapes(Case):
    def test_metrics_are_answered_while_the_mount_lives(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1, "--metrics-addr", "127.0.0.1:0") as path:
            (path / RANK).read_bytes()
            scraped, asked = parse(scrape(path)), of(path)
            self.assertEqual(scraped.keys(), asked.keys())
            for name in ("ckpt_fs_read_bytes_total", "ckpt_fs_build_info", "ckpt_fs_up", "ckpt_fs_start_time_seconds"):
                self.assertEqual(scraped[name], asked[name])
            where = address(path)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(where, timeout=20)

    def test_where_is_said(self):
        with ForegroundMount(YUAN, "--tp", 4, "--pp", 1, "--metrics-addr", "localhost:0") as mount:
            until(lambda: "metrics are at http://" in Path(mount.log.name).read_text(), "the address")
            self.assertIn(url(mount.path), Path(mount.log.name).read_text())

    def test_an_address_that_cannot_be_had_is_an_error_before_there_is_a_mount(self):
        point = self.scratch / "view"
        point.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            said = ckpt_fs("mount", YUAN, point, "--metrics-addr", f"127.0.0.1:{taken.getsockname()[1]}", check=False)
        self.assertEqual(said.returncode, 9)
        self.assertIn("Address already in use", said.stderr)
        self.assertIn("--metrics-addr takes", said.stderr)
        self.assertFalse(is_mounted(point))
        for wrong in ("9469", ":9469", "localhost:http", "localhost:70000"):
            said = ckpt_fs("mount", YUAN, point, "--metrics-addr", wrong, check=False)
            self.assertEqual(said.returncode, 2)
            self.assertIn("127.0.0.1:9469", said.stderr)

    def test_only_get_metrics_is_answered(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1, "--metrics-addr", "127.0.0.1:0") as path:
            where = address(path)
            for request, status in (
                (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
                (b"GET / HTTP/1.1\r\n\r\n", b"404"),
                (b"GET /../metrics HTTP/1.1\r\n\r\n", b"404"),
                (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"405"),
                (b"DELETE /metrics HTTP/1.1\r\n\r\n", b"405"),
                (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"405"),
                (b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"a" * 9000 + b"\r\n\r\n", b"431"),
                (b"\x16\x03\x01\x00\n\n", b"400"),
            ):
                answer = talk(where, request, end=True)
                self.assertEqual(answer[:13], b"HTTP/1.1 " + status + b" ", request)
                self.assertIn(b"Connection: close\r\n", answer)
            self.assertEqual(talk(where, b"GET /metrics HTTP/1.1\r\n", end=True), b"", "half a request")
            parse(scrape(path))

    def test_slow_clients_neither_stay_nor_hold_up_readers_or_the_mount(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1, "--metrics-addr", "127.0.0.1:0") as path:
            where = address(path)
            slow = [socket.create_connection(where, timeout=30) for _ in range(20)]
            with contextlib.ExitStack() as stack:
                for connection in slow:
                    stack.enter_context(connection)
                # Beyond eight nobody is listened to.
                self.assertEqual(talk(where, b"GET /metrics HTTP/1.1\r\n\r\n"), b"")
                (path / RANK).read_bytes()
                pid = of(path) and json.loads(ckpt_fs("status", path, "--json").stdout)["status"]["pid"]
                threads = lambda: len(list(Path(f"/proc/{pid}/task").iterdir()))
                self.assertLess(threads(), 20)
                # A byte now and then keeps nobody.
                stop = threading.Event()
                drip = threading.Thread(target=self.drip, args=(slow[0], stop))
                drip.start()
                try:
                    until(lambda: talk(where, b"GET /metrics HTTP/1.1\r\n\r\n")[:12] == b"HTTP/1.1 200", "the slow ones to be hung up on")
                finally:
                    stop.set()
                    drip.join()
            again = socket.create_connection(where, timeout=30)
            with again:
                ckpt_fs("unmount", path)
                self.assertEqual(again.recv(1), b"", "the process outlived its mount")

    @staticmethod
    def drip(connection, stop):
        with contextlib.suppress(OSError):
            while not stop.wait(0.2):
                connection.sendall(b"G")


class Dashboard(unittest.TestCase):
    def test_every_figure_in_it_exists_and_every_panel_asks_for_one(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            families = of(path)
        known = set(families) | {f"ckpt_fs_read_duration_seconds_{part}" for part in ("bucket", "sum", "count")}
        dashboard = json.loads(DASHBOARD.read_text())
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        self.assertGreater(len(panels), 8)
        used = set()
        for panel in panels:
            expressions = [target["expr"] for target in panel["targets"]]
            self.assertTrue(expressions and all(expressions), panel["title"])
            for expression in expressions:
                names = set(re.findall(r"\bckpt_fs_\w+", expression))
                self.assertTrue(names, expression)
                self.assertLessEqual(names, known, expression)
                used |= names
        used |= set(re.findall(r"\bckpt_fs_\w+", json.dumps(dashboard["templating"])))
        # Nothing is told that the dashboard shows nowhere, but for what only explains.
        shown = {name.removesuffix("_bucket") for name in used}
        self.assertEqual(set(families) - shown, set())
        self.assertEqual(len({panel["id"] for panel in dashboard["panels"]}), len(dashboard["panels"]))

    def test_the_documentation_lists_every_figure(self):
        with Mount(YUAN, "--tp", 4, "--pp", 1) as path:
            families = of(path)
        text = (ROOT / "docs" / "metrics.md").read_text()
        listed = set(re.findall(r"^\| `(ckpt_fs_\w+)`", text, re.MULTILINE))
        self.assertEqual(listed, set(families))
