"""Files on a disk, or on any store that fsspec opens (``s3://``, ``gs://``, ``hf://``, ``https://``, ...).

A place on a disk is a :class:`~pathlib.Path`, one on a store a :class:`StorePath`; :func:`place` tells which a user
means. What a store refuses for a while is tried again, see ``retrying``.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from selfflow_mm.data.retrying import RETRY_SECONDS, Unreachable, refused, retried
from selfflow_mm.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(::[A-Za-z][A-Za-z0-9+.\-]+)*://")  # two letters at least: C:// is a disk
_MARKS = ("etag", "ETag", "mtime", "LastModified", "last_modified", "updated", "generation", "blob_id", "created")
_FIRST_BLOCK, _LARGEST_BLOCK = 1 << 16, 1 << 22  # bytes

T = TypeVar("T")


@dataclass(frozen=True)
class StorePath:
    """A file or folder on a store, named by its URL. It can be pickled; connections are made in each process anew.

    Attributes:
        url: with its protocol.
        retry_seconds: how long an operation is tried, see :func:`~selfflow_mm.data.retrying.retried`.
        facts: what a listing said about it, so that it need not be asked again.
    """

    url: str
    retry_seconds: float = RETRY_SECONDS
    facts: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.split("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def parent(self) -> StorePath:
        return StorePath(self.url.split("?")[0].rstrip("/").rpartition("/")[0], self.retry_seconds)

    def __truediv__(self, name: str) -> StorePath:
        return StorePath(f"{self.url.rstrip('/')}/{name}", self.retry_seconds)

    def info(self) -> dict[str, Any]:
        """What the store says of it: ``size`` in bytes, and whatever marks its version.

        Raises:
            FileNotFoundError: it is not there.
        """
        if self.facts.get("size") is None:
            self.facts.update(self._ask(lambda fs, path: fs.info(path)))
        return self.facts

    def size(self) -> int:
        """Bytes.

        Raises:
            UserError: the store does not say.
            FileNotFoundError: it is not there.
        """
        size = self.info().get("size")
        if size is None:
            raise UserError(f"the store does not say how large '{self}' is, so parts of it cannot be read; download it")
        return int(size)

    def mark(self) -> str:
        """What tells this content from another under the same name: size and etag or time, as far as they are told."""
        info = self.info()
        return repr([(name, str(info[name])) for name in ("size", *_MARKS) if info.get(name) is not None])

    def is_file(self) -> bool:
        try:
            return self.info().get("type", "file") == "file"
        except FileNotFoundError:
            return False

    def read_bytes(self) -> bytes:
        """The whole of a small file; FileNotFoundError when it is not there."""
        return self._ask(lambda fs, path: fs.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_range(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer at the file's end.

        Raises:
            Unreachable: the store does not answer, refuses, or cannot read parts of files.
            FileNotFoundError: it is not there.
        """
        if not size:
            return b""
        data = self._ask(lambda fs, path: fs.cat_file(path, start=offset, end=offset + size))
        if len(data) > size:
            raise Unreachable(f"the server of '{self}' sends whole files only (no HTTP ranges); download the data set")
        return data

    def find(self, pattern: str = "") -> list[StorePath]:
        """The files that match the URL and ``pattern`` as a glob, sorted; without a wildcard, all below it."""
        protocol = self.url.partition("://")[0]
        wild = f"{self.url.rstrip('/')}/{pattern}" if pattern else self.url

        def list_them(fs: Any, path: str) -> dict[str, dict[str, Any]]:
            listed = fs.glob(path, detail=True) if "*" in path or "[" in path else fs.find(path, detail=True)
            files = {name: info for name, info in listed.items() if info.get("type") != "directory"}
            return {name if "://" in name else f"{protocol}://{name.lstrip('/')}": info for name, info in files.items()}

        found = StorePath(wild, self.retry_seconds)._ask(list_them)
        return [StorePath(url, self.retry_seconds, dict(found[url])) for url in sorted(found)]

    def copy_to(self, target: Path) -> None:
        """Download it to ``target``, in place."""
        self._ask(lambda fs, path: fs.get_file(path, str(target)))

    def _ask(self, work: Callable[[Any, str], T]) -> T:
        try:
            return retried(lambda: work(*_file_system(self.url)), f"reading '{self}'", seconds=self.retry_seconds)
        except Exception as error:
            if refused(error):
                raise Unreachable(f"'{self}' may not be read: the store says {str(error) or 'no'}") from error
            raise


AnyPath = Path | StorePath


def is_url(source: str | Path | StorePath) -> bool:
    """Whether a user's word names a place on a store. (A ``Path`` never does: it would have lost a slash.)"""
    return isinstance(source, StorePath) or (isinstance(source, str) and bool(_URL.match(source)))


def place(source: str | AnyPath, retry_seconds: float = RETRY_SECONDS) -> AnyPath:
    """The place that a user names; ``file://`` is the disk."""
    if isinstance(source, StorePath):
        return source
    if not is_url(source):
        return Path(source)
    url = str(source).rstrip("/")
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return StorePath(url, retry_seconds)


def cache_folder(name: str) -> Path:
    """Where what came from stores is kept: ``$SELFFLOW_CACHE/<name>``, else ``~/.cache/selfflow-mm/<name>``."""
    root = os.environ.get("SELFFLOW_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "selfflow-mm") / name


def digest(*parts: str) -> str:
    """A file name for whatever these words stand for."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class BlockReader(io.RawIOBase):
    """A file on a store as a seekable stream. It fetches blocks, which grow while reading goes on without a gap: a tar
    of small members costs a request per 4 MiB, one of large members a small one per header.
    """

    def __init__(self, path: StorePath) -> None:
        self._path, self._end = path, path.size()
        self._at, self._begin, self._block, self._next = 0, 0, b"", _FIRST_BLOCK

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._end if size < 0 else min(self._end, self._at + size)
        if stop <= self._at:
            return b""
        if not self._begin <= self._at <= stop <= self._begin + len(self._block):
            self._fetch(stop)
        data = self._block[self._at - self._begin : stop - self._begin]
        self._at += len(data)
        return data

    def _fetch(self, stop: int) -> None:
        behind = self._begin + len(self._block)
        near = self._block and self._begin <= self._at <= behind + self._next
        self._next = min(2 * self._next, _LARGEST_BLOCK) if near else _FIRST_BLOCK
        size = min(max(self._next, stop - self._at), self._end - self._at)
        self._begin, self._block = self._at, self._path.read_range(self._at, size)


#: (process, protocol and host) -> file system. A connection does not survive a fork, and fsspec's own cache has one per
#: thread.
_file_systems: dict[tuple[int, str], Any] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that is not here may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        UserError: no such protocol, or a package is missing.
    """
    from fsspec.core import url_to_fs

    protocol, _, rest = url.partition("://")
    key = (os.getpid(), f"{protocol}://{rest.split('/')[0]}")
    try:
        with _lock:
            if key not in _file_systems:
                _file_systems[key] = url_to_fs(url)[0]
            fs = _file_systems[key]
        return fs, fs._strip_protocol(url)
    except ImportError as error:
        raise UserError(f"reading '{url}' needs a package that is not installed: {_install(protocol, error)}") from None
    except ValueError as error:
        raise UserError(f"'{url}' cannot be opened: {error}") from None


def _install(protocol: str, error: ImportError) -> str:
    """fsspec's own advice where it has some."""
    known = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
    known |= {"az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "hf": "huggingface_hub", "oci": "ocifs"}
    return f"pip install {known[protocol]}" if protocol in known else str(error)
