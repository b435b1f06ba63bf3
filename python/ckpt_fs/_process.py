"""A running ``ckpt-fs serve``: one opened checkpoint, asked through a pair of pipes.

It ends when its standard input does, which the system sees to however Python ends. Not here: who may ask when (`_client`).
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import tempfile
from typing import Any, Dict, Sequence, cast

from ._binary import binary
from ._errors import CkptFsError, ProcessDiedError, error_of, split_messages

#: Linux's number of it; `fcntl` has the name from Python 3.10 on.
_F_SETPIPE_SZ = 1031
#: What everybody may have. A pipe of 64 KiB is half as fast.
_PIPE = 1 << 20
#: How long a process may take to end by itself.
_PATIENCE = 5.0

_PROTOCOL = 1


class Process:
    """Sends requests and takes answers, in the same order. For one thread at a time."""

    def __init__(self, words: Sequence[str]) -> None:
        # A file, which never fills up as a pipe would that nobody reads.
        self._said = tempfile.TemporaryFile()
        # A session of its own: an interrupt from the keyboard is Python's to handle.
        self._popen = subprocess.Popen(
            [binary(), "serve", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            start_new_session=True,
        )
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._requests = self._popen.stdin.fileno()
        self._raw = self._popen.stdout
        try:
            fcntl.fcntl(self._raw.fileno(), _F_SETPIPE_SZ, _PIPE)
        except OSError:
            # Pipes of this user are many already.
            pass
        self._answers = io.BufferedReader(cast(io.RawIOBase, self._raw), 1 << 16)
        try:
            self.greeting = self._line()
            if self.greeting.get("protocol") != _PROTOCOL:
                raise CkptFsError(f"{binary()} is of another version ({self.greeting.get('ckpt_fs')}) than this package")
        except BaseException:
            self.kill()
            raise
        self.notes = split_messages(self._stderr())[0]

    def send(self, request: Dict[str, object]) -> None:
        """Asks. Few and short requests at a time: they must fit into a pipe."""
        line = json.dumps(request).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._requests, line) :]
        except BrokenPipeError:
            raise self._end() from None

    def answer(self) -> Dict[str, Any]:
        """The next answer; that of a read is followed by bytes."""
        return self._line()

    def fill(self, view: memoryview) -> None:
        """Takes the bytes of a read."""
        if len(view) and self._answers.readinto(view) != len(view):
            raise self._end()

    def kill(self) -> None:
        """Ends it now, whatever it is doing."""
        self._popen.kill()
        self._close()
        self._popen.wait()

    def close(self) -> None:
        """Ends it as soon as it notices that nobody asks any more."""
        self._close()
        try:
            self._popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def forget(self) -> None:
        """In a forked process: lets go of what is the parent's, without a word to the program."""
        # Numbers stay taken, so that objects which close them some day close nothing else.
        null = os.open(os.devnull, os.O_RDWR)
        for number in (self._requests, self._raw.fileno(), self._said.fileno()):
            os.dup2(null, number, inheritable=False)
        os.close(null)
        # Nor is it this process's to wait for.
        self._popen.returncode = 0

    def _close(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._raw.close()
        self._said.close()

    def _line(self) -> Dict[str, Any]:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise self._end()
        return cast(Dict[str, Any], json.loads(line))

    def _stderr(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def _end(self) -> CkptFsError:
        """Why it does not answer: it has ended, or is about to."""
        try:
            code = self._popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        message = split_messages(self._stderr())[1]
        return error_of(code, message) if code else ProcessDiedError(message or "ckpt-fs stopped answering")
