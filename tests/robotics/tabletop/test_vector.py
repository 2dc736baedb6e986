"""Many tabletops at once through gymnasium's own vector environments."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from selfflow_robotics.tabletop import get_image

ID = "selfflow/Tabletop-v0"
SEEDS = [3, 4]


def singles(actions: np.ndarray) -> list[tuple[list[np.ndarray], list[str]]]:
    """What environments alone give: per step, images and instructions."""
    envs = [gymnasium.make(ID, sound=True) for _ in SEEDS]
    steps = [[env.reset(seed=seed) for env, seed in zip(envs, SEEDS, strict=True)]]
    for step in actions:
        found = [env.step(action) for env, action in zip(envs, step, strict=True)]
        steps.append([(one[0], one[-1]) for one in found])
    return [([get_image(envs[0], obs) for obs, _ in pair], [info["instruction"] for _, info in pair]) for pair in steps]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_give_what_single_ones_do(mode):
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 2, 7)).astype(np.float32)
    expected = singles(actions)
    envs = gymnasium.make_vec(ID, num_envs=2, vectorization_mode=mode, sound=True)
    try:
        obs, info = envs.reset(seed=SEEDS)
        assert obs["sound"].shape == (2, 2, 8000)
        for step in range(3):
            images, instructions = expected[step]
            np.testing.assert_array_equal(obs["image"]["overhead_camera"]["rgb"], np.stack(images))
            assert list(info["instruction"]) == instructions
            assert list(envs.call("get_language_instruction")) == instructions
            if step < 2:
                obs, _, _, _, info = envs.step(actions[step])
    finally:
        envs.close()


def test_episodes_end_and_begin_again_one_by_one():
    envs = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync", task="pick", pictures=False)
    _, info = envs.reset(seed=SEEDS)
    first = list(info["instruction"])
    for _ in range(80):
        _, _, terminated, truncated, info = envs.step(np.zeros((2, 7), np.float32))
    assert truncated.all() and not terminated.any()
    _, _, _, _, info = envs.step(np.zeros((2, 7), np.float32))
    assert list(info["elapsed_steps"]) == [0, 0] and list(info["instruction"]) != first
    envs.close()
