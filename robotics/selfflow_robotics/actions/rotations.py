"""Rotations as roll-pitch-yaw, axis-angle, quaternions and matrices, every conversion beside its inverse.

All functions take arrays with any leading axes and compute and answer in float64. Conventions:

- **rpy** ``(..., 3)``: roll, pitch, yaw in radians about the *fixed* axes x, y, z in this order, so that
  ``R = Rz(yaw) Ry(pitch) Rx(roll)`` (extrinsic xyz, the same as intrinsic zyx; transforms3d's default ``sxyz``, which
  SIMPLER's evaluators use on RT-1's ``rotation_delta``; ``Rotation.from_euler("xyz", rpy)`` in scipy).
- **axis_angle** ``(..., 3)``: axis times angle in radians (a rotation vector), SIMPLER's form; angle in [0, pi].
- **quaternion** ``(..., 4)``: w, x, y, z as in sapien and SIMPLER's ``eef_pos``. RT-1 stores x, y, z, w.
- **matrix** ``(..., 3, 3)``: columns are the turned axes.

Not unique, and what is answered: q and -q are one rotation (w >= 0; at w = 0 the first of x, y, z that is not 0 is
positive, which also picks the axis of a turn by pi); at pitch = +-pi/2 only yaw -+ roll is defined (roll is 0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from selfflow_mm.errors import UserError

__all__ = [
    "matrix_to_quaternion",
    "matrix_to_axis_angle",
    "matrix_to_rpy",
    "quaternion_to_matrix",
    "quaternion_to_axis_angle",
    "quaternion_to_rpy",
    "axis_angle_to_matrix",
    "axis_angle_to_quaternion",
    "axis_angle_to_rpy",
    "rpy_to_matrix",
    "rpy_to_quaternion",
    "rpy_to_axis_angle",
    "wxyz_from_xyzw",
    "xyzw_from_wxyz",
]

# Below it the split between roll and yaw is rounding noise of the quaternion (1e-16) and not information.
_GIMBAL_LOCK = 1e-12


def rpy_to_quaternion(rpy: ArrayLike) -> np.ndarray:
    """``(..., 3)`` -> ``(..., 4)``: the product qz(yaw) qy(pitch) qx(roll), written out."""
    half = _checked(rpy, 3) / 2
    (cr, cp, cy), (sr, sp, sy) = np.moveaxis(np.cos(half), -1, 0), np.moveaxis(np.sin(half), -1, 0)
    return _canonical(
        np.stack(
            [
                cr * cp * cy + sr * sp * sy,
                sr * cp * cy - cr * sp * sy,
                cr * sp * cy + sr * cp * sy,
                cr * cp * sy - sr * sp * cy,
            ],
            axis=-1,
        )
    )


def quaternion_to_rpy(quaternion: ArrayLike) -> np.ndarray:
    """``(..., 4)`` -> ``(..., 3)``: roll and yaw in (-pi, pi], pitch in [-pi/2, pi/2].

    Bernardes and Viollet, "Quaternion to Euler angles conversion: A direct, general and computationally efficient
    method", PLOS ONE 2022: exact up to rounding for every rotation, where the textbook's arcsin loses half the digits
    near gimbal lock.
    """
    w, x, y, z = np.moveaxis(_unit(quaternion), -1, 0)
    a, b, c, d = w - y, x + z, y + w, z - x
    sum_size, difference_size = np.hypot(a, b), np.hypot(c, d)
    half_sum, half_difference = np.arctan2(b, a), np.arctan2(d, c)  # of yaw + roll and yaw - roll
    half_difference = np.where(difference_size < _GIMBAL_LOCK, half_sum, half_difference)  # pitch = -pi/2
    half_sum = np.where(sum_size < _GIMBAL_LOCK, half_difference, half_sum)  # pitch = pi/2
    pitch = 2 * np.arctan2(difference_size, sum_size) - np.pi / 2
    return np.stack([_wrap(half_sum - half_difference), pitch, _wrap(half_sum + half_difference)], axis=-1)


def axis_angle_to_quaternion(axis_angle: ArrayLike) -> np.ndarray:
    """``(..., 3)`` -> ``(..., 4)``; angle 0 gives 1, 0, 0, 0."""
    vector = _checked(axis_angle, 3)
    half = np.linalg.norm(vector, axis=-1, keepdims=True) / 2
    return _canonical(np.concatenate([np.cos(half), vector * (np.sinc(half / np.pi) / 2)], axis=-1))


def quaternion_to_axis_angle(quaternion: ArrayLike) -> np.ndarray:
    """``(..., 4)`` -> ``(..., 3)`` of length in [0, pi]."""
    unit = _unit(quaternion)
    w, vector = unit[..., :1], unit[..., 1:]
    size = np.linalg.norm(vector, axis=-1, keepdims=True)
    # Angle / sin(angle / 2), whose limit at angle 0 is 2.
    return vector * np.where(size > 0, 2 * np.arctan2(size, w) / np.where(size > 0, size, 1), 2.0)


def quaternion_to_matrix(quaternion: ArrayLike) -> np.ndarray:
    """``(..., 4)`` -> ``(..., 3, 3)``."""
    w, x, y, z = np.moveaxis(_unit(quaternion), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(matrix: ArrayLike) -> np.ndarray:
    """``(..., 3, 3)`` rotations -> ``(..., 4)``; not checked for being orthogonal.

    Shepperd's method: of the four ways to write the quaternion, the one that divides by its largest entry.
    """
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape[-2:] != (3, 3):
        raise UserError(f"rotation matrices need the shape (..., 3, 3), these have {m.shape}")
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = np.moveaxis(m.reshape(*m.shape[:-2], 9), -1, 0)
    ways = np.stack(
        [
            np.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], axis=-1),
            np.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], axis=-1),
            np.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], axis=-1),
            np.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], axis=-1),
        ],
        axis=-2,
    )
    best = np.argmax(np.diagonal(ways, axis1=-2, axis2=-1), axis=-1)
    return _unit(np.take_along_axis(ways, best[..., None, None], axis=-2)[..., 0, :])


def rpy_to_matrix(rpy: ArrayLike) -> np.ndarray:
    """``(..., 3)`` -> ``(..., 3, 3)``."""
    return quaternion_to_matrix(rpy_to_quaternion(rpy))


def matrix_to_rpy(matrix: ArrayLike) -> np.ndarray:
    """``(..., 3, 3)`` -> ``(..., 3)``; ranges as in :func:`quaternion_to_rpy`."""
    return quaternion_to_rpy(matrix_to_quaternion(matrix))


def axis_angle_to_matrix(axis_angle: ArrayLike) -> np.ndarray:
    """``(..., 3)`` -> ``(..., 3, 3)``."""
    return quaternion_to_matrix(axis_angle_to_quaternion(axis_angle))


def matrix_to_axis_angle(matrix: ArrayLike) -> np.ndarray:
    """``(..., 3, 3)`` -> ``(..., 3)``."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def rpy_to_axis_angle(rpy: ArrayLike) -> np.ndarray:
    """``(..., 3)`` -> ``(..., 3)``: from a policy's action to SIMPLER's command."""
    return quaternion_to_axis_angle(rpy_to_quaternion(rpy))


def axis_angle_to_rpy(axis_angle: ArrayLike) -> np.ndarray:
    """``(..., 3)`` -> ``(..., 3)``: from SIMPLER's command to a policy's action."""
    return quaternion_to_rpy(axis_angle_to_quaternion(axis_angle))


def wxyz_from_xyzw(quaternion: ArrayLike) -> np.ndarray:
    """RT-1's and scipy's order to ours, every bit kept."""
    return np.roll(_checked(quaternion, 4), 1, axis=-1)


def xyzw_from_wxyz(quaternion: ArrayLike) -> np.ndarray:
    """Our order to RT-1's and scipy's, every bit kept."""
    return np.roll(_checked(quaternion, 4), -1, axis=-1)


def _checked(values: ArrayLike, width: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != width:
        raise UserError(f"these rotations need the shape (..., {width}), they have {array.shape}")
    return array


def _unit(quaternion: ArrayLike) -> np.ndarray:
    """Of length 1, and of the two such the canonical one."""
    array = _checked(quaternion, 4)
    size = np.linalg.norm(array, axis=-1, keepdims=True)
    if np.any(size == 0):
        raise UserError("a quaternion of zeros is no rotation")
    # Stored quaternions are float32, so their length is 1 only to 1e-7.
    return _canonical(array / size)


def _canonical(quaternion: np.ndarray) -> np.ndarray:
    """Of q and -q the one whose first entry that is not 0 is positive."""
    leading = np.take_along_axis(quaternion, np.argmax(quaternion != 0, axis=-1)[..., None], axis=-1)
    return np.where(leading < 0, -quaternion, quaternion)


def _wrap(angle: np.ndarray) -> np.ndarray:
    """Into (-pi, pi]; sums of two half angles lie within (-3 pi, 3 pi)."""
    angle = np.where(angle > np.pi, angle - 2 * np.pi, angle)
    return np.where(angle <= -np.pi, angle + 2 * np.pi, angle)
