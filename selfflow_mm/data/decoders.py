"""Which library decodes a file's pictures: PyAV, decord or torchcodec. docs/data.md has the measurements.

The rule is short: PyAV, for every file. It reads everything and its colours are right; the others convert colours
inexactly, and PyAV doing the same is about as fast, for whole clips and for a few spread frames.
``SELFFLOW_DECODER=decord`` (or ``torchcodec``) takes another one for the files that it can read as PyAV would; the
rest, and all sound, stay with PyAV.
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

#: Names the decoder of pictures.
VARIABLE = "SELFFLOW_DECODER"
_AT_A_TIME = 32  # frames held beside those that are given on

#: (seconds from the first frame, seconds it is shown, RGB uint8 (H, W, 3))
Frame = tuple[float, float, np.ndarray]


@dataclass(frozen=True)
class Decoder:
    """One library.

    Attributes:
        package: what must be installed.
        install: how.
        codecs: those that it can decode, by FFmpeg's names; None for all.
        frames: path or bytes, and threads (0 lets it choose) -> every frame.
        spread: path or bytes, and numbers of frames -> these frames, uint8 ``(n, H, W, 3)``.
    """

    package: str
    install: str
    codecs: frozenset[str] | None
    frames: Callable[[Any, int], Iterator[Frame]]
    spread: Callable[[Any, Sequence[int]], np.ndarray]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


def chosen() -> str:
    """``pyav``, or what the environment names.

    Raises:
        UserError: there is no such decoder, or it is not installed.
    """
    name = os.environ.get(VARIABLE, "").lower() or "pyav"
    if name == "pyav":
        return name
    if name not in DECODERS:
        raise UserError(f"{VARIABLE} is pyav, {' or '.join(DECODERS)}, not '{name}'")
    if not DECODERS[name].installed:
        raise UserError(f"{VARIABLE} is {name}, which is not installed: {DECODERS[name].install}")
    return name


def decoder_for(codec: str, *, plain: bool) -> Decoder | None:
    """The decoder of one file's pictures; None is PyAV.

    Args:
        codec: FFmpeg's name of the video's.
        plain: upright, square pixels of 8 bits, not of high dynamic range. Others do not tell these things as FFmpeg
            does, or not in time.
    """
    name = chosen()
    if name == "pyav" or not plain:
        return None
    known = DECODERS[name].codecs
    return DECODERS[name] if known is None or codec in known else None


def _decord_frames(source: Any, threads: int) -> Iterator[Frame]:
    reader = _decord(source, threads)
    times = reader.get_frame_timestamp(np.arange(len(reader)))
    for first in range(0, len(reader), _AT_A_TIME):
        rows = range(first, min(first + _AT_A_TIME, len(reader)))
        for row, pixels in zip(rows, reader.get_batch(list(rows)).asnumpy(), strict=True):
            begin, end = map(float, times[row])
            yield begin - float(times[0][0]), end - begin, pixels


def _decord_spread(source: Any, rows: Sequence[int]) -> np.ndarray:
    return _decord(source, 1).get_batch(list(rows)).asnumpy()


def _decord(source: Any, threads: int) -> Any:
    import decord

    return decord.VideoReader(io.BytesIO(source) if isinstance(source, bytes) else str(source), num_threads=threads)


def _torchcodec_frames(source: Any, threads: int) -> Iterator[Frame]:
    reader = _torchcodec(source, threads, "exact")
    begin = None
    for first in range(0, len(reader), _AT_A_TIME):
        found = reader.get_frames_in_range(first, min(first + _AT_A_TIME, len(reader)))
        parts = zip(found.pts_seconds.tolist(), found.duration_seconds.tolist(), found.data.numpy(), strict=True)
        for seconds, shown, pixels in parts:
            begin = seconds if begin is None else begin
            yield seconds - begin, shown, pixels


def _torchcodec_spread(source: Any, rows: Sequence[int]) -> np.ndarray:
    return _torchcodec(source, 1, "approximate").get_frames_at(list(rows)).data.numpy()


def _torchcodec(source: Any, threads: int, seek: str) -> Any:
    from torchcodec.decoders import VideoDecoder

    where = source if isinstance(source, bytes) else str(source)
    return VideoDecoder(where, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode=seek)


#: Beside PyAV. decord's FFmpeg is of 2019 and has no AV1; torchcodec takes the FFmpeg 4 to 8 that the system has.
DECODERS: dict[str, Decoder] = {
    "decord": Decoder(
        "decord",
        "pip install decord",
        frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "vp8", "vp9"}),
        _decord_frames,
        _decord_spread,
    ),
    "torchcodec": Decoder(
        "torchcodec",
        "pip install torchcodec, and FFmpeg's shared libraries",
        None,
        _torchcodec_frames,
        _torchcodec_spread,
    ),
}
