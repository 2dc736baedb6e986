"""How close a reconstruction is to its original: PSNR, SI-SDR, onsets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Colour difference (0 to 255) from a pixel's median over time that makes it part of a moving object.
MOVING = 25


def psnr(output: Tensor, target: Tensor, chosen: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pixels; ``chosen`` (bool, broadcast) restricts it to some pixels.

    100 dB stands for equality, NaN for no pixel chosen.
    """
    error = (output.float() - target.float()).square()
    if chosen is not None:
        error = error[chosen.expand_as(error)]
    if not error.numel():
        return math.nan
    return min(100.0, 10 * math.log10(255**2 / max(float(error.mean()), 1e-9)))


def moving(frames: Tensor) -> Tensor:
    """uint8 ``(T, H, W, 3)`` -> bool ``(T, H, W, 1)``: pixels away from their median over time."""
    frames = frames.float()
    return (frames - frames.median(dim=0).values).abs().amax(-1, keepdim=True) > MOVING


def si_sdr(output: Tensor, target: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, eq. 3) over all channels at once.

    100 dB stands for equality, NaN for a silent target.
    """
    output, target = output.double().flatten(), target.double().flatten()
    energy = target.square().sum()
    if energy < 1e-8:
        return math.nan
    projected = (output @ target) / energy * target
    ratio = projected.square().sum() / (output - projected).square().sum().clamp_min(1e-12)
    return min(100.0, 10 * math.log10(max(float(ratio), 1e-10)))


def onsets(
    waveform: Tensor, rate: int, *, hop: float = 0.005, rise: float = 9.0, floor: float = -45.0, apart: float = 0.05
) -> list[float]:
    """Times in seconds at which a sound starts or is struck again.

    The level of ``hop`` seconds (all channels together) rises by ``rise`` dB over the highest of the 15 ms that
    end 5 ms before, to ``floor`` dBFS or more. Of rises closer than ``apart`` seconds the first counts.

    Args:
        waveform: ``(channels, samples)``.
        rate: samples per second.
    """
    size = max(1, round(hop * rate))
    frames = waveform[:, : waveform.shape[1] // size * size].unflatten(1, (-1, size))
    level = (10 * torch.log10(frames.double().square().mean(dim=(0, 2)) + 1e-9)).tolist()
    found: list[float] = []
    for i, now in enumerate(level):
        before = max(level[max(0, i - 4) : max(0, i - 1)], default=-90.0)
        if now >= floor and now - before >= rise and (not found or i * hop - found[-1] >= apart):
            found.append(i * hop)
    return found


def match_onsets(output: list[float], target: list[float], tolerance: float = 0.025) -> tuple[int, int]:
    """How many of ``target`` are found within ``tolerance`` seconds, and how many of ``output`` belong to none.

    Each onset is used once, earliest first.
    """
    free = sorted(output)
    hits = 0
    for time in sorted(target):
        near = next((t for t in free if abs(t - time) <= tolerance), None)
        if near is not None:
            free.remove(near)
            hits += 1
    return hits, len(free)


def level_db(waveform: Tensor) -> float:
    """Root mean square level in dB relative to full scale; -120 for digital silence."""
    return 10 * math.log10(max(float(waveform.double().square().mean()), 1e-12))
