"""Patterns on bodies: how much of the accent colour each surface point shows."""

from __future__ import annotations

import numpy as np

from .shapes import Body


def accent_share(body: Body, extents: np.ndarray, points: np.ndarray, pixel: float) -> np.ndarray | None:
    """Share of the accent colour, in [0, 1].

    Args:
        extents: ``(3,)`` half extents along the body's own axes.
        points: ``(3, rows, columns)`` surface points in the body's frame, metres.
        pixel: about how many metres a pixel covers there; patterns are softened by as much.

    Returns:
        ``(rows, columns)`` float32, or None for a plain surface.
    """
    pattern = _PATTERNS.get(body.look.texture)
    if pattern is None:
        return None
    return pattern(points, [max(float(value), 1e-5) for value in extents], max(pixel, 1e-6))


def _soft(distance: np.ndarray, pixel: float) -> np.ndarray:
    """An edge at distance 0 as wide as a pixel."""
    return np.clip(distance / np.float32(pixel) + np.float32(0.5), np.float32(0), np.float32(1))


def _saw(value: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1 between 0 at whole numbers and 0.5 between them."""
    return np.abs(value - np.rint(value))


def _smooth(value: np.ndarray) -> np.ndarray:
    """A rounded wave of period 1 between 0 and 1: like a sine, in exactly rounded operations only."""
    wave = _saw(value) * np.float32(2)
    return wave * wave * (np.float32(3) - np.float32(2) * wave)


def _label(points: np.ndarray, extents: list[float], pixel: float) -> np.ndarray:
    """A slanted band around the middle and a thin line above it."""
    x, _, z = points
    height = extents[2]
    slanted = z + x * np.float32(0.3)
    band = _soft(np.float32(0.3 * height) - np.abs(slanted), pixel)
    line = _soft(np.float32(0.05 * height) - np.abs(z - np.float32(0.72 * height)), pixel)
    return np.maximum(band, line)


def _stripes(points: np.ndarray, extents: list[float], pixel: float) -> np.ndarray:
    """Six rings across the longest axis."""
    axis = 2 if extents[2] >= 0.999 * max(extents) else int(np.argmax(extents))
    period = extents[axis] / 3
    wave = _saw(points[axis] * np.float32(1 / period))
    wave -= np.float32(0.25)
    wave *= np.float32(period)
    return _soft(wave, pixel)


def _checker(points: np.ndarray, extents: list[float], pixel: float) -> np.ndarray:
    """Cells of a quarter of the middle extent, cut so that no boundary lies in a face of a box."""
    cell = sorted(extents)[1] / 2
    product = np.full(points.shape[1:], 0.5, np.float32)
    for axis in range(3):
        shift = extents[axis] / (2 * cell) + 0.25  # the faces are in the middle of a cell
        wave = _saw(points[axis] * np.float32(0.5 / cell) + np.float32(shift))
        edge = _soft((wave - np.float32(0.25)) * np.float32(2 * cell), pixel)
        product *= np.float32(2) * edge - np.float32(1)
    return product + np.float32(0.5)


def _wood(points: np.ndarray, extents: list[float], pixel: float) -> np.ndarray:
    """Grain along the longest axis, in planks a hand wide."""
    order = np.argsort(extents)
    along, across, thin = (points[axis] for axis in order[::-1])
    plank = np.floor(across * np.float32(1 / 0.12))
    shifted = along + plank * np.float32(0.37)
    bend = _smooth(shifted * np.float32(1.7) + across * np.float32(2.3))
    grain = across * np.float32(38) + bend * np.float32(1.6) + plank * np.float32(0.61) + thin * np.float32(45)
    fine = across * np.float32(83) + bend * np.float32(2.0) + shifted * np.float32(0.9) + thin * np.float32(90)
    share = _smooth(grain) * np.float32(0.4)
    # The finer grain fades before it is finer than the pixels.
    share += _smooth(fine) * np.float32(0.2 * min(max(1.5 - 83 * pixel * 4, 0.0), 1.0))
    share += _smooth(plank * np.float32(0.297)) * np.float32(0.2)
    seam = _soft(np.float32(0.0012) - _saw(across * np.float32(1 / 0.12)) * np.float32(0.12), max(pixel, 0.001))
    np.maximum(share, seam * np.float32(0.9), out=share)
    return share


def _speckle(points: np.ndarray, extents: list[float], pixel: float) -> np.ndarray:
    """Grains scattered by a hash of the cell a point is in."""
    cell = max(0.16 * sorted(extents)[1], 1.5 * pixel)
    spot = np.zeros(points.shape[1:], np.int32)
    for axis, prime in enumerate((73856093, 19349663, 83492791)):
        shift = 0.37 * cell
        limited = np.clip((points[axis] + np.float32(shift)) * np.float32(1 / cell), -32768, 32767)
        spot ^= np.floor(limited).astype(np.int32) * np.int32(prime)
    spot ^= spot >> 13
    spot &= 7
    return (spot == 0) * np.float32(0.85)


_PATTERNS = {
    "label": _label,
    "stripes": _stripes,
    "checker": _checker,
    "wood": _wood,
    "speckle": _speckle,
}
