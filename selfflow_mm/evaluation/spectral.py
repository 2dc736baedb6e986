"""Distances between the spectra of sounds: multi-resolution STFT, mel, log-spectral.

All of them compare magnitudes, channel by channel, and take the mean over channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: FFT size, hop and window of the three resolutions, in samples: Yamamoto et al. (2020), the default of auraloss.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_POWER_FLOOR = 1e-8
#: Bands of the mel spectrogram, and the magnitude below which all is silence: 100 dB under a full-scale sine.
BANDS, FLOOR = 80, 1e-5


def stft_distance(output: Tensor, target: Tensor, resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS) -> float:
    """Multi-resolution STFT distance (Yamamoto et al. 2020, eq. 5 to 7): 0 for equality.

    The mean over resolutions of spectral convergence, ``|| |Y| - |X| || / || |Y| ||`` (Frobenius norms), plus the mean
    absolute difference of natural logarithms of the magnitudes. Hann windows, centred frames, power floored at 1e-8:
    the numbers are those of auraloss 0.4 with its defaults, windows being in samples whatever the rate is.

    Args:
        output, target: ``(channels, samples)``.
    """
    total = 0.0
    for size, hop, window in resolutions:
        x, y = (_magnitude(w, size, hop, window) for w in (output, target))
        convergence = ((y - x).norm(dim=(-2, -1)) / y.norm(dim=(-2, -1))).mean()
        total += float(convergence + (x.log() - y.log()).abs().mean())
    return total / len(resolutions)


def mel_distance(output: Tensor, target: Tensor, rate: int) -> float:
    """Mean absolute difference of log10 mel magnitudes; 0.05 is 1 dB on average, 0 equality.

    See :func:`mel_spectrogram`.
    """
    return float((mel_spectrogram(output, rate).log10() - mel_spectrogram(target, rate).log10()).abs().mean())


def log_spectral_distance(output: Tensor, target: Tensor, rate: int) -> float:
    """Log-spectral distance in dB (Gray and Markel 1976): the root mean square over frequencies of the difference of
    levels, averaged over frames. Windows as :func:`mel_window`, levels floored 100 dB under a full-scale sine.
    """
    x, y = (20 * _full_scale(w, rate).clamp_min(FLOOR).log10() for w in (output, target))
    return float((x - y).square().mean(dim=-2).sqrt().mean())


def mel_window(rate: int) -> tuple[int, int]:
    """Window and hop in samples: 1024 and 256 at 24 kHz (42.7 and 10.7 ms), in proportion at other rates."""
    hop = max(4, round(256 * rate / 24_000))
    return 4 * hop, hop


def mel_spectrogram(waveform: Tensor, rate: int) -> Tensor:
    """Magnitudes in 80 mel bands, ``(channels, 80, frames)``, at least 1e-5; a full-scale sine has about 1.

    Hann window and hop of :func:`mel_window`; triangular bands of unit height (HTK's mel scale) from 0 Hz to half the
    rate.
    """
    filters = mel_filters(mel_window(rate)[0] // 2 + 1, rate).to(waveform.device)
    return (filters @ _full_scale(waveform, rate)).clamp_min(FLOOR)


@functools.lru_cache(maxsize=8)
def mel_filters(bins: int, rate: int, bands: int = BANDS) -> Tensor:
    """``(bands, bins)`` triangles of unit height, float64; a band too narrow to hold a bin takes the nearest."""
    top = _mel(torch.tensor(rate / 2, dtype=torch.float64))
    corners = 700 * (10 ** (torch.linspace(0, float(top), bands + 2, dtype=torch.float64) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    filters = torch.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)).clamp(min=0)
    empty = filters.sum(dim=1) == 0
    filters[empty, (hertz - middle).abs().argmin(dim=1)[empty]] = 1.0
    return filters


def _mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)


def _full_scale(waveform: Tensor, rate: int) -> Tensor:
    """Magnitudes ``(channels, bins, frames)`` in units of a full-scale sine's."""
    size, hop = mel_window(rate)
    return _stft(waveform, size, hop, size).abs() / (size / 4)  # a Hann window sums to size / 2, a sine has half of it


def _magnitude(waveform: Tensor, size: int, hop: int, window: int) -> Tensor:
    spectrum = _stft(waveform, size, hop, window)
    return (spectrum.real**2 + spectrum.imag**2).clamp_min(_POWER_FLOOR).sqrt()


def _stft(waveform: Tensor, size: int, hop: int, window: int) -> Tensor:
    """``(channels, samples)`` -> complex128 ``(channels, bins, frames)``; frames centred on multiples of ``hop``.

    The ends are mirrored, so a sound shorter than that needs is filled up with silence.
    """
    waveform = waveform.double()
    waveform = F.pad(waveform, (0, max(0, size // 2 + 1 - waveform.shape[-1])))
    hann = torch.hann_window(window, dtype=torch.float64, device=waveform.device)
    return torch.stft(waveform, size, hop, window, hann, pad_mode="reflect", return_complex=True)
