"""Measures of reconstructions against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from selfflow_mm.evaluation.reconstruction import level_db, match_onsets, moving, onsets, psnr, si_sdr


def test_psnr_of_a_constant_error() -> None:
    target = torch.full((4, 8, 8, 3), 100, dtype=torch.uint8)
    assert psnr(target + 5, target) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(target, target) == 100.0


def test_psnr_of_chosen_pixels() -> None:
    target = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    output = target.clone()
    output[:, :2] = 10
    chosen = torch.zeros(2, 4, 4, 1, dtype=torch.bool)
    chosen[:, :2] = True
    assert psnr(output, target, chosen) == pytest.approx(20 * math.log10(25.5))
    assert psnr(output, target, ~chosen) == 100.0
    assert math.isnan(psnr(output, target, torch.zeros_like(chosen)))


def test_moving_pixels_are_those_of_the_object() -> None:
    frames = torch.full((9, 8, 9, 3), 90, dtype=torch.uint8)
    for t in range(9):
        frames[t, 3, t] = 200
    expected = torch.zeros(9, 8, 9, dtype=torch.bool)
    expected[range(9), 3, range(9)] = True
    assert torch.equal(moving(frames)[..., 0], expected)


@pytest.mark.parametrize("decibels", [-3.0, 0.0, 10.0, 30.0])
def test_si_sdr_of_orthogonal_noise(decibels: float) -> None:
    time = torch.arange(16000, dtype=torch.float64) / 16000
    target = torch.sin(2 * math.pi * 440 * time)[None]
    noise = torch.cos(2 * math.pi * 440 * time)[None] * 10 ** (-decibels / 20)
    assert si_sdr(0.3 * (target + noise), target) == pytest.approx(decibels, abs=1e-3)


def test_si_sdr_ends() -> None:
    target = torch.rand(2, 100)
    assert si_sdr(2 * target, target) == 100.0
    assert math.isnan(si_sdr(target, torch.zeros(2, 100)))


def strikes(times: list[float], level: float = 0.5) -> torch.Tensor:
    wave = torch.zeros(2, 32000)
    time = torch.arange(32000) / 16000
    for start in times:
        after = time >= start
        ring = level * torch.exp(-(time - start) * 20) * torch.sin(2 * math.pi * 700 * (time - start))
        wave += torch.where(after, ring, torch.zeros(()))
    return wave


@pytest.mark.parametrize("times", [[], [0.0], [0.5], [0.2, 0.9, 1.6]])
def test_onsets_are_found_where_they_are(times: list[float]) -> None:
    found = onsets(strikes(times), 16000)
    assert len(found) == len(times)
    assert all(abs(a - b) <= 0.01 for a, b in zip(found, times, strict=True))


def test_what_is_too_quiet_is_no_onset() -> None:
    assert onsets(strikes([0.5], level=1e-3), 16000) == []


def test_onsets_are_matched_once_each() -> None:
    assert match_onsets([0.1, 0.51, 0.52], [0.1, 0.5, 0.9]) == (2, 1)
    assert match_onsets([], [0.1]) == (0, 0)
    assert match_onsets([0.2], []) == (0, 1)


def test_levels() -> None:
    assert level_db(torch.ones(2, 10)) == 0.0
    assert level_db(torch.full((1, 10), 0.1)) == pytest.approx(-20)
    assert level_db(torch.zeros(1, 10)) == -120.0
