"""Media files of known content, made with PyAV."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from selfflow_tokenizers.media import Audio, Video

SHARED = Path(__file__).parents[3] / "../shared/data"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Find real test material, or skip."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs ../shared/data/{name}")
        return path

    return find


@pytest.fixture(scope="session")
def ramp() -> Callable[..., Video]:
    """A video whose frame k has the grey level ``10 + step * k``."""

    def make(frames: int = 33, height: int = 32, width: int = 48, fps: float = 16.0, step: int = 6) -> Video:
        levels = (10 + step * torch.arange(frames)).clamp(max=250).to(torch.uint8)
        return Video(levels.view(-1, 1, 1, 1).expand(frames, height, width, 3).contiguous(), fps)

    return make


@pytest.fixture(scope="session")
def clicks() -> Callable[..., Audio]:
    """A silent sound with one-sample clicks at the given seconds."""

    def make(seconds: float, at: Sequence[float], rate: int = 16_000, channels: int = 2) -> Audio:
        waveform = torch.zeros(channels, round(seconds * rate))
        for time in at:
            waveform[:, round(time * rate)] = 0.9
        return Audio(waveform, rate)

    return make


@pytest.fixture(scope="session")
def click_error() -> Callable[[Audio, float], float]:
    """Seconds between where a click is (the loudest sample within 20 ms) and where it should be."""

    def measure(audio: Audio, at: float) -> float:
        place, reach = round(at * audio.rate), round(0.02 * audio.rate)
        first = max(0, place - reach)
        part = audio.waveform[0, first : place + reach].abs()
        assert part.max() > 0.3, f"no click near {at} s"
        return (int(part.argmax()) + first) / audio.rate - at

    return measure


@pytest.fixture(scope="session")
def make_file() -> Callable[..., Path]:
    """Write a media file with chosen codecs and time stamps.

    ``levels``: one grey level a frame; ``stamps``: their times in milliseconds; ``audio``: a sound, whose time stamps
    begin at ``audio_start`` seconds.
    """

    def make(
        path: Path,
        levels: Sequence[int] = (),
        stamps: Sequence[int] | None = None,
        audio: Audio | None = None,
        audio_start: float = 0.0,
        video_codec: str = "libx264",
        audio_codec: str = "aac",
        size: tuple[int, int] = (32, 48),
        aspect: Fraction | None = None,
    ) -> Path:
        with av.open(str(path), "w") as container:
            video = sound = None
            if levels:
                video = container.add_stream(video_codec, rate=25)
                video.height, video.width = size
                video.pix_fmt = "yuv420p"
                video.time_base = video.codec_context.time_base = Fraction(1, 1000)
                if aspect is not None:
                    video.codec_context.sample_aspect_ratio = aspect
            if audio is not None:
                layout = {1: "mono", 2: "stereo", 6: "5.1"}[audio.waveform.shape[0]]
                sound = container.add_stream(audio_codec, rate=audio.rate, layout=layout)
            if video is not None:
                for level, stamp in zip(levels, stamps or range(0, 40 * len(levels), 40), strict=True):
                    pixels = np.full((*size, 3), level, np.uint8)
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts, frame.time_base = stamp, Fraction(1, 1000)
                    container.mux(video.encode(frame))
                container.mux(video.encode(None))
            if audio is not None and sound is not None:
                block = av.AudioFrame.from_ndarray(audio.waveform.numpy(), format="fltp", layout=layout)
                block.sample_rate, block.pts = audio.rate, 0
                context = sound.codec_context
                fit = av.AudioResampler(context.format.name, layout, audio.rate, context.frame_size or None)
                late = round(audio_start * audio.rate)
                for part in [*fit.resample(block), *fit.resample(None)]:
                    part.pts, part.time_base = part.pts + late, Fraction(1, audio.rate)
                    container.mux(sound.encode(part))
                container.mux(sound.encode(None))
        return path

    return make


@pytest.fixture(scope="session")
def set_display_matrix() -> Callable[[Path, Sequence[int]], None]:
    """Overwrite the 2 x 2 turn (a, b, c, d) of an MP4's first track (ISO/IEC 14496-12, 8.3.2)."""

    def patch(path: Path, turn: Sequence[int]) -> None:
        data = bytearray(path.read_bytes())
        start = data.index(b"tkhd") + 4 + 40
        a, b, c, d = (value << 16 for value in turn)
        data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)

    return patch
