"""Losses of tokenizers: zero where they should be, closed forms, what they weigh."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.training.tokenizer_losses import (
    AudioLossConfig,
    VideoLossConfig,
    audio_loss,
    moving_pixels,
    video_loss,
)


def test_nothing_is_lost_on_equal_media() -> None:
    frames, wave = torch.rand(2, 5, 16, 16, 3), torch.rand(2, 2, 4096) - 0.5
    assert all(float(v) == 0 for v in video_loss(frames, frames, VideoLossConfig()).values())
    assert all(float(v) == 0 for v in audio_loss(wave, wave, AudioLossConfig()).values())


def test_a_constant_error_has_no_gradient_term() -> None:
    frames = torch.rand(1, 5, 16, 16, 3)
    terms = video_loss(frames + 0.1, frames, VideoLossConfig(l1=1, l2=1, gradient=1))
    assert float(terms["l1"]) == pytest.approx(0.1, rel=1e-4)
    assert float(terms["l2"]) == pytest.approx(0.01, rel=1e-4)
    assert float(terms["gradient"]) == pytest.approx(0, abs=1e-6)


def test_moving_pixels_weigh_more() -> None:
    target = torch.zeros(1, 9, 16, 16, 3)
    for t in range(9):
        target[0, t, 5, t] = 1.0
    mask = moving_pixels(target, 0.2)
    assert int(mask.sum()) == 9
    config = VideoLossConfig(l1=1, l2=0, gradient=0, moving=6)
    on, off = (float(video_loss(target + 0.1 * m, target, config)["l1"]) for m in (mask, ~mask))
    pixels = mask.numel()
    total = pixels + 6 * 9
    assert on == pytest.approx(0.1 * 7 * 9 / total, rel=1e-4)
    assert off == pytest.approx(0.1 * (pixels - 9) / total, rel=1e-4)


def test_still_pictures_are_weighed_alike() -> None:
    assert not moving_pixels(torch.rand(2, 1, 8, 8, 3), 0.2).any()


def test_magnitudes_ignore_phase_and_complex_spectra_do_not() -> None:
    time = torch.arange(8192) / 16000
    target = torch.sin(2 * torch.pi * 1000 * time).expand(1, 2, -1)
    shifted = torch.cos(2 * torch.pi * 1000 * time).expand(1, 2, -1)
    terms = audio_loss(shifted, target, AudioLossConfig(complex=1, magnitude=1))
    # What magnitudes hear is the reflection at the two ends, where phase becomes shape.
    assert terms["magnitude"] < 0.15 * terms["complex"]


def test_swapped_channels_are_an_error() -> None:
    wave = torch.zeros(1, 2, 4096)
    wave[0, 0] = torch.rand(4096) - 0.5
    terms = audio_loss(wave.flip(1), wave, AudioLossConfig())
    assert all(float(v) > 0.01 for v in terms.values())


def test_overlap_sets_the_hop_and_keeps_the_scale() -> None:
    target, output = torch.rand(2, 1, 2, 8192) - 0.5
    two, four = (audio_loss(output, target, AudioLossConfig(overlap=n)) for n in (2, 4))
    for name in ("complex", "magnitude", "log"):
        assert float(two[name]) == pytest.approx(float(four[name]), rel=0.05)
        assert float(two[name]) != float(four[name])
    with pytest.raises(UserError, match="overlap"):
        AudioLossConfig(overlap=3)


@pytest.mark.parametrize("windows", [(), (6,), (30,)])
def test_impossible_windows(windows: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="windows"):
        AudioLossConfig(windows=windows)
