"""Parquet files under construction: rows of many episodes, gathered into row groups, a new file at a size limit."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ..extras import require
from .columns import PURPOSE
from .numbered import Place

__all__ = ["ParquetFiles", "parquet_writer"]

#: A row group is written when this is reached: small enough to read one episode, large enough not to drown in footers.
_GROUP_BYTES = 4 * 2**20


def parquet_writer(sink: Any, schema: Any) -> Any:
    """A ``pyarrow.parquet.ParquetWriter`` that keeps the bits of numbers."""
    pa = require("pyarrow", PURPOSE)
    # A dictionary takes every NaN for the same and would lose its payload, so numbers get none.
    worded = [field.name for field in schema if pa.types.is_string(field.type)]
    return require("pyarrow.parquet", PURPOSE).ParquetWriter(sink, schema, compression="snappy", use_dictionary=worded)


class ParquetFiles:
    """``write`` appends the rows of one episode and says which file they are in."""

    def __init__(self, folder: Path, pattern: str, limit_bytes: float, chunk: int, group_rows: int) -> None:
        self._folder, self._pattern, self._limit, self._chunk = folder, pattern, limit_bytes, chunk
        self._group_rows = group_rows
        self._place = Place()
        self._sink: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = self._bytes = 0  # waiting

    def place_for(self, size: int) -> Place:
        """The file that the next rows, of so many bytes, will be in."""
        if self._writer is not None and self._sink.tell() + self._bytes + size >= self._limit:
            self.close()
            self._place = self._place.following(self._chunk)
        return self._place

    def write(self, table: Any) -> None:
        """Append rows to the file that ``place_for`` named."""
        if self._writer is None:
            self._start(table.schema)
        self._waiting.append(table)
        self._rows, self._bytes = self._rows + table.num_rows, self._bytes + table.nbytes
        if self._rows >= self._group_rows or self._bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Finish the file that is open."""
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._sink.close()
            self._writer = None

    def abandon(self) -> None:
        """Let go of the file without finishing it."""
        if self._writer is not None:
            with contextlib.suppress(Exception):  # the disk may be full, which is why
                self._writer.close()
            with contextlib.suppress(OSError):
                self._sink.close()
            self._writer, self._waiting = None, []

    def _start(self, schema: Any) -> None:
        path = self._folder / self._place.path(self._pattern)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sink = path.open("wb")
        self._writer = parquet_writer(self._sink, schema)

    def _flush(self) -> None:
        if self._waiting:
            table = require("pyarrow", PURPOSE).concat_tables(self._waiting)
            self._writer.write_table(table.combine_chunks(), row_group_size=max(1, table.num_rows))
            self._waiting, self._rows, self._bytes = [], 0, 0
