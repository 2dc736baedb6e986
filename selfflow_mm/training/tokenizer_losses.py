"""What a tokenizer's reconstruction is compared by. Terms are means, so sizes of clips do not matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError


@dataclass(frozen=True)
class VideoLossConfig:
    """Weights of the terms of :func:`video_loss`.

    Attributes:
        l1: mean absolute error.
        l2: mean squared error.
        gradient: absolute error of differences between neighbouring pixels, at full and at half size.
        moving: a pixel that moves counts ``1 + moving`` times; objects cover few pixels and carry the meaning.
        threshold: colour difference (of the range 2) from the pixel's median over time that counts as moving.
    """

    l1: float = 1.0
    l2: float = 4.0
    gradient: float = 0.5
    moving: float = 6.0
    threshold: float = 0.2


@dataclass(frozen=True)
class AudioLossConfig:
    """Weights of the terms of :func:`audio_loss`.

    Attributes:
        l1: mean absolute error of samples, relative to the mean loudness of the batch.
        l2: mean squared error of samples, relative to the power of each sound.
        complex: error of the spectrum with its phase.
        magnitude: error of the spectrum without its phase.
        log: error of the spectrum's logarithm, which hears quiet parts.
        windows: lengths of the short-time Fourier transforms in samples.
        overlap: how many windows cover a sample; the hop is the window divided by it.
    """

    l1: float = 0.5
    l2: float = 3.0
    complex: float = 1.0
    magnitude: float = 0.3
    log: float = 0.05
    windows: tuple[int, ...] = (64, 256, 1024)
    overlap: int = 2

    def __post_init__(self) -> None:
        if not self.windows or any(w < 8 or w % 4 for w in self.windows):
            raise UserError(f"windows are multiples of 4 from 8 up, got {list(self.windows)}")
        if self.overlap not in (2, 4):
            raise UserError(f"overlap is 2 or 4, got {self.overlap}")


def moving_pixels(frames: Tensor, threshold: float) -> Tensor:
    """``(B, T, H, W, 3)`` -> bool ``(B, T, H, W, 1)``: pixels that differ from their median over time."""
    return (frames - frames.median(dim=1, keepdim=True).values).abs().amax(-1, keepdim=True) > threshold


def video_loss(output: Tensor, target: Tensor, config: VideoLossConfig) -> dict[str, Tensor]:
    """Terms, already weighted, of two clips ``(B, T, H, W, 3)`` in [-1, 1]."""
    weight = 1 + config.moving * moving_pixels(target, config.threshold).float()
    weight = weight / weight.mean()
    error = output - target
    return {
        "l1": config.l1 * (error.abs() * weight).mean(),
        "l2": config.l2 * (error.square() * weight).mean(),
        "gradient": config.gradient * _gradient(error, weight),
    }


def _gradient(error: Tensor, weight: Tensor) -> Tensor:
    planes, weights = (x.flatten(0, 1).permute(0, 3, 1, 2) for x in (error, weight))
    total = planes.new_zeros(())
    for size in (1, 2):
        if size > 1:
            planes, weights = F.avg_pool2d(planes, size), F.avg_pool2d(weights, size)
        down = planes[:, :, 1:] - planes[:, :, :-1]
        right = planes[..., 1:] - planes[..., :-1]
        total = total + (down.abs() * weights[:, :, 1:]).mean() + (right.abs() * weights[..., 1:]).mean()
    return total / 4


def audio_loss(output: Tensor, target: Tensor, config: AudioLossConfig) -> dict[str, Tensor]:
    """Terms, already weighted, of two sounds ``(B, channels, samples)``.

    Spectra are compared for each channel and, for stereo, for the sum of both, so that their phases agree. Errors
    are relative to the loudness of the batch, with a floor near -50 dB, so that loud sounds do not rule.
    """
    error = output - target
    loud = target.abs().mean().clamp_min(3e-3)
    size = target.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-2
    terms = {"l1": config.l1 * error.abs().mean() / loud, "l2": config.l2 * (error / size).square().mean()}
    sums = {"complex": error.new_zeros(()), "magnitude": error.new_zeros(()), "log": error.new_zeros(())}
    for window in config.windows:
        a, b = (_spectrum(sound, window, window // config.overlap) for sound in (output, target))
        x, y = ((s.square().sum(-1) + 1e-7).sqrt() for s in (a, b))
        loud = y.mean().clamp_min(3e-3)
        sums["complex"] = sums["complex"] + (a - b).abs().mean() / loud
        sums["magnitude"] = sums["magnitude"] + (x - y).abs().mean() / loud
        sums["log"] = sums["log"] + ((x + 1e-3).log() - (y + 1e-3).log()).abs().mean()
    for name, value in sums.items():
        terms[name] = getattr(config, name) / len(config.windows) * value
    return terms


def _spectrum(waves: Tensor, window: int, hop: int) -> Tensor:
    """``(B, channels, samples)`` -> ``(B, channels (+ 1), bins, frames, 2)``, the last of channels their sum."""
    shape = torch.hann_window(window, device=waves.device)
    spectrum = torch.stft(waves.flatten(0, 1), window, hop, window=shape, normalized=True, return_complex=True)
    spectrum = torch.view_as_real(spectrum).unflatten(0, waves.shape[:2])
    if waves.shape[1] < 2:
        return spectrum
    return torch.cat([spectrum, spectrum.sum(1, keepdim=True) * waves.shape[1] ** -0.5], dim=1)
