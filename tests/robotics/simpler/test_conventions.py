"""A policy's numbers as commands, and what it sees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.robot_episode import ACTION_NAMES
from selfflow_robotics.simpler.conventions import PRESETS, Control, PolicyConventions, preset
from selfflow_robotics.simpler.states import check_state, state_of

ABOUT = PolicyAbout("some", 8, 3.0)


def actions(gripper: list[float], turn: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return np.array([[0.01, -0.02, 0.03, *turn, value] for value in gripper])


def gripper_of(conventions: PolicyConventions, values: list[float], robot: str = "google_robot_static") -> list[float]:
    commands, _ = Control(ABOUT, conventions, robot).commands(actions(values))
    return [float(value) for value in commands[:, 6]]


def test_octos_gripper_is_that_of_simplers_octo_model() -> None:
    """By hand, after its octo_model.py: the change of the opening, and a large one repeated for 15 steps in all."""
    closing = [1.0, 1.0, 0.0] + [0.0] * 20
    assert gripper_of(PRESETS["octo"], closing) == [0, 0] + [1] * 15 + [0] * 6


def test_levels_stick_and_are_told_again() -> None:
    assert gripper_of(PRESETS["openpi"], [1.0] * 16 + [0.0] * 17) == [-1] * 30 + [1] * 3
    assert gripper_of(PRESETS["tabletop"], [1.0, 0.0, 1.0]) == [-1, 1, -1]


def test_rt_1_is_handed_on_as_it_is() -> None:
    """SIMPLER's rt1_model.py: ``rotation_delta`` is taken for a rotation vector, and the closedness for the command."""
    turn = (0.3, -0.2, 0.1)
    commands, _ = Control(ABOUT, PRESETS["rt-1"], "google_robot_static").commands(actions([0.7, -0.4], turn))
    np.testing.assert_allclose(commands, actions([0.7, -0.4], turn))


def test_rt_1_on_the_widowx_is_inverted_and_made_two_states() -> None:
    """The same file: ``2 (-closedness > 0) - 1``."""
    assert gripper_of(PRESETS["rt-1-widowx"], [0.9, 0.1, -0.1, -1.0], "widowx") == [-1, -1, 1, 1]


@given(st.floats(-1.5, 1.5), st.floats(0.1, 3.0))
def test_a_turn_about_one_axis_is_that_axis_times_the_angle(angle: float, scale: float) -> None:
    for axis in range(3):
        turn = tuple(angle if axis == i else 0.0 for i in range(3))
        commands, _ = Control(ABOUT, preset("ours", scale=scale), "widowx").commands(actions([1.0], turn))
        np.testing.assert_allclose(commands[0, 3:6], np.array(turn) * scale, atol=1e-9)
        np.testing.assert_allclose(commands[0, :3], np.array([0.01, -0.02, 0.03]) * scale)


def test_a_world_model_gets_the_actions_themselves() -> None:
    given = actions([0.3, 0.9], (0.1, 0.2, 0.3))
    commands, terminate = Control(ABOUT, PRESETS["octo"], "house").commands(given)
    np.testing.assert_array_equal(commands, given)
    assert terminate is None


def test_the_last_column_may_say_that_it_is_done() -> None:
    about = PolicyAbout("done", 2, 3.0, (*ACTION_NAMES, "terminate"))
    values = np.hstack([actions([1.0, 1.0]), [[0.2], [0.9]]])
    commands, terminate = Control(about, PRESETS["ours"], "widowx").commands(values)
    assert commands.shape == (2, 7) and terminate is not None and terminate.tolist() == [False, True]


def test_pictures_are_brought_to_the_policys_size() -> None:
    image = np.zeros((512, 640, 3), np.uint8)
    image[:, :320] = 255
    padded = PRESETS["openpi"].picture(image)
    assert padded.shape == (224, 224, 3) and padded[0].max() == 0  # 4:5 in a square: black above and below
    assert PRESETS["octo"].picture(image).shape == (256, 256, 3) and PRESETS["octo"].picture(image)[0, 0, 0] == 255
    assert PRESETS["ours"].picture(image) is image


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotation": "xyz"}, "'rpy' or 'axis_angle'"),
        ({"gripper": "relative_closing"}, "command, absolute_opening"),
        ({"scale": 0.0}, "above 0"),
        ({"scale": math.nan}, "above 0"),
        ({"sticky": 0}, "at least 1"),
        ({"by": "jump"}, "'change' or by 'level'"),
        ({"fit": "crop"}, "'pad' or 'stretch'"),
        ({"image_size": (0, 3)}, "at least 1"),
    ],
)
def test_what_conventions_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        preset("ours", **changes)


def test_unknown_names_and_other_columns_are_refused() -> None:
    with pytest.raises(UserError, match="there are ours, rt-1"):
        preset("theirs")
    with pytest.raises(UserError, match="arm gives a, b"):
        Control(PolicyAbout("arm", 2, 3.0, ("a", "b")), PRESETS["ours"], "widowx")


def test_the_hands_place_is_told_from_the_base() -> None:
    """A base turned by a quarter about z at (1, 2, 3); a tool one metre along the base's x, rolled by a half turn."""
    half = math.sqrt(0.5)
    moment = {
        "base_pose": np.array([1, 2, 3, half, 0, 0, half]),
        "tcp_pose": np.array([1, 3, 3.25, 0, half, half, 0]),  # a quarter about z after half a turn about x
        "gripper_closed": 0.75,
    }
    rt1 = PolicyAbout("rt1", 1, 3.0, state_names=("x", "y", "z", "qx", "qy", "qz", "qw", "gripper_closed"))
    found = state_of(rt1, moment)
    assert found is not None
    np.testing.assert_allclose(found[:3], [1, 0, 0.25], atol=1e-6)
    np.testing.assert_allclose(np.abs(found[3:7]), [1, 0, 0, 0], atol=1e-6)
    bridge = PolicyAbout("bridge", 1, 5.0, state_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"))
    told = state_of(bridge, moment)
    assert told is not None and abs(told[3]) == pytest.approx(math.pi, abs=1e-6) and told[6] == 0.25


def test_a_state_that_nobody_tells_is_none_or_an_error() -> None:
    other = PolicyAbout("other", 1, 3.0, state_names=("elbow",))
    assert state_of(other, {"tcp_pose": np.zeros(7), "base_pose": np.zeros(7)}) is None
    check_state(other)
    with pytest.raises(UserError, match="'elbow', which the simulator does not tell"):
        check_state(PolicyAbout("other", 1, 3.0, state_names=("elbow",), needs_state=True))
    dreaming = PolicyAbout("d", 1, 3.0, state_names=("x",))
    assert state_of(dreaming, {"tcp_pose": None, "base_pose": None, "gripper_closed": None}) is None
