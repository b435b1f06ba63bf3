"""The fsspec filesystem ``ckpt``: files of a view by URL, without a mount.

``ckpt://OPTIONS/SOURCE!/FILE``: what the view is to look like, in the words of the command line; the checkpoint, from the root of the file system on; and
behind an exclamation mark the file: ``ckpt://as=vllm,tp=8/ckpt/run!/config.json``, and ``ckpt:///ckpt/run!/...`` without options. Programs that put names
behind a URL (``os.path.join``) get what they mean, and it may be the end of a chain (``simplecache::ckpt://...``). As the beginning of one,
``ckpt://as=hf/config.json::SOURCE`` says the same, with fsspec's place for storage options: ``ckpt={"as_": "hf"}``. A query (``?as=hf``) is not possible:
fsspec takes the question mark for a pattern.
"""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Optional, Tuple

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem  # type: ignore[import-untyped]

from ._client import shared
from ._errors import UsageError
from ._options import Path, arguments, path as path_word

#: Keywords that are fsspec's own.
_OF_FSSPEC = ("use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "asynchronous", "loop", "batch_size", "protocol")


class CkptFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of one view. Read-only, like a mount."""

    protocol = "ckpt"
    root_marker = ""
    # Sizes are looked up once and kept here.
    use_listings_cache = False

    def __init__(
        self,
        fo: Optional[Path] = None,
        target_protocol: Optional[str] = None,
        target_options: Optional[Dict[str, Any]] = None,
        **options: Any,
    ) -> None:
        """``fo`` is the checkpoint; ``options`` are those of :func:`ckpt_fs.open`."""
        super().__init__(**{name: value for name, value in options.items() if name in _OF_FSSPEC})
        if fo is None:
            raise UsageError("a URL of ckpt names a checkpoint in front of an exclamation mark: ckpt://as=hf/path/of/checkpoint!/config.json")
        if target_protocol not in (None, "file", "local"):
            raise UsageError(f"ckpt reads checkpoints on file systems of this machine, not {target_protocol}://; mount that, or copy it")
        self.source = fo
        given = {name: value for name, value in options.items() if name not in _OF_FSSPEC}
        # fsspec makes a filesystem for each thread; they share the process that has opened the checkpoint.
        self._client = shared([path_word(fo), *arguments(given)])
        self._view = self._client.greeting
        self._files: Dict[str, Optional[int]] = {file["path"]: None for file in self._view["files"]}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return _split(str(path))[2]

    @staticmethod
    def _get_kwargs_from_urls(url: str) -> Dict[str, Any]:
        options, source, _ = _split(str(url))
        return options if source is None else {**options, "fo": source}

    @property
    def fsid(self) -> str:
        """Which view it is."""
        return f"ckpt:{self.source}:{self._view['format']}:{self._view['layout']}"

    def info(self, path: str, **keywords: Any) -> Dict[str, Any]:
        """Name, size and type of a file or directory."""
        path = self._strip_protocol(path)
        if path in self._files:
            size = self._files[path]
            if size is None:
                size = self._files[path] = int(self._client.file(path)["size"])
            return {"name": path, "size": size, "type": "file"}
        if path == "" or any(file.startswith(path + "/") for file in self._files):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **keywords: Any) -> List[Any]:
        """What is in a directory."""
        path = self._strip_protocol(path)
        if path in self._files:
            found = [path]
        else:
            start = path + "/" if path else ""
            inside = [file[len(start) :] for file in self._files if file.startswith(start)]
            if not inside:
                raise FileNotFoundError(path)
            found = sorted({start + rest.split("/")[0] for rest in inside})
        return [self.info(one) for one in found] if detail else found

    def modified(self, path: str) -> Any:
        """When the source was last changed."""
        return datetime.datetime.fromtimestamp(self._view["modified"] / 1e9, datetime.timezone.utc)

    def ukey(self, path: str) -> str:
        """Changes when the file does."""
        return f"{self.fsid}:{self._view['modified']}:{self._strip_protocol(path)}"

    def cat_file(self, path: str, start: Optional[int] = None, end: Optional[int] = None, **keywords: Any) -> bytes:
        """Bytes of a file; numbers below zero count from its end."""
        path = self._strip_protocol(path)
        size = int(self._file(path)["size"])
        first, stop, _ = slice(start, end).indices(size)
        return self._range(path, first, stop)

    def _file(self, path: str) -> Dict[str, Any]:
        info = self.info(path)
        if info["type"] != "file":
            raise IsADirectoryError(path)
        return info

    def _range(self, path: str, start: int, end: int) -> bytes:
        memory = bytearray(max(end - start, 0))
        filled = self._client.read_into(path, start, memoryview(memory))
        return bytes(memory) if filled == len(memory) else bytes(memory[:filled])

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, cache_options: Any = None, **keywords: Any) -> CkptFile:
        if mode != "rb":
            raise OSError(30, "views are read-only", path)
        self._file(path)
        return CkptFile(self, path, mode, block_size or "default", cache_options=cache_options, **keywords)


class CkptFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file of a view, open for reading anywhere."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs._range(self.path, start, end)
        return data

    def readinto(self, out: Any) -> int:
        """Fills a buffer; a large one directly."""
        view = memoryview(out).cast("B")
        if len(view) < (1 << 20):
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)
        filled: int = self.fs._client.read_into(self.path, self.loc, view)
        self.loc += filled
        return filled


def _split(url: str) -> Tuple[Dict[str, Any], Optional[str], str]:
    """Options, source and file of a URL, or of the link of a chain, whose source is in the next one."""
    path = url[len("ckpt://") :] if url.startswith("ckpt://") else url
    first, slash, rest = path.partition("/")
    options: Dict[str, Any] = {}
    if "=" in first:
        options, path = _options(first), slash + rest
    # At the first one: views have no such names.
    source, mark, file = (path + "/").partition("!/")
    return (options, source, file.strip("/")) if mark else (options, None, path.strip("/"))


def _options(text: str) -> Dict[str, Any]:
    """``as=vllm,pp-layers=10,32`` as keywords: what has no equals sign goes on with a list."""
    options: Dict[str, Any] = {}
    name = ""
    for part in text.split(","):
        if "=" in part:
            name, _, value = part.partition("=")
            name = name.replace("-", "_")
            options[name] = value
        else:
            options[name] += "," + part
    return options
