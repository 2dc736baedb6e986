"""Reading v2.0 and v2.1: data sets made by hand against what was put into them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.files import BadEpisode
from selfflow_robotics.lerobot import VideoPictures, is_lerobot, open_lerobot

CAMERA = "observation.images.front"
PICK, DRAWER = "pick the can", "öffne die Schublade"


@pytest.mark.parametrize(("version", "codec"), [("v2.0", "libsvtav1"), ("v2.1", "libx264")])
def test_everything_of_an_episode(version: str, codec: str, make_v2: Callable, psnr: Callable) -> None:
    made = make_v2(version, codec=codec)
    assert is_lerobot(made.folder)
    files = open_lerobot(made.folder)
    assert (files.format, files.fps, files.split, files.splits) == (f"LeRobot {version}", 5.0, "train", {"train": 3})
    assert files.features["observation.state"].names == ("x", "y", "z")
    assert files.features[CAMERA].shape == (64, 96, 3)
    assert [shard.episodes for shard in files.shards] == [3]
    for number in (2, 0, 1):
        episode = files.read(0, number)
        assert (episode.id, episode.length) == (f"episode_{number:06d}", len(made.states[number]))
        state = episode.columns["observation.state"]
        assert state.dtype == np.float32 and state.tobytes() == made.states[number].tobytes()
        assert episode.columns["frame_index"].tolist() == list(range(episode.length))
        assert list(episode.texts["task"]) == made.tasks[number]
        assert episode.metadata == {"episode_index": number}
        assert psnr(episode.pictures[CAMERA].read(), made.frames[number]) > 30


def test_tasks_are_counted_without_reading_data(make_v2: Callable) -> None:
    made = make_v2(lengths=(3, 3, 3, 3), codec=None)
    for parquet in made.folder.glob("data/*/*.parquet"):
        parquet.unlink()
    assert open_lerobot(made.folder).tasks == {PICK: 4, DRAWER: 2}


def test_chunks_and_groups(make_v2: Callable) -> None:
    made = make_v2(lengths=(2,) * 205, codec=None, chunks_size=50)
    files = open_lerobot(made.folder)
    assert [shard.episodes for shard in files.shards] == [100, 100, 5]
    for shard, index in ((2, 4), (0, 51), (1, 0)):
        number = 100 * shard + index
        assert files.read(shard, index).columns["observation.state"].tobytes() == made.states[number].tobytes()


def test_further_words_about_an_episode(make_v2: Callable) -> None:
    extras = [
        {"scene": "küche", "weights": [1.0, 2.5], "good": True, "steps": [{"a": 1}]},
        {"scene": "b", "weights": [3]},
    ]
    extras[1] |= {"good": False, "steps": []}
    files = open_lerobot(make_v2(lengths=(3, 4), codec=None, extras=extras).folder)
    metadata = files.read(0, 0).metadata
    assert metadata["scene"] == "küche" and metadata["good"] == np.True_ and json.loads(metadata["steps"]) == [{"a": 1}]
    assert metadata["weights"].tolist() == [1.0, 2.5] and metadata["weights"].dtype == np.float64
    assert files.read(0, 1).metadata["weights"].tolist() == [3.0]
    assert files.metadata_features["scene"].kind == "text"


def test_pictures_in_the_parquet_or_beside_it(make_v2: Callable) -> None:
    """Hugging Face's Image: {"bytes", "path"}, the bytes missing where the file is named."""
    import io

    from PIL import Image

    made = make_v2(lengths=(4,), codec=None)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3), dtype=np.uint8)
    data = []
    for frame in pixels:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG")
        data.append(buffer.getvalue())
    (made.folder / "images").mkdir()
    (made.folder / "images/frame_000003.png").write_bytes(data[3])
    path = made.folder / "data/chunk-000/episode_000000.parquet"
    entries = [{"bytes": entry, "path": None} for entry in data[:3]] + [
        {"bytes": None, "path": "images/frame_000003.png"}
    ]
    pq.write_table(pq.read_table(path).append_column("wrist", pa.array(entries)), path)
    info_path = made.folder / "meta/info.json"
    info = json.loads(info_path.read_text())
    info["features"]["wrist"] = {"dtype": "image", "shape": [3, 9, 7], "names": ["channels", "height", "width"]}
    info_path.write_text(json.dumps(info))
    files = open_lerobot(made.folder)
    assert files.features["wrist"].shape == (9, 7, 3)
    np.testing.assert_array_equal(files.read(0, 0).pictures["wrist"].read([3, 0]), pixels[[3, 0]])

    entries[3]["path"] = "../outside.png"
    pq.write_table(pq.read_table(path).drop(["wrist"]).append_column("wrist", pa.array(entries)), path)
    with pytest.raises(BadEpisode, match="outside the data set"):
        open_lerobot(made.folder).read(0, 0)


def test_damage_is_told_and_stays_with_its_episode(make_v2: Callable) -> None:
    made = make_v2()
    data, videos = made.folder / "data/chunk-000", made.folder / f"videos/chunk-000/{CAMERA}"
    (data / "episode_000000.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    (videos / "episode_000001.mp4").unlink()
    files = pickle.loads(pickle.dumps(open_lerobot(made.folder)))
    with pytest.raises(BadEpisode, match=r"episode 0 of episodes 000000 to 000099: .*arquet"):
        files.read(0, 0)
    with pytest.raises(BadEpisode, match=r"episode_000001\.mp4 is missing"):
        files.read(0, 1)
    assert files.read(0, 2).length == 6
    (data / "episode_000002.parquet").unlink()
    with pytest.raises(BadEpisode, match=r"episode_000002\.parquet"):
        open_lerobot(made.folder).read(0, 2)


def test_a_length_that_differs_from_the_table(make_v2: Callable) -> None:
    made = make_v2(codec=None)
    path = made.folder / "data/chunk-000/episode_000001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    with pytest.raises(BadEpisode, match="has 3 steps, meta/episodes.jsonl says 5"):
        open_lerobot(made.folder).read(0, 1)


def test_an_episode_that_the_table_lacks_is_counted(make_v2: Callable) -> None:
    made = make_v2(codec=None)
    path = made.folder / "meta/episodes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    files = open_lerobot(made.folder)
    assert sum(shard.episodes for shard in files.shards) == 3
    assert files.read(0, 1).id == "episode_000002"
    with pytest.raises(BadEpisode, match="does not list it"):
        files.read(1, 0)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("meta/info.json", "{", "not JSON"),
        ("meta/info.json", '{"features": {}, "codebase_version": "v1.6", "fps": 3}', "version v1.6"),
        ("meta/info.json", '{"features": {}, "codebase_version": "v2.1"}', "'fps' is None"),
        ("meta/info.json", '{"features": {"a": {"dtype": "float32"}}, "codebase_version": "v2.1", "fps": 3}', "'a'"),
        ("meta/episodes.jsonl", '{"episode_index": 0, "length": 7}\nnonsense\n', "episodes.jsonl, line 2 is not JSON"),
        ("meta/tasks.jsonl", '{"task": "a"}\n', "tasks.jsonl, line 1: no task_index"),
    ],
)
def test_damaged_tables(file: str, text: str, message: str, make_v2: Callable) -> None:
    made = make_v2(codec=None)
    (made.folder / file).write_text(text)
    with pytest.raises(UserError, match=message):
        open_lerobot(made.folder)


def test_templates_cannot_lead_outside(make_v2: Callable) -> None:
    made = make_v2(codec=None)
    path = made.folder / "meta/info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"data_path": "../{episode_index}.parquet"}))
    with pytest.raises(BadEpisode, match="outside the data set"):
        open_lerobot(made.folder).read(0, 0)


def test_columns_of_a_later_version_are_left_out(make_v2: Callable) -> None:
    made = make_v2(codec=None)
    path = made.folder / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["talk"] = {"dtype": "language", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    assert "talk" not in open_lerobot(made.folder).features
    assert open_lerobot(made.folder).read(0, 0).length == 7


def test_no_data_set_and_no_split(make_v2: Callable, tmp_path) -> None:
    assert not is_lerobot(tmp_path)
    with pytest.raises(UserError, match="is no LeRobot data set"):
        open_lerobot(tmp_path)
    with pytest.raises(UserError, match="no split 'val'; it has train"):
        open_lerobot(make_v2(codec=None).folder, "val")


def test_pictures_are_lazy(make_v2: Callable) -> None:
    made = make_v2()
    episode = open_lerobot(made.folder).read(0, 0)
    pictures = episode.pictures[CAMERA]
    assert isinstance(pictures, VideoPictures)
    pictures.path.write_bytes(b"")
    with pytest.raises(BadEpisode, match="episode_000000.mp4 cannot be decoded"):
        pickle.loads(pickle.dumps(pictures)).read([0])
