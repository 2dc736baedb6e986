"""Reading still images through Pillow: upright, in RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageOps

from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Image

_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")


def is_still(source: Path | str | bytes | BinaryIO) -> bool:
    """Whether the first bytes are those of a JPEG, PNG, BMP, TIFF, WebP or AVIF file."""
    if isinstance(source, bytes):
        head = source[:16]
    elif isinstance(source, Path | str):
        if not Path(source).is_file():
            raise UserError(f"there is no file '{source}'")
        with open(source, "rb") as file:
            head = file.read(16)
    else:
        place = source.tell()
        head = source.read(16)
        source.seek(place)
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(_HEADS) or webp or head[4:12] == b"ftypavif"


def read_still(source: Path | str | bytes | BinaryIO) -> tuple[Image, list[str]]:
    """Decode a still image.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys are scaled to 8 bits, of an
    animation the first picture is taken.

    Returns:
        The image and notes on what was changed.

    Raises:
        UserError: not decodable.
    """
    notes = []
    name = "the image" if isinstance(source, bytes) else f"'{getattr(source, 'name', source)}'"
    try:
        with PillowImage.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                notes.append("an animation: its first picture was taken")
            picture = ImageOps.exif_transpose(opened)
            if picture.size != opened.size or opened.getexif().get(0x0112, 1) != 1:
                notes.append("rotated: turned upright")
            if picture.mode.startswith("I"):
                picture = PillowImage.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))
            if picture.has_transparency_data:
                notes.append("transparent: laid over white")
                picture = picture.convert("RGBA")
                picture = PillowImage.alpha_composite(PillowImage.new("RGBA", picture.size, "white"), picture)
            pixels = np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise UserError(f"{name} is not an image that can be read, or is damaged ({error})") from error
    return Image(torch.from_numpy(pixels)), notes
