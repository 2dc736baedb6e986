"""Statistics over all frames of a data set, with exact quantiles, at a memory that does not grow with its width.

Values are spilled to a temporary file (4 bytes each: 106 MB for RT-1's 3.8 million actions of 7 numbers), then taken
one dimension at a time: 28 bytes of memory per step (103 MB for RT-1) whatever the number of dimensions.
Each dimension is sorted before anything is summed, so the result has the same bits in whatever order the episodes come
and however they are shared between processes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from .robot_episode import RobotEpisode
from .statistics import ColumnStatistics, Statistics

__all__ = ["Collector", "collect"]

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_EXAMPLES = 10
_BLOCK = 1 << 16  # rows


def collect(
    episodes: Iterable[RobotEpisode],
    *,
    dataset: str = "",
    version: str = "",
    split: str = "",
    layout: str = "",
    quarantined: int | Callable[[], int] = 0,
    folder: Path | str | None = None,
) -> Statistics:
    """Statistics of all steps of ``episodes``, each of which is looked at once and not kept. Pictures are not decoded.

    Args:
        episodes: of one data set; wrap it in a progress bar if wanted.
        dataset, version, split, layout: what they are, for the record.
        quarantined: how many episodes could not be read, or a function that tells when all have been.
        folder: where the temporary file goes; the system's place for such unless given.

    Raises:
        UserError: there are no steps, episodes differ in the names of their columns, or a dimension has no finite
            value at all. (Some values that are not finite are left out, counted and named.)
    """
    with tempfile.TemporaryDirectory(prefix="selfflow-statistics-", dir=folder) as place:
        collector = Collector(place)
        for episode in episodes:
            collector.add(episode)
        lost = quarantined() if callable(quarantined) else quarantined
        return collector.finish(dataset=dataset, version=version, split=split, layout=layout, quarantined=lost)


class Collector:
    """Collects in pieces: one collector per process, each with a folder of its own, then :meth:`merge` into one.

    It keeps no file open, so it may be sent between processes that see the same folders.

    Args:
        folder: an existing one for the values; the caller removes it.
    """

    def __init__(self, folder: Path | str) -> None:
        self._actions = _Spill(Path(folder) / "actions.float32", "actions")
        self._states = _Spill(Path(folder) / "states.float32", "states")
        self._robots: set[str] = set()
        self._rates: set[float] = set()
        self.episodes = self.steps = 0

    def add(self, episode: RobotEpisode) -> None:
        """Take in the actions and states of one episode."""
        if len(episode.states) != len(episode.actions):
            raise UserError(f"episode {episode.id}: {len(episode.actions)} actions and {len(episode.states)} states")
        self._actions.add(episode.actions, episode.action_names, episode.id)
        self._states.add(episode.states, _names(episode), episode.id)
        self._robots.add(episode.robot)
        self._rates.add(float(episode.control_rate))
        self.episodes += 1
        self.steps += len(episode)

    def merge(self, other: Collector) -> None:
        """Take in everything that ``other`` collected; its files stay."""
        if other.episodes == 0:
            return
        self._actions.merge(other._actions)
        self._states.merge(other._states)
        self._robots |= other._robots
        self._rates |= other._rates
        self.episodes += other.episodes
        self.steps += other.steps

    def finish(self, *, dataset: str, quarantined: int = 0, **about: str) -> Statistics:
        """Compute; may be called again after more episodes. ``about``: version, split, layout."""
        if self.steps == 0:
            raise UserError(f"there is no step to take statistics of{f' in {dataset}' if dataset else ''}")
        return Statistics(
            dataset=dataset,
            episodes=self.episodes,
            steps=self.steps,
            actions=self._actions.finish(),
            states=self._states.finish() if self._states.names else None,
            robots=tuple(sorted(self._robots)),
            control_rates=tuple(sorted(self._rates)),
            quarantined=quarantined,
            **about,
        )


class _Spill:
    """Rows of float32 in a file, and where those that are not finite came from."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self.names: tuple[str, ...] | None = None
        self.rows = 0
        self.examples: list[str] = []
        path.write_bytes(b"")

    def add(self, values: np.ndarray, names: tuple[str, ...], episode: str) -> None:
        values = np.ascontiguousarray(values, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise UserError(f"episode {episode}: {self.what} of shape {values.shape} have {len(names)} names")
        self._agree(names, f"episode {episode}")
        if len(self.examples) < _EXAMPLES:
            bad = np.argwhere(~np.isfinite(values))[: _EXAMPLES - len(self.examples)]
            self.examples += [f"{episode}, step {step}, {names[dimension]}" for step, dimension in bad]
        with open(self.path, "ab") as file:
            file.write(values.tobytes())
        self.rows += len(values)

    def merge(self, other: _Spill) -> None:
        if other.names is None:
            return
        self._agree(other.names, "the other part of the data")
        with open(self.path, "ab") as file, open(other.path, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        self.rows += other.rows
        self.examples = (self.examples + other.examples)[:_EXAMPLES]

    def _agree(self, names: tuple[str, ...], who: str) -> None:
        if self.names is None:
            self.names = tuple(names)
        if self.names != tuple(names):
            raise UserError(f"{who} has {self.what} {', '.join(names)}; those before have {', '.join(self.names)}")

    def finish(self) -> ColumnStatistics:
        names = self.names or ()
        columns = [_describe(self._column(index), f"{self.what}, {name}") for index, name in enumerate(names)]
        gathered = {key: tuple(column[key] for column in columns) for key in columns[0]}
        return ColumnStatistics(names=names, examples=tuple(self.examples), **gathered)

    def _column(self, index: int) -> np.ndarray:
        # Read, not mapped: the pages of a mapped file would count as this process's memory.
        width = len(self.names or ())
        column = np.empty(self.rows, np.float32)
        with open(self.path, "rb") as file:
            for start in range(0, self.rows, _BLOCK):
                block = np.fromfile(file, np.float32, min(_BLOCK, self.rows - start) * width)
                column[start : start + _BLOCK] = block.reshape(-1, width)[:, index]
        return column


def _describe(values: np.ndarray, what: str) -> dict[str, Any]:
    """Statistics of one dimension, ``(n,)`` float32, in float64."""
    finite = values[np.isfinite(values)] + np.float32(0)  # -0 becomes 0: the two sort in no particular order
    if len(finite) == 0:
        raise UserError(f"{what}: not one of {len(values):,} values is finite")
    finite.sort()
    column = finite.astype(np.float64)
    result: dict[str, Any] = {"count": len(column), "not_finite": len(values) - len(column)}
    mean = _mean(column)
    result |= {"min": float(column[0]), "max": float(column[-1]), "mean": mean}
    quantiles = np.quantile(column, list(_QUANTILES.values()))
    result |= dict(zip(_QUANTILES, map(float, quantiles), strict=True))
    column -= mean
    np.square(column, out=column)
    return result | {"std": float(np.sqrt(np.mean(column)))}


def _mean(column: np.ndarray) -> float:
    # In two passes: the second one takes back what the first sum rounded away.
    first = np.mean(column)
    return float(np.clip(first + np.mean(column - first), column[0], column[-1]))


def _names(episode: RobotEpisode) -> tuple[str, ...]:
    width = episode.states.shape[1]
    return episode.state_names or tuple(f"state {index}" for index in range(width))
