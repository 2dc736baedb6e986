"""Encoded episodes: windows of them are the episodes' own, each once, shared between processes, resumed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.training.ranks import Ranks
from selfflow_robotics.files import BadEpisode
from selfflow_robotics.finetune import latents
from selfflow_robotics.finetune.latents import CachedWindows, encode_episodes
from selfflow_robotics.samples import RobotSamples
from selfflow_robotics.windows import WindowSpec, cut


def encode(parts, folder, numbers=None):
    numbers = parts.train if numbers is None else numbers
    return encode_episodes(parts.files, numbers, parts.tokenizer, parts.spec, "", folder)


def cached(parts, folder, *, rank=0, world=1, seed=3, stride=1):
    return CachedWindows(encode(parts, folder), parts.spec, seed=seed, stride=stride, ranks=Ranks(rank, world))


@pytest.fixture
def episodes(make_parts):
    parts = make_parts()
    return [parts.files.read(*parts.files.locate(n)) for n in parts.train]


@pytest.mark.parametrize(("rate", "relative"), [(3.0, "step"), (9.0, "step"), (3.0, "chunk")])
def test_a_window_is_what_windows_cut_gives(make_parts, episodes, tmp_path, rate, relative):
    """At every start of every episode, the last ones with padding; pictures as one of three frames of an action."""
    parts = make_parts(f"data.video_rate={rate}", f"data.relative_to={relative}")
    windows = cached(parts, tmp_path / "latents")
    frames = parts.spec.frames(3)
    spec = WindowSpec(actions=3, frames=frames, video_rate=rate)
    assert len(windows.places) == sum(len(e) for e in episodes)
    found = windows.windows(range(len(windows.places)), 3, True)
    padded = 0
    for row, (number, start) in enumerate(windows.places):
        truth = cut(episodes[number], start, spec)
        padded += not truth.action_mask.all()
        assert np.array_equal(found.actions[row].numpy(), parts.spec.seen_actions(truth.actions))
        assert np.array_equal(found.states[row].numpy(), parts.spec.states.forward(truth.states)[0])
        pictures = torch.from_numpy(parts.spec.pictures(truth.video))[:, None]
        tokens = parts.tokenizer.encode_batch(pictures).flatten(0, 1)
        assert torch.allclose(found.video[row], tokens, atol=1e-3, rtol=2**-10)  # they are kept as float16
        assert found.instructions[row] == episodes[number].instruction
        assert found.names[row] == f"{episodes[number].id}@{start}"
    assert padded == 2 * len(episodes)  # of three actions, the last two windows of an episode lack some
    assert found.video.shape == (len(windows.places), 4 * frames, parts.tokenizer.spec.channels)
    assert found.ids.tolist() == list(range(len(windows.places)))


def test_a_window_is_what_samples_give(make_parts, episodes, tmp_path):
    parts = make_parts()
    samples = RobotSamples(
        episodes_of(episodes),
        WindowSpec(actions=3, frames=4, video_rate=3.0),
        actions=parts.spec.actions,
        states=parts.spec.states,
        size=(32, 32),
        fit="stretch",
        windows=None,
    )
    windows = cached(parts, tmp_path / "latents")
    where = {name: i for i, name in enumerate(windows.windows(range(len(windows.places)), 3, True).names)}
    count = 0
    for sample in samples:
        one = windows.windows([where[f"{sample.episode}@{sample.start}"]], 3, True)
        assert np.array_equal(one.actions[0].numpy(), sample.actions)
        assert np.array_equal(one.states[0].numpy(), sample.states[0])
        count += 1
    assert count == len(windows.places)


class episodes_of:
    """Episodes in memory, once, as samples take them."""

    def __init__(self, episodes):
        self.episodes, self.epoch = episodes, 0

    def __iter__(self):
        yield from self.episodes

    def exclude(self, episode, reason):
        raise AssertionError(reason)

    def state_dict(self):
        return {}


def test_fewer_actions_and_the_first_frame_alone_are_parts_of_the_window(make_parts, tmp_path):
    parts = make_parts()
    windows = cached(parts, tmp_path / "latents")
    whole = windows.windows([4, 9], 3, True)
    short, present = windows.windows([4, 9], 2, True), windows.windows([4, 9], 3, False)
    assert torch.equal(short.video, whole.video[:, :12]) and torch.equal(short.actions, whole.actions[:, :2])
    assert torch.equal(present.video, whole.video[:, :4]) and torch.equal(present.actions, whole.actions)


def test_each_window_once_per_epoch_in_another_order_each_time(make_parts, tmp_path):
    parts = make_parts()
    windows = cached(parts, tmp_path / "latents")
    total = len(windows.places)
    seen = torch.cat([windows.take(5, 3, False).ids for _ in range(2 * total // 5 + 1)]).tolist()  # across the border
    first, second = seen[:total], seen[total : 2 * total]
    assert sorted(first) == sorted(second) == list(range(total))
    assert first != second and first != sorted(first)
    other = cached(parts, tmp_path / "latents", seed=4)
    assert other.take(total, 3, False).ids.tolist() != first


@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_processes_are_disjoint_and_together_the_whole(make_parts, tmp_path, world):
    parts = make_parts()
    alone = cached(parts, tmp_path / "latents")
    shares = [cached(parts, tmp_path / "latents", rank=r, world=world) for r in range(world)]
    for _ in range(6):
        batch = alone.take(2 * world, 3, True)
        split = [share.take(2, 3, True) for share in shares]
        for rank, part in enumerate(split):
            assert torch.equal(part.ids, batch.ids[rank::world])
            assert torch.equal(part.video, batch.video[rank::world])
            assert torch.equal(part.actions, batch.actions[rank::world])
    assert all(share.state_dict() == alone.state_dict() for share in shares)


def test_it_goes_on_where_it_was_on_any_number_of_processes(make_parts, tmp_path):
    parts = make_parts()
    whole = cached(parts, tmp_path / "latents")
    begun = cached(parts, tmp_path / "latents", rank=1, world=2)
    for _ in range(3):
        whole.take(4, 3, False)
        begun.take(2, 3, False)
    place = json.loads(json.dumps(begun.state_dict()))
    batch = whole.take(4, 3, False)
    for world in (1, 2, 4):
        again = [cached(parts, tmp_path / "latents", rank=r, world=world) for r in range(world)]
        for each in again:
            each.load_state_dict(place)
        ids = [each.take(4 // world, 3, False).ids for each in again]
        assert torch.equal(torch.stack(ids, dim=1).flatten(), batch.ids)
    with pytest.raises(UserError, match=r"stopped with \d+ windows of its data, now there are \d+"):
        cached(parts, tmp_path / "latents", stride=2).load_state_dict(place)


def test_a_stride_leaves_starts_out(make_parts, episodes, tmp_path):
    parts = make_parts()
    places = cached(parts, tmp_path / "latents", stride=3).places
    assert places == [(e, t) for e, episode in enumerate(episodes) for t in range(0, len(episode), 3)]


def test_an_interrupted_encoding_goes_on_after_the_last_part(make_parts, tmp_path, monkeypatch):
    parts = make_parts()
    whole = encode(parts, tmp_path / "whole")
    monkeypatch.setattr(latents, "_PART", 3)  # parts of 3, 3 and 2 episodes
    real, read = latents._encode, []

    def counted(episode, *rest):
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(episode.id)
        return real(episode, *rest)

    monkeypatch.setattr(latents, "_encode", counted)
    folder = tmp_path / "latents"
    with pytest.raises(KeyboardInterrupt):
        encode(parts, folder)
    assert not (folder / "latents.json").exists()
    done = (folder / "part-00000.safetensors").read_bytes()
    assert sorted(p.name for p in folder.glob("part-*")) == ["part-00000.json", "part-00000.safetensors"]

    again = []
    monkeypatch.setattr(latents, "_encode", lambda episode, *rest: again.append(episode.id) or real(episode, *rest))
    found = encode(parts, folder)
    assert again == list(whole.names)[3:]
    assert (folder / "part-00000.safetensors").read_bytes() == done
    assert torch.equal(found.video, whole.video) and np.array_equal(found.actions, whole.actions)
    assert found.names == whole.names and found.lengths.tolist() == whole.lengths.tolist()
    assert not list(folder.glob("*.tmp")) and not (folder / "draft.json").exists()
    # Opened again, nothing is read.
    monkeypatch.setattr(latents, "_encode_part", None)
    assert encode(parts, folder).names == whole.names


def test_latents_of_anything_else_are_refused(make_parts, tmp_path, clip_tokenizer):
    from selfflow_robotics.finetune.parts import robot_tokenizer
    from tests.robotics.tiny_robot import write_tokenizer

    parts = make_parts()
    folder = tmp_path / "latents"
    encode(parts, folder)
    for other in ("data.height=48", "data.fit=pad", "data.episodes=3", "data.split=val"):
        with pytest.raises(UserError, match=f"{folder} holds latents of other episodes, another tokenizer"):
            encode(make_parts(other), folder)
    tokenizer = write_tokenizer(tmp_path / "other", seed=1)
    changed = make_parts(f"tokenizer={tokenizer}")
    assert robot_tokenizer(changed.config).spec.name != parts.tokenizer.spec.name
    with pytest.raises(UserError, match="another tokenizer"):
        encode(changed, folder)
    # Normalisation is not in them: another one needs no new encoding.
    assert encode(make_parts("data.actions=gaussian", "data.gripper=identity"), folder).names


def test_latents_half_made_of_anything_else_are_refused_too(make_parts, tmp_path, monkeypatch):
    parts = make_parts()
    monkeypatch.setattr(latents, "_PART", 3)
    monkeypatch.setattr(latents, "_load", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encode(parts, tmp_path / "latents")
    (tmp_path / "latents/latents.json").rename(tmp_path / "latents/draft.json")
    with pytest.raises(UserError, match="holds latents of other"):
        encode(make_parts("data.height=48"), tmp_path / "latents")


def test_damaged_episodes_are_left_out_and_told(make_parts, tmp_path, monkeypatch):
    parts = make_parts()
    whole = encode(parts, tmp_path / "whole")
    lost = {parts.files.locate(parts.train[k]) for k in (1, 4)}
    real = type(parts.files).read

    def read(self, shard, index):
        if (shard, index) in lost:
            raise BadEpisode(f"shard-{shard}", index, "its checksum is wrong")
        return real(self, shard, index)

    monkeypatch.setattr(type(parts.files), "read", read)
    found = encode(parts, tmp_path / "latents")
    assert found.names == tuple(n for k, n in enumerate(whole.names) if k not in (1, 4))
    assert len(found.quarantine) == 2 and all("checksum" in reason for reason in found.quarantine)
    assert len(found.video) == found.lengths.sum() == len(found.actions) == len(found.states)


def test_a_part_of_damaged_episodes_alone_is_passed_over_and_nothing_at_all_is_refused(
    make_parts, tmp_path, monkeypatch
):
    parts = make_parts()
    monkeypatch.setattr(latents, "_PART", 2)
    whole, read = encode(parts, tmp_path / "whole"), parts.files.read

    def spoilt(*numbers):
        places = {parts.files.locate(n) for n in numbers}

        def reading(shard, index):
            if (shard, index) in places:
                raise BadEpisode("shard", index, "its checksum is wrong")
            return read(shard, index)

        monkeypatch.setattr(type(parts.files), "read", lambda self, shard, index: reading(shard, index))

    spoilt(*parts.train[:2])  # the first part
    found = encode(parts, tmp_path / "some")
    assert found.names == whole.names[2:] and len(found.quarantine) == 2
    assert torch.equal(found.video, whole.video[int(whole.lengths[:2].sum()) :])
    spoilt(*parts.train)
    with pytest.raises(UserError, match=f"not one of {len(parts.train)} episodes could be read: .*checksum"):
        encode(parts, tmp_path / "none")
    spoilt()  # the data were repaired
    assert encode(parts, tmp_path / "none").names == whole.names


def test_a_picture_that_does_not_decode_spoils_its_episode_alone(make_parts, tmp_path, monkeypatch):
    parts = make_parts()
    real = type(parts.files).read

    class Broken:
        def read(self, steps):
            raise UserError("the picture of step 2 cannot be decoded")

    def read(self, shard, index):
        import dataclasses

        episode = real(self, shard, index)
        damaged = (shard, index) == parts.files.locate(parts.train[2])
        return dataclasses.replace(episode, images={"image": Broken()}) if damaged else episode

    monkeypatch.setattr(type(parts.files), "read", read)
    found = encode(parts, tmp_path / "latents")
    assert len(found.names) == len(parts.train) - 1
    assert "the picture of step 2 cannot be decoded" in found.quarantine[0]
