"""Tables of LeRobot v3.0: parquet, and several episodes in each parquet and MP4 file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import Feature
from ..extras import require
from .columns import PURPOSE, from_arrow
from .info import Info, feature_from_json
from .rows import RowReader
from .tables import Clip, counted

__all__ = ["FORMAT_COLUMNS", "FORMAT_PREFIXES", "V3Tables"]

FORMAT_COLUMNS = frozenset({"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"})
FORMAT_PREFIXES = ("data/", "videos/", "stats/", "meta/episodes/")
#: A data file may hold 25,000 episodes; shards of so many neighbours mix and divide better than whole files.
_GROUP = 100


class V3Tables:
    """``meta/tasks.parquet`` and ``meta/episodes/chunk-*/file-*.parquet``, without the statistics in it."""

    def __init__(self, info: Info, chosen: range) -> None:
        """
        Raises:
            UserError: a table is missing, damaged, or lacks a column.
        """
        self._info = info
        self.tasks: Mapping[int, str] = _texts(info.folder / "meta" / "tasks.parquet", "task_index")
        subtasks = info.folder / "meta" / "subtasks.parquet"
        self.subtasks: Mapping[int, str] = _texts(subtasks, "subtask_index") if subtasks.is_file() else {}
        counts: dict[str, int] = {}
        self.task_counts: Mapping[str, int] = counts
        self._files = sorted((info.folder / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        if not self._files:
            raise UserError(f"{info.folder / 'meta/episodes'} holds no table of episodes; LeRobot v3.0 data need it")
        numbers = ["episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index"]
        places = ["chunk_index", "file_index", "from_timestamp"]
        numbers += [f"videos/{key}/{place}" for key in info.videos for place in places]
        pieces: list[dict[str, np.ndarray]] = []
        for number, path in enumerate(self._files):
            pieces += self._read_file(number, path, numbers, chosen, counts)
        merged = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        order = np.argsort(merged["episode_index"], kind="stable")
        self._columns = {name: values[order] for name, values in merged.items()}
        self.episodes = self._columns["episode_index"]
        self._firsts = self._first_indices()
        self._groups = self._grouped()
        self._names: dict[tuple[int, int], str] = {}
        extras, self._extra_columns = self._extras()
        self.extra_features: Mapping[str, Feature] = extras

    def group(self, row: int) -> str:
        place = self._stated(row)
        if place not in self._names:
            self._names[place] = str(self._data_file(*place).relative_to(self._info.folder))
        return f"{self._names[place]}, part {self._groups[row]:03d}"

    def file(self, row: int) -> Path:
        return self._data_file(*self._stated(row))

    def data(self, row: int, rows: RowReader, columns: Sequence[str]) -> tuple[Path, Any]:
        episode, length = int(self.episodes[row]), int(self._columns["length"][row])
        begin, stated = int(self._columns["dataset_from_index"][row]), self._stated(row)
        wanted = list(dict.fromkeys([*columns, "episode_index"]))
        for place in self._candidates(stated):
            path = self._data_file(*place)
            if place != stated and not path.is_file():
                continue
            # Where the file begins: as its own rows say, or as the table says.
            for first in dict.fromkeys([rows.first(path, "index"), self._firsts.get(place)]):
                start = -1 if first is None else begin - int(first)
                if start < 0 or start + length > rows.count(path):
                    continue
                table = rows.read(path, start, start + length, wanted)
                if "episode_index" not in table.column_names:
                    return path, table
                if bool((table["episode_index"].combine_chunks().to_numpy(zero_copy_only=False) == episode).all()):
                    return path, table
        raise ValueError(f"{self._data_file(*stated)} does not hold its {length} steps from index {begin} on")

    def clip(self, row: int, key: str) -> Clip:
        chunk, file, start = (
            self._columns[f"videos/{key}/{name}"][row] for name in ("chunk_index", "file_index", "from_timestamp")
        )
        path = self._info.path("video_path", video_key=key, chunk_index=int(chunk), file_index=int(file))
        return Clip(path, float(start))

    def extras(self, row: int, rows: RowReader) -> dict[str, Any]:
        if not self.extra_features:
            return {}
        path, at = self._files[self._columns["file"][row]], int(self._columns["row"][row])
        table = rows.read(path, at, at + 1, list(self._extra_columns.values()))
        return {
            name: _extra_value(table[self._extra_columns[name]], feature)
            for name, feature in self.extra_features.items()
        }

    def _read_file(
        self, number: int, path: Path, numbers: list[str], chosen: range, counts: dict[str, int]
    ) -> list[dict[str, np.ndarray]]:
        pa, parquet = require("pyarrow", PURPOSE), require("pyarrow.parquet", PURPOSE)
        pieces = []
        try:
            with parquet.ParquetFile(path) as file:
                missing = [name for name in numbers if name not in file.schema_arrow.names]
                if missing:
                    raise UserError(f"{path} lacks the columns {', '.join(missing)}")
                wanted = [*numbers, *(["tasks"] if "tasks" in file.schema_arrow.names else [])]
                at = 0
                for batch in file.iter_batches(batch_size=4096, columns=wanted):
                    piece = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in numbers}
                    piece["file"] = np.full(len(batch), number)
                    piece["row"] = np.arange(at, at + len(batch))
                    at += len(batch)
                    pieces.append(piece)
                    if "tasks" in wanted:
                        for episode, tasks in zip(
                            piece["episode_index"], batch.column("tasks").to_pylist(), strict=True
                        ):
                            if episode in chosen:
                                counted(counts, tasks)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read ({error})") from error
        return pieces or [{name: np.zeros(0, np.int64) for name in [*numbers, "file", "row"]}]

    def _stated(self, row: int) -> tuple[int, int]:
        return int(self._columns["data/chunk_index"][row]), int(self._columns["data/file_index"][row])

    def _data_file(self, chunk: int, file: int) -> Path:
        return self._info.path("data_path", chunk_index=chunk, file_index=file)

    def _candidates(self, stated: tuple[int, int]) -> list[tuple[int, int]]:
        """The file that the table names, then its neighbours.

        LeRobot's own converter from v2.1 names the file before for the first episode of each file but the first.
        """
        chunk, file = stated
        size = self._info.chunks_size
        following = (chunk + 1, 0) if file + 1 == size else (chunk, file + 1)
        before = (chunk, file - 1) if file else (chunk - 1, size - 1)
        return [stated, following, *([before] if min(before) >= 0 else [])]

    def _first_indices(self) -> dict[tuple[int, int], int]:
        firsts: dict[tuple[int, int], int] = {}
        chunks, files = self._columns["data/chunk_index"], self._columns["data/file_index"]
        for place in np.unique(np.stack([chunks, files], axis=1), axis=0):
            inside = (chunks == place[0]) & (files == place[1])
            firsts[int(place[0]), int(place[1])] = int(self._columns["dataset_from_index"][inside].min())
        return firsts

    def _grouped(self) -> np.ndarray:
        """The number of each episode's group in its data file."""
        chunks, files = self._columns["data/chunk_index"], self._columns["data/file_index"]
        change = np.flatnonzero((np.diff(chunks) != 0) | (np.diff(files) != 0)) + 1
        lengths = np.diff(np.concatenate([[0], change, [len(chunks)]]))
        return np.concatenate([np.arange(length) // _GROUP for length in lengths]) if len(chunks) else chunks

    def _extras(self) -> tuple[dict[str, Feature], dict[str, str]]:
        schema = require("pyarrow.parquet", PURPOSE).read_schema(self._files[0])
        note = self._info.note.get("metadata_features", {})
        names = {entry["column"]: name for name, entry in note.items()}
        features, columns = {}, {}
        for field in schema:
            known = field.name in names
            if not known and (field.name in FORMAT_COLUMNS or field.name.startswith(FORMAT_PREFIXES)):
                continue
            name = names.get(field.name, field.name)
            feature = feature_from_json(note[name]["feature"]) if known else _inferred(field.type)
            if feature is not None:
                features[name], columns[name] = feature, field.name
        return features, columns


def _texts(path: Path, number: str) -> dict[int, str]:
    """index -> text of ``tasks.parquet``: pandas wrote it, the texts being the table's index."""
    pa, parquet = require("pyarrow", PURPOSE), require("pyarrow.parquet", PURPOSE)
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    about: Mapping[str, Any] = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    index = [name for name in about.get("index_columns", ()) if isinstance(name, str)]
    others = [name for name in table.column_names if name != number]
    names = [name for name in (*index, number.removesuffix("_index"), *others) if name in table.column_names]
    if number not in table.column_names or not names:
        raise UserError(f"{path} lacks the column '{number}' or the texts")
    return dict(zip(table[number].to_pylist(), map(str, table[names[0]].to_pylist()), strict=True))


def _inferred(kind: Any) -> Feature | None:
    types, depth = require("pyarrow", PURPOSE).types, 0
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    if depth == 0 and (types.is_string(kind) or types.is_large_string(kind)):
        return Feature("text", (), "str")
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return Feature("array", (None,) * depth, np.dtype(kind.to_pandas_dtype()).name)
    return None


def _extra_value(column: Any, feature: Feature) -> Any:
    if feature.kind == "text":
        words = column[0].as_py() or ""
        return words.encode("latin-1") if feature.dtype == "bytes" else words
    return from_arrow(column, feature.shape, feature.dtype)[0]
