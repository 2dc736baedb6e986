"""A data set in memory with known contents, for tests of what stands on the readers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_robotics.episode import Episode, Feature, RawPictures
from selfflow_robotics.files import BadEpisode, Shard
from selfflow_robotics.layouts import Layout, Part
from selfflow_robotics.sources import RobotFiles

LAYOUT = Layout(
    name="memory",
    robot="widowx",
    control_rate=5.0,
    action=(
        Part("action", 0, 6),
        Part("action", 6, 7, gripper="absolute_opening"),
    ),
    state=(Part("observation/state", names=("a", "b")),),
    images={"front": "observation/image"},
    instruction="language_instruction",
)


@dataclass
class MemoryFiles:
    """``lengths[s][i]`` is the number of steps of episode i of shard s; the places in ``bad`` cannot be read."""

    lengths: list[list[int]]
    bad: set[tuple[int, int]] = field(default_factory=set)
    reads: list[tuple[int, int]] = field(default_factory=list)
    format: str = "RLDS"
    name: str = "memory"
    folder: Path = Path("memory")
    split: str = "train"
    fps: float | None = None
    missing: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    description: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shards = [Shard(f"shard-{n}", len(lengths)) for n, lengths in enumerate(self.lengths)]
        self.splits = {"train": sum(map(len, self.lengths))}
        self.features = {
            "action": Feature("array", (7,)),
            "observation/state": Feature("array", (2,)),
            "observation/image": Feature("picture", (16, 24, 3), "uint8", "jpeg"),
            "language_instruction": Feature("text", (), "str"),
        }
        self.metadata_features = {"number": Feature("array", (), "int32")}

    def episodes_in(self, shard: int) -> int:
        return len(self.lengths[shard])

    def read(self, shard: int, index: int) -> Episode:
        self.reads.append((shard, index))
        if (shard, index) in self.bad:
            raise BadEpisode(self.shards[shard].name, index, "its checksum is wrong")
        length = self.lengths[shard][index]
        random = np.random.default_rng([shard, index])
        return Episode(
            id=f"{shard}/{index}",
            length=length,
            columns={
                "action": random.normal(size=(length, 7)).astype(np.float32),
                "observation/state": random.normal(size=(length, 2)).astype(np.float32),
            },
            texts={"language_instruction": [f"do {shard} {index}"] * length},
            pictures={"observation/image": RawPictures(random.integers(0, 256, (length, 16, 24, 3), np.uint8))},
            metadata={"number": np.int32(shard * 100 + index)},
        )


def memory_source(lengths: list[list[int]], bad: set[tuple[int, int]] | None = None) -> RobotFiles:
    return RobotFiles(MemoryFiles(lengths, bad or set()), LAYOUT)
