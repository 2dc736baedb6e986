"""PSNR and SSIM of single pictures against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.evaluation.ssim import ssim
from selfflow_robotics.report_card.picture_errors import FLOOR, psnr, squared_error, ssim_of_each


@given(st.tuples(*[st.integers(-40, 40)] * 3))
def test_a_constant_shift_has_its_errors_in_closed_form(shift: tuple[int, int, int]) -> None:
    truth = np.random.default_rng(0).integers(60, 190, (2, 3, 4, 3)).astype(np.uint8)
    output = (truth + np.array(shift)).astype(np.uint8)
    rgb, gray = squared_error(output, truth, "rgb"), squared_error(output, truth, "gray")
    assert rgb.shape == gray.shape == (2, 3, 4)
    assert rgb == pytest.approx(np.mean(np.square(shift)))
    assert gray == pytest.approx((0.299 * shift[0] + 0.587 * shift[1] + 0.114 * shift[2]) ** 2, abs=1e-6)


def test_psnr_and_its_ceiling() -> None:
    assert psnr(np.array([255.0**2, 1.0])) == pytest.approx([0, 20 * np.log10(255)])
    assert psnr(np.array([0.0, FLOOR])) == pytest.approx([58.92, 58.92], abs=0.01)
    assert np.isnan(psnr(np.array([np.nan])))


def test_ssim_in_colour_is_the_mean_over_channels() -> None:
    random = np.random.default_rng(0)
    truth, output = (random.integers(0, 256, (2, 16, 20, 3)).astype(np.uint8) for _ in range(2))
    grey = [
        [ssim(*(torch.from_numpy(np.repeat(x[t, ..., c : c + 1], 3, -1)) for x in (output, truth))) for c in range(3)]
        for t in range(2)
    ]
    assert ssim_of_each(output, truth, "rgb") == pytest.approx(np.mean(grey, axis=1))
    whole = ssim(torch.from_numpy(output), torch.from_numpy(truth))
    assert ssim_of_each(output, truth, "gray").mean() == pytest.approx(whole)
    assert ssim_of_each(truth, truth, "rgb") == pytest.approx([1, 1])
