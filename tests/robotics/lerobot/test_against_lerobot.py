"""lerobot itself reads what we write, and we read what it writes, in every version of the format.

Needs lerobot 0.4.4 in an environment of its own, whose interpreter SELFFLOW_LEROBOT_PYTHON names.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfflow_robotics.episode import EncodedPictures, Episode, Feature, RawPictures
from selfflow_robotics.lerobot import LeRobotWriter, open_lerobot
from selfflow_robotics.lerobot.join import join_lerobot

PYTHON = os.environ.get("SELFFLOW_LEROBOT_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="SELFFLOW_LEROBOT_PYTHON does not name the interpreter of an environment with lerobot 0.4.4"
)
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTHS = (7, 12, 5)
FPS = 5


def lerobot(tmp_path: Path, *arguments: str | Path) -> None:
    script = Path(__file__).with_name("lerobot_side.py")
    caches = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [PYTHON, str(script), *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **caches}
    )
    assert done.returncode == 0, done.stderr[-3000:]


def given(square_film: Callable) -> tuple[dict[str, Feature], list[Episode]]:
    features = {
        "observation.state": Feature("array", (4,), "float32", names=("a", "b", "c", "d")),
        "action": Feature("array", (2,), "float32"),
        "box": Feature("array", (2, 3), "float64"),
        "cube": Feature("array", (2, 1, 3), "int32"),
        "next.reward": Feature("array", (1,), "float32"),
        "next.done": Feature("array", (), "bool"),
        "count": Feature("array", (), "int64"),
        "words": Feature("text", (), "str"),
        "subtask": Feature("text", (), "str"),
        FRONT: Feature("picture", (64, 96, 3), "uint8"),
    }
    generator = np.random.default_rng(0)
    episodes = []
    for number, length in enumerate(LENGTHS):
        columns = {
            "observation.state": generator.integers(0, 2**32, (length, 4), dtype=np.uint32).view(np.float32),
            "action": generator.normal(size=(length, 2)).astype("f4"),
            "box": generator.normal(size=(length, 2, 3)),
            "cube": generator.integers(-9, 9, (length, 2, 1, 3), dtype=np.int32),
            "next.reward": generator.random((length, 1), dtype=np.float32),
            "next.done": np.arange(length) == length - 1,
            "count": generator.integers(-(2**62), 2**62, length),
        }
        texts = {
            "task": ["pick up the can"] * (length - 2) + [f"öffne Schublade {number % 2}"] * 2,
            "words": [f"schön {n}" for n in range(length)],
            "subtask": ["reach"] * 2 + ["grasp"] * (length - 2),
        }
        pictures = {FRONT: RawPictures(square_film(length, number))}
        metadata = {"file_path": f"/data/{number}", "pose": generator.normal(size=3)}
        episodes.append(Episode(f"e{number}", length, columns, texts, pictures, metadata))
    return features, episodes


def check_read(found: Any, features: dict[str, Feature], episodes: list[Episode]) -> None:
    assert str(found["version"]) == "v3.0" and int(found["episodes"]) == len(episodes)
    for name, feature in features.items():
        if feature.kind == "array":
            ours = np.concatenate([episode.columns[name] for episode in episodes]).reshape(-1)
            theirs = found[f"column/{name}"]
            assert theirs.dtype == ours.dtype and theirs.tobytes() == ours.tobytes(), name
    steps = np.concatenate([np.arange(episode.length) for episode in episodes])
    assert found["column/frame_index"].tolist() == steps.tolist()
    assert found["column/timestamp"].tobytes() == (steps / FPS).astype(np.float32).tobytes()
    assert found["column/words"].tolist() == [word for episode in episodes for word in episode.texts["words"]]
    assert found["task"].tolist() == [word for episode in episodes for word in episode.texts["task"]]
    assert found["subtask"].tolist() == [word for episode in episodes for word in episode.texts["subtask"]]
    # The first step of episode 1 with the one before it: lerobot repeats the first at an episode's start.
    assert found["window"].tobytes() == episodes[1].columns["action"][[0, 0]].tobytes()
    begin = 0
    for number, episode in enumerate(episodes):
        assert int(found[f"episode/{number}/dataset_from_index"]) == begin
        begin += episode.length
        assert str(found[f"episode/{number}/file_path"]) == f"/data/{number}"
        assert found[f"episode/{number}/pose"].tobytes() == episode.metadata["pose"].tobytes()
        assert found[f"episode/{number}/tasks"].tolist() == list(dict.fromkeys(episode.texts["task"]))


def check_statistics(found: Any, episodes: list[Episode], frames: np.ndarray) -> None:
    action = np.concatenate([episode.columns["action"] for episode in episodes]).astype(np.float64)
    for key, expected in (
        ("min", action.min(0)),
        ("max", action.max(0)),
        ("mean", action.mean(0)),
        ("std", action.std(0)),
    ):
        np.testing.assert_allclose(found[f"stats/action/{key}"], expected, rtol=1e-6, atol=1e-8)
    assert found["stats/action/count"].tolist() == [len(action)] and "stats/action/q99" in found
    assert found["stats/next.done/max"].tolist() == [True]
    pixels = frames.reshape(-1, 3) / 255
    assert found[f"stats/{FRONT}/mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(found[f"stats/{FRONT}/mean"].reshape(3), pixels.mean(0), atol=1e-6)
    np.testing.assert_allclose(found[f"stats/{FRONT}/std"].reshape(3), pixels.std(0), atol=1e-6)


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_lerobot_reads_our_videos(codec: str, tmp_path: Path, square_film: Callable, psnr: Callable) -> None:
    features, episodes = given(square_film)
    metadata = {"file_path": Feature("text", (), "str"), "pose": Feature("array", (3,), "float64")}
    folder = tmp_path / "ours"
    with LeRobotWriter(folder, features=features, fps=FPS, metadata_features=metadata, video_codec=codec) as writer:
        for episode in episodes:
            writer.write(episode)
    check_videos(tmp_path, folder, features, episodes, psnr)


def test_lerobot_reads_a_set_that_was_joined(tmp_path: Path, square_film: Callable, psnr: Callable) -> None:
    """Of three parts, each with a data file and a video of its own; tasks that were first in one are later in all."""
    features, episodes = given(square_film)
    metadata = {"file_path": Feature("text", (), "str"), "pose": Feature("array", (3,), "float64")}
    parts = [tmp_path / f"part-{number}" for number in range(len(episodes))]
    for part, episode in zip(parts, episodes, strict=True):
        with LeRobotWriter(part, features=features, fps=FPS, metadata_features=metadata) as writer:
            writer.write(episode)
    folder = tmp_path / "joined"
    folder.mkdir()
    join_lerobot(parts, folder)
    assert len(list(folder.glob("data/*/*.parquet"))) == len(list(folder.glob(f"videos/{FRONT}/*/*.mp4"))) == 3
    check_videos(tmp_path, folder, features, episodes, psnr)


def check_videos(
    tmp_path: Path, folder: Path, features: dict[str, Feature], episodes: list[Episode], psnr: Callable
) -> None:
    """lerobot reads in ``folder`` what the episodes hold."""
    lerobot(tmp_path, "read", folder, tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    check_read(found, features, episodes)
    frames = np.concatenate([episode.pictures[FRONT].read() for episode in episodes])
    check_statistics(found, episodes, frames)
    theirs = np.round(found[f"camera/{FRONT}"] * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert psnr(theirs, frames) > 30
    files = open_lerobot(folder)
    places = [(shard, index) for shard, entry in enumerate(files.shards) for index in range(entry.episodes)]
    ours = np.concatenate([files.read(*place).pictures[FRONT].read() for place in places])
    assert psnr(theirs, ours) > 32  # the same frames; lerobot's conversion to RGB takes the nearest chroma


def test_lerobot_reads_our_pictures_and_small_files(tmp_path: Path, square_film: Callable) -> None:
    features, episodes = given(square_film)
    data = []
    for frame in np.concatenate([episode.pictures[FRONT].read() for episode in episodes]):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG")
        data.append(buffer.getvalue())
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    metadata = {"file_path": Feature("text", (), "str"), "pose": Feature("array", (3,), "float64")}
    folder = tmp_path / "ours"
    options: dict[str, Any] = {"pictures": "image", "data_files_size_in_mb": 0.01, "chunks_size": 2}
    with LeRobotWriter(folder, features=features, fps=FPS, metadata_features=metadata, **options) as writer:
        for number, episode in enumerate(episodes):
            pictures = {FRONT: EncodedPictures(data[starts[number] : starts[number + 1]])}
            writer.write(
                Episode(episode.id, episode.length, episode.columns, episode.texts, pictures, episode.metadata)
            )
    assert len(list(folder.glob("data/*/*.parquet"))) == 3
    lerobot(tmp_path, "read", folder, tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    check_read(found, features, episodes)
    assert [bytes.fromhex(entry) for entry in found[f"bytes/{FRONT}"]] == data
    expected = EncodedPictures(data).read().transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(found[f"camera/{FRONT}"], expected, atol=1e-6)


@pytest.mark.parametrize("codec", ["libsvtav1", "h264"])
def test_we_read_what_lerobot_writes(codec: str, tmp_path: Path, square_film: Callable, psnr: Callable) -> None:
    generator = np.random.default_rng(1)
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    count = len(episode)
    columns = {
        "observation.state": generator.normal(size=(count, 3)).astype("f4"),
        "box": generator.normal(size=(count, 2, 3)).astype("f4"),
        "cube": generator.integers(0, 9, (count, 2, 2, 2)),
        "reward": generator.normal(size=count).astype("f4"),
        "done": generator.random(count) < 0.5,
    }
    film = np.concatenate([square_film(length, number, (48, 64)) for number, length in enumerate(LENGTHS)])
    tasks = np.array([f"öffne {number}" if step % 2 else "pick" for step, number in enumerate(episode)])
    content = {f"column/{name}": values for name, values in columns.items()}
    content |= {f"camera/{name}": film for name in (FRONT, WRIST)}
    content |= {"fps": np.array(FPS), "codec": np.array(codec), "episodes": np.array(len(LENGTHS))}
    np.savez(tmp_path / "given.npz", **content, episode=episode, task=tasks)
    lerobot(tmp_path, "write", tmp_path / "theirs", tmp_path / "given.npz")

    files = open_lerobot(tmp_path / "theirs")
    assert files.format == "LeRobot v3.0" and files.fps == FPS and files.splits == {"train": len(LENGTHS)}
    assert files.features[FRONT].shape == (48, 64, 3) and files.features[FRONT].encoding == "video"
    assert files.tasks["pick"] == len(LENGTHS)
    for number in range(len(LENGTHS)):
        chosen = episode == number
        back = files.read(0, number)
        for name, values in columns.items():
            assert back.columns[name].dtype == values.dtype and back.columns[name].shape == values[chosen].shape
            assert back.columns[name].tobytes() == values[chosen].tobytes()
        assert list(back.texts["task"]) == tasks[chosen].tolist()
        np.testing.assert_array_equal(back.pictures[WRIST].read(), film[chosen])
        assert psnr(back.pictures[FRONT].read(), film[chosen]) > 24  # lerobot's crf of 30


def test_our_statistics_are_lerobots(tmp_path: Path, square_film: Callable) -> None:
    """lerobot writes a data set; we write the same one; its statistics and ours are of the same numbers."""
    generator = np.random.default_rng(2)
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    columns = {
        "action": generator.normal(size=(len(episode), 3)).astype("f4"),
        "done": generator.random(len(episode)) < 0.5,
    }
    film = np.concatenate([square_film(length, number, (48, 64)) for number, length in enumerate(LENGTHS)])
    content: dict[str, Any] = {f"column/{name}": values for name, values in columns.items()}
    content |= {f"camera/{name}": film for name in (FRONT, WRIST)}
    content |= {"fps": np.array(FPS), "codec": np.array("h264"), "episodes": np.array(len(LENGTHS))}
    np.savez(tmp_path / "given.npz", **content, episode=episode, task=np.array(["pick"] * len(episode)))
    lerobot(tmp_path, "write", tmp_path / "theirs", tmp_path / "given.npz")
    theirs = open_lerobot(tmp_path / "theirs")
    with LeRobotWriter(tmp_path / "ours", features=theirs.features, fps=FPS) as writer:
        for number in range(len(LENGTHS)):
            read = theirs.read(0, number)
            pictures = {name: RawPictures(film[episode == number]) for name in (FRONT, WRIST)}
            writer.write(Episode(read.id, read.length, read.columns, read.texts, pictures))
    one, other = theirs.statistics, open_lerobot(tmp_path / "ours").statistics
    assert one.keys() == other.keys()
    for name, statistics in one.items():
        assert statistics.keys() == other[name].keys()
        for key, value in statistics.items():
            if key == "std" and name in (FRONT, WRIST):
                continue  # lerobot 0.4.4 squares its 8-bit pictures in 8 bits; check_statistics knows the truth
            mine = np.array(other[name][key], np.float64)
            spread = np.array(statistics["max"], np.float64) - np.array(statistics["min"], np.float64)
            assert mine.shape == np.shape(value), (name, key)
            # lerobot counts into 5,000 bins between the least and the greatest value, and computes in float32.
            atol = float(np.max(spread)) / 2000 + 1e-6 if key.startswith("q") else 1e-5
            np.testing.assert_allclose(mine, np.array(value, np.float64), rtol=1e-5, atol=atol, err_msg=f"{name} {key}")


def test_a_data_set_and_its_conversion_by_lerobot(tmp_path: Path, make_v2: Callable) -> None:
    made = make_v2("v2.1", lengths=(7, 5, 6, 9, 4))
    before = open_lerobot(made.folder)
    old = [before.read(0, number) for number in range(5)]
    films = [episode.pictures[FRONT].read() for episode in old]
    copy = tmp_path / "new" / made.folder.name
    shutil.copytree(made.folder, copy)
    lerobot(tmp_path, "upgrade", copy)
    after = open_lerobot(copy)
    assert (before.format, after.format) == ("LeRobot v2.1", "LeRobot v3.0")
    assert before.tasks == after.tasks and len(list(copy.glob("data/*/*.parquet"))) > 1
    seen = 0
    for shard, about in enumerate(after.shards):
        for index in range(about.episodes):
            new = after.read(shard, index)
            number = int(new.metadata["episode_index"])
            assert new.columns.keys() == old[number].columns.keys()
            for name, values in old[number].columns.items():
                assert new.columns[name].tobytes() == values.tobytes() and new.columns[name].dtype == values.dtype
            assert list(new.texts["task"]) == list(old[number].texts["task"])
            np.testing.assert_array_equal(new.pictures[FRONT].read(), films[number])
            seen += 1
    assert seen == 5
