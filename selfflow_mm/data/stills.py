"""Reading still images through Pillow: upright, in RGB, 8 bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageOps

from selfflow_mm.data.dynamic_range import HLG, PQ
from selfflow_mm.data.mediafile import MediaFile, Notes
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Image

_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")


def is_still(source: Path | str | bytes | BinaryIO) -> bool:
    """Whether the first bytes are those of a JPEG, PNG, BMP, TIFF, WebP or AVIF file."""
    head = _first(source, 16)
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(_HEADS) or webp or head[4:12] == b"ftypavif"


def _first(source: Path | str | bytes | BinaryIO, count: int) -> bytes:
    """The first bytes; a file stays where it was."""
    if isinstance(source, bytes):
        return source[:count]
    if isinstance(source, Path | str):
        if not Path(source).is_file():
            raise UserError(f"there is no file '{source}'")
        with open(source, "rb") as file:
            return file.read(count)
    place = source.tell()
    head = source.read(count)
    source.seek(place)
    return head


def _states_high_range(source: Path | str | bytes | BinaryIO) -> bool:
    """Whether a PNG (chunk cICP) or AVIF (box colr) names a transfer of high dynamic range (ITU-T H.273)."""
    head = _first(source, 1 << 16)
    if head.startswith(b"\x89PNG"):
        _, found, values = head.partition(b"IDAT")[0].partition(b"cICP")  # it precedes the pixels
        return bool(found) and values[1] in (PQ, HLG)
    if head[4:12] == b"ftypavif":
        return any(int.from_bytes(box[2:4], "big") in (PQ, HLG) for box in head.split(b"colrnclx")[1:])
    return False


def read_still(source: Path | str | bytes | BinaryIO) -> tuple[Image, list[str]]:
    """Decode a still image.

    EXIF orientation is applied, transparency is laid over white, of 16 bits the upper 8 are kept, PQ and HLG are
    brought to sRGB, of an animation the first picture is taken.

    Returns:
        The image and notes on what was changed.

    Raises:
        UserError: not decodable; pixels whose range nothing states (floating point, integers of 32 bits).
    """
    if _states_high_range(source):
        return _read_high_range(source)
    notes = []
    name = "the image" if isinstance(source, bytes) else f"'{getattr(source, 'name', source)}'"
    try:
        with PillowImage.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                notes.append("an animation: its first picture was taken")
            # Pillow itself drops the lower bytes of colours, and says so in the name of the raw mode alone.
            deep = any(";16" in str(tile[-1]) for tile in opened.tile)
            picture = ImageOps.exif_transpose(opened)
            if picture.size != opened.size or opened.getexif().get(0x0112, 1) != 1:
                notes.append("rotated: turned upright")
            if deep:
                notes.append("16 bits: the upper 8 were kept")
            values = np.asarray(picture) if picture.mode[0] in "FI" else None
            if values is not None:
                if picture.mode == "F" or not deep or values.min() < 0:
                    raise UserError(
                        f"{name} holds {'floating-point' if picture.mode == 'F' else 'signed or 32-bit'} pixels, and "
                        "nothing says which value is white; bring it to 8 or 16 bits first"
                    )
                picture = PillowImage.fromarray((values >> 8).astype(np.uint8))
            if picture.has_transparency_data:
                notes.append("transparent: laid over white")
                picture = picture.convert("RGBA")
                picture = PillowImage.alpha_composite(PillowImage.new("RGBA", picture.size, "white"), picture)
            pixels = np.array(picture.convert("RGB"))
    except UserError:
        raise
    except PillowImage.UnidentifiedImageError as error:
        raise UserError(f"{name} is damaged, or of a kind of image or pixel that Pillow cannot read") from error
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise UserError(f"{name} is not an image that can be read, or is damaged ({error})") from error
    return Image(torch.from_numpy(pixels)), notes


def _read_high_range(source: Path | str | bytes | BinaryIO) -> tuple[Image, list[str]]:
    """Through FFmpeg, because Pillow gives the coded values as they are; transparency is left out."""
    notes = Notes()
    with MediaFile(source, notes) as file:
        _, _, pixels = next(file.frames())
    return Image(torch.from_numpy(pixels)), notes.items
