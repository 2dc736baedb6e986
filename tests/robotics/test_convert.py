"""Conversions: numbers keep their bits there and back, and what is damaged is told and left out."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from selfflow_mm.errors import UserError
from selfflow_robotics.convert import TargetOptions, convert
from selfflow_robotics.episode import EncodedPictures, Episode, RawPictures
from selfflow_robotics.naming import NOTE, lerobot_naming
from selfflow_robotics.rlds import FRACTAL_FEATURES, FRACTAL_METADATA, RldsWriter
from selfflow_robotics.sources import open_episodes, open_files
from selfflow_robotics.verify import verify
from tests.robotics.memory import memory_source

LENGTHS = (6, 1, 9, 4)


def jpeg(seed: int) -> bytes:
    """A smooth picture, so that a video of it is close."""
    ramp = np.linspace(0, 255, 32)[:, None, None] * np.linspace(0.2, 1, 40)[None, :, None]
    frame = np.roll(np.repeat(ramp, 3, axis=2), seed * 3, axis=1).astype(np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(frame).save(file, "JPEG", quality=95)
    return file.getvalue()


def fractal_episode(number: int, length: int) -> Episode:
    random = np.random.default_rng(number)
    columns = {}
    for name, feature in FRACTAL_FEATURES.items():
        if feature.kind == "array":
            columns[name] = random.normal(size=(length, *feature.shape)).astype(feature.dtype)
    columns["reward"][0] = np.float32(np.nan)
    columns["action/gripper_closedness_action"][:] = 0
    columns["action/gripper_closedness_action"][length // 2] = 1
    metadata = {
        name: "words" if f.kind == "text" else np.zeros((), f.dtype)[()] for name, f in FRACTAL_METADATA.items()
    }
    return Episode(
        id=str(number),
        length=length,
        columns=columns,
        texts={"observation/natural_language_instruction": [f"pick thing {number % 2}"] * length},
        pictures={"observation/image": EncodedPictures([jpeg(number + step) for step in range(length)])},
        metadata=metadata,
    )


@pytest.fixture(scope="module")
def rt1(tmp_path_factory) -> Path:
    """A data set in RT-1's layout, of two shards."""
    folder = tmp_path_factory.mktemp("rt1") / "0.1.0"
    features = dict(FRACTAL_FEATURES)
    settings = {"name": "fractal20220817_data", "features": features, "metadata_features": FRACTAL_METADATA}
    with RldsWriter(folder, **settings, episodes_per_shard=3) as writer:
        for number, length in enumerate(LENGTHS):
            writer.write(fractal_episode(number, length))
    return folder


def to_lerobot(rt1, target, **options):
    source = open_episodes(rt1)
    settings = TargetOptions(to="lerobot", **options)
    return source, settings, convert(source, target, settings, progress=False)


def test_to_lerobot_has_the_usual_columns_and_every_native_one(rt1, tmp_path):
    source, _, done = to_lerobot(rt1, tmp_path / "out")
    assert (done.episodes, done.steps, done.quarantine) == (4, sum(LENGTHS), ())
    table = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert info["fps"] == 3 and info["robot_type"] == "google_robot" and info["total_frames"] == sum(LENGTHS)
    whole = [source.read(*source.locate(n)) for n in range(4)]
    expected = np.concatenate([episode.actions for episode in whole])
    np.testing.assert_array_equal(np.stack(table["action"].to_numpy()), expected)
    np.testing.assert_array_equal(
        np.stack(table["observation.state"].to_numpy()), np.concatenate([episode.states for episode in whole])
    )
    raw = np.concatenate(
        [fractal_episode(n, length).columns["action/world_vector"] for n, length in enumerate(LENGTHS)]
    )
    assert np.stack(table["action.world_vector"].to_numpy()).tobytes() == raw.tobytes()
    # The gripper: open until the first closing event, then closed.
    gripper = [[1.0] * (length // 2) + [0.0] * (length - length // 2) for length in LENGTHS]
    np.testing.assert_array_equal(expected[:, 6], np.concatenate(gripper))
    assert (tmp_path / "out/videos/observation.images.image/chunk-000/file-000.mp4").is_file()


def test_what_was_converted_reads_as_the_same_robot_episodes(rt1, tmp_path):
    source, _, _ = to_lerobot(rt1, tmp_path / "out")
    again = open_episodes(tmp_path / "out")
    assert again.layout.convention == "pose" and len(again) == 4
    for number in range(4):
        a, b = (one.read(*one.locate(number)) for one in (source, again))
        assert a.actions.tobytes() == b.actions.tobytes() and a.states.tobytes() == b.states.tobytes()
        assert (a.instruction, a.control_rate, a.robot, a.state_names) == (
            b.instruction, b.control_rate, b.robot, b.state_names,
        )  # fmt: skip


def test_there_and_back_gives_the_records_bit_for_bit_where_pictures_are_kept(rt1, tmp_path):
    to_lerobot(rt1, tmp_path / "lerobot", pictures="image")
    back = open_episodes(tmp_path / "lerobot")
    options = TargetOptions(to="rlds", name="fractal20220817_data", episodes_per_shard=3)
    convert(back, tmp_path / "rlds", options, progress=False)
    shards = sorted(path.name for path in rt1.glob("*.tfrecord-*"))
    assert len(shards) == 2 == len(list((tmp_path / "rlds").glob("*.tfrecord-*")))
    for shard in shards:
        assert (tmp_path / "rlds" / shard).read_bytes() == (rt1 / shard).read_bytes()


def test_the_real_bridge_file_there_and_back(shared_data, tmp_path):
    real = shared_data / "rlds/bridge_dataset"
    source = open_episodes(real)
    kept = TargetOptions(to="lerobot", pictures="image")
    done = convert(source, tmp_path / "lerobot", kept, progress=False)
    assert verify(source, done, kept).good
    convert(
        open_episodes(tmp_path / "lerobot"),
        tmp_path / "rlds",
        TargetOptions(to="rlds", name="bridge_dataset"),
        progress=False,
    )
    (original,) = (real / "1.0.0").glob("*train.tfrecord-*")
    assert (tmp_path / "rlds" / original.name).read_bytes() == original.read_bytes()


def test_verify_counts_and_measures(rt1, tmp_path):
    source, options, done = to_lerobot(rt1, tmp_path / "out")
    report = verify(source, done, options)
    assert report.good and report.episodes == 4
    (values,) = report.psnr.values()
    assert len(values) == sum(LENGTHS) and min(values) > 30


def test_verify_finds_one_changed_bit(rt1, tmp_path):
    source, options, done = to_lerobot(rt1, tmp_path / "out", pictures="image")
    path = tmp_path / "out/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    rewards = table["reward"].to_numpy().copy()
    rewards[8] = np.nextafter(rewards[8], np.float32(9))  # the second step of episode 2
    table = table.set_column(table.schema.get_field_index("reward"), table.schema.field("reward"), [rewards])
    pq.write_table(table, path)
    report = verify(source, done, options)
    assert report.differences == [f"episode {open_files(rt1).read(0, 2).id}: 'reward' has other numbers"]


def test_damaged_episodes_are_left_out_and_listed(rt1, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in rt1.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    shard = sorted(folder.glob("*.tfrecord-*"))[0]
    data = bytearray(shard.read_bytes())
    data[40] ^= 1  # in the body of the first record
    shard.write_bytes(data)
    source = open_episodes(folder)
    done = convert(source, tmp_path / "out", TargetOptions(to="lerobot"), progress=False)
    assert done.episodes == 3 and [entry.index for entry in done.quarantine] == [0]
    listed = json.loads((tmp_path / "out/quarantine.jsonl").read_text())
    assert listed["shard"] == shard.name and "checksum" in listed["reason"]
    assert verify(source, done, TargetOptions(to="lerobot")).good


def test_a_picture_that_does_not_decode_costs_its_episode_only(tmp_path):
    folder = tmp_path / "rlds"
    settings = {"name": "tabletop", "features": FRACTAL_FEATURES, "metadata_features": FRACTAL_METADATA}
    with RldsWriter(folder, **settings) as writer:
        for number in range(3):
            episode = fractal_episode(number, 3)
            if number == 1:
                episode.pictures["observation/image"].data[2] = b"\xff\xd8 not a picture"
            writer.write(episode)
    done = convert(open_episodes(folder), tmp_path / "out", TargetOptions(to="lerobot"), progress=False)
    assert done.episodes == 2 and "step 2 cannot be decoded" in done.quarantine[0].reason
    assert len(open_episodes(tmp_path / "out")) == 2


def test_a_subset_and_an_impossible_one(rt1, tmp_path):
    source = open_episodes(rt1)
    done = convert(source, tmp_path / "some", TargetOptions(to="rlds"), episodes=range(1, 3), progress=False)
    assert done.steps == LENGTHS[1] + LENGTHS[2]
    with pytest.raises(UserError, match="there is no episode 9"):
        convert(source, tmp_path / "none", TargetOptions(to="rlds"), episodes=range(2, 10), progress=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError):
        convert(source, tmp_path / "some", TargetOptions(to="rlds"), progress=False)
    assert len(open_episodes(tmp_path / "some")) == 2  # what was there is there


def test_joined_splits_become_lerobot_and_are_no_split_of_rlds(rt1, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(rt1, both)
    for file in rt1.glob("*-train.tfrecord-*"):
        shutil.copy(file, both / file.name.replace("-train.", "-more."))
    source = open_episodes(both, split="train+more")
    done = convert(source, tmp_path / "lerobot", TargetOptions(to="lerobot"), progress=False)
    assert done.episodes == 2 * len(LENGTHS) and verify(source, done, TargetOptions(to="lerobot")).good
    with pytest.raises(UserError, match="one split at a time"):
        convert(source, tmp_path / "rlds", TargetOptions(to="rlds"), progress=False)
    assert not (tmp_path / "rlds").exists()


def test_names_are_never_lost_nor_given_twice(rt1):
    source = memory_source([[2]])
    source.files.features |= {
        "timestamp": source.files.features["observation/state"],
        "a/b": source.files.features["observation/state"],
        "a.b": source.files.features["observation/state"],
        "observation.state": source.files.features["action"],
    }
    naming = lerobot_naming(source)
    assert len(naming.note["columns"]) == len(source.files.features)
    assert naming.note["columns"]["action"] == "action" and naming.note["columns"]["native.timestamp"] == "timestamp"
    assert naming.note["columns"]["observation.state"] == "observation/state"
    assert naming.note["columns"]["native.observation.state"] == "observation.state"
    assert {naming.note["columns"][name] for name in ("a.b", "native.a.b")} == {"a/b", "a.b"}


def test_a_lerobot_set_of_somebody_else_becomes_usual_rlds(tmp_path):
    convert(memory_source([[6, 2]]), tmp_path / "lerobot", TargetOptions(to="lerobot"), progress=False)
    info = tmp_path / "lerobot/meta/info.json"
    content = json.loads(info.read_text())
    del content[NOTE]
    info.write_text(json.dumps(content))
    source = open_episodes(tmp_path / "lerobot")
    options = TargetOptions(to="rlds", name="mine")
    done = convert(source, tmp_path / "rlds", options, progress=False)
    assert verify(source, done, options).good
    episode = open_files(tmp_path / "rlds").read(0, 0)
    assert episode.columns["is_first"].tolist() == [True] + [False] * 5
    assert episode.columns["is_last"].tolist() == episode.columns["is_terminal"].tolist() == [False] * 5 + [True]
    assert episode.columns["reward"].tolist() == [0, 0, 0, 0, 0, 1] and set(episode.columns["discount"]) == {1}
    assert episode.texts["language_instruction"][0] == "do 0 0"
    assert episode.pictures["observation/images/front"].read([0]).shape == (1, 16, 24, 3)


def test_verify_tells_pictures_of_another_size(tmp_path):
    source, options = memory_source([[3]]), TargetOptions(to="lerobot", pictures="image")
    done = convert(source, tmp_path / "out", options, progress=False)
    real = source.files.read

    def enlarged(shard: int, index: int) -> Episode:
        episode = real(shard, index)
        return replace(episode, pictures={"observation/image": RawPictures(np.zeros((3, 8, 8, 3), np.uint8))})

    source.files.read = enlarged
    report = verify(source, done, options)
    assert report.differences == [
        "episode 0/0: the pictures 'observation.images.front' have the size (16, 24, 3) instead of (8, 8, 3)"
    ]
