"""Stills and clips of robot episodes, read back as any data set is and held against the episodes' own pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.errors import UserError
from selfflow_robotics.clips import ClipOptions, write_clips
from selfflow_robotics.episode import EncodedPictures, Episode, RawPictures
from selfflow_robotics.resizing import resize
from selfflow_robotics.robot_episode import RobotEpisode
from selfflow_robotics.sources import RobotFiles
from selfflow_robotics.stream import Quarantined
from tests.robotics.memory import MemoryFiles, memory_source

LENGTHS = [[3, 7], [1, 12, 4]]
STILLS = ClipOptions((20, 20), stills=3)


def pixels_of(source: RobotFiles, number: int) -> np.ndarray:
    return source.read(*source.locate(number)).images["front"].read()


class SmoothFiles(MemoryFiles):
    """Pictures that a video keeps: a ramp that is brighter with every step."""

    def read(self, shard: int, index: int) -> Episode:
        episode = super().read(shard, index)
        ramp = np.linspace(0, 120, 24)[None, None, :, None] + 8.0 * np.arange(episode.length)[:, None, None, None]
        frames = np.broadcast_to(ramp, (episode.length, 16, 24, 3)).astype(np.uint8)
        return replace(episode, pictures={"observation/image": RawPictures(frames)})


class DamagedFiles(MemoryFiles):
    """The pictures of the first episode do not decode."""

    def read(self, shard: int, index: int) -> Episode:
        episode = super().read(shard, index)
        if (shard, index) != (0, 0):
            return episode
        return replace(episode, pictures={"observation/image": EncodedPictures([b"no picture"] * episode.length)})


def source_of(kind: type[MemoryFiles], lengths: list[list[int]] = LENGTHS) -> RobotFiles:
    return replace(memory_source(lengths), files=kind(lengths))


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_stills_are_the_episodes_pictures_bit_for_bit(tmp_path, fit):
    source = memory_source(LENGTHS)
    done = write_clips(source, tmp_path / "out", replace(STILLS, fit=fit), progress=False)
    data = ShardDataset(tmp_path / "out")
    assert (done.episodes, done.samples, done.short, done.quarantine) == (5, 3 + 3 + 1 + 3 + 3, 0, ())
    assert len(data) == done.samples
    assert data.info["modalities"] == ["image"] and data.info["image"] == {"height": 20, "width": 20}
    seen: dict[str, list[int]] = {}
    for sample in (data[i] for i in range(len(data))):
        number, step = map(int, sample.key.split("-"))
        expected = resize(pixels_of(source, number)[step], (20, 20), fit)
        np.testing.assert_array_equal(sample.image.pixels.numpy(), expected)
        shard, index = source.locate(number)
        assert sample.captions == (f"do {shard} {index}",)
        assert (sample.meta["episode"], sample.meta["step"]) == (f"{shard}/{index}", step)
        seen.setdefault(sample.meta["episode"], []).append(step)
    assert all(steps == sorted(set(steps)) for steps in seen.values())
    assert seen["0/0"] == [0, 1, 2] and seen["1/0"] == [0]


def test_clips_are_stretches_at_the_control_rate(tmp_path):
    source = source_of(SmoothFiles)
    options = ClipOptions((32, 48), frames=4, stride=3, crf=4)
    done = write_clips(source, tmp_path / "out", options, progress=False)
    data = ShardDataset(tmp_path / "out")
    starts = {(0, 1): [0, 3], (1, 1): [0, 3, 6], (1, 2): [0]}
    assert (done.episodes, done.samples, done.short) == (3, 6, 2)
    assert data.info["video"] == {"frames": 4, "height": 32, "width": 48, "fps": source.control_rate}
    found: dict[tuple[int, int], list[int]] = {}
    for sample in (data[i] for i in range(len(data))):
        number, step = map(int, sample.key.split("-"))
        assert sample.video.fps == source.control_rate and sample.video.frames.shape == (4, 32, 48, 3)
        expected = resize(pixels_of(source, number)[step : step + 4], (32, 48), "pad").astype(float)
        # Neighbouring steps are 8 apart, so this tells them apart.
        assert np.abs(sample.video.frames.numpy() - expected).mean() < 2
        found.setdefault(source.locate(number), []).append(step)
    assert found == starts


def test_clips_lie_end_to_end_unless_told_otherwise():
    episode = RobotEpisode("e", "r", 5.0, np.zeros((11, 7)), np.zeros((11, 0)), {}, "", np.zeros(11, bool))
    assert ClipOptions((2, 2), frames=5).cuts(episode) == [range(0, 5), range(5, 10)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 12))
def test_every_clip_lies_in_its_episode_and_none_is_left_out(length, frames, stride):
    episode = RobotEpisode("e", "r", 5.0, np.zeros((length, 7)), np.zeros((length, 0)), {}, "", np.zeros(length, bool))
    step = stride or frames
    cuts = ClipOptions((2, 2), frames=frames, stride=stride).cuts(episode)
    assert cuts == [range(s, s + frames) for s in range(length) if s % step == 0 and s + frames <= length]


def test_the_draw_depends_on_seed_and_episode_alone(tmp_path):
    source = memory_source([[40, 40], [40]])

    def keys(name: str, episodes: int | None = None, **changes) -> list[str]:
        write_clips(source, tmp_path / name, replace(STILLS, **changes), episodes=episodes, progress=False)
        data = ShardDataset(tmp_path / name)
        return [data.key(i) for i in range(len(data))]

    whole = keys("whole")
    assert keys("fewer", episodes=2) == whole[:6]
    assert keys("other", seed=1) != whole
    assert len({tuple(key.partition("-")[2] for key in whole[i : i + 3]) for i in (0, 3, 6)}) == 3


def test_damaged_episodes_are_left_out_and_told(tmp_path):
    source = source_of(DamagedFiles)
    source.files.bad.add((1, 1))
    done = write_clips(source, tmp_path / "out", STILLS, progress=False)
    assert [(q.shard, q.index) for q in done.quarantine] == [("shard-0", 0), ("shard-1", 1)]
    assert "cannot be decoded" in done.quarantine[0].reason and done.quarantine[1].reason == "its checksum is wrong"
    lines = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert tuple(Quarantined(**json.loads(line)) for line in lines) == done.quarantine
    data = ShardDataset(tmp_path / "out")
    assert {data.key(i)[:6] for i in range(len(data))} == {"000001", "000002", "000004"}


def test_nothing_is_left_of_what_failed(tmp_path):
    source = memory_source(LENGTHS)
    cases = [
        (memory_source([[2]], bad={(0, 0)}), STILLS, "can be read: its checksum is wrong"),
        (memory_source([[]]), STILLS, "can be read: there is none"),
        (memory_source([[2, 5]], bad={(0, 1)}), ClipOptions((16, 24), frames=3), "as long as a clip of 3 frames"),
        (source, replace(STILLS, camera="wrist"), "no camera 'wrist'; it has front"),
    ]
    for case, options, message in cases:
        with pytest.raises(UserError, match=message):
            write_clips(case, tmp_path / "out", options, progress=False)
        assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_leaves_nothing_that_looks_whole_and_the_next_one_works(tmp_path, monkeypatch):
    source = memory_source(LENGTHS)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("selfflow_robotics.clips.os.replace", killed)
        patch.setattr("selfflow_robotics.clips.shutil.rmtree", lambda *_, **__: None)  # no time to clean up
        with pytest.raises(KeyboardInterrupt):
            write_clips(source, tmp_path / "out", STILLS, progress=False)
    assert not (tmp_path / "out").exists() and list(tmp_path.iterdir())
    write_clips(source, tmp_path / "out", STILLS, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(UserError, match="not an empty folder"):
        write_clips(source, tmp_path / "out", STILLS, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "how many stills"),
        ({"stills": 1, "frames": 1}, "how many stills"),
        ({"stills": -1, "frames": 3}, "how many stills"),
        ({"stills": 1, "stride": 2}, "goes with frames"),
        ({"frames": 3, "stride": -2}, "goes with frames"),
        ({"frames": 3, "size": (16, 25)}, "even height and width"),
        ({"stills": 3, "size": (0, 25)}, "at least 1 x 1"),
        ({"frames": 3, "crf": 52}, "crf"),
        ({"stills": 3, "seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ClipOptions(**{"size": (16, 24), **settings})
