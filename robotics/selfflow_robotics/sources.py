"""Robot data from a path: the format is found out, the layout chosen, and any episode read."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfflow_mm.errors import UserError

from .episode import Episode
from .files import BadEpisode, EpisodeFiles
from .layouts import Layout, choose_layout
from .robot_episode import RobotEpisode

__all__ = ["RobotFiles", "open_episodes", "open_files"]


@dataclass(frozen=True)
class RobotFiles:
    """A data set on disk together with the meaning of its columns; ``len()`` is its number of episodes."""

    files: EpisodeFiles
    layout: Layout

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @cached_property
    def _ends(self) -> list[int]:
        """The number of the first episode after each shard; kept, because every episode of a long job asks."""
        return list(itertools.accumulate(shard.episodes for shard in self.files.shards))

    @property
    def control_rate(self) -> float:
        """Steps per second."""
        rate = self.layout.control_rate or self.files.fps
        if not rate:
            raise UserError(f"neither the layout '{self.layout.name}' nor {self.files.folder} tells the control rate")
        return float(rate)

    def locate(self, number: int) -> tuple[int, int]:
        """(shard, index in it) of episode ``number`` of the split.

        Raises:
            UserError: out of range.
        """
        if not 0 <= number < len(self):
            raise UserError(f"there is no episode {number}; {self.files.folder} has {len(self)}, counted from 0")
        shard = bisect.bisect_right(self._ends, number)
        return shard, number - (self._ends[shard - 1] if shard else 0)

    def read(self, shard: int, index: int) -> RobotEpisode:
        """One episode in the house's convention; its pictures stay encoded until asked for.

        Raises:
            BadEpisode: it is missing or damaged.
            UserError: the layout does not fit it.
        """
        return self.translate(self.files.read(shard, index), shard, index)

    def translate(self, episode: Episode, shard: int, index: int) -> RobotEpisode:
        """``episode`` of that place in the house's convention.

        Raises:
            BadEpisode: it has no step.
            UserError: the layout does not fit it.
        """
        if episode.length == 0:
            raise BadEpisode(self.files.shards[shard].name, index, "it has no step")
        return self.layout.read(episode, self.files.fps)


def open_episodes(path: Path | str, layout: Path | str | None = None, split: str | None = None) -> RobotFiles:
    """Open robot data of any format that is known.

    Args:
        path: a folder: RLDS (with ``features.json``, or a folder of versions), or LeRobot (with ``meta/info.json``).
        layout: a layout file or the name of one; None chooses by the data (:func:`layouts.choose_layout`).
        split: such as ``train`` or ``val``; None takes ``train``, or the only one there is.

    Raises:
        UserError: nothing there, an unknown format, no such split, or no layout that fits.
    """
    files = open_files(path, split)
    return RobotFiles(files, choose_layout(files, layout))


def open_files(path: Path | str, split: str | None = None) -> EpisodeFiles:
    """The files of a data set under their own names, without a layout.

    Raises:
        UserError: nothing there, an unknown format, or no such split.
    """
    from .lerobot import is_lerobot, open_lerobot
    from .rlds import is_rlds, open_rlds

    folder = Path(path).expanduser()
    if not folder.exists():
        raise UserError(f"there is no '{path}'")
    if is_lerobot(folder):
        return open_lerobot(folder, split)
    if is_rlds(folder):
        return open_rlds(folder, split)
    raise UserError(
        f"'{path}' holds no robot data that is known: an RLDS folder has features.json and *.tfrecord-* files "
        "(or a folder such as 0.1.0 with them), a LeRobot folder has meta/info.json"
    )
