"""The inverse model: what it recovers from films that follow actions, and from films that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from selfflow_mm.errors import UserError
from selfflow_robotics.report_card.films import Imagining, batches
from selfflow_robotics.report_card.held_out import View, choose_clips
from selfflow_robotics.report_card.inverse import ActionsRecovered, InverseModel
from selfflow_robotics.report_card.networks import Fitting
from selfflow_robotics.report_card.true_frames import true_episodes
from tests.robotics.report_card.toys import HEIGHT, WIDTH, Model, squares

VIEW = View(HEIGHT, WIDTH)
CLIPS = choose_clips(squares([[13] * 8]), 8, [12], seed=0, view=VIEW)


@pytest.fixture(scope="module")
def inverse() -> InverseModel:
    episodes = true_episodes(squares([[13] * 40], shift=1), 40, seed=0, view=VIEW)
    return InverseModel(episodes, seed=0, how=Fitting(updates=120, batch=24))


def recovered(inverse: InverseModel, kind: str) -> dict[str, Any]:
    section = ActionsRecovered(inverse, seed=0)
    for batch in batches(Model(kind), CLIPS, Imagining(), section.films):
        section.add(batch)
    return section.result()


def test_films_that_follow_actions_give_them_back(inverse: InverseModel) -> None:
    found = recovered(inverse, "right")
    assert found["trained_on_pairs"] == 40 * 12 and found["recoverable"] == ["x", "y", "gripper"]
    for film in ("true_frames", "model", "shuffled_actions"):
        for column, least in (("x", 0.4), ("y", 0.4), ("gripper", 0.5)):
            assert found["films"][film][column]["correlation"]["value"] > least, (film, column)
        assert abs(found["films"][film]["yaw"]["correlation"]["value"]) < 0.3  # nothing shows it
    assert found["films"]["true_frames"] == found["films"]["model"]  # the right model's films are the truth


def test_films_that_ignore_actions_do_not(inverse: InverseModel) -> None:
    found = recovered(inverse, "ignores")
    for film in ("model", "shuffled_actions"):
        for column in ("x", "y"):
            assert abs(found["films"][film][column]["correlation"]["value"]) < 0.3
            assert found["films"][film][column]["r2"]["value"] < 0
    assert found["mean_correlation"]["true_frames"] > found["mean_correlation"]["model"] + 0.2


def test_the_figures_are_those_of_scipy(inverse: InverseModel) -> None:
    found = recovered(inverse, "right")["films"]["true_frames"]["x"]
    put_in, told = [], []
    for clip in CLIPS.clips:
        put_in.append(inverse.normalised(clip.actions)[:, 0].astype(float))
        told.append(inverse.actions(CLIPS.pictures(clip))[:, 0].astype(float))
    x, y = np.concatenate(put_in), np.concatenate(told)
    assert found["correlation"]["value"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["r2"]["value"] == pytest.approx(1 - ((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum())
    assert found["correlation"]["low"] < found["correlation"]["value"] < found["correlation"]["high"]


def test_training_is_a_function_of_the_seed() -> None:
    episodes = true_episodes(squares([[5] * 4], shift=1), 4, seed=0, view=VIEW)
    film = CLIPS.pictures(CLIPS.clips[0])
    one, same, other = (
        InverseModel(episodes, seed=seed, how=Fitting(updates=3, batch=4)).actions(film) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_clips_are_left_out_of_what_is_learned_from() -> None:
    source = squares([[13] * 8])
    ids = [clip.episode for clip in CLIPS.clips]
    assert true_episodes(source, 8, seed=0, view=VIEW, without=set(ids)) == []
    assert len(true_episodes(source, 8, seed=0, view=VIEW, without=set(ids[:3]))) == 5
    with pytest.raises(UserError, match="two pictures or more"):
        InverseModel([], seed=0)
