"""What every reader of robot data gives, whatever the format: features, shards, and one episode at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from selfflow_mm.errors import UserError

from .episode import Episode, Feature

__all__ = ["BadEpisode", "EpisodeFiles", "EpisodeWriter", "Shard"]


class BadEpisode(UserError):
    """An episode that cannot be read: a missing shard, a checksum that fails, a picture that does not decode.

    Readers raise it; streams put it on the quarantine list and go on.

    Attributes:
        shard: name of the file.
        index: of the episode in the shard.
        reason: one clause.
    """

    def __init__(self, shard: str, index: int, reason: str) -> None:
        super().__init__(f"episode {index} of {shard}: {reason}")
        self.shard, self.index, self.reason = shard, index, reason

    def __reduce__(self) -> Any:  # exceptions with several arguments do not pickle by themselves; workers send them
        return BadEpisode, (self.shard, self.index, self.reason)


@dataclass(frozen=True)
class Shard:
    """One file of a data set (or one group of files read together) and how many episodes it should hold."""

    name: str
    episodes: int


class EpisodeFiles(Protocol):
    """A data set on disk, opened. Opening reads descriptions only; ``read`` gives any episode in any order.

    Safe to pickle into worker processes. Memory does not grow with what has been read, apart from one shard's index
    and the few files kept open.

    Attributes:
        format: ``"RLDS"``, ``"LeRobot v2.0"``, ``"LeRobot v2.1"``, ``"LeRobot v3.0"``.
        name: of the data set.
        folder: where it lies.
        split: the split that was opened.
        splits: every split with its number of episodes, as the data set states it.
        features: native name of each column -> what it is.
        metadata_features: the same for values of whole episodes.
        fps: steps per second where the data set tells, else None.
        shards: in order.
        missing: numbers of the shards whose file is not there, as after a partial download.
        notes: sentences on what was chosen, is missing, or is kept without being understood.
        description: the data set's own description file, parsed (``dataset_info.json``, ``meta/info.json``).
    """

    format: str
    name: str
    folder: Path
    split: str
    splits: Mapping[str, int]
    features: Mapping[str, Feature]
    metadata_features: Mapping[str, Feature]
    fps: float | None
    shards: tuple[Shard, ...]
    notes: tuple[str, ...]
    description: Mapping[str, Any]

    @property
    def missing(self) -> frozenset[int]: ...

    def read(self, shard: int, index: int) -> Episode:
        """Episode ``index`` of shard number ``shard``; pictures stay encoded until asked for.

        Raises:
            BadEpisode: it is missing or damaged.
        """
        ...

    def episodes_in(self, shard: int) -> int:
        """How many episodes the shard really holds where that differs from what the data set states.

        The stated number where the file is missing or damaged, so that what is lost is counted.
        """
        ...


class EpisodeWriter(Protocol):
    """A data set under construction: a context manager.

    Files are written beside their names and renamed; the description comes last, so a folder without one was never
    finished. Leaving with an exception removes what was begun and leaves what was there before.
    """

    def write(self, episode: Episode) -> None:
        """Append one episode.

        Raises:
            UserError: its columns are not those declared.
        """
        ...

    def __enter__(self) -> EpisodeWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
