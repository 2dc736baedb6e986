"""Chains of transforms, their JSON, and SIMPLER's commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.gripper_control import GoogleRobotGripper
from selfflow_robotics.actions.normalise import RT1_PUBLISHED, normaliser
from selfflow_robotics.actions.simpler import SimplerControl, to_simpler
from selfflow_robotics.actions.transform import AxisAngle, Compose, GripperColumn, transform_from_dict

_STEPS = st.integers(1, 12)


@st.composite
def _house(draw: st.DrawFn) -> np.ndarray:
    length = draw(_STEPS)
    motion = draw(hnp.arrays(np.float64, (length, 6), elements=st.floats(-1.5, 1.5)))
    gripper = draw(hnp.arrays(np.float64, (length, 1), elements=st.sampled_from([0.0, 1.0])))
    return np.concatenate([motion, gripper], axis=1)


@given(_house(), st.sampled_from(["google_robot", "widowx"]))
def test_simpler_s_commands_and_back(actions: np.ndarray, robot: str) -> None:
    transform = to_simpler(robot)
    commands = transform.forward(actions)
    assert np.array_equal(commands[:, :3], actions[:, :3])
    true = Rotation.from_euler("xyz", actions[:, 3:6]).as_matrix()
    assert np.allclose(Rotation.from_rotvec(commands[:, 3:6]).as_matrix(), true, atol=1e-13)
    back = transform.inverse(commands)
    assert np.allclose(back, actions, atol=1e-11) and np.array_equal(back[:, 6], actions[:, 6])


def test_grippers_of_both_robots() -> None:
    actions = np.zeros((5, 7), np.float32)
    actions[:, 6] = [1, 1, 0, 0, 1]
    google, widowx = to_simpler("google_robot").forward(actions), to_simpler("widowx").forward(actions)
    assert google.dtype == np.float32
    assert google[:, 6].tolist() == [0, 0, 1, 0, -1] and widowx[:, 6].tolist() == [1, 1, -1, -1, 1]


def test_control_step_by_step() -> None:
    control = SimplerControl("google_robot")
    actions = np.tile([0.01, 0.02, 0.03, 0.0, 0.0, 0.5, 1.0], (3, 1))
    actions[1:, 6] = 0
    for _ in range(2):  # the second episode begins like the first
        control.reset()
        commands = [control.step(action) for action in actions]
        assert np.allclose(commands[0], [0.01, 0.02, 0.03, 0, 0, 0.5, 0], atol=1e-15)
        assert [command[6] for command in commands] == [0, 1, 1]
    widowx = SimplerControl("widowx")
    assert [widowx.step(action)[6] for action in actions] == [1, -1, -1]
    assert SimplerControl("google_robot", GoogleRobotGripper(by="level")).step(actions[0])[6] == -1


@given(_house())
def test_a_whole_chain_comes_back_also_through_json(actions: np.ndarray) -> None:
    chain = Compose((to_simpler("widowx"), normaliser("quantile", RT1_PUBLISHED, gripper="identity", clip=None)))
    again = transform_from_dict(json.loads(json.dumps(chain.to_dict())))
    assert again == chain
    assert np.array_equal(again.forward(actions), chain.forward(actions))
    assert np.allclose(again.inverse(chain.forward(actions)), actions, atol=1e-11)


def test_the_inverse_goes_from_the_last_to_the_first() -> None:
    # These two do not commute: the normaliser's gripper is not the converted one's.
    chain = Compose((GripperColumn("signed_closing"), normaliser("quantile", RT1_PUBLISHED)))
    actions = np.zeros((2, 7))
    actions[:, 6] = [1, 0]
    assert chain.forward(actions)[:, 6].tolist() == [-3, 1]
    assert chain.inverse(chain.forward(actions))[:, 6].tolist() == [1, 0]


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(UserError, match="no transform 'warp'; there are compose"):
        transform_from_dict({"transform": "warp"})
    with pytest.raises(UserError, match="'gripper' lacks 'column'"):
        transform_from_dict({"transform": "gripper", "convention": "signed_opening"})
    with pytest.raises(UserError, match="no gripper convention"):
        GripperColumn("loose")
    with pytest.raises(UserError, match="shape"):
        AxisAngle().forward(np.zeros((2, 4)))
    with pytest.raises(UserError, match="google_robot and widowx, not 'panda'"):
        to_simpler("panda")
    with pytest.raises(UserError, match="7 numbers"):
        SimplerControl("widowx").step(np.zeros((2, 7)))
