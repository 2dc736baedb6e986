"""Gripper conventions against Open-X's rule written as a loop, and controllers against sequences worked by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.gripper_control import GoogleRobotGripper, WidowXGripper
from selfflow_robotics.actions.grippers import CONVENTIONS, RelativeClosing, from_house, gripper_convention, to_house

_RELATIVE = RelativeClosing()


def _open_x(relative: list[float]) -> list[float]:
    """Open-X's rule in words: events by threshold, each held; before the first its opposite, open if there is none."""
    events = [+1 if value < -0.1 else -1 if value > 0.1 else 0 for value in relative]
    state = next((-event for event in events if event), 1)
    absolute = []
    for event in events:
        state = event or state
        absolute.append(state / 2 + 0.5)
    return absolute


@given(st.lists(st.sampled_from([0.0, 0.1, -0.1, 0.11, -0.11, 1.0, -1.0, 0.05]), min_size=1, max_size=20))
def test_relative_to_absolute_as_open_x(relative: list[float]) -> None:
    assert _RELATIVE.to_house(relative).tolist() == _open_x(relative)
    columns = np.stack([relative, relative[::-1]], axis=1)  # time first: each column is an episode of its own
    assert to_house(columns, "relative_closing")[:, 1].tolist() == _open_x(relative[::-1])


@pytest.mark.parametrize(
    ("relative", "absolute"),
    [
        ([0, 0, 0, 0], [1, 1, 1, 1]),  # no event: open
        ([0, 0, 1, 0, 0], [1, 1, 0, 0, 0]),  # closes, so it was open
        ([0, -1, 0, 1], [0, 1, 1, 0]),  # opens first, so it was closed
        ([1, 1, 1, -1, -1], [0, 0, 0, 1, 1]),
        ([0.09, -0.09, 0.2, 0.0], [1, 1, 0, 0]),
    ],
)
def test_relative_to_absolute_by_hand(relative: list[float], absolute: list[float]) -> None:
    assert _RELATIVE.to_house(np.float32(relative)).tolist() == absolute


def test_the_threshold_itself_is_no_event() -> None:
    assert _RELATIVE.to_house(np.float32([0, 0.1, -0.1])).tolist() == [1, 1, 1]  # float32(0.1) > 0.1 in float64


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.sampled_from([0.0, 1.0])))
def test_absolute_comes_back_from_relative(opening: np.ndarray) -> None:
    relative = _RELATIVE.from_house(opening)
    assert set(np.unique(relative)) <= {-1, 0, 1}
    assert np.array_equal(_RELATIVE.to_house(relative), opening)


def test_absolute_to_relative_by_hand() -> None:
    assert from_house([1, 1, 0, 0, 1], "relative_closing").tolist() == [0, 0, 1, 0, -1]
    assert _RELATIVE.from_house([1, 1, 0, 0, 1]).tolist() == [0, 0, 1, 0, -1]
    assert _RELATIVE.from_house([0, 0, 1]).tolist() == [0, 0, -1]
    assert _RELATIVE.from_house([0, 0, 0]).tolist() == [1, 0, 0]  # else nothing would tell that it is closed
    assert _RELATIVE.from_house(np.zeros((0, 2))).shape == _RELATIVE.to_house(np.zeros((0, 2))).shape == (0, 2)


def test_a_long_episode_is_no_loop() -> None:
    relative = np.random.default_rng(0).choice([0.0, 1.0, -1.0], p=[0.98, 0.01, 0.01], size=1_000_000)
    before = time.process_time()
    absolute = _RELATIVE.to_house(relative)
    assert time.process_time() - before < 1  # the loop takes several times that
    assert absolute[:5000].tolist() == _open_x(relative.tolist())[:5000]


@pytest.mark.parametrize(
    ("name", "is_open", "is_closed"),
    [("absolute_opening", 1, 0), ("absolute_closing", 0, 1), ("signed_opening", 1, -1), ("signed_closing", -1, 1)],
)
@given(opening=hnp.arrays(np.float32, 5, elements=st.floats(0, 1, width=32)))
def test_step_by_step_conventions(name: str, is_open: float, is_closed: float, opening: np.ndarray) -> None:
    convention = gripper_convention(name)
    assert convention.from_house([1, 0, 0.5]).tolist() == [is_open, is_closed, (is_open + is_closed) / 2]
    assert convention.to_house([is_open, is_closed]).tolist() == [1, 0]
    back = convention.to_house(convention.from_house(opening))
    assert back.dtype == np.float32 and np.allclose(back, opening, rtol=0, atol=2.0**-24)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UserError, match="'widowx'; there are absolute_opening, .*relative_closing"):
        gripper_convention("widowx")
    assert all(name == convention.name for name, convention in CONVENTIONS.items())
    with pytest.raises(UserError, match="time axis"):
        gripper_convention("signed_opening").to_house(1.0)


def _run(gripper: GoogleRobotGripper | WidowXGripper, openings: list[float]) -> list[float]:
    gripper.reset()
    return [gripper.step(opening) for opening in openings]


def test_google_robot_by_change() -> None:
    # Open, open, closes at step 2: fifteen commands of +1, then nothing changes any more.
    gripper = GoogleRobotGripper()
    assert _run(gripper, [1, 1] + [0] * 20) == [0, 0] + [1] * 15 + [0] * 5
    assert _run(gripper, [0, 0] + [1] * 16) == [0, 0] + [-1] * 15 + [0]  # reset forgets the last episode
    assert _run(gripper, [0] * 3) == [0] * 3  # closed from its first step on: no change, no command


def test_google_robot_ignores_what_falls_into_a_repeat() -> None:
    assert _run(GoogleRobotGripper(sticky=4), [1, 0, 1, 1, 1, 1, 0, 0]) == [0, 1, 1, 1, 1, 0, 1, 1]


def test_google_robot_passes_small_changes_and_repeats_large_ones_as_they_are() -> None:
    commands = _run(GoogleRobotGripper(sticky=2), [1, 0.75, 0.125, 0.125, 0.125, 0.625])
    assert commands == [0, 0.25, 0.625, 0.625, 0, -0.5]


def test_google_robot_without_repeating() -> None:
    assert _run(GoogleRobotGripper(sticky=1), [1, 0, 0, 1, 0]) == [0, 1, 0, -1, 1]


def test_google_robot_by_level() -> None:
    gripper = GoogleRobotGripper(sticky=3, by="level")
    # +1 for three steps from step 0 on; the opening at steps 1 and 2 is not obeyed, that at step 3 is.
    assert _run(gripper, [0, 1, 1, 1, 0, 0, 0.5]) == [1, 1, 1, -1, -1, -1, 0]


def test_widowx() -> None:
    assert _run(WidowXGripper(), [1, 0.51, 0.5, 0]) == [1, 1, -1, -1]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match="at least 1, not 0"):
        GoogleRobotGripper(sticky=0)
    with pytest.raises(UserError, match="'speed'"):
        GoogleRobotGripper(by="speed")  # type: ignore[arg-type]
