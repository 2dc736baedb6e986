"""Changing rates and channels: frames in time, sound in time, sound between numbers of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler

from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio

#: FFmpeg's channel layouts by number of channels.
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def constant_rate(frames: Iterable[tuple[float, float, Any]], fps: float) -> Iterator[Any]:
    """Resample (seconds, duration, frame) to ``fps`` by the nearest time stamp; streams.

    Frame ``k`` is the one whose time is nearest to ``k / fps``; as many frames come out as fill the time until the
    last frame's end, rounded, at least one.
    """
    count = 0
    last: tuple[float, float, Any] | None = None
    for item in frames:
        if last is not None:
            middle = (last[0] + item[0]) / 2
            while count / fps <= middle:
                yield last[2]
                count += 1
        last = item
    if last is not None:
        total = max(1, round((last[0] + last[1]) * fps))
        for _ in range(count, total):
            yield last[2]


def resample(audio: Audio, rate: int) -> Audio:
    """Band-limited resampling (libswresample) to exactly ``round(samples * rate / audio.rate)`` samples."""
    if audio.rate == rate:
        return audio
    # Channel by channel: swresample needs a channel layout, and a tensor has none.
    channels = []
    for channel in audio.waveform.to(torch.float32).numpy():
        converter = AudioResampler("flt", "mono", rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channel[None]), format="flt", layout="mono")
        frame.sample_rate = audio.rate
        parts = [part.to_ndarray()[0] for f in (frame, None) for part in converter.resample(f)]
        channels.append(np.concatenate(parts))
    samples = max(1, round(audio.waveform.shape[1] * rate / audio.rate))
    waveform = np.stack(channels)[:, :samples]
    waveform = np.pad(waveform, ((0, 0), (0, samples - waveform.shape[1])))
    return Audio(torch.from_numpy(waveform), rate)


def mix_channels(audio: Audio, channels: int) -> Audio:
    """Up- or down-mix: mono is copied to every channel, anything becomes mono by its mean, other pairs follow
    libswresample's matrices (ITU-R BS.775, scaled so that nothing clips)."""
    have = audio.waveform.shape[0]
    if have == channels:
        return audio
    if have == 1:
        return Audio(audio.waveform.repeat(channels, 1), audio.rate)
    if channels == 1:
        return Audio(audio.waveform.mean(0, keepdim=True), audio.rate)
    if have not in LAYOUTS or channels not in LAYOUTS:
        raise UserError(f"a sound of {have} channels cannot be mixed to {channels}; known: {sorted(LAYOUTS)}")
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(audio.waveform.numpy()), format="fltp", layout=LAYOUTS[have]
    )
    frame.sample_rate = audio.rate
    converter = AudioResampler("fltp", LAYOUTS[channels], audio.rate)
    parts = [part.to_ndarray() for f in (frame, None) for part in converter.resample(f)]
    return Audio(torch.from_numpy(np.concatenate(parts, axis=1)), audio.rate)
