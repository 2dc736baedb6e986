"""Policies that look at nothing, against their statistics and recordings."""

from __future__ import annotations

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import Episode, RawPictures
from selfflow_robotics.interfaces import Observation, Request
from selfflow_robotics.policies import ActingOptions, Policy, load_policy
from selfflow_robotics.rlds import FRACTAL_FEATURES, FRACTAL_METADATA, RldsWriter
from selfflow_robotics.statistics import ColumnStatistics, Statistics

IMAGE = np.zeros((4, 6, 3), np.uint8)
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
LENGTHS = {"pick apple": (5, 12), "open top drawer": (7,)}


def asked(seed=0, query=0, instruction="go"):
    return Request(Observation(IMAGE, instruction), seed, query)


@pytest.fixture
def statistics():
    low, high = np.linspace(-0.3, 0, 7), np.linspace(0.1, 0.9, 7)
    sorts = {"mean": (low + high) / 3, "q01": low, "q99": high}
    columns = {k: tuple(sorts.get(k, low).tolist()) for k in "mean std min max q01 q10 q50 q90 q99".split()}
    actions = ColumnStatistics(NAMES, (9,) * 7, (0,) * 7, **columns)
    return Statistics("some", 1, 9, actions, control_rates=(5.0,))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Three episodes; x of step t is t + 1, and the gripper closes at step 3."""
    folder = tmp_path_factory.mktemp("replay") / "data"
    with RldsWriter(folder, name="few", features=FRACTAL_FEATURES, metadata_features=FRACTAL_METADATA) as writer:
        for said, lengths in LENGTHS.items():
            for length in lengths:
                columns = {
                    name: np.zeros((length, *(n or 1 for n in feature.shape)), feature.dtype)
                    for name, feature in FRACTAL_FEATURES.items()
                    if feature.kind == "array"
                }
                columns["action/world_vector"][:, 0] = np.arange(length) + 1
                columns["action/gripper_closedness_action"][3] = 1
                texts = {"observation/natural_language_instruction": [said] * length}
                pictures = {"observation/image": RawPictures(np.zeros((length, 256, 320, 3), np.uint8))}
                metadata = {
                    n: "" if f.kind == "text" else np.zeros((), f.dtype)[()] for n, f in FRACTAL_METADATA.items()
                }
                writer.write(Episode(f"{said} {length}", length, columns, texts, pictures, metadata))
    return folder


def test_zero_holds_still_with_an_open_gripper():
    policy = load_policy("zero", horizon=3)
    chunks = policy.chunks([asked(), asked(1)])
    assert chunks.shape == (2, 3, 7) and chunks.dtype == np.float32
    assert not chunks[..., :6].any() and (chunks[..., 6] == 1).all()


def test_mean_is_the_mean(statistics):
    policy = load_policy("mean", statistics=statistics)
    np.testing.assert_allclose(policy.chunks([asked()])[0], np.tile(statistics.actions.mean, (8, 1)), rtol=1e-6)
    assert policy.about.control_rate == 5
    with pytest.raises(UserError, match="robot-data stats"):
        load_policy("mean")


def test_random_fills_the_quantiles_range(statistics, tmp_path):
    statistics.save(tmp_path / "statistics.json")
    policy = load_policy("random", statistics=tmp_path / "statistics.json", horizon=2000)
    chunk = policy.chunks([asked(4)])[0]
    low, high = np.array(statistics.actions.q01), np.array(statistics.actions.q99)
    share = (chunk[:, :6] - low[:6]) / (high - low)[:6]
    assert share.min() >= 0 and share.max() <= 1
    # A uniform number's mean is 1/2 and its variance 1/12; five standard errors.
    np.testing.assert_allclose(share.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / 2000))
    np.testing.assert_allclose(share.var(axis=0), 1 / 12, atol=0.01)
    assert set(chunk[:, 6]) == {0, 1} and abs(chunk[:, 6].mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)
    whole = load_policy("random", horizon=2000).chunks([asked()])[0]
    assert -1 <= whole[:, :6].min() < -0.99 and 0.99 < whole[:, :6].max() <= 1


def test_random_rows_depend_on_their_own_seed_alone():
    policy = load_policy("random")
    together = policy.chunks([asked(1), asked(2), asked(3)])
    np.testing.assert_array_equal(together[2], policy.chunks([asked(3)])[0])
    assert not np.array_equal(together[0], together[1])


def test_replay_gives_the_recorded_actions_and_then_holds_still(recorded):
    policy = Policy(load_policy("replay", data=recorded, episode=1, executed=5), ActingOptions(executed=5))
    chunks = [policy.act(IMAGE, "whatever") for _ in range(4)]
    done = np.concatenate([chunk[:5] for chunk in chunks])
    np.testing.assert_array_equal(done[:, 0], [*range(1, 13), *[0] * 8])
    np.testing.assert_array_equal(done[:, 6], [1, 1, 1, *[0] * 17])
    np.testing.assert_array_equal(chunks[1][:, 0], [6, 7, 8, 9, 10, 11, 12, 0])


def test_replay_follows_the_instruction(recorded):
    def length(seed, said):
        policy = load_policy("replay", data=recorded, horizon=20, seed=seed)
        return np.count_nonzero(policy.chunks([asked(instruction=said)])[0, :, 0])

    assert length(0, "open top drawer") == 7
    assert {length(seed, "pick apple") for seed in range(6)} == {5, 12}
    assert {length(seed, "sing") for seed in range(10)} == {5, 7, 12}  # none was told that: one of all


def test_replay_knows_how_many_are_carried_out(recorded):
    with pytest.raises(UserError, match="made to have 8 actions carried out, not 2"):
        Policy(load_policy("replay", data=recorded), ActingOptions(executed=2))
    with pytest.raises(UserError, match="no data are given"):
        load_policy("replay")
    with pytest.raises(UserError, match="no episode 9"):
        load_policy("replay", data=recorded, episode=9)
    with pytest.raises(UserError, match="a seed is at least 0"):
        load_policy("replay", data=recorded, seed=-1)


def test_names_settings_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="nearest is 'random'"):
        load_policy("randon")
    with pytest.raises(UserError, match="address of a server"):
        load_policy("ws://localhost:8000")
    with pytest.raises(UserError, match="has no setting 'steps'; it has horizon, control_rate"):
        load_policy("zero", steps=3)
    with pytest.raises(UserError, match="has no setting 'statistics'"):
        load_policy(tmp_path, statistics="x")
    with pytest.raises(UserError):
        Policy.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="at least one action"):
        load_policy("zero", horizon=0)
    with pytest.raises(UserError, match="at most 10000 actions"):
        load_policy("zero", horizon=10**12)
    for rate in (-1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="above 0"):
            load_policy("random", control_rate=rate)
    with pytest.raises(UserError, match="no policy and no folder"):
        load_policy("a" * 5000)
