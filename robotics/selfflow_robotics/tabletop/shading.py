"""Light on surfaces: Lambert's law, a sky, highlights, haze, and linear colours to sRGB."""

from __future__ import annotations

import numpy as np

from .shapes import Light

_STEPS = 16384
_WARM = np.array([1.0, 0.0, -1.0])


def lamp_colour(light: Light) -> np.ndarray:
    """``(3,)`` linear: the lamp's strength, tinted."""
    return light.strength * (1 + 0.3 * light.warmth * _WARM)


def sky_colour(light: Light) -> np.ndarray:
    """``(3,)`` linear: the sky's, tinted the other way and half as much."""
    return light.ambient * (1 - 0.15 * light.warmth * _WARM)


def lambert(along: np.ndarray) -> np.ndarray:
    """What the lamp gives a surface: the cosine between its normal and the lamp's direction, none from behind."""
    return np.maximum(along, np.float32(0))


def sky(up: np.ndarray) -> np.ndarray:
    """What the sky gives a surface by its normal's upward part: 1 from above, 0.5 from below."""
    return up * np.float32(0.25) + np.float32(0.75)


def highlight(half: np.ndarray, gloss: float) -> np.ndarray:
    """Blinn and Phong's highlight from the cosine between the normal and the half vector, exponent 32."""
    shine = np.clip(half, np.float32(0), np.float32(1))
    for _ in range(5):
        shine *= shine
    shine *= np.float32(0.6 * gloss)
    return shine


def haze(depth: np.ndarray) -> np.ndarray:
    """Slight darkening with distance: 1 up to 0.7 m, 12 % less per metre from there, 0.6 from 4 m on."""
    dim = depth * np.float32(-0.12)
    dim += np.float32(1.084)
    return np.clip(dim, np.float32(0.6), np.float32(1.0), out=dim)


def wall(light: Light) -> np.ndarray:
    """``(3,)`` linear: what is seen where there is nothing, a grey wall lit like everything else."""
    return np.array([0.50, 0.53, 0.56], np.float32) * np.float32(0.4 * light.strength + 0.6 * light.ambient)


def _make_table() -> np.ndarray:
    linear = np.arange(_STEPS) / (_STEPS - 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curved).astype(np.uint8)


_TABLE = _make_table()


def to_srgb(linear: np.ndarray, out: np.ndarray) -> None:
    """``(3, rows, columns)`` linear colours, which are overwritten, to ``(rows, columns, 3)`` uint8, IEC 61966-2-1."""
    linear *= np.float32(_STEPS - 1)
    linear += np.float32(0.5)
    index = np.empty((*linear.shape[1:], 3), np.intp)
    np.copyto(index, linear.transpose(1, 2, 0), casting="unsafe")
    out[...] = _TABLE.take(index, mode="clip")
