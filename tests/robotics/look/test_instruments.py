"""The instruments say what the action is: directions, lengths and openings measured in the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_robotics.look.instruments import (
    BEYOND,
    GRIP,
    MOVE,
    TURN,
    ActionScale,
    draw_instruments,
    instruments_size,
)
from selfflow_robotics.look.lettering import INK
from selfflow_robotics.robot_episode import ACTION_NAMES

SCALE = ActionScale((0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0), "a test")


def where(action: list[float], colour: tuple[int, int, int], size: float = 1.0) -> np.ndarray:
    """``(n, 2)`` (x, y) of the pixels of about that colour."""
    picture = np.asarray(draw_instruments(np.array(action, np.float32), ACTION_NAMES, SCALE, size)).astype(int)
    return np.argwhere(np.abs(picture - colour).max(axis=-1) < 40)[:, ::-1]


def centre(size: float = 1.0) -> np.ndarray:
    """Where arrows begin: the dot that no motion leaves."""
    return where([0, 0, 0, 0, 0, 0, 1], MOVE, size).mean(axis=0)


def arrow(x: float, y: float, colour: tuple[int, int, int] = MOVE, size: float = 1.0) -> np.ndarray:
    """The vector (right, up) of the pixel farthest from the centre, in pixels."""
    away = where([x, y, 0, 0, 0, 0, 1], colour, size) - centre(size)
    tip = away[np.argmax(np.hypot(*away.T))]
    return np.array([tip[0], -tip[1]])


@pytest.mark.parametrize(
    ("action", "direction"),
    [((0.02, 0), (0, 1)), ((-0.02, 0), (0, -1)), ((0, 0.02), (-1, 0)), ((0, -0.02), (1, 0))],
    ids=["ahead is up", "back is down", "left is left", "right is right"],
)
def test_directions_are_those_seen_from_above(action: tuple[float, float], direction: tuple[int, int]) -> None:
    tip = arrow(*action)
    assert np.allclose(tip / np.hypot(*tip), direction, atol=0.08)


@given(st.floats(0, 2 * math.pi), st.floats(0.35, 0.99), st.sampled_from([1.0, 2.0]))
def test_the_arrow_s_direction_and_length_are_the_action_s(angle: float, share: float, size: float) -> None:
    full = np.hypot(*arrow(0.02, 0, size=size))
    tip = arrow(0.02 * share * math.cos(angle), 0.02 * share * math.sin(angle), size=size)
    expected = np.array([-math.sin(angle), math.cos(angle)]) * share * full  # y to the left, x up
    assert np.hypot(*(tip - expected)) < 2 * size + 0.5


def test_longer_than_the_scale_is_red_and_ends_at_the_rim() -> None:
    assert len(where([0.05, 0.05, 0, 0, 0, 0, 1], MOVE)) == 0
    rim = np.hypot(*arrow(0.02, 0))
    assert np.hypot(*arrow(0.05, 0.05, BEYOND)) == pytest.approx(rim, abs=1.5)
    assert len(where([0.02, 0, 0.02, 0, 0, 0, 1], BEYOND)) == 0  # just full is not beyond


def test_bars_grow_up_for_plus_in_proportion_and_in_their_places() -> None:
    zero = centre()[1]
    for column, colour in ((2, MOVE), (3, TURN), (4, TURN), (5, TURN)):
        action = [0.0, 0, 0, 0, 0, 0, 1]
        action[column] = SCALE.limits[column]
        full = where(action, colour)
        full = full[full[:, 0] > 62]  # right of the compass
        assert full[:, 1].max() == pytest.approx(zero, abs=1.5)
        action[column] /= -2
        half = where(action, colour)
        half = half[half[:, 0] > 62]
        assert half[:, 1].min() == pytest.approx(zero, abs=1.5)
        assert np.ptp(half[:, 1]) == pytest.approx(np.ptp(full[:, 1]) / 2, abs=1.5)
        assert half[:, 0].mean() == pytest.approx(full[:, 0].mean(), abs=0.6)
    places = [where(list(np.eye(7)[c] * 0.02 + np.eye(7)[6]), TURN)[:, 0].mean() for c in (3, 4, 5)]
    assert places == sorted(places) and min(np.diff(places)) > 10  # roll, pitch, yaw from left to right


@given(st.floats(0, 1))
def test_the_gripper_s_fingers_are_as_far_apart_as_it_is_open(opening: float) -> None:
    def gap(value: float) -> int:
        pixels = where([0, 0, 0, 0, 0, 0, value], GRIP)
        low = pixels[pixels[:, 1] == pixels[:, 1].max() - 3][:, 0]  # a row through the fingers
        return int(np.diff(np.sort(low)).max() - 1)

    assert gap(opening) == pytest.approx(opening * gap(1.0), abs=2)
    assert gap(0.0) == 0 and gap(1.0) > 25


@pytest.mark.parametrize("size", [1.0, 1.3, 2.0, 2.5])
def test_the_gripper_s_number_stands_under_its_middle(size: float) -> None:
    fingers = where([0, 0, 0, 0, 0, 0, 0.5], GRIP, size)
    number = where([0, 0, 0, 0, 0, 0, 0.5], INK, size)
    assert len(number) > 10 and number[:, 1].min() > fingers[:, 1].max()
    assert (number[:, 0].min() + number[:, 0].max()) / 2 == pytest.approx(fingers[:, 0].mean(), abs=2 * size)
    other = where([0, 0, 0, 0, 0, 0, 0.81], INK, size)
    assert not np.array_equal(number, other)


def test_a_gripper_beyond_its_range_stays_in_its_place() -> None:
    assert len(where([0, 0, 0, 0, 0, 0, 7], GRIP)) > 100
    assert np.array_equal(where([0, 0, 0, 0, 0, 0, 7], GRIP), where([0, 0, 0, 0, 0, 0, 1], GRIP))
    assert np.array_equal(where([0, 0, 0, 0, 0, 0, -3], GRIP), where([0, 0, 0, 0, 0, 0, 0], GRIP))


@pytest.mark.parametrize("column", range(7))
def test_what_is_not_finite_is_crossed_out(column: int) -> None:
    action = [0.01, 0.0, 0.01, 0.05, 0.05, 0.05, 0.5]
    assert len(where(action, BEYOND)) == 0
    for value in (math.nan, math.inf):
        action[column] = value
        assert 5 < len(where(action, BEYOND)) < 60


def test_other_columns_are_bars() -> None:
    names = tuple(f"joint_{i}" for i in range(14))
    scale = ActionScale((1.0,) * 14, "a test")
    assert instruments_size(names)[0] == 14 * 17
    picture = np.asarray(draw_instruments(np.eye(14)[5], names, scale)).astype(int)
    columns = np.argwhere(np.abs(picture - TURN).max(axis=-1) < 40)[:, 1]
    assert columns.mean() == pytest.approx(5.5 * 17, abs=1)


def test_the_scale_is_the_99th_percentile_over_steps() -> None:
    actions = np.zeros((101, 7))
    actions[:, 0] = np.arange(101)  # 0 to 100: the 99th percentile of these is 99
    actions[:, 4] = -2.0 * np.arange(101)
    actions[:, 6] = 1
    assert ActionScale.of(actions, ACTION_NAMES, "").limits == pytest.approx((99, 99, 99, 198, 198, 198, 1))
    actions[:, 1] = actions[:, 0] * 0.75  # 3-4-5: the arrow is 1.25 as long
    assert ActionScale.of(actions, ACTION_NAMES, "").limits[:3] == pytest.approx((123.75,) * 3)
    actions[50, 0] = np.nan
    assert np.isfinite(ActionScale.of(actions, ACTION_NAMES, "").limits).all()


def test_columns_that_never_move_have_no_scale_and_can_be_drawn() -> None:
    scale = ActionScale.of(np.zeros((4, 7)), ACTION_NAMES, "")
    assert scale.limits == (0,) * 7
    assert scale.share(np.zeros(7), 0) == 0 and scale.share(np.full(7, -3.0), 0) == -1
    draw_instruments(np.zeros(7), ACTION_NAMES, scale)
    assert ActionScale.of(np.zeros((0, 7)), ACTION_NAMES, "").limits == (0,) * 7
