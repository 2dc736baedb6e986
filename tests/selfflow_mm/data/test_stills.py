"""Still images of every depth and kind, made byte by byte, read as 8-bit sRGB or refused in one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image as PillowImage

from selfflow_mm.data.dynamic_range import NOTE
from selfflow_mm.data.reading import read_media
from selfflow_mm.errors import UserError

#: PNG colour types by number of channels.
KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
DEEP = "16 bits: the upper 8 were kept"


def png(values: np.ndarray, *, cicp: bytes = b"") -> bytes:
    """A PNG (ISO/IEC 15948) of uint8 or uint16 ``(H, W, channels)``, with a cICP chunk if given."""
    height, width, channels = values.shape
    bits = values.dtype.itemsize * 8
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, KINDS[channels], 0, 0, 0)
    extra = chunk(b"cICP", cicp) if cicp else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def tiff(values: np.ndarray, sample_format: int) -> bytes:
    """An uncompressed little-endian TIFF 6.0 of ``(H, W)`` or ``(H, W, 3)``; format 1 unsigned, 2 signed, 3 float."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    data, bits = values.tobytes(), values.dtype.itemsize * 8
    start = 8 + 2 + 12 * 10 + 4
    lists = struct.pack("<" + "H" * channels, *[bits] * channels) + struct.pack(
        "<" + "H" * channels, *[sample_format] * channels
    )
    several = channels > 1
    tags = [
        (256, 1, width),
        (257, 1, height),
        (258, channels, start if several else bits),
        (259, 1, 1),
        (262, 1, 2 if several else 1),
        (273, 1, start + (len(lists) if several else 0)),
        (277, 1, channels),
        (278, 1, height),
        (279, 1, len(data)),
        (339, channels, start + 2 * channels if several else sample_format),
    ]
    kinds = {258: 3, 339: 3}
    entries = b"".join(struct.pack("<HHII", tag, kinds.get(tag, 4), count, value) for tag, count, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 10) + entries + b"\0\0\0\0" + (lists if several else b"") + data


def pillow(picture: PillowImage.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    clip = read_media(data)
    assert clip.image is not None and clip.video is None
    return clip.image.pixels.numpy(), clip.notes


def refused(data: bytes | Path, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        read_media(data)
    assert "\n" not in str(error.value) and "object at 0x" not in str(error.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_the_upper_eight(channels: int) -> None:
    """Pillow drops the lower bytes of colours without a word; grey is treated alike, and a note says so."""
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, channels), np.uint16)
    got, notes = read(png(deep))
    assert np.array_equal(got, np.broadcast_to(deep >> 8, (5, 7, 3))) and notes == (DEEP,)
    got, notes = read(tiff(deep if channels == 3 else deep[..., 0], 1))
    assert np.array_equal(got, np.broadcast_to(deep >> 8, (5, 7, 3))) and notes == (DEEP,)
    shallow = (deep >> 8).astype(np.uint8)
    got, notes = read(png(shallow))
    assert np.array_equal(got, np.broadcast_to(shallow, (5, 7, 3))) and notes == ()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_laid_over_white(kind: Any, channels: int) -> None:
    top = np.iinfo(kind).max
    values = np.random.default_rng(1).integers(0, top + 1, (5, 7, channels)).astype(kind)
    values[0, 0, -1], values[0, 1, -1] = 0, top
    got, notes = read(png(values))
    share = values[..., -1:].astype(float) / top
    expected = 255 * (values[..., :-1].astype(float) / top * share + 1 - share)
    assert np.abs(got - np.broadcast_to(expected, got.shape)).max() < 2
    assert got[0, 0].tolist() == [255] * 3 and "transparent: laid over white" in notes
    assert (DEEP in notes) == (kind is np.uint16)


def test_palettes_with_a_transparent_colour() -> None:
    picture = PillowImage.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    picture.putdata([0, 1, 2])
    for kind in ("PNG", "GIF"):
        data = pillow(picture, kind, transparency=1)
        if kind == "PNG":
            got, notes = read(data)
            assert got[0].tolist() == [[10, 20, 30], [255, 255, 255], [1, 2, 3]]
            assert notes == ("transparent: laid over white",)
    got, notes = read(pillow(picture, "PNG", transparency=bytes([255, 0, 128])))
    assert got[0, 1].tolist() == [255] * 3 and abs(int(got[0, 2, 0]) - 128) <= 1


def test_other_modes() -> None:
    """One bit, CMYK (as Pillow writes and reads it), a single pixel."""
    bits = np.array([[0, 1, 1], [1, 0, 1]], bool)
    got, notes = read(pillow(PillowImage.fromarray(bits), "PNG"))
    assert np.array_equal(got, np.broadcast_to(255 * bits[..., None], (2, 3, 3))) and notes == ()
    ink = PillowImage.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        got, _ = read(pillow(ink, kind))
        assert np.abs(got.astype(int) - [255, 0, 0]).max() <= 3
    got, _ = read(pillow(PillowImage.new("RGB", (1, 1), (1, 2, 3)), "PNG"))
    assert got.tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("values", "sample_format", "says"),
    [
        (np.ones((3, 4), "<f4"), 3, "floating-point pixels"),
        (np.ones((3, 4, 3), "<f4"), 3, "kind of image or pixel"),
        (np.ones((3, 4), "<f8"), 3, "kind of image or pixel"),
        (np.full((3, 4), 70000, "<u4"), 1, "32-bit pixels"),
        (np.full((3, 4), -5, "<i2"), 2, "signed"),
    ],
)
def test_pixels_of_no_stated_range_are_refused(values: np.ndarray, sample_format: int, says: str) -> None:
    refused(tiff(values, sample_format), says)


@pytest.mark.parametrize("codec", ["exr", "hdr"])
def test_files_of_light_are_refused(codec: str, tmp_path: Path) -> None:
    """OpenEXR and Radiance hold floats without a white; FFmpeg would clip them at 1."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width = context.height = 16
    context.pix_fmt = "gbrpf32le"
    context.time_base = 1
    frame = av.VideoFrame(16, 16, "gbrpf32le")
    for plane in frame.planes:
        plane.update(np.full(plane.buffer_size // 4, 3.0, "<f4").tobytes())
    path = tmp_path / f"light.{codec}"
    path.write_bytes(b"".join(bytes(packet) for f in (frame, None) for packet in context.encode(f)))
    refused(path, "floating-point")


def test_a_png_in_pq_becomes_srgb() -> None:
    """10 and 203 cd/m2 of BT.2100 PQ: what sRGB shows at 10/203 of white, and white."""
    code = round(0.3033 * 65535), round(0.5807 * 65535)  # ST 2084's code values of 10 and 203 cd/m2
    values = np.full((16, 16, 3), code[1], np.uint16)
    values[:, :8] = code[0]
    got, notes = read(png(values, cicp=bytes([9, 16, 0, 1])))
    assert notes == (NOTE,)
    assert abs(int(got[8, 3, 0]) - 63) <= 3 and got[8, 12, 0] >= 250
    plain, notes = read(png(values, cicp=bytes([1, 13, 0, 1])))  # sRGB says so too
    assert notes == (DEEP,) and abs(int(plain[8, 3, 0]) - 77) <= 1


def test_damage_names_no_memory_address(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(png(np.zeros((9, 9, 3), np.uint8))[:-40])
    refused(path, "broken.png")
    refused(b"\x89PNG\r\n\x1a\n" + bytes(40), "the image")
