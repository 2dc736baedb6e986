"""Writing v3.0: what was written comes back, and the files are what the format says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import EncodedPictures, Episode, Feature, RawPictures
from selfflow_robotics.lerobot import LeRobotWriter, open_lerobot

DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)
SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)
CAMERA = "observation.images.front"
ACTION = Feature("array", (3,), "float32", names=("x", "y", "z"))


def random_bits(generator: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Any bit pattern: infinities, NaN with payloads, negative zero."""
    if dtype == "bool":
        return generator.random(shape) < 0.5
    kind = np.dtype(dtype)
    return np.frombuffer(generator.bytes(int(np.prod(shape, dtype=int)) * kind.itemsize), kind).reshape(shape)


def actions(count: int, length: int = 4, **more: Any) -> list[Episode]:
    generator = np.random.default_rng(count)
    return [
        Episode(f"e{n}", length, {"action": generator.normal(size=(length, 3)).astype("f4")}, **more)
        for n in range(count)
    ]


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write(folder: Path, features: Mapping[str, Feature], episodes: list[Episode], **options: Any) -> None:
    with LeRobotWriter(folder, features=features, **{"fps": 5, **options}) as writer:
        for episode in episodes:
            writer.write(episode)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES)), min_size=1, max_size=4),
    values=st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=2),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_numbers_come_back_bit_for_bit(tmp_path_factory, columns, values, lengths, seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = {f"group.c{n}": Feature("array", shape, dtype) for n, (shape, dtype) in enumerate(columns)}
    metadata = {f"meta/v{n}": Feature("array", shape, dtype) for n, (shape, dtype) in enumerate(values)}
    episodes = [
        Episode(
            f"e{n}",
            length,
            {name: random_bits(generator, (length, *f.shape), f.dtype) for name, f in features.items()},
            metadata={name: random_bits(generator, f.shape, f.dtype) for name, f in metadata.items()},
        )
        for n, length in enumerate(lengths)
    ]
    folder = tmp_path_factory.mktemp("bits") / "data"
    write(folder, features, episodes, metadata_features=metadata)
    files = open_lerobot(folder)
    assert {name: files.features[name] for name in features} == features
    assert {name: files.metadata_features[name] for name in metadata} == metadata
    for n, episode in enumerate(episodes):
        back = files.read(0, n)
        for name, column in episode.columns.items():
            assert (back.columns[name].dtype, back.columns[name].shape) == (column.dtype, column.shape)
            assert back.columns[name].tobytes() == column.tobytes()
        for name, value in episode.metadata.items():
            assert np.asarray(back.metadata[name]).dtype == value.dtype
            assert np.asarray(back.metadata[name]).tobytes() == value.tobytes()


def test_payloads_of_nan_that_a_dictionary_would_merge(tmp_path: Path) -> None:
    bits = np.array([0x7FC00000, 0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 0], np.uint32)
    column = np.tile(bits, 50).view(np.float32)
    write(tmp_path / "d", {"reward": Feature("array", (), "float32")}, [Episode("e", 300, {"reward": column})])
    back = open_lerobot(tmp_path / "d").read(0, 0).columns["reward"]
    np.testing.assert_array_equal(back.view(np.uint32), column.view(np.uint32))


def test_made_columns_tasks_and_texts(tmp_path: Path) -> None:
    features = {"action": ACTION, "note": Feature("text", (), "str"), "raw": Feature("text", (), "bytes")}
    episodes = [
        Episode(
            f"e{n}",
            3,
            {"action": np.zeros((3, 3), "f4")},
            {"task": tasks, "note": ["", "ä", "z" * n], "raw": [b"\xff\0", b"", bytes(range(256))]},
            metadata={"file": f"/a/{n}", "key": bytes([n, 255]), "length": 5, "episode_index": 77},
        )
        for n, tasks in enumerate((["pick", "pick", "place"], ["place"] * 3, ["pick"] * 3))
    ]
    metadata = {
        "file": Feature("text", (), "str"),
        "key": Feature("text", (), "bytes"),
        "length": Feature("array", (), "int64"),  # LeRobot has a column of that name
    }
    write(
        tmp_path / "d", features, episodes, metadata_features=metadata, extra_info={"source": ["x", 1]}, robot_type="r"
    )
    files = open_lerobot(tmp_path / "d")
    assert files.tasks == {"pick": 2, "place": 2}
    assert files.description["selfflow_conversion"] == {"source": ["x", 1]}
    assert files.description["robot_type"] == "r" and files.description["splits"] == {"train": "0:3"}
    for n, episode in enumerate(episodes):
        back = files.read(0, n)
        assert {name: list(words) for name, words in back.texts.items()} == dict(episode.texts)
        assert back.metadata == {**episode.metadata, "episode_index": n}
        np.testing.assert_array_equal(back.columns["timestamp"], (np.arange(3) / 5).astype(np.float32))
        assert back.columns["timestamp"].dtype == np.float32
        assert back.columns["index"].tolist() == [3 * n, 3 * n + 1, 3 * n + 2]
        assert back.columns["episode_index"].tolist() == [n] * 3
    assert back.columns["task_index"].tolist() == [0, 0, 0]
    # The way pandas stores a table whose index is the task, which is what lerobot reads.
    table = pq.read_table(tmp_path / "d/meta/tasks.parquet")
    about = json.loads(table.schema.metadata[b"pandas"])
    assert about["index_columns"] == ["__index_level_0__"]
    assert table.to_pydict() == {"task_index": [0, 1], "__index_level_0__": ["pick", "place"]}


def test_what_was_read_can_be_written_again(make_v3: Callable, tmp_path: Path, psnr: Callable) -> None:
    made = make_v3()
    source = open_lerobot(made.folder)
    episodes = [source.read(shard, index) for shard, index in ((0, 0), (0, 1), (1, 0))]
    write(tmp_path / "copy", source.features, episodes, pictures="image", metadata_features=source.metadata_features)
    copy = open_lerobot(tmp_path / "copy")
    assert copy.tasks == source.tasks
    assert copy.features[CAMERA].encoding == "png"
    for n, episode in enumerate(episodes):
        back = copy.read(0, n)
        assert {name: c.tobytes() for name, c in back.columns.items()} == {
            name: c.tobytes() for name, c in episode.columns.items()
        }
        np.testing.assert_array_equal(back.pictures[CAMERA].read(), episode.pictures[CAMERA].read())


def test_picture_files_are_kept(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = [jpeg(generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)) for _ in range(3)]
    buffer = io.BytesIO()
    depth = generator.integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(depth).save(buffer, "PNG")
    features = {
        CAMERA: Feature("picture", (5, 7, 3), "uint8", "jpeg"),
        "depth": Feature("picture", (None, None, 1), "uint16", "png"),
        "made": Feature("picture", (), "uint8"),
    }
    frames = generator.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    pictures = {
        CAMERA: EncodedPictures(data),
        "depth": EncodedPictures([buffer.getvalue()] * 3, 1),
        "made": RawPictures(frames),
    }
    write(tmp_path / "d", features, [Episode("e", 3, pictures=pictures)], pictures="image")
    files = open_lerobot(tmp_path / "d")
    assert files.features[CAMERA] == features[CAMERA] and files.features["made"].shape == (4, 4, 3)
    back = files.read(0, 0).pictures
    assert back[CAMERA].data == data
    np.testing.assert_array_equal(back["depth"].read([1])[0, ..., 0], depth)
    np.testing.assert_array_equal(back["made"].read(), frames)
    assert not (tmp_path / "d/videos").exists() and files.description["video_path"] is None


def test_depth_stays_a_picture_file_among_videos(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 65536, (2, 16, 16, 1), dtype=np.uint16)
    features = {"depth": Feature("picture", (16, 16, 1), "uint16"), CAMERA: Feature("picture", (16, 16, 3))}
    features[CAMERA] = Feature("picture", (16, 16, 3), "uint8")
    pictures = {"depth": RawPictures(depth), CAMERA: RawPictures(np.zeros((2, 16, 16, 3), np.uint8))}
    write(tmp_path / "d", features, [Episode("e", 2, pictures=pictures)])
    files = open_lerobot(tmp_path / "d")
    assert (files.features[CAMERA].encoding, files.features["depth"].encoding) == ("video", "")
    np.testing.assert_array_equal(files.read(0, 0).pictures["depth"].read(), depth)


@pytest.mark.parametrize(
    ("name", "count", "codec", "floor"),
    [
        ("rt1/standing_coke_can.mp4", 16, "h264", 40),
        ("rt1/standing_coke_can.mp4", 16, "av1", 36),
        ("clips/talk_1.mp4", 4, "h264", 40),
        ("clips/talk_1.mp4", 4, "av1", 36),
    ],
)
def test_quality_of_real_pictures(
    name: str, count: int, codec: str, floor: float, film: Callable, psnr: Callable, tmp_path: Path
) -> None:
    frames = film(name, count)
    feature = Feature("picture", frames.shape[1:], "uint8")
    # Episodes of odd and even length, so that starts fall on every place in a group of pictures.
    cuts = [slice(0, 1), slice(1, 2), slice(2, count)]
    episodes = [Episode("e", len(frames[cut]), pictures={CAMERA: RawPictures(frames[cut])}) for cut in cuts]
    write(tmp_path / "d", {CAMERA: feature}, episodes, video_codec=codec, fps=3)
    files = open_lerobot(tmp_path / "d")
    for n, cut in enumerate(cuts):
        assert psnr(files.read(0, n).pictures[CAMERA].read(), frames[cut]) >= floor


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (34, 47), (16, 16)])
def test_small_and_odd_sizes(size: tuple[int, int], codec: str, tmp_path: Path, psnr: Callable) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    frames = np.stack([np.stack([rows * 3 + n, columns * 3, rows + columns], -1) for n in range(5)]).astype(np.uint8)
    episode = Episode("e", 5, pictures={CAMERA: RawPictures(frames)})
    write(tmp_path / "d", {CAMERA: Feature("picture", (*size, 3), "uint8")}, [episode], video_codec=codec)
    assert psnr(open_lerobot(tmp_path / "d").read(0, 0).pictures[CAMERA].read(), frames) > 30


@pytest.mark.parametrize("fps", [3, 10, 29.97, 12.5])
def test_times_in_the_video_are_multiples_of_a_step(fps: float, tmp_path: Path, square_film: Callable) -> None:
    episodes = [Episode("e", 5, pictures={CAMERA: RawPictures(square_film(5, n))}) for n in range(3)]
    write(tmp_path / "d", {CAMERA: Feature("picture", (64, 96, 3), "uint8")}, episodes, fps=fps)
    with av.open(str(tmp_path / f"d/videos/{CAMERA}/chunk-000/file-000.mp4")) as container:
        frames = list(container.decode(video=0))
        exact = float(container.streams.video[0].average_rate)
    np.testing.assert_allclose([float(frame.time) for frame in frames], np.arange(15) / exact, atol=1e-6)
    assert exact == pytest.approx(fps, rel=1e-4)
    assert [number for number, frame in enumerate(frames) if frame.key_frame and number % 5 == 0] == [0, 5, 10]
    table = pq.read_table(tmp_path / "d/meta/episodes/chunk-000/file-000.parquet")
    np.testing.assert_allclose(table[f"videos/{CAMERA}/from_timestamp"], np.arange(3) * 5 / exact)
    np.testing.assert_allclose(table[f"videos/{CAMERA}/to_timestamp"], np.arange(1, 4) * 5 / exact)
    assert len(open_lerobot(tmp_path / "d").read(0, 2).pictures[CAMERA].read()) == 5


def test_new_files_at_the_limits(tmp_path: Path, square_film: Callable, psnr: Callable) -> None:
    """Nine episodes of 5 steps, files of a few kilobytes, two files to a folder."""
    noise = np.random.default_rng(0)
    features = {CAMERA: Feature("picture", (64, 96, 3), "uint8"), "x": Feature("array", (100,), "float64")}
    episodes = [
        Episode("e", 5, {"x": noise.random((5, 100))}, pictures={CAMERA: RawPictures(square_film(5, n))})
        for n in range(9)
    ]
    limits = {"data_files_size_in_mb": 0.012, "video_files_size_in_mb": 0.008, "chunks_size": 2}
    write(tmp_path / "d", features, episodes, **limits)
    data = sorted(path.relative_to(tmp_path / "d/data").as_posix() for path in (tmp_path / "d/data").rglob("*.parquet"))
    assert data[:3] == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]
    videos = sorted((tmp_path / f"d/videos/{CAMERA}").rglob("*.mp4"))
    assert len(videos) > 1 and all(path.stat().st_size < 0.012 * 2**20 for path in videos)
    files = open_lerobot(tmp_path / "d")
    assert len(files.shards) == len(data)
    number = 0
    for shard, about in enumerate(files.shards):
        for index in range(about.episodes):
            back = files.read(shard, index)
            assert back.columns["x"].tobytes() == episodes[number].columns["x"].tobytes()
            assert psnr(back.pictures[CAMERA].read(), episodes[number].pictures[CAMERA].frames) > 30
            number += 1
    assert number == 9


def test_a_bad_picture_leaves_the_data_set_as_it_was(tmp_path: Path, square_film: Callable, psnr: Callable) -> None:
    feature = {CAMERA: Feature("picture", (64, 96, 3), "uint8", "jpeg"), "action": ACTION}
    good = [actions(1, 70, pictures={CAMERA: RawPictures(square_film(70, n))})[0] for n in range(2)]
    data = [jpeg(frame) for frame in square_film(70, 3)]
    data[50] = b"no picture"
    bad = actions(1, 70, texts={"task": ["never"] * 70}, pictures={CAMERA: EncodedPictures(data)})[0]
    with LeRobotWriter(tmp_path / "d", features=feature, fps=5) as writer:
        writer.write(good[0])
        with pytest.raises(UserError, match="step 50"):
            writer.write(bad)
        writer.write(good[1])
    files = open_lerobot(tmp_path / "d")
    assert files.splits == {"train": 2} and files.tasks == {"": 2}
    for n, episode in enumerate(good):
        assert psnr(files.read(0, n).pictures[CAMERA].read(), episode.pictures[CAMERA].frames) > 33


def test_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        with LeRobotWriter(tmp_path / "d", features={"action": ACTION}, fps=5) as writer:
            writer.write(actions(1)[0])
            assert not (tmp_path / "d/meta").exists()
            raise RuntimeError
    assert not (tmp_path / "d").exists()
    with pytest.raises(UserError, match="no episode was written"):
        write(tmp_path / "d", {"action": ACTION}, [])
    assert not (tmp_path / "d").exists()


def test_overwriting(tmp_path: Path) -> None:
    write(tmp_path / "d", {"action": ACTION}, actions(3))
    (tmp_path / "d/README.md").write_text("mine")
    with pytest.raises(UserError, match="holds a data set already"):
        write(tmp_path / "d", {"action": ACTION}, actions(1))
    with pytest.raises(RuntimeError):
        with LeRobotWriter(tmp_path / "d", features={"action": ACTION}, fps=5, overwrite=True):
            raise RuntimeError
    assert open_lerobot(tmp_path / "d").splits == {"train": 3}
    write(tmp_path / "d", {"action": ACTION}, actions(1), overwrite=True)
    assert open_lerobot(tmp_path / "d").splits == {"train": 1}
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["README.md", "data", "meta"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty and holds no LeRobot data set"):
        write(tmp_path / "other", {"action": ACTION}, actions(1), overwrite=True)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ({"a/b": ACTION}, {}, "no slashes"),
        ({"a": Feature("array", (None,), "float32")}, {}, "sizes that are known"),
        ({"a": Feature("array", (), "complex64")}, {}, "complex64"),
        ({"task": ACTION}, {}, "'task' must be text"),
        ({"a": Feature("text", (2,), "str")}, {}, "one text per step"),
        ({"action": ACTION}, {"fps": 0}, "fps is 0"),
        ({"action": ACTION}, {"pictures": "film"}, "'video' or 'image'"),
        ({CAMERA: Feature("picture", (4, 4, 3), "uint8")}, {"video_codec": "mpeg1"}, "not one of h264, av1"),
        ({CAMERA: Feature("picture", (4, 4, 3), "uint8")}, {"crf": 99}, "between 0 .best. and 51"),
    ],
)
def test_what_cannot_be_declared(features: dict, options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        LeRobotWriter(tmp_path / "d", **{"features": features, "fps": 5, **options})
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (Episode("e", 2), "lacks the column 'action'"),
        (
            Episode("e", 2, {"action": np.zeros((2, 3))}),
            r"'action' is float64 \[3\] per step, declared is float32 \[3\]",
        ),
        (Episode("e", 2, {"action": np.zeros((2, 4), "f4")}), r"float32 \[4\] per step"),
        (Episode("e", 2, {"action": np.zeros((2, 3), "f4"), "b": np.zeros(2)}), "'b', which is not declared"),
        (Episode("e", 2, {"action": np.zeros((2, 3), "f4")}, {"task": [b"a", b"b"]}), "'task' holds bytes"),
        (Episode("e", 2, {"action": np.zeros((2, 3), "f4")}, {"word": ["a", "b"]}), "'word', which is not declared"),
        (Episode("e", 0, {"action": np.zeros((0, 3), "f4")}), "no steps"),
    ],
)
def test_episodes_that_are_not_as_declared(episode: Episode, message: str, tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "d", features={"action": ACTION}, fps=5) as writer:
        with pytest.raises(UserError, match=message):
            writer.write(episode)
        writer.write(actions(1)[0])
    assert open_lerobot(tmp_path / "d").splits == {"train": 1}


def test_a_camera_keeps_its_size(tmp_path: Path, square_film: Callable) -> None:
    feature = {CAMERA: Feature("picture", (None, None, 3), "uint8")}
    episodes = [
        Episode("e", 2, pictures={CAMERA: RawPictures(square_film(2, 0, size))}) for size in ((64, 96), (64, 64))
    ]
    with LeRobotWriter(tmp_path / "d", features=feature, fps=5) as writer:
        writer.write(episodes[0])
        with pytest.raises(UserError, match="one size"):
            writer.write(episodes[1])
    assert open_lerobot(tmp_path / "d").features[CAMERA].shape == (64, 96, 3)
