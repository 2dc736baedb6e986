"""Distances to the nearest clip: zero to itself, the closed form to a known difference."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.world.memorisation import TrainingClips
from selfflow_tokenizers.media import Audio, Video


def _clip(grey: int, hertz: float) -> tuple[Video, Audio]:
    wave = 0.5 * torch.sin(torch.arange(33_000) * 6.2832 * hertz / 16_000)
    return Video(torch.full((33, 64, 64, 3), grey, dtype=torch.uint8), 16.0), Audio(wave.repeat(2, 1), 16_000)


def test_the_nearest_clip_counts() -> None:
    training = TrainingClips([_clip(10, 300.0), _clip(200, 2000.0)])
    same = training.nearest(*_clip(200, 300.0))
    assert same.picture == 0 and same.sound == 0  # each has its own nearest
    other = training.nearest(*_clip(61, 900.0))
    assert other.picture == pytest.approx(51 / 255, abs=1e-6) and other.sound > 0.05
    video, audio = _clip(10, 300.0)
    with pytest.raises(UserError, match="--train-clips 0"):
        training.nearest(Video(video.frames[:9], 16.0), audio)
