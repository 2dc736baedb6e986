"""Video files under construction: many episodes behind one another, each frame at an exact multiple of 1 / fps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from selfflow_mm.errors import UserError

from .video import CONVERSION

__all__ = ["CODECS", "Codec", "Movie", "codec_named"]


@dataclass(frozen=True)
class Codec:
    """How a kind of video is encoded.

    Attributes:
        encoders: FFmpeg's names, the first that this FFmpeg has is taken.
        crf: constant quality unless the user names another.
        worst: the largest crf that the encoder knows.
        options: of the encoder. A keyframe every second frame, as LeRobot does, so that any step is near one.
        odd: the pixel format for odd widths and heights.
    """

    encoders: tuple[str, ...]
    crf: int
    worst: int
    options: dict[str, str]
    odd: str


CODECS = {
    "h264": Codec(("libx264",), 18, 51, {"g": "2", "preset": "veryfast"}, "yuv444p"),
    "av1": Codec(("libsvtav1", "libaom-av1"), 20, 63, {"g": "2"}, "yuv420p"),
}


def codec_named(name: str, crf: int | None) -> tuple[Codec, str, int]:
    """The codec, the encoder of it that is there, and its quality.

    Raises:
        UserError: no such codec, no encoder for it, or a quality out of range.
    """
    if name not in CODECS:
        raise UserError(f"video codec '{name}' is not one of {', '.join(CODECS)}")
    codec = CODECS[name]
    if crf is not None and not 0 <= crf <= codec.worst:
        raise UserError(f"crf {crf} is not between 0 (best) and {codec.worst} for {name}")
    for encoder in codec.encoders:
        try:
            av.codec.Codec(encoder, "w")
        except ValueError:
            continue
        return codec, encoder, codec.crf if crf is None else crf
    raise UserError(f"this PyAV's FFmpeg has no encoder for {name} ({', '.join(codec.encoders)}); choose another codec")


class Movie:
    """One MP4 file: 4:2:0 (H.264 of odd sizes 4:4:4), BT.601 and tagged so: decoders that ignore tags assume it.

    Attributes:
        frames: written so far; the next one's time is ``frames / fps``.
    """

    def __init__(self, path: Path, fps: Fraction, height: int, width: int, codec: str, crf: int | None) -> None:
        """
        Raises:
            UserError: the codec is unknown, or cannot hold pictures of this size.
        """
        kind, encoder, quality = codec_named(codec, crf)
        self.frames, self._packets, self._bytes = 0, 0, 0
        self._fps, self._shape = fps, (height, width, 3)
        self._format = kind.odd if height % 2 or width % 2 else "yuv420p"
        options = kind.options | {"crf": str(quality)} | ({"preset": "12"} if encoder == "libsvtav1" else {})
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings for every file otherwise
        path.parent.mkdir(parents=True, exist_ok=True)
        container = cast(Any, av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}))
        self._container = container
        self._stream = container.add_stream(encoder, rate=fps, options=options)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, self._format
        context = self._stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        self._converter = VideoReformatter()
        self._name = f"{width} x {height} pictures as {codec}"

    def add(self, frames: np.ndarray, first: bool) -> None:
        """Append ``(n, H, W, 3)`` uint8; ``first`` begins an episode, with a keyframe.

        Raises:
            UserError: another size, or the encoder refuses.
        """
        if frames.shape[1:] != self._shape or frames.dtype != np.uint8:
            raise UserError(
                f"pictures are {frames.shape[1:]} {frames.dtype}, those before {self._shape} uint8; "
                "a LeRobot camera has one size"
            )
        for number, picture in enumerate(frames):
            frame = self._converter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
                format=self._format,
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                interpolation=CONVERSION,
                threads=1,
            )
            frame.pts, frame.time_base = self.frames, 1 / self._fps
            if first and number == 0:
                frame.pict_type = PictureType.I
            self._mux(self._encode(frame))
            self.frames += 1

    def expected(self, more: int) -> float:
        """Bytes of the file with so many frames more; 0 until the encoder, which runs behind, has given any."""
        return self._bytes / max(self._packets, 1) * (self.frames + more)

    def close(self) -> None:
        """Finish the file."""
        try:
            if self.frames:
                self._mux(self._encode(None))
        finally:
            self._container.close()

    def abandon(self) -> None:
        """Let go of the file without finishing it."""
        self._container.close()

    def _encode(self, frame: Any) -> list[Any]:
        try:
            return self._stream.encode(frame)
        except av.FFmpegError as error:
            raise UserError(f"{self._name}: the encoder refuses ({error.strerror}); try another codec") from error

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self._packets += 1
            self._bytes += packet.size
            self._container.mux(packet)


def described(path: Path, fps: float) -> dict[str, Any]:
    """The ``info`` of a video feature in ``info.json``, in LeRobot's words."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": {"libdav1d": "av1"}.get(stream.codec_context.name, stream.codec_context.name),
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": int(fps) if float(fps).is_integer() else fps,
            "video.channels": 3,
            "has_audio": False,
        }
