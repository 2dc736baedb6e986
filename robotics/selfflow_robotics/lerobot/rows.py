"""Rows of parquet files by position, without reading the rest of the file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import require
from .columns import PURPOSE

__all__ = ["RowReader"]

_OPEN_FILES = 4
#: Row groups up to this size are decoded whole and the last one is kept, because neighbouring episodes lie in it;
#: larger ones are decoded in pieces up to the rows asked for.
_WHOLE_GROUP = 32 * 2**20


@dataclass
class _Open:
    file: Any
    starts: np.ndarray  # first row of each row group, then the number of rows
    firsts: dict[str, Any] = field(default_factory=dict)


class RowReader:
    """Keeps a few files open and one row group decoded. Safe to pickle (what is open stays behind) and for threads."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._files: OrderedDict[Path, _Open] = OrderedDict()
        self._kept: tuple[Any, Any] = (None, None)
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._reset()

    def count(self, path: Path) -> int:
        """Rows in the file."""
        with self._lock:
            return int(self._open(path).starts[-1])

    def names(self, path: Path) -> list[str]:
        """Its columns."""
        with self._lock:
            return list(self._open(path).file.schema_arrow.names)

    def first(self, path: Path, column: str) -> Any:
        """The first row's value of a column; None where the file has no such column or no rows."""
        with self._lock:
            opened = self._open(path)
            if column not in opened.firsts:
                known = column in opened.file.schema_arrow.names and opened.starts[-1] > 0
                batches = opened.file.iter_batches(batch_size=1, row_groups=[0], columns=[column]) if known else ()
                opened.firsts[column] = next((batch.column(column)[0].as_py() for batch in batches), None)
            return opened.firsts[column]

    def read(self, path: Path, start: int, stop: int, columns: Sequence[str]) -> Any:
        """Rows ``start`` to ``stop`` of the named columns, a pyarrow Table. Columns the file lacks are left out.

        Raises:
            OSError, pyarrow.ArrowException: the file is missing or damaged.
            ValueError: it has not so many rows.
        """
        pa = require("pyarrow", PURPOSE)
        with self._lock:
            opened = self._open(path)
            if not 0 <= start <= stop <= opened.starts[-1]:
                raise ValueError(f"{path.name} has {opened.starts[-1]} rows; rows {start} to {stop} are wanted")
            wanted = tuple(name for name in columns if name in set(opened.file.schema_arrow.names))
            first = max(0, int(np.searchsorted(opened.starts, start, side="right")) - 1)
            parts = []
            for group in range(first, len(opened.starts) - 1):
                begin, end = int(opened.starts[group]), int(opened.starts[group + 1])
                if begin >= stop:
                    break
                if end > start:
                    parts.append(
                        self._slice(path, opened, group, max(start - begin, 0), min(stop, end) - begin, wanted)
                    )
            if not parts:
                return opened.file.schema_arrow.empty_table().select(wanted)
            return pa.concat_tables(parts)

    def _slice(self, path: Path, opened: _Open, group: int, start: int, stop: int, columns: tuple[str, ...]) -> Any:
        pa = require("pyarrow", PURPOSE)
        about = opened.file.metadata.row_group(group)
        if about.total_byte_size <= _WHOLE_GROUP:
            key = (path, group, columns)
            if self._kept[0] != key:
                # A name such as "action" also selects "action.gripper" (a prefix of its path), hence the second choice.
                self._kept = (key, opened.file.read_row_group(group, columns=list(columns)).select(columns))
            return self._kept[1].slice(start, stop - start)
        size = max(1, int(_WHOLE_GROUP / 4 / max(about.total_byte_size / about.num_rows, 1)))
        pieces, done = [], 0
        for batch in opened.file.iter_batches(batch_size=size, row_groups=[group], columns=list(columns)):
            begin, done = done, done + len(batch)
            if done > start:
                piece = batch.slice(max(start - begin, 0), min(stop, done) - max(start, begin))
                pieces.append(pa.table(piece).select(columns))
            if done >= stop:
                break
        return pa.concat_tables(pieces)

    def _open(self, path: Path) -> _Open:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        file = require("pyarrow.parquet", PURPOSE).ParquetFile(path)
        rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        opened = _Open(file, np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64))
        self._files[path] = opened
        while len(self._files) > _OPEN_FILES:
            _, oldest = self._files.popitem(last=False)
            oldest.file.close()
        return opened
