"""SSIM against scipy's Gaussian filter and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from selfflow_mm.evaluation.ssim import luma, ssim


def by_scipy(x: np.ndarray, y: np.ndarray) -> float:
    """The definition (Wang et al. 2004, eq. 13) with scipy's filter, cropped to places that see no border."""

    def blur(a: np.ndarray) -> np.ndarray:
        return gaussian_filter(a, 1.5, truncate=5 / 1.5)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    found = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(found[5:-5, 5:-5].mean())


@pytest.mark.parametrize("size", [(11, 11), (24, 37), (64, 15)])
@pytest.mark.parametrize("noise", [5.0, 60.0])
def test_ssim_is_the_definition(size: tuple[int, int], noise: float) -> None:
    target = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    output = (target.float() + noise * torch.randn(target.shape)).clamp(0, 255).to(torch.uint8)
    expected = np.mean([by_scipy(luma(a).numpy(), luma(b).numpy()) for a, b in zip(output, target, strict=True)])
    assert ssim(output, target) == pytest.approx(float(expected), abs=1e-9)


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    a, b = (torch.full((16, 16, 3), level, dtype=torch.uint8) for level in (100, 120))
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))


def test_equal_pictures_and_pictures_that_are_too_small() -> None:
    picture = torch.randint(0, 256, (12, 12, 3), dtype=torch.uint8)
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert math.isnan(ssim(picture[:10], picture[:10]))


def test_large_pictures_go_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    target = torch.randint(0, 256, (5, 20, 20, 3), dtype=torch.uint8)
    output = target.flip(0)
    whole = ssim(output, target)
    monkeypatch.setattr("selfflow_mm.evaluation.ssim._AT_ONCE", 2 * 20 * 20)
    assert ssim(output, target) == pytest.approx(whole)


def test_luma_of_the_primaries() -> None:
    primaries = torch.eye(3).mul(255).to(torch.uint8)
    assert luma(primaries).tolist() == pytest.approx([76.245, 149.685, 29.07])
