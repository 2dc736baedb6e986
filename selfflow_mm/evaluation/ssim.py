"""Structural similarity of pictures, as defined by Wang, Bovik, Sheikh and Simoncelli (2004)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

#: Side and deviation of the Gaussian window, in pixels; K1 and K2; the largest value of a pixel.
WINDOW, SIGMA, K1, K2, PEAK = 11, 1.5, 0.01, 0.03, 255.0
#: Rec. ITU-R BT.601 luma of R'G'B'.
_LUMA = (0.299, 0.587, 0.114)
_AT_ONCE = 2**22  # pixels whose statistics are held in memory at a time


def ssim(output: Tensor, target: Tensor) -> float:
    """Mean structural similarity of the luma of uint8 pixels ``(..., H, W, 3)``; 1 stands for equality.

    Wang et al. 2004, eq. 13, averaged over all places where the whole 11 x 11 Gaussian window (deviation 1.5) lies in
    the picture, and over frames; K1 = 0.01, K2 = 0.03. Pictures are not scaled down first. NaN for pictures smaller
    than the window.
    """
    if output.shape != target.shape:
        raise ValueError(f"pictures of {tuple(output.shape)} and {tuple(target.shape)} cannot be compared")
    return float(ssim_of_planes(*(luma(x).view(-1, *x.shape[-3:-1]) for x in (output, target))).mean())


def ssim_of_planes(output: Tensor, target: Tensor) -> Tensor:
    """The same for each of N planes of one channel: ``(N, H, W)`` on a scale to 255 -> ``(N,)`` float64."""
    _, height, width = target.shape
    if min(height, width) < WINDOW:
        return torch.full((len(target),), math.nan, dtype=torch.float64)
    pieces = (x.double().split(max(1, _AT_ONCE // (height * width))) for x in (output, target))
    return torch.cat([_map(x, y).mean(dim=(1, 2)) for x, y in zip(*pieces, strict=True)])


def luma(pixels: Tensor) -> Tensor:
    """Pixels ``(..., 3)`` -> float64 luma ``(...)`` on the same scale."""
    return pixels.double() @ torch.tensor(_LUMA, dtype=torch.float64, device=pixels.device)


def _map(x: Tensor, y: Tensor) -> Tensor:
    """The similarity at each place of pictures ``(N, H, W)`` -> ``(N, H - 10, W - 10)``."""
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return similar / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))


def _blur(x: Tensor) -> Tensor:
    """The Gaussian window's weighted mean, rows and then columns (the window is their product)."""
    distance = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-(distance**2) / (2 * SIGMA**2))
    window = window / window.sum()
    x = F.conv2d(x[:, None], window.view(1, 1, -1, 1))
    return F.conv2d(x, window.view(1, 1, 1, -1))[:, 0]
