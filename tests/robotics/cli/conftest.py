"""A small RLDS data set on disk, for the commands that look at one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfflow_robotics.episode import Episode, Feature, RawPictures
from selfflow_robotics.rlds import RldsWriter

#: Steps of the episodes; three of them in a shard.
LENGTHS = (3, 4, 5, 6, 7)
_FEATURES = {
    "action": Feature("array", (7,)),
    "observation/image": Feature("picture", (48, 64, 3), "uint8", "png"),
    "observation/wrist": Feature("picture", (48, 64, 3), "uint8", "png"),
    "language_instruction": Feature("text", (), "str"),
}
_LAYOUT = """format: selfflow-robot-layout
version: 1
name: small
robot: widowx
control_rate: 5
action:
  - {column: action, start: 0, stop: 6, names: [x, y, z, roll, pitch, yaw]}
  - {column: action, start: 6, stop: 7, names: [gripper], gripper: absolute_opening}
images: {front: observation/image, wrist: observation/wrist}
instruction: language_instruction
"""


@pytest.fixture
def small_rlds(tmp_path: Path) -> Path:
    """Five episodes of 3 to 7 steps in two shards; the picture of step t of episode i is all ``(40 i, 20 t, 9)``."""
    folder = tmp_path / "small" / "1.0.0"
    random = np.random.default_rng(0)
    with RldsWriter(folder, name="small", features=_FEATURES, episodes_per_shard=3) as writer:
        for i, steps in enumerate(LENGTHS):
            frames = np.zeros((steps, 48, 64, 3), np.uint8)
            frames[:] = [[[(40 * i, 20 * t, 9)]] for t in range(steps)]
            actions = random.normal(0, 0.01, (steps, 7)).astype(np.float32)
            actions[:, 6] = i % 2
            writer.write(
                Episode(
                    id=str(i),
                    length=steps,
                    columns={"action": actions},
                    texts={"language_instruction": ["open" if i % 2 else "close"] * steps},
                    pictures={"observation/image": RawPictures(frames), "observation/wrist": RawPictures(255 - frames)},
                )
            )
    (folder / "layout.yaml").write_text(_LAYOUT)
    return folder


def damage(folder: Path, shard: int, share: float) -> None:
    """Flip the bits of a byte in a record file, at that share of its length."""
    path = sorted(folder.glob("*.tfrecord-*"))[shard]
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 0xFF
    path.write_bytes(data)


@pytest.fixture
def damaged_rlds(small_rlds: Path) -> Path:
    """The same with a wrong byte in the last record of the first shard, episode 2."""
    damage(small_rlds, 0, 0.9)
    return small_rlds
