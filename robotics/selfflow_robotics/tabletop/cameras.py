"""Pinhole cameras of the tabletop: aiming one, base frame to pixels and back.

Pixel (column, row) covers [column, column + 1) x [row, row + 1); its ray goes through the middle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfflow_mm.errors import UserError

from .shapes import Camera


def look_at(place: Sequence[float], target: Sequence[float], up: Sequence[float] = (0.0, 0.0, 1.0)) -> np.ndarray:
    """``(3, 3)`` turn of a camera at ``place`` that has ``target`` in the middle of its picture and ``up`` upwards.

    Raises:
        UserError: if the target is where the camera is, or straight above or below it as ``up`` counts.
    """
    ahead = np.subtract(target, place, dtype=np.float64)
    right = np.cross(ahead, up)
    if not np.linalg.norm(right) > 1e-9 * np.linalg.norm(up):
        raise UserError(f"a camera at {tuple(place)} cannot look at {tuple(target)} with {tuple(up)} upwards")
    ahead /= np.linalg.norm(ahead)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(ahead, right), ahead], axis=1)


def focal_length(camera: Camera, height: int) -> float:
    """In pixels; pixels are square."""
    return float(0.5 * height / np.tan(0.5 * camera.fov))


def project(camera: Camera, points: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the base frame fall in the picture.

    Args:
        points: ``(..., 3)`` metres.

    Returns:
        ``(..., 2)`` pixels (column, row), fractions allowed and possibly outside the picture, and ``(...)`` depth in
        metres along the optical axis. A point behind the camera has a depth <= 0 and meaningless pixels, in its plane
        infinite or NaN ones.
    """
    seen = (np.asarray(points, np.float64) - camera.place) @ camera.turn
    depth = seen[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = seen[..., :2] / depth[..., None] * focal_length(camera, height)
    return pixels + (0.5 * width, 0.5 * height), depth


def unproject(camera: Camera, pixels: np.ndarray, depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Project's inverse: ``(..., 3)`` points from ``(..., 2)`` pixels (column, row) and ``(...)`` depth."""
    depth = np.asarray(depth, np.float64)[..., None]
    across = (np.asarray(pixels, np.float64) - (0.5 * width, 0.5 * height)) / focal_length(camera, height)
    seen = np.concatenate([across * depth, depth], axis=-1)
    return seen @ camera.turn.T + camera.place
