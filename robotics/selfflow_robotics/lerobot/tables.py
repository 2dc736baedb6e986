"""What a data set's tables say: where each episode lies, its tasks, and what else is written about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..episode import Feature
from .rows import RowReader

__all__ = ["Clip", "Tables", "counted"]


@dataclass(frozen=True)
class Clip:
    """Where one camera's video of an episode lies: the file, and the episode's start in it in seconds."""

    path: Path
    start: float


class Tables(Protocol):
    """The tables of one version of the format.

    Attributes:
        episodes: ``(N,)`` int64, ascending: the episodes that the tables list, of the whole data set.
        tasks: task_index -> instruction.
        subtasks: the same for ``subtask_index``; empty where there are none.
        task_counts: instruction -> episodes of the opened split.
        extra_features: values of whole episodes, beyond those of the format itself.
    """

    episodes: np.ndarray
    tasks: Mapping[int, str]
    subtasks: Mapping[int, str]
    task_counts: Mapping[str, int]
    extra_features: Mapping[str, Feature]

    def group(self, row: int) -> str:
        """What episode number ``row`` of ``episodes`` is stored together with: a name; episodes of a group are near."""
        ...

    def file(self, row: int) -> Path:
        """Where the tables say that the episode's numbers are; nothing is opened."""
        ...

    def data(self, row: int, rows: RowReader, columns: Sequence[str]) -> tuple[Path, Any]:
        """The episode's file and its rows, a pyarrow Table.

        Raises:
            ValueError: they are not there; one clause that names the file.
            OSError, pyarrow.ArrowException: a file is missing or damaged.
        """
        ...

    def clip(self, row: int, key: str) -> Clip: ...

    def extras(self, row: int, rows: RowReader) -> dict[str, Any]:
        """Values by the names of ``extra_features``."""
        ...


def counted(counts: dict[str, int], tasks: Any) -> None:
    """Add one episode with these tasks."""
    for task in dict.fromkeys([tasks] if isinstance(tasks, str) else tasks or ()):
        counts[str(task)] = counts.get(str(task), 0) + 1
