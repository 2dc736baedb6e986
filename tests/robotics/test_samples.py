"""Samples: what normalisation does to them, that they resume exactly, and what happens to damaged episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.normalise import RT1_PUBLISHED, normaliser
from selfflow_robotics.collect import collect
from selfflow_robotics.episode import RawPictures
from selfflow_robotics.files import Shard
from selfflow_robotics.robot_episode import RobotEpisode
from selfflow_robotics.samples import RobotSample, RobotSamples
from selfflow_robotics.stream import EpisodeStream
from selfflow_robotics.windows import WindowSpec


class _Broken(RawPictures):
    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        raise UserError("the picture of step 0 cannot be decoded")


class _Source:
    """A data set in memory: five shards, episodes of 1 to 6 steps, whose actions are small random numbers."""

    def __init__(self, broken: Sequence[tuple[int, int]] = ()) -> None:
        shards = [Shard(f"shard-{number}", 1 + number % 3) for number in range(5)]
        about: dict[str, Any] = {"format": "memory", "name": "d", "split": "train", "folder": Path("memory")}
        self.files = SimpleNamespace(shards=shards, missing=frozenset(), **about)
        self.broken = broken

    def __len__(self) -> int:
        return sum(shard.episodes for shard in self.files.shards)

    def read(self, shard: int, index: int) -> RobotEpisode:
        generator = np.random.default_rng([shard, index])
        length = int(generator.integers(1, 7))
        pictures = generator.integers(0, 256, (length, 4, 6, 3), np.uint8)
        return RobotEpisode(
            id=f"{shard}/{index}",
            robot="google_robot",
            control_rate=3.0,
            actions=np.float32(generator.normal(size=(length, 7)) * 0.1),
            states=np.float32(generator.normal(size=(length, 2))),
            state_names=("p", "q"),
            images={"main": (_Broken if (shard, index) in self.broken else RawPictures)(pictures)},
            instruction=f"task {shard}",
            terminate=np.zeros(length, bool),
        )


def _stream(**settings: Any) -> EpisodeStream:
    source = settings.pop("source", None) or _Source()
    return EpisodeStream(source, **({"seed": 3, "epochs": 2, "ahead": 0} | settings))


def _samples(stream: EpisodeStream | None = None, **settings: Any) -> RobotSamples:
    given: dict[str, Any] = {"actions": None, "states": None, "windows": 2, "seed": 5}
    return RobotSamples(stream or _stream(), WindowSpec(4, 2), **(given | settings))


def _same(a: RobotSample, b: RobotSample) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(RobotSample))


def _key(sample: RobotSample) -> tuple[int, str, int]:
    return sample.epoch, sample.episode, sample.start


def test_normalisation_changes_what_the_model_sees() -> None:
    own = collect(_stream(epochs=1), dataset="d").actions
    chosen = {"own": normaliser("quantile", own), "rt1": normaliser("quantile", RT1_PUBLISHED)}
    raw = list(_samples())
    seen = {name: list(_samples(actions=n)) for name, n in chosen.items()}
    for index, sample in enumerate(raw):
        for name, statistics in (("own", own.__dict__), ("rt1", RT1_PUBLISHED)):
            actions = seen[name][index].actions
            low, high = np.array(statistics["q01"][:6]), np.array(statistics["q99"][:6])
            formula = 2 * (sample.actions[:, :6].astype(np.float64) - low) / (high - low) - 1
            assert np.allclose(actions[:, :6], formula, rtol=1e-6, atol=1e-6)
            assert np.allclose(actions[:, 6], 2 * sample.actions[:, 6] - 1, atol=1e-6)
            assert actions.dtype == np.float32
            assert np.allclose(chosen[name].inverse(actions), sample.actions, rtol=0, atol=1e-6)
            # Raw actions are a tenth of what the model expects: who forgets to normalise, notices.
            assert np.abs(actions - sample.actions).max() > 0.1
        assert np.abs(seen["own"][index].actions - seen["rt1"][index].actions).max() > 0.05
    moves = np.concatenate([sample.actions[sample.action_mask][:, :6] for sample in seen["own"]])
    assert 0.3 < np.std(moves) < 0.7 and np.std(np.concatenate([sample.actions for sample in raw])) < 0.12


def test_whether_anything_is_normalised_can_be_seen() -> None:
    states = normaliser("gaussian", {"mean": [1.0, 1.0], "std": [2.0, 2.0]})
    samples = _samples(states=states)
    assert samples.describe() == "4 actions and 2 frames, actions raw, not normalised, states normalised"
    sample, raw = next(iter(samples)), next(iter(_samples()))
    assert (sample.actions_normalised, sample.states_normalised) == (False, True)
    assert np.allclose(sample.states, (raw.states - 1) / 2)
    with pytest.raises(TypeError, match="actions"):
        RobotSamples(_stream(), WindowSpec(4, 2))  # type: ignore[call-arg]


@pytest.mark.parametrize("ahead", [0, 2])
def test_it_resumes_at_every_sample(ahead: int) -> None:
    whole = list(_samples(_stream(ahead=ahead)))
    assert len(whole) > 20 and {sample.epoch for sample in whole} == {0, 1}
    for stopped in range(len(whole) + 1):
        first = _samples(_stream(ahead=ahead))
        assert all(map(_same, islice(first, stopped), whole))
        state = json.loads(json.dumps(first.state_dict()))
        second = _samples(_stream(ahead=ahead))
        second.load_state_dict(state)
        rest = list(second)
        assert len(rest) == len(whole) - stopped and all(map(_same, rest, whole[stopped:]))


def test_an_iterator_that_was_left_is_taken_up_again() -> None:
    whole, samples = list(_samples()), _samples()
    parts = [_key(sample) for number in (3, 4, 1) for sample in islice(samples, number)]
    parts += [_key(sample) for sample in samples]
    assert parts == [_key(sample) for sample in whole]


def test_draws_depend_on_seed_epoch_and_episode_only() -> None:
    whole = {_key(sample): sample for sample in _samples()}
    shared = [sample for rank in range(3) for sample in _samples(_stream(rank=rank, world=3))]
    assert sorted(map(_key, shared)) == sorted(whole) and all(_same(s, whole[_key(s)]) for s in shared)
    other = {_key(sample) for sample in _samples(seed=6)}
    assert other != set(whole)
    by_epoch = [{key[1:] for key in whole if key[0] == epoch} for epoch in (0, 1)]
    assert by_epoch[0] != by_epoch[1]


def test_all_windows_come_once() -> None:
    source = _Source()
    lengths = {
        f"{n}/{i}": len(source.read(n, i)) for n, shard in enumerate(source.files.shards) for i in range(shard.episodes)
    }
    samples = list(_samples(_stream(epochs=1), windows=None))
    assert sorted((s.episode, s.start) for s in samples) == sorted((e, t) for e, n in lengths.items() for t in range(n))


def test_a_damaged_episode_is_left_out_and_reported() -> None:
    stream = _stream(source=_Source(broken=[(2, 1), (4, 0)]))
    names = {sample.episode for sample in _samples(stream)}
    assert names == {sample.episode for sample in _samples()} - {"2/1", "4/0"}
    found = sorted((entry.shard, entry.index, entry.reason) for entry in stream.quarantine)
    reason = "the picture of step 0 cannot be decoded"
    assert found == [("shard-2", 1, reason), ("shard-4", 0, reason)]


def test_a_wrong_camera_is_no_damage() -> None:
    samples = RobotSamples(_stream(), WindowSpec(4, 2, camera="wrist"), actions=None, states=None)
    with pytest.raises(UserError, match="no camera 'wrist'; it has main"):
        next(iter(samples))


def test_episodes_that_are_all_too_short_end_in_an_error() -> None:
    samples = RobotSamples(_stream(epochs=None), WindowSpec(9, 2, padding=False), actions=None, states=None)
    with pytest.raises(UserError, match="no episode of a whole epoch is long enough"):
        next(iter(samples))


def test_pictures_are_brought_to_size() -> None:
    sample = next(iter(_samples(size=(6, 6))))
    assert sample.video.shape == (2, 6, 6, 3)
    assert not sample.video[:, [0, 5]].any() and sample.video[:, 1:5].any()  # black above and below
    assert next(iter(_samples(size=(6, 6), fit="stretch"))).video[:, 0].any()
    raw = next(iter(_samples()))
    shard, index = map(int, raw.episode.split("/"))
    pictures = _Source().read(shard, index).images["main"].read()
    assert np.array_equal(raw.video[0], pictures[raw.start]) and raw.instruction == f"task {shard}"


def test_states_of_other_settings_are_refused() -> None:
    state = _samples().state_dict()
    with pytest.raises(UserError, match="stopped with seed 5, now it is 6"):
        _samples(seed=6).load_state_dict(state)
    with pytest.raises(UserError, match="stopped with windows 2, now it is 1"):
        _samples(windows=1).load_state_dict(state)
    with pytest.raises(UserError, match="version 7"):
        _samples().load_state_dict(state | {"version": 7})
    with pytest.raises(UserError, match="at least one window"):
        _samples(windows=0)
