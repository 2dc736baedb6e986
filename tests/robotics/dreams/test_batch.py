"""Many dreams in one call, against gymnasium's own vector of single ones."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from selfflow_mm.errors import UserError
from selfflow_robotics.dreams import DreamBatch, DreamEnv
from tests.robotics.dreams.dots import DotWorld, place, spot

IMAGES = np.stack([spot(8, 8), spot(12, 16), spot(15, 22)])
SETTINGS = {
    "images": IMAGES,
    "instruction": "push",
    "horizon": 4,
    "reward": lambda image, words: float(place(image)[1]),
    "success": lambda image, words: bool(place(image)[1] > 24),
}


def same(a, b) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        assert np.asarray(a[name]).dtype == np.asarray(b[name]).dtype, name


@pytest.mark.parametrize("seed", [3, [5, 1, 9]])
def test_rows_are_what_single_dreams_give(seed):
    batch = DreamBatch(3, DotWorld(), **SETTINGS)
    single = SyncVectorEnv([lambda: DreamEnv(DotWorld(), **SETTINGS)] * 3)
    assert batch.action_space == single.action_space and batch.observation_space == single.observation_space
    assert batch.single_action_space == single.single_action_space
    (obs, info), (expected, told) = batch.reset(seed=seed), single.reset(seed=seed)
    same(obs, expected)
    same(info, told)
    ended = 0
    for actions in np.random.default_rng(0).uniform(-0.2, 0.1, (11, 3, 7)).astype(np.float32):
        ours, theirs = batch.step(actions), single.step(actions)
        same(ours[0], theirs[0])
        for a, b in zip(ours[1:4], theirs[1:4], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        same(ours[4], theirs[4])
        ended += int(ours[2].sum()) + int(ours[3].sum())
    assert ended >= 6  # dreams ended both ways and began anew


def test_a_step_is_one_call_of_the_model_with_the_rows_that_go_on():
    world = DotWorld()
    batch = DreamBatch(2, world, IMAGES, horizon=2)
    batch.reset(seed=0, options={"image": np.stack([spot(8, 8), spot(9, 9)]), "instruction": ["a", "b"]})
    for _ in range(4):
        batch.step(np.zeros((2, 7)))
    assert [call["rows"] for call in world.calls] == [2, 2, 2]  # at the third step both began anew
    assert world.calls[0]["instructions"] == ["a", "b"]


def test_make_vec_gives_a_batch():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec(
            "selfflow/Dream-v0", num_envs=2, model=DotWorld(), images=IMAGES, render_mode="rgb_array"
        )
    assert isinstance(envs, DreamBatch) and envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    obs, info = envs.reset(seed=1, options={"episode": [0, 2]})
    np.testing.assert_array_equal(obs["image"], IMAGES[[0, 2]])
    assert len(envs.render()) == 2 and np.array_equal(envs.render()[1], IMAGES[2])
    envs.close()


def test_mistakes_are_told():
    with pytest.raises(UserError, match="at least 1 dream"):
        DreamBatch(0, DotWorld())
    batch = DreamBatch(2, DotWorld(), IMAGES)
    with pytest.raises(UserError, match="call reset"):
        batch.step(np.zeros((2, 7)))
    with pytest.raises(UserError, match="2 dreams and 3 seeds"):
        batch.reset(seed=[1, 2, 3])
    with pytest.raises(UserError, match="'instruction' has 3 entries for 2"):
        batch.reset(options={"instruction": ["a", "b", "c"]})
    batch.reset(seed=0)
    with pytest.raises(UserError, match=r"actions are \(2, 7\), one row per dream"):
        batch.step(np.zeros(7))
