"""Writing MP4 and WAV files as the media come, so that an hour needs no more memory than a second."""

from __future__ import annotations

import math
import wave
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from torch import Tensor

from selfflow_mm.data.mediafile import CONVERSION
from selfflow_mm.data.resampling import LAYOUTS
from selfflow_mm.errors import UserError

#: AAC's sampling frequencies, ISO/IEC 14496-3 table 1.18.
AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
#: What sounds of other rates are resampled to.
FALLBACK_RATE = 48_000
_FRAME_BITS = 6144  # an AAC frame holds at most this many bits per channel (ISO/IEC 14496-3, 4.5.3)


class MovieWriter:
    """An MP4 file that browsers play, under construction: H.264 4:2:0 in BT.709, AAC, index in front ("faststart").

    Give pictures and sound in turns, seconds by seconds: the file interleaves them, and what has no counterpart yet
    waits in memory. A context manager; leaving it finishes the file.

    Args:
        path: the file, written in place.
        height, width: of the frames; 4:2:0 needs even sizes, an odd one gains a copy of its last line or column.
        fps: frames per second.
        sound: rate (one of ``AAC_RATES``) and channels; None for a silent film.
        crf: H.264 quality, 0 (best) to 51.
        fast: the quickest encoder settings and one thread.

    Raises:
        UserError: a quality out of range, or a number of channels that has no name.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        fps: float,
        sound: tuple[int, int] | None = None,
        *,
        crf: int = 18,
        fast: bool = False,
    ) -> None:
        if not 0 <= crf <= 51:
            raise UserError(f"crf (H.264 quality) goes from 0 to 51, got {crf}")
        if sound is not None and sound[1] not in LAYOUTS:
            raise UserError(f"a video's sound has one of {sorted(LAYOUTS)} channels, got {sound[1]}; mix it down first")
        options = {"movflags": "faststart"}
        if sound is not None:
            options["movie_timescale"] = str(sound[0])  # edit lists count in it: exact for the sound
        self._fps = Fraction(fps).limit_denominator(1001)  # 23.976..., 29.97... are n/1001
        self._odd = (height % 2, width % 2)
        self._frames = self._samples = 0
        self._container = av.open(str(path), "w", format="mp4", options=options)
        # All streams exist before the first packet.
        self._video = self._add_video(height + self._odd[0], width + self._odd[1], crf, fast)
        self._converter = VideoReformatter()  # one for all frames: making one takes longer than a small frame
        self._audio = None if sound is None else self._add_audio(*sound)

    def __enter__(self) -> MovieWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            if kind is None:
                for stream in (self._video, self._audio):
                    if stream is not None:
                        self._container.mux(stream.encode(None))
        finally:
            self._container.close()

    def add_frames(self, frames: Tensor) -> None:
        """Append uint8 ``(T, H, W, 3)``."""
        for axis, odd in enumerate(self._odd, start=1):
            if odd:
                frames = torch.cat([frames, frames.narrow(axis, frames.shape[axis] - 1, 1)], dim=axis)
        for pixels in np.ascontiguousarray(frames.detach().cpu().numpy()):
            frame = self._converter.reformat(
                av.VideoFrame.from_ndarray(pixels, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=CONVERSION,
                threads=1,
            )
            frame.pts, frame.time_base = self._frames, 1 / self._fps
            self._frames += 1
            self._container.mux(self._video.encode(frame))

    def add_sound(self, waveform: Tensor) -> None:
        """Append ``(channels, samples)`` in [-1, 1]; clipped. Refuses NaN and infinity."""
        assert self._audio is not None
        samples = np.ascontiguousarray(finite_waveform(waveform).numpy())
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=LAYOUTS[samples.shape[0]])
        frame.sample_rate, frame.pts, frame.time_base = self._audio.rate, self._samples, Fraction(1, self._audio.rate)
        self._samples += samples.shape[1]
        self._container.mux(self._audio.encode(frame))

    def _add_video(self, height: int, width: int, crf: int, fast: bool) -> Any:
        preset = "ultrafast" if fast else "medium"
        stream = self._container.add_stream("libx264", rate=self._fps, options={"crf": str(crf), "preset": preset})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1 if fast else 0
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def _add_audio(self, rate: int, channels: int) -> AudioStream:
        # The default coder searches twice as long for a worse result on sharp onsets (docs/world.md has figures).
        stream = self._container.add_stream(
            "aac", rate=rate, layout=LAYOUTS[channels], options={"aac_coder": "fast"}
        )  # fmt: skip
        assert isinstance(stream, AudioStream)
        stream.bit_rate = min(64_000 * channels, int(rate / 1024 * _FRAME_BITS * channels))
        return stream


class WavWriter:
    """A 16-bit PCM WAV file under construction: ``value * 32768``, rounded; values outside [-1, 1] are clipped.

    ``target`` is a path or an open binary file. A context manager; leaving it finishes the file.
    """

    def __init__(self, target: Any, rate: int, channels: int) -> None:
        self._file = wave.open(str(target) if isinstance(target, Path) else target, "wb")
        self._file.setnchannels(channels)
        self._file.setsampwidth(2)
        self._file.setframerate(rate)

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add_sound(self, waveform: Tensor) -> None:
        """Append ``(channels, samples)``. Refuses NaN and infinity."""
        pcm = (finite_waveform(waveform) * 32768).round().clamp(max=32767).to(torch.int16).T.contiguous().numpy()
        self._file.writeframes(pcm.astype("<i2").tobytes())


def finite_waveform(waveform: Tensor) -> Tensor:
    """float32 on the CPU, clipped to [-1, 1].

    Raises:
        UserError: NaN or infinity in it.
    """
    waveform = waveform.detach().to("cpu", torch.float32)
    if not math.isfinite(float(waveform.sum())):
        raise UserError("the sound holds values that are not finite (nan or infinity); nothing was written")
    return waveform.clamp(-1, 1)
