"""A store for tests: fsspec's memory, which counts what is asked of it and fails as often as it is told to."""

from __future__ import annotations

import threading
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyStore(MemoryFileSystem):
    """``flaky://``; its files are a class's, so every instance in the process has the same."""

    protocol = "flaky"
    store: dict[str, Any] = {}
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    asked: list[tuple[str, str, int | None, int | None]] = []
    failures: list[Exception] = []
    threads: set[int] = set()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._note("read", path, start, end)
        return super().cat_file(path, start, end, **kwargs)

    def info(self, path, **kwargs):
        self._note("info", path)
        return super().info(path, **kwargs)

    def _note(self, what, path, start=None, end=None):
        self.threads.add(threading.get_ident())
        self.asked.append((what, path.rpartition("/")[2], start, end))
        if self.failures:
            raise self.failures.pop(0)

    @classmethod
    def reads(cls, ending: str = "") -> int:
        return sum(what == "read" and name.endswith(ending) for what, name, _, _ in cls.asked)

    @classmethod
    def reset(cls) -> None:
        for kept in (cls.store, cls.asked, cls.failures, cls.threads):
            kept.clear()
        cls.pseudo_dirs[:] = [""]


fsspec.register_implementation("flaky", FlakyStore, clobber=True)


def upload(folder, url: str) -> str:
    """A folder's files to ``url``."""
    fs = fsspec.filesystem(url.partition("://")[0])
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fs.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url
