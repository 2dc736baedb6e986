"""Facts about FFmpeg streams and blocks that take a few lines each."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.stream import VideoStream


def planar(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a block as float32 ``(channels, samples)``, full scale 1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    return samples.astype(np.float32, copy=False)


def is_cover(stream: VideoStream) -> bool:
    """Whether a video stream is only an album's cover. (Asking for a disposition is slow, so the codec goes first.)"""
    return stream.codec_context.name in ("mjpeg", "png", "bmp", "webp") and bool(
        stream.disposition & Disposition.attached_pic
    )


def stated_seconds(stream: Any) -> float | None:
    """How long the header says a stream is: its duration, or Matroska's DURATION tag; None when it does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        return float(parts[0]) * 3600 + float(parts[1]) * 60 + float(parts[2]) if len(parts) == 3 else None
    except ValueError:
        return None
