"""The few record files that a reader keeps open, each with its index."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from .framing import BadRecord, ShardIndex, index_shard, read_record

__all__ = ["ShardFiles"]


class ShardFiles:
    """Record files of one folder, opened and indexed when first read; the least recently used are closed.

    May be pickled and used after a fork or from several threads: a new process opens its own files, because a file's
    position is shared with the parent's.

    Args:
        folder: where the files lie.
        keep: how many stay open.
    """

    def __init__(self, folder: Path, keep: int = 8) -> None:
        self.folder, self.keep = folder, keep
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[BinaryIO, ShardIndex]] = OrderedDict()

    def index(self, name: str) -> ShardIndex:
        """The index of a file.

        Raises:
            BadRecord: the file cannot be opened.
        """
        with self._locked():
            return self._get(name)[1]

    def read(self, name: str, index: int) -> bytes:
        """The data of a record by its number.

        Raises:
            BadRecord: the file or the record is missing or damaged; the message is one clause.
        """
        with self._locked():
            file, shard = self._get(name)
            if 0 <= index < len(shard):
                try:
                    return read_record(file, int(shard.offsets[index]))
                except OSError as error:
                    raise BadRecord(f"the file cannot be read ({error.strerror or error})") from error
        raise BadRecord(shard.damage or f"the file holds only {len(shard)} episodes")

    def close(self) -> None:
        """Close all files; they are opened again when needed."""
        with self._locked():
            for file, _ in self._open.values():
                file.close()
            self._open.clear()

    def _locked(self) -> threading.Lock:
        if self._process != os.getpid():
            self._start()
        return self._lock

    def _get(self, name: str) -> tuple[BinaryIO, ShardIndex]:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        try:
            file = open(self.folder / name, "rb", buffering=0)
        except FileNotFoundError as error:
            raise BadRecord("the file is missing (a partial download?)") from error
        except OSError as error:
            raise BadRecord(f"the file cannot be opened ({error.strerror or error})") from error
        try:
            entry = (file, index_shard(file))
        except BaseException as error:
            file.close()
            if isinstance(error, OSError):
                raise BadRecord(f"the file cannot be read ({error.strerror or error})") from error
            raise
        self._open[name] = entry
        while len(self._open) > self.keep:
            _, (oldest, _) = self._open.popitem(last=False)
            oldest.close()
        return entry

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "keep": self.keep}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder, self.keep = state["folder"], state["keep"]
        self._start()
