"""Many small pictures on one: what every episode began with, and how it ended."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pillow

__all__ = ["SUCCESS", "FAILURE", "wall"]

#: Frames around pictures, told apart by colour-blind eyes too (Okabe and Ito 2008): blue and vermilion.
SUCCESS, FAILURE = (0, 114, 178), (213, 94, 0)
_FRAME, _GAP = 3, 3


def wall(pictures: Sequence[tuple[Path, bool]], columns: int = 12, width: int = 96) -> bytes:
    """Pictures side by side, framed in blue where the episode succeeded and in vermilion where it did not.

    Args:
        pictures: files and outcomes, at least one; all are brought to the first one's shape.
        columns: in a row.
        width: of each, pixels.

    Returns:
        A JPEG file.
    """
    with Pillow.open(pictures[0][0]) as first:
        height = max(1, round(width * first.height / first.width))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    wide, high = width + 2 * _FRAME + _GAP, height + 2 * _FRAME + _GAP
    sheet = Pillow.new("RGB", (columns * wide - _GAP, rows * high - _GAP), (128, 128, 128))
    for place, (path, success) in enumerate(pictures):
        left, top = place % columns * wide, place // columns * high
        frame = (left, top, left + width + 2 * _FRAME, top + height + 2 * _FRAME)
        sheet.paste(SUCCESS if success else FAILURE, frame)
        with Pillow.open(path) as picture:
            picture.draft("RGB", (2 * width, 2 * height))  # a JPEG is decoded at about the size that is needed
            small = picture.convert("RGB").resize((width, height), Pillow.Resampling.BICUBIC)
        sheet.paste(small, (left + _FRAME, top + _FRAME))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
