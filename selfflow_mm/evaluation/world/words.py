"""Words in the picture: on signs and on blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from selfflow_tokenizers.media import Video

from .reader import Reader
from .reader_net import SIGN, STRIP_HEIGHT, STRIP_WIDTH, cut
from .tracks import Track, components

#: Pixels of the smallest thing that is taken for a sign; one of two letters has 240.
_SMALLEST_SIGN = 120
#: A face is read where its box is at most so high and at least so wide: level, and wholly in view.
_LEVEL, _WIDE = 15, 24
_FRAMES = 9  # read at most, evenly spread


def find_words(video: Video, seen: torch.Tensor, tracks: Sequence[Track], reader: Reader) -> list[str]:
    """All words that can be read, those of signs first."""
    words = [_read(reader, video, middles) for middles in _signs(seen)]
    words += [_read(reader, video, _faces(track)) for track in tracks if track.shape == "block"]
    return [word for word in words if word]


def _signs(seen: torch.Tensor) -> list[list[tuple[int, float, float]]]:
    """The middle of each sign as (frame, x, y); a sign hangs still, so it is where most frames show one."""
    often = seen[:, SIGN].mean(0) > 0.5
    parts = components(often[None])[0]
    found = []
    for name, area in zip(*parts.unique(return_counts=True), strict=True):
        if name and area >= _SMALLEST_SIGN:
            y, x = (axis.numpy() for axis in (parts == name).nonzero(as_tuple=True))
            middle = ((x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2)
            found.append([(frame, *middle) for frame in _spread(np.arange(len(seen)))])
    return found


def _faces(track: Track) -> list[tuple[int, float, float]]:
    left, top, right, bottom = track.box.T
    level = track.whole & (bottom - top <= _LEVEL) & (right - left >= _WIDE)
    return [(f, (left[f] + right[f]) / 2, (top[f] + bottom[f]) / 2) for f in _spread(np.flatnonzero(level))]


def _spread(frames: np.ndarray) -> list[int]:
    count = min(_FRAMES, len(frames))
    return [int(frames[i * len(frames) // count]) for i in range(count)]


def _read(reader: Reader, video: Video, middles: Sequence[tuple[int, float, float]]) -> str:
    if not middles:
        return ""
    strips = [
        cut(video.frames[frame], round(x - STRIP_WIDTH / 2), round(y - STRIP_HEIGHT / 2)) for frame, x, y in middles
    ]
    return reader.read(torch.stack(strips))
