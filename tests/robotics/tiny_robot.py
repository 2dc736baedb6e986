"""A robot's world small enough to fine-tune on in a test: a dot that goes where it is told, in RT-1's layout.

The dot is the hand: its place (x, y) in [0, 1] is in the picture and in the state. The expert moves it by 0.3 of the
way to the place that the instruction names, and closes the gripper when it is near: an action is a function of what is
seen and said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfflow_mm.config import load_config
from selfflow_robotics.actions.normalise import normaliser
from selfflow_robotics.adapter.model import RobotModel
from selfflow_robotics.adapter.spec import RobotSpec
from selfflow_robotics.episode import Episode, Feature, RawPictures
from selfflow_robotics.finetune.config import FinetuneConfig
from selfflow_robotics.measuring import measure
from selfflow_robotics.rlds import FRACTAL_FEATURES, RldsWriter
from selfflow_robotics.robot_episode import ACTION_NAMES
from selfflow_robotics.sources import open_episodes
from selfflow_robotics.statistics import FILE_NAME, ColumnStatistics, Statistics

HEIGHT, WIDTH = 32, 40
GOALS = {"go left": (0.2, 0.5), "go right": (0.8, 0.5), "go ahead": (0.5, 0.2)}
_COLUMNS = (
    "action/gripper_closedness_action",
    "action/rotation_delta",
    "action/terminate_episode",
    "action/world_vector",
    "observation/base_pose_tool_reached",
    "observation/gripper_closed",
    "observation/natural_language_instruction",
)
_FEATURES = {name: FRACTAL_FEATURES[name] for name in _COLUMNS} | {
    "observation/image": Feature("picture", (HEIGHT, WIDTH, 3), "uint8", "png")
}


def picture(x: float, y: float, closed: float = 0.0) -> np.ndarray:
    """The table with the dot; its colour tells the gripper."""
    found = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    row, column = round(y * (HEIGHT - 8)), round(x * (WIDTH - 8))
    found[row : row + 8, column : column + 8] = (250, 200 - int(150 * closed), 40)
    return found


def demonstration(number: int, seed: int = 0) -> Episode:
    """Episode ``number``, 5 to 8 steps."""
    random = np.random.default_rng([seed, number])
    length = 5 + number % 4
    told = list(GOALS)[number % 3]
    place, goal = random.uniform(0.1, 0.9, 2), np.array(GOALS[told])
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS[:-1]}
    pictures, closed = [], 0.0
    for step in range(length):
        move = 0.3 * (goal - place)
        closes = float(np.abs(goal - place).max() < 0.15 and not closed)
        pictures.append(picture(*place, closed))
        pose = [place[0], place[1], 0.1, 0, 0, 0, 1]
        done = [1, 0, 0] if step == length - 1 else [0, 1, 0]
        values = (closes, [0.0, 0.0, 0.1 * move[0]], done, [*move, 0.0], pose, closed)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        place, closed = np.clip(place + move, 0, 1), max(closed, closes)
    return Episode(
        id=f"{seed}.{number}",
        length=length,
        columns={
            name: np.asarray(values, _FEATURES[name].dtype).reshape(length, -1) for name, values in columns.items()
        },
        texts={"observation/natural_language_instruction": [told] * length},
        pictures={"observation/image": RawPictures(np.stack(pictures))},
    )


def write_data(
    folder: Path, splits: Mapping[str, int], *, statistics: bool = True, per_shard: int = 4, seed: int = 0
) -> Path:
    """An RLDS data set with so many demonstrations in each split, and their statistics beside it."""
    for number, (split, count) in enumerate(splits.items()):
        with RldsWriter(folder, name="dots", split=split, features=_FEATURES, episodes_per_shard=per_shard) as writer:
            for k in range(count):
                writer.write(demonstration(k, seed + number))
    if statistics:
        measure(open_episodes(folder, None, next(iter(splits))), progress=False).save(folder / FILE_NAME)
    return folder


def write_tokenizer(folder: Path, *, frames: int = 1, seed: int = 0) -> Path:
    """A random tokenizer of a few thousand weights that joins ``frames`` (1 or 4) frames and 16 x 16 pixels a token."""
    from selfflow_tokenizers import VideoAutoencoder, VideoAutoencoderConfig, VideoTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes: dict[str, Any] = {
            "fine_width": 8, "width": 8, "frame_width": 8, "deep_width": 8,
            "fine_blocks": 1, "blocks": 1, "frame_blocks": 1, "deep_blocks": 0,
        }  # fmt: skip
        codec = VideoAutoencoder(VideoAutoencoderConfig(latent_channels=3, time_compression=frames, **sizes))
    VideoTokenizer(codec).save_pretrained(folder)
    return folder


def settings(data: Path, tokenizer: Path | str) -> dict[str, Any]:
    """A run of a second: 16 tokens of pictures at most, a model of 50,000 weights, six steps."""
    return {
        "model": {
            "width": 32, "heads": 2, "double_blocks": 1, "single_blocks": 2, "mlp_ratio": 2, "rope_axes": [8, 4, 4, 0],
        },
        "tokenizer": str(tokenizer),
        "data": {
            "path": str(data), "held_out_episodes": 2, "height": 32, "width": 32, "fit": "stretch", "horizon": 3,
            "batch": 4,
        },
        "tasks": {"policy": 1, "joint": 1, "world": 1, "video": 1, "inverse": 1},
        "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        "run": {
            "steps": 6, "save_every": 3, "log_every": 2, "seed": 5, "threads": 1, "device": "cpu",
            "precision": "float32",
        },
        "sampling": {"steps": 2},
        "offline": {"windows": 4, "batch": 4},
    }  # fmt: skip


def write_config(path: Path, data: Path, tokenizer: Path | str) -> Path:
    """:func:`settings` as a file; JSON is YAML."""
    path.write_text(json.dumps(settings(data, tokenizer)))
    return path


def config(path: Path, *overrides: str) -> FinetuneConfig:
    """The config in a file with some settings changed."""
    return load_config(FinetuneConfig, path, overrides)


def column_statistics(names: tuple[str, ...], values: np.ndarray) -> ColumnStatistics:
    """Of values ``(T, D)``, as numpy has them."""
    quantiles = {f"q{q:02d}": tuple(np.quantile(values, q / 100, axis=0).tolist()) for q in (1, 10, 50, 90, 99)}
    count = (len(values),) * len(names)
    moments = {name: tuple(getattr(values, name)(axis=0).tolist()) for name in ("mean", "std", "min", "max")}
    return ColumnStatistics(names, count, (0,) * len(names), **moments, **quantiles)


def make_spec(*, state_count: int = 2, seed: int = 0, **changes: Any) -> RobotSpec:
    """A spec of 7 actions and so many state numbers, with statistics of random numbers of a robot's size."""
    random = np.random.default_rng(seed)
    raw = random.normal(0.03, 0.1, (500, 7))
    raw[:, 6] = random.integers(0, 2, 500)
    names = tuple(f"s{k}" for k in range(state_count))
    columns = column_statistics(names, random.normal(1, 2, (500, state_count))) if state_count else None
    statistics = Statistics("dots", 50, 500, column_statistics(ACTION_NAMES, raw), columns)
    values: dict[str, Any] = {
        "horizon": 3, "control_rate": 3.0, "video_rate": 3.0, "height": 32, "width": 32, "fit": "stretch",
        "action_names": ACTION_NAMES, "state_names": names, "actions": normaliser("quantile", statistics.actions),
        "states": normaliser("gaussian", columns, gripper=None) if state_count else None, "statistics": statistics,
        "robot": "google_robot", "tasks": ("policy", "joint", "world", "video", "inverse"),
    }  # fmt: skip
    return RobotSpec(**values | changes)


def random_model(tokenizer: Any, spec: RobotSpec | None = None, *, isolated: bool = False, **rest: Any) -> RobotModel:
    """A model of random weights large enough that every input shows in every output."""
    from selfflow_mm.models.joint import JointConfig, JointTransformer
    from selfflow_tokenizers import ByteTextEncoder

    spec, text = spec or make_spec(), ByteTextEncoder()
    channels = {"video": tokenizer.spec.channels, "action": len(spec.action_names)}
    if spec.state_names:
        channels["state"] = len(spec.state_names)
    shape = JointConfig(
        width=32, heads=2, double_blocks=1, single_blocks=1, mlp_ratio=2, rope_axes=(8, 4, 4, 0), modalities=channels,
        text_channels=text.spec.channels, isolate_conditions=isolated,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformer = JointTransformer(shape)
        for parameter in transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    return RobotModel(transformer, tokenizer, text, spec, **{"steps": 3, **rest})
