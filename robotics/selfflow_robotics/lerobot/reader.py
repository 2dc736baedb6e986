"""Opening LeRobot data sets of every version that is in use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import EncodedPictures, Episode, Feature, Pictures
from ..extras import require
from ..files import BadEpisode, Shard
from .columns import PURPOSE, from_arrow
from .info import Info
from .rows import RowReader
from .tables import Tables
from .v2 import V2Tables
from .v3 import V3Tables
from .video import TOLERANCE, VideoPictures

__all__ = ["LeRobotFiles", "is_lerobot", "open_lerobot"]

_LOST = "episodes that meta/episodes does not list"


def is_lerobot(folder: str | Path) -> bool:
    """Whether a folder looks like a LeRobot data set: it has ``meta/info.json`` with features."""
    try:
        raw = json.loads((Path(folder) / "meta" / "info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and isinstance(raw.get("features"), dict) and "codebase_version" in raw


def open_lerobot(folder: str | Path, split: str | None = None, *, tolerance: float = TOLERANCE) -> LeRobotFiles:
    """Open a LeRobot data set of version 2.0, 2.1 or 3.0.

    Args:
        folder: that holds ``meta/info.json``.
        split: of its splits; ``train``, or the only one, unless given.
        tolerance: seconds that a video's frame may lie away from its step (LeRobot's ``tolerance_s``).

    Raises:
        UserError: no such data set or split, another version, a table missing or damaged, a tolerance beyond half a
            step.
    """
    info = Info.read(Path(folder))
    if split is None:
        split = "train" if "train" in info.splits or len(info.splits) != 1 else next(iter(info.splits))
    if split not in info.splits:
        raise UserError(f"{folder} has no split '{split}'; it has {', '.join(info.splits)}")
    if not 0 < tolerance <= 0.5 / info.fps:
        raise UserError(f"a tolerance of {tolerance} s is not above 0 and at most half a step ({0.5 / info.fps:g} s)")
    chosen = info.splits[split]
    tables: Tables = (V2Tables if info.version.startswith("v2.") else V3Tables)(info, chosen)
    return LeRobotFiles(info, tables, split, tolerance)


class LeRobotFiles:
    """A LeRobot data set on disk, opened: an ``EpisodeFiles``.

    Shards are stretches of up to 100 episodes that lie together (v2: their numbers; v3.0: one data file). Columns carry
    the data set's own names; an episode's instruction is ``texts["task"]``, one string per step.

    Attributes:
        tasks: instruction -> episodes of this split that have it, from the tables alone.
        statistics: ``meta/stats.json`` as it stands (not in every v2.1 data set), else empty.
    """

    def __init__(self, info: Info, tables: Tables, split: str, tolerance: float) -> None:
        self._info, self._tables, self._tolerance = info, tables, tolerance
        self._rows = RowReader()
        self.format = f"LeRobot {info.version}"
        self.name = info.folder.resolve().name
        self.folder = info.folder
        self.split = split
        self.splits: Mapping[str, int] = {name: len(stretch) for name, stretch in info.splits.items()}
        self.fps: float | None = info.fps
        self.description: Mapping[str, Any] = info.raw
        self.notes: tuple[str, ...] = ()
        self.tasks: Mapping[str, int] = dict(tables.task_counts)
        features = dict(info.features)
        if "task_index" in features:
            features["task"] = Feature("text", (), "str", description="the instruction, from task_index")
        if "subtask_index" in features and tables.subtasks:
            features["subtask"] = Feature("text", (), "str", description="from subtask_index")
        self.features: Mapping[str, Feature] = features
        self.metadata_features: Mapping[str, Feature] = {
            "episode_index": Feature("array", (), "int64"),
            **tables.extra_features,
        }
        self._groups = self._grouped(info.splits[split])
        self.shards = tuple(Shard(name, len(rows)) for name, rows in self._groups)

    @cached_property
    def missing(self) -> frozenset[int]:
        """Shards none of whose files is there; looks for one file of each that is."""
        found = []
        for number, (_, rows) in enumerate(self._groups):
            known = (self._tables.file(int(row)) for row in rows if row >= 0)
            if (rows >= 0).any() and not any(path.is_file() for path in dict.fromkeys(known)):
                found.append(number)
        return frozenset(found)

    @property
    def statistics(self) -> Mapping[str, Any]:
        path = self.folder / "meta" / "stats.json"
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error

    def episodes_in(self, shard: int) -> int:
        return self.shards[shard].episodes

    def read(self, shard: int, index: int) -> Episode:
        """Episode ``index`` of shard number ``shard``; only its rows are read, and pictures stay encoded.

        Raises:
            BadEpisode: its file is missing, damaged, or not what ``meta/info.json`` says.
        """
        name, rows = self._groups[shard]
        if not 0 <= index < len(rows):
            raise BadEpisode(name, index, f"the shard has {len(rows)} episodes")
        row = int(rows[index])
        if row < 0:
            raise BadEpisode(name, index, "meta/episodes does not list it, though meta/info.json counts it")
        pa = require("pyarrow", PURPOSE)
        try:
            return self._read(name, index, row)
        except BadEpisode:
            raise
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, UserError) as error:
            raise BadEpisode(name, index, str(error)) from error

    def _read(self, shard: str, index: int, row: int) -> Episode:
        tables, features = self._tables, self._info.features
        path, table = tables.data(row, self._rows, [name for name in features if name not in self._info.videos])
        columns: dict[str, np.ndarray] = {}
        texts: dict[str, Sequence[str | bytes]] = {}
        pictures: dict[str, Pictures] = {}
        for name, feature in features.items():
            if feature.encoding == "video":
                continue
            if name not in table.column_names:
                raise ValueError(f"{path} has no column '{name}'")
            try:
                if feature.kind == "array":
                    columns[name] = from_arrow(table[name], feature.shape, feature.dtype)
                elif feature.kind == "text":
                    texts[name] = _texts(table[name], feature.dtype == "bytes")
                else:
                    pictures[name] = self._encoded(table[name], feature)
            except ValueError as error:
                raise ValueError(f"column '{name}' of {path}: {error}") from error
        for name, index_name, known in (
            ("task", "task_index", tables.tasks),
            ("subtask", "subtask_index", tables.subtasks),
        ):
            if name in self.features and index_name in columns:
                texts[name] = _looked_up(columns[index_name], known, name)
        length = table.num_rows
        for name in self._info.videos:
            pictures[name] = self._video(shard, index, row, name, columns, length)
        episode = int(tables.episodes[row])
        metadata = {"episode_index": episode, **tables.extras(row, self._rows)}
        return Episode(f"episode_{episode:06d}", length, columns, texts, pictures, metadata)

    def _video(
        self, shard: str, index: int, row: int, key: str, columns: Mapping[str, np.ndarray], length: int
    ) -> VideoPictures:
        clip = self._tables.clip(row, key)
        if not clip.path.is_file():
            raise ValueError(f"{clip.path} is missing")
        times = columns.get("timestamp", np.arange(length) / self._info.fps).astype(np.float64).reshape(-1)
        channels = self._info.features[key].shape[-1] or 3
        return VideoPictures(clip.path, clip.start + times, self._info.fps, self._tolerance, channels, shard, index)

    def _encoded(self, column: Any, feature: Feature) -> EncodedPictures:
        data = []
        for entry in column.to_pylist():
            if isinstance(entry, dict):
                content = entry.get("bytes")
                data.append(content if content is not None else self._file(entry.get("path")))
            else:
                data.append(entry or b"")
        height, width, channels = feature.shape
        size = None if height is None or width is None else (height, width)
        return EncodedPictures(data, channels or 3, size)

    def _file(self, path: str | None) -> bytes:
        """A picture that the table names instead of holding it."""
        if not path:
            return b""
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError(f"the picture {path} lies outside the data set")
        return (self.folder / path).read_bytes()

    def _grouped(self, chosen: range) -> list[tuple[str, np.ndarray]]:
        """Name and rows of each shard, in order; at the end the episodes that the tables lack, as rows of -1."""
        groups: dict[str, list[int]] = {}
        first, last = np.searchsorted(self._tables.episodes, [chosen.start, chosen.stop])
        for row in range(int(first), int(last)):
            groups.setdefault(self._tables.group(row), []).append(row)
        shards = [(name, np.array(rows, np.int64)) for name, rows in groups.items()]
        lost = len(chosen) - len(np.unique(self._tables.episodes[first:last]))
        return [*shards, (_LOST, np.full(lost, -1))] if lost > 0 else shards


def _texts(column: Any, as_bytes: bool) -> list[str | bytes]:
    words: list[Any] = [
        "" if entry is None else entry if isinstance(entry, str) else json.dumps(entry) for entry in column.to_pylist()
    ]
    return [entry.encode("latin-1") for entry in words] if as_bytes else words


def _looked_up(indices: np.ndarray, known: Mapping[int, str], name: str) -> list[str | bytes]:
    numbers = indices.reshape(-1).tolist()
    missing = sorted(set(numbers) - known.keys())
    if missing:
        raise ValueError(f"the {name} number {missing[0]} is not in the table of {name}s")
    return [known[number] for number in numbers]
