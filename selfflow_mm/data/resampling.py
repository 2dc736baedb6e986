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
    return Audio(torch.cat([piece.waveform for piece in resample_pieces([audio], rate)], dim=1), rate)


def resample_pieces(pieces: Iterable[Audio], rate: int) -> Iterator[Audio]:
    """:func:`resample` of one sound that comes in pieces of any lengths; what comes out, joined, is the same."""
    converters: list[AudioResampler] = []
    last: Audio | None = None
    seen = given = 0
    for piece in pieces:
        if piece.rate == rate:
            yield piece
            continue
        # Channel by channel: swresample needs a channel layout, and a tensor has none.
        converters = converters or [AudioResampler("flt", "mono", rate) for _ in piece.waveform]
        seen += piece.waveform.shape[1]
        last = piece
        blocks = []
        for converter, channel in zip(converters, piece.waveform.to(torch.float32).numpy(), strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channel[None]), format="flt", layout="mono")
            frame.sample_rate = piece.rate
            blocks.append(_join(converter.resample(frame)))
        if blocks[0].shape[0]:
            given += blocks[0].shape[0]
            yield Audio(torch.from_numpy(np.stack(blocks)), rate)
    if last is None:
        return
    missing = max(1, round(seen * rate / last.rate)) - given  # the filter's delay holds the end back until the flush
    if missing > 0:
        end = np.stack([_join(converter.resample(None)) for converter in converters])[:, :missing]
        yield Audio(torch.from_numpy(np.pad(end, ((0, 0), (0, missing - end.shape[1])))), rate)


def _join(frames: Iterable[av.AudioFrame]) -> np.ndarray:
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


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
