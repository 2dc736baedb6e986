"""Errors of pictures, one number per picture: PSNR and SSIM, in colour and in gray, over all pixels or over some."""

from __future__ import annotations

import numpy as np

__all__ = ["COLOURS", "FLOOR", "psnr", "squared_error", "ssim_of_each"]

COLOURS = ("rgb", "gray")
#: Squared grey levels: the error that rounding to whole levels makes by itself. Without it a picture that equals the
#: truth would have a PSNR of infinity, and one such picture would decide every mean. It is 58.9 dB.
FLOOR = 1 / 12


def psnr(mean_squared_error: np.ndarray) -> np.ndarray:
    """10 log10(255^2 / max(MSE, 1/12)) in dB; NaN stays NaN."""
    return 10 * np.log10(255.0**2 / np.maximum(mean_squared_error, FLOOR))


def squared_error(output: np.ndarray, truth: np.ndarray, colour: str) -> np.ndarray:
    """Squared difference at each pixel in squared grey levels: ``(..., H, W, 3)`` uint8 -> ``(..., H, W)`` float64.

    ``rgb``: the mean over the channels. ``gray``: of the luma of Rec. ITU-R BT.601, not rounded.
    """
    if colour == "gray":
        return (_luma(output) - _luma(truth)) ** 2
    difference = output.astype(np.float32) - truth.astype(np.float32)
    return np.einsum("...c,...c->...", difference, difference, dtype=np.float64) / 3


def ssim_of_each(output: np.ndarray, truth: np.ndarray, colour: str) -> np.ndarray:
    """``(T, H, W, 3)`` uint8 -> ``(T,)`` structural similarity (:mod:`selfflow_mm.evaluation.ssim`).

    ``gray``: of the luma; ``rgb``: the mean over the channels. NaN for pictures smaller than 11 x 11.
    """
    import torch

    from selfflow_mm.evaluation.ssim import ssim_of_planes

    if colour == "gray":
        return ssim_of_planes(*(torch.from_numpy(_luma(x)) for x in (output, truth))).numpy()
    planes = (torch.from_numpy(np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3]).copy()) for x in (output, truth))
    return ssim_of_planes(*planes).view(-1, 3).mean(dim=1).numpy()


def _luma(pictures: np.ndarray) -> np.ndarray:
    import torch

    from selfflow_mm.evaluation.ssim import luma

    return luma(torch.from_numpy(pictures.copy())).numpy()
