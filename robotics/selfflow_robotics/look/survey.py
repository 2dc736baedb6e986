"""Reads a data set, or its first episodes, and keeps what tables and reports tell about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from selfflow_mm.errors import UserError

from ..files import BadEpisode, EpisodeFiles
from ..robot_episode import RobotEpisode
from .cameras import decode_all

if TYPE_CHECKING:
    from ..sources import RobotFiles

__all__ = ["Survey", "survey"]

_KEPT_ACTIONS = 100_000  # rows for histograms: their shape needs no more, and memory stays bounded
_SHOWN_ACTIONS = 5


@dataclass
class Survey:
    """What was found.

    Attributes:
        stated: episodes of the split by its description.
        tried: episodes that were to be read; ``complete`` tells whether that is all there are.
        verified: every record was read and every picture decoded.
        lengths: steps of each good episode.
        places: (shard, index in it, number in the split) of each good episode.
        instructions: how many good episodes have each; "" for none.
        actions: ``(n, D)`` rows, all of them or an even random choice of 100,000.
        action_names: of the first good episode.
        first_actions: the first rows of the first good episode.
        cameras: name -> (height, width) of the first good episode's first picture; None where it does not decode.
        robot, control_rate: of the first good episode.
        sounding: good episodes with sound.
        not_finite: good episodes with a number in their actions or states that is none.
        bad: episodes that cannot be read.
        missing: shards that are not there.
        miscounted: (shard, episodes stated, episodes found).
        absent_splits: split -> why it cannot be read.
        size: bytes of the folder's files, and how many files there are.
    """

    stated: int
    tried: int = 0
    complete: bool = True
    verified: bool = False
    lengths: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    instructions: Counter[str] = field(default_factory=Counter)
    actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    action_names: tuple[str, ...] = ()
    first_actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    cameras: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    robot: str = ""
    control_rate: float = 0.0
    sounding: int = 0
    not_finite: list[str] = field(default_factory=list)
    bad: list[BadEpisode] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    miscounted: list[tuple[str, int, int]] = field(default_factory=list)
    absent_splits: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)

    @property
    def good(self) -> int:
        return len(self.lengths)

    @property
    def steps(self) -> int:
        return sum(self.lengths)

    @property
    def damaged(self) -> bool:
        """Something that the description promises cannot be read, or is none of the numbers it should be."""
        return bool(self.bad or self.missing or self.miscounted or self.not_finite)


def survey(
    robot: RobotFiles,
    limit: int | None = 200,
    verify: bool = False,
    seed: int = 0,
    open_split: Callable[[str], EpisodeFiles] | None = None,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> Survey:
    """Read the first ``limit`` episodes of the shards that are there (None: all), and say what was found.

    Bad episodes are listed and do not stop it.

    Args:
        robot: the data set.
        limit: how many episodes to read.
        verify: read every episode whatever ``limit`` says, and decode every picture of every camera.
        seed: of the choice of actions that are kept.
        open_split: opens another split, to see whether those that are stated can be read.
        progress: called with episodes done and planned.
    """
    files = robot.files
    found = Survey(stated=len(robot), verified=verify, missing=_missing_shards(files))
    found.size = _size(files)
    found.absent_splits = _absent_splits(files, open_split)
    places = list(_places(files, found))
    chosen = places if verify or limit is None else places[:limit]
    found.tried, found.complete = len(chosen), len(chosen) == len(places)
    sample = _Sample(_KEPT_ACTIONS, seed)
    progress(0, len(chosen))
    for done, place in enumerate(chosen, 1):
        shard, index, _ = place
        try:
            native = files.read(shard, index)
            episode = robot.translate(native, shard, index)
            if verify:
                decode_all(native.pictures)
            _add(found, episode, place, sample)
        except BadEpisode as error:
            found.bad.append(error)
        except UserError as error:
            found.bad.append(BadEpisode(files.shards[shard].name, index, str(error)))
        progress(done, len(chosen))
    found.actions = sample.rows()
    return found


def _missing_shards(files: EpisodeFiles) -> list[str]:
    """Names of the shards whose files are not there."""
    return [files.shards[number].name for number in sorted(files.missing)]


def _places(files: EpisodeFiles, found: Survey) -> Iterator[tuple[int, int, int]]:
    """(shard, index, number in the split) of the episodes in shards that are there; notes wrong counts."""
    number = 0
    for shard, stated in enumerate(files.shards):
        if shard not in files.missing:
            count = files.episodes_in(shard) if found.verified else stated.episodes
            if count != stated.episodes:
                found.miscounted.append((stated.name, stated.episodes, count))
            yield from ((shard, index, number + index) for index in range(count))
        number += stated.episodes


def _add(found: Survey, episode: RobotEpisode, place: tuple[int, int, int], sample: _Sample) -> None:
    if not found.action_names:
        found.action_names, found.robot = episode.action_names, episode.robot
        found.control_rate = episode.control_rate
        found.first_actions = np.array(episode.actions[:_SHOWN_ACTIONS])
        found.cameras = {name: _picture_size(episode, name) for name in episode.images}
    if not (np.isfinite(episode.actions).all() and np.isfinite(episode.states).all()):
        found.not_finite.append(episode.id)
    found.lengths.append(len(episode))
    found.places.append(place)
    found.instructions[episode.instruction] += 1
    found.sounding += episode.sound is not None
    sample.add(episode.actions)


def _picture_size(episode: RobotEpisode, camera: str) -> tuple[int, int] | None:
    try:
        height, width = episode.images[camera].read([0]).shape[1:3]
    except UserError:
        return None
    return int(height), int(width)


def _absent_splits(files: EpisodeFiles, open_split: Callable[[str], EpisodeFiles] | None) -> dict[str, str]:
    """Other splits that the description promises and whose files are not (all) there."""
    absent: dict[str, str] = {}
    for name, episodes in files.splits.items():
        if open_split is None or name == files.split or not episodes:
            continue
        try:
            other = open_split(name)
            missing = _missing_shards(other)
        except UserError as error:
            absent[name] = str(error)
            continue
        if missing:
            absent[name] = f"{len(missing)} of its {len(other.shards)} shards are not there, such as {missing[0]}"
    return absent


def _size(files: EpisodeFiles) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in files.folder.rglob("*") if path.is_file()] if files.folder.is_dir() else []
    return sum(sizes), len(sizes)


class _Sample:
    """An even random choice of rows out of a stream: each row draws a number, the smallest numbers stay."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._random = size, np.random.default_rng(seed)
        self._parts: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._held = 0

    def add(self, rows: np.ndarray) -> None:
        if self._parts and rows.shape[1] != self._parts[0].shape[1]:
            return  # an episode of another width is no part of the same histogram
        self._parts.append(np.array(rows))
        self._keys.append(self._random.random(len(rows)))
        self._held += len(rows)
        if self._held > 2 * self._size:
            self._thin()

    def rows(self) -> np.ndarray:
        if not self._parts:
            return np.zeros((0, 0), np.float32)
        self._thin()
        return self._parts[0]

    def _thin(self) -> None:
        rows, keys = _joined(self._parts), _joined(self._keys)
        if len(rows) > self._size:
            kept = np.sort(np.argpartition(keys, self._size)[: self._size])
            rows, keys = rows[kept], keys[kept]
        self._parts, self._keys, self._held = [rows], [keys], len(rows)


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts))
