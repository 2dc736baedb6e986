"""Tables of LeRobot v2.0 and v2.1: lines of JSON, and one parquet and one MP4 file per episode and camera."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import Feature
from .info import Info
from .rows import RowReader
from .tables import Clip, counted

__all__ = ["V2Tables"]

_FORMAT_KEYS = frozenset({"episode_index", "tasks", "length"})
#: Episodes lie in files of their own, so a group is only a unit of shuffling.
_GROUP = 100


class V2Tables:
    """``meta/tasks.jsonl`` and ``meta/episodes.jsonl``; what v2.1 adds are statistics, which reading does not need."""

    def __init__(self, info: Info, chosen: range) -> None:
        """
        Raises:
            UserError: a table is missing, or a line of it cannot be understood.
        """
        self._info = info
        self._path = info.folder / "meta" / "episodes.jsonl"
        tasks: dict[int, str] = {}
        for where, _, entry in _lines(info.folder / "meta" / "tasks.jsonl"):
            try:
                tasks[int(entry["task_index"])] = str(entry["task"])
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{where}: no task_index and task in {entry!r}") from error
        counts: dict[str, int] = {}
        extras: dict[str, Feature] = {}
        found: dict[int, tuple[int, int]] = {}
        for where, offset, entry in _lines(self._path):
            try:
                episode = int(entry["episode_index"])
                found[episode] = (int(entry["length"]), offset)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{where}: no episode_index and length in {entry!r}") from error
            if episode in chosen:
                counted(counts, entry.get("tasks"))
            for name in entry.keys() - _FORMAT_KEYS - extras.keys():
                extras[name] = _extra_feature(entry[name])
        self.tasks: Mapping[int, str] = tasks
        self.subtasks: Mapping[int, str] = {}
        self.task_counts: Mapping[str, int] = counts
        self.extra_features: Mapping[str, Feature] = extras
        order = sorted(found)
        self.episodes = np.array(order, np.int64)
        self._lengths = np.array([found[episode][0] for episode in order], np.int64)
        self._offsets = np.array([found[episode][1] for episode in order], np.int64)

    def group(self, row: int) -> str:
        first = int(self.episodes[row]) // _GROUP * _GROUP
        return f"episodes {first:06d} to {first + _GROUP - 1:06d}"

    def file(self, row: int) -> Path:
        return self._info.path("data_path", **self._numbers(row))

    def data(self, row: int, rows: RowReader, columns: Sequence[str]) -> tuple[Path, Any]:
        path = self.file(row)
        count, stated = rows.count(path), int(self._lengths[row])
        if count != stated:
            raise ValueError(f"{path} has {count} steps, meta/episodes.jsonl says {stated}")
        return path, rows.read(path, 0, count, columns)

    def clip(self, row: int, key: str) -> Clip:
        return Clip(self._info.path("video_path", video_key=key, **self._numbers(row)), 0.0)

    def extras(self, row: int, rows: RowReader) -> dict[str, Any]:
        if not self.extra_features:
            return {}
        with self._path.open("rb") as file:
            file.seek(int(self._offsets[row]))
            entry = json.loads(file.readline())
        # A key that this episode does not have is an empty text or no number at all, never left out.
        return {name: _extra_value(entry.get(name), feature) for name, feature in self.extra_features.items()}

    def _numbers(self, row: int) -> dict[str, int]:
        episode = int(self.episodes[row])
        return {"episode_chunk": episode // self._info.chunks_size, "episode_index": episode}


def _lines(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Each entry with its place for messages and its offset in the file."""
    try:
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    try:
                        entry = json.loads(line)
                    except ValueError as error:
                        raise UserError(f"{where} is not JSON: {error}") from error
                    if not isinstance(entry, dict):
                        raise UserError(f"{where} is not a JSON object")
                    yield where, offset, entry
                offset += len(line)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); LeRobot v2 data need it") from error


def _extra_feature(value: Any) -> Feature:
    if isinstance(value, bool):
        return Feature("array", (), "bool")
    if isinstance(value, int | float):
        return Feature("array", (), "int64" if isinstance(value, int) else "float64")
    array = np.array(value) if isinstance(value, list) and _regular(value) else None
    if array is not None and array.dtype.kind in "bif":
        return Feature("array", (None,) * array.ndim, array.dtype.name)
    return Feature("text", (), "str")


def _regular(value: list[Any]) -> bool:
    try:
        np.array(value)
    except ValueError:
        return False
    return True


def _extra_value(value: Any, feature: Feature) -> Any:
    if feature.kind == "text":
        return value if isinstance(value, str) else "" if value is None else json.dumps(value)
    if value is None:
        raise ValueError("meta/episodes.jsonl lacks a value that other episodes have")
    return np.array(value, feature.dtype)[()]
