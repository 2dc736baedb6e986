"""Reading v3.0 made by hand: episodes that share files, tables as pandas and lerobot's converter leave them."""

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
from selfflow_robotics.lerobot import open_lerobot

CAMERA = "observation.images.front"


def check(files, made, psnr=None) -> None:
    """Every episode of every shard is what was put in."""
    seen = []
    for shard, about in enumerate(files.shards):
        for index in reversed(range(about.episodes)):
            episode = files.read(shard, index)
            number = int(episode.metadata["episode_index"])
            seen.append(number)
            assert episode.columns["observation.state"].tobytes() == made.states[number].tobytes()
            assert list(episode.texts["task"]) == made.tasks[number]
            if psnr:
                frames = episode.pictures[CAMERA].read()
                assert psnr(frames, made.frames[number]) > 30
                # Frames of neighbouring episodes differ by far more than the codec does.
                assert psnr(frames[:1], made.frames[(number + 1) % 3][:1]) < 25
    assert sorted(seen) == list(range(len(made.states)))


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("row_group", [4, 1000])
def test_episodes_that_share_files(codec: str, row_group: int, make_v3: Callable, psnr: Callable) -> None:
    made = make_v3(codec=codec, row_group=row_group)
    files = pickle.loads(pickle.dumps(open_lerobot(made.folder)))
    assert files.format == "LeRobot v3.0" and files.tasks == {"pick the can": 3, "öffne die Schublade": 1}
    assert [shard.name for shard in files.shards] == [f"data/chunk-000/file-00{n}.parquet, part 000" for n in (0, 1)]
    check(files, made, psnr)


def test_splits(make_v3: Callable) -> None:
    made = make_v3(codec=None, splits={"train": "0:2", "val": "2:3"})
    train, val = open_lerobot(made.folder), open_lerobot(made.folder, "val")
    assert train.split == "train" and train.splits == {"train": 2, "val": 1} == val.splits
    assert [sum(shard.episodes for shard in files.shards) for files in (train, val)] == [2, 1]
    assert val.read(0, 0).id == "episode_000002"
    assert train.tasks == {"pick the can": 2, "öffne die Schublade": 1} and val.tasks == {"pick the can": 1}


def test_a_table_that_names_the_file_before(make_v3: Callable) -> None:
    """lerobot's converter from v2.1 does so for the first episode of each file but the first."""
    made = make_v3(files=((0, 1), (2, 3), (4,)), lengths=(3, 4, 5, 6, 3), codec=None)
    path = made.folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    wrong = pa.array([0, 0, 0, 1, 1])
    at = table.schema.get_field_index("data/file_index")
    pq.write_table(table.set_column(at, "data/file_index", wrong), path)
    check(open_lerobot(made.folder), made)


def test_rows_whose_index_does_not_begin_where_the_table_says(make_v3: Callable) -> None:
    """After episodes were deleted by hand: the table's own order decides, and the episode number is checked."""
    made = make_v3(files=((0, 1, 2),), codec=None)
    path = made.folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("index")
    pq.write_table(table.set_column(at, "index", pa.array(1000 + np.arange(table.num_rows))), path)
    check(open_lerobot(made.folder), made)
    at = table.schema.get_field_index("episode_index")
    pq.write_table(table.set_column(at, "episode_index", pa.array([7] * table.num_rows)), path)
    with pytest.raises(BadEpisode, match="file-000.parquet does not hold its 5 steps from index 7 on"):
        open_lerobot(made.folder).read(0, 1)


def test_only_the_rows_asked_for_are_read(make_v3: Callable) -> None:
    """Every byte of the file's other row groups is overwritten."""
    made = make_v3(files=((0, 1, 2),), lengths=(8, 8, 8), row_group=8, codec=None)
    path = made.folder / "data/chunk-000/file-000.parquet"
    content, about = bytearray(path.read_bytes()), pq.read_metadata(path)
    for group in (0, 2):
        # The first row's index says where the file begins, so that one column of the first group is read.
        for column in map(about.row_group(group).column, range(about.num_columns)):
            if group == 0 and column.path_in_schema == "index":
                continue
            first = column.dictionary_page_offset or column.data_page_offset
            content[first : first + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    files = open_lerobot(made.folder)
    assert files.read(0, 1).columns["observation.state"].tobytes() == made.states[1].tobytes()
    for index in (0, 2):
        with pytest.raises(BadEpisode):
            files.read(0, index)


def test_memory_of_one_row_group_with_many_episodes(make_v3: Callable) -> None:
    """The converter leaves one large row group; pieces of it are decoded until the episode is there."""
    made = make_v3(files=((0, 1),), lengths=(4, 4), codec=None)
    rows, width = 1500, 16384  # 98 MB of random floats in one row group
    table = pa.table(
        {
            "observation.state": pa.FixedSizeListArray.from_arrays(
                np.random.default_rng(0).random(rows * width, dtype=np.float32), width
            ),
            "timestamp": pa.array(np.zeros(rows, "f4")),
            **{name: pa.array(np.zeros(rows, np.int64)) for name in ("frame_index", "task_index")},
            "episode_index": pa.array(np.arange(rows) // 4),
            "index": pa.array(np.arange(rows)),
        }
    )
    pq.write_table(table, made.folder / "data/chunk-000/file-000.parquet", use_dictionary=False, compression="none")
    expected = table["observation.state"].combine_chunks().flatten().to_numpy().reshape(rows, width)[4:8].copy()
    del table
    info_path = made.folder / "meta/info.json"
    info = json.loads(info_path.read_text())
    info["features"]["observation.state"] |= {"shape": [width], "names": None}
    info_path.write_text(json.dumps(info))
    files = open_lerobot(made.folder)
    pool = pa.system_memory_pool()
    old = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        before = pool.bytes_allocated()
        episode = files.read(0, 1)
        peak, kept = pool.max_memory() - before, pool.bytes_allocated() - before
    finally:
        pa.set_memory_pool(old)
    np.testing.assert_array_equal(episode.columns["observation.state"], expected)
    assert 0 < peak < 40 * 2**20
    assert kept < 2**20


def test_subtasks_and_values_of_episodes(make_v3: Callable) -> None:
    made = make_v3(codec=None)
    folder = made.folder
    for path in sorted(folder.glob("data/*/*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table.append_column("subtask_index", pa.array(np.arange(len(table)) % 2)), path)
    pq.write_table(pa.table({"subtask_index": [0, 1], "subtask": ["reach", "grasp"]}), folder / "meta/subtasks.parquet")
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    table = table.append_column("scene", pa.array(["a", None, "c"])).append_column(
        "pose", pa.array([[1.5], [], [2.0, 3]])
    )
    pq.write_table(table, path)
    info_path = folder / "meta/info.json"
    info = json.loads(info_path.read_text())
    info["features"]["subtask_index"] = {"dtype": "int64", "shape": [1], "names": None}
    info_path.write_text(json.dumps(info))
    files = open_lerobot(folder)
    episode = files.read(0, 0)
    assert list(episode.texts["subtask"])[:3] == ["reach", "grasp", "reach"]
    assert set(files.metadata_features) == {"episode_index", "scene", "pose"}
    assert [files.read(s, i).metadata["scene"] for s, i in ((0, 0), (0, 1), (1, 0))] == ["a", "", "c"]
    assert [files.read(s, i).metadata["pose"].tolist() for s, i in ((0, 0), (0, 1), (1, 0))] == [[1.5], [], [2.0, 3.0]]


def test_a_missing_video_is_the_episodes_fault(make_v3: Callable) -> None:
    made = make_v3()
    (made.folder / f"videos/{CAMERA}/chunk-000/file-000.mp4").unlink()
    with pytest.raises(BadEpisode, match="file-000.mp4 is missing"):
        open_lerobot(made.folder).read(1, 0)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("meta/tasks.parquet", "tasks.parquet cannot be read"),
        ("meta/episodes/chunk-000/file-000.parquet", "file-000.parquet cannot be read"),
    ],
)
def test_damaged_tables(file: str, message: str, make_v3: Callable) -> None:
    made = make_v3(codec=None)
    (made.folder / file).write_bytes(b"PAR1PAR1")
    with pytest.raises(UserError, match=message):
        open_lerobot(made.folder)
    (made.folder / file).unlink()
    with pytest.raises(UserError):
        open_lerobot(made.folder)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0, 2.0]] * 12, pa.list_(pa.float32())), r"shape \[2\] where \[3\] is stated"),
        (pa.array([[1.0, 2.0, 3.0]] * 11 + [[1.0]], pa.list_(pa.float32())), "different sizes"),
        (pa.array([[1.0, 2.0, 3.0]] * 11 + [None], pa.list_(pa.float32())), "without a value"),
        (pa.array(["a"] * 12), "float32"),
    ],
)
def test_columns_that_are_not_as_stated(column: pa.Array, message: str, make_v3: Callable) -> None:
    made = make_v3(codec=None)
    path = made.folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("observation.state")
    pq.write_table(table.set_column(at, "observation.state", column), path)
    with pytest.raises(BadEpisode, match=f"column 'observation.state' of .*{message}"):
        open_lerobot(made.folder).read(0, 1)
