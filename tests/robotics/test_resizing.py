"""Resizing: the geometry of padding in closed form, Pillow's own result for stretching."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfflow_mm.errors import UserError
from selfflow_robotics.resizing import resize


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_padding_keeps_proportions(old_height: int, old_width: int, height: int, width: int) -> None:
    white = np.full((2, old_height, old_width, 3), 255, np.uint8)
    result = resize(white, (height, width))
    assert result.shape == (2, height, width, 3) and result.dtype == np.uint8
    rows, columns = np.flatnonzero(result[0, :, :, 0].any(axis=1)), np.flatnonzero(result[0, :, :, 0].any(axis=0))
    inner = result[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.all(inner == 255) and int(result[0].sum()) == 255 * inner.size
    assert len(rows) == height or len(columns) == width
    scale = min(height / old_height, width / old_width)
    assert abs(len(rows) - max(1, scale * old_height)) < 1 and abs(len(columns) - max(1, scale * old_width)) < 1
    assert abs(rows[0] - (height - 1 - rows[-1])) <= 1 and abs(columns[0] - (width - 1 - columns[-1])) <= 1


def test_stretching_is_pillow_s() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize((20, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(resize(picture, (16, 20), "stretch"), expected)
    assert not np.array_equal(resize(picture, (16, 20), "pad"), expected)


def test_simpler_s_camera_fills_rt_1_s_picture() -> None:
    white = np.full((512, 640, 3), 255, np.uint8)
    assert np.all(resize(white, (256, 320)) == 255)
    same = np.zeros((256, 320, 3), np.uint8)
    assert resize(same, (256, 320)) is same


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(UserError, match="uint8 RGB"):
        resize(np.zeros((4, 4, 1), np.uint8), (2, 2))
    with pytest.raises(UserError, match="not by 'crop'"):
        resize(np.zeros((4, 4, 3), np.uint8), (2, 2), "crop")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="0 x 2"):
        resize(np.zeros((4, 4, 3), np.uint8), (0, 2))
