"""Onsets in the sound: moments at which some band rises far above what was there just before."""

from __future__ import annotations

import numpy as np
import torch

from selfflow_tokenizers.media import Audio

#: A rise in decibels over the loudest of the last 30 ms, in any band, that is an onset.
RISE = 9.0
#: Nothing quieter than this counts: decibels under full scale, and under the clip's loudest band.
_FLOOR, _RANGE = -62.0, -38.0
_WINDOW, _HOP = 0.008, 0.002  # seconds
#: Onsets are at least so far apart, seconds.
_APART = 0.06
_BANDS = 9


def levels(audio: Audio) -> np.ndarray:
    """Decibels of nine bands, half an octave to an octave wide from 100 Hz on, every 2 ms; ``(9, n)``.

    Column k is centred at ``k * 2 ms``.
    """
    window, hop = round(_WINDOW * audio.rate), round(_HOP * audio.rate)
    spectrum = torch.stft(
        audio.waveform.float(),
        window,
        hop_length=hop,
        window=torch.hann_window(window),
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().sum(0).numpy() / (window / 4) ** 2
    hertz = np.arange(len(power)) * audio.rate / window
    edges = np.geomspace(100.0, min(8000.0, audio.rate / 2), _BANDS + 1)
    band = np.clip(np.digitize(hertz, edges) - 1, 0, _BANDS - 1)
    return 10 * np.log10(np.stack([power[band == b].sum(0) for b in range(_BANDS)]) + 1e-12)


def find_onsets(audio: Audio) -> list[float]:
    """Times in seconds at which something begins to sound."""
    level = levels(audio)
    lowest = max(_FLOOR, float(level.max()) + _RANGE)
    level = np.maximum(level, lowest)
    n, back, gap = level.shape[1], round(0.03 / _HOP), round(0.008 / _HOP)
    before = np.full_like(level, lowest)
    for lag in range(gap, gap + back):
        before[:, lag:] = np.maximum(before[:, lag:], level[:, : n - lag])
    rise = (level - before).max(axis=0)
    # What sounds from the start has no onset, and where the sound is cut off, its end is heard in all bands.
    rise[: gap + back] = rise[n - round(_WINDOW / _HOP) :] = 0.0
    found: list[float] = []
    for k in np.argsort(-rise, kind="stable"):
        if rise[k] < RISE:
            break
        if all(abs(k * _HOP - time) > _APART for time in found):
            found.append(float(k * _HOP))
    return sorted(_begin(level, rise, time) for time in found)


def _begin(level: np.ndarray, rise: np.ndarray, time: float) -> float:
    """Back from the steepest moment of a rise to its beginning."""
    k = round(time / _HOP)
    while k > 0 and rise[k - 1] > 3.0 and time - k * _HOP < 0.012:
        k -= 1
    return k * _HOP
