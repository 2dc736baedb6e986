"""A film of what was imagined, with what was recorded beside it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from ..look.cameras import resized
from ..look.lettering import INK, PAPER, SOFT, fit, font, line_height

__all__ = ["write_film"]

_LEAST_HEIGHT, _LEAST_WIDTH, _MARGIN, _GAP, _HEAD, _FOOT = 240, 320, 12, 8, 24, 60


def write_film(
    path: Path, imagined: np.ndarray, rate: float, instruction: str, recorded: np.ndarray | None = None
) -> tuple[int, int]:
    """Write an MP4 file: one frame per picture, small pictures enlarged.

    Args:
        path: a name that ends in ``.mp4``; the file appears when it is complete.
        imagined: ``(T + 1, h, w, 3)`` uint8; the first is the picture that was given.
        rate: pictures per second.
        instruction: is shown below.
        recorded: the same shape, shown at the left.

    Returns:
        (width, height) of the film in pixels.
    """
    import torch

    from selfflow_mm.data.movie import MovieWriter

    films = [imagined] if recorded is None else [recorded, imagined]
    names = ["imagined"] if recorded is None else ["recorded", "imagined"]
    scale = max(1.0, _LEAST_HEIGHT / imagined.shape[1])
    wide, high = round(imagined.shape[2] * scale), round(imagined.shape[1] * scale)
    together = wide * len(films) + _GAP * (len(films) - 1)
    size = max(_LEAST_WIDTH, together) + 2 * _MARGIN, high + _HEAD + _FOOT
    size = size[0] + size[0] % 2, size[1] + size[1] % 2
    lefts = [(size[0] - together) // 2 + (wide + _GAP) * place for place in range(len(films))]
    still = _still(size, instruction, [(left, name) for left, name in zip(lefts, names, strict=True)], _HEAD + high)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with MovieWriter(beside, size[1], size[0], rate) as movie:
            for step in range(len(imagined)):
                frame = still.copy()
                for left, film in zip(lefts, films, strict=True):
                    frame.paste(resized(film[step], wide, high), (left, _HEAD))
                text = "given" if step == 0 else f"action {step} of {len(imagined) - 1}   {step / rate:.2f} s"
                ImageDraw.Draw(frame).text((_MARGIN, size[1] - 12), text, fill=SOFT, font=font(13), anchor="lm")
                movie.add_frames(torch.from_numpy(np.array(frame)[None]))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return size


def _still(size: tuple[int, int], instruction: str, heads: list[tuple[int, str]], below: int) -> Pillow.Image:
    """All that does not move."""
    picture = Pillow.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for left, name in heads:
        draw.text((left, _HEAD - 7), name, fill=SOFT, font=font(13), anchor="ls")
    letters, lines = fit(instruction or "(no instruction)", size[0] - 2 * _MARGIN, 1)
    for place, line in enumerate(lines):
        draw.text((_MARGIN, below + 6 + place * line_height(letters)), line, fill=INK, font=font(letters))
    return picture
