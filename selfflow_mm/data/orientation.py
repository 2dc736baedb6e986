"""Turning pictures upright: the display matrix of ISO/IEC 14496-12 (8.3.2) and the ``rotate`` tag."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream


def display_matrix(frame: Any, stream: VideoStream) -> np.ndarray:
    """The 2 x 2 turn of a picture; from the display matrix, else from a ``rotate`` tag (degrees clockwise)."""
    for data in frame.side_data:
        if data.type == SideDataType.DISPLAYMATRIX:
            values = np.frombuffer(bytes(data), dtype="<i4")[[0, 1, 3, 4]].reshape(2, 2)
            return np.sign(np.where(np.abs(values) > 0.5 * np.abs(values).max(), values, 0)).astype(np.float64)
    angle = stream.metadata.get("rotate", "0")
    quarter = round(float(angle) / 90) % 4 if angle.lstrip("-").replace(".", "", 1).isdigit() else 0
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])  # 90 degrees clockwise
    return np.linalg.matrix_power(turn, quarter)


def orient(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply the turn of a display matrix ``[[a, b], [c, d]]``: a pixel at (x, y) goes to (ax + cy, bx + dy)."""
    (a, b), (c, d) = matrix
    if abs(a) >= abs(c):
        turned, columns, rows = pixels, a, d
    else:
        turned, columns, rows = pixels.transpose(1, 0, 2), c, b
    turned = turned[:, ::-1] if columns < 0 else turned
    turned = turned[::-1] if rows < 0 else turned
    return np.ascontiguousarray(turned)
