"""The gymnasium interface: the checker, spaces, options, variants, determinism."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from selfflow_mm.errors import UserError
from selfflow_robotics.tabletop import ALL_TASKS, VARIANTS, Expert, TabletopEnv, get_image
from selfflow_robotics.tabletop.renderer import Renderer
from selfflow_robotics.tabletop.scene import moving_bodies, static_bodies
from selfflow_robotics.tabletop.variants import make_setting

ID = "selfflow/Tabletop-v0"


def make(**settings) -> gymnasium.Env:
    return gymnasium.make(ID, **settings)


@pytest.mark.parametrize("settings", [{}, {"depth": True, "sound": True, "task": "place_in_drawer", "variant": "all"}])
def test_gymnasium_checker_has_no_complaint(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(render_mode="rgb_array", **settings).unwrapped)


def test_observations_have_simplers_keys_and_the_stated_shapes():
    env = make(depth=True, sound=True, task="pick", render_mode="rgb_array")
    obs, info = env.reset(seed=3)
    assert obs in env.observation_space
    rgb = obs["image"]["overhead_camera"]["rgb"]
    assert rgb.shape == (256, 320, 3) and rgb.dtype == np.uint8 and rgb.std() > 10
    depth = obs["image"]["overhead_camera"]["depth"]
    assert depth.shape == (256, 320, 1) and depth.dtype == np.float32 and 0.2 < depth.min() < depth.max() < 10
    assert get_image(env, obs) is rgb
    np.testing.assert_array_equal(env.render(), rgb)
    pose = obs["extra"]["tcp_pose"]
    np.testing.assert_allclose(pose[:3], env.unwrapped.task.world.hand.place, atol=1e-6)
    np.testing.assert_allclose(pose[3:], [0, 1, 0, 0], atol=1e-6)  # straight down: half a turn about x
    qpos = obs["agent"]["qpos"]
    np.testing.assert_allclose(qpos[3:], 0, atol=1e-6)
    assert info["instruction"] == env.unwrapped.get_language_instruction()
    assert info["task"] == "pick" and info["elapsed_steps"] == 0 and info["success"] is False


def test_tcp_pose_tells_the_rotation_that_was_commanded():
    env = make(task="pick", pictures=False)
    env.reset(seed=0)
    angle = 0.4
    obs, *_ = env.step(np.array([0, 0, 0, 0, 0, angle, 0.5]))
    # A turn by angle about z after half a turn about x: (c, 0, 0, s) * (0, 1, 0, 0) = (0, c, s, 0).
    expected = [0, np.cos(angle / 2), np.sin(angle / 2), 0]
    np.testing.assert_allclose(obs["extra"]["tcp_pose"][3:], expected, atol=1e-6)
    np.testing.assert_allclose(obs["agent"]["qpos"][3:6], [0, 0, angle], atol=1e-6)
    np.testing.assert_allclose(obs["agent"]["qpos"][6:], [0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize("name", sorted(ALL_TASKS))
def test_the_same_seed_and_actions_give_the_same_bits(name):
    def run() -> list[bytes]:
        env = make(task=name, sound=True, variant="all")
        obs, _ = env.reset(seed=11)
        actions = np.random.default_rng(0).uniform(-0.2, 0.2, (4, 7)).astype(np.float32)
        seen = [obs] + [env.step(action)[0] for action in actions]
        return [obs[a][b].tobytes() for obs in seen for a, b in (("agent", "qpos"), ("extra", "tcp_pose"))] + [
            part for obs in seen for part in (get_image(env, obs).tobytes(), obs["sound"].tobytes())
        ]

    assert run() == run()


@pytest.mark.parametrize("variant", [*VARIANTS, "all", ["light", "camera"]])
def test_variants_change_the_picture_and_nothing_else(variant):
    def run(chosen):
        env = make(task="move_near", variant=chosen)
        obs, info = env.reset(seed=5)
        expert, poses, images = Expert(env), [], [get_image(env, obs)]
        for _ in range(12):
            obs, *_ = env.step(expert.act())
            poses.append(obs["extra"]["tcp_pose"])
        images.append(get_image(env, obs))
        return info["instruction"], np.array(poses), images, [t.place for t in env.unwrapped.task.world.things]

    base, varied = run("base"), run(variant)
    assert base[0] == varied[0] and base[3] == varied[3]
    np.testing.assert_array_equal(base[1], varied[1])
    for one, other in zip(base[2], varied[2], strict=True):
        assert (np.abs(one.astype(int) - other).max(axis=-1) > 12).mean() > 0.001


def test_distractors_are_other_objects_out_of_reach_and_out_of_the_way():
    for seed in range(50):
        env = make(task="random", pictures=False, variant="distractors").unwrapped
        env.reset(seed=seed)
        world = env.task.world
        setting = make_setting(("distractors",), seed, [thing.name for thing in world.things])
        assert len(setting.extras) == 4
        for name, x, y, _ in setting.extras:
            assert name not in [thing.name for thing in world.things]
            assert np.hypot(x, y) > 1.19
            assert abs(y) < 0.80 and x < 1.40


def test_static_bodies_stay_the_same_objects_and_moving_ones_follow():
    env = make(task="place_in_drawer", pictures=False).unwrapped
    env.reset(seed=0)
    before = env._static
    first = {id(body) for body in before}
    hand = [body.place for body in moving_bodies(env.task.world, env._setting) if body.name == "gripper"]
    env.step(np.array([0.02, 0.03, -0.04, 0, 0, 0, 0]))
    assert {id(body) for body in env._static} == first
    moved = [body.place for body in moving_bodies(env.task.world, env._setting) if body.name == "gripper"]
    np.testing.assert_allclose(np.array(moved) - hand, np.tile([0.02, 0.03, -0.04], (len(hand), 1)), atol=1e-9)
    for body in [*static_bodies(env.task.world.cabinet, env._setting), *moving_bodies(env.task.world, env._setting)]:
        np.testing.assert_allclose(body.turn.T @ body.turn, np.eye(3), atol=1e-9)
        assert np.linalg.det(body.turn) == pytest.approx(1.0)


def test_limits_subtasks_and_options():
    for name, limit in (("pick", 80), ("move_near", 80), ("open_drawer", 113), ("place_in_drawer", 200)):
        env = make(task=name, pictures=False)
        env.reset(seed=1)
        instructions = []
        for _ in range(limit):
            *_, terminated, truncated, info = env.step(np.zeros(7, np.float32))
            assert not terminated
            instructions.append(info["instruction"])
            assert truncated == (len(instructions) == limit)
        if name == "place_in_drawer":  # the instruction changes at step 100 by itself
            assert instructions[98].startswith("open") and instructions[99].startswith("place")
            assert env.unwrapped.is_final_subtask()
    env = make(pictures=False)
    layouts = []
    for seed in (0, 1):
        _, info = env.reset(seed=seed, options={"task": "pick", "episode": 7})
        assert info["task"] == "pick"
        layouts.append(list(env.unwrapped.task.thing.place))
    assert layouts[0] == layouts[1]
    env.reset()  # the option 'episode' held for one episode only
    assert list(env.unwrapped.task.thing.place) != layouts[0]


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"task": "juggle"}, {}, "no task 'juggle'"),
        ({"variant": "fog"}, {}, "no variant 'fog'"),
        ({}, {"tsk": "pick"}, "option 'tsk'"),
        ({}, {"variant": ["light", "fog"]}, "no variant 'fog'"),
        ({}, {"episode": -1}, "numbered from 0"),
    ],
)
def test_mistakes_are_told(settings, options, message):
    with pytest.raises(UserError, match=message):
        make(pictures=False, **settings).reset(seed=0, options=options)


def test_actions_that_are_not_numbers_are_refused_and_large_ones_cut():
    env = make(task="pick", pictures=False).unwrapped
    with pytest.raises(UserError, match="reset"):
        env.step(np.zeros(7))
    env.reset(seed=0)
    with pytest.raises(UserError, match="7 finite numbers"):
        env.step(np.array([np.nan] * 7))
    with pytest.raises(UserError, match="7 finite numbers"):
        env.step(np.zeros(6))
    before = env.task.world.hand.place.copy()
    env.step(np.array([0, 0, 1e9, 0, 0, 0, 0]))
    assert np.linalg.norm(env.task.world.hand.place - before) <= 0.25 + 1e-9


def test_it_says_that_it_is_a_test_bed_and_needs_no_torch():
    assert "test bed, not a benchmark" in (TabletopEnv.__doc__ or "")
    code = (
        "import sys, gymnasium; gymnasium.make('selfflow_robotics.tabletop:selfflow/Tabletop-v0'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_drawer_that_nobody_was_asked_to_open_is_seen_when_it_moves() -> None:
    """It is part of the scene that is drawn once, until it moves: the picture is that of a scene drawn anew."""
    env = gymnasium.make(ID, task="open_drawer", render_mode="rgb_array").unwrapped
    assert isinstance(env, TabletopEnv)
    env.reset(seed=0)
    closed = env.render().astype(int)
    world, setting = env.task.world, env._setting
    other = (env.task.drawer + 1) % 3
    for opening in (0.1, 0.15):
        world.cabinet.slide(other, opening - world.cabinet.opening[other])
        seen = env.render().astype(int)
        anew = Renderer().render(
            setting.camera, setting.light, static_bodies(world.cabinet, setting), moving_bodies(world, setting)
        )
        assert np.abs(seen - anew.rgb).mean() < 0.5 < 2 < np.abs(seen - closed).mean()


def test_a_scene_is_given_every_name_and_nothing_else_changes() -> None:
    """One picture, other instructions; each of them named once, and the first is what it is without naming."""
    for task, count in (("pick_among", 3), ("move_near", 6)):
        env = gymnasium.make("selfflow/Tabletop-v0", task=task)
        seen = [env.reset(options={"episode": 7, "naming": naming}) for naming in range(count)]
        told = [info["instruction"] for _, info in seen]
        assert len(set(told)) == count and told[0] == env.reset(options={"episode": 7})[1]["instruction"]
        for obs, _ in seen[1:]:
            np.testing.assert_array_equal(obs["extra"]["tcp_pose"], seen[0][0]["extra"]["tcp_pose"])
            np.testing.assert_array_equal(get_image(env, obs), get_image(env, seen[0][0]))
        with pytest.raises(UserError, match=f"has {count} instructions, numbered from 0; there is no {count}"):
            env.reset(options={"episode": 7, "naming": count})
