"""Statistics against numpy on everything at once; their file; what other programs read."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.normalise import normaliser
from selfflow_robotics.collect import Collector, collect
from selfflow_robotics.robot_episode import ACTION_NAMES, RobotEpisode
from selfflow_robotics.statistics import Statistics


def _episode(actions: np.ndarray, name: str = "e", states: int = 2, **more: Any) -> RobotEpisode:
    actions = np.asarray(actions, np.float32)
    return RobotEpisode(
        id=name,
        robot="google_robot",
        control_rate=3.0,
        actions=actions,
        states=actions[:, :states] * 2 + 1,
        images={},
        instruction="",
        terminate=np.zeros(len(actions), bool),
        action_names=ACTION_NAMES[: actions.shape[1]],
        state_names=("p", "q", "r")[:states],
        **more,
    )


def _episodes(seed: int, number: int) -> list[RobotEpisode]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 9, number)
    lengths[0] += 1
    return [_episode(generator.standard_cauchy((length, 7)), f"episode_{i:06d}") for i, length in enumerate(lengths)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_numpy_on_everything_at_once(seed: int, number: int) -> None:
    episodes = _episodes(seed, number)
    statistics = collect(episodes, dataset="d")
    everything = np.concatenate([episode.actions for episode in episodes]).astype(np.float64)
    assert (statistics.episodes, statistics.steps) == (number, len(everything))
    ours = statistics.actions
    assert ours.names == ACTION_NAMES and ours.count == (len(everything),) * 7
    for key, q in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        assert np.array_equal(getattr(ours, key), np.quantile(everything, q, axis=0, method="linear"))
    assert np.array_equal(ours.min, everything.min(axis=0)) and np.array_equal(ours.max, everything.max(axis=0))
    for index in range(7):  # fsum is exact
        column = everything[:, index].tolist()
        mean = math.fsum(column) / len(column)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column))
        assert ours.mean[index] == pytest.approx(mean, rel=1e-12, abs=1e-15 * max(map(abs, column)))
        assert ours.std[index] == pytest.approx(deviation, rel=1e-12, abs=1e-12)
    assert statistics.states is not None
    assert np.array_equal(statistics.states.max, (everything[:, :2].astype(np.float32) * 2 + 1).max(axis=0))


@given(st.integers(0, 2**32 - 1), st.integers(2, 10), st.randoms())
def test_order_and_merging_change_no_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, number: int, random: Any
) -> None:
    episodes = _episodes(seed, number)
    whole = collect(episodes, dataset="d")
    parts = []
    for start in (0, number // 2):
        collector = Collector(tmp_path_factory.mktemp("part"))
        for episode in episodes[start:][: number // 2 if start == 0 else None]:
            collector.add(episode)
        parts.append(pickle.loads(pickle.dumps(collector)))  # as a worker sends it
    random.shuffle(parts)
    parts[0].merge(parts[1])
    assert parts[0].finish(dataset="d") == whole
    random.shuffle(episodes)
    assert collect(episodes, dataset="d").digest == whole.digest


def test_the_two_zeros_are_one() -> None:
    # They sort in no particular order, and JSON tells them apart.
    zeros = [_episode(np.full((1, 7), zero)) for zero in (0.0, -0.0)]
    assert collect(zeros).digest == collect(zeros[::-1]).digest
    assert "-0.0" not in json.dumps(collect(zeros).to_dict())


def test_a_large_offset_costs_no_digits() -> None:
    values = np.full((4000, 7), 16384, np.float32)
    values[::2] += 2.0**-9  # float32 resolves 2**-10 there; the sum of squares would lose it in float32
    statistics = collect([_episode(values)])
    assert statistics.actions.std == (2.0**-10,) * 7
    assert statistics.actions.mean == (16384 + 2.0**-10,) * 7


def test_all_frames_count_the_same_not_all_episodes() -> None:
    statistics = collect([_episode(np.zeros((9, 7))), _episode(np.ones((1, 7)))])
    assert statistics.actions.mean == pytest.approx((0.1,) * 7)


def test_values_that_are_not_finite_are_left_out_and_named() -> None:
    actions = np.arange(28.0).reshape(4, 7)
    actions[2, 3], actions[3, 3], actions[1, 6] = np.nan, np.inf, -np.inf
    statistics = collect([_episode(np.zeros((1, 7)), "first"), _episode(actions, "second")])
    ours = statistics.actions
    assert ours.not_finite == (0, 0, 0, 2, 0, 0, 1) and ours.count == (5, 5, 5, 3, 5, 5, 4)
    assert ours.max[3] == 10 and ours.mean[3] == pytest.approx((0 + 3 + 10) / 3)
    assert ours.examples == ("second, step 1, gripper", "second, step 2, roll", "second, step 3, roll")
    assert "3 values are not finite and left out: second, step 1, gripper" in statistics.table()
    with pytest.raises(UserError, match="actions, yaw: not one of 2 values is finite"):
        collect([_episode(np.where(np.arange(7) == 5, np.nan, np.zeros((2, 7))))])


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(UserError, match="no step to take statistics of in d"):
        collect([_episode(np.zeros((0, 7)))], dataset="d")
    with pytest.raises(UserError, match="b has actions x, y; those before have x, y, z"):
        collect([_episode(np.zeros((1, 7)), "a"), _episode(np.zeros((1, 2)), "b")])


def test_an_episode_without_states() -> None:
    statistics = collect([_episode(np.ones((2, 7)), states=0)])
    assert statistics.states is None and "state" not in statistics.to_openpi()["norm_stats"]
    assert Statistics.from_dict(json.loads(json.dumps(statistics.to_dict()))) == statistics


@pytest.fixture
def statistics() -> Statistics:
    lost = [3]
    return collect(
        _episodes(1, 5),
        dataset="fractal",
        version="0.1.0",
        split="train",
        layout="fractal20220817_data",
        quarantined=lambda: lost[0],
    )


def test_the_file_keeps_every_bit(tmp_path: Path, statistics: Statistics) -> None:
    statistics.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.json"]
    assert Statistics.load(tmp_path) == Statistics.load(tmp_path / "statistics.json") == statistics
    assert statistics.quarantined == 3 and statistics.robots == ("google_robot",) and statistics.control_rates == (3.0,)
    statistics.save(tmp_path / "deep" / "mine.json")
    assert Statistics.load(tmp_path / "deep" / "mine.json").digest == statistics.digest


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_set("format", "other"), "the format is 'other'"),
        (_set("format_version", 2), "version 2; this program reads version 1"),
        (lambda data: data.pop("layout"), "'layout' is missing"),
        (lambda data: data["actions"].pop("q01"), "lack q01"),
        (lambda data: data["actions"]["q01"].pop(), "7 names and 6 of 'q01'"),
        (lambda data: data["actions"]["q01"].__setitem__(0, 5.0), "the digest differs"),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, statistics: Statistics, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    data = json.loads(json.dumps(statistics.to_dict()))
    change(data)
    (tmp_path / "statistics.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=complaint):
        Statistics.load(tmp_path)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="selfflow-mm robot-data stats"):
        Statistics.load(tmp_path)
    (tmp_path / "statistics.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        Statistics.load(tmp_path)
    (tmp_path / "statistics.json").write_text("[]")
    with pytest.raises(UserError, match="holds no statistics"):
        Statistics.load(tmp_path)


def test_the_digest_is_of_the_numbers(statistics: Statistics) -> None:
    assert replace(statistics, dataset="other name", quarantined=0).digest == statistics.digest
    assert replace(statistics, actions=replace(statistics.actions, examples=("e",))).digest == statistics.digest
    changed = replace(statistics.actions, q01=(np.nextafter(statistics.actions.q01[0], 1), *statistics.actions.q01[1:]))
    assert replace(statistics, actions=changed).digest != statistics.digest


def test_exports_have_the_forms_that_others_read(statistics: Statistics) -> None:
    openpi = json.loads(json.dumps(statistics.to_openpi()))
    assert set(openpi) == {"norm_stats"} and set(openpi["norm_stats"]) == {"state", "actions"}
    assert {key: len(value) for key, value in openpi["norm_stats"]["actions"].items()} == dict.fromkeys(
        ("mean", "std", "q01", "q99"), 7
    )
    openvla = json.loads(json.dumps(statistics.to_openvla()))["fractal"]
    assert set(openvla) == {"action", "proprio", "num_transitions", "num_trajectories"}
    assert openvla["action"]["mask"] == [True] * 6 + [False] and openvla["num_trajectories"] == 5
    # Our normaliser reads both.
    ours = normaliser("quantile", statistics.actions)
    for other in (openvla["action"], openpi["norm_stats"]["actions"]):
        assert normaliser("quantile", other, names=ACTION_NAMES) == ours


def test_the_table_shows_the_numbers(statistics: Statistics) -> None:
    lines = statistics.table().splitlines()
    assert lines[0] == f"fractal 0.1.0 train: 5 episodes, {statistics.steps} steps, 3 unreadable episodes left out"
    assert lines[2].split() == ["action", "mean", "std", "min", "q01", "q50", "q99", "max"]
    assert lines[6].split() == ["roll"] + [
        f"{getattr(statistics.actions, key)[3]:.5g}" for key in ("mean", "std", "min", "q01", "q50", "q99", "max")
    ]
    assert len(lines) == 2 + 8 + 1 + 3 and max(map(len, lines)) < 100
