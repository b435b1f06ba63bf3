"""A mount exported over NFS by a server that is an ordinary process, and read by a client that is one too.

The servers name files by handles, which a view keeps for ever (`tests/fuse_mount/handles.rs`). Few kernels that tests run on have a
server or client of their own, so nfs-ganesha and libnfs are used.
"""

import os
import shutil
import socket
import subprocess
import unittest

from support import FIXTURES, Case, Mount, ckpt_fs, exact, need, need_program, run, until

SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"
SERVER, CLIENT = "ganesha.nfsd", "nfs-cat"

CONFIGURATION = """
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}
NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {state}; Only_Numeric_Owners = true; UseGetpwnam = true; }}
EXPORT {{
    Export_Id = 77; Path = {view}; Pseudo = /view; Access_Type = RO; Squash = None; SecType = sys, none; Protocols = 4; Filesystem_Id = 7.7;
    FSAL {{ Name = VFS; }}
}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """An NFS server for one mount."""

    def __init__(self, view, scratch):
        self.port, self.state = free_port(), scratch / "state"
        (self.state / "v4recov").mkdir(parents=True)
        self.log, configuration = scratch / "log", scratch / "ganesha.conf"
        configuration.write_text(CONFIGURATION.format(port=self.port, state=self.state, view=view))
        self.command = [SERVER, "-F", "-L", self.log, "-f", configuration, "-p", self.state / "pid", "-N", "NIV_EVENT"]

    def __enter__(self):
        self.process = subprocess.Popen(list(map(str, self.command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: self.is_ready() or self.process.poll() is not None, "the NFS server")
            assert self.process.poll() is None, self.log.read_text()
        except BaseException:
            self.__exit__()
            raise
        return self

    def is_ready(self):
        return self.log.exists() and "SERVER INITIALIZED" in self.log.read_text()

    def read(self, name):
        address = f"nfs://127.0.0.1/view/{name}?nfsport={self.port}&version=4"
        return run(CLIENT, address, text=False).stdout

    def __exit__(self, *_):
        # It would wait for its clients.
        self.process.kill()
        self.process.wait()


class Nfs(Case):
    def setUp(self):
        super().setUp()
        need_program(SERVER)
        need_program(CLIENT)
        need(os.geteuid() == 0, "root")

    def test_views_over_nfs(self):
        for flags in (("--tp", 2, "--pp", 2), ("--as", "safetensors", "--tp", 2, "--pp", 2)):
            real = self.materialize(SOURCE, *flags)
            names = sorted(str(path.relative_to(real)) for path in real.rglob("*") if path.is_file())
            shutil.rmtree(self.scratch / "server", ignore_errors=True)
            with self.subTest(flags=flags), Mount(SOURCE, *exact(*flags)) as view:
                with Server(view, self.scratch / "server") as server:
                    for name in names:
                        self.assertEqual(server.read(name), (real / name).read_bytes())
                ckpt_fs("unmount", view)


if __name__ == "__main__":
    unittest.main()
