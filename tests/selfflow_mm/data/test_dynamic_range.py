"""PQ and HLG video becomes sRGB by the closed forms of ITU-R BT.2100."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest

from selfflow_mm.data.dynamic_range import HLG, NOTE, PQ, to_srgb
from selfflow_mm.data.reading import read_media

SDR = 14  # BT.2020 of 10 bits in ITU-T H.273, table 3
#: The levels shown, in cd/m2, on a display of 1000 (reference white is 203).
LEVELS = (2.0, 10.0, 50.0, 100.0, 150.0)


def pq_code(nits: float) -> float:
    """Inverse of the electro-optical transfer function of SMPTE ST 2084, in [0, 1]."""
    y = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def hlg_code(nits: float) -> float:
    """BT.2100: display light of a grey at a peak of 1000 cd/m2 -> scene light (gamma 1.2) -> signal in [0, 1]."""
    e = (nits / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return (3 * e) ** 0.5 if e <= 1 / 12 else a * np.log(12 * e - b) + c


def srgb(light: float) -> float:
    """IEC 61966-2-1, of light as a part of white, in 0 .. 255."""
    return 255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


def movie(codes: list[float], transfer: int) -> bytes:
    """One 10-bit BT.2020 frame a code value, grey, without loss."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=4)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, 9, 9, 1
        for code in codes:
            frame: Any = av.VideoFrame(32, 32, "yuv420p10le")
            for plane, level in zip(frame.planes, (64 + 876 * code, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(level), "<u2").tobytes())
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(("transfer", "code"), [(PQ, pq_code), (HLG, hlg_code)])
def test_greys_are_those_of_the_display(transfer: int, code: Any) -> None:
    """White is 203 cd/m2 and clips; what is darker has sRGB's value of its part of white."""
    clip = read_media(movie([code(nits) for nits in (*LEVELS, 400.0)], transfer))
    assert clip.video is not None and NOTE in clip.notes
    shown = clip.video.frames[:, 16, 16].float().numpy()
    expected = [srgb(nits / 203) for nits in LEVELS] + [255.0]
    assert np.abs(shown - np.array(expected)[:, None]).max() <= 4


def test_ordinary_ten_bits_are_left_as_they_are() -> None:
    clip = read_media(movie([0.25, 0.5, 1.0], SDR))
    assert clip.video is not None and clip.notes == ()
    assert np.abs(clip.video.frames[:, 16, 16].float().numpy() - np.array([[64], [128], [255]])).max() <= 1


def to_xyz(primaries: list[tuple[float, float]]) -> np.ndarray:
    """Linear RGB to XYZ from the chromaticities of red, green and blue, with D65 as white (SMPTE RP 177)."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


@pytest.mark.parametrize(
    ("primaries", "chromaticities"),
    [
        (9, [(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)]),
        (12, [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)]),
        (1, [(0.640, 0.330), (0.300, 0.600), (0.150, 0.060)]),
    ],
)
def test_colours_of_bt709_come_back(primaries: int, chromaticities: list[tuple[float, float]]) -> None:
    """Colours inside sRGB, coded in PQ with wider primaries, are sRGB's again."""
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.2, 0.5, 0.1], [0.02, 0.01, 0.3]])
    wide = colours @ (np.linalg.inv(to_xyz(chromaticities)) @ to_xyz([(0.64, 0.33), (0.3, 0.6), (0.15, 0.06)])).T
    codes = np.array([[round(65535 * pq_code(max(0.0, v) * 203)) for v in row] for row in wide], np.uint16)
    expected = [[srgb(v) for v in row] for row in colours]
    assert np.abs(to_srgb(codes[None], PQ, primaries)[0] - np.array(expected)).max() <= 4


def test_what_is_outside_srgb_is_clipped() -> None:
    """The green of BT.2020 itself, at white's light, and a highlight of 1000 cd/m2."""
    codes = np.array([[[0, round(65535 * pq_code(203)), 0], 3 * [round(65535 * pq_code(1000))]]], np.uint16)
    assert to_srgb(codes, PQ, 9)[0].tolist() == [[0, 255, 0], [255, 255, 255]]
