"""One camera of a data set under construction: its frames into videos or picture files, and their statistics."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

from ..episode import EncodedPictures, Pictures
from ..extras import require
from .columns import PURPOSE
from .movies import Movie
from .numbered import VIDEO_PATH, Limits, Place
from .stats import PictureStatistics, Statistics, sampled_steps

__all__ = ["Camera", "ImageCamera", "Taken", "VideoCamera"]

#: Frames are decoded in blocks of about so much memory.
_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Taken:
    """One episode of one camera.

    Attributes:
        statistics: of its pictures.
        place: columns of the table of episodes that say where the video is; empty for pictures in the parquet.
        column: the pictures as a column of the parquet, an Arrow array; None for video.
    """

    statistics: Statistics
    place: dict[str, Any]
    column: Any = None


class Camera(Protocol):
    """Takes episodes in order. ``shape`` is (height, width, channels) as soon as one was taken."""

    shape: tuple[int, int, int] | None

    def take(self, pictures: Pictures) -> Taken:
        """
        Raises:
            UserError: a picture cannot be decoded or has another size; nothing of the episode is stored.
        """
        ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class VideoCamera:
    """Frames behind one another in MP4 files; a new file at the size limit."""

    def __init__(self, folder: Path, key: str, fps: Fraction, codec: str, crf: int | None, limits: Limits) -> None:
        self.shape: tuple[int, int, int] | None = None
        self._folder, self._key, self._fps, self._codec, self._crf = folder, key, fps, codec, crf
        self._limits = limits
        self._place = Place()
        self._movie: Movie | None = None

    def take(self, pictures: Pictures) -> Taken:
        length = len(pictures)
        first = pictures.read([0])
        if self.shape is None:
            self.shape = (first.shape[1], first.shape[2], first.shape[3])
        movie = self._movie_for(length)
        begin = movie.frames
        statistics = PictureStatistics(3)
        sampled = sampled_steps(length)
        block = max(1, _BLOCK_BYTES // first.nbytes)
        # A frame that cannot be decoded leaves those before it in the video, where no episode points at them.
        for start in range(0, length, block):
            stop = min(start + block, length)
            frames = pictures.read(range(start, stop))
            movie.add(frames, first=start == 0)
            statistics.add(frames[sampled[(sampled >= start) & (sampled < stop)] - start])
        place = {
            "chunk_index": self._place.chunk,
            "file_index": self._place.file,
            "from_timestamp": float(begin / self._fps),
            "to_timestamp": float(movie.frames / self._fps),
        }
        return Taken(statistics.result(), {f"videos/{self._key}/{name}": value for name, value in place.items()})

    def close(self) -> None:
        if self._movie is not None:
            self._movie.close()
            self._movie = None

    def abandon(self) -> None:
        if self._movie is not None:
            self._movie.abandon()
            self._movie = None

    def _movie_for(self, length: int) -> Movie:
        movie = self._movie
        if movie is not None and movie.frames:
            if movie.expected(length) >= self._limits.video_mb * 2**20:
                self.close()
                self._place = self._place.following(self._limits.chunk)
                movie = None
        if movie is None:
            assert self.shape is not None
            path = self._folder / self._place.path(VIDEO_PATH, video_key=self._key)
            movie = self._movie = Movie(path, self._fps, self.shape[0], self.shape[1], self._codec, self._crf)
        return movie


class ImageCamera:
    """Picture files in the parquet: JPEG and PNG keep every bit, other pictures become PNG."""

    def __init__(self, channels: int) -> None:
        self.shape: tuple[int, int, int] | None = None
        self._channels = channels

    def take(self, pictures: Pictures) -> Taken:
        pa = require("pyarrow", PURPOSE)
        length = len(pictures)
        first = pictures.read([0])
        if self.shape is None:
            self.shape = (first.shape[1], first.shape[2], first.shape[3])
        statistics = PictureStatistics(first.shape[3], first.dtype)
        sampled = sampled_steps(length)
        block = max(1, _BLOCK_BYTES // first.nbytes)
        keeps = isinstance(pictures, EncodedPictures)
        data: list[bytes] = list(pictures.data) if isinstance(pictures, EncodedPictures) else []
        steps = sampled if keeps else np.arange(length)
        for start in range(0, len(steps), block):
            chosen = steps[start : start + block]
            frames = pictures.read(chosen.tolist())
            if not keeps:
                data += [_png(frame) for frame in frames]
            statistics.add(frames[np.isin(chosen, sampled)])
        column = pa.StructArray.from_arrays(
            [pa.array(data, pa.binary()), pa.nulls(length, pa.string())], names=["bytes", "path"]
        )
        return Taken(statistics.result(), {}, column)

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def _png(frame: np.ndarray) -> bytes:
    if frame.dtype == np.uint16 and frame.shape[2] != 1:
        raise UserError("pictures of 16 bits can be stored as PNG with one channel only")
    buffer = io.BytesIO()
    Pillow.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame).save(buffer, "PNG")
    return buffer.getvalue()
