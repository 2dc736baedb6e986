"""Pictures of one size from pictures of any."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

__all__ = ["Fit", "resize"]

Fit = Literal["pad", "stretch"]


def resize(pictures: np.ndarray, size: tuple[int, int], fit: Fit = "pad") -> np.ndarray:
    """Bilinear, with the low-pass filter that shrinking needs.

    Args:
        pictures: ``(..., h, w, 3)`` uint8.
        size: (height, width) of the result.
        fit: ``pad`` keeps proportions and lays the picture in the middle of black, as RT-1's evaluation in SIMPLER does
            (``tf.image.resize_with_pad``; that one shrinks without a low-pass filter); ``stretch`` does not keep them.

    Returns:
        ``(..., H, W, 3)`` uint8; the very pictures where they have the size already.
    """
    height, width = size
    if min(height, width) < 1:
        raise UserError(f"pictures need a height and a width of at least 1, not {height} x {width}")
    if fit not in ("pad", "stretch"):
        raise UserError(f"pictures are fitted by 'pad' or 'stretch', not by '{fit}'")
    old_height, old_width, channels = pictures.shape[-3:]
    if pictures.dtype != np.uint8 or channels != 3:
        raise UserError(f"pictures of {pictures.dtype} and {channels} channels cannot be resized; it takes uint8 RGB")
    if (old_height, old_width) == (height, width):
        return pictures
    inner_height, inner_width = height, width
    if fit == "pad":
        # Integers, as floor(old / max(old_height / height, old_width / width)) rounds 319.99999999 down.
        if old_height * width >= old_width * height:
            inner_width = max(1, old_width * height // old_height)
        else:
            inner_height = max(1, old_height * width // old_width)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    flat = pictures.reshape(-1, old_height, old_width, 3)
    result = np.zeros((len(flat), height, width, 3), np.uint8)
    for picture, out in zip(flat, result, strict=True):
        small = Pillow.fromarray(picture).resize((inner_width, inner_height), Pillow.Resampling.BILINEAR)
        out[top : top + inner_height, left : left + inner_width] = np.asarray(small)
    return result.reshape(*pictures.shape[:-3], height, width, 3)
