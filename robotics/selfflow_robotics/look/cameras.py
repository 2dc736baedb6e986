"""Which cameras of an episode to show, and their pictures as RGB in a given size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

from ..episode import Pictures
from ..files import BadEpisode
from ..robot_episode import RobotEpisode

_CHUNK = 64  # pictures decoded at a time


def choose_cameras(episode: RobotEpisode, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The cameras named, or all of them.

    Raises:
        UserError: a name that is not there; the sentence lists those that are.
    """
    there = tuple(episode.images)
    for name in wanted or ():
        if name not in there:
            listed = ", ".join(there) if there else "no camera at all"
            raise UserError(f"episode {episode.id} has no camera '{name}'; it has {listed}")
    return tuple(wanted) if wanted else there


def as_rgb(frames: np.ndarray) -> np.ndarray:
    """``(n, H, W, C)`` of 1, 3 or 4 channels, uint8 or (16-bit grey, such as depth) uint16, as uint8 RGB.

    16-bit pictures are stretched so that the brightest of those given is white.
    """
    if frames.dtype != np.uint8:
        brightest = float(frames.max()) if frames.size else 0.0
        frames = (frames.astype(np.float32) * (255 / brightest if brightest > 0 else 1)).astype(np.uint8)
    return np.repeat(frames[..., :1], 3, axis=-1) if frames.shape[-1] < 3 else frames[..., :3]


def resized(frame: np.ndarray, width: int, height: int) -> Pillow.Image:
    """``(H, W, 3)`` uint8 in another size: bicubic when it grows, Lanczos (with averaging) when it shrinks."""
    picture = Pillow.fromarray(np.ascontiguousarray(frame))
    if picture.size == (width, height):
        return picture
    grows = width * height > picture.width * picture.height
    return picture.resize((width, height), Pillow.Resampling.BICUBIC if grows else Pillow.Resampling.LANCZOS)


def decode_all(images: Mapping[str, Pictures]) -> None:
    """Decode every picture and keep none.

    Raises:
        UserError: one does not decode; the sentence says of which camera.
    """
    for name, pictures in images.items():
        for start in range(0, len(pictures), _CHUNK):
            steps = range(start, min(start + _CHUNK, len(pictures)))
            try:
                decoded = pictures.read(steps)
            except BadEpisode:
                raise
            except UserError as error:
                raise UserError(f"'{name}': {error}") from error
            if len(decoded) != len(steps):
                raise UserError(f"'{name}': {len(decoded)} of {len(steps)} pictures from step {start} on decode")
