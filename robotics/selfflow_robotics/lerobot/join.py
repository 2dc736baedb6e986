"""Several LeRobot v3.0 data sets of one writer as one: videos move, episodes, steps and tasks get new numbers."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..extras import require
from .columns import PURPOSE
from .declared import INDEXED
from .episodes_table import EPISODES_PER_GROUP, placed, statistics_columns, text_table
from .numbered import DATA_PATH, EPISODES_PATH, VIDEO_PATH, Place
from .parquet_files import ParquetFiles, parquet_writer
from .stats import Statistics, aggregate, array_statistics

__all__ = ["join_lerobot"]


def join_lerobot(parts: Sequence[Path], joined: Path, *, progress: bool = False) -> None:
    """Move the data sets ``parts`` into one in ``joined``, their episodes in that order.

    May be repeated after it was cut off. Files keep their borders, so that a new one begins with each part. A data file
    is rewritten only where a number in it changes (the first part's never), and then every other column keeps its bits.

    Args:
        parts: written by ``LeRobotWriter`` with the same settings.
        joined: an empty folder, or what an earlier attempt left.

    Raises:
        UserError: a camera has pictures of several sizes.
    """
    from tqdm import tqdm

    if len(parts) == 1:
        for name in ("data", "videos", "meta"):
            if (parts[0] / name).exists():
                (parts[0] / name).rename(joined / name)
        return
    infos = [json.loads((part / "meta" / "info.json").read_text(encoding="utf-8")) for part in parts]
    _check_sizes(infos)
    joining = _Joining(joined, infos[0])
    try:
        for part in tqdm(parts, desc="joining", unit="part", disable=not progress):
            joining.add(part)
        joining.finish()
    finally:
        joining.table.abandon()


class _Joining:
    """The data set in ``joined`` while parts are added to it."""

    def __init__(self, joined: Path, info: dict[str, Any]) -> None:
        self._joined, self._info = joined, info
        self._videos = [name for name, entry in info["features"].items() if entry["dtype"] == "video"]
        self._known: dict[str, dict[str, int]] = {
            name: {} for name, column in INDEXED.items() if column in info["features"]
        }
        chunk = int(info["chunks_size"])
        self._files = {name: _Numbers(chunk) for name in ("", *self._videos)}  # "": the data
        size = float(info["data_files_size_in_mb"]) * 2**20
        self.table = ParquetFiles(joined, EPISODES_PATH, size, chunk, EPISODES_PER_GROUP)
        self._statistics: dict[str, Statistics] = {}
        self._episodes = self._steps = 0

    def add(self, part: Path) -> None:
        pa, parquet = require("pyarrow", PURPOSE), require("pyarrow.parquet", PURPOSE)
        tables = sorted((part / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        rows = pa.concat_tables([parquet.read_table(path) for path in tables])
        changed = {"episode_index": _numbers(rows, "episode_index") + self._episodes}
        changed |= {name: _numbers(rows, name) + self._steps for name in ("dataset_from_index", "dataset_to_index")}
        for name in self._videos:
            for old, new in self._renumbered(rows, f"videos/{name}/", name, changed).items():
                before, after = (place.path(VIDEO_PATH, video_key=name) for place in (old, new))
                _move(part / before, self._joined / after)
        maps = {INDEXED[name]: self._united(part, name) for name in self._known}
        renumbered = []
        for old, new in self._renumbered(rows, "data/", "", changed).items():
            target = self._joined / new.path(DATA_PATH)
            self._move_data(part / old.path(DATA_PATH), target, maps)
            renumbered.append(parquet.read_table(target, columns=["episode_index", "index", *maps]))
        lengths = _numbers(rows, "length")
        statistics = _statistics(pa.concat_tables(renumbered), lengths)
        for name, values in changed.items():
            rows = _replaced(rows, name, pa.array(values))
        for name, column in statistics_columns(statistics).items():
            rows = _replaced(rows, name, column)
        self._add_rows(rows.drop_columns(["meta/episodes/chunk_index", "meta/episodes/file_index"]))
        stated = _from_json(json.loads((part / "meta" / "stats.json").read_text(encoding="utf-8")))
        self._statistics = aggregate(self._statistics, stated | functools.reduce(aggregate, statistics))
        self._episodes += rows.num_rows
        self._steps += int(lengths.sum())

    def finish(self) -> None:
        """Write the description."""
        parquet = require("pyarrow.parquet", PURPOSE)
        self.table.close()
        meta = self._joined / "meta"
        for name, known in self._known.items():
            parquet.write_table(text_table(list(known), INDEXED[name]), meta / f"{name}s.parquet")
        statistics = {
            name: {key: entry.tolist() for key, entry in one.items()} for name, one in self._statistics.items()
        }
        info = self._info | {
            "total_episodes": self._episodes,
            "total_frames": self._steps,
            "total_tasks": len(self._known["task"]),
            "splits": {"train": f"0:{self._episodes}"},
        }
        for name, content in (("stats", statistics), ("info", info)):
            text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
            (meta / f"{name}.json").write_text(text, encoding="utf-8")

    def _renumbered(self, rows: Any, prefix: str, name: str, changed: dict[str, np.ndarray]) -> dict[Place, Place]:
        """New numbers for the files of a part, also in the columns of ``changed``."""
        chunks, files = (_numbers(rows, f"{prefix}{column}") for column in ("chunk_index", "file_index"))
        old = [Place(int(chunk), int(file)) for chunk, file in zip(chunks, files, strict=True)]
        new = {place: self._files[name].next() for place in dict.fromkeys(old)}
        changed[f"{prefix}chunk_index"] = np.array([new[place].chunk for place in old], np.int64)
        changed[f"{prefix}file_index"] = np.array([new[place].file for place in old], np.int64)
        return new

    def _united(self, part: Path, name: str) -> np.ndarray:
        """The whole data set's number of each text of a part."""
        table = require("pyarrow.parquet", PURPOSE).read_table(part / "meta" / f"{name}s.parquet")
        known = self._known[name]
        words = table["__index_level_0__"].to_pylist()
        return np.array([known.setdefault(word, len(known)) for word in words], np.int64)

    def _move_data(self, source: Path, target: Path, maps: Mapping[str, np.ndarray]) -> None:
        same = all((numbers == np.arange(len(numbers))).all() for numbers in maps.values())
        if not source.exists() or (same and not self._episodes):
            _move(source, target)
            return
        pa, parquet = require("pyarrow", PURPOSE), require("pyarrow.parquet", PURPOSE)
        target.parent.mkdir(parents=True, exist_ok=True)
        begun = target.with_name(f".{target.name}.writing")
        with parquet.ParquetFile(source) as file, open(begun, "wb") as sink:
            with parquet_writer(sink, file.schema_arrow) as writer:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group)
                    rows = _replaced(rows, "episode_index", pa.array(_numbers(rows, "episode_index") + self._episodes))
                    rows = _replaced(rows, "index", pa.array(_numbers(rows, "index") + self._steps))
                    for column, numbers in maps.items():
                        rows = _replaced(rows, column, pa.array(numbers[_numbers(rows, column)]))
                    writer.write_table(rows, row_group_size=max(1, rows.num_rows))
        os.replace(begun, target)
        source.unlink()

    def _add_rows(self, rows: Any) -> None:
        for start in range(0, rows.num_rows, EPISODES_PER_GROUP):
            piece = rows.slice(start, EPISODES_PER_GROUP)
            self.table.write(placed(piece, self.table.place_for(piece.nbytes)))


class _Numbers:
    """Numbers of files, in order."""

    def __init__(self, chunk: int) -> None:
        self._chunk, self._last = chunk, Place(0, -1)

    def next(self) -> Place:
        self._last = self._last.following(self._chunk)
        return self._last


def _check_sizes(infos: Sequence[Mapping[str, Any]]) -> None:
    """A camera whose pictures change size within a part was refused by the writer; this is between parts."""
    for name, entry in infos[0]["features"].items():
        sizes = {tuple(info["features"][name]["shape"]) for info in infos}
        if entry["dtype"] == "video" and len(sizes) > 1:
            raise UserError(f"the pictures '{name}' have several sizes {sorted(sizes)}; a LeRobot camera has one size")


def _move(source: Path, target: Path) -> None:
    """If an earlier attempt has not done so."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def _numbers(table: Any, name: str) -> np.ndarray:
    return table[name].combine_chunks().to_numpy(zero_copy_only=False)


def _replaced(table: Any, name: str, values: Any) -> Any:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def _statistics(steps: Any, lengths: np.ndarray) -> list[dict[str, Statistics]]:
    """Per episode, of the columns whose numbers depend on the episodes before."""
    columns = {name: _numbers(steps, name) for name in steps.column_names}
    ends = np.cumsum(lengths)[:-1]
    divided = {name: np.split(values, ends) for name, values in columns.items()}
    return [
        {name: array_statistics(values[episode]) for name, values in divided.items()} for episode in range(len(lengths))
    ]


def _from_json(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Statistics]:
    return {name: {key: np.array(entry) for key, entry in one.items()} for name, one in content.items()}
