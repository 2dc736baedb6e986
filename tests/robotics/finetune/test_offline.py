"""Offline metrics against what can be worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.chunks import padded
from selfflow_robotics.adapter import FlowPolicy, FlowWorldModel
from selfflow_robotics.finetune.offline import evaluate
from selfflow_robotics.finetune.parts import episodes_of
from selfflow_robotics.interfaces import Observation, Request
from tests.robotics.tiny_robot import random_model


@pytest.fixture
def setting(make_parts):
    parts = make_parts("data.fit=stretch")
    episodes = episodes_of(parts.files, parts.train[:3])
    return random_model(parts.tokenizer, parts.spec), episodes


def every_place(episodes):
    return [(e, t) for e, episode in enumerate(episodes) for t in range(len(episode))]


@pytest.fixture
def told(monkeypatch):
    """Policies answer what the function says of (seed, observation); the seed is the window's number."""

    def answer(function):
        monkeypatch.setattr(
            FlowPolicy, "chunks", lambda self, asked: np.stack([function(r.seed, r.observation) for r in asked])
        )

    return answer


def test_a_policy_that_knows_has_no_error(setting, told):
    model, episodes = setting
    places = every_place(episodes)
    seen = []

    def truth(number, observation):
        e, t = places[number]
        seen.append((observation.instruction, tuple(observation.state)))
        assert np.array_equal(observation.image, episodes[e].images["image"].read([t])[0])
        return padded(episodes[e].actions, t + np.arange(3))

    told(truth)
    found = evaluate(model, episodes, windows=1000, batch=7).numbers
    assert (found["windows"], found["episodes"], found["horizon"]) == (len(places), 3, 3)
    actions = found["actions"]
    # Padding is left out: an episode of n steps has 3 n actions in its windows, less 1 + 2 beyond the end.
    assert actions["steps"] == sum(3 * len(e) - 3 for e in episodes)
    assert set(actions["model"]["mae"].values()) == set(actions["model"]["rmse"].values()) == {0.0}
    assert actions["gripper_accuracy"] == 1
    assert set(actions["chunk"]["model"]["mae"].values()) == {0.0}
    assert min(actions["chunk"]["model"]["correlation"].values()) == pytest.approx(1)
    assert seen == [(episodes[e].instruction, tuple(episodes[e].states[t])) for e, t in places]
    assert json.loads(json.dumps(found)) == found


def test_errors_by_hand(setting, told):
    model, episodes = setting
    places = every_place(episodes)
    true, guesses = [], {}
    random = np.random.default_rng(0)
    for number, (e, t) in enumerate(places):
        guesses[number] = random.normal(0, 0.3, (3, 7)).astype(np.float32)
        for k in range(3):
            if t + k < len(episodes[e]):
                true.append((episodes[e].actions[t + k], guesses[number][k]))
    told(lambda number, _: guesses[number])
    actions = evaluate(model, episodes, windows=1000, batch=16).numbers["actions"]
    sums = [  # of the steps inside: a window near the end has fewer
        (episodes[e].actions[t : t + 3].sum(0)[:6], guesses[i][: len(episodes[e]) - t].sum(0)[:6])
        for i, (e, t) in enumerate(places)
    ]
    whole, told_whole = (np.array(part, np.float64) for part in zip(*sums, strict=True))
    names = model.spec.action_names[:6]
    for what, other in (("model", told_whole), ("no_motion", 0.0)):
        off = list(actions["chunk"][what]["mae"].values())
        assert off == pytest.approx(np.abs(other - whole).mean(0), rel=1e-4)
    r = actions["chunk"]["model"]["correlation"]
    assert set(r) == {name for k, name in enumerate(names) if whole[:, k].std() > 0} >= {"x", "y"}
    for k, name in enumerate(names):
        assert name not in r or r[name] == pytest.approx(np.corrcoef(whole[:, k], told_whole[:, k])[0, 1], abs=1e-4)
    truth, guess = (np.array(part, np.float64) for part in zip(*true, strict=True))
    mean = np.array(model.spec.statistics.actions.mean)
    for what, other in (("model", guess), ("mean_action", mean), ("no_motion", 0.0)):
        for column, name in enumerate(model.spec.action_names):
            error = (other - truth)[:, column]
            assert actions[what]["mae"][name] == pytest.approx(np.abs(error).mean(), rel=1e-5, abs=1e-9)
            assert actions[what]["rmse"][name] == pytest.approx((error**2).mean() ** 0.5, rel=1e-5, abs=1e-9)
    is_open = truth[:, 6] > 0.5
    assert actions["gripper_accuracy"] == pytest.approx(((guess[:, 6] > 0.5) == is_open).mean())
    assert actions["gripper_majority"] == pytest.approx(max(is_open.mean(), 1 - is_open.mean()))


def test_psnr_by_hand(setting, monkeypatch):
    """A world model that answers one level of gray everywhere."""
    model, episodes = setting
    monkeypatch.setattr(
        FlowWorldModel,
        "imagine",
        lambda self, now, actions, told, *, seeds: np.full((len(now), actions.shape[1], 32, 32, 3), 90, np.uint8),
    )
    result = evaluate(model, episodes, windows=1000, batch=5, films=2)
    found = result.numbers["video"]

    def level(a, b):
        error = ((a.astype(np.float64) - b) ** 2).mean()
        return 10 * math.log10(255**2 / error) if error else math.inf

    for k in (1, 2, 3):
        ours, still = [], []
        for e, t in every_place(episodes):
            if t + k < len(episodes[e]):
                now, later = model.spec.pictures(episodes[e].images["image"].read([t, t + k]))
                copied = level(now, later)
                if math.isfinite(copied):
                    ours.append(level(np.float64(90) * np.ones_like(later), later))
                    still.append(copied)
        assert found[f"psnr_rgb_at{k}_openloop"] == pytest.approx(np.mean(ours), rel=1e-5)
        assert found[f"psnr_rgb_at{k}_copy_present"] == pytest.approx(np.mean(still), rel=1e-5)
    assert len(result.films) == 2
    instruction, film = result.films[0]
    assert instruction == episodes[0].instruction and film.shape == (3, 64, 32, 3)
    truth = model.spec.pictures(episodes[0].images["image"].read([1, 2, 3]))
    assert np.array_equal(film[:, :32], truth) and (film[:, 32:] == 90).all()


def test_windows_are_spread_evenly(setting, told):
    model, episodes = setting
    seen = []
    told(lambda number, observation: seen.append(observation.image) or np.zeros((3, 7), np.float32))
    evaluate(model, episodes, windows=6, batch=4)
    places = every_place(episodes)
    expected = [places[i * len(places) // 6] for i in range(6)]
    assert len({e for e, _ in expected}) == 3
    for image, (e, t) in zip(seen, expected, strict=True):
        assert np.array_equal(image, episodes[e].images["image"].read([t])[0])


def test_the_batch_size_changes_nothing(setting):
    model, episodes = setting
    one, all_at_once = (evaluate(model, episodes, windows=5, batch=b).numbers for b in (1, 5))
    for what in ("mae", "rmse"):
        for name, value in one["actions"]["model"][what].items():
            assert all_at_once["actions"]["model"][what][name] == pytest.approx(value, rel=1e-4)
    for name, value in one["video"].items():
        assert all_at_once["video"][name] == pytest.approx(value, abs=0.01)


def test_only_what_a_model_was_trained_for_is_measured(make_parts):
    for tasks, parts_found in (
        ("{world: 1}", {"video"}),
        ("{joint: 1}", {"actions", "video"}),
        ("{inverse: 1}", set()),
    ):
        parts = make_parts(f"tasks={tasks}")
        model = random_model(parts.tokenizer, parts.spec)
        found = evaluate(model, episodes_of(parts.files, (0,)), windows=2, batch=2).numbers
        assert set(found) - {"windows", "episodes", "horizon"} == parts_found


def test_a_model_of_pictures_and_actions_together_is_measured_on_what_it_imagines_of_its_own(make_parts):
    """The paper's experiment: no world model, and yet its films have a PSNR."""
    parts = make_parts("tasks={joint: 1}", "data.state=absent")
    model, (episode,) = random_model(parts.tokenizer, parts.spec), episodes_of(parts.files, (0,))
    result = evaluate(model, [episode], windows=len(episode), batch=2)
    policy = FlowPolicy(model, video="denoised")
    requests = [
        Request(Observation(episode.images["image"].read([t])[0], episode.instruction), seed=t)
        for t in range(len(episode))
    ]
    films = policy.futures(requests)
    assert films.shape == (len(episode), 3, 32, 32, 3) and films.dtype == np.uint8
    truth = model.spec.pictures(episode.images["image"].read(None)).astype(np.float64)
    for k in (1, 2, 3):
        errors = [((films[t, k - 1] - truth[t + k]) ** 2).mean() for t in range(len(episode) - k)
                  if (truth[t] != truth[t + k]).any()]  # fmt: skip
        expected = np.mean([10 * math.log10(255**2 / error) for error in errors])
        assert result.numbers["video"][f"psnr_rgb_at{k}_joint"] == pytest.approx(expected, abs=0.01)
    assert not any("openloop" in name for name in result.numbers["video"])
    with pytest.raises(UserError, match="with video=denoised, and video is 0.5"):
        FlowPolicy(model, video=0.5).futures(requests)
    assert policy.chunks([]).shape == (0, 3, 7)


def test_a_window_whose_picture_does_not_decode_is_left_out(setting, told):
    import dataclasses

    model, episodes = setting

    class Broken:
        def read(self, steps):
            raise UserError("the picture of step 2 cannot be decoded")

    told(lambda number, observation: np.zeros((3, 7), np.float32))
    damaged = dataclasses.replace(episodes[0], images={"image": Broken()})
    found = evaluate(model, [damaged, episodes[1]], windows=1000, batch=9).numbers
    assert found["windows"] == len(episodes[1])
    with pytest.raises(UserError, match="no window can be cut out of the held-out episodes: the picture of step 2"):
        evaluate(model, [damaged], windows=1000, batch=9)
