"""Spectral distances against numpy's FFT, torchaudio's mel filters and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import get_window

from selfflow_mm.evaluation.spectral import (
    log_spectral_distance,
    mel_distance,
    mel_filters,
    mel_spectrogram,
    mel_window,
    stft_distance,
)
from selfflow_tokenizers import ensure_torchaudio


def stft(x: np.ndarray, size: int, hop: int, window: int) -> np.ndarray:
    """Magnitudes ``(bins, frames)`` of centred frames, written out."""
    taper = np.zeros(size)
    start = (size - window) // 2
    taper[start : start + window] = get_window("hann", window)
    padded = np.pad(x, size // 2, mode="reflect")
    frames = [padded[s : s + size] * taper for s in range(0, len(padded) - size + 1, hop)]
    return np.abs(np.fft.rfft(np.array(frames), axis=1)).T


def test_the_stft_distance_is_its_definition() -> None:
    x, y = 0.1 * torch.randn(2, 5000), 0.1 * torch.randn(2, 5000)
    expected = 0.0
    for size, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        convergence, logs = [], []
        for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True):
            a, b = (np.sqrt(np.maximum(stft(w, size, hop, window) ** 2, 1e-8)) for w in (a, b))
            convergence.append(np.linalg.norm(b - a) / np.linalg.norm(b))
            logs.append(np.abs(np.log(a) - np.log(b)).mean())
        expected += (np.mean(convergence) + np.mean(logs)) / 3
    assert stft_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_a_factor_shows_as_it_should() -> None:
    x = 0.1 * torch.randn(1, 6000)
    assert stft_distance(x, x) == 0
    # Twice as loud: convergence 1, logarithms ln 2 apart; 6 dB; log10 2 in every band.
    assert stft_distance(2 * x, x) == pytest.approx(1 + math.log(2), abs=1e-3)
    assert mel_distance(2 * x, x, 16_000) == pytest.approx(math.log10(2), abs=1e-6)
    assert log_spectral_distance(2 * x, x, 16_000) == pytest.approx(20 * math.log10(2), abs=1e-3)


def test_a_full_scale_sine_has_magnitude_one() -> None:
    rate = 24_000
    time = torch.arange(rate) / rate
    mel = mel_spectrogram(torch.sin(2 * math.pi * 3000 * time)[None], rate)[0, :, 20:-20]
    assert 0.8 <= float(mel.max()) <= 1.5  # a band's triangle may see the neighbouring bins too
    silence = mel_spectrogram(torch.zeros(1, rate), rate)
    assert float(silence.max()) == float(silence.min()) == pytest.approx(1e-5)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_the_mel_filters_are_those_of_torchaudio(rate: int) -> None:
    ensure_torchaudio()
    from torchaudio.functional import melscale_fbanks

    bins = mel_window(rate)[0] // 2 + 1
    expected = melscale_fbanks(bins, 0.0, rate / 2, 80, rate).T.double()
    ours = mel_filters(bins, rate)
    filled = expected.sum(1) > 0
    torch.testing.assert_close(ours[filled], expected[filled], atol=1e-3, rtol=0)
    assert bool((ours.sum(1) > 0).all())


def test_windows_are_in_proportion_to_the_rate() -> None:
    assert mel_window(24_000) == (1024, 256)
    assert mel_window(48_000) == (2048, 512)
    assert mel_window(8000) == (340, 85)


@settings(max_examples=10)
@given(st.integers(1, 400), st.sampled_from([8000, 16_000, 48_000]))
def test_sounds_of_any_length(samples: int, rate: int) -> None:
    x, y = torch.zeros(1, samples), torch.full((1, samples), 0.5)
    for value in (stft_distance(x, y), mel_distance(x, y, rate), log_spectral_distance(x, y, rate)):
        assert math.isfinite(value) and value > 0
