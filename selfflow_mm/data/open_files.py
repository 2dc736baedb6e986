"""Open files for random reads, a bounded number of them, shared by threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Descriptors kept open; a process may have 1,024 on most systems, and not all are ours.
LIMIT = 64


class OpenFiles:
    """Reads any stretch of any file. Those least recently read are closed; one that is being read never is.

    Reads share no file position (``pread``), so threads and forked workers may use one object. It can be pickled.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._open: OrderedDict[Path, list[int]] = OrderedDict()  # path -> [descriptor, reads under way]
        self._lock = threading.Lock()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer at the file's end."""
        with self._borrowed(path) as descriptor:
            return os.pread(descriptor, size, offset)

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def _borrowed(self, path: Path) -> Iterator[int]:
        with self._lock:
            if path not in self._open:
                self._open[path] = [os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), 0]
            entry = self._open[path]
            entry[1] += 1
            self._open.move_to_end(path)
            self._trim()
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1
                self._trim()

    def _trim(self) -> None:
        for path in [p for p, (_, reads) in self._open.items() if not reads] if len(self._open) > self.limit else ():
            if len(self._open) <= self.limit:
                return
            os.close(self._open.pop(path)[0])

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __del__(self) -> None:
        for descriptor, _ in getattr(self, "_open", {}).values():
            os.close(descriptor)
