"""One episode as a data set stores it: columns over time, pictures decoded when asked for, and metadata.

Names are the data set's own, nested names joined by ``/`` as RLDS does (``observation/image``, ``action/world_vector``)
or by dots as LeRobot does (``observation.state``). What the columns *mean* is a layout's business
(:mod:`selfflow_robotics.layouts`), which turns an ``Episode`` into a ``RobotEpisode``.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

__all__ = ["EncodedPictures", "Episode", "Feature", "Pictures", "RawPictures"]

_LARGEST = 2**26  # pixels of a picture that is taken without a second look

Kind = Literal["array", "text", "picture"]


@dataclass(frozen=True)
class Feature:
    """One column of a data set, per step (or, for metadata, per episode).

    Attributes:
        kind: ``array`` (numbers or bools), ``text``, or ``picture``.
        shape: of one step, without time; ``()`` for a scalar. Pictures: (height, width, channels); None where a data
            set leaves a size open.
        dtype: numpy's name: ``float32``, ``bool``, ``uint8``; ``str`` for text, ``bytes`` for text that need not be
            UTF-8.
        encoding: of pictures: ``jpeg``, ``png``, ``video``; ``""`` where a data set leaves it open.
        names: of the last axis' entries, where the data set gives them (``("x", "y", "z")``).
        description: the data set's own words.
    """

    kind: Kind
    shape: tuple[int | None, ...] = ()
    dtype: str = "float32"
    encoding: str = ""
    names: tuple[str, ...] = ()
    description: str = ""


class Pictures(Protocol):
    """The pictures of one camera over an episode, ``len()`` of them; decoded when asked for, never kept."""

    def __len__(self) -> int: ...

    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        """``(n, H, W, C)`` of the steps named (any order, repeats allowed), or of all; uint8, C = 3 for colour.

        Raises:
            UserError: a picture cannot be decoded.
        """
        ...


@dataclass(frozen=True)
class RawPictures:
    """Pictures that are in memory: ``frames (T, H, W, C)``."""

    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        return self.frames if steps is None else self.frames[np.asarray(steps, dtype=np.int64)]


@dataclass(frozen=True)
class EncodedPictures:
    """One JPEG or PNG file per step, as the record stores them; writing them again keeps every bit.

    ``channels`` 3 gives RGB whatever the file holds, 1 gives grey in the file's own depth (uint8, or uint16 for a
    16-bit PNG), 4 RGBA. A step may hold no picture (empty bytes): it decodes to black of the size of the others, or of
    ``size`` (height, width) where all are empty.
    """

    data: Sequence[bytes]
    channels: int = 3
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        chosen = range(len(self.data)) if steps is None else [range(len(self.data))[step] for step in steps]
        frames: np.ndarray | None = None
        empty = []
        for place, step in enumerate(chosen):
            if not self.data[step]:
                empty.append(place)
                continue
            frame = self._decode(step)
            if frames is None:  # pictures go straight into place: a stack of them would copy all once more
                frames = np.empty((len(chosen), *frame.shape), frame.dtype)
            if frame.shape != frames.shape[1:] or frame.dtype != frames.dtype:
                raise UserError("the pictures of this episode have different sizes")
            frames[place] = frame
        if frames is None:
            if self.size is None:
                raise UserError("none of these steps holds a picture, and the data set does not tell its size")
            return np.zeros((len(chosen), *self.size, self.channels), np.uint8)
        frames[empty] = 0
        return frames

    def _decode(self, step: int) -> np.ndarray:
        data = self.data[step]
        if self.channels == 3 and data[:2] == b"\xff\xd8":
            frame = _fast_jpeg(data)
            if frame is not None:
                return frame
        try:
            with Pillow.open(io.BytesIO(data)) as file:
                if self.channels == 1:
                    grey = np.asarray(file if file.mode in ("L", "I;16") else file.convert("L"))
                    return grey[..., None]
                mode = {3: "RGB", 4: "RGBA"}[self.channels]
                return np.asarray(file if file.mode == mode else file.convert(mode))  # converting always copies
        except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:  # damaged files raise all
            raise UserError(f"the picture of step {step} cannot be decoded ({error})") from error


def _fast_jpeg(data: bytes) -> np.ndarray | None:
    """``(H, W, 3)`` by simplejpeg; None where it is not installed or does not take the file, and Pillow has its turn.

    Both decode with libjpeg-turbo to the same bits, but Pillow takes 60 microseconds in Python before it begins, and
    copies twice. A header that claims an enormous picture is left to Pillow, which has a limit.
    """
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > _LARGEST:
            return None
        return simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
    except ValueError:
        return None


@cache
def _simplejpeg() -> ModuleType | None:
    """Looked for once: Python would search its path anew for every picture."""
    try:
        return importlib.import_module("simplejpeg")
    except ModuleNotFoundError:
        return None


@dataclass(frozen=True)
class Episode:
    """One episode under the data set's own names.

    Attributes:
        id: unique in the data set and stable: ``"train-00003-of-01024/17"``, ``"episode_000017"``.
        length: T, its steps.
        columns: ``(T, ...)`` numbers and bools in the stored dtype.
        texts: T strings each (bytes where the data set stores bytes that are not UTF-8).
        pictures: T pictures each.
        metadata: values of the whole episode: numpy arrays or scalars, str, bytes, bool.
    """

    id: str
    length: int
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str | bytes]] = field(default_factory=dict)
    pictures: Mapping[str, Pictures] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        lengths |= {name: len(text) for name, text in self.texts.items()}
        lengths |= {name: len(pictures) for name, pictures in self.pictures.items()}
        for name, length in lengths.items():
            if length != self.length:
                raise UserError(f"episode {self.id}: '{name}' has {length} steps, the episode {self.length}")
