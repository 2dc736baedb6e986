"""One dream: the gymnasium interface, and what is seen against where the spot must be."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

import selfflow_robotics.dreams  # noqa: F401 - registers the environment
from selfflow_mm.errors import UserError
from selfflow_robotics.dreams import DreamEnv, Starts
from selfflow_robotics.episode import Episode, RawPictures
from selfflow_robotics.layouts import Layout
from selfflow_robotics.sources import RobotFiles
from tests.robotics.dreams.dots import HEIGHT, HIGH, LOW, PIXELS, WIDTH, DotWorld, place, spot
from tests.robotics.memory import memory_source

ID = "selfflow/Dream-v0"
START = spot(12, 16)


def action(x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return np.array([x, y, 0, 0, 0, 0, 1], np.float32)


def make(**settings) -> gymnasium.Env:
    return gymnasium.make(ID, **({"model": DotWorld(), "images": START[None], "instruction": "push"} | settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reward": lambda image, words: float(image.mean()), "success": lambda image, words: False},
        {"images": memory_source([[3, 4]])},
    ],
)
def test_gymnasium_checker_has_no_complaint(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(render_mode="rgb_array", **settings).unwrapped)


def test_of_a_trained_range_the_checker_only_says_that_it_is_not_symmetric():
    """Quantiles of real actions never are; raw units are the point of the space, so the advice is not taken."""
    world = DotWorld()
    world.about = replace(world.about, action_low=(-0.11, *LOW[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="symmetric and normalized space"):
            check_env(make(model=world).unwrapped)
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space")
        check_env(make(model=world, render_mode="rgb_array").unwrapped)


def test_spaces_are_the_models_and_in_raw_units():
    env = make()
    np.testing.assert_array_equal(env.action_space.low, np.float32(LOW))
    np.testing.assert_array_equal(env.action_space.high, np.float32(HIGH))
    assert env.observation_space["image"].shape == (HEIGHT, WIDTH, 3)
    assert env.metadata["render_fps"] == 5 and env.action_space.dtype == np.float32


@given(st.lists(st.tuples(st.floats(-0.07, 0.07), st.floats(-0.07, 0.07)), min_size=1, max_size=3))
def test_the_spot_moves_as_actions_say(moves):
    env = DreamEnv(DotWorld(), START[None])
    obs, info = env.reset(seed=0)
    np.testing.assert_array_equal(obs["image"], START)
    for number, (x, y) in enumerate(moves, start=1):
        obs, reward, terminated, truncated, info = env.step(action(x, y))
        assert (reward, terminated, truncated, info["step"]) == (0.0, False, False, number)
    expected = np.array([12.0, 16.0]) - PIXELS * np.sum(moves, axis=0)
    np.testing.assert_allclose(place(obs["image"]), expected, atol=0.1 * len(moves))


def test_imagination_ends_by_truncation_and_only_success_terminates():
    env = make(
        horizon=2, success=lambda image, words: bool(place(image)[0] < 9), reward=lambda image, words: len(words)
    )
    env.reset(seed=0)
    assert env.step(action())[1:4] == (4.0, False, False)
    _, _, terminated, truncated, info = env.step(action())
    assert (terminated, truncated, info["success"]) == (False, True, False)
    env.reset()
    _, reward, terminated, truncated, info = env.step(action(0.2))
    assert (reward, terminated, truncated, info["success"]) == (4.0, True, False, True)
    with pytest.raises(UserError, match="the dream is over; call reset"):
        env.step(action())


def test_same_seed_and_actions_give_the_same_dream_and_steps_do_not_share_noise():
    def dream(seed: int, steps: int = 3) -> np.ndarray:
        env = make()
        env.reset(seed=seed)
        return np.stack([env.step(action())[0]["image"] for _ in range(steps)])

    first = dream(7)
    np.testing.assert_array_equal(first, dream(7))
    assert not np.array_equal(first[0, -1], dream(8)[0, -1])
    assert not np.array_equal(first[0, -1], first[1, -1])


def test_episodes_of_one_environment_differ_and_options_do_not_shift_them():
    def noises(options: dict | None) -> list[np.ndarray]:
        env, found = make(), []
        for number in range(3):
            env.reset(seed=5 if number == 0 else None, options=options if number == 1 else None)
            found.append(env.step(action())[0]["image"][-1])
        return found

    plain, given = noises(None), noises({"image": spot(9, 9), "instruction": "other"})
    for a, b in zip(plain, given, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(plain[0], plain[1])


def test_reset_takes_a_picture_of_any_size_and_an_instruction():
    env = make(instruction="push")
    obs, info = env.reset(options={"image": np.full((48, 64, 3), 90, np.uint8)})
    assert obs["image"].shape == (HEIGHT, WIDTH, 3) and set(np.unique(obs["image"])) == {90}
    assert info == {"instruction": "push", "step": 0}
    assert env.reset(options={"instruction": "pull"})[1]["instruction"] == "pull"
    assert env.unwrapped.get_language_instruction() == "pull"


@pytest.mark.parametrize(("fit", "corner"), [("pad", 0), ("stretch", 90)])
def test_pictures_are_fitted_as_the_model_says(fit, corner):
    env = DreamEnv(DotWorld(fit=fit))
    obs, _ = env.reset(options={"image": np.full((50, 50, 3), 90, np.uint8)})
    assert obs["image"][0, 0, 0] == corner and obs["image"][12, 16, 0] == 90


def test_dreams_begin_from_episodes_with_their_instructions():
    source = memory_source([[3], [4, 5]])
    env = DreamEnv(DotWorld(), source)
    seen = set()
    for seed in range(12):
        obs, info = env.reset(seed=seed)
        seen.add(info["instruction"])
    assert seen == {"do 0 0", "do 1 0", "do 1 1"}
    obs, info = env.reset(options={"episode": 2})
    assert info["instruction"] == "do 1 1"
    starts = Starts(source)
    assert len(starts) == 3
    image, words = starts.read(2)
    np.testing.assert_array_equal(image, source.read(1, 1).images["front"].read([0])[0])
    assert words == "do 1 1"


def test_dreams_begin_from_the_camera_that_the_model_was_trained_on():
    source = memory_source([[3]])
    two = Layout(**{**vars(source.layout), "images": {"front": "observation/image", "wrist": "observation/wrist"}})
    source = RobotFiles(source.files, two)
    read = source.files.read

    def with_wrist(shard: int, index: int) -> Episode:
        episode = read(shard, index)
        episode.pictures["observation/wrist"] = RawPictures(np.full((3, 16, 24, 3), 90, np.uint8))
        return episode

    source.files.read = with_wrist
    source.files.features["observation/wrist"] = source.files.features["observation/image"]
    world = DotWorld(fit="stretch")
    assert DreamEnv(world, source).reset(seed=0)[0]["image"].std() > 1
    world.about = replace(world.about, camera="wrist")
    assert np.all(DreamEnv(world, source).reset(seed=0)[0]["image"] == 90)


def test_episodes_that_cannot_be_read_are_passed_over_unless_asked_for():
    env = DreamEnv(DotWorld(), memory_source([[3, 3]], bad={(0, 0)}))
    assert {env.reset(seed=seed)[1]["instruction"] for seed in range(8)} == {"do 0 1"}
    with pytest.raises(UserError, match="its checksum is wrong"):
        env.reset(options={"episode": 0})
    hopeless = DreamEnv(DotWorld(), memory_source([[3]], bad={(0, 0)}))
    with pytest.raises(UserError, match="cannot be read; the last: episode 0"):
        hopeless.reset(seed=0)


def test_without_pictures_a_dream_begins_where_the_last_one_did():
    env = DreamEnv(DotWorld())
    with pytest.raises(UserError, match="needs a picture to begin from"):
        env.reset(seed=0)
    env.reset(seed=0, options={"image": spot(9, 9), "instruction": "lift"})
    env.step(action(0.1))
    obs, info = env.reset()
    np.testing.assert_array_equal(obs["image"], spot(9, 9))
    assert info == {"instruction": "lift", "step": 0}


def test_the_models_settings_are_handed_on():
    world = DotWorld()
    env = make(model=world, steps=3, context_level=0.1)
    env.reset(seed=0)
    env.step(action())
    assert world.calls == [{"rows": 1, "steps": 3, "level": 0.1, "instructions": ["push"]}]


def test_a_folder_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import selfflow_robotics.adapter as adapter

    monkeypatch.setitem(vars(adapter), "FlowWorldModel", DotWorld)
    env = make(model=tmp_path)
    env.reset(seed=0)
    assert env.step(action())[0]["image"].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "at least 1 step"),
        ({"steps": 0}, "at least 1 step, got 0"),
        ({"context_level": 1.0}, r"a noise level in \[0, 1\)"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "no picture to begin"),
        ({"images": [np.zeros((4, 4), np.uint8)]}, r"\(height, width, 3\)"),
        ({"images": "nowhere"}, "there is no 'nowhere'"),
        ({"render_mode": "ansi"}, "render_mode 'ansi'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        DreamEnv(**({"model": DotWorld(), "images": START[None]} | settings))


def test_mistakes_in_use_are_told():
    env = DreamEnv(DotWorld(), START[None])
    with pytest.raises(UserError, match="call reset"):
        env.step(action())
    with pytest.raises(UserError, match="does not know the option 'pictures'"):
        env.reset(options={"pictures": START})
    with pytest.raises(UserError, match="no start 1"):
        env.reset(options={"episode": 1})
    env.reset(seed=0)
    for bad in (np.zeros(6), np.full(7, np.nan)):
        with pytest.raises(UserError, match=r"actions are \(1, 7\) finite numbers"):
            env.step(bad)
