"""Flicker: how much the error of a reconstructed video changes from frame to frame."""

from __future__ import annotations

import math

from torch import Tensor


def flicker(output: Tensor, target: Tensor) -> float:
    """Mean absolute change of the error between successive frames, in levels of 255.

    The mean over pixels, channels and t of ``|(output[t] - output[t-1]) - (target[t] - target[t-1])|``: 0 for a
    perfect reconstruction and for an error that stands still, whatever moves in the picture. NaN for a single frame.

    Args:
        output, target: uint8 ``(T, H, W, 3)``.
    """
    if len(target) < 2:
        return math.nan
    total = 0.0
    for t in range(1, len(target)):  # frame by frame: a long clip as float would not fit into memory
        now, before = (output[i].float() - target[i].float() for i in (t, t - 1))
        total += float((now - before).abs().mean())
    return total / (len(target) - 1)
