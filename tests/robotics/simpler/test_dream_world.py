"""Suites in a world model whose truth is known: a spot that actions move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.simpler import trials
from selfflow_robotics.simpler.conventions import PRESETS
from selfflow_robotics.simpler.crew import HereCrew
from selfflow_robotics.simpler.dream_world import DreamWorld, judged, starts_of_run, tabletop_start
from selfflow_robotics.simpler.films import first_picture
from selfflow_robotics.simpler.runner import Acted, RunOptions, act_trials, start_message
from tests.robotics.dreams.dots import DotWorld, place, spot
from tests.robotics.simpler.rows import rows, settings, write_run


class Left:
    """Moves the spot ten pixels to the left per step... in the house's actions: y by half a unit."""

    about = PolicyAbout("left", 4, 3.0)

    def __init__(self, step: float = 0.05) -> None:
        self.step = step

    def chunks(self, requests: Any) -> np.ndarray:
        chunk = np.zeros((len(requests), 4, 7), np.float32)
        chunk[..., 1] = self.step
        return chunk


class AtColumn:
    """Done where the spot is at a column or left of it."""

    def __init__(self, column: float) -> None:
        self.column = column

    def done(self, first: np.ndarray, later: np.ndarray) -> np.ndarray:
        return np.array([place(picture)[1] <= self.column for picture in later])


def dream(judge: AtColumn, policy: Any, filmed: bool = False, **options: Any) -> Acted:
    """Trial 0 of ``pick``, from a spot at column 20; an action of 0.05 moves it by one pixel."""
    world = DreamWorld(DotWorld(), {"pick": judge}, lambda trial: (spot(10, 20), "pick coke can"))
    some = trials("tabletop", ["pick"], 1)
    (acted,) = act_trials(
        policy, some, HereCrew(world, {}), conventions=PRESETS["octo"],
        options=RunOptions(house=True, **options), filmed=[some[0].number] if filmed else (),
    )  # fmt: skip
    assert isinstance(acted, Acted)
    return acted


def test_success_is_what_the_judge_sees_at_the_last_step() -> None:
    result = dream(AtColumn(12.5), Left()).result
    assert (result.steps, result.success, result.success_any) == (80, True, True)
    assert result.instructions == ("pick coke can",)
    there_and_on = dream(AtColumn(12.5), Left(-0.05)).result
    assert (there_and_on.success, there_and_on.success_any) == (False, False)


def test_it_ends_at_the_first_success_where_that_is_asked_for() -> None:
    acted = dream(AtColumn(12.5), Left(), filmed=True, until="success")
    assert (acted.result.steps, acted.result.success) == (8, True)  # 20 - 8 = 12
    assert acted.frames is not None and acted.frames.shape == (9, 24, 32, 3) and len(acted.actions) == 8
    assert place(acted.frames[-1])[1] == pytest.approx(12, abs=0.3)


def test_a_trial_of_the_tabletop_begins_with_the_tabletops_own_picture() -> None:
    (trial,) = trials("tabletop", ["open_drawer"], 1)
    image, told = tabletop_start(start_message(trial, RunOptions(), False))
    assert image.shape == (256, 320, 3) and told.startswith("open ") and image.std() > 20


def test_a_trial_of_simpler_begins_with_the_first_picture_of_a_run(tmp_path: Path) -> None:
    two = trials("widowx", ["stack_cube"], 2)
    write_run(tmp_path, rows(two[:1]), settings("widowx"))
    first_picture(tmp_path, two[0].number).parent.mkdir()
    Image.fromarray(spot(10, 20)).save(first_picture(tmp_path, two[0].number), quality=95)
    find = starts_of_run(tmp_path)
    image, told = find(start_message(two[0], RunOptions(), False))
    assert told == "do stack_cube" and place(image) == pytest.approx([10, 20], abs=0.5)
    with pytest.raises(UserError, match=f"no trial {two[1].number} with a first picture"):
        find(start_message(two[1], RunOptions(), False))


def test_tasks_without_a_judge_are_refused_with_those_that_have_one() -> None:
    judged(trials("tabletop", ["pick", "close_drawer"]), ["pick", "close_drawer"])
    with pytest.raises(UserError, match="'place_in_drawer' cannot be judged in a dream; leave it out: --tasks pick"):
        judged(trials("tabletop", ["pick", "place_in_drawer"]), ["pick", "open_drawer"])
