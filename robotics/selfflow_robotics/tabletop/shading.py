"""Colours of the light, haze, and linear colours to sRGB."""

from __future__ import annotations

import numpy as np

from .compiled import kernel
from .shapes import Light

_STEPS = 16384
_WARM = np.array([1.0, 0.0, -1.0])


def lamp_colour(light: Light) -> np.ndarray:
    """``(3,)`` linear: the lamp's strength, tinted."""
    return light.strength * (1 + 0.3 * light.warmth * _WARM)


def sky_colour(light: Light) -> np.ndarray:
    """``(3,)`` linear: the sky's, tinted the other way and half as much."""
    return light.ambient * (1 - 0.15 * light.warmth * _WARM)


def wall(light: Light) -> np.ndarray:
    """``(3,)`` linear: what is seen where there is nothing, a grey wall lit like everything else."""
    return np.array([0.50, 0.53, 0.56]) * (0.4 * light.strength + 0.6 * light.ambient)


def _make_table() -> np.ndarray:
    linear = np.arange(_STEPS) / (_STEPS - 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curved).astype(np.uint8)


#: IEC 61966-2-1.
TABLE = _make_table()


@kernel
def develop(layer, clip, table, rgb):
    """Shadows, haze and the sRGB curve of ``table``: what a layer shows into ``(height, width, 3)`` uint8.

    Haze is a slight darkening with distance: 1 up to 0.7 m, 12 % less per metre from there, 0.6 from 4 m on.
    """
    light, steps, one = layer.light, np.float32(len(table) - 1), np.float32(1)
    half, zero, least = np.float32(0.5), np.float32(0), np.float32(0.6)
    value = np.empty(rgb.shape[1], np.int32)
    for row in range(clip[0], clip[1]):
        for k in range(3):
            for c in range(np.uint64(clip[2]), np.uint64(clip[3])):
                haze = min(max(np.float32(1.084) - np.float32(0.12) * layer.depth[row, c], least), one)
                found = light[k, row, c] * layer.lamp_share[row, c] + light[3 + k, row, c] * layer.open_share[row, c]
                value[c] = np.int32(min(max(found * haze, zero), one) * steps + half)
            for c in range(np.uint64(clip[2]), np.uint64(clip[3])):
                rgb[row, c, k] = table[np.uint64(value[c])]
