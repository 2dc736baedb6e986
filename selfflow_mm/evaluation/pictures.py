"""Still pictures of moving and sounding things: film strips and spectrograms, for report pages."""

from __future__ import annotations

import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from selfflow_tokenizers.media import Audio, Video

from .spectral import mel_filters

_GREY = (128, 128, 128, 255)  # legible on light and dark pages alike
_RANGE_DB = 80.0
_MEL_BANDS = 96
# Six stops of matplotlib's magma (perceptually uniform, CC0), from quiet to loud.
_MAGMA = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))


def film_strip(video: Video, n: int = 8, height: int = 96) -> Pillow.Image:
    """``n`` frames (fewer if the clip has fewer) from first to last at equal distances, side by side, RGBA.

    A height that is a multiple of the frames' keeps their pixels as squares.
    """
    count = video.frames.shape[0]
    n = min(n, count)
    picks = [round(i * (count - 1) / max(n - 1, 1)) for i in range(n)]
    width = max(1, round(height * video.frames.shape[2] / video.frames.shape[1]))
    gap = max(2, height // 32)
    whole = height % video.frames.shape[1] == 0
    filter = Pillow.Resampling.NEAREST if whole else Pillow.Resampling.BICUBIC
    strip = Pillow.new("RGBA", (n * width + (n - 1) * gap, height), (0, 0, 0, 0))
    for place, pick in enumerate(picks):
        frame = Pillow.fromarray(video.frames[pick].cpu().numpy()).resize((width, height), filter)
        strip.paste(frame, (place * (width + gap), 0))
    return strip


def mel_spectrogram_db(audio: Audio, columns: int = 360, bands: int = _MEL_BANDS) -> Tensor:
    """``(bands, columns)`` power in dB below the loudest cell, in [-80, 0]; row 0 is the lowest band.

    Channels are averaged in power, so that opposite phases do not cancel. HTK mel scale, triangular bands
    (Young et al., The HTK Book, section 5.4), Hann window. Silence is at the floor throughout.
    A very short sound has fewer columns.
    """
    window = 1 << max(8, (round(audio.rate * 0.032) - 1).bit_length())  # 32 to 64 ms, a power of two
    samples = audio.waveform.shape[1]
    hop = max(1, min(samples // columns, window // 2))  # at most half a window, or long sounds would have gaps
    spectrum = torch.stft(
        audio.waveform.cpu().float(),
        window,
        hop_length=hop,
        window=torch.hann_window(window),
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().mean(dim=0)
    mel = mel_filters(window // 2 + 1, audio.rate, bands).float() @ power
    mel = functional.adaptive_avg_pool1d(mel, columns) if mel.shape[1] > columns else mel
    decibels = 10 * torch.log10(mel + 1e-12)
    # A floor under the reference keeps the rounding noise of near silence from filling the picture: a full-scale
    # sine has a peak power of about (window / 4) ** 2, and the reference never goes lower than 60 dB under that.
    full_scale = 20 * torch.log10(torch.tensor(window / 4))
    reference = torch.maximum(decibels.max(), full_scale - 60)
    return (decibels - reference).clamp(-_RANGE_DB, 0)


def spectrogram(audio: Audio, width: int = 480, height: int = 190) -> Pillow.Image:
    """A log-mel spectrogram, seconds along and kilohertz up; RGBA ``(width, height)`` with transparent margins."""
    left, bottom, top = 44, 22, 6
    plot = (width - left - 8, height - bottom - top)
    level = mel_spectrogram_db(audio, columns=plot[0]) / _RANGE_DB + 1
    pixels = _colours(level.flip(0))
    heat = Pillow.fromarray(pixels.numpy()).resize(plot, Pillow.Resampling.BILINEAR)
    picture = Pillow.new("RGBA", (width, height), (0, 0, 0, 0))
    picture.paste(heat, (left, top))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    for kilohertz in (0.25, 1, 4, 16):
        share = _hertz_to_mel(kilohertz * 1000) / _hertz_to_mel(audio.rate / 2)
        if share < 0.85:  # above, the unit has its place
            y = top + plot[1] * (1 - share)
            draw.line((left - 4, y, left, y), fill=_GREY)
            draw.text((left - 6, y), f"{kilohertz:g}", fill=_GREY, font=font, anchor="rm")
    draw.text((left - 6, top + 6), "kHz", fill=_GREY, font=font, anchor="rm")
    step = _tick_step(audio.seconds)
    for i in range(int(audio.seconds / step) + 1):
        x = left + plot[0] * i * step / audio.seconds
        draw.line((x, top + plot[1], x, top + plot[1] + 4), fill=_GREY)
        if x < left + plot[0] - 20:
            draw.text((x, top + plot[1] + 5), f"{i * step:g}", fill=_GREY, font=font, anchor="mt")
    draw.text((width - 8, top + plot[1] + 5), "s", fill=_GREY, font=font, anchor="rt")
    return picture


def _hertz_to_mel(hertz: float) -> float:
    return float(2595 * torch.log10(torch.tensor(1 + hertz / 700)))


def _colours(level: Tensor) -> Tensor:
    """Levels in [0, 1] as uint8 ``(..., 3)`` colours."""
    stops = torch.tensor(_MAGMA, dtype=torch.float32)
    place = level.clamp(0, 1) * (len(stops) - 1)
    below = place.floor().long().clamp(max=len(stops) - 2)
    weight = (place - below)[..., None]
    return (stops[below] * (1 - weight) + stops[below + 1] * weight).round().to(torch.uint8)


def _tick_step(seconds: float) -> float:
    """A round distance that gives about four to eight marks."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600):
        if seconds / step <= 8:
            return step
    return seconds / 6
