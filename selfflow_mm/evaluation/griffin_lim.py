"""Griffin-Lim on 80 mel bands: what a mel spectrogram alone keeps of a sound, a yardstick for sound tokenizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_tokenizers import ensure_torchaudio

from ..errors import UserError
from .spectral import BANDS, mel_window

ITERATIONS = 64


class GriffinLim:
    """Magnitudes in 80 mel bands (HTK's scale, Hann window and hop of :func:`mel_window`: 42.7 and 10.7 ms), and back.

    The way back is torchaudio's: least squares from mel bands to frequencies, cut off at zero, then the fast
    Griffin-Lim algorithm (Perraudin et al. 2013, momentum 0.99) from random phases of a fixed seed. On the CPU,
    whatever the device is.
    """

    def __init__(self, rate: int, iterations: int = ITERATIONS, seed: int = 0) -> None:
        if not ensure_torchaudio():
            raise UserError("Griffin-Lim needs torchaudio: pip install torchaudio")
        from torchaudio import transforms

        self.rate, self.seed = rate, seed
        self.size, self.hop = mel_window(rate)
        bins = self.size // 2 + 1
        options: dict[str, Any] = {"n_fft": self.size, "hop_length": self.hop, "power": 1.0}
        self._mel = transforms.MelSpectrogram(rate, n_mels=BANDS, **options)
        # What torchaudio's InverseMelScale solves for every sound (the least squares of least norm), solved once.
        filters = transforms.InverseMelScale(bins, BANDS, rate).fb.T
        self._inverse = torch.linalg.pinv(filters.double(), rtol=max(filters.shape) * torch.finfo(torch.float32).eps)
        self._phases = transforms.GriffinLim(n_iter=iterations, **options)

    def encode(self, waveform: Tensor) -> Tensor:
        """``(channels, samples)`` -> magnitudes ``(channels, 80, 1 + samples / hop)``, of at least one window."""
        # Frames are centred and the ends mirrored, which takes more than half a window of samples both ways.
        return self._mel(F.pad(waveform.float(), (0, max(0, self.size - waveform.shape[-1]))))

    def spectrum(self, mel: Tensor) -> Tensor:
        """Magnitudes in bands ``(channels, 80, frames)`` -> at frequencies ``(channels, bins, frames)``, at least 0."""
        return (self._inverse @ mel.double()).relu().float()

    def decode(self, mel: Tensor, samples: int) -> Tensor:
        """Magnitudes ``(channels, 80, frames)`` -> ``(channels, samples)`` in [-1, 1]."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            wave = self._phases(self.spectrum(mel))
        return F.pad(wave, (0, max(0, samples - wave.shape[-1])))[..., :samples].clamp(-1, 1)
