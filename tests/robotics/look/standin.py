"""Robot episodes and a data set in memory whose contents a test can count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import Episode, Feature, RawPictures
from selfflow_robotics.files import BadEpisode, Shard
from selfflow_robotics.layouts import Layout, Part
from selfflow_robotics.robot_episode import RobotEpisode
from selfflow_robotics.sources import RobotFiles

#: Colours that neither the page nor the instruments have, far apart: one per step.
COLOURS = np.array([[255, 0, 255], [0, 0, 255], [128, 0, 0], [0, 64, 0], [255, 255, 0], [0, 255, 255]], np.uint8)


def episode(steps: int = 6, size: tuple[int, int] = (48, 64), **changes: Any) -> RobotEpisode:
    """An episode at 5 Hz whose picture at step t is all ``COLOURS[t % 6]``."""
    frames = np.broadcast_to(COLOURS[np.arange(steps) % 6][:, None, None], (steps, *size, 3)).copy()
    values: dict[str, Any] = {
        "id": "train-0/3",
        "robot": "widowx",
        "control_rate": 5.0,
        "actions": np.zeros((steps, 7), np.float32),
        "states": np.zeros((steps, 0), np.float32),
        "images": {"front": RawPictures(frames)},
        "instruction": "put the carrot on the plate",
        "terminate": np.zeros(steps, bool),
    }
    return RobotEpisode(**(values | changes))


class BrokenPictures:
    """``length`` pictures of which one does not decode."""

    def __init__(self, length: int, broken: int) -> None:
        self._length, self._broken = length, broken

    def __len__(self) -> int:
        return self._length

    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        chosen = range(self._length) if steps is None else steps
        if self._broken in chosen:
            raise UserError(f"the picture of step {self._broken} cannot be decoded (broken)")
        return np.zeros((len(chosen), 24, 32, 3), np.uint8)


LAYOUT = Layout(
    name="standin",
    robot="widowx",
    control_rate=5.0,
    action=(Part("action"),),
    images={"front": "observation/image"},
    instruction="language",
)


@dataclass
class StandIn:
    """``lengths[s][i]`` steps; episode i of shard s is told ``told[(s, i)]``, its actions are all ``s + i / 10``."""

    lengths: list[list[int]]
    told: dict[tuple[int, int], str] = field(default_factory=dict)
    bad: dict[tuple[int, int], str] = field(default_factory=dict)
    broken_picture: dict[tuple[int, int], int] = field(default_factory=dict)
    not_finite: set[tuple[int, int]] = field(default_factory=set)
    missing: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    really: dict[int, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    folder: Path = Path("no-folder")
    format: str = "RLDS"
    name: str = "standin"
    split: str = "train"
    fps: float | None = None
    description: dict[str, Any] = field(default_factory=lambda: {"version": "1.2.3"})

    def __post_init__(self) -> None:
        self.shards = [Shard(f"shard-{n}", len(lengths)) for n, lengths in enumerate(self.lengths)]
        self.splits = self.splits or {"train": sum(map(len, self.lengths))}
        self.features = {
            "action": Feature("array", (7,)),
            "observation/image": Feature("picture", (24, 32, 3), "uint8", "jpeg"),
            "observation/depth": Feature("picture", (None, None, 1), "uint16", "png"),
            "language": Feature("text", (), "str"),
            "reward": Feature("array", (), "float64"),
        }
        self.metadata_features = {"operator": Feature("text", (), "str")}

    def episodes_in(self, shard: int) -> int:
        return self.really.get(shard, self.shards[shard].episodes)

    def read(self, shard: int, index: int) -> Episode:
        if shard in self.missing:
            raise BadEpisode(self.shards[shard].name, index, "the file is missing")
        if (shard, index) in self.bad:
            raise BadEpisode(self.shards[shard].name, index, self.bad[shard, index])
        length = self.lengths[shard][index]
        actions = np.full((length, 7), shard + index / 10, np.float32)
        if (shard, index) in self.not_finite:
            actions[0, 2] = np.nan
        broken = self.broken_picture.get((shard, index))
        frames = np.full((length, 24, 32, 3), 10 * index % 250, np.uint8)
        return Episode(
            id=f"{shard}/{index}",
            length=length,
            columns={"action": actions},
            texts={"language": [self.told.get((shard, index), "")] * length},
            pictures={"observation/image": RawPictures(frames) if broken is None else BrokenPictures(length, broken)},
        )


def robot_files(files: StandIn) -> RobotFiles:
    return RobotFiles(files, LAYOUT)
