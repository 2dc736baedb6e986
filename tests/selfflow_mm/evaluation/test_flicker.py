"""Flicker is nothing but the change of the error over time."""

from __future__ import annotations

import math

import pytest
import torch

from selfflow_mm.evaluation.flicker import flicker


def moving(frames: int = 6) -> torch.Tensor:
    clip = torch.full((frames, 8, 12, 3), 60, dtype=torch.uint8)
    for t in range(frames):
        clip[t, :, t : t + 3] = 180
    return clip


def test_a_perfect_and_a_still_error_do_not_flicker() -> None:
    clip = moving()
    still = torch.randint(0, 60, clip.shape[1:], dtype=torch.uint8)
    assert flicker(clip, clip) == 0
    assert flicker(clip + still, clip) == 0


def test_an_error_that_comes_and_goes() -> None:
    clip = moving()
    blinking = clip.clone()
    blinking[::2] += 10  # every step changes the error by 10 levels everywhere
    assert flicker(blinking, clip) == pytest.approx(10.0)
    blinking[::2, :4] -= 10  # now only in the lower half
    assert flicker(blinking, clip) == pytest.approx(5.0)


def test_frozen_motion_counts() -> None:
    clip = moving()
    expected = float((clip[1:].float() - clip[:-1].float()).abs().mean())
    assert flicker(clip[:1].expand_as(clip), clip) == pytest.approx(expected)


def test_one_frame_has_none() -> None:
    assert math.isnan(flicker(moving(1), moving(1)))
