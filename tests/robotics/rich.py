"""A data set in memory with everything that joining could spoil: NaN payloads, tasks and subtasks in mixed order."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from selfflow_robotics.episode import EncodedPictures, Episode, Feature
from selfflow_robotics.sources import RobotFiles
from tests.robotics.memory import LAYOUT, MemoryFiles

GREY = "observation/depth"


@dataclass
class RichFiles(MemoryFiles):
    """``delay`` seconds pass with each read."""

    delay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.features |= {
            "bits": Feature("array", (3,), "float32"),
            "flag": Feature("array", (), "bool"),
            "grid": Feature("array", (2, 2), "int64"),
            "subtask": Feature("text", (), "str"),
            "words": Feature("text", (), "str"),
            GREY: Feature("picture", (8, 8, 1), "uint8", "png"),
        }
        self.metadata_features |= {"where": Feature("text", (), "str"), "pose": Feature("array", (3,), "float64")}

    def read(self, shard: int, index: int) -> Episode:
        time.sleep(self.delay)
        episode = super().read(shard, index)
        length, number = episode.length, 7 * shard + index
        random = np.random.default_rng([shard, index, 1])
        columns = {
            **episode.columns,
            "bits": random.integers(0x7F800000, 0x80000000, (length, 3), dtype=np.uint32).view(np.float32),
            "flag": random.random(length) < 0.5,
            "grid": random.integers(-(2**62), 2**62, (length, 2, 2)),
        }
        texts = {
            "language_instruction": [f"do {(5 * number + step // 2) % 4}" for step in range(length)],
            "subtask": [f"part {(3 - number + step) % 3}" for step in range(length)],
            "words": [f"schön {number} {step}" for step in range(length)],
        }
        png = _png(random.integers(0, 256, (8, 8), np.uint8))
        pictures = {**episode.pictures, GREY: EncodedPictures([png] * length, 1)}
        metadata = {**episode.metadata, "where": f"/data/{number}", "pose": random.normal(size=3)}
        return replace(episode, columns=columns, texts=texts, pictures=pictures, metadata=metadata)


def rich_source(bad: set[tuple[int, int]] | None = None, delay: float = 0.0) -> RobotFiles:
    """Ten episodes in three shards."""
    return RobotFiles(RichFiles([[5, 3, 6], [4, 2, 1], [3, 7, 5, 4]], bad or set(), delay=delay), LAYOUT)


def _png(frame: np.ndarray) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()
