"""The expert solves every task; doing nothing and doing anything do not."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from selfflow_robotics.tabletop import ALL_TASKS, Expert

NAMES = sorted(ALL_TASKS)


def episode(name: str, seed: int, noise: float = 0.0, **settings) -> tuple[bool, int, np.ndarray, Expert]:
    env = gymnasium.make("selfflow/Tabletop-v0", task=name, pictures=False, **settings)
    env.reset(seed=seed)
    expert = Expert(env, noise=noise, seed=seed)
    actions = []
    while True:
        actions.append(expert.act())
        _, reward, terminated, truncated, info = env.step(actions[-1])
        assert reward == float(terminated) == float(info["success"])
        if terminated or truncated or expert.done:
            return terminated, info["elapsed_steps"], np.array(actions), expert


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_solves_the_task_at_a_humans_pace(name):
    solved = 0
    for seed in range(10):
        success, _, actions, _ = episode(name, seed, noise=float(seed % 2))
        solved += success
        assert actions.dtype == np.float32 and actions.shape[1] == 7
        assert np.linalg.norm(actions[:, :3], axis=1).max() < 0.11
        assert np.linalg.norm(actions[:, 3:6], axis=1).max() < 0.32
        # Smooth: the speed changes by less than the pace from step to step.
        assert np.abs(np.diff(np.linalg.norm(actions[:, :3], axis=1))).max() < 0.09
    assert solved >= 9


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_expert_solves_at_least_95_of_100(name, noise):
    assert sum(episode(name, 1000 + seed, noise, variant="all")[0] for seed in range(100)) >= 95


def test_noise_varies_the_way_and_a_seed_repeats_it():
    still = episode("pick", 4)[2]
    one, same, other = (episode("pick", 4, noise=1.0)[2] for _ in range(3))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one[:5], still[:5])


@pytest.mark.parametrize("before", range(3))
def test_wandering_says_nothing_about_where_things_stand(before):
    """With the layout's own number as seed, as in recordings, and however many numbers were drawn before."""
    hands, things = [], []
    for number in range(24):
        env = gymnasium.make("selfflow/Tabletop-v0", task="pick", pictures=False)
        env.reset(options={"episode": number})
        things.append(env.unwrapped.task.thing.place[:2])
        expert = Expert(env, seed=number)
        expert.rng.random(before)
        for action in expert.wander():
            env.step(action.astype(np.float32))
        hands.append(env.unwrapped.task.world.hand.place[:2].copy())
    hands, things = np.array(hands), np.array(things)
    for axis in range(2):
        # 0.5 is a p-value of 1% for 24 pairs; where both draw from one stream it is 0.9 and more.
        assert abs(np.corrcoef(hands[:, axis], things[:, axis])[0, 1]) < 0.5
        assert np.ptp(hands[:, axis]) > 0.2


def test_a_missed_grasp_is_tried_again():
    env = gymnasium.make("selfflow/Tabletop-v0", task="pick", pictures=False)
    env.reset(seed=2)
    expert, thing = Expert(env), env.unwrapped.task.thing
    moved = False
    for _ in range(80):
        action = expert.act()
        if expert.phase == "down" and not moved:
            thing.place[0] += 0.15  # somebody moves it away
            thing.place[1] *= 0.5
            moved = True
        *_, terminated, _, _ = env.step(action)
        if terminated:
            break
    assert moved and terminated


def test_done_says_when_it_is_over_and_then_it_stands_still():
    env = gymnasium.make("selfflow/Tabletop-v0", task="pick", pictures=False)
    env.reset(seed=0)
    expert = Expert(env)
    steps = []
    while not expert.done and len(steps) < 40:  # goes on after success
        steps.append(expert.act())
        env.step(steps[-1])
    assert expert.done and len(steps) > 8 and steps[-2].any()
    assert not steps[-1].any() and not expert.act().any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", ["zero", "random"])
def test_luck_does_not_solve_the_task(name, policy):
    rng = np.random.default_rng(0)
    solved = 0
    for seed in range(3):
        env = gymnasium.make("selfflow/Tabletop-v0", task=name, pictures=False)
        env.reset(seed=seed)
        for _ in range(30):
            action = rng.uniform(-1, 1, 7) if policy == "random" else np.zeros(7)
            *_, terminated, truncated, _ = env.step(action.astype(np.float32))
            if terminated or truncated:
                solved += terminated
                break
    assert solved == 0
