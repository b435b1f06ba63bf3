"""Reads files of a view through one process, from any number of threads and in forked workers.

One lock for one pipe: while one thread reads, others wait, and the program meanwhile gathers what comes next. A forked worker starts a process of its own
at its first read, because two readers of one pipe would each get half of what they asked for. An interrupt in the middle of an answer leaves the rest
of it in the pipe, so that process is ended and the next read starts another; the checkpoint must then be what it was.

Why a pipe, and not the source files themselves: every byte goes through the code that a mount uses, which gathers pieces and notices a source that
changes. What that costs is measured in docs/python.md.
"""

from __future__ import annotations

import collections
import os
import threading
import weakref
from types import TracebackType
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple, Type

from ._command import logger
from ._errors import CkptFsError, SourceChangedError, error_of
from ._process import Process

#: Bytes of one request. What is read lies in the processor's cache when it is handed on; measured from 256 KiB to 16 MiB.
CHUNK = 1 << 20
#: Requests ahead of the answer that is awaited: one is written, one is gathered, one waits.
AHEAD = 3


class Client:
    """The files of a view. Its process is started by the first request."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._greeting: Optional[Dict[str, Any]] = None
        self._process: Optional[Process] = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._end: weakref.finalize[..., Client] = weakref.finalize(self, _nothing)
        _clients.add(self)

    def __reduce__(self) -> Tuple[Type[Client], Tuple[List[str]]]:
        # Spawned workers open the checkpoint again.
        return Client, (self._words,)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    @property
    def greeting(self) -> Dict[str, Any]:
        """Format, layout and files of the view."""
        with self._lock:
            return self._started().greeting

    def file(self, path: str) -> Dict[str, Any]:
        """Size and tensors of a file."""
        with self._lock, _Whole(self):
            process = self._started()
            process.send({"op": "file", "path": path})
            return _checked(process.answer())

    def read_into(self, path: str, offset: int, view: memoryview) -> int:
        """Fills a writable view of bytes from a place in a file on; returns how many there were before its end."""
        with self._lock, _Whole(self):
            process = self._started()
            asked: Deque[Tuple[int, int]] = collections.deque()
            wanted, filled, error = 0, 0, None
            while wanted < len(view) or asked:
                while wanted < len(view) and len(asked) < AHEAD and error is None:
                    length = min(CHUNK, len(view) - wanted)
                    process.send({"op": "read", "path": path, "offset": offset + wanted, "bytes": length})
                    asked.append((wanted, length))
                    wanted += length
                if not asked:
                    break
                start, length = asked.popleft()
                answer = process.answer()
                if "error" in answer:
                    # Answers to what was asked meanwhile are in the pipe, and are taken out before this is raised.
                    error = error or _error(answer)
                    continue
                found = int(answer["bytes"])
                process.fill(view[start : start + found])
                filled += found
            if error is not None:
                raise error
            return filled

    def close(self) -> None:
        """Ends the process. Reads fail afterwards."""
        with self._lock:
            self._is_closed = True
            self._end()
            self._process = None

    def _started(self) -> Process:
        if self._is_closed:
            raise CkptFsError("it is closed", exit_code=2)
        if self._process is None:
            process = Process(self._words)
            if self._greeting is not None and process.greeting != self._greeting:
                process.kill()
                raise SourceChangedError("the checkpoint is no longer what it was when it was opened; open it again")
            if self._greeting is None and process.notes:
                logger.warning("%s", process.notes)
            self._greeting = process.greeting
            self._process = process
            self._end = weakref.finalize(self, _end, process, os.getpid())
        return self._process

    def _abandon(self) -> None:
        if self._process is not None:
            self._end.detach()
            self._process.kill()
            self._process = None

    def _after_fork(self) -> None:
        # The lock may have been held by a thread that is not in this process.
        self._lock = threading.Lock()
        if self._process is not None:
            self._end.detach()
            self._process.forget()
            _forgotten.append(self._process)
            self._process = None


class _Whole:
    """Ends a process that was left in the middle of an answer. An error that is an answer leaves it as it was."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        if error is not None and not (isinstance(error, CkptFsError) and error._is_answer):
            self._client._abandon()


def _checked(answer: Dict[str, Any]) -> Dict[str, Any]:
    if "error" in answer:
        raise _error(answer)
    return answer


def _error(answer: Dict[str, Any]) -> CkptFsError:
    error = error_of(int(answer["exit_code"]), str(answer["error"]))
    error._is_answer = True
    return error


def _end(process: Process, owner: int) -> None:
    if os.getpid() == owner:
        process.close()


def _nothing() -> None:
    """The end of a client that has started no process."""


_clients: weakref.WeakSet[Client] = weakref.WeakSet()
#: What a forked process must not hear the end of.
_forgotten: List[Process] = []


_shared: weakref.WeakValueDictionary[Tuple[str, ...], Client] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def shared(words: Sequence[str]) -> Client:
    """The client of these words that there is, or a new one."""
    with _sharing:
        client = _shared.get(tuple(words))
        if client is None:
            client = _shared[tuple(words)] = Client(words)
        return client


def _after_fork() -> None:
    global _sharing
    _sharing = threading.Lock()
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork)
