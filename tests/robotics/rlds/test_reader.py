from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import shutil
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import Episode, Feature
from selfflow_robotics.files import BadEpisode
from selfflow_robotics.rlds import RldsWriter, is_rlds, make_tree, open_rlds
from selfflow_robotics.rlds.framing import write_record

FEATURES = {"action": Feature("array", (2,), "float32"), "said": Feature("text", (), "str")}


def make(folder: Path, episodes: int = 5, per_shard: int = 2, **more: Any) -> Path:
    """Episode k has k steps whose actions are all k."""
    with RldsWriter(folder, name="toy", features=FEATURES, episodes_per_shard=per_shard, **more) as writer:
        for k in range(episodes):
            writer.write(Episode(str(k), k, {"action": np.full((k, 2), k, np.float32)}, {"said": [str(k)] * k}))
    return folder


def edit(folder: Path, change: Any) -> None:
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def lengths(files: Any) -> list[int]:
    return [files.read(s, i).length for s in range(len(files.shards)) for i in range(files.episodes_in(s))]


def test_the_real_file(bridge: Path, protobuf: Any) -> None:
    files = open_rlds(bridge)
    assert (files.format, files.name, files.version, files.split) == ("RLDS", "bridge_dataset", "1.0.0", "train")
    assert files.splits == {"train": 25, "val": 25} and [shard.episodes for shard in files.shards] == [25]
    for index in range(25):
        episode = files.read(0, index)
        truth = protobuf.example_class().FromString(files.read_record(0, index)).features.feature
        assert episode.length == 10 and episode.id == f"train-00000-of-00001/{index}"
        action = np.array(truth["steps/action"].float_list.value, np.float32).reshape(10, 7)
        assert np.array_equal(episode.columns["action"], action) and episode.columns["action"].flags.writeable
        assert episode.columns["is_first"].tolist() == [True] + [False] * 9
        assert episode.columns["is_last"].dtype == bool and episode.columns["reward"].shape == (10,)
        said = [text.decode() for text in truth["steps/language_instruction"].bytes_list.value]
        assert episode.texts["language_instruction"] == said
        frames = episode.pictures["observation/image_0"].read([9, 0])
        assert frames.shape == (2, 64, 64, 3) and frames.dtype == np.uint8 and frames.std() > 10
        path = truth["episode_metadata/file_path"].bytes_list.value[0].decode()
        assert episode.metadata["episode_metadata/file_path"] == path
        assert episode.metadata["episode_metadata/has_language"] is True


def test_the_split_without_a_file_is_one_clear_sentence(bridge: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_rlds(bridge, "val")
    message = str(caught.value)
    assert "split 'val'" in message and "bridge_dataset-val.tfrecord-00000-of-00001' is missing" in message
    assert "splits that are there: train" in message and "\n" not in message
    with pytest.raises(UserError, match="no split 'test'; it has: train, val"):
        open_rlds(bridge, "test")


def test_every_way_to_point_at_it(bridge: Path, tmp_path: Path) -> None:
    record = next(bridge.glob("*.tfrecord*"))
    for path in (bridge, str(bridge), bridge.parent, record):
        files = open_rlds(path)
        assert files.folder == bridge and files.read(0, 24).length == 10 and is_rlds(path)
    assert open_rlds(record).splits == {"train": 25}
    for path in (tmp_path, tmp_path / "missing", Path(__file__)):
        assert not is_rlds(path)
        with pytest.raises(UserError):
            open_rlds(path)


def test_the_highest_version_is_taken_and_named(tmp_path: Path) -> None:
    for version in ("1.2.0", "1.10.0"):
        make(tmp_path / "toy" / version, version=version)
    files = open_rlds(tmp_path / "toy")
    assert files.version == "1.10.0" and files.notes == ("took 1.10.0 (there are also 1.2.0)",)
    make(tmp_path / "other" / "1.0.0")
    with pytest.raises(UserError, match="several data sets .other, toy."):
        open_rlds(tmp_path)


def test_episodes_of_no_and_of_one_step(tmp_path: Path) -> None:
    files = open_rlds(make(tmp_path / "x"))
    assert lengths(files) == [0, 1, 2, 3, 4] and files.splits == {"train": 5}
    empty, one = files.read(0, 0), files.read(0, 1)
    assert empty.columns["action"].shape == (0, 2) and empty.texts["said"] == []
    assert one.columns["action"].tolist() == [[1, 1]] and one.texts["said"] == ["1"]


def test_without_a_description_files_are_counted(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    (folder / "dataset_info.json").unlink()
    files = open_rlds(folder)
    assert files.name == "toy" and [shard.episodes for shard in files.shards] == [2, 2, 1]
    assert lengths(files) == [0, 1, 2, 3, 4] and files.read(2, 0).id == "train-00002-of-00003/0"


def test_older_descriptions(tmp_path: Path) -> None:
    """Without templates, and with the number of shards in place of their lengths."""

    def change(info: Any) -> None:
        split = info["splits"][0]
        del split["filepathTemplate"], split["shardLengths"], info["fileFormat"]
        split |= {"numShards": "3", "statistics": {"numExamples": "5"}}

    folder = make(tmp_path / "x")
    edit(folder, change)
    files = open_rlds(folder)
    assert files.splits == {"train": 5} and lengths(files) == [0, 1, 2, 3, 4]


def test_other_templates(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    for path in folder.glob("*.tfrecord*"):
        index = int(re.findall(r"-(\d+)-of", path.name)[0])
        path.rename(folder / f"part_{index:05d}_{3:05d}.toy.{path.name.split('-')[1].split('.')[0]}.tfrecord")
    template = "part_{SHARD_INDEX}_{NUM_SHARDS}.{DATASET}.{SPLIT}.{FILEFORMAT}"
    edit(folder, lambda info: info["splits"][0].update(filepathTemplate=template))
    files = open_rlds(folder)
    assert lengths(files) == [0, 1, 2, 3, 4]
    assert files.read(1, 1).id == "part_00001_00003.toy.train.tfrecord/1"


def test_a_copy_with_other_shards_than_the_description_says(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    edit(folder, lambda info: info["splits"][0].update(shardLengths=["5"]))
    files = open_rlds(folder)
    assert lengths(files) == [0, 1, 2, 3, 4] and "took what is there" in files.notes[0]


def test_splits_that_the_description_does_not_know(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    shutil.copy(folder / "toy-train.tfrecord-00001-of-00003", folder / "toy-val.tfrecord-00000-of-00001")
    assert open_rlds(folder, "val").splits == {"train": 5, "val": 2}
    assert lengths(open_rlds(folder, "val")) == [2, 3]


def test_several_splits_are_read_as_one_in_their_order(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", episodes=3)
    make(folder, episodes=5, per_shard=5, split="extra")
    both = open_rlds(folder, "extra + train")
    assert both.split == "extra+train" and dict(both.splits) == {"train": 3, "extra": 5}
    assert lengths(both) == [*range(5), *range(3)]
    assert [both.read(s, 0).id for s in range(3)] == [
        "extra-00000-of-00001/0",
        "train-00000-of-00002/0",
        "train-00001-of-00002/0",
    ]
    with pytest.raises(UserError, match="names 'train' more than once"):
        open_rlds(folder, "train+train")
    with pytest.raises(UserError, match="has no split 'val'"):
        open_rlds(folder, "train+val")


def test_a_partial_download(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    (folder / "toy-train.tfrecord-00000-of-00003").unlink()
    files = open_rlds(folder)
    assert "1 of 3 files are missing" in files.notes[0] and [files.episodes_in(s) for s in range(3)] == [2, 2, 1]
    with pytest.raises(
        BadEpisode, match="episode 1 of toy-train.tfrecord-00000-of-00003: the file is missing"
    ) as error:
        files.read(0, 1)
    assert pickle.loads(pickle.dumps(error.value)).index == 1
    assert files.read(1, 0).length == 2 and files.tree.order  # the order of names comes from the next file


def test_shards_that_hold_more_or_fewer_than_stated(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    edit(folder, lambda info: info["splits"][0].update(shardLengths=["3", "1", "1"]))
    files = open_rlds(folder)
    assert [files.episodes_in(s) for s in range(3)] == [2, 2, 1] and files.splits == {"train": 5}
    with pytest.raises(BadEpisode, match="holds only 2 episodes"):
        files.read(0, 2)
    cut = folder / "toy-train.tfrecord-00001-of-00003"
    cut.write_bytes(cut.read_bytes()[:-1])
    files = open_rlds(folder)
    assert files.episodes_in(1) == 1 and files.read(1, 0).length == 2
    with pytest.raises(BadEpisode, match="cut off"):
        files.read(1, 1)


def test_other_file_formats_and_broken_descriptions_say_so(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    edit(folder, lambda info: info.update(fileFormat="array_record"))
    with pytest.raises(UserError, match="'array_record', which is not supported"):
        open_rlds(folder)
    for text in ("", "[]", '{"splits": [{"name": "train", "shardLengths": ["x"]}]}', '{"splits": [{}]}'):
        (folder / "dataset_info.json").write_text(text)
        with pytest.raises(UserError, match="dataset_info.json"):
            open_rlds(folder)


def test_unknown_features_are_kept_as_they_are_stored(tmp_path: Path, protobuf: Any) -> None:
    folder = make(tmp_path / "x")
    path = folder / "features.json"
    tree = json.loads(path.read_text())
    inner = tree["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    inner["odd"] = {"pythonClassName": "mine.Odd", "jsonFeature": {"json": "{}"}}
    path.write_text(json.dumps(tree))
    entries = {"steps/action": ("float", [1.0] * 4), "steps/said": ("bytes", [b"a", b"b"])}
    odd = {"steps/odd/a": ("int64", [1, 2, 3]), "steps/odd/b": ("bytes", [b"x"])}
    record = protobuf.build(entries | odd)
    with open(folder / "toy-train.tfrecord-00000-of-00003", "wb") as file:
        write_record(file, record)
    files = open_rlds(folder)
    assert files.notes == ("'steps/odd': features of class 'Odd' are kept as they are stored",)
    episode = files.read(0, 0)
    assert episode.metadata["steps/odd/a"].tolist() == [1, 2, 3] and episode.metadata["steps/odd/b"] == [b"x"]
    with RldsWriter(tmp_path / "y", name="toy", tree=files.tree) as writer:
        writer.write(episode)
    assert open_rlds(tmp_path / "y").read_record(0, 0) == record


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_goes_unnoticed_or_crashes(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "x"
    if not folder.exists():
        make(folder, episodes=4, per_shard=4)
    path = next(folder.glob("*.tfrecord*"))
    clean = path.read_bytes()
    raw = bytearray(clean)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    files = open_rlds(folder)
    for index in range(max(4, files.episodes_in(0))):
        try:
            episode = files.read(0, index)
        except BadEpisode:
            continue
        assert episode.length == index and (episode.columns["action"] == index).all()
    path.write_bytes(clean)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_records_with_right_checksums_and_wrong_contents(tmp_path: Path, protobuf: Any, data: st.DataObject) -> None:
    folder = tmp_path / "x"
    if not folder.exists():
        make(folder, episodes=1)
    raw = bytearray(protobuf.build({"steps/action": ("float", [1.0] * 6), "steps/said": ("bytes", [b"a", b"b", b"c"])}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with open(next(folder.glob("*.tfrecord*")), "wb") as file:
        write_record(file, bytes(raw))
    try:
        episode = open_rlds(folder).read(0, 0)
    except BadEpisode as error:
        assert "malformed" in str(error) or "'steps/" in str(error)
    else:
        assert episode.columns["action"].shape == (episode.length, 2) and len(episode.texts["said"]) == episode.length


def _child(files: Any, pipe: Any) -> None:
    pipe.send([files.read(s, i).length for s in range(3) for i in range(files.episodes_in(s))] * 20)


def test_pickles_forks_and_threads(tmp_path: Path) -> None:
    files = open_rlds(make(tmp_path / "x"))
    files.read(0, 0)
    again = pickle.loads(pickle.dumps(files))
    assert lengths(again) == [0, 1, 2, 3, 4]
    if hasattr(os, "fork"):  # the child has inherited an open file and reads at the same time
        context = multiprocessing.get_context("fork")
        mine, theirs = context.Pipe()
        child = context.Process(target=_child, args=(files, theirs))
        child.start()
        assert lengths(files) * 20 == [0, 1, 2, 3, 4] * 20 == mine.recv()
        child.join()
    seen: list[list[int]] = []
    threads = [threading.Thread(target=lambda: seen.append(lengths(files))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[0, 1, 2, 3, 4]] * 4


def test_few_files_stay_open_and_memory_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    tree = make_tree({"blob": Feature("array", (2**16,), "float32")})
    column = np.zeros((8, 2**16), np.float32)  # 2 MB an episode, 24 MB in all
    with RldsWriter(folder, name="big", tree=tree, episodes_per_shard=1) as writer:
        for k in range(12):
            writer.write(Episode(str(k), 8, {"blob": column}))
    files = open_rlds(folder)
    tracemalloc.start()
    for shard in range(12):
        assert files.read(shard, 0).length == 8
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()
    if Path("/proc/self/fd").exists():
        ours = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert 1 <= sum(str(folder) in path for path in ours) <= 8
    files.close()


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_description_stands_for_its_folder(bridge: Path, name: str) -> None:
    assert [shard.episodes for shard in open_rlds(bridge / name).shards] == [25]
