"""What reconstructed sounds are compared by. Terms are means, so lengths of sounds do not matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..evaluation.spectral import mel_filters


@dataclass(frozen=True)
class AudioLossConfig:
    """Weights of the terms of :func:`audio_loss`.

    Attributes:
        l1: mean absolute error of samples, relative to the mean loudness of the batch.
        l2: mean squared error of samples, relative to the power of each sound.
        complex: error of the spectrum with its phase.
        magnitude: error of the spectrum without its phase.
        log: error of the spectrum's logarithm, which hears quiet parts (Yamamoto et al. 2020).
        convergence: norm of the error of the spectrum without its phase over the norm of the spectrum (likewise).
        mel: error of the logarithm of ``mel_bands`` mel bands, of the longest window.
        windows: lengths of the short-time Fourier transforms in samples; from .01 to .05 s are usual.
        overlap: how many windows cover a sample; the hop is the window divided by it.
        side: stereo spectra are compared for left, right and their sum; true adds their difference.
        mel_bands: bands from 0 to half the sample rate.
        kl: divergence of gaussian latents from the standard normal, nats per latent value.
    """

    l1: float = 0.5
    l2: float = 3.0
    complex: float = 1.0
    magnitude: float = 0.3
    log: float = 0.05
    convergence: float = 0.0
    mel: float = 0.0
    windows: tuple[int, ...] = (64, 256, 1024)
    overlap: int = 2
    side: bool = False
    mel_bands: int = 80
    kl: float = 1e-4

    def __post_init__(self) -> None:
        if not self.windows or any(w < 8 or w % 4 for w in self.windows):
            raise UserError(f"windows are multiples of 4 from 8 up, got {list(self.windows)}")
        if self.overlap not in (2, 4):
            raise UserError(f"overlap is 2 or 4, got {self.overlap}")
        weights = (self.l1, self.l2, self.complex, self.magnitude, self.log, self.convergence, self.mel, self.kl)
        if min(weights) < 0 or self.mel_bands < 1:
            raise UserError("weights of loss terms cannot be negative and mel_bands is at least 1")


def audio_loss(output: Tensor, target: Tensor, config: AudioLossConfig, rate: int = 16000) -> dict[str, Tensor]:
    """Terms, already weighted, of two sounds ``(B, channels, samples)`` of ``rate`` samples a second.

    Spectra are compared for each channel and, for stereo, for the sum of both, so that their phases agree. Errors
    are relative to the loudness of the batch, with a floor near -50 dB, so that loud sounds do not rule.
    """
    error = output - target
    loud = target.abs().mean().clamp_min(3e-3)
    terms = {"l1": config.l1 * error.abs().mean() / loud, "l2": config.l2 * (error / loudness(target)).square().mean()}
    sums = {name: error.new_zeros(()) for name in ("complex", "magnitude", "log")}
    if config.convergence:
        sums["convergence"] = error.new_zeros(())
    for window in config.windows:
        a, b = (spectrum(sound, window, window // config.overlap, config.side) for sound in (output, target))
        x, y = ((s.square().sum(-1) + 1e-7).sqrt() for s in (a, b))
        loud = y.mean().clamp_min(3e-3)
        sums["complex"] = sums["complex"] + (a - b).abs().mean() / loud
        sums["magnitude"] = sums["magnitude"] + (x - y).abs().mean() / loud
        sums["log"] = sums["log"] + ((x + 1e-3).log() - (y + 1e-3).log()).abs().mean()
        if config.convergence:
            sums["convergence"] = sums["convergence"] + spectral_convergence(x, y)
        if config.mel and window == max(config.windows):
            filters = mel_filters(window // 2 + 1, rate, config.mel_bands).to(x)
            heard, wanted = ((filters @ magnitude + 1e-3).log() for magnitude in (x, y))
            terms["mel"] = config.mel * (heard - wanted).abs().mean()
    for name, value in sums.items():
        terms[name] = getattr(config, name) / len(config.windows) * value
    return terms


def loudness(sounds: Tensor) -> Tensor:
    """Root mean square of each sound ``(B, channels, samples)`` -> ``(B, 1, 1)``, with a floor at -40 dB."""
    return sounds.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-2


def spectral_convergence(output: Tensor, target: Tensor) -> Tensor:
    """Magnitudes ``(B, ...)``: mean over sounds of ``|target - output|_F / |target|_F`` (Yamamoto et al. 2020)."""
    error, size = (torch.linalg.vector_norm(x.flatten(1), dim=1) for x in (target - output, target))
    # The norm of a sound that is silent (-50 dB in every bin) stands in for that of quieter ones.
    return (error / size.clamp_min(3e-3 * target[0].numel() ** 0.5)).mean()


def spectrum(waves: Tensor, window: int, hop: int, side: bool = False) -> Tensor:
    """``(B, channels, samples)`` -> ``(B, channels (+ 1 or 2), bins, frames, 2)``: Hann window, unit noise gain.

    The channels are followed by their sum and, with ``side``, by the difference of the first two, both divided by
    the root of their number.
    """
    shape = torch.hann_window(window, device=waves.device)
    found = torch.stft(waves.flatten(0, 1), window, hop, window=shape, normalized=True, return_complex=True)
    found = torch.view_as_real(found).unflatten(0, waves.shape[:2])
    if waves.shape[1] < 2:
        return found
    parts = [found, found.sum(1, keepdim=True) * waves.shape[1] ** -0.5]
    if side:
        parts.append((found[:, :1] - found[:, 1:2]) * 2**-0.5)
    return torch.cat(parts, dim=1)
