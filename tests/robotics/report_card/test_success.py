"""Detectors of success: what they learn from the ends of true episodes."""

from __future__ import annotations

import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.report_card.held_out import View
from selfflow_robotics.report_card.networks import Fitting
from selfflow_robotics.report_card.success import SuccessDetector, task_of, train_detector
from selfflow_robotics.report_card.true_frames import TrueEpisode, true_episodes
from tests.robotics.report_card.toys import HEIGHT, WIDTH, Model, squares

VIEW = View(HEIGHT, WIDTH)


def rightward(count: int, shift: int) -> list[TrueEpisode]:
    return true_episodes(squares([[10] * count], shift, rightward=True), count, seed=0, view=VIEW)


@pytest.fixture(scope="module")
def detector() -> SuccessDetector:
    return train_detector("open_drawer", rightward(24, 0), rightward(12, 1), seed=0, how=Fitting(updates=60, batch=16))


def test_the_end_is_told_from_what_comes_before(detector: SuccessDetector) -> None:
    accuracy = detector.accuracy
    assert (accuracy["trained_on_episodes"], accuracy["held_out_episodes"]) == (18, 12)
    assert accuracy["ends_recognised"] > 0.9 and accuracy["episodes_taken_for_done_too_early"] < 0.2
    assert 0 < accuracy["ends_recognised_interval"][0] < accuracy["ends_recognised"]


def test_films_are_judged_as_the_truth_is(detector: SuccessDetector) -> None:
    source = squares([[10] * 6], 2, rightward=True)
    for index in range(6):
        episode = source.read(0, index)
        first = episode.images["front"].read([0])[0]
        film = Model("right").imagine(first[None], episode.actions[None, :-1], seeds=[0])[0]
        done = detector.done(first, film)
        assert done[-1] and not done[:4].any()
        assert not detector.done(first, Model("copies").imagine(first[None], episode.actions[None], seeds=[0])[0]).any()


def test_tasks_by_instruction() -> None:
    assert task_of("open top drawer") == "open_drawer" and task_of("move apple near sponge") == "move_near"
    assert task_of("fold the towel") is None and task_of("") is None


def test_too_few_or_failed_episodes() -> None:
    few = rightward(5, 0)
    with pytest.raises(UserError, match="there are 5 and 5"):
        train_detector("open_drawer", few, few, seed=0)
    with pytest.raises(UserError, match="there are 0 and 0"):
        train_detector("pick", rightward(12, 0), few, seed=0)
