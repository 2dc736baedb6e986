"""Rotary positions over four axes: seconds, row, column, index.

Angles are computed in float32 from real coordinates, so tokens of different modalities and latent
rates share one time axis (that is what keeps sound and picture together).
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(
    positions: Tensor, axis_widths: tuple[int, ...], theta: float, time_rate: float
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles (Su et al. 2021, one band of frequencies per axis as in FLUX).

    Args:
        positions: ``(B, N, 4)``: seconds, row, column, index.
        axis_widths: even number of head channels given to each axis.
        theta: base of the geometric series of frequencies.
        time_rate: radians per second of the fastest frequency. At 24, tokens 0.04 s apart turn by about one radian; in
            plain seconds they would look alike.

    Returns:
        two tensors ``(B, 1, N, sum(axis_widths) / 2)`` float32.
    """
    positions = positions.float() * positions.new_tensor([time_rate, 1.0, 1.0, 1.0])
    bands = []
    for axis, width in enumerate(axis_widths):
        exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / max(width, 1)
        bands.append(positions[..., axis, None] * theta**-exponents)
    angles = torch.cat(bands, dim=-1).unsqueeze(1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring channel pairs of ``(B, heads, N, d)`` by the table's angles."""
    cos, sin = table
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
