"""Rotations against scipy, against closed forms, and where angles are not unique."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from selfflow_mm.errors import UserError
from selfflow_robotics.actions import rotations as r

_ANGLE = st.one_of(
    st.floats(-np.pi, np.pi),
    st.sampled_from([0.0, np.pi, -np.pi, np.pi / 2, -np.pi / 2, 1e-9, -1e-300, np.pi - 1e-9, np.pi / 2 - 1e-9]),
)
_VECTORS = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 4), st.just(3)), elements=_ANGLE)


def _matrices(rotation: Rotation, like: np.ndarray) -> np.ndarray:
    return rotation.as_matrix().reshape(*like.shape[:-1], 3, 3)


@given(_VECTORS)
def test_from_rpy_as_scipy(rpy: np.ndarray) -> None:
    true = _matrices(Rotation.from_euler("xyz", rpy.reshape(-1, 3)), rpy)
    assert np.allclose(r.rpy_to_matrix(rpy), true, atol=1e-14)
    assert np.allclose(r.axis_angle_to_matrix(r.rpy_to_axis_angle(rpy)), true, atol=1e-14)
    back = r.quaternion_to_rpy(r.rpy_to_quaternion(rpy))
    assert np.allclose(_matrices(Rotation.from_euler("xyz", back.reshape(-1, 3)), back), true, atol=1e-11)
    assert np.all(np.abs(back) <= [np.pi, np.pi / 2, np.pi])


@given(_VECTORS)
def test_from_axis_angle_as_scipy(axis_angle: np.ndarray) -> None:
    true = _matrices(Rotation.from_rotvec(axis_angle.reshape(-1, 3)), axis_angle)
    assert np.allclose(r.axis_angle_to_matrix(axis_angle), true, atol=1e-14)
    assert np.allclose(r.rpy_to_matrix(r.axis_angle_to_rpy(axis_angle)), true, atol=1e-11)
    assert np.allclose(
        r.axis_angle_to_matrix(r.matrix_to_axis_angle(true)), true, atol=1e-7
    )  # 1e-16 of a matrix near pi


@given(_VECTORS)
def test_axis_angle_comes_back(axis_angle: np.ndarray) -> None:
    length = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    short = axis_angle * np.where(length > 3, 3 / np.where(length > 0, length, 1), 1)  # unique below pi
    assert np.allclose(r.quaternion_to_axis_angle(r.axis_angle_to_quaternion(short)), short, rtol=1e-13, atol=1e-300)
    assert np.allclose(r.matrix_to_axis_angle(r.axis_angle_to_matrix(short)), short, atol=1e-12)
    assert np.allclose(r.rpy_to_axis_angle(r.axis_angle_to_rpy(short)), short, atol=1e-11)


@given(hnp.arrays(np.float64, (3, 3), elements=st.floats(-np.pi, np.pi)))
def test_rpy_comes_back_away_from_gimbal_lock(rpy: np.ndarray) -> None:
    rpy[:, 1] *= 0.45  # |pitch| <= 1.41
    for back in (
        r.matrix_to_rpy(r.rpy_to_matrix(rpy)),
        r.axis_angle_to_rpy(r.rpy_to_axis_angle(rpy)),
    ):
        assert np.allclose(np.exp(1j * back), np.exp(1j * rpy), atol=1e-12)  # -pi and pi are one angle


@given(_VECTORS)
def test_quaternions_as_scipy(axis_angle: np.ndarray) -> None:
    rotation = Rotation.from_rotvec(axis_angle.reshape(-1, 3))
    ours = r.axis_angle_to_quaternion(axis_angle)
    theirs = r.wxyz_from_xyzw(rotation.as_quat().reshape(*axis_angle.shape[:-1], 4))
    assert np.allclose(np.abs(np.sum(ours * theirs, axis=-1)), 1, atol=1e-14)
    assert np.all(ours[..., 0] >= 0)
    assert np.allclose(r.matrix_to_quaternion(r.quaternion_to_matrix(ours)), ours, atol=1e-8)


@pytest.mark.parametrize("axis", range(3))
def test_closed_forms(axis: int) -> None:
    quarter = np.zeros(3)
    quarter[axis] = np.pi / 2
    expected = [
        [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    ]
    assert np.allclose(r.rpy_to_matrix(quarter), expected[axis], atol=1e-15)
    assert np.allclose(r.rpy_to_axis_angle(quarter), quarter, atol=1e-15)
    half_turn = -np.concatenate([[0.0], quarter / (np.pi / 2)])  # w exactly 0: the positive axis is answered
    assert np.allclose(r.quaternion_to_axis_angle(half_turn), 2 * quarter, atol=1e-15)


def test_the_order_of_axes_is_that_of_simpler() -> None:
    # transforms3d.euler.euler2mat(0.1, 0.2, 0.3), axes "sxyz", from its documented formula Rz Ry Rx.
    def turn(axis: int, angle: float) -> np.ndarray:
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        return matrix

    assert np.allclose(r.rpy_to_matrix([0.1, 0.2, 0.3]), turn(2, 0.3) @ turn(1, 0.2) @ turn(0, 0.1), atol=1e-15)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_gimbal_lock_answers_roll_0(pitch: float) -> None:
    back = r.quaternion_to_rpy(r.rpy_to_quaternion([0.4, pitch, 0.9]))
    assert abs(back[0]) < 1e-15 and back[1] == pytest.approx(pitch, abs=1e-12)
    assert back[2] == pytest.approx(0.9 - np.sign(pitch) * 0.4, abs=1e-12)


def test_angle_0_is_exact() -> None:
    assert np.array_equal(r.rpy_to_axis_angle(np.zeros((2, 3))), np.zeros((2, 3)))
    assert np.array_equal(r.axis_angle_to_rpy(np.zeros(3)), np.zeros(3))
    assert np.array_equal(r.axis_angle_to_quaternion([0, 0, 0]), [1, 0, 0, 0])
    tiny = np.array([3e-200, 0, -1e-200])
    assert np.array_equal(r.quaternion_to_axis_angle(r.axis_angle_to_quaternion(tiny)), tiny)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(UserError, match=r"\(\.\.\., 3\), they have \(2, 4\)"):
        r.rpy_to_matrix(np.zeros((2, 4)))
    with pytest.raises(UserError, match="zeros"):
        r.quaternion_to_rpy(np.zeros(4))
    with pytest.raises(UserError, match="matrices"):
        r.matrix_to_rpy(np.zeros((3, 4)))
