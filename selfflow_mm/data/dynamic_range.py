"""Pictures of high dynamic range, PQ and HLG (both in ITU-R BT.2100), to sRGB.

Coded values become the light of a display, in parts of reference white, which is 203 cd/m2 (ITU-R BT.2408); wide
primaries become BT.709's; what is brighter than white or more colourful than sRGB is clipped. Read as they are, coded
values would look grey and pale.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

#: PQ and HLG in ITU-T H.273, table 3.
PQ, HLG = 16, 18
NOTE = "high dynamic range: brought to sRGB, brighter than white is clipped"
_WHITE, _PEAK = 203.0, 1000.0  # cd/m2: reference white, and the display that HLG is made for
#: Linear light of BT.2020 (H.273's primaries 9) and of Display P3 (12) to BT.709, by ITU-R BT.2087 and alike.
_TO_709 = {
    9: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    12: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098273)),
}
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # BT.2100's, of red, green and blue


def is_high(frame: Any) -> bool:
    """Whether a frame of PyAV is coded in PQ or HLG."""
    return int(frame.color_trc) in (PQ, HLG)


def rgb_format(frame: Any, name: str) -> str:
    """The pixel format to convert a frame to: 8 bits, or 16 where :func:`to_srgb` comes after.

    Raises:
        UserError: pixels are floating point (EXR, Radiance): nothing says which of their values is white.
    """
    if _is_floating(frame.format.name):
        raise UserError(
            f"{name} holds floating-point pixels, of which none is known to be white; "
            "tone-map it to 8 or 16 bits, or to PQ or HLG, first"
        )
    return "rgb48le" if is_high(frame) else "rgb24"


def to_srgb(codes: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """Full-range codes uint16 ``(H, W, 3)`` in PQ or HLG -> uint8 ``(H, W, 3)`` of sRGB.

    Args:
        transfer, primaries: of ITU-T H.273; other primaries than BT.709's (1) and P3's are taken for BT.2020's.
    """
    light = _light(transfer)[codes]
    if transfer == HLG:
        # BT.2100's opto-optical transfer function: gamma 1.2 of the luminance at a peak of 1000 cd/m2.
        light *= (np.maximum(light @ _LUMINANCE, 1e-9) ** 0.2)[..., None] * (_PEAK / _WHITE)
    if primaries != 1:
        light = light @ np.array(_TO_709.get(primaries, _TO_709[9]), np.float32).T
    return _srgb()[(light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)]


@cache
def _is_floating(pixel_format: str) -> bool:
    return bool(re.search(r"f(16|32)(le|be)?$", pixel_format))


@cache
def _light(transfer: int) -> np.ndarray:
    """Light of every code, float32 ``(65536,)``: of the display over white (PQ), or of the scene in [0, 1] (HLG)."""
    code = np.arange(65536) / 65535
    if transfer == PQ:  # SMPTE ST 2084, equation 4.1
        root = code ** (32 / 2523)
        light = (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
        return (light * 10000 / _WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # BT.2100, table 5
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


@cache
def _srgb() -> np.ndarray:
    """sRGB (IEC 61966-2-1), uint8 ``(65536,)``, of light in steps of 1/65535 of white."""
    light = np.arange(65536) / 65535
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (coded * 255 + 0.5).astype(np.uint8)
